"""Which process computed which parts of a run: stored in each part, gathered in run.json."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

KEYS = (
    "started",
    "machine",
    "platform",
    "python",
    "versions",
    "commit",
    "device",
    "threads",
    "scorer",
)
"""The keys of run.json that say who computed, with what and on what."""

_PHRASES = {
    "platform": "on {}",
    "device": "on {}",
    "python": "with Python {}",
    "commit": "from commit {}",
    "threads": "with {} threads",
    "scorer": "with {} as scorer",
    "machine": "on machine {}",
}


def this_process() -> dict[str, str]:
    """Return those of `KEYS` that describe this process and its machine.

    `machine` is a hash that tells machines apart without naming them.
    """
    machine = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def provenance(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `KEYS`, with their values, that the content of run.json has."""
    return {key: run[key] for key in KEYS if key in run}


def gather(parts: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return which process computed which parts, one entry per process, the latest last.

    Args:
        parts: the provenance that each part's record holds, by part number.

    Returns:
        Entries of run.json's `computed`: the part numbers as text ("0-3, 7") and the provenance.
    """
    groups: dict[str, list[int]] = {}
    for number, found in sorted(parts.items()):
        groups.setdefault(json.dumps(found, sort_keys=True), []).append(number)
    entries = [{"parts": as_text(numbers), **json.loads(key)} for key, numbers in groups.items()]
    return sorted(entries, key=lambda entry: str(entry.get("started", "")))


def as_text(numbers: Iterable[int]) -> str:
    """Return ascending part numbers as "0-3, 7"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def from_text(text: str) -> list[int]:
    """Return the part numbers of "0-3, 7"."""
    numbers: list[int] = []
    for span in filter(None, text.split(", ")):
        first, _, last = span.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def provenance_differences(run: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each way in which the parts of a run were computed differently.

    Args:
        run: run.json's content.

    Returns:
        E.g. ["parts 0-3 were computed with torch 2.6, parts 4-5 with torch 2.7"]; empty where all
        parts were computed alike. All differences between the same parts make one sentence.
        A key that an entry lacks (one of an older version) is not compared.
    """
    flat = [(from_text(entry["parts"]), _flat(entry)) for entry in run.get("computed") or []]
    keys = dict.fromkeys(key for _, values in flat for key in values)
    told: dict[tuple[str, ...], list[list[str]]] = {}
    for key in keys:
        found: dict[str, list[int]] = {}
        for numbers, values in flat:
            if key in values:
                found.setdefault(values[key], []).extend(numbers)
        if len(found) > 1:
            groups = tuple(as_text(sorted(numbers)) for numbers in found.values())
            told.setdefault(groups, []).append([_phrase(key, value) for value in found])
    return [_sentence(groups, phrases) for groups, phrases in told.items()]


def _sentence(groups: Sequence[str], phrases: Sequence[Sequence[str]]) -> str:
    clauses = []
    for i, (group, alike) in enumerate(zip(groups, zip(*phrases, strict=True), strict=True)):
        noun = "parts" if "-" in group or "," in group else "part"
        verb = "" if i else ("were computed " if noun == "parts" else "was computed ")
        clauses.append(f"{noun} {group} {verb}{' and '.join(alike)}")
    return ", ".join(clauses)


def _flat(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of an entry that are compared, as text, one key per package version."""
    named = {key: str(entry[key]) for key in _PHRASES if entry.get(key) is not None}
    versions = entry.get("versions") or {}
    return {f"versions.{name}": str(found) for name, found in versions.items()} | named


def _phrase(key: str, value: str) -> str:
    if key.startswith("versions."):
        return f"with {key.removeprefix('versions.')} {value}"
    return _PHRASES[key].format(value)
