"""What a run needs, built from its config; everything in it that cannot be run is refused here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.cam.methods import check_methods
from gradcam_bench.config import bind, check_keys, check_numbers
from gradcam_bench.data.example import Dataset
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.data.subset import FirstN
from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness.baselines import n_points
from gradcam_bench.faithfulness.curves import Options
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.models.model import Model
from gradcam_bench.names import CONTROLS, Fit, Precision
from gradcam_bench.run.batches import first_images
from gradcam_bench.run.named_protocols import check_published, with_named_protocols

AUTOCAST = {
    Precision.float32: None,
    Precision.bfloat16: torch.bfloat16,
    Precision.float16: torch.float16,
}

EXAMPLES = 4
"""Real images on which folding and scorers are compared with the network."""


@dataclass(frozen=True)
class RunSetup:
    """A run's config and what it names, built and checked, before anything is computed.

    Attributes:
        config: of the schema `config.Config`.
        model: the network, on the device, and its preprocessing.
        dataset: the data set, cut to `dataset.limit` examples.
        geometry: how its images become the network's input.
        protocols: localization protocols; the first one's columns have no suffix.
        layers: module paths of the target layers.
        device: the network's device.
        examples: the first images of the data set, normalised, on the device, (N, 3, H, W).
    """

    config: DictConfig
    model: Model
    dataset: Dataset
    geometry: Geometry
    protocols: Sequence[Protocol]
    layers: Sequence[str]
    device: torch.device
    examples: Tensor

    @property
    def autocast(self) -> torch.dtype | None:
        """The lower precision in which the network computes, or None."""
        return AUTOCAST[self.config.precision]

    @property
    def perturbed_images(self) -> int:
        """How many images deletion and insertion will score in the whole run."""
        size = self.model.preprocessing.size
        _, points = n_points((size, size), self.config.faithfulness.steps)
        methods = self.config.methods
        controls = sum(method in CONTROLS for method in methods)
        cells = (len(methods) - controls) * len(self.layers) + controls
        return len(self.dataset) * cells * 2 * points


def set_up(config: DictConfig) -> RunSetup:
    """Build what a config names; everything is bound to its signature before anything is built.

    Raises:
        UserError: anything in the config that cannot be run.
    """
    check_values(config)
    config = with_named_protocols(config)
    build_model = bind(config.model, "model")
    build_dataset = bind_dataset(config.dataset)
    protocols = build_protocols(config.protocols)
    dataset = build_dataset()
    device = choose_device(config.device)
    model: Model = build_model()
    check_classes(model, dataset)
    layers = choose_layers(config.layers, model)
    model.network.to(device)
    geometry = input_geometry(config, model)
    images = first_images(dataset, geometry, count=EXAMPLES).to(device)
    examples = model.preprocessing.normalize(images)
    setup = RunSetup(config, model, dataset, geometry, protocols, layers, device, examples)
    check_layers(setup)
    return setup


def check_values(config: DictConfig) -> None:
    """Raise a UserError for the first unknown key, number out of range or unknown method."""
    check_keys(config)
    check_numbers(config)
    check_methods(list(config.methods))


def input_geometry(config: DictConfig, model: Model) -> Geometry:
    """Return how pictures become the network's input."""
    return Geometry(
        size=model.preprocessing.size,
        mode=config.geometry,
        resize=model.preprocessing.resize if config.geometry == Fit.center_crop else None,
        interpolation=model.preprocessing.interpolation,  # type: ignore[arg-type]
    )


def check_layers(setup: RunSetup) -> None:
    """Compute maps of one image, so that a layer that has none is refused before any is stored.

    Raises:
        UserError: as `GradCAM.generate`: a layer does not exist, is not reached or gives no
            feature map, or the network cannot be differentiated.
    """
    size = setup.model.preprocessing.size
    one = setup.examples[:1]
    if not len(one):
        one = torch.zeros(1, 3, size, size, device=setup.device)
    GradCAM(setup.model.network, setup.layers, autocast=setup.autocast).generate(one)


def build_protocols(nodes: DictConfig) -> list[Protocol]:
    """Return the localization protocols of a config.

    Raises:
        UserError: there is none; one cannot be built; its name, which its columns carry, is not
            its key in the config.
    """
    if not nodes:
        raise UserError("protocol= expects at least one name, e.g. protocol=gradcam2017.")
    bound = {str(key): bind(node, f"protocols.{key!s}") for key, node in nodes.items()}
    protocols: dict[str, Protocol] = {key: build() for key, build in bound.items()}
    check_published(list(protocols.values()))
    for key, protocol in protocols.items():
        if protocol.name != key:
            raise UserError(
                f"protocols.{key}.name expects {key!r}, the key it stands under, got "
                f"{protocol.name!r}: rename the key, e.g. by a file of its own in conf/protocol."
            )
    return list(protocols.values())


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


def make_options(config: DictConfig) -> Options:
    """Return the choices behind deletion and insertion."""
    choices = config.faithfulness
    return Options(
        steps=choices.steps,
        deletion_baseline=choices.deletion_baseline,
        insertion_baseline=choices.insertion_baseline,
        ties=choices.ties,
        score=choices.score,
        seed=config.seed,
    )
