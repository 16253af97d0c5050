"""A stored run, read once: what every table, figure and report starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

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
    """One run.

    Attributes:
        name: the model's name; several runs of one model carry their folder's name as well.
        directory: where it is stored.
        rows: one per image, method and layer; where `thresholds_from` was given, with the columns
            of `split_scores.with_split_scores`.
        run: the content of run.json.
        summary: `tables.summarize` of the rows.
        pictures: what is kept for the gallery; empty where nothing is.
        drawn: figures drawn so far, by name, so that files and report share them.
    """

    name: str
    directory: Path
    rows: pd.DataFrame
    run: dict[str, Any]
    summary: pd.DataFrame
    pictures: pd.DataFrame
    drawn: dict[str, Figure] = field(default_factory=dict, compare=False, repr=False)

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
        told = f"{images} of {expected} images"
        missing = missing_parts(self.directory, self.run)
        return f"{told}, {missing} part{'s'[: missing != 1]} missing" if missing else told


def load_run(directory: str | Path, *, name: str | None = None) -> Run:
    """Read a run and summarize its rows anew.

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
    """Read several runs, or take them as read; equal names are told apart by the folders.

    Raises:
        UserError: if no folder is given, one is given twice, or one holds no run.
    """
    paths = [item.directory if isinstance(item, Run) else Path(item) for item in directories]
    if not paths:
        raise UserError("expected at least one folder of a run, got none")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a folder was given twice: give each run once")
    found = [item if isinstance(item, Run) else load_run(item) for item in directories]
    names = [run.name for run in found]
    for number, run in enumerate(found):
        if names.count(run.name) > 1:
            parts = run.directory.resolve().parts
            short = "/".join(parts[-2:]) if len({p.name for p in paths}) < len(paths) else parts[-1]
            found[number] = replace(run, name=f"{run.name} ({short})")
    return found


def joined_summary(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the summaries of several runs below one another, with a column `run` in front."""
    frames = []
    for run in runs:
        frame = run.summary.copy()
        frame.insert(0, "run", run.name)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
