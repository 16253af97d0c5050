"""Shares of hits and their intervals, of independent images and of images that belong together."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats as scipy_stats

from gradcam_bench.analysis import intervals
from gradcam_bench.errors import UserError


def estimate(
    hits: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    method: str = "exact",
) -> intervals.Estimate:
    """Return the share of hits with its binomial interval.

    Args:
        hits: (n,) of 0, 1 and NaN (undefined, left out).
        groups: (n,) code of each image's group; the interval is then that of `effective_size`
            independent images. None: the images are independent.
        confidence: coverage of the interval.
        method: "exact" (Clopper-Pearson: never covers less than it says) or "wilson".

    Raises:
        UserError: for values other than 0, 1 and NaN.

    References:
        Clopper and Pearson 1934, through scipy.stats.binomtest. Groups: Korn and Graubard 1998,
        Confidence intervals for proportions with small expected number of positive counts
        estimated from survey data, Survey Methodology 24.
    """
    defined = ~np.isnan(hits)
    kept = hits[defined]
    missing = len(hits) - kept.size
    if not np.isin(kept, (0.0, 1.0)).all():
        wrong = kept[~np.isin(kept, (0.0, 1.0))][0]
        raise UserError(f"a proportion needs hits that are 0 or 1; one is {wrong}")
    if not kept.size:
        return intervals.Estimate(float("nan"), float("nan"), float("nan"), 0, missing)
    total = int(kept.sum())
    value = total / kept.size
    if groups is None:
        ends = scipy_stats.binomtest(total, kept.size).proportion_ci(confidence, method=method)
        return intervals.Estimate(value, float(ends.low), float(ends.high), kept.size, missing)
    size = effective_size(kept, groups[defined], confidence=confidence)
    interval = clopper_pearson_interval if method == "exact" else wilson_interval
    quantile = 0.5 + confidence / 2
    level = quantile if method == "exact" else float(scipy_stats.norm.ppf(quantile))
    low, high = interval(value, size, level)
    return intervals.Estimate(value, low, high, kept.size, missing)


def effective_size(hits: np.ndarray, groups: np.ndarray, *, confidence: float = 0.95) -> float:
    """Return how many independent images say as much about the share of hits as these do.

    The spread of the share is measured between groups; it counts with a t quantile of one degree
    of freedom less than groups, and never as smaller than that of n independent images. Where all
    images are hits, or none is, nothing can be measured: then images of a group are taken to say
    the same.

    Args:
        hits: (n,) of 0 and 1, n at least 1.
        groups: (n,) code of each image's group.
        confidence: coverage of the interval that the size is for.

    Returns:
        A number in (0, n].

    References:
        Korn and Graubard 1998, Survey Methodology 24, p. 193-201, with their size cut at n.
    """
    n, share = len(hits), float(hits.mean())
    sizes = np.bincount(groups)
    units = int((sizes > 0).sum())
    variance = mean_variance(hits - share, groups)
    if share in (0, 1) or units == 1:
        return n**2 / float((sizes.astype(float) ** 2).sum())
    if variance == 0:
        return float(n)
    quantile = 0.5 + confidence / 2
    ratio = float(scipy_stats.t.ppf(quantile, n - 1) / scipy_stats.t.ppf(quantile, units - 1))
    return min(share * (1 - share) / variance * ratio**2, float(n))


def mean_variance(residuals: np.ndarray, groups: np.ndarray) -> float:
    """Return the variance of a mean whose images are independent between groups alone.

    Args:
        residuals: (n,) values less their mean.
        groups: (n,) code of each image's group.

    Returns:
        The sum over groups of the squared sums within them, by n squared, times G / (G - 1) for G
        groups; inf for one group.
    """
    units = np.unique(groups).size
    if units == 1:
        return math.inf
    sums = np.bincount(groups, weights=residuals)
    return float(units / (units - 1) * (sums**2).sum() / len(residuals) ** 2)


def clopper_pearson_interval(share: float, size: float, quantile: float) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a share of `size` images.

    The size may be no whole number, as that of images that belong together seldom is.

    Args:
        share: of hits, in [0, 1].
        size: number of independent images, above 0.
        quantile: 0.975 for an interval of 95 %.
    """
    hits = share * size
    low = float(scipy_stats.beta.ppf(1 - quantile, hits, size - hits + 1)) if hits > 0 else 0.0
    high = float(scipy_stats.beta.ppf(quantile, hits + 1, size - hits)) if hits < size else 1.0
    return low, high


def wilson_interval(share: float, size: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's interval of a share, or of a mean in [0, 1] of the same standard error.

    Args:
        share: in [0, 1].
        size: share (1 - share) / variance of the share; of hits, the number of independent images.
        quantile: of the normal or t distribution, 1.96 for an interval of 95 % and large samples.

    References:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    extra = quantile**2 / size
    if not math.isfinite(extra):
        return 0.0, 1.0
    middle = share + extra / 2
    half = quantile * math.sqrt(share * (1 - share) / size + (extra / 2 / quantile) ** 2)
    return (
        float(np.clip((middle - half) / (1 + extra), 0, share)),
        float(np.clip((middle + half) / (1 + extra), share, 1)),
    )
