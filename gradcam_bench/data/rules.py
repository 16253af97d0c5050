"""What an example must fulfil to be scored: the sizes of images, and the places of boxes.

Each rule raises ExampleError with its kind, in words; who read the file adds its name and what to
do. docs/metrics.md lists the rules with their reasons under "What a broken example is".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from gradcam_bench.errors import ExampleError, brief

MIN_SIDE = 8  # pixels: a block of a JPEG; below, a file stands in for an image that is missing
MAX_ASPECT = 50  # of the longer to the shorter side
MAX_PIXELS = 1_000_000  # of a stated side: no image file comes near
MIN_INSIDE = 0.5  # the share of a box's area that must lie in the image
CLIPPED = 0.5  # pixels by which a corner moves before a box counts as clipped


def to_number(text: str | None) -> float:
    """Return the number that a file's text spells; Python's own spellings (1_000) are refused.

    Raises:
        ExampleError: it is none (kind "annotation").
    """
    try:
        if text is not None and text.isascii() and "_" not in text:
            return float(text)
    except ValueError:
        pass
    raise ExampleError(f"{brief(text or '')!r} is no number", kind="annotation")


def to_pixels(text: str | None) -> int:
    """Return the side of an image, in pixels, that a file's text spells.

    Raises:
        ExampleError: it is no number (kind "annotation"), or no whole one from 1 to `MAX_PIXELS`
            (kind "box").
    """
    number = to_number(text)
    if not (1 <= number <= MAX_PIXELS and number == int(number)):
        raise ExampleError(f"a side of the image is {number:g} pixels", kind="box")
    return int(number)


def check_image(size: tuple[int, int]) -> None:
    """Raise ExampleError where an image of this (width, height) shows nothing to a network."""
    short, long = sorted(size)
    if short < MIN_SIDE:
        fault = f"expected {MIN_SIDE} a side or more"
    elif long > MAX_ASPECT * short:
        fault = f"expected a longer side of at most {MAX_ASPECT} times the shorter"
    else:
        return
    raise ExampleError(f"it has {size[0]} x {size[1]} pixels; {fault}", kind="image")


def check_boxes(boxes: Iterable[Sequence[float]], size: tuple[int, int]) -> None:
    """Raise ExampleError, naming the box, where one cannot be right.

    Args:
        boxes: xyxy each, in pixels of the annotated image.
        size: (width, height) of that image.
    """
    for box in boxes:
        if fault := _box_fault(box, size):
            raise ExampleError(f"box {list(box)} {fault}", kind="box")


def _box_fault(box: Sequence[float], size: tuple[int, int]) -> str | None:
    if not all(map(math.isfinite, box)):
        return "has a corner that is no number"
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return "has no area"
    across = max(min(x1, size[0]) - max(x0, 0), 0) / (x1 - x0)
    down = max(min(y1, size[1]) - max(y0, 0), 0) / (y1 - y0)
    if across * down < MIN_INSIDE:
        return (
            f"has {across * down:.0%} of its area in the image of {size[0]} x {size[1]} pixels; "
            f"expected at least {MIN_INSIDE:.0%}"
        )
    return None


def clip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """Cut boxes to the image.

    Args:
        boxes: (B, 4) xyxy in pixels, half-open.
        size: (width, height) of the image.

    Returns:
        (B, 4) boxes inside [0, width] x [0, height], and how many of them had a corner more than
        `CLIPPED` pixels outside.
    """
    clipped = boxes.clip(0, np.array([*size, *size], np.float64))
    return clipped, int((np.abs(clipped - boxes) > CLIPPED).any(1).sum())
