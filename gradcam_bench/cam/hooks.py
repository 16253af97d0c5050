"""Hooks that record a network's activations while it runs, and leave it as it was found.

What a hook sees may be overwritten later in the same pass by a consumer that works in place
(ReLU(inplace=True), `out += identity`). A clone handed to the network prevents that, but costs as
much as a tenth of a forward (VGG-16, 13 layers). So clones are handed out in the first pass only
to find out, by PyTorch's version counters, whether anybody writes; where nobody does, later passes
go without, and the counters are looked at again after each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from gradcam_bench.errors import UserError


class OverwrittenError(Exception):
    """A pass without clones met a consumer that works in place; run it again with clones."""


class Recorder:
    """Records the output of some modules, each the leaf or a node of the autograd graph.

    Args:
        modules: by layer name.

    Attributes:
        unwritten: layers whose output nobody wrote into so far; they are not cloned.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = modules
        self.unwritten: set[str] = set()
        self._recorded: dict[str, Tensor] = {}
        self._watched: list[tuple[str, Tensor, int]] = []

    @contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        """Hook the modules; what they put out goes into the dictionary that is yielded.

        Raises:
            UserError: a module is called twice or gives no (N, K, h, w) tensor.
            OverwrittenError: see there; nothing recorded can be used.
        """
        self._recorded, self._watched = {}, []
        handles = []
        try:
            for layer, module in self.modules.items():
                handles.append(module.register_forward_hook(self._hook_of(layer)))
            yield self._recorded
            self._look_who_wrote()
        except RuntimeError as error:
            # Autograd itself refuses that a leaf, handed out without a clone, is written into.
            if self.unwritten and "in-place operation" in str(error):
                self.unwritten.clear()
                raise OverwrittenError from error
            raise
        finally:
            self._recorded, self._watched = {}, []
            for handle in handles:
                handle.remove()

    def _look_who_wrote(self) -> None:
        written = {layer for layer, tensor, version in self._watched if tensor._version != version}
        stale = written & self.unwritten
        self.unwritten = set(self._recorded) - written
        if stale:
            raise OverwrittenError

    def _hook_of(self, layer: str) -> Callable[[nn.Module, tuple, object], Tensor]:
        def hook(_module: nn.Module, inputs: tuple, output: object) -> Tensor:
            if layer in self._recorded:
                raise UserError(
                    f"{layer} is called more than once in a forward pass, so its activation is "
                    "ambiguous; choose the block around it or a layer that is called once."
                )
            if not isinstance(output, Tensor) or output.ndim != 4:
                given = (
                    f"a tensor {tuple(output.shape)}"
                    if isinstance(output, Tensor)
                    else type(output).__name__
                )
                raise UserError(
                    f"GradCAM expects a layer whose output is (N, K, h, w), but {layer} gives "
                    f"{given}; choose a convolutional layer before pooling and flattening."
                )
            leaf = not output.requires_grad
            recorded = output.detach() if leaf else output
            first = layer not in self.unwritten
            if first:
                self._watched.append((layer, output, output._version))
                # A layer that works in place hands out its input's memory, which others hold.
                if any(isinstance(x, Tensor) and x.data_ptr() == output.data_ptr() for x in inputs):
                    recorded = recorded.clone()
            if leaf:
                recorded.requires_grad_()
            handed = recorded.clone() if first else recorded
            self._watched.append((layer, handed, handed._version))
            self._recorded[layer] = recorded
            return handed

        return hook


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode and every parameter out of autograd, then restore each."""
    training = [module for module in model.modules() if module.training]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for module in training:
            module.training = False
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in trainable:
            parameter.requires_grad_(True)
