"""Which figures one run or several allow, and what is written below each of them.

To add a figure is to write a function that draws it from frames, to add its line to `run_figures`
or `joint_figures`, and its caption to `CAPTIONS`. Nothing here computes: the frames are attributes
of `Analysis`.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradcam_bench.analysis.analysis import Analysis
from gradcam_bench.analysis.metrics import described, metrics_with
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.names import CONTROLS
from gradcam_bench.report.figures import comparisons, scores, style
from gradcam_bench.report.figures.gallery import gallery
from gradcam_bench.store.rows import measured

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

Draw = Callable[[], "Figure | Axes"]


def run_figures(analysis: Analysis, run: Run) -> dict[str, Draw]:
    """Return how to draw each figure that one run allows, by file name.

    Args:
        analysis: of this run, alone or among others.
        run: one of its runs.
    """
    name, note = run.name, left_out_note(analysis, run)
    found = _summary_figures(analysis, run)
    distributions, curves = analysis.distributions[name], analysis.curves[name]
    if len(distributions):
        found["score_distributions"] = lambda: scores.score_distributions(distributions, note=note)
    if len(curves):
        found["faithfulness_curves"] = lambda: scores.faithfulness_curves(curves, note=note)
    found |= _box_figures(analysis, run, note)
    if len(run.pictures) and measured(run.rows, "box_iou"):
        cell, names = analysis.failures[name].cell, run.run.get("class_names")
        if cell in _cells(run.pictures):
            found["gallery"] = lambda: gallery(
                run.pictures, run.rows, cell=cell, class_names=names
            )
    return found


def _cells(frame: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(frame["method"], frame["layer"], strict=True))


def left_out_note(analysis: Analysis, run: Run) -> str:
    """Return how many pairs of method and layer the figures of a run leave out, if any."""
    count = analysis.drawn[run.name].left_out
    return f"{count} more pairs of method and layer are not drawn" if count else ""


def _summary_figures(analysis: Analysis, run: Run) -> dict[str, Draw]:
    """Return the figures of a run that its summary and its tests allow."""
    found: dict[str, Draw] = {}
    network = run.summary[~run.summary["method"].isin(CONTROLS)]
    if network["layer"].nunique() > 1 and set(metrics_with("sweep")) & set(network["metric"]):
        drawn = [method for method, _ in analysis.drawn[run.name].cells if method not in CONTROLS]
        methods = list(dict.fromkeys(drawn))
        more = network["method"].nunique() - len(methods)
        note = f"{more} more methods are not drawn" if more else ""
        found["layer_sweep"] = lambda: comparisons.layer_sweep(
            run.summary, methods=methods, note=note
        )
    best = analysis.best_of[run.name]
    if not analysis.several and best is not None and best.metric.name in analysis.tests:
        tests = analysis.tests[best.metric.name]
        found["paired_differences"] = lambda: comparisons.paired_differences(
            tests, always=_names(analysis, run)
        )
    return found


def _names(analysis: Analysis, run: Run) -> list[str]:
    """Return the drawn cells of a run as its tests name them."""
    return [
        cell[0] if cell[0] in CONTROLS else f"{cell[0]}, {cell[1]}"
        for cell in analysis.drawn[run.name].cells
    ]


def _box_figures(analysis: Analysis, run: Run, note: str) -> dict[str, Draw]:
    """Return the figures of a run's boxes, against the IoU and against the threshold."""
    found: dict[str, Draw] = {}
    by_iou, by_threshold = analysis.iou_curves[run.name], analysis.threshold_curves[run.name]
    if len(by_iou):
        level = described("gt_known_loc_err", run.protocols).iou_levels[0]
        found["accuracy_vs_iou"] = lambda: scores.accuracy_vs_iou(by_iou, level=level, note=note)
    for number, (protocol, curves) in enumerate(by_threshold.groupby("protocol", sort=False)):
        file = f"accuracy_vs_threshold_{protocol}" if number else "accuracy_vs_threshold"
        found[file] = lambda curves=curves: scores.accuracy_vs_threshold(curves, note=note)
    return found


def caption(name: str) -> str:
    """Return what is written below a figure; of further protocols, as below the first."""
    return CAPTIONS[name if name in CAPTIONS else "accuracy_vs_threshold"]


def joint_figures(analysis: Analysis) -> dict[str, Draw]:
    """Return how to draw each figure that several runs allow together, by file name."""
    if analysis.best is None:
        return {}
    summary, metric = analysis.summary, analysis.best.metric.name
    found: dict[str, Draw] = {}
    for name in dict.fromkeys((metric, "insertion_auc")):
        if name in set(summary["metric"]):
            file = "architectures" if name == metric else f"architectures_{name}"
            found[file] = lambda name=name: comparisons.architectures(summary, metric=name)
    network = summary[~summary["method"].isin(CONTROLS)]
    if network.groupby("run")["layer"].nunique().max() > 1:
        method = str(analysis.best.cell[0])
        found["heat_table"] = lambda: comparisons.heat_table(summary, metric=metric, method=method)
    costs = analysis.costs[analysis.costs["metric"] == metric]
    if len(costs) == len(analysis.runs):
        found["cost_vs_quality"] = lambda: comparisons.cost_vs_quality(costs)
    if metric in analysis.tests:
        tests = analysis.tests[metric]
        found["paired_differences"] = lambda: comparisons.paired_differences(tests)
    return found


def drawn(draw: Draw) -> Figure:
    """Draw a figure and solve its layout."""
    made = draw()
    return style.settle(made if isinstance(made, Figure) else style.figure_of(made))
