"""What is settled before the first part of a run: the same for every shard, batch and resume."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import SMALL, config, run

from gradcam_bench.cam.methods import grad_cam_plus_plus
from gradcam_bench.data.example import Example
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.errors import ExampleError, UserError
from gradcam_bench.run import loop
from gradcam_bench.run.batches import first_images
from gradcam_bench.run.precision import tf32_allowed
from gradcam_bench.run.setup import EXAMPLES, check_values, set_up
from gradcam_bench.store.parts import read_run

assert SMALL  # the same small run as there
BARE = ("faithfulness.enabled=false",)


class Broken:
    """Ten images of one grey each; those named are broken."""

    def __init__(self, *broken):
        self.broken = broken
        self.class_names = ["grey"]
        self.image_ids = [str(i) for i in range(10)]

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index in self.broken:
            raise ExampleError(f"{index} is broken.")
        return Example(str(index), Image.new("RGB", (9, 8), (index,) * 3), 0)


@pytest.mark.parametrize(
    ("broken", "expected"),
    [((), [0, 1]), ((0,), [1, 2]), ((1, 2, 3), [0, 4]), (range(9), [9]), (range(10), [])],
)
def test_the_first_images_are_the_first_that_are_not_broken(broken, expected):
    found = first_images(Broken(*broken), Geometry(size=6), count=2)
    assert found.dtype == torch.uint8
    assert found.shape == (len(expected), 3, 6, 6)
    assert found[:, 0, 0, 0].tolist() == expected


def examples_of(monkeypatch, tmp_path, *overrides):
    """Run and return the real images that `prepare` was given."""
    seen = []
    prepare = loop.prepare
    with monkeypatch.context() as patched:
        patched.setattr(
            loop, "prepare", lambda n, x, **k: (seen.append(x.clone()), prepare(n, x, **k))[1]
        )
        run(tmp_path, *BARE, *overrides)
    assert len(seen) == 1
    return seen[0]


def test_folding_is_decided_on_the_same_images_by_every_shard_and_batch_size(monkeypatch, tmp_path):
    whole = examples_of(monkeypatch, tmp_path / "whole")
    assert len(whole) == EXAMPLES == 4
    assert len(whole.unique(dim=0)) == EXAMPLES
    second = ("shard.count=2", "shard.index=1", "batch_size=1")
    assert torch.equal(examples_of(monkeypatch, tmp_path / "shard", *second), whole)
    first = ("shard.count=2", "shard.index=0")
    assert torch.equal(examples_of(monkeypatch, tmp_path / "shard", *first), whole)


def test_a_run_in_float32_uses_no_tf32_says_so_and_leaves_it_on_behind(monkeypatch, tmp_path):
    inside = []
    compute = loop._compute
    monkeypatch.setattr(
        loop, "_compute", lambda *a: (inside.append(tf32_allowed()), compute(*a))[1]
    )
    before = tf32_allowed()
    run(tmp_path / "float32", *BARE)
    run(tmp_path / "bfloat16", *BARE, "precision=bfloat16")
    assert inside == [False, before]
    assert read_run(tmp_path / "float32")["tf32"] is False
    assert read_run(tmp_path / "bfloat16")["tf32"] == before
    assert tf32_allowed() == before


@pytest.mark.parametrize(
    ("methods", "layers", "told"),
    [
        ("[grad_cam,grad_cam_plus_plus]", "[layer4.0.bn1,layer4]", True),
        ("[grad_cam_plus_plus]", "[layer4]", False),
        ("[grad_cam]", "[layer4.0.bn1]", False),
    ],
)
def test_grad_cam_plus_plus_at_negative_activations_is_told_once(
    tmp_path, caplog, methods, layers, told
):
    with caplog.at_level(logging.WARNING):
        run(tmp_path, *BARE, f"methods={methods}", f"layers={layers}", "model=tiny_resnet")
    lines = [r.message for r in caplog.records if "grad_cam_plus_plus divides" in r.message]
    assert len(lines) == told
    if told:
        assert "at layer4.0.bn1: " in lines[0]


def moved_by_rounding(A, g):
    """Return how far the last digit of the gradients moves the normalised map."""
    maps = [grad_cam_plus_plus(A, g * (1 + shift)).relu() for shift in (-1e-6, 1e-6)]
    scaled = [m / m.amax().clamp(min=1e-30) for m in maps]
    return float((scaled[0] - scaled[1]).abs().max())


def test_rounding_moves_grad_cam_plus_plus_only_where_activations_are_negative():
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        A, g = torch.randn(2, 1, 6, 4, 4, generator=rng)
        assert moved_by_rounding(A.abs(), g) < 1e-4
    # sum(A) = -2 / g in the first channel: its denominator is 0 up to rounding, of either sign.
    A, g = torch.ones(1, 2, 4, 4), torch.full((1, 2, 4, 4), 0.5)
    A[0, 0] = -2 / (0.5 * 16)
    A[0, 0, 0, 0] = -2 / (0.5 * 16) - 1e-9
    assert moved_by_rounding(A, g) > 0.5
    assert np.isfinite(moved_by_rounding(A.abs(), g))


@pytest.mark.parametrize(
    "override",
    [
        "batch_size=0", "part_size=0", "shard.count=0", "shard.index=-1", "shard.index=1",
        "max_errors=-0.01", "max_errors=1.01", "num_workers=-1", "gallery=-1",
    ],
)  # fmt: skip
def test_a_number_just_out_of_its_range_is_refused_by_name(override):
    name, value = override.split("=")
    with pytest.raises(UserError, match=rf"^{name} expects .*got {value}"):
        check_values(config(override))


def test_the_ends_of_every_range_are_allowed():
    least = ["batch_size=1", "part_size=1", "shard.count=1", "max_errors=0", "num_workers=0"]
    check_values(config(*least, "gallery=0"))
    check_values(config("shard.count=3", "shard.index=2", "max_errors=1"))


def test_deletion_and_insertion_score_every_point_of_every_map_of_every_image():
    asked = config(
        "methods=[grad_cam,layer_cam,random,center]",
        "layers=[layer2,layer3,layer4]",
        "faithfulness.steps=6",
    )
    # Of each image: two methods on three layers and two controls; two curves of six steps and
    # the image or the baseline itself.
    assert set_up(asked).perturbed_images == 10 * (2 * 3 + 2) * 2 * (6 + 1)
