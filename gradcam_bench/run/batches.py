"""Turn examples into batches: images are decoded and resized, in worker processes if any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gradcam_bench.data.example import Dataset, Example
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.data.rules import check_boxes, check_image, clip_boxes
from gradcam_bench.errors import ExampleError
from gradcam_bench.store.files import FileState, file_state


@dataclass(frozen=True)
class Item:
    """One example as the network's input with its annotations, or why the example is broken.

    Attributes:
        index: place in the data set's order, from 0.
        image_id: id of the example.
        error: why the example is broken, else None; a broken one has only the next three besides.
        error_kind: what is broken: image, annotation, box or label (see `ExampleError`).
        error_path: the file to mend, where there is one.
        broken_file: that file's state, by which a later run notices that it has changed.
        image: (size, size, 3) uint8.
        label: index of the class asked for; -1 where broken.
        boxes: (B, 4) float64 xyxy in pixels of the network's input, cut to what the network sees.
        boxes_clipped: how many boxes of the class reached outside the image and were cut to it.
        mask: of the object asked for, (size, size) bool; None where the data set has none.
        other_mask: of the other object, (size, size) bool; None where the data set has none.
        view: (height, width) of the part of the original that the network sees, pixels.
        view_boxes: (B, 4) xyxy in pixels of that part, for the pointing game.
        group: examples of the same group are resampled together; None: independent of all others.
    """

    index: int
    image_id: str
    error: str | None = None
    error_kind: str | None = None
    error_path: str | None = None
    broken_file: FileState | None = None
    image: np.ndarray | None = None
    label: int = -1
    boxes: np.ndarray | None = None
    boxes_clipped: int = 0
    mask: np.ndarray | None = None
    other_mask: np.ndarray | None = None
    view: tuple[int, int] = (0, 0)
    view_boxes: np.ndarray | None = None
    group: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        assert self.image is not None
        return self.image.shape[0], self.image.shape[1]


@dataclass
class Batch:
    """Items in the data set's order; `images` stacks those that are not broken.

    Attributes:
        items: the items, broken ones included.
        images: (N, 3, size, size) uint8, of the items that are not broken.
    """

    items: list[Item]
    images: Tensor

    @property
    def good(self) -> list[Item]:
        """The items that are not broken, as `images` orders them."""
        return [item for item in self.items if item.error is None]

    def pin_memory(self) -> Batch:
        """Pin the images for an asynchronous copy to the GPU; the DataLoader calls this."""
        self.images = self.images.pin_memory()
        return self


class _Items(torch.utils.data.Dataset):
    def __init__(self, dataset: Dataset, geometry: Geometry) -> None:
        self.dataset, self.geometry = dataset, geometry

    def __getitem__(self, index: int) -> Item:
        try:
            example = _sound(self.dataset[index])
        except ExampleError as error:
            return Item(
                index,
                self.dataset.image_ids[index],
                error=str(error),
                error_kind=error.kind,
                error_path=error.path,
                broken_file=None if error.path is None else file_state(error.path),
            )
        return self._item(index, example)

    def _item(self, index: int, example: Example) -> Item:
        width, height = example.image.size
        boxes, clipped = clip_boxes(example.boxes, example.image.size)
        geometry = self.geometry
        x0, y0, x1, y1 = geometry.region(width, height)
        left, top = math.floor(x0 + 0.5), math.floor(y0 + 0.5)
        view = (math.floor(y1 + 0.5) - top, math.floor(x1 + 0.5) - left)
        moved = boxes - np.array([left, top, left, top])
        other = example.other_mask
        return Item(
            index,
            example.image_id,
            image=geometry.image(example.image),
            label=example.label,
            boxes=geometry.visible_boxes(boxes, width, height),
            boxes_clipped=clipped,
            mask=None if example.mask is None else geometry.mask(example.mask),
            other_mask=None if other is None else geometry.mask(other),
            view=view,
            view_boxes=moved.clip(0, [view[1], view[0], view[1], view[0]]),
            group=example.group,
        )


def _sound(example: Example) -> Example:
    """Return the example, or raise an ExampleError where its image or boxes break a rule."""
    try:
        check_image(example.image.size)
        check_boxes(example.boxes.tolist(), example.image.size)
    except ExampleError as error:
        raise ExampleError(
            f"example {example.image_id} cannot be used ({error}); correct its {error.kind}",
            kind=error.kind,
        ) from None
    return example


def _collate(items: list[Item]) -> Batch:
    images = [item.image for item in items if item.image is not None]
    if not images:
        return Batch(items, torch.zeros(0, 3, 1, 1, dtype=torch.uint8))
    return Batch(items, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))


def first_images(dataset: Dataset, geometry: Geometry, *, count: int) -> Tensor:
    """Return the first images of a data set that are not broken, (N, 3, size, size) uint8.

    They are the same ones for every shard, batch size and resumed run. N is at most `count`, and
    less where fewer of the first 16 * count images can be read.
    """
    found: list[Item] = []
    items = _Items(dataset, geometry)
    for index in range(min(len(dataset), 16 * count)):
        item = items[index]
        if item.image is not None:
            found.append(item)
        if len(found) == count:
            break
    if not found:
        return torch.zeros(0, 3, geometry.size, geometry.size, dtype=torch.uint8)
    return _collate(found).images


def batches(
    dataset: Dataset,
    geometry: Geometry,
    indices: Sequence[int],
    *,
    batch_size: int,
    num_workers: int,
    pin: bool,
) -> DataLoader:
    """Return a loader that gives a `Batch` at a time, in the order of the indices.

    Args:
        dataset: the examples.
        geometry: how their images become the network's input.
        indices: places of the examples to load, in the data set's order.
        batch_size: examples in a batch.
        num_workers: processes that decode images; 0: this process decodes.
        pin: whether to pin the images' memory, for copies to a GPU.
    """
    return DataLoader(
        _Items(dataset, geometry),
        batch_size=batch_size,
        sampler=list(indices),
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=pin,
        persistent_workers=False,
    )
