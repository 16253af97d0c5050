"""Pixel average precision: how well a heatmap's values rank the pixels of masks.

Each image's pixels are counted in a histogram of its own, and the sum of these is the histogram of
the set, so that batches, shards and order change nothing. Each image's histogram is stored, so that
a bootstrap can resample images later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradcam_bench.errors import UserError
from gradcam_bench.localization.boxes import is_degenerate

INTERVAL = 0.001
"""Step between thresholds, as in the training code of Choe et al.

The 256 levels of an 8-bit map would need a quarter of the bytes, but their wider bins lower PxAP by
up to 0.28 points (Grad-CAM, LayerCAM and Eigen-CAM, each at four layers of two networks).
"""

_BINS = len(np.arange(0, 1, INTERVAL)) + 1


def score_histogram(
    heatmap: np.ndarray,
    mask: np.ndarray,
    *,
    ignore: np.ndarray | None = None,
    interval: float = INTERVAL,
) -> np.ndarray:
    """Return histograms of the heatmap's values outside and inside a mask.

    Args:
        heatmap: (H, W), normalised to [0, 1]; values outside that range are clipped. A degenerate
            heatmap counts as all zeros, which ranks no pixel above another.
        mask: (H, W) bool, the ground truth.
        ignore: (H, W) bool, pixels that are not counted, unless they belong to the mask.
        interval: width of each of the T bins that divide [0, 1); one more bin holds the values 1.

    Returns:
        (2, T + 1) int64, numbers of pixels: first those outside the mask, then those inside.

    Raises:
        UserError: `mask` or `ignore` does not have the heatmap's size.
    """
    for name, given in (("mask", mask), ("ignore", ignore)):
        if given is not None and given.shape != heatmap.shape:
            raise UserError(
                f"score_histogram: expected a {name} of the heatmap's size {heatmap.shape}, "
                f"got {given.shape}"
            )
    edges = np.append(np.arange(0, 1, interval), [1.0, math.inf])
    score = np.zeros(heatmap.shape) if is_degenerate(heatmap) else np.clip(heatmap, 0, 1)
    # Rounding may put the quotient one bin too low or high, which the next two lines correct.
    # np.searchsorted needs no correction, but takes 3 to 9 times as long.
    place = (score / interval).astype(np.intp)
    place -= score < edges[place]
    place += score >= edges[place + 1]
    bins = len(edges) - 1
    place += bins * mask
    counted = place.ravel() if ignore is None else place[mask | ~ignore]
    return np.bincount(counted, minlength=2 * bins).reshape(2, bins)


def pixel_average_precision(histogram: np.ndarray) -> float:
    """Return the pixel average precision (PxAP) of one image, or of a set of images.

    Args:
        histogram: (2, bins) pixel counts from `score_histogram`, or their sum over images.

    Returns:
        PxAP in [0, 1]; NaN where the masks are empty.

    References:
        Choe et al., CVPR 2020, section 4.2: the sum over thresholds, from the highest down, of
        the precision at each threshold times the recall it adds. All images' pixels weigh the same.
    """
    return float(average_precision(np.asarray(histogram, dtype=np.float64)))


def average_precision(histograms: np.ndarray) -> np.ndarray:
    """Return the PxAP, in [0, 1] or NaN, of each of (..., 2, bins) histograms: (...)."""
    false, true = histograms[..., 0, ::-1], histograms[..., 1, ::-1]
    found = true.cumsum(axis=-1)
    called = found + false.cumsum(axis=-1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    total = found[..., -1]
    nan = np.full_like(total, math.nan)
    return np.divide((precision * true).sum(axis=-1), total, out=nan, where=total > 0)


def to_bytes(histogram: np.ndarray) -> bytes | None:
    """Return a histogram with bins of `INTERVAL` as a row stores it, None where the mask is empty.

    The counts are stored in 2 bytes each where they fit, otherwise in 4.
    """
    if not histogram[1].any():
        return None
    return histogram.astype("<u2" if histogram.sum() < 2**16 else "<u4").tobytes()


def from_bytes(stored: Sequence[bytes]) -> np.ndarray:
    """Return the (n, 2, bins) histograms stored in n >= 1 rows of one run."""
    kind = f"<u{len(stored[0]) // (2 * _BINS)}"
    return np.frombuffer(b"".join(stored), dtype=kind).reshape(len(stored), 2, _BINS)
