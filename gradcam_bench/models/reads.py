"""Which operators read a tensor, those that a network calls outside of any module included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Key = tuple[str, str]  # what is watched, and of which module: ("output", "layer4.1.conv2")


@dataclass(frozen=True)
class Read:
    """One operator that had a watched tensor, or a view of it, among its arguments.

    Attributes:
        key: what the watched tensor is, and of which module.
        operator: its name in ATen, with "_" at the end where it works in place: "relu_".
        inside: a copy of `Reads.inside` at that time.
    """

    key: Key
    operator: str
    inside: tuple[str, ...]


class Reads(TorchDispatchMode):
    """Within this context every read of a watched tensor's memory is recorded.

    Attributes:
        found: the reads, in their order; those that wrote in place are among them.
        inside: names that the caller pushes and pops, copied into each read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Read] = []
        self.inside: list[str] = []
        # By address of the memory; no other tensor can get it while the watched one is kept here.
        self._watched: dict[int, list[tuple[Key, Tensor]]] = {}

    def watch(self, key: Key, tensor: Tensor) -> None:
        """Record from now on what reads the memory of this tensor."""
        watchers = self._watched.setdefault(tensor.untyped_storage().data_ptr(), [])
        watchers.append((key, tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator, after a look at its arguments."""
        kwargs = kwargs or {}
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                for key, _ in self._watched.get(value.untyped_storage().data_ptr(), ()):
                    name = func.overloadpacket.__name__
                    self.found.append(Read(key, name, tuple(self.inside)))
        return func(*args, **kwargs)
