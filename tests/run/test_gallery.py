"""What a run keeps for the report's gallery."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import run
from torch.nn import functional as F

from gradcam_bench.cam.controls import center_map
from gradcam_bench.store.parts import read_gallery

INPUT = 96


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gallery")
    run(directory, "faithfulness.enabled=false", "layers=[layer1,layer4]", "++dataset.length=2")
    return read_gallery(directory)


def levels(row):
    return np.frombuffer(row.heatmap, np.uint8).reshape(row.heatmap_h, row.heatmap_w)


def test_large_maps_are_averaged_to_28_pixels_a_side_and_256_levels_of_their_maximum(gallery):
    whole = center_map(1, (INPUT, INPUT))
    small = F.adaptive_avg_pool2d(whole, 28)[0]
    expected = (255 * small / small.max()).round().to(torch.uint8).numpy()
    found = gallery[gallery["method"] == "center"]
    assert len(found) == 2
    for row in found.itertuples():
        assert np.array_equal(levels(row), expected)


def test_small_maps_keep_their_size_and_reach_the_highest_level(gallery):
    found = gallery[gallery["method"] == "grad_cam"]
    assert set(found["layer"]) == {"layer1", "layer4"}
    sizes = {row.layer: levels(row).shape for row in found.itertuples()}
    assert sizes["layer4"] < sizes["layer1"] <= (28, 28)
    assert all(levels(row).max() in (0, 255) for row in found.itertuples())
    assert any(levels(row).max() == 255 for row in found.itertuples())


def test_pictures_are_jpegs_of_quality_88_of_the_network_s_input(gallery):
    reference = io.BytesIO()
    Image.new("RGB", (8, 8)).save(reference, "JPEG", quality=88)
    for jpeg in gallery["jpeg"]:
        picture = Image.open(io.BytesIO(jpeg))
        assert picture.size == (INPUT, INPUT)
        assert picture.quantization == Image.open(reference).quantization
