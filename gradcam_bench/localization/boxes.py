"""From a heatmap to a box, and how well box and heatmap agree with what is annotated.

Everything here takes one heatmap, (H, W) float, already upsampled, ReLU'd and normalised as the
protocol says, and boxes (B, 4) float64, xyxy half-open in the heatmap's own pixel coordinates,
clipped to its extent. Degenerate cases have one rule each:

- a heatmap that is nowhere positive, or holds NaN or infinity, is degenerate: it has no box, its
  box and mask IoU are 0, it misses the pointing game, and its energy is undefined (NaN);
- a heatmap with one positive value everywhere is foreground everywhere (under min-max
  normalisation it has already become all zeros, and is therefore degenerate);
- without ground-truth boxes (or with an empty mask) every score is undefined (NaN); a box without
  area, for example one that a crop cut off entirely, does not count as a box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradcam_bench.errors import UserError
from gradcam_bench.localization.components import component_boxes
from gradcam_bench.localization.protocol import Protocol


@dataclass(frozen=True)
class Localization:
    """The box a protocol draws for one heatmap.

    Attributes:
        degenerate: whether the heatmap is nowhere positive, or holds NaN or infinity.
        box: (4,) float64 in pixels, xyxy in the protocol's box convention; where the protocol draws
            several, the one that fits the ground truth best; None where the heatmap is degenerate.
        box_iou: IoU of `box` with the ground-truth box it overlaps most, in [0, 1]; NaN where
            there is no ground truth.
    """

    degenerate: bool
    box: np.ndarray | None
    box_iou: float


def is_degenerate(heatmap: np.ndarray) -> bool:
    """Return whether an (H, W) heatmap is nowhere positive, or holds NaN or infinity."""
    high = float(heatmap.max())
    return not (0 < high < math.inf and math.isfinite(float(heatmap.min())))


def quantized(heatmap: np.ndarray) -> np.ndarray:
    """Return floor(255 * heatmap) as (H, W) uint8, after clipping the heatmap to [0, 1].

    Bicubic upsampling overshoots, so that a normalised heatmap may leave [0, 1] a little.
    """
    fine = np.clip(heatmap, 0, 1, dtype=np.float32, casting="same_kind")
    fine *= 255
    return fine.astype(np.uint8)


def foreground(heatmap: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return the foreground of an (H, W) heatmap at the protocol's fixed threshold: (H, W) bool.

    Raises:
        UserError: the protocol has no fixed threshold, but sweeps it.
    """
    if protocol.threshold is None:
        raise UserError(
            f"protocol {protocol.name!r} has no single threshold (threshold_rule is "
            f"{protocol.threshold_rule!r}); sweep it, or give one with threshold=T"
        )
    if protocol.quantize:
        heatmap = quantized(heatmap)
        threshold: float = int(protocol.threshold * int(heatmap.max()))
    else:
        threshold = protocol.threshold * float(heatmap.max())
    return heatmap >= threshold if protocol.comparison == ">=" else heatmap > threshold


def boxes_from_heatmap(heatmap: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return the boxes that a protocol draws for an (H, W) heatmap: (K, 4) float64 xyxy pixels.

    K is 0 where the heatmap is degenerate; otherwise 1, unless `protocol.component` is "all".
    """
    if is_degenerate(heatmap):
        return np.zeros((0, 4))
    boxes = component_boxes(foreground(heatmap, protocol), protocol)
    return in_convention(boxes, heatmap.shape, protocol)


def box_from_heatmap(heatmap: np.ndarray, protocol: Protocol) -> np.ndarray | None:
    """Return the one box that a protocol draws for an (H, W) heatmap: (4,) float64 xyxy pixels.

    It is None where the heatmap is degenerate.

    Raises:
        UserError: the protocol draws one box per component, so there may be several.
    """
    if protocol.component == "all":
        raise UserError(
            f"protocol {protocol.name!r} draws a box per component (component: all); "
            "use boxes_from_heatmap, or component: largest"
        )
    boxes = boxes_from_heatmap(heatmap, protocol)
    return boxes[0] if len(boxes) else None


def in_convention(boxes: np.ndarray, size: tuple[int, ...], protocol: Protocol) -> np.ndarray:
    """Convert half-open boxes to the protocol's box convention.

    Args:
        boxes: (K, 4) xyxy in pixels, half-open.
        size: (H, W) of the heatmap in pixels.
        protocol: its `box` names the convention.

    Returns:
        (K, 4) xyxy in pixels.
    """
    if protocol.box == "half_open":
        return boxes
    height, width = size
    return np.minimum(boxes, [width - 1, height - 1, width - 1, height - 1])


def iou(boxes_a: np.ndarray, boxes_b: np.ndarray, *, inclusive: bool = False) -> np.ndarray:
    """Return the pairwise intersection over union, (A, B) float64 in [0, 1].

    Args:
        boxes_a: (A, 4) xyxy in pixels.
        boxes_b: (B, 4) xyxy in pixels.
        inclusive: whether the far corner belongs to the box, so that a width is x1 - x0 + 1.
    """
    ax0, ay0, ax1, ay1 = np.asarray(boxes_a, dtype=np.float64).reshape(-1, 4).T[:, :, None]
    bx0, by0, bx1, by1 = np.asarray(boxes_b, dtype=np.float64).reshape(-1, 4).T[:, None]
    if inclusive:
        ax1, ay1, bx1, by1 = ax1 + 1, ay1 + 1, bx1 + 1, by1 + 1
    width = np.maximum(np.minimum(ax1, bx1) - np.maximum(ax0, bx0), 0)
    height = np.maximum(np.minimum(ay1, by1) - np.maximum(ay0, by0), 0)
    intersection = width * height
    area_a = np.maximum(ax1 - ax0, 0) * np.maximum(ay1 - ay0, 0)
    area_b = np.maximum(bx1 - bx0, 0) * np.maximum(by1 - by0, 0)
    union = area_a + area_b - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def ground_truth(boxes: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return the annotated boxes that have an area, (B, 4) xyxy in pixels.

    Their corners are truncated to integers where `protocol.ground_truth` says so.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    return np.trunc(boxes) if protocol.ground_truth == "truncated" else boxes


def localize(heatmap: np.ndarray, boxes: np.ndarray, protocol: Protocol) -> Localization:
    """Draw the protocol's box for an (H, W) heatmap and compare it with (B, 4) annotations."""
    truth = ground_truth(boxes, protocol)
    found = boxes_from_heatmap(heatmap, protocol)
    if not len(found):
        return Localization(True, None, 0.0 if len(truth) else math.nan)
    if not len(truth):
        return Localization(False, found[0], math.nan)
    overlaps = iou(found, truth, inclusive=protocol.iou == "inclusive").max(axis=1)
    best = int(overlaps.argmax())
    return Localization(False, found[best], float(overlaps[best]))


def boxes_to_mask(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the union of (B, 4) xyxy boxes as an (H, W) bool mask; `size` is (H, W).

    A pixel belongs to a box that contains its centre, so a box with integer corners covers exactly
    its half-open range. A box too thin to contain a pixel centre covers the row or column of pixels
    that its middle falls in.
    """
    mask = np.zeros(size, dtype=bool)
    for region in pixel_regions(boxes, size):
        mask[region] = True
    return mask


def pixel_regions(boxes: np.ndarray, size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Return the rows and columns of pixels that each of (B, 4) xyxy boxes covers.

    `size` is (H, W); boxes that cover no pixel within it are left out.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    solid = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    regions = [(_pixels(y0, y1, size[0]), _pixels(x0, x1, size[1])) for x0, y0, x1, y1 in solid]
    return [(y, x) for y, x in regions if y.start < y.stop and x.start < x.stop]


def _pixels(start: float, stop: float, size: int) -> slice:
    """Return the pixels, within [0, size), whose centres lie in [start, stop).

    Where [start, stop) holds no centre, it is the pixel that its middle falls in.
    """
    first, last = math.ceil(start - 0.5), math.ceil(stop - 0.5)
    if first == last:
        first = math.floor((start + stop) / 2)
        last = first + 1
    return slice(max(first, 0), min(max(last, 0), size))
