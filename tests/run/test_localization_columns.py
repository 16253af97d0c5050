"""What localization says of maps that leave both objects of a scene, or the scene, empty."""

import math

import numpy as np
import pytest
import torch
from protocols import GRADCAM2017, V1

from gradcam_bench.run.batches import Item
from gradcam_bench.run.heatmaps import heatmaps
from gradcam_bench.run.localization_columns import MapScores

SIZE = 8
LEFT, RIGHT, NOTHING = (np.zeros((SIZE, SIZE), bool) for _ in range(3))
LEFT[2:6, 0:3] = True
RIGHT[2:6, 5:8] = True


def scores_of(raw, mask=LEFT, other=RIGHT):
    box = np.array([[0.0, 2, 3, 6]])
    item = Item(0, "one", label=0, boxes=box, view=(SIZE, SIZE), view_boxes=box,
                mask=mask, other_mask=other)  # fmt: skip
    return MapScores([GRADCAM2017], (SIZE, SIZE))([item], {("m", "l"): raw[None]})[0][0]


def discrimination(raw, **masks):
    row = scores_of(raw, **masks)
    return row["discrimination_hit"], row["discrimination_share"]


def test_energy_beside_both_objects_is_a_miss_without_a_share():
    beside = torch.zeros(SIZE, SIZE)
    beside[0] = 1
    hit, share = discrimination(beside)
    assert hit == 0
    assert math.isnan(share)
    assert scores_of(beside)["energy_in_mask"] == 0


def test_the_share_is_of_the_energy_on_both_objects_and_a_tie_is_no_hit():
    raw = torch.zeros(SIZE, SIZE)
    raw[0], raw[3, 1], raw[3, 6] = 5, 3, 1
    assert discrimination(raw) == (1, pytest.approx(0.75))
    raw[3, 1] = 1
    assert discrimination(raw) == (0, pytest.approx(0.5))


@pytest.mark.parametrize("masks", [{"mask": NOTHING}, {"other": NOTHING}])
def test_with_one_object_out_of_sight_there_is_nothing_to_discriminate(masks):
    assert all(math.isnan(value) for value in discrimination(torch.ones(SIZE, SIZE), **masks))


def test_flat_maps_stay_zero_under_bicubic_min_max_and_ramps_do_not():
    ramp = torch.linspace(0.2, 0.9, 5).expand(5, 5)
    raw = torch.stack([torch.full((5, 5), 0.3), ramp, ramp.T, torch.full((5, 5), -1.7)])
    assert (V1.upsampling, V1.normalization) == ("bicubic", "minmax")
    found = heatmaps(raw, (32, 32), V1)
    assert (found[[0, 3]] == 0).all()
    for sloped in found[[1, 2]]:
        assert (sloped.min(), sloped.max()) == (0, 1)
