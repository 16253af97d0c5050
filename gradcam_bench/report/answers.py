"""What a newcomer asks of stored runs, answered in sentences made of their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gradcam_bench.analysis import published
from gradcam_bench.analysis.best import (
    Best,
    best_cell,
    best_line,
    comparisons,
)
from gradcam_bench.analysis.failures import error_by_group, failure_kinds
from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import described, metric_of
from gradcam_bench.analysis.oracle_accuracy import oracle_differences, oracles
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS
from gradcam_bench.report.tables import interval_text, value_text

BESIDE = ("insertion_auc", "discrimination_hit")
"""What the line on a run tells besides the metric that judges it, where it was measured."""


@dataclass(frozen=True)
class Answer:
    """A question a reader has, the answer in a word or two, and the sentence behind it."""

    question: str
    short: str
    text: str


def shows(summary: pd.DataFrame) -> str:
    """Return the line on what a run shows, from its summary alone.

    Args:
        summary: of one run, or of several with a column `run`.

    Returns:
        E.g. "grad_cam at bn2, best of 9 layers: GT-known loc. error 36.6 % [32.4, 41.0] (random
        51.0 %, center 39.4 %); 500 images.", of a metric that judges and those of BESIDE.
    """
    try:
        metric, line = best_line(summary)
    except UserError:
        return "Controls only, or no score that all runs share."
    lines = summary if "run" not in summary else summary[summary["run"] == line["run"]]
    names = [metric.name, *(name for name in BESIDE if name != metric.name)]
    parts = []
    for name in names:
        found = lines[(lines["metric"] == name) & lines["value"].notna()]
        at = (found["method"] == line["method"]) & (found["layer"] == line["layer"])
        mine = found[at].to_dict("records")
        if mine:
            shown = described(name)
            parts.append(f"{shown.title} {_with_controls(shown, mine[0], found)}")
    return f"{_place(summary, line)}: {'; '.join(parts)}; {line['n']:,} images."


def _place(summary: pd.DataFrame, line: Mapping[str, Any]) -> str:
    """Return "efficientnet_lite2 (best of 3 runs), grad_cam at bn2 (best of 9 layers)"."""
    network = summary[~summary["method"].isin(CONTROLS)]
    text = f"{line['method']} at {line['layer']}"
    if "run" in summary:
        runs = summary["run"].nunique()
        return f"{line['run']} (best of {runs} runs), {text}"
    layers, methods = network["layer"].nunique(), network["method"].nunique()
    among = [f"{layers} layers"] * (layers > 1) + [f"{methods} methods"] * (methods > 1)
    return f"{text} (best of {' and '.join(among)})" if among else text


def _with_controls(metric: Metric, line: Mapping[Any, Any], found: pd.DataFrame) -> str:
    """Return "36.6 % [32.4, 41.0] (random 51.0 %, center 39.4 %)"."""
    controls = ", ".join(
        f"{other['method']} {value_text(metric, other['value'])}"
        for other in found[found["method"].isin(CONTROLS)].to_dict("records")
    )
    ends = interval_text(metric, line["ci_low"], line["ci_high"])
    return f"{value_text(metric, line['value'])} {ends}" + (f" ({controls})" if controls else "")


def answers(runs: Sequence[Run], tests: Mapping[str, pd.DataFrame] | None = None) -> list[Answer]:
    """Return what a newcomer asks: which is best, how certainly, as in papers, where it fails.

    Args:
        runs: one or many.
        tests: from `findings.comparisons`, where they were made already.

    Raises:
        UserError: if nothing can be called best.
    """
    best = best_cell(runs)
    tests = comparisons(runs) if tests is None else tests
    compared = tests.get(best.metric.name, pd.DataFrame())
    if compared.empty and best.metric.name in oracles(runs):
        compared = oracle_differences(runs, best.metric.name)
    found = [
        _which(best, runs),
        lead(best.metric, compared),
        _controls(best, compared, several=len(runs) > 1),
        _papers(best),
        _failures(best),
    ]
    return [answer for answer in found if answer is not None]


def _which(best: Best, runs: Sequence[Run]) -> Answer:
    cells = [{c for c in _cells(run.summary) if c[0] not in CONTROLS} for run in runs]
    layers, methods = (len({c[place] for c in set().union(*cells)}) for place in (1, 0))
    only_layers = layers > 1 and methods == 1 and len(runs) == 1
    ends = interval_text(best.metric, best.line["ci_low"], best.line["ci_high"])
    value = value_text(best.metric, best.line["value"])
    text = f"{best.metric.title} {value} {ends} on {best.line['n']:,} images"
    count = sum(map(len, cells))
    if count == 1:
        text += "; nothing else but controls was run (try layers=all or more methods)"
    elif only_layers:
        text += f", the best of {layers} layers"
    elif count == len(runs):
        text += f", the best of {count} runs"
    else:
        text += f", the best of {count} pairs of method and layer"
        text += f" in {len(runs)} runs" if len(runs) > 1 else ""
    cell = f"{best.cell[0]} at {best.cell[1]}"
    return Answer(
        "Which layer is best?" if only_layers else "Which is best?",
        f"{best.run.name}, {cell}" if len(runs) > 1 else cell,
        f"{text}.",
    )


def _cells(summary: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(summary["method"], summary["layer"], strict=True))


def _is_control(candidate: str) -> bool:
    return bool(set(CONTROLS) & set(candidate.split(", ")))


def _is_sure(line: Mapping[Any, Any]) -> bool:
    """Return whether a difference is certain: by its test, or, untested, by its interval."""
    if "p_holm" in line:
        return bool(line["p_holm"] < 0.05)
    return bool(line["ci_low"] > 0 or line["ci_high"] < 0)


def lead(metric: Metric, compared: pd.DataFrame) -> Answer | None:
    """Return how far the best is ahead of the next that is no control; None without a next.

    Args:
        metric: what was compared.
        compared: from `findings.comparison` or `findings.oracle_differences`.
    """
    rivals = [line for line in compared.to_dict("records") if not _is_control(line["candidate"])]
    if not rivals:
        return None
    sign = 1 if metric.better == "lower" else -1
    line = min(rivals, key=lambda rival: sign * rival["difference"])
    ahead = value_text(metric, sign * line["difference"] + 0.0, points=True)
    ends = sorted(sign * line[end] for end in ("ci_low", "ci_high"))
    text = f"Ahead of {line['candidate']}, the next: {interval_text(metric, *ends)}"
    if "p_holm" not in line:
        text += ", an interval alone, as the threshold was chosen on these images."
    else:
        text += (
            f"; p = {line['p_holm']:.2g} ({line['test']}, Holm over {len(compared)} comparisons)."
        )
        text += "" if _is_sure(line) else _needed(line)
    if line.get("n_left_out"):
        text += f" Compared on common images only; {line['n_left_out']:,} were left out."
    sure = "certain" if _is_sure(line) else "not certain"
    return Answer("By how much, and is it certain?", f"{ahead}, {sure}", text)


def _needed(line: Mapping[Any, Any]) -> str:
    if not np.isfinite(line["images_needed"]):
        return " No number of images would show a lead of zero."
    return (
        f" About {line['images_needed']:,.0f} images would show such a lead (power 0.8); "
        f"{line['n']:,} were used."
    )


def _controls(best: Best, compared: pd.DataFrame, *, several: bool) -> Answer | None:
    prefix = f"{best.run.name}, " if several else ""
    lines = [
        line
        for line in compared.to_dict("records")
        if line["candidate"] in {prefix + control for control in CONTROLS}
    ]
    if not lines:
        return None
    sign = 1 if best.metric.better == "lower" else -1
    beaten = [_is_sure(line) and sign * line["difference"] > 0 for line in lines]
    short = "yes" if all(beaten) else "not all of them" if any(beaten) else "no"
    return Answer(
        "Does it beat the controls?",
        short,
        "; ".join(_control_text(best.metric, line, sign) for line in lines) + ".",
    )


def _control_text(metric: Metric, line: Mapping[Any, Any], sign: int) -> str:
    lead = sign * line["difference"]
    ends = sorted(sign * line[end] for end in ("ci_low", "ci_high"))
    text = (
        f"{value_text(metric, abs(lead), points=True)} {'ahead of' if lead > 0 else 'behind'} "
        f"{line['candidate'].rpartition(', ')[2]} {interval_text(metric, *ends)}"
    )
    if "p_holm" not in line:
        return text
    text += f", p = {line['p_holm']:.2g}"
    if not _is_sure(line) and np.isfinite(line["images_needed"]):
        text += f": not certain, about {line['images_needed']:,.0f} images would show it"
    return text


def _papers(best: Best) -> Answer:
    question = "Does it agree with the papers?"
    table = published.compare(best.run.summary, best.run.run)
    same = table[table["method"].eq(best.cell[0])]
    if len(same):
        inside = (same["published"] >= same["ci_low"]) & (same["published"] <= same["ci_high"])
        strict = same["comparable"].eq("yes").sum()
        text = (
            f"{inside.sum()} of {len(same)} published numbers of this network and method lie "
            f"inside our intervals; {strict} of them are strictly comparable (reasons below)."
        )
        return Answer(question, f"{inside.sum()} of {len(same)}", text)
    text = f"No paper known to us reports {best.cell[0]} of {best.run.run.get('model', '?')}."
    beside = published.compare(best.run.summary, best.run.run, any_model=True)
    elsewhere = beside["comparable"].str.contains("other images")
    others = beside[beside["method"].eq(best.cell[0]) & ~elsewhere]
    for name in ("loc_err_top1", "insertion_auc", "max_box_acc_v2"):
        text += _others(others[others["metric"] == name])
    classified = table[table["metric"] == "cls_err_top1"].to_dict("records")
    for line in classified[:1]:
        metric = metric_of("cls_err_top1")
        text += (
            f" {metric.title}: {value_text(metric, line['ours'])} here, "
            f"{value_text(metric, line['published'])} in {line['paper']}"
            f" ({line['comparable'].removeprefix('no: ')})."
        )
    return Answer(question, "cannot be told for this network", text)


def _others(lines: pd.DataFrame) -> str:
    """Return what other networks reached in one paper, beside ours."""
    if lines.empty:
        return ""
    lines = lines[lines["paper"] == lines["paper"].iloc[0]]
    metric = metric_of(lines["metric"].iloc[0])
    there = ", ".join(
        f"{value_text(metric, line['published'])} {line['model']}"
        for line in lines.to_dict("records")
    )
    ours = value_text(metric, lines["ours"].iloc[0])
    return f" {metric.title}: {ours} here; other networks in {lines['paper'].iloc[0]}: {there}."


def _failures(best: Best) -> Answer | None:
    parts = failure_kinds(best.run.rows, best.cell)
    if parts.empty:
        return None
    counts = dict(zip(parts["kind"], parts["images"], strict=True))
    total, hits = sum(counts.values()), counts.pop("box right", 0)
    text = "; ".join(f"{kind}: {count:,}" for kind, count in counts.items() if count)
    groups = error_by_group(best.run.rows, best.cell).to_dict("records")
    rates = [
        f"{line['error']:.0f} % where {line['group']} (n = {line['n']:,})"
        for line in sorted(groups, key=lambda line: -line["error"])
    ]
    text = f"Images by kind of failure: {text}." + (f" Wrong: {', '.join(rates)}." if rates else "")
    return Answer("Where does it fail?", f"{total - hits:,} of {total:,} images", text)
