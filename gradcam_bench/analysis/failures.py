"""Where a cell fails: kinds of failure, groups of images, classes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.names import Cell
from gradcam_bench.store.rows import cell_rows, measured, scored


def failure_kinds(rows: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Sort a cell's images into box right, three ways of being wrong, and broken.

    Returns:
        Columns kind, images; empty where boxes or pointing were not scored.
    """
    if not (measured(rows, "gt_known_loc") and measured(rows, "pointing_hit")):
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

    Returns:
        Columns group, error (percent), n.
    """
    good = scored(cell_rows(rows, cell))
    if not measured(good, "gt_known_loc"):
        return pd.DataFrame(columns=["group", "error", "n"])
    good = good[good["gt_known_loc"].notna()]
    groups = {
        "the class was recognised": good["top1_correct"] == 1,
        "the class was not recognised": good["top1_correct"] == 0,
    }
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
    """Return the classes of lowest mean box IoU, of those with at least `least` images."""
    good = scored(cell_rows(rows, cell))
    if not measured(good, "box_iou"):
        return pd.DataFrame(columns=["class", METRICS["mean_box_iou"].title, "images"])
    means = good.groupby("label")["box_iou"].agg(["mean", "count"])
    means = means[means["count"] >= least].sort_values("mean", kind="stable").head(limit)
    names = [
        str(class_names[int(label)]) if class_names is not None else f"class {label:g}"
        for label in means.index
    ]
    return pd.DataFrame(
        {"class": names, METRICS["mean_box_iou"].title: means["mean"], "images": means["count"]}
    ).reset_index(drop=True)
