"""The maps of a batch: every method at every layer, and the controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gradcam_bench.cam.controls import center_map, random_map
from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.cam.methods import layer_method
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.names import CONTROL_LAYER, CONTROLS, Cell


@dataclass(frozen=True)
class Input:
    """How images become the network's input.

    Attributes:
        preprocessing: size and normalisation.
        device: the network's device.
        memory_format: the memory layout in which the network expects images.
    """

    preprocessing: Preprocessing
    device: torch.device
    memory_format: torch.memory_format = torch.channels_last

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the network's input."""
        return self.preprocessing.size, self.preprocessing.size

    def __call__(self, images: Tensor) -> Tensor:
        """Return uint8 images (N, 3, H, W) normalised, on the device."""
        moved = images.to(self.device, non_blocking=True)
        return self.preprocessing.normalize(moved).contiguous(memory_format=self.memory_format)


@dataclass(frozen=True)
class CellMaps:
    """The signed maps of every cell, for the images of the last `cam.forward`.

    Attributes:
        cam: Grad-CAM on the layers of the run.
        asked: methods and controls, as `methods=` names them.
        size: (H, W) of the network's input.
        seed: of the control `random`, with the image's id.
    """

    cam: GradCAM
    asked: Sequence[str]
    size: tuple[int, int]
    seed: int

    @cached_property
    def methods(self) -> list[str]:
        """The methods among those asked for."""
        return [name for name in self.asked if name not in CONTROLS]

    @cached_property
    def cells(self) -> list[Cell]:
        """Every method at every layer, then the controls."""
        return [
            *((method, layer) for method in self.methods for layer in self.cam.layers),
            *((control, CONTROL_LAYER) for control in self.asked if control in CONTROLS),
        ]

    def __call__(self, image_ids: Sequence[str], classes: Tensor) -> dict[Cell, Tensor]:
        """Return the maps (N, h, w) of every cell for one class per image, (N,) int64."""
        maps: dict[Cell, Tensor] = {}
        if self.methods:
            self.cam.backward(classes)
        tensors = list(zip(self.cam.layers, self.cam.activations, self.cam.gradients, strict=False))
        for method in self.methods:
            for layer, activations, gradients in tensors:
                maps[method, layer] = layer_method(method)(activations, gradients)
        for control, layer in self.cells[len(maps) :]:
            of_control = (
                random_map(image_ids, self.seed)
                if control == "random"
                else center_map(len(image_ids), self.size)
            )
            maps[control, layer] = of_control.to(classes.device)
        return maps
