"""The end of a run: stored rows to summary.csv, figures and the table printed last."""

from __future__ import annotations

from pathlib import Path

from gradcam_bench import tables
from gradcam_bench.figures import write_figures
from gradcam_bench.store import read_rows, read_run, write_atomically


def finish(directory: str | Path) -> str:
    """Write summary.csv and figures/ of a complete run and return the text to print.

    Args:
        directory: the output_dir of a run.

    Returns:
        The headline table with the place of everything written.

    Raises:
        UserError: the folder holds no run.
    """
    directory = Path(directory)
    run = read_run(directory)
    rows = read_rows(directory)
    summary = tables.summarize(rows, seed=int(run["config"].get("seed", 0)))
    write_atomically(directory / "summary.csv", tables.to_csv(summary).encode())
    written = write_figures(directory)
    broken = rows[rows["error"].notna()].drop_duplicates("image_id") if "error" in rows else rows[:0]
    lines = [
        f"{run['model']} on {run['config']['dataset']['_target_'].rpartition('.')[2]}, "
        f"{run['n_images']} images, {run['seconds']:.1f} s on {run['device']}",
        "",
        tables.to_markdown(tables.headline(summary)),
        "",
    ]
    if len(broken):
        lines.append(f"{len(broken)} broken examples left out; the first: {broken.error.iloc[0]}")
    lines.append(f"{directory}/summary.csv, run.json, scores/, {len(written)} figures")
    return "\n".join(lines)
