"""From a layer's map to a heatmap the size of the image: ReLU, upsampling, normalisation."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def upsample(maps: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Resize (N, h, w) maps to (N, H, W), corners not aligned; float32.

    Interpolation is linear and separable, so it is two products with matrices of its weights. On a
    CPU that takes a tenth of the time of interpolate itself (bicubic, 7 x 7 to 224 x 224); the
    results differ by rounding (1e-6 of the largest value). A map that holds NaN or infinity
    becomes NaN all over.
    """
    maps = maps.float()
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if mode == "nearest":
        return F.interpolate(maps[:, None], size=size, mode="nearest")[:, 0]
    down, across = (
        _weights(small, large, mode).to(maps.device)
        for small, large in zip(maps.shape[-2:], size, strict=True)
    )
    return separable(maps, down, across)


def separable(maps: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Filter maps (N, h, w) along both axes: down @ map @ across.T for each map.

    Each map is multiplied on its own: the rounding of one large product would depend on the batch
    size.

    Args:
        maps: (N, h, w).
        down: weights along the height, (H, h).
        across: weights along the width, (W, w).

    Returns:
        (N, H, W).
    """
    tall = torch.bmm(down.expand(len(maps), -1, -1), maps)
    return torch.bmm(tall, across.T.expand(len(maps), -1, -1))


@lru_cache(maxsize=512)  # a data set's images have some hundreds of sizes
@torch.inference_mode(False)  # cached, so it must be usable outside of inference mode too
def _weights(small: int, large: int, mode: str) -> Tensor:
    """Return the (large, small) interpolation matrix of one axis, made by resizing unit vectors."""
    unit = torch.eye(small)[None, None]
    return F.interpolate(unit, size=(large, small), mode=mode, align_corners=False)[0, 0]


def normalize_by_max(maps: Tensor) -> Tensor:
    """Divide each map of (N, H, W) by its maximum; nowhere-positive maps become zeros.

    A map that holds NaN or infinity stays one that is not finite: it is undefined, not empty.
    No epsilon: a small constant in the denominator dims small maps and is lost in half precision.
    """
    top = maps.amax((-2, -1), keepdim=True)
    empty = top <= 0  # false for NaN
    return (maps / top.where(~empty, top.new_ones(()))).masked_fill(empty, 0.0)


def normalize_min_max(maps: Tensor) -> Tensor:
    """Scale each map of (N, H, W) to [0, 1] by its minimum and maximum; flat maps become zeros."""
    low = maps.amin((-2, -1), keepdim=True)
    return normalize_by_max(maps - low)
