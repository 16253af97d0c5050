"""The typed schema of the command line, and the binding of config files to the code they name."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

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

if TYPE_CHECKING:
    from omegaconf import DictConfig

GROUPS = ("model", "dataset", "protocol", "experiment")
"""The keys that name a file of the folder conf/KEY; all others are fields of `Config`."""


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
    from omegaconf import OmegaConf

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
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Config)


def schema_keys(schema: type = Config, prefix: str = "") -> dict[str, type]:
    """Return every key of the schema with the dataclass it stands in, e.g. "shard.index": Shard.

    A key that holds keys of its own, such as "shard", is among them. What lies below model, dataset
    and protocols is decided by their files, and checked by `bind`.
    """
    types, found = get_type_hints(schema), {}
    for one in fields(schema):
        found[f"{prefix}{one.name}"] = schema
        if is_dataclass(types[one.name]):
            found |= schema_keys(types[one.name], f"{prefix}{one.name}.")
    return found


def check_keys(config: Mapping[str, Any]) -> None:
    """Refuse keys that the schema does not have, and the lack of one that it has.

    Hydra adds a key to a schema where it is asked to (`+key=value`, `++key=value`, a package of a
    file), and takes one away (`~key`); a run would ignore the one and fail without the other.

    Raises:
        UserError: with the nearest key.
    """
    known = schema_keys()
    parents = {key for key in known if any(other.startswith(f"{key}.") for other in known)}
    for parent in ["", *sorted(parents)]:
        node: Any = config
        for part in parent.split(".") if parent else []:
            node = node[part]
        prefix = f"{parent}." if parent else ""
        for key in node:
            check_key(f"{prefix}{key}")
        inside = [key for key in known if key.rpartition(".")[0] == parent]
        for key in inside:
            if key.rpartition(".")[2] not in node:
                raise UserError(f"The key {key} was taken away, but a run needs it: drop ~{key}.")


def check_key(key: str) -> None:
    """Refuse a dotted key that the schema does not have, with the nearest that it has.

    Raises:
        UserError: it is none of `schema_keys` or `GROUPS`, nor below one without a schema.
    """
    known = list(schema_keys())
    parent, _, _ = key.rpartition(".")
    nested = [name for name in known if name.startswith(f"{parent}.")] if parent else []
    if not parent or nested:
        if key not in (*known, *GROUPS):
            close = nearest(key, nested or list(dict.fromkeys([*GROUPS, *known])))
            raise UserError(f"There is no key {key!r}.{close} All keys: gradcam-bench --help")
    else:
        check_key(parent.split(".")[0])


def config_dir() -> Path:
    """Return the folder of config files: inside the installed package, or of the checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "conf"


def bind(node: Any, what: str, *, handled: Sequence[str] = ()) -> Callable[[], Any]:
    """Bind a config node to the signature it names, before anything is computed.

    Args:
        node: a mapping with `_target_` and keyword arguments.
        what: the config key, for messages.
        handled: further keys that may be given, which the caller has taken out, for messages.

    Returns:
        A call without arguments that builds the object.

    Raises:
        UserError: no `_target_`, an unknown or a missing argument.
    """
    from omegaconf import DictConfig, OmegaConf

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
            known = [*parameters, *handled]
            raise UserError(
                f"{what} has no key {key!r}.{nearest(key, known)} Keys: {', '.join(known)}."
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
