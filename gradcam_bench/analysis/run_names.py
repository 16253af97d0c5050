"""Short names of runs, made of what differs between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FIRST = ("dataset", "layers", "methods", "protocols", "target", "precision", "geometry", "seed")
"""Choices that a name is made of before all others, in this order."""

_UNTOLD = frozenset(
    {
        "output_dir", "device", "batch_size", "num_workers", "part_size", "shard", "engine",
        "max_errors", "on_error", "overwrite", "report", "gallery", "scoring",
    }
)  # fmt: skip
"""Choices that say where and how fast a run was computed, not what."""

_LONGEST_VALUE, _LONGEST_NAME = 32, 64


def different_names(
    names: Sequence[str],
    configs: Sequence[Mapping[str, Any]],
    directories: Sequence[Path],
) -> list[str]:
    """Return a name for each run, each different from the others.

    A name that only one run has stays. Runs that share one, such as several runs of one model, add
    the choices of their configs that tell them apart, e.g. "resnet50, layers=all"; runs whose
    choices are equal, or too long to tell, add their folder in brackets.

    Args:
        names: of the models, one a run.
        configs: the config of each run, as run.json keeps it.
        directories: where each run is stored, all different.
    """
    found = list(names)
    for name in dict.fromkeys(names):
        alike = [number for number, other in enumerate(names) if other == name]
        if len(alike) == 1:
            continue
        told = _told_apart([configs[number] for number in alike])
        folders = _folders([directories[number] for number in alike])
        for number, choices, folder in zip(alike, told, folders, strict=True):
            longer = ", ".join([name, *choices])
            unique = told.count(choices) == 1 and len(longer) <= _LONGEST_NAME
            found[number] = longer if unique else f"{name} ({folder})"
    return found


def _told_apart(configs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return texts such as "layers=all" of the fewest choices that tell all configs apart."""
    flat = [_choices(config) for config in configs]
    keys = dict.fromkeys(key for choices in flat for key in choices)
    differing = [key for key in keys if len({choices.get(key) for choices in flat}) > 1]
    differing.sort(key=_priority)
    told: list[list[str]] = [[] for _ in configs]
    for key in differing:
        longer = [
            [*texts, f"{_short(key, differing)}={choices[key]}"] if key in choices else texts
            for texts, choices in zip(told, flat, strict=True)
        ]
        if len(set(map(tuple, longer))) > len(set(map(tuple, told))):
            told = longer
    return told


def _priority(key: str) -> tuple[int, int, str]:
    """Order keys: those of `_FIRST` in its order, and whole sections before what is in them."""
    section = key.partition(".")[0]
    rank = _FIRST.index(section) if section in _FIRST else len(_FIRST)
    return rank, key.count("."), key


def _short(key: str, others: Sequence[str]) -> str:
    """Return the last part of a dotted key, or all of it where another key ends in the same."""
    last = key.rpartition(".")[2]
    alike = [other for other in others if other.rpartition(".")[2] == last]
    return last if len(alike) == 1 else key


def _choices(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the choices of a config as texts by dotted key.

    A section stands for itself by the name of what it builds (the data set's class), and the
    section of protocols by the protocols' names.
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if path in _UNTOLD or key == "_target_":
            continue
        if not isinstance(value, Mapping):
            found[path] = _text(key, value)
            continue
        if "_target_" in value and not prefix:
            found[path] = str(value["_target_"]).rpartition(".")[2]
        elif path == "protocols":
            found[path] = _text(key, list(value))
        found |= _choices(value, f"{path}.")
    return found


def _text(key: str, value: object) -> str:
    """Return a choice as a short text: long lists by their length, paths by their last part."""
    if isinstance(value, list | tuple):
        text = "+".join(map(str, value))
        return text if len(text) <= _LONGEST_VALUE else f"{len(value)} {key}"
    text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= _LONGEST_VALUE else text.rpartition("/")[2][-_LONGEST_VALUE:]


def _folders(directories: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    parts = [path.resolve().parts for path in directories]
    for length in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(part[-length:]) for part in parts]
        if len(set(ends)) == len(ends):
            return ends
    return [str(path) for path in directories]
