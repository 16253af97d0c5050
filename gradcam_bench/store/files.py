"""Files that other processes may read or create at the same moment, and signs of a changed file.

Temporary names are random, since process ids are not unique: in a container the id is mostly 1.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from gradcam_bench.errors import UserError

_ASIDE = re.compile(r"\..+\.\w+\.[0-9a-f]{16}")

_AN_HOUR = 3600.0


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; it replaces any file there and is on disk on return.

    Raises:
        UserError: it cannot be written (no permission, no space, the folder is gone).
    """
    with _told(path), _written_aside(path, content) as aside:
        os.replace(aside, path)
        _sync_folder(path.parent)


def create_atomically(path: Path, content: bytes) -> bool:
    """Create a file that does not exist yet; of many processes that try at once, one succeeds.

    Returns:
        Whether this call made the file; False where it was there already.

    Raises:
        UserError: it cannot be written.
    """
    with _told(path), _written_aside(path, content) as aside:
        try:
            os.link(aside, path)  # unlike a rename, this never replaces
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            try:
                with path.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                return False
        _sync_folder(path.parent)
        return True


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        UserError: a file is in the way, or the folder may not be made.
    """
    for above in (path, *path.parents):
        if above.exists() and not above.is_dir():
            raise UserError(
                f"{path} should be a folder, but {above} is a file. Choose another folder "
                "(output_dir= of a run, --output of a report), or move the file away."
            )
    with _told(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_left_behind(folder: Path) -> None:
    """Remove temporary files older than an hour, left by processes killed while writing.

    Other processes write into the folder meanwhile: a file that is gone again is none of ours.
    """
    for path in folder.glob(".*"):
        with suppress(FileNotFoundError):
            if _ASIDE.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _AN_HOUR:
                path.unlink()


class FileState(NamedTuple):
    """What tells whether a file has changed since: equal states mean an unchanged file.

    Attributes:
        path: absolute.
        size: bytes, -1 where there is no such file.
        mtime_ns: when its content changed, nanoseconds, as the file system tells.
        ctime_ns: when its content, owner or permissions changed.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int


def file_state(path: str | os.PathLike[str]) -> FileState:
    """Return the present state of a file, which need not exist."""
    absolute = os.path.abspath(path)
    try:
        found = os.stat(absolute)
    except OSError:
        return FileState(absolute, -1, 0, 0)
    return FileState(absolute, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@contextmanager
def _written_aside(path: Path, content: bytes) -> Iterator[Path]:
    """Write the content to a temporary file beside the path; remove that file at the end."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with aside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield aside
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn an OSError into a UserError that names the file and says what to check."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}). Check permissions and free "
            "space of the folder, or choose another one."
        ) from error


def _sync_folder(folder: Path) -> None:
    """Flush a folder's list of files to disk, where the file system supports that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
