"""MaxBoxAcc: box accuracy at the threshold that is best for the whole set of images.

A protocol with threshold rule "oracle" compares the 8-bit map floor(255 * heatmap) with the integer
part of t * max, for the thresholds t = 0, interval, 2 * interval, ... < 1. Whatever the interval,
that integer, the *level*, takes at most 256 values. It is therefore enough to know the IoU of an
image's box at each level. It is stored in 256 bytes, one per level: bit k of a byte says whether
the IoU at that level reaches the protocol's k-th IoU level (e.g. 0.5).

References:
    Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020
    (MaxBoxAcc), and TPAMI 2022 (MaxBoxAccV2). Departure: a degenerate heatmap (nowhere positive, or
    not finite) is a miss at every threshold; the authors' code gives it the box (0, 0, 0, 0), which
    is a miss too, unless the ground truth is a pixel or two in the top left corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import Protocol


@dataclass(frozen=True)
class BoxAccuracy:
    """Box accuracy of a set of images, for L IoU levels and T thresholds.

    Attributes:
        thresholds: (T,) float64 in [0, 1), ascending shares of each map's maximum.
        curve: (L, T) float64 in [0, 1], the share of images whose box reaches the IoU level.
        best: (L,) float64 in [0, 1], the accuracy at the best threshold of each IoU level.
        best_threshold: (L,) float64, the lowest threshold that reaches `best`.
        value: MaxBoxAcc or MaxBoxAccV2, the mean of `best`.
    """

    thresholds: np.ndarray
    curve: np.ndarray
    best: np.ndarray
    best_threshold: np.ndarray
    value: float


def hit_bits(best_iou: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return at which 8-bit levels an image's box is a hit, as (256,) uint8.

    Args:
        best_iou: (256,) float64 in [0, 1], IoU of the image's box at each level.
        protocol: bit k says whether the IoU is at least its `iou_levels[k]`.
    """
    reached = best_iou[:, None] >= np.array(protocol.iou_levels)
    return np.packbits(reached, axis=1, bitorder="little")[:, 0]


def max_box_acc(hits: np.ndarray, max_level: np.ndarray, protocol: Protocol) -> BoxAccuracy:
    """Return the box accuracy of N images at every threshold, and at the best of them.

    Args:
        hits: (N, 256) uint8, one row of `hit_bits` per image that has ground truth.
        max_level: (N,) largest value of each image's 8-bit map, 0 to 255.
        protocol: gives the thresholds and IoU levels. Where its threshold is fixed, the best is the
            accuracy at that one.

    Raises:
        UserError: there is no image (N = 0).
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
    """Return the 8-bit level at which each threshold cuts each image's map.

    Args:
        max_level: (n,) largest value of each image's 8-bit map.
        thresholds: (T,) in [0, 1), shares of that maximum.

    Returns:
        (n, T) int64 in 0..255, threshold times maximum, rounded down.
    """
    return (thresholds[None, :] * np.asarray(max_level)[:, None]).astype(np.int64)


def threshold_hits(
    iou_hits: np.ndarray, max_level: np.ndarray, *, bit: int, thresholds: np.ndarray
) -> np.ndarray:
    """Return whether each image's box reaches one IoU level at each threshold: (n, T) bool.

    Args:
        iou_hits: (n, 256) uint8; bit `bit` of [i, v] says whether the box of image i reaches that
            IoU level when its 8-bit map is thresholded at level v.
        max_level: (n,) largest value of each image's 8-bit map.
        bit: index of the IoU level in the protocol's `iou_levels`.
        thresholds: (T,) in [0, 1), shares of the map's maximum.
    """
    hits = (np.asarray(iou_hits) & (1 << bit)).astype(bool)
    found = np.empty((len(hits), len(thresholds)), dtype=bool)
    # Nearly all maps have the maximum 255 (degenerate ones 0), so the images are handled in a few
    # groups of equal maximum, in which a threshold means the same level.
    for top in np.unique(max_level):
        images = np.flatnonzero(np.asarray(max_level) == top)
        levels = threshold_levels(np.array([top]), thresholds)[0]
        found[images] = hits[np.ix_(images, levels)]
    return found


def distinct_thresholds(max_level: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the thresholds at which at least one image's level changes.

    All others give the same boxes as the threshold before them. The first is always returned.

    Args:
        max_level: (n,) largest value of each image's 8-bit map.
        thresholds: (T,) in [0, 1), ascending.
    """
    levels = threshold_levels(np.unique(max_level), thresholds)
    return thresholds[np.r_[True, (levels[:, 1:] != levels[:, :-1]).any(axis=0)]]


def distinct_hits(
    iou_hits: np.ndarray, max_level: np.ndarray, *, levels: int, interval: float
) -> list[np.ndarray]:
    """Return the `threshold_hits` of each IoU level, at its distinct thresholds only.

    Args:
        iou_hits: (n, 256) uint8, as in `threshold_hits`.
        max_level: (n,) largest value of each image's 8-bit map.
        levels: number of IoU levels, counted from the first.
        interval: step between thresholds, which begin at 0.

    Returns:
        One (n, T) bool array per IoU level, with T the number of `distinct_thresholds`.
    """
    thresholds = distinct_thresholds(max_level, np.arange(0, 1, interval))
    return [
        threshold_hits(iou_hits, max_level, bit=bit, thresholds=thresholds) for bit in range(levels)
    ]
