"""Paired comparisons on the same images: is one layer, method, model or run really better?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from gradcam_bench.analysis import intervals, paired_tests
from gradcam_bench.analysis.metrics import metric_of
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS, cell_name
from gradcam_bench.store.rows import group_codes, group_names, layout, measured, scored

_UNPAIRED = {
    "oracle": (
        "its threshold is the best for all images together",
        "box_acc_split or box_acc_v2_split, of runs with thresholds_from=DIR, or gt_known_loc_err",
    ),
    "class_mean": ("it is a mean over classes", "pointing_hit"),
    "pooled": ("it ranks the pixels of all images together", "energy_in_mask or mask_iou"),
}

_COLUMNS = (
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
        undefined. Where images belong together (`frames.group_codes`), a second level of the index,
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
    column = description.column + metric[len(description.name) :]
    if not measured(good, column):
        raise UserError(f"the rows hold no {column}, of which {metric} is made")
    places = layout(good)
    values = pd.DataFrame(places.matrix(good[column]), index=_index(places.images, good))
    prefix = f"{run}, " if run else ""
    return {prefix + cell_name(pair): values[number] for number, pair in enumerate(places.pairs)}


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
        One line a candidate that has a value where the reference has one: candidate, reference,
        metric, difference (candidate - reference, in the metric's unit, so that a negative error is
        better), ci_low, ci_high, p, p_holm, effect, test, images_needed, n, n_undefined (common
        images without a value for one of the two) and n_left_out (images that not all candidates
        have).

    Raises:
        UserError: fewer than two candidates, an unknown reference, no or different images, or no
            value at all on the common ones.
    """
    description = metric_of(metric)
    if len(values) < 2:
        raise UserError(f"a comparison needs two candidates; given: {', '.join(values) or 'none'}")
    table, groups, left_out = _joined(values, unmatched)
    sign = -1.0 if description.complement else 1.0
    if reference is None:
        reference = _best(table, sign if description.better == "higher" else -sign)
    if reference not in table:
        raise UserError(f"no candidate is called {reference!r}; there are: {', '.join(values)}")
    others = [name for name in table if name != reference]
    differences = table[others].to_numpy() - table[[reference]].to_numpy()
    counts = intervals.resample_counts(len(table), groups=groups, resamples=resamples, seed=seed)
    low, high = intervals.percentile_interval(intervals.bootstrap_means(differences, counts))
    tests = _tests(table, reference, groups, description.kind == "proportion", seed)
    lines = []
    for number, name in enumerate(others):
        if name not in tests:
            continue
        found = tests[name]
        scale = sign * description.scale.factor
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
                "n_undefined": len(table) - found.n,
                "n_left_out": left_out,
            }
        )
    frame = pd.DataFrame(lines, columns=[name for name in _COLUMNS if name != "p_holm"])
    frame.insert(
        _COLUMNS.index("p_holm"), "p_holm", paired_tests.holm(frame["p"].to_numpy(dtype=float))
    )
    return frame


def _tests(
    table: pd.DataFrame, reference: str, groups: np.ndarray | None, hits: bool, seed: int
) -> dict[str, paired_tests.PairedTest]:
    """Test every candidate that shares a defined image with the reference, by its name."""
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


def _joined(
    values: Mapping[str, pd.Series], unmatched: str
) -> tuple[pd.DataFrame, np.ndarray | None, int]:
    """Return the candidates as columns of their common images, these images' groups, and the rest.

    Returns:
        The table, the group codes of its lines (None: independent), and how many images not all
        candidates have.
    """
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
    return table, group_codes(common, *known), left_out


def _best(table: pd.DataFrame, direction: float) -> str:
    means = direction * table.mean().dropna()
    names = [str(name) for name in means.index]
    if not names:
        raise UserError("no candidate has a defined value on the common images")
    judged = [name for name in names if not set(CONTROLS) & set(name.split(", "))]
    return str(means.loc[judged or names].idxmax())
