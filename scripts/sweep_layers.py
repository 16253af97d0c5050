"""Score every candidate layer of a network in one pass; write a table and a figure.

    python scripts/sweep_layers.py model=tiny_vgg
    python scripts/sweep_layers.py model=resnet50 dataset=imagenet dataset.root=DIR

Takes the same key=value overrides as gradcam-bench; writes into results/layers/<dataset>-<model>
unless output_dir= says otherwise.
"""

from __future__ import annotations

from pathlib import Path

from gradcam_bench import api
from gradcam_bench.report import tables, write


def main(overrides: list[str]) -> None:
    config, choices = api.compose(["layers=all", *overrides])
    folder = config.output_dir or f"results/layers/{choices['dataset']}-{choices['model']}"
    found = api.run(["layers=all", *overrides], output_dir=folder)
    print(write.finish(found))
    wide = tables.headline(found.summary)
    tables.to_csv(wide, Path(folder) / "layers.csv")
    print(f"The table is {folder}/layers.csv, the figure {folder}/figures/layer_sweep.png")


if __name__ == "__main__":
    api.run_script(main)
