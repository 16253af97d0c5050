"""Small random networks full of in-place operations, and their twins written without any.

A network is a list of steps over registers. Its twin runs the same steps, but a register there
names a cell, an in-place operation puts a new value into the cell, and the output of a requested
module is a cell of its own: its value in the graph is what only this module's consumers see.
"""

import random
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS, CLASSES, SIDE = 3, 4, 4


class Scale(nn.Module):
    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace

    def forward(self, x):
        return x.mul_(0.7) if self.inplace else x * 0.7


class Add(Scale):
    def forward(self, a, b):
        if not self.inplace:
            return a + b
        a += b
        return a


class First(nn.Module):
    """Hands on the first of a nested list."""

    def forward(self, pair):
        return pair[0][0]


class Named(nn.Module):
    def forward(self, *, x):
        return x


class View(nn.Module):
    def forward(self, x):
        return x.flatten(2).unflatten(2, x.shape[2:])


class Cat(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, a, b):
        return self.mix(torch.cat([a, b], 1))


class Skip(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def conv():
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)


def norm():
    found = nn.BatchNorm2d(CHANNELS)
    found.running_mean.uniform_(-0.5, 0.5)
    found.running_var.uniform_(0.5, 2)
    return found


MODULES = [
    conv,
    conv,
    norm,
    lambda: nn.ReLU(),
    lambda: nn.ReLU(inplace=True),
    lambda: nn.ReLU(inplace=True),
    lambda: nn.Dropout(0.5),
    lambda: nn.Identity(),
    lambda: Scale(True),
    lambda: Scale(False),
    lambda: Add(True),
    lambda: Add(False),
    First,
    Named,
    View,
    Cat,
    lambda: Skip(nn.Sequential(nn.Dropout(0.5), conv())),
    lambda: nn.Sequential(conv(), nn.Identity(), nn.ReLU(inplace=True)),
    lambda: nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)),
    lambda: nn.Sequential(nn.Sequential(nn.Dropout(0.5))),
]
FUNCTIONS = ["add", "iadd", "relu", "relu_"]
HAND_ON = nn.Dropout | nn.Identity | First | Named | View


class RandomNetwork(nn.Module):
    """Steps (module name or function, two registers); each appends a register."""

    def __init__(self, seed):
        super().__init__()
        rng = random.Random(seed)
        torch.manual_seed(seed)
        self.steps = [("m0", 0, 0)]
        self.m0 = conv()
        for i in range(1, rng.randint(4, 10)):
            a = i if rng.random() < 0.6 else rng.randint(1, i)
            b = rng.randint(1, i)
            if rng.random() < 0.25:
                self.steps.append((rng.choice(FUNCTIONS), a, b))
            elif rng.random() < 0.1:
                self.steps.append((rng.choice(self.steps)[0], a, b))
            else:
                setattr(self, f"m{i}", rng.choice(MODULES)())
                self.steps.append((f"m{i}", a, b))
        self.out = (len(self.steps), rng.randint(1, len(self.steps)))
        # Of a view made without gradients autograd itself says that it is ambiguous.
        views = any(isinstance(module, View) for module in self.modules())
        self.without_gradients = rng.randint(1, 3) if rng.random() < 0.2 and not views else 0
        self.fc = nn.Linear(CHANNELS, CLASSES)
        self.double()
        names = [name for name, _, _ in self.steps]
        once = [name for name in names if names.count(name) == 1 and hasattr(self, name)]
        paths = [path for path, _ in self.named_modules() if path and path.split(".")[0] in once]
        self.asked = rng.sample(paths, min(rng.randint(1, 5), len(paths)))
        self.keep_refused = rng.random() < 0.2
        self.train(rng.random() < 0.5)

    def forward(self, x):
        registers = [x]
        for i, (name, a, b) in enumerate(self.steps):
            a, b = registers[a], registers[b]
            with torch.no_grad() if i < self.without_gradients else nullcontext():
                registers.append(self.step(name, a, b))
        a, b = (registers[i] for i in self.out)
        return self.fc((a + b).mean((2, 3)))

    def step(self, name, a, b):
        if name in FUNCTIONS:
            if name == "iadd":
                a += b
                return a
            return a + b if name == "add" else F.relu(a, inplace=name == "relu_")
        module = getattr(self, name)
        if isinstance(module, First):
            return module([(a, b), b])
        if isinstance(module, Named):
            return module(x=a)
        return module(a, b) if isinstance(module, Add | Cat) else module(a)


@dataclass(eq=False)
class Cell:
    value: torch.Tensor


@dataclass
class Twin:
    """A run of the twin: what is recorded, and the layers that no copy can tell from their input.

    Those are layers where one of the two memories is written and the other read afterwards.
    """

    network: RandomNetwork
    asked: list
    recorded: dict = field(default_factory=dict)
    inseparable: set = field(default_factory=set)
    pairs: list = field(default_factory=list)

    def run(self, x):
        registers = [Cell(x)]
        for i, (name, a, b) in enumerate(self.network.steps):
            with torch.no_grad() if i < self.network.without_gradients else nullcontext():
                registers.append(self.step(name, registers[a], registers[b]))
        a, b = (self.read(registers[i]) for i in self.network.out)
        return self.network.fc((a + b).mean((2, 3)))

    def read(self, cell):
        for layer, cells, written in self.pairs:
            if cell in cells and written - {cell}:
                self.inseparable.add(layer)
        return cell.value

    def write(self, cell, value):
        cell.value = value
        for _, cells, written in self.pairs:
            written |= {cell} & cells
        return cell

    def step(self, name, a, b):
        if name in FUNCTIONS:
            values = self.read(a), self.read(b) if "add" in name else None
            found = sum(values) if "add" in name else values[0].relu()
            return self.write(a, found) if name in ("iadd", "relu_") else Cell(found)
        return self.call(name, getattr(self.network, name), a, b)

    def call(self, path, module, a, b=None):
        found = self.result(path, module, a, b)
        if path not in self.asked:
            return found
        value = self.read(found)
        with torch.enable_grad():
            own = value.clone() if value.requires_grad else value.detach().requires_grad_()
        self.recorded[path] = own
        handed = Cell(own)
        self.pairs.append((path, {found, handed}, set()))
        return handed

    def result(self, path, module, a, b):
        if isinstance(module, HAND_ON):
            return a
        if isinstance(module, nn.Sequential):
            for name, child in module.named_children():
                a = self.call(f"{path}.{name}", child, a)
            return a
        if isinstance(module, Skip):
            inner = self.call(f"{path}.inner", module.inner, a)
            return Cell(self.read(a) + self.read(inner))
        if isinstance(module, Cat):
            both = Cell(torch.cat([self.read(a), self.read(b)], 1))
            return self.call(f"{path}.mix", module.mix, both)
        value = self.read(a)
        if isinstance(module, Add):
            value = value + self.read(b)
        elif isinstance(module, Scale):
            value = value * 0.7
        elif isinstance(module, nn.ReLU):
            value = value.relu()
        else:
            return Cell(module(value))
        return self.write(a, value) if module.inplace else Cell(value)


def expected(network, x, asked):
    """Return activations and gradients of class 1, by layer, and the inseparable layers."""
    twin = Twin(network, asked)
    training = [module for module in network.modules() if module.training]
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval().requires_grad_(False)
    logits = twin.run(x)
    gradients = [None] * len(asked)
    if logits.requires_grad:
        recorded = [twin.recorded[layer] for layer in asked]
        gradients = torch.autograd.grad(logits[:, 1].sum(), recorded, allow_unused=True)
    for module in training:
        module.training = True
    for parameter in trainable:
        parameter.requires_grad_(True)
    activations = {layer: found.detach() for layer, found in twin.recorded.items()}
    return activations, dict(zip(asked, gradients, strict=True)), twin.inseparable
