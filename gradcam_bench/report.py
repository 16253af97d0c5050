"""One self-contained report.html from stored runs, without torch."""

from __future__ import annotations

import argparse
import base64
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from gradcam_bench import figures, findings, published, tables
from gradcam_bench.errors import UserError
from gradcam_bench.figures import style
from gradcam_bench.frames import Cell, cell_rows, cells
from gradcam_bench.metrics import CONTROLS, METRICS, metric_of
from gradcam_bench.pictures import gallery_data
from gradcam_bench.runs import Run, joined_summary, load_runs
from gradcam_bench.store import write_atomically

GALLERY_LIMIT = 200
"""Pictures a run in the report's gallery, evenly spaced over those kept; some 15 kB each."""


def main(arguments: Sequence[str]) -> None:
    """Run `gradcam-bench report DIR... [--output FILE]` and print where the report is.

    By default the report goes into the folder of the run, or into the one that holds all of them.

    Raises:
        UserError: if no folder is given, or one holds no run.
    """
    parser = argparse.ArgumentParser(
        prog="gradcam-bench report", description="Make report.html of one or many stored runs."
    )
    parser.add_argument("directories", nargs="+", metavar="DIR", help="output_dir of a run")
    parser.add_argument("--output", metavar="FILE", help="default: report.html in their folder")
    given = parser.parse_args(list(arguments))
    common = os.path.commonpath([Path(name).resolve() for name in given.directories])
    output = given.output or os.path.relpath(Path(common) / "report.html")
    print(write_report(given.directories, output))


def write_report(directories: Sequence[str | Path | Run], output: str | Path) -> Path:
    """Write one self-contained HTML file on one or many runs, and tables/ beside it.

    tables/headline and tables/published are written as .md, .tex and .csv.

    Raises:
        UserError: if a folder holds no run.
    """
    runs = load_runs(directories)
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_tables(runs, output.parent / "tables")
    write_atomically(output, render(runs).encode())
    return output


def write_tables(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write the headline table and the comparison with papers as Markdown, LaTeX and CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = joined_summary(runs) if len(runs) > 1 else runs[0].summary
    found = {"headline": (tables.headline(summary, intervals=True), tables.headline(summary))}
    papers = paper_table(runs)
    if len(papers):
        found["published"] = (papers, papers)
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


def paper_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the comparison with papers of all runs, a column `run` in front."""
    frames = []
    for run in runs:
        frame = published.compare(run.summary, run.run)
        frame.insert(0, "run", run.name)
        if len(frame):
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def render(runs: Sequence[Run]) -> str:
    """Return the report as HTML; every stored text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gradcam_bench", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("report.html.j2")
    return template.render(
        title=", ".join(run.name for run in runs),
        several=len(runs) > 1,
        answers=_answers(runs),
        runs=[_run_context(run) for run in runs],
        headline=_headline(runs),
        exports=_exports(runs),
        charts=_charts(runs),
        tests=_tests(runs),
        papers=_papers(runs),
        failures=[_failures(run) for run in runs],
        definitions=_definitions(runs),
        gallery={
            "runs": [gallery_data(run, limit=GALLERY_LIMIT, best=_best_cell(run)) for run in runs]
        },
        colormap=style.colormap_bytes(),
    )


def _answers(runs: Sequence[Run]) -> list[findings.Answer]:
    try:
        return findings.answers(runs)
    except UserError:  # controls only, or no common score
        return []


def _run_context(run: Run) -> dict[str, Any]:
    """Return what was run and how, as (name, text) lines."""
    stored, config = run.run, run.run.get("config") or {}
    dataset = config.get("dataset") or {}
    protocols = config.get("protocols") or {}
    versions = stored.get("versions") or {}
    seconds, n = stored.get("seconds"), stored.get("n_images")
    lines = {
        "Command": stored.get("command"),
        "Network": f"{stored.get('model', '?')}, weights: {stored.get('weights', '?')}",
        "Data": f"{str(dataset.get('_target_', '?')).rpartition('.')[2]}, {n} images",
        "Data fingerprint": stored.get("data_fingerprint"),
        "Input": f"{config.get('geometry', '?')} to the network's size",
        "Protocols": ", ".join(_protocol(name, node) for name, node in protocols.items()),
        "Layers": ", ".join(stored.get("layers") or []),
        "Methods": ", ".join(config.get("methods") or []),
        "Deletion, insertion": _faithfulness(config.get("faithfulness") or {}),
        "Device": f"{stored.get('device', '?')}, {config.get('precision', '?')}",
        "Seconds": f"{seconds:,.0f}" if isinstance(seconds, int | float) else None,
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Commit": stored.get("commit"),
        "Config hash": stored.get("config_hash"),
        "Folder": str(run.directory),
    }
    return {"name": run.name, "lines": [(key, str(text)) for key, text in lines.items() if text]}


def _protocol(name: str, node: dict[str, Any] | None) -> str:
    threshold = (node or {}).get("threshold")
    rule = (node or {}).get("threshold_rule")
    if rule == "oracle":
        return f"{name} (oracle threshold: chosen on these images)"
    return f"{name} (threshold {threshold:g})" if threshold is not None else name


def _faithfulness(node: dict[str, Any]) -> str:
    return f"{node.get('steps', '?')} steps, RISE's choices" if node.get("enabled") else "off"


def _headline(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the headline table: heads with definitions, lines of value and interval."""
    summary = joined_summary(runs)
    wide = tables.headline(summary)
    names = [name for name in wide.columns if name.partition("@")[0] in METRICS]
    texts = {
        (line["run"], line["method"], line["layer"], line["metric"]): line
        for line in summary.to_dict("records")
    }
    best = {name: _best_of(wide, name) for name in names}
    lines = []
    for record in wide.to_dict("records"):
        key = (record["run"], record["method"], record["layer"])
        values = []
        for name in names:
            value, interval = _value_and_interval(texts.get((*key, name)))
            values.append(
                {"value": value, "interval": interval, "best": record[name] == best[name]}
            )
        control = record["method"] in CONTROLS
        lines.append(
            {"key": key if len(runs) > 1 else key[1:], "control": control, "cells": values}
        )
    heads = [{"name": name, "metric": metric_of(name)} for name in names]
    return {"columns": ["run", "method", "layer"][len(runs) < 2 :], "heads": heads, "lines": lines}


def _best_of(wide: pd.DataFrame, name: str) -> float:
    judged = wide.loc[~wide["method"].isin(CONTROLS), name].dropna()
    if judged.nunique() < 2:
        return float("nan")
    return float(judged.min() if metric_of(name).better == "lower" else judged.max())


def _value_and_interval(line: dict | None) -> tuple[str, str]:
    value, _, interval = tables.with_interval(line).partition(" ") if line else ("-", "", "")
    return value, interval


def _exports(runs: Sequence[Run]) -> list[tuple[str, str]]:
    wide = tables.headline(joined_summary(runs) if len(runs) > 1 else runs[0].summary)
    return [
        ("Markdown", tables.to_markdown(wide)),
        ("LaTeX", tables.to_latex(wide)),
        ("CSV", tables.to_csv(wide)),
    ]


def _charts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return every figure as a data URI with its caption."""
    found = []
    for run in runs:
        drawn = figures.run_figures(run)
        found += [
            _chart(name, draw, run.name if len(runs) > 1 else "") for name, draw in drawn.items()
        ]
    joint = figures.joint_figures(runs) if len(runs) > 1 else {}
    return [*(_chart(name, draw, "") for name, draw in joint.items()), *found]


def _chart(name: str, draw: Callable[[], Figure], run: str) -> dict[str, Any]:
    buffer = io.BytesIO()
    with style.paper():
        draw().savefig(buffer, format="png", dpi=200)
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = figures.CAPTIONS[name]
    return {
        "name": name,
        "uri": f"data:image/png;base64,{data}",
        "caption": f"{run}: {caption}" if run else caption,
        "keep_colors": name in ("gallery", "heat_table"),
    }


def _tests(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one family of paired tests a metric."""
    found = []
    for name in findings.TESTED:
        frame = findings.comparison(runs, name)
        if len(frame):
            metric = metric_of(name)
            found.append({"metric": metric, "lines": frame.to_dict("records")})
    return found


def _papers(runs: Sequence[Run]) -> list[dict]:
    return paper_table(runs).to_dict("records")


def _failures(run: Run) -> dict[str, Any]:
    """Return what went wrong in a run, at its best cell."""
    broken = run.rows[run.rows["error"].notna()] if "error" in run.rows else run.rows[:0]
    broken = broken.drop_duplicates("image_id")
    cell = _best_cell(run)
    mine = cell_rows(run.rows, cell)
    degenerate = mine[mine["degenerate"] == 1] if "degenerate" in mine else mine[:0]
    names = run.run.get("class_names")
    return {
        "run": run.name,
        "cell": style.cell_title(cell),
        "kinds": findings.failure_kinds(run.rows, cell).to_dict("records"),
        "groups": findings.error_by_group(run.rows, cell).to_dict("records"),
        "classes": findings.worst_classes(run.rows, cell, class_names=names).to_dict("records"),
        "broken": broken[["image_id", "error"]].to_dict("records"),
        "degenerate": list(degenerate["image_id"]),
    }


def _best_cell(run: Run) -> Cell:
    try:
        return findings.best_cell([run]).cell
    except UserError:  # controls only, or no score to judge by
        return cells(run.rows)[0]


def _definitions(runs: Sequence[Run]) -> list[Any]:
    have = {name.partition("@")[0] for run in runs for name in run.summary["metric"]}
    return [metric for name, metric in METRICS.items() if name in have]
