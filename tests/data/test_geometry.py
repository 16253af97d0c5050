import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from gradcam_bench.data.geometry import (
    Geometry,
    fit_boxes,
    same_shape,
    scale_boxes,
    upright_boxes,
)
from gradcam_bench.errors import ExampleError, UserError

SQUASH = Geometry(size=64)
CROP = Geometry(size=64, mode="center_crop", resize=73)
BOTH = pytest.mark.parametrize("geometry", [SQUASH, CROP], ids=["squash", "center_crop"])
SIZES = [(150, 100), (100, 150), (97, 61), (333, 500), (64, 64), (40, 30), (73, 400)]


def noise(width, height):
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def test_squash_scales_each_axis():
    boxes = Geometry(size=100).boxes(np.array([[10, 20, 50, 80.5]]), 200, 400)
    np.testing.assert_allclose(boxes, [[5, 5, 25, 20.125]])


def test_center_crop_scales_the_shorter_side_and_moves_to_the_center():
    # 200 x 100 becomes 100 x 50, of which the middle 40 x 40 starts at (30, 5)
    geometry = Geometry(size=40, mode="center_crop", resize=50)
    boxes = geometry.boxes(np.array([[0, 0, 200, 100], [100, 50, 120, 60]]), 200, 100)
    np.testing.assert_allclose(boxes, [[-30, -5, 70, 45], [20, 20, 30, 25]])
    assert geometry.region(200, 100) == (60, 10, 140, 90)


def test_squash_sees_the_whole_image():
    assert SQUASH.region(150, 100) == (0, 0, 150, 100)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_center_crop_equals_torchvision_to_the_byte(size, interpolation):
    image = noise(*size)
    mode = InterpolationMode(interpolation)
    for side, resize in [(64, 73), (32, 33), (64, 64)]:
        geometry = Geometry(
            size=side, mode="center_crop", resize=resize, interpolation=interpolation
        )
        expected = CenterCrop(side)(Resize(resize, interpolation=mode)(image))
        np.testing.assert_array_equal(geometry.image(image), np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squash_equals_torchvision_to_the_byte(interpolation):
    image = noise(150, 100)
    expected = Resize((64, 64), interpolation=InterpolationMode(interpolation))(image)
    pixels = Geometry(size=64, interpolation=interpolation).image(image)
    np.testing.assert_array_equal(pixels, np.asarray(expected))
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8


@settings(deadline=None, max_examples=200)
@given(
    width=st.integers(20, 700),
    height=st.integers(20, 700),
    size=st.integers(8, 300),
    margin=st.none() | st.integers(0, 60),
    corners=st.lists(st.floats(-50, 800), min_size=4, max_size=4),
)
def test_boxes_return_from_the_round_trip(width, height, size, margin, corners):
    crop = margin is not None
    geometry = Geometry(
        size=size,
        mode="center_crop" if crop else "squash",
        resize=size + margin if crop else None,
    )
    boxes = np.array([corners])
    there = geometry.boxes(boxes, width, height)
    np.testing.assert_allclose(geometry.inverse_boxes(there, width, height), boxes, atol=1e-9)
    region = np.array([geometry.region(width, height)])
    np.testing.assert_allclose(
        geometry.boxes(region, width, height), [[0, 0, size, size]], atol=1e-9
    )


@BOTH
@pytest.mark.parametrize(("width", "height"), [(300, 180), (180, 300), (250, 251)])
def test_a_drawn_rectangle_is_found_where_boxes_says(geometry, width, height):
    x0, y0, x1, y1 = box = (width // 2 - 40, height // 2 - 30, width // 2 + 60, height // 2 + 20)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    bright = geometry.image(Image.fromarray(pixels))[:, :, 0] >= 128
    rows, columns = np.where(bright.any(1))[0], np.where(bright.any(0))[0]
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    moved = geometry.boxes(np.array([box]), width, height)[0]
    np.testing.assert_allclose(found, moved, atol=1)
    np.testing.assert_array_equal(geometry.mask(pixels[:, :, 0] > 0), bright)


@BOTH
def test_masks_are_bool_and_full_stays_full(geometry):
    mask = geometry.mask(np.ones((50, 90), bool))
    assert mask.dtype == bool
    assert mask.shape == (64, 64)
    assert mask.all()
    assert not geometry.mask(np.zeros((50, 90), bool)).any()


def test_visible_boxes_are_clipped_to_the_crop_and_dropped_outside():
    geometry = Geometry(size=40, mode="center_crop", resize=50)
    boxes = np.array([[0, 0, 200, 100], [100, 50, 120, 60], [0, 0, 60, 100], [0, 0, 62, 100]])
    visible = geometry.visible_boxes(boxes, 200, 100)
    np.testing.assert_allclose(visible, [[0, 0, 40, 40], [20, 20, 30, 25], [0, 0, 1, 40]])
    assert geometry.visible_boxes(boxes[2:3], 200, 100).shape == (0, 4)


def test_squash_never_clips():
    boxes = np.array([[-10, 0, 300, 150]])
    np.testing.assert_allclose(SQUASH.visible_boxes(boxes, 150, 100), SQUASH.boxes(boxes, 150, 100))
    assert SQUASH.boxes(boxes, 150, 100)[0, 2] == 128


@BOTH
def test_no_boxes_stay_no_boxes(geometry):
    empty = np.zeros((0, 4))
    assert geometry.boxes(empty, 150, 100).shape == (0, 4)
    assert geometry.visible_boxes(empty, 150, 100).shape == (0, 4)
    assert geometry.inverse_boxes(empty, 150, 100).shape == (0, 4)
    assert upright_boxes(empty, 150, 100, orientation=6).shape == (0, 4)


def test_scale_boxes_by_hand():
    boxes = scale_boxes(np.array([[10, 20, 30, 40]]), (100, 200), (50, 400))
    np.testing.assert_allclose(boxes, [[5, 40, 15, 80]])


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [  # a box in the top left of a stored 10 x 6 image
        (1, [1, 0, 4, 2]),
        (2, [6, 0, 9, 2]),
        (3, [6, 4, 9, 6]),
        (4, [1, 4, 4, 6]),
        (5, [0, 1, 2, 4]),
        (6, [4, 1, 6, 4]),
        (7, [4, 6, 6, 9]),
        (8, [0, 6, 2, 9]),
    ],
)
def test_boxes_turn_with_exif(orientation, expected):
    boxes = upright_boxes(np.array([[1, 0, 4, 2]]), 10, 6, orientation=orientation)
    np.testing.assert_allclose(boxes, [expected])


def test_annotated_boxes_follow_a_resized_rotated_copy():
    box = np.array([[10, 0, 40, 20]])  # annotated in the stored pixels, 100 x 60
    moved = fit_boxes(box, (100, 60), (6, 10), orientation=6)
    np.testing.assert_allclose(moved, [[4, 1, 6, 4]])


def test_boxes_annotated_on_the_upright_image_do_not_turn_with_a_resized_copy_either():
    box = np.array([[12, 24, 48, 60]])
    moved = fit_boxes(box, (72, 120), (6, 10), orientation=6)
    np.testing.assert_allclose(moved, [[1, 2, 4, 5]])


@pytest.mark.parametrize("copy", [(213, 160), (227, 227), (32, 24), (33, 25), (1024, 768)])
def test_boxes_follow_copies_of_the_same_shape_and_squares(copy):
    moved = fit_boxes(np.array([[0, 0, 500, 375]]), (500, 375), copy)
    np.testing.assert_allclose(moved, [[0, 0, *copy]])


@pytest.mark.parametrize("size", [(500, 333), (375, 500), (160, 130), (50, 20)])
def test_an_image_of_another_shape_is_no_copy(size):
    box = np.array([[0, 0, 9, 9]])
    with pytest.raises(ExampleError, match=rf"it has {size[0]} x {size[1]} pixels.* on 500 x 375"):
        fit_boxes(box, (500, 375), size)


@settings(max_examples=200)
@given(st.integers(60, 3000), st.integers(60, 3000), st.floats(0.02, 3), st.booleans())
def test_every_rounded_copy_has_the_shape_of_its_original(width, height, scale, up):
    rounding = math.ceil if up else math.floor
    copy = max(rounding(width * scale), 1), max(rounding(height * scale), 1)
    assert same_shape((width, height), copy)
    assert same_shape(copy, (width, height))


def test_boxes_annotated_on_the_upright_image_do_not_turn():
    box = np.array([[1, 2, 4, 5]])
    np.testing.assert_allclose(fit_boxes(box, (6, 10), (6, 10), orientation=6), box)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "size must be at least 1 pixel, got 0"),
        ({"size": 9, "mode": "pad"}, "mode must be squash or center_crop, got 'pad'"),
        ({"size": 9, "interpolation": "nearest"}, "bilinear or bicubic, got 'nearest'"),
        ({"size": 9, "resize": 12}, "squash takes no resize; drop resize=12"),
        ({"size": 9, "mode": "center_crop"}, "needs resize >= size = 9, got None"),
        ({"size": 9, "mode": "center_crop", "resize": 8}, "needs resize >= size = 9, got 8"),
    ],
)
def test_impossible_geometries_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Geometry(**fields)
