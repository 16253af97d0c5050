"""How the packages that benchmark_speed.py compares with are used, each the way its users do."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradcam_bench.cam.upsampling import normalize_by_max, upsample
from gradcam_bench.faithfulness.baselines import n_points, rise_blur

Calls = dict[str, Callable[[], object]]
STEPS = 28  # 29 points of 1792 pixels, as RISE's evaluation has them
QUANTUS_STEPS = 21


def forward(network: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(x)


def maps(
    network: nn.Module, layer: str, x: Tensor, classes: Tensor
) -> dict[str, Callable[[], object]]:
    """Return a Grad-CAM in [0, 1] at the input's size, as each package's users make it."""
    from captum.attr import LayerAttribution, LayerGradCam
    from pytorch_grad_cam import GradCAM as PytorchGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchcam.methods import GradCAM as TorchcamGradCAM

    module, size = network.get_submodule(layer), (x.shape[-2], x.shape[-1])

    def with_captum() -> object:
        raw = LayerGradCam(network, module).attribute(x, classes, relu_attributions=True)
        return normalize_by_max(LayerAttribution.interpolate(raw, size, "bilinear")[:, 0].detach())

    def with_grad_cam() -> object:
        with PytorchGradCAM(network, [module]) as cam:
            return cam(x, [ClassifierOutputTarget(int(c)) for c in classes])

    def with_torchcam() -> object:
        network.requires_grad_(True)
        with TorchcamGradCAM(network, layer) as cam:
            found = cam(classes.tolist(), network(x))[0]
        return upsample(found.detach(), size)

    return {"grad-cam": with_grad_cam, "captum": with_captum, "torchcam": with_torchcam}


def rise(network: nn.Module, x: Tensor, low: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return RISE's deletion and insertion curves, (N, 29) each, the way its evaluation goes.

    Step by step, the whole batch in eager PyTorch, pixels copied in NumPy between two forwards.
    """
    n, size = len(x), x.shape[-1] * x.shape[-2]
    step, points = n_points((x.shape[-2], x.shape[-1]), STEPS)
    order = np.argsort(-low.flatten(1).cpu().numpy(), axis=1, kind="stable")
    curves = []
    for start, finish in ((x, torch.zeros_like(x)), (rise_blur(x), x)):
        now, target = start.cpu().numpy().copy(), finish.cpu().numpy()
        flat, goal = now.reshape(n, 3, size), target.reshape(n, 3, size)
        scores = []
        for k in range(points):
            logits = forward(network, torch.from_numpy(now).to(x.device))
            scores.append(logits.softmax(1).gather(1, targets[:, None])[:, 0])
            moved = order[:, step * k : step * (k + 1)]
            for i in range(n):
                flat[i][:, moved[i]] = goal[i][:, moved[i]]
        curves.append(torch.stack(scores, 1))
    return curves[0], curves[1]


def torchcam_metric(
    network: nn.Module, layer: str, x: Tensor, targets: Tensor
) -> Callable[[], object]:
    from torchcam.methods import GradCAM as TorchcamGradCAM
    from torchcam.metrics import DeletionInsertionMetric

    def call() -> object:
        network.requires_grad_(True)
        with TorchcamGradCAM(network, layer) as cam:
            metric = DeletionInsertionMetric(cam, lambda logits: logits.softmax(1), steps=STEPS)
            metric.update(x, targets.tolist())
            return metric.summary()

    return call


def pixel_flipping(
    network: nn.Module, x: Tensor, low: Tensor, targets: Tensor
) -> Callable[[], object]:
    quantus: Any = importlib.import_module("quantus")  # its annotations forbid what it documents
    # It counts values, not pixels, and wants a divisor of H * W: 21 steps come nearest to 28.
    metric = quantus.PixelFlipping(
        features_in_step=3 * x.shape[-1] * x.shape[-2] // QUANTUS_STEPS,
        perturb_baseline=0.0,
        normalise=False,
        disable_warnings=True,
    )
    arrays = [tensor.cpu().numpy() for tensor in (x, targets, low[:, None])]
    return lambda: metric(network, *arrays, softmax=True, channel_first=True, device=str(x.device))


def every_threshold(heatmap: np.ndarray) -> list[list[tuple[int, ...]]]:
    """Return the boxes of all contours at the 1000 thresholds, as a loop over cv2 finds them."""
    import cv2

    levels = np.floor(np.clip(heatmap, 0, 1) * 255).astype(np.uint8)
    found = []
    for threshold in np.arange(0, 1, 0.001):
        _, mask = cv2.threshold(levels, int(threshold * levels.max()), 255, cv2.THRESH_BINARY)
        contours = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        if contours:
            max(contours, key=cv2.contourArea)
        found.append([tuple(cv2.boundingRect(contour)) for contour in contours])
    return found
