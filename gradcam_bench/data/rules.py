"""Rules that an example must meet to be scored: sizes of images, and positions of boxes.

Where a rule is broken, an ExampleError says of which kind the error is and what is wrong; the
caller that read the file adds its name and what to do. docs/metrics.md lists the rules with their
reasons under "What a broken example is".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from gradcam_bench.errors import ExampleError, brief

MIN_SIDE = 8  # pixels, a JPEG block; smaller files are placeholders for missing images
MAX_ASPECT = 50  # ratio of the longer to the shorter side
MAX_PIXELS = 1_000_000  # for each side that a file states; no real image comes near
MIN_INSIDE = 0.5  # the share of a box's area that must lie in the image
CLIPPED = 0.5  # pixels by which a corner moves before a box counts as clipped


def to_number(text: str | None) -> float:
    """Return a text from a file as a number; spellings only Python knows (1_000) are refused.

    Raises:
        ExampleError: the text is missing or no number (kind "annotation").
    """
    try:
        if text is not None and text.isascii() and "_" not in text:
            return float(text)
    except ValueError:
        pass
    raise ExampleError(f"{brief(text or '')!r} is no number", kind="annotation")


def to_pixels(text: str | None) -> int:
    """Return a text from a file as the width or height of an image in pixels.

    Raises:
        ExampleError: the text is no number (kind "annotation"), or not a whole number from 1 to
            `MAX_PIXELS` (kind "box").
    """
    number = to_number(text)
    if not (1 <= number <= MAX_PIXELS and number == int(number)):
        raise ExampleError(f"a side of the image is {number:g} pixels", kind="box")
    return int(number)


def check_image(size: tuple[int, int]) -> None:
    """Raise ExampleError where an image of (width, height) pixels is too small or too elongated."""
    short, long = sorted(size)
    if short < MIN_SIDE:
        fault = f"expected {MIN_SIDE} a side or more"
    elif long > MAX_ASPECT * short:
        fault = f"expected a longer side of at most {MAX_ASPECT} times the shorter"
    else:
        return
    raise ExampleError(f"it has {size[0]} x {size[1]} pixels; {fault}", kind="image")


def check_boxes(boxes: Iterable[Sequence[float]], size: tuple[int, int]) -> None:
    """Raise ExampleError, naming the box, where a box cannot be right.

    A box must have finite corners, an area, and at least `MIN_INSIDE` of it inside the image.

    Args:
        boxes: xyxy each, in pixels of the annotated image.
        size: (width, height) of that image in pixels.
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
    """Clip boxes to the image.

    Args:
        boxes: (B, 4) xyxy in pixels, half-open.
        size: (width, height) of the image in pixels.

    Returns:
        (B, 4) boxes inside [0, width] x [0, height], and the number of boxes that had a corner more
        than `CLIPPED` pixels outside.
    """
    clipped = boxes.clip(0, np.array([*size, *size], np.float64))
    return clipped, int((np.abs(clipped - boxes) > CLIPPED).any(1).sum())
