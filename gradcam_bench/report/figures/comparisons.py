"""Figures of summaries: layers, architectures, cost, heat tables, paired differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gradcam_bench.analysis.metrics import described
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS
from gradcam_bench.report.figures import style

SWEEP = ("gt_known_loc_err", "insertion_auc")


def _lines_of(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    found = summary[(summary["metric"] == metric) & summary["value"].notna()]
    if found.empty:
        have = ", ".join(sorted(set(summary["metric"])))
        raise UserError(f"the summary has no {metric}; it has: {have}")
    return found


def _error_bars(lines: pd.DataFrame) -> np.ndarray:
    """Return how far the interval reaches below and above, (2, lines)."""
    reach = [lines["value"] - lines["ci_low"], lines["ci_high"] - lines["value"]]
    return np.maximum(np.array(reach, dtype=float), 0)


def layer_sweep(
    summary: pd.DataFrame, *, metrics: Sequence[str] = SWEEP, layers: Sequence[str] | None = None
) -> Figure:
    """Draw each metric along the depth of a network, with intervals; controls are level bands.

    Args:
        summary: of one run.
        metrics: a panel each; those the summary lacks are left out.
        layers: in order of depth; by default that of the summary.

    Raises:
        UserError: if the summary has none of the metrics.
    """
    have = set(summary["metric"])
    names = [name for name in metrics if name in have] or list(metrics[:1])
    network = summary[~summary["method"].isin(CONTROLS)]
    layers = list(dict.fromkeys(network["layer"])) if layers is None else list(layers)
    methods = list(dict.fromkeys(network["method"]))
    many = len(layers) > 4 or max(map(len, layers)) > 12
    with style.paper():
        slanted = 0.04 * max(map(len, layers)) if many else 0
        figure, axes = style.new_axes(height=1.5 * len(names) + 0.6 + slanted, rows=len(names))
        for panel, name in zip(axes, names, strict=True):
            found = _lines_of(summary, name)
            for number, method in enumerate(methods):
                line = found[found["method"] == method].set_index("layer").reindex(layers)
                offset = 0.12 * (number - (len(methods) - 1) / 2)
                panel.errorbar(
                    np.arange(len(layers)) + offset, line["value"], _error_bars(line),
                    color=style.color(methods, method), marker=style.marker(number),
                    ls=style.dash(number), elinewidth=0.8, capsize=1.5,
                    label=style.method_title(method),
                )  # fmt: skip
            _control_bands(panel, found)
            panel.set(ylabel=described(name).label, xticks=range(len(layers)))
            panel.tick_params(axis="x", labelbottom=panel is axes[-1])
            panel.margins(x=0.04)
        axes[-1].set_xticklabels(
            layers, rotation=45 if many else 0, ha="right" if many else "center"
        )
        axes[-1].set_xlabel("layer, from input to output")
        style.legend_below(axes[0])
    return figure


def _control_bands(panel: Axes, found: pd.DataFrame) -> None:
    for control, dashes in (("random", ":"), ("center", "--")):
        for line in found[found["method"] == control].to_dict("records"):
            shade = style.CONTROL_COLORS[control]
            panel.axhspan(line["ci_low"], line["ci_high"], color=shade, alpha=0.25, lw=0)
            panel.axhline(
                line["value"], color=shade, ls=dashes, lw=1, label=style.method_title(control)
            )


def architectures(
    summary: pd.DataFrame, *, metric: str = "gt_known_loc_err", ax: Axes | None = None
) -> Axes:
    """Draw a metric of several runs side by side, one line a run, one marker a method.

    Each method stands at its best layer by this metric; a run with several layers says so by
    their number in the tick label.

    Args:
        summary: of several runs, with a column `run`.
        metric: what to draw.
        ax: where to draw.
    """
    found = _lines_of(summary, metric)
    lower = described(metric).better == "lower"
    best = found.sort_values("value", ascending=lower).drop_duplicates(["run", "method"])
    runs = list(dict.fromkeys(found["run"]))
    methods = sorted(dict.fromkeys(found["method"]), key=lambda name: name in CONTROLS)
    with style.paper():
        height = 0.9 + len(runs) * max(0.32, 0.085 * len(methods))
        ax = style.new_axes(height=height)[1][0] if ax is None else ax
        for number, method in enumerate(methods):
            line = best[best["method"] == method].set_index("run").reindex(runs)
            offset = 0.7 * ((number + 0.5) / len(methods) - 0.5)
            ax.errorbar(
                line["value"], np.arange(len(runs)) + offset, xerr=_error_bars(line), ls="",
                color=style.color(methods, method), marker=style.marker(number),
                elinewidth=0.8, capsize=1.5, label=style.method_title(method),
            )  # fmt: skip
        layers = found[~found["method"].isin(CONTROLS)].groupby("run")["layer"].nunique()
        ticks = [
            f"{run}\n(best of {layers[run]})" if layers.get(run, 1) > 1 else run for run in runs
        ]
        ax.set(yticks=range(len(runs)), yticklabels=ticks, xlabel=described(metric).label)
        ax.set_ylim(len(runs) - 0.5, -0.5)
        style.legend_below(ax)
    return ax


def cost_vs_quality(
    costs: pd.DataFrame, *, metric: str = "gt_known_loc_err", ax: Axes | None = None
) -> Axes:
    """Draw quality against seconds an image, one named point a run.

    Args:
        costs: columns name, seconds (an image), value, ci_low, ci_high.
        metric: what `value` is.
        ax: where to draw.
    """
    names = list(costs["name"])
    with style.paper():
        ax = style.new_axes(height=2.3)[1][0] if ax is None else ax
        for number, line in enumerate(costs.to_dict("records")):
            ax.errorbar(
                [line["seconds"]], [line["value"]], _error_bars(costs.iloc[[number]]),
                color=style.color(names, line["name"]), marker=style.marker(number), ls="",
                elinewidth=0.8, capsize=1.5, label=line["name"],
            )  # fmt: skip
        if costs["seconds"].max() > 20 * costs["seconds"].min():
            ax.set_xscale("log")
        else:
            ax.set_xlim(0, 1.15 * costs["seconds"].max())
        ax.set(xlabel="seconds an image, whole run", ylabel=described(metric).label)
        ax.margins(y=0.15)
        style.legend_below(ax)
    return ax


def heat_table(
    summary: pd.DataFrame,
    *,
    metric: str = "gt_known_loc_err",
    method: str = "grad_cam",
    ax: Axes | None = None,
) -> Axes:
    """Draw a table of runs x layers, dark where it is good, the best layer of each run framed.

    Where all runs have the same layers the columns carry their names; else layers stand by their
    place from the input on, and a run's label names its best. Six layers fit one column of a
    paper, more take the page's width.
    """
    found = summary[summary["method"] == method].copy()
    if "run" not in found:
        found["run"] = style.method_title(method)
    # A layer without a value keeps its place, a run without any has no line.
    drawn = found["run"].isin(_lines_of(found, metric)["run"])
    found = found[drawn & (found["metric"] == metric)].copy()
    runs = list(dict.fromkeys(found["run"]))
    found["depth"] = found.groupby("run").cumcount() + 1
    layers = found.groupby("run", sort=False)["layer"].apply(list)
    shared = all(names == layers.iloc[0] for names in layers)
    values = found.pivot(index="run", columns="depth", values="value").loc[runs]
    digits = 1 if described(metric).unit == "%" else 3
    lower = described(metric).better == "lower"
    best = values.idxmin(axis=1) if lower else values.idxmax(axis=1)
    names = runs if shared else [f"{run}\nbest: {layers[run][best[run] - 1]}" for run in runs]
    with style.paper():
        if ax is None:
            width = style.COLUMN if values.shape[1] <= 6 else style.PAGE
            ax = style.new_axes(width=width, height=0.9 + 0.34 * len(runs))[1][0]
        sns.heatmap(
            values, annot=True, fmt=f".{digits}f", cmap="viridis" if lower else "viridis_r", ax=ax,
            annot_kws={"size": 6}, linewidths=0.5, cbar=False,
        )  # fmt: skip
        for line, run in enumerate(runs):
            ax.add_patch(Rectangle((best[run] - 1, line), 1, 1, fill=False, ec="#d55e00", lw=1.5))
        ax.grid(False)
        title = f"{described(metric).label}, {style.method_title(method)}; framed: best layer"
        ax.set_title(title, loc="right")
        ax.set(ylabel="", xlabel="layer" if shared else "layer, counted from the input")
        ax.set_yticklabels(names, rotation=0)
        if shared:
            ax.set_xticklabels(layers.iloc[0], rotation=30, ha="right")
    return ax


def paired_differences(
    comparison: pd.DataFrame, *, limit: int = 24, ax: Axes | None = None
) -> Axes:
    """Draw paired differences to the reference with intervals; filled where Holm's p < 0.05.

    Args:
        comparison: of one metric, from `paired.compare`.
        limit: of more candidates, draw those nearest to the reference.
        ax: where to draw.
    """
    metric = described(comparison["metric"].iloc[0])
    nearest = comparison["difference"].abs().nsmallest(limit).index
    lines = comparison.loc[sorted(nearest)]
    with style.paper():
        ax = style.new_axes(height=0.75 + 0.19 * len(lines))[1][0] if ax is None else ax
        ax.axvline(0, color="black", lw=0.6)
        for place, line in enumerate(lines.to_dict("records")):
            sure = line["p_holm"] < 0.05
            shade = sns.color_palette("colorblind").as_hex()[0] if sure else "#6e6e6e"
            ax.plot([line["ci_low"], line["ci_high"]], [place, place], "|-", color=shade, lw=0.9)
            ax.plot(line["difference"], place, "o", color=shade, mfc=shade if sure else "white")
        reference = lines["reference"].iloc[0]
        better = "left" if metric.better == "lower" else "right"
        unit = " (points)" if metric.unit == "%" else ""
        ax.set(yticks=range(len(lines)), yticklabels=lines["candidate"])
        ax.set_ylim(len(lines) - 0.5, -0.5)
        ax.set_xlabel(f"{metric.title}{unit},\ndifference to {reference}", loc="right")
        some = f"nearest {limit} of {len(comparison)}; " if len(comparison) > limit else ""
        ax.set_title(f"{some}{better}: better; filled: p < 0.05 after Holm", loc="right")
    return ax
