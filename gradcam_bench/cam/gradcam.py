"""Grad-CAM at any layers of a network: one forward and one backward serve them all.

The earliest layer asked for becomes the leaf of the autograd graph, so nothing before it is
differentiated; the parameters take no gradients; the model is left as it was found.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType

import torch
from torch import Tensor, nn

from gradcam_bench.cam.hooks import OverwrittenError, Recorder, frozen
from gradcam_bench.cam.methods import grad_cam
from gradcam_bench.cam.upsampling import normalize_by_max, upsample
from gradcam_bench.errors import UserError, nearest

log = logging.getLogger(__name__)

WRITES_INPUT = (
    "%s writes into its input (an in-place operation on the images it is given); it gets a copy "
    "each time, so its answers and the images stay what they are."
)

Layers = str | nn.Module | Sequence[str | nn.Module]


class GradCAM:
    """Grad-CAM maps of one layer or several from a single pass.

    Args:
        model: a classifier, (N, 3, H, W) to logits (N, C); eager, on any device, frozen or not.
        target_layer: a module path ("layer4.2"), a module of the model, or a list of either.
        autocast: dtype of the forward and backward (bfloat16, float16), or None for the model's
            own. Maps are reduced in float32 either way.

    Attributes:
        layers: the module paths, in the order asked for.
        activations, gradients: A and dy/dA of each layer, (N, K, h, w), once `forward` and
            `backward` have run.

    Raises:
        UserError: the layer does not exist or the model is compiled, scripted or replicated.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2.

    The hooks live only during `forward`; modes, requires_grad and hooks are restored when it
    ends, also by an error. The network runs in eval mode. Consumers that work in place
    (ReLU(inplace=True), `out += identity`) do not change what was recorded; see recording.py.
    """

    def __init__(
        self, model: nn.Module, target_layer: Layers, *, autocast: torch.dtype | None = None
    ) -> None:
        _refuse_wrapped(model)
        self.model = model
        self.autocast = autocast
        self._many = isinstance(target_layer, Sequence) and not isinstance(target_layer, str)
        wanted: Sequence = target_layer if self._many else [target_layer]  # type: ignore[assignment]
        if not wanted:
            raise UserError("GradCAM expects at least one target layer, got an empty list.")
        modules = {_path(model, layer): _module(model, layer) for layer in wanted}
        self._recorder = Recorder(modules)
        self.layers = list(modules)
        self.activations: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self._logits: Tensor | None = None
        self._leaves: list[Tensor] = []
        self._single = False
        self._writes_input = False

    def forward(self, img: Tensor) -> Tensor:
        """Run the network and record the activations of every layer.

        Args:
            img: normalised input, (3, H, W) or (N, 3, H, W).

        Returns:
            Logits, (C,) or (N, C), detached, in float32.

        Raises:
            UserError: the input is not an image or a batch; a layer is not reached, is called
                twice or gives no (N, K, h, w) tensor; the model gives no (N, C) tensor.
        """
        self.release()
        if img.ndim not in (3, 4):
            raise UserError(
                f"GradCAM expects images (3, H, W) or (N, 3, H, W), got {tuple(img.shape)}."
            )
        self._single = img.ndim == 3
        batch = img.detach()[None] if self._single else img.detach()
        try:
            logits, recorded = self._recorded_pass(batch)
        except OverwrittenError:
            logits, recorded = self._recorded_pass(batch)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                f"GradCAM expects a model that gives logits (N, C), got {given}; "
                "wrap the model so that it returns the logits alone."
            )
        unreached = [layer for layer in self.layers if layer not in recorded]
        if unreached:
            raise UserError(
                f"The forward pass never reaches {', '.join(unreached)} in eval mode; "
                "choose a layer that the logits depend on."
            )
        self._logits = logits
        self.activations = [recorded[layer].detach() for layer in self.layers]
        self._leaves = [recorded[layer] for layer in self.layers]
        detached = logits.detach().float()
        return detached[0] if self._single else detached

    def _recorded_pass(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            frozen(self.model),
            self._recorder.recording() as recorded,
            torch.autocast(
                batch.device.type, dtype=self.autocast, enabled=self.autocast is not None
            ),
        ):
            handed = batch.clone()  # the model may write into it; the caller's stays what it is
            version = handed._version
            logits = self.model(handed)
        if handed._version != version and not self._writes_input:
            self._writes_input = True
            log.warning(WRITES_INPUT, type(self.model).__name__)
        return logits, recorded

    def backward(self, class_idx: int | Sequence[int] | Tensor | None = None) -> list[Tensor]:
        """Differentiate the class score of each image with respect to every layer.

        May be called again with other classes: several maps of an image share one forward.

        Args:
            class_idx: one class, one class per image, or None for the predicted class.

        Returns:
            dy/dA of each layer, (N, K, h, w); also kept in `gradients`.

        Raises:
            UserError: before `forward`; a class out of range; the wrong number of classes.
        """
        if self._logits is None:
            raise UserError("GradCAM.backward needs a forward pass first: call forward(img).")
        if not self._logits.requires_grad:
            raise UserError(
                f"The logits cannot be differentiated with respect to {', '.join(self.layers)}; "
                "does the model's forward use torch.no_grad or detach behind that layer?"
            )
        with torch.inference_mode(False), torch.enable_grad():
            index = _classes(class_idx, self._logits).clone()  # no inference tensor in the graph
            # Images do not mix in eval mode: the gradient of the sum is each image's own gradient.
            score = self._logits.float().gather(1, index[:, None]).sum()
            grads = torch.autograd.grad(score, self._leaves, retain_graph=True, allow_unused=True)
        for layer, gradient in zip(self.layers, grads, strict=True):
            if gradient is None:
                raise UserError(f"The logits do not depend on {layer}; choose another layer.")
        self.gradients = list(grads)
        return self.gradients

    def generate(
        self, img: Tensor, class_idx: int | Sequence[int] | Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """Return the Grad-CAM map of each layer.

        Args:
            img: normalised input, (3, H, W) or (N, 3, H, W).
            class_idx: one class, one class per image, or None for the predicted class.

        Returns:
            The map after ReLU, upsampled bilinearly to the image and divided by its maximum:
            (H, W) or (N, H, W), float32 in [0, 1], zeros where nothing is positive. A list of
            these, in the order of the layers, where a list of layers was given.
        """
        self.forward(img)
        self.backward(class_idx)
        size = (img.shape[-2], img.shape[-1])
        maps = []
        for activations, gradients in zip(self.activations, self.gradients, strict=True):
            heatmap = normalize_by_max(upsample(grad_cam(activations, gradients).relu(), size))
            maps.append(heatmap[0] if self._single else heatmap)
        self.release()
        return maps if self._many else maps[0]

    def release(self) -> None:
        """Forget the recorded tensors and the autograd graph behind them."""
        self._logits, self._leaves = None, []
        self.activations, self.gradients = [], []

    def __enter__(self) -> GradCAM:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _refuse_wrapped(model: nn.Module) -> None:
    """Raise a UserError for models whose submodules a hook cannot see."""
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


def _path(model: nn.Module, layer: str | nn.Module) -> str:
    """Return the module path of a layer given by name or by module."""
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


def _module(model: nn.Module, layer: str | nn.Module) -> nn.Module:
    return model.get_submodule(layer) if isinstance(layer, str) else layer


def _classes(class_idx: int | Sequence[int] | Tensor | None, logits: Tensor) -> Tensor:
    """Return one valid class per image, (N,) int64."""
    n, c = logits.shape
    if class_idx is None:
        return logits.argmax(1)
    index = torch.as_tensor(class_idx, device=logits.device)
    if index.dtype.is_floating_point or index.dtype in (torch.bool, torch.complex64):
        raise UserError(f"class_idx holds class indices (integers), got {class_idx!r}.")
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
