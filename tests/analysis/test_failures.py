"""Broken images are listed, no cell of theirs is a formula; which objects are small and large."""

import numpy as np
import pandas as pd
import pytest
from stored import make_rows

from gradcam_bench.analysis.failures import error_by_group, errors_csv

ROWS = pd.DataFrame(
    {
        "image_id": ["a", "b", "b", "=1+1", "d"],
        "error": [None, "b.jpg is cut off", "b.jpg is cut off", "@home has no box", "-"],
        "error_kind": [None, "image", "image", "annotation", None],
        "error_path": [None, "/x/b.jpg", "/x/b.jpg", "+/y.xml", None],
    }
)


def test_broken_images_are_listed_once_and_no_cell_is_a_formula():
    found = errors_csv(ROWS)
    assert list(found) == ["image_id", "kind", "reason", "path"]
    assert found.to_numpy().tolist() == [
        ["b", "image", "b.jpg is cut off", "/x/b.jpg"],
        ["'=1+1", "annotation", "'@home has no box", "'+/y.xml"],
        ["d", "", "'-", ""],
    ]


@pytest.mark.parametrize("columns", [["image_id"], ["image_id", "error"]])
def test_runs_without_a_broken_image_or_its_kind_are_listed_too(columns):
    found = errors_csv(ROWS[columns])
    assert list(found) == ["image_id", "kind", "reason", "path"]
    assert len(found) == (3 if "error" in columns else 0)
    assert (found["path"] == "").all()


CELL = ("grad_cam", "layer4")


@pytest.mark.parametrize(("images", "small", "large"), [(9, 3, 3), (10, 4, 3), (11, 4, 4)])
def test_a_third_of_the_objects_is_small_and_a_third_large_the_lower_bound_included(
    images, small, large
):
    order = np.random.default_rng(0).permutation(images)
    rows = make_rows(images, cells=(CELL,)).assign(
        object_area=(order + 1) / 20,
        gt_known_loc=(order < small).astype(float),
        degenerate=0.0,
    )
    found = error_by_group(rows, CELL).set_index("group")
    assert found.loc["the object is small", ["error", "n"]].tolist() == [0, small]
    assert found.loc["the object is large", ["error", "n"]].tolist() == [100, large]
