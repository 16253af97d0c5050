import importlib.metadata
from pathlib import Path

import pytest

import gradcam_bench
from gradcam_bench import api
from gradcam_bench.analysis.stored_run import load_run
from gradcam_bench.errors import UserError
from gradcam_bench.report import write
from gradcam_bench.run import loop


def test_a_run_from_python_returns_rows_and_summary(tmp_path):
    run = api.run(
        ["model=tiny_vgg", "dataset.length=6", "faithfulness.steps=4", "scoring=torch"],
        output_dir=tmp_path / "out",
    )
    assert run.name == "tiny_vgg"
    assert len(run.rows) == 6 * 3
    assert {"gt_known_loc_err", "insertion_auc"} <= set(run.summary["metric"])
    assert run.run["command"].startswith("gradcam-bench model=tiny_vgg")


def test_a_wrong_key_is_told_as_on_the_command_line():
    with pytest.raises(UserError, match="batchsize"):
        api.run(["batchsize=3"])


def test_the_default_folder_comes_from_the_choices():
    _, choices = api.compose(["model=resnet50"])
    assert str(api.default_output_dir(choices)) == "results/shapes/resnet50"


def test_the_package_says_its_version_and_that_it_is_typed():
    assert gradcam_bench.__version__ == importlib.metadata.version("gradcam-bench")
    assert "__version__" in gradcam_bench.__all__
    assert (Path(gradcam_bench.__file__).parent / "py.typed").is_file()


def test_a_run_of_some_shards_says_what_is_missing(tmp_path, capsys):
    command = ["dataset.length=7", "part_size=2", "faithfulness.enabled=false"]
    config, _ = api.compose([*command, "shard.count=3", "shard.index=1"])
    assert not loop.run(config, tmp_path / "run", command="gradcam-bench")
    assert load_run(tmp_path / "run").incomplete_text == "2 of 7 images, 3 parts missing"
    write.main([str(tmp_path / "run")])
    assert "2 of 7 images, 3 parts missing\n" in capsys.readouterr().out
    assert api.run(command, output_dir=tmp_path / "run").incomplete_text == ""


@pytest.mark.parametrize("key", ["+foo=1", "++faithfulness.step=3", "+model@other=tiny_vgg"])
def test_a_key_outside_the_schema_is_refused_from_python_too(key):
    with pytest.raises(UserError, match="There is no key"):
        api.compose([key])


def test_a_refused_run_leaves_what_was_there_even_where_it_may_overwrite(tmp_path):
    small = ["dataset.length=2", "faithfulness.enabled=false"]
    api.run(small, output_dir=tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="has no layer 'layr4'"):
        api.run([*small, "layers=[layr4]", "overwrite=true"], output_dir=tmp_path / "run")
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
