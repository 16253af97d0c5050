"""Models that somebody else holds too: other threads, activation checkpointing, a rerun block."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint
from toys import Residual, image, same, state

from gradcam_bench import GradCAM
from gradcam_bench.cam.frozen import frozen
from gradcam_bench.errors import UserError


class Checkpointed(Residual):
    """Runs its middle again during backward, from the second convolution on."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        x = self.stem(x)
        if self.reentrant is None:
            x = self.middle(x)
        else:
            x = checkpoint(self.middle, x, use_reentrant=self.reentrant)
        return self.fc(self.last_relu(self.conv2(x)).mean((2, 3)))

    def middle(self, x):
        return self.relu(self.bn1(self.conv1(x)))


LAYERS = ["stem", "conv1", "bn1", "relu", "conv2", "last_relu"]


def right_or_refused(model, plain, layers, x):
    """Compare three calls with the same network without checkpoints; return the refusals."""
    refused = []
    for layer in layers:
        before = state(model)
        cam, expected = GradCAM(model, layer), GradCAM(plain, layer).generate(x, 1)
        messages = {difference(cam, x, expected) for _ in range(3)}
        assert same(before, state(model))
        assert len(messages) == 1, layer
        if messages != {"equal"}:
            assert "checkpointing" in messages.pop(), layer
            refused.append(layer)
    return refused


def difference(cam, x, expected):
    try:
        return "equal" if torch.allclose(cam.generate(x, 1), expected, atol=1e-5) else "different"
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_through_a_checkpoint_are_refused(training):
    x, plain = image(2, 8), Checkpointed(reentrant=None)
    model = Checkpointed(reentrant=False).train(training)
    assert right_or_refused(model, plain, LAYERS, x) == LAYERS
    model = Checkpointed(reentrant=True).train(training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: "None of the inputs have requires_grad=True"
        refused = right_or_refused(model, plain, LAYERS, x)
    assert refused == ["stem", "conv1", "bn1", "relu"]  # what follows the checkpoint is right
    with pytest.raises(UserError, match="checkpointing"):
        GradCAM(model, ["stem", "last_relu"]).generate(x, 1)


def test_a_checkpointed_timm_model_is_refused_until_it_is_turned_off():
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=5)
    x = image(1, 32)
    expected = GradCAM(model, ["layer1", "layer4.0.bn1"]).generate(x, 1)
    model.set_grad_checkpointing()
    layers = ["conv1", "layer1", "layer3.1.act2", "layer4.0.bn1", "layer4"]
    for layer in layers:
        with pytest.raises(UserError, match=r"model.set_grad_checkpointing\(False\)"):
            GradCAM(model, layer).generate(x, 1)
    model.set_grad_checkpointing(False)
    for a, b in zip(
        GradCAM(model, ["layer1", "layer4.0.bn1"]).generate(x, 1), expected, strict=True
    ):
        assert torch.equal(a, b)


def test_a_memory_efficient_densenet_is_right_or_refused():
    networks = []
    for efficient in (True, False):
        torch.manual_seed(0)
        networks.append(
            torchvision.models.DenseNet(8, (2, 2), 8, num_classes=5, memory_efficient=efficient)
        )
    layers = ["features.conv0", "features.denseblock1", "features.denseblock2", "features"]
    refused = right_or_refused(*networks, layers, image(2, 32))
    assert refused == layers[:2]  # from the second block on nothing is run again


class Again(torch.autograd.Function):
    """Runs a module again during backward, as reversible networks do."""

    @staticmethod
    def forward(ctx, x, module):
        ctx.module = module
        ctx.save_for_backward(x)
        return module(x)

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            return torch.autograd.grad(ctx.module(x), x, gradient)[0], None


def test_a_block_that_is_run_again_during_backward_is_still_in_eval_mode():
    class Reversible(Residual):
        def forward(self, x):
            return self.fc(Again.apply(self.stem(x), self.bn1).relu().mean((2, 3)))

    model, x = Reversible().train(), image(3, 8)
    before = state(model)
    cam = GradCAM(model, "stem")
    cam.forward(x)
    (found,) = cam.backward(1)
    assert same(before, state(model))
    model.eval()
    activations = model.stem(x)
    score = model.fc(model.bn1(activations).relu().mean((2, 3)))[:, 1].sum()
    assert torch.allclose(found, torch.autograd.grad(score, activations)[0])


class Slow(Residual):
    """Waits in the middle of its forward until every thread is there."""

    def __init__(self, threads):
        super().__init__()
        self.barrier = threading.Barrier(threads, timeout=30)

    def forward(self, x):
        x = self.stem(x)
        self.barrier.wait()
        x = self.relu(self.bn1(self.conv1(x)))
        self.barrier.wait()
        return self.fc(self.last_relu(self.bn2(self.conv2(x))).mean((2, 3)))


@pytest.mark.parametrize("shared_cam", [False, True])
def test_threads_may_share_a_model(shared_cam):
    threads, layers = 3, ["stem", "relu", "last_relu"]
    model = Slow(1).train()
    images = [image(2, 8, seed=i) for i in range(threads)]
    expected = [GradCAM(model, layers).generate(x, 1) for x in images]
    before = state(model)
    model.barrier = threading.Barrier(threads, timeout=30)
    cams = [GradCAM(model, layers) for _ in images]
    if shared_cam:
        cams = [cams[0]] * threads

    def rounds(cam, x):
        return [cam.generate(x, 1) for _ in range(4)]

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(rounds, cams, images))
    for calls, maps in zip(found, expected, strict=True):
        for call in calls:
            for a, b in zip(call, maps, strict=True):
                assert torch.allclose(a, b, atol=1e-6)
    assert same(before, state(model))


def test_a_module_stays_frozen_until_the_last_holder_lets_go():
    model = nn.Sequential(Residual(), nn.Linear(4, 2)).train()
    model[0].bn1.eval()
    before = state(model)
    whole, part = frozen(model), frozen(model[0])
    whole.__enter__()
    part.__enter__()
    whole.__exit__(None, None, None)
    assert model[1].training  # nobody holds it any more
    assert not any(module.training for module in model[0].modules())
    assert not any(parameter.requires_grad for parameter in model[0].parameters())
    part.__exit__(None, None, None)
    assert same(before, state(model))


def test_the_model_is_as_found_when_one_of_its_threads_fails():
    model = Residual().train()
    before = state(model)

    def call(channels):
        try:
            return GradCAM(model, "relu").generate(torch.ones(1, channels, 8, 8), 1)
        except RuntimeError:
            return None

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, [3, 7, 3, 7] * 5))
    assert sum(heatmap is None for heatmap in found) == 10
    assert same(before, state(model))
