"""Degenerate maps from end to end: what their rows hold."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from evaluations import evaluation
from perturber import Perturber
from protocols import GRADCAM2017, V2
from torch import nn
from toys import Residual

from gradcam_bench.analysis.summary import summarize
from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.cam.methods import METHODS
from gradcam_bench.faithfulness.curves import Options
from gradcam_bench.faithfulness.scorers import TorchScorer
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.run import localization_columns
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


def items_of(pixels):
    box = np.array([[1.0, 1, 11, 11]])
    return [
        Item(i, f"image {i}", image=one.permute(1, 2, 0).numpy(), label=i, boxes=box,
             view=(SIZE, SIZE), view_boxes=box)
        for i, one in enumerate(pixels)
    ]  # fmt: skip


def rows_of(monkeypatch, value):
    """Rows of two images; the map of the first holds `value`, the second's is the method's own."""

    def broken(activations, gradients):
        maps = METHODS["hires_cam"](activations, gradients).abs()
        maps[0] = value
        return maps

    monkeypatch.setitem(METHODS, "grad_cam", broken)
    network = Residual().eval()
    pixels = torch.randint(
        0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    evaluate = evaluation(
        GradCAM(network, "last_relu"),
        PIXELS,
        methods=["grad_cam", "center"],
        protocols=[GRADCAM2017],
        perturber=Perturber(TorchScorer(network), PIXELS, Options(steps=6)),
        road=True,
    )
    found = evaluate(Batch(items_of(pixels), pixels), set()).rows()
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
        found = localization_columns._discrimination(own, other, both_seen=True)
        assert found["discrimination_hit"] == 0
        assert math.isnan(found["discrimination_share"])
    for own, other in ((math.nan, 0.3), (0.3, math.nan)):  # a crop left one of them outside
        found = localization_columns._discrimination(own, other, both_seen=False)
        assert all(math.isnan(value) for value in found.values())
    assert localization_columns._discrimination(0.3, 0.1, both_seen=True) == {
        "discrimination_hit": 1.0,
        "discrimination_share": pytest.approx(0.75),
    }


# --- Logits that are not finite -----------------------------------------------------------------


class Holes(Residual):
    """A network that answers some images, known by a mark in their corner, with no number."""

    def __init__(self, row):
        super().__init__()
        self.register_buffer("row", torch.tensor(row), persistent=False)

    def forward(self, x):
        marked = (x[:, 0, 0, 0] > 2.4)[:, None]
        return torch.where(marked, self.row.expand(len(x), -1), super().forward(x))


NOTHING = [math.nan] * 4
HOLES = {
    "all NaN": NOTHING,
    "one NaN": [0.0, 1.0, math.nan, 2.0],
    "NaN first": [math.nan, 1.0, 5.0, 2.0],
    "infinity": [0.0, math.inf, 1.0, 2.0],
    "all minus infinity": [-math.inf] * 4,
}
UNDEFINED = (
    "predicted_prob",
    "top1_correct",
    "top5_correct",
    "top1_loc",
    "top5_loc",
    *FAITHFULNESS,
    "road_morf",
    "road_lerf",
)


def rows_with_holes(row, *, score="probability", follow_label=False, label=0):
    """Rows of three images; the network has no answer for the second."""
    network = Holes(row).eval()
    box = np.array([[1.0, 1, 11, 11]])
    pixels = torch.randint(
        0, 200, (3, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    pixels[:, :, 0, 0] = 0
    pixels[1, :, 0, 0] = 255
    items = [
        Item(i, f"image {i}", image=pixels[i].permute(1, 2, 0).numpy(), label=label, boxes=box,
             view=(SIZE, SIZE), view_boxes=box)
        for i in range(3)
    ]  # fmt: skip
    evaluate = evaluation(
        GradCAM(network, "last_relu"),
        PIXELS,
        methods=["grad_cam", "random", "center"],
        protocols=[GRADCAM2017],
        perturber=Perturber(TorchScorer(network), PIXELS, Options(steps=6, score=score)),
        follow_label=follow_label,
        road=True,
    )
    return pd.DataFrame(
        [row for rows in evaluate(Batch(items, pixels), set()).rows() for row in rows]
    )


@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_an_answer_that_is_not_finite_has_no_prediction_and_no_score(hole, score):
    for label in range(2):
        rows = rows_with_holes(HOLES[hole], score=score, label=label)
        second = rows.image_id == "image 1"
        assert rows.loc[second, "predicted"].isna().all()
        for name in UNDEFINED:
            assert rows.loc[second, name].isna().all(), name
            assert rows.loc[~second, name].notna().all(), name
        assert all(np.isnan(curve).all() for curve in rows.loc[second, "insertion_curve"])
        assert rows.box_iou.notna().all()


LOCATED = {
    "image_id", "label", "object_area", "method", "layer", "degenerate", "box_iou",
    "gt_known_loc", "box_x0", "box_y0", "box_x1", "box_y1", "pointing_hit", "energy_in_box",
    "boxes_clipped",
}  # fmt: skip


def test_every_other_column_is_undefined_without_an_answer():
    rows = rows_with_holes(NOTHING)
    second = rows[rows.image_id == "image 1"].drop(columns=["deletion_curve", "insertion_curve"])
    assert set(second.columns[second.notna().any()]) == LOCATED


def test_a_class_that_is_ruled_out_is_an_answer_like_any_other():
    rows = rows_with_holes([-math.inf, 1.0, 3.0, 2.0], label=2)
    second = rows[rows.image_id == "image 1"]
    assert second.predicted.tolist() == [2] * 3
    assert second.top1_correct.tolist() == [1.0] * 3
    assert second.increase_in_confidence.notna().all()


def test_a_label_followed_through_an_answer_without_probabilities_has_no_score():
    rows = rows_with_holes(HOLES["one NaN"], follow_label=True)
    second = rows[rows.image_id == "image 1"]
    assert second[list(FAITHFULNESS)].isna().all(axis=None)


def test_undefined_answers_are_counted_in_the_summary():
    rows = rows_with_holes(NOTHING)
    summary = summarize(rows, resamples=20).set_index(["method", "metric"])
    for metric in ("cls_err_top1", "cls_err_top5", "loc_err_top1", "deletion_auc", "average_drop"):
        assert (summary.xs(metric, level="metric")["n_undefined"] == 1).all(), metric
    assert (summary.xs("increase_in_confidence", level="metric")["n_undefined"] == 1).all()
    assert (summary.xs("gt_known_loc_err", level="metric")["n_undefined"] == 0).all()


def test_a_masked_image_without_an_answer_has_no_confidence():
    class Dark(nn.Module):
        def forward(self, x):
            light = x.mean((1, 2, 3))
            return torch.stack([light, light.where(light > 0.5, torch.nan)], 1)

    found = Perturber(TorchScorer(Dark().eval()), PIXELS).confidence(
        torch.ones(1, 3, SIZE, SIZE), torch.eye(SIZE)[None, None], torch.tensor([0])
    )
    assert all(score.isnan().all() for score in found.values())


class Overflowing(Residual):
    """Gives values that are not finite where the image is black, and Residual's elsewhere."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        black = x.sum((1, 2, 3), keepdim=True) == PIXELS.normalize(BLACK).sum()
        return super().forward(torch.where(black, self.value, x))


BLACK = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_image_whose_activations_are_not_finite_changes_no_row_of_another(value):
    network = Overflowing(value).eval()
    pixels = torch.randint(
        1, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    pixels[1] = BLACK[0]
    items = items_of(pixels)

    def rows(kept):
        evaluate = evaluation(
            GradCAM(network, "last_relu"),
            PIXELS,
            methods=[*METHODS, "random", "center"],
            protocols=[GRADCAM2017, V2],
            perturber=Perturber(TorchScorer(network), PIXELS, Options(steps=6)),
            road=True,
        )
        batch = Batch([items[i] for i in kept], pixels[kept])
        return dict(zip(kept, evaluate(batch, set(kept)).rows(), strict=True))

    together, alone = rows([0, 1, 2]), rows([0, 2])
    for i in (0, 2):
        for found, expected in zip(together[i], alone[i], strict=True):
            assert found.keys() == expected.keys()
            for column, value in expected.items():
                if isinstance(value, float | list):
                    np.testing.assert_allclose(found[column], value, atol=1e-5, err_msg=column)
                else:
                    assert found[column] == value, column
    for row in together[1]:
        if row["method"] in METHODS:
            assert math.isnan(row["deletion_auc"]), row["method"]
