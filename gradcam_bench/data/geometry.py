"""One geometry for image, boxes and mask, and how boxes move between pixel coordinates.

The pixel coordinates are those of the annotated image, of the upright image file, and of the
network's input.

Boxes are (B, 4) xyxy in pixels, half-open, as continuous coordinates: pixel i covers [i, i + 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from gradcam_bench.errors import ExampleError, UserError

# Largest relative difference of width / height between an image and a resized copy of it.
SHAPE_TOLERANCE = 0.03

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def scale_boxes(boxes: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Move (B, 4) boxes from an image of size `old` (width, height) to its copy of size `new`."""
    sx, sy = new[0] / old[0], new[1] / old[1]
    return np.asarray(boxes, np.float64) * np.array([sx, sy, sx, sy])


def upright_boxes(
    boxes: np.ndarray, width: int, height: int, *, orientation: int = 1
) -> np.ndarray:
    """Move boxes with the picture when its EXIF rotation is applied.

    Args:
        boxes: (B, 4) xyxy in pixels of the image as stored, not yet rotated.
        width: of the stored image, in pixels.
        height: of the stored image, in pixels.
        orientation: EXIF tag 274, 1 to 8; 1 leaves the boxes as they are.

    Returns:
        (B, 4) float64 xyxy in pixels of the upright image, whose width is the stored height for
        orientations 5 to 8.
    """
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).reshape(-1, 4).T
    if orientation in (2, 3, 7, 8):  # x runs from the right
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 6, 7):  # y runs from the bottom
        y0, y1 = height - y1, height - y0
    if orientation in (5, 6, 7, 8):  # rows become columns
        x0, y0, x1, y1 = y0, x0, y1, x1
    return np.stack([x0, y0, x1, y1], axis=1)


def same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether images of these two (width, height) may be scaled copies of each other.

    Each side may be off by a pixel, because a copy's sides are rounded, and the ratios of width to
    height may differ by `SHAPE_TOLERANCE`.
    """
    across, down = size[0] * other[1], size[1] * other[0]
    pixel = max(sum(size), sum(other))  # what one pixel more or less may change in the products
    return abs(across - down) <= max(pixel, SHAPE_TOLERANCE * max(across, down))


def annotated_upright(size: tuple[int, int], image_size: tuple[int, int], orientation: int) -> bool:
    """Return whether boxes were drawn on the upright image, although its file is stored rotated.

    ILSVRC's boxes are in pixels of the stored image, before EXIF rotation, so this is False by
    default. It is True where the annotated `size` has the shape of the upright image and not that
    of the stored one, which shows that the annotator saw the image upright.

    Args:
        size: (width, height) in pixels of the annotated image.
        image_size: (width, height) in pixels of the upright image.
        orientation: EXIF tag 274 of the image file, 1 to 8; from 5 on it swaps width and height.
    """
    stored = image_size[::-1]
    if orientation < 5 or size == stored:
        return False
    return size == image_size or (same_shape(size, image_size) and not same_shape(size, stored))


def fit_boxes(
    boxes: np.ndarray, size: tuple[int, int], image_size: tuple[int, int], *, orientation: int = 1
) -> np.ndarray:
    """Move annotated boxes to the pixel coordinates of the upright image.

    Boxes are scaled along each axis where the image is a resized copy of the annotated one. They
    are rotated as EXIF says, unless they were annotated upright (`annotated_upright`).

    Args:
        boxes: (B, 4) xyxy in pixels of the annotated image.
        size: (width, height) in pixels of the annotated image.
        image_size: (width, height) in pixels of the upright image.
        orientation: EXIF tag 274 of the image file, 1 to 8.

    Returns:
        (B, 4) float64 xyxy in pixels of the upright image.

    Raises:
        ExampleError: the image cannot be a copy of the annotated one, because its ratio of width to
            height differs (kind "box"). Square images are excepted, since data sets for
            classification often squash their images to squares.
    """
    stored_size = image_size[::-1] if orientation >= 5 else image_size
    if annotated_upright(size, image_size, orientation):
        orientation, stored_size = 1, image_size
    if stored_size[0] != stored_size[1] and not same_shape(size, stored_size):
        raise ExampleError(
            f"it has {stored_size[0]} x {stored_size[1]} pixels, but its boxes were drawn on "
            f"{size[0]} x {size[1]}: another image, or a part of it",
            kind="box",
        )
    boxes = scale_boxes(boxes, size, stored_size)
    return upright_boxes(boxes, *stored_size, orientation=orientation)


@dataclass(frozen=True)
class Geometry:
    """How an image is resized and cropped to the network's input; boxes and masks go along.

    Attributes:
        size: side of the square input in pixels.
        mode: "squash" resizes straight to size x size; "center_crop" resizes the shorter side to
            `resize` and cuts the center, as torchvision's Resize and CenterCrop do.
        resize: shorter side before the crop, at least `size`; None for "squash".
        interpolation: PIL's filter, antialiased.

    Raises:
        UserError: a field is out of its range, or `resize` does not fit the mode.
    """

    size: int
    mode: Literal["squash", "center_crop"] = "squash"
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"geometry size must be at least 1 pixel, got {self.size}")
        if self.mode not in ("squash", "center_crop"):
            raise UserError(f"geometry mode must be squash or center_crop, got {self.mode!r}")
        if self.interpolation not in _FILTERS:
            raise UserError(
                f"geometry interpolation must be bilinear or bicubic, got {self.interpolation!r}"
            )
        if self.mode == "squash" and self.resize is not None:
            raise UserError(f"geometry mode squash takes no resize; drop resize={self.resize}")
        if self.mode == "center_crop" and (self.resize is None or self.resize < self.size):
            raise UserError(
                f"geometry mode center_crop needs resize >= size = {self.size}, got {self.resize}"
            )

    def _frame(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the width and height of the resized image, and the left and top of the crop."""
        if self.mode == "squash":
            return self.size, self.size, 0, 0
        assert self.resize is not None
        short = min(width, height)
        # torchvision truncates the longer side and rounds the offset half to even.
        new_width = int(self.resize * width / short)
        new_height = int(self.resize * height / short)
        left, top = round((new_width - self.size) / 2), round((new_height - self.size) / 2)
        return new_width, new_height, left, top

    def _resample(self, image: Image.Image) -> Image.Image:
        width, height, left, top = self._frame(*image.size)
        resized = image.resize((width, height), _FILTERS[self.interpolation])
        if self.mode == "squash":
            return resized
        return resized.crop((left, top, left + self.size, top + self.size))

    def image(self, image: Image.Image) -> np.ndarray:
        """Return the (size, size, 3) uint8 input of an RGB image."""
        return np.array(self._resample(image))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return an (H, W) bool mask resampled to the input, (size, size) bool.

        A pixel belongs to it where the resampled mask is at least one half.
        """
        picture = Image.fromarray(np.asarray(mask, bool).astype(np.uint8) * 255)
        return np.asarray(self._resample(picture)) >= 128

    def boxes(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Move (B, 4) boxes from a width x height image to the pixels of the input, as float64.

        They are not clipped: with "center_crop" they may reach outside [0, size]. `visible_boxes`
        clips them.
        """
        new_width, new_height, left, top = self._frame(width, height)
        scaled = scale_boxes(boxes, (width, height), (new_width, new_height))
        return scaled - np.array([left, top, left, top], np.float64)

    def visible_boxes(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Return the parts of the boxes that the network sees, in pixels of the input.

        These are the boxes to score against. With "squash" the network sees all of every box, so
        this equals `boxes`. With "center_crop" boxes are clipped to [0, size], and those left
        without area are dropped, so the result may be empty.
        """
        moved = self.boxes(boxes, width, height)
        if self.mode == "squash":
            return moved
        clipped = moved.clip(0, self.size)
        return clipped[(clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])]

    def inverse_boxes(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Move (B, 4) boxes from the pixels of the input back to the width x height image."""
        new_width, new_height, left, top = self._frame(width, height)
        moved = np.asarray(boxes, np.float64) + np.array([left, top, left, top], np.float64)
        return scale_boxes(moved, (new_width, new_height), (width, height))

    def region(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the part that the network sees, xyxy in pixels of the width x height image."""
        frame = np.array([[0, 0, self.size, self.size]])
        x0, y0, x1, y1 = self.inverse_boxes(frame, width, height)[0].tolist()
        return x0, y0, x1, y1
