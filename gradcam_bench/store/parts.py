"""Rows on disk: part files with fixed boundaries and run.json, for processes that share a folder.

Part i holds the rows of images [i * part_size, (i + 1) * part_size) of the data set's fixed order.
A part is written to a temporary file and renamed, so it exists whole or not at all. To resume a
stopped run, or to share one among processes, is therefore to compute the parts that are missing.
run.json says which config the folder is for. The first process that starts on a folder makes it,
before any part, and every part carries the same config hash, so rows of two configs never mix.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradcam_bench.store.computed_by import KEYS, gather, provenance, provenance_differences
from gradcam_bench.store.files import (
    FileState,
    file_state,
    make_folder,
    remove_left_behind,
    write_atomically,
)
from gradcam_bench.store.part_file import (
    KINDS,
    DamagedPartError,
    Kind,
    Record,
    encode,
    images_and_errors,
)
from gradcam_bench.store.part_folder import (
    PartFolder,
    has_gallery,
    missing_parts,
    read_gallery,
    read_rows,
    read_run,
)
from gradcam_bench.store.run_file import (
    FORMAT,
    identity_hash,
    join,
    remove,
    same_config,
    still_own,
    to_json,
)

__all__ = [
    "Store",
    "has_gallery",
    "identity_hash",
    "missing_parts",
    "provenance_differences",
    "read_gallery",
    "read_rows",
    "read_run",
    "same_config",
    "write_atomically",
]


class Store:
    """The output folder of one run, or of its shards together.

    Args:
        directory: the output folder, made where it is missing.
        run: the content of a new run.json, about the config and this process; its `config_hash` and
            `identity` say which config the folder is for.
        n_images: number of images of the whole run, over all shards.
        part_size: number of images in a part.
        overwrite: whether to replace the run of another config in this folder.
        retry_errors: whether to compute parts with a broken image again even where the image's file
            has not changed.

    Raises:
        UserError: the folder belongs to another config, or cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        run: Mapping[str, Any],
        *,
        n_images: int,
        part_size: int,
        overwrite: bool = False,
        retry_errors: bool = False,
    ) -> None:
        self.directory, self.n_images, self.part_size = directory, n_images, part_size
        self.n_parts = -(-n_images // part_size)
        self.run: dict[str, Any] = {
            **run,
            "format": FORMAT,
            "n_parts": self.n_parts,
            "complete": False,
        }
        self.retry_errors = retry_errors
        self._wrote = False
        self._told: set[int] = set()
        self._errors: dict[int, int] = {}  # broken images by part, as far as known
        make_folder(directory)
        self.found = join(directory, self.run, overwrite=overwrite)
        """The content of run.json as this process found it; empty where this process made it."""
        if self.found:
            self.run["config_hash"] = self.found.get("config_hash")  # which the parts carry
        self.parts = PartFolder.of(directory, self.found or self.run)
        for kind in KINDS:
            make_folder(directory / kind)
            remove_left_behind(directory / kind)

    def missing_parts(self, shard_index: int = 0, shard_count: int = 1) -> list[int]:
        """Return the parts of a shard that are to be computed.

        Those are the parts that do not exist, that are damaged or belong to another run (which is
        logged), and those with a broken image whose file has changed since.
        """
        mine = range(shard_index, self.n_parts, shard_count)
        return [part for part in mine if self._is_missing(self._record(part))]

    def _is_missing(self, record: Record | None) -> bool:
        if record is None or record.errors < 0:
            return True
        if not record.errors:
            return False
        changed = any(file_state(state.path) != state for state in record.broken_files)
        return self.retry_errors or not record.checked or changed

    def complete(self) -> bool:
        """Return whether every part of every shard exists, undamaged."""
        return all(self._record(part) is not None for part in range(self.n_parts))

    def errors(self, *, without: Container[int] = ()) -> int:
        """Return how many images are broken in the parts stored so far, by any process.

        Args:
            without: numbers of the parts that are being computed anew, which do not count.
        """
        for part in self.parts.numbers("scores"):
            if part not in self._errors:  # a listing is cheap; only new parts are looked at
                record = self._record(part)
                self._errors[part] = 0 if record is None else max(record.errors, 0)
        return sum(count for part, count in self._errors.items() if part not in without)

    def recount_errors(self, *, without: Container[int] = ()) -> int:
        """Return `errors` after reading all parts again; other processes may have replaced some."""
        self._errors.clear()
        return self.errors(without=without)

    def first_error(self) -> str:
        """Return the message of the first broken image that is stored; empty without one."""
        for part in range(self.n_parts):
            record = self._record(part)
            if record is not None and record.errors > 0:
                told = self.parts.table("scores", part)["error"].drop_null()
                return str(told[0]) if len(told) else ""
        return ""

    def images_of(self, part: int) -> range:
        """Return the image indices of a part."""
        start = part * self.part_size
        return range(start, min(start + self.part_size, self.n_images))

    def write_part(
        self,
        part: int,
        rows: Iterable[Mapping[str, Any]],
        gallery: Iterable[Mapping[str, Any]],
        *,
        seconds: float,
        broken_files: Sequence[FileState] = (),
    ) -> None:
        """Write a part's rows and its images for the gallery, each file whole or not at all.

        Args:
            part: its number.
            rows: the rows of all images of the part; a broken image's rows have an `error`.
            gallery: the rows of its pictures that are kept for the gallery; may be empty.
            seconds: time that computing the part took.
            broken_files: states of the broken images' files, where there are such files.

        Raises:
            UserError: another process has replaced this run; the disk is full.
        """
        rows, pictures = list(rows), list(gallery)
        images, errors = images_and_errors(rows)
        expected = len(self.images_of(part))
        if images != expected:
            raise AssertionError(f"part {part} has rows of {images} images, expected {expected}")
        record = Record(
            "scores",
            self.run["config_hash"],
            part,
            len(rows),
            images,
            errors,
            round(seconds, 3),
            list(broken_files),
            provenance(self.run),
        )
        content = encode(rows, record)
        still_own(self.directory, self.run)
        if pictures:
            shown = len({picture["image_id"] for picture in pictures})
            about = replace(record, kind="gallery", rows=len(pictures), images=shown)
            self._put("gallery", part, encode(pictures, about))
        else:
            remove(self.parts.path("gallery", part))
        self._put("scores", part, content)
        self._errors[part], self._wrote = errors, True

    def _put(self, kind: Kind, part: int, content: bytes) -> None:
        path = self.parts.path(kind, part)
        if path.is_dir():
            remove(path)
        write_atomically(path, content)

    def write_run(self) -> None:
        """Write run.json anew, with what is gathered from the parts of all processes.

        Raises:
            UserError: another process has replaced this run.
        """
        told = self._told_by_parts()
        while True:
            content = {**self._described(still_own(self.directory, self.run)), **told}
            latest = told["computed"][-1] if told["computed"] else {}
            content |= {key: latest[key] for key in KEYS if key in latest}
            write_atomically(self.directory / "run.json", to_json(content))
            before, told = told, self._told_by_parts()
            if told == before:  # otherwise another process stored a part meanwhile
                return

    def _described(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the keys of run.json about the run, from the last process that computed a part."""
        if self._wrote:
            return self.run
        kept = {key: value for key, value in stored.items() if key != "thresholds"}
        # Thresholds come from another run and not from parts, so this process has the newest ones.
        names = ("format", "n_parts", "thresholds")
        new: dict[str, Any] = {name: self.run[name] for name in names if name in self.run}
        asked = {"thresholds_from": (self.run.get("config") or {}).get("thresholds_from")}
        return {**kept, **new, "config": {**(kept.get("config") or {}), **asked}}

    def _told_by_parts(self) -> dict[str, Any]:
        """Return the keys of run.json that are gathered from the parts."""
        found = {part: self._record(part) for part in range(self.n_parts)}
        records = {part: record for part, record in found.items() if record is not None}
        entries = (self.found.get("computed") or []) if "format" in self.found else [self.found]
        old = [provenance(entry) for entry in entries if entry.get("unchecked", True)]
        unchecked = {**(old[0] if old else {}), "unchecked": True}
        return {
            "seconds": round(sum(record.seconds for record in records.values()), 3),
            "errors": sum(max(record.errors, 0) for record in records.values()),
            "complete": len(records) == self.n_parts,
            "computed": gather(
                {part: r.provenance if r.checked else unchecked for part, r in records.items()}
            ),
        }

    def _record(self, part: int) -> Record | None:
        """Return a part's record; None where it is missing, or unusable, which is logged."""
        record = self._fitting("scores", part)
        if record is not None and os.path.lexists(self.parts.path("gallery", part)):
            return record if self._fitting("gallery", part) is not None else None
        return record

    def _fitting(self, kind: Kind, part: int) -> Record | None:
        try:
            return self.parts.record(kind, part)
        except FileNotFoundError:
            return None
        except DamagedPartError as error:
            if part not in self._told:
                self._told.add(part)
                path = self.parts.path(kind, part)
                logging.warning("%s %s: it has to be computed again.", path, error)
            return None
