"""ROAD: remove pixels without leaving a trace of where they were.

References:
    Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022,
    section 5 (noisy linear imputation), and the combined score of its common implementations:
    (least relevant first - most relevant first) / 2, averaged over the shares removed. Departure:
    pixels go by rank, so that ties (40 % of a map is exactly 0) cannot remove more than asked.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from gradcam_bench.faithfulness.baselines import pixel_rank
from gradcam_bench.faithfulness.target_scores import Explained, TargetScores
from gradcam_bench.seeds import image_rng

SHARES = (0.2, 0.4, 0.6, 0.8)

NOISE = 0.01

# A missing pixel is the weighted mean of its neighbours: sides 1/6, corners 1/12.
NEIGHBOURS = tuple(
    (dy, dx, 1 / 6 if dy == 0 or dx == 0 else 1 / 12)
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
    if (dy, dx) != (0, 0)
)


def impute(
    image: np.ndarray, removed: np.ndarray, *, noise: np.ndarray | float = 0.0
) -> np.ndarray:
    """Fill removed pixels with the weighted mean of their neighbours, filled ones included.

    Args:
        image: (C, H, W), normalised.
        removed: the pixels to fill, (H, W) bool.
        noise: added to the filled pixels, a number or (C, number removed).

    Returns:
        (C, H, W) float64. With every pixel removed there is nothing to fill from: zeros.
    """
    filled = image.astype(np.float64)
    missing = np.flatnonzero(removed)
    if not len(missing):
        return filled
    if len(missing) == removed.size:
        return np.zeros_like(filled)
    flat = filled.reshape(len(image), -1)
    matrix, right = _system(flat, missing, removed.shape)
    # The matrix is symmetric and positive definite; an ordering for such matrices takes four
    # fifths of the default's time (half the pixels of a 224 x 224 image).
    solved = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(right)
    flat[:, missing] = solved.T + noise
    return filled


def _system(
    flat: np.ndarray, missing: np.ndarray, shape: tuple[int, ...]
) -> tuple[sparse.csc_matrix, np.ndarray]:
    """Return the equations that make missing pixels the weighted means of their neighbours.

    Args:
        flat: (C, H*W).
        missing: (R,) positions of the missing pixels.
        shape: (H, W).

    Returns:
        The matrix, (R, R), and the right side, (R, C), to which the known pixels contribute.
    """
    height, width = shape
    place = np.full(height * width, -1)
    place[missing] = np.arange(len(missing))
    y, x = np.divmod(missing, width)
    diagonal = np.zeros(len(missing))
    right = np.zeros((len(missing), len(flat)))
    rows, columns, values = [], [], []
    for dy, dx, weight in NEIGHBOURS:
        inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        own = np.flatnonzero(inside)
        other = missing[own] + dy * width + dx
        diagonal[own] += weight
        unknown = place[other] >= 0
        rows.append(own[unknown])
        columns.append(place[other[unknown]])
        values.append(np.full(int(unknown.sum()), -weight))
        right[own[~unknown]] += weight * flat[:, other[~unknown]].T
    every = np.arange(len(missing))
    matrix = sparse.csc_matrix(
        (
            np.concatenate([*values, diagonal]),
            (np.concatenate([*rows, every]), np.concatenate([*columns, every])),
        )
    )
    return matrix, right


def road(
    explained: Explained, scores: TargetScores, *, ties: str = "stable", seed: int = 0
) -> dict[str, Tensor]:
    """Score ROAD: the probability after removing the most and the least relevant pixels.

    Args:
        explained: N images with M maps each.
        scores: gives the network's probability of one class per image.
        ties: the order of equal pixels, one of `names.Ties`.
        seed: of the imputation's noise and of ties "random", together with each image's id.

    Returns:
        road_morf and road_lerf, means over the shares removed, and road, half their difference
        (lerf - morf): (N, M) each.
    """
    images, ids = explained.images, explained.image_ids
    ranks = pixel_rank(explained.heatmaps, ties=ties, image_ids=ids, seed=seed).cpu().numpy()
    found: dict[str, Tensor] = {
        name: torch.empty(ranks.shape[:2], device=images.device)
        for name in ("road_morf", "road_lerf")
    }
    for i, j in np.ndindex(ranks.shape[:2]):
        image, rng = images[i].cpu().numpy(), image_rng(seed, ids[i], "road")
        for name, imputed in zip(found, road_images(image, ranks[i, j], rng), strict=True):
            batch = torch.from_numpy(imputed.astype(np.float32)).to(images.device)
            found[name][i, j] = scores(batch, explained.targets[i].expand(len(batch))).mean()
    return found | {"road": (found["road_lerf"] - found["road_morf"]) / 2}


def road_images(
    image: np.ndarray, rank: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the imputed images of one map.

    Args:
        image: (C, H, W), normalised.
        rank: (H, W), 0 for the most relevant pixel.
        rng: draws the noise.

    Returns:
        (shares, C, H, W) with the most relevant pixels removed, and with the least relevant.
    """
    pixels = rank.size
    most: list[np.ndarray] = []
    least: list[np.ndarray] = []
    for share in SHARES:
        count = round(share * pixels)
        for found, removed in ((most, rank < count), (least, rank >= pixels - count)):
            noise = NOISE * rng.standard_normal((len(image), int(removed.sum())))
            found.append(impute(image, removed, noise=noise))
    return np.stack(most), np.stack(least)
