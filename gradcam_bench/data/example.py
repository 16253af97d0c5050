"""An annotated image, and the interface of a data set that yields them to the runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image


def no_boxes() -> np.ndarray:
    """Return an empty (0, 4) box array."""
    return np.zeros((0, 4))


@dataclass(frozen=True)
class Example:
    """One annotated image; all coordinates are pixels of the upright image.

    Attributes:
        image_id: unique in the data set; seeds everything random that is computed for this image.
        image: mode "RGB", upright (EXIF rotation applied), size W x H.
        label: index of the class to be explained, in [0, number of classes).
        boxes: (B, 4) float64, half-open xyxy in pixels; all boxes of the class `label`.
        mask: (H, W) bool, the pixels of the object of class `label`, where the data set knows them.
        other_label: class index of a second object, where the data set draws one on purpose.
        other_mask: (H, W) bool, the pixels of the object of class `other_label`.
        group: name shared by examples that show the same scene (two classes in one photograph, two
            pictures from one video) and are therefore not independent: every confidence interval
            and test resamples them together. None: the example is independent of all others.
    """

    image_id: str
    image: Image.Image
    label: int
    boxes: np.ndarray = field(default_factory=no_boxes)
    mask: np.ndarray | None = None
    other_label: int | None = None
    other_mask: np.ndarray | None = None
    group: str | None = None


class Dataset(Protocol):
    """A sequence of examples in a fixed order.

    Constructors raise UserError where the data set as a whole is broken; `__getitem__` raises
    ExampleError where one example is.

    Attributes:
        class_names: name of each class, in the order of class indices.
        image_ids: id of each example, in the order of the data set.
    """

    class_names: Sequence[str]
    image_ids: Sequence[str]

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, index: int) -> Example:
        """Return example `index`; raises ExampleError, naming the file, where it is broken."""
        ...

    def fingerprint(self) -> str:
        """Return a short hash of what the data set holds: ids, labels and boxes."""
        ...
