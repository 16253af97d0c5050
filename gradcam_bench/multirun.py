"""The end of `gradcam-bench -m`: each job's report, then one table and one report of all."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from gradcam_bench.report import write

FAILED: list[str] = []
"""Messages of the jobs of this process that a user's mistake ended; the others go on."""

RAISED: list[Exception] = []
"""Errors of this process's jobs that are raised again, as they were, once Hydra has returned."""


class Join(Callback):
    """Hydra's callback: remembers every finished run and reports them when the last job ended."""

    def __init__(self) -> None:
        self.directories: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Note the folder of a run that is complete: `_benchmark` returns it."""
        if job_return.status.name == "COMPLETED" and job_return.return_value is not None:
            self.directories.append(Path(str(job_return.return_value)))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write each run's report, and joined.html beside the folders of several."""
        directories = list(dict.fromkeys(self.directories))
        if not config.report or not directories:
            return
        runs = write.load_runs(directories)
        for run in runs:
            print(write.finish(run))
        if len(runs) > 1:
            folder = write.joint_folder(directories)
            command = shlex.join(["gradcam-bench", *sys.argv[1:]])
            output = write.write_report(runs, folder / "joined.html", command=command)
            print(f"Joined {len(runs)} runs: {output}, joined.csv, paired.csv, figures/")
