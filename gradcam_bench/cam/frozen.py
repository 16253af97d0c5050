"""A context in which a network is in eval mode and its parameters take no gradients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn


@dataclass
class _Held:
    """A module that was in training mode, or a parameter that took gradients.

    Attributes:
        part: the module or parameter.
        holders: how many `frozen` contexts, of all threads, are using it.
    """

    part: nn.Module | nn.Parameter
    holders: int = 0


# By id(part); no other object can get this id as long as the part itself is kept here.
_held: dict[int, _Held] = {}

_lock = threading.Lock()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode and every parameter out of autograd, then restore each.

    Several threads may freeze the same network at the same time. A module or parameter is restored
    when the last of them leaves the context, so the network changes for none while it is in use.
    """
    mine: list[int] = []
    try:
        with _lock:
            for module in model.modules():
                if module.training or id(module) in _held:
                    _hold(module, mine)
            for parameter in model.parameters():
                if parameter.requires_grad or id(parameter) in _held:
                    _hold(parameter, mine)
        yield
    finally:
        with _lock:
            for key in mine:
                _held[key].holders -= 1
                if not _held[key].holders:
                    _set(_held.pop(key).part, True)


def _hold(part: nn.Module | nn.Parameter, mine: list[int]) -> None:
    _set(part, False)
    _held.setdefault(id(part), _Held(part)).holders += 1
    mine.append(id(part))


def _set(part: nn.Module | nn.Parameter, value: bool) -> None:
    if isinstance(part, nn.Module):
        part.training = value
    else:
        part.requires_grad_(value)
