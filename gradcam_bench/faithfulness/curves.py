"""Faithfulness: does the class score follow the map?

Deletion and insertion along the map's order of the pixels, the score of the image seen through the
map (average drop and its kin), and ROAD.

References:
    Petsiuk, Das and Saenko, RISE, BMVC 2018, section 4.1 and the authors' evaluation code;
    Chattopadhay et al., Grad-CAM++, WACV 2018, section 4.1; Rong et al., ROAD, ICML 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradcam_bench.cam.upsampling import normalize_by_max
from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness.baselines import (
    BASELINES,
    TIES,
    baseline,
    n_points,
    pixel_rank,
    progressively,
)
from gradcam_bench.faithfulness.road import road_images
from gradcam_bench.faithfulness.scorers import Scorer
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.seeds import image_rng

SCORES = ("probability", "logit")


@dataclass(frozen=True)
class Options:
    """The choices behind deletion and insertion; the defaults are RISE's.

    Attributes:
        steps: of a curve; ceil(H*W / steps) pixels a step.
        deletion_baseline: what deleted pixels become, one of `perturbation.BASELINES`.
        insertion_baseline: what insertion starts from.
        ties: the order of equal pixels, one of `perturbation.TIES`.
        score: "probability" (softmax) or "logit".

    Raises:
        UserError: an unknown choice, with the known ones.
    """

    steps: int = 28
    deletion_baseline: str = "zeros"
    insertion_baseline: str = "blur"
    ties: str = "stable"
    score: str = "probability"

    def __post_init__(self) -> None:
        choices = {
            "deletion_baseline": BASELINES,
            "insertion_baseline": BASELINES,
            "ties": TIES,
            "score": SCORES,
        }
        for key, known in choices.items():
            if getattr(self, key) not in known:
                raise UserError(
                    f"faithfulness.{key} expects one of {', '.join(known)}, "
                    f"got {getattr(self, key)!r}."
                )


@dataclass(frozen=True)
class Curves:
    """Class scores along the perturbation, of N images with M maps each.

    Attributes:
        deletion: (N, M, P) from the image to the baseline.
        insertion: (N, M, P) from the baseline to the image.
    """

    deletion: Tensor
    insertion: Tensor


def area_under_curve(curves: Tensor) -> Tensor:
    """Return (sum - first/2 - last/2) / (points - 1) of curves (..., P): the trapezoid rule."""
    ends = (curves[..., 0] + curves[..., -1]) / 2
    return (curves.sum(-1) - ends) / (curves.shape[-1] - 1)


class Perturber:
    """Scores perturbed images in full batches that do not stop at an image's border.

    Args:
        scorer: images to logits.
        preprocessing: of the images, for baselines defined in image space.
        options: of the curves.
        batch_size: images scored at a time; bounds the memory (batch_size * 3 * H * W floats).
        seed: of everything random, with the image's id.
    """

    def __init__(
        self,
        scorer: Scorer,
        preprocessing: Preprocessing,
        options: Options | None = None,
        *,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        self.scorer, self.preprocessing, self.options = scorer, preprocessing, options or Options()
        self.batch_size, self.seed = batch_size, seed
        self._all_zeros: Tensor | None = None
        self._buffer: Tensor | None = None

    def curves(
        self, images: Tensor, heatmaps: Tensor, targets: Tensor, image_ids: Sequence[str]
    ) -> Curves:
        """Score deletion and insertion.

        Points that curves share are scored once: the clean image and the baselines serve all maps
        of an image, and an all-zeros baseline serves the whole run.

        Args:
            images: (N, 3, H, W), normalised.
            heatmaps: (N, M, H, W), finite; only their order matters.
            targets: (N,) the class followed, usually the prediction on the clean image.
            image_ids: N of them.

        Returns:
            Probabilities or logits, float32, on the images' device.
        """
        n, m = heatmaps.shape[:2]
        options = self.options
        step, points = n_points((images.shape[-2], images.shape[-1]), options.steps)
        rank = pixel_rank(heatmaps, ties=options.ties, image_ids=image_ids, seed=self.seed)
        changes = (rank // step).to(torch.int32)
        removed, start = (
            baseline(
                name,
                images,
                preprocessing=self.preprocessing,
                image_ids=image_ids,
                seed=self.seed,
            )
            for name in (options.deletion_baseline, options.insertion_baseline)
        )
        deletion = torch.empty(n, m, points, device=images.device)
        insertion = torch.empty_like(deletion)
        clean = self._scores(images, targets)
        deletion[..., 0] = insertion[..., -1] = clean[:, None]
        deletion[..., -1] = self._ends(options.deletion_baseline, removed, targets)[:, None]
        insertion[..., 0] = self._ends(options.insertion_baseline, start, targets)[:, None]
        inner = points - 2
        if inner > 0:
            scores = torch.cat(list(self._inner(images, removed, start, changes, targets, inner)))
            deletion[..., 1:-1], insertion[..., 1:-1] = scores.view(n, m, 2, inner).unbind(2)
        return Curves(deletion, insertion)

    def confidence(self, images: Tensor, heatmaps: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Score the image seen through the map: image * heatmap / max, in normalised space.

        With Y the probability of the clean image and O that of the masked one: average drop is
        max(0, Y - O) / Y, increase in confidence is O > Y, average gain is max(0, O - Y) / (1 - Y).
        A drop from Y = 0 and a gain above Y = 1 are undefined (NaN), and so is every score where
        the network's logits are not finite.

        Args:
            images: (N, 3, H, W), normalised.
            heatmaps: (N, M, H, W), not negative.
            targets: (N,).

        Returns:
            average_drop and average_gain in [0, 1], increase_in_confidence in {0, 1}, and
            log_odds_drop, the loss of log(p / (1 - p)); (N, M) each.
        """
        n, m = heatmaps.shape[:2]
        clean = self._scores(images, targets, probability=True)[:, None]
        masks = normalize_by_max(heatmaps.flatten(0, 1)).view_as(heatmaps)
        masked = (images[:, None] * masks[:, :, None]).flatten(0, 1)
        through = self._scores(masked, targets.repeat_interleave(m), probability=True).view(n, m)
        lost, won = (clean - through).relu(), (through - clean).relu()
        undefined = clean.isnan() | through.isnan()  # the network's answer is
        tiny = torch.finfo(torch.float32).tiny
        odds = [p.clamp(tiny, 1 - 1e-7).logit() for p in (clean, through)]
        return {
            "average_drop": torch.where(clean > 0, lost / clean, torch.nan),
            "increase_in_confidence": (through > clean).float().masked_fill(undefined, torch.nan),
            "average_gain": torch.where(clean < 1, won / (1 - clean), torch.nan),
            "log_odds_drop": odds[0] - odds[1],
        }

    def road(
        self, images: Tensor, heatmaps: Tensor, targets: Tensor, image_ids: Sequence[str]
    ) -> dict[str, Tensor]:
        """Score ROAD: the probability after removing most and least relevant pixels.

        Args:
            images: (N, 3, H, W), normalised.
            heatmaps: (N, M, H, W), finite.
            targets: (N,).
            image_ids: seed the imputer's noise and random ties.

        Returns:
            road_morf and road_lerf, means over the shares removed, and road, half their
            difference (lerf - morf): (N, M) each.
        """
        n, m = heatmaps.shape[:2]
        ranks = pixel_rank(
            heatmaps, ties=self.options.ties, image_ids=image_ids, seed=self.seed
        ).cpu()
        found: dict[str, Tensor] = {
            name: torch.empty(n, m, device=images.device) for name in ("road_morf", "road_lerf")
        }
        for i in range(n):
            image = images[i].cpu().numpy()
            for j in range(m):
                rng = image_rng(self.seed, image_ids[i], "road")
                for name, imputed in zip(
                    found, road_images(image, ranks[i, j].numpy(), rng), strict=True
                ):
                    batch = torch.from_numpy(imputed.astype(np.float32)).to(images.device)
                    scores = self._scores(batch, targets[i].expand(len(batch)), probability=True)
                    found[name][i, j] = scores.mean()
        return found | {"road": (found["road_lerf"] - found["road_morf"]) / 2}

    def _ends(self, name: str, images: Tensor, targets: Tensor) -> Tensor:
        """Return the target's score on baselines, (N,); all-zeros ones are scored once a run."""
        if name != "zeros":
            return self._scores(images, targets)
        if self._all_zeros is None:
            self._all_zeros = self._activation()(self._logits(images[:1]))[0]
        return self._all_zeros[targets]

    def _scores(self, images: Tensor, targets: Tensor, *, probability: bool = False) -> Tensor:
        """Return the target's score for each image, (N,), a bounded batch at a time."""
        activation = _softmax if probability else self._activation()
        chunks = zip(images.split(self.batch_size), targets.split(self.batch_size), strict=True)
        return torch.cat(
            [activation(self._logits(x)).gather(1, t[:, None])[:, 0] for x, t in chunks]
        )

    def _logits(self, images: Tensor) -> Tensor:
        # A copy: the network may write into its input, and images and baselines are used again.
        return self.scorer(images.clone(memory_format=self.scorer.memory_format))

    def _activation(self) -> Callable[[Tensor], Tensor]:
        return _softmax if self.options.score == "probability" else torch.nn.Identity()

    def _inner(
        self,
        images: Tensor,
        removed: Tensor,
        start: Tensor,
        changes: Tensor,
        targets: Tensor,
        inner: int,
    ) -> Iterator[Tensor]:
        """Yield the scores of all points between the ends, in the order (image, map, kind, k)."""
        n, m = changes.shape[:2]
        total = n * m * 2 * inner
        shape = (min(self.batch_size, total), *images.shape[1:])
        if self._buffer is None or tuple(self._buffer.shape) != shape:
            # Perturbed images are built in the scorer's own layout: no copy on the way.
            self._buffer = torch.empty(
                shape, device=images.device, memory_format=self.scorer.memory_format
            )
        activation = self._activation()
        ks = torch.arange(1, inner + 1, device=images.device, dtype=changes.dtype)
        for begin in range(0, total, self.batch_size):
            end = min(begin + self.batch_size, total)
            owners = torch.arange(begin, end, device=images.device) // (m * 2 * inner)
            at = begin
            while at < end:  # one curve's share of this batch at a time
                curve, first = divmod(at, inner)
                last = min(inner, first + end - at)
                i, rest = divmod(curve, m * 2)
                j, kind = divmod(rest, 2)
                old, new = (images[i], removed[i]) if kind == 0 else (start[i], images[i])
                images_of_curve = self._buffer[at - begin : at - begin + last - first]
                progressively(old, new, changes[i, j], ks[first:last], out=images_of_curve)
                at += last - first
            scores = activation(self.scorer(self._buffer[: end - begin]))
            yield scores.gather(1, targets[owners][:, None])[:, 0]


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)
