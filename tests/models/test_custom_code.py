import functools
import importlib
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import Act, Doubled, Residual, network_class

from gradcam_bench.models.custom_code import code_hash


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a module of the user's, import it and return its network's hash."""
    monkeypatch.syspath_prepend(str(tmp_path))
    number = iter(range(1000))

    def hash_of(source, helper="def act(x):\n    return x.relu()\n", factory="build"):
        for name, text in (("helper_of_mine", helper), ("net_of_mine", source)):
            folder = tmp_path / f"version{next(number)}"
            folder.mkdir()
            (folder / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
            monkeypatch.syspath_prepend(str(folder))
            importlib.invalidate_caches()
        module = importlib.import_module("net_of_mine")
        return code_hash(getattr(module, factory)(), f"net_of_mine:{factory}")

    yield hash_of
    for name in ("helper_of_mine", "net_of_mine"):
        sys.modules.pop(name, None)


SOURCE = """
import helper_of_mine
from torch import nn

SLOPE = 0.1

class Base(nn.Module):
    def head(self, x):
        return x.mean((2, 3))

class Net(Base):
    width = 4

    def __init__(self, scale=1.0):
        super().__init__()
        self.conv = nn.Conv2d(3, self.width, 3)
        self.scale = scale

    @property
    def one(self):
        return 1

    def forward(self, x):
        inner = lambda y: nn.functional.leaky_relu(y, SLOPE)
        return self.head(inner(helper_of_mine.act(self.conv(x)))) * self.one * self.scale

def build():
    return Net(scale=float("1.0"))

def unused():
    return 1
"""


def test_the_hash_is_the_same_for_the_same_code(written):
    assert written(SOURCE) == written(SOURCE) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SLOPE = 0.1", "SLOPE = 0.2"),
        ("leaky_relu(y, SLOPE)", "elu(y, SLOPE)"),
        ("x.mean((2, 3))", "x.amax((2, 3))"),
        ("width = 4", "width = 5"),
        ('float("1.0")', 'float("2.0")'),
        ("return 1\n\n    def", "return 2\n\n    def"),
    ],
)
def test_whatever_the_forward_reaches_changes_the_hash(written, old, new):
    assert old in SOURCE
    assert written(SOURCE.replace(old, new)) != written(SOURCE)


def test_a_helper_in_another_file_changes_the_hash(written):
    assert written(SOURCE, "def act(x):\n    return x.sigmoid()\n") != written(SOURCE)


def test_code_that_is_never_reached_does_not(written):
    changed = SOURCE.replace("def unused():\n    return 1", "def unused():\n    return 2")
    assert changed != SOURCE
    assert written(changed) == written(SOURCE)


def test_closures_and_replaced_forwards_change_the_hash():
    hashes = {code_hash(Act()), code_hash(Doubled()), code_hash(network_class(F.elu)())}
    hashes.add(code_hash(network_class(functools.partial(F.elu, alpha=2.0))()))
    hashes.add(code_hash(network_class(nn.LeakyReLU(0.1))()))
    hashes.add(code_hash(network_class(nn.LeakyReLU(0.2))()))
    patched = Act()
    patched.forward = lambda x: x.sum((2, 3))
    hashes.add(code_hash(patched))
    assert len(hashes) == 7
    assert code_hash(network_class(F.relu)()) == code_hash(Act())


def test_code_without_a_source_file_has_a_hash_too():
    space = {"nn": nn, "__name__": "typed"}
    lines = "class Net(nn.Module):\n    def forward(self, x):\n        return x.{}((2, 3))\n"
    hashes = []
    for name in ("sum", "mean", "sum"):
        exec(lines.format(name), space)
        hashes.append(code_hash(space["Net"]()))
    assert hashes[0] == hashes[2] != hashes[1]


def test_networks_of_libraries_have_none():
    import timm
    from torchvision import models

    from gradcam_bench.models import zoo

    networks = [models.resnet18(), models.densenet121(), timm.create_model("resnet18")]
    networks += [zoo.load(name, pretrained=False) for name in zoo.DEFAULT_LAYERS]
    networks += [nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))]
    for network in networks:
        assert code_hash(network) is None, type(network)
    assert code_hash(networks[0], "torchvision.models:resnet18") is None
    assert code_hash(Residual()) is not None
    patched = models.resnet18()
    patched.forward = lambda x: x
    assert code_hash(patched) is not None


def test_a_traced_graph_is_hashed_as_what_it_computes():
    hashes = [code_hash(torch.fx.symbolic_trace(network_class(kind)())) for kind in (F.relu, F.elu)]
    assert hashes[0] != hashes[1]
