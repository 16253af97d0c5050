"""Which operations read and write a memory that two parts of a network share.

A module that returns its own input (Dropout in eval mode, an in-place ReLU) gives one memory two
names. To record what only this module's consumers see, they are handed a copy instead. With the
copy the network computes the same only as long as no operation writes into one of the two tensors
before another operation reads the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class _Pair:
    """A memory and its copy.

    Attributes:
        layer: path of the module whose output it is.
        memories: addresses of the module's output and of the copy that its consumers received.
        written: those of the two addresses that were written into since the copy was made.
    """

    layer: str
    memories: tuple[int, int]
    written: set[int]


class SharedMemoryWatch(TorchDispatchMode):
    """Watches every operation and notes the layers whose copy changes what the network computes.

    Attributes:
        inseparable: the layers whose output was read after its copy was written into, or whose copy
            was read after the output was: with the copy the network computes something else.
        cut: the layers whose copy was written into under `torch.no_grad`: autograd does not see the
            write, so the gradient would not be that of the layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inseparable: set[str] = set()
        self.cut: set[str] = set()
        self._pairs: list[_Pair] = []
        self._alive: list[Tensor] = []  # keeps the memories, so that addresses stay unique

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare the import of torch._dynamo, which takes seconds; nothing is compiled here."""
        return False

    def part(self, layer: str, output: Tensor, copy: Tensor) -> None:
        """Watch a module's output and the copy of it that the module's consumers receive."""
        self._alive += [output, copy]
        self._pairs.append(_Pair(layer, (memory_of(output), memory_of(copy)), set()))

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Any,
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Note what the operation reads and writes, and run it."""
        kwargs = kwargs or {}
        if self._pairs:
            read, written = _touched(operation._schema, args, kwargs)
            for pair in self._pairs:
                here, copy = pair.memories
                if (here in read and copy in pair.written) or (
                    copy in read and here in pair.written
                ):
                    self.inseparable.add(pair.layer)
                if copy in written and not torch.is_grad_enabled():
                    self.cut.add(pair.layer)
                pair.written |= written.intersection(pair.memories)
        return operation(*args, **kwargs)


def _touched(schema: Any, args: tuple, kwargs: Mapping[str, Any]) -> tuple[set[int], set[int]]:
    """Return the addresses of the memories that an operation reads and those that it writes.

    An operation that only gives its argument another name (a view) does neither. One that writes
    reads too.
    """
    read: set[int] = set()
    written: set[int] = set()
    for i, argument in enumerate(schema.arguments):
        given = args[i] if i < len(args) else kwargs.get(argument.name)
        found = {memory_of(tensor) for tensor in tensors_in(given)}
        if argument.alias_info is None or argument.alias_info.is_write:
            read |= found
        if argument.alias_info is not None and argument.alias_info.is_write:
            written |= found
    return read, written


def memory_of(tensor: Tensor) -> int:
    """Return the address of a tensor's whole memory, the same for all its views."""
    try:
        return tensor.untyped_storage().data_ptr()
    except NotImplementedError:  # a sparse tensor has no memory that others could name
        return -id(tensor)


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
