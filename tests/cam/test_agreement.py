"""Maps against captum, grad-cam and torchcam on the networks people use."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradcam_bench import GradCAM
from gradcam_bench.cam.methods import METHODS, grad_cam
from gradcam_bench.cam.upsampling import normalize_min_max
from gradcam_bench.models.efficientnet_lite import efficientnet_lite
from gradcam_bench.models.torchvision_models import torchvision_model

LAYERS = {
    # before in-place layers too: a convolution whose ReLU overwrites it, a batch norm before +=
    "vgg16": ["features.14", "features.28", "features.29"],
    "resnet50": ["layer2", "layer3.5.conv3", "layer4.2.bn3", "layer4"],
    "inception_v3": ["Mixed_5d", "Mixed_6e", "Mixed_7c"],
    "densenet121": ["features.denseblock3", "features.relu5"],
    "efficientnet_lite0": ["blocks.3", "blocks.6", "bn2"],
}
# Captum hands the network a clone; grad-cam and torchcam read these after an in-place consumer
# has overwritten them (normalised maps wrong by up to 1.0), so only captum can be compared there.
OVERWRITTEN = {"features.14", "features.28", "layer4.2.bn3"}


def build(name):
    if name == "efficientnet_lite0":
        return efficientnet_lite(name=name)
    model = torchvision_model(name=name, weights=None)
    # torchvision's random weights let signals die out; the packages' epsilons (1e-8 beside the
    # range of the map, 1e-6 in Grad-CAM++'s denominator) would then dim their maps.
    g = torch.Generator().manual_seed(0)
    for module in model.network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=g)
    with torch.no_grad():
        list(model.network.parameters())[-2].mul_(1e3)
    return model


@pytest.fixture(scope="module", params=LAYERS)
def case(request):
    model = build(request.param)
    size = 139 if request.param == "inception_v3" else 96
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return model, LAYERS[request.param], x


def test_raw_maps_equal_captum_before_in_place_layers_too(case):
    from captum.attr import LayerGradCam

    model, layers, x = case
    cam = GradCAM(model.network, layers)
    cam.forward(x)
    cam.backward([3, 7])
    for layer, A, g in zip(layers, cam.activations, cam.gradients, strict=True):
        target = torch.tensor([3, 7])
        module = model.network.get_submodule(layer)
        reference = LayerGradCam(model.network, module).attribute(x, target=target)
        found = grad_cam(A, g)
        scale = reference.abs().amax((1, 2, 3), keepdim=True)[:, 0]
        assert scale.min() > 0
        assert torch.allclose(found / scale, reference[:, 0] / scale, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_normalised_maps_equal_grad_cam_package(case):
    from pytorch_grad_cam import GradCAM as Reference
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, layers, x = case
    for layer in [layer for layer in layers if layer not in OVERWRITTEN]:
        module = model.network.get_submodule(layer)
        with Reference(model.network, [module]) as reference_cam:
            reference = reference_cam(x.clone(), [ClassifierOutputTarget(c) for c in (3, 7)])
        cam = GradCAM(model.network, layer)
        cam.forward(x)
        cam.backward([3, 7])
        # It divides by the range of the low-resolution map, then resizes with cv2 and again.
        low = normalize_min_max(grad_cam(cam.activations[0], cam.gradients[0]).relu())
        up = F.interpolate(low[:, None], size=x.shape[-2:], mode="bilinear")[:, 0]
        assert np.abs(normalize_min_max(up).numpy() - reference).max() < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_normalised_maps_equal_torchcam_package(case):
    from torchcam.methods import GradCAM as Reference

    model, layers, x = case
    for layer in [layer for layer in layers if layer not in OVERWRITTEN]:
        model.network.requires_grad_(True)
        with Reference(model.network, layer) as extractor:
            scores = model.network(x)
            reference = extractor([3, 7], scores)[0].detach()
        assert reference.max() > 0.99
        cam = GradCAM(model.network, layer)
        cam.forward(x)
        cam.backward([3, 7])
        found = normalize_min_max(grad_cam(cam.activations[0], cam.gradients[0]).relu())
        assert torch.allclose(found, reference, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["grad_cam_plus_plus", "hires_cam", "xgrad_cam", "layer_cam"])
def test_the_family_equals_grad_cam_package(method):
    import pytorch_grad_cam as package
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    names = {
        "grad_cam_plus_plus": "GradCAMPlusPlus",
        "hires_cam": "HiResCAM",
        "xgrad_cam": "XGradCAM",
        "layer_cam": "LayerCAM",
    }
    model = build("resnet18")
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    layer = "layer3"
    with getattr(package, names[method])(model.network, [model.network.layer3]) as reference_cam:
        reference = reference_cam(x.clone(), [ClassifierOutputTarget(c) for c in (3, 7)])
    cam = GradCAM(model.network, layer)
    cam.forward(x)
    cam.backward([3, 7])
    low = normalize_min_max(METHODS[method](cam.activations[0], cam.gradients[0]).relu())
    up = F.interpolate(low[:, None], size=x.shape[-2:], mode="bilinear")[:, 0]
    assert np.abs(normalize_min_max(up).numpy() - reference).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "layer", "classifier"),
    [
        ("resnet18", "layer4", "fc"),
        ("densenet121", "features.relu5", "classifier"),
        ("inception_v3", "Mixed_7c", "fc"),
        ("efficientnet_lite0", "bn2", "classifier"),
    ],
)
def test_cam_from_the_classifiers_weights_is_grad_cam_at_the_last_layer(name, layer, classifier):
    # Zhou et al. 2016: M_c = sum_k w_kc A_k; Grad-CAM's alpha_k is w_kc / (h w) behind GAP.
    model = build(name)
    size = 139 if name == "inception_v3" else 96
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    cam = GradCAM(model.network, layer)
    cam.forward(x)
    cam.backward([5, 9])
    weight = model.network.get_submodule(classifier).weight.detach()
    assert isinstance(model.network.get_submodule(classifier), nn.Linear)
    A = cam.activations[0]
    expected = torch.einsum("nk,nkhw->nhw", weight[[5, 9]], A) / (A.shape[2] * A.shape[3])
    found = grad_cam(A, cam.gradients[0])
    assert torch.allclose(found / expected.abs().max(), expected / expected.abs().max(), atol=1e-5)
    hires = METHODS["hires_cam"](A, cam.gradients[0])
    assert torch.allclose(hires / expected.abs().max(), found / expected.abs().max(), atol=1e-5)
