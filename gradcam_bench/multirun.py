"""The end of `gradcam-bench -m`: each run's report, then one table and one report of all.

Jobs may run in other processes or on other machines (hydra/launcher=...), so each of them leaves a
note in a folder beside the results, where the process that started them finds it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from gradcam_bench.store.files import make_folder, write_atomically

COMMAND = "GRADCAM_BENCH_COMMAND"
"""The environment variable that tells a job which command started it."""

RAISED: list[Exception] = []
"""The error of this process's only job, raised again, as it was, once Hydra has returned."""


@dataclass(frozen=True)
class Note:
    """What a job leaves behind.

    Attributes:
        directory: of its run.
        complete: whether every part of the run, of all shards, is there.
        report: whether a report was asked for.
        error: why it failed; empty where it did not.
    """

    directory: str
    complete: bool
    report: bool
    error: str = ""


@contextmanager
def notes_folder() -> Iterator[Path]:
    """Yield a folder for the notes of one command's jobs; nothing is left of it afterwards.

    It is named at random, made only by a command that has several jobs, and relative to the working
    folder, which all jobs share.
    """
    folder = Path("results", ".multirun", secrets.token_hex(8))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in folder.parents[:2]:
            with suppress(OSError):  # it holds results, or notes of other commands
                parent.rmdir()


def leave_note(folder: Path, number: int, note: Note) -> None:
    """Write the note of job `number`."""
    make_folder(folder)
    content = json.dumps(asdict(note), indent=2) + "\n"
    write_atomically(folder / f"job-{number:06d}.json", content.encode())


def read_notes(folder: Path) -> list[Note]:
    """Return the notes of all jobs that ended, in their order."""
    return [Note(**json.loads(path.read_bytes())) for path in sorted(folder.glob("job-*.json"))]


def join(folder: Path) -> list[str]:
    """Report the complete runs, and several of them together; tell which jobs failed.

    report.html of several runs goes into the folder that holds all of them, with their tables.

    Args:
        folder: of the notes; without notes nothing is done.

    Returns:
        A message for each job that failed.
    """
    notes = read_notes(folder)
    wanted = [note.directory for note in notes if note.complete and note.report]
    directories = list(dict.fromkeys(wanted))
    if directories:
        from gradcam_bench.report import write

        output = write.joint_folder(directories) / "report.html"
        print(write.finish_several(directories, output, command=os.environ[COMMAND]))
    return [f"{note.directory}: {note.error}" for note in notes if note.error]
