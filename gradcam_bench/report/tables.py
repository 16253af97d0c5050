"""Wide tables of metrics, and any table as text, Markdown, LaTeX (booktabs) and CSV.

The formats come from tabulate and pandas; what a number looks like comes from its `Metric`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from gradcam_bench.analysis.metric import UNDEFINED, number_text
from gradcam_bench.analysis.metrics import METRICS, described, metric_of, names_with
from gradcam_bench.errors import UserError
from gradcam_bench.names import base_and_protocol

KEYS = ("run", "method", "layer")
"""The columns of a wide table that name a line."""


def headline_names(summary: pd.DataFrame) -> list[str]:
    """Return the headline metrics that a summary holds, each followed by its further protocols.

    Args:
        summary: with a column `metric`; "gt_known_loc_err@cam2016" is a name of its own.
    """
    return names_with("headline", summary["metric"])


def headline(
    summary: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    intervals: bool = False,
) -> pd.DataFrame:
    """Return the wide table: one line per method and layer, controls last, one column per metric.

    Args:
        summary: from `summarize`, or summary.csv read back; with a column `run`, several runs.
        metrics: names of the columns; by default those of `headline_names`.
        intervals: text "36.60 [32.40, 41.00]" instead of numbers.

    Raises:
        UserError: for a metric that the summary lacks.
    """
    keys = [key for key in KEYS if key in summary]
    have = set(summary["metric"])
    names = headline_names(summary) if metrics is None else list(metrics)
    missing = [name for name in names if name not in have]
    if missing:
        raise UserError(
            f"the summary has no {', '.join(missing)}; it has: {', '.join(sorted(have))}"
        )
    lines: dict[tuple[str, ...], dict[str, object]] = {}
    for row in summary.to_dict("records"):
        line = lines.setdefault(tuple(str(row[key]) for key in keys), {})
        line[row["metric"]] = with_interval(row) if intervals else row["value"]
    records = [dict(zip(keys, key, strict=True)) | line for key, line in lines.items()]
    return pd.DataFrame(records, columns=[*keys, *names])


def with_interval(row: Mapping[Hashable, Any]) -> str:
    """Return "36.60 [32.40, 41.00]" of a line of the summary."""
    found = _metric(row["metric"])
    if found is not None:
        return found.estimate_text(row["value"], row["ci_low"], row["ci_high"])
    texts = [number_text(row[key], 4) for key in ("value", "ci_low", "ci_high")]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _metric(column: object) -> Any:
    return metric_of(str(column)) if base_and_protocol(str(column))[0] in METRICS else None


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table as text: each metric with its own decimals, other fractions with four."""
    text = table.astype(object)
    for column in table.columns:
        found = _metric(column)
        digits = 4 if found is None else found.digits
        text[column] = [_entry(value, digits) for value in table[column]]
    return text


def _entry(value: Any, digits: int) -> str:
    if isinstance(value, float | np.floating):
        return number_text(float(value), digits)
    return UNDEFINED if value is None or pd.isna(value) else str(value)


def _is_number(table: pd.DataFrame, column: object) -> bool:
    return _metric(column) is not None or pd.api.types.is_numeric_dtype(table[column])


def to_markdown(table: pd.DataFrame) -> str:
    """Return a table, from `headline` or any other, as GitHub Markdown."""
    text = formatted(table).map(lambda entry: entry.replace("|", "\\|"))
    return _tabulated(text, table, "pipe") + "\n"


def _tabulated(text: pd.DataFrame, table: pd.DataFrame, style: str) -> str:
    """Return text as tabulate lays it out, numbers and metrics to the right."""
    sides = ["right" if _is_number(table, column) else "left" for column in text.columns]
    return tabulate(
        text.to_numpy().tolist(),
        headers=[str(column) for column in text.columns],
        tablefmt=style,
        colalign=sides if len(text) else None,
        disable_numparse=True,
    )


def to_latex(table: pd.DataFrame) -> str:
    """Return a table as a LaTeX tabular with booktabs rules; heads are the metrics' titles."""
    sides = "".join("r" if _is_number(table, column) else "l" for column in table.columns)
    text = formatted(table).set_axis([_head(str(column)) for column in table.columns], axis=1)
    return text.to_latex(index=False, escape=True, column_format=sides)


def _head(column: str) -> str:
    if _metric(column) is None:
        return column
    found = described(column)
    return found.title + (f" ({found.unit})" if found.unit else "")


def to_csv(table: pd.DataFrame, path: str | Path | None = None) -> str:
    """Return a table as CSV with every digit, and write it where a path is given.

    What is not finite is left empty.
    """
    finite = table.replace([np.inf, -np.inf], np.nan)
    text = finite.to_csv(index=False, lineterminator="\n")
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def to_text(table: pd.DataFrame, *, width: int = 100) -> str:
    """Return a table as aligned text, no line longer than `width` where that can be had.

    A table too wide is turned, metrics down, where that fits; otherwise it is cut into blocks of
    columns, each with the first columns again.
    """
    text = formatted(table)
    keys = [column for column in table.columns if not _is_number(table, column)]
    whole = _tabulated(text, table, "plain")
    if _width(whole) <= width or len(keys) == len(table.columns):
        return whole
    turned = _turned(text, keys)
    if _width(turned) <= width:
        return turned
    metrics = [column for column in text.columns if column not in keys]
    blocks = [[metrics[0]]]
    for metric in metrics[1:]:
        if _width(_tabulated(text[[*keys, *blocks[-1], metric]], table, "plain")) <= width:
            blocks[-1].append(metric)
        else:
            blocks.append([metric])
    return "\n\n".join(_tabulated(text[[*keys, *block]], table, "plain") for block in blocks)


def _turned(text: pd.DataFrame, keys: Sequence[str]) -> str:
    """Return the table with its columns as lines, those that name a line first."""
    columns = [*keys, *(column for column in text.columns if column not in keys)]
    lines = [[column, *text[column]] for column in columns]
    sides = ["left", *["right"] * len(text)]
    return tabulate(lines, tablefmt="plain", colalign=sides, disable_numparse=True)


def _width(text: str) -> int:
    return max(map(len, text.splitlines()))
