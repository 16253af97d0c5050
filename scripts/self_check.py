"""Does the instrument measure? Randomise a network layer by layer and watch maps and scores fall.

    python scripts/self_check.py                        (tiny_resnet on 100 shapes)
    python scripts/self_check.py mode=independent model=tiny_vgg
    python scripts/self_check.py model=resnet50 dataset=imagenet dataset.root=DIR dataset.limit=50

`mode=` is cascading (default) or independent; every other override is gradcam-bench's. Writes
check.csv (means a step), randomization.png and .pdf into results/self_check/<dataset>-<model>.
"""

from __future__ import annotations

from pathlib import Path

import torch

from gradcam_bench import api
from gradcam_bench.config import bind
from gradcam_bench.faithfulness.curves import Options, insertion_auc
from gradcam_bench.faithfulness.scorers import make_scorer
from gradcam_bench.faithfulness.target_scores import TargetScores
from gradcam_bench.report.figures import style
from gradcam_bench.report.figures.randomization import randomization
from gradcam_bench.run.randomization import randomization_check
from gradcam_bench.run.setup import bind_dataset

COLUMNS = ["spearman", "ssim", "box_iou", "energy_in_box", "insertion_auc"]


def main(arguments: list[str]) -> None:
    mode, overrides = api.split_option(arguments, "mode", "cascading")
    config, choices = api.compose(["dataset.limit=100", *overrides])
    dataset = bind_dataset(config.dataset)()
    model = bind(config.model, "model")()
    name, protocol = next(iter(config.protocols.items()))
    size = model.preprocessing.size
    scorer = make_scorer(config.scoring, model.network, torch.zeros(0, 3, size, size), n_images=0)
    options = Options(steps=14, seed=config.seed)
    check = randomization_check(
        model,
        dataset,
        bind(protocol, f"protocols.{name}")(),
        insertion=insertion_auc(TargetScores(scorer), model.preprocessing, options),
        mode=mode,
        seed=config.seed,
    )
    folder = Path(
        config.output_dir or f"results/self_check/{choices['dataset']}-{choices['model']}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    suffix = "" if mode == "cascading" else f"_{mode}"
    means = check.groupby(["step", "layer"], sort=False)[COLUMNS].mean().reset_index()
    means["n"] = len(dataset)
    means.to_csv(folder / f"check{suffix}.csv", index=False, lineterminator="\n")
    figure = randomization(check, title=f"{model.name}, {mode} randomisation")
    style.save(figure, folder / f"randomization{suffix}")
    print(means.to_string(index=False, float_format="%.3f"))
    print(f"Written to {folder}")


if __name__ == "__main__":
    api.run_script(main)
