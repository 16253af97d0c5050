"""The end of `gradcam-bench -m`: one table and one report of all jobs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from gradcam_bench.report import write


class Join(Callback):
    """Hydra's callback: remembers every job's folder and joins the runs at the end."""

    def __init__(self) -> None:
        self.directories: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Note the folder of a job that ended well."""
        if job_return.status.name == "COMPLETED":
            self.directories.append(Path(str(job_return.return_value)))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write joined.html and what several runs give together beside the jobs' folders."""
        directories = list(dict.fromkeys(self.directories))
        if len(directories) < 2:
            return
        folder = write.joint_folder(directories)
        output = write.write_report(directories, folder / "joined.html", command=_command())
        print(f"Joined {len(directories)} runs: {output}, joined.csv, paired.csv, figures/")


def _command() -> str:
    return shlex.join(["gradcam-bench", *sys.argv[1:]])
