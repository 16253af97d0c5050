"""MaxBoxAcc: the accuracy of boxes at every threshold of an 8-bit heatmap, and its best.

A protocol with threshold rule "oracle" compares floor(255 * heatmap) with the integer
part of t * max, t = 0, interval, 2 * interval, ... < 1. Whatever the interval, that integer takes
at most 256 values, so an image is described by the IoU of its box at each of these *levels*, and
stored as 256 bytes: bit k says that the IoU reaches the protocol's k-th level of IoU.

References:
    Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020
    (MaxBoxAcc), and TPAMI 2022 (MaxBoxAccV2). Departure: a nowhere-positive or not finite heatmap
    is a miss at every threshold; the authors' code gives it the box (0, 0, 0, 0), which is a miss
    too unless the ground truth is a pixel or two in the corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradcam_bench import stats
from gradcam_bench.contours import component_boxes, largest_component
from gradcam_bench.errors import UserError
from gradcam_bench.level_sets import LEVELS, Components, components, holes, padded_levels
from gradcam_bench.localization import (
    ground_truth,
    in_convention,
    iou,
    is_degenerate,
)
from gradcam_bench.protocols import Protocol

OUTLINE = np.array([-1, -1, 1, 1], dtype=np.int16)[:, None]  # a hole's contour runs around it


@dataclass(frozen=True)
class Sweep:
    """One heatmap under one protocol, at every level.

    Attributes:
        best_iou: (256,) float64, the best IoU at each level with any ground-truth box (and, of
            all contours, any contour); NaN without ground truth, 0 where there is no box.
        max_level: largest value of the 8-bit heatmap; 0 where it is degenerate.
    """

    best_iou: np.ndarray
    max_level: int


@dataclass(frozen=True)
class BoxAccuracy:
    """Accuracy against threshold over a set of images, L levels of IoU, T thresholds.

    Attributes:
        thresholds: (T,) float64 in [0, 1).
        curve: (L, T) float64 in [0, 1], the share of images whose box is right.
        best: (L,) float64, the accuracy at the best threshold.
        best_threshold: (L,) float64, the first threshold that reaches it.
        value: MaxBoxAcc or MaxBoxAccV2, the mean of `best`.
    """

    thresholds: np.ndarray
    curve: np.ndarray
    best: np.ndarray
    best_threshold: np.ndarray
    value: float


def sweep(heatmap: np.ndarray, boxes: np.ndarray, protocols: Sequence[Protocol]) -> list[Sweep]:
    """Score one heatmap at every level, for several protocols that share it.

    Args:
        heatmap: (H, W) float32, upsampled and normalised as the protocols say.
        boxes: (B, 4) float64, xyxy half-open, in the heatmap's frame.
        protocols: with equal `relu`, `upsampling` and `normalization`, and quantized.

    Raises:
        UserError: the protocols do not share a heatmap, or one does not quantize it.
    """
    if len({(p.relu, p.upsampling, p.normalization) for p in protocols}) > 1:
        names = ", ".join(repr(p.name) for p in protocols)
        raise UserError(f"sweep: protocols {names} need different heatmaps; sweep them one by one")
    for protocol in protocols:
        if not protocol.quantize:
            raise UserError(
                f"sweep: protocol {protocol.name!r} does not quantize; use localize instead"
            )
    fine = padded_levels(np.zeros(heatmap.shape) if is_degenerate(heatmap) else heatmap)
    max_level = int(fine.max())
    found = _LevelSets(fine)
    swept = []
    for protocol in protocols:
        truth = ground_truth(boxes, protocol)
        best = np.full(LEVELS, np.nan if not len(truth) else 0.0)
        if len(truth) and max_level:
            best = _best_iou(found, truth, protocol)
        swept.append(Sweep(best, max_level))
    return swept


def hit_bits(best_iou: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return (256,) uint8: bit k of each level says that the IoU reaches `iou_levels[k]`."""
    reached = best_iou[:, None] >= np.array(protocol.iou_levels)
    return np.packbits(reached, axis=1, bitorder="little")[:, 0]


def max_box_acc(hits: np.ndarray, max_level: np.ndarray, protocol: Protocol) -> BoxAccuracy:
    """Return the accuracy of N images at every threshold, and at the best of them.

    Args:
        hits: (N, 256) uint8 from `hit_bits`, of the images that have ground truth.
        max_level: (N,) largest 8-bit values.
        protocol: its thresholds and IoU levels. Where it fixes one threshold, that is the best.

    Raises:
        UserError: there is no image.
    """
    if not len(hits):
        raise UserError(f"max_box_acc under {protocol.name!r}: expected one image or more, got 0")
    thresholds = protocol.thresholds()
    curve = np.stack(
        [
            stats.threshold_hits(hits, max_level, bit=bit, thresholds=thresholds).mean(axis=0)
            for bit in range(len(protocol.iou_levels))
        ]
    )
    best = curve.max(axis=1)
    return BoxAccuracy(
        thresholds, curve, best, thresholds[curve.argmax(axis=1)], float(best.mean())
    )


class _LevelSets:
    """The level sets of one heatmap, each kind computed when first asked for."""

    def __init__(self, fine: np.ndarray) -> None:
        self.fine = fine
        self._components: dict[tuple[int, str], Components] = {}

    def components(self, protocol: Protocol) -> Components:
        """Return the components as the protocol connects and measures them."""
        size = "area" if protocol.finder == "contours" else "pixels"
        key = (protocol.connectivity, size)
        if key not in self._components:
            self._components[key] = components(
                self.fine, connectivity=protocol.connectivity, size=size
            )
        return self._components[key]

    @cached_property
    def holes(self) -> Components:
        """Return the holes, whose outlines are contours."""
        return holes(self.fine)


def _best_iou(level_sets: _LevelSets, truth: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return the best IoU at each level, (256,), of the boxes that the protocol draws there."""
    boxes, level = _boxes_by_level(level_sets, protocol)
    size = (level_sets.fine.shape[0] - 2, level_sets.fine.shape[1] - 2)
    inclusive = protocol.iou == "inclusive"
    best = np.zeros(LEVELS + 1)  # of {q >= level}
    shaped = in_convention(boxes.astype(np.float64).T, size, protocol)
    np.maximum.at(best, level, iou(shaped, truth, inclusive=inclusive).max(axis=1))
    if protocol.comparison == ">":
        return best[1:]
    whole = in_convention(component_boxes(np.ones(size, dtype=bool), protocol), size, protocol)
    best[0] = iou(whole, truth, inclusive=inclusive).max()
    return best[:-1]


def _boxes_by_level(level_sets: _LevelSets, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Return all boxes drawn at levels 1 to 255, half-open (4, K), and the level of each, (K,)."""
    found = level_sets.components(protocol)
    if protocol.component == "largest":
        return _largest(level_sets, found, protocol)
    if protocol.component == "foreground":
        level = np.flatnonzero(found.alive.any(axis=0))
        low = np.where(found.alive, found.boxes[:2], np.iinfo(np.int16).max).min(axis=1)
        high = np.where(found.alive, found.boxes[2:], -1).max(axis=1)
        return np.concatenate([low, high])[:, level], level
    boxes, level = found.boxes[:, found.alive], np.nonzero(found.alive)[1]
    if protocol.finder == "contours":
        outlines = level_sets.holes.boxes[:, level_sets.holes.alive] + OUTLINE
        boxes = np.concatenate([boxes, outlines], axis=1)
        level = np.concatenate([level, np.nonzero(level_sets.holes.alive)[1]])
    return boxes, level


def _largest(
    level_sets: _LevelSets, found: Components, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Return the box of the largest component at each level, (4, K), and the K levels.

    The area of a contour includes its holes, which `found.size` leaves out; what they add at most
    follows from boxes. Only where that leaves a choice, or sizes are equal, are pixels looked at:
    on Grad-CAM maps at one level in 100 maps.
    """
    level = np.arange(1, np.flatnonzero(found.alive.any(axis=0))[-1] + 1)  # 1 to the maximum
    levels = slice(1, len(level) + 1)
    alive = found.alive[:, levels]
    size = np.where(alive, found.size[:, levels], -1)
    most = size
    if protocol.finder == "contours":
        x0, y0, x1, y1 = level_sets.holes.boxes[:, :, levels].astype(np.int32)
        inside = 2 * (x1 - x0 + 1) * (y1 - y0 + 1) * level_sets.holes.alive[:, levels]
        x0, y0, x1, y1 = found.boxes[:, :, levels].astype(np.int32)
        most = np.minimum(size + inside.sum(axis=0), 2 * (x1 - x0 - 1) * (y1 - y0 - 1))
    winner = size.argmax(axis=0)
    rivals = (most >= size.max(axis=0)) & alive
    undecided = np.flatnonzero(rivals.sum(axis=0) > 1)
    if len(undecided):
        q = level_sets.fine[1:-1, 1:-1].astype(np.uint8)
        values = np.unique(q)
        decided: dict[int, int] = {}
        for k in undecided:
            value = int(values[np.searchsorted(values, level[k])])  # the same foreground
            if value not in decided:
                candidates = np.flatnonzero(rivals[:, k])
                boxes = found.boxes[:, candidates, level[k]].T.astype(np.int64)
                equal = bool((most[candidates, k] == size[candidates, k]).all())
                index = _decide(q >= value, boxes, protocol, equal=equal)
                decided[value] = int(candidates[index])
            winner[k] = decided[value]
    return found.boxes[:, winner, level], level


def _decide(mask: np.ndarray, boxes: np.ndarray, protocol: Protocol, *, equal: bool) -> int:
    """Return which component of a mask, by its box of (K, 4), is the largest; all may be equal."""
    considered = np.arange(len(boxes))
    if equal:  # the component whose first pixel in row-major order is the last, or first
        top = boxes[:, 1]
        considered = np.flatnonzero(
            top == (top.max() if protocol.finder == "contours" else top.min())
        )
    if len(considered) == 1:
        return int(considered[0])
    return int(considered[largest_component(mask, boxes[considered], protocol)])
