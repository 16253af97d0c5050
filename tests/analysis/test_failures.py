"""Which images count as having a small object."""

import numpy as np
import pytest
from stored import make_rows

from gradcam_bench.analysis.failures import error_by_group

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
