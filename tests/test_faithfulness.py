import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from toys import Residual

from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness import (
    DeletionInsertion,
    area_under_curve,
    n_points,
    rise_blur,
    step_of_pixel,
)
from gradcam_bench.scoring import TorchScorer


def setup(n=3, m=2, size=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, size, size, generator=g)
    heatmaps = torch.randn(n, m, size, size, generator=g).relu()
    return TorchScorer(Residual()), images, heatmaps, torch.tensor([1, 3, 0, 2, 1])[:n]


def rise_curve(model, image, heatmap, target, step, mode):
    """RISE's evaluation as its paper and code define it, one image, one point at a time."""
    pixels = heatmap.size
    kernel = np.zeros((11, 11))
    kernel[5, 5] = 1
    kernel = torch.tensor(ndimage.gaussian_filter(kernel, 5)).float()
    weight = torch.zeros(3, 3, 11, 11)
    for c in range(3):
        weight[c, c] = kernel
    blurred = nn.functional.conv2d(image[None], weight, padding=5)[0]
    start, finish = (image, torch.zeros_like(image)) if mode == "del" else (blurred, image)
    order = np.argsort(-heatmap.ravel(), kind="stable")
    scores, current = [], start.clone().reshape(3, -1)
    for k in range(math.ceil(pixels / step) + 1):
        with torch.no_grad():
            p = model(current.view_as(image)[None]).softmax(1)[0, target]
        scores.append(float(p))
        where = order[k * step : (k + 1) * step].copy()
        current[:, where] = finish.reshape(3, -1)[:, where]
    scores = np.array(scores)
    return scores, (scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)


@pytest.mark.parametrize("steps", [1, 7, 10, 144])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_curves_are_rises_written_out(steps, batch_size):
    scorer, images, heatmaps, targets = setup()
    curves = DeletionInsertion(scorer, steps=steps, batch_size=batch_size)(
        images, heatmaps, targets
    )
    step, points = n_points((12, 12), steps)
    model = Residual().eval()
    for i in range(3):
        for j in range(2):
            for mode, found in (("del", curves.deletion), ("ins", curves.insertion)):
                expected, area = rise_curve(
                    model, images[i], heatmaps[i, j].numpy(), int(targets[i]), step, mode
                )
                assert found.shape[-1] == points == len(expected)
                np.testing.assert_allclose(found[i, j].numpy(), expected, atol=1e-5)
                assert float(area_under_curve(found)[i, j]) == pytest.approx(area, abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_equal_to_torchcam_where_the_choices_coincide():
    from torchcam.methods import GradCAM as Reference
    from torchcam.metrics import DeletionInsertionMetric

    model = Residual().eval()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    with Reference(model, "last_relu") as extractor:
        scores = model(images).softmax(1)  # its metric explains what logits_fn returns
        targets = scores.argmax(1)
        low = extractor(targets.tolist(), scores)[0].detach()
    # Its own map, so that rounding cannot reorder nearly equal pixels.
    heatmaps = nn.functional.interpolate(low[:, None], size=(16, 16), mode="bilinear")
    ours = DeletionInsertion(TorchScorer(model), steps=8, batch_size=5)(images, heatmaps, targets)
    references = {}
    # One baseline serves both its curves, so deletion and insertion take a metric each.
    for name, baseline in (("deletion_auc", None), ("insertion_auc", rise_blur)):
        with Reference(model, "last_relu") as extractor:
            metric = DeletionInsertionMetric(
                extractor, lambda x: x.softmax(1), steps=8, baseline=baseline
            )
            metric.update(images, targets.tolist())
            references[name] = metric.summary()[name]
    deletion, insertion = (
        float(area_under_curve(curve).mean()) for curve in (ours.deletion, ours.insertion)
    )
    assert deletion == pytest.approx(references["deletion_auc"], abs=1e-5)
    assert insertion == pytest.approx(references["insertion_auc"], abs=1e-5)


def test_the_reference_point_count_of_the_rise_evaluation():
    assert n_points((224, 224), 28) == (1792, 29)
    assert n_points((224, 224), 224) == (224, 225)
    assert n_points((5, 5), 3) == (9, 4)


def test_pixels_change_in_descending_order_and_ties_row_major():
    heatmap = torch.tensor([[0.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    assert step_of_pixel(heatmap, 1).tolist() == [[3, 0, 4], [2, 1, 5]]
    assert step_of_pixel(heatmap, 2).tolist() == [[1, 0, 2], [1, 0, 2]]


def test_only_the_order_matters():
    scorer, images, heatmaps, targets = setup()
    measure = DeletionInsertion(scorer, steps=9, batch_size=32)
    a = measure(images, heatmaps, targets)
    b = measure(images, (heatmaps * 3.0) ** 2 + 1, targets)
    assert torch.equal(a.deletion, b.deletion)
    assert torch.equal(a.insertion, b.insertion)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 1, 4, 0, 2]])
def test_a_batch_equals_its_images_one_by_one(order):
    scorer, images, heatmaps, targets = setup(n=5)
    whole = DeletionInsertion(scorer, steps=9, batch_size=32)(
        images[order], heatmaps[order], targets[order]
    )
    for place, i in enumerate(order):
        alone = DeletionInsertion(scorer, steps=9, batch_size=3)(
            images[i : i + 1], heatmaps[i : i + 1], targets[i : i + 1]
        )
        assert torch.allclose(whole.deletion[place], alone.deletion[0], atol=1e-5)
        assert torch.allclose(whole.insertion[place], alone.insertion[0], atol=1e-5)


def test_a_second_batch_reuses_no_pixel_of_the_first():
    scorer, images, heatmaps, targets = setup(n=4)
    measure = DeletionInsertion(scorer, steps=9, batch_size=16)
    measure(images[:2], heatmaps[:2], targets[:2])
    again = measure(images[2:], heatmaps[2:], targets[2:])
    fresh = DeletionInsertion(scorer, steps=9, batch_size=16)(images[2:], heatmaps[2:], targets[2:])
    assert torch.equal(again.deletion, fresh.deletion)
    assert torch.equal(again.insertion, fresh.insertion)


def test_rise_blur_is_nearly_a_box_not_a_gaussian():
    delta = torch.zeros(1, 3, 21, 21)
    delta[:, :, 10, 10] = 1
    kernel = rise_blur(delta)[0, 0, 5:16, 5:16]
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    assert float(kernel[5, 5] / kernel[0, 0]) == pytest.approx(1.14, abs=0.02)


def test_shared_points_are_scored_once():
    scorer, images, heatmaps, targets = setup(n=2, m=3)
    seen = 0

    class Counting:
        name, memory_format = "counting", torch.contiguous_format

        def __call__(self, batch):
            nonlocal seen
            seen += len(batch)
            return scorer(batch)

    DeletionInsertion(Counting(), steps=9, batch_size=7)(images, heatmaps, targets)
    inner = n_points((12, 12), 9)[1] - 2
    assert seen == 1 + 2 * 2 + 2 * 3 * 2 * inner  # baseline; clean and blurred; both curves inside


def test_planted_evidence_beats_random_end_to_end():
    class Brightness(nn.Module):
        def forward(self, x):
            evidence = x[:, :, 2:5, 2:5].mean((1, 2, 3)) * 4
            return torch.stack([evidence, torch.zeros_like(evidence)], 1)

    images = torch.zeros(1, 3, 12, 12)
    images[:, :, 2:5, 2:5] = 1
    good, noise = images[:, :1].clone(), torch.rand(1, 1, 12, 12)
    scorer = TorchScorer(Brightness())
    curves = DeletionInsertion(scorer, steps=16, batch_size=32)(
        images, torch.cat([good, noise], 1), torch.tensor([0])
    )
    deletion, insertion = (area_under_curve(c)[0] for c in (curves.deletion, curves.insertion))
    assert deletion[0] < deletion[1] - 0.05
    assert insertion[0] > insertion[1] + 0.05


def test_a_wrong_number_of_steps_is_refused():
    for steps in (0, 145):
        with pytest.raises(UserError, match=r"faithfulness.steps expects 1 to 144"):
            n_points((12, 12), steps)
