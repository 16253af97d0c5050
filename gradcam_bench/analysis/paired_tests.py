"""Tests of paired scores: is the mean difference on the same images more than chance?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from gradcam_bench.analysis.proportions import mean_variance

_FLIPS = 9999

_BLOCK = 256  # flips at a time: 256 x 50,000 images are 51 MB of float32


@dataclass(frozen=True)
class PairedTest:
    """One comparison of paired values.

    Attributes:
        difference: mean of x - y.
        p_value: two-sided.
        effect: Cohen's d_z of scores, or Cohen's g of hits (share of the disagreements that x
            wins, minus one half).
        test: the name of the test.
        images_needed: for power 0.8 at level 0.05, were this difference the true one.
        n: pairs.
    """

    difference: float
    p_value: float
    effect: float
    test: str
    images_needed: float
    n: int


def sign_flip_p_values(
    differences: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    flips: int = _FLIPS,
    seed: int = 0,
) -> np.ndarray:
    """Return two-sided p-values that paired differences have mean zero.

    The signs of all differences of an image, or of a group of images, flip together, `flips` times
    at random, and the mean of the data counts as one flip more.
    scipy.stats.permutation_test(permutation_type="samples") gives the same, one column at a time;
    one matrix product serves all columns, hundreds of times as fast.

    Args:
        differences: (n, columns), NaN where undefined: left out.
        groups: (n,) code of each image's group, from 0; None: images are independent.
        flips: random sign patterns; the smallest p-value is 1 / (flips + 1).
        seed: seeds the signs.

    References:
        Phipson and Smyth 2010, "Permutation p-values should never be zero", eq. 2.
    """
    filled = np.nan_to_num(differences)
    if groups is not None:
        filled = np.stack([np.bincount(groups, weights=column) for column in filled.T], axis=1)
    filled = filled.astype(np.float32)
    observed = np.abs(filled.sum(axis=0, dtype=np.float64)) * (1 - 1e-5)  # float32 sums may differ
    rng = np.random.default_rng(seed)
    extreme = np.ones(filled.shape[1])
    for start in range(0, flips, _BLOCK):
        size = (min(_BLOCK, flips - start), len(filled))
        signs = rng.integers(0, 2, size=size, dtype=np.int8).astype(np.float32) * 2 - 1
        extreme += (np.abs(signs @ filled) >= observed).sum(axis=0)
    return extreme / (flips + 1)


def mcnemar(x: np.ndarray, y: np.ndarray) -> PairedTest:
    """Compare paired hits by McNemar's exact test.

    Args:
        x: (n,) of 0 and 1.
        y: (n,) of 0 and 1, the same images.

    References:
        McNemar 1947; exact as a sign test of the images on which they differ.
    """
    wins, losses = int(((x == 1) & (y == 0)).sum()), int(((x == 0) & (y == 1)).sum())
    differ = wins + losses
    p_value = float(scipy_stats.binomtest(wins, differ).pvalue) if differ else 1.0
    effect = wins / differ - 0.5 if differ else 0.0
    needed = images_needed(x - y, hits=True)
    return PairedTest(float((x - y).mean()), p_value, effect, "McNemar, exact", needed, len(x))


def sign_flip(
    x: np.ndarray,
    y: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    hits: bool = False,
    seed: int = 0,
) -> PairedTest:
    """Compare paired scores by the sign-flip permutation test of their mean difference.

    Args:
        x: (n,) scores.
        y: (n,) scores of the same images.
        groups: (n,) code of each image's group. Hits of grouped images are compared by this test
            as well: McNemar's counts disagreements as independent.
        hits: the scores are 0 and 1, and the effect is Cohen's g.
        seed: seeds the signs.
    """
    difference = x - y
    p_value = float(sign_flip_p_values(difference[:, None], groups=groups, seed=seed)[0])
    return flipped(difference, p_value, groups=groups, hits=hits)


def flipped(
    difference: np.ndarray, p_value: float, *, groups: np.ndarray | None, hits: bool
) -> PairedTest:
    """Return the sign-flip test of paired differences whose p-value is known.

    Args:
        difference: (n,) x - y, without NaN.
        p_value: of `sign_flip_p_values`.
        groups: (n,) code of each image's group; None: images are independent.
        hits: x and y are 0 and 1, and the effect is Cohen's g.
    """
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else math.nan
    mean = float(difference.mean())
    effect = mean / spread if spread > 0 else 0.0 if mean == 0 else math.copysign(math.inf, mean)
    if hits:
        differ = int((difference != 0).sum())
        effect = float((difference > 0).sum() / differ) - 0.5 if differ else 0.0
    needed = images_needed(difference, groups=groups)
    test = "sign-flip permutation" + ("" if groups is None else " by group")
    return PairedTest(mean, p_value, effect, test, needed, len(difference))


def images_needed(
    differences: np.ndarray,
    *,
    power: float = 0.8,
    level: float = 0.05,
    hits: bool = False,
    groups: np.ndarray | None = None,
) -> float:
    """Return how many images would show this difference, were it the true one.

    Args:
        differences: (n,) paired differences of a pilot, without NaN.
        power: chance of showing it.
        level: of the two-sided test.
        hits: the differences are of hits (-1, 0, 1), to be tested by McNemar.
        groups: (n,) code of each image's group. The number is then that of images in groups as
            large and as alike as the pilot's, tested by sign flips of groups.

    Returns:
        A whole number, at least 2; inf where the pilot shows no difference.

    References:
        Scores: the normal approximation of the paired t test. Hits: Connor 1987, Sample size for
        testing differences in proportions for the paired-sample design, eq. 3.
    """
    mean, n = float(np.mean(differences)), len(differences)
    units = n if groups is None else np.unique(groups).size
    if mean == 0 or units < 2:
        return math.inf
    z_level, z_power = scipy_stats.norm.ppf([1 - level / 2, power])
    if groups is not None:
        variance = n * mean_variance(differences - mean, groups)
        needed = (z_level + z_power) ** 2 * variance / mean**2 + z_level**2 / 2 * n / units
    elif hits:
        differ = float(np.mean(differences != 0))
        root = z_level * math.sqrt(differ) + z_power * math.sqrt(max(differ - mean**2, 0))
        needed = (root / mean) ** 2
    else:
        spread = float(np.std(differences, ddof=1))
        needed = ((z_level + z_power) * spread / mean) ** 2 + z_level**2 / 2
    return float(max(math.ceil(needed), 2))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return p-values adjusted by Holm's step-down rule.

    Args:
        p_values: of one family of tests; NaN stands where nothing was tested.

    Returns:
        The adjusted p-values in the same order; NaN stays, and does not count as a test.

    References:
        Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    values = np.asarray(p_values, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
