"""`gradcam-bench list WHAT`: one line for each model, layer, method, metric, data set, protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradcam_bench.cli.keys import files
from gradcam_bench.errors import UserError, nearest

Lines = list[tuple[str, str]]


def main(words: Sequence[str]) -> None:
    """Run `gradcam-bench list WHAT [key=value ...]`.

    Raises:
        UserError: there is nothing of that name to list, or keys that the list does not take.
    """
    what = words[0] if words else ""
    if what not in _LISTS:
        close = nearest(what, list(_LISTS))
        raise UserError(f"list expects one of {', '.join(_LISTS)}, got {what!r}.{close}")
    if what != "layers" and words[1:]:
        raise UserError(f"list {what} takes no further words, got {' '.join(words[1:])!r}.")
    lines = _LISTS[what](words[1:])
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:<{width}}  {text}".rstrip())


def _nodes(group: str) -> list[tuple[Path, dict[str, Any], str]]:
    """Return the files of a group with their content and their first line of comment."""
    import yaml

    found = []
    for path in files(group):
        text = path.read_text(encoding="utf-8")
        comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
        comments = [line for line in comments if not line.startswith("@")]
        found.append((path, yaml.safe_load(text), comments[0] if comments else ""))
    return found


def _models(_: Sequence[str]) -> Lines:
    sources = {"torchvision_models": "torchvision", "zoo": "in this package", "custom": "yours"}
    lines = []
    for path, node, comment in _nodes("model"):
        module = str(node["_target_"]).split(".")[-2]
        source = sources.get(module, module)
        facts = [source, *([str(node["weights"])] if node.get("weights") else [])]
        if module == "zoo":
            facts.append("trained on dataset=shapes")
        else:
            facts.append(f"layer {node['layer']}" if node["layer"] else "its last spatial layer")
        note = comment if "=" in comment or "extra" in comment else ""
        lines.append((path.stem, ", ".join(facts) + (f"; {note}" if note else "")))
    return lines


def _datasets(_: Sequence[str]) -> Lines:
    lines = []
    for path, node, comment in _nodes("dataset"):
        needed = [f"dataset.{key}=..." for key, value in node.items() if value == "???"]
        lines.append((path.stem, "; needs ".join([comment, *needed])))
    return lines


def _protocols(_: Sequence[str]) -> Lines:
    lines = []
    for path, node, _comment in _nodes("protocol"):
        at = node["threshold"]
        rule = "best threshold" if at is None else f"threshold {at:g}"
        levels = ", ".join(f"{level:g}" for level in node["iou_levels"])
        lines.append((path.stem, f"{rule}, IoU {levels}; {node['source']}"))
    return lines


def _methods(_: Sequence[str]) -> Lines:
    from gradcam_bench.names import METHODS

    return [(m.name, f"{m.title}: {m.source}. Takes {m.cost}.") for m in METHODS.values()]


def _metrics(_: Sequence[str]) -> Lines:
    from gradcam_bench.analysis.metrics import METRICS

    return [(m.name, f"{m.label}: {m.definition}") for m in METRICS.values()]


def _layers(words: Sequence[str]) -> Lines:
    """Return the candidates of a sweep with the shape (K, h, w) of their maps."""
    from gradcam_bench import api
    from gradcam_bench.config import bind

    config, _ = api.compose(words)
    model = bind(config.model, "model")()
    from gradcam_bench.models.layers import map_shapes

    names = model.candidate_layers()
    shapes = map_shapes(model.network, model.preprocessing.size, names)
    lines = []
    for name in names:
        channels, height, width = shapes[name]
        default = "  default" if name == model.default_layer else ""
        lines.append((name, f"{channels} x {height} x {width}{default}"))
    return lines


_LISTS: dict[str, Callable[[Sequence[str]], Lines]] = {
    "models": _models,
    "layers": _layers,
    "methods": _methods,
    "metrics": _metrics,
    "datasets": _datasets,
    "protocols": _protocols,
}
