"""A stored run, read once: what every table, figure and report starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from gradcam_bench.analysis.run_names import different_names
from gradcam_bench.analysis.split_scores import with_split_scores
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import Protocol, run_protocols
from gradcam_bench.store.parts import (
    has_gallery,
    missing_parts,
    read_gallery,
    read_rows,
    read_run,
)


@dataclass(frozen=True)
class Run:
    """One stored run with its summary.

    Attributes:
        name: the model's name; several runs of one model add what differs between them.
        directory: where it is stored.
        rows: one per image, method and layer; where `thresholds_from` was given, with the columns
            of `split_scores.with_split_scores`.
        run: the content of run.json.
        summary: `summary.summarize` of the rows.
        pictures: what is kept for the gallery; empty where nothing is.
    """

    name: str
    directory: Path
    rows: pd.DataFrame
    run: dict[str, Any]
    summary: pd.DataFrame
    pictures: pd.DataFrame

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """The protocols that the rows were scored under, by name, in the run's order."""
        return run_protocols(self.run)

    @cached_property
    def incomplete_text(self) -> str:
        """What is missing of it, "48 of 200 images, 10 parts missing"; empty where nothing is."""
        images, expected = self.rows["image_id"].nunique(), int(self.run.get("n_images") or 0)
        if images >= expected:
            return ""
        told = f"{images:,} of {expected:,} images"
        missing = missing_parts(self.directory, self.run)
        return f"{told}, {missing:,} part{'s'[: missing != 1]} missing" if missing else told


def load_run(directory: str | Path, *, name: str | None = None) -> Run:
    """Read a run and summarize its rows anew.

    Args:
        directory: the output_dir of a run.
        name: what to call it; by default its model.

    Raises:
        UserError: if the folder holds no run.
    """
    directory = Path(directory)
    rows, run = read_rows(directory), read_run(directory)
    rows = with_split_scores(rows, run)
    config = run.get("config") or {}
    summary = summarize(rows, seed=int(config.get("seed") or 0), protocols=run_protocols(run))
    pictures = read_gallery(directory) if has_gallery(directory) else pd.DataFrame()
    model = run.get("model") or directory.name
    return Run(name or str(model), directory, rows, run, summary, pictures)


def load_runs(directories: Sequence[str | Path | Run]) -> list[Run]:
    """Read several runs, or take them as read, and give each a name of its own.

    Args:
        directories: folders of runs, or runs as read.

    Returns:
        The runs in this order, named by `run_names.different_names`.

    Raises:
        UserError: if no folder is given, one is given twice, or one holds no run.
    """
    paths = [item.directory if isinstance(item, Run) else Path(item) for item in directories]
    if not paths:
        raise UserError("expected at least one folder of a run, got none")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a folder was given twice: give each run once")
    found = [item if isinstance(item, Run) else load_run(item) for item in directories]
    names = different_names(
        [run.name for run in found], [run.run.get("config") or {} for run in found], paths
    )
    return [
        run if run.name == name else replace(run, name=name)
        for run, name in zip(found, names, strict=True)
    ]


def joined_summary(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the summaries of runs below one another, with a column `run` of their names first."""
    frames = []
    for run in runs:
        frame = run.summary.copy()
        frame.insert(0, "run", run.name)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
