"""What to believe: the best cell of all runs, and every other one compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from gradcam_bench.analysis.comparison import candidates, compare
from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import described, metrics_with, shared_names
from gradcam_bench.analysis.stored_run import Run, joined_summary
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS, Cell, cell_name, is_control

LEVEL = 0.05
"""A difference is certain where its p-value, after Holm, is smaller."""


@dataclass(frozen=True)
class Best:
    """The best cell of all runs by one metric, controls aside.

    Attributes:
        run: the run it is of.
        cell: method and layer.
        metric: the metric that judges.
        line: its line of the summary.
        ties: names, as `names.cell_name` gives them, of the other cells that cannot be told from
            the best: their difference to it is zero or not certain (`is_certain`). Controls are
            never among them. Empty where nothing was compared.
    """

    run: Run
    cell: Cell
    metric: Metric
    line: dict[str, Any]
    ties: tuple[str, ...] = ()


def best_line(summary: pd.DataFrame) -> tuple[Metric, dict[str, Any]]:
    """Return the best line of a summary by the first judge that every run of it has.

    Judges are the metrics with the role "judge", in their order. Of equal values the first line is
    taken; `Best.ties` names the others.

    Args:
        summary: of one run, or of several with a column `run`.

    Raises:
        UserError: if the runs share none of them, or hold controls only.
    """
    runs = summary["run"].nunique() if "run" in summary else 1
    network = summary[~summary["method"].isin(CONTROLS) & summary["value"].notna()]
    for name in shared_names(metrics_with("judge"), [summary]):
        found = network[network["metric"] == name]
        if found.empty or ("run" in found and found["run"].nunique() < runs):
            continue
        metric = described(name)
        ordered = found.sort_values("value", ascending=metric.better == "lower", kind="stable")
        return metric, {str(key): value for key, value in ordered.iloc[0].items()}
    judges = ", ".join(metrics_with("judge"))
    raise UserError(f"the runs share none of {judges}, so none can be called best")


def best_cell(runs: Sequence[Run]) -> Best:
    """Return the best cell over all runs by the first judge that all of them have.

    Raises:
        UserError: if the runs share none of them, or hold controls only.
    """
    metric, line = best_line(joined_summary(runs))
    run = next(run for run in runs if run.name == line["run"])
    return Best(run, (line["method"], line["layer"]), metric, line)


def is_certain(line: Mapping[Any, Any]) -> bool:
    """Return whether a difference is certain: by its test or, untested, by its interval.

    Args:
        line: of `comparison` or of `oracle_accuracy.oracle_differences`.
    """
    if "p_holm" in line:
        return bool(line["p_holm"] < LEVEL)
    return bool(line["ci_low"] > 0 or line["ci_high"] < 0)


def with_ties(best: Best, compared: pd.DataFrame, *, several: bool) -> Best:
    """Return the best cell with the names of those that cannot be told from it.

    Args:
        best: from `best_cell`.
        compared: every other cell against a reference by the same metric; of different images the
            reference may be another than the best. Then both are tied unless their difference is
            certain.
        several: whether names begin with the run's.
    """
    if compared.empty:
        return best
    name = cell_name(best.cell, run=best.run.name if several else "")
    lines = compared.to_dict("records")
    together = [str(line["candidate"]) for line in lines if not is_certain(line)]
    together = [str(compared["reference"].iloc[0]), *together]
    if name not in together:
        return best
    ties = [other for other in together if other != name and not is_control(other)]
    return replace(best, ties=tuple(ties))


def comparison(runs: Sequence[Run], metric: str) -> pd.DataFrame:
    """Compare every cell of every run with the best, on common images; empty if not measured."""
    values: dict[str, pd.Series] = {}
    for run in runs:
        prefix = run.name if len(runs) > 1 else ""
        try:
            values |= candidates(run.rows, metric, run=prefix)
        except UserError:
            return pd.DataFrame()
    if len(values) < 2:
        return pd.DataFrame()
    try:
        return compare(values, metric, unmatched="common")
    except UserError:  # no common images
        return pd.DataFrame()


def metrics_to_test(runs: Sequence[Run]) -> list[str]:
    """Return the names of the tested metrics that all runs measured, in the order of tables."""
    return shared_names(metrics_with("tested"), [run.summary for run in runs])
