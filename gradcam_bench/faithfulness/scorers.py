"""Scorers turn perturbed images into logits, on which faithfulness spends most of its time.

A scorer is a function from normalised images (N, 3, H, W), float32, to logits (N, C), float32, on
the images' device; it names the memory layout in which it takes images without a copy. All scorers
give the same logits up to rounding; they differ in speed. A graph made from the network (exported
or compiled) is used only after its logits were compared with the network's own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError, one_of
from gradcam_bench.faithfulness import export_cache
from gradcam_bench.faithfulness.onnx_scorer import (
    MISSING,
    OnnxScorer,
    export,
    export_key,
    installed,
)
from gradcam_bench.models.prepare import prepare
from gradcam_bench.names import Scoring

log = logging.getLogger(__name__)

# Exporting costs about as much as it saves on a thousand images (EfficientNet-Lite0 and ResNet-50,
# scripts/benchmark_speed.py), so `auto` does not export for a run of fewer perturbed images.
EXPORT_PAYS_FROM = 2000

# The largest difference of two scorers' logits, as a share of how far logits move between images.
# Six networks, exported or with folded batch norms, stay below 3e-6.
AGREE = {None: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


class Scorer(Protocol):
    """Images to logits; `memory_format` is the layout in which images are taken without a copy.

    A scorer may write into the images that it is given: pass a copy of images that are used again.
    """

    name: str
    memory_format: torch.memory_format

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, C), float32, of normalised images (N, 3, H, W)."""
        ...


class TorchScorer:
    """The network itself, optionally autocast or compiled, on images in one memory layout.

    Args:
        network: in eval mode; it is run as it is.
        memory_format: the memory layout into which images are brought.
        compiled: whether to compile the network first.
        autocast: a lower precision (bfloat16, float16), or None for the network's own.

    Raises:
        UserError: the network is in training mode.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        memory_format: torch.memory_format = torch.channels_last,
        compiled: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.name = "compile" if compiled else "torch"
        self.title = type(network).__name__
        self.memory_format, self.autocast = memory_format, autocast
        if network.training:
            raise UserError(f"A scorer expects {self.title} in eval mode: call eval() first.")
        self.network: Callable[[Tensor], Tensor] = torch.compile(network) if compiled else network

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, C), float32, of normalised images (N, 3, H, W)."""
        images = images.to(memory_format=self.memory_format)
        with torch.autocast(
            images.device.type, dtype=self.autocast, enabled=self.autocast is not None
        ):
            return self.network(images).float()


def make_scorer(
    choice: str,
    network: nn.Module,
    examples: Tensor,
    *,
    n_images: int,
    autocast: torch.dtype | None = None,
) -> Scorer:
    """Return the scorer asked for; `auto` picks by device, precision and the length of the run.

    Args:
        choice: one of `names.Scoring`.
        network: a classifier in eval mode, (N, 3, size, size) to logits (N, C).
        examples: a few normalised images of the data set, (N, 3, size, size), on the network's
            device; graphs are compared with the network on these and on noise. N may be 0.
        n_images: number of perturbed images that the whole run will score.
        autocast: a lower precision (bfloat16, float16) of the network, or None.

    Raises:
        UserError: an unknown choice, or onnxruntime or compile is asked for but cannot be used.
    """
    wanted = one_of(Scoring, choice, "scoring")
    if wanted is Scoring.onnxruntime:
        _refuse_onnx(examples.device, autocast)
        return _onnx_scorer(network, examples)
    on_cpu = examples.device.type == "cpu" and autocast is None
    if wanted is Scoring.auto and on_cpu and n_images >= EXPORT_PAYS_FROM and installed():
        try:
            return _onnx_scorer(network, examples)
        except UserError as error:
            log.warning("%s Scoring with torch instead.", error)
    prepared = prepare(network, examples)
    make = partial(
        TorchScorer, prepared.network, memory_format=prepared.memory_format, autocast=autocast
    )
    if wanted is not Scoring.compile:
        return make()
    return _believed(partial(make, compiled=True), make(), examples)


def disagreement(scorer: Scorer, reference: Scorer, examples: Tensor) -> float:
    """Return the largest difference of two scorers' logits, as a share of how far logits move.

    Logits are compared, not probabilities, which saturate. Their difference is divided by how far
    logits move from image to image, not by their size, because a perturbation changes them by such
    moves. Both scorers are run on the examples and on noise.

    Args:
        scorer: the scorer to be checked.
        reference: the scorer whose logits it should give.
        examples: normalised images, (N, 3, H, W).

    Returns:
        0 or more; infinity where the shapes differ, or where one scorer's logit is finite and the
        other's is not.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, *examples.shape[1:], generator=generator).to(examples)
    batches = [images for images in (examples, noise) if len(images)]
    expected, found = (
        torch.cat([each(images.clone()) for images in batches]) for each in (reference, scorer)
    )
    finite = expected.isfinite()
    if found.shape != expected.shape or not torch.equal(found.isfinite(), finite):
        return math.inf
    expected, found = (logits.where(finite, 0) for logits in (expected, found))
    difference = float((found - expected).abs().max())
    # What the logits of all images have in common rounds in proportion to its own size.
    moves = (expected.amax(0) - expected.amin(0)).max()
    scale = float(torch.maximum(moves, expected.abs().max() / 100))
    return 0.0 if difference == 0 else difference / scale if scale else math.inf


def _refuse_onnx(device: torch.device, autocast: torch.dtype | None) -> None:
    """Raise a UserError where ONNX Runtime lacks the device or precision that is asked for."""
    if device.type != "cpu":
        raise UserError(
            f"scoring=onnxruntime runs on the CPU, but device={device.type}; use scoring=torch."
        )
    if autocast is not None:
        precision = str(autocast).removeprefix("torch.")
        raise UserError(
            f"scoring=onnxruntime computes in float32, but precision={precision}; "
            "use scoring=torch, or precision=float32."
        )


def _onnx_scorer(network: nn.Module, examples: Tensor) -> Scorer:
    """Return the network in ONNX Runtime, from the cache or exported anew.

    Raises:
        UserError: it cannot be exported, or the export's logits differ from the network's.
    """
    if not installed():
        raise UserError(MISSING)
    reference = TorchScorer(network, memory_format=torch.contiguous_format)
    key = export_key(network, examples.shape[-1])
    stored = export_cache.load(key)
    if stored is not None:
        try:
            return _believed(lambda: OnnxScorer(stored), reference, examples)
        except UserError as error:
            log.warning("The stored ONNX export is not used: %s Exporting again.", error)
    graph = export(network, examples.shape[-1])
    scorer = _believed(lambda: OnnxScorer(graph), reference, examples)
    export_cache.keep(key, graph)
    return scorer


def _believed(make: Callable[[], Scorer], reference: TorchScorer, examples: Tensor) -> Scorer:
    """Make a scorer from the network's graph and return it if its logits are the network's.

    Raises:
        UserError: it cannot be made or run, or its logits differ by more than `AGREE` tolerates.
    """
    try:
        scorer = make()
        difference = disagreement(scorer, reference, examples)
    except Exception as error:  # of ONNX Runtime or the compiler, of many kinds
        lines = str(error).strip().splitlines() or [""]
        raise UserError(
            f"The graph of {reference.title} cannot be run "
            f"({type(error).__name__}: {lines[0][:200]}); use scoring=torch."
        ) from error
    tolerated = AGREE[reference.autocast]
    if not difference <= tolerated:
        raise UserError(
            f"{scorer.name} answers differently from {reference.title} itself: its logits differ "
            f"by {difference:.2g} of how far they move between images, tolerated is "
            f"{tolerated:g}; use scoring=torch."
        )
    return scorer
