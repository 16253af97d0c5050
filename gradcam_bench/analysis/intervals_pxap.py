"""The interval of PxAP, bootstrapped over images."""

from __future__ import annotations

import numpy as np

from gradcam_bench.analysis import intervals
from gradcam_bench.localization.pxap import average_precision, pixel_average_precision

_COARSE = 32  # bins of a resample

_BLOCK = 64  # resamples turned to float at a time


def estimate(
    histograms: np.ndarray, counts: np.ndarray, *, confidence: float = 0.95
) -> intervals.Estimate:
    """Return PxAP of n images together with its percentile bootstrap interval over images.

    The value comes from all bins. What a resample changes is computed from 32 bins that hold equal
    shares of the masks' pixels, and added to the value: on Grad-CAM maps of 200 scenes and of 60
    photographs the interval's ends move by less than 0.002 of its width, at a thirtieth of the
    arithmetic.

    Args:
        histograms: (n, 2, bins) counts of an image's pixels by map value, off the mask and on it,
            of the images whose mask holds a pixel.
        counts: (resamples, n) from `intervals.resample_counts`, or the columns of these images in
            those of more.
        confidence: coverage of the interval.

    References:
        Choe et al. 2020 define PxAP over the pixels of a set; the interval is ours.
    """
    total = histograms.sum(axis=0, dtype=np.int64)
    share = total[1].cumsum() / total[1].sum()
    starts = np.unique(np.r_[0, np.searchsorted(share, np.arange(1, _COARSE) / _COARSE)])
    coarse = np.add.reduceat(histograms, starts, axis=2, dtype=np.float32)
    columns = coarse.reshape(len(coarse), -1)
    samples = np.empty((len(counts), 1))
    for start in range(0, len(counts), _BLOCK):
        block = counts[start : start + _BLOCK].astype(np.float32)
        pooled = (block @ columns).astype(float).reshape(len(block), 2, -1)
        samples[start : start + _BLOCK, 0] = average_precision(pooled)
    value = pixel_average_precision(total)
    shift = value - pixel_average_precision(coarse.sum(axis=0, dtype=float))
    low, high = intervals.percentile_interval(samples + shift, confidence=confidence)
    ends = np.clip([low[0], high[0]], 0, 1)
    return intervals.Estimate(value, float(ends[0]), float(ends[1]), len(histograms), 0)
