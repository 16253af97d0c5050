"""Where a cell fails: kinds of failure, groups of images, classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.names import Cell
from gradcam_bench.store.rows import cell_rows, measured, scored


@dataclass(frozen=True)
class Failures:
    """Where one cell of a run fails.

    Attributes:
        cell: method and layer.
        kinds: from `failure_kinds`.
        groups: from `error_by_group`.
        classes: from `worst_classes`.
        broken: image_id and error of the examples that could not be scored.
        listed: the same examples as errors.csv lists them, from `errors_csv`.
        degenerate: ids of the images whose map is nowhere positive.
    """

    cell: Cell
    kinds: pd.DataFrame
    groups: pd.DataFrame
    classes: pd.DataFrame
    broken: pd.DataFrame
    listed: pd.DataFrame
    degenerate: list[str]


def failures_of(
    rows: pd.DataFrame, cell: Cell, *, class_names: Sequence[str] | None = None
) -> Failures:
    """Return where a cell of a run fails.

    Args:
        rows: of one run, one per image, method and layer.
        cell: method and layer.
        class_names: by class number; a class without one is told by its number.
    """
    broken = rows[rows["error"].notna()] if "error" in rows else rows.assign(error=None)[:0]
    mine = cell_rows(rows, cell)
    degenerate = mine[mine["degenerate"] == 1] if "degenerate" in mine else mine[:0]
    return Failures(
        cell,
        failure_kinds(rows, cell),
        error_by_group(rows, cell),
        worst_classes(rows, cell, class_names=class_names),
        broken.drop_duplicates("image_id")[["image_id", "error"]],
        errors_csv(rows),
        list(degenerate["image_id"]),
    )


def failure_kinds(rows: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Count a cell's images by how it did on them: the box is right, or wrong in one of three ways.

    Args:
        rows: of one run.
        cell: method and layer.

    Returns:
        Columns kind and images, with a line for the images that could not be scored; empty where
        boxes or pointing were not scored.
    """
    if not all(measured(rows, name) for name in ("gt_known_loc", "pointing_hit", "degenerate")):
        return pd.DataFrame(columns=["kind", "images"])
    mine = cell_rows(rows, cell)
    good = scored(mine)
    good = good[good["gt_known_loc"].notna()]
    right, degenerate = good["gt_known_loc"] == 1, good["degenerate"] == 1
    pointed = good["pointing_hit"] == 1
    wrong = ~right & ~degenerate
    kinds = {
        "box right": right.sum(),
        "point on the object, box wrong": (wrong & pointed).sum(),
        "point off the object": (wrong & ~pointed).sum(),
        "degenerate map": (degenerate & ~right).sum(),
        "could not be scored": len(mine) - len(good),
    }
    return pd.DataFrame({"kind": list(kinds), "images": [int(count) for count in kinds.values()]})


_FORMULA = ("=", "+", "-", "@")  # a spreadsheet computes cells that begin so


def errors_csv(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the broken images of a run, one line each, as errors.csv lists them.

    Text that a spreadsheet would compute begins with an apostrophe, which it takes as "text".

    Returns:
        Columns image_id, kind, reason, path; kind and path are empty where they are not known.
    """
    columns = {
        "image_id": "image_id",
        "error_kind": "kind",
        "error": "reason",
        "error_path": "path",
    }
    broken = rows[rows["error"].notna()] if "error" in rows else rows.iloc[:0]
    listed = broken.drop_duplicates("image_id").reindex(columns=list(columns)).astype(object)
    listed = listed.where(listed.notna(), "").rename(columns=columns).reset_index(drop=True)
    return listed.map(lambda text: f"'{text}" if text.startswith(_FORMULA) else text)


def error_by_group(rows: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Return the GT-known error where the class was and was not recognised, and by object size.

    An object is small if its area is among the smallest third, large if among the largest.

    Args:
        rows: of one run.
        cell: method and layer.

    Returns:
        Columns group, error (percent) and n; empty where boxes were not scored.
    """
    good = scored(cell_rows(rows, cell))
    if not measured(good, "gt_known_loc"):
        return pd.DataFrame(columns=["group", "error", "n"])
    good = good[good["gt_known_loc"].notna()]
    groups = {}
    if measured(good, "top1_correct"):
        groups["the class was recognised"] = good["top1_correct"] == 1
        groups["the class was not recognised"] = good["top1_correct"] == 0
    if measured(good, "object_area"):
        small, large = good["object_area"].quantile([1 / 3, 2 / 3])
        groups["the object is small"] = good["object_area"] <= small
        groups["the object is large"] = good["object_area"] > large
    lines = [
        (name, 100 * (1 - good.loc[group, "gt_known_loc"].mean()), int(group.sum()))
        for name, group in groups.items()
        if group.any()
    ]
    return pd.DataFrame(lines, columns=["group", "error", "n"])


def worst_classes(
    rows: pd.DataFrame,
    cell: Cell,
    *,
    class_names: Sequence[str] | None = None,
    least: int = 2,
    limit: int = 8,
) -> pd.DataFrame:
    """Return the classes of lowest mean box IoU.

    Args:
        rows: of one run.
        cell: method and layer.
        class_names: by class number; a class without one is told by its number.
        least: a class with fewer images is left out.
        limit: how many classes are told.

    Returns:
        Columns class, the title of the box IoU, and images; empty where boxes were not scored.
    """
    good = scored(cell_rows(rows, cell))
    if not measured(good, "box_iou"):
        return pd.DataFrame(columns=["class", METRICS["mean_box_iou"].title, "images"])
    means = good.groupby("label")["box_iou"].agg(["mean", "count"])
    means = means[means["count"] >= least].sort_values("mean", kind="stable").head(limit)
    known = class_names or ()
    names = [
        str(known[int(label)]) if label < len(known) else f"class {label:g}"
        for label in means.index
    ]
    return pd.DataFrame(
        {"class": names, METRICS["mean_box_iou"].title: means["mean"], "images": means["count"]}
    ).reset_index(drop=True)
