"""MaxBoxAcc of maps that networks make: every box at every distinct threshold against cv2."""

import cv2
import numpy as np
import pytest
import torch
from cv2_reference import cv2_boxes, cv2_contours, inclusive_iou
from protocols import V1, V2
from repository import SHARED

from gradcam_bench import GradCAM
from gradcam_bench.cam.methods import grad_cam
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.data.imagenet import ImageNet
from gradcam_bench.data.shapes import Shapes
from gradcam_bench.localization.threshold_sweep import _largest, _LevelSets, sweep
from gradcam_bench.models.efficientnet_lite import efficientnet_lite
from gradcam_bench.models.zoo import zoo_model
from gradcam_bench.run.heatmaps import heatmaps

PHOTOGRAPHS = SHARED / "data" / "ilsvrc_val_500"


def real_maps(model, layers, dataset, indices):
    """Return Grad-CAM heatmaps of the labels, as wsol_v1 and v2 want them, and the true boxes."""
    size = model.preprocessing.size
    geometry = Geometry(size=size, interpolation=model.preprocessing.interpolation)
    examples = [dataset[index] for index in indices]
    pixels = np.stack([geometry.image(example.image) for example in examples])
    truth = [geometry.boxes(example.boxes, *example.image.size) for example in examples]
    cam = GradCAM(model.network, layers)
    cam.forward(model.preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    cam.backward([example.label for example in examples])
    for A, g in zip(cam.activations, cam.gradients, strict=True):
        yield from zip(heatmaps(grad_cam(A, g), (size, size), V1).numpy(), truth, strict=True)


def assert_equal_to_cv2(heatmap, truth):
    """Compare boxes and IoU at each threshold that cuts the 8-bit map in a way of its own."""
    q = (np.clip(heatmap, 0, 1) * 255).astype(np.uint8)
    level_sets = _LevelSets(q, truth)
    outer, inner = level_sets.components(V1), level_sets.outlines()
    largest = _largest(level_sets, V1)
    drawn = {
        V1.name: (outer.boxes[largest], outer.level[largest]),
        V2.name: (
            np.concatenate([outer.boxes, inner.boxes]),
            np.concatenate([outer.level, inner.level]),
        ),
    }
    swept = dict(zip(drawn, sweep(heatmap, truth, [V1, V2]), strict=True))
    last = (q.shape[1] - 1, q.shape[0] - 1) * 2
    for above in np.unique(q)[:-1].tolist():  # q > above
        contours = cv2_contours(q > above)
        chosen = {V1.name: [max(contours, key=cv2.contourArea)], V2.name: contours}
        for name, (boxes, level) in drawn.items():
            found = np.minimum(boxes[level == above + 1], last).tolist()
            expected = cv2_boxes(chosen[name], q.shape)
            assert sorted(found) == sorted(expected.tolist()), (name, above)
            assert swept[name].best_iou[above] == inclusive_iou(expected, truth), (name, above)


@pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason="../shared/data/ilsvrc_val_500, the photographs, is absent"
)
def test_40_maps_of_photographs_have_the_boxes_of_cv2_at_every_threshold():
    model = efficientnet_lite(name="efficientnet_lite0")
    data = ImageNet(root=str(PHOTOGRAPHS))
    found = list(real_maps(model, ["blocks.4", "bn2"], data, range(0, 500, 25)))
    assert len(found) == 40
    for heatmap, truth in found:
        assert_equal_to_cv2(heatmap, truth)


def test_maps_of_the_embedded_network_have_the_boxes_of_cv2_at_every_threshold():
    model = zoo_model(name="tiny_resnet")
    found = list(real_maps(model, ["layer2", "layer4"], Shapes(length=20), range(20)))
    assert len(found) == 40
    for heatmap, truth in found:
        assert_equal_to_cv2(heatmap, truth)
