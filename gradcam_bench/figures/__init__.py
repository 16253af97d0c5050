"""Figures from stored rows; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from gradcam_bench import store
from gradcam_bench.errors import UserError
from gradcam_bench.figures import style
from gradcam_bench.figures.gallery import gallery
from gradcam_bench.figures.scores import (
    DISTRIBUTIONS,
    accuracy_vs_iou,
    accuracy_vs_threshold,
    faithfulness_curves,
    score_distributions,
)
from gradcam_bench.frames import measured
from gradcam_bench.metrics import METRICS

__all__ = [
    "accuracy_vs_iou",
    "accuracy_vs_threshold",
    "faithfulness_curves",
    "gallery",
    "score_distributions",
    "write_figures",
]


def write_figures(directory: str | Path) -> list[Path]:
    """Write every figure that a run's rows allow to directory/figures, as PNG and PDF.

    Returns:
        The files, in the order of writing.
    """
    directory = Path(directory)
    rows = store.read_rows(directory)
    written: list[Path] = []
    for name, draw in run_figures(rows, store.read_run(directory), _pictures(directory)).items():
        written += style.save(draw(), directory / "figures" / name)
    return written


def _pictures(directory: Path) -> pd.DataFrame:
    try:
        return store.read_gallery(directory)
    except (UserError, FileNotFoundError):
        return pd.DataFrame()


def run_figures(
    rows: pd.DataFrame, run: dict, pictures: pd.DataFrame
) -> dict[str, Callable[[], Figure]]:
    """Return how to draw each figure that one run's rows allow, by file name."""
    found: dict[str, Callable[[], Figure]] = {}
    if any(measured(rows, METRICS[name].column) for name in DISTRIBUTIONS):
        found["score_distributions"] = lambda: score_distributions(rows)
    if measured(rows, "deletion_curve"):
        found["faithfulness_curves"] = lambda: faithfulness_curves(rows)
    if measured(rows, "box_iou"):
        found["accuracy_vs_iou"] = lambda: style.figure_of(accuracy_vs_iou(rows))
    if measured(rows, "iou_hits@wsol_v1"):
        found["accuracy_vs_threshold"] = lambda: style.figure_of(accuracy_vs_threshold(rows))
    if not pictures.empty:
        names = run.get("class_names")
        found["gallery"] = lambda: gallery(pictures, rows, class_names=names)
    return found
