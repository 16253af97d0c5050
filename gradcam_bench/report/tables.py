"""Numbers as text; a wide table as text for the terminal, Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import (
    METRICS,
    metric_of,
    metrics_with,
    names_of,
)
from gradcam_bench.errors import UserError

MISSING = "-"


def value_text(metric: Metric, value: float, *, points: bool = False) -> str:
    """Return "33.0 %" or "0.653"; a difference in percent is in points."""
    if metric.unit == "%":
        return f"{value:.1f} {'points' if points else '%'}"
    return f"{value:.3f}"


def interval_text(metric: Metric, low: float, high: float) -> str:
    """Return "[28.8, 37.2]" with the metric's digits."""
    digits = 1 if metric.unit == "%" else 3
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def with_interval(row: Mapping[Hashable, Any]) -> str:
    """Return "36.60 [32.40, 41.00]" of a line of the summary."""
    digits = _digits(row["metric"])
    if pd.isna(row["value"]):
        return MISSING
    return f"{row['value']:.{digits}f} [{row['ci_low']:.{digits}f}, {row['ci_high']:.{digits}f}]"


def _digits(metric: str) -> int:
    base = metric.split("@", 1)[0]
    return 2 if base in METRICS and METRICS[base].unit == "%" else 4


def _formatted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the wide table as text, each metric with its own digits."""
    text = table.astype(object)
    for column in table.columns:
        form = f".{_digits(str(column))}f" if pd.api.types.is_float_dtype(table[column]) else ""
        text[column] = [MISSING if pd.isna(value) else f"{value:{form}}" for value in table[column]]
    return text


def to_text(table: pd.DataFrame, *, width: int = 100) -> str:
    """Return a table as aligned text, no line longer than `width` where that can be had.

    A table too wide is turned, metrics down, where that fits; otherwise it is cut into blocks of
    columns, each with the first columns again.
    """
    text = _formatted(table)
    keys = [column for column in table.columns if not _is_number(table, column)]
    whole = _block(text, list(text.columns), len(keys))
    if _width(whole) <= width or len(keys) == len(table.columns):
        return whole
    metrics = [column for column in text.columns if column not in keys]
    turned = _aligned([[column, *text[column]] for column in [*keys, *metrics]], 1)
    if _width(turned) <= width:
        return turned
    blocks = [[metrics[0]]]
    for metric in metrics[1:]:
        if _width(_block(text, [*keys, *blocks[-1], metric], len(keys))) <= width:
            blocks[-1].append(metric)
        else:
            blocks.append([metric])
    return "\n\n".join(_block(text, [*keys, *block], len(keys)) for block in blocks)


def _block(text: pd.DataFrame, columns: list[str], left: int) -> str:
    return _aligned([columns, *text[columns].to_numpy().tolist()], left)


def _aligned(lines: list[list[str]], left: int) -> str:
    """Align lines of cells in columns, the first `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _width(text: str) -> int:
    return max(map(len, text.splitlines()))


def to_markdown(table: pd.DataFrame) -> str:
    """Return a table, from `headline` or any other, as GitHub Markdown."""
    text = _formatted(table)
    numeric = [_is_number(table, column) for column in table.columns]
    lines = [
        "| " + " | ".join(str(column) for column in table.columns) + " |",
        "|" + "|".join("---:" if right else "---" for right in numeric) + "|",
    ]
    for row in text.itertuples(index=False):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def to_latex(table: pd.DataFrame) -> str:
    """Return a table as a LaTeX tabular with booktabs rules; heads are the metrics' titles."""
    text = _formatted(table)
    align = "".join("r" if _is_number(table, column) else "l" for column in table.columns)
    heads = [_latex(_head(str(column))) for column in table.columns]
    lines = [
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        " & ".join(heads) + " \\\\",
        "\\midrule",
    ]
    for row in text.itertuples(index=False):
        lines.append(" & ".join(_latex(cell) for cell in row) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def to_csv(table: pd.DataFrame, path: str | Path | None = None) -> str:
    """Return a table as CSV with every digit, and write it where a path is given."""
    text = table.to_csv(index=False, lineterminator="\n")
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def _is_number(table: pd.DataFrame, column: object) -> bool:
    return str(column).split("@", 1)[0] in METRICS or pd.api.types.is_numeric_dtype(table[column])


def _head(column: str) -> str:
    base, _, protocol = column.partition("@")
    if base not in METRICS:
        return column
    metric = metric_of(base)
    unit = f" ({metric.unit})" if metric.unit else ""
    return metric.title + unit + (f" @ {protocol}" if protocol else "")


_LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}

_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def headline(
    summary: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    intervals: bool = False,
) -> pd.DataFrame:
    """Return the wide table: one line per method and layer, controls last, one column per metric.

    Args:
        summary: from `summarize`, or summary.csv read back; with a column `run`, several runs.
        metrics: names of the columns; by default the headline's that were measured,
            those of swept protocols with a suffix after the plain name.
        intervals: text "36.6 [32.4, 41.0]" instead of numbers.

    Raises:
        UserError: for a metric that the summary lacks.
    """
    keys = [key for key in ("run", "method", "layer") if key in summary]
    have = set(summary["metric"])
    bases = metrics_with("headline")
    shown = [name for base in bases for name in names_of(base, summary["metric"])]
    names = shown if metrics is None else list(metrics)
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
