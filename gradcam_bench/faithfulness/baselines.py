"""What a perturbation replaces pixels with, and the order in which it replaces them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from gradcam_bench.cam.upsampling import separable
from gradcam_bench.errors import UserError, one_of
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.names import Baseline, Ties
from gradcam_bench.seeds import image_rng

BLUR_SIZE, BLUR_SIGMA = 11, 5.0  # RISE's klen and ksig


def baseline(
    name: str,
    images: Tensor,
    *,
    preprocessing: Preprocessing,
    image_ids: Sequence[str],
    seed: int,
    key: str = "a baseline",
) -> Tensor:
    """Return what replaces the pixels of normalised images (N, 3, H, W), in the same shape.

    Args:
        name: "zeros" (0 in normalised space, the mean colour of ImageNet for its models), "black"
            (0 in the image), "blur" (RISE's, see `rise_blur`), "mean" (the image's own mean
            colour) or "noise" (uniform in the image's range, per pixel and channel).
        images: normalised, (N, 3, H, W).
        preprocessing: how the images were normalised.
        image_ids: ids of the images, N of them; each image's noise depends on its id and `seed`.
        seed: of the noise.
        key: the config key that holds the name, for the error message.

    Raises:
        UserError: an unknown name.
    """
    kind = one_of(Baseline, name, key)
    if kind is Baseline.zeros:
        return torch.zeros_like(images)
    if kind is Baseline.blur:
        return rise_blur(images)
    if kind is Baseline.mean:
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if kind is Baseline.black:
        return preprocessing.normalize(torch.zeros_like(images, dtype=torch.uint8))
    shape = images.shape[1:]
    drawn = [
        image_rng(seed, image_id, "baseline").integers(0, 256, shape, dtype=np.uint8)
        for image_id in image_ids
    ]
    return preprocessing.normalize(torch.from_numpy(np.stack(drawn)).to(images.device))


def rise_blur(images: Tensor) -> Tensor:
    """Blur normalised images (N, 3, H, W) as RISE does for the start of insertion.

    The kernel is what scipy's gaussian_filter (sigma 5, mode "reflect") makes of a centred delta in
    an 11 x 11 window: reflection makes it nearly a box. Zero padding 5, in normalised space. The
    kernel is separable: two products with banded matrices take an eighth of conv2d's time on a
    CPU and differ from it by rounding (2e-7).
    """
    down, across = (_blur_matrix(side).to(images) for side in images.shape[-2:])
    return separable(images.flatten(0, 1), down, across).view_as(images)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # cached, so it must be usable outside of inference mode too
def _blur_matrix(side: int) -> Tensor:
    """Return the (side, side) float64 matrix that blurs one axis as `rise_blur` says."""
    delta = np.zeros(BLUR_SIZE)
    delta[BLUR_SIZE // 2] = 1
    kernel = ndimage.gaussian_filter1d(delta, BLUR_SIGMA)
    distance = np.arange(side)[:, None] - np.arange(side)
    near = np.abs(distance) <= BLUR_SIZE // 2
    weights = kernel[np.where(near, distance, 0) + BLUR_SIZE // 2]
    return torch.from_numpy(np.where(near, weights, 0.0))


def n_points(size: tuple[int, int], steps: int) -> tuple[int, int]:
    """Return (pixels a step, points of a curve) for an (H, W) image.

    A step changes ceil(H*W / steps) pixels. The points of a curve are one per step and one for the
    unchanged image: ceil(H*W / step) + 1.

    Raises:
        UserError: steps is not in [1, H*W].
    """
    pixels = size[0] * size[1]
    if not 1 <= steps <= pixels:
        raise UserError(f"faithfulness.steps expects 1 to {pixels} (H*W), got {steps}.")
    step = math.ceil(pixels / steps)
    return step, math.ceil(pixels / step) + 1


def pixel_rank(
    heatmaps: Tensor, *, ties: str = "stable", image_ids: Sequence[str] = (), seed: int = 0
) -> Tensor:
    """Return the place of each pixel in descending order of its heatmap, from 0.

    Args:
        heatmaps: (N, ..., H, W), finite.
        ties: equal pixels go in row-major order ("stable"), in the reverse ("reversed"), or in an
            order drawn per image from (seed, image_id) ("random").
        image_ids: ids of the images, N of them; only "random" needs them.
        seed: of the order that "random" draws.

    Returns:
        (N, ..., H, W) int64.

    Raises:
        UserError: an unknown rule.
    """
    rule = one_of(Ties, ties, "faithfulness.ties")
    flat = heatmaps.flatten(-2)
    pixels = flat.shape[-1]
    first = torch.arange(pixels, device=flat.device).expand_as(flat)  # who goes first on ties
    if rule is Ties.reversed:
        first = first.flip(-1)
    elif rule is Ties.random:
        drawn = [image_rng(seed, image_id, "ties").permutation(pixels) for image_id in image_ids]
        shape = (len(drawn), *[1] * (flat.ndim - 2), pixels)
        first = torch.from_numpy(np.stack(drawn)).to(flat.device).view(shape).expand_as(flat)
    order = flat.gather(-1, first).argsort(dim=-1, descending=True, stable=True)
    order = first.gather(-1, order)
    rank = torch.empty_like(order)
    rank.scatter_(-1, order, torch.arange(pixels, device=flat.device).expand_as(order))
    return rank.view_as(heatmaps)


def progressively(old: Tensor, new: Tensor, changes: Tensor, ks: Tensor, out: Tensor) -> None:
    """Write into `out`, for each k, `old` with the pixels where changes < k taken from `new`.

    Args:
        old: the image before any step, (C, H, W) float32.
        new: the image after all steps, (C, H, W) float32.
        changes: the step at which each pixel changes, from 0, (H, W) int32.
        ks: the numbers of steps after which an image is wanted, (K,) int32.
        out: where the images are written, (K, C, H, W) float32.
    """
    torch.where((changes < ks[:, None, None])[:, None], new, old, out=out)
