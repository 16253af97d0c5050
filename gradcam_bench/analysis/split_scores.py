"""What thresholds that were chosen on another run's images score on this run's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from gradcam_bench.analysis.metrics import split_name
from gradcam_bench.localization.max_box_acc import threshold_hits
from gradcam_bench.localization.protocol import run_protocols
from gradcam_bench.store.rows import level_masks, measured, sweep_column


def with_split_scores(rows: pd.DataFrame, run: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of a run with the scores of thresholds that were chosen on another run.

    A run without `thresholds_from` keeps its rows as they are.

    Args:
        rows: one per image, method and layer.
        run: run.json's content.

    Returns:
        The rows with one more column a protocol that sweeps, called as `metrics.split_name` says:
        the share of the IoU levels reached, each at its own threshold, in [0, 1]; NaN where
        undefined.
    """
    columns = {}
    protocols = run_protocols(run)
    for protocol, methods in run.get("thresholds", {}).get("chosen", {}).items():
        if not measured(rows, sweep_column(protocol)):  # every image broke
            continue
        defined = rows[sweep_column(protocol)].notna()
        column = np.full(len(rows), np.nan)
        for method, layers in methods.items():
            for layer, thresholds in layers.items():
                here = (rows["method"] == method) & (rows["layer"] == layer) & defined
                if here.any():
                    column[here] = _reached(*level_masks(rows[here], protocol), thresholds)
        columns[split_name(protocols[protocol])] = column
    return rows.assign(**columns)


def _reached(masks: np.ndarray, top: np.ndarray, thresholds: list[float]) -> np.ndarray:
    """Return the share of the IoU levels that each image reaches, each at its threshold."""
    hits = [
        threshold_hits(masks, top, bit=bit, thresholds=np.array([threshold]))[:, 0]
        for bit, threshold in enumerate(thresholds)
    ]
    return np.mean(hits, axis=0)
