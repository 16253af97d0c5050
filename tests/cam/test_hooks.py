"""What is recorded of a layer, in every pass: its activation and the gradient of it alone."""

from collections import Counter

import pytest
import torch
from random_networks import CHANNELS, SIDE, RandomNetwork, expected
from torch import nn

from gradcam_bench import GradCAM
from gradcam_bench.errors import UserError


def outcome(cam, x):
    """Return (activations, gradients) of class 1, or the message of the refusal."""
    try:
        cam.forward(x)
        return cam.activations, cam.backward(1)
    except UserError as error:
        return str(error)


def differentiable(network, x):
    """Whether plain autograd can follow the network as it is."""
    training = network.training
    network.eval()
    try:
        network(x.clone().requires_grad_()).sum().backward()
    except RuntimeError:
        return False
    finally:
        network.train(training)
        network.zero_grad()
    return True


def examine(seed):
    """Compare four calls of one random network with its twin; return what became of it."""
    network = RandomNetwork(seed)
    g = torch.Generator().manual_seed(seed)
    three = torch.randn(3, CHANNELS, SIDE, SIDE, generator=g, dtype=torch.float64)
    layers = network.asked
    if not layers:
        return "nothing to ask"
    _, gradients, inseparable = expected(network, three, layers)
    if not network.keep_refused:
        kept = [a for a in layers if gradients[a] is not None and a not in inseparable]
        layers = kept or layers
        _, gradients, inseparable = expected(network, three, layers)
    cam = GradCAM(network, layers)
    refused = inseparable or any(gradient is None for gradient in gradients.values())
    kind = ""
    for x in (three, three[:1], three, three[:1]):
        found = outcome(cam, x)
        if isinstance(found, str):
            assert not kind or kind == found, f"{seed}: {kind!r}, then {found!r}"
            kind = found
            if "overwrites, in place" in found or "in place on a view" in found:
                assert network.without_gradients or not differentiable(network, x), seed
            elif "under torch.no_grad" in found:
                assert network.without_gradients, seed
            else:
                assert refused, f"{seed}: {found}"
            continue
        assert not kind, f"{seed}: {kind!r}, then nothing"
        assert not refused, f"{seed}: accepted"
        activations, gradients, _ = expected(network, x, layers)
        for layer, activation, gradient in zip(layers, *found, strict=True):
            assert torch.allclose(activation, activations[layer], atol=1e-12), (seed, layer)
            assert torch.allclose(gradient, gradients[layer], atol=1e-12), (seed, layer)
    return kind.split(" ")[-1] if kind else "equal"


@pytest.fixture
def one_thread():
    """Networks this small take far longer with threads that have to be woken."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_every_call_of_a_random_network_equals_its_twin_without_in_place_operations():
    found = Counter(examine(seed) for seed in range(200))
    assert found["equal"] > 0.6 * found.total(), found


class HandsOn(nn.Module):
    """x + f(drop(x)), where drop hands on x itself; in place, f writes into it first."""

    def __init__(self, inplace, by_keyword=False):
        super().__init__()
        torch.manual_seed(0)
        self.by_keyword = by_keyword
        self.stem, self.f = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)
        self.drop, self.relu = nn.Dropout(), nn.ReLU(inplace)
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        x = self.stem(x)
        same = self.drop(input=x) if self.by_keyword else self.drop(x)
        return self.fc((x + self.f(self.relu(same))).mean((2, 3)))


def test_a_layer_that_hands_on_its_input_has_the_gradient_of_its_own_consumers():
    network, x = HandsOn(inplace=False), torch.randn(2, 3, 4, 4)
    cam = GradCAM(network, ["stem", "drop"])
    for _ in range(3):
        cam.forward(x)
        stem, drop = cam.backward(1)
        # dy/dstem = w + dy/ddrop, w = the class's weights / 16 positions.
        weights = network.fc.weight[1] / 16
        positive = (cam.activations[0] > 0).float()
        through = torch.einsum("o,oc->c", weights, network.f.weight[:, :, 0, 0])
        expected = through[None, :, None, None] * positive
        assert torch.allclose(drop, expected)
        assert torch.allclose(stem, weights[None, :, None, None] + expected)


@pytest.mark.parametrize("by_keyword", [False, True])
def test_a_layer_whose_input_is_overwritten_through_it_and_read_is_refused_in_every_call(
    by_keyword,
):
    network, x = HandsOn(inplace=True, by_keyword=by_keyword).eval(), torch.randn(2, 3, 4, 4)
    before = network(x)
    cam = GradCAM(network, "drop")
    for _ in range(3):
        with pytest.raises(UserError, match="drop hands on the memory of its input"):
            cam.forward(x)
    assert torch.equal(GradCAM(network, ["stem", "relu"]).forward(x), before)


def test_another_library_s_hooks_on_saved_tensors_are_refused():
    cam = GradCAM(HandsOn(inplace=False), "stem")
    x = torch.randn(1, 3, 4, 4)
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
        pytest.raises(UserError, match="other hooks on saved tensors"),
    ):
        cam.forward(x)
    cam.generate(x)
