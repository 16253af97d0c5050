import numpy as np
import pytest
import torch
from PIL import Image

from gradcam_bench import overlay
from gradcam_bench.errors import UserError


def picture(height=4, width=6, value=100):
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_zero_and_one_are_the_ends_of_the_colormap():
    heatmap = np.zeros((4, 6))
    heatmap[0, 0] = 1
    found = np.asarray(overlay(picture(), heatmap, opacity=1.0))
    assert found[0, 0].tolist() == [128, 0, 0]  # jet's last colour
    assert found[3, 5].tolist() == [0, 0, 128]  # and its first


def test_opacity_mixes_linearly():
    heatmap = np.ones((4, 6))
    found = np.asarray(overlay(picture(), heatmap, opacity=0.25))[0, 0]
    assert np.abs(found - (0.75 * 100 + 0.25 * np.array([127.5, 0, 0]))).max() <= 1
    assert (np.asarray(overlay(picture(), heatmap, opacity=0.0)) == 100).all()


def test_every_form_of_an_image_gives_the_same_picture():
    image = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    heatmap = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    expected = np.asarray(overlay(image, heatmap))
    tensor = torch.from_numpy(image).permute(2, 0, 1) / 255
    for form in (Image.fromarray(image), image / 255, tensor, image[None]):
        assert np.abs(np.asarray(overlay(form, heatmap)).astype(int) - expected).max() <= 1


def test_batches_give_a_list_and_one_image_serves_many_heatmaps():
    many = overlay(np.stack([picture()] * 3), np.zeros((3, 4, 6)))
    assert isinstance(many, list)
    assert len(many) == 3
    assert len(overlay(picture(), np.zeros((5, 4, 6)))) == 5


def test_a_small_heatmap_is_resized_to_the_image():
    assert overlay(picture(40, 60), np.ones((7, 7))).size == (60, 40)


@pytest.mark.parametrize(
    ("image", "heatmap", "message"),
    [
        (picture(), np.zeros((2, 2, 2, 2)), "heatmap .H, W. or .N, H, W."),
        (picture(), np.full((4, 6), 2.0), r"heatmaps in \[0, 1\]"),
        (picture(), np.full((4, 6), np.nan), r"heatmaps in \[0, 1\]"),
        (np.zeros((4, 6)), np.zeros((4, 6)), "expects a PIL image"),
        (np.full((4, 6, 3), -0.5), np.zeros((4, 6)), "undo the normalisation"),
        (np.stack([picture()] * 2), np.zeros((3, 4, 6)), "2 images and 3 heatmaps"),
    ],
)
def test_what_does_not_fit_is_refused(image, heatmap, message):
    with pytest.raises(UserError, match=message):
        overlay(image, heatmap)


def test_an_unknown_colormap_is_refused():
    with pytest.raises(UserError, match="no colormap 'jett'"):
        overlay(picture(), np.zeros((4, 6)), colormap="jett")
