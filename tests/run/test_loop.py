"""The whole pipeline on small data: what resuming, shards, batches and errors may not change."""

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from small_runs import run, scores

from gradcam_bench.analysis.stored_run import load_run
from gradcam_bench.config import config_dir, register
from gradcam_bench.errors import UserError
from gradcam_bench.report import write
from gradcam_bench.report.sections import how
from gradcam_bench.run import loop, provenance
from gradcam_bench.store.parts import provenance_differences, read_gallery, read_rows, read_run
from gradcam_bench.store.schema import column_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    done, rows = run(directory, "layers=[layer3,layer4]", "protocol=[gradcam2017,wsol_v1]")
    assert done
    return directory, rows


OVERRIDES = ("layers=[layer3,layer4]", "protocol=[gradcam2017,wsol_v1]")


def test_a_row_per_image_method_and_layer(whole):
    _, rows = whole
    assert len(rows) == 10 * (2 + 2)  # grad_cam on two layers; random and center on none
    assert not rows.duplicated(["image_id", "method", "layer"]).any()
    cells = rows[["method", "layer"]].drop_duplicates().itertuples(index=False, name=None)
    assert set(cells) == {
        ("grad_cam", "layer3"),
        ("grad_cam", "layer4"),
        ("random", "input"),
        ("center", "input"),
    }
    expected = [
        "image_id",
        "label",
        "predicted",
        "method",
        "layer",
        "top5_correct",
        "degenerate",
        "box_iou",
        "gt_known_loc",
        "top1_loc",
        "top5_loc",
        "pointing_hit",
        "energy_in_box",
        "deletion_auc",
        "insertion_auc",
    ]
    assert set(expected) <= set(rows.columns)
    assert {len(curve) for curve in rows.deletion_curve} == {7}


def test_a_hit_needs_the_box_and_the_prediction(whole):
    _, rows = whole
    assert (rows.gt_known_loc == (rows.box_iou >= 0.5)).all()
    assert (rows.top1_loc == rows.gt_known_loc * (rows.label == rows.predicted)).all()
    assert (rows.top5_loc == rows.gt_known_loc * rows.top5_correct).all()


@pytest.mark.parametrize("batch_size", [1, 8])
def test_batch_size_changes_no_score(whole, tmp_path, batch_size):
    _, rows = run(tmp_path, *OVERRIDES, f"batch_size={batch_size}")
    np.testing.assert_allclose(scores(rows), scores(whole[1]), rtol=1e-4, atol=1e-5)
    assert rows["iou_hits@wsol_v1"].tolist() == whole[1]["iou_hits@wsol_v1"].tolist()


def test_workers_change_no_score(whole, tmp_path):
    _, rows = run(tmp_path, *OVERRIDES, "num_workers=2")
    pd.testing.assert_frame_equal(rows, whole[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_on_cuda_scores_as_on_the_cpu(whole, tmp_path):
    _, rows = run(tmp_path, *OVERRIDES, "device=cuda")
    assert rows.image_id.tolist() == whole[1].image_id.tolist()
    for column in ("box_iou", "energy_in_box", "deletion_auc", "insertion_auc"):
        np.testing.assert_allclose(rows[column], whole[1][column], atol=1e-3)


def test_shards_in_any_order_equal_the_whole(whole, tmp_path):
    done, _ = run(tmp_path, *OVERRIDES, "shard.count=2", "shard.index=1")
    assert not done
    done, rows = run(tmp_path, *OVERRIDES, "shard.count=2", "shard.index=0")
    assert done
    np.testing.assert_allclose(scores(rows), scores(whole[1]), atol=1e-5)
    assert rows.image_id.tolist() == whole[1].image_id.tolist()


def test_resuming_computes_only_what_is_missing(whole, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(whole[0], directory)
    (directory / "scores" / "part-00001.parquet").unlink()
    stamps = {p: p.stat().st_mtime_ns for p in (directory / "scores").iterdir()}
    done, rows = run(directory, *OVERRIDES)
    assert done
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())
    np.testing.assert_allclose(scores(rows), scores(whole[1]), atol=1e-5)


def test_another_config_in_the_same_folder_is_refused(whole, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(whole[0], directory)
    with pytest.raises(UserError, match=r"another config \(.*seed: 0 there, 1 now"):
        run(directory, *OVERRIDES, "seed=1")
    assert len(read_rows(directory)) == 40
    run(directory, *OVERRIDES, "seed=1", "overwrite=true")
    assert read_run(directory)["config"]["seed"] == 1


def test_what_changes_no_number_is_not_another_config(whole, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(whole[0], directory)
    run(directory, *OVERRIDES, "batch_size=2", "gallery=3", "max_errors=0.5", "num_workers=1")


def test_run_json_says_how_the_number_was_made(whole):
    stored = read_run(whole[0])
    for key in ("command", "config_hash", "versions", "device", "commit", "data_fingerprint"):
        assert key in stored
    assert stored["config"]["dataset"]["length"] == 10
    assert stored["layers"] == ["layer3", "layer4"]
    assert stored["seconds"] > 0
    assert stored["scorer"] == "torch"
    assert stored["versions"]["torch"]


def test_the_gallery_keeps_evenly_spaced_images(tmp_path):
    run(tmp_path, "gallery=5", "faithfulness.enabled=false")
    gallery = read_gallery(tmp_path)
    assert gallery.image_id.nunique() == 5
    assert len(gallery) == 5 * 3
    one = gallery.iloc[0]
    assert len(one.heatmap) == one.heatmap_h * one.heatmap_w
    assert max(one.heatmap) in (0, 255)


def test_without_faithfulness_there_are_no_curves(tmp_path):
    _, rows = run(tmp_path, "faithfulness.enabled=false")
    assert "deletion_auc" not in rows


def test_pairs_measure_class_discrimination(tmp_path):
    _, rows = run(tmp_path, "dataset.mode=pair", "faithfulness.enabled=false")
    cam = rows[rows.method == "grad_cam"]
    assert cam.discrimination_hit.mean() > 0.6
    assert cam.discrimination_share.between(0, 1).all()
    center = rows[rows.method == "center"]
    # A map that ignores the class sits on A as often as on B: exactly half of each pair.
    assert center.discrimination_hit.mean() == pytest.approx(0.5, abs=0.11)
    assert center.discrimination_share.mean() == pytest.approx(0.5, abs=1e-6)


def test_grad_cam_beats_both_controls_on_planted_evidence(tmp_path):
    _, rows = run(tmp_path, "++dataset.length=40", "part_size=64", "faithfulness.steps=12")
    mean = rows.groupby("method").mean(numeric_only=True)
    for metric in ("gt_known_loc", "box_iou", "energy_in_box", "energy_in_mask", "mask_iou"):
        for control in ("random", "center"):
            assert mean.loc["grad_cam", metric] > mean.loc[control, metric] + 0.05, metric
    for control in ("random", "center"):
        assert mean.loc["grad_cam", "insertion_auc"] > mean.loc[control, "insertion_auc"]


# --- Photographs and what can be wrong with them ------------------------------------------------

WNIDS = ["n01440764", "n02102040", "n03028079"]


def write_xml(path, name, wnid, size=(60, 40), box=(5, 6, 30, 35)):
    corners = "".join(
        f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    path.write_text(
        f"<annotation><filename>{name}</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height></size><object><name>{wnid}</name>"
        f"<bndbox>{corners}</bndbox></object></annotation>"
    )


@pytest.fixture
def photographs(tmp_path):
    root = tmp_path / "data" / "ILSVRC"
    images, xmls = root / "Data/CLS-LOC/val", root / "Annotations/CLS-LOC/val"
    images.mkdir(parents=True)
    xmls.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        name = f"ILSVRC2012_val_{i:08d}"
        pixels = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{name}.JPEG")
        write_xml(xmls / f"{name}.xml", name, WNIDS[i % 3])
    return tmp_path / "data"


PHOTO = [
    "model=torchvision",
    "model.name=squeezenet1_1",
    "model.weights=null",
    "model.size=64",
    "faithfulness.enabled=false",
    "dataset=imagenet",
]


def photo(root, directory, *overrides):
    register()
    options = [*PHOTO, f"dataset.root={root}", "part_size=2", "batch_size=2", *overrides]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("benchmark", overrides=options)
    loop.run(cfg, directory, command="")
    return read_rows(directory)


def test_photographs_run_under_both_geometries(photographs, tmp_path):
    squash = photo(photographs, tmp_path / "a")
    crop = photo(photographs, tmp_path / "b", "geometry=center_crop")
    assert squash.image_id.nunique() == crop.image_id.nunique() == 6
    assert not np.allclose(squash.box_iou, crop.box_iou)


def test_the_limit_takes_the_first_n_in_a_fixed_order(photographs, tmp_path):
    rows = photo(photographs, tmp_path / "out", "dataset.limit=3")
    assert rows.image_id.unique().tolist() == [f"ILSVRC2012_val_{i:08d}" for i in range(3)]


@pytest.mark.parametrize("what", ["jpeg", "xml", "no xml"])
def test_broken_examples_are_named_and_nothing_computed_is_lost(photographs, tmp_path, what):
    name = "ILSVRC2012_val_00000003"
    image = photographs / f"ILSVRC/Data/CLS-LOC/val/{name}.JPEG"
    xml = photographs / f"ILSVRC/Annotations/CLS-LOC/val/{name}.xml"
    good = image.read_bytes(), xml.read_bytes()
    if what == "jpeg":
        image.write_bytes(good[0][: len(good[0]) // 2])
    elif what == "xml":
        xml.write_text("<annotation><size>")
    else:
        xml.unlink()
    out = tmp_path / "out"
    with pytest.raises(UserError, match=rf"1 of 6 examples are broken.*{name}"):
        photo(photographs, out)
    assert read_rows(out).image_id.nunique() >= 2
    # Tolerated, it is stored with its message and without scores, and the rest is scored.
    rows = photo(photographs, out, "max_errors=0.2")
    broken = rows[rows.error.notna()]
    assert broken.image_id.unique().tolist() == [name]
    assert name in broken.error.iloc[0]
    assert (broken.error_kind == ("image" if what == "jpeg" else "annotation")).all()
    assert (broken.error_path == str(image if what == "jpeg" else xml)).all()
    assert rows[rows.error.isna()][["error_kind", "error_path"]].isna().all(axis=None)
    assert broken.box_iou.isna().all()
    assert rows[rows.error.isna()].box_iou.notna().all()
    # Mended, the same command tries it again.
    image.write_bytes(good[0])
    xml.write_bytes(good[1])
    whole = photo(photographs, out, "max_errors=0.2", "overwrite=true")
    assert whole.error.isna().all()
    assert not {"error_kind", "error_path"} & set(whole)


def broken_images(photographs, *numbers):
    """Cut images of the data set to half, and return the first one's path."""
    paths = [photographs / f"ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_{i:08d}.JPEG" for i in numbers]
    for path in paths:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    return paths[0]


@pytest.mark.parametrize("part_size", [2, 8])
@pytest.mark.parametrize("broken", [(0,), (0, 1), (1,)])
def test_broken_first_images_cost_no_other_image_its_scores(
    photographs, tmp_path, broken, part_size
):
    broken_images(photographs, *broken)
    rows = photo(photographs, tmp_path / "out", "max_errors=0.5", f"part_size={part_size}")
    good = rows[rows.error.isna()]
    assert good.image_id.nunique() == 6 - len(broken)
    for column in ("label", "predicted", "box_iou", "pointing_hit", "iou_hits@wsol_v2"):
        assert good[column].notna().all(), column
    assert load_run(tmp_path / "out").summary.n.max() == 6
    if broken == (0, 1) and part_size == 2:
        write.finish(tmp_path / "out")


def test_a_run_of_broken_images_alone_is_reported(photographs, tmp_path):
    broken_images(photographs, *range(6))
    rows = photo(photographs, tmp_path / "out", "max_errors=1")
    assert rows.error.notna().all()
    write.finish(tmp_path / "out")


def test_max_errors_holds_for_the_run_over_all_shards(photographs, tmp_path):
    broken_images(photographs, 0, 3)
    options = ("part_size=1", "shard.count=3", "max_errors=0.2")  # one of six
    out = tmp_path / "out"
    photo(photographs, out, *options, "shard.index=2")
    photo(photographs, out, *options, "shard.index=1")
    with pytest.raises(UserError, match=r"2 of 6 examples are broken.*The first: image"):
        photo(photographs, out, *options, "shard.index=0")
    # What is known ends every other process too, before it computes anything.
    with pytest.raises(UserError, match=r"2 of 6 examples are broken.*ILSVRC2012_val_00000000"):
        photo(photographs, out, *options, "shard.index=1")


def test_earlier_processes_errors_count(photographs, tmp_path):
    broken_images(photographs, 0, 5)
    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(UserError, match="2 of 6 examples are broken"):
            photo(photographs, out, "max_errors=0.2")
    rows = photo(photographs, out, "max_errors=0.4")
    assert rows[rows.error.notna()].image_id.nunique() == 2


def test_broken_images_are_tried_again_when_the_file_changed_or_when_asked(photographs, tmp_path):
    path = broken_images(photographs, 2)
    out = tmp_path / "out"
    part = out / "scores/part-00001.parquet"
    photo(photographs, out, "max_errors=0.2")
    first = part.stat().st_mtime_ns
    photo(photographs, out, "max_errors=0.2")
    assert part.stat().st_mtime_ns == first
    photo(photographs, out, "max_errors=0.2", "retry_errors=true")
    second = part.stat().st_mtime_ns
    assert second > first
    path.write_bytes(path.read_bytes())
    photo(photographs, out, "max_errors=0.2")
    assert part.stat().st_mtime_ns > second


def test_every_error_of_a_data_set_names_its_file():
    """Or says that there is none: a run that starts again looks whether the file has changed."""
    for source in (Path(loop.__file__).parent / "data").glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ExampleError":
                named = [keyword.arg for keyword in node.keywords]
                assert named == ["path"], f"{source.name}:{node.lineno}: give path="


def test_a_rerun_keeps_who_computed_and_a_resumed_run_names_both(whole, tmp_path, monkeypatch):
    directory = tmp_path / "copy"
    shutil.copytree(whole[0], directory)
    before = read_run(directory)
    monkeypatch.setattr(provenance, "commit", lambda: "another")
    run(directory, *OVERRIDES)
    assert read_run(directory) == before
    assert before["computed"][0]["parts"] == "0-2"
    assert before["computed"][0]["scorer"] == "torch"
    (directory / "scores/part-00001.parquet").unlink()
    run(directory, *OVERRIDES)
    after = read_run(directory)
    assert [entry["parts"] for entry in after["computed"]] == ["0, 2", "1"]
    assert provenance_differences(after) == [
        f"parts 0, 2 were computed from commit {before['commit']}, part 1 from commit another"
    ]
    lines = dict(how.facts(load_run(directory))["lines"])
    assert lines["Computed by"].endswith("part 1 from commit another")


def test_the_columns_of_a_run_are_within_their_ranges(whole):
    numbers = whole[1].select_dtypes("number")
    for name in numbers:
        described = column_of(name)
        known = numbers[name].dropna()
        assert known.between(described.low - 1e-6, described.high + 1e-6).all(), name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["methods=[grad_kam]"], "no method 'grad_kam'. Nearest: grad_cam"),
        (["layers=[layer9]"], r"has no layer 'layer9'. Nearest: layer"),
        (["layers=[layer4,layer4]"], "different module paths"),
        (["precision=fp8"], "precision expects one of float32"),
        (["geometry=stretch"], "geometry expects one of squash, center_crop, got 'stretch'"),
        (["device=tpu9"], "device=tpu9 cannot be used here"),
        (["scoring=fast"], "scoring expects one of auto, torch, compile, onnxruntime, got 'fast'"),
        (["batch_size=0"], "batch_size expects a number from 1"),
        (["shard.count=2", "shard.index=2"], "shard.index expects 0 to"),
        (["max_errors=2"], "max_errors expects a share"),
        (["dataset.limit=0"], "dataset.limit expects a number"),
        (["faithfulness.steps=0"], "faithfulness.steps expects"),
        (["model=resnet50", "model.weights=null"], "1000 classes apart, but the data set has"),
        (["+model.lyer=fc"], "model has no key 'lyer'. Nearest: layer"),
        (["+dataset.limti=3"], "dataset has no key 'limti'"),
        (["dataset=imagenet", "~dataset.length"], "dataset.root is required: give dataset.root="),
        (["dataset=imagenet", "~dataset.length", "dataset.root=nowhere"], "nowhere"),
        (["model=torchvision", "model.name=resnet5"], "no classifier 'resnet5'. Nearest: resnet50"),
        (["model.checkpoint=nowhere.pt"], "there is no file nowhere.pt"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(tmp_path, overrides, message):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=message):
        run(out, *overrides)
    assert not list(out.rglob("*.parquet"))


def test_the_stored_config_is_plain_json(whole):
    text = (whole[0] / "run.json").read_text()
    assert json.loads(text)["config"] == OmegaConf.to_container(
        OmegaConf.create(json.loads(text)["config"])
    )
