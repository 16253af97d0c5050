"""One heatmap at every threshold: the IoU of the boxes that protocols draw at each 8-bit level."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradcam_bench.errors import UserError
from gradcam_bench.localization.boxes import (
    ground_truth,
    in_convention,
    iou,
    is_degenerate,
    quantized,
)
from gradcam_bench.localization.component_tree import LEVELS, Components, components, holes
from gradcam_bench.localization.components import component_boxes, largest_component
from gradcam_bench.localization.protocol import Protocol

OUTLINE = np.array([-1, -1, 1, 1])  # added to a hole's box, gives the box of its contour


@dataclass(frozen=True)
class Sweep:
    """The scores of one heatmap under one protocol, at every 8-bit level.

    Attributes:
        best_iou: (256,) float64 in [0, 1], the largest IoU of any box drawn at each level with any
            ground-truth box; NaN without ground truth, 0 where no box is drawn.
        max_level: largest value of the 8-bit heatmap, 0 to 255; 0 where it is degenerate.
    """

    best_iou: np.ndarray
    max_level: int


def sweep(heatmap: np.ndarray, boxes: np.ndarray, protocols: Sequence[Protocol]) -> list[Sweep]:
    """Score one heatmap at every 8-bit level, under several protocols.

    Args:
        heatmap: (H, W) float32, upsampled and normalised as the protocols say.
        boxes: (B, 4) float64, the ground truth, half-open xyxy in the heatmap's pixel coordinates.
        protocols: each with `quantize`, and with equal `relu`, `upsampling` and `normalization`,
            so that the heatmap is the same for all.

    Returns:
        One `Sweep` per protocol, in their order.

    Raises:
        UserError: the protocols need different heatmaps, or one does not quantize it.
    """
    if len({(p.relu, p.upsampling, p.normalization) for p in protocols}) > 1:
        names = ", ".join(repr(p.name) for p in protocols)
        raise UserError(f"sweep: protocols {names} need different heatmaps; sweep them one by one")
    for protocol in protocols:
        if not protocol.quantize:
            raise UserError(
                f"sweep: protocol {protocol.name!r} does not quantize; use localize instead"
            )
    q = quantized(np.zeros(heatmap.shape) if is_degenerate(heatmap) else heatmap)
    level_sets = _LevelSets(q, boxes)
    max_level = int(q.max())
    swept = []
    for protocol in protocols:
        truth = ground_truth(boxes, protocol)
        best = np.full(LEVELS, np.nan if not len(truth) else 0.0)
        if len(truth) and max_level:
            best = _best_iou(level_sets, protocol)
        swept.append(Sweep(best, max_level))
    return swept


class _LevelSets:
    """The components and holes of one heatmap at every level, and their IoU with the ground truth.

    Each is computed when it is first asked for and then kept, as several protocols share it.

    Attributes:
        q: (H, W) uint8, the quantized heatmap.
        boxes: (B, 4) float64, the ground truth, half-open xyxy in pixels.
    """

    def __init__(self, q: np.ndarray, boxes: np.ndarray) -> None:
        self.q = q
        self.boxes = boxes
        self._known: dict[Hashable, Any] = {}

    def components(self, protocol: Protocol) -> Components:
        """Return the components, by the protocol's connectivity and its measure of size."""
        size = "area" if protocol.finder == "contours" else "pixels"
        return self._once(
            (protocol.connectivity, size),
            lambda: components(self.q, connectivity=protocol.connectivity, size=size),
        )

    def outlines(self) -> Components:
        """Return the holes, with the boxes of their contours, which run on the pixels around."""

        def outlined() -> Components:
            found = holes(self.q)
            return replace(found, boxes=found.boxes + OUTLINE)

        return self._once("outlines", outlined)

    def component_ious(self, protocol: Protocol) -> np.ndarray:
        """Return the best IoU of each component's box with a ground-truth box, (K,)."""
        return self._once(
            ("components", protocol.connectivity, *_convention(protocol)),
            lambda: self.ious(self.components(protocol).boxes, protocol),
        )

    def outline_ious(self, protocol: Protocol) -> np.ndarray:
        """Return the best IoU of each hole's contour's box with a ground-truth box, (K,)."""
        return self._once(
            ("outlines", *_convention(protocol)),
            lambda: self.ious(self.outlines().boxes, protocol),
        )

    def ious(self, boxes: np.ndarray, protocol: Protocol) -> np.ndarray:
        """Return the best IoU of each half-open box, (K, 4), with a ground-truth box: (K,)."""
        drawn = in_convention(boxes.astype(np.float64), self.q.shape, protocol)
        truth = ground_truth(self.boxes, protocol)
        return iou(drawn, truth, inclusive=protocol.iou == "inclusive").max(axis=1)

    def _once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def _convention(protocol: Protocol) -> tuple[str, str, str]:
    """Return the choices of a protocol on which the IoU of a box with the ground truth depends."""
    return protocol.box, protocol.iou, protocol.ground_truth


def _best_iou(level_sets: _LevelSets, protocol: Protocol) -> np.ndarray:
    """Return the best IoU at each level, (256,), of the boxes that the protocol draws there."""
    found = level_sets.components(protocol)
    best = np.zeros(LEVELS + 1)  # entry v is of the foreground {q >= v}
    if protocol.component == "largest":
        largest = _largest(level_sets, protocol)
        best[found.level[largest]] = level_sets.component_ious(protocol)[largest]
    elif protocol.component == "foreground":
        level, start = np.unique(found.level, return_index=True)
        low = np.minimum.reduceat(found.boxes[:, :2], start)
        high = np.maximum.reduceat(found.boxes[:, 2:], start)
        best[level] = level_sets.ious(np.concatenate([low, high], axis=1), protocol)
    else:
        np.maximum.at(best, found.level, level_sets.component_ious(protocol))
        if protocol.finder == "contours":
            np.maximum.at(best, level_sets.outlines().level, level_sets.outline_ious(protocol))
    if protocol.comparison == ">":
        return best[1:]
    whole = component_boxes(np.ones(level_sets.q.shape, dtype=bool), protocol)
    best[0] = level_sets.ious(whole, protocol).max()
    return best[:-1]


def _largest(level_sets: _LevelSets, protocol: Protocol) -> np.ndarray:
    """Return the index of the largest component at each level from 1 to the map's maximum.

    The area of a contour includes the component's holes, which `Components.size` leaves out. The
    boxes of the component and of the holes bound how much they can add. Only where these bounds
    leave several candidates, or several have equal sizes, are the pixels examined; among Grad-CAM
    maps that is one level in 100 maps.
    """
    found = level_sets.components(protocol)
    start = np.searchsorted(found.level, np.arange(1, found.level[-1] + 2))
    most = size = found.size
    if protocol.finder == "contours":
        inside = level_sets.outlines()
        added = np.bincount(inside.level, _spanned(inside.boxes), minlength=LEVELS)
        most = np.minimum(size + added[found.level], _spanned(found.boxes))
    largest_size = np.maximum.reduceat(size, start[:-1])[found.level - 1]
    at_top = np.flatnonzero(size == largest_size)
    winner = at_top[np.searchsorted(at_top, start[:-1])]
    rivals = most >= largest_size
    decided: dict[int, int] = {}
    for k in np.flatnonzero(np.add.reduceat(rivals, start[:-1], dtype=int) > 1).tolist():
        foreground = level_sets.q > k
        pixels = int(foreground.sum())
        if pixels not in decided:  # otherwise an earlier level had the same foreground
            candidates = start[k] + np.flatnonzero(rivals[start[k] : start[k + 1]])
            equal = bool((most[candidates] == size[candidates]).all())
            chosen = _decide(foreground, found.boxes[candidates], protocol, equal=equal)
            decided[pixels] = int(candidates[chosen] - start[k])
        winner[k] = start[k] + decided[pixels]
    return winner


def _spanned(boxes: np.ndarray) -> np.ndarray:
    """Return twice the area in square pixels that the pixel centres of (K, 4) boxes span: (K,)."""
    x0, y0, x1, y1 = boxes.T
    return 2 * (x1 - x0 - 1) * (y1 - y0 - 1)


def _decide(mask: np.ndarray, boxes: np.ndarray, protocol: Protocol, *, equal: bool) -> int:
    """Return the index of the largest of several candidate components of a mask.

    Args:
        mask: (H, W) bool, the foreground.
        boxes: (K, 4) int64, half-open xyxy in pixels, one box per candidate.
        protocol: its `finder` decides how sizes compare and ties are broken.
        equal: whether all candidates are known to have the same size.
    """
    considered = np.arange(len(boxes))
    if equal:  # the component that begins last (contours) or first (labels) in row-major order
        top = boxes[:, 1]
        considered = np.flatnonzero(
            top == (top.max() if protocol.finder == "contours" else top.min())
        )
    if len(considered) == 1:
        return int(considered[0])
    return int(considered[largest_component(mask, boxes[considered], protocol)])
