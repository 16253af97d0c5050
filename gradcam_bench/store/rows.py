"""Rows as matrices: images down, (method, layer) cells across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS, Cell, cell_name, column_of


def cells(rows: pd.DataFrame) -> list[Cell]:
    """Return the (method, layer) pairs in order of appearance, controls last."""
    pairs = list(rows[["method", "layer"]].drop_duplicates().itertuples(index=False, name=None))
    return sorted(pairs, key=lambda pair: pair[0] in CONTROLS)


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the images that could be scored."""
    return rows[rows["error"].isna()] if "error" in rows else rows


def measured(rows: pd.DataFrame, column: str) -> bool:
    """Return whether the rows hold a column with anything in it."""
    return column in rows and bool(rows[column].notna().any())


@dataclass(frozen=True)
class Layout:
    """Where each row belongs in a matrix of images and cells.

    Attributes:
        pairs: the cells, one per column.
        images: the image ids, one per line, in order of appearance.
        kept: (rows,) bool, whether a row's cell is among `pairs`.
        flat: (kept rows,) position of each kept row in the flattened matrix.
        groups: (images,) code of each image's group, from `group_codes`; None: images are
            independent.
    """

    pairs: list[Cell]
    images: pd.Index
    kept: np.ndarray
    flat: np.ndarray
    groups: np.ndarray | None = None

    @property
    def largest_group(self) -> int:
        """How many images the largest group has."""
        return 1 if self.groups is None else int(np.bincount(self.groups).max())

    def matrix(self, values: pd.Series) -> np.ndarray:
        """Return a column of the same rows as (images, cells) float, NaN where there is no row."""
        filled = np.full(len(self.images) * len(self.pairs), np.nan)
        filled[self.flat] = values.to_numpy(dtype=float)[self.kept]
        return filled.reshape(len(self.images), len(self.pairs))

    def per_image(self, values: pd.Series) -> np.ndarray:
        """Return one value per image of a column that does not depend on the cell."""
        present = values.to_numpy()[self.kept]
        filled = np.empty(len(self.images), dtype=present.dtype)
        filled[self.flat // len(self.pairs)] = present
        return filled


def layout(rows: pd.DataFrame, pairs: Sequence[Cell] | None = None) -> Layout:
    """Return where each row belongs; the columns are the cells `pairs`, by default all.

    Raises:
        UserError: if an image occurs twice in a cell, or belongs to two groups.
    """
    pairs = cells(rows) if pairs is None else list(pairs)
    methods, method_names = pd.factorize(rows["method"])
    layers, layer_names = pd.factorize(rows["layer"])
    place = np.full((len(method_names), len(layer_names)), -1)
    for column, (method, layer) in enumerate(pairs):
        if method in method_names and layer in layer_names:
            place[method_names.get_loc(method), layer_names.get_loc(layer)] = column
    columns = place[methods, layers]
    kept = columns >= 0
    codes, images = pd.factorize(rows["image_id"][kept])
    flat = codes * len(pairs) + columns[kept]
    often = np.bincount(flat, minlength=1)
    if often.max() > 1:
        line, column = divmod(int(often.argmax()), len(pairs))
        raise UserError(
            f"image {images[line]!r} has {often.max()} rows for {cell_name(pairs[column])}, "
            "expected one: pass the rows of one run, each part once"
        )
    return Layout(pairs, pd.Index(images), kept, flat, group_codes(pd.Index(images), rows))


def group_codes(images: pd.Index, *tables: pd.DataFrame) -> np.ndarray | None:
    """Return which of the images belong together: codes from 0, in order of appearance.

    Args:
        images: image ids.
        tables: rows of one or several runs, as in `group_names`.

    Returns:
        (images,) codes; None where every image is its own group.
    """
    codes, distinct = pd.factorize(group_names(images, *tables))
    return codes if len(distinct) < len(images) else None


def group_names(images: pd.Index, *tables: pd.DataFrame) -> pd.Series:
    """Return the name of each image's group, as the column `group` of its rows says.

    Images of one group are evidence about one scene (or one photograph, or one video): they are
    resampled together. An image without a group makes a group of its own, named by its id, and so
    does every image of rows that lack the column, as those of runs stored by older versions do.

    Args:
        images: image ids.
        tables: rows of one or several runs; an image's group may stand in any of them.

    Returns:
        (images,) names, indexed by image id.

    Raises:
        UserError: the rows of one run put an image into two groups.
    """
    names = pd.Series(np.asarray(images, dtype=object), index=images)
    for rows in tables:
        if not measured(rows, "group"):
            continue
        known = rows.loc[rows["group"].notna(), ["image_id", "group"]].drop_duplicates()
        group = known.set_index("image_id")["group"]
        twice = group.index[group.index.duplicated()]
        if len(twice):
            both = ", ".join(repr(name) for name in group[twice[0]])
            raise UserError(
                f"image {twice[0]!r} belongs to the groups {both}; expected one: an image is "
                "resampled with one group"
            )
        found = group.reindex(images)
        names = names.where(found.isna(), found)
    return names


def cell_rows(rows: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Return the rows of one method at one layer."""
    return rows[(rows["method"] == cell[0]) & (rows["layer"] == cell[1])]


def sweep_column(protocol: str) -> str:
    """Return the column that holds the stored threshold sweep of a protocol."""
    return column_of("iou_hits", protocol)


def level_masks(rows: pd.DataFrame, protocol: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a threshold sweep as stored: masks (n, 256) uint8 and largest levels (n,) int.

    Bit k of a mask says that the box at that 8-bit level reaches the protocol's k-th IoU level.
    """
    masks = [
        np.frombuffer(mask, np.uint8) if isinstance(mask, bytes) else np.asarray(mask, np.uint8)
        for mask in rows[sweep_column(protocol)]
    ]
    return np.stack(masks), rows[column_of("max_level", protocol)].to_numpy(dtype=int)
