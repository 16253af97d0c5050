"""Where the best cell of each run fails, as text."""

from __future__ import annotations

from typing import Any

from gradcam_bench.analysis.analysis import Analysis
from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.report.figures import style


def failures(analysis: Analysis) -> list[dict[str, Any]]:
    """Return for each run the outcomes of its images and the groups and classes that fail most."""
    return [_of_run(analysis, run.name) for run in analysis.runs]


def _of_run(analysis: Analysis, name: str) -> dict[str, Any]:
    found = analysis.failures[name]
    error, overlap = METRICS["gt_known_loc_err"], METRICS["mean_box_iou"]
    groups = [
        f"{error.text(line['error'])} where {line['group']} (n = {line['n']:,})"
        for line in found.groups.to_dict("records")
    ]
    classes = [
        f"{line['class']} ({overlap.number(line[overlap.title])}, n = {line['images']:,})"
        for line in found.classes.to_dict("records")
    ]
    return {
        "run": name,
        "cell": style.cell_title(found.cell),
        "kinds": found.kinds.to_dict("records"),
        "groups": "; ".join(groups),
        "classes": "; ".join(classes),
        "broken": found.broken.to_dict("records"),
        "degenerate": found.degenerate,
    }
