"""Are two runs equal, value by value?

    python scripts/compare_rows.py OLD NEW

OLD and NEW are output folders of gradcam-bench with rows of the same images, methods and layers.
Prints, for every column, "equal" or how far its values differ; exits with 1 where any differs.
Columns that only one of the runs has are named, and do not count as a difference.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from gradcam_bench import api
from gradcam_bench.errors import UserError
from gradcam_bench.store.parts import read_rows

KEY = ["image_id", "method", "layer"]


def compare(old: pd.DataFrame, new: pd.DataFrame) -> dict[str, str]:
    """Return what is to be said of each column of two tables of rows, empty where it is equal.

    Raises:
        UserError: the tables do not hold the same images, methods and layers.
    """
    old, new = (rows.set_index(KEY).sort_index() for rows in (old, new))
    if not old.index.equals(new.index):
        raise UserError(
            f"expected rows of the same images, methods and layers, got {len(old)} and {len(new)} "
            f"rows with {len(old.index.intersection(new.index))} in common"
        )
    return {str(name): difference(old[name], new[name]) for name in old if name in new}


def difference(old: pd.Series, new: pd.Series) -> str:
    """Return how far two columns differ; empty where they are equal (undefined values are)."""
    undefined = old.isna().to_numpy(), new.isna().to_numpy()
    if (undefined[0] != undefined[1]).any():
        return f"{int((undefined[0] != undefined[1]).sum())} rows are undefined in one run alone"
    known = [column[~undefined[0]].to_list() for column in (old, new)]
    try:
        values = [np.asarray([np.asarray(v, float) for v in column]) for column in known]
    except (TypeError, ValueError):  # names and bytes have no distance
        unequal = sum(a != b for a, b in zip(*known, strict=True))
        return f"{unequal} rows differ" if unequal else ""
    if values[0].shape != values[1].shape:
        return f"shapes {values[0].shape} and {values[1].shape}"
    if np.array_equal(values[0], values[1], equal_nan=True):
        return ""
    distance = np.abs(values[0] - values[1])
    alike = (distance == 0) | (np.isnan(values[0]) & np.isnan(values[1]))
    rows = int((~alike.reshape(len(alike), -1)).any(1).sum())
    return f"largest difference {np.nanmax(distance):.3g}, in {rows} rows"


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise UserError(f"expected two folders, OLD and NEW, got {len(arguments)} arguments")
    old, new = map(read_rows, arguments)
    found = compare(old, new)
    for name, told in found.items():
        print(f"{name}: {told or 'equal'}")
    for name in sorted(set(map(str, old)).symmetric_difference(map(str, new))):
        print(f"{name}: only in the {'old' if name in old else 'new'} run")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    api.run_script(main)
