"""Pixel average precision: how well a heatmap's values rank the pixels of masks.

Images are counted one by one into histograms, which add up to those of the set: batches, shards
and order change nothing.
"""

from __future__ import annotations

import math

import numpy as np

from gradcam_bench.errors import UserError
from gradcam_bench.localization import is_degenerate


def score_histogram(
    heatmap: np.ndarray,
    mask: np.ndarray,
    *,
    ignore: np.ndarray | None = None,
    interval: float = 0.001,
) -> np.ndarray:
    """Count the pixels outside and inside a mask by their score: (2, T + 1) int64.

    Args:
        heatmap: (H, W), normalised to [0, 1]; values outside are cut. A degenerate heatmap counts
            as zeros: it ranks nothing.
        mask: (H, W) bool.
        ignore: (H, W) bool, pixels that count for neither; what the mask holds is kept.
        interval: width of the T bins of [0, 1); a last bin holds the ones.

    Raises:
        UserError: the sizes differ.
    """
    for name, given in (("mask", mask), ("ignore", ignore)):
        if given is not None and given.shape != heatmap.shape:
            raise UserError(
                f"score_histogram: expected a {name} of the heatmap's size {heatmap.shape}, "
                f"got {given.shape}"
            )
    edges = np.append(np.arange(0, 1, interval), 1.0)
    score = np.zeros(heatmap.shape) if is_degenerate(heatmap) else np.clip(heatmap, 0, 1)
    place = np.searchsorted(edges, score, side="right") - 1
    outside = ~mask if ignore is None else ~(mask | ignore)
    groups = (place[outside], place[mask])
    return np.stack([np.bincount(group, minlength=len(edges)) for group in groups])


def pixel_average_precision(histogram: np.ndarray) -> float:
    """Return PxAP in [0, 1] of a (sum of) `score_histogram`; NaN where no mask holds a pixel.

    References:
        Choe et al., CVPR 2020, section 4.2: the sum over thresholds, from the highest down, of
        the precision at each times what recall it adds. Pixels of all images count alike.
    """
    false, true = np.asarray(histogram, dtype=np.float64)[:, ::-1]
    if not true.sum():
        return math.nan
    found = np.cumsum(true)
    called = found + np.cumsum(false)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return float((precision * true).sum() / true.sum())
