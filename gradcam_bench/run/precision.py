"""What float32 means on this machine: with TF32, products of ten bits of mantissa instead of 23."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

# Where PyTorch's newer interface (2.9 and on) keeps a precision per backend and operator.
_OPERATORS = (
    ("cuda", "matmul"), ("cudnn", "conv"), ("cudnn", "rnn"),
    ("mkldnn", "matmul"), ("mkldnn", "conv"), ("mkldnn", "rnn"),
)  # fmt: skip


@contextmanager
def full_float32(wanted: bool = True) -> Iterator[None]:
    """Compute float32 as float32: no TF32 (a default of cuDNN) and no bfloat16 in its place.

    Restores what was set, also after an error. PyTorch has an older interface and a newer one, and
    raises where they contradict each other; so both are set, the older one first.

    Args:
        wanted: False changes nothing.
    """
    if not wanted:
        yield
        return
    before = {node: node.fp32_precision for node in _nodes()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions call the older interface deprecated
        matmul, cudnn = _older()
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    for node in before:
        node.fp32_precision = "ieee"
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if matmul is not None:
                torch.set_float32_matmul_precision(matmul)
            if cudnn is not None:
                torch.backends.cudnn.allow_tf32 = cudnn
        for node, precision in before.items():
            node.fp32_precision = precision


def tf32_allowed() -> bool:
    """Return whether convolutions or matrix products in float32 may use less than float32."""
    nodes = _nodes()
    if nodes:
        return any(node.fp32_precision not in ("none", "ieee") for node in nodes)
    matmul, cudnn = _older()
    return bool(cudnn) or matmul != "highest"


def _nodes() -> list[Any]:
    found = []
    for backend, operator in _OPERATORS:
        node = getattr(getattr(torch.backends, backend), operator, None)
        if hasattr(node, "fp32_precision"):
            found.append(node)
    return found


def _older() -> tuple[str | None, bool | None]:
    """Return what the older interface says; None where it refuses, the newer one being in use."""
    matmul, cudnn = None, None
    with suppress(RuntimeError):
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = torch.backends.cudnn.allow_tf32
    return matmul, cudnn
