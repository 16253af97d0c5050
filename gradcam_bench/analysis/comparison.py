"""Paired comparisons on the same images: is one layer, method, model or run really better?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from gradcam_bench.analysis import intervals, paired_tests
from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import metric_of
from gradcam_bench.errors import UserError
from gradcam_bench.names import base_and_protocol, cell_name, column_of, is_control
from gradcam_bench.store.rows import group_codes, group_names, layout, measured, scored

_UNPAIRED = {
    "oracle": (
        "its threshold is the best for all images together",
        "box_acc_split or box_acc_v2_split, of runs with thresholds_from=DIR, or gt_known_loc_err",
    ),
    "class_mean": ("it is a mean over classes", "pointing_hit"),
    "pooled": ("it ranks the pixels of all images together", "energy_in_mask or mask_iou"),
}

COLUMNS = (
    "candidate", "reference", "metric", "difference", "ci_low", "ci_high", "p", "p_holm", "effect",
    "test", "images_needed", "n", "n_undefined", "n_left_out",
)  # fmt: skip


def candidates(rows: pd.DataFrame, metric: str, *, run: str = "") -> dict[str, pd.Series]:
    """Return the values of a metric, one per image, of every method and layer of a run.

    Args:
        rows: of one run.
        metric: a metric that is a mean over images.
        run: put before the names, to tell runs apart.

    Returns:
        By name, e.g. "grad_cam, layer4", a float series indexed by image id (`image_id`); NaN:
        undefined. Where images belong together (`rows.group_codes`), a second level of the index,
        `group`, holds the name of each image's group, which is its own id where it has none.

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
    column = column_of(description.column, base_and_protocol(metric)[1])
    if not measured(good, column):
        raise UserError(f"the rows hold no {column}, of which {metric} is made")
    places = layout(good)
    values = pd.DataFrame(places.matrix(good[column]), index=_index(places.images, good))
    return {cell_name(pair, run=run): values[number] for number, pair in enumerate(places.pairs)}


def _index(images: pd.Index, rows: pd.DataFrame) -> pd.Index:
    """Return the images as an index, with their groups as its second level if they have any."""
    names = group_names(images, rows)
    if names.is_unique:
        return images.rename("image_id")
    return pd.MultiIndex.from_arrays([images, names], names=["image_id", "group"])


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

    Hits are compared by McNemar's exact test, scores by sign-flip permutation, hits and scores of
    images that belong together by sign flips of whole groups; intervals are percentile bootstrap
    intervals of the mean paired difference, over groups, not corrected for the family.

    Args:
        values: from `candidates`, of one run or joined of several.
        metric: what they are.
        reference: a name among them; by default the best that is no control. It was chosen on
            these images, so its lead over the next is somewhat flattered.
        unmatched: "refuse" sets of different images, or compare on the "common" ones.
        resamples: of the intervals.
        seed: of resampling and permutation.

    Returns:
        One line a candidate that has a value where the reference has one, with the columns of
        `COLUMNS`: difference (candidate - reference, in the metric's unit, so that a negative error
        is better) with ci_low and ci_high, p and p_holm, effect and images_needed (NaN where the
        differences do not vary, or are zero), n, n_undefined (common images without a value for one
        of the two) and n_left_out (images that not all candidates have).

    Raises:
        UserError: fewer than two candidates, an unknown reference, no or different images, or no
            value at all on the common ones.
    """
    description = metric_of(metric)
    if len(values) < 2:
        raise UserError(f"a comparison needs two candidates; given: {', '.join(values) or 'none'}")
    common = _on_common_images(values, unmatched)
    reference = _best(common.table, description) if reference is None else reference
    if reference not in common.table:
        raise UserError(f"no candidate is called {reference!r}; there are: {', '.join(values)}")
    others = [str(name) for name in common.table if name != reference]
    right = common.table[reference].to_numpy()
    differences = common.table[others].to_numpy() - right[:, None]
    counts = intervals.resample_counts(
        len(right), groups=common.groups, resamples=resamples, seed=seed
    )
    ends = np.stack(intervals.percentile_interval(intervals.bootstrap_means(differences, counts)))
    tests = _tests(common, reference, hits=description.kind == "proportion", seed=seed)
    lines = [
        _line(description, found, ends[:, others.index(name)])
        | {
            "candidate": name,
            "reference": reference,
            "metric": metric,
            "n_undefined": len(right) - found.n,
            "n_left_out": common.left_out,
        }
        for name, found in tests.items()
    ]
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.assign(p_holm=paired_tests.holm(frame["p"].to_numpy(dtype=float)))


def _line(metric: Metric, found: paired_tests.PairedTest, ends: np.ndarray) -> dict[str, Any]:
    """Return the numbers of a test in the metric's unit; NaN where one is not finite, no -0.0."""
    sign = -1.0 if metric.complement else 1.0
    low, high = sorted(sign * metric.scale.factor * ends + 0.0)
    return {
        "difference": sign * metric.scale.factor * found.difference + 0.0,
        "ci_low": low,
        "ci_high": high,
        "p": found.p_value,
        "effect": sign * found.effect + 0.0 if np.isfinite(found.effect) else np.nan,
        "test": found.test,
        "images_needed": found.images_needed if np.isfinite(found.images_needed) else np.nan,
        "n": found.n,
    }


@dataclass(frozen=True)
class _Common:
    """The candidates on the images that all of them have.

    Attributes:
        table: a line an image, a column a candidate.
        groups: code of each image's group; None: images are independent.
        left_out: how many images not all candidates have.
    """

    table: pd.DataFrame
    groups: np.ndarray | None
    left_out: int


def _tests(
    common: _Common, reference: str, *, hits: bool, seed: int
) -> dict[str, paired_tests.PairedTest]:
    """Test every candidate that shares a defined image with the reference, by its name."""
    table, groups = common.table, common.groups
    others = [str(name) for name in table if name != reference]
    columns, right = table[others].to_numpy(), table[reference].to_numpy()
    differences = columns - right[:, None]
    exact = hits and groups is None
    p_values = (
        None if exact else paired_tests.sign_flip_p_values(differences, groups=groups, seed=seed)
    )
    tests = {}
    for number, name in enumerate(others):
        both = ~np.isnan(differences[:, number])
        if not both.any():
            continue
        if p_values is None:
            tests[name] = paired_tests.mcnemar(columns[both, number], right[both])
        else:
            tests[name] = paired_tests.flipped(
                differences[both, number],
                float(p_values[number]),
                groups=None if groups is None else groups[both],
                hits=hits,
            )
    return tests


def _on_common_images(values: Mapping[str, pd.Series], unmatched: str) -> _Common:
    """Return the candidates on their common images; refuse where there are none."""
    grouped = [series.index for series in values.values() if "group" in series.index.names]
    plain = {
        name: series.droplevel("group") if "group" in series.index.names else series
        for name, series in values.items()
    }
    indices = [series.index for series in plain.values()]
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
    table = pd.DataFrame({name: series.reindex(common) for name, series in plain.items()})
    known = [index.to_frame(index=False) for index in grouped[:1]]
    return _Common(table, group_codes(common, *known), left_out)


def _best(table: pd.DataFrame, metric: Metric) -> str:
    """Return the candidate of the best mean, controls aside if there are others."""
    higher = (metric.better == "higher") is not metric.complement  # of the column, not the metric
    means = (1.0 if higher else -1.0) * table.mean().dropna()
    names = [str(name) for name in means.index]
    if not names:
        raise UserError("no candidate has a defined value on the common images")
    judged = [name for name in names if not is_control(name)]
    return str(means.loc[judged or names].idxmax())
