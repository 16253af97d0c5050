"""The typed schema of the command line, and the binding of config files to the code they name."""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from gradcam_bench.errors import UserError, nearest
from gradcam_bench.names import (
    Baseline,
    Fit,
    Followed,
    Precision,
    Score,
    Scoring,
    Ties,
    without_places,
)


@dataclass
class Faithfulness:
    """Deletion, insertion and their kin."""

    enabled: bool = True
    steps: int = 28  # ceil(H*W / steps) pixels each
    deletion_baseline: Baseline = Baseline.zeros  # what deleted pixels become
    insertion_baseline: Baseline = Baseline.blur  # what insertion starts from
    ties: Ties = Ties.stable
    score: Score = Score.probability
    target: Followed = Followed.predicted
    road: bool = False  # eight sparse linear systems a map, which take longer than all the rest


@dataclass
class Shard:
    """This process computes every `count`-th part, starting with part `index`."""

    index: int = 0
    count: int = 1


@dataclass
class Config:
    """The keys of `gradcam-bench`; every one may be given as key=value."""

    model: Any = None
    dataset: Any = None
    protocols: Any = None
    thresholds_from: str | None = None  # output_dir of a run on other images
    layers: Any = "default"  # default, all, or a list of module paths
    methods: list[str] = field(default_factory=lambda: ["grad_cam", "random", "center"])
    geometry: Fit = Fit.squash
    faithfulness: Faithfulness = field(default_factory=Faithfulness)
    scoring: Scoring = Scoring.auto
    device: str = "auto"
    precision: Precision = Precision.float32
    batch_size: int = 16
    # Processes that decode images, and as many that localize maps; None: 0 on the CPU, where they
    # would take the network's cores, one a core up to 8 on a GPU.
    num_workers: int | None = None
    seed: int = 0
    part_size: int = 64  # images a part file
    shard: Shard = field(default_factory=Shard)
    max_errors: float = 0.01  # share of the run's images, over all shards, that may be broken
    retry_errors: bool = False  # try broken images again though their files have not changed
    overwrite: bool = False
    report: bool = True  # write summary.csv, figures/ and report.html; false: the rows alone
    gallery: int = 200  # images kept for the gallery, evenly spaced
    output_dir: str | None = None  # None: results/<dataset>/<model>


# The smallest and largest value of each number, and what it is a number of. Those that depend on
# the data (`faithfulness.steps`) or on another key (`shard.index`) are checked where that is known.
RANGES: dict[str, tuple[float, float, str]] = {
    "batch_size": (1, math.inf, "a number"),
    "part_size": (1, math.inf, "a number"),
    "shard.count": (1, math.inf, "a number"),
    "num_workers": (0, math.inf, "a number"),
    "gallery": (0, math.inf, "a number of images"),
    "max_errors": (0, 1, "a share"),
}


def check_numbers(config: DictConfig) -> None:
    """Raise a UserError for the first number of a config that is out of its range."""
    for key, (low, high, what) in RANGES.items():
        value = OmegaConf.select(config, key)
        if value is not None and not low <= value <= high:
            expected = f"from {low}" if high == math.inf else f"from {low} to {high}"
            raise UserError(f"{key} expects {what} {expected}, got {value}.")
    if not 0 <= config.shard.index < config.shard.count:
        raise UserError(
            f"shard.index expects 0 to shard.count - 1 = {config.shard.count - 1}, "
            f"got {config.shard.index}."
        )


def register() -> None:
    """Make the schema known to Hydra as `schema`, first in the defaults of benchmark.yaml."""
    ConfigStore.instance().store(name="schema", node=Config)


def config_dir() -> Path:
    """Return the folder of config files: inside the installed package, or of the checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "conf"


def bind(node: Any, what: str) -> Callable[[], Any]:
    """Bind a config node to the signature it names, before anything is computed.

    Args:
        node: a mapping with `_target_` and keyword arguments.
        what: the config key, for messages.

    Returns:
        A call without arguments that builds the object.

    Raises:
        UserError: no `_target_`, an unknown or a missing argument.
    """
    values: dict[str, Any] = (
        OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
        if isinstance(node, DictConfig)
        else dict(node or {})
    )
    target = values.pop("_target_", None)
    if not isinstance(target, str):
        raise UserError(f"{what}= expects the name of a file in conf/{what}, got {node!r}.")
    module, _, name = target.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{what}._target_: cannot import {target!r}: {error}.") from error
    parameters = inspect.signature(function).parameters
    for key in values:
        if key not in parameters:
            raise UserError(
                f"{what} has no key {key!r}.{nearest(key, list(parameters))} "
                f"Keys: {', '.join(parameters)}."
            )
    for key, parameter in parameters.items():
        unset = key not in values and parameter.default is inspect.Parameter.empty
        if unset or values.get(key) == "???":
            raise UserError(f"{what}.{key} is required: give {what}.{key}=VALUE.")
    return lambda: function(**values)


_DECIDES = (
    "model",
    "dataset",
    "protocols",
    "layers",
    "methods",
    "geometry",
    "faithfulness",
    "precision",
    "seed",
    "part_size",
)
"""The keys of a config that decide a number."""


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved config that decides a number.

    Where the data lie, how fast and where the run goes, and what it tolerates do not; nor does
    `thresholds_from`, which only looks stored rows up, nor where our own code lies.
    """
    kept = {name: config[name] for name in _DECIDES}
    kept["dataset"] = {k: v for k, v in config["dataset"].items() if k not in ("root", "boxes")}
    return dict(without_places(kept))


_CHOICES = re.compile(r"Invalid value (?P<given>'.*'), expected one of \[(?P<known>[^]]*)\]")
"""What OmegaConf says of a word that is none of an Enum's."""


def short_message(error: Exception) -> str:
    """Return what Hydra says of a bad key or choice, with what to do about it."""
    unknown = _CHOICES.match(str(error.__cause__ or error))
    if unknown:
        key = getattr(error.__cause__ or error, "full_key", None) or "A key"
        return f"{key} expects one of {unknown['known']}, got {unknown['given']}."
    text = str(error).strip()
    message = "\n".join([line for line in text.splitlines() if line.strip()][:20])
    if "Could not find 'model/" in text:
        message += (
            "\nAny other torchvision classifier: model=torchvision model.name=NAME; "
            "any other CNN: model=custom model.factory=package.module:function."
        )
    elif "is not in struct" in text or "Key '" in text:
        message += "\nAll keys and their values: gradcam-bench --cfg job"
    return message
