"""A faster copy of a network that gives the same answers: batch norms folded, channels_last.

scripts/benchmark_speed.py measures the time that it saves.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.models.folding import fold_batch_norm

log = logging.getLogger(__name__)

# A copy is not used if it changes a probability, a point of a normalised map, or a logit (as a
# share of the logits' scale) by more than this. Logits are compared, too, because a softmax that
# saturates hides their differences.
PROBABILITY_TOLERANCE = 1e-5

MAP_TOLERANCE = 1e-4

LOGIT_TOLERANCE = 1e-4

N_NOISE = 2  # images of noise that every copy is tried on, besides the real ones


@dataclass(frozen=True)
class Prepared:
    """A copy of a network that gives the same answers sooner.

    Attributes:
        network: in eval mode, with every module under its old path: a copy whose parameters take no
            gradients, or the network itself where a copy cannot be made or answers differently.
        memory_format: the memory layout in which it expects images.
        folded: how many batch norms were folded into the convolutions before them.
    """

    network: nn.Module
    memory_format: torch.memory_format
    folded: int


def prepare(network: nn.Module, example: Tensor, *, layers: Sequence[str] = ()) -> Prepared:
    """Copy a network and speed the copy up as far as its answers allow.

    Args:
        network: a classifier in eval mode, (N, 3, H, W) to logits (N, C).
        example: normalised images of the data set, (N, 3, H, W), on the network's device; N may be
            0. The copies' answers on them decide which copy is used, so pass the same images for
            every part of a run.
        layers: paths of the layers whose maps are wanted; their activations do not change.

    Returns:
        The network to use. On the example and on noise its logits agree with the network's to
        `LOGIT_TOLERANCE` of their scale, its probabilities to `PROBABILITY_TOLERANCE` and its
        normalised Grad-CAM maps to `MAP_TOLERANCE`.

    Raises:
        UserError: the network cannot run on these images, or gives no maps at these layers.
    """
    images = torch.cat([example, _noise(example)])
    # Run the network itself first, without gradients: weights that hooks make at each call are then
    # not part of an autograd graph, which could not be copied.
    logits = _answers(network, images, ())
    own = copied(network)
    expected = None
    if own is not None:
        memory_format = _memory_format(own, images)
        own = own.to(memory_format=memory_format)
        expected = _tried(own, images, layers)
    if expected is None or not _agrees(expected[:1], logits):
        _answers(network, images, layers)  # raises the errors of the network itself
        return Prepared(network, torch.contiguous_format, 0)
    folded = copied(network).to(memory_format=memory_format)
    count = _fold(folded, images, layers)
    answers = _tried(folded, images, layers, expected[0].argmax(1)) if count else None
    if answers is not None and _agrees(answers, expected):
        return Prepared(folded, memory_format, count)
    return Prepared(own, memory_format, 0)


def copied(network: nn.Module) -> Any:  # nn.Module | None, whose `to` lacks memory formats
    """Return a copy in eval mode whose parameters take no gradients, or None where there is none.

    A network that holds a tensor of an autograd graph, a lock, a file or a generator cannot be
    copied. The errors are of many kinds, so all of them are caught.
    """
    try:
        return copy.deepcopy(network).eval().requires_grad_(False)
    except Exception:
        return None


def warn_where_unstable(cam: GradCAM, images: Tensor, methods: Sequence[str]) -> None:
    """Log a warning for Grad-CAM++ at layers whose activations are negative somewhere.

    Its denominator 2 g^2 + sum(A) g^3 can cross zero where activations are negative. The map then
    depends on the last digits of A and g, which change with the batch size and the machine.

    Args:
        cam: Grad-CAM on the layers of the run.
        images: normalised images on which the activations are examined, (N, 3, H, W); N may be 0.
        methods: names of the run's methods.
    """
    if "grad_cam_plus_plus" not in methods or not len(images):
        return
    cam.forward(images)
    named = zip(cam.layers, cam.activations, strict=True)
    signed = [layer for layer, activations in named if bool((activations < 0).any())]
    cam.release()
    if signed:
        log.warning(
            "grad_cam_plus_plus divides by numbers around zero where activations are negative, as "
            "at %s: its maps there depend on batch size and machine, by some percent.",
            ", ".join(signed),
        )


def _noise(example: Tensor) -> Tensor:
    generator = torch.Generator(example.device)
    return example.new_empty(N_NOISE, *example.shape[1:]).normal_(generator=generator)


def _memory_format(network: nn.Module, images: Tensor) -> torch.memory_format:
    """Return channels_last, unless the network cannot take it (`x.view` after a convolution)."""
    try:
        with torch.no_grad():
            network(images.clone(memory_format=torch.channels_last))
    except Exception:  # of any kind: a copy may fail in either layout, which `prepare` finds out
        return torch.contiguous_format
    return torch.channels_last


def _fold(network: nn.Module, images: Tensor, layers: Sequence[str]) -> int:
    """Fold a copy's batch norms, return how many; 0 after an error, which may spoil the copy."""
    try:
        return fold_batch_norm(network, images, keep=layers)
    except Exception:
        return 0


def _answers(
    network: nn.Module, images: Tensor, layers: Sequence[str], classes: Tensor | None = None
) -> list[Tensor]:
    """Return the logits and the normalised maps, of the predicted classes if none are given."""
    if not layers:
        with torch.no_grad():
            return [network(images.clone()).float()]  # it may write into them
    cam = GradCAM(network, layers)
    logits = cam.forward(images)
    classes = logits.argmax(1) if classes is None else classes
    return [logits, *cam.generate(images, classes)]


def _tried(
    network: nn.Module, images: Tensor, layers: Sequence[str], classes: Tensor | None = None
) -> list[Tensor] | None:
    """Return the answers of a copy, or None where it fails, by an error of any kind."""
    try:
        return _answers(network, images, layers, classes)
    except Exception:
        return None


def _agrees(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Return whether logits and normalised maps are the expected ones, to the tolerances."""
    (logits, *maps), (wanted, *wanted_maps) = found, expected
    return (
        _near(logits / _scale(wanted), wanted / _scale(wanted), LOGIT_TOLERANCE)
        and _near(logits.softmax(1), wanted.softmax(1), PROBABILITY_TOLERANCE)
        and all(_near(a, b, MAP_TOLERANCE) for a, b in zip(maps, wanted_maps, strict=True))
    )


def _scale(logits: Tensor) -> Tensor:
    """Return by how much an image's logits differ among each other, (N, 1).

    The range between the quartiles, which one large logit does not widen; a hundredth of the whole
    range where most logits are equal, and a lone logit's own size.
    """
    if logits.shape[1] == 1:
        return logits.abs()
    low, first, third, high = logits.quantile(torch.tensor([0.0, 0.25, 0.75, 1.0]).to(logits), 1)
    return torch.maximum(third - first, (high - low) / 100)[:, None]


def _near(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return float((found - expected).abs().max()) <= tolerance
