"""A class by its number or a part of its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from gradcam_bench.errors import UserError, nearest

_SHOWN = 12  # classes in a message


def class_of(asked: str, names: Sequence[str]) -> int:
    """Return the index of the class that a number or a part of a name stands for.

    A class's first name counts before its others, a whole name before a whole word, and a word
    before a part of one: "ox" is the ox, not the oxcart. Upper and lower case do not matter.

    Args:
        asked: as typed.
        names: all names of each class, separated by ", ".

    Raises:
        UserError: no class is called so, with the nearest; or several are, with their numbers.
    """
    text = asked.strip().lower()
    if re.fullmatch(r"-?\d+", text):
        if not 0 <= int(text) < len(names):
            raise UserError(
                f"class_idx expects 0 to {len(names) - 1}, or a part of a class's name, got {text}."
            )
        return int(text)
    synonyms = [name.lower().split(", ") for name in names]
    word = re.compile(rf"\b{re.escape(text)}\b")
    ways: list[Callable[[list[str]], bool]] = [
        lambda called: text == called[0],
        lambda called: text in called,
        lambda called: any(word.search(one) for one in called),
        lambda called: any(text in one for one in called),
    ]
    matches = ([i for i, called in enumerate(synonyms) if way(called)] for way in ways)
    found: list[int] = next(filter(None, matches), []) if text else []
    if not found:
        whole = [one for called in synonyms for one in called]
        known = list(dict.fromkeys([*whole, *(part for one in whole for part in one.split())]))
        raise UserError(f"No class is called {asked!r}.{nearest(text, known)}")
    if len(found) > 1:
        told = [f"{index} {short_name(names[index])}" for index in found[:_SHOWN]]
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise UserError(
            f"{len(found)} classes are called {asked!r}: {', '.join(told)}{more}. Give more of the "
            "name, or the number: class_idx=NUMBER."
        )
    return found[0]


def short_name(name: str) -> str:
    """Return the first name of a class."""
    return name.split(", ")[0]
