import sys

import pytest
import torch
from toys import Functional, Residual

from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness import scorers
from gradcam_bench.faithfulness.scorers import OnnxScorer, TorchScorer, make_scorer


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def probabilities(network, x):
    with torch.inference_mode():
        return network(x).softmax(1)


def test_scorers_agree():
    network = Residual().eval()
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = probabilities(network, x)
    for choice in ("torch", "onnxruntime"):
        scorer = make_scorer(choice, network, size=16, device=torch.device("cpu"), n_images=10)
        assert scorer.name == choice
        for batch in (x, x[:1]):
            found = scorer(batch).softmax(1)
            assert found.dtype == torch.float32
            assert torch.allclose(found, expected[: len(batch)], atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_compile_agrees(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)  # compiling takes half a minute
    network = Residual().eval()
    x = torch.randn(2, 3, 16, 16)
    scorer = make_scorer("compile", network, size=16, device=torch.device("cpu"), n_images=1)
    assert scorer.name == "compile"
    assert torch.allclose(scorer(x).softmax(1), probabilities(network, x), atol=1e-4)


def test_auto_takes_onnxruntime_for_long_runs_on_the_cpu_only():
    network, cpu = Residual().eval(), torch.device("cpu")
    long, short = scorers.EXPORT_PAYS_FROM, scorers.EXPORT_PAYS_FROM - 1
    assert make_scorer("auto", network, size=16, device=cpu, n_images=long).name == "onnxruntime"
    assert make_scorer("auto", network, size=16, device=cpu, n_images=short).name == "torch"


class Unexportable(Residual):
    def forward(self, x):
        if float(x.sum()) > 1e9:  # control flow that no exporter can follow
            return super().forward(x * 2)
        return super().forward(x)


def test_a_model_that_cannot_be_exported_falls_back_with_a_message(caplog):
    network = Unexportable().eval()
    cpu = torch.device("cpu")
    scorer = make_scorer("auto", network, size=16, device=cpu, n_images=10**6)
    assert scorer.name == "torch"
    assert "cannot be exported to ONNX" in caplog.text
    assert "Scoring with torch instead" in caplog.text
    with pytest.raises(UserError, match="use scoring=torch"):
        make_scorer("onnxruntime", network, size=16, device=cpu, n_images=1)


def test_an_export_is_made_once_and_again_for_other_weights(tmp_path):
    example = torch.zeros(2, 3, 16, 16)
    network = Residual().eval()
    OnnxScorer(network, example)
    made = list(tmp_path.rglob("*.onnx"))
    assert len(made) == 1
    stamp = made[0].stat().st_mtime_ns
    OnnxScorer(network, example)
    assert made[0].stat().st_mtime_ns == stamp
    with torch.no_grad():
        network.fc.weight.add_(1)
    OnnxScorer(network, example)
    assert len(list(tmp_path.rglob("*.onnx"))) == 2
    assert not list(tmp_path.rglob("*.partial"))


def test_the_scorer_leaves_the_model_alone():
    network = Functional().train()
    before = [p.requires_grad for p in network.parameters()]
    TorchScorer(network)(torch.zeros(1, 3, 8, 8))
    assert network.training
    assert [p.requires_grad for p in network.parameters()] == before


def test_wrong_choices_are_refused(monkeypatch):
    network, cpu = Residual().eval(), torch.device("cpu")
    with pytest.raises(UserError, match="expects one of auto, torch, compile, onnxruntime"):
        make_scorer("onnx", network, size=16, device=cpu, n_images=1)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="needs the extra `onnx`"):
        make_scorer("onnxruntime", network, size=16, device=cpu, n_images=1)
