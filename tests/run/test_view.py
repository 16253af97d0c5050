"""The pixels of the original that the pointing game plays on."""

import numpy as np
import pytest
from PIL import Image

from gradcam_bench.data.example import Example
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.run.batches import batches


class One:
    """One grey image with one box."""

    class_names = ("grey",)
    image_ids = ("one",)

    def __init__(self, size, box):
        self.example = Example("one", Image.new("RGB", size), 0, np.array([box], float))

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.example


def item_of(size, box, geometry):
    loaded = batches(One(size, box), geometry, [0], batch_size=1, num_workers=0, pin=False)
    return next(iter(loaded)).good[0]


CROP = Geometry(10, "center_crop", 12)


def test_the_edges_of_the_view_are_rounded_to_whole_pixels_half_up():
    # 22 x 18 pixels become 14 x 12, of which the middle 10 x 10 remain.
    assert CROP.region(22, 18) == pytest.approx((2 * 22 / 14, 1.5, 12 * 22 / 14, 16.5))
    item = item_of((22, 18), (4, 3, 21, 18), CROP)  # the edges become 3, 2, 19 and 17
    assert item.view == (17 - 2, 19 - 3)
    assert item.view_boxes.tolist() == [[4 - 3, 3 - 2, 19 - 3, 17 - 2]]


def test_boxes_left_and_above_of_the_view_are_cut_at_its_edges():
    item = item_of((22, 18), (0, 0, 15, 13), CROP)
    assert item.view_boxes.tolist() == [[0, 0, 15 - 3, 13 - 2]]


def test_squashed_images_are_seen_whole():
    item = item_of((10, 9), (4, 3, 9, 6), Geometry(7))
    assert item.view == (9, 10)
    assert item.view_boxes.tolist() == [[4, 3, 9, 6]]
