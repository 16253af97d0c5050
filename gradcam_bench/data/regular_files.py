"""Read whole files of a data set: only regular files, since others may hang, and up to a size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gradcam_bench.errors import UserError, brief

MAX_TABLE_BYTES = 2**28  # a box file of all 1.3 million training images takes a third of that


# O_NONBLOCK keeps the opening of a pipe from waiting for its other end, and changes nothing for
# regular files. O_BINARY exists on Windows only.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_regular(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """Return the bytes of a file.

    Args:
        path: of the file; links are followed.
        limit: the largest size that is read, in bytes.

    Raises:
        OSError: the file is missing, may not be read, is no regular file (a folder, a pipe, a
            device, which could hang or never end), or is larger than `limit`.
    """
    file = os.open(path, _FLAGS)  # Python's file object would double the time for a small file
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is a folder, a pipe or a device, no regular file")
        if status.st_size > limit:
            raise OSError(f"its {status.st_size} bytes are more than the {limit} allowed")
        pieces = []
        while piece := os.read(file, status.st_size + 1):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(file)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file, with any line ends, with or without a BOM.

    Raises:
        UserError: the file cannot be read, is larger than `MAX_TABLE_BYTES`, or is not UTF-8.
    """
    try:
        return read_regular(path, limit=MAX_TABLE_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({brief(error)}); restore the file") from error


def file_size(path: str) -> int:
    """Return the size of a file in bytes, -1 where it is missing (loading it reports that)."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1
