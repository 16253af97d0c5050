"""Three small networks that behave like their big namesakes, for 96 x 96 images.

All have in-place ReLUs and a last spatial map of 12 x 12. Inputs are (N, 3, 96, 96), normalised;
outputs are logits, (N, classes).
"""

from __future__ import annotations

import torch
from torch import nn


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class TinyVGG(nn.Module):
    """Plain convolutions, max pooling and a fully connected head on flattened features.

    As in VGG-16 there is no normalisation and no global pooling: each class has its own weight
    for every place.
    """

    def __init__(self, *, classes: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in (12, "pool", 24, "pool", 32, 32, "pool", 64, 64, "pool"):
            if isinstance(width, int):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * 6 * 6, 48),
            nn.ReLU(inplace=True),
            nn.Dropout(0.3),
            nn.Linear(48, classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes)."""
        return self.classifier(torch.flatten(self.features(x), 1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut that is added in place."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                _conv(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, h / stride, w / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class TinyResNet(nn.Module):
    """Residual blocks with batch norm, global average pooling, one linear layer."""

    def __init__(self, *, classes: int = 8) -> None:
        super().__init__()
        self.conv1 = _conv(3, 12, stride=2)
        self.bn1 = nn.BatchNorm2d(12)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(BasicBlock(12, 12))
        self.layer2 = nn.Sequential(BasicBlock(12, 24, stride=2))
        self.layer3 = nn.Sequential(BasicBlock(24, 48, stride=2))
        self.layer4 = nn.Sequential(BasicBlock(48, 64))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class ConvBNReLU(nn.Sequential):
    """Convolution, batch norm, in-place ReLU."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            _conv(inputs, outputs, kernel=kernel, stride=stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Mixed(nn.Module):
    """Four parallel branches, concatenated: 1x1, 3x3, two 3x3, and pooling with a 1x1."""

    def __init__(self, inputs: int, *, width: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBNReLU(inputs, width, kernel=1)
        self.branch3x3 = nn.Sequential(
            ConvBNReLU(inputs, width, kernel=1), ConvBNReLU(width, width)
        )
        self.branch5x5 = nn.Sequential(
            ConvBNReLU(inputs, width, kernel=1), ConvBNReLU(width, width), ConvBNReLU(width, width)
        )
        self.branch_pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), ConvBNReLU(inputs, width, kernel=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, 4 * width, h, w)."""
        branches = (self.branch1x1, self.branch3x3, self.branch5x5, self.branch_pool)
        return torch.cat([branch(x) for branch in branches], dim=1)


class TinyInception(nn.Module):
    """Modules of parallel branches, global average pooling, one linear layer."""

    def __init__(self, *, classes: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBNReLU(3, 12, stride=2), ConvBNReLU(12, 24))
        self.pool1 = nn.MaxPool2d(2)
        self.mixed_a = Mixed(24, width=16)
        self.pool2 = nn.MaxPool2d(2)
        self.mixed_b = Mixed(64, width=24)
        self.mixed_c = Mixed(96, width=32)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes)."""
        x = self.mixed_a(self.pool1(self.stem(x)))
        x = self.mixed_c(self.mixed_b(self.pool2(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))
