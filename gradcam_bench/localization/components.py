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
    """Return half-open xyxy boxes of a foreground, (H, W) bool, as the protocol picks them.

    Returns:
        (K, 4) float64; K is 1 unless `protocol.component` is "all", and 0 for an empty mask.
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
        boxes = np.concatenate([boxes, holes - np.array([2, 2, 0, 0])])  # 1 of them is the frame
    return boxes


def largest_component(mask: np.ndarray, boxes: np.ndarray, protocol: Protocol) -> int:
    """Return which of the components with these boxes, (K, 4) integers, is the largest.

    Contours are compared by cv2.contourArea. Of equal ones the first that cv2 returns counts: an
    outer border comes before what it encloses, and of components that lie apart the one whose
    first pixel in row-major order is the last. Labels are compared by their pixels, and the one
    with the first pixel counts.
    """
    contours, structure = protocol.finder == "contours", _structure(protocol)
    best, best_rank = -1, (-1, 0)
    bounds = 2 * (boxes[:, 2] - boxes[:, 0] - 1) * (boxes[:, 3] - boxes[:, 1] - 1)
    for k in np.argsort(-bounds, kind="stable").tolist():
        if contours and bounds[k] < best_rank[0]:
            break  # nor does any that follows enclose as much
        x0, y0, x1, y1 = boxes[k].tolist()
        labels, _ = ndimage.label(mask[y0:y1, x0:x1], structure=structure)
        # Only one component can reach all four sides: two would have to cross.
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
    """Return twice the area that the pixel centres of an (H, W) bool mask span.

    Of each square of four neighbours, four span an area of 1, three span 1/2, fewer none.
    """
    count = mask[:-1].astype(np.uint8) + mask[1:]
    count = count[:, :-1] + count[:, 1:]
    return 2 * int((count == 4).sum()) + int((count == 3).sum())


def _background(mask: np.ndarray) -> np.ndarray:
    """Label the background of an (H, W) mask in a frame of 1 pixel: 1 is outside, others holes."""
    return ndimage.label(np.pad(~mask, 1, constant_values=True))[0]


def _boxes(slices: list[tuple[slice, slice]]) -> np.ndarray:
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in slices]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _structure(protocol: Protocol) -> np.ndarray:
    return ndimage.generate_binary_structure(2, 2 if protocol.connectivity == 8 else 1)
