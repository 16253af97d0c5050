"""Figures of one run's rows: distributions, faithfulness curves, box accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradcam_bench.analysis import intervals
from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.errors import UserError
from gradcam_bench.localization import max_box_acc
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.names import Cell
from gradcam_bench.report.figures import style
from gradcam_bench.store.rows import (
    cell_rows,
    cells,
    group_codes,
    layout,
    level_masks,
    measured,
    scored,
)

DISTRIBUTIONS = ("mean_box_iou", "energy_in_box", "energy_in_mask", "deletion_auc", "insertion_auc")


def primary_cells(rows: pd.DataFrame, *, limit: int = 6) -> list[Cell]:
    """Return at most `limit` cells to draw: each method at its last layer, then the controls.

    With one method, its layers instead, the deepest first to stay.
    """
    pairs = cells(rows)
    controls = [pair for pair in pairs if pair[1] == "input"]
    others = [pair for pair in pairs if pair[1] != "input"]
    if len({method for method, _ in others}) > 1:
        others = list({method: (method, layer) for method, layer in others}.values())
    return [*others[-max(limit - len(controls), 1) :], *controls][:limit]


def score_distributions(
    rows: pd.DataFrame,
    *,
    metrics: Sequence[str] = DISTRIBUTIONS,
    pairs: Sequence[Cell] | None = None,
) -> Figure:
    """Draw how each score is spread over the images, a panel a metric, a violin a cell.

    Lines inside the violins are quartiles; outlines end at the data's ends.

    Raises:
        UserError: if the rows hold none of the metrics.
    """
    good = scored(rows)
    names = [
        n for n in metrics if METRICS[n].column in good and good[METRICS[n].column].notna().any()
    ]
    if not names:
        raise UserError(f"the rows hold none of {', '.join(metrics)}: nothing to draw")
    pairs = primary_cells(good) if pairs is None else list(pairs)
    titles, colors = _titles_and_colors(pairs)
    places = layout(good, pairs)
    columns = min(2, len(names))
    lines = -(-len(names) // columns)
    with style.paper():
        height = lines * (0.45 + 0.24 * len(pairs)) + 0.1
        figure, axes = style.new_axes(height=height, columns=columns, rows=lines, sharey=True)
        for panel, name in zip(axes, names, strict=False):
            values = pd.DataFrame(places.matrix(good[METRICS[name].column]), columns=titles)
            long = values.melt(var_name="cell", value_name="score").dropna()
            sns.violinplot(
                long, x="score", y="cell", hue="cell", order=titles, hue_order=titles,
                palette=colors, cut=0, inner="quart", linewidth=0.6, density_norm="width",
                saturation=1, legend=False, ax=panel,
            )  # fmt: skip
            panel.set(xlabel=METRICS[name].label, ylabel="", xlim=(-0.02, 1.02))
        for panel in axes[len(names) :]:
            panel.set_visible(False)
    return figure


def _titles_and_colors(pairs: Sequence[Cell]) -> tuple[list[str], list[str]]:
    one_layer = len({layer for _, layer in pairs if layer != "input"}) <= 1
    titles = [style.cell_title(pair, one_layer=one_layer) for pair in pairs]
    keys = [
        pair[0] if pair[1] == "input" else title for pair, title in zip(pairs, titles, strict=True)
    ]
    return titles, [style.color(keys, key) for key in keys]


def faithfulness_curves(
    rows: pd.DataFrame,
    *,
    pairs: Sequence[Cell] | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> Figure:
    """Draw the mean deletion and insertion curves with bootstrap bands.

    Raises:
        UserError: if the run stored no curves.
    """
    good = scored(rows)
    if not measured(good, "deletion_curve"):
        raise UserError("the rows hold no deletion curves: run with faithfulness.enabled=true")
    pairs = primary_cells(good) if pairs is None else list(pairs)
    titles, colors = _titles_and_colors(pairs)
    with style.paper():
        figure, axes = style.new_axes(height=2.1, columns=2, sharey=True)
        for panel, name in zip(axes, ("deletion", "insertion"), strict=True):
            for number, (pair, title) in enumerate(zip(pairs, titles, strict=True)):
                images, curves = _curves(good, pair, f"{name}_curve")
                if not len(curves):
                    continue
                groups = group_codes(images, good)
                counts = intervals.resample_counts(
                    len(curves), groups=groups, resamples=500, seed=seed
                )
                samples = intervals.bootstrap_means(curves, counts)
                low, high = intervals.percentile_interval(samples, confidence=confidence)
                changed = np.linspace(0, 100, curves.shape[1])
                panel.fill_between(changed, low, high, color=colors[number], alpha=0.2, lw=0)
                panel.plot(
                    changed, curves.mean(axis=0), color=colors[number],
                    ls=style.dash(number), label=title,
                )  # fmt: skip
            metric = METRICS[f"{name}_auc"]
            verb = "removed" if name == "deletion" else "restored"
            panel.set(xlabel=f"pixels {verb} (%)", title=metric.label.replace(" AUC", ""))
            panel.set(xlim=(0, 100), ylim=(0, None))
        axes[0].set_ylabel("predicted class probability")
        style.legend_below(axes[0])
    return figure


def _curves(rows: pd.DataFrame, pair: Cell, column: str) -> tuple[pd.Index, np.ndarray]:
    """Return the image ids and the defined curves of a cell, (n, points); n may be 0."""
    cell = cell_rows(rows, pair)
    found = [
        (image_id, np.asarray(curve, dtype=float))
        for image_id, curve in zip(cell["image_id"], cell[column], strict=True)
        if curve is not None
    ]
    defined = [pair for pair in found if pair[1].ndim and np.isfinite(pair[1]).all()]
    curves = np.stack([curve for _, curve in defined]) if defined else np.zeros((0, 1))
    return pd.Index([image_id for image_id, _ in defined]), curves


def accuracy_vs_iou(
    rows: pd.DataFrame,
    *,
    level: float = 0.5,
    pairs: Sequence[Cell] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the share of boxes that are right against the IoU asked for.

    Args:
        rows: with the column `box_iou`.
        level: the IoU that the run's protocol asks for, marked by a dotted line.
        pairs: the cells.
        ax: where to draw.
    """
    good = scored(rows)
    pairs = primary_cells(good) if pairs is None else list(pairs)
    titles, colors = _titles_and_colors(pairs)
    values = layout(good, pairs).matrix(good["box_iou"])
    needed = np.linspace(0, 1, 201)
    with style.paper():
        ax = style.new_axes(height=2.4)[1][0] if ax is None else ax
        ax.axvline(level, color="black", lw=0.6, ls=":")
        for number, title in enumerate(titles):
            kept = values[~np.isnan(values[:, number]), number]
            if not len(kept):
                continue
            share = 100 * (kept[:, None] >= needed).mean(axis=0)
            ax.plot(needed, share, color=colors[number], ls=style.dash(number), label=title)
        ax.set(xlabel=f"IoU asked for (dotted: {level:g})", ylabel="boxes right (%)")
        ax.set(xlim=(0, 1), ylim=(0, 100))
        style.legend_below(ax)
    return ax


def accuracy_vs_threshold(
    rows: pd.DataFrame, protocol: Protocol, *, pairs: Sequence[Cell] | None = None
) -> Figure:
    """Draw the share of boxes that are right against the threshold, the best (oracle) marked.

    Args:
        rows: with the columns `iou_hits@P` and `max_level@P` of a protocol P.
        protocol: that protocol, with its IoU levels and thresholds; a panel is drawn per level.
        pairs: the cells.

    Raises:
        UserError: if the rows were not swept under the protocol.
    """
    good = scored(rows)
    column = f"iou_hits@{protocol.name}"
    if not measured(good, column):
        raise UserError(
            f"the rows hold no threshold sweep: run with protocol {protocol.name!r} as well"
        )
    pairs = primary_cells(good) if pairs is None else list(pairs)
    panels = len(protocol.iou_levels)
    columns = min(panels, 3)
    lines = -(-panels // columns)
    with style.paper():
        width = style.COLUMN if columns == 1 else style.PAGE
        figure, axes = style.new_axes(
            width=width, height=2.4 * lines, columns=columns, rows=lines, sharey=True
        )
        for bit, (ax, level) in enumerate(zip(axes, protocol.iou_levels, strict=False)):
            _threshold_panel(ax, good[good[column].notna()], protocol, bit, pairs)
            ax.set(xlabel="threshold (share of the maximum)", xlim=(0, 1), ylim=(0, 100))
            ax.set_ylabel(f"boxes right at IoU {level:g} (%)")
        for ax in axes[panels:]:
            ax.set_visible(False)
        style.legend_below(axes[0], title=f"{protocol.name}; dot: best threshold (oracle)")
    return figure


def _threshold_panel(
    ax: Axes, swept: pd.DataFrame, protocol: Protocol, bit: int, pairs: Sequence[Cell]
) -> None:
    """Draw every cell at one of the protocol's IoU levels, its `bit`-th."""
    titles, colors = _titles_and_colors(pairs)
    thresholds = protocol.thresholds()
    for number, (pair, title) in enumerate(zip(pairs, titles, strict=True)):
        cell = cell_rows(swept, pair)
        if cell.empty:
            continue
        masks, top = level_masks(cell, protocol.name)
        hits = max_box_acc.threshold_hits(masks, top, bit=bit, thresholds=thresholds)
        share = 100 * hits.mean(axis=0)
        best = int(share.argmax())
        ax.plot(thresholds, share, color=colors[number], ls=style.dash(number), label=title)
        ax.plot(thresholds[best], share[best], "o", color=colors[number])
