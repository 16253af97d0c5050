"""What the pages and results/ say comes from stored runs."""

import json
import re
import subprocess

import pandas as pd
import pytest
from repository import ROOT, load_script

PHOTOGRAPHS = (ROOT / "docs" / "photographs.md").read_text()


def test_results_readme_says_of_every_kept_folder_what_its_files_hold():
    lister = load_script("list_results")
    text = (ROOT / "results" / "README.md").read_text()
    named = re.findall(r"^\| \[([^]]+)\]", text, re.M)
    assert text == lister.listed([ROOT / "results" / name for name in named])
    tracked = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    kinds = tuple(lister.KINDS)
    kept = {path.rpartition("/")[0] for path in tracked if path.endswith(kinds)}
    assert {folder.removeprefix("results/") for folder in kept} <= set(named)


RUNS = sorted(path.parent for path in (ROOT / "results").rglob("run.json"))


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_stored_run_says_how_it_was_made(folder):
    run = json.loads((folder / "run.json").read_text())
    assert run["complete"]
    for key in ("command", "config_hash", "commit", "versions", "seconds", "data_fingerprint"):
        assert run[key], key
    assert not run["commit"].endswith("-dirty")
    summary = pd.read_csv(folder / "summary.csv")
    assert {"random", "center", "grad_cam"} <= set(summary["method"])
    # No path of the machine that made it.
    assert not re.search(r'"/(home|root|tmp|work|Users)/', (folder / "run.json").read_text())


# protocols.md's independently computed values: (value, how far ours may lie from it).
ORACLE = {
    "cls_err_top1": (16.60, 0.4),
    "cls_err_top5": (3.80, 0.4),
    "gt_known_loc_err": (36.60, 0.4),
    "loc_err_top1": (46.20, 0.4),
    "loc_err_top5": (38.20, 0.4),
    "mean_box_iou": (0.5651, 0.003),
    "max_box_acc": (70.0, 0.4),
    "max_box_acc_v2": (65.13, 0.4),
}


@pytest.mark.parametrize("metric", ORACLE)
def test_the_photographs_agree_with_the_independent_computation(metric):
    summary = pd.read_csv(ROOT / "results/imagenet/efficientnet_lite0/summary.csv")
    cam = summary[summary["method"] == "grad_cam"].set_index("metric")["value"]
    expected, tolerance = ORACLE[metric]
    assert abs(cam[metric] - expected) <= tolerance


def test_deletion_and_insertion_agree_with_the_independent_computation():
    # protocols.md: the first 64 images by id, step 1792, map of the predicted class.
    folder = ROOT / "results/imagenet/efficientnet_lite0_first64"
    summary = pd.read_csv(folder / "summary.csv")
    cam = summary[summary["method"] == "grad_cam"].set_index("metric")["value"]
    assert abs(cam["deletion_auc"] - 0.1630) <= 0.003
    assert abs(cam["insertion_auc"] - 0.6535) <= 0.003
    run = json.loads((folder / "run.json").read_text())
    rate = re.search(r"(\d\.\d) s an image with two threads", PHOTOGRAPHS)
    assert float(rate[1]) == round(run["seconds"] / run["n_images"], 1)
    assert run["threads"] == 2


def test_grad_cam_is_ahead_of_both_controls_on_the_photographs():
    summary = pd.read_csv(ROOT / "results/imagenet/efficientnet_lite0/summary.csv")
    values = summary.pivot_table(index="metric", columns="method", values="value")
    for metric, better in (
        ("gt_known_loc_err", "lower"),
        ("loc_err_top1", "lower"),
        ("mean_box_iou", "higher"),
        ("energy_in_box", "higher"),
        ("max_box_acc_v2", "higher"),
        ("insertion_auc", "higher"),
        ("deletion_auc", "lower"),
    ):
        sign = 1 if better == "higher" else -1
        lead = sign * (values.loc[metric, "grad_cam"] - values.loc[metric])
        assert (lead.drop("grad_cam") > 0).all(), metric


def test_the_self_check_falls_to_the_controls_level():
    check = pd.read_csv(ROOT / "results/self_check/shapes-tiny_resnet/check.csv")
    steps = check[check["step"] >= 0].set_index("step")
    controls = check[check["step"] < 0].set_index("layer")
    trained, randomised = steps.iloc[0], steps.iloc[-1]
    assert trained["spearman"] == trained["ssim"] == 1
    assert randomised["spearman"] < 0.35
    for score in ("box_iou", "insertion_auc", "energy_in_box"):
        assert trained[score] > controls[score].max() + 0.03, score
        assert randomised[score] < controls[score].max() + 0.05, score
