"""run.json: which config a folder is for, agreed among all processes that start on it at once."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradcam_bench.errors import UserError
from gradcam_bench.names import without_places
from gradcam_bench.store.files import create_atomically, write_atomically
from gradcam_bench.store.part_file import KINDS, DamagedPartError
from gradcam_bench.store.part_folder import PartFolder
from gradcam_bench.store.run_record import check_record

FORMAT = 2
"""From 2 on, every part of the folder carries the config hash and a checksum."""

_DERIVED = ("figures", "tables", "summary.csv", "errors.csv", "report.html")

_STARTS = 100  # attempts to make or join run.json while other processes replace it

_READS, _PAUSE = 20, 0.02  # attempts to read it, and seconds between them


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Return a short hash of everything that the run's numbers depend on."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def same_config(stored: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Return whether two contents of run.json belong to one config.

    They do where the hashes are equal, or where the identities are equal but for the module paths
    of this package's own functions, which older versions hashed, too.
    """
    if stored.get("config_hash") == run.get("config_hash"):
        return True
    known = stored.get("identity")
    return bool(known) and without_places(known) == without_places(run.get("identity"))


def join(directory: Path, run: Mapping[str, Any], *, overwrite: bool) -> dict[str, Any]:
    """Make run.json, or agree with the one that is there.

    Of processes with different configs that start at once, one makes the file and the others are
    refused; those with the same config all go on.

    Args:
        directory: the run's output folder, which exists.
        run: the content of a new run.json, with `config_hash` and `identity`.
        overwrite: whether to replace the run of another config and remove its files.

    Returns:
        The content that was there, of the same config; empty where this call made the file. Its
        `config_hash`, which the parts carry, may be an older one than the run's.

    Raises:
        UserError: the folder belongs to another config, or holds scores of unknown origin.
    """
    path, mine = directory / "run.json", PartFolder.of(directory, run)
    for _ in range(_STARTS):
        stored = _read(path)
        if stored is None:
            foreign = [] if overwrite else _foreign(mine)
            if foreign and not path.exists():
                raise UserError(
                    f"{directory} holds scores but no run.json, and {foreign[0].name} is not of "
                    "this config, so they cannot be trusted. "
                    "Choose another output_dir=, or overwrite=true to replace them."
                )
            if not create_atomically(path, to_json(run)):
                continue  # another process was first: agree with it
        elif same_config(stored, run):
            return stored
        elif overwrite or (not stored and not _foreign(mine)):
            write_atomically(path, to_json(run))
        else:
            raise UserError(
                f"{directory} holds a run of another config ({_difference(stored, run)}). "
                "Choose another output_dir=, or overwrite=true to replace it."
            )
        if overwrite:
            _clear(mine, run)
        return {}
    raise UserError(f"{directory} is being replaced by other processes; start again later.")


def still_own(directory: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of run.json after checking that it is still this run's.

    Raises:
        UserError: another process has replaced it, or it is gone.
    """
    stored = _read(directory / "run.json")
    if stored is None or stored.get("config_hash") != run["config_hash"]:
        now = "run.json is gone" if stored is None else _difference(stored, run)
        raise UserError(
            f"{directory} was replaced by another process ({now}), so this run stops and writes "
            "nothing more into it. Give each config its own output_dir=."
        )
    return stored


def to_json(content: Mapping[str, Any]) -> bytes:
    """Return run.json's bytes; every key is described in run_record.py."""
    check_record(content)
    return (json.dumps(content, indent=2) + "\n").encode()


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content; it need not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content, {} where it stays unreadable, None where there is no file."""
    for _ in range(_READS):
        try:
            found = json.loads(path.read_bytes())
            return found if isinstance(found, dict) else {}
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            time.sleep(_PAUSE)  # without hard links, another process may just be writing it
    return {}


def _clear(mine: PartFolder, run: Mapping[str, Any]) -> None:
    """Remove the files of another config; never those that processes of this config write."""
    for path in _foreign(mine):
        still_own(mine.directory, run)
        remove(path)
    for name in _DERIVED:
        remove(mine.directory / name)


def _foreign(mine: PartFolder) -> list[Path]:
    """Return the part files that are damaged or do not belong to the run."""
    found = []
    for kind in KINDS:
        for part in mine.numbers(kind):
            try:
                mine.record(kind, part)
            except FileNotFoundError:
                continue
            except DamagedPartError:
                found.append(mine.path(kind, part))
    return found


def _difference(stored: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Name the first few keys in which two runs differ."""
    if not stored:
        return "its run.json is broken"
    a, b = (_flat(without_places(told.get("identity", {}))) for told in (stored, run))
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
