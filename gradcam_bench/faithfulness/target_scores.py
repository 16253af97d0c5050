"""The score of one class per image, in batches of bounded size: every metric here needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcam_bench.errors import one_of
from gradcam_bench.faithfulness.scorers import Scorer
from gradcam_bench.names import Score


@dataclass(frozen=True)
class Explained:
    """Images, maps of them, and the classes that the maps explain.

    Attributes:
        images: (N, 3, H, W), normalised.
        heatmaps: (N, M, H, W), finite and not negative: M maps of each image.
        targets: (N,) int64, the class whose score is followed, usually the predicted one.
        image_ids: ids of the images, N of them; with a run's seed they decide everything random.
    """

    images: Tensor
    heatmaps: Tensor
    targets: Tensor
    image_ids: Sequence[str]


@dataclass(frozen=True)
class TargetScores:
    """Scores images by the network's probability or logit of one class each.

    Attributes:
        scorer: turns images into logits.
        batch_size: images scored at a time; it bounds the memory.
    """

    scorer: Scorer
    batch_size: int = 32

    def __call__(self, images: Tensor, targets: Tensor, score: str = Score.probability) -> Tensor:
        """Return the target's score for each image, (N,) float32.

        Args:
            images: (N, 3, H, W), normalised; they are not written into.
            targets: class whose score is followed, one per image, (N,) int64.
            score: "probability" or "logit".
        """
        chunks = zip(images.split(self.batch_size), targets.split(self.batch_size), strict=True)
        return torch.cat([self.of_own(self.copy(x), t, score) for x, t in chunks])

    def of_own(self, images: Tensor, targets: Tensor, score: str) -> Tensor:
        """Return the target's score for each image of one batch, which may be written into.

        Args:
            images: (N, 3, H, W), or (1, 3, H, W) to score one image for N classes.
            targets: class whose score is followed, one per score, (N,) int64.
            score: "probability" or "logit".

        Raises:
            UserError: an unknown score.
        """
        kind = one_of(Score, score, "faithfulness.score")
        logits = self.scorer(images)
        scores = logits.softmax(1) if kind is Score.probability else logits
        return scores.expand(len(targets), -1).gather(1, targets[:, None])[:, 0]

    def copy(self, images: Tensor) -> Tensor:
        """Return a copy of images in the memory layout that the scorer takes without a copy."""
        return images.clone(memory_format=self.scorer.memory_format)
