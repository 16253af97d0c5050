"""The boxes of cv2's contours of one binary image, without cv2.

`cv2.findContours(RETR_TREE, CHAIN_APPROX_SIMPLE)` returns the outer border of each 8-connected
component and the border of each hole, a 4-connected part of the background that does not reach
the image's edge. A hole's border runs over the pixels around it, so its box is one pixel larger
on each side. `cv2.contourArea` is the area of the polygon through the centres of border pixels:
a line of one pixel's width has area 0.

A test compares all of this with cv2.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

EIGHT = np.ones((3, 3), dtype=bool)


def contour_boxes(mask: np.ndarray) -> np.ndarray:
    """Return the half-open xyxy boxes of all contours of an (H, W) bool mask, (K, 4) float64."""
    components, _ = ndimage.label(mask, structure=EIGHT)
    outside = np.pad(~mask, 1, constant_values=True)
    background, _ = ndimage.label(outside)
    holes = ndimage.find_objects(background)[1:]  # the first lies around the image
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(components)]
    boxes += [(x.start - 2, y.start - 2, x.stop, y.stop) for y, x in holes]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def largest_contour_box(mask: np.ndarray) -> np.ndarray:
    """Return the box, (K, 4) with K <= 1, of the contour of largest cv2.contourArea.

    Of contours of equal area the first that cv2 returns counts. An outer border comes before what
    it encloses, and of components that lie apart the one whose first pixel in row-major order is
    the last.
    """
    labels, _ = ndimage.label(mask, structure=EIGHT)
    best: tuple[int, int] | None = None
    box: list[tuple[int, int, int, int]] = []
    for number, (y, x) in enumerate(ndimage.find_objects(labels), start=1):
        bound = 2 * (y.stop - y.start - 1) * (x.stop - x.start - 1)
        if best is not None and bound < best[0]:
            continue
        component = labels[y, x] == number
        # Labels are numbered by first pixel in row-major order.
        rank = (twice_polygon_area(ndimage.binary_fill_holes(component)), number)
        if best is None or rank > best:
            best, box = rank, [(x.start, y.start, x.stop, y.stop)]
    return np.array(box, dtype=np.float64).reshape(-1, 4)


def twice_polygon_area(mask: np.ndarray) -> int:
    """Return twice the area that the pixel centres of an (H, W) bool mask span.

    Of each square of four neighbours, four span an area of 1, three span 1/2, fewer none.
    """
    count = mask[:-1].astype(np.uint8) + mask[1:]
    count = count[:, :-1] + count[:, 1:]
    return 2 * int((count == 4).sum()) + int((count == 3).sum())
