"""The command line: `gradcam-bench [key=value ...]`, and its verbs."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
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
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own modules are found in the current folder, as with -m
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
    from gradcam_bench.cli.shards import with_own_shard
    from gradcam_bench.overrides import check_words, user_error

    words = with_own_shard(words)
    check_words(words, verbs=VERBS)

    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gradcam_bench import multirun
    from gradcam_bench.config import config_dir, register

    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to us: we print them short
    os.environ[multirun.COMMAND] = shlex.join(["gradcam-bench", *words])
    register()
    entry = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="benchmark")
    ended: Exception | None = None
    with multirun.notes_folder() as notes:
        sys.argv[1:] = [*words, f"hydra.sweep.dir={notes}"]
        try:
            entry(_job)()
        except (HydraException, OmegaConfBaseException) as error:
            ended = user_error(error)
        except Exception as error:  # of a launcher: report the jobs that had ended before
            ended = error
        failed = multirun.join(notes)
    ended = next(iter(multirun.RAISED), ended)
    if ended is not None:
        raise ended
    if failed:
        jobs = "1 job" if len(failed) == 1 else f"{len(failed)} jobs"
        _exit(f"{jobs} failed.\n" + "\n".join(failed), 1)


def _job(config: DictConfig) -> None:
    """Run one config. No error reaches Hydra, which would print words of its own.

    That of a single run is kept for `_hydra`. Of a multirun each job leaves a note, and one that
    fails does not end the others.
    """
    from hydra.core.hydra_config import HydraConfig

    from gradcam_bench import multirun

    directory, complete, message = Path(), False, ""
    try:
        directory = _output_dir(config)
        complete = _benchmark(config, directory)
    except Exception as error:
        if not _is_multirun():
            multirun.RAISED.append(error)
            return
        message = str(error)
        if not isinstance(error, UserError):
            traceback.print_exc()
            message = f"{type(error).__name__}: {error}"
    if _is_multirun():
        note = multirun.Note(str(directory), complete, bool(config.report), message)
        own = HydraConfig.get()
        multirun.leave_note(Path(own.sweep.dir), int(own.job.num), note)


def _benchmark(config: DictConfig, directory: Path) -> bool:
    """Run one config and report it; return whether its run is complete.

    The jobs of a multirun are reported together when the last one has ended (multirun.py).
    """
    from gradcam_bench.multirun import COMMAND
    from gradcam_bench.run import loop

    complete = loop.run(config, directory, command=os.environ[COMMAND])
    if not complete:
        print(
            "This shard is done. When the others are too, any of them run again "
            f"writes the summary into {directory}."
        )
    elif not config.report:
        print(f"The rows are in {directory}; gradcam-bench report {directory} reports them.")
    elif not _is_multirun():
        from gradcam_bench.report import write

        print("Writing summary, figures and report ...", file=sys.stderr)
        print(write.finish(directory))
    return complete


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
