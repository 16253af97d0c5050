"""A heatmap laid over its image."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from gradcam_bench.errors import UserError


def overlay(
    img_rgb: Any, heatmap: Any, *, opacity: float = 0.5, colormap: str = "jet"
) -> Image.Image | list[Image.Image]:
    """Lay heatmaps over images.

    Args:
        img_rgb: a PIL image; an array (H, W, 3) or (N, H, W, 3), uint8 or float in [0, 1]; or a
            tensor (3, H, W) or (N, 3, H, W) in [0, 1], not normalised.
        heatmap: (H, W) or (N, H, W) in [0, 1], array or tensor on any device; resized bilinearly
            where its size is another than the image's.
        opacity: of the heatmap, in [0, 1].
        colormap: a name of matplotlib's.

    Returns:
        A PIL image, or a list of N where N heatmaps were given; one image serves all of them.

    Raises:
        UserError: shapes, ranges or the colormap's name do not fit.
    """
    images, heatmaps = _images(img_rgb), _array(heatmap).astype(np.float32)
    if heatmaps.ndim not in (2, 3):
        raise UserError(f"overlay expects a heatmap (H, W) or (N, H, W), got {heatmaps.shape}.")
    many = heatmaps.ndim == 3
    stack = heatmaps if many else heatmaps[None]
    if len(images) not in (1, len(stack)):
        raise UserError(f"overlay got {len(images)} images and {len(stack)} heatmaps.")
    if stack.size and not (stack.min() >= 0 and stack.max() <= 1):
        raise UserError(
            f"overlay expects heatmaps in [0, 1], got {stack.min():.3g} to {stack.max():.3g}; "
            "divide by the maximum, as GradCAM.generate does."
        )
    colors = _colormap(colormap)
    pictures = [
        _blend(images[i % len(images)], one, colors, opacity) for i, one in enumerate(stack)
    ]
    return pictures if many else pictures[0]


def _blend(image: np.ndarray, heatmap: np.ndarray, colors: Any, opacity: float) -> Image.Image:
    height, width = image.shape[:2]
    if heatmap.shape != (height, width):
        small = Image.fromarray(heatmap)
        heatmap = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
    mixed = (1 - opacity) * image + opacity * 255 * colors(heatmap)[..., :3]
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def _colormap(name: str) -> Any:
    from matplotlib import colormaps

    if name not in colormaps:
        raise UserError(f"overlay: matplotlib has no colormap {name!r}; try jet, viridis or turbo.")
    return colormaps[name]


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values)


def _images(img_rgb: Any) -> np.ndarray:
    """Return (N, H, W, 3) float in [0, 255]."""
    if isinstance(img_rgb, Image.Image):
        return np.asarray(img_rgb.convert("RGB"), dtype=np.float32)[None]
    images = _array(img_rgb)
    shape = images.shape
    if hasattr(img_rgb, "detach") and images.ndim >= 3:
        images = np.moveaxis(images, -3, -1)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(
            "overlay expects a PIL image, an array (H, W, 3) or (N, H, W, 3), or a tensor "
            f"(3, H, W) or (N, 3, H, W), got {shape}."
        )
    if images.dtype == np.uint8:
        return images.astype(np.float32)
    if images.min() < 0 or images.max() > 1:
        raise UserError(
            f"overlay expects float images in [0, 1], got {images.min():.3g} to "
            f"{images.max():.3g}; undo the normalisation first."
        )
    return images.astype(np.float32) * 255
