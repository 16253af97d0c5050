"""Which of many thresholds give other boxes."""

import numpy as np
import pytest
from protocols import V2

from gradcam_bench.localization.max_box_acc import distinct_hits, distinct_thresholds, hit_bits

STEPS = np.array([0, 0.05, 0.1, 0.15, 0.2, 0.95])


@pytest.mark.parametrize(
    ("max_level", "kept"),
    [
        ([10], [0, 0.1, 0.2, 0.95]),  # levels 0 0 1 1 2 9
        ([0], [0]),  # a flat map has one level
        ([0, 10, 10], [0, 0.1, 0.2, 0.95]),
        ([10, 20], STEPS),  # levels 0 1 2 3 4 19 of the second
        ([1], [0]),
    ],
)
def test_thresholds_are_kept_where_the_level_of_some_image_changes(max_level, kept):
    assert distinct_thresholds(np.array(max_level), STEPS).tolist() == list(kept)


def test_hits_are_told_for_each_of_the_first_levels_at_each_threshold_kept():
    masks = np.zeros((2, 256), np.uint8)
    masks[0, 2], masks[1, 3] = 0b01, 0b11
    first, second = distinct_hits(masks, np.array([4, 4]), levels=2, interval=0.125)
    assert first.tolist() == [[False, False, True, False], [False, False, False, True]]
    assert second.tolist() == [[False] * 4, [False, False, False, True]]


def test_a_box_that_just_reaches_a_level_of_iou_is_right_there():
    best = np.zeros(256)
    best[:4] = [0.3, 0.5, 0.7, np.nextafter(0.7, 0)]
    assert hit_bits(best, V2)[:5].tolist() == [0b001, 0b011, 0b111, 0b011, 0]
