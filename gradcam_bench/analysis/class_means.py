"""Means over classes of class means, where every class counts alike, and their intervals.

The number estimated is the mean over all classes of the data set, fixed as they are, of the score
that a class's images have on average. Two things make it uncertain: a class is known by few of its
images, and where there are fewer images than classes, some classes are not seen at all. A bootstrap
over images gets both wrong with few images a class (classes vanish from its resamples: 95 %
intervals of 500 images of 1000 classes cover 87 %), so the variance is computed instead.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse
from scipy import stats as scipy_stats

from gradcam_bench.analysis import intervals, proportions
from gradcam_bench.errors import UserError


def estimate(
    values: np.ndarray,
    classes: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
) -> list[intervals.Estimate]:
    """Return, per column, the mean over classes of the class means, with its interval.

    Classes without an image of defined score take no part in the mean. The interval is Wilson's
    with a t quantile; its sample size is the number of independent images whose mean would have the
    variance that `_variance` estimates.

    Args:
        values: (n, cells) scores in [0, 1], a column per cell, NaN where undefined.
        classes: (n,) class of each image.
        groups: (n,) code of each image's group, as in `intervals.resample_counts`; None: images are
            independent.
        confidence: coverage of the interval.

    Raises:
        UserError: a score lies outside [0, 1].

    References:
        The mean: Zhang et al. 2018 (Excitation Backprop), section 4.2. Wilson's interval with an
        effective size: Franco et al. 2019, Comparative study of confidence intervals for
        proportions in complex sample surveys, J. Survey Statistics and Methodology 7.
    """
    defined = ~np.isnan(values)
    if not ((values[defined] >= 0) & (values[defined] <= 1)).all():
        wrong = values[defined][(values[defined] < 0) | (values[defined] > 1)][0]
        raise UserError(f"a mean of class means needs scores in [0, 1]; one is {wrong}")
    n = len(values)
    codes = np.unique(classes, return_inverse=True)[1]
    units = np.arange(n) if groups is None else groups
    # Images of one class and one group are one draw of the class.
    pairs, draws = np.unique(np.stack([codes, units]), axis=1, return_inverse=True)
    by_draw = _adding(draws.ravel())
    sums = by_draw @ np.where(defined, values, 0.0)
    sizes = by_draw @ defined.astype(float)
    together = None if groups is None else _adding(pairs[1])
    return [
        _estimate(sums[:, cell], sizes[:, cell], pairs[0], together, confidence, n)
        for cell in range(values.shape[1])
    ]


def _adding(codes: np.ndarray) -> sparse.csr_array:
    """Return the (codes, n) matrix whose product with n values sums the values of equal code."""
    n = len(codes)
    return sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(int(codes.max()) + 1, n))


def _estimate(
    sums: np.ndarray,
    sizes: np.ndarray,
    classes: np.ndarray,
    together: sparse.csr_array | None,
    confidence: float,
    n: int,
) -> intervals.Estimate:
    """Return the mean of class means of one column, with its interval.

    A draw is what the images of one class and one group give together.

    Args:
        sums: (draws,) sum of each draw's defined scores.
        sizes: (draws,) number of each draw's defined scores.
        classes: (draws,) class of each draw.
        together: adds up the draws of a group, (groups, draws); None: draws are independent.
        confidence: coverage of the interval.
        n: number of images, those with undefined scores included.
    """
    kept = int(sizes.sum())
    if not kept:
        return intervals.Estimate(math.nan, math.nan, math.nan, 0, n)
    drawn = np.bincount(classes, weights=sizes > 0)
    seen = drawn > 0
    images = np.bincount(classes, weights=sizes)
    means = np.bincount(classes, weights=sums)[seen] / images[seen]
    value = float(means.mean())
    variance, freedom = _variance(sums, sizes, classes, together)
    # Without variance the size follows from the weights: the draws of each class share 1 / C.
    size = len(means) ** 2 / float((1 / drawn[seen]).sum())
    if variance > 0:
        size = value * (1 - value) / variance
    quantile = float(scipy_stats.t.ppf(0.5 + confidence / 2, freedom))
    low, high = proportions.wilson_interval(value, size, quantile)
    return intervals.Estimate(value, low, high, kept, n - kept)


def _variance(
    sums: np.ndarray, sizes: np.ndarray, classes: np.ndarray, together: sparse.csr_array | None
) -> tuple[float, float]:
    """Return the variance of the mean of class means, and its degrees of freedom.

    A class drawn several times adds the variance of its mean. A class drawn once shows no spread of
    its own, so its deviation from the mean of all classes is taken instead. With f1 classes drawn
    once, this counts the spread between classes f1 times. It should count C f1 / n times (C: number
    of classes seen, n: number of draws), because these classes stand for the classes not seen,
    whose share is estimated by f1 / n (Good 1953).

    Args:
        sums: (draws,) sum of each draw's defined scores.
        sizes: (draws,) number of each draw's defined scores, not all 0.
        classes: (draws,) class of each draw.
        together: adds up the draws of a group, (groups, draws); None: draws are independent.

    References:
        Good 1953, The population frequencies of species and the estimation of population
        parameters, Biometrika 40. Degrees of freedom: Satterthwaite 1946, An approximate
        distribution of estimates of variance components, Biometrics Bulletin 2.
    """
    drawn = np.bincount(classes, weights=sizes > 0)
    images = np.bincount(classes, weights=sizes)
    means = np.divide(
        np.bincount(classes, weights=sums), images, out=np.zeros_like(images), where=images > 0
    )
    seen, once, often = int((drawn > 0).sum()), drawn == 1, drawn > 1
    centres = np.where(once, means[drawn > 0].mean(), means)
    peers = np.where(once, seen, drawn)
    inflation = np.sqrt(np.divide(peers, peers - 1, out=np.ones_like(images), where=peers > 1))
    weights = np.divide(inflation, images * seen, out=np.zeros_like(images), where=images > 0)
    parts = (sums - centres[classes] * sizes) * weights[classes]  # each draw's part of the error
    spread = np.bincount(classes, weights=parts**2)
    if once.any() and often.any():
        total, within = (float((spread * drawn)[which].mean()) for which in (once, often))
        between = max(total - within, 0.0)
        share = 1 - between / total * (1 - seen / drawn.sum()) if total > 0 else 1.0
        parts = parts * np.sqrt(np.where(once, share, 1.0))[classes]
        spread = np.where(once, share * spread, spread)
    variance = float(spread.sum())
    if together is not None:  # a group may hold several classes; that never lowers the variance
        variance = max(variance, float(((together @ parts) ** 2).sum()))
    return variance, _freedom(spread, drawn)


def _freedom(spread: np.ndarray, drawn: np.ndarray) -> float:
    """Return Satterthwaite's degrees of freedom of a sum of the classes' variances.

    Args:
        spread: (classes,) share of each class in the variance.
        drawn: (classes,) how often each was drawn; those drawn once share one variance.
    """
    once, often = drawn == 1, drawn > 1
    squares = float((spread[often] ** 2 / (drawn[often] - 1)).sum())
    if once.any():
        squares += float(spread[once].sum()) ** 2 / max(int(once.sum()) - 1, 1)
    if squares == 0:
        return float(max(drawn.sum() - 1, 1))
    return float(spread.sum()) ** 2 / squares
