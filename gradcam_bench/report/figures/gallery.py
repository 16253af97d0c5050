"""The gallery: photographs with heatmap, predicted and true boxes, from stored pictures."""

from __future__ import annotations

import io
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.errors import UserError
from gradcam_bench.names import Cell
from gradcam_bench.report.figures import style
from gradcam_bench.store.rows import cells, scored

_BOX = ("box_x0", "box_y0", "box_x1", "box_y1")

PREDICTED, TRUE = "#56b4e9", "#ffffff"
"""Edge colours of boxes: the predicted one is dashed, the true ones solid."""


def photograph(jpeg: bytes) -> np.ndarray:
    """Decode a stored picture to (H, W, 3) uint8."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


def stored_heatmap(heatmap: bytes, size: tuple[int, int], frame: tuple[int, int]) -> np.ndarray:
    """Upsample a stored (h, w) uint8 map bilinearly to the frame (H, W); float in [0, 1]."""
    low = np.frombuffer(heatmap, np.uint8).reshape(size).astype(np.float32) / 255
    high = Image.fromarray(low).resize(frame[::-1], Image.Resampling.BILINEAR)
    return np.clip(np.asarray(high), 0, 1)


def blended(picture: np.ndarray, heatmap: np.ndarray, *, opacity: float = 0.65) -> np.ndarray:
    """Lay a heatmap (H, W) in [0, 1] over a picture (H, W, 3) uint8, opaque where it is high."""
    colors = 255 * mpl.colormaps[style.COLORMAP](heatmap)[..., :3]
    alpha = opacity * np.sqrt(heatmap)[..., None]
    return np.rint((1 - alpha) * picture + alpha * colors).astype(np.uint8)


def draw_example(ax: Axes, example: Mapping[Hashable, Any], scores: Mapping[Hashable, Any]) -> None:
    """Draw one picture: overlay, true boxes solid, the predicted box dashed.

    Args:
        ax: where to draw; its axes are turned off.
        example: a line of the gallery frame.
        scores: the row of the same image, method and layer.
    """
    picture = photograph(example["jpeg"])
    size = int(example["heatmap_h"]), int(example["heatmap_w"])
    frame = picture.shape[0], picture.shape[1]
    ax.imshow(blended(picture, stored_heatmap(example["heatmap"], size, frame)))
    boxes = np.array([list(box) for box in example["boxes"]]).reshape(-1, 4)
    for box in boxes:
        _box(ax, box, TRUE, "-")
    predicted = np.array([scores.get(name, np.nan) for name in _BOX], dtype=float)
    if np.isfinite(predicted).all():
        _box(ax, predicted, PREDICTED, (0, (3, 2)))
    ax.set(xlim=(-0.5, frame[1] - 0.5), ylim=(frame[0] - 0.5, -0.5))
    ax.set_axis_off()


def _box(ax: Axes, box: np.ndarray, edge: str, dashes: str | tuple[int, tuple[int, ...]]) -> None:
    x0, y0, x1, y1 = box - 0.5  # pixel i of a picture covers [i - 0.5, i + 0.5]
    for line, shade, pattern in ((1.9, "black", "-"), (1.0, edge, dashes)):
        ax.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=shade, lw=line, ls=pattern)
        )


def gallery_cell(
    pictures: pd.DataFrame, rows: pd.DataFrame, *, metric: str = "mean_box_iou"
) -> Cell | None:
    """Return the first method at its last layer, of the cells with a scored picture.

    A control comes only where no other cell has a score; None where no picture has one.
    """
    keys = ["image_id", "method", "layer"]
    good = scored(rows)
    defined = good.loc[good[METRICS[metric].column].notna(), keys]
    pairs = cells(pictures[keys].merge(defined, on=keys))
    return next((pair for pair in reversed(pairs) if pair[0] == pairs[0][0]), None)


def gallery(
    pictures: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    cell: Cell | None = None,
    metric: str = "mean_box_iou",
    columns: int = 4,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Draw the best, the median and the worst images of a cell by a score, a line each.

    Args:
        pictures: the gallery frame, as `store.read_gallery` returns it.
        rows: the rows of the same run.
        cell: method and layer; by default that of `gallery_cell`.
        metric: the score that orders the images, of those kept for the gallery.
        columns: pictures a line.
        class_names: names for the captions.

    Raises:
        UserError: if no picture of the cell has that score.
    """
    column = METRICS[metric].column
    cell = gallery_cell(pictures, rows, metric=metric) if cell is None else cell
    if cell is None:
        raise UserError(f"no picture has a {column}")
    good = scored(rows)
    good = good[(good["method"] == cell[0]) & (good["layer"] == cell[1]) & good[column].notna()]
    chosen = pictures[(pictures["method"] == cell[0]) & (pictures["layer"] == cell[1])]
    joined = chosen.merge(good.drop(columns=["method", "layer"]), on="image_id")
    if joined.empty:
        raise UserError(f"no picture of {cell[0]} at {cell[1]} has a {column}")
    ordered = joined.sort_values([column, "image_id"], ascending=METRICS[metric].better == "lower")
    columns = min(columns, max(1, len(ordered) // 3)) if len(ordered) >= 3 else len(ordered)
    middle = max(0, (len(ordered) - columns) // 2)
    groups = {
        "best": ordered.iloc[:columns],
        "median": ordered.iloc[middle : middle + columns],
        "worst": ordered.iloc[::-1].iloc[:columns],
    }
    with style.paper():
        height = 3 * (style.COLUMN / columns + 0.2) + 0.3
        figure, axes = style.new_axes(height=height, columns=columns, rows=3)
        for number, (group, lines) in enumerate(groups.items()):
            panels = axes[number * columns : (number + 1) * columns]
            for panel, line in zip(panels, lines.to_dict("records"), strict=True):
                draw_example(panel, line, line)
                panel.set_title(_caption(line, column, class_names), fontsize=6, pad=2)
            panels[0].text(
                -0.06, 0.5, group, rotation=90, va="center", ha="right",
                transform=panels[0].transAxes, fontsize=7,
            )  # fmt: skip
        figure.suptitle(
            f"{style.cell_title(cell)}, by {METRICS[metric].title}\n"
            "white: true boxes; blue, dashed: predicted box",
            fontsize=6.5,
        )
    return figure


def _caption(line: Mapping[Hashable, Any], column: str, class_names: Sequence[str] | None) -> str:
    """Return "0.83  tabby" and, where the prediction is wrong, "not tiger cat" below."""
    label, predicted = int(line["label"]), line["predicted"]
    score = f"{line[column]:.2f}"  # two decimals: a caption is as wide as its picture
    name = _short(class_names, label)
    if pd.isna(predicted):  # the network's answer was not finite
        seen = "no prediction"
    else:
        mistaken = _short(class_names, int(predicted), limit=8)  # beside two more words
        seen = "" if predicted == label else f"seen as {mistaken}"
    return f"{score} {name}\n{seen}"


def _short(class_names: Sequence[str] | None, label: int, *, limit: int = 11) -> str:
    if class_names is None or label >= len(class_names):
        return f"class {label}"
    name = str(class_names[label]).split(",")[0]
    return name if len(name) <= limit else name[: limit - 1] + "…"
