"""The pointing game."""

from __future__ import annotations

import math

import numpy as np

from gradcam_bench.localization.boxes import is_degenerate, pixel_regions


def pointing_hit(heatmap: np.ndarray, boxes: np.ndarray, *, tolerance: float = 15) -> float:
    """Play the pointing game: 1.0 for a hit, 0.0 for a miss, NaN without boxes.

    Args:
        heatmap: (H, W) at the image's original size; its first maximum in row-major order points.
        boxes: (B, 4) xyxy half-open in the image's original pixels.
        tolerance: pixels; a hit if some pixel of the boxes' union lies strictly nearer.

    References:
        Zhang et al., "Top-down Neural Attention by Excitation Backprop", IJCV 2018, section 4.2,
        with the semantics of TorchRay's PointingGame: the distance is Euclidean, between pixel
        indices, and strict. Departure: a degenerate map is a miss, wherever its argmax falls.
    """
    regions = pixel_regions(boxes, (heatmap.shape[0], heatmap.shape[1]))
    if not regions:
        return math.nan
    if is_degenerate(heatmap):
        return 0.0
    point = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    # The nearest pixel of a box lies straight or at a corner; no pixel needs to be listed.
    nearest = min(
        sum(max(s.start - p, p - (s.stop - 1), 0) ** 2 for s, p in zip(region, point, strict=True))
        for region in regions
    )
    return float(nearest < tolerance**2)
