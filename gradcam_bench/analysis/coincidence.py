"""Methods that give the same scores at a layer, image by image, and when that has to be so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradcam_bench.analysis.faithfulness_metrics import FAITHFULNESS
from gradcam_bench.analysis.metrics import METRICS, metrics_with
from gradcam_bench.names import CONTROLS
from gradcam_bench.store.rows import cells, layout, measured, scored

_EQUAL_BEFORE_POOLING = frozenset({"grad_cam", "hires_cam", "xgrad_cam", "cam"})
"""Methods that weight the activations alike where the gradient is the same at every pixel.

So it is at a layer that only global average pooling and one linear layer follow.
"""

_TOLERANCE = 1e-6

_CURVE_TOLERANCE = 1e-3
"""Of deletion and insertion, which rank pixels: maps that differ in the last bit rank otherwise."""

_AGREEING = 0.99
"""Share of the images that have to agree: rarely, the last bit moves a pixel over a threshold."""


@dataclass(frozen=True)
class Coincidence:
    """Methods whose scores are equal at a layer.

    Attributes:
        layer: where.
        methods: two or more, in the order of the rows.
        by_construction: whether they are of those that have to be equal before global average
            pooling and one linear layer; otherwise the images may just not tell them apart.
    """

    layer: str
    methods: tuple[str, ...]
    by_construction: bool

    def text(self, title: Callable[[str], str] = str) -> str:
        """Return one sentence that says so.

        Args:
            title: what to call a method.
        """
        names = [title(method) for method in self.methods]
        listed = f"{', '.join(names[:-1])} and {names[-1]} coincide at {self.layer}"
        if self.by_construction:
            return (
                f"{listed}: before global average pooling and one linear layer they are equal by "
                "construction."
            )
        return f"{listed}: their scores are equal, image by image."


def coinciding(rows: pd.DataFrame) -> list[Coincidence]:
    """Return the methods that cannot be told apart at a layer by any tested metric on any image.

    Args:
        rows: of one run, one per image, method and layer.

    Returns:
        One record a group of methods, in the order of the rows; empty where no tested metric was
        measured. Two undefined scores count as equal, but a method without any defined score
        coincides with none. Equal maps differ in the last bit when they are computed in different
        ways, so scores may differ by 1e-6, those of deletion and insertion by 1e-3, and 1 % of the
        images by more.
    """
    good = scored(rows)
    names = [name for name in metrics_with("tested") if measured(good, METRICS[name].column)]
    pairs = [pair for pair in cells(good) if pair[0] not in CONTROLS]
    if not names or not pairs:
        return []
    places = layout(good, pairs)
    scores = np.stack([places.matrix(good[METRICS[name].column]) for name in names])
    curves = {metric.name for metric in FAITHFULNESS}
    allowed = np.array([_CURVE_TOLERANCE if name in curves else _TOLERANCE for name in names])
    found = []
    waiting = [number for number in range(len(pairs)) if not np.isnan(scores[..., number]).all()]
    while waiting:
        first = waiting[0]
        layer = pairs[first][1]
        same = [
            other
            for other in waiting
            if pairs[other][1] == layer and _equal(scores[..., first], scores[..., other], allowed)
        ]
        waiting = [number for number in waiting if number not in same]
        if len(same) > 1:
            methods = tuple(pairs[number][0] for number in same)
            found.append(Coincidence(layer, methods, _EQUAL_BEFORE_POOLING.issuperset(methods)))
    return found


def _equal(a: np.ndarray, b: np.ndarray, allowed: np.ndarray) -> bool:
    """Return whether scores (metrics, images) agree within what is allowed, one a metric."""
    agree = (np.abs(a - b) <= allowed[:, None]) | (np.isnan(a) & np.isnan(b))
    return bool(agree.all(axis=0).mean() >= _AGREEING)
