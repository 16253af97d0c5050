"""Deletion, energy, pointing and ROAD's imputation against Quantus, and where Quantus is wrong."""

import math

import numpy as np
import pytest
import torch
from perturber import Perturber
from toys import Residual

from gradcam_bench.faithfulness.curves import Options, area_under_curve
from gradcam_bench.faithfulness.road import impute
from gradcam_bench.faithfulness.scorers import TorchScorer
from gradcam_bench.localization.energy import energy_in_region
from gradcam_bench.localization.pointing import pointing_hit
from gradcam_bench.models.model import Preprocessing

quantus = pytest.importorskip(
    "quantus", reason="quantus is in the dev extra only: it brings an OpenCV that needs a display"
)
pytestmark = pytest.mark.filterwarnings("ignore")
SIZE, STEPS = 12, 12  # 12 pixels a step
IDS = ["a", "b", "c"]
PIXELS = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", SIZE)


def case():
    g = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, SIZE, SIZE, generator=g)
    heatmaps = torch.rand(3, 1, SIZE, SIZE, generator=g)  # no two values are equal
    return Residual().eval(), images, heatmaps, torch.tensor([1, 3, 0])


def our_deletion(model, images, heatmaps, targets, **options):
    perturber = Perturber(TorchScorer(model), PIXELS, Options(steps=STEPS, **options))
    return perturber.curves(images, heatmaps, targets, IDS).deletion[:, 0]


def pixel_flipping(model, images, heatmaps, targets, *, softmax=True, baseline=0.0, **options):
    # A step counts values, not pixels: three times ours takes whole pixels where none are tied.
    metric = quantus.PixelFlipping(
        features_in_step=3 * SIZE * SIZE // STEPS,
        perturb_baseline=baseline,
        normalise=False,
        disable_warnings=True,
        **options,
    )
    arrays = [tensor.numpy() for tensor in (images, targets, heatmaps)]
    return np.array(metric(model, *arrays, softmax=softmax, channel_first=True))


def masks():
    found = np.zeros((3, 1, SIZE, SIZE), bool)
    found[0, 0, 2:6, 3:9] = found[1, 0, :4] = True
    return found  # the third is empty


def localisation(metric, heatmaps, **options):
    model, images, _, targets = case()
    scorer = metric(normalise=False, abs=False, disable_warnings=True, **options)
    arrays = [tensor.numpy() for tensor in (images, targets, heatmaps)]
    return scorer(model, *arrays, masks(), channel_first=True)


# Where the choices coincide


def test_the_deletion_curve_is_pixel_flipping_after_its_missing_first_point():
    found, reference = our_deletion(*case()), pixel_flipping(*case())
    assert found.shape[1] == reference.shape[1] + 1  # Quantus leaves the clean image out
    np.testing.assert_allclose(found[:, 1:], reference, atol=1e-6)
    assert (found.std(1) > 1e-3).all()


def test_the_curve_of_logits_is_pixel_flipping_without_softmax():
    found = our_deletion(*case(), score="logit")
    np.testing.assert_allclose(found[:, 1:], pixel_flipping(*case(), softmax=False), atol=1e-5)


def test_energy_in_a_mask_is_relevance_mass_accuracy():
    _, _, heatmaps, _ = case()
    reference = localisation(quantus.RelevanceMassAccuracy, heatmaps)
    for heatmap, mask, expected in zip(
        heatmaps[:, 0].numpy(), masks()[:, 0], reference, strict=True
    ):
        assert energy_in_region(heatmap, mask) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert math.isnan(reference[2])


def test_energy_in_a_mask_is_attribution_localisation():
    _, _, heatmaps, _ = case()
    reference = localisation(quantus.AttributionLocalisation, heatmaps)
    for heatmap, mask, expected in zip(
        heatmaps[:, 0].numpy(), masks()[:, 0], reference, strict=True
    ):
        assert energy_in_region(heatmap, mask) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_pointing_without_tolerance_is_its_pointing_game():
    boxes = [np.array([[3.0, 2, 9, 6]]), np.array([[0.0, 0, 12, 4]])]
    hits = []
    for seed in range(8):
        heatmaps = torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
        reference = localisation(quantus.PointingGame, heatmaps)
        for i in range(2):
            hit = pointing_hit(heatmaps[i, 0].numpy(), boxes[i], tolerance=0.5)
            assert hit == reference[i]
            hits.append(hit)
    assert 0 < sum(hits) < len(hits)


def test_imputed_images_are_those_of_its_road():
    from quantus.functions.perturb_func import noisy_linear_imputation

    rng = np.random.default_rng(0)
    image, removed = rng.standard_normal((3, 9, 11)), rng.random((9, 11)) < 0.5
    reference = noisy_linear_imputation(image, np.flatnonzero(removed), noise=0.0)
    np.testing.assert_allclose(impute(image, removed), reference, atol=1e-9)


# Where it is wrong, and why no number of ours is compared there


def test_quantus_takes_tied_pixels_apart_channel_by_channel():
    # It repeats the map over the channels and sorts 3 H W values with an unstable sort, so the
    # zeros that the ReLU leaves lose one colour at a time.
    model, images, heatmaps, targets = case()
    tied = torch.where(heatmaps < 0.4, 0.0, heatmaps)
    found = our_deletion(model, images, tied, targets)[:, 1:].numpy()
    reference = pixel_flipping(model, images, tied, targets)
    apart = np.abs(found - reference)
    first_tied = (tied > 0).sum((1, 2, 3)).numpy() // (SIZE * SIZE // STEPS)
    for i, step in enumerate(first_tied):
        assert apart[i, :step].max() < 1e-6  # equal as long as no tie is touched
    assert apart.max() > 1e-3


def test_quantus_black_is_each_images_minimum():
    # Images are normalised: black is (0 - mean) / std, a value per channel (our "black").
    model, images, heatmaps, targets = case()
    reference = pixel_flipping(model, images, heatmaps, targets, baseline="black")[:, -1]
    darkest = images.amin((1, 2, 3), keepdim=True).expand_as(images)
    with torch.no_grad():
        expected = model(darkest).softmax(1).gather(1, targets[:, None])[:, 0]
    np.testing.assert_allclose(reference, expected, atol=1e-6)
    ours = our_deletion(model, images, heatmaps, targets, deletion_baseline="black")[:, -1]
    assert (np.abs(ours.numpy() - reference) > 1e-3).any()


def test_quantus_area_is_a_sum_over_steps_that_leaves_the_clean_image_out(monkeypatch):
    # Its np.trapz left numpy 2.4, so the area needs it back. Without division by the steps, and
    # without the clean image, areas of different step counts cannot be compared.
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    reference = pixel_flipping(*case(), return_auc_per_sample=True)
    curve = our_deletion(*case())
    ours = area_under_curve(curve)
    first = (curve[:, 0] + curve[:, 1]) / 2  # the trapezoid that it lacks
    np.testing.assert_allclose(reference, ours * STEPS - first, rtol=1e-5)
    assert (reference > 1).any()


def test_quantus_points_right_where_there_is_nothing_to_point_at():
    # Its NaN goes into an array of bool, and NaN is True there.
    _, _, heatmaps, _ = case()
    assert bool(localisation(quantus.PointingGame, heatmaps)[2]) is True
    assert math.isnan(pointing_hit(heatmaps[2, 0].numpy(), np.zeros((0, 4))))


def test_quantus_sums_negative_relevance_and_leaves_the_range():
    _, _, heatmaps, _ = case()
    signed = torch.where(torch.from_numpy(masks()), heatmaps, -heatmaps / 2)
    reference = localisation(quantus.RelevanceMassAccuracy, signed)
    for i in range(2):
        assert not 0 <= reference[i] <= 1
        assert energy_in_region(signed[i, 0].numpy(), masks()[i, 0]) == 1


def test_quantus_dims_the_energy_of_small_maps_by_an_epsilon():
    _, _, heatmaps, _ = case()
    small = heatmaps * 1e-11
    reference = localisation(quantus.AttributionLocalisation, small)[0]
    ours = energy_in_region(small[0, 0].numpy(), masks()[0, 0])
    assert ours == pytest.approx(energy_in_region(heatmaps[0, 0].numpy(), masks()[0, 0]), rel=1e-4)
    assert reference < 0.8 * ours


def test_quantus_road_runs_out_of_range_on_colour_images():
    # Places among 3 H W values index an image of H W pixels; what it counts is accuracy besides.
    model, images, heatmaps, targets = case()
    metric = quantus.ROAD(percentages=[40], normalise=False, disable_warnings=True)
    arrays = [tensor.numpy() for tensor in (images, targets, heatmaps)]
    with pytest.raises(IndexError, match="out of bounds for axis 0 with size 144"):
        metric(model, *arrays, channel_first=True)
