"""Pixel average precision: how well a heatmap's values rank the pixels of masks.

Images are counted one by one into histograms, which add up to those of the set: batches, shards
and order change nothing. The histograms are stored, so that a set can be resampled later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradcam_bench.errors import UserError
from gradcam_bench.localization.boxes import is_degenerate

INTERVAL = 0.001
"""Step of the thresholds, of the training code of Choe et al.

256 levels of 8 bits would be a quarter of the bytes, but lower PxAP by up to 0.28 points (Grad-CAM,
LayerCAM and Eigen-CAM at four layers each of two networks), because their bins are wider.
"""

_BINS = len(np.arange(0, 1, INTERVAL)) + 1


def score_histogram(
    heatmap: np.ndarray,
    mask: np.ndarray,
    *,
    ignore: np.ndarray | None = None,
    interval: float = INTERVAL,
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
    edges = np.append(np.arange(0, 1, interval), [1.0, math.inf])
    score = np.zeros(heatmap.shape) if is_degenerate(heatmap) else np.clip(heatmap, 0, 1)
    # The quotient may be one bin off; np.searchsorted never is, but takes 3 to 9 times as long.
    place = (score / interval).astype(np.intp)
    place -= score < edges[place]
    place += score >= edges[place + 1]
    bins = len(edges) - 1
    place += bins * mask
    counted = place.ravel() if ignore is None else place[mask | ~ignore]
    return np.bincount(counted, minlength=2 * bins).reshape(2, bins)


def pixel_average_precision(histogram: np.ndarray) -> float:
    """Return PxAP in [0, 1] of a (sum of) `score_histogram`; NaN where no mask holds a pixel.

    References:
        Choe et al., CVPR 2020, section 4.2: the sum over thresholds, from the highest down, of
        the precision at each times what recall it adds. Pixels of all images count alike.
    """
    return float(average_precision(np.asarray(histogram, dtype=np.float64)))


def average_precision(histograms: np.ndarray) -> np.ndarray:
    """Return PxAP of each of (..., 2, bins) histograms."""
    false, true = histograms[..., 0, ::-1], histograms[..., 1, ::-1]
    found = true.cumsum(axis=-1)
    called = found + false.cumsum(axis=-1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    total = found[..., -1]
    nan = np.full_like(total, math.nan)
    return np.divide((precision * true).sum(axis=-1), total, out=nan, where=total > 0)


def to_bytes(histogram: np.ndarray) -> bytes | None:
    """Return a histogram at `INTERVAL` as a row stores it; None where the mask holds no pixel."""
    if not histogram[1].any():
        return None
    return histogram.astype("<u2" if histogram.sum() < 2**16 else "<u4").tobytes()


def from_bytes(stored: Sequence[bytes]) -> np.ndarray:
    """Return (n, 2, bins) histograms of n >= 1 rows of one run."""
    kind = f"<u{len(stored[0]) // (2 * _BINS)}"
    return np.frombuffer(b"".join(stored), dtype=kind).reshape(len(stored), 2, _BINS)
