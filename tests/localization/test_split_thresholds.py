"""Thresholds chosen on one run and told for another, from stored rows alone."""

import copy
import json

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from scipy import stats as scipy_stats
from stored import make_rows, run_json, store_run

from gradcam_bench.analysis import comparison
from gradcam_bench.analysis.stored_run import load_run
from gradcam_bench.config import config_dir, register
from gradcam_bench.errors import UserError
from gradcam_bench.localization import split_thresholds
from gradcam_bench.run import loop
from gradcam_bench.store.parts import read_run

CELL = ("grad_cam", "layer4")
THRESHOLDS = np.arange(0, 1, 0.001)


def nodes():
    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("benchmark")
    return json.loads(json.dumps({k: dict(v) for k, v in config.protocols.items()}, default=list))


def identified(split="test", **changes):
    """Return a run.json whose identity is as the runner writes it."""
    identity = {
        "dataset": {"_target_": "some.Data", "split": split, "length": 60, "limit": None},
        "protocols": nodes(),
        "methods": ["grad_cam", "random", "center"],
        "layers": ["layer3", "layer4"],
        "geometry": "squash",
        "weights_hash": "abcd",
        "data_fingerprint": split,
    }
    return run_json(identity={**identity, **changes}, complete=True)


def named(rows, prefix):
    return rows.assign(image_id=prefix + rows["image_id"])


@pytest.fixture
def other(tmp_path):
    rows = named(make_rows(80, sweep=True, seed=1), "val-")
    return store_run(tmp_path / "other", rows, run=identified("validation"))


def chosen(other, run=None, ids=("test-1",)):
    run = run or identified()
    return split_thresholds.choose(other, run, ids, output_dir=other.parent / "mine")


def hits(rows, protocol, bit, cell=CELL):
    rows = rows[(rows["method"] == cell[0]) & (rows["layer"] == cell[1])]
    masks = np.stack([np.frombuffer(m, np.uint8) for m in rows[f"iou_hits@{protocol}"]])
    return (masks[:, [int(t * 255) for t in THRESHOLDS]] >> bit) & 1


def test_each_cell_and_iou_level_gets_the_threshold_that_is_best_on_the_other_images(other):
    found = chosen(other)
    assert (found["from"], found["n_images"], found["config_hash"]) == (str(other), 60, "feed")
    assert set(found["chosen"]) == {"wsol_v1", "wsol_v2"}
    assert list(found["chosen"]["wsol_v2"]) == ["grad_cam", "random", "center"]
    rows = load_run(other).rows
    for protocol, levels in (("wsol_v1", 1), ("wsol_v2", 3)):
        for cell in (CELL, ("grad_cam", "layer3"), ("center", "input")):
            best = [
                THRESHOLDS[hits(rows, protocol, bit, cell).mean(axis=0).argmax()]
                for bit in range(levels)
            ]
            assert found["chosen"][protocol][cell[0]][cell[1]] == best


def calibrated(tmp_path, other, rows, **changes):
    run = identified() | {"thresholds": chosen(other)} | changes
    return load_run(store_run(tmp_path / "mine", rows, run=run))


def line(run, metric, cell=CELL):
    frame = run.summary
    at = (frame["method"] == cell[0]) & (frame["layer"] == cell[1]) & (frame["metric"] == metric)
    return frame[at].iloc[0]


def test_the_summary_tells_the_accuracy_at_those_thresholds(tmp_path, other):
    rows = make_rows(60, sweep=True)
    run = calibrated(tmp_path, other, rows)
    at = read_run(run.directory)["thresholds"]["chosen"]
    (threshold,) = at["wsol_v1"]["grad_cam"]["layer4"]
    right = hits(rows, "wsol_v1", 0)[:, THRESHOLDS.searchsorted(threshold)]
    one = line(run, "box_acc_split")
    exact = scipy_stats.binomtest(int(right.sum()), 60).proportion_ci()
    expected = (100 * right.mean(), 100 * exact.low, 100 * exact.high)
    assert (one["value"], one["ci_low"], one["ci_high"]) == pytest.approx(expected)
    shares = [
        hits(rows, "wsol_v2", bit)[:, THRESHOLDS.searchsorted(t)].mean()
        for bit, t in enumerate(at["wsol_v2"]["grad_cam"]["layer4"])
    ]
    three = line(run, "box_acc_v2_split")
    assert three["value"] == pytest.approx(100 * np.mean(shares))
    assert three["ci_low"] < three["value"] < three["ci_high"]
    assert (three["n"], three["n_undefined"]) == (60, 0)


def test_a_split_threshold_is_never_better_than_the_oracles(tmp_path, other):
    run = calibrated(tmp_path, other, make_rows(60, sweep=True))
    for split, oracle in (("box_acc_split", "max_box_acc"), ("box_acc_v2_split", "max_box_acc_v2")):
        for cell in (CELL, ("grad_cam", "layer3"), ("random", "input"), ("center", "input")):
            assert line(run, split, cell)["value"] <= line(run, oracle, cell)["value"]
    lost = line(run, "max_box_acc_v2")["value"] - line(run, "box_acc_v2_split")["value"]
    assert lost > 0  # other images, another best threshold


def test_an_image_without_ground_truth_is_undefined_and_a_broken_one_left_out(tmp_path, other):
    rows = make_rows(60, sweep=True)
    rows.loc[rows["image_id"] == "image003", ["iou_hits@wsol_v1", "iou_hits@wsol_v2"]] = None
    rows["error"] = rows["error"].astype(object)
    rows.loc[rows["image_id"] == "image005", "error"] = "broken"
    run = calibrated(tmp_path, other, rows)
    assert tuple(line(run, "box_acc_split")[["n", "n_undefined"]]) == (58, 1)


def test_split_accuracies_can_be_paired_as_oracle_accuracies_cannot(tmp_path, other):
    run = calibrated(tmp_path, other, make_rows(60, sweep=True))
    found = comparison.compare(comparison.candidates(run.rows, "box_acc_split"), "box_acc_split")
    assert set(found["test"]) == {"McNemar, exact"}
    gap = line(run, "box_acc_split", ("random", "input"))["value"]
    gap -= line(run, "box_acc_split", CELL)["value"]
    assert found.set_index("candidate").loc["random", "difference"] == pytest.approx(gap)


def test_a_further_protocol_has_its_suffix(tmp_path):
    def renamed(rows):
        rows = rows.drop(columns=[name for name in rows if name.endswith("@wsol_v1")])
        return rows.rename(columns=lambda c: c.replace("wsol_v2", "mine"))

    protocols = {"mine": nodes()["wsol_v2"] | {"name": "mine"}}
    theirs = identified("validation", protocols=protocols)
    rows = named(renamed(make_rows(80, sweep=True, seed=1)), "val-")
    other = store_run(tmp_path / "other", rows, run=theirs)
    mine = identified(protocols=protocols)
    mine["config"]["protocols"] = protocols
    mine["thresholds"] = chosen(other, mine)
    run = load_run(store_run(tmp_path / "mine", renamed(make_rows(sweep=True)), run=mine))
    assert line(run, "box_acc_v2_split@mine")["value"] > 0
    assert "box_acc_split" not in set(run.summary["metric"])


def test_a_run_without_thresholds_has_no_split_accuracy(tmp_path):
    run = load_run(store_run(tmp_path / "mine", make_rows(sweep=True), run=identified()))
    assert not [name for name in run.summary["metric"] if "split" in name]


def test_images_that_both_runs_hold_are_refused(tmp_path, other):
    ids = ["val-image003", "val-image004", "test-1"]
    mine = identified("validation", data_fingerprint="another: the folder holds fewer")
    with pytest.raises(UserError, match=r"shares 2 images with this run, e\.g\. val-image003"):
        chosen(other, mine, ids)
    mine = identified("renamed", data_fingerprint="validation")
    with pytest.raises(UserError, match="a threshold chosen on the reported images is an oracle's"):
        chosen(other, mine, ids)
    cut = copy.deepcopy(identified("validation", data_fingerprint="another"))
    cut["identity"]["dataset"] |= {"length": 10, "limit": 5}
    with pytest.raises(UserError, match="shares 2 images"):
        chosen(other, cut, ids)
    # Equal names in another data set are other images.
    assert chosen(other, identified("test"), ids)["chosen"]


def changed(key, value):
    run = identified()
    run["identity"][key] = value
    return run


def coarse():
    protocols = nodes()
    protocols["wsol_v2"]["interval"] = 0.01
    return protocols


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (changed("protocols", {"gradcam2017": nodes()["gradcam2017"]}), "protocols that sweep"),
        (changed("protocols", {"new": nodes()["wsol_v1"] | {"name": "new"}}), "not scored under"),
        (changed("protocols", coarse()), "another wsol_v2: interval is 0.001 there, 0.01 here"),
        (changed("layers", ["layer2"]), "no wsol_v1 scores of grad_cam, layer2: run it with the"),
        (changed("methods", ["cam"]), "no wsol_v1 scores of cam, layer3"),
        (changed("weights_hash", "ef"), "network differs (weights_hash: abcd there, ef here)"),
        (changed("geometry", "center_crop"), "geometry differs"),
    ],
)
def test_a_run_whose_thresholds_do_not_fit_is_refused(other, run, message):
    with pytest.raises(UserError) as error:
        chosen(other, run)
    assert message in str(error.value)
    assert f"thresholds_from={other}" in str(error.value)


def test_a_folder_that_is_no_finished_other_run_is_refused(tmp_path, other):
    with pytest.raises(UserError, match=r"holds no run\.json"):
        chosen(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is the folder of this run itself"):
        split_thresholds.choose(other, identified(), [], output_dir=other / ".." / "other")
    (other / "run.json").write_text(json.dumps(identified("validation") | {"complete": False}))
    with pytest.raises(UserError, match="holds an unfinished run: finish it first, gradcam-bench"):
        chosen(other)


# --- as a key of the command


def scenes(directory, *overrides):
    register()
    small = ["++dataset.length=8", "faithfulness.enabled=false", "protocol=[gradcam2017,wsol_v2]"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("benchmark", overrides=[*small, *overrides])
    loop.run(config, directory, command="gradcam-bench")
    return directory


def test_a_finished_run_is_given_thresholds_without_computing_anything(tmp_path):
    other = scenes(tmp_path / "other", "dataset.split=validation")
    mine = scenes(tmp_path / "mine")
    stamps = {p: p.stat().st_mtime_ns for p in (mine / "scores").iterdir()}
    before = load_run(mine)
    scenes(mine, f"thresholds_from={other}")
    assert {p: p.stat().st_mtime_ns for p in (mine / "scores").iterdir()} == stamps
    stored = read_run(mine)
    assert stored["config"]["thresholds_from"] == str(other)
    assert stored["config_hash"] == before.run["config_hash"]
    added = set(load_run(mine).summary["metric"]) - set(before.summary["metric"])
    assert added == {"box_acc_v2_split"}


def test_thresholds_that_do_not_fit_are_told_before_anything_is_written(tmp_path):
    other = scenes(tmp_path / "other")
    with pytest.raises(
        UserError, match=r"shares 4 images with this run, e\.g\. shapes-test-000000"
    ):
        scenes(tmp_path / "mine", "++dataset.length=4", f"thresholds_from={other}")
    assert not (tmp_path / "mine").exists()
