"""One batch to rows: a forward, a backward per class asked for, every layer, method and score."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gradcam_bench import localization
from gradcam_bench.faithfulness import Perturber, area_under_curve
from gradcam_bench.feed import Batch, Item
from gradcam_bench.gradcam import GradCAM
from gradcam_bench.heatmap import heatmaps, upsample
from gradcam_bench.max_box_acc import hit_bits, sweep
from gradcam_bench.methods import CONTROL_LAYER, CONTROLS, METHODS, center_map, random_map
from gradcam_bench.models import Preprocessing
from gradcam_bench.protocols import Protocol
from gradcam_bench.pxap import score_histogram, to_bytes

Cell = tuple[str, str]  # (method, layer)
Row = dict[str, Any]
GALLERY_MAP = 28  # side of the largest map kept for the gallery


class Evaluation:
    """Everything that turns a batch into rows.

    Args:
        cam: Grad-CAM on the layers of the run.
        preprocessing: of the network's input.
        memory_format: the layout of the network's input.
        methods: names from `METHODS` and `CONTROLS`.
        protocols: by name; the first gives the columns without a suffix, further ones `@name`.
        faithfulness: deletion, insertion and their kin, or None.
        follow_label: faithfulness follows the label instead of the prediction.
        road: ROAD too.
        seed: of everything random.
        device: of the network.
    """

    def __init__(
        self,
        cam: GradCAM,
        preprocessing: Preprocessing,
        *,
        memory_format: torch.memory_format = torch.channels_last,
        methods: Sequence[str],
        protocols: Sequence[Protocol],
        faithfulness: Perturber | None,
        follow_label: bool = False,
        road: bool = False,
        seed: int,
        device: torch.device,
    ) -> None:
        self.cam, self.preprocessing, self.faithfulness = cam, preprocessing, faithfulness
        self.protocols, self.seed, self.device = protocols, seed, device
        self.follow_label, self.road, self.memory_format = follow_label, road, memory_format
        self.methods = [name for name in methods if name in METHODS]
        self.controls = [name for name in methods if name in CONTROLS]
        # Protocols that need the same heatmap share it, and those that sweep share its level sets.
        groups: dict[tuple[str, str, str], list[Protocol]] = {}
        for protocol in protocols:
            key = (protocol.relu, protocol.upsampling, protocol.normalization)
            groups.setdefault(key, []).append(protocol)
        self.groups = list(groups.values())
        # PxAP asks for the values alone, so the protocols that sweep share one, of the first's map.
        self.ranked = next((protocol for protocol in protocols if protocol.swept), None)
        self.cells: list[Cell] = [
            *((method, layer) for method in self.methods for layer in cam.layers),
            *((control, CONTROL_LAYER) for control in self.controls),
        ]

    def __call__(self, batch: Batch, keep: set[int]) -> tuple[list[list[Row]], list[Row]]:
        """Score a batch.

        Args:
            batch: from `feed.batches`.
            keep: indices of the images to keep for the gallery.

        Returns:
            The rows of each item, in order, and the gallery's rows.
        """
        good = batch.good
        rows: dict[int, list[Row]] = {}
        gallery: list[Row] = []
        if good:
            images = batch.images.to(self.device, non_blocking=True)
            x = self.preprocessing.normalize(images).contiguous(memory_format=self.memory_format)
            logits = self.cam.forward(x)
            labels = torch.tensor([item.label for item in good], device=self.device)
            predicted = logits.argmax(1)
            located = self._maps(good, labels)
            followed = located
            targets = labels if self.follow_label else predicted
            if self.faithfulness and not torch.equal(labels, targets):
                followed = self._maps(good, targets)
            self.cam.release()
            rows = self._rows(good, logits, labels, predicted)
            self._localize(good, located, rows)
            if self.faithfulness:
                self._perturb(good, x, followed, targets, rows)
            kept = [i for i, item in enumerate(good) if item.index in keep]
            if kept:
                gallery = self._gallery(good, located, kept)
        for item in batch.items:
            if item.error is not None:
                rows[item.index] = [
                    {"image_id": item.image_id, "method": m, "layer": layer, "error": item.error}
                    for m, layer in self.cells
                ]
        return [rows[item.index] for item in batch.items], gallery

    def _maps(self, items: Sequence[Item], classes: Tensor) -> dict[Cell, Tensor]:
        """Return the signed maps (N, h, w) of every cell for one class per image."""
        maps: dict[Cell, Tensor] = {}
        if self.methods:
            self.cam.backward(classes)
        tensors = list(zip(self.cam.layers, self.cam.activations, self.cam.gradients, strict=False))
        for method in self.methods:
            for layer, activations, gradients in tensors:
                maps[method, layer] = METHODS[method](activations, gradients)
        size = (self.preprocessing.size, self.preprocessing.size)
        for control in self.controls:
            if control == "random":
                control_map = random_map([item.image_id for item in items], self.seed)
            else:
                control_map = center_map(len(items), size)
            maps[control, CONTROL_LAYER] = control_map.to(self.device)
        return maps

    def _rows(
        self, items: Sequence[Item], logits: Tensor, labels: Tensor, predicted: Tensor
    ) -> dict[int, list[Row]]:
        top5 = logits.topk(min(5, logits.shape[1]), dim=1).indices
        in_top5 = (top5 == labels[:, None]).any(1).tolist()
        probability = logits.softmax(1).amax(1).tolist()
        rows = {}
        for i, item in enumerate(items):
            guess = int(predicted[i])
            assert item.boxes is not None
            covered = localization.boxes_to_mask(item.boxes, item.size)
            common = {
                "image_id": item.image_id,
                "label": item.label,
                "predicted": guess,
                "predicted_prob": probability[i],
                "top1_correct": float(guess == item.label),
                "top5_correct": float(in_top5[i]),
                "object_area": float(covered.mean()),
                "error": None,
            }
            rows[item.index] = [{**common, "method": m, "layer": layer} for m, layer in self.cells]
        return rows

    def _localize(
        self, items: Sequence[Item], maps: dict[Cell, Tensor], rows: dict[int, list[Row]]
    ) -> None:
        size = (self.preprocessing.size, self.preprocessing.size)
        for c, cell in enumerate(self.cells):
            raw = maps[cell]
            for protocols in self.groups:
                found = heatmaps(raw, size, protocols[0]).cpu().numpy()
                for heatmap, item in zip(found, items, strict=True):
                    row = rows[item.index][c]
                    swept = [protocol for protocol in protocols if protocol.swept]
                    row.update(_swept_scores(heatmap, item, swept))
                    if item.mask is not None and self.ranked in protocols:
                        row["pxap_counts"] = to_bytes(score_histogram(heatmap, item.mask))
                    for protocol in protocols:
                        if not protocol.swept:
                            suffix = "" if protocol is self.protocols[0] else f"@{protocol.name}"
                            row.update(_box_scores(heatmap, item, protocol, row, suffix))
            positive = upsample(raw.relu(), size).cpu().numpy()
            low = raw.relu().cpu()
            for i, (heatmap, item) in enumerate(zip(positive, items, strict=True)):
                rows[item.index][c].update(_region_scores(heatmap, low[i], item))

    def _perturb(
        self,
        items: Sequence[Item],
        x: Tensor,
        maps: dict[Cell, Tensor],
        targets: Tensor,
        rows: dict[int, list[Row]],
    ) -> None:
        assert self.faithfulness is not None
        size = (self.preprocessing.size, self.preprocessing.size)
        stacked = torch.stack([upsample(maps[cell].relu(), size) for cell in self.cells], dim=1)
        finite = torch.isfinite(stacked).all(-1).all(-1)
        # A map that is not finite (its gradients were not) orders nothing: all undefined.
        usable = torch.nan_to_num(stacked, nan=0.0, posinf=0.0, neginf=0.0)
        ids = [item.image_id for item in items]
        curves = self.faithfulness.curves(x, usable, targets, ids)
        scores = {
            "deletion_auc": area_under_curve(curves.deletion),
            "insertion_auc": area_under_curve(curves.insertion),
            **self.faithfulness.confidence(x, usable, targets),
        }
        if self.road:
            scores |= self.faithfulness.road(x, usable, targets, ids)
        values = {
            name: score.where(finite, torch.nan).cpu().numpy() for name, score in scores.items()
        }
        points = {
            f"{name}_curve": curve.where(finite[..., None], torch.nan).cpu().numpy()
            for name, curve in (("deletion", curves.deletion), ("insertion", curves.insertion))
        }
        for i, item in enumerate(items):
            for c, row in enumerate(rows[item.index]):
                row.update({name: float(value[i, c]) for name, value in values.items()})
                row.update({name: value[i, c].tolist() for name, value in points.items()})

    def _gallery(
        self, items: Sequence[Item], maps: dict[Cell, Tensor], kept: Sequence[int]
    ) -> list[Row]:
        gallery = []
        for i in kept:
            item = items[i]
            assert item.image is not None
            assert item.boxes is not None
            buffer = io.BytesIO()
            Image.fromarray(item.image).save(buffer, "JPEG", quality=88)
            for cell in self.cells:
                low = torch.nan_to_num(maps[cell][i].relu())
                if max(low.shape) > GALLERY_MAP:
                    low = F.adaptive_avg_pool2d(low[None], GALLERY_MAP)[0]
                top = float(low.max())
                levels = (low / top * 255).round() if top > 0 else torch.zeros_like(low)
                gallery.append(
                    {
                        "image_id": item.image_id,
                        "method": cell[0],
                        "layer": cell[1],
                        "jpeg": buffer.getvalue(),
                        "boxes": item.boxes.tolist(),
                        "heatmap": levels.to(torch.uint8).cpu().numpy().tobytes(),
                        "heatmap_h": low.shape[0],
                        "heatmap_w": low.shape[1],
                    }
                )
        return gallery


def _swept_scores(heatmap: np.ndarray, item: Item, protocols: Sequence[Protocol]) -> Row:
    """Return what one heatmap (H, W) hits at each of its 256 levels, per protocol."""
    assert item.boxes is not None
    scores: Row = {}
    if protocols:
        for protocol, swept in zip(protocols, sweep(heatmap, item.boxes, protocols), strict=True):
            undefined = math.isnan(swept.best_iou[0])
            hits = None if undefined else hit_bits(swept.best_iou, protocol).tobytes()
            scores[f"iou_hits@{protocol.name}"] = hits
            scores[f"max_level@{protocol.name}"] = swept.max_level
    return scores


def _box_scores(heatmap: np.ndarray, item: Item, protocol: Protocol, row: Row, suffix: str) -> Row:
    """Return the columns of one heatmap (H, W) under a protocol with one threshold."""
    assert item.boxes is not None
    found = localization.localize(heatmap, item.boxes, protocol)
    hit = math.nan
    if not math.isnan(found.box_iou):
        hit = float(found.box_iou >= protocol.iou_levels[0])
    box = [math.nan] * 4 if found.box is None else found.box.tolist()
    scores = {
        "degenerate": float(found.degenerate),
        "box_iou": found.box_iou,
        "gt_known_loc": hit,
        "top1_loc": hit * row["top1_correct"],
        "top5_loc": hit * row["top5_correct"],
        **dict(zip(("box_x0", "box_y0", "box_x1", "box_y1"), box, strict=True)),
    }
    if item.mask is not None:
        scores["mask_iou"] = localization.mask_iou(heatmap, item.mask, protocol)
    return {f"{name}{suffix}": value for name, value in scores.items()}


def _region_scores(heatmap: np.ndarray, low: Tensor, item: Item) -> Row:
    """Return the columns that need no protocol: pointing, energy, discrimination."""
    assert item.boxes is not None
    assert item.view_boxes is not None
    at_view = upsample(low[None], item.view)[0].numpy()
    scores: Row = {
        "pointing_hit": localization.pointing_hit(at_view, item.view_boxes),
        "energy_in_box": localization.energy_in_region(heatmap, item.boxes),
    }
    if item.mask is not None:
        own = localization.energy_in_region(heatmap, item.mask)
        scores["energy_in_mask"] = own
        if item.other_mask is not None:
            other = localization.energy_in_region(heatmap, item.other_mask)
            scores |= _discrimination(own, other)
    return scores


def _discrimination(own: float, other: float) -> Row:
    """Return whether, and by what share, the energy sits on the class asked for.

    A map with no energy on either object, or none at all, discriminates nothing: a miss, and its
    share is undefined (NaN).
    """
    if math.isnan(own) or math.isnan(other) or own + other == 0:
        return {"discrimination_hit": 0.0, "discrimination_share": math.nan}
    return {
        "discrimination_hit": float(own > other),
        "discrimination_share": own / (own + other),
    }
