"""Level sets and MaxBoxAcc: every box at every threshold against cv2 and scipy."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from cv2_reference import cv2_boxes, cv2_contours, inclusive_iou
from hypothesis import given, settings
from hypothesis import strategies as st
from protocols import V1, V2
from scipy import ndimage

from gradcam_bench.errors import UserError
from gradcam_bench.localization import component_tree, max_box_acc
from gradcam_bench.localization.boxes import foreground, localize, quantized
from gradcam_bench.localization.component_tree import components, holes
from gradcam_bench.localization.components import component_boxes, twice_polygon_area
from gradcam_bench.localization.max_box_acc import hit_bits, threshold_levels
from gradcam_bench.localization.threshold_sweep import sweep

ALL_CHOICES = [
    replace(
        V1,
        name=f"{finder}{connectivity}-{component}-{comparison}",
        finder=finder,
        connectivity=connectivity,
        component=component,
        comparison=comparison,
        box="half_open",
        iou="half_open",
    )
    for finder, connectivity in (("labels", 8), ("labels", 4), ("contours", 8))
    for component in ("largest", "all", "foreground")
    for comparison in (">", ">=")
]


def at(protocol, threshold):
    """Return a swept protocol at one threshold."""
    fixed = {"threshold_rule": "fixed", "interval": None, "threshold": float(threshold)}
    return replace(protocol, **fixed, iou_levels=protocol.iou_levels[:1])


def normalised(values):
    values = np.asarray(values, np.float64)
    values = values - values.min()
    return (values / max(values.max(), 1e-30)).astype(np.float32)


def upsampled(seed, grid, size, interpolation=cv2.INTER_CUBIC):
    low = np.random.default_rng(seed).standard_normal((grid, grid))
    low = ndimage.gaussian_filter(low, 0.7)
    return normalised(cv2.resize(low, (size, size), interpolation=interpolation))


def rings(size, step):
    y, x = np.mgrid[:size, :size]
    distance = np.maximum(abs(y - size // 2), abs(x - size // 2))
    return normalised((distance // step) % 2 * (1 + distance))


def diamonds(size):
    y, x = np.mgrid[:size, :size]
    return normalised((abs(y - size // 2) + abs(x - size // 2)) % 3 == 0)


def adversarial(seed):
    """Return one of the shapes that break shortcuts, of a small random size."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 26, 2)
    kind = seed % 12
    noise = rng.random((height, width))
    y, x = np.mgrid[:height, :width]
    shapes = {
        0: noise,
        1: ndimage.gaussian_filter(noise, 1.0),
        2: ndimage.gaussian_filter(noise, 2.5),
        3: noise > 0.5,
        4: (y + x) % 2 * noise,  # checkerboard
        5: np.floor(noise * 4),  # plateaus
        6: np.where((y % 3 == 0) | (x % 4 == 0), 1 + noise, noise),  # lines around holes
        7: rings(int(height) + 4, 2),
        8: diamonds(int(width) + 4) + 0.0,
        9: np.kron(rng.random((3, 4)), np.ones((4, 5))),  # nearest upsampling
        10: np.where(noise > 0.9, noise, 0),  # single pixels
        11: np.maximum(np.where(y == x, 0.9, 0), np.where(y == height - 1 - x, 1.0, 0)),
    }
    return normalised(shapes[kind])


def random_boxes(shape, seed):
    rng = np.random.default_rng(seed)
    height, width = shape
    start = rng.random((2, 2)) * [width, height]
    extent = 1 + rng.random((2, 2)) * [width, height]
    return np.concatenate([start, np.minimum(start + extent, [width + 1, height + 1])], 1)


def reference(heatmap, truth):
    """Score v1 and v2 as the protocol is written: threshold 1000 times, with cv2."""
    q = (heatmap * 255).astype(np.uint8)
    done = {}
    for t in np.arange(0, 1, 0.001):
        level = int(t * int(q.max()))
        if level not in done:  # of equal thresholds one is enough
            contours = cv2_contours(q > level)
            largest = max(contours, key=cv2.contourArea)
            done[level] = [
                inclusive_iou(cv2_boxes(chosen, q.shape), truth) for chosen in ([largest], contours)
            ]
        yield done[level]


def real_size_maps():
    for seed in range(4):
        yield upsampled(seed, 7, 112)
        yield upsampled(seed, 14, 112)
    yield upsampled(0, 7, 224)
    yield upsampled(1, 7, 112, cv2.INTER_NEAREST)
    yield upsampled(2, 28, 112, cv2.INTER_LINEAR)


# Against cv2


@pytest.mark.parametrize("kind", range(12))
def test_v1_and_v2_equal_cv2_at_each_of_1000_thresholds_on_adversarial_maps(kind):
    for seed in range(kind, 204, 12):
        heatmap = adversarial(seed)
        if heatmap.max() == 0:
            continue
        boxes = random_boxes(heatmap.shape, seed)
        expected = np.array(list(reference(heatmap, boxes)))
        found = sweep(heatmap, boxes, [V1, V2])
        level = threshold_levels(np.array([found[0].max_level]), V1.thresholds())[0]
        for column, swept in enumerate(found):
            np.testing.assert_array_equal(
                swept.best_iou[level], expected[:, column], err_msg=f"seed {seed}"
            )


def test_v1_and_v2_equal_cv2_at_each_of_1000_thresholds_on_upsampled_maps():
    for seed, heatmap in enumerate(real_size_maps()):
        boxes = random_boxes(heatmap.shape, seed)
        expected = np.array(list(reference(heatmap, boxes)))
        found = sweep(heatmap, boxes, [V1, V2])
        level = threshold_levels(np.array([found[0].max_level]), V1.thresholds())[0]
        for column, swept in enumerate(found):
            np.testing.assert_array_equal(
                swept.best_iou[level], expected[:, column], err_msg=f"map {seed}"
            )


@pytest.mark.parametrize("kind", range(12))
def test_all_boxes_equal_those_of_cv2_at_every_level(kind):
    for seed in range(kind, 96, 12):
        heatmap = adversarial(seed)
        q = quantized(heatmap)
        outer, inner = components(q), holes(q)
        for level in np.unique(q[q > 0]).tolist():
            own = outer.boxes[outer.level == level]
            outlines = inner.boxes[inner.level == level] + np.array([-1, -1, 1, 1])
            drawn = np.minimum([*own, *outlines], (q.shape[1] - 1, q.shape[0] - 1) * 2)
            expected = cv2_boxes(cv2_contours(q >= level), q.shape)
            assert sorted(drawn.tolist()) == sorted(expected.tolist()), (seed, level)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**6))
def test_boxes_of_one_binary_image_equal_those_of_cv2(seed):
    mask = adversarial(seed) > 0.4
    contours = cv2_contours(mask)
    every, one = component_boxes(mask, V2), component_boxes(mask, V1)
    found = [np.minimum(b, (mask.shape[1] - 1, mask.shape[0] - 1) * 2) for b in (every, one)]
    assert sorted(found[0].tolist()) == sorted(cv2_boxes(contours, mask.shape).tolist())
    if contours:
        largest = max(contours, key=cv2.contourArea)
        assert found[1].tolist() == cv2_boxes([largest], mask.shape).tolist()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6))
def test_the_polygon_area_is_contour_area(seed):
    labels, count = ndimage.label(adversarial(seed) > 0.4, np.ones((3, 3)))
    for number in range(1, count + 1):
        filled = ndimage.binary_fill_holes(labels == number)
        (contour,) = cv2_contours(filled)
        assert twice_polygon_area(filled) == 2 * cv2.contourArea(contour)


# Closed forms


def test_a_one_pixel_line_loses_against_a_small_square_in_v1():
    heatmap = np.zeros((20, 20), np.float32)
    heatmap[2, :] = 1.0  # 20 pixels, area 0
    heatmap[10:12, 10:12] = 1.0  # 4 pixels, area 1
    assert component_boxes(heatmap > 0, V1).tolist() == [[10, 10, 12, 12]]
    labels = replace(V1, finder="labels")
    assert component_boxes(heatmap > 0, labels).tolist() == [[0, 2, 20, 3]]


def test_the_area_of_a_contour_includes_its_holes():
    ring = np.zeros((20, 20), np.float32)
    ring[2:10, 2:10] = 1.0
    ring[3:9, 3:9] = 0.0  # 28 pixels around a hole, area 49
    ring[12:18, 12:18] = 1.0  # 36 pixels, area 25
    (swept,) = sweep(ring, np.array([[2.0, 2, 10, 10]]), [V1])
    assert swept.best_iou[:255].tolist() == [1.0] * 255
    assert component_boxes(ring > 0, V1).tolist() == [[2, 2, 10, 10]]


def test_a_hole_has_a_box_of_its_own_one_pixel_larger():
    plate = np.ones((20, 20), np.float32)
    plate[8:11, 6:12] = 0.0
    outline = np.array([[5.0, 7, 13, 12]])  # what cv2 gives the hole at x 6..11, y 8..10
    v1, v2 = sweep(plate, outline, [V1, V2])
    assert v2.best_iou[0] == 1
    assert v1.best_iou[0] < 0.2


def test_levels_index_the_integer_part_of_the_threshold():
    heatmap = np.array([[0.0, 0.2, 0.6, 1.0] * 4] * 4, np.float32)  # 8 bits: 0, 51, 153, 255
    low = replace(V2, iou="half_open", box="half_open", ground_truth="float")
    (swept,) = sweep(heatmap[:, :4], np.array([[1.0, 0, 4, 4]]), [low])
    np.testing.assert_allclose(
        swept.best_iou[[0, 50, 51, 152, 153, 254]], [1, 1, *[2 / 3] * 2] + [1 / 3] * 2
    )
    assert swept.best_iou[255] == 0  # nothing is above 255
    assert swept.max_level == 255


def test_hit_bits_hold_one_bit_per_iou_level():
    best = np.zeros(256)
    best[[3, 4, 5, 6]] = [0.29, 0.3, 0.5, 0.9]
    assert hit_bits(best, V2)[[3, 4, 5, 6]].tolist() == [0b000, 0b001, 0b011, 0b111]
    assert hit_bits(best, V2).dtype == np.uint8


def test_max_box_acc_is_the_best_threshold_per_level_and_their_mean():
    hits = np.zeros((2, 256), np.uint8)
    hits[0, 10:40] = 0b011
    hits[1, 30:60] = 0b111
    protocol = replace(V2, interval=0.1)  # of 100: levels 0, 10, 20, ..., 90
    result = max_box_acc.max_box_acc(hits, np.array([100, 100]), protocol)
    assert result.curve.tolist() == [
        [0, 0.5, 0.5, 1, 0.5, 0.5, 0, 0, 0, 0],
        [0, 0.5, 0.5, 1, 0.5, 0.5, 0, 0, 0, 0],
        [0, 0, 0, 0.5, 0.5, 0.5, 0, 0, 0, 0],
    ]
    assert result.best.tolist() == [1, 1, 0.5]
    np.testing.assert_allclose(result.best_threshold, 0.3)
    assert result.value == pytest.approx(2.5 / 3)


def test_a_fixed_threshold_scores_alike_by_localize_and_by_the_sweep():
    thresholds = np.array([0.0, 0.31, 0.77])
    for seed in range(10):
        heatmap, boxes = upsampled(seed, 7, 56), random_boxes((56, 56), seed)
        (swept,) = sweep(heatmap, boxes, [V2])
        levels = threshold_levels(np.array([swept.max_level]), thresholds)[0]
        for threshold, level in zip(thresholds, levels, strict=True):
            assert localize(heatmap, boxes, at(V2, threshold)).box_iou == swept.best_iou[level]


# Every choice, against labelling each level


@pytest.mark.parametrize("protocol", ALL_CHOICES, ids=lambda p: p.name)
def test_every_choice_of_the_sweep_equals_localize_at_each_level(protocol):
    for seed in range(24):
        heatmap = adversarial(seed)
        boxes = random_boxes(heatmap.shape, seed)
        (swept,) = sweep(heatmap, boxes, [protocol])
        for threshold in np.linspace(0, 0.99, 12):
            found = localize(heatmap, boxes, at(protocol, threshold))
            level = int(threshold * swept.max_level)
            assert found.box_iou == swept.best_iou[level], (seed, threshold)


@pytest.mark.parametrize(("connectivity", "size"), [(8, "area"), (8, "pixels"), (4, "pixels")])
def test_components_and_their_sizes_equal_labelling_each_level(connectivity, size):
    structure = ndimage.generate_binary_structure(2, connectivity // 4)
    for seed in range(48):
        heatmap = adversarial(seed)
        q = quantized(heatmap)
        found = components(q, connectivity=connectivity, size=size)
        assert (np.diff(found.level) >= 0).all()
        assert set(found.level.tolist()) == set(range(1, int(q.max()) + 1))
        for level in np.unique(q[q > 0])[::3].tolist():
            labels, _ = ndimage.label(q >= level, structure)
            expected = []
            for number, (y, x) in enumerate(ndimage.find_objects(labels), start=1):
                own = labels[y, x] == number
                measure = twice_polygon_area(own) if size == "area" else int(own.sum())
                expected.append([x.start, y.start, x.stop, y.stop, measure])
            here = found.level == level
            table = np.column_stack([found.boxes[here], found.size[here]])
            assert sorted(table.tolist()) == sorted(expected), (seed, level)


def test_without_a_folder_for_its_cache_it_compiles_all_the_same(monkeypatch):
    def njit(*, cache=False, nogil=False):
        if cache:  # what Numba says when no folder is writable
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(component_tree, "njit", njit)
    assert component_tree._compiled(max)(1, 2) == 2


def test_more_than_256_maxima_are_kept_apart():
    heatmap = np.zeros((60, 60), np.float32)
    heatmap[::2, ::2] = np.linspace(0.5, 1, 900).reshape(30, 30)
    found = components(quantized(heatmap), size="pixels")
    assert (found.level == 100).sum() == 900
    assert (found.size == 1).all()
    assert not len(holes(quantized(heatmap)).level)  # pixels apart enclose nothing


# Invariances and degenerate cases


def test_protocols_swept_together_or_alone_score_alike():
    heatmap, boxes = upsampled(3, 7, 56), random_boxes((56, 56), 3)
    for together, protocol in zip(sweep(heatmap, boxes, [V1, V2]), [V1, V2], strict=True):
        (alone,) = sweep(heatmap, boxes, [protocol])
        np.testing.assert_array_equal(alone.best_iou, together.best_iou)


def test_v2_is_never_below_v1_and_both_mirror_with_the_map():
    for seed in range(6):
        heatmap = upsampled(seed, 7, 56)
        boxes = np.array([[5.0, 8, 40, 30]])
        half_open = [replace(p, box="half_open", iou="half_open") for p in (V1, V2)]
        v1, v2 = sweep(heatmap, boxes, half_open)
        assert (v2.best_iou >= v1.best_iou).all()
        mirrored = sweep(heatmap[:, ::-1], np.array([[16.0, 8, 51, 30]]), half_open)
        np.testing.assert_array_equal(mirrored[1].best_iou, v2.best_iou)


@pytest.mark.parametrize(
    "heatmap", [np.zeros((6, 5)), np.full((6, 5), np.nan), np.full((6, 5), -1.0)]
)
def test_a_degenerate_map_misses_at_every_threshold(heatmap):
    for swept in sweep(heatmap, np.array([[0.0, 0, 5, 6]]), [V1, V2]):
        assert swept.max_level == 0
        assert not swept.best_iou.any()


def test_without_ground_truth_every_level_is_undefined():
    for boxes in (np.zeros((0, 4)), np.array([[3.0, 3, 3, 9]])):
        (swept,) = sweep(upsampled(0, 7, 28), boxes, [V1])
        assert np.isnan(swept.best_iou).all()


def test_values_that_overshoot_are_cut():
    assert quantized(np.array([[-0.2, 0.5, 1.3]], np.float32)).tolist() == [[0, 127, 255]]


def test_foreground_of_the_sweep_and_of_a_fixed_threshold_round_alike():
    heatmap = upsampled(5, 7, 40)
    fixed = at(V1, 0.4)
    q = (heatmap * 255).astype(np.uint8)
    np.testing.assert_array_equal(foreground(heatmap, fixed), q > int(0.4 * 255))


# Errors


def test_protocols_that_need_different_heatmaps_are_refused():
    with pytest.raises(UserError, match="'wsol_v1', 'other' need different heatmaps"):
        sweep(np.ones((3, 3)), np.zeros((0, 4)), [V1, replace(V1, name="other", relu="before")])


def test_a_protocol_that_does_not_quantize_is_refused():
    fixed = replace(
        V1, threshold_rule="fixed", threshold=0.2, interval=None, quantize=False, name="mine"
    )
    with pytest.raises(UserError, match="'mine' does not quantize"):
        sweep(np.ones((3, 3)), np.zeros((0, 4)), [fixed])


def test_max_box_acc_of_no_image_is_refused():
    with pytest.raises(UserError, match="expected one image or more, got 0"):
        max_box_acc.max_box_acc(np.zeros((0, 256), np.uint8), np.zeros(0), V1)
