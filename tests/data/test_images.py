import warnings

import numpy as np
import pytest
from PIL import Image

from gradcam_bench.data.geometry import upright_boxes
from gradcam_bench.data.images import load_oriented, load_rgb
from gradcam_bench.errors import ExampleError

# left half dark red, right half light blue: no two channels alike
PIXELS = np.zeros((12, 20, 3), np.uint8)
PIXELS[:, :10] = (120, 20, 40)
PIXELS[:, 10:] = (100, 180, 240)


def save(path, image, **options):
    image.save(path, **options)
    return path


def load(path):
    image = load_rgb(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def stored_mode(path):
    with Image.open(path) as image:
        return image.mode


def test_rgb_comes_back_as_stored(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(PIXELS))
    np.testing.assert_array_equal(load(path), PIXELS)


def test_grayscale_fills_the_three_channels(tmp_path):
    gray = np.arange(240, dtype=np.uint8).reshape(12, 20)
    path = save(tmp_path / "a.png", Image.fromarray(gray))
    np.testing.assert_array_equal(load(path), np.stack([gray] * 3, axis=2))


def test_one_bit_becomes_black_and_white(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(PIXELS[:, :, 1] > 100))
    np.testing.assert_array_equal(load(path), np.where(PIXELS[:, :, 1:2] > 100, 255, 0) + [0] * 3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_gray_keeps_its_high_byte(tmp_path, suffix):
    gray = (np.arange(240).reshape(12, 20) * 256 + 77).astype(np.uint16)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(gray))
    np.testing.assert_array_equal(load(path)[:, :, 2], gray // 256)


def test_cmyk_jpeg_has_the_colors_of_the_rgb_one(tmp_path):
    path = save(tmp_path / "a.jpg", Image.fromarray(PIXELS).convert("CMYK"), quality=95)
    assert stored_mode(path) == "CMYK"
    np.testing.assert_allclose(load(path)[:, [2, -3]], PIXELS[:, [2, -3]], atol=6)


def test_palette_gives_its_colors(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(PIXELS).quantize(4))
    assert stored_mode(path) == "P"
    np.testing.assert_allclose(load(path), PIXELS, atol=3)


def test_transparent_palette_entries_become_white(tmp_path):
    image = Image.fromarray(np.repeat([[0] * 10 + [1] * 10], 12, axis=0).astype(np.uint8), "P")
    image.putpalette([120, 20, 40, 100, 180, 240])
    for transparency in (0, b"\x00\xff"):  # bytes make PIL warn when converted carelessly
        path = save(tmp_path / "a.png", image, transparency=transparency)
        pixels = load(path)
        assert (pixels[:, :10] == 255).all()
        assert (pixels[:, 10:] == [100, 180, 240]).all()


def test_alpha_is_composited_over_white(tmp_path):
    alpha = np.zeros((12, 20, 1), np.uint8)
    alpha[:, 10:] = 255
    alpha[:, 15:] = 51  # a fifth
    path = save(tmp_path / "a.png", Image.fromarray(np.concatenate([PIXELS, alpha], axis=2)))
    pixels = load(path)
    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 10:15] == [100, 180, 240]).all()
    assert (pixels[:, 15:] == [224, 240, 252]).all()


def test_gray_with_alpha_is_composited_over_white(tmp_path):
    path = save(tmp_path / "a.png", Image.new("LA", (4, 4), (100, 51)))
    assert (load(path) == 224).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once_and_boxes_move_along(tmp_path, orientation, suffix):
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[8:16, 32:56] = 255
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(pixels), exif=exif, **options)
    image, told = load_oriented(path)
    assert told == (1 if suffix == "tif" else orientation)  # PIL turns TIFFs itself
    assert image.size == ((40, 64) if orientation >= 5 else (64, 40))
    box = upright_boxes(np.array([[32, 8, 56, 16]]), 64, 40, orientation=orientation)
    x0, y0, x1, y1 = box[0].astype(int)
    bright = np.asarray(image)[:, :, 0] > 128
    assert bright[y0:y1, x0:x1].all()
    assert bright.sum() == 8 * 24


def test_exif_rotation_six_turns_the_left_side_up(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "a.jpg", Image.fromarray(PIXELS), exif=exif, quality=95)
    pixels = load(path)
    assert pixels.shape == (20, 12, 3)
    np.testing.assert_allclose(pixels[2], PIXELS[:, 2], atol=6)


@pytest.mark.parametrize(
    ("suffix", "exif"),
    [
        ("jpg", b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12"),  # cut short: PIL warns
        ("png", b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12"),  # cut short: PIL warns
        ("png", b"Exif\x00\x00!M\x00*\x00\x00\x00\x08\x00\x00"),  # no TIFF: PIL raises
    ],
)
def test_corrupt_exif_is_ignored_without_a_warning(tmp_path, suffix, exif):
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(PIXELS), exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image, orientation = load_oriented(path)
    assert (image.size, orientation, caught) == ((20, 12), 1, [])


def test_warnings_of_pil_do_not_become_errors(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", Image.fromarray(PIXELS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # 240 pixels: PIL warns of a bomb
    assert load(path).shape == PIXELS.shape


def test_a_truncated_jpeg_names_the_file(tmp_path):
    path = save(tmp_path / "half.JPEG", Image.effect_noise((200, 200), 90).convert("RGB"))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ExampleError, match=r"half\.JPEG cannot be read .*truncated.*restore"):
        load_rgb(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff\xd8\xff\xe0broken"])
def test_a_file_that_is_no_image_names_the_file(tmp_path, content):
    path = tmp_path / "fake.JPEG"
    path.write_bytes(content)
    with pytest.raises(ExampleError, match=r"fake\.JPEG cannot be read .*restore the file"):
        load_rgb(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ExampleError, match=r"gone\.JPEG does not exist; restore the file"):
        load_rgb(tmp_path / "gone.JPEG")


def test_floating_point_pixels_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", Image.fromarray(PIXELS[:, :, 0].astype(np.float32) / 255))
    with pytest.raises(ExampleError, match="no known range; save it with 8 bits a channel"):
        load_rgb(path)
