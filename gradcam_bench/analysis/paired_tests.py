"""Paired comparisons on the same images: is one layer, method, model or run really better?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from gradcam_bench.analysis import intervals
from gradcam_bench.analysis.metrics import metric_of
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS, cell_name
from gradcam_bench.store.rows import layout, measured, scored

_FLIPS = 9999

_UNPAIRED = {
    "oracle": (
        "its threshold is the best for all images together",
        "box_acc_split or box_acc_v2_split, of runs with thresholds_from=DIR, or gt_known_loc_err",
    ),
    "class_mean": ("it is a mean over classes", "pointing_hit"),
    "pooled": ("it ranks the pixels of all images together", "energy_in_mask or mask_iou"),
}

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
    differences: np.ndarray, *, flips: int = _FLIPS, seed: int = 0
) -> np.ndarray:
    """Return two-sided p-values that paired differences have mean zero.

    The signs of all differences of an image flip together, `flips` times at random, and the mean
    of the data counts as one flip more. scipy.stats.permutation_test(permutation_type="samples")
    gives the same, one column at a time; one matrix product serves 50 columns of 50,000 images in
    7 s of two busy cores, where that would take over an hour.

    Args:
        differences: (n, columns), NaN where undefined: left out.
        flips: random sign patterns; the smallest p-value is 1 / (flips + 1).
        seed: seeds the signs.

    References:
        Phipson and Smyth 2010, "Permutation p-values should never be zero", eq. 2.
    """
    filled = np.nan_to_num(differences).astype(np.float32)
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


def sign_flip(x: np.ndarray, y: np.ndarray, *, seed: int = 0) -> PairedTest:
    """Compare paired scores by the sign-flip permutation test of their mean difference."""
    difference = x - y
    p_value = float(sign_flip_p_values(difference[:, None], seed=seed)[0])
    return _scores_test(difference, p_value)


def _scores_test(difference: np.ndarray, p_value: float) -> PairedTest:
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else math.nan
    mean = float(difference.mean())
    effect = mean / spread if spread > 0 else 0.0 if mean == 0 else math.copysign(math.inf, mean)
    needed = images_needed(difference)
    return PairedTest(mean, p_value, effect, "sign-flip permutation", needed, len(difference))


def images_needed(
    differences: np.ndarray, *, power: float = 0.8, level: float = 0.05, hits: bool = False
) -> float:
    """Return how many images would show this difference, were it the true one.

    Args:
        differences: (n,) paired differences of a pilot, without NaN.
        power: chance of showing it.
        level: of the two-sided test.
        hits: the differences are of hits (-1, 0, 1), to be tested by McNemar.

    Returns:
        A whole number, at least 2; inf where the pilot shows no difference.

    References:
        Scores: the normal approximation of the paired t test. Hits: Connor 1987, Sample size for
        testing differences in proportions for the paired-sample design, eq. 3.
    """
    mean = float(np.mean(differences))
    if mean == 0 or len(differences) < 2:
        return math.inf
    z_level, z_power = scipy_stats.norm.ppf([1 - level / 2, power])
    if hits:
        differ = float(np.mean(differences != 0))
        root = z_level * math.sqrt(differ) + z_power * math.sqrt(max(differ - mean**2, 0))
        needed = (root / mean) ** 2
    else:
        spread = float(np.std(differences, ddof=1))
        needed = ((z_level + z_power) * spread / mean) ** 2 + z_level**2 / 2
    return float(max(math.ceil(needed), 2))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return p-values adjusted by Holm's step-down rule for all of them; NaN stays and is no test.

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


def candidates(rows: pd.DataFrame, metric: str, *, run: str = "") -> dict[str, pd.Series]:
    """Return the values of a metric, one per image, of every method and layer of a run.

    Args:
        rows: of one run.
        metric: a metric that is a mean over images.
        run: put before the names, to tell runs apart.

    Returns:
        By name, e.g. "grad_cam, layer4", a float series indexed by image id; NaN: undefined.

    Raises:
        UserError: the rows lack the metric, or it is not a mean over images.
    """
    description = metric_of(metric)
    if description.kind in _UNPAIRED:
        why, instead = _UNPAIRED[description.kind]
        raise UserError(
            f"{metric} has no value per image ({why}), so images cannot be paired; "
            f"compare {instead} instead"
        )
    good = scored(rows)
    column = description.column + metric[len(description.name) :]
    if not measured(good, column):
        raise UserError(f"the rows hold no {column}, of which {metric} is made")
    places = layout(good)
    values = pd.DataFrame(places.matrix(good[column]), index=places.images)
    prefix = f"{run}, " if run else ""
    return {prefix + cell_name(pair): values[number] for number, pair in enumerate(places.pairs)}


def compare(
    values: Mapping[str, pd.Series],
    metric: str,
    *,
    reference: str | None = None,
    unmatched: Literal["refuse", "common"] = "refuse",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every candidate with a reference on the same images, corrected by Holm.

    Hits are compared by McNemar's exact test, scores by sign-flip permutation; intervals are
    percentile bootstrap intervals of the mean paired difference, not corrected for the family.

    Args:
        values: from `candidates`, of one run or joined of several.
        metric: what they are.
        reference: a name among them; by default the best that is no control. It was chosen on
            these images, so its lead over the next is somewhat flattered.
        unmatched: "refuse" sets of different images, or compare on the "common" ones.
        resamples: of the intervals.
        seed: of resampling and permutation.

    Returns:
        One line a candidate: candidate, reference, metric, difference (candidate - reference, in
        the metric's unit, so that a negative error is better), ci_low, ci_high, p, p_holm, effect,
        test, images_needed, n, n_undefined (common images without a value for one of the two) and
        n_left_out (images that not all candidates have).

    Raises:
        UserError: fewer than two candidates, an unknown reference, no or different images.
    """
    description = metric_of(metric)
    if len(values) < 2:
        raise UserError(f"a comparison needs two candidates; given: {', '.join(values) or 'none'}")
    table, left_out = _joined(values, unmatched)
    sign = -1.0 if description.complement else 1.0
    if reference is None:
        reference = _best(table, sign if description.better == "higher" else -sign)
    if reference not in table:
        raise UserError(f"no candidate is called {reference!r}; there are: {', '.join(values)}")
    others = [name for name in table if name != reference]
    differences = table[others].to_numpy() - table[[reference]].to_numpy()
    counts = intervals.resample_counts(len(table), resamples=resamples, seed=seed)
    low, high = intervals.percentile_interval(intervals.bootstrap_means(differences, counts))
    hits = description.kind == "proportion"
    p_values = None if hits else sign_flip_p_values(differences, seed=seed)
    lines = []
    for number, name in enumerate(others):
        both = ~np.isnan(differences[:, number])
        if not both.any():
            continue
        if p_values is None:
            found = mcnemar(*(table[side].to_numpy()[both] for side in (name, reference)))
        else:
            found = _scores_test(differences[both, number], float(p_values[number]))
        scale = sign * description.scale
        ends = sorted((scale * float(low[number]) + 0.0, scale * float(high[number]) + 0.0))
        lines.append(
            {
                "candidate": name,
                "reference": reference,
                "metric": metric,
                "difference": scale * found.difference,
                "ci_low": ends[0],
                "ci_high": ends[1],
                "p": found.p_value,
                "effect": sign * found.effect,
                "test": found.test,
                "images_needed": found.images_needed,
                "n": found.n,
                "n_undefined": int((~both).sum()),
                "n_left_out": left_out,
            }
        )
    frame = pd.DataFrame(lines)
    frame.insert(7, "p_holm", holm(frame["p"].to_numpy()) if len(frame) else [])
    return frame


def _joined(values: Mapping[str, pd.Series], unmatched: str) -> tuple[pd.DataFrame, int]:
    indices = [series.index for series in values.values()]
    everything, common = indices[0], indices[0]
    for index in indices[1:]:
        everything, common = everything.union(index), common.intersection(index)
    left_out = len(everything) - len(common)
    if left_out and unmatched == "refuse":
        raise UserError(
            f"the candidates were scored on different images: {len(common)} in common, {left_out} "
            'not; run them on the same images, or compare on the common ones (unmatched="common")'
        )
    if common.empty:
        raise UserError("the candidates have no image in common, so nothing can be paired")
    table = pd.DataFrame({name: series.reindex(common) for name, series in values.items()})
    return table, left_out


def _best(table: pd.DataFrame, direction: float) -> str:
    means = direction * table.mean()
    names = [str(name) for name in table.columns]
    judged = [name for name in names if not set(CONTROLS) & set(name.split(", "))]
    return str(means.loc[judged or names].idxmax())
