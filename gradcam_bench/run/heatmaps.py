"""The heatmap that a localization protocol thresholds."""

from __future__ import annotations

from torch import Tensor

from gradcam_bench.cam.upsampling import normalize_by_max, normalize_min_max, upsample
from gradcam_bench.localization.protocol import Protocol


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
        # Bicubic weights add up to 1 but for rounding, so a flat map is known before upsampling.
        flat = raw.amax((-2, -1), keepdim=True) == raw.amin((-2, -1), keepdim=True)
        maps = normalize_min_max(maps).masked_fill(flat, 0.0)
    return maps
