"""Read the part files of a run's folder, and check that each is whole and belongs to the run."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from gradcam_bench.errors import UserError
from gradcam_bench.store.computed_by import from_text
from gradcam_bench.store.part_file import DamagedPartError, Kind, Record, read_record, read_table

_NAME = re.compile(r"part-(\d{5,})\.parquet")


@dataclass(frozen=True)
class PartFolder:
    """The part files of a run: where they are, and how to tell that one belongs to this run.

    Attributes:
        directory: the run's output folder.
        config_hash: the run's config hash; None where it is unknown, and parts of any are read.
        unchecked: numbers of the parts that an older version wrote, without config hash and
            checksum; None where every part may be one of those.
    """

    directory: Path
    config_hash: str | None
    unchecked: Container[int] | None

    @classmethod
    def of(cls, directory: Path, run: Mapping[str, Any] | None) -> PartFolder:
        """Return the folder that run.json's content describes; None: there is no run.json."""
        if run is None:
            return cls(directory, None, None)
        if "format" not in run:  # as an older version wrote it
            return cls(directory, run.get("config_hash"), None)
        old = [entry for entry in run.get("computed") or [] if entry.get("unchecked")]
        unchecked = {number for entry in old for number in from_text(entry["parts"])}
        return cls(directory, run.get("config_hash"), unchecked)

    def path(self, kind: Kind, part: int) -> Path:
        """Return where a part lies, or would lie."""
        return self.directory / kind / f"part-{part:05d}.parquet"

    def numbers(self, kind: Kind) -> list[int]:
        """Return the numbers of the parts that exist, ascending."""
        folder = self.directory / kind
        names = os.listdir(folder) if folder.is_dir() else []
        return sorted(int(found[1]) for found in map(_NAME.fullmatch, names) if found)

    def record(self, kind: Kind, part: int) -> Record:
        """Return what a part says of itself.

        Raises:
            FileNotFoundError: there is no such part.
            DamagedPartError: it is damaged, or no part of this run; the message says why.
        """
        record = read_record(self.path(kind, part))
        self._compare(record, kind, part)
        return record

    def table(self, kind: Kind, part: int) -> pa.Table:
        """Return the rows of a part.

        Raises:
            FileNotFoundError: there is no such part.
            DamagedPartError: it is damaged, or no part of this run; the message says why.
        """
        table = read_table(self.path(kind, part))
        self.record(kind, part)
        return table

    def _compare(self, record: Record, kind: Kind, part: int) -> None:
        if not record.checked:
            if self.unchecked is not None and part not in self.unchecked:
                raise DamagedPartError("carries no checksum, as every part of this run should")
            _tell_unchecked(self.directory)
        elif self.config_hash is not None and record.config_hash != self.config_hash:
            raise DamagedPartError(
                f"belongs to another run (config hash {record.config_hash}, this run's is "
                f"{self.config_hash})"
            )
        elif (record.kind, record.part) != (kind, part):
            raise DamagedPartError(f"holds part {record.part} of the {record.kind}")


@cache
def _tell_unchecked(directory: Path) -> None:
    """Warn, once per folder and process, that parts of an older version cannot be checked."""
    logging.warning("%s: stored by an older version, without checksums: unchecked.", directory)


def read_rows(directory: str | Path) -> pd.DataFrame:
    """Return one row per image, layer and method, in the order of the data set.

    Raises:
        UserError: the folder holds no rows; a part is damaged, belongs to another run, or is
            missing from a run that was complete.
    """
    return _read("scores", Path(directory))


def read_gallery(directory: str | Path) -> pd.DataFrame:
    """Return the kept pictures: image_id, jpeg, boxes, and per method and layer an 8-bit map.

    Raises:
        UserError: the folder holds none, or a part of them is damaged or of another run.
    """
    return _read("gallery", Path(directory))


def has_gallery(directory: str | Path) -> bool:
    """Return whether a run kept pictures."""
    return bool(PartFolder(Path(directory), None, None).numbers("gallery"))


def missing_parts(directory: str | Path, run: Mapping[str, Any]) -> int:
    """Return how many of the parts that run.json promises are not in the folder."""
    found = PartFolder.of(Path(directory), run).numbers("scores")
    size, images = (run.get("config") or {}).get("part_size"), run.get("n_images")
    by_size = -(-int(images) // int(size)) if size and images else 0  # of an older version
    return len({*range(int(run.get("n_parts") or by_size))} - {*found})


def _read(kind: Kind, directory: Path) -> pd.DataFrame:
    run = read_run(directory) if (directory / "run.json").is_file() else None
    folder = PartFolder.of(directory, run)
    numbers = folder.numbers(kind)
    if not numbers:
        raise UserError(
            f"{directory} holds no run: expected {kind}/part-*.parquet inside. "
            "Give the output_dir of a run of gradcam-bench."
        )
    again = f"Run the same command again to compute it anew: {(run or {}).get('command', '?')}"
    if kind == "scores" and run is not None and run.get("complete"):
        for part in sorted({*range(run.get("n_parts", 0))} - {*numbers}):
            raise UserError(f"{folder.path(kind, part)} is missing. {again}")
    tables = []
    for part in numbers:
        try:
            tables.append(folder.table(kind, part))
        except DamagedPartError as error:
            raise UserError(f"{folder.path(kind, part)} {error}. {again}") from error
    return pa.concat_tables(tables, promote_options="permissive").to_pandas()


def read_run(directory: str | Path) -> dict[str, Any]:
    """Return run.json: config and its hash, who computed which parts, fingerprints, seconds.

    Raises:
        UserError: there is none, or it is broken.
    """
    path = Path(directory) / "run.json"
    if not path.is_file():
        raise UserError(
            f"{directory} holds no run.json; give the output_dir of a run of gradcam-bench."
        )
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); run again.") from error
