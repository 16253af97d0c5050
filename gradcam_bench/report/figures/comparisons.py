"""Figures of summaries: layers, architectures, cost, heat tables, paired differences."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gradcam_bench.analysis.metrics import described, metrics_with
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS
from gradcam_bench.report.figures import style

MANY = 24
"""How many slanted names stand beside each other below a figure as wide as a column."""

NAME = 24
"""Letters of a run's name in one line."""


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
    summary: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    note: str = "",
) -> Figure:
    """Draw each metric along the depth of a network, with intervals; controls are level bands.

    Args:
        summary: of one run; its layers stand in the order of depth.
        metrics: a panel each, by default those with the role "sweep"; those that the summary lacks
            are left out.
        methods: a line each; by default all of the summary.
        note: is written above the figure, such as how many methods were left out.

    Raises:
        UserError: if the summary has none of the metrics.
    """
    asked = metrics_with("sweep") if metrics is None else list(metrics)
    names = [name for name in asked if name in set(summary["metric"])] or asked[:1]
    network = summary[~summary["method"].isin(CONTROLS)]
    layers = list(dict.fromkeys(network["layer"]))
    drawn = list(dict.fromkeys(network["method"])) if methods is None else list(methods)
    with style.paper():
        width = style.COLUMN if len(layers) <= MANY else style.PAGE
        slanted = 0.04 * max(map(len, layers)) if _many(layers) else 0
        figure, axes = style.new_axes(
            width=width, height=1.5 * len(names) + 0.6 + slanted, rows=len(names)
        )
        for panel, name in zip(axes, names, strict=True):
            found = _lines_of(summary, name)
            _sweep_lines(panel, found, drawn, layers)
            _control_bands(panel, found)
            panel.set(ylabel=described(name).label)
            panel.tick_params(axis="x", labelbottom=panel is axes[-1])
            panel.margins(x=0.04)
        _layer_names(axes, layers)
        style.legend_below(axes[0])
        style.title_above(figure, note)
    return figure


def _many(layers: Sequence[str]) -> bool:
    """Return whether the names of layers need to be slanted to stand beside each other."""
    return len(layers) > 4 or max(map(len, layers)) > 12


def _sweep_lines(
    panel: Axes, found: pd.DataFrame, methods: Sequence[str], layers: Sequence[str]
) -> None:
    names = list(methods)
    for number, method in enumerate(names):
        line = found[found["method"] == method].set_index("layer").reindex(list(layers))
        offset = 0.12 * (number - (len(names) - 1) / 2)
        panel.errorbar(
            np.arange(len(layers)) + offset, line["value"], _error_bars(line),
            color=style.color(names, method), marker=style.marker(number),
            ls=style.dash(number), elinewidth=0.8, capsize=1.5,
            label=style.method_title(method),
        )  # fmt: skip


def _layer_names(axes: Sequence[Axes], layers: Sequence[str]) -> None:
    """Name the layers below the last panel; of too many for the width, every second or third."""
    every = -(-len(layers) // (2 * MANY))
    slanted = _many(layers)
    for panel in axes:
        panel.set_xticks(range(0, len(layers), every))
    axes[-1].set_xticklabels(
        layers[::every], rotation=45 if slanted else 0, ha="right" if slanted else "center"
    )
    some = "" if every == 1 else f"; one of {every} is named"
    axes[-1].set_xlabel(f"layer, from input to output{some}")


def _control_bands(panel: Axes, found: pd.DataFrame) -> None:
    for control, dashes in (("random", ":"), ("center", "--")):
        for line in found[found["method"] == control].to_dict("records"):
            shade = style.CONTROL_COLORS[control]
            panel.axhspan(line["ci_low"], line["ci_high"], color=shade, alpha=0.25, lw=0)
            panel.axhline(
                line["value"], color=shade, ls=dashes, lw=1, label=style.method_title(control)
            )


def architectures(
    summary: pd.DataFrame,
    *,
    metric: str = "gt_known_loc_err",
    methods: Sequence[str] | None = None,
    note: str = "",
) -> Axes:
    """Draw a metric of several runs side by side, one line a run, one marker a method.

    Each method stands at its best layer by this metric; a run with several layers says so by
    their number in the tick label.

    Args:
        summary: of several runs, with a column `run`.
        metric: what to draw.
        methods: one marker each, beside those of the controls; by default all of the summary.
        note: is written above the legend.
    """
    found = _lines_of(summary, metric)
    if methods is not None:
        found = found[found["method"].isin([*methods, *CONTROLS])]
    lower = described(metric).better == "lower"
    best = found.sort_values("value", ascending=lower).drop_duplicates(["run", "method"])
    runs = list(dict.fromkeys(found["run"]))
    drawn = sorted(dict.fromkeys(found["method"]), key=lambda name: name in CONTROLS)
    ticks = _run_ticks(found, runs)
    with style.paper():
        least = 0.11 * max(tick.count("\n") + 2 for tick in ticks)
        ax = style.new_axes(height=0.9 + len(runs) * max(least, 0.32, 0.085 * len(drawn)))[1][0]
        for number, method in enumerate(drawn):
            line = best[best["method"] == method].set_index("run").reindex(runs)
            offset = 0.7 * ((number + 0.5) / len(drawn) - 0.5)
            ax.errorbar(
                line["value"], np.arange(len(runs)) + offset, xerr=_error_bars(line), ls="",
                color=style.color(drawn, method), marker=style.marker(number),
                elinewidth=0.8, capsize=1.5, label=style.method_title(method),
            )  # fmt: skip
        ax.set(yticks=range(len(runs)), yticklabels=ticks, xlabel=described(metric).label)
        ax.set_ylim(len(runs) - 0.5, -0.5)
        style.legend_below(ax, title=note or None)
    return ax


def _run_ticks(found: pd.DataFrame, runs: Sequence[str]) -> list[str]:
    """Return each run's name in lines, and how many layers the best was chosen from."""
    layers = found[~found["method"].isin(CONTROLS)].groupby("run")["layer"].nunique()
    names = [style.wrapped(run, NAME) for run in runs]
    return [
        f"{name}\n(best of {layers[run]})" if layers.get(run, 1) > 1 else name
        for run, name in zip(runs, names, strict=True)
    ]


def cost_vs_quality(costs: pd.DataFrame) -> Axes:
    """Draw quality against seconds an image, one named point a run.

    Args:
        costs: columns name, metric, seconds (an image), value, ci_low, ci_high, as
            `Analysis.costs` holds them; of one metric.
    """
    names = list(costs["name"])
    with style.paper():
        ax = style.new_axes(height=2.3)[1][0]
        for number, line in enumerate(costs.to_dict("records")):
            ax.errorbar(
                [line["seconds"]], [line["value"]], _error_bars(costs.iloc[[number]]),
                color=style.color(names, line["name"]), marker=style.marker(number), ls="",
                elinewidth=0.8, capsize=1.5, label=style.wrapped(line["name"], 2 * NAME),
            )  # fmt: skip
        if costs["seconds"].max() > 20 * costs["seconds"].min():
            ax.set_xscale("log")
        else:
            ax.set_xlim(0, 1.15 * costs["seconds"].max())
        ax.set(
            xlabel="seconds an image, whole run", ylabel=described(costs["metric"].iloc[0]).label
        )
        ax.margins(y=0.15)
        style.legend_below(ax)
    return ax


def heat_table(
    summary: pd.DataFrame, *, metric: str = "gt_known_loc_err", method: str = "grad_cam"
) -> Axes:
    """Draw a table of runs x layers, dark where it is good, the best layer of each run framed.

    Where all runs have the same layers the columns carry their names; else layers stand by their
    place from the input on, and a run's label names its best. Six layers fit one column of a
    paper, more take the page's width; where that is too narrow for numbers, only the best of each
    run is written.
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
    lower = described(metric).better == "lower"
    best = values.idxmin(axis=1) if lower else values.idxmax(axis=1)
    names = [style.wrapped(run, NAME) for run in runs]
    if not shared:
        pairs = zip(names, runs, strict=True)
        names = [f"{name}\nbest: {layers[run][best[run] - 1]}" for name, run in pairs]
    with style.paper():
        width = style.COLUMN if values.shape[1] <= 6 else style.PAGE
        tallest = max(name.count("\n") + 1 for name in names)
        height = 0.9 + max(0.34, 0.12 * tallest) * len(runs)
        ax = style.new_axes(width=width, height=height)[1][0]
        sns.heatmap(
            values, annot=_numbers(values, best, metric), fmt="",
            cmap="viridis" if lower else "viridis_r", ax=ax,
            annot_kws={"size": 5.5}, linewidths=0.5, cbar=False,
        )  # fmt: skip
        for line, run in enumerate(runs):
            ax.add_patch(Rectangle((best[run] - 1, line), 1, 1, fill=False, ec="#d55e00", lw=1.5))
        ax.grid(False)
        title = f"{described(metric).label}, {style.method_title(method)}; framed: best layer"
        ax.set_title(title, loc="right")
        ax.set(ylabel="", xlabel="layer" if shared else "layer, counted from the input")
        ax.set_yticklabels(names, rotation=0)
        if shared:
            ax.set_xticks(np.arange(values.shape[1]) + 0.5)
            ax.set_xticklabels(layers.iloc[0], rotation=45, ha="right")
    return ax


def _numbers(values: pd.DataFrame, best: pd.Series, metric: str) -> pd.DataFrame:
    """Return the text of every cell of a heat table; where there are many, of the best alone."""
    texts = values.map(lambda value: "" if pd.isna(value) else described(metric).number(value))
    if values.shape[1] <= MANY - 6:
        return texts
    columns = texts.columns.to_numpy()
    return texts.where(columns[None, :] == best.loc[texts.index].to_numpy()[:, None], "")


def paired_differences(
    comparison: pd.DataFrame, *, always: Collection[str] = (), limit: int = 24
) -> Axes:
    """Draw paired differences to the reference with intervals; filled where Holm's p < 0.05.

    Args:
        comparison: of one metric, as `Analysis.tests` holds it.
        always: names of candidates that are drawn whatever the limit says.
        limit: of more candidates, draw those nearest to the reference; the title counts the rest.
    """
    metric = described(comparison["metric"].iloc[0])
    nearest = comparison["difference"].abs().nsmallest(limit).index
    kept = comparison.index.isin(nearest) | comparison["candidate"].isin(list(always))
    lines = comparison[kept]
    left_out = len(comparison) - len(lines)
    reference = lines["reference"].iloc[0]
    better = "left" if metric.better == "lower" else "right"
    unit = " (points)" if metric.unit == "%" else ""
    names = [style.wrapped(name, 32) for name in lines["candidate"]]
    with style.paper():
        rows = sum(0.19 + 0.1 * name.count("\n") for name in names)
        ax = style.new_axes(height=0.75 + rows)[1][0]
        ax.axvline(0, color="black", lw=0.6)
        for place, line in enumerate(lines.to_dict("records")):
            sure = line["p_holm"] < 0.05
            shade = sns.color_palette("colorblind").as_hex()[0] if sure else "#6e6e6e"
            ax.plot([line["ci_low"], line["ci_high"]], [place, place], "|-", color=shade, lw=0.9)
            ax.plot(line["difference"], place, "o", color=shade, mfc=shade if sure else "white")
        ax.set(yticks=range(len(lines)), yticklabels=names)
        ax.set_ylim(len(lines) - 0.5, -0.5)
        ax.set_xlabel(
            style.wrapped(f"{metric.title}{unit}, difference to {reference}", 44), loc="right"
        )
        some = f"{left_out} farther ones not drawn; " if left_out else ""
        ax.set_title(f"{some}{better}: better; filled: p < 0.05 after Holm", loc="right")
    return ax
