import math

import numpy as np
import pytest
import torch
from perturber import Perturber
from scipy import ndimage
from torch import nn
from torch.nn import functional as F
from toys import Linear1x1, Residual

from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness.baselines import (
    baseline,
    n_points,
    pixel_rank,
    progressively,
    rise_blur,
)
from gradcam_bench.faithfulness.curves import Options, area_under_curve
from gradcam_bench.faithfulness.road import NEIGHBOURS, impute
from gradcam_bench.faithfulness.scorers import TorchScorer
from gradcam_bench.models.model import Preprocessing


def setup(n=3, m=2, size=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, size, size, generator=g)
    heatmaps = torch.randn(n, m, size, size, generator=g).relu()
    return TorchScorer(Residual().eval()), images, heatmaps, torch.tensor([1, 3, 0, 2, 1])[:n]


IDS = ["a", "b", "c", "d", "e"]
PIXELS = Preprocessing(12, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", 12)


def curves(scorer, images, heatmaps, targets, *, batch_size=32, ids=IDS, seed=0, **options):
    perturber = Perturber(scorer, PIXELS, Options(**options), batch_size=batch_size, seed=seed)
    return perturber.curves(images, heatmaps, targets, ids[: len(images)])


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
    found = curves(scorer, images, heatmaps, targets, steps=steps, batch_size=batch_size)
    step, points = n_points((12, 12), steps)
    model = Residual().eval()
    for i in range(3):
        for j in range(2):
            for mode, curve in (("del", found.deletion), ("ins", found.insertion)):
                expected, area = rise_curve(
                    model, images[i], heatmaps[i, j].numpy(), int(targets[i]), step, mode
                )
                assert curve.shape[-1] == points == len(expected)
                np.testing.assert_allclose(curve[i, j].numpy(), expected, atol=1e-5)
                assert float(area_under_curve(curve)[i, j]) == pytest.approx(area, abs=1e-5)


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
    ours = curves(TorchScorer(model), images, heatmaps, targets, steps=8, batch_size=5)
    references = {}
    # One baseline serves both its curves, so deletion and insertion take a metric each.
    for name, start in (("deletion_auc", None), ("insertion_auc", rise_blur)):
        with Reference(model, "last_relu") as extractor:
            metric = DeletionInsertionMetric(
                extractor, lambda x: x.softmax(1), steps=8, baseline=start
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


def test_pixels_go_in_descending_order_and_ties_by_the_named_rule():
    heatmap = torch.tensor([[[0.0, 2.0, 0.0], [1.0, 2.0, 0.0]]])
    assert pixel_rank(heatmap).tolist() == [[[3, 0, 4], [2, 1, 5]]]
    assert pixel_rank(heatmap, ties="reversed").tolist() == [[[5, 1, 4], [2, 0, 3]]]
    drawn = pixel_rank(heatmap.expand(2, -1, -1), ties="random", image_ids=["a", "b"], seed=1)
    assert drawn[:, 1, 0].tolist() == [2, 2]
    assert sorted(drawn[0].flatten().tolist()) == list(range(6))
    again = pixel_rank(heatmap, ties="random", image_ids=["b"], seed=1)
    assert torch.equal(again[0], drawn[1])


def test_random_ties_depend_on_the_image_alone_for_all_its_maps():
    flat = torch.zeros(2, 3, 5, 5)
    rank = pixel_rank(flat, ties="random", image_ids=["a", "b"], seed=0)
    assert torch.equal(rank[0, 0], rank[0, 2])
    assert not torch.equal(rank[0, 0], rank[1, 0])


def test_only_the_order_matters():
    scorer, images, heatmaps, targets = setup()
    a = curves(scorer, images, heatmaps, targets, steps=9)
    b = curves(scorer, images, (heatmaps * 3.0) ** 2 + 1, targets, steps=9)
    assert torch.equal(a.deletion, b.deletion)
    assert torch.equal(a.insertion, b.insertion)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 1, 4, 0, 2]])
@pytest.mark.parametrize(
    "options", [{}, {"ties": "random", "deletion_baseline": "noise", "insertion_baseline": "mean"}]
)
def test_a_batch_equals_its_images_one_by_one(order, options):
    scorer, images, heatmaps, targets = setup(n=5)
    ids = [IDS[i] for i in order]
    whole = curves(
        scorer, images[order], heatmaps[order], targets[order], steps=9, ids=ids, **options
    )
    for place, i in enumerate(order):
        one = slice(i, i + 1)
        alone = curves(
            scorer, images[one], heatmaps[one], targets[one], ids=[IDS[i]], steps=9, batch_size=3,
            **options,
        )  # fmt: skip
        assert torch.allclose(whole.deletion[place], alone.deletion[0], atol=1e-5)
        assert torch.allclose(whole.insertion[place], alone.insertion[0], atol=1e-5)


def test_a_second_batch_reuses_no_pixel_of_the_first():
    scorer, images, heatmaps, targets = setup(n=4)
    perturber = Perturber(scorer, PIXELS, Options(steps=9), batch_size=16)
    perturber.curves(images[:2], heatmaps[:2], targets[:2], ["a", "b"])
    again = perturber.curves(images[2:], heatmaps[2:], targets[2:], ["c", "d"])
    fresh = curves(scorer, images[2:], heatmaps[2:], targets[2:], steps=9, batch_size=16)
    assert torch.equal(again.deletion, fresh.deletion)
    assert torch.equal(again.insertion, fresh.insertion)


def test_each_baseline_is_what_its_name_says():
    images = PIXELS.normalize(torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8))

    def make(name, ids=("a", "b"), x=images):
        return baseline(name, x, preprocessing=PIXELS, image_ids=list(ids), seed=0)

    mean, std = (torch.tensor(v)[None, :, None, None] for v in (PIXELS.mean, PIXELS.std))
    assert torch.equal(make("zeros"), torch.zeros_like(images))
    assert torch.allclose(make("black"), (0 - mean / std).expand_as(images), atol=1e-6)
    assert torch.allclose(make("mean")[1, 2], images[1, 2].mean().expand(12, 12))
    assert torch.equal(make("blur"), rise_blur(images))
    noise = make("noise") * std + mean
    assert noise.min() >= -1e-6
    assert noise.max() <= 1 + 1e-6
    assert torch.equal(make("noise")[1:], make("noise", ids=["b"], x=images[1:]))
    assert not torch.equal(make("noise")[0], make("noise")[1])


def test_logit_curves_end_at_the_logits():
    scorer, images, heatmaps, targets = setup()
    found = curves(scorer, images, heatmaps, targets, steps=9, score="logit")
    expected = scorer(images).gather(1, targets[:, None])[:, 0]
    assert torch.allclose(found.deletion[:, 0, 0], expected, atol=1e-5)
    assert torch.allclose(found.insertion[:, 1, -1], expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_average_drop_and_increase_equal_torchcam():
    from torchcam.methods import GradCAM as Reference
    from torchcam.metrics import ClassificationMetric

    # A layer at full resolution: torchcam normalises before upsampling, we after it.
    model = Linear1x1().eval()
    images = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(4))
    with Reference(model, "relu") as extractor:
        scores = model(images).softmax(1)
        targets = scores.argmax(1)
        heatmaps = extractor(targets.tolist(), scores)[0].detach()[:, None]
    with Reference(model, "relu") as extractor:
        metric = ClassificationMetric(extractor, lambda x: x.softmax(1))
        metric.update(images, targets.tolist())
        reference = metric.summary()
    found = Perturber(TorchScorer(model), PIXELS).confidence(images, heatmaps, targets)
    drop, increase = found["average_drop"].mean(), found["increase_in_confidence"].mean()
    assert float(drop) == pytest.approx(reference["avg_drop"], abs=1e-5)
    assert float(increase) == reference["conf_increase"]
    assert 0 < float(increase) < 1
    assert float(drop) > 0


def test_confidence_is_undefined_where_the_formula_is():
    class Sure(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum((1, 2, 3)) * 1e4, torch.zeros(len(x))], 1)

    images = torch.stack([torch.ones(3, 12, 12), -torch.ones(3, 12, 12)])
    found = Perturber(TorchScorer(Sure().eval()), PIXELS).confidence(
        images, torch.ones(2, 1, 12, 12), torch.tensor([0, 0])
    )
    assert math.isnan(found["average_gain"][0])  # Y = 1
    assert math.isnan(found["average_drop"][1])  # Y = 0
    assert found["average_drop"][0] == 0
    assert found["increase_in_confidence"].flatten().tolist() == [0, 0]
    assert torch.isfinite(found["log_odds_drop"]).all()


def dense_imputation(image, removed):
    """Solve ROAD's system as it is written, pixel by pixel, densely."""
    c, h, w = image.shape
    missing = [(y, x) for y in range(h) for x in range(w) if removed[y, x]]
    place = {pixel: i for i, pixel in enumerate(missing)}
    A, b = np.zeros((len(missing), len(missing))), np.zeros((len(missing), c))
    for (y, x), i in place.items():
        for dy, dx, weight in NEIGHBOURS:
            other = (y + dy, x + dx)
            if not (0 <= other[0] < h and 0 <= other[1] < w):
                continue
            A[i, i] += weight
            if other in place:
                A[i, place[other]] -= weight
            else:
                b[i] += weight * image[:, other[0], other[1]]
    filled = image.astype(float).copy()
    for (y, x), value in zip(missing, np.linalg.solve(A, b), strict=True):
        filled[:, y, x] = value
    return filled


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_imputed_images_equal_a_dense_solve(share):
    rng = np.random.default_rng(0)
    image, removed = rng.standard_normal((3, 9, 11)), rng.random((9, 11)) < share
    np.testing.assert_allclose(impute(image, removed), dense_imputation(image, removed), atol=1e-9)
    removed = np.zeros((9, 11), bool)
    removed[:5] = True  # a block at the border
    np.testing.assert_allclose(impute(image, removed), dense_imputation(image, removed), atol=1e-9)


def test_imputation_keeps_what_is_there_and_constants():
    removed = np.random.default_rng(0).random((8, 8)) < 0.6
    image = np.random.default_rng(1).standard_normal((3, 8, 8))
    assert (impute(image, removed)[:, ~removed] == image[:, ~removed]).all()
    np.testing.assert_allclose(impute(np.full((3, 8, 8), 2.0), removed), 2.0)
    assert (impute(image, np.zeros((8, 8), bool)) == image).all()


@pytest.mark.filterwarnings("ignore")
def test_imputation_equals_grad_cam_packages():
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    rng = np.random.default_rng(0)
    image, removed = rng.standard_normal((3, 12, 10)), rng.random((12, 10)) < 0.5
    keep = torch.from_numpy((~removed).astype(np.float32))
    reference = NoisyLinearImputer(noise=0.0)(torch.from_numpy(image).float(), keep)
    np.testing.assert_allclose(impute(image, removed), reference.numpy(), atol=1e-5)


def test_road_rewards_planted_evidence_and_is_the_same_image_by_image():
    class Contrast(nn.Module):
        def forward(self, x):  # sees a checkerboard patch, which imputation wipes out
            evidence = x[:, :, 2:6, 2:6].std((1, 2, 3)) * 8
            return torch.stack([evidence, torch.full_like(evidence, 2)], 1)

    board = torch.zeros(2, 3, 12, 12)
    board[:, :, 2:6, 2:6] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)
    right = torch.zeros(2, 1, 12, 12)
    right[:, :, 2:6, 2:6] = 1
    perturber = Perturber(TorchScorer(Contrast().eval()), PIXELS)
    targets = torch.tensor([0, 0])
    found = perturber.road(board, torch.cat([right, -right], 1), targets, ["a", "b"])
    assert (found["road"][:, 0] > 0.1).all()
    assert (found["road"][:, 1] < -0.1).all()
    alone = perturber.road(board[1:], torch.cat([right, -right], 1)[1:], targets[1:], ["b"])
    assert torch.allclose(found["road"][1], alone["road"][0], atol=1e-5)


def test_rise_blur_is_nearly_a_box_not_a_gaussian():
    delta = torch.zeros(1, 3, 21, 21)
    delta[:, :, 10, 10] = 1
    kernel = rise_blur(delta)[0, 0, 5:16, 5:16]
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    assert float(kernel[5, 5] / kernel[0, 0]) == pytest.approx(1.14, abs=0.02)


def test_rise_blur_equals_a_convolution_padded_with_zeros():
    delta = np.zeros((11, 11))
    delta[5, 5] = 1
    kernel = torch.from_numpy(ndimage.gaussian_filter(delta, 5.0)).float()
    images = torch.randn(2, 3, 30, 17, generator=torch.Generator().manual_seed(0))
    expected = F.conv2d(images, kernel.expand(3, 1, -1, -1), padding=5, groups=3)
    torch.testing.assert_close(rise_blur(images), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_replaced_bit_by_bit(memory_format):
    generator = torch.Generator().manual_seed(0)
    old, new = torch.randn(2, 3, 6, 5, generator=generator)
    new[0, 0, 0], old[0, 1, 0] = math.nan, -0.0
    changes = torch.randint(0, 9, (6, 5), generator=generator, dtype=torch.int32)
    ks = torch.arange(0, 10, dtype=torch.int32)
    out = torch.empty(10, 3, 6, 5).contiguous(memory_format=memory_format)
    progressively(old, new, changes, ks, out)
    expected = torch.where((changes < ks[:, None, None])[:, None], new, old)
    assert torch.equal(out.view(torch.int32), expected.view(torch.int32))


def test_shared_points_are_scored_once():
    scorer, images, heatmaps, targets = setup(n=2, m=3)
    seen = 0

    class Counting:
        name, memory_format = "counting", torch.contiguous_format

        def __call__(self, batch):
            nonlocal seen
            seen += len(batch)
            return scorer(batch)

    curves(Counting(), images, heatmaps, targets, steps=9, batch_size=7)
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
    scorer = TorchScorer(Brightness().eval())
    found = curves(scorer, images, torch.cat([good, noise], 1), torch.tensor([0]), steps=16)
    deletion, insertion = (area_under_curve(c)[0] for c in (found.deletion, found.insertion))
    assert deletion[0] < deletion[1] - 0.05
    assert insertion[0] > insertion[1] + 0.05


def test_a_wrong_number_of_steps_is_refused():
    for steps in (0, 145):
        with pytest.raises(UserError, match=r"faithfulness.steps expects 1 to 144"):
            n_points((12, 12), steps)


@pytest.mark.parametrize(
    "options",
    [{"ties": "any"}, {"deletion_baseline": "white"}, {"insertion_baseline": ""}, {"score": "p"}],
)
def test_unknown_choices_are_refused_with_the_known_ones(options):
    (key,) = options
    with pytest.raises(UserError, match=f"faithfulness.{key} expects one of"):
        curves(*setup(), **options)
