"""What the network answers: the columns of a row that do not depend on its map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradcam_bench.localization import boxes
from gradcam_bench.names import Row
from gradcam_bench.run.batches import Item

UNDEFINED = -1  # the prediction of an image whose probabilities are not finite


def predicted_classes(logits: Tensor) -> Tensor:
    """Return the predicted classes, (N,) int64; `UNDEFINED` where a logit is NaN or infinite.

    Minus infinity rules a class out and is a logit like any other, unless all are.
    """
    defined = logits.softmax(1).isfinite().all(1)
    return logits.argmax(1).masked_fill(~defined, UNDEFINED)


def classification_columns(items: Sequence[Item], logits: Tensor, labels: Tensor) -> list[Row]:
    """Return the columns that all rows of an image share, one mapping per image.

    Args:
        items: the images, N of them, none broken.
        logits: the network's answer, (N, C).
        labels: the class asked for, one per image, (N,) int64.
    """
    predicted = predicted_classes(logits)
    undefined = predicted == UNDEFINED
    top5 = logits.topk(min(5, logits.shape[1]), dim=1).indices
    in_top5 = (top5 == labels[:, None]).any(1)
    top1_correct, top5_correct, probability = (
        values.float().masked_fill(undefined, torch.nan).tolist()
        for values in (predicted == labels, in_top5, logits.softmax(1).amax(1))
    )
    return [
        {
            **_item_columns(item),
            "predicted": None if undefined[i] else int(predicted[i]),
            "predicted_prob": probability[i],
            "top1_correct": top1_correct[i],
            "top5_correct": top5_correct[i],
        }
        for i, item in enumerate(items)
    ]


def _item_columns(item: Item) -> Row:
    """Return what the data set says of an image."""
    assert item.boxes is not None
    return {
        "image_id": item.image_id,
        "group": item.group,
        "label": item.label,
        "object_area": float(boxes.boxes_to_mask(item.boxes, item.size).mean()),
        "boxes_clipped": item.boxes_clipped,
        "error": None,
    }


def error_columns(item: Item) -> Row:
    """Return the columns of a broken image: why it is broken, and which file to mend."""
    return {
        "image_id": item.image_id,
        "error": item.error,
        "error_kind": item.error_kind,
        "error_path": item.error_path,
    }
