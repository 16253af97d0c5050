"""The gallery of a run as plain data for the report's page: pictures, small maps, boxes, scores."""

from __future__ import annotations

import base64
import io
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import METRICS, metrics_with
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.names import Cell
from gradcam_bench.report.figures import style
from gradcam_bench.store.rows import cells, measured

_BOX = ("box_x0", "box_y0", "box_x1", "box_y1")


def gallery_images(runs: Sequence[Run], *, limit: int) -> list[list[str]]:
    """Choose the images of each run's gallery: the same of all runs where they have some in common.

    Args:
        runs: one or many.
        limit: of pictures, all runs together; evenly spaced over those kept.
    """
    kept = [_picture_ids(run) for run in runs]
    common = [image for image in kept[0] if all(image in ids for ids in kept[1:])]
    share = max(1, limit // len(runs))
    return [_spaced(common or list(ids), share) for ids in kept]


def _picture_ids(run: Run) -> dict[str, None]:
    return dict.fromkeys(run.pictures["image_id"]) if len(run.pictures) else {}


def _spaced(ids: Sequence[str], limit: int) -> list[str]:
    count = min(limit, len(ids))
    return [ids[number * len(ids) // count] for number in range(count)]


def gallery_data(run: Run, images: Sequence[str], *, best: Cell | None = None) -> dict[str, Any]:
    """Return what the page needs to draw a run's gallery, as JSON-ready data.

    Args:
        run: a run; without pictures its list of images is empty.
        images: ids of the pictures to show, from `gallery_images`.
        best: the cell to show first.

    Returns:
        name; titles of the cells and the number of the first to show; scores with title,
        better direction and decimals; classes by number; images, each with the picture, its
        boxes and, in the order of the cells, map, predicted box, hit (1, 0 or None), degenerate and
        scores.
    """
    metrics = [METRICS[name] for name in metrics_with("gallery")]
    metrics = [metric for metric in metrics if measured(run.rows, metric.column)]
    names = [metric.column for metric in metrics]
    pairs = cells(run.pictures) if len(run.pictures) else []
    data: dict[str, Any] = {
        "name": run.name,
        "cells": [style.cell_title(pair) for pair in pairs],
        "first": pairs.index(best) if best in pairs else 0,
        "scores": [_score(metric) for metric in metrics],
        "classes": {},
        "images": [],
    }
    if not pairs:
        return data
    chosen = set(images)
    rows = run.rows[run.rows["image_id"].isin(chosen)]
    by_key = {(r["image_id"], r["method"], r["layer"]): r for r in rows.to_dict("records")}
    pictures = run.pictures[run.pictures["image_id"].isin(chosen)]
    class_names = run.run.get("class_names")
    for image_id, group in pictures.groupby("image_id", sort=False):
        image = _image(str(image_id), group, pairs, by_key, names)
        data["images"].append(image)
        for number in (image["label"], image["predicted"]):
            if number is not None:
                data["classes"][number] = _class_name(class_names, number)
    return data


def _score(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.column,
        "title": metric.title,
        "better": metric.better,
        "digits": metric.digits,
    }


def _class_name(class_names: Any, number: int) -> str:
    if class_names is None or number >= len(class_names):
        return f"class {number}"
    return str(class_names[number])


def _image(
    image_id: str,
    group: pd.DataFrame,
    pairs: list[Cell],
    by_key: Mapping[tuple[str, str, str], Mapping[Hashable, Any]],
    names: list[str],
) -> dict[str, Any]:
    maps = {(line["method"], line["layer"]): line for line in group.to_dict("records")}
    first = next(iter(maps.values()))
    with Image.open(io.BytesIO(first["jpeg"])) as picture:
        width, height = picture.size
    found = [by_key.get((image_id, *pair)) for pair in pairs]
    row = next((line for line in found if line is not None), {})
    return {
        "id": image_id,
        "jpeg": base64.b64encode(first["jpeg"]).decode(),
        "width": width,
        "height": height,
        "boxes": [[float(corner) for corner in box] for box in first["boxes"]],
        "label": _whole(row.get("label")),
        "predicted": _whole(row.get("predicted")),
        "probability": _number(row.get("predicted_prob")),
        "cells": [
            _cell(maps.get(pair), line, names) for pair, line in zip(pairs, found, strict=True)
        ],
    }


def _cell(
    stored: Mapping[Hashable, Any] | None, row: Mapping[Hashable, Any] | None, names: list[str]
) -> dict[str, Any] | None:
    if stored is None or row is None:
        return None
    box = [_number(row.get(corner)) for corner in _BOX]
    return {
        "map": base64.b64encode(stored["heatmap"]).decode(),
        "h": int(stored["heatmap_h"]),
        "w": int(stored["heatmap_w"]),
        "box": None if None in box else box,
        "hit": _number(row.get("gt_known_loc")),
        "degenerate": row.get("degenerate") == 1,
        "scores": [_number(row.get(name)) for name in names],
    }


def _number(value: Any) -> float | None:
    """Return a float that JSON can hold; NaN becomes None."""
    return None if value is None or pd.isna(value) else float(np.round(value, 4))


def _whole(value: Any) -> int | None:
    return None if value is None or pd.isna(value) else int(value)
