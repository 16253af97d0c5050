"""A hash of a user's own code (a network's, a method's), so that changed code makes another run.

Weights and class names do not tell what `forward` computes. The code of the packages in `LIBRARIES`
is left out: run.json records their versions, and runs of their networks that were stored before
there was this hash keep their config hash.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

LIBRARIES = ("torch", "torchvision", "timm", "gradcam_bench")

Named = tuple[str, Any]  # a name in some code, and what it stands for


def code_hash(network: nn.Module, factory: str | None = None) -> str | None:
    """Return a short hash of a network's own code, or None where all of it is a library's.

    Hashed are the functions of the modules' classes and the factory, and whatever functions,
    classes and plain values (numbers, texts, lists of them) these name, at any depth. Installed
    packages are not followed, unless a module's class comes from one. A function without a source
    file (typed into a shell) is hashed as bytecode, which differs between versions of Python.

    Args:
        network: any network.
        factory: the function that built it, "package.module:function".
    """
    start = [thing for thing in _start(network, factory) if _package(thing) not in LIBRARIES]
    texts = {m.code for m in network.modules() if isinstance(m, torch.fx.GraphModule)}
    if not start and not texts:
        return None
    return _hash(start, texts | _plain_attributes(network, {_package(thing) for thing in start}))


def function_hash(function: Callable[..., Any]) -> str:
    """Return a short hash of a user's own function and of what it calls, as in `code_hash`."""
    found = _code_of(function) or _code_of(type(function))
    return _hash([found], {_description(function)})


def _hash(start: Sequence[Any], texts: set[str]) -> str:
    """Return a short hash of texts and of the code of classes and functions, at any depth."""
    packages = {_package(thing) for thing in start}
    pending, seen = list(start), set[int]()
    while pending:
        thing = pending.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        text, named = _of_class(thing) if isinstance(thing, type) else _of_function(thing)
        texts |= {text, *(f"{text}: {name} = {_description(value)}" for name, value in named)}
        pending += [
            value
            for value in map(_code_of, [value for _, value in named])
            if value is not None and _followed(value, packages)
        ]
    digest = hashlib.blake2b(digest_size=8)
    for text in sorted(texts):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def _start(network: nn.Module, factory: str | None) -> Iterator[Any]:
    """Yield the classes of a network's modules, the functions set as `forward`, and the factory."""
    for module in network.modules():
        yield type(module)
        for forward in (type(module).forward, vars(module).get("forward")):
            function = _code_of(forward)
            if function is not None:
                yield function
    if factory is not None:
        name, _, function_name = factory.partition(":")
        found = _code_of(getattr(sys.modules.get(name), function_name, None))
        if found is not None:
            yield found


def _plain_attributes(network: nn.Module, packages: set[str]) -> set[str]:
    """Return the numbers, texts and the like that the user's own modules hold."""
    return {
        f"{path}.{name} = {value!r}"
        for path, module in network.named_modules()
        if _package(type(module)) in packages
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }


def _of_class(kind: type) -> tuple[str, list[Named]]:
    """Return a class's name, and its bases and everything in it by name."""
    inside = [(name, value) for name, value in vars(kind).items() if not _is_dunder(name, value)]
    return f"class {kind.__module__}.{kind.__qualname__}", [
        *(("base", base) for base in kind.__bases__),
        *inside,
    ]


def _of_function(function: FunctionType) -> tuple[str, list[Named]]:
    """Return a function's source, and what its names stand for."""
    code = function.__code__
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = f"{code.co_code.hex()} {code.co_names} {[c for c in code.co_consts if _is_plain(c)]}"
    names = set(_names(code))
    named = [(name, function.__globals__[name]) for name in names & function.__globals__.keys()]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if cell != type(cell)():  # an empty cell equals a new one
            named.append((name, cell.cell_contents))
    named += list(enumerate(function.__defaults__ or ()))  # type: ignore[arg-type]
    named += list((function.__kwdefaults__ or {}).items())
    modules = [value for _, value in named if isinstance(value, ModuleType)]
    named += [(n, getattr(m, n)) for m in modules if _is_users(m) for n in names if hasattr(m, n)]
    return text, named


def _names(code: CodeType) -> Iterator[str]:
    """Yield the global names and attributes of a function's code, inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _code_of(value: Any) -> Any:
    """Return the class or the plain function behind a value, or None."""
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, staticmethod | classmethod | MethodType):
        value = value.__func__
    if isinstance(value, nn.Module):
        value = type(value)
    if callable(value) and not isinstance(value, type):
        value = inspect.unwrap(value)
    return value if isinstance(value, type | FunctionType) else None


def _description(value: Any) -> str:
    """Return what a value is, the same in every process: no addresses."""
    if _is_plain(value) or isinstance(value, nn.Module):
        return repr(value)
    if isinstance(value, functools.partial):
        plain = [v for v in (*value.args, *value.keywords.items()) if _is_plain(v)]
        return f"partial of {_description(value.func)} {plain}"
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    return f"{type(value).__name__} {getattr(value, '__module__', None)}.{name}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    return value is None or isinstance(value, bool | int | float | str)


def _is_dunder(name: str, value: Any) -> bool:
    """Return whether a class's entry is Python's bookkeeping (`__doc__`, `__module__`)."""
    return name.startswith("__") and _code_of(value) is None


def _package(thing: Any) -> str:
    return str(getattr(thing, "__module__", None)).partition(".")[0]


def _followed(thing: Any, packages: set[str]) -> bool:
    package = _package(thing)
    return package in packages or _is_users(sys.modules.get(package))


def _is_users(module: ModuleType | None) -> bool:
    """Return whether a module is neither a library nor built in nor installed."""
    if module is None:
        return False
    package = module.__name__.partition(".")[0]
    if package in LIBRARIES or package in sys.stdlib_module_names:
        return False
    file = getattr(module, "__file__", None) or ""
    return "site-packages" not in file and "dist-packages" not in file
