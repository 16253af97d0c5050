"""Torchvision's classifiers, their weights from its hub or from a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from gradcam_bench.errors import UserError, nearest
from gradcam_bench.models.checkpoints import load_checkpoint
from gradcam_bench.models.model import Model, Preprocessing, _with_last_relu


def torchvision_model(
    *,
    name: str,
    weights: str | None = "IMAGENET1K_V1",
    layer: str | None = None,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    size: int | None = None,
) -> Model:
    """Build a torchvision classifier.

    Args:
        name: as in torchvision.models ("resnet50").
        weights: a name of its weights ("IMAGENET1K_V1", "DEFAULT") or None for random ones.
        layer: default target layer; None takes the last spatial one.
        checkpoint: a local state dict (.pth, .safetensors) instead of a download; the
            preprocessing stays that of `weights`.
        num_classes: number of classes of the checkpoint; None: as many as `weights` has.
        size: side of the square input, pixels; None: the size that `weights` was trained with.

    Raises:
        UserError: unknown name or weights; the download fails; the checkpoint does not fit.
    """
    from torchvision import models as tv

    chosen = _weights_entry(name, weights)
    if checkpoint is not None:
        classes = num_classes or len(chosen.meta["categories"])
        network, origin = _untrained(name, classes), checkpoint
        load_checkpoint(network, checkpoint)
    elif weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network, origin = _untrained(name, num_classes or 1000), "random"
    else:
        network, origin = _download(name, chosen), f"torchvision {chosen}"
    if isinstance(network, tv.DenseNet):
        network = _with_last_relu(network)
        layer = layer or "features.relu5"
    return Model(name, network.eval(), _preprocessing(chosen.transforms(), size), layer, origin)


def _weights_entry(name: str, weights: str | None) -> Any:
    """Return torchvision's entry of the weights; for random ones that of the original recipe.

    Raises:
        UserError: an unknown classifier or weights.
    """
    from torchvision import models as tv

    classifiers = tv.list_models(module=tv)
    if name not in classifiers:
        raise UserError(
            f"torchvision has no classifier {name!r}.{nearest(name, classifiers)} "
            "All: torchvision.models.list_models(module=torchvision.models)."
        )
    available = list(tv.get_model_weights(name))
    if not available:
        raise UserError(f"torchvision has no preprocessing for {name!r}; choose another model.")
    if weights is None:
        return available[0]
    by_name = {entry.name: entry for entry in available} | {"DEFAULT": available[-1]}
    if weights not in by_name:
        raise UserError(
            f"{name} has no weights {weights!r}. Weights: {', '.join(by_name)}; "
            "or model.weights=null for random ones."
        )
    return by_name[weights]


def _untrained(name: str, num_classes: int) -> nn.Module:
    """Return a classifier with random weights.

    With transform_input, inception_v3 and googlenet rescale their input as their weights need;
    torchvision sets it only when it downloads, so a local checkpoint must ask for it.
    """
    from torchvision import models as tv

    options: dict[str, Any] = {}
    if name in ("inception_v3", "googlenet"):
        options = {"transform_input": True, "init_weights": False}
    return tv.get_model(name, weights=None, num_classes=num_classes, **options)


def _preprocessing(transforms: Any, size: int | None) -> Preprocessing:
    """Return the preprocessing of torchvision's weights, for another size where one is given."""
    return Preprocessing(
        size=size or transforms.crop_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        resize=transforms.resize_size[0] if size is None else size,
    )


def _download(name: str, weights: Any) -> nn.Module:
    from torchvision import models as tv

    try:
        return tv.get_model(name, weights=weights)
    except (URLError, OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"The weights {weights} could not be fetched ({error}). Connect to the internet, or "
            f"put {Path(weights.url).name} into {folder}, or pass model.checkpoint=FILE; "
            "model.weights=null runs with random weights."
        ) from error
