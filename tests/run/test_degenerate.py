"""Degenerate maps from end to end: what their rows hold."""

import math

import numpy as np
import pytest
import torch
from protocols import GRADCAM2017
from toys import Residual

from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.cam.methods import METHODS
from gradcam_bench.faithfulness.curves import Options, Perturber
from gradcam_bench.faithfulness.scorers import TorchScorer
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.run import localization_columns
from gradcam_bench.run.batch import Evaluation
from gradcam_bench.run.batches import Batch, Item

SIZE = 12
PIXELS = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", SIZE)
FAITHFULNESS = (
    "deletion_auc",
    "insertion_auc",
    "average_drop",
    "increase_in_confidence",
    "average_gain",
    "log_odds_drop",
    "road",
)


def rows_of(monkeypatch, value):
    """Rows of two images; the map of the first holds `value`, the second's is the method's own."""

    def broken(activations, gradients):
        maps = METHODS["hires_cam"](activations, gradients).abs()
        maps[0] = value
        return maps

    monkeypatch.setitem(METHODS, "grad_cam", broken)
    network = Residual().eval()
    box = np.array([[1.0, 1, 11, 11]])
    pixels = torch.randint(
        0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    items = [
        Item(i, f"image {i}", image=pixels[i].permute(1, 2, 0).numpy(), label=i, boxes=box,
             view=(SIZE, SIZE), view_boxes=box)
        for i in range(2)
    ]  # fmt: skip
    evaluate = Evaluation(
        GradCAM(network, "last_relu"),
        PIXELS,
        methods=["grad_cam", "center"],
        protocols=[GRADCAM2017],
        faithfulness=Perturber(TorchScorer(network), PIXELS, Options(steps=6)),
        road=True,
        seed=0,
        device=torch.device("cpu"),
    )
    found = evaluate(Batch(items, pixels), set()).rows()
    return {(i, row["method"]): row for i, rows in enumerate(found) for row in rows}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_maps_that_are_not_finite_have_no_faithfulness(monkeypatch, value):
    rows = rows_of(monkeypatch, value)
    first = rows[0, "grad_cam"]
    assert all(math.isnan(first[name]) for name in FAITHFULNESS)
    assert all(math.isnan(point) for point in first["deletion_curve"])
    assert (first["degenerate"], first["box_iou"], first["gt_known_loc"]) == (1, 0, 0)
    assert first["pointing_hit"] == 0
    assert math.isnan(first["energy_in_box"])
    for other in ((0, "center"), (1, "grad_cam"), (1, "center")):
        assert all(math.isfinite(rows[other][name]) for name in FAITHFULNESS), other
        assert rows[other]["degenerate"] == 0


def test_a_map_of_zeros_is_a_miss_with_a_tie_ruled_deletion(monkeypatch):
    rows = rows_of(monkeypatch, 0.0)
    first = rows[0, "grad_cam"]
    assert (first["degenerate"], first["box_iou"], first["pointing_hit"]) == (1, 0, 0)
    assert math.isnan(first["energy_in_box"])
    assert all(math.isfinite(first[name]) for name in FAITHFULNESS)


def test_a_map_of_zeros_shows_nothing_of_the_image():
    network = Residual().eval()
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    targets = network(images).argmax(1)
    found = Perturber(TorchScorer(network), PIXELS).confidence(
        images, torch.zeros(2, 1, SIZE, SIZE), targets
    )
    with torch.no_grad():
        clean, hidden = (
            network(x).softmax(1).gather(1, targets[:, None])
            for x in (images, torch.zeros_like(images))
        )
    expected = ((clean - hidden).relu() / clean).numpy()
    np.testing.assert_allclose(found["average_drop"].numpy(), expected, atol=1e-6)


def test_no_energy_on_either_object_is_a_miss_without_a_share():
    for own, other in ((0.0, 0.0), (math.nan, 0.3), (math.nan, math.nan)):
        found = localization_columns._discrimination(own, other)
        assert found["discrimination_hit"] == 0
        assert math.isnan(found["discrimination_share"])
    assert localization_columns._discrimination(0.3, 0.1) == {
        "discrimination_hit": 1.0,
        "discrimination_share": pytest.approx(0.75),
    }
