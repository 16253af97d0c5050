"""Checks of what a caller passes to GradCAM: the model, its target layers and the classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError, nearest

Classes = int | Sequence[int] | Tensor | None


def check_model(model: nn.Module) -> None:
    """Raise a UserError for models whose submodules a hook cannot see or autograd cannot use."""
    for name, module in model.named_modules():
        where = f"its part {name!r}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(
                f"GradCAM needs an eager model, but {where} is scripted or traced; "
                "pass the Python model it was made from."
            )
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None):
            raise UserError(
                f"GradCAM needs an eager model, but {where} is compiled; "
                "pass the model from before torch.compile (compiled._orig_mod)."
            )
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise UserError(f"GradCAM needs the bare model, but {where} is replicated; use .module")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise UserError(
                f"GradCAM cannot differentiate through {name}, which was made under "
                "torch.inference_mode; build the model outside of it, or pass "
                "copy.deepcopy(model), made outside of it."
            )


def layer_path(model: nn.Module, layer: str | nn.Module) -> str:
    """Return the module path of a layer given by path or by module.

    Raises:
        UserError: it is not a part of the model.
    """
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(layer, str):
        if layer in names:
            return layer
        raise UserError(
            f"The model {type(model).__name__} has no layer {layer!r}."
            f"{nearest(layer, names, limit=5)} All: dict(model.named_modules())."
        )
    if not isinstance(layer, nn.Module):
        raise UserError(
            f"A target layer is a module path or a module, got {type(layer).__name__}: {layer!r}."
        )
    for name, module in model.named_modules():
        if module is layer and name:
            return name
    raise UserError(
        f"The target layer {type(layer).__name__} is not a part of {type(model).__name__}."
    )


def class_indices(classes: Classes, logits: Tensor) -> Tensor:
    """Return one valid class per image, (N,) int64.

    Args:
        classes: class index for all images, or one per image, (N,); None takes each image's
            predicted class.
        logits: what the network answers for the batch, (N, C).

    Raises:
        UserError: the classes are no integers, are not N in number, or one is out of range.
    """
    n, c = logits.shape
    if classes is None:
        return logits.argmax(1)
    try:
        index = torch.as_tensor(classes, device=logits.device)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UserError(_not_classes(classes, n)) from error
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise UserError(_not_classes(classes, n))
    index = index.long()
    if index.ndim == 0:
        index = index.expand(n)
    if tuple(index.shape) != (n,):
        raise UserError(
            f"class_idx is one class or one per image: expected {n} for this batch, "
            f"got {tuple(index.shape)}."
        )
    if bool(((index < 0) | (index >= c)).any()):
        raise UserError(f"Classes are 0 to {c - 1} for this model, got {index.tolist()}.")
    return index


def _not_classes(classes: object, n: int) -> str:
    return (
        f"class_idx holds class indices (integers), one or one per image ({n}), "
        f"or is None for the predicted classes; got {classes!r}."
    )
