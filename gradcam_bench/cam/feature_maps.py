"""Is a layer's output a feature map (N, K, h, w)? Told by the axes that grow with the image.

Transformers also give tensors of four axes, with another meaning: channels last (N, h, w, K) in
Swin, attention (N, heads, T, T), keys (N, heads, T, d), windows (N * windows, h, w, K). Read as
(N, K, h, w), each of them would give a wrong map without an error. So the network is run again on
a larger image: the axes that grow with its height and width are the spatial ones. Where the network
accepts only one input size, the axes with the aspect ratio of the image are taken; where that does
not decide, the number of features in the module's own parameters does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gradcam_bench.cam.frozen import frozen
from gradcam_bench.errors import UserError

Axes = Literal["channels first", "channels last", "tokens", "other"]

# Pixels by which the second image is (higher, wider): multiples of the usual strides, and unequal,
# so that the height's axis can be told from the width's.
GROWTH = (64, 32)

# Cells by which an axis may be longer or shorter than the aspect ratio of the image implies,
# because of padding and of rounding at both ends.
ROUNDING = 2

# Modules that take tensors of any meaning, attention weights too: only a run at a second image size
# tells what the axes of their output are.
_INDIFFERENT = (nn.modules.dropout._DropoutNd, nn.Softmax, nn.Identity)


@dataclass(frozen=True)
class Call:
    """One call of a module in a forward pass.

    Attributes:
        name: the module's path.
        module: the module.
        output: the tensor that it returned.
        axes: what the output's axes mean; "tokens" is (N, T, K), anything unlike a map "other".
    """

    name: str
    module: nn.Module
    output: Tensor
    axes: Axes = "other"


def survey(network: nn.Module, size: int) -> list[Call]:
    """Run a network on zeros and return its modules' calls, in the order in which they finish.

    Args:
        network: a classifier of images (1, 3, size, size).
        size: side of its input, pixels.
    """
    parameter = next(network.parameters())
    image = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
    calls: list[Call] = []
    with torch.no_grad(), _recording(network, calls):
        network(image)
    grown = _grown_shapes(network, image)
    return [
        Call(c.name, c.module, c.output, axes_of(c.module, c.output, image, grown.get(c.name)))
        for c in calls
    ]


def refuse_other_axes(network: nn.Module, outputs: Mapping[str, Tensor], images: Tensor) -> None:
    """Raise a UserError where a layer's output is no feature map (N, K, h, w).

    Where the shapes leave a doubt, the network is run once more on a single, larger image.

    Args:
        network: the network that the layers belong to.
        outputs: output of each layer, with four axes, by module path.
        images: the images that gave these outputs, (N, 3, H, W).

    Raises:
        UserError: a layer's output is no feature map; the message says what its axes are.
    """
    modules = {layer: network.get_submodule(layer) for layer in outputs}
    doubtful = [
        layer
        for layer, output in outputs.items()
        if isinstance(modules[layer], _INDIFFERENT)
        or _follow(output.shape, images) != (True, False)
        or len(output) != len(images)
    ]
    grown = _grown_shapes(network, images[:1]) if doubtful else {}
    for layer in doubtful:
        output = outputs[layer]
        axes = axes_of(modules[layer], output, images, grown.get(layer))
        if axes == "channels first":
            continue
        given = f"{layer} of {type(network).__name__} gives {tuple(output.shape)}"
        if axes == "channels last":
            raise UserError(
                f"A map is read from (N, K, h, w), but {given}, which is (N, h, w, K), channels "
                "last. Choose a layer whose channels come first, or give the network a module "
                "that permutes this output, output.permute(0, 3, 1, 2), and choose that."
            )
        raise UserError(
            f"A map is read from (N, K, h, w), but {given} for images {tuple(images.shape)}: its "
            "last two axes are not the image's height and width (tokens, attention or windows?). "
            "Choose a layer that gives a feature map."
        )


def axes_of(
    module: nn.Module, output: Tensor, images: Tensor, grown: tuple[int, ...] | None
) -> Axes:
    """Tell what the axes of a module's output mean.

    Args:
        module: the module that returned the output.
        output: its output for `images`, of any shape.
        images: (N, 3, H, W).
        grown: the output's shape for images higher and wider by `GROWTH`; None where the network
            does not accept them. Its first axis, the batch, is not compared.
    """
    shape = tuple(output.shape)
    if not shape or shape[0] != len(images):
        return "other"
    if len(shape) == 3 and min(shape[1:]) > 1:
        return "tokens"
    if len(shape) != 4:
        return "other"
    if grown is not None and len(grown) == 4 and grown[1:] != shape[1:]:
        a, b, c = (after - before for after, before in zip(grown[1:], shape[1:], strict=True))
        if a == 0 and _grew_as_the_image(b, c):
            return "channels first"
        return "channels last" if c == 0 and _grew_as_the_image(a, b) else "other"
    if isinstance(module, _INDIFFERENT):
        return "other"
    first, last = _follow(shape, images)
    if first != last:
        return "channels first" if first else "channels last"
    # Both pairs of axes have the aspect ratio of the image, or neither has: compare with the number
    # of features, which is the length of the module's last parameter.
    features = [len(p) for p in module.parameters() if p.ndim][-1:]
    if features and (shape[1] in features) != (shape[3] in features):
        return "channels first" if shape[1] in features else "channels last"
    return "channels first" if first else "other"


def _grew_as_the_image(height: int, width: int) -> bool:
    """Return whether two axes grew in the ratio of `GROWTH`, up to rounding of each."""
    ratio = GROWTH[0] / GROWTH[1]
    return height + width > 0 and abs(height - ratio * width) <= 1 + ratio


def _follow(shape: tuple[int, ...], images: Tensor) -> tuple[bool, bool]:
    """Return whether axes 2 and 3, and whether axes 1 and 2, have the images' aspect ratio."""
    height, width = images.shape[2:]
    last, before = (
        abs(h * width - w * height) <= ROUNDING * max(height, width)
        for h, w in (shape[2:], shape[1:3])
    )
    return last, before


def _grown_shapes(network: nn.Module, images: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the shape of each module's output, by its path, for an image larger by `GROWTH`.

    For a module that is called twice it is the shape of the last call. A network that accepts only
    one input size fails at some module, with an error of any kind; the shapes of the modules that
    had run by then are returned.
    """
    height, width = (side + more for side, more in zip(images.shape[2:], GROWTH, strict=True))
    calls: list[Call] = []
    with torch.no_grad(), _recording(network, calls), suppress(Exception):
        network(images.new_zeros(1, images.shape[1], height, width))
    return {call.name: tuple(call.output.shape) for call in calls}


@contextmanager
def _recording(network: nn.Module, calls: list[Call]) -> Iterator[None]:
    """Hold the network in eval mode; append this thread's calls of modules that give tensors."""
    handles = []
    thread = threading.get_ident()

    def hook_of(name: str) -> Callable[[nn.Module, tuple, object], None]:
        def hook(module: nn.Module, _inputs: tuple, output: object) -> None:
            if isinstance(output, Tensor) and threading.get_ident() == thread:
                calls.append(Call(name, module, output))  # keeps it, so that ids stay unique

        return hook

    try:
        for name, module in network.named_modules():
            if name:
                handles.append(module.register_forward_hook(hook_of(name)))
        with frozen(network):
            yield
    finally:
        for handle in handles:
            handle.remove()
