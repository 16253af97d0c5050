"""What a newcomer asks of stored runs, answered in sentences made of what an analysis holds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gradcam_bench.analysis.analysis import Analysis
from gradcam_bench.analysis.best import Best, is_certain
from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import METRICS, metric_of, metrics_with
from gradcam_bench.names import CONTROLS, cell_name, is_control
from gradcam_bench.report.figures import style

Line = Mapping[Hashable, Any]


@dataclass(frozen=True)
class Answer:
    """A question a reader has, the answer in a word or two, and the sentence behind it."""

    question: str
    short: str
    text: str


def answers(analysis: Analysis) -> list[Answer]:
    """Return what a newcomer asks: which is best, how certainly, as in papers, where it fails.

    Empty where nothing can be called best: there are controls only, or no score that all runs have.
    """
    best = analysis.best
    if best is None:
        return []
    compared = compared_with_best(analysis, best)
    found = [
        _which(analysis, best),
        lead(best.metric, compared),
        _controls(best, compared, several=analysis.several),
        _papers(analysis, best),
        _failures(analysis, best),
    ]
    return [answer for answer in found if answer is not None]


def compared_with_best(analysis: Analysis, best: Best) -> pd.DataFrame:
    """Return every other cell against the best by the metric that judges; empty where none is."""
    name = best.metric.name
    tested = analysis.tests.get(name, pd.DataFrame())
    return analysis.oracle_differences.get(name, tested) if tested.empty else tested


def coinciding(analysis: Analysis) -> list[str]:
    """Return a sentence for every group of methods whose scores are equal at a layer."""
    return [
        (f"{run.name}: " if analysis.several else "") + group.text(style.method_title)
        for run in analysis.runs
        for group in analysis.coincide[run.name]
    ]


def _which(analysis: Analysis, best: Best) -> Answer:
    network = analysis.summary[~analysis.summary["method"].isin(CONTROLS)]
    layers, methods = network["layer"].nunique(), network["method"].nunique()
    only_layers = layers > 1 and methods == 1 and not analysis.several
    line, metric = best.line, best.metric
    ends = metric.interval_text(line["ci_low"], line["ci_high"])
    cell = f"{best.cell[0]} at {best.cell[1]}"
    text = f"{metric.title} {metric.text(line['value'])} {ends} on {line['n']:,} images"
    text += _among(analysis, network, only_layers=only_layers) + "."
    return Answer(
        "Which layer is best?" if only_layers else "Which is best?",
        f"{best.run.name}, {cell}" if analysis.several else cell,
        text + _ties(best, several=analysis.several),
    )


def _among(analysis: Analysis, network: pd.DataFrame, *, only_layers: bool) -> str:
    """Return ", the best of 9 layers": what the best was chosen from."""
    keys = ["run", "method", "layer"] if analysis.several else ["method", "layer"]
    count, runs = len(network[keys].drop_duplicates()), len(analysis.runs)
    if count == 1:
        return "; nothing else but controls was run (try layers=all or more methods)"
    if only_layers:
        return f", the best of {count} layers"
    if count == runs:
        return f", the best of {count} runs"
    text = f", the best of {count} pairs of method and layer"
    return f"{text} in {runs} runs" if analysis.several else text


def _ties(best: Best, *, several: bool, limit: int = 6) -> str:
    """Return which cells the metric cannot tell from the best, the first `limit` by name."""
    if not best.ties:
        return ""
    name = cell_name(best.cell, run=best.run.name if several else "")
    shown = [name, *best.ties][:limit]
    more = 1 + len(best.ties) - len(shown)
    rest = f" and {more} more" if more else ""
    return f" Indistinguishable by this metric on these images: {'; '.join(shown)}{rest}."


def lead(metric: Metric, compared: pd.DataFrame) -> Answer | None:
    """Return how far the best is ahead of the next that is no control; None without a next.

    Args:
        metric: what was compared.
        compared: from `compared_with_best`.
    """
    question = "By how much, and is it certain?"
    rivals = [line for line in compared.to_dict("records") if not is_control(line["candidate"])]
    if not rivals:
        return None
    line = min(rivals, key=lambda rival: -metric.sign * rival["difference"])
    text = f"{line['candidate']} is next: {_interval(metric, line)}{_test(line, len(compared))}"
    if not is_certain(line):
        text += _needed(line)
    if line.get("n_left_out"):
        text += f" Compared on common images only; {line['n_left_out']:,} were left out."
    ahead = metric.difference_text(-metric.sign * line["difference"])
    if metric.number(line["difference"]) == metric.number(0.0):
        return Answer(question, f"indistinguishable from {line['candidate']}", text)
    certain = "certain" if is_certain(line) else "not certain"
    return Answer(question, f"{ahead}, {certain}", text)


def _interval(metric: Metric, line: Line) -> str:
    """Return the lead over a candidate with its interval, better being more."""
    ends = sorted(-metric.sign * line[end] for end in ("ci_low", "ci_high"))
    ahead = metric.difference_text(-metric.sign * line["difference"])
    return f"a lead of {ahead} {metric.interval_text(*ends)}"


def _test(line: Line, comparisons: int) -> str:
    if "p_holm" not in line:
        return ", an interval alone, as the threshold was chosen on these images."
    return f"; p = {line['p_holm']:.2g} ({line['test']}, Holm over {comparisons} comparisons)."


def _needed(line: Line) -> str:
    """Return how many images would show a lead that is not certain."""
    needed = line.get("images_needed")
    if needed is None or not np.isfinite(needed):
        return ""
    return (
        f" About {needed:,.0f} images would show such a lead (power 0.8); {line['n']:,} were used."
    )


def _controls(best: Best, compared: pd.DataFrame, *, several: bool) -> Answer | None:
    run = best.run.name if several else ""
    names = {cell_name((control, ""), run=run) for control in CONTROLS}
    lines = [line for line in compared.to_dict("records") if line["candidate"] in names]
    if not lines:
        return None
    sign = -best.metric.sign
    beaten = [is_certain(line) and sign * line["difference"] > 0 for line in lines]
    short = "yes" if all(beaten) else "not all of them" if any(beaten) else "no"
    text = "; ".join(_control(best.metric, line) for line in lines)
    return Answer("Does it beat the controls?", short, f"{text}.")


def _control(metric: Metric, line: Line) -> str:
    lead = -metric.sign * line["difference"]
    ends = sorted(-metric.sign * line[end] for end in ("ci_low", "ci_high"))
    name = line["candidate"].rpartition(", ")[2]
    if metric.number(lead) == metric.number(0.0):
        text = f"no different from {name}"
    else:
        side = "ahead of" if lead > 0 else "behind"
        text = f"{metric.difference_text(abs(lead))} {side} {name}"
    text += f" {metric.interval_text(*ends)}"
    if "p_holm" not in line:
        return text
    text += f", p = {line['p_holm']:.2g}"
    if not is_certain(line) and np.isfinite(line["images_needed"]):
        text += f": not certain, about {line['images_needed']:,.0f} images would show it"
    return text


def _papers(analysis: Analysis, best: Best) -> Answer:
    question, method = "Does it agree with the papers?", best.cell[0]
    table = analysis.papers
    table = table[table["run"] == best.run.name] if len(table) else table
    same = table[table["method"] == method] if len(table) else table
    if len(same):
        inside = (same["published"] >= same["ci_low"]) & (same["published"] <= same["ci_high"])
        strict = same["comparable"].eq("yes").sum()
        text = (
            f"{inside.sum()} of {len(same)} published numbers of this network and method lie "
            f"inside our intervals; {strict} of them are strictly comparable (reasons below)."
        )
        return Answer(question, f"{inside.sum()} of {len(same)}", text)
    text = f"No paper known to us reports {method} of {best.run.run.get('model', '?')}."
    others = analysis.papers_beside[best.run.name]
    elsewhere = others["comparable"].str.contains("other images")
    others = others[others["method"].eq(method) & ~elsewhere]
    for name in metrics_with("papers"):
        text += _others(others[others["metric"] == name])
    for line in table.to_dict("records"):
        if line["metric"] == "cls_err_top1":
            text += _classification(line)
            break
    return Answer(question, "cannot be told for this network", text)


def _classification(line: Line) -> str:
    metric, why = metric_of(line["metric"]), line["comparable"].removeprefix("no: ")
    return (
        f" {metric.title}: {metric.text(line['ours'])} here, "
        f"{metric.text(line['published'])} in {line['paper']} ({why})."
    )


def _others(lines: pd.DataFrame) -> str:
    """Return what other networks reached in one paper, beside ours."""
    if lines.empty:
        return ""
    lines = lines[lines["paper"] == lines["paper"].iloc[0]]
    metric = metric_of(lines["metric"].iloc[0])
    there = ", ".join(
        f"{metric.text(line['published'])} {line['model']}" for line in lines.to_dict("records")
    )
    ours = metric.text(lines["ours"].iloc[0])
    return f" {metric.title}: {ours} here; other networks in {lines['paper'].iloc[0]}: {there}."


def _failures(analysis: Analysis, best: Best) -> Answer | None:
    found = analysis.failures[best.run.name]
    if found.kinds.empty or found.cell != best.cell:
        return None
    error = METRICS["gt_known_loc_err"]
    counts = dict(zip(found.kinds["kind"], found.kinds["images"], strict=True))
    total, hits = sum(counts.values()), counts.pop("box right", 0)
    text = "; ".join(f"{kind}: {count:,}" for kind, count in counts.items() if count)
    rates = [
        f"{error.text(line['error'])} where {line['group']} (n = {line['n']:,})"
        for line in sorted(found.groups.to_dict("records"), key=lambda line: -line["error"])
    ]
    text = f"Images by kind of failure: {text}." + (f" Wrong: {', '.join(rates)}." if rates else "")
    return Answer("Where does it fail?", f"{total - hits:,} of {total:,} images", text)
