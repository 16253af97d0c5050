"""The two ways in which bad input is told: short, without a traceback, with what to do."""

from __future__ import annotations

import os
from enum import Enum
from typing import TypeVar

SHOWN = 100  # characters of a file's own text in a message


class UserError(ValueError):
    """A user's mistake: the message says what was expected, what was given and what to do.

    The command line prints the message alone and exits with code 2.
    """


class ExampleError(UserError):
    """One broken example (image or annotation); the message names the file.

    A run tolerates a share `max_errors` of these: their rows are stored with the message and
    undefined (NaN) scores. Worker processes can hand it on: it pickles with its attributes.

    Args:
        message: what is wrong, in which file, and what to do.
        kind: "image" (the file cannot be read as a picture that shows something), "annotation"
            (the boxes' file is missing or malformed), "box" (a size or a corner that cannot be
            right) or "label" (no class, two classes, or an unknown one).
        path: the file to mend, None where the data set has no files. A run that is started again
            tries the image again when this file has changed.
    """

    def __init__(
        self, message: str, *, kind: str = "image", path: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.path = None if path is None else os.fspath(path)


def kind_of(error: BaseException) -> str:
    """Return the kind of an ExampleError; any other error of a file of boxes is "annotation"."""
    return error.kind if isinstance(error, ExampleError) else "annotation"


def brief(text: object) -> str:
    """Return text of a file or of another library on one line, printable and not too long."""
    line = " ".join(str(text).split())
    shown = line if line.isprintable() else repr(line)[1:-1]
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


def nearest(given: str, known: list[str], *, limit: int = 3) -> str:
    """Return ` Nearest: a, b.` for the names closest to the one given, or an empty string."""
    import difflib

    close = difflib.get_close_matches(given, known, n=limit, cutoff=0.4)
    return f" Nearest: {', '.join(close)}." if close else ""


_Kind = TypeVar("_Kind", bound=Enum)


def one_of(kind: type[_Kind], given: str, key: str) -> _Kind:
    """Return a choice by its word.

    Args:
        kind: the choices, e.g. `names.Ties`.
        given: a word.
        key: what it was given for, for the message.

    Raises:
        UserError: it is none of them; the message lists them.
    """
    try:
        return kind(given)
    except ValueError:
        words = ", ".join(str(choice.value) for choice in kind)
        raise UserError(f"{key} expects one of {words}, got {given!r}.") from None
