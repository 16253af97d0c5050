"""Compute the localization columns of a batch's rows from its maps.

These are pure functions of small arrays on the CPU, so that they may run in another process while
the device computes the next batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from gradcam_bench.cam.upsampling import upsample
from gradcam_bench.localization import boxes, energy, pointing
from gradcam_bench.localization.max_box_acc import hit_bits
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.localization.pxap import score_histogram, to_bytes
from gradcam_bench.localization.threshold_sweep import sweep
from gradcam_bench.names import Row
from gradcam_bench.run.batches import Item
from gradcam_bench.run.heatmaps import heatmaps


def _energy_in_box(heatmap: np.ndarray, item: Item) -> float:
    assert item.boxes is not None
    return energy.energy_in_region(heatmap, item.boxes)


MAP_COLUMNS: dict[str, Callable[[np.ndarray, Item], float]] = {"energy_in_box": _energy_in_box}
"""Columns computed from a heatmap (H, W), upsampled after ReLU, and the annotations, by name.

They depend on no protocol, and are NaN where undefined. A new one is added here and described in
store/schema.py.
"""


@dataclass(frozen=True)
class MapScores:
    """Scores maps under the protocols of a run.

    Attributes:
        protocols: the first gives the columns without a suffix, further ones `@name`.
        size: (H, W) of the network's input.
    """

    protocols: Sequence[Protocol]
    size: tuple[int, int]

    @cached_property
    def groups(self) -> list[list[Protocol]]:
        """The protocols in groups that threshold the same heatmap, so that it is computed once."""
        groups: dict[tuple[str, str, str], list[Protocol]] = {}
        for protocol in self.protocols:
            key = (protocol.relu, protocol.upsampling, protocol.normalization)
            groups.setdefault(key, []).append(protocol)
        return list(groups.values())

    @cached_property
    def ranked(self) -> Protocol | None:
        """The protocol whose heatmap PxAP ranks: the first that sweeps."""
        return next((protocol for protocol in self.protocols if protocol.swept), None)

    def __call__(self, items: Sequence[Item], maps: Mapping[Any, Tensor]) -> list[list[Row]]:
        """Return the columns of every cell of every item.

        Args:
            items: N of them, none broken; their images are not needed.
            maps: signed maps of the items, (N, h, w) on the CPU, by cell.
        """
        rows: list[list[Row]] = [[{} for _ in maps] for _ in items]
        for c, raw in enumerate(maps.values()):
            for protocols in self.groups:
                found = heatmaps(raw, self.size, protocols[0]).numpy()
                for heatmap, item, row in zip(found, items, rows, strict=True):
                    row[c].update(self._under(heatmap, item, protocols))
            low = raw.relu()
            positive = upsample(low, self.size).numpy()
            for i, (heatmap, item) in enumerate(zip(positive, items, strict=True)):
                rows[i][c].update(_region_scores(heatmap, low[i], item))
                for name, column in MAP_COLUMNS.items():
                    rows[i][c][name] = column(heatmap, item)
        return rows

    def _under(self, heatmap: np.ndarray, item: Item, protocols: Sequence[Protocol]) -> Row:
        """Return the columns of one heatmap (H, W) under protocols that share it."""
        row = _swept_scores(heatmap, item, [p for p in protocols if p.swept])
        if item.mask is not None and self.ranked in protocols:
            row["pxap_counts"] = to_bytes(score_histogram(heatmap, item.mask))
        for protocol in protocols:
            if not protocol.swept:
                suffix = "" if protocol is self.protocols[0] else f"@{protocol.name}"
                row |= _box_scores(heatmap, item, protocol, suffix)
        return row


def _swept_scores(heatmap: np.ndarray, item: Item, protocols: Sequence[Protocol]) -> Row:
    """Return which IoU levels a heatmap (H, W) reaches at its 256 thresholds, per protocol."""
    assert item.boxes is not None
    scores: Row = {}
    if protocols:
        for protocol, swept in zip(protocols, sweep(heatmap, item.boxes, protocols), strict=True):
            undefined = math.isnan(swept.best_iou[0])
            hits = None if undefined else hit_bits(swept.best_iou, protocol).tobytes()
            scores[f"iou_hits@{protocol.name}"] = hits
            scores[f"max_level@{protocol.name}"] = swept.max_level
    return scores


def _box_scores(heatmap: np.ndarray, item: Item, protocol: Protocol, suffix: str) -> Row:
    """Return the columns of one heatmap (H, W) under a protocol with one threshold."""
    assert item.boxes is not None
    found = boxes.localize(heatmap, item.boxes, protocol)
    hit = math.nan
    if not math.isnan(found.box_iou):
        hit = float(found.box_iou >= protocol.iou_levels[0])
    box = [math.nan] * 4 if found.box is None else found.box.tolist()
    scores = {
        "degenerate": float(found.degenerate),
        "box_iou": found.box_iou,
        "gt_known_loc": hit,
        **dict(zip(("box_x0", "box_y0", "box_x1", "box_y1"), box, strict=True)),
    }
    if item.mask is not None:
        scores["mask_iou"] = energy.mask_iou(heatmap, item.mask, protocol)
    return {f"{name}{suffix}": value for name, value in scores.items()}


def _region_scores(heatmap: np.ndarray, low: Tensor, item: Item) -> Row:
    """Return the columns that need no protocol: pointing, energy, discrimination."""
    assert item.boxes is not None
    assert item.view_boxes is not None
    at_view = upsample(low[None], item.view)[0].numpy()
    scores: Row = {"pointing_hit": pointing.pointing_hit(at_view, item.view_boxes)}
    if item.mask is not None:
        own = energy.energy_in_region(heatmap, item.mask)
        scores["energy_in_mask"] = own
        if item.other_mask is not None:
            other = energy.energy_in_region(heatmap, item.other_mask)
            seen = bool(item.mask.any() and item.other_mask.any())
            scores |= _discrimination(own, other, both_seen=seen)
    return scores


def _discrimination(own: float, other: float, *, both_seen: bool) -> Row:
    """Return whether, and by what share, the energy sits on the class asked for.

    A map without energy on either object does not discriminate: it is a miss, and its share is
    undefined (NaN). Where the network's input does not show both objects, there is nothing to
    discriminate: hit and share are undefined.

    Args:
        own: share of the map's energy on the object of the class asked for, in [0, 1] or NaN.
        other: share on the other object, in [0, 1] or NaN.
        both_seen: whether the network's input shows both objects.
    """
    if not both_seen:
        return {"discrimination_hit": math.nan, "discrimination_share": math.nan}
    if math.isnan(own) or math.isnan(other) or own + other == 0:
        return {"discrimination_hit": 0.0, "discrimination_share": math.nan}
    return {
        "discrimination_hit": float(own > other),
        "discrimination_share": own / (own + other),
    }
