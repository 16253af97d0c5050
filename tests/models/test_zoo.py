import json
import shutil

import pytest
import torch
from repository import ROOT
from safetensors.torch import save_file

from gradcam_bench.data.shapes import Shapes
from gradcam_bench.errors import UserError
from gradcam_bench.models import zoo

RESULTS = ROOT / "results" / "zoo"
SCENES = 300


@pytest.fixture(scope="module")
def scenes():
    data = Shapes(length=SCENES)
    drawn = [data.scene(i) for i in range(SCENES)]
    images = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in drawn])
    mean = torch.tensor(zoo.PREPROCESSING["mean"])[:, None, None]
    std = torch.tensor(zoo.PREPROCESSING["std"])[:, None, None]
    return (images / 255 - mean) / std, torch.tensor([scene.labels[0] for scene in drawn])


@pytest.fixture(scope="module", params=zoo.NAMES)
def name(request):
    return request.param


def report(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_a_network_loads_in_eval_mode(name):
    assert not any(module.training for module in zoo.load(name).modules())


def test_loading_twice_gives_two_networks_with_the_same_weights(name):
    one, two = zoo.load(name), zoo.load(name)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert a is not b
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_without_weights_a_network_knows_nothing(name, scenes):
    torch.manual_seed(0)
    network = zoo.load(name, pretrained=False)
    with torch.inference_mode():
        right = (network(scenes[0][:100]).argmax(dim=1) == scenes[1][:100]).float().mean()
    assert right < 0.4


def test_a_network_is_right_on_unseen_scenes_as_often_as_its_report_says(name, scenes):
    with torch.inference_mode():
        right = (zoo.load(name)(scenes[0]).argmax(dim=1) == scenes[1]).float().mean().item()
    assert right >= 0.95
    stored = report(name)["test_accuracy"]
    assert abs(right - stored) < 4 * (stored * (1 - stored) / SCENES) ** 0.5


def test_the_report_says_at_least_97_percent_on_the_test_split_as_it_is_drawn_now(name):
    told = report(name)
    assert told["test_accuracy"] >= 0.97
    data = Shapes(split="test", length=told["test_scenes"])
    assert told["test_fingerprint"] == data.fingerprint()


def test_the_report_is_about_the_weights_in_the_package(name):
    path = zoo.FOLDER / f"{name}.safetensors"
    assert report(name)["sha256"] == zoo.checksum(path.read_bytes())
    assert report(name)["parameters"] == sum(p.numel() for p in zoo.load(name).parameters())


def test_the_weights_take_at_most_one_megabyte(name):
    assert (zoo.FOLDER / f"{name}.safetensors").stat().st_size <= 10**6


def test_candidate_layers_are_maps_from_shallow_to_deep_that_end_in_the_default(name):
    network = zoo.load(name)
    shapes, order = {}, []

    def record(layer):
        def hook(module, inputs, output):
            shapes[layer] = tuple(output.shape)
            order.append(layer)

        return hook

    for layer in zoo.CANDIDATE_LAYERS[name]:
        network.get_submodule(layer).register_forward_hook(record(layer))
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 96, 96)).shape == (2, 8)
    assert order == zoo.CANDIDATE_LAYERS[name]  # each is called once, in this order
    assert order[-1] == zoo.DEFAULT_LAYERS[name]
    sides = [shapes[layer][2] for layer in order]
    assert all(len(shape) == 4 and shape[2] == shape[3] for shape in shapes.values())
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] == 12


def test_the_networks_differ_as_their_namesakes_do():
    kinds = {name: {type(m).__name__ for m in zoo.load(name).modules()} for name in zoo.NAMES}
    assert "AdaptiveAvgPool2d" not in kinds["tiny_vgg"]
    assert "BatchNorm2d" not in kinds["tiny_vgg"]
    assert {"AdaptiveAvgPool2d", "BatchNorm2d", "BasicBlock"} <= kinds["tiny_resnet"]
    assert {"AdaptiveAvgPool2d", "BatchNorm2d", "Mixed"} <= kinds["tiny_inception"]


def test_every_relu_works_in_place(name):
    relus = [m for m in zoo.load(name).modules() if isinstance(m, torch.nn.ReLU)]
    assert relus
    assert all(relu.inplace for relu in relus)


def test_the_shortcut_is_added_in_place():
    # The second batch norm's output is overwritten: a plain hook sees the sum, after its ReLU.
    block = zoo.load("tiny_resnet").layer4[0]
    seen = []
    block.bn2.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.inference_mode():
        out = block(torch.randn(1, 48, 12, 12, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(seen[0], out, rtol=0, atol=0)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    for path in [*zoo.FOLDER.glob("*.safetensors"), zoo.FOLDER / zoo.CHECKSUMS]:
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    return tmp_path


def test_altered_weights_are_refused(copied):
    path = copied / "tiny_resnet.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"tiny_resnet\.safetensors is not the file .*train_zoo"):
        zoo.load("tiny_resnet")


def test_exchanged_weights_are_refused(copied):
    save_file({"x": torch.zeros(1)}, copied / "tiny_vgg.safetensors")
    with pytest.raises(UserError, match="is not the file that was trained"):
        zoo.load("tiny_vgg")


def test_missing_weights_are_told_with_what_to_do(copied):
    (copied / "tiny_vgg.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights of tiny_vgg cannot be read.*reinstall"):
        zoo.load("tiny_vgg")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="tiny_vgg, tiny_resnet, tiny_inception; got 'resnet50'"):
        zoo.load("resnet50")
