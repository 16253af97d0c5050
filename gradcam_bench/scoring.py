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
from gradcam_bench.models import weights_hash

log = logging.getLogger(__name__)
SCORERS = ("auto", "torch", "compile", "onnxruntime")
# Exporting costs about ten seconds and saves about ten milliseconds an image (EfficientNet-Lite0
# and ResNet-50 on two cores), so shorter runs than this do not pay it back.
EXPORT_PAYS_FROM = 2000
# Folding batch norm is refused where it moves a probability by more than this.
FOLDING_TOLERANCE = 1e-5


class Scorer(Protocol):
    """Images to logits; `memory_format` is the layout in which images are taken without a copy."""

    name: str
    memory_format: torch.memory_format

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, C), float32, of normalised images (N, 3, H, W)."""
        ...


class TorchScorer:
    """The network itself: batch norm folded, channels_last, optionally autocast or compiled."""

    memory_format = torch.channels_last

    def __init__(
        self, network: nn.Module, *, compiled: bool = False, autocast: torch.dtype | None = None
    ) -> None:
        self.name = "compile" if compiled else "torch"
        self.autocast = autocast
        own = copy.deepcopy(network).eval().requires_grad_(False)
        own = own.to(memory_format=torch.channels_last)
        self.network: Callable[[Tensor], Tensor] = torch.compile(own) if compiled else own
        self.folded = 0

    @classmethod
    def folding(
        cls,
        network: nn.Module,
        example: Tensor,
        *,
        compiled: bool = False,
        autocast: torch.dtype | None = None,
    ) -> TorchScorer:
        """Build a scorer whose batch norms are folded where that is exact."""
        folded, count = fold_batch_norm(network, example)
        scorer = cls(folded, compiled=compiled, autocast=autocast)
        scorer.folded = count
        return scorer

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
    return TorchScorer.folding(network, example, compiled=choice == "compile", autocast=autocast)


def fold_batch_norm(network: nn.Module, example: Tensor) -> tuple[nn.Module, int]:
    """Return a copy of the network with batch norms folded into the convolutions before them.

    A pair is found by running the network: the batch norm's input is the convolution's very output
    tensor. The result is compared with the original on noise and thrown away where a probability
    moves by more than `FOLDING_TOLERANCE` (the convolution fed something else as well, say).

    Args:
        network: eval mode.
        example: (N, 3, H, W), any values.

    Returns:
        The copy and how many batch norms were folded (0: an unchanged copy).
    """
    original = copy.deepcopy(network).eval()
    folded = copy.deepcopy(original)
    noise = torch.empty_like(example).normal_(generator=torch.Generator(example.device))
    pairs = _conv_bn_pairs(folded, noise)
    modules = dict(folded.named_modules())
    for conv_name, bn_name in pairs:
        conv, bn = modules[conv_name], modules[bn_name]
        assert isinstance(conv, nn.Conv2d)
        weight, bias = nn.utils.fuse_conv_bn_weights(
            conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
        )
        conv.weight, conv.bias = weight, bias
        parent, _, child = bn_name.rpartition(".")
        # timm's batch norms carry their activation; torch's leave nothing behind.
        rest = nn.Sequential(*bn.children()) if list(bn.children()) else nn.Identity()
        setattr(modules[parent] if parent else folded, child, rest)
    with torch.inference_mode():
        moved = (folded(noise).softmax(1) - original(noise).softmax(1)).abs().max()
    if not pairs or not float(moved) <= FOLDING_TOLERANCE:
        return original, 0
    return folded, len(pairs)


def _conv_bn_pairs(network: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    outputs: dict[int, tuple[str, Tensor]] = {}  # keeps the tensors, so that ids stay unique
    pairs: list[tuple[str, str]] = []
    calls: dict[str, int] = {}
    handles = []

    def after_conv(name: str) -> Callable:
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            outputs[id(output)] = (name, output)

        return hook

    def before_bn(name: str) -> Callable:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[name] = calls.get(name, 0) + 1
            if id(inputs[0]) in outputs:
                pairs.append((outputs[id(inputs[0])][0], name))

        return hook

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(after_conv(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(before_bn(name)))
    try:
        with torch.inference_mode():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if calls[pair[0]] == 1 and calls[pair[1]] == 1]


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
