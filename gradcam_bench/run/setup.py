"""A config's choices checked, and what a run needs built from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.cam.methods import check_methods
from gradcam_bench.config import bind, check_keys
from gradcam_bench.data.example import Dataset
from gradcam_bench.data.subset import FirstN
from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness.baselines import n_points
from gradcam_bench.faithfulness.curves import Options
from gradcam_bench.models.model import Model
from gradcam_bench.names import CONTROLS

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def bind_dataset(node: DictConfig) -> Callable[[], Dataset]:
    """Bind a data set's config to its signature; the call builds it, cut to `limit` examples.

    Raises:
        UserError: as `config.bind`, and for a limit that is no number of images.
    """
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    limit = values.pop("limit", None)
    build: Callable[[], Dataset] = bind(values, "dataset", handled=["limit"])
    if limit is None:
        return build
    if not isinstance(limit, int) or limit < 1:
        raise UserError(f"dataset.limit expects a number of images from 1, got {limit!r}.")
    return lambda: FirstN(build(), limit)


def check_config(config: DictConfig) -> None:
    """Raise a UserError for the first key that there is not, or value out of its range."""
    check_keys(config)
    check_methods(list(config.methods))
    if not config.protocols:
        raise UserError("protocol= expects at least one name, e.g. protocol=gradcam2017.")
    positive = {
        "batch_size": config.batch_size,
        "part_size": config.part_size,
        "shard.count": config.shard.count,
    }
    for key, value in positive.items():
        if value < 1:
            raise UserError(f"{key} expects a number from 1, got {value}.")
    if not 0 <= config.shard.index < config.shard.count:
        raise UserError(
            f"shard.index expects 0 to shard.count - 1 = {config.shard.count - 1}, "
            f"got {config.shard.index}."
        )
    if not 0 <= config.max_errors <= 1:
        raise UserError(f"max_errors expects a share from 0 to 1, got {config.max_errors}.")
    if config.num_workers is not None and config.num_workers < 0:
        raise UserError(f"num_workers expects a number from 0, got {config.num_workers}.")
    if config.gallery < 0:
        raise UserError(f"gallery expects a number of images from 0, got {config.gallery}.")
    if config.precision not in PRECISIONS:
        raise UserError(
            f"precision expects one of {', '.join(PRECISIONS)}, got {config.precision!r}."
        )
    if config.faithfulness.target not in ("predicted", "label"):
        raise UserError(
            f"faithfulness.target expects predicted or label, got {config.faithfulness.target!r}."
        )
    if config.geometry not in ("squash", "center_crop"):
        raise UserError(f"geometry expects squash or center_crop, got {config.geometry!r}.")


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        UserError: the device cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device={name} cannot be used here ({reason}); try device=cpu.") from error
    return device


def choose_layers(asked: Any, model: Model) -> list[str]:
    """Return the module paths that `layers=` asks for: "default", "all", a path or a list.

    Raises:
        UserError: an empty list, or a path that stands in it twice.
    """
    if asked == "default":
        return [model.default_layer]
    if asked == "all":
        return model.candidate_layers()
    if isinstance(asked, str):
        return [asked]
    layers = [str(layer) for layer in asked or []]
    if not layers or len(set(layers)) != len(layers):
        raise UserError(
            f"layers expects default, all, or a list of different module paths, got {layers}."
        )
    return layers


def check_classes(model: Model, dataset: Dataset) -> None:
    """Raise a UserError where the network and the data set have different numbers of classes."""
    size = model.preprocessing.size
    with torch.inference_mode():
        classes = model.network(torch.zeros(1, 3, size, size)).shape[-1]
    if classes != len(dataset.class_names):
        raise UserError(
            f"model={model.name} tells {classes} classes apart, but the data set has "
            f"{len(dataset.class_names)}; choose a model and a data set that belong together."
        )


def check_layers(
    network: nn.Module,
    layers: Sequence[str],
    examples: Tensor,
    size: int,
    *,
    autocast: torch.dtype | None,
) -> None:
    """Take one image's maps, so that a layer that gives none is told before anything is stored.

    Args:
        network: of the run, on its device.
        layers: module paths.
        examples: normalised images (N, 3, size, size); N may be 0, then zeros stand for an image.
        size: side of the input, pixels.
        autocast: as `GradCAM` takes it.

    Raises:
        UserError: as `GradCAM.generate`: a layer does not exist, is not reached or gives no
            feature map, or the network cannot be differentiated.
    """
    one = examples[:1] if len(examples) else examples.new_zeros(1, 3, size, size)
    GradCAM(network, layers, autocast=autocast).generate(one)


def make_options(config: DictConfig) -> Options:
    """Return the choices behind deletion and insertion."""
    choices = config.faithfulness
    return Options(
        steps=choices.steps,
        deletion_baseline=choices.deletion_baseline,
        insertion_baseline=choices.insertion_baseline,
        ties=choices.ties,
        score=choices.score,
    )


def perturbed_images(config: DictConfig, size: int, n_images: int, n_layers: int) -> int:
    """Return how many images deletion and insertion will score in the whole run."""
    _, points = n_points((size, size), config.faithfulness.steps)
    controls = sum(method in CONTROLS for method in config.methods)
    cells = (len(config.methods) - controls) * n_layers + controls
    return n_images * cells * 2 * points
