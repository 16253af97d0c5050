import copy
from pathlib import Path

import pytest
from stored import run_json

from gradcam_bench.analysis.run_names import different_names

CONFIG = {**run_json()["config"], "layers": "default", "output_dir": "a"}


def changed(**values):
    """Return the config with other values at dotted keys, written with "__"."""
    config = copy.deepcopy(CONFIG)
    for key, value in values.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    return config


def named(*configs, names=None, folders=None):
    folders = folders or [Path(f"/runs/{number}") for number in range(len(configs))]
    return different_names(names or ["resnet50"] * len(configs), configs, folders)


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"layers": "all"}, ("layers=default", "layers=all")),
        ({"seed": 1}, ("seed=0", "seed=1")),
        ({"methods": ["grad_cam"]}, ("methods=grad_cam+random+center", "methods=grad_cam")),
        ({"methods": [f"method_{i}" for i in range(9)]},
         ("methods=grad_cam+random+center", "methods=9 methods")),
        ({"dataset": {"_target_": "x.Shapes", "limit": 3}}, ("dataset=ImageNet", "dataset=Shapes")),
        ({"dataset__root": "/far/away/in/a/folder/of/this/machine"}, ("root=data", "root=machine")),
        ({"faithfulness__steps": 10}, ("steps=28", "steps=10")),
        ({"protocols__wsol_v1__iou_levels": [0.3]}, ("iou_levels=0.5", "iou_levels=0.3")),
    ],
)  # fmt: skip
def test_runs_of_one_model_are_named_by_the_choice_that_differs(change, texts):
    assert named(CONFIG, changed(**change)) == [f"resnet50, {text}" for text in texts]


def test_only_as_many_choices_are_told_as_are_needed():
    configs = [
        changed(layers=layers, seed=seed) for layers in ("default", "all") for seed in (0, 1)
    ]
    assert named(*configs[:3:2]) == ["resnet50, layers=default", "resnet50, layers=all"]
    assert named(*configs)[3] == "resnet50, layers=all, seed=1"
    both = [CONFIG, changed(layers="all", seed=1, output_dir="b", device="cuda")]
    assert named(*both) == ["resnet50, layers=default", "resnet50, layers=all"]


def test_a_model_that_occurs_once_keeps_its_name():
    configs = [CONFIG, changed(layers="all"), changed(seed=1)]
    assert named(*configs, names=["resnet50", "resnet50", "vgg16"])[2] == "vgg16"


def test_runs_that_no_choice_tells_apart_are_named_by_their_folders():
    folders = [Path("/a/run"), Path("/b/run"), Path("/b/other")]
    same = [CONFIG, changed(output_dir="b", device="cuda"), {}]
    assert named(*same[:2], folders=folders[:2]) == ["resnet50 (a/run)", "resnet50 (b/run)"]
    assert named({}, {}, folders=folders[1:]) == ["resnet50 (run)", "resnet50 (other)"]


def test_names_are_different_whatever_differs():
    configs = [CONFIG, CONFIG, changed(seed=1), changed(seed=1), changed(dataset="x" * 200), {}]
    names = named(*configs)
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 80
