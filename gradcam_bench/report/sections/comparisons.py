"""Paired tests, differences at oracle thresholds, and the comparison with papers, as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import pandas as pd

from gradcam_bench.analysis.analysis import Analysis
from gradcam_bench.analysis.metric import UNDEFINED, Metric, number_text
from gradcam_bench.analysis.metrics import described, metric_of
from gradcam_bench.report.sections.scores import described_in


def tests(analysis: Analysis) -> list[dict[str, Any]]:
    """Return a family of paired tests for each metric: its lines as text."""
    return _families(analysis, analysis.tests, _test)


def _families(
    analysis: Analysis,
    frames: Mapping[str, pd.DataFrame],
    told: Callable[[Metric, Mapping[Hashable, Any]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return each metric's comparisons with their reference, every line told as text."""
    return [
        {
            "metric": described_in(analysis.runs, name),
            "reference": frame["reference"].iloc[0],
            "lines": [told(metric_of(name), line) for line in frame.to_dict("records")],
        }
        for name, frame in frames.items()
    ]


def _test(metric: Metric, line: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {
        "candidate": line["candidate"],
        "difference": _signed(metric, line["difference"]),
        "interval": metric.interval_text(line["ci_low"], line["ci_high"]),
        "p": p_text(line["p_holm"]),
        "sure": bool(line["p_holm"] < 0.05),
        "effect": number_text(line["effect"], 2, sign=True),
        "test": line["test"],
        "images": f"{line['n']:,}",
        "left_out": f"{line['n_undefined'] + line['n_left_out']:,}",
        "needed": images_text(line["images_needed"]),
    }


def _signed(metric: Metric, difference: float) -> str:
    return number_text(difference, metric.digits, sign=True)


def p_text(p: float) -> str:
    """Return a p-value with two significant digits, "-" where there is none."""
    return UNDEFINED if pd.isna(p) else f"{p:.2g}"


def images_text(images: float) -> str:
    """Return a number of images, "-" where no number of them would show the difference."""
    return f"{images:,.0f}" if math.isfinite(images) else UNDEFINED


def tests_table(analysis: Analysis) -> pd.DataFrame:
    """Return all paired tests as a paper prints them, below one another."""
    lines = [
        {
            "metric": described(name).title,
            "candidate": line["candidate"],
            "reference": line["reference"],
            "difference": _difference(metric_of(name), line),
            "p, Holm": p_text(line["p_holm"]),
            "effect": number_text(line["effect"], 2, sign=True),
            "test": line["test"],
            "images": f"{line['n']}",
        }
        for name, frame in analysis.tests.items()
        for line in frame.to_dict("records")
    ]
    return pd.DataFrame(lines)


def _difference(metric: Metric, line: Mapping[Hashable, Any]) -> str:
    text = metric.difference_text(line["difference"])
    return f"{text} {metric.interval_text(line['ci_low'], line['ci_high'])}"


def oracles(analysis: Analysis) -> list[dict[str, Any]]:
    """Return the differences of accuracies whose threshold was chosen on these images."""
    return _families(analysis, analysis.oracle_differences, _oracle)


def _oracle(metric: Metric, line: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {
        "candidate": line["candidate"],
        "value": metric.number(line["value"]),
        "difference": _signed(metric, line["difference"]),
        "interval": metric.interval_text(line["ci_low"], line["ci_high"]),
        "sure": bool(line["ci_high"] < 0 or line["ci_low"] > 0),
        "images": f"{line['n']:,}",
    }


def papers(analysis: Analysis) -> dict[str, Any]:
    """Return the comparison with papers; its lines refer to the reasons against it by number."""
    records = analysis.papers.to_dict("records")
    reasons = list(dict.fromkeys(x["comparable"] for x in records if x["comparable"] != "yes"))
    return {
        "lines": [_paper(line, reasons) for line in records],
        "reasons": [reason.removeprefix("no: ") for reason in reasons],
    }


def _paper(line: Mapping[Hashable, Any], reasons: list[str]) -> dict[str, Any]:
    metric, why = metric_of(line["metric"]), line["comparable"]
    return {
        **{str(key): line[key] for key in ("run", "paper", "source", "model", "layer", "metric")},
        "method": line["method"] or UNDEFINED,
        "title": metric.title,
        "ours": metric.number(line["ours"]),
        "interval": metric.interval_text(line["ci_low"], line["ci_high"]),
        "published": metric.number(line["published"]),
        "reproduction": metric.number(line["reproduction"]),
        "difference": _signed(metric, line["difference"]),
        "comparable": f"no ({reasons.index(why) + 1})" if why in reasons else why,
        "same": why == "yes",
    }
