"""Deletion and insertion: does the class score follow the map's order of the pixels?

References:
    Petsiuk, Das and Saenko, RISE, BMVC 2018, section 4.1 and the authors' evaluation code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gradcam_bench.errors import UserError
from gradcam_bench.scoring import Scorer

BLUR_SIZE, BLUR_SIGMA = 11, 5.0  # RISE's klen and ksig


@dataclass(frozen=True)
class Curves:
    """Class scores along the perturbation, of N images with M maps each.

    Attributes:
        deletion: (N, M, P) from the image to the baseline.
        insertion: (N, M, P) from the blurred image to the image.
    """

    deletion: Tensor
    insertion: Tensor


def n_points(size: tuple[int, int], steps: int) -> tuple[int, int]:
    """Return (pixels a step, points of a curve) for an (H, W) image.

    A step changes ceil(H*W / steps) pixels; both ends are points: ceil(H*W / step) + 1 of them.

    Raises:
        UserError: steps is not in [1, H*W].
    """
    pixels = size[0] * size[1]
    if not 1 <= steps <= pixels:
        raise UserError(f"faithfulness.steps expects 1 to {pixels} (H*W), got {steps}.")
    step = math.ceil(pixels / steps)
    return step, math.ceil(pixels / step) + 1


def step_of_pixel(heatmaps: Tensor, step: int) -> Tensor:
    """Return at which point of the curve each pixel changes, minus one.

    Pixels go in descending order of the heatmap, `step` at a time; ties in row-major order.

    Args:
        heatmaps: (..., H, W), finite.
        step: pixels a time.

    Returns:
        (..., H, W) int32: pixel p differs from the start at point k exactly if value < k.
    """
    flat = heatmaps.flatten(-2)
    order = flat.argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(-1, order, torch.arange(flat.shape[-1], device=flat.device).expand_as(order))
    return (rank // step).to(torch.int32).view_as(heatmaps)


def rise_blur(images: Tensor) -> Tensor:
    """Blur normalised images (N, 3, H, W) as RISE's insertion starts from.

    The kernel is what scipy's gaussian_filter (sigma 5, mode "reflect") makes of a centred delta in
    an 11 x 11 window: reflection makes it nearly a box. Zero padding 5, in normalised space.
    """
    delta = np.zeros((BLUR_SIZE, BLUR_SIZE))
    delta[BLUR_SIZE // 2, BLUR_SIZE // 2] = 1
    kernel = torch.from_numpy(ndimage.gaussian_filter(delta, BLUR_SIGMA)).to(images)
    channels = images.shape[1]
    return F.conv2d(
        images, kernel.expand(channels, 1, -1, -1), padding=BLUR_SIZE // 2, groups=channels
    )


def area_under_curve(curves: Tensor) -> Tensor:
    """Return (sum - first/2 - last/2) / (points - 1) of curves (..., P): the trapezoid rule."""
    ends = (curves[..., 0] + curves[..., -1]) / 2
    return (curves.sum(-1) - ends) / (curves.shape[-1] - 1)


class DeletionInsertion:
    """Deletion and insertion curves in full batches that do not stop at an image's border.

    Points that curves share are scored once: the clean image and its blur serve all maps of an
    image, and the all-zeros baseline serves the whole run.

    Args:
        scorer: images to logits.
        steps: of a curve; ceil(H*W / steps) pixels a step.
        batch_size: images scored at a time; bounds the memory (batch_size * 3 * H * W floats).
    """

    def __init__(self, scorer: Scorer, *, steps: int, batch_size: int) -> None:
        self.scorer, self.steps, self.batch_size = scorer, steps, batch_size
        self._baseline: Tensor | None = None
        self._buffer: Tensor | None = None

    def __call__(self, images: Tensor, heatmaps: Tensor, targets: Tensor) -> Curves:
        """Score the curves.

        Args:
            images: (N, 3, H, W), normalised.
            heatmaps: (N, M, H, W), finite; only their order matters.
            targets: (N,) the class followed, usually the prediction on the clean image.

        Returns:
            Curves of softmax probabilities, float32, on the images' device.
        """
        n, m = heatmaps.shape[:2]
        step, points = n_points((images.shape[-2], images.shape[-1]), self.steps)
        changes = step_of_pixel(heatmaps, step)
        blurred = rise_blur(images)
        if self._baseline is None:
            self._baseline = self._probabilities(torch.zeros_like(images[:1]))[0]
        deletion = torch.empty(n, m, points, device=images.device)
        insertion = torch.empty_like(deletion)
        clean = self._scores(images, targets)
        deletion[..., 0] = insertion[..., -1] = clean[:, None]
        deletion[..., -1] = self._baseline[targets][:, None]
        insertion[..., 0] = self._scores(blurred, targets)[:, None]
        inner = points - 2
        if inner > 0:
            scores = torch.cat(list(self._inner(images, blurred, changes, targets, inner)))
            deletion[..., 1:-1], insertion[..., 1:-1] = scores.view(n, m, 2, inner).unbind(2)
        return Curves(deletion, insertion)

    def _scores(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the target's probability for each image, (N,), a bounded batch at a time."""
        chunks = zip(
            images.split(self.batch_size), targets.split(self.batch_size), strict=True
        )
        return torch.cat(
            [self._probabilities(x).gather(1, t[:, None])[:, 0] for x, t in chunks]
        )

    def _probabilities(self, images: Tensor) -> Tensor:
        return self.scorer(images.contiguous(memory_format=self.scorer.memory_format)).softmax(1)

    def _inner(
        self, images: Tensor, blurred: Tensor, changes: Tensor, targets: Tensor, inner: int
    ) -> Iterator[Tensor]:
        """Yield the scores of all points between the ends, in the order (image, map, kind, k)."""
        n, m = changes.shape[:2]
        total = n * m * 2 * inner
        zeros = torch.zeros_like(images[0])
        shape = (min(self.batch_size, total), *images.shape[1:])
        if self._buffer is None or tuple(self._buffer.shape) != shape:
            # Perturbed images are built in the scorer's own layout: no copy on the way.
            self._buffer = torch.empty(
                shape, device=images.device, memory_format=self.scorer.memory_format
            )
        ks = torch.arange(1, inner + 1, device=images.device, dtype=changes.dtype)
        for start in range(0, total, self.batch_size):
            stop = min(start + self.batch_size, total)
            owners = torch.arange(start, stop, device=images.device) // (m * 2 * inner)
            at = start
            while at < stop:  # one curve's share of this batch at a time
                curve, first = divmod(at, inner)
                last = min(inner, first + stop - at)
                i, rest = divmod(curve, m * 2)
                j, kind = divmod(rest, 2)
                old, new = (images[i], zeros) if kind == 0 else (blurred[i], images[i])
                changed = changes[i, j] < ks[first:last, None, None]
                self._buffer[at - start : at - start + last - first] = torch.where(
                    changed[:, None], new, old
                )
                at += last - first
            logits = self.scorer(self._buffer[: stop - start])
            yield logits.softmax(1).gather(1, targets[owners][:, None])[:, 0]
