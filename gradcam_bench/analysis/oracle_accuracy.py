"""How accuracies differ whose threshold was chosen on the very images that they are told of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import pandas as pd

from gradcam_bench.analysis import intervals
from gradcam_bench.analysis.metrics import METRICS, protocol_name, shared_names
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.localization import max_box_acc
from gradcam_bench.names import Cell, cell_name, is_control
from gradcam_bench.store.rows import (
    cell_rows,
    group_codes,
    level_masks,
    scored,
    sweep_column,
)

COLUMNS = ("candidate", "reference", "metric", "value", "difference", "ci_low", "ci_high", "n")


def oracles(runs: Sequence[Run]) -> list[str]:
    """Return the metrics of thresholds chosen on the reported images that all runs have."""
    bases = [name for name, metric in METRICS.items() if metric.kind == "oracle"]
    return shared_names(bases, [run.summary for run in runs])


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
        Columns of `COLUMNS`, difference (candidate - reference) and interval in points; empty where
        fewer than two cells were measured on a common image, or where the runs' protocols of that
        name have different IoU levels.
    """
    empty = pd.DataFrame(columns=list(COLUMNS))
    if len({run.protocols[protocol_name(metric)].iou_levels for run in runs}) > 1:
        return empty
    hits = {
        cell_name(cell, run=run.name if len(runs) > 1 else ""): _threshold_hits(run, cell, metric)
        for run in runs
        for cell in _best_layers(run.summary, metric)
    }
    ids = [index for index, _ in hits.values()]
    if len(ids) < 2:
        return empty
    common = reduce(lambda a, b: a.intersection(b, sort=False), ids)
    if common.empty:
        return empty
    groups = group_codes(common, *(run.rows for run in runs))
    largest = 1 if groups is None else int(np.bincount(groups).max())
    counts = intervals.resample_counts(len(common), groups=groups, resamples=resamples, seed=seed)
    found = {}
    for name, (index, levels) in hits.items():
        places = index.get_indexer(common)
        found[name] = intervals.best_threshold_samples(
            [level[places] for level in levels], counts, largest_group=largest
        )
    return _against_best(found, metric, len(common))


def _against_best(found: dict[str, tuple[float, np.ndarray]], metric: str, n: int) -> pd.DataFrame:
    """Return every candidate's difference to the best that is no control, with its interval.

    Args:
        found: value and values of the resamples by name, in [0, 1].
        metric: what they are.
        n: images.
    """
    judged = [name for name in found if not is_control(name)]
    reference = max(judged or found, key=lambda name: found[name][0])
    lines = []
    for name, (value, samples) in found.items():
        if name == reference:
            continue
        difference = value - found[reference][0]
        low, high = np.percentile(samples - found[reference][1], [2.5, 97.5])
        ends = (difference, 2 * difference - high, 2 * difference - low)
        lines.append([name, reference, metric, 100 * value, *(100 * e for e in ends), n])
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _best_layers(summary: pd.DataFrame, metric: str) -> list[Cell]:
    """Return each method at its layer of the highest value."""
    found = summary[(summary["metric"] == metric) & summary["value"].notna()]
    best = found.sort_values("value", ascending=False, kind="stable").drop_duplicates("method")
    return list(best.sort_index()[["method", "layer"]].itertuples(index=False, name=None))


def _threshold_hits(run: Run, cell: Cell, metric: str) -> tuple[pd.Index, list[np.ndarray]]:
    """Return the image ids of a cell and, by IoU level, its hits at every threshold."""
    protocol = run.protocols[protocol_name(metric)]
    rows = cell_rows(scored(run.rows), cell)
    rows = rows[rows[sweep_column(protocol.name)].notna()]
    masks, top = level_masks(rows, protocol.name)
    assert protocol.interval is not None  # a protocol that sweeps has one
    levels = len(protocol.iou_levels)
    hits = max_box_acc.distinct_hits(masks, top, levels=levels, interval=protocol.interval)
    return pd.Index(rows["image_id"]), hits
