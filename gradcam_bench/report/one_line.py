"""What a run or several show, in one sentence of their summary."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from gradcam_bench.analysis.best import best_line
from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import metric_of, metrics_with
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS


def shows(summary: pd.DataFrame) -> str:
    """Return the sentence on a run, from its summary alone.

    Args:
        summary: of one run, or of several with a column `run`.

    Returns:
        E.g. "grad_cam at bn2 (best of 9 layers): GT-known loc. error 36.60 % [32.40, 41.00]
        (random 51.00 %, center 39.40 %); 500 images.", of the metric that judges and of those with
        the role "beside".
    """
    try:
        metric, line = best_line(summary)
    except UserError:
        return "Controls only, or no score that all runs share."
    lines = summary if "run" not in summary else summary[summary["run"] == line["run"]]
    names = [metric.name, *(name for name in metrics_with("beside") if name != metric.name)]
    parts = []
    for name in names:
        found = lines[(lines["metric"] == name) & lines["value"].notna()]
        at = (found["method"] == line["method"]) & (found["layer"] == line["layer"])
        if at.any():
            shown = metric if name == metric.name else metric_of(name)
            mine = found[at].to_dict("records")[0]
            parts.append(f"{shown.title} {with_controls(shown, mine, found)}")
    return f"{_best_of(summary, line)}: {'; '.join(parts)}; {line['n']:,} images."


def _best_of(summary: pd.DataFrame, line: Mapping[str, Any]) -> str:
    """Return "grad_cam at bn2 (best of 9 layers)"; of several runs, the run as well."""
    network = summary[~summary["method"].isin(CONTROLS)]
    text = f"{line['method']} at {line['layer']}"
    if "run" in summary:
        return f"{line['run']} (best of {summary['run'].nunique()} runs), {text}"
    layers, methods = network["layer"].nunique(), network["method"].nunique()
    among = [f"{layers} layers"] * (layers > 1) + [f"{methods} methods"] * (methods > 1)
    return f"{text} (best of {' and '.join(among)})" if among else text


def with_controls(metric: Metric, line: Mapping[Hashable, Any], found: pd.DataFrame) -> str:
    """Return "36.60 % [32.40, 41.00] (random 51.00 %, center 39.40 %)"."""
    controls = ", ".join(
        f"{other['method']} {metric.text(other['value'])}"
        for other in found[found["method"].isin(CONTROLS)].to_dict("records")
    )
    ends = metric.interval_text(line["ci_low"], line["ci_high"])
    return f"{metric.text(line['value'])} {ends}" + (f" ({controls})" if controls else "")
