"""Any other CNN, built by the user's own function."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import nn

from gradcam_bench.errors import UserError
from gradcam_bench.models.checkpoints import load_checkpoint
from gradcam_bench.models.model import Model, Preprocessing


def custom_model(
    *,
    name: str,
    factory: str,
    layer: str | None = None,
    checkpoint: str | None = None,
    size: int = 224,
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
    std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    interpolation: str = "bilinear",
    resize: int | None = None,
) -> Model:
    """Build any other CNN from a function without arguments.

    Args:
        name: what tables call the model.
        factory: the function that builds the network, "package.module:function".
        layer: path of the default target layer; None takes the last spatial one.
        checkpoint: path of a local state dict; None keeps the weights that the factory gives.
        size: side of the square input, pixels.
        mean: of the three channels, for images in [0, 1].
        std: of the three channels, for images in [0, 1].
        interpolation: "bilinear" or "bicubic".
        resize: shorter side before a center crop, pixels; None: size / 0.875.

    Raises:
        UserError: the function cannot be imported or gives no module.
    """
    module_name, _, function = factory.partition(":")
    try:
        build: Callable[[], nn.Module] = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"model.factory expects package.module:function, got {factory!r}: {error}."
        ) from error
    network = build()
    if not isinstance(network, nn.Module):
        raise UserError(f"{factory} gave {type(network).__name__}, expected a torch.nn.Module.")
    if checkpoint is not None:
        load_checkpoint(network, checkpoint)
    network.eval()
    preprocessing = Preprocessing(
        size,
        (mean[0], mean[1], mean[2]),
        (std[0], std[1], std[2]),
        interpolation,
        resize or round(size / 0.875),
    )
    return Model(
        name,
        network,
        preprocessing,
        layer,
        checkpoint or factory,
    )
