"""Hooks that record a network's activations while it runs, and leave it as it was found.

What is recorded is a tensor of its own in the autograd graph: the module's consumers are handed
this tensor (or a copy of it), while others that hold the module's input or the very same output
keep what they had. So the gradient is that of what the module hands on, in every pass.

What a hook sees may also be overwritten later in the same pass by a consumer that works in place
(ReLU(inplace=True), `out += identity`). Copies prevent that, but cost as much as a tenth of a
forward (VGG-16, 13 layers; scripts/benchmark_speed.py). So copies are made in the first pass only
to find out, by PyTorch's version counters, whether anybody writes; where nobody does, later passes
go without, and the counters are looked at again after each.
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
    """A pass with too few copies met a consumer that works in place."""


@dataclass(frozen=True)
class _Writes:
    """Who writes into a layer's memory once it has run: into its output, into what went on."""

    output: bool = True
    handed: bool = True


NOBODY_WRITES = _Writes(False, False)


@dataclass(frozen=True)
class _Seen:
    """One layer in one pass: the module's output, what is recorded of it, what went on.

    Attributes:
        versions: of the three tensors at that moment; each in-place operation adds one.
        node: the handed tensor's place in the graph at that moment.
        suspect: copying may not be enough, once somebody writes: an input of the module lies in
            the same memory as its output, or the module ran without gradients.
    """

    output: Tensor
    recorded: Tensor
    handed: Tensor
    versions: tuple[int, int, int]
    node: object
    suspect: bool

    def writes(self) -> _Writes:
        """Return who has written since."""
        output, _, handed = self.versions
        return _Writes(_version(self.output) != output, self.handed._version != handed)


class Recorder:
    """Records the output of some modules, each the leaf or a node of the autograd graph.

    Args:
        modules: by layer name.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = modules
        self._writes: dict[str, _Writes] = {}

    @property
    def unwritten(self) -> set[str]:
        """Layers whose memory nobody wrote into so far; nothing of them is copied."""
        return {layer for layer, found in self._writes.items() if found == NOBODY_WRITES}

    def run(self, forward: Callable[[], Result]) -> tuple[Result, dict[str, Tensor]]:
        """Run the network; return its result and what the modules put out, by layer.

        Args:
            forward: runs the network once; it is called again where copies were missing.

        Raises:
            UserError: a module is called twice or gives no (N, K, h, w) tensor; a layer's output
                cannot be told from its input's memory, or is written into without gradients.
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
    """Hook the modules for what this thread runs; what they put out goes into `seen`."""
    handles = []
    thread = threading.get_ident()

    def hook_of(layer: str) -> Callable:
        # The last of (inputs, kwargs, output). Another thread that runs the same module may leave
        # the kwargs out, when this hook is being removed meanwhile.
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
    """Make a leaf or node of its own of a module's output, and what the network goes on with."""
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
