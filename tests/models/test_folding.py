"""A prepared network answers as the network it was copied from."""

import pytest
import torch
from torch import nn
from toys import Functional

from gradcam_bench import GradCAM
from gradcam_bench.models import folding
from gradcam_bench.models.efficientnet_lite import efficientnet_lite
from gradcam_bench.models.folding import fold_batch_norm
from gradcam_bench.models.torchvision_models import torchvision_model
from gradcam_bench.models.zoo import zoo_model


def probabilities(network, x):
    with torch.inference_mode():
        return network(x).softmax(1)


def noise(size=96, n=2):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def build(name):
    if name.startswith("tiny"):
        return zoo_model(name=name)
    if "lite" in name:
        return efficientnet_lite(name=name)
    return torchvision_model(name=name, weights=None)


@pytest.mark.parametrize(
    "name", ["resnet18", "efficientnet_lite0", "mobilenet_v3_large", "tiny_resnet"]
)
def test_probabilities_and_maps_stay_when_every_batch_norm_is_folded(name):
    model, x = build(name), noise()
    layers = model.candidate_layers()
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    found = folding.prepare(model.network, x, layers=layers)
    assert found.folded == sum(isinstance(m, nn.BatchNorm2d) for m in model.network.modules()) > 0
    assert torch.allclose(
        probabilities(found.network, x), probabilities(model.network, x), atol=1e-5
    )
    ours = GradCAM(found.network, layers).generate(x, [1, 2])
    expected = GradCAM(model.network, layers).generate(x, [1, 2])
    for layer, a, b in zip(layers, ours, expected, strict=True):
        assert (a - b).abs().max() < 1e-4, layer
    assert all(torch.equal(v, model.network.state_dict()[k]) for k, v in before.items())


def test_a_convolution_whose_map_is_asked_for_keeps_its_output():
    model, x = build("resnet18"), noise()
    layers = ["layer4.1.conv2", "layer4.1.bn1"]
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.network.modules())
    found = folding.prepare(model.network, x, layers=layers)
    assert found.folded == norms - 1  # bn2 stays
    ours, expected = GradCAM(found.network, layers), GradCAM(model.network, layers)
    ours.forward(x)
    expected.forward(x)
    for a, b in zip(ours.activations, expected.activations, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_convolution_that_feeds_two_consumers_is_not_folded():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.bn = nn.BatchNorm2d(4)
            self.bn.running_mean.fill_(2.0)
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            x = self.conv(x)
            return self.fc((self.bn(x) + x).mean((2, 3)))

    network = Shared().eval()
    found = folding.prepare(network, noise(8))
    assert found.folded == 0
    x = noise(8)
    assert torch.allclose(probabilities(found.network, x), probabilities(network, x), atol=1e-6)


def test_folding_that_moves_a_map_is_taken_back(monkeypatch):
    model = build("tiny_resnet")
    monkeypatch.setattr(folding, "MAP_TOLERANCE", 0.0)
    found = folding.prepare(model.network, noise(), layers=["layer4"])
    assert found.folded == 0
    ours, expected = (
        GradCAM(m, "layer4").generate(noise()) for m in (found.network, model.network)
    )
    assert torch.allclose(ours, expected, atol=1e-5)


class Viewing(nn.Module):
    """Flattens by `view`, which a channels_last tensor does not allow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4)
        self.fc = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x):
        return self.fc(self.conv(x).relu().view(len(x), -1))


def test_a_network_that_cannot_take_channels_last_runs_contiguous():
    network, x = Viewing().eval(), noise(16)
    found = folding.prepare(network, x, layers=["conv"])
    assert found.memory_format == torch.contiguous_format
    assert torch.allclose(probabilities(found.network, x), probabilities(network, x), atol=1e-6)


def test_a_network_without_batch_norm_is_only_copied():
    network = Functional().eval()
    assert fold_batch_norm(network, noise(8)) == 0
