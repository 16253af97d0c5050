"""A network by name: its weights, its preprocessing, its default and candidate layers.

Each file of conf/model names a function that builds a `Model`, and its arguments.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_bench.models.layers import candidate_layers, last_spatial_layer


@dataclass(frozen=True)
class Preprocessing:
    """The kind of input that the network was trained on.

    Attributes:
        size: side of the square input, pixels.
        mean, std: of the three channels, for images in [0, 1].
        interpolation: "bilinear" or "bicubic", antialiased as Pillow does it.
        resize: shorter side before a center crop, pixels.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize: int

    def normalize(self, images: Tensor) -> Tensor:
        """Turn uint8 RGB images (N, 3, H, W) into the network's float32 input, on their device."""
        scale = torch.tensor([255 * s for s in self.std], device=images.device)
        shift = torch.tensor([m / s for m, s in zip(self.mean, self.std, strict=True)]).to(scale)
        return images.float() / scale[:, None, None] - shift[:, None, None]


@dataclass(frozen=True)
class Model:
    """A network ready to be benchmarked, in eval mode, on the CPU.

    Attributes:
        name: what tables call it.
        network: (N, 3, size, size) to logits (N, C).
        preprocessing: size and normalisation of its input.
        layer: path of the target layer when none is asked for; None takes the last spatial one.
        weights: where the weights come from, as run.json records it.
        candidates: paths of the layers of a sweep (`layers=all`); empty: found by a forward pass.
    """

    name: str
    network: nn.Module
    preprocessing: Preprocessing
    layer: str | None
    weights: str
    candidates: tuple[str, ...] = ()

    @cached_property
    def default_layer(self) -> str:
        """The target layer when none is asked for.

        Raises:
            UserError: the network has none and none is named; see `layers.last_spatial_layer`.
        """
        return self.layer or last_spatial_layer(self.network, self.preprocessing.size)

    def candidate_layers(self) -> list[str]:
        """Return the layers of a sweep (`layers=all`), shallow to deep, the default among them."""
        if self.candidates:
            return list(dict.fromkeys([*self.candidates, self.default_layer]))
        size = self.preprocessing.size
        return candidate_layers(self.network, size, prefer=self.default_layer)


def _with_last_relu(network: Any) -> nn.Module:
    """Return torchvision's DenseNet with its last ReLU as a module, `features.relu5`.

    Its `features` end in a batch norm, and its `forward` applies the ReLU as a function that no
    hook sees, so the map of `features` would be read before the activation. (A second ReLU at the
    end of `features` would not do: behind it the function's gradient is 0 wherever A is.) Answers
    and the names of the state dict stay.
    """
    features = network.features
    features.add_module("relu5", nn.ReLU())
    parts = {
        "features": features,
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": network.classifier,
    }
    return nn.Sequential(OrderedDict(parts))
