"""Grad-CAM at any layers of a network: one forward and one backward serve them all.

The earliest layer asked for becomes the leaf of the autograd graph, so nothing before it is
differentiated; the parameters take no gradients; the model is left as it was found.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn

from gradcam_bench.cam.checks import Classes, check_model, class_indices, layer_path
from gradcam_bench.cam.feature_maps import refuse_other_axes
from gradcam_bench.cam.frozen import frozen
from gradcam_bench.cam.hooks import Recorder
from gradcam_bench.cam.methods import grad_cam
from gradcam_bench.cam.upsampling import normalize_by_max, upsample
from gradcam_bench.errors import UserError

log = logging.getLogger(__name__)

WRITES_INPUT = (
    "%s writes into its input (an in-place operation on the images it is given); it gets a copy "
    "each time, so its answers and the images stay what they are."
)

Layers = str | nn.Module | Sequence[str | nn.Module]

CHECKPOINTED = (
    "GradCAM cannot follow activation checkpointing (or other hooks on saved tensors), which "
    "runs parts of the network again during backward; turn it off first, for example "
    "model.set_grad_checkpointing(False) in timm or memory_efficient=False in torchvision."
)

# Parts of PyTorch's error messages for networks that it runs but cannot differentiate, and the
# message that is shown instead.
EXPLAINED = {
    CHECKPOINTED: CHECKPOINTED,
    "torch.utils.checkpoint": CHECKPOINTED,  # its reentrant form, in the backward pass
    "nference tensor": (
        "The network keeps a tensor that was made under torch.inference_mode, which autograd "
        "cannot use; build the model and run it first outside of inference mode."
    ),
    "modified by an inplace operation": (
        "The network overwrites, in place, a tensor that its own backward pass needs, so it "
        "cannot be differentiated; make that operation out-of-place."
    ),
    "modified inplace": (
        "The network works in place on a view, which autograd does not allow, so it cannot be "
        "differentiated; make that operation out-of-place."
    ),
}


@dataclass(frozen=True)
class _Forward:
    """A forward pass, kept for the backward passes of several classes.

    Attributes:
        logits: (N, C), with its graph.
        leaves: the recorded activations of each layer, (N, K, h, w), in the order asked for.
        single: whether the caller gave one image without a batch axis.
    """

    logits: Tensor
    leaves: list[Tensor]
    single: bool


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
        UserError: the layer does not exist, or the model is compiled, scripted, replicated or
            made under inference mode.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2.

    The hooks live only during `forward`; modes, requires_grad and hooks are restored when it
    ends, also after an error. The network runs in eval mode. Later layers that work in place
    (ReLU(inplace=True), `out += identity`) do not change what was recorded; see hooks.py.
    Threads may share a model, and may call `generate` of the same GradCAM. `forward` and
    `backward` keep tensors between calls, so for them each thread needs a GradCAM of its own.
    """

    def __init__(
        self, model: nn.Module, target_layer: Layers, *, autocast: torch.dtype | None = None
    ) -> None:
        check_model(model)
        self.model = model
        self.autocast = autocast
        self._many = isinstance(target_layer, Sequence) and not isinstance(target_layer, str)
        wanted: Sequence = target_layer if self._many else [target_layer]  # type: ignore[assignment]
        if not wanted:
            raise UserError("GradCAM expects at least one target layer, got an empty list.")
        self.layers = [layer_path(model, layer) for layer in wanted]
        self._recorder = Recorder({path: model.get_submodule(path) for path in self.layers})
        self.activations: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self._last: _Forward | None = None
        self._writes_input = False
        self._axes_known = False

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
        self._last = self._forward(img)
        self.activations = [leaf.detach() for leaf in self._last.leaves]
        logits = self._last.logits.detach().float()
        return logits[0] if self._last.single else logits

    def _forward(self, img: Tensor) -> _Forward:
        if not isinstance(img, Tensor) or img.ndim not in (3, 4):
            raise UserError(
                f"GradCAM expects images (3, H, W) or (N, 3, H, W), got {_described(img)}."
            )
        single = img.ndim == 3
        batch = img.detach()[None] if single else img.detach()
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            frozen(self.model),
            _explained(),
            torch.autograd.graph.disable_saved_tensors_hooks(CHECKPOINTED),
            torch.autocast(
                batch.device.type, dtype=self.autocast, enabled=self.autocast is not None
            ),
        ):
            logits, recorded = self._recorder.run(lambda: self._answer(batch))
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise UserError(
                f"GradCAM expects a model that gives logits (N, C), got {_described(logits)}; "
                "wrap the model so that it returns the logits alone."
            )
        unreached = [layer for layer in self.layers if layer not in recorded]
        if unreached:
            raise UserError(
                f"The forward pass never reaches {', '.join(unreached)} in eval mode; "
                "choose a layer that the logits depend on."
            )
        if not self._axes_known:
            refuse_other_axes(self.model, recorded, batch)
            self._axes_known = True
        return _Forward(logits, [recorded[layer] for layer in self.layers], single)

    def _answer(self, batch: Tensor) -> object:
        """Return the model's answer to a copy of the batch, since it may write into its input."""
        images = batch.clone()
        version = images._version
        answer = self.model(images)
        if images._version != version and not self._writes_input:
            self._writes_input = True
            log.warning(WRITES_INPUT, type(self.model).__name__)
        return answer

    def backward(self, class_idx: Classes = None) -> list[Tensor]:
        """Differentiate the class score of each image with respect to every layer.

        May be called again with other classes: several maps of an image share one forward.

        Args:
            class_idx: one class, one class per image, or None for the predicted class.

        Returns:
            dy/dA of each layer, (N, K, h, w); also kept in `gradients`.

        Raises:
            UserError: `forward` has not run; a class is out of range; there is neither one class
                nor one per image.
        """
        if self._last is None:
            raise UserError("GradCAM.backward needs a forward pass first: call forward(img).")
        self.gradients = self._backward(self._last, class_idx)
        return self.gradients

    def _backward(self, last: _Forward, class_idx: Classes) -> list[Tensor]:
        if not last.logits.requires_grad:
            raise UserError(
                f"The logits cannot be differentiated with respect to {', '.join(self.layers)}; "
                "does the model's forward use torch.no_grad, detach or activation checkpointing "
                "behind that layer?"
            )
        # Frozen, because some networks run parts of themselves again in the backward pass.
        with torch.inference_mode(False), torch.enable_grad(), frozen(self.model), _explained():
            index = class_indices(class_idx, last.logits).clone()  # no inference tensor in a graph
            # Images do not mix in eval mode: the gradient of the sum is each image's own gradient.
            score = last.logits.float().gather(1, index[:, None]).sum()
            grads = torch.autograd.grad(score, last.leaves, retain_graph=True, allow_unused=True)
        for layer, gradient in zip(self.layers, grads, strict=True):
            if gradient is None:
                raise UserError(f"The logits do not depend on {layer}; choose another layer.")
        return list(grads)

    def generate(self, img: Tensor, class_idx: Classes = None) -> Tensor | list[Tensor]:
        """Return the Grad-CAM map of each layer.

        Args:
            img: normalised input, (3, H, W) or (N, 3, H, W).
            class_idx: one class, one class per image, or None for the predicted class.

        Returns:
            The map after ReLU, upsampled bilinearly to the image and divided by its maximum:
            (H, W) or (N, H, W), float32 in [0, 1], zeros where nothing is positive. A list of
            these, in the order of the layers, where a list of layers was given.
        """
        self.release()
        last = self._forward(img)
        gradients = self._backward(last, class_idx)
        size = (img.shape[-2], img.shape[-1])
        maps = []
        for leaf, gradient in zip(last.leaves, gradients, strict=True):
            heatmap = normalize_by_max(upsample(grad_cam(leaf.detach(), gradient).relu(), size))
            maps.append(heatmap[0] if last.single else heatmap)
        return maps if self._many else maps[0]

    def release(self) -> None:
        """Forget the recorded tensors and the autograd graph behind them."""
        self._last = None
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


@contextmanager
def _explained() -> Iterator[None]:
    """Turn PyTorch's errors about networks that it cannot differentiate into a UserError."""
    try:
        yield
    except RuntimeError as error:
        for text, explanation in EXPLAINED.items():
            if text in str(error):
                raise UserError(explanation) from error
        raise


def _described(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
