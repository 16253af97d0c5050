"""Hooks that record a network's activations while it runs, and leave it as it was found.

The recorded tensor is a leaf or node of its own in the autograd graph. The parts of the network
that consume the module's output receive this tensor (or a copy of it); other parts, which hold the
module's input or the original output, keep theirs. So dy/dA is always the gradient with respect to
what the module hands on.

A consumer that works in place (ReLU(inplace=True), `out += identity`) may overwrite the recorded
tensor later in the same pass. Copies prevent that, but cost as much as a tenth of a forward pass
(VGG-16, 13 layers; scripts/benchmark_speed.py). So every layer is copied in the first pass, after
which PyTorch's version counters tell which tensors were written into. Later passes copy only
those, and the counters are checked again after each pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from gradcam_bench.cam.shared_memory import SharedMemoryWatch, memory_of, tensors_in
from gradcam_bench.errors import UserError

Result = TypeVar("Result")


class _OverwrittenError(Exception):
    """A recorded tensor that was not copied has been written into during the pass."""


@dataclass(frozen=True)
class _Writes:
    """Whether a layer's tensors are written into after the layer has run.

    Attributes:
        output: whether the module's own output is.
        handed: whether the tensor that its consumers received is.
    """

    output: bool = True
    handed: bool = True


NOBODY_WRITES = _Writes(False, False)


@dataclass(frozen=True)
class _Seen:
    """The tensors of one layer in one pass.

    Attributes:
        output: the module's output, (N, K, h, w).
        recorded: the tensor that is kept as the layer's activations.
        handed: the tensor that the module's consumers received, `recorded` or a copy of it.
        versions: PyTorch's version counters of these three when the module had run; each in-place
            operation adds one.
        node: the handed tensor's `grad_fn` when the module had run.
        suspect: whether a copy may not be enough if a tensor is written into: an input of the
            module lies in the same memory as its output, or the module ran without gradients.
    """

    output: Tensor
    recorded: Tensor
    handed: Tensor
    versions: tuple[int, int, int]
    node: object
    suspect: bool

    def writes(self) -> _Writes:
        """Return which of the tensors have been written into since."""
        output, _, handed = self.versions
        return _Writes(_version(self.output) != output, self.handed._version != handed)


class Recorder:
    """Records the outputs of some modules as leaves or nodes of the autograd graph.

    Args:
        modules: the modules to record, by layer name.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = modules
        self._writes: dict[str, _Writes] = {}

    @property
    def unwritten(self) -> set[str]:
        """Layers whose tensors were not written into in any pass so far; they are not copied."""
        return {layer for layer, found in self._writes.items() if found == NOBODY_WRITES}

    def run(self, forward: Callable[[], Result]) -> tuple[Result, dict[str, Tensor]]:
        """Run the network; return its result and the recorded outputs, by layer.

        Args:
            forward: runs the network once; it is called again where copies were missing.

        Raises:
            UserError: a module is called twice or gives no (N, K, h, w) tensor; a layer shares the
                memory of its input and the two cannot be separated; a layer's output is written
                into without gradients.
        """
        try:
            result, seen = self._pass(forward, self._writes)
        except _OverwrittenError:
            self._writes = {}
            result, seen = self._pass(forward, {})
        new = {layer: found.writes() for layer, found in seen.items() if layer not in self._writes}
        if any(seen[layer].suspect and found != NOBODY_WRITES for layer, found in new.items()):
            watch = SharedMemoryWatch()
            result, seen = self._pass(forward, {}, watch)
            _refuse(watch.inseparable, watch.cut)
        self._writes = self._writes | new
        return result, {layer: found.recorded for layer, found in seen.items()}

    def _pass(
        self,
        forward: Callable[[], Result],
        writes: Mapping[str, _Writes],
        watch: SharedMemoryWatch | None = None,
    ) -> tuple[Result, dict[str, _Seen]]:
        """Run the network once; layers that `writes` does not know are copied."""
        seen: dict[str, _Seen] = {}
        with watch or nullcontext(), _hooked(self.modules, seen, writes, watch):
            try:
                result = forward()
            except RuntimeError as error:
                # Autograd itself refuses that a leaf, handed out without a copy, is written into.
                if writes and "in-place operation" in str(error):
                    raise _OverwrittenError from error
                raise
        if any(found.recorded._version != found.versions[1] for found in seen.values()):
            raise _OverwrittenError
        cut = {a for a, x in seen.items() if x.writes().handed and x.handed.grad_fn is x.node}
        _refuse(set(), cut)
        return result, seen


@contextmanager
def _hooked(
    modules: Mapping[str, nn.Module],
    seen: dict[str, _Seen],
    writes: Mapping[str, _Writes],
    watch: SharedMemoryWatch | None,
) -> Iterator[None]:
    """Hook the modules' calls by this thread; what is recorded of them goes into `seen`."""
    handles = []
    thread = threading.get_ident()

    def hook_of(layer: str) -> Callable:
        # `rest` is (kwargs, output). PyTorch may leave the kwargs out when another thread runs the
        # module while this hook is being removed, so the output is taken as the last.
        def hook(_module: nn.Module, inputs: tuple, *rest: object) -> Tensor | None:
            if threading.get_ident() != thread:
                return None
            output = _feature_map(layer, rest[-1], again=layer in seen)
            given = tensors_in((inputs, *rest[:-1]))
            shared = memory_of(output) in {memory_of(tensor) for tensor in given}
            suspect = shared or not torch.is_grad_enabled()
            seen[layer] = found = _record(output, writes.get(layer, _Writes()), suspect)
            if watch is not None:
                watch.part(layer, output, found.handed)
            return found.handed

        return hook

    try:
        for layer, module in modules.items():
            handles.append(module.register_forward_hook(hook_of(layer), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _record(output: Tensor, writes: _Writes, suspect: bool) -> _Seen:
    """Record a module's output as a leaf or node of its own, and make what is handed on."""
    # The network may run this part without gradients (a frozen trunk); what follows need not.
    with torch.inference_mode(False), torch.enable_grad():
        before = _version(output)
        leaf = not output.requires_grad
        own = output.detach() if leaf else output.view_as(output)
        if writes.output or output.is_inference():
            own = own.clone()
        recorded = own.requires_grad_() if leaf else own
        handed = recorded.clone() if writes.handed else recorded
    versions = (before, recorded._version, handed._version)
    return _Seen(output, recorded, handed, versions, handed.grad_fn, suspect)


def _feature_map(layer: str, output: object, *, again: bool) -> Tensor:
    """Return a module's output, or raise a UserError for what is no (N, K, h, w) tensor."""
    if again:
        raise UserError(
            f"{layer} is called more than once in a forward pass, so its activation is "
            "ambiguous; choose the block around it or a layer that is called once."
        )
    if isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point():
        return output
    given = type(output).__name__
    if isinstance(output, Tensor):
        kind = "" if output.is_floating_point() else f" of {output.dtype}"
        given = f"a tensor {tuple(output.shape)}{kind}"
    raise UserError(
        f"GradCAM expects a layer whose output is (N, K, h, w), but {layer} gives "
        f"{given}; choose a convolutional layer before pooling and flattening."
    )


def _refuse(inseparable: set[str], cut: set[str]) -> None:
    """Raise a UserError for the first layer that has no gradient of its own."""
    for layer in sorted(inseparable):
        raise UserError(
            f"{layer} hands on the memory of its input, and the network writes into that memory "
            "in place while another part still reads it, so there is no gradient of this layer "
            "alone; choose the layer before it or after it."
        )
    for layer in sorted(cut):
        raise UserError(
            f"The network writes into the output of {layer} under torch.no_grad (or activation "
            "checkpointing), so the logits cannot be differentiated with respect to it; choose a "
            "later layer."
        )


def _version(tensor: Tensor) -> int:
    """Return how often a tensor was written into; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version
