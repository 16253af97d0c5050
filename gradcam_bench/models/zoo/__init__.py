"""Three small networks with weights in the package, trained on `data.shapes` (train_zoo.py)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from gradcam_bench.errors import UserError
from gradcam_bench.models.checkpoints import load_checkpoint
from gradcam_bench.models.model import Model, Preprocessing
from gradcam_bench.models.zoo.networks import TinyInception, TinyResNet, TinyVGG

FOLDER = Path(__file__).parent

CHECKSUMS = "SHA256SUMS"
"""The file beside the weights with their hashes, in the format of sha256sum."""

_NETWORKS = {"tiny_vgg": TinyVGG, "tiny_resnet": TinyResNet, "tiny_inception": TinyInception}

NAMES: tuple[str, ...] = tuple(_NETWORKS)

DEFAULT_LAYERS: dict[str, str] = {
    "tiny_vgg": "features.14",
    "tiny_resnet": "layer4",
    "tiny_inception": "mixed_c",
}
"""Where Grad-CAM is taken by default: the last map before pooling and head, 12 x 12."""

CANDIDATE_LAYERS: dict[str, list[str]] = {
    "tiny_vgg": [f"features.{index}" for index in (1, 4, 7, 9, 12, 14)],
    "tiny_resnet": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "tiny_inception": ["stem.0", "stem.1", "mixed_a", "mixed_b", "mixed_c"],
}
"""The layers worth comparing, shallow to deep."""

PREPROCESSING: dict[str, Any] = {
    "size": 96,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}
"""Inputs are (image / 255 - mean) / std, RGB, `size` pixels a side; the same for all three."""


def build(name: str) -> torch.nn.Module:
    """Return a network with random weights from the global generator, in train mode.

    Raises:
        UserError: if there is no such network.
    """
    if name not in _NETWORKS:
        raise UserError(f"model: expected one of {', '.join(NAMES)}; got {name!r}.")
    return _NETWORKS[name]()


def load(name: str, *, pretrained: bool = True) -> torch.nn.Module:
    """Return a network in eval mode; random weights with `pretrained=False`.

    Raises:
        UserError: if there is no such network, or its weights are missing or altered.
    """
    network = build(name)
    if pretrained:
        network.load_state_dict(safetensors.torch.load(_weights(name)))
    return network.eval()


def checksum(content: bytes) -> str:
    """Return the SHA-256 of some bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _weights(name: str) -> bytes:
    """Return the content of a weights file after checking it."""
    path = FOLDER / f"{name}.safetensors"
    remedy = "reinstall gradcam-bench, or train it again with scripts/train_zoo.py"
    try:
        lines = (FOLDER / CHECKSUMS).read_text().splitlines()
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"The weights of {name} cannot be read ({error}): {remedy}.") from error
    expected = {file: digest for digest, file in (line.split() for line in lines)}.get(path.name)
    given = checksum(content)
    if given != expected:
        raise UserError(
            f"{path} is not the file that was trained: expected SHA-256 {expected}, "
            f"got {given}: {remedy}."
        )
    return content


def zoo_model(*, name: str, layer: str | None = None, checkpoint: str | None = None) -> Model:
    """Build one of the small networks that come with the package, trained on `shapes`."""
    from gradcam_bench.models import zoo

    network = zoo.load(name, pretrained=checkpoint is None)
    if checkpoint is not None:
        load_checkpoint(network, checkpoint)
    size, mean, std = (zoo.PREPROCESSING[key] for key in ("size", "mean", "std"))
    preprocessing = Preprocessing(size, mean, std, "bilinear", size)
    return Model(
        name,
        network.eval(),
        preprocessing,
        layer or zoo.DEFAULT_LAYERS[name],
        checkpoint or "gradcam_bench.zoo",
        tuple(zoo.CANDIDATE_LAYERS[name]),
    )
