"""The two ways in which bad input is told: short, without a traceback, with what to do."""

from __future__ import annotations

import os


class UserError(ValueError):
    """A user's mistake: the message says what was expected, what was given and what to do.

    The command line prints the message alone and exits with code 2.
    """


class ExampleError(UserError):
    """One broken example (image or annotation); the message names the file.

    A run tolerates a share `max_errors` of these: their rows are stored with the message and
    undefined (NaN) scores.

    Attributes:
        path: the broken file, or None where it is no single one. A run that is started again tries
            the image again when this file has changed.
    """

    def __init__(self, message: str, *, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.path = path


def nearest(given: str, known: list[str], *, limit: int = 3) -> str:
    """Return ` Nearest: a, b.` for the names closest to the one given, or an empty string."""
    import difflib

    close = difflib.get_close_matches(given, known, n=limit, cutoff=0.4)
    return f" Nearest: {', '.join(close)}." if close else ""
