"""Figures of one run: distributions of scores, faithfulness curves, accuracy of boxes.

Each takes a frame that `analysis.curves` computed and only draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROL_LAYER, Cell
from gradcam_bench.report.figures import style


def cells_of(frame: pd.DataFrame) -> list[Cell]:
    """Return the cells of a frame with the columns `method` and `layer`, in its order."""
    pairs = frame[["method", "layer"]].drop_duplicates()
    return list(pairs.itertuples(index=False, name=None))


def titles_and_colors(pairs: Sequence[Cell]) -> tuple[list[str], list[str]]:
    """Return how a figure names cells (without the layer where all share it) and their colours."""
    one_layer = len({layer for _, layer in pairs if layer != CONTROL_LAYER}) <= 1
    titles = [style.cell_title(pair, one_layer=one_layer) for pair in pairs]
    keys = [
        pair[0] if pair[1] == CONTROL_LAYER else title
        for pair, title in zip(pairs, titles, strict=True)
    ]
    return titles, [style.color(keys, key) for key in keys]


def _lines(frame: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    return frame[(frame["method"] == cell[0]) & (frame["layer"] == cell[1])]


def score_distributions(scores: pd.DataFrame, *, note: str = "") -> Figure:
    """Draw how each score is spread over the images: a panel for a metric, a violin for a cell.

    The outline of a violin is a kernel density estimate that ends at the smallest and the largest
    score; the lines inside are quartiles.

    Args:
        scores: columns metric, method, layer, score, as `Analysis.distributions` holds them.
        note: is written above the figure.

    Raises:
        UserError: there are no scores.
    """
    if scores.empty:
        raise UserError("the rows hold no scores: nothing to draw")
    names, pairs = list(dict.fromkeys(scores["metric"])), cells_of(scores)
    titles, colors = titles_and_colors(pairs)
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    with style.paper():
        height = rows * (0.45 + 0.24 * len(pairs)) + 0.1
        figure, axes = style.new_axes(height=height, columns=columns, rows=rows, sharey=True)
        for panel, name in zip(axes, names, strict=False):
            _violins(panel, scores[scores["metric"] == name], pairs, colors)
            panel.set(xlabel=METRICS[name].label, xlim=(-0.02, 1.02))
        axes[0].set(yticks=range(len(pairs)), yticklabels=titles)
        axes[0].set_ylim(len(pairs) - 0.5, -0.5)
        for panel in axes[len(names) :]:
            panel.set_visible(False)
        style.title_above(figure, note)
    return figure


def _violins(panel: Axes, scores: pd.DataFrame, pairs: Sequence[Cell], colors: list[str]) -> None:
    values = [_lines(scores, pair)["score"].to_numpy(dtype=float) for pair in pairs]
    places = [number for number, found in enumerate(values) if len(found)]
    drawn = panel.violinplot(
        [values[number] for number in places], places, orientation="horizontal", widths=0.8,
        showextrema=False, quantiles=[[0.25, 0.5, 0.75]] * len(places),
    )  # fmt: skip
    bodies: Any = drawn["bodies"]
    for body, number in zip(bodies, places, strict=True):
        body.set(facecolor=colors[number], edgecolor="#333333", alpha=1, linewidth=0.6)
    drawn["cquantiles"].set(color="#333333", linewidth=0.6, linestyle=":")


def faithfulness_curves(curves: pd.DataFrame, *, note: str = "") -> Figure:
    """Draw the mean deletion and insertion curves with their bands.

    Args:
        curves: columns method, layer, kind, changed, mean, low, high, as `Analysis.curves` holds
            them.
        note: is written above the figure.

    Raises:
        UserError: the run stored no curves.
    """
    if curves.empty:
        raise UserError("the rows hold no deletion curves: run with faithfulness.enabled=true")
    pairs = cells_of(curves)
    titles, colors = titles_and_colors(pairs)
    with style.paper():
        figure, axes = style.new_axes(height=2.1, columns=2, sharey=True)
        for panel, kind in zip(axes, ("deletion", "insertion"), strict=True):
            for number, pair in enumerate(pairs):
                line = _lines(curves[curves["kind"] == kind], pair)
                x, shade = line["changed"], colors[number]
                panel.fill_between(x, line["low"], line["high"], color=shade, alpha=0.2, lw=0)
                panel.plot(
                    x, line["mean"], color=shade, ls=style.dash(number), label=titles[number]
                )
            verb = "removed" if kind == "deletion" else "restored"
            title = METRICS[f"{kind}_auc"].label.replace(" AUC", "")
            panel.set(xlabel=f"pixels {verb} (%)", title=title, xlim=(0, 100), ylim=(0, None))
        axes[0].set_ylabel("predicted class probability")
        style.legend_below(axes[0], title=note or None)
    return figure


def accuracy_vs_iou(curves: pd.DataFrame, *, level: float = 0.5, note: str = "") -> Axes:
    """Draw the share of boxes that are right against the IoU that is asked for.

    Args:
        curves: columns method, layer, iou, share, as `Analysis.iou_curves` holds them.
        level: the IoU that the run's protocol asks for, marked by a dotted line.
        note: is written above the legend.
    """
    pairs = cells_of(curves)
    titles, colors = titles_and_colors(pairs)
    with style.paper():
        ax = style.new_axes(height=2.4)[1][0]
        ax.axvline(level, color="black", lw=0.6, ls=":")
        for number, pair in enumerate(pairs):
            line = _lines(curves, pair)
            ax.plot(
                line["iou"], line["share"], color=colors[number], ls=style.dash(number),
                label=titles[number],
            )  # fmt: skip
        ax.set(xlabel=f"IoU asked for (dotted: {level:g})", ylabel="boxes right (%)")
        ax.set(xlim=(0, 1), ylim=(0, 100))
        style.legend_below(ax, title=note or None)
    return ax


def accuracy_vs_threshold(curves: pd.DataFrame, *, note: str = "") -> Figure:
    """Draw the share of boxes that are right against the threshold, the best (oracle) marked.

    Args:
        curves: of one protocol, columns protocol, level, method, layer, threshold, share, best, as
            `Analysis.threshold_curves` holds them; each IoU level has a panel.
        note: is written above the legend.

    Raises:
        UserError: the rows were not swept under a protocol.
    """
    if curves.empty:
        raise UserError(
            "the rows hold no threshold sweep: run with a protocol that sweeps, such as wsol_v1"
        )
    levels, pairs = list(dict.fromkeys(curves["level"])), cells_of(curves)
    columns = min(len(levels), 3)
    rows = -(-len(levels) // columns)
    with style.paper():
        width = style.COLUMN if columns == 1 else style.PAGE
        figure, axes = style.new_axes(
            width=width, height=2.4 * rows, columns=columns, rows=rows, sharey=True
        )
        for ax, level in zip(axes, levels, strict=False):
            _threshold_panel(ax, curves[curves["level"] == level], pairs)
            ax.set(xlabel="threshold (share of the maximum)", xlim=(0, 1), ylim=(0, 100))
            ax.set_ylabel(f"boxes right at IoU {level:g} (%)")
        for ax in axes[len(levels) :]:
            ax.set_visible(False)
        told = f"{curves['protocol'].iloc[0]}; dot: best threshold (oracle)"
        style.legend_below(axes[0], title=f"{told}\n{note}" if note else told)
    return figure


def _threshold_panel(ax: Axes, curves: pd.DataFrame, pairs: Sequence[Cell]) -> None:
    titles, colors = titles_and_colors(pairs)
    for number, pair in enumerate(pairs):
        line = _lines(curves, pair)
        best = line[line["best"].astype(bool)]
        ax.plot(
            line["threshold"], line["share"], color=colors[number], ls=style.dash(number),
            label=titles[number],
        )  # fmt: skip
        ax.plot(best["threshold"], best["share"], "o", color=colors[number])
