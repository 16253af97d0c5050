import importlib.metadata
from pathlib import Path

import pytest

import gradcam_bench
from gradcam_bench import api
from gradcam_bench.errors import UserError


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
