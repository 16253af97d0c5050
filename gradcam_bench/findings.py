"""What to believe, in sentences and small tables: the best cell, its lead, and where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradcam_bench import paired, published
from gradcam_bench.errors import UserError
from gradcam_bench.frames import Cell, cell_rows, measured, scored
from gradcam_bench.metrics import CONTROLS, METRICS, Metric, metric_of
from gradcam_bench.runs import Run, joined_summary

JUDGES = ("gt_known_loc_err", "mean_box_iou", "max_box_acc", "insertion_auc")
"""The first of these that was measured decides which cell is best."""
TESTED = ("gt_known_loc_err", "mean_box_iou", "energy_in_box", "insertion_auc", "deletion_auc")


@dataclass(frozen=True)
class Answer:
    """A question a reader has, the answer in a word or two, and the sentence behind it."""

    question: str
    short: str
    text: str


@dataclass(frozen=True)
class Best:
    """The best cell of all runs by one metric, controls aside."""

    run: Run
    cell: Cell
    metric: Metric
    line: dict


def best_cell(runs: Sequence[Run]) -> Best:
    """Return the best cell over all runs by the first metric of JUDGES that all of them have.

    Raises:
        UserError: if the runs share none of them, or hold controls only.
    """
    summary = joined_summary(runs)
    for name in JUDGES:
        found = summary[(summary["metric"] == name) & summary["value"].notna()]
        found = found[~found["method"].isin(CONTROLS)]
        if found["run"].nunique() == len(runs):
            metric = metric_of(name)
            line = found.sort_values("value", ascending=metric.better == "lower").iloc[0].to_dict()
            run = next(run for run in runs if run.name == line["run"])
            return Best(run, (line["method"], line["layer"]), metric, line)
    raise UserError(f"the runs share none of {', '.join(JUDGES)}, so none can be called best")


def comparison(runs: Sequence[Run], metric: str) -> pd.DataFrame:
    """Compare every cell of every run with the best, on common images; empty if not measured."""
    values: dict[str, pd.Series] = {}
    for run in runs:
        prefix = run.name if len(runs) > 1 else ""
        try:
            values |= paired.candidates(run.rows, metric, run=prefix)
        except UserError:
            return pd.DataFrame()
    if len(values) < 2:
        return pd.DataFrame()
    try:
        return paired.compare(values, metric, unmatched="common")
    except UserError:  # no common images
        return pd.DataFrame()


def value_text(metric: Metric, value: float, *, points: bool = False) -> str:
    """Return "33.0 %" or "0.653"; a difference in percent is in points."""
    if metric.unit == "%":
        return f"{value:.1f} {'points' if points else '%'}"
    return f"{value:.3f}"


def interval_text(metric: Metric, low: float, high: float) -> str:
    """Return "[28.8, 37.2]" with the metric's digits."""
    digits = 1 if metric.unit == "%" else 3
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def answers(runs: Sequence[Run]) -> list[Answer]:
    """Return what a newcomer asks: which is best, how certainly, as in papers, where it fails."""
    best = best_cell(runs)
    tests = comparison(runs, best.metric.name)
    name = _name(best, runs)
    ends = interval_text(best.metric, best.line["ci_low"], best.line["ci_high"])
    value = value_text(best.metric, best.line["value"])
    several = sum(1 for _ in _rivals(tests)) + 1
    text = f"{best.metric.title} {value} {ends} on {best.line['n']:,} images"
    if several < 2:
        text += "; nothing else but controls was run (try layers=all or more methods)"
    found = [
        Answer("Which is best?", name, f"{text}."),
        _lead(best, tests),
        _controls(best, tests),
        _papers(best),
        _failures(best),
    ]
    return [answer for answer in found if answer is not None]


def _name(best: Best, runs: Sequence[Run]) -> str:
    cell = f"{best.cell[0]} at {best.cell[1]}"
    return f"{best.run.name}, {cell}" if len(runs) > 1 else cell


def _is_control(candidate: str) -> bool:
    return bool(set(CONTROLS) & set(candidate.split(", ")))


def _rivals(tests: pd.DataFrame) -> list[dict]:
    lines = tests.to_dict("records") if len(tests) else []
    return [line for line in lines if not _is_control(line["candidate"])]


def _lead(best: Best, tests: pd.DataFrame) -> Answer | None:
    rivals = _rivals(tests)
    if not rivals:
        return None
    sign = 1 if best.metric.better == "lower" else -1
    next_best = min(rivals, key=lambda line: sign * line["difference"])
    lead = value_text(best.metric, abs(next_best["difference"]), points=True)
    ends = sorted(sign * next_best[end] for end in ("ci_low", "ci_high"))
    sure = next_best["p_holm"] < 0.05
    text = (
        f"{lead} {interval_text(best.metric, *ends)} ahead of {next_best['candidate']}; "
        f"p = {next_best['p_holm']:.2g} ({next_best['test']}, Holm over {len(tests)} comparisons)."
    )
    if not sure:
        needed = next_best["images_needed"]
        text += (
            f" About {needed:,.0f} images would show such a lead (power 0.8); "
            f"{next_best['n']:,} were used."
            if np.isfinite(needed)
            else " No number of images would show a lead of zero."
        )
    if next_best["n_left_out"]:
        text += f" Compared on common images only; {next_best['n_left_out']:,} were left out."
    return Answer("By how much, and is it certain?", "certain" if sure else "not certain", text)


def _controls(best: Best, tests: pd.DataFrame) -> Answer | None:
    lines = [line for line in tests.to_dict("records") if _is_control(line["candidate"])]
    if not lines:
        return None
    sign = 1 if best.metric.better == "lower" else -1
    beaten = [line for line in lines if line["p_holm"] < 0.05 and sign * line["difference"] > 0]
    parts = [
        f"{value_text(best.metric, abs(line['difference']), points=True)} "
        f"{'ahead of' if sign * line['difference'] > 0 else 'behind'} {line['candidate']} "
        f"(p = {line['p_holm']:.2g}{_needed(line)})"
        for line in lines
    ]
    short = "yes" if len(beaten) == len(lines) else "not all of them"
    return Answer("Does it beat the controls?", short, "; ".join(parts) + ".")


def _needed(line: dict) -> str:
    """Return how many images would make an uncertain difference certain, to go into brackets."""
    if line["p_holm"] < 0.05 or not np.isfinite(line["images_needed"]):
        return ""
    return f", {line['n']:,} images; about {line['images_needed']:,.0f} would show it"


def _papers(best: Best) -> Answer:
    question = "Does it agree with the papers?"
    table = published.compare(best.run.summary, best.run.run)
    table = table[(table["method"].isin([best.cell[0], ""])) & table["suite"].ne("classification")]
    if table.empty:
        return Answer(
            question,
            "nothing to compare",
            f"No localization or faithfulness number of {best.run.name} on these images is known "
            "to us; see the comparison below for what is.",
        )
    inside = (table["published"] >= table["ci_low"]) & (table["published"] <= table["ci_high"])
    strict = table["comparable"].eq("yes").sum()
    text = (
        f"{inside.sum()} of {len(table)} published numbers lie inside our intervals; "
        f"{strict} of them are strictly comparable (reasons below)."
    )
    return Answer(question, f"{inside.sum()} of {len(table)}", text)


def _failures(best: Best) -> Answer | None:
    parts = failure_kinds(best.run.rows, best.cell)
    if parts.empty:
        return None
    counts = dict(zip(parts["kind"], parts["images"], strict=True))
    total, hits = sum(counts.values()), counts.pop("box right", 0)
    text = "; ".join(f"{kind}: {count:,}" for kind, count in counts.items() if count)
    groups = error_by_group(best.run.rows, best.cell)
    for line in groups.to_dict("records"):
        text += f"; {line['error']:.0f} % wrong where {line['group']} (n = {line['n']:,})"
    return Answer("Where does it fail?", f"{total - hits:,} of {total:,} images", f"{text}.")


def failure_kinds(rows: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Sort a cell's images into box right, three ways of being wrong, and broken.

    Returns:
        Columns kind, images; empty where boxes or pointing were not scored.
    """
    if not (measured(rows, "gt_known_loc") and measured(rows, "pointing_hit")):
        return pd.DataFrame(columns=["kind", "images"])
    mine = cell_rows(rows, cell)
    good = scored(mine)
    good = good[good["gt_known_loc"].notna()]
    right, degenerate = good["gt_known_loc"] == 1, good["degenerate"] == 1
    pointed = good["pointing_hit"] == 1
    wrong = ~right & ~degenerate
    kinds = {
        "box right": right.sum(),
        "point on the object, box wrong": (wrong & pointed).sum(),
        "point off the object": (wrong & ~pointed).sum(),
        "degenerate map": (degenerate & ~right).sum(),
        "could not be scored": len(mine) - len(good),
    }
    return pd.DataFrame({"kind": list(kinds), "images": [int(count) for count in kinds.values()]})


def error_by_group(rows: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Return the GT-known error where the class was and was not recognised, and by object size.

    Returns:
        Columns group, error (percent), n.
    """
    good = scored(cell_rows(rows, cell))
    if not measured(good, "gt_known_loc"):
        return pd.DataFrame(columns=["group", "error", "n"])
    good = good[good["gt_known_loc"].notna()]
    groups = {
        "the class was recognised": good["top1_correct"] == 1,
        "it was not": good["top1_correct"] == 0,
    }
    if measured(good, "object_area"):
        small, large = good["object_area"].quantile([1 / 3, 2 / 3])
        groups["the object is small"] = good["object_area"] <= small
        groups["it is large"] = good["object_area"] > large
    lines = [
        (name, 100 * (1 - good.loc[group, "gt_known_loc"].mean()), int(group.sum()))
        for name, group in groups.items()
        if group.any()
    ]
    return pd.DataFrame(lines, columns=["group", "error", "n"])


def worst_classes(
    rows: pd.DataFrame,
    cell: Cell,
    *,
    class_names: Sequence[str] | None = None,
    least: int = 2,
    limit: int = 8,
) -> pd.DataFrame:
    """Return the classes of lowest mean box IoU, of those with at least `least` images."""
    good = scored(cell_rows(rows, cell))
    if not measured(good, "box_iou"):
        return pd.DataFrame(columns=["class", METRICS["mean_box_iou"].title, "images"])
    means = good.groupby("label")["box_iou"].agg(["mean", "count"])
    means = means[means["count"] >= least].sort_values("mean", kind="stable").head(limit)
    names = [
        str(class_names[int(label)]) if class_names is not None else f"class {label:g}"
        for label in means.index
    ]
    return pd.DataFrame(
        {"class": names, METRICS["mean_box_iou"].title: means["mean"], "images": means["count"]}
    ).reset_index(drop=True)
