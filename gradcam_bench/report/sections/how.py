"""How the runs were made: title of the page, what is missing, and the facts of each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradcam_bench.analysis.analysis import Analysis
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.localization.protocol import Protocol, iou_text
from gradcam_bench.store.parts import provenance_differences


def title(analysis: Analysis) -> str:
    """Return "tiny_resnet, tiny_vgg on Shapes"; several data sets stand beside each other."""
    datasets = list(dict.fromkeys(dataset_name(run) for run in analysis.runs))
    names = ", ".join(run.name for run in analysis.runs)
    known = [name for name in datasets if name]
    return f"{names} on {', '.join(known)}" if known else names


def dataset_name(run: Run) -> str:
    """Return the name of a run's data set, of its class; empty where it is not recorded."""
    target = ((run.run.get("config") or {}).get("dataset") or {}).get("_target_") or ""
    return str(target).rpartition(".")[2]


def dates(analysis: Analysis) -> str:
    """Return the days on which the runs were made, "2026-11-23" or "2026-11-20 to 2026-11-23".

    A run is dated by the day on which the process that computed its latest part began.
    """
    days = sorted(day for run in analysis.runs if (day := _day(run)))
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""


def _day(run: Run) -> str:
    return str(run.run.get("started") or "")[:10]


def incomplete(analysis: Analysis) -> list[str]:
    """Return what is missing from each incomplete run, its name in front where there are several.

    The page is marked with these lines, and the command prints them.
    """
    found = [(run.name, run.incomplete_text) for run in analysis.runs]
    return [f"{name}: {text}" if analysis.several else text for name, text in found if text]


def facts(run: Run) -> dict[str, Any]:
    """Return what was run and how, as (name, text) lines."""
    stored, config = run.run, run.run.get("config") or {}
    versions = stored.get("versions") or {}
    seconds = stored.get("seconds")
    lines = {
        "Command": stored.get("command"),
        "Network": f"{stored.get('model', '?')}, weights: {stored.get('weights', '?')}",
        "Data": f"{dataset_name(run) or '?'}, {run.incomplete_text or _images(run)}",
        "Data fingerprint": stored.get("data_fingerprint"),
        "Input": f"{config.get('geometry', '?')} to the network's size",
        "Protocols": "; ".join(map(_protocol, run.protocols.values())),
        "Split thresholds": _split(stored.get("thresholds")),
        "Layers": ", ".join(stored.get("layers") or []),
        "Methods": ", ".join(config.get("methods") or []),
        "Deletion, insertion": _faithfulness(config.get("faithfulness") or {}),
        "Device": f"{stored.get('device', '?')}, {config.get('precision', '?')}",
        "Seconds": f"{seconds:,.0f}" if isinstance(seconds, int | float) else None,
        "Date": _day(run),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Commit": stored.get("commit"),
        "Computed by": "; ".join(provenance_differences(stored)),
        "Config hash": stored.get("config_hash"),
        "Folder": str(run.directory),
    }
    return {"name": run.name, "lines": [(key, str(text)) for key, text in lines.items() if text]}


def _images(run: Run) -> str:
    return f"{run.run.get('n_images')} images"


def _protocol(protocol: Protocol) -> str:
    """Return "wsol_v1 (IoU 0.5; oracle threshold: chosen on these images, in steps of 0.001)"."""
    rule = f"threshold {protocol.threshold}"
    if protocol.swept:
        rule = f"oracle threshold: chosen on these images, in steps of {protocol.interval:g}"
    return f"{protocol.name} (IoU {iou_text(protocol.iou_levels)}; {rule})"


def _split(thresholds: Mapping[str, Any] | None) -> str | None:
    if not thresholds:
        return None
    return f"chosen on {thresholds['n_images']} images of {thresholds['from']}"


def _faithfulness(node: Mapping[str, Any]) -> str:
    if not node.get("enabled"):
        return "off"
    skipped = ("enabled", "steps")
    choices = [f"{key.replace('_', ' ')} {node[key]}" for key in node if key not in skipped]
    return ", ".join([f"{node.get('steps', '?')} steps", *choices])
