"""Where a package differs from the paper it implements: the reason that its number is not ours."""

import math

import numpy as np
import pytest
import torch
from perturber import Perturber
from torch import nn
from toys import Linear1x1, Residual

from gradcam_bench.faithfulness.baselines import pixel_rank
from gradcam_bench.faithfulness.scorers import TorchScorer
from gradcam_bench.models.model import Preprocessing

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = 12
PIXELS = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", SIZE)


def random_images(n=6):
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4))


def torchcam_maps_and_drop(model, layer, images, targets):
    from torchcam.methods import GradCAM as Reference
    from torchcam.metrics import ClassificationMetric

    with Reference(model, layer) as extractor:
        low = extractor(targets, model(images).softmax(1))[0].detach()
    with Reference(model, layer) as extractor:
        metric = ClassificationMetric(extractor, lambda logits: logits.softmax(1))
        metric.update(images, targets)
        return low, metric.summary()["avg_drop"]


def test_torchcam_normalises_before_it_upsamples_so_a_coarse_map_dims_the_image():
    model, images = Residual().eval(), random_images()
    targets = model(images).argmax(1)
    low, reference = torchcam_maps_and_drop(model, "last_relu", images, targets.tolist())
    seen = nn.functional.interpolate(low[:, None], size=(SIZE, SIZE), mode="bilinear")
    assert (seen.amax((1, 2, 3)) < 0.99).any()  # no pixel is shown as it is
    with torch.no_grad():
        clean, dimmed = (
            model(x).softmax(1).gather(1, targets[:, None])[:, 0] for x in (images, seen * images)
        )
    assert reference == pytest.approx(float(((clean - dimmed).relu() / clean).mean()), abs=1e-6)
    ours = Perturber(TorchScorer(model), PIXELS).confidence(images, seen, targets)["average_drop"]
    assert abs(float(ours.mean()) - reference) > 1e-3


def test_torchcam_counts_a_drop_from_probability_zero_as_none():
    model, images = Linear1x1().eval(), random_images() * 1e4
    targets = model(images).argmin(1)  # of probability exactly 0
    low, reference = torchcam_maps_and_drop(model, "relu", images, targets.tolist())
    assert reference == 0  # 0 / (0 + 1e-7)
    found = Perturber(TorchScorer(model), PIXELS).confidence(images, low[:, None], targets)
    assert torch.isnan(found["average_drop"]).all()


def test_grad_cam_packages_drop_is_not_relative_to_the_clean_score():
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    model, images = Residual().eval(), random_images()
    maps = torch.rand(6, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    maps = maps / maps.amax((1, 2), keepdim=True)
    classes = model(images).argmax(1)
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in classes]
    found = Perturber(TorchScorer(model), PIXELS).confidence(images, maps[:, None], classes)
    arguments = (images, maps[:, None].numpy(), targets, model)
    clean = model(images).softmax(1).gather(1, classes[:, None])[:, 0].detach()
    drop = found["average_drop"][:, 0]
    np.testing.assert_allclose(DropInConfidence()(*arguments), drop * clean, atol=1e-6)
    assert (drop > 0).any()
    increase = IncreaseInConfidence()(*arguments)
    assert increase.tolist() == found["increase_in_confidence"][:, 0].tolist()


@pytest.mark.parametrize("share", [0.8, 0.6])
def test_grad_cam_packages_road_removes_everything_where_a_percentile_is_tied(share):
    # It keeps what lies under a percentile of the map: under 0, after a ReLU, lies nothing.
    from pytorch_grad_cam.metrics.perturbation_confidence import RemoveMostRelevantFirst

    heatmap = torch.rand(10, 10, generator=torch.Generator().manual_seed(0))
    heatmap[:5] = 0
    remove = RemoveMostRelevantFirst(round(100 * (1 - share)), lambda image, keep: keep)
    assert float(remove(torch.zeros(3, 10, 10), heatmap).mean()) == 0
    rank = pixel_rank(heatmap[None])[0]
    assert float((rank >= round(share * 100)).float().mean()) == pytest.approx(1 - share)


def test_one_minus_a_map_turns_ties_around_for_grad_cam_packages_road():
    # Its least relevant first asks the same of 1 - map: half the pixels go where 20 % should.
    from pytorch_grad_cam.metrics.perturbation_confidence import RemoveLeastRelevantFirst

    heatmap = torch.rand(10, 10, generator=torch.Generator().manual_seed(0))
    heatmap[:5] = 0
    remove = RemoveLeastRelevantFirst(80, lambda image, keep: keep)
    removed = 1 - float(remove(torch.zeros(3, 10, 10), heatmap).mean())
    assert removed == pytest.approx(0.5)
    assert not math.isclose(removed, 0.2)


def grad_cam_plus_plus_inputs(name):
    """Return a trained network's module, images, predictions, A and dy/dA, at its default layer."""
    from gradcam_bench import GradCAM
    from gradcam_bench.data.geometry import Geometry
    from gradcam_bench.data.shapes import Shapes
    from gradcam_bench.models.zoo import zoo_model
    from gradcam_bench.run.batches import first_images

    model = zoo_model(name=name)
    seen = first_images(Shapes(length=8), Geometry(size=model.preprocessing.size), count=8)
    x = model.preprocessing.normalize(seen)
    cam = GradCAM(model.network, model.default_layer)
    classes = cam.forward(x).argmax(1)
    cam.backward(classes)
    return model, x, classes.tolist(), cam.activations[0], cam.gradients[0]


def test_torchcams_grad_cam_plus_plus_never_divides():
    # alpha[idx][mask].div_(...) divides a copy: the weights stay sum(g^2 relu(g)).
    from torchcam.methods import GradCAMpp

    from gradcam_bench.cam.methods import grad_cam_plus_plus
    from gradcam_bench.cam.upsampling import normalize_min_max

    model, x, classes, A, g = grad_cam_plus_plus_inputs("tiny_vgg")
    model.network.requires_grad_(True)
    with GradCAMpp(model.network, model.default_layer) as extractor:
        reference = extractor(classes, model.network(x))[0].detach()
    undivided = torch.einsum("nk,nkhw->nhw", (g**2 * g.relu()).sum((2, 3)), A)
    assert torch.allclose(normalize_min_max(undivided.relu()), reference, atol=1e-4)
    ours = normalize_min_max(grad_cam_plus_plus(A, g).relu())
    assert (ours - reference).abs().max() > 0.1


def test_grad_cam_packages_epsilon_moves_grad_cam_plus_plus():
    # 1e-6 beside 2 g^2, with gradients around 1e-3.
    from pytorch_grad_cam import GradCAMPlusPlus
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from gradcam_bench.cam.methods import grad_cam_plus_plus
    from gradcam_bench.cam.upsampling import normalize_min_max

    model, x, classes, A, g = grad_cam_plus_plus_inputs("tiny_inception")
    module = model.network.get_submodule(model.default_layer)
    with GradCAMPlusPlus(model.network, [module]) as package:
        reference = package(x.clone(), [ClassifierOutputTarget(c) for c in classes])

    def shown(low):
        low = normalize_min_max(low.relu())[:, None]
        up = nn.functional.interpolate(low, size=x.shape[-2:], mode="bilinear")
        return normalize_min_max(up[:, 0]).numpy()

    a = g**2 / (2 * g**2 + A.sum((2, 3), keepdim=True) * g**3 + 1e-6)
    with_epsilon = torch.einsum("nk,nkhw->nhw", (a * g.relu()).sum((2, 3)), A)
    np.testing.assert_allclose(shown(with_epsilon), reference, atol=1e-4)
    assert 0.01 < np.abs(shown(grad_cam_plus_plus(A, g)) - reference).max() < 0.07
