"""A prepared network answers as the network it was copied from."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from toys import Functional, Residual

from gradcam_bench import GradCAM
from gradcam_bench.models import prepare
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
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    # Not all candidates: rounding alone opens and shuts ReLUs behind a shallow layer.
    layers = model.candidate_layers()[-3:]
    found = prepare.prepare(model.network, x, layers=layers)
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
    found = prepare.prepare(model.network, x, layers=layers)
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
    found = prepare.prepare(network, noise(8))
    assert found.folded == 0
    x = noise(8)
    assert torch.allclose(probabilities(found.network, x), probabilities(network, x), atol=1e-6)


def test_folding_that_moves_a_map_is_taken_back(monkeypatch):
    model = build("tiny_resnet")
    monkeypatch.setattr(prepare, "MAP_TOLERANCE", 0.0)
    found = prepare.prepare(model.network, noise(), layers=["layer4"])
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
    found = prepare.prepare(network, x, layers=["conv"])
    assert found.memory_format == torch.contiguous_format
    assert torch.allclose(probabilities(found.network, x), probabilities(network, x), atol=1e-6)


def test_a_network_without_batch_norm_is_only_copied():
    network = Functional().eval()
    assert fold_batch_norm(network, noise(8)) == 0


class Pairs(nn.Module):
    """Three pairs of convolution and batch norm; what is made of the second varies."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for i, channels in enumerate((3, 4, 4)):
            conv = nn.Conv2d(channels, 4, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", moved(nn.BatchNorm2d(4)))
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.bn0(self.conv0(x)).relu()
        x = self.second(x).relu()
        return self.fc(self.bn2(self.conv2(x)).relu().mean((2, 3)))

    def second(self, x):
        return self.bn1(self.conv1(x))


def moved(bn):
    """Give a batch norm statistics and weights that make a difference."""
    g = torch.Generator().manual_seed(1)
    bn.running_mean.normal_(generator=g)
    bn.running_var.uniform_(0.5, 2, generator=g)
    if bn.affine:
        nn.init.uniform_(bn.weight, 0.5, 2, generator=g)
        nn.init.uniform_(bn.bias, -0.2, 0.5, generator=g)
    return bn


def changed(**change):
    """Return `Pairs` with other modules, or another `second`."""
    network = Pairs()
    for name, value in change.items():
        setattr(network, name, value)
    return network.eval()


def with_hook(register):
    network = changed()
    getattr(network.conv1, register)(lambda *_: None)
    return network


def bound(function):
    """Return `Pairs` whose second pair is used by function(network, x)."""

    class Other(Pairs):
        def second(self, x):
            return function(self, x)

    return Other().eval()


def other_conv(make):
    network = Pairs()
    network.conv1 = make(network.conv1)
    return network.eval()


class Standardized(nn.Conv2d):
    def forward(self, x):
        w = self.weight / self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, w, self.bias)


class Activated(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).tanh()


def tied(network, x):
    return network.bn1(network.conv1(x)) + F.conv2d(x, network.conv1.weight, padding=1)


def written(network, x):
    y = network.conv1(x)
    y += 1
    return network.bn1(y)


def skips_the_call(network, x):
    return network.bn1.forward(network.conv1(x))


def by_keyword(network, x):
    return network.bn1(input=network.conv1(x))


def through_a_view(network, x):
    y = network.conv1(x)
    return network.bn1(y) + y.flatten(1)[:, :4].mean() * 1e-9


def statistics_used_elsewhere(network, x):
    return network.bn1(network.conv1(x)) * network.bn1.running_var.mean()


LEFT_ALONE = {
    "weight_norm": lambda: other_conv(parametrizations.weight_norm),
    "weight_norm, older": lambda: other_conv(nn.utils.weight_norm),
    "spectral_norm, older": lambda: other_conv(nn.utils.spectral_norm),
    "spectral_norm": lambda: other_conv(parametrizations.spectral_norm),
    "orthogonal": lambda: other_conv(parametrizations.orthogonal),
    "pruned": lambda: other_conv(lambda conv: prune.l1_unstructured(conv, "weight", amount=0.3)),
    "parametrized bias": lambda: other_conv(
        lambda conv: nn.utils.parametrize.register_parametrization(conv, "bias", nn.Tanh()) or conv
    ),
    "standardized": lambda: changed(conv1=Standardized(4, 4, 3, padding=1)),
    "activated": lambda: changed(bn1=moved(Activated(4))),
    "statistics of the batch": lambda: changed(bn1=nn.BatchNorm2d(4, track_running_stats=False)),
    "forward hook": lambda: with_hook("register_forward_hook"),
    "forward pre-hook": lambda: with_hook("register_forward_pre_hook"),
    "weights used twice": lambda: bound(tied),
    "output written": lambda: bound(written),
    "called as forward": lambda: bound(skips_the_call),
    "called by keyword": lambda: bound(by_keyword),
    "read through a view": lambda: bound(through_a_view),
    "statistics used elsewhere": lambda: bound(statistics_used_elsewhere),
}


def pairs_of(network):
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", LEFT_ALONE)
def test_a_pair_that_is_more_than_its_weights_stays_and_the_others_are_folded(name):
    network, x = LEFT_ALONE[name](), noise(12)
    expected = network(x).detach()
    found = prepare.prepare(network, x, layers=["bn2"])
    assert (found.folded, pairs_of(found.network)) == (2, 1)
    assert (expected[0] - expected[1]).abs().max() > 0.01
    assert torch.allclose(found.network(x), expected, atol=1e-5)
    assert torch.equal(network(x), expected)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norms_with_and_without_affine_parameters_are_folded(affine):
    network = changed(bn1=moved(nn.BatchNorm2d(4, affine=affine)))
    found = prepare.prepare(network, noise(12))
    assert found.folded == 3
    assert torch.allclose(found.network(noise(12)), network(noise(12)), atol=1e-5)


def test_convolutions_that_share_a_weight_each_keep_their_own():
    network = changed()
    network.conv2.weight = network.conv1.weight
    found = prepare.prepare(network, noise(12))
    assert torch.allclose(found.network(noise(12)), network(noise(12)), atol=1e-5)
    assert network.conv1.weight is network.conv2.weight


def test_a_batch_norm_under_two_names_is_folded_under_both():
    network = bound(lambda net, x: net.alias(net.conv1(x)))
    network.alias = network.bn1
    found = prepare.prepare(network, noise(12))
    assert found.folded == 3
    assert pairs_of(found.network) == 0
    assert torch.allclose(found.network(noise(12)), network(noise(12)), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_only_float_convolutions_are_folded(dtype):
    def second(network, x):
        y = network.conv1(x.to(dtype))
        return network.bn1(y.real if dtype.is_complex else y).float()

    network = bound(second)
    network.conv1.to(dtype)
    if not dtype.is_complex:
        network.bn1.to(dtype)
    found = prepare.prepare(network, noise(12))
    assert found.folded == 2
    assert torch.allclose(found.network(noise(12)), network(noise(12)), atol=1e-5)


def test_a_container_that_hands_on_a_convolutions_output_can_be_asked_for():
    network = bound(lambda net, x: net.bn1(net.box(x)))
    network.box = nn.Sequential(network.conv1)
    found = prepare.prepare(network, noise(12), layers=["box"])
    assert found.folded == 2
    cams = [GradCAM(net, "box") for net in (found.network, network)]
    for cam in cams:
        cam.forward(noise(12))
    assert torch.allclose(cams[0].activations[0], cams[1].activations[0], atol=1e-5)


class Branching(Pairs):
    """Reads the convolution's output a second time for bright images alone."""

    def second(self, x):
        y = self.conv1(x)
        return self.bn1(y) + (y if (self.seen > 50).any() else 0)

    def forward(self, x):
        self.seen = x
        return super().forward(x)


def test_real_images_decide_where_noise_takes_another_branch():
    network, bright = Branching().eval(), noise(12) + 100
    assert prepare.prepare(network, noise(12)).folded == 3
    found = prepare.prepare(network, bright)
    assert found.folded == 2
    expected = network(bright)
    assert torch.allclose(
        found.network(bright), expected, atol=1e-5 * float(expected.detach().abs().max())
    )


def test_a_saturated_softmax_hides_no_difference(monkeypatch):
    network = changed()
    with torch.no_grad():
        network.fc.bias[0] = 1000
    good = prepare.fold_batch_norm

    def wrong(own, images, *, keep=()):
        count = good(own, images, keep=keep)
        with torch.no_grad():
            own.fc.weight[1:] *= 2
        return count

    monkeypatch.setattr(prepare, "fold_batch_norm", wrong)
    assert network(noise(12)).softmax(1)[:, 0].eq(1).all()
    assert prepare.prepare(network, noise(12)).folded == 0


class Locked(Residual):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Captured(Residual):
    """Its copy goes on using the modules of the original, where no hook of the copy looks."""

    def __init__(self):
        super().__init__()
        self.head = lambda x: self.last_relu(x)

    def forward(self, x):
        return self.fc(self.head(self.stem(x)).mean((2, 3)))


class Counting(Residual):
    """A copy of it fails when it is called."""

    def __deepcopy__(self, memo):
        other = Residual()
        del other.fc
        return other


@pytest.mark.parametrize("make", [Locked, Captured, Counting])
def test_a_network_that_cannot_be_copied_is_used_as_it_is(make):
    network = make().eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    found = prepare.prepare(network, noise(16), layers=["last_relu"])
    assert found.network is network
    assert found.folded == 0
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())
    assert found.memory_format == torch.contiguous_format


@pytest.mark.parametrize(
    "name", ["tiny_resnet", "tiny_inception", "efficientnet_lite0", "resnet18"]
)
def test_every_path_of_a_network_leads_to_a_layer_of_its_folded_copy(name):
    network = build(name).network
    found = prepare.prepare(network, noise(64))
    assert found.folded > 0
    missing = dict(network.named_modules()).keys() - dict(found.network.named_modules()).keys()
    assert not missing


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_035", "densenet121", "convnext_atto"])
def test_every_path_of_timms_networks_leads_to_a_layer_of_the_folded_copy(name):
    import timm

    network = timm.create_model(name, pretrained=False).eval()
    found = prepare.prepare(network, noise(64))
    assert dict(network.named_modules()).keys() <= dict(found.network.named_modules()).keys()


def test_the_activation_inside_of_a_folded_batch_norm_can_be_asked_for():
    network = build("efficientnet_lite0").network
    found = prepare.prepare(network, noise(64), layers=["bn2.act"])
    assert found.folded == 49
    ours, expected = (GradCAM(n, "bn2.act").generate(noise(64)) for n in (found.network, network))
    assert torch.allclose(ours, expected, atol=1e-4)


class Chain(nn.Module):
    """A random chain of pairs, some of which something else takes part in."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        kinds = ["plain", "plain", "skip", "written", "twice", "norm", "hook", "tied"]
        self.kinds = [kinds[int(torch.randint(len(kinds), ()))] for _ in range(5)]
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in self.kinds)
        self.norms = nn.ModuleList(moved(nn.BatchNorm2d(4)) for _ in self.kinds)
        self.fc = nn.Linear(4, 5)
        for kind, conv in zip(self.kinds, self.convs, strict=True):
            if kind == "norm":
                parametrizations.weight_norm(conv)
            if kind == "hook":
                conv.register_forward_hook(lambda _m, _i, out: out + 0.1)

    def forward(self, x):
        x = self.first(x)
        for kind, conv, norm in zip(self.kinds, self.convs, self.norms, strict=True):
            y = conv(x)
            if kind == "written":
                y += 0.5
            if kind == "twice":
                y = conv(norm(y))
            z = norm(y)
            if kind == "skip":
                z = z + y[:, :, :1]
            if kind == "tied":
                z = z + F.conv2d(x, conv.weight, padding=1)
            x = F.relu(z, inplace=True)
        return self.fc(x.mean((2, 3)))


def test_in_random_networks_the_plain_pairs_and_no_others_are_folded():
    for seed in range(25):
        network, x = Chain(seed).eval(), noise(10)
        found = prepare.prepare(network, x)
        assert found.folded == network.kinds.count("plain"), (seed, network.kinds)
        assert torch.allclose(found.network(x), network(x), atol=1e-5)
