"""Turn one batch into rows: a forward, a backward per class, every layer, method and score."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradcam_bench.names import Cell, Row
from gradcam_bench.run.batches import Batch, Item
from gradcam_bench.run.classification_columns import (
    classification_columns,
    error_columns,
    predicted_classes,
)
from gradcam_bench.run.faithfulness_columns import FaithfulnessColumns
from gradcam_bench.run.gallery import gallery_rows
from gradcam_bench.run.localization_columns import MapScores
from gradcam_bench.run.maps import CellMaps, Input
from gradcam_bench.run.workers import Located


@dataclass
class Scored:
    """A batch with all that the device computes; localization may still be under way.

    Attributes:
        items: the batch's items, in their order, broken ones included.
        kept: the rows of each item so far, by the item's index.
        gallery: the rows of the pictures that are kept for the gallery.
        located: the columns that localization adds to the rows of the items that are not broken.
    """

    items: list[Item]
    kept: dict[int, list[Row]]
    gallery: list[Row]
    located: Located

    def rows(self) -> list[list[Row]]:
        """Wait for localization and return the rows of each item, in order."""
        good = [item for item in self.items if item.error is None]
        for item, found in zip(good, self.located.result(), strict=True):
            for row, scores in zip(self.kept[item.index], found, strict=True):
                row.update(scores)
                for name in [name for name in scores if name.startswith("gt_known_loc")]:
                    for top in ("top1", "top5"):
                        column = name.replace("gt_known", top)
                        row[column] = scores[name] * row[f"{top}_correct"]
        return [self.kept[item.index] for item in self.items]


@dataclass
class Evaluation:
    """Everything that turns a batch into rows.

    Attributes:
        to_input: turns images into the network's input.
        cell_maps: computes the maps of every method, layer and control.
        localization: computes the maps' localization columns under the protocols of the run.
        faithfulness: computes their columns of deletion, insertion and the like; None: left out.
        pool: processes that localize while the device computes the next batch; None: this process
            localizes before it goes on.
    """

    to_input: Input
    cell_maps: CellMaps
    localization: MapScores
    faithfulness: FaithfulnessColumns | None
    pool: Executor | None = None

    def __call__(self, batch: Batch, keep: set[int]) -> Scored:
        """Score a batch.

        Args:
            batch: one batch of `batches.batches`.
            keep: indices, in the data set, of the images to keep for the gallery.
        """
        broken = {
            item.index: self._per_cell(error_columns(item))
            for item in batch.items
            if item.error is not None
        }
        scored = Scored(batch.items, broken, [], Located.now([]))
        if batch.good:
            self._score(batch, keep, scored)
        return scored

    def _score(self, batch: Batch, keep: set[int], scored: Scored) -> None:
        good, cam = batch.good, self.cell_maps.cam
        ids = [item.image_id for item in good]
        x = self.to_input(batch.images)
        logits = cam.forward(x)
        labels = torch.tensor([item.label for item in good], device=x.device)
        maps = followed = self.cell_maps(ids, labels)
        targets = labels
        if self.faithfulness and not self.faithfulness.follow_label:
            targets = predicted_classes(logits)
            if not torch.equal(labels, targets):
                followed = self.cell_maps(ids, targets.clamp(min=0))
        cam.release()
        scored.located = self._located(good, maps)
        for item, columns in zip(good, classification_columns(good, logits, labels), strict=True):
            scored.kept[item.index] = self._per_cell(columns)
        if self.faithfulness:
            found = self.faithfulness(x, followed, targets, ids)
            for item, cells in zip(good, found, strict=True):
                for row, columns in zip(scored.kept[item.index], cells, strict=True):
                    row.update(columns)
        for i, item in enumerate(good):
            if item.index in keep:
                scored.gallery += gallery_rows(item, {cell: maps[cell][i] for cell in maps})

    def _per_cell(self, columns: Row) -> list[Row]:
        """Return a row per cell with the columns that all of them share."""
        return [
            {**columns, "method": method, "layer": layer} for method, layer in self.cell_maps.cells
        ]

    def _located(self, items: Sequence[Item], maps: dict[Cell, Tensor]) -> Located:
        """Start localizing the maps; the images, which are large and not needed, are left out."""
        bare = [replace(item, image=None) for item in items]
        low = {cell: found.float().cpu() for cell, found in maps.items()}
        if self.pool is None:
            return Located.now(self.localization(bare, low))
        return Located(self.pool.submit(self.localization, bare, low).result)
