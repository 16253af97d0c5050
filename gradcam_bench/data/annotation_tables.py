"""Labels and boxes of many images from one text file; a broken line breaks only its own image."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from gradcam_bench.data.annotations import BOX_COLUMNS, Annotation, Faults
from gradcam_bench.data.regular_files import read_lines
from gradcam_bench.data.rules import check_boxes, to_number, to_pixels
from gradcam_bench.errors import UserError, brief, kind_of

TABLE_COLUMNS = ("image_id", "wnid", "width", "height", *BOX_COLUMNS)


def read_solution(path: Path) -> tuple[dict[str, str], Faults]:
    """Read Kaggle's LOC_val_solution.csv ("ImageId,PredictionString").

    Returns:
        Image id -> wnid of the images whose lines are right, and image id -> what is wrong with the
        line of each other image.

    Raises:
        UserError: a line names no image.
    """
    labels: dict[str, str] = {}
    faults: Faults = {}
    for number, line in enumerate(read_lines(path)[1:], start=2):
        image_id, _, boxes = line.partition(",")
        image_id = image_id.strip()
        if not line.strip():
            continue
        if not image_id:
            raise UserError(
                f"{path}, line {number}: expected 'image_id,wnid xmin ymin xmax ymax ...', "
                f"got {brief(line)!r}; restore the file from Kaggle"
            )
        wnid = (boxes.split() or [""])[0]
        if not wnid:
            faults[image_id] = "label", f"line {number} has no class"
        elif labels.setdefault(image_id, wnid) != wnid:
            faults[image_id] = "label", f"line {number} names another class than an earlier one"
    return {i: wnid for i, wnid in labels.items() if i not in faults}, faults


def _read_row(row: dict) -> tuple[tuple[str, int, int], list[float]]:
    """Return the image's (wnid, width, height) and the xyxy box, in pixels, of one box table row.

    Raises:
        ValueError: a field is missing or too many, or a size or a box cannot be right.
    """
    if None in row or None in row.values():
        raise ValueError("it has more or fewer fields than the first line")
    size = to_pixels(row["width"]), to_pixels(row["height"])
    box = [to_number(row[key]) for key in BOX_COLUMNS]
    check_boxes([box], size)
    return (row["wnid"], *size), box


def read_box_table(path: Path) -> tuple[dict[str, Annotation], Faults]:
    """Read a CSV file with one row per box and the columns `TABLE_COLUMNS`.

    Returns:
        Image id -> annotation of the images whose rows are all right, and image id -> what is wrong
        with the first broken row of each other image.

    Raises:
        UserError: the file or a column is missing, it is not CSV, or a row names no image.
    """
    reader = csv.DictReader(read_lines(path))
    rows: dict[str, list[list[float]]] = {}
    heads: dict[str, tuple[str, int, int]] = {}
    faults: Faults = {}
    try:
        if missing := [key for key in TABLE_COLUMNS if key not in (reader.fieldnames or ())]:
            raise UserError(f"box file {path} has no column {', '.join(missing)}; add it")
        for row in reader:
            image_id = row["image_id"]
            if not image_id:
                raise UserError(f"box file {path}, line {reader.line_num} names no image; add it")
            try:
                head, box = _read_row(row)
                if heads.setdefault(image_id, head) != head:
                    raise ValueError("wnid or size differs from an earlier row of this image")
                rows.setdefault(image_id, []).append(box)
            except ValueError as error:
                fault = kind_of(error), f"line {reader.line_num}: {brief(error)}"
                faults.setdefault(image_id, fault)
    except csv.Error as error:
        raise UserError(
            f"box file {path}, line {reader.line_num}: {error}; restore the file"
        ) from error
    annotations = {
        image_id: Annotation(
            (width, height), (wnid,) * len(rows[image_id]), np.array(rows[image_id])
        )
        for image_id, (wnid, width, height) in heads.items()
        if image_id not in faults
    }
    return annotations, faults
