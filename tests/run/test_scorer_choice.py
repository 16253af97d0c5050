"""One scorer a run: whoever computes a part, whenever, scores as the others did."""

import json
import sys

import numpy as np
import pytest
import torch
from small_runs import config, run, scores
from toys import Residual

from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness import scorers
from gradcam_bench.faithfulness.onnx_scorer import MISSING
from gradcam_bench.faithfulness.scorers import TorchScorer
from gradcam_bench.run import loop, scorer_choice, setup
from gradcam_bench.store.parts import read_run

AUTO = ("scoring=auto", "methods=[grad_cam]")
SHARDS = [("shard.count=3", f"shard.index={i}") for i in range(3)]
# 10 images, one cell, two curves of 7 points; parts of 4.
WHOLE = 10 * 2 * 7


@pytest.fixture
def made(monkeypatch):
    """What scorers were made; ONNX Runtime is played by the network, exporting takes seconds."""
    names = []

    def exported(network, examples):
        assert len(examples) == setup.EXAMPLES
        scorer = TorchScorer(network)
        scorer.name = "onnxruntime"
        return scorer

    def make_scorer(choice, *args, **kwargs):
        names.append(scorers.make_scorer(choice, *args, **kwargs))
        return names[-1]

    monkeypatch.setattr(scorers, "_onnx_scorer", exported)
    monkeypatch.setattr(loop, "make_scorer", make_scorer)
    monkeypatch.setattr(scorers, "EXPORT_PAYS_FROM", WHOLE)
    return names


def test_shards_choose_as_the_whole_run_does(made, tmp_path):
    _, whole = run(tmp_path / "whole", *AUTO)
    for shard in SHARDS:
        _, rows = run(tmp_path / "shards", *AUTO, *shard)
        assert read_run(tmp_path / "shards")["scorer"] == "onnxruntime"
    assert {scorer.name for scorer in made} == {"onnxruntime"}
    np.testing.assert_allclose(scores(rows), scores(whole), atol=1e-5)
    because = f"scoring=auto, {WHOLE} perturbed images on cpu in float32"
    assert read_run(tmp_path / "whole")["scorer_because"] == because


@pytest.mark.parametrize(("first", "then"), [(WHOLE, 10**9), (10**9, 1)])
def test_a_resumed_run_keeps_its_scorer(made, tmp_path, monkeypatch, first, then):
    monkeypatch.setattr(scorers, "EXPORT_PAYS_FROM", first)
    run(tmp_path, *AUTO, *SHARDS[0])
    stored = read_run(tmp_path)
    monkeypatch.setattr(scorers, "EXPORT_PAYS_FROM", then)
    run(tmp_path, *AUTO)
    assert len({scorer.name for scorer in made}) == 1
    assert {key: read_run(tmp_path)[key] for key in scorer_choice.RECORD} == {
        key: stored[key] for key in scorer_choice.RECORD
    }


def test_a_finished_run_keeps_the_record_and_makes_no_scorer(made, tmp_path):
    run(tmp_path, *AUTO)
    stored = read_run(tmp_path)
    made.clear()
    run(tmp_path, *AUTO)
    assert not made
    assert read_run(tmp_path)["scorer"] == stored["scorer"] == "onnxruntime"


def test_where_the_recorded_scorer_cannot_be_had_the_run_stops(made, tmp_path, monkeypatch):
    run(tmp_path, *AUTO, *SHARDS[0])

    def missing(network, examples):
        raise UserError(MISSING)

    monkeypatch.setattr(scorers, "_onnx_scorer", missing)
    message = r"begun with the scorer onnxruntime.*cannot be had here: .*pip install.*output_dir="
    with pytest.raises(UserError, match=message):
        run(tmp_path, *AUTO)
    assert len(list((tmp_path / "scores").glob("*.parquet"))) == 1


def test_another_scorer_than_the_recorded_is_refused(made, tmp_path):
    run(tmp_path, *AUTO, *SHARDS[0])
    with pytest.raises(UserError, match=r"scoring=torch is asked for; continue with scoring=auto"):
        run(tmp_path, *AUTO, "scoring=torch")
    run(tmp_path, *AUTO, "scoring=onnxruntime")


def test_of_two_that_begin_at_once_the_second_takes_the_firsts_record(made, tmp_path):
    def make(choice):
        return loop.make_scorer(
            choice, Residual().eval(), torch.zeros(4, 3, 12, 12), n_images=WHOLE
        )

    mine = {"config_hash": "a"}
    choice = scorer_choice.ScorerChoice(tmp_path, make, "torch", "")
    choice.before_the_run(mine)
    assert mine["scorer"] == choice.made.name == "torch"
    other = {"config_hash": "a", "scorer": "onnxruntime", "scorer_because": "was first"}
    (tmp_path / "run.json").write_text(json.dumps(other))
    choice.asked = "auto"
    kept = choice.of_the_run(mine)
    assert kept.name == mine["scorer"] == "onnxruntime"
    assert mine["scorer_because"] == "was first"


def test_a_run_begun_before_scorers_were_recorded_goes_on(made, tmp_path):
    run(tmp_path, *AUTO, *SHARDS[0])
    stored = read_run(tmp_path)
    for key in scorer_choice.RECORD:
        del stored[key]
    (tmp_path / "run.json").write_text(json.dumps(stored))
    run(tmp_path, *AUTO)
    assert read_run(tmp_path)["scorer"] == "onnxruntime"


def test_a_run_in_bfloat16_on_the_cpu_is_scored_in_bfloat16(made, tmp_path):
    _, low = run(tmp_path / "a", *AUTO, "precision=bfloat16", "device=cpu")
    assert read_run(tmp_path / "a")["scorer"] == "torch"
    _, full = run(tmp_path / "b", *AUTO, "device=cpu")
    difference = (low.deletion_auc - full.deletion_auc).abs()
    assert 1e-6 < difference.max() < 0.05
    with pytest.raises(UserError, match="computes in float32, but precision=bfloat16"):
        run(tmp_path / "c", *AUTO, "precision=bfloat16", "device=cpu", "scoring=onnxruntime")
    assert not (tmp_path / "c").exists()


def test_a_wrong_option_leaves_no_folder_that_refuses_the_mended_command(tmp_path):
    for wrong in ("faithfulness.ties=any", "faithfulness.steps=0"):
        with pytest.raises(UserError, match="expects"):
            run(tmp_path / "out", wrong)
        assert not (tmp_path / "out").exists()


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.fc = nn.Linear(8, {classes})

    def forward(self, x):
        return self.fc(nn.functional.{act}(self.conv(x)).mean((2, 3)))

def build():
    return Net()
"""


def test_a_changed_forward_is_another_run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    classes = len(setup.bind_dataset(config().dataset)().class_names)
    custom = [
        "model=custom",
        "model.factory=net_of_mine:build",
        "model.size=32",
        "model.layer=conv",
    ]
    custom += ["methods=[grad_cam]", "faithfulness.enabled=false"]
    for number, act in enumerate(("relu", "relu", "elu")):
        folder = tmp_path / f"version{number}"
        folder.mkdir()
        (folder / "net_of_mine.py").write_text(NET.format(act=act, classes=classes))
        monkeypatch.syspath_prepend(str(folder))
        sys.modules.pop("net_of_mine", None)
        if act == "relu":
            run(tmp_path / "out", *custom)
            continue
        with pytest.raises(UserError, match=r"another config \(model.code: \w+ there, \w+ now"):
            run(tmp_path / "out", *custom)
    sys.modules.pop("net_of_mine", None)
    stored = read_run(tmp_path / "out")
    assert stored["identity"]["model"]["code"]
    assert "code" not in stored["config"]["model"]


def test_the_hash_of_an_embedded_model_holds_no_code(tmp_path):
    run(tmp_path, "faithfulness.enabled=false", "methods=[center]")
    stored = read_run(tmp_path)
    assert "code" not in stored["identity"]["model"]
    assert "checkpoint" in stored["config"]["model"]  # left out of the hash, not of the record
