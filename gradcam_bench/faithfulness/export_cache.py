"""ONNX exports in the user's cache folder; a damaged or unfinished file counts as missing.

A file's name holds the checksum of its content, so that one rename stores both at once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import uuid
from pathlib import Path

log = logging.getLogger(__name__)

LEFT_OVER = 6 * 3600  # seconds after which a file that is still unfinished counts as abandoned


def load(key: str) -> bytes | None:
    """Return the export kept under a key, or None where there is none or it was damaged.

    Damaged files are deleted, with a warning, and so are abandoned unfinished ones, without one.
    """
    folder = _folder()
    if folder is None:
        return None
    _delete_left_over(folder)
    for path in _listed(folder, f"{key}-*.onnx"):
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        if content and path.stem == _name(key, content):
            return content
        log.warning("The ONNX export %s is damaged; exporting again.", path)
        _delete(path)
    return None


def keep(key: str, content: bytes) -> None:
    """Store an export under a key, replacing any other; a failure is logged, not raised."""
    folder = _folder()
    if folder is None:
        log.warning("The ONNX export is not kept: there is no home folder for a cache.")
        return
    partial = folder / f"{key}.{uuid.uuid4().hex}.partial"  # containers share process ids
    path = folder / f"{_name(key, content)}.onnx"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
        for other in set(_listed(folder, f"{key}-*.onnx")) - {path}:
            _delete(other)
    except OSError as error:
        log.warning("The ONNX export is not kept: %s cannot be written (%s).", folder, error)
    finally:
        _delete(partial)


def _folder() -> Path | None:
    """Return the cache folder, whether it exists or not; None where the user has no home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():  # the XDG specification ignores relative paths
        return named / "gradcam_bench"
    try:
        return Path.home() / ".cache" / "gradcam_bench"
    except RuntimeError:
        return None


def _name(key: str, content: bytes) -> str:
    return f"{key}-{hashlib.blake2b(content, digest_size=8).hexdigest()}"


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _delete_left_over(folder: Path) -> None:
    for path in _listed(folder, "*.partial"):
        try:
            given_up = time.time() - path.stat().st_mtime > LEFT_OVER
        except OSError:
            continue
        if given_up:
            _delete(path)
