"""Maps of single pictures, which need no data set: what `gradcam-bench explain` draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image

from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.cam.methods import layer_method
from gradcam_bench.cam.upsampling import normalize_by_max, upsample
from gradcam_bench.config import bind
from gradcam_bench.data.annotations import imagenet_classes
from gradcam_bench.data.drawing import CLASS_NAMES
from gradcam_bench.errors import UserError
from gradcam_bench.models.model import Model
from gradcam_bench.names import CONTROLS, Cell, Precision
from gradcam_bench.run.precision import full_float32
from gradcam_bench.run.setup import (
    AUTOCAST,
    check_values,
    choose_device,
    choose_layers,
    input_geometry,
)


@dataclass(frozen=True)
class Explanation:
    """The maps of one picture.

    Attributes:
        view: the part of the picture that the network saw, in the picture's own resolution.
        probabilities: the network's probability of every class, (C,).
        class_idx: the class whose score was followed.
        maps: the heatmap of each method and layer, (size, size) float32 in [0, 1]; zeros where the
            map is nowhere positive.
    """

    view: Image.Image
    probabilities: np.ndarray
    class_idx: int
    maps: dict[Cell, np.ndarray]


class Explainer:
    """A network with the layers and methods of a config, ready to explain one picture at a time.

    Args:
        config: of the schema `config.Config`; what belongs to data sets and scores is ignored.

    Attributes:
        class_names: all names of each class; ("class 0", ...) where the network does not tell.

    Raises:
        UserError: anything in the config that cannot be computed.
    """

    def __init__(self, config: DictConfig) -> None:
        check_values(config)
        self.methods = list(config.methods)
        controls = [name for name in self.methods if name in CONTROLS]
        if controls:
            raise UserError(
                f"explain draws no controls ({', '.join(controls)}): they see no network."
            )
        self.model: Model = bind(config.model, "model")()
        self.layers = choose_layers(config.layers, self.model)
        self.device = choose_device(config.device)
        self._float32 = config.precision == Precision.float32
        self._geometry = input_geometry(config, self.model)
        network = self.model.network.to(self.device)
        self._cam = GradCAM(network, self.layers, autocast=AUTOCAST[config.precision])
        # Run on zeros, so that a layer that gives no map is refused before any picture is read.
        logits = self._cam.forward(
            torch.zeros(3, self._geometry.size, self._geometry.size, device=self.device)
        )
        self._cam.backward(0)
        self._cam.release()
        self.class_names = _class_names(str(config.model["_target_"]), len(logits))

    def __call__(self, picture: Image.Image, class_idx: int | None = None) -> Explanation:
        """Return the maps of a picture.

        Args:
            picture: of any size, mode "RGB".
            class_idx: the class to follow; None takes the predicted one.

        Raises:
            UserError: the class is out of range.
        """
        size = (self._geometry.size, self._geometry.size)
        pixels = torch.from_numpy(self._geometry.image(picture)).permute(2, 0, 1)
        with full_float32(self._float32):
            img = self.model.preprocessing.normalize(pixels[None].to(self.device))
            logits = self._cam.forward(img)[0]
            followed = int(logits.argmax()) if class_idx is None else class_idx
            gradients = self._cam.backward(followed)
            maps = {}
            for layer, A, g in zip(self.layers, self._cam.activations, gradients, strict=True):
                for method in self.methods:
                    small = layer_method(method)(A, g).relu()
                    heatmap = normalize_by_max(upsample(small, size))[0]
                    maps[(method, layer)] = heatmap.nan_to_num().cpu().numpy()
            self._cam.release()
        probabilities = logits.double().softmax(0).cpu().numpy()
        return Explanation(self._view(picture), probabilities, followed, maps)

    def _view(self, picture: Image.Image) -> Image.Image:
        left, top, right, bottom = map(round, self._geometry.region(*picture.size))
        return picture.crop(
            (max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height))
        )


def _class_names(target: str, classes: int) -> Sequence[str]:
    """Return all names of each class of a network, in the order of its logits.

    A network with 1000 classes tells those of ImageNet apart, and the small ones of the package
    the drawn shapes; of others the names are not known.
    """
    if classes == len(imagenet_classes()):
        return tuple(imagenet_classes().values())
    if ".zoo" in target and classes == len(CLASS_NAMES):
        return tuple(CLASS_NAMES)
    return tuple(f"class {index}" for index in range(classes))


def likeliest(probabilities: np.ndarray, count: int = 5) -> list[tuple[int, float]]:
    """Return the `count` likeliest classes with their probabilities, the likeliest first."""
    order: Any = np.argsort(-probabilities, kind="stable")[:count]
    return [(int(index), float(probabilities[index])) for index in order]
