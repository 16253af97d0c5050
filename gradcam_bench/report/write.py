"""The end of a run: stored rows to summary.csv, figures, tables, the page, and what is printed."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from gradcam_bench.analysis.analysis import Analysis, analyse
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.report import html, tables
from gradcam_bench.report.charts import Chart, joint_charts, run_charts, save_charts
from gradcam_bench.report.sections import comparisons, how
from gradcam_bench.store.files import make_folder, write_atomically
from gradcam_bench.store.parts import read_run


def finish(directory: str | Path | Run) -> str:
    """Write all files of one run: summary.csv, errors.csv, figures/, tables/, report.html.

    Args:
        directory: the output_dir of a run, or the run as read.

    Returns:
        What to print.

    Raises:
        UserError: the folder holds no run.
    """
    return _finish(analyse([directory]))[0]


def _finish(analysis: Analysis) -> tuple[str, list[Chart]]:
    """Write all files of the only run of an analysis and return what to print and its figures."""
    (run,) = analysis.runs
    charts = run_charts(analysis)
    write_atomically(run.directory / "summary.csv", tables.to_csv(run.summary).encode())
    broken = analysis.failures[run.name].listed
    if len(broken):
        write_atomically(run.directory / "errors.csv", tables.to_csv(broken).encode())
    else:
        (run.directory / "errors.csv").unlink(missing_ok=True)  # of images mended since
    save_charts(charts, run.directory / "figures")
    write_tables(analysis, run.directory / "tables")
    page = html.render(analysis, {run.name: charts})
    write_atomically(run.directory / "report.html", page.encode())
    return _told(analysis), charts


def _told(analysis: Analysis) -> str:
    """Return the headline of a run just written, what is missing or broken, and the files."""
    (run,) = analysis.runs
    lines = [describe(run.directory), *how.incomplete(analysis)]
    broken = analysis.failures[run.name].broken
    if len(broken):
        lines.append(f"{len(broken)} broken examples left out; the first: {broken.error.iloc[0]}")
    lines.append(
        f"Written to {run.directory}: report.html, summary.csv, figures/, tables/, scores/, "
        "run.json"
    )
    return "\n".join(lines)


def finish_several(directories: Sequence[str | Path], output: Path, *, command: str = "") -> str:
    """Write all files of each of several runs, then those of all of them together.

    Every run is read, and every figure drawn, once.

    Args:
        directories: one folder or several.
        output: the HTML file of several runs together; one alone has none besides its own.
        command: what made them, to be kept beside `output`.

    Returns:
        What to print.

    Raises:
        UserError: if a folder holds no run.
    """
    analysis = analyse(directories)
    told, charts = [], {}
    for run in analysis.runs:
        text, charts[run.name] = _finish(analysis.alone[run.name])
        told.append(text)
    if analysis.several:
        write_joint(analysis, charts, output, command=command)
        told.append(f"Joined {len(analysis.runs)} runs: {output}, joined.csv, paired.csv, figures/")
    return "\n".join(told)


def describe(directory: str | Path) -> str:
    """Return the headline table of a finished run from its run.json and summary.csv alone."""
    run = read_run(directory)
    summary = pd.read_csv(Path(directory) / "summary.csv")
    dataset = run["config"]["dataset"]["_target_"].rpartition(".")[2]
    title = (
        f"{run['model']} on {dataset}: {run['n_images']} images in {run['seconds']:.1f} s "
        f"on {run['device']}"
    )
    return f"{title}\n\n{tables.to_text(tables.headline(summary))}\n"


def main(arguments: Sequence[str]) -> None:
    """Run `gradcam-bench report DIR... [--output FILE]` and print where the report is.

    By default the report goes into the folder of the run, or into `joint_folder` of all of them.
    What is missing of an incomplete run is printed as well.

    Raises:
        UserError: if no folder is given, or one holds no run.
    """
    parser = argparse.ArgumentParser(
        prog="gradcam-bench report",
        description="Make report.html of one or many stored runs, with tables/ beside it; of "
        "several also joined.csv, paired.csv and their joint figures.",
    )
    parser.add_argument("directories", nargs="+", metavar="DIR", help="output_dir of a run")
    parser.add_argument(
        "--output", metavar="FILE", help="a folder or a file .html; default: in their folder"
    )
    given = parser.parse_args(list(arguments))
    output = Path(given.output or joint_folder(given.directories))
    if output.suffix != ".html":
        output /= "report.html"
    command = shlex.join(["gradcam-bench", "report", *arguments])
    analysis = analyse(given.directories)
    for line in how.incomplete(analysis):
        print(line)
    print(write_report(analysis, output, command=command))


def joint_folder(directories: Sequence[str | Path]) -> Path:
    """Return where the report of runs goes: into the folder of one, or the one that holds all.

    Where the folder that holds all of several runs is itself one of a run, `joined` inside it.
    """
    common = Path(os.path.commonpath([Path(name).resolve() for name in directories]))
    if len(directories) > 1 and (common / "run.json").exists():
        common /= "joined"
    return Path(os.path.relpath(common))


def write_report(
    found: Analysis | Sequence[str | Path | Run], output: str | Path, *, command: str = ""
) -> Path:
    """Write one self-contained HTML file on one or many runs, and tables/ beside it.

    tables/headline, tables/published and tables/tests are written as .md, .tex and .csv; of several
    runs also what `write_joint` writes. Rows are read once.

    Args:
        found: an analysis, or folders of runs, or runs as read.
        output: the HTML file.
        command: what made it, to be kept with several runs.

    Raises:
        UserError: if a folder holds no run.
    """
    analysis = found if isinstance(found, Analysis) else analyse(found)
    output = Path(output)
    charts = {name: run_charts(alone) for name, alone in analysis.alone.items()}
    if analysis.several:
        return write_joint(analysis, charts, output, command=command)
    make_folder(output.parent)
    write_tables(analysis, output.parent / "tables")
    write_atomically(output, html.render(analysis, charts).encode())
    return output


def write_joint(
    analysis: Analysis,
    charts: Mapping[str, Sequence[Chart]],
    output: Path,
    *,
    command: str = "",
) -> Path:
    """Write the page of several runs, and joined.csv, paired.csv, joined.json, figures/, tables/.

    joined.csv holds the summaries below one another with a column `run`, paired.csv every cell
    against the best by each metric, joined.json the command and the runs' folders.

    Args:
        analysis: of several runs.
        charts: the figures of each run, by its name.
        output: the HTML file; the others lie beside it.
        command: what made it.
    """
    folder = output.parent
    make_folder(folder)
    joint = joint_charts(analysis)
    places = {run.name: os.path.relpath(run.directory, folder) for run in analysis.runs}
    note = {"command": command, "runs": places}
    contents = {
        "joined.csv": tables.to_csv(analysis.summary),
        "paired.csv": tables.to_csv(_all_tests(analysis)),
        "joined.json": json.dumps(note, indent=2) + "\n",
        output.name: html.render(analysis, charts, joint=joint),
    }
    for name, text in contents.items():
        write_atomically(folder / name, text.encode())
    save_charts(joint, folder / "figures")
    write_tables(analysis, folder / "tables")
    return output


def _all_tests(analysis: Analysis) -> pd.DataFrame:
    frames = list(analysis.tests.values())
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def write_tables(analysis: Analysis, folder: Path) -> list[Path]:
    """Write headline, comparison with papers and paired tests as Markdown, LaTeX and CSV."""
    make_folder(folder)
    summary = analysis.summary
    found = {"headline": (tables.headline(summary, intervals=True), tables.headline(summary))}
    if len(analysis.papers):
        found["published"] = (analysis.papers, analysis.papers)
    if analysis.tests:
        found["tests"] = (comparisons.tests_table(analysis), _all_tests(analysis))
    written = []
    for name, (text, numbers) in found.items():
        for suffix, content in (
            (".md", tables.to_markdown(text)),
            (".tex", tables.to_latex(text)),
            (".csv", tables.to_csv(numbers)),
        ):
            path = folder / f"{name}{suffix}"
            write_atomically(path, content.encode())
            written.append(path)
    return written
