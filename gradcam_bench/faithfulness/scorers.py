"""The hot path of faithfulness: many perturbed images to logits, as fast as the machine allows.

A scorer is a function from normalised images (N, 3, H, W), float32, to logits (N, C), float32, on
the images' device, plus the memory layout it likes best. All of them agree; they differ in speed.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError
from gradcam_bench.models.checkpoints import weights_hash
from gradcam_bench.models.folding import prepare

log = logging.getLogger(__name__)

SCORERS = ("auto", "torch", "compile", "onnxruntime")

# Exporting costs about ten seconds and saves about ten milliseconds an image (EfficientNet-Lite0
# and ResNet-50 on two cores), so shorter runs than this do not pay it back.
EXPORT_PAYS_FROM = 2000


class Scorer(Protocol):
    """Images to logits; `memory_format` is the layout in which images are taken without a copy."""

    name: str
    memory_format: torch.memory_format

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, C), float32, of normalised images (N, 3, H, W)."""
        ...


class TorchScorer:
    """The network itself in one memory layout, optionally autocast or compiled; a copy of it."""

    def __init__(
        self,
        network: nn.Module,
        *,
        memory_format: torch.memory_format = torch.channels_last,
        compiled: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.name = "compile" if compiled else "torch"
        self.memory_format, self.autocast = memory_format, autocast
        own = copy.deepcopy(network).eval().requires_grad_(False)
        own = own.to(memory_format=memory_format)
        self.network: Callable[[Tensor], Tensor] = torch.compile(own) if compiled else own

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, C), float32, of normalised images (N, 3, H, W)."""
        images = images.to(memory_format=self.memory_format)
        with torch.autocast(
            images.device.type, dtype=self.autocast, enabled=self.autocast is not None
        ):
            return self.network(images).float()


class OnnxScorer:
    """The network in ONNX Runtime on the CPU, exported once and cached.

    Raises:
        UserError: the extra `onnx` is not installed, or the model cannot be exported.
    """

    name = "onnxruntime"
    memory_format = torch.contiguous_format

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                "scoring=onnxruntime needs the extra `onnx`: pip install 'gradcam-bench[onnx]'."
            ) from error
        path = _cached_export(network, example)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, C), float32, of normalised images (N, 3, H, W)."""
        array = images.detach().contiguous().numpy()
        return torch.from_numpy(self._session.run(None, {"images": array})[0])


def make_scorer(
    choice: str,
    network: nn.Module,
    *,
    size: int,
    device: torch.device,
    n_images: int,
    autocast: torch.dtype | None = None,
) -> Scorer:
    """Return the scorer asked for; `auto` picks by device and by the length of the run.

    Args:
        choice: one of `SCORERS`.
        network: to be scored, on `device`, eval mode.
        size: side of the input, pixels.
        device: where images will lie.
        n_images: how many images the run will score, perturbed ones counted.
        autocast: dtype on CUDA, or None.

    Raises:
        UserError: an unknown choice, or onnxruntime asked for and not to be had.
    """
    if choice not in SCORERS:
        raise UserError(f"scoring= expects one of {', '.join(SCORERS)}, got {choice!r}.")
    example = torch.zeros(2, 3, size, size, device=device)
    if choice == "auto":
        installed = all(
            importlib.util.find_spec(name) for name in ("onnxruntime", "onnx", "onnxscript")
        )
        worth_it = device.type == "cpu" and n_images >= EXPORT_PAYS_FROM
        if worth_it and installed:
            try:
                return OnnxScorer(network, example)
            except UserError as error:
                log.warning("%s Scoring with torch instead.", error)
        choice = "torch"
    if choice == "onnxruntime":
        if device.type != "cpu":
            raise UserError(
                f"scoring=onnxruntime runs on the CPU, but device={device.type}; use scoring=torch."
            )
        return OnnxScorer(network, example)
    prepared = prepare(network, example)
    return TorchScorer(
        prepared.network,
        memory_format=prepared.memory_format,
        compiled=choice == "compile",
        autocast=autocast,
    )


def _cached_export(network: nn.Module, example: Tensor) -> Path:
    """Return the ONNX file of a network, exporting it into the user's cache where it is missing."""
    digest = hashlib.blake2b(f"{torch.__version__} {tuple(example.shape[1:])}".encode())
    digest.update(repr(network).encode())
    digest.update(weights_hash(network).encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gradcam_bench"
    path = cache / f"{digest.hexdigest()[:24]}.onnx"
    if path.is_file():
        return path
    own = copy.deepcopy(network).cpu().eval()
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # the exporter's own, none about the model
            torch.onnx.export(
                own,
                (example.cpu(),),
                str(partial),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        os.replace(partial, path)
    except ImportError as error:
        raise UserError(
            "scoring=onnxruntime needs the extra `onnx`: pip install 'gradcam-bench[onnx]'."
        ) from error
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        raise UserError(
            f"{type(network).__name__} cannot be exported to ONNX "
            f"({type(error).__name__}: {reason}); use scoring=torch."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path
