"""What to believe: the best cell of all runs, and every other one compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gradcam_bench.analysis import intervals
from gradcam_bench.analysis.comparison import candidates, compare
from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import METRICS, described, metrics_with, names_of, protocol_name
from gradcam_bench.analysis.stored_run import Run, joined_summary
from gradcam_bench.errors import UserError
from gradcam_bench.localization import max_box_acc
from gradcam_bench.names import CONTROLS, Cell, cell_name
from gradcam_bench.store.rows import cell_rows, group_codes, level_masks, scored


def _measured_of(bases: Sequence[str], summaries: Sequence[pd.DataFrame]) -> list[str]:
    """Return the names, under whatever protocol, that every summary has of some metrics."""
    have = [set(summary["metric"]) for summary in summaries]
    names = [name for base in bases for name in names_of(base, summaries[0]["metric"])]
    return [name for name in names if all(name in names_there for names_there in have)]


def oracles(runs: Sequence[Run]) -> list[str]:
    """Return the metrics of thresholds chosen on the reported images that all runs have."""
    bases = [name for name, metric in METRICS.items() if metric.kind == "oracle"]
    return _measured_of(bases, [run.summary for run in runs])


@dataclass(frozen=True)
class Best:
    """The best cell of all runs by one metric, controls aside."""

    run: Run
    cell: Cell
    metric: Metric
    line: dict[str, Any]


def best_line(summary: pd.DataFrame) -> tuple[Metric, dict[str, Any]]:
    """Return the best line of a summary by the first judge that every run of it has.

    Judges are the metrics with the role "judge", in their order.

    Args:
        summary: of one run, or of several with a column `run`.

    Raises:
        UserError: if the runs share none of them, or hold controls only.
    """
    runs = summary["run"].nunique() if "run" in summary else 1
    network = summary[~summary["method"].isin(CONTROLS) & summary["value"].notna()]
    for name in _measured_of(metrics_with("judge"), [summary]):
        found = network[network["metric"] == name]
        if found.empty or ("run" in found and found["run"].nunique() < runs):
            continue
        metric = described(name)
        ordered = found.sort_values("value", ascending=metric.better == "lower", kind="stable")
        return metric, {str(key): value for key, value in ordered.iloc[0].items()}
    judges = ", ".join(metrics_with("judge"))
    raise UserError(f"the runs share none of {judges}, so none can be called best")


def best_cell(runs: Sequence[Run]) -> Best:
    """Return the best cell over all runs by the first judge that all of them have.

    Raises:
        UserError: if the runs share none of them, or hold controls only.
    """
    metric, line = best_line(joined_summary(runs))
    run = next(run for run in runs if run.name == line["run"])
    return Best(run, (line["method"], line["layer"]), metric, line)


def comparison(runs: Sequence[Run], metric: str) -> pd.DataFrame:
    """Compare every cell of every run with the best, on common images; empty if not measured."""
    values: dict[str, pd.Series] = {}
    for run in runs:
        prefix = run.name if len(runs) > 1 else ""
        try:
            values |= candidates(run.rows, metric, run=prefix)
        except UserError:
            return pd.DataFrame()
    if len(values) < 2:
        return pd.DataFrame()
    try:
        return compare(values, metric, unmatched="common")
    except UserError:  # no common images
        return pd.DataFrame()


def comparisons(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Return the comparison by every tested metric that all runs measured, by its name."""
    names = _measured_of(metrics_with("tested"), [run.summary for run in runs])
    found = {name: comparison(runs, name) for name in names}
    return {name: frame for name, frame in found.items() if len(frame)}


def oracle_differences(
    runs: Sequence[Run], metric: str, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compare MaxBoxAcc of each run's methods, each at its best layer, with the best of them.

    An accuracy at a threshold chosen on these images has no value per image, so there is nothing
    to test image by image. Images (groups of them, where they belong together) are resampled
    instead, the threshold of both sides is chosen again in every resample, and the basic interval
    of the difference is all that is said.

    Args:
        runs: joined on common images.
        metric: one of `oracles`.
        resamples: of the interval.
        seed: seeds the resampling.

    Returns:
        Columns candidate, reference, metric, value, difference (candidate - reference, points),
        ci_low, ci_high, n; empty where fewer than two cells were measured on a common image, or
        where the runs' protocols of that name have different IoU levels.
    """
    if len({run.protocols[protocol_name(metric)].iou_levels for run in runs}) > 1:
        return pd.DataFrame()
    hits = {
        (f"{run.name}, " if len(runs) > 1 else "") + cell_name(cell): _threshold_hits(
            run, cell, metric
        )
        for run in runs
        for cell in _best_layers(run.summary, metric)
    }
    ids = [index for index, _ in hits.values()]
    if len(ids) < 2 or len(common := _common(ids)) == 0:
        return pd.DataFrame()
    groups = group_codes(common, *(run.rows for run in runs))
    largest = 1 if groups is None else int(np.bincount(groups).max())
    counts = intervals.resample_counts(len(common), groups=groups, resamples=resamples, seed=seed)
    found = {}
    for name, (index, levels) in hits.items():
        places = index.get_indexer(common)
        found[name] = intervals.best_threshold_samples(
            [level[places] for level in levels], counts, largest_group=largest
        )
    judged = [name for name in found if not set(CONTROLS) & set(name.split(", "))]
    reference = max(judged or found, key=lambda name: found[name][0])
    lines = []
    for name, (value, samples) in found.items():
        if name == reference:
            continue
        difference = value - found[reference][0]
        low, high = np.percentile(samples - found[reference][1], [2.5, 97.5])
        ends = (difference, 2 * difference - high, 2 * difference - low)
        lines.append([name, reference, metric, 100 * value, *(100 * e for e in ends), len(common)])
    columns = ["candidate", "reference", "metric", "value", "difference", "ci_low", "ci_high", "n"]
    return pd.DataFrame(lines, columns=columns)


def _best_layers(summary: pd.DataFrame, metric: str) -> list[Cell]:
    """Return each method at its layer of the highest value."""
    found = summary[(summary["metric"] == metric) & summary["value"].notna()]
    best = found.sort_values("value", ascending=False, kind="stable").drop_duplicates("method")
    return list(best.sort_index()[["method", "layer"]].itertuples(index=False, name=None))


def _threshold_hits(run: Run, cell: Cell, metric: str) -> tuple[pd.Index, list[np.ndarray]]:
    """Return the image ids of a cell and, by IoU level, its hits at every threshold."""
    protocol = run.protocols[protocol_name(metric)]
    rows = cell_rows(scored(run.rows), cell)
    rows = rows[rows[f"iou_hits@{protocol.name}"].notna()]
    masks, top = level_masks(rows, protocol.name)
    assert protocol.interval is not None  # a protocol that sweeps has one
    levels = len(protocol.iou_levels)
    hits = max_box_acc.distinct_hits(masks, top, levels=levels, interval=protocol.interval)
    return pd.Index(rows["image_id"]), hits


def _common(indices: Sequence[pd.Index]) -> pd.Index:
    common = indices[0]
    for index in indices[1:]:
        common = common.intersection(index, sort=False)
    return common
