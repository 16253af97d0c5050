"""Rows on disk: part files with fixed boundaries, provenance, and reading both back.

Part i holds the rows of images [i * part_size, (i + 1) * part_size) of the data set's fixed order.
A part is written to the side and renamed, so it exists whole or not at all: stopping, resuming and
sharding are all the computing of parts that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradcam_bench.errors import UserError

OURS = ("scores", "gallery", "figures", "summary.csv", "run.json", "report.html", "tables")


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Return a short hash of everything that decides a number."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """The output folder of one run, or of its shards together.

    Args:
        directory: made where it is missing.
        run: the content of run.json; `config_hash` and `config` say what the folder is for.
        n_images: of the whole run.
        part_size: images a part.
        overwrite: replace what another config left here.

    Raises:
        UserError: the folder belongs to another config.
    """

    def __init__(
        self,
        directory: Path,
        run: Mapping[str, Any],
        *,
        n_images: int,
        part_size: int,
        overwrite: bool = False,
    ) -> None:
        self.directory, self.n_images, self.part_size = directory, n_images, part_size
        self.n_parts = -(-n_images // part_size)
        self.run = dict(run)
        stored = directory / "run.json"
        if stored.is_file() and not self._same(stored):
            if not overwrite:
                raise UserError(
                    f"{directory} holds a run of another config ({_difference(stored, self.run)}). "
                    "Choose another output_dir=, or overwrite=true to replace it."
                )
            self._clear()
        elif not stored.is_file() and (directory / "scores").is_dir():
            if not overwrite:
                raise UserError(
                    f"{directory} holds scores but no run.json, so they cannot be trusted. "
                    "Choose another output_dir=, or overwrite=true to replace them."
                )
            self._clear()
        (directory / "scores").mkdir(parents=True, exist_ok=True)
        (directory / "gallery").mkdir(exist_ok=True)
        if not stored.is_file():
            self.write_run()

    def _same(self, stored: Path) -> bool:
        try:
            return json.loads(stored.read_text())["config_hash"] == self.run["config_hash"]
        except (ValueError, KeyError):
            return False

    def _clear(self) -> None:
        for name in OURS:
            path = self.directory / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def missing_parts(self, shard_index: int = 0, shard_count: int = 1) -> list[int]:
        """Return the parts of a shard that do not exist, or hold broken examples to try again."""
        mine = range(shard_index, self.n_parts, shard_count)
        return [part for part in mine if self._errors(part) != 0]

    def complete(self) -> bool:
        """Return whether every part of every shard exists."""
        return all(self._path(part).is_file() for part in range(self.n_parts))

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
        errors: int,
        seconds: float,
    ) -> None:
        """Write a part's rows and its images for the gallery, each file whole or not at all."""
        pictures = list(gallery)
        if pictures:
            _write(self.directory / "gallery" / f"part-{part:05d}.parquet", pictures, {})
        meta = {"errors": str(errors), "seconds": f"{seconds:.3f}"}
        _write(self._path(part), list(rows), meta)

    def write_run(self) -> None:
        """Write run.json, with the seconds that the parts took so far."""
        seconds = [self._meta(part).get("seconds", "0") for part in range(self.n_parts)]
        self.run["seconds"] = round(sum(map(float, seconds)), 3)
        self.run["complete"] = self.complete()
        text = json.dumps(self.run, indent=2) + "\n"
        write_atomically(self.directory / "run.json", text.encode())

    def _path(self, part: int) -> Path:
        return self.directory / "scores" / f"part-{part:05d}.parquet"

    def _meta(self, part: int) -> dict[str, str]:
        path = self._path(part)
        if not path.is_file():
            return {}
        metadata = pq.read_schema(path).metadata or {}
        return {key.decode(): value.decode() for key, value in metadata.items()}

    def _errors(self, part: int) -> int:
        return int(self._meta(part).get("errors", "-1"))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _write(path: Path, rows: list[Mapping[str, Any]], meta: dict[str, str]) -> None:
    table = pa.Table.from_pylist([dict(row) for row in rows])
    # An all-null column gets type null; pandas and later parts expect a concrete one.
    fields = [
        pa.field(field.name, pa.string() if pa.types.is_null(field.type) else field.type)
        for field in table.schema
    ]
    table = table.cast(pa.schema(fields)).replace_schema_metadata(
        {key.encode(): value.encode() for key, value in meta.items()}
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def read_rows(directory: str | Path) -> pd.DataFrame:
    """Return one row per image, layer and method, in the order of the data set.

    Raises:
        UserError: the folder holds no rows.
    """
    return _read(Path(directory) / "scores", Path(directory))


def read_gallery(directory: str | Path) -> pd.DataFrame:
    """Return the kept pictures: image_id, jpeg, boxes, and per method and layer an 8-bit map.

    Raises:
        UserError: the folder holds none.
    """
    return _read(Path(directory) / "gallery", Path(directory))


def _read(folder: Path, directory: Path) -> pd.DataFrame:
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise UserError(
            f"{directory} holds no run: expected {folder.name}/part-*.parquet inside. "
            "Give the output_dir of a run of gradcam-bench."
        )
    return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)


def read_run(directory: str | Path) -> dict[str, Any]:
    """Return run.json: config and its hash, versions, device, commit, fingerprints, seconds.

    Raises:
        UserError: there is none, or it is broken.
    """
    path = Path(directory) / "run.json"
    if not path.is_file():
        raise UserError(
            f"{directory} holds no run.json; give the output_dir of a run of gradcam-bench."
        )
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); run again.") from error


def _difference(stored: Path, run: Mapping[str, Any]) -> str:
    """Name the first few keys in which two runs differ."""
    try:
        old = json.loads(stored.read_text())
    except ValueError:
        return "its run.json is broken"
    a, b = _flat(old.get("identity", {})), _flat(run.get("identity", {}))
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    shown = [f"{key}: {a.get(key)} there, {b.get(key)} now" for key in keys[:3]]
    return "; ".join(shown) + ("; ..." if len(keys) > 3 else "")


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
