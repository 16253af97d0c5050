"""The command line: `gradcam-bench [key=value ...]` and `gradcam-bench report DIR...`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gradcam_bench.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Run the benchmark, or make a report of stored runs; exit 0, 2 or 130 as design says."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own modules are found in the current folder, as with -m
    try:
        if sys.argv[1:2] == ["report"]:
            from gradcam_bench.report import write

            write.main(sys.argv[2:])
        else:
            _hydra()
    except UserError as error:
        _exit(str(error), 2)
    except KeyboardInterrupt:
        _exit("Interrupted. Finished parts are kept; run the same command again to go on.", 130)


def _hydra() -> None:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gradcam_bench import multirun
    from gradcam_bench.config import config_dir, register, short_message

    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to us: we print them short
    register()
    entry = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="benchmark")
    try:
        entry(_benchmark)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(short_message(error)) from error
    if multirun.FAILED:
        _exit(f"{len(multirun.FAILED)} jobs failed.\n" + "\n".join(multirun.FAILED), 1)


def _benchmark(config: DictConfig) -> str | None:
    """Run one config and report it; return the folder of a complete run, else None.

    The jobs of a multirun are reported together when the last one has ended (multirun.py), and a
    job that a user's mistake ends does not end the others.
    """
    import shlex

    from gradcam_bench import multirun
    from gradcam_bench.report import write
    from gradcam_bench.run import loop

    directory = _output_dir(config)
    command = shlex.join(["gradcam-bench", *sys.argv[1:]])
    try:
        complete = loop.run(config, directory, command=command)
    except UserError as error:
        if not _is_multirun():
            raise
        multirun.FAILED.append(f"{directory}: {error}")
        return None
    if not complete:
        print(
            "This shard is done. When the others are too, any of them run again "
            f"writes the summary into {directory}."
        )
        return None
    if not config.report:
        print(f"The rows are in {directory}; gradcam-bench report {directory} reports them.")
    elif not _is_multirun():
        print("Writing summary, figures and report ...", file=sys.stderr)
        print(write.finish(directory))
    return str(directory)


def _is_multirun() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.get().mode == RunMode.MULTIRUN


def _output_dir(config: DictConfig) -> Path:
    """Return output_dir, by default results/<dataset>/<model>/<further overrides of a sweep>."""
    from hydra.core.hydra_config import HydraConfig

    from gradcam_bench.api import default_output_dir

    hydra_config = HydraConfig.get()
    swept = ""
    if _is_multirun():
        swept = str(hydra_config.job.override_dirname).replace("/", "_")
    if config.output_dir is not None:
        return Path(config.output_dir)
    return default_output_dir(dict(hydra_config.runtime.choices)) / swept


def _exit(message: str, code: int) -> None:
    print(f"gradcam-bench: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
