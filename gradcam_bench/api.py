"""A run from Python: what the command line does, returned as data frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradcam_bench.analysis.stored_run import Run, load_run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """Return the config that `gradcam-bench OVERRIDES` runs, and its choices by group.

    Raises:
        UserError: an unknown key, group or file.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import open_dict
    from omegaconf.errors import OmegaConfBaseException

    from gradcam_bench.config import check_keys, config_dir, register
    from gradcam_bench.overrides import check_words, user_error

    check_words(overrides)
    register()
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            full = hydra.compose("benchmark", list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise user_error(error) from error
    choices = dict(full.hydra.runtime.choices)
    config = full.copy()
    with open_dict(config):
        del config["hydra"]
    check_keys(config)
    return config, choices


def run(overrides: Sequence[str] = (), *, output_dir: str | Path | None = None) -> Run:
    """Run the benchmark and return its rows, summary and provenance.

    Args:
        overrides: as on the command line, e.g. ["model=tiny_vgg", "layers=all"].
        output_dir: where it goes; by default results/<dataset>/<model>.

    Returns:
        The stored run: `rows`, `summary`, `run`, `pictures`.

    Raises:
        UserError: anything the command line would refuse.
    """
    import shlex

    from gradcam_bench.errors import UserError
    from gradcam_bench.run import loop

    config, choices = compose(overrides)
    directory = Path(output_dir or config.output_dir or default_output_dir(choices))
    command = shlex.join(["gradcam-bench", *overrides])
    if not loop.run(config, directory, command=command):
        raise UserError(f"{directory}: other shards are missing; run them first.")
    return load_run(directory)


def split_option(arguments: Sequence[str], name: str, default: str) -> tuple[str, list[str]]:
    """Return a script's own option `name=VALUE` and the arguments left for gradcam-bench."""
    prefix = f"{name}="
    given = [argument[len(prefix) :] for argument in arguments if argument.startswith(prefix)]
    left = [argument for argument in arguments if not argument.startswith(prefix)]
    return (given[0] if given else default), left


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a script on the command line's arguments; a user's mistake is told and exits with 2."""
    import sys

    from gradcam_bench.errors import UserError

    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(2)


def default_output_dir(choices: dict[str, str]) -> Path:
    """Return results/<dataset>/<model>."""
    return Path("results") / str(choices["dataset"]) / str(choices["model"])
