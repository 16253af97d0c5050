"""Broken images are listed once each, with their reason, and no cell is a formula."""

import pandas as pd
import pytest

from gradcam_bench.analysis.failures import errors_csv

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
