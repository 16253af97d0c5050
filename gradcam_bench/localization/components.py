"""The components of one binary image, and the boxes of cv2's contours without cv2.

`cv2.findContours(RETR_TREE, CHAIN_APPROX_SIMPLE)` returns the outer border of each 8-connected
component and the border of each hole, a 4-connected part of the background that does not reach
the image's edge. A hole's border runs over the pixels around it, so its box is one pixel larger
on each side. `cv2.contourArea` is the area of the polygon through the centres of border pixels:
a line of one pixel's width has area 0. A test compares all of this with cv2.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gradcam_bench.localization.protocol import Protocol


def component_boxes(mask: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return the boxes around the components of a foreground that the protocol chooses.

    Args:
        mask: (H, W) bool, the foreground.
        protocol: its `component`, `finder` and `connectivity` decide.

    Returns:
        (K, 4) float64 in pixels, half-open xyxy; K is 0 for an empty mask, otherwise 1, unless
        `protocol.component` is "all".
    """
    if protocol.component == "foreground":
        return _boxes(ndimage.find_objects(mask.astype(np.uint8)))
    labels, _ = ndimage.label(mask, structure=_structure(protocol))
    boxes = _boxes(ndimage.find_objects(labels))
    if protocol.component == "largest" and len(boxes) > 1:
        if protocol.finder == "labels":
            largest = int(np.bincount(labels.ravel())[1:].argmax())
        else:
            largest = largest_component(mask, boxes.astype(np.int64), protocol)
        return boxes[largest : largest + 1]
    if protocol.component == "all" and protocol.finder == "contours":
        holes = _boxes(ndimage.find_objects(_background(mask))[1:])
        # 1 is subtracted for the padding; a hole's contour reaches 1 pixel further on each side.
        boxes = np.concatenate([boxes, holes - np.array([2, 2, 0, 0])])
    return boxes


def largest_component(mask: np.ndarray, boxes: np.ndarray, protocol: Protocol) -> int:
    """Return the index of the largest component, given the box of each.

    With finder "contours" components are compared by cv2.contourArea. Ties go to the contour that
    cv2 returns first: an outer border comes before what it encloses, and of components that lie
    apart, the one that begins last in row-major order comes first. With finder "labels" components
    are compared by their number of pixels, and ties go to the one that begins first.

    Args:
        mask: (H, W) bool, the foreground.
        boxes: (K, 4) integers, half-open xyxy in pixels, one box per component.
        protocol: its `finder` and `connectivity` decide.
    """
    contours, structure = protocol.finder == "contours", _structure(protocol)
    best, best_rank = -1, (-1, 0)
    bounds = 2 * (boxes[:, 2] - boxes[:, 0] - 1) * (boxes[:, 3] - boxes[:, 1] - 1)
    for k in np.argsort(-bounds, kind="stable").tolist():
        if contours and bounds[k] < best_rank[0]:
            break  # the components that follow have smaller boxes, hence smaller areas
        x0, y0, x1, y1 = boxes[k].tolist()
        labels, _ = ndimage.label(mask[y0:y1, x0:x1], structure=structure)
        # Only one component can touch all four sides of the box: two of them would have to cross.
        reaching = set(labels[0].tolist()) - {0}
        for side in (labels[-1], labels[:, 0], labels[:, -1]):
            reaching &= set(side.tolist())
        component = labels == reaching.pop()
        first = y0 * mask.shape[1] + x0 + int(component[0].argmax())
        if contours:
            filled = _background(component)[1:-1, 1:-1] != 1
            rank = (twice_polygon_area(filled), first)
        else:
            rank = (int(component.sum()), -first)
        if rank > best_rank:
            best, best_rank = k, rank
    return best


def twice_polygon_area(mask: np.ndarray) -> int:
    """Return twice the area, in square pixels, that the pixel centres of an (H, W) bool mask span.

    In each square of 2 x 2 neighbours, four mask pixels span an area of 1, three an area of 1/2,
    fewer none.
    """
    count = mask[:-1].astype(np.uint8) + mask[1:]
    count = count[:, :-1] + count[:, 1:]
    return 2 * int((count == 4).sum()) + int((count == 3).sum())


def _background(mask: np.ndarray) -> np.ndarray:
    """Label the 4-connected background of an (H, W) mask after padding it by 1 pixel.

    Returns:
        (H + 2, W + 2) integers: 0 is the mask, 1 the outside, 2 and above its holes.
    """
    return ndimage.label(np.pad(~mask, 1, constant_values=True))[0]


def _boxes(slices: list[tuple[slice, slice]]) -> np.ndarray:
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in slices]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _structure(protocol: Protocol) -> np.ndarray:
    return ndimage.generate_binary_structure(2, 2 if protocol.connectivity == 8 else 1)
