"""A network in ONNX Runtime: its export, and a scorer that runs it."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import io
import sys
import warnings

import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError
from gradcam_bench.models.checkpoints import weights_hash
from gradcam_bench.models.custom_code import LIBRARIES, code_hash

MISSING = "scoring=onnxruntime needs the extra `onnx`: pip install 'gradcam-bench[onnx]'."


class OnnxScorer:
    """Scores images with a network's ONNX graph, in ONNX Runtime on the CPU.

    Args:
        graph: the serialized ONNX graph, from `export`.
    """

    name = "onnxruntime"
    memory_format = torch.contiguous_format

    def __init__(self, graph: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, C), float32, of normalised images (N, 3, H, W)."""
        array = images.detach().contiguous().numpy()
        return torch.from_numpy(self._session.run(["logits"], {"images": array})[0])


def installed() -> bool:
    """Return whether all packages that exporting and scoring need are installed."""
    return all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnx", "onnxscript"))


def export(network: nn.Module, size: int) -> bytes:
    """Return a network's ONNX graph for batches of any length of images (3, size, size).

    Raises:
        UserError: the extra `onnx` is not installed, or the network cannot be exported.
    """
    try:
        own = copy.deepcopy(network).cpu().eval()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # the exporter's own, none about the model
            program = torch.onnx.export(
                own,
                (torch.zeros(2, 3, size, size),),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            return program.model_proto.SerializeToString()
    except ImportError as error:
        raise UserError(MISSING) from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise UserError(
            f"{type(network).__name__} cannot be exported to ONNX "
            f"({type(error).__name__}: {lines[0][:200]}); use scoring=torch."
        ) from error


def export_key(network: nn.Module, size: int) -> str:
    """Return the key of a network's export in the cache.

    It is a hash of the network's structure and weights, the user's own code and the versions of the
    libraries. Whatever else a forward pass may depend on shows when the export's logits are
    compared with the network's, in scorers.py.
    """
    versions = [
        f"{name} {getattr(sys.modules.get(name), '__version__', None)}" for name in LIBRARIES
    ]
    digest = hashlib.blake2b(digest_size=12)
    for text in (*versions, str(size), repr(network), weights_hash(network), code_hash(network)):
        digest.update(f"{text}\0".encode())
    return digest.hexdigest()
