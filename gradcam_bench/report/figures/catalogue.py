"""Which figures one run or several allow, and what is written below each of them.

To add a figure is to write a function that draws it from frames, to add its line to `run_figures`
or `joint_figures`, and its caption to `CAPTIONS`. Nothing here computes: the frames are attributes
of `Analysis`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradcam_bench.analysis.analysis import Analysis
from gradcam_bench.analysis.metrics import described, metrics_with
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.names import CONTROLS, cell_name
from gradcam_bench.report.figures import comparisons, scores, style
from gradcam_bench.report.figures.gallery import gallery
from gradcam_bench.store.rows import cell_rows, measured

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
    "accuracy_vs_threshold": "Boxes that are right, against the threshold of the map, under the "
    "first protocol that sweeps thresholds.",
    "gallery": "Best, median and worst images of the gallery.",
}

Draw = Callable[[], "Figure | Axes"]


def run_figures(analysis: Analysis) -> dict[str, Draw]:
    """Return how to draw each figure that one run allows, by file name.

    Args:
        analysis: of one run.
    """
    (run,) = analysis.runs
    name, count = run.name, analysis.drawn[run.name].left_out
    note = style.left_out(count, "pair of method and layer", "pairs of method and layer")
    found = _sweep_and_tests(analysis, run)
    distributions, curves = analysis.distributions[name], analysis.curves[name]
    if len(distributions):
        found["score_distributions"] = lambda: scores.score_distributions(distributions, note=note)
    if len(curves):
        found["faithfulness_curves"] = lambda: scores.faithfulness_curves(curves, note=note)
    found |= _box_figures(analysis, run, note)
    cell, names = analysis.failures[name].cell, run.run.get("class_names")
    kept = len(run.pictures) and len(cell_rows(run.pictures, cell))
    if kept and measured(cell_rows(run.rows, cell), "box_iou"):
        found["gallery"] = lambda: gallery(run.pictures, run.rows, cell=cell, class_names=names)
    return found


def _sweep_and_tests(analysis: Analysis, run: Run) -> dict[str, Draw]:
    """Return the figures of a run that its summary and its tests allow."""
    found: dict[str, Draw] = {}
    drawn = analysis.drawn[run.name].cells
    network = run.summary[~run.summary["method"].isin(CONTROLS)]
    if network["layer"].nunique() > 1 and set(metrics_with("sweep")) & set(network["metric"]):
        methods = list(dict.fromkeys(method for method, _ in drawn if method not in CONTROLS))
        more = network["method"].nunique() - len(methods)
        note = style.left_out(more, "method", "methods")
        found["layer_sweep"] = lambda: comparisons.layer_sweep(
            run.summary, methods=methods, note=note
        )
    tests = _judged(analysis)
    if tests is not None:
        names = [cell_name(cell) for cell in drawn]
        found["paired_differences"] = lambda: comparisons.paired_differences(tests, always=names)
    return found


def _judged(analysis: Analysis) -> pd.DataFrame | None:
    """Return the paired tests of the metric that judges; None where there are none."""
    return analysis.tests.get(analysis.best.metric.name) if analysis.best else None


def _box_figures(analysis: Analysis, run: Run, note: str) -> dict[str, Draw]:
    """Return the figures of a run's boxes, against the IoU and against the threshold.

    Of several protocols that sweep, the first is drawn; its name stands in the figure.
    """
    found: dict[str, Draw] = {}
    by_iou, by_threshold = analysis.iou_curves[run.name], analysis.threshold_curves[run.name]
    if len(by_iou):
        level = described("gt_known_loc_err", run.protocols).iou_levels[0]
        found["accuracy_vs_iou"] = lambda: scores.accuracy_vs_iou(by_iou, level=level, note=note)
    if len(by_threshold):
        first = by_threshold[by_threshold["protocol"] == by_threshold["protocol"].iloc[0]]
        found["accuracy_vs_threshold"] = lambda: scores.accuracy_vs_threshold(first, note=note)
    return found


def joint_figures(analysis: Analysis) -> dict[str, Draw]:
    """Return how to draw each figure that several runs allow together, by file name."""
    if analysis.best is None:
        return {}
    summary, metric = analysis.summary, analysis.best.metric.name
    found: dict[str, Draw] = {}
    for name in dict.fromkeys((metric, "insertion_auc")):
        if name in set(summary["metric"]):
            file = "architectures" if name == metric else f"architectures_{name}"
            found[file] = partial(comparisons.architectures, summary, metric=name)
    network = summary[~summary["method"].isin(CONTROLS)]
    if network.groupby("run")["layer"].nunique().max() > 1:
        method = str(analysis.best.cell[0])
        found["heat_table"] = lambda: comparisons.heat_table(summary, metric=metric, method=method)
    costs = analysis.costs[analysis.costs["metric"] == metric]
    if len(costs) == len(analysis.runs):
        found["cost_vs_quality"] = lambda: comparisons.cost_vs_quality(costs)
    tests = _judged(analysis)
    if tests is not None:
        found["paired_differences"] = lambda: comparisons.paired_differences(tests)
    return found


def drawn(draw: Draw) -> Figure:
    """Draw a figure and solve its layout."""
    made = draw()
    return style.settle(made if isinstance(made, Figure) else style.figure_of(made))
