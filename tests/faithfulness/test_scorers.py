import copy
import sys
import threading

import pytest
import torch
from torch import nn
from toys import Act, Doubled, Functional, Residual

from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness import export_cache, onnx_scorer, scorers
from gradcam_bench.faithfulness.scorers import TorchScorer, disagreement, make_scorer
from gradcam_bench.models.checkpoints import weights_hash


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


EXPORTED = {}


@pytest.fixture(autouse=True)
def exported_once(monkeypatch):
    """Exporting takes seconds: each class with each weights is exported once for all tests."""

    def export(network, size):
        key = (type(network), weights_hash(network), size)
        if key not in EXPORTED:
            EXPORTED[key] = onnx_scorer.export(network, size)
        return EXPORTED[key]

    monkeypatch.setattr(scorers, "export", export)
    return export


def examples(n=4, size=16):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def probabilities(network, x):
    with torch.inference_mode():
        return network(x).softmax(1)


def test_scorers_agree():
    network = Residual().eval()
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = probabilities(network, x)
    for choice in ("torch", "onnxruntime"):
        scorer = make_scorer(choice, network, examples(), n_images=10)
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
    scorer = make_scorer("compile", network, examples(), n_images=1)
    assert scorer.name == "compile"
    assert torch.allclose(scorer(x).softmax(1), probabilities(network, x), atol=1e-4)


def test_a_compiled_graph_that_answers_differently_is_refused(monkeypatch):
    def compiled(network):
        other = copy.deepcopy(network)
        with torch.no_grad():
            other.fc.weight.mul_(1.01)
        return other

    monkeypatch.setattr(torch, "compile", compiled)
    with pytest.raises(
        UserError, match=r"compile answers differently from Residual.*scoring=torch"
    ):
        make_scorer("compile", Residual().eval(), examples(), n_images=1)


def test_a_compiler_that_fails_is_told_without_a_traceback(monkeypatch):
    def compiled(network):
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch, "compile", compiled)
    with pytest.raises(UserError, match=r"no C\+\+ compiler found\); use scoring=torch"):
        make_scorer("compile", Residual().eval(), examples(), n_images=1)


def test_auto_takes_onnxruntime_for_long_runs_on_the_cpu_only():
    network = Residual().eval()
    long, short = scorers.EXPORT_PAYS_FROM, scorers.EXPORT_PAYS_FROM - 1
    assert make_scorer("auto", network, examples(), n_images=long).name == "onnxruntime"
    assert make_scorer("auto", network, examples(), n_images=short).name == "torch"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_lower_precision_is_never_scored_in_float32(dtype):
    network, x = Residual().eval(), examples()
    scorer = make_scorer("auto", network, x, n_images=10**6, autocast=dtype)
    assert scorer.name == "torch"
    moved = (scorer(x) - network(x)).abs().max()
    assert 1e-5 < moved < 0.1
    precision = str(dtype).removeprefix("torch.")
    with pytest.raises(UserError, match=f"float32, but precision={precision}; use scoring=torch"):
        make_scorer("onnxruntime", network, x, n_images=1, autocast=dtype)


class Unexportable(Residual):
    def forward(self, x):
        if float(x.sum()) > 1e9:  # control flow that no exporter can follow
            return super().forward(x * 2)
        return super().forward(x)


def test_a_model_that_cannot_be_exported_falls_back_with_a_message(caplog):
    network = Unexportable().eval()
    scorer = make_scorer("auto", network, examples(), n_images=10**6)
    assert scorer.name == "torch"
    assert "cannot be exported to ONNX" in caplog.text
    assert "Scoring with torch instead" in caplog.text
    with pytest.raises(UserError, match="use scoring=torch"):
        make_scorer("onnxruntime", network, examples(), n_images=1)


def exports(folder):
    return sorted(folder.rglob("*.onnx"))


def test_an_export_is_made_once_and_again_for_other_weights(tmp_path):
    network = Residual().eval()
    make_scorer("onnxruntime", network, examples(), n_images=1)
    (made,) = exports(tmp_path)
    stamp = made.stat().st_mtime_ns
    make_scorer("onnxruntime", network, examples(), n_images=1)
    assert made.stat().st_mtime_ns == stamp
    with torch.no_grad():
        network.fc.weight.add_(1)
    make_scorer("onnxruntime", network, examples(), n_images=1)
    assert len(exports(tmp_path)) == 2
    assert not list(tmp_path.rglob("*.partial"))


def test_a_changed_forward_of_the_same_name_and_weights_is_exported_anew():
    for kind in (Act, Doubled):
        scorer = make_scorer("onnxruntime", kind().eval(), examples(), n_images=1)
        torch.testing.assert_close(scorer(examples()), kind().eval()(examples()).detach())


@pytest.mark.parametrize("broken", ["other network", "no graph"])
def test_a_stored_graph_that_answers_differently_is_exported_again(
    monkeypatch, caplog, exported_once, broken
):
    monkeypatch.setattr(scorers, "export_key", lambda network, size: "key")
    other = exported_once(Doubled().eval(), 16)
    export_cache.keep("key", other if broken == "other network" else b"no graph")
    for _ in range(2):
        network = Act().eval()
        scorer = make_scorer("onnxruntime", network, examples(), n_images=1)
        torch.testing.assert_close(scorer(examples()), network(examples()).detach())
    assert caplog.text.count("Exporting again") == 1


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_a_fresh_export_that_answers_differently_is_not_believed(
    monkeypatch, caplog, exported_once, scale
):
    network, other = Act().eval(), Doubled().eval()
    with torch.no_grad():
        network.fc.weight.mul_(scale)
        other.fc.weight.mul_(scale)
    graph = exported_once(other, 16)
    monkeypatch.setattr(scorers, "export", lambda network, size: graph)
    with pytest.raises(UserError, match=r"onnxruntime answers differently from Net itself"):
        make_scorer("onnxruntime", network, examples(), n_images=1)
    assert make_scorer("auto", network, examples(), n_images=10**6).name == "torch"
    assert "Scoring with torch instead" in caplog.text


def test_logits_are_compared_where_probabilities_are_saturated():
    class Sure(nn.Module):
        def __init__(self, wrong):
            super().__init__()
            self.wrong = wrong

        def forward(self, x):
            other = x.mean((1, 2, 3)) * (2 if self.wrong else 1)
            return torch.stack([other + 1000, other], 1)

    def scorer(wrong):
        return TorchScorer(Sure(wrong).eval())

    x = examples()
    assert torch.equal(scorer(True)(x).softmax(1), scorer(False)(x).softmax(1))
    assert disagreement(scorer(True), scorer(False), x) > scorers.AGREE[None]
    assert disagreement(scorer(False), scorer(False), x) == 0


def test_logits_that_are_not_finite_must_be_so_in_both():
    class Holes(nn.Module):
        def __init__(self, hole):
            super().__init__()
            self.hole = hole

        def forward(self, x):
            logits = torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)
            return logits.masked_fill(torch.tensor([self.hole, False]), torch.nan)

    with_holes, without = (TorchScorer(Holes(hole).eval()) for hole in (True, False))
    assert disagreement(with_holes, without, examples()) == float("inf")
    assert disagreement(with_holes, with_holes, examples()) == 0


def test_a_network_that_writes_into_its_input_exports_and_agrees():
    class Writing(Residual):
        def forward(self, x):
            return super().forward(x.mul_(2).sub_(1))

    network, x = Writing().eval(), examples()
    expected = network(x.clone()).detach()
    for choice in ("torch", "onnxruntime"):
        scorer = make_scorer(choice, network, x, n_images=1)
        torch.testing.assert_close(scorer(x.clone()), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(x, examples())


def test_without_an_example_noise_alone_is_compared():
    network = Residual().eval()
    assert make_scorer("onnxruntime", network, examples(0), n_images=1).name == "onnxruntime"
    assert make_scorer("torch", network, examples(0), n_images=1).name == "torch"


def test_the_scorer_leaves_the_model_alone():
    network = Functional().eval()
    before = copy.deepcopy(network.state_dict())
    grads = [p.requires_grad for p in network.parameters()]
    TorchScorer(network)(torch.zeros(1, 3, 8, 8))
    assert not network.training
    assert [p.requires_grad for p in network.parameters()] == grads
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(UserError, match=r"expects Functional in eval mode: call eval\(\) first"):
        TorchScorer(Functional().train())


def test_wrong_choices_are_refused(monkeypatch):
    network = Residual().eval()
    with pytest.raises(UserError, match="expects one of auto, torch, compile, onnxruntime"):
        make_scorer("onnx", network, examples(), n_images=1)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="needs the extra `onnx`"):
        make_scorer("onnxruntime", network, examples(), n_images=1)


def test_a_network_that_cannot_be_copied_scores_as_it_is():
    class Locked(Residual):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()

    network = Locked().eval()
    scorer = TorchScorer(network)
    torch.testing.assert_close(scorer(examples()), network(examples()).detach())
    with pytest.raises(UserError, match="cannot be exported"):
        make_scorer("onnxruntime", network, examples(), n_images=1)
