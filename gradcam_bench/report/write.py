"""The end of a run: stored rows to summary.csv, figures, report, and the table printed last."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from gradcam_bench.analysis import best
from gradcam_bench.analysis.metrics import described
from gradcam_bench.analysis.stored_run import Run, joined_summary, load_run, load_runs
from gradcam_bench.report import html, tables, write
from gradcam_bench.report.figures import catalogue, style
from gradcam_bench.report.figures.catalogue import write_figures
from gradcam_bench.report.tables import interval_text, value_text
from gradcam_bench.store.files import make_folder, write_atomically
from gradcam_bench.store.parts import read_run


def finish(directory: str | Path | Run) -> str:
    """Write summary.csv, figures/ and report.html of a complete run and return what to print.

    Args:
        directory: the output_dir of a run, or the run as read.

    Raises:
        UserError: the folder holds no run.
    """
    found = directory if isinstance(directory, Run) else load_run(directory)
    directory = found.directory
    write_atomically(directory / "summary.csv", tables.to_csv(found.summary).encode())
    write_figures(found)
    write.write_report([found], directory / "report.html")
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
    return f"{title}\n\n{tables.to_text(tables.headline(summary))}\n"


def main(arguments: Sequence[str]) -> None:
    """Run `gradcam-bench report DIR... [--output FILE]` and print where the report is.

    By default the report goes into the folder of the run, or into `joint_folder` of all of them.

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
    runs = load_runs(given.directories)
    for run in runs:
        if run.incomplete_text:
            print(f"{run.directory} is incomplete: {run.incomplete_text}.", file=sys.stderr)
    print(write_report(runs, output, command=command))


def joint_folder(directories: Sequence[str | Path]) -> Path:
    """Return where the report of runs goes: into the folder of one, or the one that holds all.

    Where the folder that holds all of several runs is itself one of a run, `joined` inside it.
    """
    common = Path(os.path.commonpath([Path(name).resolve() for name in directories]))
    if len(directories) > 1 and (common / "run.json").exists():
        common /= "joined"
    return Path(os.path.relpath(common))


def write_report(
    directories: Sequence[str | Path | Run], output: str | Path, *, command: str = ""
) -> Path:
    """Write one self-contained HTML file on one or many runs, and tables/ beside it.

    tables/headline, tables/published and tables/tests are written as .md, .tex and .csv; of several
    runs also what `write_joined` writes. Rows are read once.

    Args:
        directories: folders of runs, or runs as read.
        output: the HTML file.
        command: what made it, to be kept with several runs.

    Raises:
        UserError: if a folder holds no run.
    """
    runs = load_runs(directories)
    output = Path(output)
    make_folder(output.parent)
    tests = best.comparisons(runs)
    joint = catalogue.joint_figures(runs, tests) if len(runs) > 1 else {}
    drawn = {name: draw() for name, draw in joint.items()}
    write_tables(runs, output.parent / "tables", tests)
    if len(runs) > 1:
        write_joined(runs, output.parent, tests, drawn, command=command)
    write_atomically(output, html.render(runs, tests, drawn).encode())
    return output


def write_joined(
    runs: Sequence[Run],
    folder: Path,
    tests: Mapping[str, pd.DataFrame],
    drawn: Mapping[str, Figure],
    *,
    command: str = "",
) -> list[Path]:
    """Write joined.csv, paired.csv, joined.json and figures/ of several runs into a folder.

    joined.csv holds the summaries below one another with a column `run`, paired.csv every cell
    against the best by each metric, joined.json the command and the runs' folders.

    Args:
        runs: several.
        folder: must exist.
        tests: from `findings.comparisons`.
        drawn: the joint figures by name.
        command: what made it.
    """
    places = {run.name: os.path.relpath(run.directory, folder) for run in runs}
    note = {"command": command, "runs": places}
    paired = pd.concat(tests.values(), ignore_index=True) if tests else pd.DataFrame()
    found = {
        "joined.csv": tables.to_csv(joined_summary(runs)),
        "paired.csv": tables.to_csv(paired),
        "joined.json": json.dumps(note, indent=2) + "\n",
    }
    written = []
    for name, text in found.items():
        write_atomically(folder / name, text.encode())
        written.append(folder / name)
    for name, figure in drawn.items():
        written += style.save(figure, folder / "figures" / name)
    return written


def write_tables(
    runs: Sequence[Run], folder: Path, tests: Mapping[str, pd.DataFrame]
) -> list[Path]:
    """Write headline, comparison with papers and paired tests as Markdown, LaTeX and CSV."""
    make_folder(folder)
    summary = joined_summary(runs) if len(runs) > 1 else runs[0].summary
    found = {"headline": (tables.headline(summary, intervals=True), tables.headline(summary))}
    papers = html.paper_table(runs)
    if len(papers):
        found["published"] = (papers, papers)
    if tests:
        numbers = pd.concat(tests.values(), ignore_index=True)
        found["tests"] = (_as_text(numbers), numbers)
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


def _as_text(tests: pd.DataFrame) -> pd.DataFrame:
    """Return paired tests as a paper prints them."""
    lines = []
    for row in tests.to_dict("records"):
        metric = described(row["metric"])
        ends = interval_text(metric, row["ci_low"], row["ci_high"])
        lines.append(
            {
                "metric": metric.title,
                "candidate": row["candidate"],
                "reference": row["reference"],
                "difference": f"{value_text(metric, row['difference'], points=True)} {ends}",
                "p, Holm": f"{row['p_holm']:.2g}",
                "effect": f"{row['effect']:+.2f}",
                "test": row["test"],
                "images": f"{row['n']}",
            }
        )
    return pd.DataFrame(lines)
