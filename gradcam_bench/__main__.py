"""The command line: `gradcam-bench [key=value ...]` and `gradcam-bench report DIR...`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from gradcam_bench.errors import UserError


def main() -> None:
    """Run the benchmark, or make a report of stored runs; exit 0, 2 or 130 as design says."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        if sys.argv[1:2] == ["report"]:
            from gradcam_bench import report

            report.main(sys.argv[2:])
        else:
            _benchmark()
    except UserError as error:
        _exit(str(error), 2)
    except KeyboardInterrupt:
        _exit("Interrupted. Finished parts are kept; run the same command again to go on.", 130)


def _benchmark() -> None:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gradcam_bench.config import config_dir, register

    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to us: we print them short
    register()
    import hydra

    entry = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="benchmark")
    try:
        entry(benchmark)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_short(error)) from error


def benchmark(config) -> None:  # noqa: ANN001
    """Run one config: compute what is missing, then the tables, figures and report."""
    from gradcam_bench import runner, summary

    directory = _output_dir(config)
    complete = runner.run(config, directory, command=runner.command_line())
    if complete:
        print(summary.finish(directory))
    else:
        print(
            f"This shard is done. When the others are too, any of them run again "
            f"writes the summary into {directory}."
        )


def _output_dir(config) -> Path:  # noqa: ANN001
    """Return output_dir, or results/<dataset>/<model>, one folder more for a sweep's overrides."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if config.output_dir is not None:
        return Path(config.output_dir)
    hydra_config = HydraConfig.get()
    choices = hydra_config.runtime.choices
    directory = Path("results") / str(choices["dataset"]) / str(choices["model"])
    if hydra_config.mode == RunMode.MULTIRUN:
        swept = hydra_config.job.override_dirname
        directory = directory / swept.replace("/", "_") if swept else directory
    return directory


def _short(error: Exception) -> str:
    """Return what Hydra says of a bad key or choice, with what to do about it."""
    text = str(error).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    message = "\n".join(lines[:20])
    if "Could not find 'model/" in text:
        message += (
            "\nAny other torchvision classifier: model=torchvision model.name=NAME; "
            "any other CNN: model=custom model.factory=package.module:function."
        )
    elif "is not in struct" in text or "Key '" in text:
        message += "\nAll keys and their values: gradcam-bench --cfg job"
    return message


def _exit(message: str, code: int) -> None:
    print(f"gradcam-bench: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
