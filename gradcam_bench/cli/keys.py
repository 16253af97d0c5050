"""Every key of `gradcam-bench` with its values, its default and a line of what it is."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from gradcam_bench.config import GROUPS, config_dir, schema_keys


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: as in `name=value`.
        default: as it would be typed.
        values: what may be given, "a | b | c" or a word for it; empty where `text` says it.
        text: one line.
    """

    name: str
    default: str
    values: str
    text: str


_BASELINES = "zeros | black | blur | mean | noise"

# What is given, where the type does not say it, and what for. A test compares the names with the
# schema's.
_TEXTS: dict[str, tuple[str, str]] = {
    "model": ("", "the network; list models"),
    "dataset": ("", "the images; list datasets. Most need dataset.root=DIR; dataset.limit=N"),
    "protocol": ("", "how maps become boxes and hits, one or a list; list protocols"),
    "experiment": ("", "a file with several of these keys"),
    "layers": ("default | all | [PATH,...]", "where maps are taken; list layers model=NAME"),
    "methods": ("[NAME,...]", "which maps, all of the same pass; list methods"),
    "geometry": ("squash | center_crop", "how an image becomes the network's square input"),
    "faithfulness.enabled": ("", "whether deletion and insertion are computed"),
    "faithfulness.steps": ("N", "steps of a curve, ceil(H*W/N) pixels each"),
    "faithfulness.deletion_baseline": (_BASELINES, "what deleted pixels become"),
    "faithfulness.insertion_baseline": (
        "zeros | black | blur | mean | noise",
        "where insertion starts",
    ),
    "faithfulness.ties": ("stable | reversed | random", "the order of equal values of a map"),
    "faithfulness.score": ("probability | logit", "what a curve follows"),
    "faithfulness.target": ("predicted | label", "whose map and score are followed"),
    "faithfulness.road": ("", "ROAD besides, which takes longer than all the rest"),
    "scoring": ("auto | torch | compile | onnxruntime", "who runs the network on changed images"),
    "thresholds_from": ("DIR", "a run on other images, whose best thresholds are taken"),
    "device": ("auto | cpu | cuda | cuda:N", "auto: a GPU where there is one"),
    "precision": ("float32 | bfloat16 | float16", "of the network's passes"),
    "batch_size": ("N", "images a pass"),
    "num_workers": ("N", "processes that decode; null: none on the CPU, up to 8 on a GPU"),
    "seed": ("N", "of everything random"),
    "part_size": ("N", "images a part file: the unit of stopping and going on"),
    "shard.index": ("N | auto", "this process computes every count-th part, from this one on"),
    "shard.count": ("N", "processes or machines that share the run"),
    "max_errors": ("0 ... 1", "share of broken images that a run tolerates"),
    "retry_errors": ("", "try broken images again though their files have not changed"),
    "overwrite": ("", "replace the run of another config in output_dir"),
    "report": ("", "write summary, figures and report.html; false: the rows alone"),
    "gallery": ("N", "images kept for the report's gallery"),
    "output_dir": ("DIR", "null: results/<dataset>/<model>"),
}

_FREE = ("model", "dataset", "protocols")  # fields that the groups of files fill


def all_keys() -> list[Key]:
    """Return the keys in the order of help: groups of files first, then those of the schema."""
    found = [_group(name) for name in GROUPS]
    for name, schema in schema_keys().items():
        short = name.rpartition(".")[2]
        kind = get_type_hints(schema)[short]
        if name in _FREE or is_dataclass(kind):
            continue
        values, text = _TEXTS.get(name, ("", ""))
        found.append(Key(name, _default(schema, short), _values(kind) or values, text))
    order = {name: place for place, name in enumerate(_TEXTS)}
    return sorted(found, key=lambda key: order.get(key.name, len(order)))


def described() -> set[str]:
    """Return the names of the keys that a line is written for."""
    return set(_TEXTS)


def files(group: str) -> list[Path]:
    """Return the config files of a group, by name."""
    return sorted((config_dir() / group).glob("*.yaml"))


def default_choices() -> dict[str, Any]:
    """Return the groups' choices in conf/benchmark.yaml."""
    import yaml

    text = (config_dir() / "benchmark.yaml").read_text(encoding="utf-8")
    entries = [entry for entry in yaml.safe_load(text)["defaults"] if isinstance(entry, dict)]
    return {name: value for entry in entries for name, value in entry.items()}


def _group(name: str) -> Key:
    names = " | ".join(path.stem for path in files(name))
    return Key(name, _typed(default_choices().get(name)), names, _TEXTS[name][1])


def _values(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " | ".join(kind.__members__)
    return "true | false" if kind is bool else ""


def _default(schema: type, name: str) -> str:
    (field,) = (field for field in fields(schema) if field.name == name)
    if field.default_factory is not MISSING:
        return _typed(field.default_factory())
    return _typed(field.default)


def _typed(value: Any) -> str:
    """Return a value as it would be typed."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
