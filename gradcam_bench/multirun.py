"""The end of `gradcam-bench -m`: one table and one report of all jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from gradcam_bench import markup, report
from gradcam_bench.runs import joined_summary, load_runs


class Join(Callback):
    """Hydra's callback: remembers every job's folder and joins the runs at the end."""

    def __init__(self) -> None:
        self.directories: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Note the folder of a job that ended well."""
        if job_return.status.name == "COMPLETED":
            self.directories.append(Path(str(job_return.return_value)))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write joined.csv and joined.html beside the jobs' folders."""
        directories = list(dict.fromkeys(self.directories))
        if len(directories) < 2:
            return
        common = Path(os.path.commonpath([d.resolve() for d in directories]))
        summary = joined_summary(load_runs(directories))
        markup.to_csv(summary, common / "joined.csv")
        report.write_report(directories, common / "joined.html")
        print(f"Joined {len(directories)} runs: {common}/joined.csv, {common}/joined.html")
