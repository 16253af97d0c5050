"""Deletion and insertion: does the class score follow the map's order of the pixels?

References:
    Petsiuk, Das and Saenko, RISE, BMVC 2018, section 4.1 and the authors' evaluation code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcam_bench.faithfulness.baselines import baseline, n_points, pixel_rank, progressively
from gradcam_bench.faithfulness.target_scores import Explained, TargetScores
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.names import Baseline, Score, Ties


@dataclass(frozen=True)
class Options:
    """The choices behind deletion and insertion; the defaults are RISE's.

    Attributes:
        steps: into how many steps a curve is cut; each changes ceil(H*W / steps) pixels.
        deletion_baseline: what deleted pixels become, one of `names.Baseline`.
        insertion_baseline: the image that insertion starts from, one of `names.Baseline`.
        ties: the order of equal pixels, one of `names.Ties`.
        score: "probability" (softmax) or "logit".
        seed: of the baseline "noise" and of ties "random", together with each image's id.
    """

    steps: int = 28
    deletion_baseline: str = Baseline.zeros
    insertion_baseline: str = Baseline.blur
    ties: str = Ties.stable
    score: str = Score.probability
    seed: int = 0


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


def deletion_and_insertion(
    explained: Explained, scores: TargetScores, preprocessing: Preprocessing, options: Options
) -> Curves:
    """Return the deletion and insertion curves of every map.

    Points that curves share are scored once: the clean image and the baselines serve all maps of
    an image.

    Args:
        explained: N images with M maps each; only the order of a map's pixels matters.
        scores: gives the network's score of one class per image.
        preprocessing: how the images were normalised, for baselines defined in image space.
        options: the choices behind the curves.

    Returns:
        Probabilities or logits, float32, on the images' device.

    Raises:
        UserError: an unknown choice, or a number of steps out of range.
    """
    images, targets = explained.images, explained.targets
    n, m = explained.heatmaps.shape[:2]
    steps = _steps(explained, preprocessing, options)
    deletion = torch.empty(n, m, steps.inner + 2, device=images.device)
    insertion = torch.empty_like(deletion)
    deletion[..., 0] = insertion[..., -1] = scores(images, targets, options.score)[:, None]
    deletion[..., -1] = _of_baseline(steps.removed, explained, scores, options)[:, None]
    insertion[..., 0] = _of_baseline(steps.start, explained, scores, options)[:, None]
    if steps.inner:
        inner = torch.cat(list(_inner(steps, targets, scores, options.score)))
        inner = inner.view(n, m, 2, steps.inner)
        deletion[..., 1:-1], insertion[..., 1:-1] = inner.unbind(2)
    return Curves(deletion, insertion)


def insertion_auc(
    scores: TargetScores, preprocessing: Preprocessing, options: Options
) -> Callable[[Explained], Tensor]:
    """Return a function from images with M maps each to their areas under insertion, (N, M)."""
    return lambda explained: area_under_curve(
        deletion_and_insertion(explained, scores, preprocessing, options).insertion
    )


def _of_baseline(
    images: Tensor, explained: Explained, scores: TargetScores, options: Options
) -> Tensor:
    """Return the targets' scores on baselines (N, 3, H, W); where all are zeros, one serves all."""
    if images.any():
        return scores(images, explained.targets, options.score)
    return scores.of_own(scores.copy(images[:1]), explained.targets, options.score)


@dataclass(frozen=True)
class _Steps:
    """The perturbed images between the ends of the curves, in the order (image, map, kind, step).

    Attributes:
        images: (N, 3, H, W), normalised.
        removed: what deleted pixels become, in the same shape.
        start: what insertion starts from, in the same shape.
        changes: (N, M, H, W) int32, the step at which each pixel changes, from 0.
        inner: number of points of a curve between its two ends.
    """

    images: Tensor
    removed: Tensor
    start: Tensor
    changes: Tensor
    inner: int

    def __len__(self) -> int:
        n, m = self.changes.shape[:2]
        return n * m * 2 * self.inner

    def write(self, begin: int, end: int, out: Tensor) -> None:
        """Write the perturbed images from `begin` to `end` into `out`, (end - begin, 3, H, W)."""
        maps = self.changes.shape[1]
        at = begin
        while at < end:  # one curve's share of this batch at a time
            curve, first = divmod(at, self.inner)
            last = min(self.inner, first + end - at)
            i, rest = divmod(curve, maps * 2)
            j, kind = divmod(rest, 2)
            deleted, inserted = (self.images[i], self.removed[i]), (self.start[i], self.images[i])
            old, new = inserted if kind else deleted
            ks = torch.arange(first + 1, last + 1, device=out.device, dtype=self.changes.dtype)
            share = out[at - begin : at - begin + last - first]
            progressively(old, new, self.changes[i, j], ks, share)
            at += last - first


def _steps(explained: Explained, preprocessing: Preprocessing, options: Options) -> _Steps:
    """Return the perturbed images of all curves."""
    images = explained.images
    step, points = n_points((images.shape[-2], images.shape[-1]), options.steps)
    removed, start = (
        baseline(
            getattr(options, key),
            images,
            preprocessing=preprocessing,
            image_ids=explained.image_ids,
            seed=options.seed,
            key=f"faithfulness.{key}",
        )
        for key in ("deletion_baseline", "insertion_baseline")
    )
    rank = pixel_rank(
        explained.heatmaps, ties=options.ties, image_ids=explained.image_ids, seed=options.seed
    )
    return _Steps(images, removed, start, (rank // step).to(torch.int32), points - 2)


def _inner(steps: _Steps, targets: Tensor, scores: TargetScores, score: str) -> Iterator[Tensor]:
    """Yield the scores of all perturbed images, in their order, a batch at a time.

    Perturbed images of several curves and input images are scored in one batch, so that all batches
    but the last are full.
    """
    # Perturbed images are built in the scorer's own layout, so that it need not copy them.
    buffer = torch.empty(
        (min(scores.batch_size, len(steps)), *steps.images.shape[1:]),
        device=steps.images.device,
        memory_format=scores.scorer.memory_format,
    )
    of_an_image = len(steps) // len(steps.images)
    for begin in range(0, len(steps), scores.batch_size):
        end = min(begin + scores.batch_size, len(steps))
        batch = buffer[: end - begin]
        steps.write(begin, end, batch)
        owners = torch.arange(begin, end, device=targets.device) // of_an_image
        yield scores.of_own(batch, targets[owners], score)
