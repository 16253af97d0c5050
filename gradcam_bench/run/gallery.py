"""The pictures and small maps that a run keeps for the report's gallery."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gradcam_bench.names import Cell, Row
from gradcam_bench.run.batches import Item

GALLERY_MAP = 28  # side of the largest map kept for the gallery

JPEG_QUALITY = 88


def kept_images(n_images: int, wanted: int) -> set[int]:
    """Return the indices of the images that a run keeps, evenly spaced."""
    kept = min(wanted, n_images)
    return {i * n_images // kept for i in range(kept)}


def gallery_rows(item: Item, maps: Mapping[Cell, Tensor]) -> list[Row]:
    """Return an image's rows of the gallery, one per cell.

    Args:
        item: an image that is not broken.
        maps: its signed maps, (h, w), by cell.
    """
    assert item.image is not None
    assert item.boxes is not None
    buffer = io.BytesIO()
    Image.fromarray(item.image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    rows = []
    for (method, layer), found in maps.items():
        small = small_map(found)
        rows.append(
            {
                "image_id": item.image_id,
                "method": method,
                "layer": layer,
                "jpeg": buffer.getvalue(),
                "boxes": item.boxes.tolist(),
                "heatmap": small.cpu().numpy().tobytes(),
                "heatmap_h": small.shape[0],
                "heatmap_w": small.shape[1],
            }
        )
    return rows


def small_map(found: Tensor) -> Tensor:
    """Return a signed map (h, w) after ReLU as uint8, its maximum 255, at most 28 x 28.

    Zeros where nothing is positive; what is not finite counts as the largest number or zero.
    """
    low = torch.nan_to_num(found.relu())
    if max(low.shape) > GALLERY_MAP:
        low = F.adaptive_avg_pool2d(low[None], GALLERY_MAP)[0]
    top = float(low.max())
    levels = (low / top * 255).round() if top > 0 else torch.zeros_like(low)
    return levels.to(torch.uint8)
