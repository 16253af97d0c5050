"""Figures from stored rows; nothing here imports torch.

Every function takes frames and returns a Figure or the Axes it drew on; `write_figures` writes what
a run allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from gradcam_bench.analysis import best
from gradcam_bench.analysis.metrics import METRICS, described
from gradcam_bench.analysis.stored_run import Run, joined_summary, load_run
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS
from gradcam_bench.report.figures import style
from gradcam_bench.report.figures.comparisons import (
    SWEEP,
    architectures,
    cost_vs_quality,
    heat_table,
    layer_sweep,
    paired_differences,
)
from gradcam_bench.report.figures.gallery import gallery, gallery_cell
from gradcam_bench.report.figures.scores import (
    DISTRIBUTIONS,
    accuracy_vs_iou,
    accuracy_vs_threshold,
    faithfulness_curves,
    score_distributions,
)
from gradcam_bench.store.rows import measured, scored

__all__ = [
    "CAPTIONS",
    "accuracy_vs_iou",
    "accuracy_vs_threshold",
    "architectures",
    "cost_vs_quality",
    "faithfulness_curves",
    "gallery",
    "heat_table",
    "joint_figures",
    "layer_sweep",
    "paired_differences",
    "run_figures",
    "score_distributions",
    "write_figures",
]

CAPTIONS = {
    "architectures": "Runs side by side, each method at its best layer; bars: 95 % intervals.",
    "architectures_insertion_auc": "The same by insertion, where a map is scored by what it shows.",
    "cost_vs_quality": "Quality of the best cell of each run against its whole cost.",
    "heat_table": "Runs and layers at a glance; dark is good.",
    "layer_sweep": "Scores along the depth of the network, with 95 % intervals; bands: controls.",
    "paired_differences": "Paired differences to the best on the same images, with intervals.",
    "score_distributions": "How scores spread over the images; lines inside are quartiles.",
    "faithfulness_curves": "Mean deletion and insertion curves; bands are 95 % intervals.",
    "accuracy_vs_iou": "Boxes that are right, against the IoU asked for (dotted: the protocol's).",
    "accuracy_vs_threshold": "Boxes that are right, against the threshold of the map.",
    "gallery": "Best, median and worst images of the gallery.",
}


def write_figures(directory: str | Path | Run) -> list[Path]:
    """Write every figure that a run's rows allow to directory/figures, as PNG and PDF.

    Args:
        directory: of a run, or the run as read; then the report finds the figures drawn.

    Returns:
        The files, in the order of writing.
    """
    run = directory if isinstance(directory, Run) else load_run(directory)
    written: list[Path] = []
    for name, draw in run_figures(run).items():
        written += style.save(draw(), run.directory / "figures" / name)
    return written


def run_figures(run: Run) -> dict[str, Callable[[], Figure]]:
    """Return how to draw each figure that one run allows, by file name."""
    rows = scored(run.rows)
    found: dict[str, Callable[[], Figure]] = {}
    network = run.summary[~run.summary["method"].isin(CONTROLS)]
    if network["layer"].nunique() > 1 and set(SWEEP) & set(network["metric"]):
        found["layer_sweep"] = partial(layer_sweep, run.summary)
    tests = best.comparison([run], "gt_known_loc_err")
    if len(tests):
        found["paired_differences"] = partial(_of_axes, paired_differences, tests)
    if any(measured(rows, METRICS[name].column) for name in DISTRIBUTIONS):
        found["score_distributions"] = partial(score_distributions, rows)
    if measured(rows, "deletion_curve"):
        found["faithfulness_curves"] = partial(faithfulness_curves, rows)
    if measured(rows, "box_iou"):
        level = described("gt_known_loc_err", run.protocols).iou_levels[0]
        found["accuracy_vs_iou"] = partial(_of_axes, partial(accuracy_vs_iou, level=level), rows)
    swept = [p for p in run.protocols.values() if measured(rows, f"iou_hits@{p.name}")]
    if swept:
        found["accuracy_vs_threshold"] = partial(accuracy_vs_threshold, rows, swept[0])
    if len(run.pictures) and measured(rows, "box_iou") and gallery_cell(run.pictures, rows):
        names = run.run.get("class_names")
        found["gallery"] = partial(gallery, run.pictures, rows, class_names=names)
    return {name: partial(_once, run, name, draw) for name, draw in found.items()}


def _once(run: Run, name: str, draw: Callable[[], Figure]) -> Figure:
    if name not in run.drawn:
        run.drawn[name] = draw()
    return run.drawn[name]


def joint_figures(
    runs: Sequence[Run], tests: Mapping[str, pd.DataFrame]
) -> dict[str, Callable[[], Figure]]:
    """Return how to draw each figure that several runs allow together, by name.

    Args:
        runs: several.
        tests: from `findings.comparisons`.
    """
    summary = joined_summary(runs)
    try:
        metric = best.best_cell(runs).metric.name
    except UserError:
        return {}
    found: dict[str, Callable[[], Figure]] = {}
    found["architectures"] = partial(_of_axes, partial(architectures, metric=metric), summary)
    defined = summary[summary["value"].notna()]
    if metric != "insertion_auc" and "insertion_auc" in set(defined["metric"]):
        drawn = partial(architectures, metric="insertion_auc")
        found["architectures_insertion_auc"] = partial(_of_axes, drawn, summary)
    network = defined[~defined["method"].isin(CONTROLS) & (defined["metric"] == metric)]
    if network.groupby("run")["layer"].nunique().max() > 1:
        method = str(network["method"].iloc[0])
        drawn = partial(heat_table, metric=metric, method=method)
        found["heat_table"] = partial(_of_axes, drawn, summary)
    costs = _costs(runs, metric)
    if len(costs) == len(runs):
        found["cost_vs_quality"] = partial(_of_axes, partial(cost_vs_quality, metric=metric), costs)
    if metric in tests:
        found["paired_differences"] = partial(_of_axes, paired_differences, tests[metric])
    return found


def _of_axes(draw: Callable[[pd.DataFrame], object], frame: pd.DataFrame) -> Figure:
    return style.figure_of(draw(frame))  # type: ignore[arg-type]


def _costs(runs: Sequence[Run], metric: str) -> pd.DataFrame:
    """Return the best cell of each run by one metric, with the seconds an image."""
    lines = []
    for run in runs:
        seconds, n = run.run.get("seconds"), run.run.get("n_images")
        if seconds and n:
            _, line = best.best_line(run.summary[run.summary["metric"] == metric])
            kept = {key: line[key] for key in ("value", "ci_low", "ci_high")}
            lines.append({"name": run.name, "seconds": seconds / n, **kept})
    return pd.DataFrame(lines)
