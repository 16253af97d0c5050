import copy
import warnings

import pytest
import torch
from torch import nn
from toys import Functional, Linear1x1, Residual, image, same, state

from gradcam_bench import GradCAM
from gradcam_bench.cam.methods import grad_cam
from gradcam_bench.errors import UserError


def test_grad_cam_of_a_network_by_hand():
    # y_0 = 2 mean(relu(r)) - mean(relu(g - b)): alpha = (2, -1) / 16 on a 4x4 map.
    x = torch.zeros(1, 3, 4, 4)
    x[0, 0, 0, 0] = 3.0  # channel 1: A = 3 there
    x[0, 1, 2, 2] = 4.0  # channel 2: A = 4 there, which speaks against class 0
    cam = GradCAM(Linear1x1(), "relu")
    logits = cam.forward(x)
    assert torch.allclose(logits, torch.tensor([[2 * 3 / 16 - 4 / 16, -3 * 3 / 16 + 4 / 16]]))
    gradients = cam.backward(0)[0]
    assert torch.allclose(gradients[0, 0, 0, 0], torch.tensor(2 / 16))
    raw = grad_cam(cam.activations[0], gradients)[0]
    assert raw[0, 0].item() == pytest.approx(3 * 2 / 16 / 1)
    assert raw[2, 2].item() == pytest.approx(-4 / 16)
    heatmap = cam.generate(x[0], 0)
    assert heatmap.shape == (4, 4)
    expected = torch.zeros(4, 4)
    expected[0, 0] = 1
    assert torch.allclose(heatmap, expected)
    assert torch.allclose(cam.generate(x[0], 1)[2, 2], torch.tensor(1.0))


def test_generate_is_the_relu_upsampled_bilinearly_and_divided_by_the_maximum():
    model, x = Residual(), image(2, 16)
    cam = GradCAM(model, "last_relu")
    cam.forward(x)
    cam.backward([1, 2])
    raw = grad_cam(cam.activations[0], cam.gradients[0]).relu()
    up = nn.functional.interpolate(raw[:, None], size=(16, 16), mode="bilinear")[:, 0]
    expected = up / up.amax((1, 2), keepdim=True)
    assert torch.allclose(cam.generate(x, [1, 2]), expected)


def test_nowhere_positive_map_is_zeros_not_nan():
    x = torch.zeros(1, 3, 4, 4)
    x[0, 1, 2, 2] = 4.0
    assert torch.equal(GradCAM(Linear1x1(), "relu").generate(x, 0), torch.zeros(1, 4, 4))


def test_a_tiny_map_keeps_its_full_range():
    model = Linear1x1()
    with torch.no_grad():
        model.fc.weight.mul_(1e-12)
    x = torch.zeros(1, 3, 4, 4)
    x[0, 0, 0, 0] = 3.0
    assert GradCAM(model, "relu").generate(x, 0).max() == 1


@pytest.mark.parametrize("layer", ["conv1", "bn1", "relu", "conv2", "bn2", "last_relu", "stem"])
def test_in_place_consumers_do_not_change_what_is_recorded(layer):
    # The same network without in-place operations, differentiated by hand.
    model, x = Residual().eval(), image(2, 8)
    recorded = {}

    def forward(x):
        a = {"stem": model.stem(x)}
        a["conv1"] = model.conv1(a["stem"])
        a["bn1"] = model.bn1(a["conv1"])
        a["relu"] = torch.relu(a["bn1"])
        a["conv2"] = model.conv2(a["relu"])
        a["bn2"] = model.bn2(a["conv2"])
        a["last_relu"] = torch.relu(a["bn2"] + a["stem"])
        recorded.update(a)
        return model.fc(a["last_relu"].mean((2, 3)))

    score = forward(x)[:, 1].sum()
    expected_gradient = torch.autograd.grad(score, recorded[layer])[0]
    cam = GradCAM(model, layer)
    cam.forward(x)
    cam.backward(1)
    assert torch.allclose(cam.activations[0], recorded[layer], atol=1e-6)
    assert torch.allclose(cam.gradients[0], expected_gradient, atol=1e-6)


def test_functional_in_place_relu_does_not_change_what_is_recorded():
    model, x = Functional().eval(), image(1, 6)
    cam = GradCAM(model, "features")
    cam.forward(x)
    assert torch.allclose(cam.activations[0], model.features(x))
    assert (cam.activations[0] < 0).any()


def test_many_layers_in_one_pass_equal_each_layer_alone():
    model, x = Residual(), image(3, 16)
    layers = ["bn2", "stem", "last_relu", "relu"]
    together = GradCAM(model, layers).generate(x, [0, 1, 2])
    for layer, heatmap in zip(layers, together, strict=True):
        assert torch.allclose(heatmap, GradCAM(model, layer).generate(x, [0, 1, 2]), atol=1e-6)


def test_a_layer_asked_for_twice_gives_its_map_twice():
    model, x = Residual(), image(2, 8)
    cam = GradCAM(model, ["bn1", "stem", model.bn1])
    assert cam.layers == ["bn1", "stem", "bn1"]
    first, other, again = cam.generate(x, 1)
    assert torch.equal(first, again)
    assert torch.equal(first, GradCAM(model, "bn1").generate(x, 1))
    assert not torch.equal(first, other)
    cam.forward(x)
    assert len(cam.activations) == len(cam.backward(1)) == 3


def test_one_forward_serves_several_classes():
    model, x = Residual(), image(2, 16)
    cam = GradCAM(model, "stem")
    cam.forward(x)
    maps = {c: grad_cam(cam.activations[0], cam.backward(c)[0]) for c in (0, 3, 0)}
    other = GradCAM(model, "stem")
    other.forward(x)
    assert torch.equal(maps[0], grad_cam(other.activations[0], other.backward(0)[0]))
    assert not torch.allclose(maps[0], maps[3])


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0, 1, 3]])
def test_a_batch_equals_its_images_one_by_one(order):
    model, x = Residual(), image(5, 16)
    classes = torch.tensor([0, 1, 2, 3, 0])
    cam = GradCAM(model, ["bn1", "last_relu"])
    whole = cam.generate(x[order], classes[order])
    for place, i in enumerate(order):
        for maps, alone in zip(whole, cam.generate(x[i], int(classes[i])), strict=True):
            assert torch.allclose(maps[place], alone, atol=1e-5)


def test_class_none_is_the_prediction():
    model, x = Residual(), image(4, 16)
    predicted = model.eval()(x).argmax(1)
    cam = GradCAM(model, "last_relu")
    assert torch.equal(cam.generate(x), cam.generate(x, predicted))
    assert cam.generate(x[0]).shape == (16, 16)


def test_a_module_serves_as_well_as_its_path():
    model, x = Residual(), image(1, 8)
    by_module, by_path = GradCAM(model, [model.bn1]), GradCAM(model, "bn1")
    assert by_module.layers == ["bn1"]
    assert torch.equal(by_module.generate(x, 0)[0], by_path.generate(x, 0))


def test_the_model_is_left_as_found():
    model = Residual()
    model.train()
    model.bn1.eval()
    model.conv1.weight.requires_grad_(False)
    before = state(model)
    with GradCAM(model, ["bn1", "last_relu"]) as cam:
        cam.generate(image(2, 8), 1)
        assert same(before, state(model))
    assert same(before, state(model))
    assert cam.activations == []


def test_the_model_is_left_as_found_after_an_error():
    model = Residual().train()
    before = state(model)
    with pytest.raises(RuntimeError):
        GradCAM(model, "bn1").generate(torch.zeros(1, 7, 8, 8), 0)  # seven channels
    with pytest.raises(UserError):
        GradCAM(model, "fc").generate(image(1, 8), 0)
    assert same(before, state(model))


def test_train_mode_does_not_change_the_map():
    model, x = Residual(), image(2, 8)
    model.eval()
    expected = GradCAM(model, "relu").generate(x, 0)
    model.train()
    assert torch.equal(GradCAM(model, "relu").generate(x, 0), expected)


def test_frozen_models_no_grad_and_inference_mode_work():
    x = image(1, 8)
    expected = GradCAM(Residual(), "relu").generate(x, 0)
    frozen = Residual().requires_grad_(False)
    assert torch.equal(GradCAM(frozen, "relu").generate(x, 0), expected)
    with torch.no_grad():
        assert torch.equal(GradCAM(Residual(), "relu").generate(x, 0), expected)
        assert not torch.is_grad_enabled()
    model = Residual()
    with torch.inference_mode():
        assert torch.equal(GradCAM(model, "relu").generate(x.clone(), 0), expected)


def test_networks_made_in_inference_mode_are_refused_with_what_to_do():
    with torch.inference_mode():
        model = Residual()
    with pytest.raises(UserError, match=r"stem.weight.*inference_mode.*copy.deepcopy\(model\)"):
        GradCAM(model, "relu")
    expected = GradCAM(Residual(), "relu").generate(image(1, 8), 0)
    assert torch.equal(GradCAM(copy.deepcopy(model), "relu").generate(image(1, 8), 0), expected)


def test_a_cache_filled_in_inference_mode_is_refused_in_words():
    class Cached(Residual):
        scale = None

        def forward(self, x):
            if self.scale is None:
                self.scale = torch.ones(())
            return super().forward(x) * self.scale

    model = Cached()
    with torch.inference_mode():
        model(image(1, 8))
    before = state(model)
    with pytest.raises(UserError, match=r"keeps a tensor .* torch\.inference_mode"):
        GradCAM(model, "relu").generate(image(1, 8), 0)
    assert same(before, state(model))


def test_networks_that_overwrite_what_their_backward_needs_are_refused_in_words():
    class Overwriting(Residual):
        def forward(self, x):
            x = self.stem(x).sigmoid()
            x += 1
            return self.fc(x.mean((2, 3)))

    cam = GradCAM(Overwriting(), "stem")
    for _ in range(2):
        with pytest.raises(UserError, match="overwrites, in place, a tensor that its own backward"):
            cam.generate(image(1, 8), 0)


def test_nothing_before_the_earliest_layer_is_differentiated():
    model = Residual()
    cam = GradCAM(model, ["bn2", "conv2"])
    logits = cam.forward(image(1, 8))
    assert not logits.requires_grad
    seen, stack = set(), [cam._last.logits.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [parent for parent, _ in node.next_functions]
    names = [type(node).__name__ for node in seen]
    leaves = [node for node in seen if "AccumulateGrad" in type(node).__name__]
    assert len(leaves) == 1
    assert not any("Convolution" in name for name in names)


def test_autocast_reduces_in_float32():
    model, x = Residual(), image(2, 16)
    expected = GradCAM(model, "last_relu").generate(x, 1)
    half = GradCAM(model, "last_relu", autocast=torch.bfloat16).generate(x, 1)
    assert half.dtype == torch.float32
    assert torch.allclose(half, expected, atol=0.05)
    assert not torch.equal(half, expected)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("fc", r"\(N, K, h, w\), but fc gives a tensor \(1, 4\)"),
        ("last_rleu", r"no layer 'last_rleu'. Nearest: last_relu"),
        (nn.ReLU(), "is not a part of Residual"),
        (7, "module path or a module, got int"),
        ([], "at least one target layer"),
    ],
)
def test_a_wrong_layer_is_refused(layer, message):
    with pytest.raises(UserError, match=message):
        GradCAM(Residual(), layer).generate(image(1, 8), 0)


def test_a_module_called_twice_is_refused():
    with pytest.raises(UserError, match="twice is called more than once"):
        GradCAM(Functional(), "twice").generate(image(1, 6), 0)


def test_a_layer_that_is_never_reached_is_refused():
    with pytest.raises(UserError, match="never reaches side"):
        GradCAM(Functional(), "side").generate(image(1, 6), 0)


class Probe(Residual):
    """A linear probe: everything before the pooling runs without gradients."""

    def __init__(self, without):
        super().__init__()
        self.without = without

    def forward(self, x):
        with self.without():
            x = self.last_relu(self.conv1(self.stem(x)))
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_the_end_of_a_trunk_without_gradients_is_a_leaf_in_every_call(without):
    model, x = Probe(without), image(2, 8)
    cam = GradCAM(model, "last_relu")
    for _ in range(3):
        cam.forward(x)
        (gradient,) = cam.backward(1)
        expected = model.fc.weight[1] / gradient[0, 0].numel()
        assert torch.allclose(gradient, expected[None, :, None, None].expand_as(gradient))


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("layer", ["stem", "conv1"])  # conv1: overwritten by the last ReLU
def test_a_layer_inside_a_trunk_without_gradients_is_refused_in_every_call(layer, without):
    cam = GradCAM(Probe(without), layer)
    for _ in range(3):
        with pytest.raises(UserError, match=f"cannot be differentiated with respect to.*{layer}|"
                           f"output of {layer} under torch.no_grad"):  # fmt: skip
            cam.generate(image(2, 8), 1)


def test_a_write_without_gradients_is_not_hidden_by_one_with_them():
    class Written(Residual):
        def forward(self, x):
            x = self.last_relu(self.stem(x))
            with torch.no_grad():
                x.mul_(0.5)
            x.add_(0.1)  # from here on the tensor has a history again
            return self.fc(x.mean((2, 3)))

    cam = GradCAM(Written(), "last_relu")
    for _ in range(3):
        with pytest.raises(UserError, match=r"output of last_relu under torch.no_grad"):
            cam.generate(image(2, 8), 1)


def test_after_a_forward_that_failed_nothing_of_the_one_before_is_left():
    cam = GradCAM(Linear1x1(), "relu")
    cam.forward(image())
    cam.backward(1)
    with pytest.raises(UserError, match="expects images"):
        cam.forward(torch.zeros(4, 4))
    assert (cam.activations, cam.gradients) == ([], [])
    with pytest.raises(UserError, match="needs a forward pass first"):
        cam.backward(1)


def test_compiled_scripted_and_replicated_models_are_refused_each_in_its_words():
    model = Linear1x1()
    with pytest.raises(UserError, match="the model is compiled"):
        GradCAM(torch.compile(model), "relu")
    inner = nn.Sequential(torch.compile(Linear1x1()))
    with pytest.raises(UserError, match="its part '0' is compiled"):
        GradCAM(inner, "0")
    own = Linear1x1()
    own.compile()
    with pytest.raises(UserError, match="is compiled"):
        GradCAM(own, "relu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, but traced models exist
        scripted = torch.jit.trace(Linear1x1(), torch.zeros(1, 3, 4, 4))
    with pytest.raises(UserError, match="scripted or traced"):
        GradCAM(scripted, "relu")
    with pytest.raises(UserError, match="replicated"):
        GradCAM(nn.DataParallel(model), "module.relu")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 1, 2], r"expected 2 for this batch, got \(3,\)"),
        (4, "Classes are 0 to 3"),
        (-1, "Classes are 0 to 3"),
        (0.5, "integers"),
        (True, "integers"),
        ("1", "integers.*got '1'"),
        (["0", "1"], "integers"),
        ([0, None], r"integers.*got \[0, None\]"),
        ([0, 0.5], "integers"),
        ([0, 1j], "integers"),
        ([[0], [1]], r"expected 2 for this batch, got \(2, 1\)"),
        ([[0], [1, 2]], "integers"),
        (2**70, "integers"),
        ([], "integers"),
        ({}, "integers"),
    ],
)
def test_wrong_classes_are_refused(classes, message):
    with pytest.raises(UserError, match=message):
        GradCAM(Residual(), "relu").generate(image(2, 8), classes)


def test_wrong_use_is_refused():
    with pytest.raises(UserError, match="needs a forward pass first"):
        GradCAM(Residual(), "relu").backward(0)
    for img in (torch.zeros(8, 8), [[0.0]], None):
        with pytest.raises(UserError, match=r"expects images \(3, H, W\)"):
            GradCAM(Residual(), "relu").forward(img)

    class Tuple(Residual):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(UserError, match="gives logits"):
        GradCAM(Tuple(), "relu").forward(image(1, 8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu():
    x = image(2, 16)
    expected = GradCAM(Residual(), ["bn1", "last_relu"]).generate(x, 1)
    found = GradCAM(Residual().cuda(), ["bn1", "last_relu"]).generate(x.cuda(), 1)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b.cpu(), atol=1e-4)


class Moody(nn.Module):
    """Works in place on its second convolution's output when told to."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)
        self.in_place = False

    def forward(self, x):
        y = self.conv(self.stem(x))
        y = y.mul_(3.0) if self.in_place else y * 3.0
        return self.fc(y.relu().mean((2, 3)))


# conv as the leaf of the graph, where autograd refuses, and as a node, where it does not notice.
@pytest.mark.parametrize("layers", [["conv"], ["stem", "conv"]])
def test_a_consumer_that_begins_to_work_in_place_is_noticed(layers):
    torch.manual_seed(0)
    model, x = Moody(), image(2, 8)
    cam = GradCAM(model, layers)
    expected = cam.generate(x, 1)
    assert cam._recorder.unwritten == set(layers)  # from now on without clones
    model.in_place = True
    for _ in range(3):
        cam.forward(x)
        assert torch.allclose(cam.activations[-1], model.conv(model.stem(x)), atol=1e-6)
        for found, wanted in zip(cam.generate(x, 1), expected, strict=True):
            assert torch.allclose(found, wanted, atol=1e-6)
    assert cam._recorder.unwritten == set(layers) - {"conv"}
