"""Published numbers, and what stands between them and ours.

published.csv holds one number a line, in our units (errors, drops and MaxBoxAcc in percent, the
rest as shares). `confidence` says whether the number was "read" in a source or is "recalled" and
wants checking before it is quoted; `kind` whether it is the "paper"'s own or an independent
"reproduction"; `weights`, `geometry`, `protocol` and `images` how it was made, as far as is known.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from importlib import resources
from typing import Any

import pandas as pd

from gradcam_bench.analysis import comparability
from gradcam_bench.analysis.metrics import metric_of
from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import run_protocols
from gradcam_bench.names import CONTROLS, column_of

COLUMNS = (
    "suite", "paper", "model", "method", "layer", "metric", "ours", "ci_low", "ci_high", "n",
    "published", "reproduction", "difference", "comparable", "source",
)  # fmt: skip

Line = Mapping[Hashable, Any]
"""A line of published.csv or of a summary, by column."""

_POOLED = (
    "googlenet", "inception_v3", "resnet18", "resnet50", "resnet101", "efficientnet_lite0",
    "efficientnet_lite1", "efficientnet_lite2",
)  # fmt: skip
"""Networks that end in global average pooling and one linear layer.

There CAM is Grad-CAM at the last convolutional layer, the one that conf/model names.
"""


def published() -> pd.DataFrame:
    """Return every published number; text columns are empty, never NaN, where nothing is known."""
    source = resources.files("gradcam_bench.analysis").joinpath("published.csv")
    with source.open(encoding="utf-8") as lines:
        return pd.read_csv(lines, keep_default_na=False)


def suites() -> list[str]:
    """Return the names of the tables that numbers come from."""
    return list(dict.fromkeys(published()["suite"]))


def compare(
    summary: pd.DataFrame,
    run: Mapping[str, Any],
    *,
    suite: str | None = None,
    any_model: bool = False,
    keep_missing: bool = False,
) -> pd.DataFrame:
    """Set a run beside what papers report.

    Args:
        summary: from `summary.summarize`.
        run: the content of run.json.
        suite: one of `suites()`; all by default.
        any_model: also beside other networks' numbers, which the line then says.
        keep_missing: also published lines that this run has no number for.

    Returns:
        One line a published number: ours with its interval and number of images, the paper's, an
        independent reproduction's, the difference (ours - published), and `comparable`: "yes", or
        "no: " and every known reason.

    Raises:
        UserError: for an unknown suite.
    """
    table = _table(suite)
    lines_of = _lines_by_metric(summary)
    again = _reproductions(table)
    lines = []
    for row in _leading(table):
        if row["model"] not in ("", run.get("model")) and not any_model:
            continue
        ours = _ours(lines_of, run, row)
        if ours is not None or keep_missing:
            lines.append(_published_side(row, again) | _our_side(row, ours, run))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _table(suite: str | None) -> pd.DataFrame:
    table = published()
    if suite is None:
        return table
    if suite not in set(table["suite"]):
        raise UserError(f"no suite is called {suite!r}; there are: {', '.join(suites())}")
    return table[table["suite"] == suite]


def _lines_by_metric(summary: pd.DataFrame) -> dict[str, list[Line]]:
    """Return the summary's lines that have a value, in their order, by metric."""
    found: dict[str, list[Line]] = {}
    for line in summary[summary["value"].notna()].to_dict("records"):
        found.setdefault(line["metric"], []).append(line)
    return found


def _key(row: Line) -> tuple[Any, ...]:
    """Return what a paper's number and a reproduction of it have in common."""
    return tuple(row[name] for name in ("suite", "model", "method", "metric"))


def _reproductions(table: pd.DataFrame) -> dict[tuple[Any, ...], float]:
    """Return the first independent reproduction of each number, by its key."""
    found: dict[tuple[Any, ...], float] = {}
    for row in table[table["kind"] == "reproduction"].to_dict("records"):
        found.setdefault(_key(row), row["value"])
    return found


def _leading(table: pd.DataFrame) -> list[Line]:
    """Return the papers' numbers, and reproductions only of what no paper's number is known."""
    rows = table.to_dict("records")
    known = {_key(row) for row in rows if row["kind"] == "paper"}
    return [row for row in rows if row["kind"] == "paper" or _key(row) not in known]


def _published_side(row: Line, again: Mapping[tuple[Any, ...], float]) -> dict[Hashable, Any]:
    """Return what a line of the comparison says of the paper."""
    paper = row["kind"] == "paper"
    return {
        "suite": row["suite"],
        "paper": row["paper"],
        "model": row["model_in_paper"],
        "method": row["method"],
        "layer": row["layer"],
        "metric": row["metric"],
        "published": row["value"],
        "reproduction": again.get(_key(row), math.nan) if paper else math.nan,
        "source": row["source"],
        "comparable": "not run here",
    }


def _our_side(row: Line, ours: Line | None, run: Mapping[str, Any]) -> dict[Hashable, Any]:
    """Return what a line of the comparison says of this run; nothing where it has no number."""
    if ours is None:
        return {}
    reasons = comparability.reasons(row, ours, run)
    return {
        "ours": ours["value"],
        "ci_low": ours["ci_low"],
        "ci_high": ours["ci_high"],
        "n": ours["n"],
        "layer": ours["layer"],
        "difference": ours["value"] - row["value"],
        "comparable": "no: " + "; ".join(reasons) if reasons else "yes",
    }


def _ours(lines_of: Mapping[str, list[Line]], run: Mapping[str, Any], row: Line) -> Line | None:
    """Return our line for a published one: its protocol and layer where they were run."""
    further = list(run_protocols(run))[1:]
    name = row["metric"]
    if row["protocol"] in further and not metric_of(name).protocol:
        name = column_of(row["metric"], row["protocol"])
    found = lines_of.get(name, [])
    if row["method"]:
        found = [line for line in found if _is_method(line, row["method"], run)]
    at_layer = [line for line in found if line["layer"] == row["layer"]]
    if row["layer"] and at_layer:
        found = at_layer
    elif not row["method"]:
        found = [line for line in found if line["method"] not in CONTROLS]
    return found[-1] if found else None


def _is_method(line: Line, method: str, run: Mapping[str, Any]) -> bool:
    """Return whether a line of ours is of a published method, or of Grad-CAM where it is CAM."""
    if line["method"] == method:
        return True
    pooled = method == "cam" and line["method"] == "grad_cam" and run.get("model") in _POOLED
    return pooled and line["layer"] == comparability.default_layer(str(run["model"]))
