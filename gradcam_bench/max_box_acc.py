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

from gradcam_bench import stats
from gradcam_bench.errors import UserError
from gradcam_bench.protocols import Protocol


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
            stats.threshold_hits(hits, max_level, bit=bit, thresholds=thresholds).mean(axis=0)
            for bit in range(len(protocol.iou_levels))
        ]
    )
    best = curve.max(axis=1)
    return BoxAccuracy(
        thresholds, curve, best, thresholds[curve.argmax(axis=1)], float(best.mean())
    )
