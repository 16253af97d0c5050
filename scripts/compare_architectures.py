"""Run several models on the same images; write one joined table, the paired tests and figures.

    python scripts/compare_architectures.py
    python scripts/compare_architectures.py models=resnet50,vgg16 dataset=imagenet dataset.root=DIR

`models=` lists files of conf/model (default: the three embedded networks); every other override
goes to gradcam-bench. Writes into results/architectures/<dataset> unless output_dir= says
otherwise, a run a model.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gradcam_bench import api, figures, findings, markup, report, summary, tables
from gradcam_bench.errors import UserError
from gradcam_bench.figures import style
from gradcam_bench.runs import joined_summary

DEFAULT = "tiny_vgg,tiny_resnet,tiny_inception"


def main(arguments: list[str]) -> None:
    chosen, overrides = api.split_option(arguments, "models", DEFAULT)
    models = chosen.split(",")
    config, choices = api.compose([f"model={models[0]}", *overrides])
    folder = Path(config.output_dir or f"results/architectures/{choices['dataset']}")
    runs = []
    for model in models:
        runs.append(api.run([f"model={model}", *overrides], output_dir=folder / model))
        print(summary.finish(folder / model))
    joined = joined_summary(runs)
    markup.to_csv(joined, folder / "joined.csv")
    best = findings.best_cell(runs)
    markup.to_csv(findings.comparison(runs, best.metric.name), folder / "paired.csv")
    wide = [tables.headline(run.summary).assign(model=run.name) for run in runs]
    print("\n".join(markup.to_text(table) for table in wide))
    for metric in (best.metric.name, "insertion_auc"):
        if metric in set(joined["metric"]):
            axes = figures.architectures(joined, metric=metric)
            style.save(style.figure_of(axes), folder / f"architectures_{metric}")
    report.write_report([run.directory for run in runs], folder / "report.html")
    print(f"Written to {folder}: joined.csv, paired.csv, report.html and figures")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"compare_architectures: {error}", file=sys.stderr)
        sys.exit(2)
