"""Time how long a finished run's files take: this code against another checkout, interleaved.

    python scripts/benchmark_report.py DIR OTHER [repeats=3] [threads=2]

DIR holds a stored run, which is copied first; OTHER is the root of the other checkout. Every
measurement is a process of its own; the smallest of each side count, imports not included.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gradcam_bench import api
from gradcam_bench.errors import UserError

ROOT = Path(__file__).parents[1]

FINISH = """
import sys, time
try:
    from gradcam_bench.report import write
except ImportError:  # the layout before the folders
    from gradcam_bench import summary as write
wall, cpu = time.perf_counter(), time.process_time()
write.finish(sys.argv[1])
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def seconds(checkout: Path, directory: Path, threads: str) -> tuple[float, float]:
    """Return wall-clock and processor seconds of writing all files of a run once."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", FINISH, str(directory)],
        env=environment, cwd=checkout, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise UserError(f"{checkout} could not report {directory}:\n{done.stderr}")
    wall, cpu = done.stdout.split()[-2:]
    return float(wall), float(cpu)


def main(arguments: list[str]) -> None:
    repeats, left = api.split_option(arguments, "repeats", "3")
    threads, left = api.split_option(left, "threads", "2")
    if len(left) != 2:
        raise UserError("expected the folder of a run and the root of another checkout")
    found: dict[str, list[tuple[float, float]]] = {"this": [], "other": []}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(left[0], Path(folder) / "run"))
        for _ in range(int(repeats)):
            found["other"].append(seconds(Path(left[1]).resolve(), run, threads))
            found["this"].append(seconds(ROOT, run, threads))
    for number, name in enumerate(("wall-clock", "processor")):
        this, other = (min(times[number] for times in found[key]) for key in ("this", "other"))
        print(f"{name}: {this:.2f} s, the other {other:.2f} s, ratio {this / other:.2f}")


if __name__ == "__main__":
    api.run_script(main)
