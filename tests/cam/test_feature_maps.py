"""Only (N, K, h, w) is read as a feature map, whatever else has four axes."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer, VisionTransformer, get_model
from toys import Residual

from gradcam_bench import GradCAM
from gradcam_bench.cam.feature_maps import survey
from gradcam_bench.errors import UserError
from gradcam_bench.models.layers import candidate_layers, last_spatial_layer
from gradcam_bench.models.torchvision_models import torchvision_model


def images(*size, n=1):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(0))


def axes(network, size):
    return {call.name: call.axes for call in survey(network, size)}


@pytest.fixture(scope="module")
def swin():
    return get_model("swin_t", weights=None).eval()


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (224, 224)])
def test_swins_blocks_are_refused_and_what_to_do_is_said(swin, size):
    with pytest.raises(
        UserError, match=r"features.7 of SwinTransformer gives .*768\), which is \(N, h, w, K\)"
    ) as error:
        GradCAM(swin, "features.7").generate(images(*size))
    assert "output.permute(0, 3, 1, 2)" in str(error.value)


def test_swins_permuted_map_is_its_default_and_its_only_candidate(swin):
    assert last_spatial_layer(swin, 64) == "permute"
    assert candidate_layers(swin, 64, prefer="permute") == ["permute"]
    assert GradCAM(swin, "permute").generate(images(64, 64)).shape == (1, 64, 64)


def test_the_second_swin_is_read_as_the_first():
    found = axes(get_model("swin_v2_t", weights=None).eval(), 64)
    assert found["features.7"] == found["norm"] == "channels last"
    assert found["features.0.0"] == found["permute"] == "channels first"


def test_channels_last_is_told_where_every_side_is_eight():
    network = SwinTransformer([1, 1], 8, [1, 1], [2, 2], [4, 4], num_classes=3).eval()
    assert axes(network, 32)["features.1"] == "channels last"  # (1, 8, 8, 8)
    with pytest.raises(UserError, match="channels last"):
        GradCAM(network, "features.1").generate(images(32, 32))


def test_convnexts_blocks_permute_inside_and_stay_candidates():
    network = get_model("convnext_tiny", weights=None).eval()
    layers = candidate_layers(network, 64, prefer="features")
    assert [*layers[-4:]] == ["features.4", "features.5", "features.6", "features"]
    GradCAM(network, layers).generate(images(64, 64))
    with pytest.raises(UserError, match="channels last"):
        GradCAM(network, "features.7.0.block.2").generate(images(64, 64))


def test_a_transformer_has_no_default_but_its_patches_can_be_asked_for():
    model = torchvision_model(name="vit_b_16", weights=None)
    for ask in (lambda: model.default_layer, model.candidate_layers):
        with pytest.raises(
            UserError, match=r"VisionTransformer has no default layer.*tokens.*layers=\[conv_proj\]"
        ):
            ask()
    assert replace(model, layer="conv_proj").default_layer == "conv_proj"
    small = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3).eval()
    assert GradCAM(small, "conv_proj").generate(images(32, 32)).shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("name", "default", "last"),
    [
        ("swin_tiny_patch4_window7_224", None, "layers.3"),
        ("convnext_atto", "stages", None),
        ("resnet18", "layer4", None),
        ("maxvit_rmlp_pico_rw_256", "norm", None),
    ],
)
def test_timms_networks(name, default, last):
    import timm

    network = timm.create_model(name, pretrained=False).eval()
    size = 256 if "256" in name else 224
    if default is None:
        with pytest.raises(UserError, match=r"has no default layer.*channels last"):
            last_spatial_layer(network, size)
    else:
        found = last_spatial_layer(network, size)
        assert found == default
    if last is not None:
        assert axes(network, size)[last] == "channels last"
        with pytest.raises(UserError, match="channels last"):
            GradCAM(network, last).generate(images(size, size))


class Attention(nn.Module):
    """Tokens of 4 x 4 pixels, their attention (N, heads, T, T), one size of input or any."""

    def __init__(self, side=None):
        super().__init__()
        torch.manual_seed(0)
        self.side = side
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.keys = nn.LayerNorm(4)
        self.softmax = nn.Softmax(-1)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        assert self.side in (None, x.shape[-1])
        tokens = self.conv(x).flatten(2).mT.unflatten(2, (2, 4)).transpose(1, 2)
        attention = self.drop(self.softmax(tokens @ self.keys(tokens).mT))
        return self.fc((attention @ tokens).transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize("side", [None, 16])
@pytest.mark.parametrize("layer", ["softmax", "drop", "keys"])
def test_attention_is_no_map(layer, side):
    network = Attention(side).eval()
    assert axes(network, 16)[layer] != "channels first"
    with pytest.raises(UserError, match=r"\(N, K, h, w\), but"):
        GradCAM(network, layer).generate(images(16, 16, n=2))


class Windows(nn.Module):
    """Convolves each quarter of the image alone: (4 N, K, h, w)."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        n, k, h, w = x.shape
        x = x.view(n, k, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        return self.fc(self.conv(x).unflatten(0, (n, 4)).mean((1, 3, 4)))


def test_windows_are_no_map_of_the_image():
    with pytest.raises(UserError, match="windows"):
        GradCAM(Windows().eval(), "conv").generate(images(16, 16, n=2))


class Flat(nn.Module):
    """Takes one size only; K = h = w at its convolution."""

    def __init__(self, permuted=False):
        super().__init__()
        self.permuted = permuted
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8), nn.Linear(512, 3)

    def forward(self, x):
        assert x.shape[-1] == 16
        x = self.conv(x)
        return self.fc((self.norm(x.permute(0, 2, 3, 1)) if self.permuted else x).flatten(1))


def test_a_convolution_of_a_network_that_takes_one_size_is_a_map():
    network = Flat().eval()
    assert last_spatial_layer(network, 16) == "conv"
    assert GradCAM(network, "conv").generate(images(16, 16)).shape == (1, 16, 16)


class Pooled(nn.Module):
    """A convolutional network whose head attends to positions, as CLIP's ResNets do."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2))
        self.pool = Head()

    def forward(self, x):
        return self.pool(self.trunk(x))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.fc = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        tokens = self.qkv(x.flatten(2).mT)
        return self.fc((tokens.softmax(1) * tokens).sum(1))


def test_tokens_inside_of_attention_pooling_leave_the_map_before_it_the_default():
    assert last_spatial_layer(Pooled().eval(), 32) == "trunk"


def test_a_plain_map_costs_no_second_forward_and_a_doubtful_one_a_single_one():
    network, calls = Residual().eval(), []
    network.register_forward_hook(lambda *_: calls.append(1))
    cam = GradCAM(network, ["stem", "last_relu"])
    for _ in range(3):
        cam.generate(images(32, 32))
    assert len(calls) == 3
    cam = GradCAM(network, "last_relu")  # (1, 6, 6, 6)
    for _ in range(3):
        cam.generate(images(12, 12))
    assert len(calls) == 3 + 3 + 1


def test_the_look_at_a_network_leaves_it_as_it_was():
    network = Residual().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    survey(network, 12)
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Unseen(nn.Module):
    """Its last activation is a function, as in torchvision's DenseNet."""

    def __init__(self, activation):
        super().__init__()
        self.features, self.fc = (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
            nn.Linear(4, 3),
        )
        self.activation = activation

    def forward(self, x):
        return self.fc(self.activation(self.features(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (lambda x: F.relu(x, inplace=True), "relu"),
        (F.silu, "silu"),
        (F.relu6, "hardtanh"),
        (lambda x: x.clamp(min=0), "clamp"),
        (nn.ReLU().forward, "relu"),
    ],
)
def test_an_activation_behind_the_default_layer_that_is_no_module_is_told(caplog, activation, name):
    with caplog.at_level(logging.WARNING):
        assert last_spatial_layer(Unseen(activation).eval(), 16) == "features"
    assert f"applies {name}" in caplog.text
    assert "before that activation" in caplog.text


def test_nothing_is_told_where_the_map_is_behind_the_activation(caplog):
    last_spatial_layer(Residual().eval(), 16)
    assert not caplog.text
