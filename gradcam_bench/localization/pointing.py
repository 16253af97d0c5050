"""The pointing game: whether a heatmap's maximum lies on the object."""

from __future__ import annotations

import math

import numpy as np

from gradcam_bench.localization.boxes import is_degenerate, pixel_regions


def pointing_hit(heatmap: np.ndarray, boxes: np.ndarray, *, tolerance: float = 15) -> float:
    """Play the pointing game: return 1.0 for a hit, 0.0 for a miss, NaN without boxes.

    Args:
        heatmap: (H, W) at the image's original size; its maximum, the first in row-major order on
            ties, is the point.
        boxes: (B, 4) xyxy half-open in pixels of the original image.
        tolerance: distance in pixels; the point is a hit if it lies strictly nearer than this to
            some pixel of any box.

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
    # Along each axis the distance to a box is that to its first or last pixel, or 0 between them,
    # so the nearest pixel is found without going through all of them.
    nearest = min(
        sum(max(s.start - p, p - (s.stop - 1), 0) ** 2 for s, p in zip(region, point, strict=True))
        for region in regions
    )
    return float(nearest < tolerance**2)
