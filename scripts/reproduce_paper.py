"""Run what a published table reports and set our numbers beside it.

    python scripts/reproduce_paper.py gradcam_table1 dataset.root=DIR
    python scripts/reproduce_paper.py gradcam_table1 dataset.root=DIR models=efficientnet_lite0
    python scripts/reproduce_paper.py rise runs=results/imagenet/efficientnet_lite0

Suites: gradcam_table1 rise wsol torchray_pointing gradcampp. `models=` replaces the suite's
networks; every other override goes to gradcam-bench. `runs=` takes stored runs instead of running
anything: their run.json and summary.csv are enough. A network that cannot be run, because its
weights cannot be fetched, is named and left out. Networks that a paper did not report stand beside
those that it did. Writes into results/papers/<suite> unless output_dir= says otherwise: a run a
model where something was run, comparison.csv and comparison.md.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gradcam_bench import api
from gradcam_bench.analysis import published
from gradcam_bench.analysis.metric import number_text
from gradcam_bench.analysis.metrics import metric_of
from gradcam_bench.errors import UserError
from gradcam_bench.report import write
from gradcam_bench.report.tables import to_csv, to_markdown, to_text
from gradcam_bench.store.parts import read_run

Stored = tuple[dict[str, Any], pd.DataFrame]
"""A run's run.json and summary."""


@dataclass(frozen=True)
class Suite:
    """The networks of a published table, and how they are run."""

    models: tuple[str, ...]
    overrides: tuple[str, ...]


SUITES = {
    "gradcam_table1": Suite(
        ("vgg16", "alexnet", "googlenet"),
        ("methods=[grad_cam,random,center]", "faithfulness.enabled=false"),
    ),
    "rise": Suite(("resnet50", "vgg16"), ("methods=[grad_cam,random,center]",)),
    "wsol": Suite(
        ("resnet50", "inception_v3"),
        (
            "protocol=[gradcam2017,wsol_v1,wsol_v2]",
            "methods=[grad_cam,random,center]",
            "faithfulness.enabled=false",
        ),
    ),
    "torchray_pointing": Suite(
        ("vgg16", "resnet50"),
        ("methods=[grad_cam,random,center]", "faithfulness.enabled=false"),
    ),
    "gradcampp": Suite(
        ("vgg16", "alexnet", "resnet50"),
        ("methods=[grad_cam,grad_cam_plus_plus,random,center]",),
    ),
}


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in SUITES:
        given = arguments[0] if arguments else "nothing"
        raise UserError(f"expected a suite first ({', '.join(SUITES)}), got {given}")
    name, others = arguments[0], arguments[1:]
    stored, others = api.split_option(others, "runs", "")
    if stored:
        folder, others = api.split_option(others, "output_dir", f"results/papers/{name}")
        if others:
            raise UserError(
                f"with runs= nothing is run, so {' '.join(others)} would change nothing"
            )
        found = [_stored(Path(path)) for path in stored.split(",")]
    else:
        folder, found = _run(SUITES[name], others, f"results/papers/{name}")
    table = compared(found, name)
    text, notes = readable(table)
    output = Path(folder)
    output.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "scripts/reproduce_paper.py", *arguments])
    to_csv(table, output / "comparison.csv")
    (output / "comparison.md").write_text(
        f"Made by `{command}`.\n\n{to_markdown(text)}\n{notes}\n", encoding="utf-8"
    )
    print(to_text(text, width=140), notes, f"Written to {output}", sep="\n\n")


def _run(suite: Suite, arguments: list[str], default: str) -> tuple[str, list[Stored]]:
    """Run a suite's networks, or those of models=; return the folder and what was run."""
    chosen, others = api.split_option(arguments, "models", "")
    overrides = ["dataset=imagenet", *suite.overrides, *others]
    models = chosen.split(",") if chosen else list(suite.models)
    config, _ = api.compose([f"model={models[0]}", *overrides])
    folder = str(config.output_dir or default)
    found = []
    for model in models:
        try:
            run = api.run([f"model={model}", *overrides], output_dir=Path(folder) / model)
        except UserError as error:
            print(f"{model} was not run: {error}\n", file=sys.stderr)
            continue
        print(write.finish(run), end="\n\n")
        found.append((run.run, run.summary))
    if not found:
        raise UserError("no network could be run, so there is nothing to compare")
    return folder, found


def _stored(folder: Path) -> Stored:
    run = read_run(folder)
    path = folder / "summary.csv"
    if not path.exists():
        raise UserError(f"{folder} has no summary.csv: run its command again to finish it")
    return run, pd.read_csv(path)


def compared(found: list[Stored], name: str) -> pd.DataFrame:
    """Return the comparison of every run with a suite's published numbers.

    Raises:
        UserError: if the runs hold none of the suite's metrics for its methods.
    """
    tables = [
        published.compare(
            write, run, suite=name, any_model=run["model"] not in SUITES[name].models
        ).assign(ours_network=run["model"])
        for run, write in found
    ]
    table = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    if table.empty:
        wanted = published.published()
        wanted = wanted[wanted["suite"] == name]
        raise UserError(
            f"no run holds a number that {name} reports: expected methods among "
            f"{', '.join(dict.fromkeys(wanted['method']))} and metrics among "
            f"{', '.join(dict.fromkeys(wanted['metric']))}"
        )
    return table


def readable(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the comparison as text, and the reasons its last column counts."""
    reasons = list(dict.fromkeys(table.loc[table["comparable"] != "yes", "comparable"]))
    lines = []
    for row in table.to_dict("records"):
        metric = metric_of(row["metric"])
        again = row["reproduction"]
        interval = metric.interval_text(row["ci_low"], row["ci_high"])
        why = (
            "yes" if row["comparable"] == "yes" else f"no ({reasons.index(row['comparable']) + 1})"
        )
        lines.append(
            {
                "network": row["ours_network"],
                "method": row["method"] or "-",
                "metric": metric.title,
                "ours": f"{metric.text(row['ours'])} {interval}",
                "published": f"{metric.text(row['published'])}, {row['model']}",
                "reproduction": metric.text(again),
                "difference": number_text(row["difference"], metric.digits, sign=True),
                "comparable": why,
            }
        )
    notes = [f"({number + 1}) {reason}" for number, reason in enumerate(reasons)]
    return pd.DataFrame(lines), "\n".join(notes)


if __name__ == "__main__":
    api.run_script(main)
