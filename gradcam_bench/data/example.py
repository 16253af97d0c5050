"""What every data set hands to the runner."""

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
    """One annotated image, in the pixels of its own file.

    Attributes:
        image_id: unique in the data set; seeds everything random about this image.
        image: mode "RGB", upright (EXIF rotation applied), size W x H.
        label: index of the class asked for, in [0, number of classes).
        boxes: (B, 4) float64, xyxy in pixels, half-open; all boxes of the class `label`.
        mask: (H, W) bool, the true evidence of `label`, where the data set knows it.
        other_label: the second class in the image, where the data set draws one on purpose.
        other_mask: (H, W) bool, the evidence of `other_label`.
        group: examples of one group are resampled together by every interval and test, because
            they show the same scene: two questions about one photograph, frames of one video. None:
            the example is independent of all others.
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
    """A fixed order of examples; constructors raise UserError, `__getitem__` ExampleError."""

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
