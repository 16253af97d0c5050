"""One batch to rows: a forward, a backward per class asked for, every layer, method and score."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gradcam_bench.cam.controls import center_map, random_map
from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.cam.methods import layer_method
from gradcam_bench.cam.upsampling import upsample
from gradcam_bench.faithfulness.curves import Perturber, area_under_curve
from gradcam_bench.localization import boxes
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.names import CONTROL_LAYER, CONTROLS, Cell, Row
from gradcam_bench.run.batches import Batch, Item
from gradcam_bench.run.gallery import GALLERY_MAP
from gradcam_bench.run.localization_columns import MapScores
from gradcam_bench.run.workers import Located

# Maps perturbed together; an image's own stay together. Each takes some 40 bytes a pixel (the map,
# its order, its ranks): 260 MB at 224 x 224.
PERTURBED_MAPS = 128

UNDEFINED = -1  # the prediction of an image whose probabilities are not finite


@dataclass
class Scored:
    """A batch that the device is done with.

    Attributes:
        items: as they came.
        gallery: the gallery's rows.
        kept: the rows of each item so far, by index.
        located: what localization adds to the rows of the good items, when it is there.
    """

    items: list[Item]
    gallery: list[Row]
    kept: dict[int, list[Row]]
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


class Evaluation:
    """Everything that turns a batch into rows.

    Args:
        cam: Grad-CAM on the layers of the run.
        preprocessing: of the network's input.
        memory_format: the layout of the network's input.
        methods: methods and controls, as `methods=` names them.
        protocols: by name; the first gives the columns without a suffix, further ones `@name`.
        faithfulness: deletion, insertion and their kin, or None.
        follow_label: faithfulness follows the label instead of the prediction.
        road: ROAD too.
        seed: of everything random.
        device: of the network.
        pool: processes that localize while the device goes on, or None: here and now.
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
        pool: Executor | None = None,
    ) -> None:
        self.cam, self.preprocessing, self.faithfulness = cam, preprocessing, faithfulness
        self.seed, self.device, self.pool = seed, device, pool
        self.map_scores = MapScores(protocols, (preprocessing.size, preprocessing.size))
        self.follow_label, self.road, self.memory_format = follow_label, road, memory_format
        self.methods = [name for name in methods if name not in CONTROLS]
        self.controls = [name for name in methods if name in CONTROLS]
        self.cells: list[Cell] = [
            *((method, layer) for method in self.methods for layer in cam.layers),
            *((control, CONTROL_LAYER) for control in self.controls),
        ]

    def __call__(self, batch: Batch, keep: set[int]) -> Scored:
        """Score a batch.

        Args:
            batch: from `feed.batches`.
            keep: indices of the images to keep for the gallery.
        """
        good = batch.good
        scored = Scored(batch.items, [], {}, Located.now([]))
        for item in batch.items:
            if item.error is not None:
                scored.kept[item.index] = [
                    {"image_id": item.image_id, "method": m, "layer": layer, "error": item.error}
                    for m, layer in self.cells
                ]
        if not good:
            return scored
        images = batch.images.to(self.device, non_blocking=True)
        x = self.preprocessing.normalize(images).contiguous(memory_format=self.memory_format)
        logits = self.cam.forward(x)
        labels = torch.tensor([item.label for item in good], device=self.device)
        predicted = _predicted(logits)
        maps = self._maps(good, labels)
        followed = maps
        targets = labels if self.follow_label else predicted
        if self.faithfulness and not torch.equal(labels, targets):
            followed = self._maps(good, targets.clamp(min=0))
        self.cam.release()
        scored.located = self._located(good, maps)
        scored.kept |= self._rows(good, logits, labels, predicted)
        if self.faithfulness:
            together = max(PERTURBED_MAPS // len(self.cells), 1)
            for begin in range(0, len(good), together):
                part = slice(begin, begin + together)
                some = {cell: found[part] for cell, found in followed.items()}
                self._perturb(good[part], x[part], some, targets[part], scored.kept)
        kept = [i for i, item in enumerate(good) if item.index in keep]
        if kept:
            scored.gallery = self._gallery(good, maps, kept)
        return scored

    def _located(self, items: Sequence[Item], maps: dict[Cell, Tensor]) -> Located:
        """Start localizing the maps, without the images, which are large and not looked at."""
        bare = [replace(item, image=None) for item in items]
        low = {cell: found.float().cpu() for cell, found in maps.items()}
        if self.pool is None:
            return Located.now(self.map_scores(bare, low))
        return Located(self.pool.submit(self.map_scores, bare, low).result)

    def _maps(self, items: Sequence[Item], classes: Tensor) -> dict[Cell, Tensor]:
        """Return the signed maps (N, h, w) of every cell for one class per image."""
        maps: dict[Cell, Tensor] = {}
        if self.methods:
            self.cam.backward(classes)
        tensors = list(zip(self.cam.layers, self.cam.activations, self.cam.gradients, strict=False))
        for method in self.methods:
            for layer, activations, gradients in tensors:
                maps[method, layer] = layer_method(method)(activations, gradients)
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
        in_top5 = (top5 == labels[:, None]).any(1)
        undefined = predicted == UNDEFINED
        top1_correct, top5_correct, probability = (
            values.float().masked_fill(undefined, torch.nan).tolist()
            for values in (predicted == labels, in_top5, logits.softmax(1).amax(1))
        )
        rows = {}
        for i, item in enumerate(items):
            assert item.boxes is not None
            covered = boxes.boxes_to_mask(item.boxes, item.size)
            common = {
                "image_id": item.image_id,
                "group": item.group,
                "label": item.label,
                "predicted": None if undefined[i] else int(predicted[i]),
                "predicted_prob": probability[i],
                "top1_correct": top1_correct[i],
                "top5_correct": top5_correct[i],
                "object_area": float(covered.mean()),
                "boxes_clipped": item.boxes_clipped,
                "error": None,
            }
            rows[item.index] = [{**common, "method": m, "layer": layer} for m, layer in self.cells]
        return rows

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
        # A map that is not finite (its gradients were not) orders nothing, and without a
        # prediction no score can be followed: all undefined.
        defined = torch.isfinite(stacked).all(-1).all(-1) & (targets != UNDEFINED)[:, None]
        targets = targets.clamp(min=0)
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
            name: score.where(defined & score.isfinite(), torch.nan).cpu().numpy()
            for name, score in scores.items()
        }
        points = {
            f"{name}_curve": curve.where(defined[..., None] & curve.isfinite(), torch.nan)
            .cpu()
            .numpy()
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


def _predicted(logits: Tensor) -> Tensor:
    """Return the predicted classes, (N,) int64; `UNDEFINED` where a logit is NaN or infinite.

    Minus infinity rules a class out and is a logit like any other, unless all are.
    """
    defined = logits.softmax(1).isfinite().all(1)
    return logits.argmax(1).masked_fill(~defined, UNDEFINED)
