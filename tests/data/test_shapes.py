import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from gradcam_bench.data import drawing
from gradcam_bench.data.shapes import (
    LARGEST,
    MAX_HIDDEN,
    MODES,
    SMALLEST,
    SPLITS,
    Shapes,
    mask_box,
)
from gradcam_bench.errors import UserError

SINGLE = Shapes(length=300, seed=5)
PAIR = Shapes(length=120, seed=5, mode="pair")


@pytest.fixture(scope="module")
def single():
    return [SINGLE[i] for i in range(len(SINGLE))]


@pytest.fixture(scope="module")
def pair():
    return [PAIR[i] for i in range(len(PAIR))]


def pixels(example):
    return np.asarray(example.image).tobytes()


def test_a_scene_depends_on_its_seed_split_and_index_alone(single):
    longer = Shapes(length=1000, seed=5)
    for index in (7, 0, 299):  # another length, another order
        again = longer[index]
        assert pixels(again) == pixels(single[index])
        assert again.label == single[index].label
        np.testing.assert_array_equal(again.mask, single[index].mask)


def test_a_scene_is_the_same_in_another_process(single):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        examples = pool.map(SINGLE.__getitem__, [11, 3])
    assert [pixels(e) for e in examples] == [pixels(single[11]), pixels(single[3])]


def test_drawing_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    SINGLE[0]
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_no_scene_is_shared_between_splits_seeds_and_modes():
    scenes = [
        Shapes(split=split, seed=seed, mode=mode, length=10).scene(i).image.tobytes()
        for split in SPLITS
        for seed in (0, 1)
        for mode in MODES
        for i in range(5)
    ]
    assert len(set(scenes)) == len(scenes)


def test_an_example_is_an_rgb_image_with_a_label_a_box_and_a_mask(single):
    for example in single:
        assert example.image.mode == "RGB"
        assert example.image.size == (96, 96)
        assert example.boxes.shape == (1, 4)
        assert example.boxes.dtype == np.float64
        assert example.mask.shape == (96, 96)
        assert example.mask.dtype == bool
        assert example.other_label is None
        assert example.other_mask is None


def test_the_box_is_tight_around_the_visible_mask(single, pair):
    for example in single + pair:
        x0, y0, x1, y1 = example.boxes[0].astype(int)
        inside = example.mask[y0:y1, x0:x1]
        assert inside.sum() == example.mask.sum()
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.any()


def test_the_box_of_one_pixel_is_half_open():
    mask = np.zeros((5, 7), dtype=bool)
    mask[3, 2] = True
    np.testing.assert_array_equal(mask_box(mask), [[2.0, 3.0, 3.0, 4.0]])


def test_the_longer_side_of_a_box_is_a_tenth_to_six_tenths_of_the_image(single):
    larger = Shapes(length=60, size=150)
    sides = []
    for example in [*single, *(larger[i] for i in range(60))]:
        x0, y0, x1, y1 = example.boxes[0]
        size = example.image.width
        assert min(x0, y0) >= 0
        assert max(x1, y1) <= size
        sides.append(max(x1 - x0, y1 - y0) / size)
    assert min(sides) >= SMALLEST
    assert max(sides) <= LARGEST
    assert min(sides) < 0.2  # the whole range occurs, small ones seldom
    assert max(sides) > 0.55


def test_objects_lie_everywhere(single):
    centres = np.array([(e.boxes[0, :2] + e.boxes[0, 2:]) / 2 for e in single])
    np.testing.assert_allclose(centres.mean(axis=0), 48, atol=4)
    assert (centres.std(axis=0) > 10).all()


def test_occlusion_happens_and_never_hides_more_than_it_may():
    hidden = np.array([h for i in range(300) for h in SINGLE.scene(i).hidden])
    assert hidden.min() == 0
    assert hidden.max() <= MAX_HIDDEN
    assert 0.1 < (hidden > 0.02).mean() < 0.6


def test_the_picture_changes_where_the_mask_is_when_the_object_is_left_out(monkeypatch):
    # Nothing random depends on whether it is painted, so all the rest is the same.
    lay = drawing.lay

    def all_but_large(scene, cover, paint, *, light, height):
        if height <= 1.3:  # of 96 pixels: clutter 1, occluders 1.2, objects 0.05 of their side
            lay(scene, cover, paint, light=light, height=height)

    compared = 0
    for index in range(40):
        scene = SINGLE.scene(index)
        with monkeypatch.context() as patch:
            patch.setattr(drawing, "lay", all_but_large)
            without = SINGLE.scene(index)
        change = np.abs(scene.image.astype(int) - without.image).max(axis=2)
        if change.any():
            compared += 1
            mask = scene.masks[0]
            assert (change[mask] > 5).mean() > 0.7
            assert (change[~mask] > 5).mean() < 0.3  # the shadow, where there is one
    assert compared > 15


def test_every_class_occurs_about_equally_often(single):
    counts = np.bincount([example.label for example in single], minlength=8)
    assert len(SINGLE.class_names) == 8
    assert counts.min() >= 20


def colour_statistics(example):
    image = np.asarray(example.image, dtype=float) / 255
    inside = image[example.mask]
    return np.concatenate([inside.mean(axis=0), image.mean(axis=(0, 1))])


def test_colour_carries_no_class(single):
    # Nearest mean colour, of the object and of the whole image: chance is 1/8.
    features = np.array([colour_statistics(e) for e in single])
    labels = np.array([e.label for e in single])
    known, asked = slice(0, 150), slice(150, 300)
    means = np.array([features[known][labels[known] == k].mean(axis=0) for k in range(8)])
    distances = ((features[asked][:, None] - means) ** 2).sum(axis=2)
    right = (distances.argmin(axis=1) == labels[asked]).mean()
    assert right < 1 / 8 + 3 * np.sqrt(1 / 8 * 7 / 8 / 150)


def test_a_pair_is_one_image_asked_for_each_of_its_two_classes(pair):
    assert PAIR.image_ids[:3] == (
        "shapes-test-000000-A",
        "shapes-test-000000-B",
        "shapes-test-000001-A",
    )
    for a, b in zip(pair[::2], pair[1::2], strict=True):
        assert pixels(a) == pixels(b)
        assert a.label != b.label
        assert (a.other_label, b.other_label) == (b.label, a.label)
        np.testing.assert_array_equal(a.other_mask, b.mask)
        np.testing.assert_array_equal(b.other_mask, a.mask)


def test_the_two_objects_of_a_pair_do_not_touch(pair):
    for a, b in zip(pair[::2], pair[1::2], strict=True):
        gap = np.maximum(a.boxes[0, :2] - b.boxes[0, 2:], b.boxes[0, :2] - a.boxes[0, 2:])
        assert gap.max() >= 1
        assert max(PAIR.scene(int(a.image_id[12:18])).hidden) <= MAX_HIDDEN


@pytest.mark.parametrize("label", range(8))
def test_an_outline_covers_its_own_area(label):
    # The shoelace formula on the outline against the sum of the drawn cover.
    def area(points):
        x, y = points.T
        return abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2

    polygons = tuple(30.25 * points + 40.4 for points in drawing.outline(label))
    expected = area(polygons[0]) - sum(area(hole) for hole in polygons[1:])
    cover = drawing.cover_of(polygons, (slice(0, 80), slice(0, 80)))
    assert cover.sum() == pytest.approx(expected, rel=0.03)


def test_fingerprints_tell_data_sets_apart():
    options = [{}, {"seed": 1}, {"split": "train"}, {"size": 128}, {"length": 40}, {"mode": "pair"}]
    prints = [Shapes(**{"length": 20, **option}).fingerprint() for option in options]
    assert len(set(prints)) == len(options)
    assert prints[0] == Shapes(length=20).fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "split: expected one of train, validation, test; got 'val'"),
        ({"mode": "both"}, "mode: expected one of single, pair; got 'both'"),
        ({"size": 32}, "size: expected a whole number from 64 to 1024; got 32"),
        ({"size": 96.0}, "size: expected a whole number from 64 to 1024; got 96.0"),
        ({"length": 0}, "length: expected a whole number from 1 to 1000000; got 0"),
        ({"length": True}, "length: expected a whole number"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"mode": "pair", "length": 7}, "an even number; got 7"),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(arguments, message):
    with pytest.raises(UserError, match=message):
        Shapes(**arguments)


def test_an_index_outside_is_an_index_error():
    assert len(SINGLE) == 300
    with pytest.raises(IndexError):
        SINGLE[300]


def test_the_data_set_does_not_import_torch():
    code = "import sys, gradcam_bench.data.shapes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
