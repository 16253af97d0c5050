"""One part file: rows with a record of what they are, and a checksum over every byte.

The record stands in the file's Parquet metadata, so a part says by itself which run it belongs to,
how many images it holds and who computed it. The checksum is BLAKE2b of the whole file, taken with
the checksum's own digits as zeros: it is compared before anything is decoded, so a damaged file
never reaches Arrow.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from gradcam_bench.errors import UserError
from gradcam_bench.store.files import FileState
from gradcam_bench.store.schema import COLUMNS, GALLERY_COLUMNS, to_table, typed

Kind = Literal["scores", "gallery"]

KINDS: tuple[Kind, ...] = ("scores", "gallery")

SCHEMAS = {"scores": COLUMNS, "gallery": GALLERY_COLUMNS}

_MARK = b"blake2b:"

_DIGITS = 32

_JSON = ("part", "rows", "images", "errors", "seconds", "broken_files", "provenance")

_UNREADABLE = (OSError, ValueError, KeyError, MemoryError, pa.ArrowException)


class DamagedPartError(UserError):
    """A part file that cannot be used; the message ends a sentence that begins with its path."""


@dataclass(frozen=True)
class Record:
    """What a part file says of itself, in its Parquet metadata.

    Attributes:
        kind: "scores" or "gallery".
        config_hash: config hash of the run that it belongs to.
        part: its number, from 0.
        rows: number of rows in it.
        images: number of images that the rows belong to, broken ones included.
        errors: how many of these are broken; -1 where an older version did not finish the part.
        seconds: time that computing the part took.
        broken_files: states of the broken images' files, where there are such files.
        provenance: the process that computed it and its machine, see `computed_by`.
        checked: whether the checksum was compared; False for a part of an older version, which
            carries neither config hash nor checksum.
    """

    kind: str
    config_hash: str
    part: int
    rows: int
    images: int
    errors: int
    seconds: float
    broken_files: list[FileState] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    checked: bool = True


def images_and_errors(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return how many images the rows belong to, and how many of those are broken."""
    broken = {row["image_id"] for row in rows if row.get("error") is not None}
    return len({row["image_id"] for row in rows}), len(broken)


def encode(rows: Sequence[Mapping[str, Any]], record: Record) -> bytes:
    """Return the content of a part file.

    Raises:
        AssertionError: a row holds what cannot be stored without loss, see `schema.to_table`.
    """
    table = to_table(rows, SCHEMAS[record.kind])
    told = asdict(record)
    metadata = {name: told[name] for name in ("kind", "config_hash")}
    metadata |= {name: json.dumps(told[name]) for name in _JSON}
    metadata["checksum"] = (_MARK + b"0" * _DIGITS).decode()
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    content = sink.getvalue().to_pybytes()
    at = _digits_at(content)
    assert at is not None
    return content[:at] + _digest(content, at) + content[at + _DIGITS :]


def intact(content: bytes) -> bool:
    """Return whether a part file's checksum fits its content; False where it has none."""
    at = _digits_at(content)
    return at is not None and content[at : at + _DIGITS] == _digest(content, at)


def _digits_at(content: bytes) -> int | None:
    """Return where the checksum's digits begin: after the last mark, which the footer holds."""
    at = content.rfind(_MARK)
    return None if at < 0 else at + len(_MARK)


def _digest(content: bytes, at: int) -> bytes:
    view = memoryview(content)
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    digest.update(view[:at])
    digest.update(b"0" * _DIGITS)
    digest.update(view[at + _DIGITS :])
    return digest.hexdigest().encode()


_known: dict[tuple[str, int, int, int], Record] = {}
"""Records of the files checked by this process: each is read and checked once, until it changes."""


def read_record(path: Path) -> Record:
    """Return what a part file says of itself, after comparing its checksum (once per process).

    Raises:
        FileNotFoundError: there is none.
        DamagedPartError: it is no file, cannot be read, or is not what was written.
    """
    key = _identity(path)
    if key not in _known:
        _known[key] = _record(_content(path))
    return _known[key]


def read_table(path: Path) -> pa.Table:
    """Return the rows of a part file, checked as `read_record` does, with the described types.

    Raises:
        FileNotFoundError: there is none.
        DamagedPartError: it is no file, cannot be read, or is not what was written.
    """
    key = _identity(path)
    content = _content(path)
    if key not in _known:
        _known[key] = _record(content)
    try:
        table = pq.read_table(pa.BufferReader(content))
    except _UNREADABLE as error:
        raise DamagedPartError(f"cannot be decoded ({_first_line(error)})") from error
    schema = SCHEMAS["gallery" if path.parent.name == "gallery" else "scores"]
    return typed(table, schema)


def _identity(path: Path) -> tuple[str, int, int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedPartError(f"cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode):
        raise DamagedPartError("is no file")
    return os.path.abspath(path), found.st_ino, found.st_size, found.st_mtime_ns


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedPartError(f"cannot be read ({error.strerror})") from error


def _metadata(content: bytes) -> dict[str, str]:
    """Return the Parquet metadata of a file; without the schema that Arrow keeps there."""
    found = pq.read_metadata(pa.BufferReader(content)).metadata or {}
    return {k.decode(): v.decode() for k, v in found.items() if k != b"ARROW:schema"}


def _record(content: bytes) -> Record:
    if not content:
        raise DamagedPartError("is empty")
    signed = _digits_at(content) is not None
    if signed and not intact(content):
        raise DamagedPartError("is damaged or was edited (its checksum differs)")
    try:
        found = _metadata(content)
        if not signed:
            return _old_record(content, found)
        told = {name: json.loads(found[name]) for name in _JSON}
    except _UNREADABLE as error:
        raise DamagedPartError(f"is no whole Parquet file ({_first_line(error)})") from error
    told["broken_files"] = [FileState(*state) for state in told["broken_files"]]
    return Record(found["kind"], found["config_hash"], **told)


def _old_record(content: bytes, found: Mapping[str, str]) -> Record:
    """Return what is known of a part that an older version wrote."""
    table = pq.read_table(pa.BufferReader(content), columns=["image_id"])
    images = len(table["image_id"].unique())
    errors, seconds = int(found.get("errors", -1)), float(found.get("seconds", 0))
    return Record("", "", -1, table.num_rows, images, errors, seconds, checked=False)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
