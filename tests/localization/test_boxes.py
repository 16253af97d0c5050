"""Boxes, IoU, pointing, energy and PxAP: closed forms, other implementations, degenerate cases."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from protocols import GRADCAM2017
from scipy import ndimage
from torchvision.ops import box_iou

from gradcam_bench.errors import UserError
from gradcam_bench.localization.boxes import (
    box_from_heatmap,
    boxes_from_heatmap,
    boxes_to_mask,
    foreground,
    iou,
    localize,
)
from gradcam_bench.localization.energy import energy_in_region, mask_iou
from gradcam_bench.localization.pointing import pointing_hit
from gradcam_bench.localization.pxap import pixel_average_precision, score_histogram

NO_BOXES = np.zeros((0, 4))
corner = st.integers(-20, 20)


@st.composite
def box(draw):
    x0, y0 = draw(corner), draw(corner)
    return np.array([x0, y0, x0 + draw(st.integers(1, 30)), y0 + draw(st.integers(1, 30))], float)


def two_blobs():
    heatmap = np.zeros((20, 30), np.float32)
    heatmap[2:5, 3:7] = 1.0  # 12 pixels, the highest
    heatmap[10:16, 12:25] = 0.2  # 78 pixels
    return heatmap


def blurred(seed, size=(40, 33), sigma=3.0):
    noise = np.random.default_rng(seed).standard_normal(size)
    heatmap = np.maximum(ndimage.gaussian_filter(noise, sigma), 0)
    return (heatmap / heatmap.max()).astype(np.float32)


# Boxes of a heatmap


def test_the_box_is_that_of_the_largest_component_and_half_open():
    np.testing.assert_array_equal(box_from_heatmap(two_blobs(), GRADCAM2017), [12, 10, 25, 16])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"threshold": 0.5}, [[3, 2, 7, 5]]),
        ({"component": "foreground"}, [[3, 2, 25, 16]]),
        ({"component": "all"}, [[3, 2, 7, 5], [12, 10, 25, 16]]),
        ({"finder": "contours"}, [[12, 10, 25, 16]]),
    ],
)
def test_each_choice_draws_its_own_box(changes, expected):
    boxes = boxes_from_heatmap(two_blobs(), replace(GRADCAM2017, **changes))
    np.testing.assert_array_equal(boxes, expected)


def test_a_value_equal_to_the_threshold_is_foreground_only_with_greater_or_equal():
    heatmap = np.array([[0.5, 1.0, 0.25]], np.float32)
    at_half = replace(GRADCAM2017, threshold=0.5)
    assert foreground(heatmap, at_half).tolist() == [[True, True, False]]
    strictly = replace(at_half, comparison=">")
    assert foreground(heatmap, strictly).tolist() == [[False, True, False]]


def test_quantized_foreground_compares_floors():
    heatmap = np.array([[1.0, 0.504, 0.5]], np.float32)  # 8 bits: 255, 128, 127
    protocol = replace(GRADCAM2017, quantize=True, threshold=0.5, comparison=">")  # int(127.5)
    assert foreground(heatmap, protocol).tolist() == [[True, True, False]]


def test_connectivity_decides_whether_a_diagonal_holds_together():
    heatmap = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(box_from_heatmap(heatmap, GRADCAM2017), [0, 0, 4, 4])
    four = replace(GRADCAM2017, connectivity=4)
    np.testing.assert_array_equal(box_from_heatmap(heatmap, four), [0, 0, 1, 1])


def test_of_equal_components_the_first_in_row_major_order_is_taken():
    heatmap = np.zeros((6, 9), np.float32)
    heatmap[3:5, 0:2] = heatmap[1:3, 6:8] = 1
    np.testing.assert_array_equal(box_from_heatmap(heatmap, GRADCAM2017), [6, 1, 8, 3])


def test_boxes_equal_those_of_opencv():
    for seed in range(60):
        heatmap = blurred(seed, sigma=1 + seed % 4)
        above = (heatmap >= 0.15 * heatmap.max()).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
        x, y, w, h, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
        np.testing.assert_array_equal(
            box_from_heatmap(heatmap, GRADCAM2017), [x, y, x + w, y + h], err_msg=f"seed {seed}"
        )


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 9)),
    st.integers(-8, 8),
)
def test_the_box_does_not_depend_on_the_scale_of_the_map(heatmap, exponent):
    assume(heatmap.max() > 0)
    found = localize(heatmap, NO_BOXES, GRADCAM2017)
    scaled = localize(heatmap * np.float32(2.0**exponent), NO_BOXES, GRADCAM2017)
    np.testing.assert_array_equal(found.box, scaled.box)


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 9))
)
def test_the_box_is_tight_within_the_map_and_mirrors_with_it(heatmap):
    assume(heatmap.max() > 0)
    protocol = replace(GRADCAM2017, component="foreground")
    x0, y0, x1, y1 = (int(v) for v in box_from_heatmap(heatmap, protocol))
    above = foreground(heatmap, protocol)
    assert above[y0:y1, x0:x1].sum() == above.sum()
    for side in (above[y0], above[y1 - 1], above[:, x0], above[:, x1 - 1]):
        assert side.any()
    width = heatmap.shape[1]
    mirrored = box_from_heatmap(heatmap[:, ::-1], protocol)
    np.testing.assert_array_equal(mirrored, [width - x1, y0, width - x0, y1])


def test_the_cv2_convention_clamps_the_far_corner_to_the_last_pixel():
    heatmap = np.ones((4, 6), np.float32)
    protocol = replace(GRADCAM2017, box="cv2")
    np.testing.assert_array_equal(box_from_heatmap(heatmap, protocol), [0, 0, 5, 3])
    heatmap[:, 4:] = heatmap[3:] = 0  # away from the edge nothing is clamped
    np.testing.assert_array_equal(box_from_heatmap(heatmap, protocol), [0, 0, 4, 3])


# IoU


def test_iou_closed_form_in_both_conventions():
    a, b = np.array([[0.0, 0, 4, 2]]), np.array([[2.0, 0, 6, 2], [10, 10, 11, 11]])
    np.testing.assert_allclose(iou(a, b), [[4 / 12, 0]])
    np.testing.assert_allclose(iou(a, b, inclusive=True), [[9 / 21, 0]])


def test_iou_equals_torchvision():
    rng = np.random.default_rng(0)
    a, b = (np.concatenate([p, p + rng.random((20, 2)) * 9], 1) for p in rng.random((2, 20, 2)) * 9)
    np.testing.assert_allclose(
        iou(a, b), box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy(), atol=1e-12
    )


@given(box(), box(), corner, corner, st.booleans())
def test_iou_is_symmetric_in_range_and_moves_with_the_boxes(a, b, dx, dy, inclusive):
    value = iou(a, b, inclusive=inclusive)[0, 0]
    assert 0 <= value <= 1
    assert (value == 1) == np.array_equal(a, b)
    assert value == iou(b, a, inclusive=inclusive)[0, 0]
    move = np.array([dx, dy, dx, dy], float)
    assert value == iou(a + move, b + move, inclusive=inclusive)[0, 0]


def test_boxes_without_area_have_iou_zero():
    empty = np.array([[3.0, 3, 3, 3]])
    assert iou(empty, empty)[0, 0] == 0
    assert iou(NO_BOXES, empty).shape == (0, 1)


# localize


def test_box_iou_is_the_best_over_the_annotated_boxes():
    boxes = np.array([[0, 0, 3, 3], [12, 10, 25, 13], [40, 40, 50, 50.0]])
    found = localize(two_blobs(), boxes, GRADCAM2017)
    assert (found.degenerate, found.box_iou) == (False, 0.5)


def test_with_all_components_the_box_that_fits_best_is_kept():
    every = replace(GRADCAM2017, component="all")
    found = localize(two_blobs(), np.array([[3.0, 2, 7, 5]]), every)
    np.testing.assert_array_equal(found.box, [3, 2, 7, 5])
    assert found.box_iou == 1


def test_ground_truth_corners_are_kept_or_truncated():
    boxes = np.array([[12.9, 10.9, 25.9, 16.9]])
    assert localize(two_blobs(), boxes, GRADCAM2017).box_iou < 0.8
    truncated = replace(GRADCAM2017, ground_truth="truncated")
    assert localize(two_blobs(), boxes, truncated).box_iou == 1


@pytest.mark.parametrize(
    "heatmap",
    [
        np.zeros((5, 5), np.float32),
        np.full((5, 5), -1.0, np.float32),
        np.where(np.eye(5) > 0, np.nan, 1).astype(np.float32),
        np.where(np.eye(5) > 0, np.inf, 1).astype(np.float32),
        np.where(np.eye(5) > 0, -np.inf, 1).astype(np.float32),
    ],
    ids=["zeros", "negative", "nan", "inf", "minus inf"],
)
def test_a_degenerate_heatmap_is_a_miss_without_a_box(heatmap):
    boxes = np.array([[0.0, 0, 5, 5]])
    found = localize(heatmap, boxes, GRADCAM2017)
    assert (found.degenerate, found.box, found.box_iou) == (True, None, 0.0)
    assert box_from_heatmap(heatmap, GRADCAM2017) is None
    assert pointing_hit(heatmap, boxes) == 0
    assert math.isnan(energy_in_region(heatmap, boxes))
    assert mask_iou(heatmap, np.eye(5) > 0, GRADCAM2017) == 0


def test_a_flat_positive_heatmap_is_foreground_everywhere():
    found = localize(np.full((4, 6), 0.3, np.float32), np.array([[0.0, 0, 6, 4]]), GRADCAM2017)
    assert (found.degenerate, found.box_iou) == (False, 1.0)


@pytest.mark.parametrize("boxes", [NO_BOXES, np.array([[7.0, 3, 7, 9]])], ids=["none", "no area"])
def test_without_boxes_scores_are_undefined_but_the_box_is_there(boxes):
    found = localize(two_blobs(), boxes, GRADCAM2017)
    assert math.isnan(found.box_iou)
    np.testing.assert_array_equal(found.box, [12, 10, 25, 16])
    assert math.isnan(localize(np.zeros((5, 5)), boxes, GRADCAM2017).box_iou)
    assert math.isnan(pointing_hit(two_blobs(), boxes))
    assert math.isnan(energy_in_region(two_blobs(), boxes))


# Regions, pointing, energy, masks


def test_a_box_covers_the_pixels_whose_centres_it_holds():
    whole = boxes_to_mask(np.array([[1.0, 0, 3, 2]]), (3, 4))
    assert whole.astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    partial = boxes_to_mask(np.array([[0.6, 0.5, 2.5, 1.6]]), (3, 4))
    assert partial.astype(int).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_a_thin_box_covers_the_pixel_of_its_middle_and_what_lies_outside_is_cut():
    thin = boxes_to_mask(np.array([[1.6, 0.0, 1.9, 3.0]]), (3, 4))
    assert thin.astype(int).tolist() == [[0, 1, 0, 0]] * 3
    outside = boxes_to_mask(np.array([[-5.0, -5, 1, 1], [9, 9, 12, 12]]), (3, 4))
    assert outside.astype(int).tolist() == [[1, 0, 0, 0], [0] * 4, [0] * 4]


@pytest.mark.parametrize(("distance", "hit"), [(0, 1), (14, 1), (15, 0), (16, 0)])
def test_pointing_hits_strictly_within_the_tolerance(distance, hit):
    heatmap = np.zeros((60, 60), np.float32)
    heatmap[30, 29 + distance] = 1
    assert pointing_hit(heatmap, np.array([[10.0, 20, 30, 40]])) == hit  # its last column is 29


def test_pointing_measures_in_a_straight_line():
    heatmap = np.zeros((60, 60), np.float32)
    heatmap[9, 12] = 1
    box = np.array([[21.0, 21, 40, 40]])  # (9, 12) away from the corner: exactly 15
    assert pointing_hit(heatmap, box) == 0
    assert pointing_hit(heatmap, box, tolerance=15.001) == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_pointing_equals_a_search_over_all_pixels(seed, tolerance):
    rng = np.random.default_rng(seed)
    heatmap = rng.random((24, 31)).astype(np.float32)
    start = rng.integers(0, 20, (2, 2))
    boxes = np.concatenate([start, start + rng.integers(1, 4, (2, 2))], 1).astype(float)
    v, u = np.unravel_index(heatmap.argmax(), heatmap.shape)
    hit = any(
        (y - v) ** 2 + (x - u) ** 2 < tolerance**2
        for x0, y0, x1, y1 in boxes.astype(int)
        for y in range(y0, y1)
        for x in range(x0, x1)
    )
    assert pointing_hit(heatmap, boxes, tolerance=tolerance) == hit


def test_pointing_takes_the_first_of_equal_maxima():
    heatmap = np.zeros((50, 50), np.float32)
    heatmap[5, 5] = heatmap[45, 45] = 1
    assert pointing_hit(heatmap, np.array([[0.0, 0, 10, 10]])) == 1
    assert pointing_hit(heatmap, np.array([[40.0, 40, 50, 50]])) == 0


def test_energy_is_the_share_of_the_positive_part_and_counts_overlaps_once():
    heatmap = np.array([[1, 2, -5], [3, 4, 0]], np.float32)
    assert energy_in_region(heatmap, np.array([[0.0, 0, 1, 2]])) == 0.4
    twice = np.array([[0.0, 0, 1, 2], [0, 0, 1, 1]])
    assert energy_in_region(heatmap, twice) == 0.4
    assert energy_in_region(heatmap, np.array([[0.0, 0, 3, 2]])) == 1
    assert energy_in_region(heatmap, np.array([[True, False, False]] * 2)) == 0.4


@given(st.integers(0, 10**6))
def test_energy_of_a_region_and_of_the_rest_add_up_to_one(seed):
    rng = np.random.default_rng(seed)
    heatmap, mask = rng.standard_normal((9, 8)), rng.random((9, 8)) < 0.5
    assume(mask.any() and not mask.all())
    inside, outside = energy_in_region(heatmap, mask), energy_in_region(heatmap, ~mask)
    assert inside + outside == pytest.approx(1)
    assert energy_in_region(3 * heatmap, mask) == pytest.approx(inside)


def test_an_empty_mask_has_no_score():
    empty = np.zeros((20, 30), bool)
    assert math.isnan(energy_in_region(two_blobs(), empty))
    assert math.isnan(mask_iou(two_blobs(), empty, GRADCAM2017))


def test_mask_iou_takes_all_of_the_foreground():
    mask = np.zeros((20, 30), bool)
    mask[10:16, 12:25] = True
    assert mask_iou(two_blobs(), mask, GRADCAM2017) == 78 / 90
    assert mask_iou(two_blobs(), mask, replace(GRADCAM2017, threshold=0.5)) == 0


# PxAP


def average_precision(scores, truth, interval):
    """Write the definition out: precision at each threshold times the recall it adds."""
    total, before = 0.0, 0.0
    for t in np.append(np.arange(0, 1, interval), 1.0)[::-1]:
        called = scores >= t
        if called.any():
            recall = (called & truth).sum() / truth.sum()
            total += (called & truth).sum() / called.sum() * (recall - before)
            before = recall
    return total


def scored_images(n=5):
    rng = np.random.default_rng(0)
    masks = rng.random((n, 12, 9)) < 0.3
    return np.clip(rng.random(masks.shape) + 0.2 * masks, 0, 1).astype(np.float32), masks


def test_pxap_of_perfect_inverted_and_flat_maps():
    mask = np.zeros((4, 5), bool)
    mask[:2] = True
    perfect = mask.astype(np.float32)
    assert pixel_average_precision(score_histogram(perfect, mask)) == 1
    assert pixel_average_precision(score_histogram(1 - perfect, mask)) == 0.5
    assert pixel_average_precision(score_histogram(np.zeros((4, 5)), mask)) == 0.5


def test_pxap_equals_its_definition_over_the_pixels_of_all_images():
    heatmaps, masks = scored_images()
    histogram = sum(
        score_histogram(h, m, interval=0.01) for h, m in zip(heatmaps, masks, strict=True)
    )
    assert pixel_average_precision(histogram) == pytest.approx(
        average_precision(heatmaps.astype(float), masks, 0.01)
    )


def test_pxap_ignores_what_it_is_told_to_but_never_the_mask():
    heatmaps, masks = scored_images(1)
    ignore = np.zeros((12, 9), bool)
    ignore[:, :4] = True
    kept = masks[0] | ~ignore
    histogram = score_histogram(heatmaps[0], masks[0], ignore=ignore, interval=0.01)
    assert histogram.sum() == kept.sum()
    assert pixel_average_precision(histogram) == pytest.approx(
        average_precision(heatmaps[0][kept].astype(float), masks[0][kept], 0.01)
    )


def test_pxap_counts_a_degenerate_heatmap_as_zeros():
    mask = np.eye(3) > 0
    zeros = score_histogram(np.zeros((3, 3)), mask)
    np.testing.assert_array_equal(score_histogram(np.full((3, 3), np.nan), mask), zeros)


def test_pxap_without_any_mask_is_undefined():
    assert math.isnan(
        pixel_average_precision(score_histogram(np.ones((3, 3)), np.zeros((3, 3), bool)))
    )


# Errors


def test_a_protocol_without_a_threshold_cannot_draw_one_box():
    swept = replace(
        GRADCAM2017, threshold_rule="oracle", threshold=None, interval=0.1, quantize=True
    )
    with pytest.raises(UserError, match=r"has no single threshold \(threshold_rule is 'oracle'\)"):
        localize(two_blobs(), NO_BOXES, swept)


def test_one_box_of_a_protocol_that_draws_several_is_refused():
    with pytest.raises(UserError, match="draws a box per component"):
        box_from_heatmap(two_blobs(), replace(GRADCAM2017, component="all"))


def test_masks_of_another_size_are_refused():
    wrong = np.ones((3, 3), bool)
    with pytest.raises(UserError, match=r"heatmap's size \(20, 30\), got \(3, 3\)"):
        energy_in_region(two_blobs(), wrong)
    with pytest.raises(UserError, match=r"heatmap's size \(20, 30\), got \(3, 3\)"):
        mask_iou(two_blobs(), wrong, GRADCAM2017)
    with pytest.raises(UserError, match=r"expected a mask of the heatmap's size \(20, 30\)"):
        score_histogram(two_blobs(), wrong)
