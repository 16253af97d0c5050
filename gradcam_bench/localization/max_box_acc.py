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

from dataclasses import dataclass

import numpy as np

from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import Protocol


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
            threshold_hits(hits, max_level, bit=bit, thresholds=thresholds).mean(axis=0)
            for bit in range(len(protocol.iou_levels))
        ]
    )
    best = curve.max(axis=1)
    return BoxAccuracy(
        thresholds, curve, best, thresholds[curve.argmax(axis=1)], float(best.mean())
    )


def threshold_levels(max_level: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the 8-bit level that each threshold means for each image: its share of the maximum.

    Args:
        max_level: (n,) largest value of each 8-bit map.
        thresholds: (T,) in [0, 1).

    Returns:
        (n, T) int64, rounded down.
    """
    return (thresholds[None, :] * np.asarray(max_level)[:, None]).astype(np.int64)


def threshold_hits(
    iou_hits: np.ndarray, max_level: np.ndarray, *, bit: int, thresholds: np.ndarray
) -> np.ndarray:
    """Return whether each image's box is right at each threshold: (n, T) bool.

    Args:
        iou_hits: (n, 256) uint8; bit `bit` of [i, v] says that image i has a right box when its
            8-bit map is thresholded at level v.
        max_level: (n,) largest value of each 8-bit map.
        bit: which of the protocol's IoU levels.
        thresholds: (T,) shares of the maximum, in [0, 1).
    """
    hits = (np.asarray(iou_hits) & (1 << bit)).astype(bool)
    found = np.empty((len(hits), len(thresholds)), dtype=bool)
    # Few maxima differ (255 and, of flat maps, 0): whole columns at a time, not pixel by pixel.
    for top in np.unique(max_level):
        images = np.flatnonzero(np.asarray(max_level) == top)
        levels = threshold_levels(np.array([top]), thresholds)[0]
        found[images] = hits[np.ix_(images, levels)]
    return found


def distinct_thresholds(max_level: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return, of ascending thresholds, those that mean another level for some image."""
    levels = threshold_levels(np.unique(max_level), thresholds)
    return thresholds[np.r_[True, (levels[:, 1:] != levels[:, :-1]).any(axis=0)]]


def distinct_hits(
    iou_hits: np.ndarray, max_level: np.ndarray, *, levels: int, interval: float
) -> list[np.ndarray]:
    """Return `threshold_hits` of each of the first IoU levels, at the thresholds that differ.

    Args:
        iou_hits: (n, 256) uint8, as in `threshold_hits`.
        max_level: (n,) largest value of each 8-bit map.
        levels: how many IoU levels.
        interval: step of the thresholds, from 0.
    """
    thresholds = distinct_thresholds(max_level, np.arange(0, 1, interval))
    return [
        threshold_hits(iou_hits, max_level, bit=bit, thresholds=thresholds) for bit in range(levels)
    ]
