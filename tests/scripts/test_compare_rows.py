"""The comparison of two runs finds every kind of difference, and none where there is none."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
from repository import ROOT

from gradcam_bench.errors import UserError

_SPEC = importlib.util.spec_from_file_location("compare_rows", ROOT / "scripts/compare_rows.py")
compare_rows = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(compare_rows)
compare = compare_rows.compare

ROWS = pd.DataFrame(
    {
        "image_id": ["a", "b"],
        "method": "grad_cam",
        "layer": "conv",
        "box_iou": [0.5, np.nan],
        "curve": [[0.1, 0.2], [0.3, np.nan]],
        "hits": [b"ab", None],
        "predicted": pd.array([3, None], "Int64"),
    }
)


def test_equal_rows_are_equal_in_any_order():
    assert set(compare(ROWS, ROWS[::-1]).values()) == {""}


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("box_iou", 0.75, "largest difference 0.25, in 1 rows"),
        ("box_iou", np.nan, "1 rows are undefined in one run alone"),
        ("curve", [0.1, 0.45], "largest difference 0.25, in 1 rows"),
        ("hits", b"ac", "1 rows differ"),
        ("predicted", 4, "largest difference 1, in 1 rows"),
    ],
)
def test_a_changed_value_is_told(column, value, told):
    changed = ROWS.copy()
    changed.at[0, column] = value
    assert {k: v for k, v in compare(ROWS, changed).items() if v} == {column: told}


def test_rows_of_other_images_are_refused():
    with pytest.raises(UserError, match="1 in common"):
        compare(ROWS, ROWS.replace({"image_id": {"b": "c"}}))
