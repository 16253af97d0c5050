"""Run several models on the same images; write one joined table, the paired tests and figures.

    python scripts/compare_architectures.py
    python scripts/compare_architectures.py models=resnet50,vgg16 dataset=imagenet dataset.root=DIR

`models=` lists files of conf/model (default: the three embedded networks); every other override
goes to gradcam-bench. Writes into results/architectures/<dataset> unless output_dir= says
otherwise, a run a model. Of runs that are stored already, `gradcam-bench report DIR...` writes the
same.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from gradcam_bench import api
from gradcam_bench.report import tables, write

DEFAULT = "tiny_vgg,tiny_resnet,tiny_inception"


def main(arguments: list[str]) -> None:
    chosen, overrides = api.split_option(arguments, "models", DEFAULT)
    models = chosen.split(",")
    config, choices = api.compose([f"model={models[0]}", *overrides])
    folder = Path(config.output_dir or f"results/architectures/{choices['dataset']}")
    runs = []
    for model in models:
        runs.append(api.run([f"model={model}", *overrides], output_dir=folder / model))
        print(write.finish(runs[-1]))
    wide = [tables.headline(run.summary).assign(model=run.name) for run in runs]
    print("\n".join(tables.to_text(table) for table in wide))
    command = shlex.join(["python", "scripts/compare_architectures.py", *arguments])
    write.write_report(runs, folder / "report.html", command=command)
    print(f"Written to {folder}: joined.csv, paired.csv, report.html and figures/")


if __name__ == "__main__":
    api.run_script(main)
