"""The command line: `gradcam-bench [key=value ...]`, and its verbs."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gradcam_bench.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


VERBS = ("explain", "list", "report", "status")
"""The first words that are no keys; without one of them a benchmark is run."""


def main() -> None:
    """Run the benchmark or a verb; exit 0, 1, 2 or 130 as design says."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    words = sys.argv[1:]
    try:
        if {"--help", "-h"} & set(words):
            from gradcam_bench.cli import help

            print(help.VERBS.get(words[0]) or help.whole_help(), end="")
        elif "--version" in words:
            from gradcam_bench import __version__

            print(f"gradcam-bench {__version__}")
        elif words[:1] and words[0] in VERBS:
            _verb(words[0], words[1:])
        else:
            _hydra(words)
    except UserError as error:
        _exit(str(error), 2)
    except KeyboardInterrupt:
        _exit("Interrupted. Finished parts are kept; run the same command again to go on.", 130)
    except BrokenPipeError:  # of `gradcam-bench list models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _verb(verb: str, words: list[str]) -> None:
    """Run a verb; each loads only what it needs."""
    if verb == "report":
        from gradcam_bench.report import write

        write.main(words)
    elif verb == "list":
        from gradcam_bench.cli import listing

        listing.main(words)
    elif verb == "status":
        from gradcam_bench.cli import status

        status.main(words)
    else:
        from gradcam_bench.cli import explain

        explain.main(words)


def _hydra(words: list[str]) -> None:
    """Check the words of a command, then let Hydra compose its configs and run the job of each."""
    from gradcam_bench.overrides import check_words, user_error

    check_words(words, verbs=VERBS)

    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gradcam_bench import multirun
    from gradcam_bench.config import config_dir, register

    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to us: we print them short
    register()
    entry = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="benchmark")
    try:
        entry(_job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise user_error(error) from error
    if multirun.RAISED:
        raise multirun.RAISED[0]
    if multirun.FAILED:
        _exit(f"{len(multirun.FAILED)} jobs failed.\n" + "\n".join(multirun.FAILED), 1)


def _job(config: DictConfig) -> str | None:
    """Run one config; an error is kept for `_hydra`, because Hydra would print words of its own."""
    from gradcam_bench import multirun

    try:
        return _benchmark(config)
    except Exception as error:
        multirun.RAISED.append(error)
        return None


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
