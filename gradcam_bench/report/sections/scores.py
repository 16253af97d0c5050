"""The table of scores, its exports, and the definitions of what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from gradcam_bench.analysis.analysis import Analysis
from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import METRICS, described, metric_of
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.names import CONTROLS, base_and_protocol
from gradcam_bench.report import tables


def headline(analysis: Analysis) -> dict[str, Any]:
    """Return the table of scores: heads with definitions, lines of value and interval.

    The best values of a column, as they are written, are marked; where more than half of the lines
    share the best, as a network's classification error does, none is.
    """
    names = tables.headline_names(analysis.summary)
    keys = [key for key in tables.KEYS if key in analysis.summary]
    texts = _texts(analysis.summary, keys, names)
    best = {name: _best_of(texts, keys, name) for name in names}
    lines = []
    for key, line in texts.items():
        control = key[keys.index("method")] in CONTROLS
        cells = [
            {**line.get(name, _EMPTY), "best": not control and _is(line, name, best[name])}
            for name in names
        ]
        lines.append({"key": key, "control": control, "cells": cells})
    heads = [{"name": name, "metric": described_in(analysis.runs, name)} for name in names]
    return {"columns": keys, "heads": heads, "lines": lines}


_EMPTY = {"value": "-", "interval": "", "number": None}

_Line = dict[str, dict[str, Any]]


def _texts(
    summary: pd.DataFrame, keys: Sequence[str], names: Sequence[str]
) -> dict[tuple[str, ...], _Line]:
    """Return value and interval as text, by line and by metric."""
    found: dict[tuple[str, ...], _Line] = {}
    for row in summary.to_dict("records"):
        line = found.setdefault(tuple(str(row[key]) for key in keys), {})
        if row["metric"] in names and not pd.isna(row["value"]):
            metric = metric_of(row["metric"])
            line[row["metric"]] = {
                "value": metric.number(row["value"]),
                "interval": metric.interval_text(row["ci_low"], row["ci_high"]),
                "number": float(row["value"]),
            }
    return found


def _best_of(texts: dict[tuple[str, ...], _Line], keys: Sequence[str], name: str) -> str | None:
    """Return the text of a column's best value; None where it says nothing."""
    at = keys.index("method")
    judged = [line[name] for key, line in texts.items() if key[at] not in CONTROLS and name in line]
    metric = metric_of(name)
    if len(judged) < 2 or not metric.better:
        return None
    best = max(judged, key=lambda cell: metric.sign * cell["number"])["value"]
    shared = sum(cell["value"] == best for cell in judged)
    return None if shared > max(1, len(judged) // 2) else str(best)


def _is(line: _Line, name: str, text: str | None) -> bool:
    return text is not None and line.get(name, _EMPTY)["value"] == text


def exports(analysis: Analysis) -> list[tuple[str, str]]:
    """Return the table of scores as Markdown, LaTeX and CSV, by the format's name."""
    wide = tables.headline(analysis.summary)
    return [
        ("Markdown", tables.to_markdown(wide)),
        ("LaTeX", tables.to_latex(wide)),
        ("CSV", tables.to_csv(wide)),
    ]


def described_in(runs: Sequence[Run], name: str) -> Metric:
    """Return a metric as the first run that has it measured it."""
    run = next(run for run in runs if name in set(run.summary["metric"]))
    return described(name, run.protocols)


def definitions(runs: Sequence[Run]) -> list[Metric]:
    """Return what was measured, each metric once for every set of IoU levels it was measured at.

    Where runs differ in them, the title says whose they are.
    """
    found = []
    for base in METRICS:
        every = [name for run in runs for name in run.summary["metric"]]
        for name in dict.fromkeys(n for n in every if base_and_protocol(n)[0] == base):
            by_run = {
                run.name: described(name, run.protocols)
                for run in runs
                if name in set(run.summary["metric"])
            }
            kinds = list(dict.fromkeys(by_run.values()))
            for kind in kinds:
                whose = ", ".join(run for run, metric in by_run.items() if metric == kind)
                title = kind.title if len(kinds) == 1 else f"{kind.title} ({whose})"
                found.append(replace(kind, title=title))
    return found
