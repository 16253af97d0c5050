"""From a layer's map to a heatmap the size of the image: ReLU, upsampling, normalisation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gradcam_bench.protocols import Protocol


def upsample(maps: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Resize (N, h, w) maps to (N, H, W), corners not aligned; float32."""
    maps = maps.float()
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if mode == "nearest":
        return F.interpolate(maps[:, None], size=size, mode="nearest")[:, 0]
    return F.interpolate(maps[:, None], size=size, mode=mode, align_corners=False)[:, 0]


def normalize_by_max(maps: Tensor) -> Tensor:
    """Divide each map of (N, H, W) by its maximum; nowhere-positive maps become zeros.

    No epsilon: a small constant in the denominator dims small maps and is lost in half precision.
    """
    top = maps.amax((-2, -1), keepdim=True)
    positive = top > 0
    return (maps / top.where(positive, top.new_ones(()))).where(positive, top.new_zeros(()))


def normalize_min_max(maps: Tensor) -> Tensor:
    """Scale each map of (N, H, W) to [0, 1] by its minimum and maximum; flat maps become zeros."""
    low = maps.amin((-2, -1), keepdim=True)
    return normalize_by_max(maps - low)


def heatmaps(raw: Tensor, size: tuple[int, int], protocol: Protocol) -> Tensor:
    """Return the heatmaps that a localization protocol thresholds.

    Args:
        raw: signed maps of a layer, (N, h, w); not-finite maps give not-finite heatmaps.
        size: (H, W) of the network's input.
        protocol: its `relu`, `upsampling` and `normalization` decide.

    Returns:
        (N, H, W) float32.
    """
    maps = raw.float()
    if protocol.relu == "before":
        maps = maps.relu()
    maps = upsample(maps, size, protocol.upsampling)
    if protocol.relu == "after":
        maps = maps.relu()
    if protocol.normalization == "max":
        maps = normalize_by_max(maps)
    elif protocol.normalization == "minmax":
        maps = normalize_min_max(maps)
    return maps
