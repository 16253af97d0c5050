"""Split thresholds: thresholds chosen on one split of images and reported on another.

A protocol with a swept threshold stores, for each image, at which thresholds its box is a hit
(`max_box_acc`). The best threshold on the images of one run can therefore be chosen from its stored
rows, and then be evaluated on the stored rows of another run, without computing a heatmap again.
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

_SIZES = ("limit", "length")  # keys of a data set's config that only limit how many images are used
_TOLD = ("source", "_target_")  # keys of a protocol's config that change no score


def choose(
    directory: Path, run: Mapping[str, Any], image_ids: Iterable[str], *, output_dir: Path
) -> dict[str, Any]:
    """Choose thresholds for a run on the images of another run.

    They are chosen for every swept protocol, method, layer and IoU level: the threshold with the
    highest box accuracy in the other run, the lowest one on ties.

    Args:
        directory: folder of the other run, on whose images thresholds are chosen.
        run: what run.json will hold of this run, which the thresholds are for.
        image_ids: ids of this run's images.
        output_dir: folder of this run.

    Returns:
        An entry for run.json: `from` (the other run's folder), its `config_hash` and `n_images`,
        and `chosen[protocol][method][layer]`, a list of one threshold in [0, 1) per IoU level.

    Raises:
        UserError: no protocol of this run is swept; the other folder holds no finished run; it is
            this very run, or shares images with it; its network, geometry or protocol differs; or
            it has no scores of a protocol, method or layer of this run.
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
    """Raise UserError where the other run is unfinished, or its network or geometry differs."""
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
    """Return whether two runs use the same data set, so that equal ids mean equal images."""
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
    """Return the thresholds chosen for one protocol: method -> layer -> one per IoU level.

    Args:
        told: the option as the user gave it, with which error messages begin.
        rows: the other run's rows.
        node: this run's config of the protocol.
        other: `identity` of the other run.
        mine: `identity` of this run.
    """
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
