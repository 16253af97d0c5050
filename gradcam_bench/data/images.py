"""Read image files of all usual formats and colour modes as upright RGB images."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
from PIL import Image

from gradcam_bench.data.jpeg import MAX_SCANS, blanked, many_scans
from gradcam_bench.data.regular_files import read_regular
from gradcam_bench.errors import ExampleError, brief

# Only decoders that are safe on untrusted files: PIL passes PostScript to Ghostscript, for example.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_BYTES = 2**30  # 16-bit RGB of the size from which PIL suspects a decompression bomb
_ORIENTATION_TAG = 274
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# warnings.catch_warnings changes state of the whole process, so one thread at a time may use it.
_WARNINGS_LOCK = threading.Lock()


@contextmanager
def _pil_quiet() -> Iterator[None]:
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _orientation(image: Image.Image) -> int:
    try:
        with _pil_quiet():  # which warns of corrupt EXIF data
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # PIL's parser raises anything on corrupt EXIF; the pixels are still good
        return 1
    return value if value in _TRANSPOSE else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel, which PIL's convert would clip at 255
        high_byte = (np.asarray(image).clip(0, 65535) // 256).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 bits a channel")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _decode(data: bytes) -> tuple[Image.Image, int]:
    """Return the image in a file's bytes as RGB, not yet rotated, and its EXIF orientation."""
    if not data:
        raise ValueError("it is empty")
    if fault := blanked(data):
        raise ValueError(fault)
    with _pil_quiet():  # warns of decompression bombs and broken TIFF, MPO and EXIF headers
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    with image:
        if "progressive" in image.info and many_scans(data):
            raise ValueError(f"it has more than {MAX_SCANS} scans, which could take hours")
        with _pil_quiet() if image.format == "TIFF" else nullcontext():  # which warns of its tags
            image.load()
        orientation = _orientation(image)  # after load, which already rotates TIFFs
        return _to_rgb(image), orientation


def load_oriented(path: str | os.PathLike[str]) -> tuple[Image.Image, int]:
    """Read an image file as upright RGB, and return how it was stored.

    Grayscale, palette, CMYK and YCbCr are converted as PIL does; of 16-bit grayscale the high byte
    is kept; transparency is composited over white, as a web page shows it; of an animation the
    first picture is taken; EXIF rotation is applied.

    Returns:
        The image, mode "RGB", and the EXIF orientation of the file, 1 to 8 (1: stored upright).

    Raises:
        ExampleError: the file is missing, no regular file, empty, truncated, overwritten with
            zeros (`jpeg.blanked`), larger than PIL's limit against decompression bombs, of none of
            `FORMATS`, or no image that PIL reads as RGB. Its kind is "image".
    """
    name = os.fspath(path)
    try:
        rgb, orientation = _decode(read_regular(path, limit=MAX_BYTES))
    except FileNotFoundError:
        raise ExampleError(
            f"image {name} does not exist; restore the file", kind="image", path=name
        ) from None
    except Exception as error:  # PIL's decoders raise anything on broken bytes
        raise ExampleError(
            f"image {name} cannot be read ({brief(error) or type(error).__name__}); "
            f"restore the file from its source",
            kind="image",
            path=name,
        ) from error
    if orientation != 1:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    return rgb, orientation


def load_rgb(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as upright RGB; see `load_oriented` for conversions and errors."""
    return load_oriented(path)[0]
