"""The end of a run: stored rows to summary.csv, figures, report, and the table printed last."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gradcam_bench import markup, report, tables
from gradcam_bench.figures import write_figures
from gradcam_bench.runs import Run, load_run
from gradcam_bench.store import read_run, write_atomically


def finish(directory: str | Path | Run) -> str:
    """Write summary.csv, figures/ and report.html of a complete run and return what to print.

    Args:
        directory: the output_dir of a run, or the run as read.

    Raises:
        UserError: the folder holds no run.
    """
    found = directory if isinstance(directory, Run) else load_run(directory)
    directory = found.directory
    write_atomically(directory / "summary.csv", markup.to_csv(found.summary).encode())
    write_figures(found)
    report.write_report([found], directory / "report.html")
    lines = [describe(directory)]
    broken = found.rows[found.rows["error"].notna()].drop_duplicates("image_id")
    if len(broken):
        lines.append(f"{len(broken)} broken examples left out; the first: {broken.error.iloc[0]}")
    lines.append(f"Written to {directory}: report.html, summary.csv, figures/, scores/, run.json")
    return "\n".join(lines)


def describe(directory: str | Path) -> str:
    """Return the headline table of a finished run from its run.json and summary.csv alone."""
    run = read_run(directory)
    summary = pd.read_csv(Path(directory) / "summary.csv")
    dataset = run["config"]["dataset"]["_target_"].rpartition(".")[2]
    title = (
        f"{run['model']} on {dataset}: {run['n_images']} images in {run['seconds']:.1f} s "
        f"on {run['device']}"
    )
    return f"{title}\n\n{markup.to_text(tables.headline(summary))}\n"
