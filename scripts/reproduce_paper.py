"""Run what a published table reports and set our numbers beside it.

    python scripts/reproduce_paper.py gradcam_table1 dataset.root=DIR
    python scripts/reproduce_paper.py gradcam_table1 dataset.root=DIR models=efficientnet_lite0

Suites: gradcam_table1 rise wsol torchray_pointing gradcampp. `models=` replaces the suite's
networks; every other override goes to gradcam-bench. A network that cannot be run, because its
weights cannot be fetched, is named and its lines stay without our number. Writes into
results/papers/<suite> unless output_dir= says otherwise: a run a model, comparison.csv and .md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gradcam_bench import api, markup, published, summary
from gradcam_bench.errors import UserError
from gradcam_bench.findings import interval_text, value_text
from gradcam_bench.metrics import metric_of


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
    name, suite = arguments[0], SUITES[arguments[0]]
    chosen, others = api.split_option(arguments[1:], "models", "")
    overrides = ["dataset=imagenet", *suite.overrides, *others]
    models = chosen.split(",") if chosen else list(suite.models)
    config, _ = api.compose([f"model={models[0]}", *overrides])
    folder = Path(config.output_dir or f"results/papers/{name}")
    tables = []
    for model in models:
        try:
            run = api.run([f"model={model}", *overrides], output_dir=folder / model)
        except UserError as error:
            print(f"{model} was not run: {error}\n", file=sys.stderr)
            continue
        print(summary.finish(folder / model), end="\n\n")
        found = published.compare(run.summary, run.run, suite=name, any_model=bool(chosen))
        tables.append(found.assign(ours_network=model))
    if not tables:
        raise UserError("no network could be run, so there is nothing to compare")
    table = pd.concat(tables, ignore_index=True)
    text, notes = readable(table)
    markup.to_csv(table, folder / "comparison.csv")
    (folder / "comparison.md").write_text(markup.to_markdown(text) + "\n" + notes + "\n")
    print(markup.to_text(text, width=140), notes, sep="\n\n")


def readable(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the comparison as text, and the reasons its last column counts."""
    reasons = list(dict.fromkeys(table.loc[table["comparable"] != "yes", "comparable"]))
    lines = []
    for row in table.to_dict("records"):
        metric = metric_of(row["metric"])
        again = row["reproduction"]
        interval = interval_text(metric, row["ci_low"], row["ci_high"])
        why = (
            "yes" if row["comparable"] == "yes" else f"no ({reasons.index(row['comparable']) + 1})"
        )
        lines.append(
            {
                "network": row["ours_network"],
                "method": row["method"] or "-",
                "metric": metric.title,
                "ours": f"{value_text(metric, row['ours'])} {interval}",
                "published": f"{value_text(metric, row['published'])}, {row['model']}",
                "reproduction": "-" if pd.isna(again) else value_text(metric, again),
                "difference": f"{row['difference']:+.{1 if metric.unit == '%' else 3}f}",
                "comparable": why,
            }
        )
    notes = [f"({number + 1}) {reason}" for number, reason in enumerate(reasons)]
    return pd.DataFrame(lines), "\n".join(notes)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"reproduce_paper: {error}", file=sys.stderr)
        sys.exit(2)
