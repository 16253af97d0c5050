"""`gradcam-bench status DIR ...`: how far a run has come, without loading what computes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradcam_bench.errors import UserError
from gradcam_bench.store.part_file import DamagedPartError, Record
from gradcam_bench.store.part_folder import PartFolder, read_run


def main(words: Sequence[str]) -> None:
    """Run `gradcam-bench status DIR ... [workers=N]`.

    Raises:
        UserError: no folder, one without a run, or a number of workers below 1.
    """
    options = [word for word in words if word.startswith("workers=")]
    folders = [word for word in words if word not in options]
    text = options[-1].partition("=")[2] if options else "1"
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"workers expects a number from 1, got {text!r}.")
    if not folders:
        raise UserError("status expects at least one folder of a run: gradcam-bench status DIR")
    for folder in folders:
        print("\n".join(status_lines(Path(folder), workers=int(text))))


def status_lines(directory: Path, *, workers: int = 1) -> list[str]:
    """Return what is done, missing, damaged and failed of a run, and the time left.

    The time is that of the stored parts for each image, times the images left, over the workers.

    Args:
        directory: output_dir of a run, whether or not a process is still computing it.
        workers: processes that will share what is left, each as fast as those before.

    Raises:
        UserError: the folder holds no run.
    """
    run = read_run(directory)
    n_parts, n_images = int(run.get("n_parts") or 0), int(run.get("n_images") or 0)
    records, damaged = _records(directory, run, n_parts)
    images = sum(record.images for record in records.values())
    failed = sum(max(record.errors, 0) for record in records.values())
    seconds = sum(record.seconds for record in records.values())
    missing = n_parts - len(records) - len(damaged)
    counts = [f"{len(records)} of {n_parts} parts done", f"{images} of {n_images} images"]
    counts += [f"{_many(missing, 'part')} missing"] if missing else []
    counts += [f"{_many(len(damaged), 'part')} damaged ({damaged[0]})"] if damaged else []
    counts.append(f"{_many(failed, 'image')} failed")
    lines = [f"{directory}: {', '.join(counts)}"]
    left = n_images - images
    if left and images:
        time = duration(seconds / images * left / workers)
        lines.append(f"  left: {time} with {_many(workers, 'worker')}")
    if left:
        lines.append(f"  go on: {run.get('command', 'run the same command again')}")
    elif not (directory / "report.html").is_file():
        lines.append(f"  complete, without a report: gradcam-bench report {directory}")
    return lines


def duration(seconds: float) -> str:
    """Return a time as people say it: "45 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _records(directory: Path, run: dict, n_parts: int) -> tuple[dict[int, Record], list[str]]:
    """Return what each readable part says of itself, and the names of those that are damaged."""
    folder = PartFolder.of(directory, run)
    records, damaged = {}, []
    for part in folder.numbers("scores"):
        if part >= n_parts:
            continue
        try:
            records[part] = folder.record("scores", part)
        except FileNotFoundError:
            continue  # replaced this very moment
        except DamagedPartError:
            damaged.append(folder.path("scores", part).name)
    return records, damaged
