"""Split thresholds: chosen on the images of one stored run, told for those of another.

A protocol that sweeps stores which thresholds hit, per image (`max_box_acc`). The best threshold of
one run can therefore be looked up in the rows of any other, without computing a map again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gradcam_bench.errors import UserError
from gradcam_bench.localization.max_box_acc import max_box_acc
from gradcam_bench.localization.protocol import protocol_of
from gradcam_bench.names import CONTROLS, cell_name, without_places
from gradcam_bench.store import parts
from gradcam_bench.store.rows import cell_rows, level_masks, measured, scored

_SIZES = ("limit", "length")  # keys of a data set that only say how much of it
_TOLD = ("source", "_target_")  # keys of a protocol that decide no number


def choose(
    directory: Path, run: Mapping[str, Any], image_ids: Iterable[str], *, output_dir: Path
) -> dict[str, Any]:
    """Choose, for every swept protocol, method and layer of a run, thresholds from another run.

    Per IoU level it is the threshold that is right most often there, the lowest of equals.

    Args:
        directory: of the other run.
        run: what run.json will hold of the run that the thresholds are for.
        image_ids: of that run.
        output_dir: of that run.

    Returns:
        For run.json: `from`, `config_hash` and `n_images` of the other run, and
        `chosen[protocol][method][layer]`, a list of one threshold per IoU level.

    Raises:
        UserError: the other folder holds no finished run; it is this very run, or shares images
            with it; its network, geometry or protocol differs; it lacks a protocol, method or
            layer.
    """
    told = f"thresholds_from={directory}"
    mine = run["identity"]
    nodes = {name: node for name, node in mine["protocols"].items() if node["threshold"] is None}
    if not nodes:
        raise UserError(f"{told} serves protocols that sweep: add one, e.g. protocol=[wsol_v1].")
    if directory.resolve() == output_dir.resolve():
        raise UserError(f"{told} is the folder of this run itself: give that of other images.")
    found, rows = parts.read_run(directory), parts.read_rows(directory)
    _check_fit(told, found, mine)
    if _same_data(mine, found["identity"]):
        common = sorted(set(image_ids) & set(rows["image_id"]))
        if common:
            raise UserError(
                f"{told} shares {len(common)} images with this run, e.g. {common[0]}: a threshold "
                "chosen on the reported images is an oracle's, as max_box_acc tells already; give "
                "a run on other images."
            )
    chosen = {
        name: _chosen(told, rows, node, found["identity"], mine) for name, node in nodes.items()
    }
    return {
        "from": str(directory),
        "config_hash": found["config_hash"],
        "n_images": found["n_images"],
        "chosen": chosen,
    }


def _check_fit(told: str, found: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raise a UserError where another run is unfinished, or of another network or geometry."""
    if not found.get("complete"):
        raise UserError(f"{told} holds an unfinished run: finish it first, {found.get('command')}")
    other = found["identity"]
    for key, what in (("weights_hash", "network"), ("geometry", "geometry")):
        if other[key] != mine[key]:
            raise UserError(
                f"{told}: the {what} differs ({key}: {other[key]} there, {mine[key]} here), so its "
                "thresholds do not carry over; run it with the same on other images."
            )


def _same_data(mine: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether equal image ids of two runs mean the same images."""
    data = [
        {k: v for k, v in without_places(identity["dataset"]).items() if k not in _SIZES}
        for identity in (mine, other)
    ]
    return data[0] == data[1] or mine["data_fingerprint"] == other["data_fingerprint"]


def _chosen(
    told: str,
    rows: pd.DataFrame,
    node: Mapping[str, Any],
    other: Mapping[str, Any],
    mine: Mapping[str, Any],
) -> dict[str, dict[str, list[float]]]:
    """Return the thresholds of one protocol by method and layer."""
    name = node["name"]
    there = other["protocols"].get(name)
    if there is None:
        raise UserError(
            f"{told} was not scored under protocol {name}; it has {', '.join(other['protocols'])}."
        )
    for key, value in node.items():
        if key not in _TOLD and there.get(key) != value:
            raise UserError(
                f"{told} was scored under another {name}: {key} is {there.get(key)} there, "
                f"{value} here."
            )
    protocol = protocol_of(node, name)
    good = scored(rows)
    found: dict[str, dict[str, list[float]]] = {}
    for method in mine["methods"]:
        for layer in ["input"] if method in CONTROLS else mine["layers"]:
            cell = cell_rows(good, (method, layer))
            if cell.empty or not measured(cell, f"iou_hits@{name}"):
                raise UserError(
                    f"{told} has no {name} scores of {cell_name((method, layer))}: run it with the "
                    "same methods and layers."
                )
            cell = cell[cell[f"iou_hits@{name}"].notna()]
            best = max_box_acc(*level_masks(cell, name), protocol).best_threshold
            found.setdefault(method, {})[layer] = best.tolist()
    return found
