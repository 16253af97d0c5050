"""Published numbers, and what stands between them and ours.

published.csv holds one number a line, in our units (errors, drops and MaxBoxAcc in percent, the
rest as shares). `confidence` says whether the number was "read" in a source or is "recalled" and
wants checking before it is quoted; `kind` whether it is the "paper"'s own or an independent
"reproduction"; `weights`, `geometry`, `protocol` and `images` how it was made, as far as is known.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
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

_POOLED = (
    "googlenet", "inception_v3", "resnet18", "resnet50", "resnet101", "densenet121",
    "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
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
        summary: from `tables.summarize`.
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
    table = published()
    if suite is not None:
        if suite not in set(table["suite"]):
            raise UserError(f"no suite is called {suite!r}; there are: {', '.join(suites())}")
        table = table[table["suite"] == suite]
    lines = []
    measured = summary[summary["value"].notna()].to_dict("records")
    again: dict[tuple[Any, ...], float] = {}
    for row in table[table["kind"] == "reproduction"].to_dict("records"):
        again.setdefault(_key(row), row["value"])
    for row in _leading(table).to_dict("records"):
        if row["model"] not in ("", run.get("model")) and not any_model:
            continue
        ours = _ours(measured, run, row)
        if ours is None and not keep_missing:
            continue
        paper = row["kind"] == "paper"
        line: dict[str, Any] = {
            "suite": row["suite"],
            "paper": row["paper"],
            "model": row["model_in_paper"],
            "method": row["method"],
            "layer": row["layer"],
            "metric": row["metric"],
            "published": row["value"],
            "reproduction": again.get(_key(row), float("nan")) if paper else float("nan"),
            "source": row["source"],
            "comparable": "not run here",
        }
        if ours is not None:
            reasons = comparability.reasons(row, ours, run)
            line |= {
                "ours": ours["value"],
                "ci_low": ours["ci_low"],
                "ci_high": ours["ci_high"],
                "n": ours["n"],
                "layer": ours["layer"],
                "difference": ours["value"] - row["value"],
                "comparable": "no: " + "; ".join(reasons) if reasons else "yes",
            }
        lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _key(row: Mapping[Hashable, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("suite", "model", "method", "metric"))


def _leading(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the papers' numbers, and reproductions only of what no paper's number is known."""
    papers = table[table["kind"] == "paper"]
    known = {_key(row) for row in papers.to_dict("records")}
    alone = [
        row["kind"] == "paper" or _key(row) not in known for row in table.to_dict("records")
    ]
    return table[alone]


def _ours(
    measured: Sequence[dict[Hashable, Any]], run: Mapping[str, Any], row: Mapping[Hashable, Any]
) -> dict[Hashable, Any] | None:
    """Return our line for a published one: its protocol and layer where they were run.

    Args:
        measured: the lines of our summary that have a value.
        run: the content of run.json.
        row: a line of published.csv.
    """
    protocols = list(run_protocols(run))
    name = row["metric"]
    if row["protocol"] in protocols[1:] and not metric_of(name).protocol:
        name = column_of(row["metric"], row["protocol"])
    found = [line for line in measured if line["metric"] == name]
    if row["method"]:
        found = [line for line in found if _is_method(line, run, str(row["method"]))]
    same_layer = [line for line in found if line["layer"] == row["layer"]]
    if row["layer"] and same_layer:
        found = same_layer
    elif not row["method"]:
        found = [line for line in found if line["method"] not in CONTROLS]
    return found[-1] if found else None


def _is_method(line: Mapping[Hashable, Any], run: Mapping[str, Any], method: str) -> bool:
    """Return whether a line is of a method; before global pooling Grad-CAM is CAM as well."""
    if line["method"] == method:
        return True
    if method != "cam" or run.get("model") not in _POOLED or line["method"] != "grad_cam":
        return False
    return bool(line["layer"] == comparability.default_layer(str(run["model"])))
