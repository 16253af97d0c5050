"""What figures of one run draw, as plain frames: curves over pixels, thresholds and IoU, scores.

Every frame is tidy: one line a point (or an image), with the cell in the columns `method` and
`layer`. A cell without any defined value has no line.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradcam_bench.analysis import intervals
from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.localization import max_box_acc
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.names import Cell
from gradcam_bench.store.rows import (
    cell_rows,
    group_codes,
    layout,
    level_masks,
    measured,
    scored,
    sweep_column,
)

FAITHFULNESS = ("deletion", "insertion")

_RESAMPLES = 500

CURVE_COLUMNS = ("method", "layer", "kind", "changed", "mean", "low", "high")
THRESHOLD_COLUMNS = ("protocol", "level", "method", "layer", "threshold", "share", "best")
IOU_COLUMNS = ("method", "layer", "iou", "share")
SCORE_COLUMNS = ("metric", "method", "layer", "score")


def faithfulness_curves(
    rows: pd.DataFrame, cells: Sequence[Cell], *, seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """Return each cell's mean deletion and insertion curve with a bootstrap band.

    Images are resampled, or groups of them where images belong together, once for all curves of
    the same images.

    Args:
        rows: with the columns `deletion_curve` and `insertion_curve`.
        cells: whose curves are wanted.
        seed: seeds the resampling.
        confidence: coverage of the band at each point.

    Returns:
        Columns of `CURVE_COLUMNS`: `kind` is "deletion" or "insertion", `changed` the percentage of
        pixels changed, `mean`, `low` and `high` the class score. Empty without stored curves.
    """
    good = scored(rows)
    drawn: dict[tuple[str, ...], np.ndarray] = {}
    frames = []
    for kind in FAITHFULNESS:
        column = f"{kind}_curve"
        for cell in cells if measured(good, column) else ():
            images, curves = _defined_curves(good, cell, column)
            if not len(curves):
                continue
            key = tuple(images)
            if key not in drawn:
                drawn[key] = intervals.resample_counts(
                    len(images), groups=group_codes(images, good), resamples=_RESAMPLES, seed=seed
                )
            samples = intervals.bootstrap_means(curves, drawn[key])
            low, high = intervals.percentile_interval(samples, confidence=confidence)
            changed = np.linspace(0, 100, curves.shape[1])
            mean = curves.mean(axis=0)
            frames.append(_frame(CURVE_COLUMNS, *cell, kind, changed, mean, low, high))
    return _joined(frames, CURVE_COLUMNS)


def _defined_curves(rows: pd.DataFrame, cell: Cell, column: str) -> tuple[pd.Index, np.ndarray]:
    """Return the image ids and the curves of a cell that are finite, (n, points); n may be 0."""
    lines = cell_rows(rows, cell)
    found = [
        (image_id, np.asarray(curve, dtype=float))
        for image_id, curve in zip(lines["image_id"], lines[column], strict=True)
        if curve is not None
    ]
    kept = [item for item in found if item[1].ndim and np.isfinite(item[1]).all()]
    curves = np.stack([curve for _, curve in kept]) if kept else np.zeros((0, 1))
    return pd.Index([image_id for image_id, _ in kept]), curves


def threshold_curves(
    rows: pd.DataFrame, cells: Sequence[Cell], protocols: Sequence[Protocol]
) -> pd.DataFrame:
    """Return the share of boxes that are right at every threshold of protocols that sweep.

    Args:
        rows: with the columns `iou_hits@P` and `max_level@P` of each protocol P.
        cells: whose curves are wanted.
        protocols: with their IoU levels and thresholds; those that the rows were not swept under
            are left out.

    Returns:
        Columns of `THRESHOLD_COLUMNS`: `level` is the IoU that a box has to reach, `threshold` a
        share of the map's maximum, `share` a percentage of images, and `best` is true at the first
        threshold of the largest share.
    """
    good = scored(rows)
    frames = []
    for protocol in protocols:
        column = sweep_column(protocol.name)
        swept = good[good[column].notna()] if measured(good, column) else good[:0]
        for cell in cells:
            lines = cell_rows(swept, cell)
            if lines.empty:
                continue
            found = max_box_acc.max_box_acc(*level_masks(lines, protocol.name), protocol)
            for level, curve in zip(protocol.iou_levels, 100 * found.curve, strict=True):
                best = np.arange(len(curve)) == curve.argmax()
                place = (protocol.name, level, *cell)
                frames.append(_frame(THRESHOLD_COLUMNS, *place, found.thresholds, curve, best))
    return _joined(frames, THRESHOLD_COLUMNS)


def iou_curves(rows: pd.DataFrame, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return the share of boxes that are right against the IoU that is asked for.

    Args:
        rows: with the column `box_iou`, of the run's first protocol.
        cells: whose curves are wanted.

    Returns:
        Columns of `IOU_COLUMNS`: `iou` from 0 to 1 in steps of 0.005, `share` a percentage of the
        images with a defined IoU. Empty where boxes were not scored.
    """
    good = scored(rows)
    if not measured(good, "box_iou"):
        return _joined([], IOU_COLUMNS)
    needed = np.linspace(0, 1, 201)
    frames = []
    for cell, values in zip(cells, layout(good, cells).matrix(good["box_iou"]).T, strict=True):
        kept = values[~np.isnan(values)]
        if len(kept):
            share = 100 * (kept[:, None] >= needed).mean(axis=0)
            frames.append(_frame(IOU_COLUMNS, *cell, needed, share))
    return _joined(frames, IOU_COLUMNS)


def score_distributions(
    rows: pd.DataFrame, cells: Sequence[Cell], metrics: Sequence[str]
) -> pd.DataFrame:
    """Return every defined score of every image, to draw how scores are spread.

    Args:
        rows: of one run.
        cells: whose scores are wanted.
        metrics: names of metrics that are means over images; those that were not measured are left
            out.

    Returns:
        Columns of `SCORE_COLUMNS`, one line an image, in the order of the metrics and cells. The
        score is the row's, a share: no percentage, and not turned into an error.
    """
    good = scored(rows)
    places = layout(good, cells) if len(good) else None
    frames = []
    for name in metrics:
        column = METRICS[name].column
        if places is None or not measured(good, column):
            continue
        for cell, values in zip(cells, places.matrix(good[column]).T, strict=True):
            kept = values[~np.isnan(values)]
            frames.append(_frame(SCORE_COLUMNS, name, *cell, kept))
    return _joined(frames, SCORE_COLUMNS)


def _frame(columns: Sequence[str], *values: object) -> pd.DataFrame:
    """Return a frame of arrays and of constants that stand beside each of their entries."""
    return pd.DataFrame(dict(zip(columns, values, strict=True)))


def _joined(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    if not frames:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(frames, ignore_index=True)
