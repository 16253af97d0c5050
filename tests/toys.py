"""Networks small enough to compute by hand."""

import torch
from torch import nn
from torch.nn import functional as F


class Linear1x1(nn.Module):
    """1x1 convolution with known weights, ReLU, sum over space with known weights."""

    def __init__(self, inplace=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.relu = nn.ReLU(inplace=inplace)
        self.fc = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, -1.0]]).view(2, 3, 1, 1))
            self.fc.weight.copy_(torch.tensor([[2.0, -1.0], [-3.0, 1.0]]))

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


class Residual(nn.Module):
    """conv, bn, ReLU(inplace), `out += identity`, two blocks, GAP: the in-place traps of ResNet."""

    def __init__(self, channels=6, classes=4):
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, channels, 3, padding=1, stride=2)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.last_relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(channels, classes)
        for bn in (self.bn1, self.bn2):
            bn.running_mean.normal_(generator=torch.Generator().manual_seed(1))
            bn.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))

    def forward(self, x):
        x = self.stem(x)
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        out = self.last_relu(out)
        return self.fc(self.drop(out).mean((2, 3)))


class Functional(nn.Module):
    """F.relu(x, inplace=True) in the forward, as in DenseNet, and a module called twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.features = nn.Conv2d(3, 5, 3, padding=1)
        self.twice = nn.ReLU()
        self.side = nn.Conv2d(3, 5, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        x = F.relu(self.features(x), inplace=True)
        x = self.twice(self.twice(x) - 0.1)
        return self.fc(self.pool(x).flatten(1))


def network_class(activation):
    """A class whose forward is known by what it closes over; name and weights are always equal."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(activation(self.conv(x)).mean((2, 3)))

    return Net


Act = network_class(F.relu)
Doubled = network_class(lambda x: 2 * F.elu(x))


def image(n=1, size=4, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def state(model):
    return (
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [getattr(m, "inplace", None) for m in model.modules()],
        [b.clone() for b in model.buffers()],
        [p.grad for p in model.parameters()],
    )


def same(a, b):
    return a[:4] == b[:4] and all(map(torch.equal, a[4], b[4])) and a[5] == b[5]
