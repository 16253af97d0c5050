"""How much of a heatmap lies in a region, and how its foreground overlaps with a mask."""

from __future__ import annotations

import math

import numpy as np

from gradcam_bench.errors import UserError
from gradcam_bench.localization.boxes import boxes_to_mask, foreground, is_degenerate
from gradcam_bench.localization.protocol import Protocol


def energy_in_region(heatmap: np.ndarray, region: np.ndarray) -> float:
    """Return the share of a heatmap's energy, the sum of its positive values, inside a region.

    Args:
        heatmap: (H, W); negative values count as 0.
        region: (B, 4) half-open xyxy boxes in pixels, whose union is the region, or an (H, W) bool
            mask.

    Returns:
        The share in [0, 1]; NaN where the region is empty or the heatmap degenerate.

    Raises:
        UserError: the mask does not have the heatmap's size.

    References:
        Wang et al., "Score-CAM", CVPRW 2020, section 4.2 (energy-based pointing game). Departure:
        the region is the union of all boxes of the class; the paper uses only images with one box.
    """
    size = (heatmap.shape[0], heatmap.shape[1])
    mask = region if region.dtype == bool else boxes_to_mask(region, size)
    _check_size(mask, heatmap, "energy_in_region")
    if not mask.any() or is_degenerate(heatmap):
        return math.nan
    positive = np.maximum(heatmap, 0).astype(np.float64)
    return float(positive[mask].sum() / positive.sum())


def mask_iou(heatmap: np.ndarray, mask: np.ndarray, protocol: Protocol) -> float:
    """Return the IoU of a heatmap's whole foreground (every component) with a mask.

    Args:
        heatmap: (H, W).
        mask: (H, W) bool, the ground truth.
        protocol: its fixed threshold decides what is foreground.

    Returns:
        The IoU in [0, 1]; NaN where the mask is empty, 0 where the heatmap is degenerate.

    Raises:
        UserError: the mask does not have the heatmap's size, or the protocol sweeps its threshold.
    """
    _check_size(mask, heatmap, "mask_iou")
    if not mask.any():
        return math.nan
    if is_degenerate(heatmap):
        return 0.0
    above = foreground(heatmap, protocol)
    return float((above & mask).sum() / (above | mask).sum())


def _check_size(mask: np.ndarray, heatmap: np.ndarray, name: str) -> None:
    if mask.shape != heatmap.shape:
        raise UserError(
            f"{name}: expected a mask of the heatmap's size {heatmap.shape}, got {mask.shape}; "
            "resize it to the network's input"
        )
