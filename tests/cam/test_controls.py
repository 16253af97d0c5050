"""What theory says of `center` and `random` on real boxes, in plain arithmetic, against ours.

Neither control looks at an image, so real boxes are enough: the 500 of Imagenette lie in the
package; those of the 500 photographs, with the stored results, beside the repository.
"""

import csv
import math
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from repository import ROOT

from gradcam_bench.cam.controls import RANDOM_GRID, center_map, random_map
from gradcam_bench.cam.upsampling import upsample
from gradcam_bench.localization.boxes import localize
from gradcam_bench.localization.energy import energy_in_region
from gradcam_bench.localization.pointing import pointing_hit
from gradcam_bench.localization.threshold_sweep import sweep
from gradcam_bench.run.heatmaps import heatmaps

PACKAGED = ROOT / "gradcam_bench" / "data" / "imagenette_boxes.csv"
PHOTOGRAPHS = ROOT / ".." / "shared" / "data" / "ilsvrc_val_500" / "LOC_val_solution.csv"
STORED = ROOT / "results" / "imagenet" / "efficientnet_lite0" / "summary.csv"
SIZE = 224
FRAME = (0.0, 0.0, SIZE, SIZE)
LEVELS = (0.3, 0.5, 0.7)
photographs = pytest.mark.skipif(
    not PHOTOGRAPHS.is_file(), reason="../shared/data/ilsvrc_val_500 is absent"
)


@cache
def protocol(name):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return instantiate(compose(overrides=[f"+protocol=[{name}]"]).protocols[name])


@cache
def imagenette():
    """Image id -> ((width, height), boxes in original pixels)."""
    found = {}
    with PACKAGED.open(newline="") as file:
        for row in csv.DictReader(file):
            size = int(row["width"]), int(row["height"])
            box = [float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax")]
            found.setdefault(row["image_id"], (size, []))[1].append(box)
    return found


@cache
def ilsvrc():
    """Image id -> ((227, 227), boxes): the photographs were squashed by their source."""
    with PHOTOGRAPHS.open(newline="") as file:
        words = {row["ImageId"]: row["PredictionString"].split() for row in csv.DictReader(file)}
    return {
        image_id: (
            (227, 227),
            [[float(v) for v in text[i + 1 : i + 5]] for i in range(0, len(text), 5)],
        )
        for image_id, text in words.items()
    }


def squashed(annotations):
    """Boxes of each image in the network's frame."""
    return [
        [[x0 * SIZE / w, y0 * SIZE / h, x1 * SIZE / w, y1 * SIZE / h] for x0, y0, x1, y1 in boxes]
        for (w, h), boxes in annotations.values()
    ]


def stored(method):
    summary = pd.read_csv(STORED)
    return summary[summary["method"] == method].set_index("metric")["value"]


# Plain arithmetic


def overlap(a, b, inclusive=0):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + inclusive, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + inclusive, 0)
    areas = sum((c[2] - c[0] + inclusive) * (c[3] - c[1] + inclusive) for c in (a, b))
    return width * height / (areas - width * height)


def best_overlaps(box, images, inclusive=0):
    return np.array([max(overlap(box, truth, inclusive) for truth in boxes) for boxes in images])


def center_box(threshold):
    """Box of 1 - max(|x|, |y|) >= threshold * max, x = (2 i + 1 - SIZE) / SIZE at pixel i."""
    top = 1 - 1 / SIZE
    inside = [i for i in range(SIZE) if 1 - abs(2 * i + 1 - SIZE) / SIZE >= threshold * top]
    return [inside[0], inside[0], inside[-1] + 1, inside[-1] + 1]


def oracle_of_centred_squares(images):
    """Best share of images right at IoU .3, .5, .7: the level sets are squares of 2, ..., 222."""
    shares = []
    for half in range(1, SIZE // 2):
        square = [SIZE // 2 - half] * 2 + [SIZE // 2 + half] * 2
        truth = [[[math.trunc(v) for v in box] for box in boxes] for boxes in images]
        found = best_overlaps(square, truth, inclusive=1)
        shares.append([(found >= level).mean() for level in LEVELS])
    return np.max(shares, axis=0)


def pyramid(x, y):
    """Integral of 1 - max(u, v) over [0, x] x [0, y] in the unit square; odd in x and y."""
    short, long = sorted((abs(x), abs(y)))
    volume = short * long - 2 * short**3 / 3 - short * (long**2 - short**2) / 2
    return math.copysign(1, x) * math.copysign(1, y) * volume


def energy_of_center(boxes):
    """Share of the pyramid over the union of boxes, cut into disjoint rectangles."""
    xs, ys = (sorted({v for box in boxes for v in (box[k], box[k + 2])}) for k in (0, 1))
    total = 0.0
    for x0, x1 in pairwise(xs):
        for y0, y1 in pairwise(ys):
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            if any(b[0] < x < b[2] and b[1] < y < b[3] for b in boxes):
                u0, u1, v0, v1 = (2 * v / SIZE - 1 for v in (x0, x1, y0, y1))
                total += pyramid(u1, v1) - pyramid(u0, v1) - pyramid(u1, v0) + pyramid(u0, v0)
    return total / (4 / 3)


def distance(point, box):
    """Pixels between the pixel `point` (x, y) and the nearest pixel whose centre the box holds."""
    gaps = []
    for k in (0, 1):
        first, last = math.ceil(box[k] - 0.5), math.ceil(box[k + 2] - 0.5) - 1
        gaps.append(max(first - point[k], 0, point[k] - last))
    return math.hypot(*gaps)


def peak(cell, side):
    """First pixel of a side that shows the highest value of a cell of the random grid."""
    # Pixel p reads the grid at (p + 1/2) 7 / side - 1/2, held within [0, 6].
    place = np.clip((np.arange(side) + 0.5) * RANDOM_GRID / side - 0.5, 0, RANDOM_GRID - 1)
    return int(np.abs(place - cell).argmin())


def chance_of_pointing(size, boxes):
    """Each of the 49 cells is the highest equally often."""
    cells = range(RANDOM_GRID)
    points = [(peak(column, size[0]), peak(row, size[1])) for row in cells for column in cells]
    return np.mean([min(distance(point, box) for box in boxes) < 15 for point in points])


def energy_of_random(masks):
    """Mean and variance of the share of uniform noise on 7 x 7 in masks, to second order.

    The share is sum_c a_c u_c / sum_c b_c u_c with u uniform: mean 1/2, variance 1/12.
    """
    one_hot = torch.eye(RANDOM_GRID**2).view(-1, RANDOM_GRID, RANDOM_GRID)
    kernels = upsample(one_hot, (SIZE, SIZE)).flatten(1).double().numpy()
    b = kernels.sum(1) / SIZE**2
    a = masks.reshape(len(masks), -1) @ kernels.T / SIZE**2
    area = a.sum(1, keepdims=True)
    spread = (1 / 12) / (1 / 2) ** 2
    mean = area[:, 0] - spread * ((a - area * b) * b).sum(1)
    return mean, spread * ((a - area * b) ** 2).sum(1)


def union_masks(images):
    masks = np.zeros((len(images), SIZE, SIZE))
    for mask, boxes in zip(masks, images, strict=True):
        for x0, y0, x1, y1 in boxes:
            mask[
                math.ceil(y0 - 0.5) : math.ceil(y1 - 0.5), math.ceil(x0 - 0.5) : math.ceil(x1 - 0.5)
            ] = 1
    return masks


# center


@pytest.mark.parametrize(("name", "side"), [("gradcam2017", 190), ("cam2016", 180)])
def test_the_box_of_center_is_the_closed_form_on_real_boxes(name, side):
    box = center_box(protocol(name).threshold)
    assert box == [(SIZE - side) / 2] * 2 + [(SIZE + side) / 2] * 2
    images = squashed(imagenette())
    (heatmap,) = heatmaps(center_map(1, (SIZE, SIZE)), (SIZE, SIZE), protocol(name)).numpy()
    found = [localize(heatmap, np.array(boxes), protocol(name)) for boxes in images]
    assert {tuple(one.box) for one in found} == {tuple(box)}
    expected = best_overlaps(box, images)
    np.testing.assert_allclose([one.box_iou for one in found], expected, atol=1e-12)
    assert 0.4 < (expected < 0.5).mean() < 0.6  # 52.6 %: a control that a network must beat


@pytest.mark.parametrize("name", ["wsol_v1", "wsol_v2"])
def test_the_sweep_of_center_is_every_centred_square(name):
    images = squashed(imagenette())[::12]
    (heatmap,) = heatmaps(center_map(1, (SIZE, SIZE)), (SIZE, SIZE), protocol(name)).numpy()
    swept = [sweep(heatmap, np.array(boxes), [protocol(name)])[0].best_iou for boxes in images]
    best = [(np.array(swept) >= level).mean(axis=0).max() for level in LEVELS]
    np.testing.assert_allclose(best, oracle_of_centred_squares(images), atol=1e-12)


def test_center_on_the_boxes_of_imagenette():
    images = squashed(imagenette())
    assert round(100 * (best_overlaps(center_box(0.15), images) < 0.5).mean(), 1) == 52.6
    best = 100 * oracle_of_centred_squares(images)
    assert (round(best[1], 1), round(best.mean(), 1)) == (52.4, 50.7)


def test_the_energy_of_center_is_the_volume_of_the_pyramid_over_the_boxes():
    images = squashed(imagenette())[::5]
    heatmap = center_map(1, (SIZE, SIZE))[0].numpy()
    found = [energy_in_region(heatmap, np.array(boxes)) for boxes in images]
    expected = [energy_of_center(boxes) for boxes in images]
    np.testing.assert_allclose(found, expected, atol=0.012)  # boxes end between pixels
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=5e-4)
    assert energy_of_center([FRAME]) == pytest.approx(1)


def test_center_points_at_the_middle_of_the_original_image():
    for (width, height), boxes in list(imagenette().values())[::12]:
        heatmap = upsample(center_map(1, (SIZE, SIZE)), (height, width))[0].numpy()
        middle = (width - 1) / 2, (height - 1) / 2
        away = min(distance(middle, box) for box in boxes)
        if abs(away - 15) > 1:  # of an even number of pixels, two are in the middle
            assert pointing_hit(heatmap, np.array(boxes)) == (away < 15)


@photographs
def test_the_stored_scores_of_center_are_its_closed_forms():
    images, scores = squashed(ilsvrc()), stored("center")
    overlaps = best_overlaps(center_box(0.15), images)
    assert scores["gt_known_loc_err"] == pytest.approx(100 * (overlaps < 0.5).mean(), abs=1e-9)
    assert scores["mean_box_iou"] == pytest.approx(overlaps.mean(), abs=1e-9)
    best = oracle_of_centred_squares(images)
    assert scores["max_box_acc"] == pytest.approx(100 * best[1], abs=1e-9)
    assert scores["max_box_acc_v2"] == pytest.approx(100 * best.mean(), abs=1e-9)
    hits = [min(distance((113, 113), box) for box in boxes) < 15 for _, boxes in ilsvrc().values()]
    assert scores["pointing_hit"] == pytest.approx(np.mean(hits), abs=1e-9)
    energy = np.mean([energy_of_center(boxes) for boxes in images])
    assert scores["energy_in_box"] == pytest.approx(energy, abs=5e-4)


# random


def test_the_box_of_random_is_the_frame():
    # It is not only where the 7 cells of a side all stay under 15 % of the maximum, once in
    # 1 / (4 * 0.15^7) = 146,000 images, or where low cells cut a side off.
    ids, images = list(imagenette()), squashed(imagenette())
    found = heatmaps(random_map(ids, 0), (SIZE, SIZE), protocol("gradcam2017")).numpy()
    overlaps = [
        localize(heatmap, np.array(boxes), protocol("gradcam2017")).box_iou
        for heatmap, boxes in zip(found, images, strict=True)
    ]
    np.testing.assert_allclose(overlaps, best_overlaps(FRAME, images), atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_random_points_into_boxes_as_often_as_one_cell_in_49_allows(seed):
    chances, hits = [], []
    for image_id, (size, boxes) in list(imagenette().items())[::3]:
        heatmap = upsample(random_map([image_id], seed), size[::-1])[0].numpy()
        hits.append(pointing_hit(heatmap, np.array(boxes)))
        chances.append(chance_of_pointing(size, boxes))
    p = np.array(chances)
    assert abs(np.sum(hits) - p.sum()) < 4 * math.sqrt((p * (1 - p)).sum())
    assert 0.3 < p.mean() < 0.7


def test_the_energy_of_random_is_the_area_of_the_boxes():
    ids, images = list(imagenette())[::2], squashed(imagenette())[::2]
    found = upsample(random_map(ids, 0), (SIZE, SIZE)).numpy()
    energy = [
        energy_in_region(heatmap, np.array(boxes))
        for heatmap, boxes in zip(found, images, strict=True)
    ]
    mean, variance = energy_of_random(union_masks(images))
    z = (np.array(energy) - mean) / np.sqrt(variance + 1e-9)
    assert abs(z.mean()) < 4 / math.sqrt(len(z))
    assert 0.8 < z.std() < 1.2
    assert np.abs(mean - union_masks(images).mean((1, 2))).max() < 0.01


@photographs
def test_the_stored_scores_of_random_are_what_theory_expects():
    images, scores = squashed(ilsvrc()), stored("random")
    overlaps = best_overlaps(FRAME, images)
    assert scores["gt_known_loc_err"] == pytest.approx(100 * (overlaps < 0.5).mean(), abs=1e-9)
    assert scores["mean_box_iou"] == pytest.approx(overlaps.mean(), abs=1e-9)
    p = np.array([chance_of_pointing(size, boxes) for size, boxes in ilsvrc().values()])
    error = math.sqrt((p * (1 - p)).sum()) / len(p)
    assert abs(scores["pointing_hit"] - p.mean()) < 4 * error
    mean, variance = energy_of_random(union_masks(images))
    error = math.sqrt(variance.sum()) / len(mean)
    assert abs(scores["energy_in_box"] - mean.mean()) < 4 * error
