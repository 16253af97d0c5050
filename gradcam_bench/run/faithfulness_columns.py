"""Compute the faithfulness columns of a batch's rows from its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcam_bench.cam.upsampling import upsample
from gradcam_bench.faithfulness.curves import Options, area_under_curve, deletion_and_insertion
from gradcam_bench.faithfulness.masked import confidence
from gradcam_bench.faithfulness.road import road
from gradcam_bench.faithfulness.target_scores import Explained, TargetScores
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.names import Cell, Row
from gradcam_bench.run.classification_columns import UNDEFINED

# Maps that are perturbed together; all maps of one image always are. Each needs some 40 bytes per
# pixel (the map, its order, its ranks), so these take 260 MB at 224 x 224.
PERTURBED_MAPS = 128


@dataclass(frozen=True)
class FaithfulnessColumns:
    """Scores maps by deletion, insertion and their kin.

    Attributes:
        scores: gives the network's score of one class per image.
        preprocessing: how the network's input is normalised.
        options: the choices behind the deletion and insertion curves.
        follow_label: whether the label's map and score are followed, not the predicted class's.
        road: whether ROAD is computed, too.
    """

    scores: TargetScores
    preprocessing: Preprocessing
    options: Options
    follow_label: bool = False
    road: bool = False

    def __call__(
        self, x: Tensor, maps: Mapping[Cell, Tensor], targets: Tensor, image_ids: Sequence[str]
    ) -> list[list[Row]]:
        """Return the columns of every cell of every image.

        Args:
            x: images, (N, 3, H, W), normalised.
            maps: signed maps of the images, (N, h, w), by cell.
            targets: class whose score is followed, one per image, or `UNDEFINED`, (N,) int64.
            image_ids: ids of the images, N of them.
        """
        together = max(PERTURBED_MAPS // len(maps), 1)
        rows: list[list[Row]] = []
        for begin in range(0, len(x), together):
            part = slice(begin, begin + together)
            some = {cell: found[part] for cell, found in maps.items()}
            rows += self._of_some(x[part], some, targets[part], image_ids[part])
        return rows

    def _of_some(
        self, x: Tensor, maps: Mapping[Cell, Tensor], targets: Tensor, image_ids: Sequence[str]
    ) -> list[list[Row]]:
        size = (x.shape[-2], x.shape[-1])
        stacked = torch.stack([upsample(found.relu(), size) for found in maps.values()], dim=1)
        # A map that is not finite (its gradients were not) gives no order of pixels, and without a
        # predicted class there is no score to follow: these scores are undefined.
        defined = torch.isfinite(stacked).all(-1).all(-1) & (targets != UNDEFINED)[:, None]
        usable = torch.nan_to_num(stacked, nan=0.0, posinf=0.0, neginf=0.0)
        scores, curves = self._metrics(Explained(x, usable, targets.clamp(min=0), image_ids))
        values = {
            name: score.where(defined & score.isfinite(), torch.nan).tolist()
            for name, score in scores.items()
        }
        values |= {
            name: curve.where(defined[..., None] & curve.isfinite(), torch.nan).tolist()
            for name, curve in curves.items()
        }
        n, m = defined.shape
        return [
            [{name: found[i][c] for name, found in values.items()} for c in range(m)]
            for i in range(n)
        ]

    def _metrics(self, explained: Explained) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the scores (N, M) and the curves (N, M, P) by column."""
        curves = deletion_and_insertion(explained, self.scores, self.preprocessing, self.options)
        scores = {
            "deletion_auc": area_under_curve(curves.deletion),
            "insertion_auc": area_under_curve(curves.insertion),
            **confidence(explained, self.scores),
        }
        if self.road:
            options = self.options
            scores |= road(explained, self.scores, ties=options.ties, seed=options.seed)
        return scores, {"deletion_curve": curves.deletion, "insertion_curve": curves.insertion}
