"""Rows to a tidy summary: every metric of every method and layer, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from gradcam_bench.analysis import class_means, intervals_pxap, proportions
from gradcam_bench.analysis.intervals import (
    Estimate,
    best_threshold_estimate,
    mean_estimates,
    resample_counts,
)
from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import METRICS, metric_of, oracle_name
from gradcam_bench.errors import UserError
from gradcam_bench.localization import max_box_acc, pxap
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.names import Cell, base_and_protocol, column_of
from gradcam_bench.store.rows import (
    Layout,
    cell_rows,
    cells,
    layout,
    level_masks,
    measured,
    scored,
    sweep_column,
)

SUMMARY_COLUMNS = ("method", "layer", "metric", "value", "ci_low", "ci_high", "n", "n_undefined")

ERROR_RATE = "error_rate"
"""The share of images that could not be scored; they take part in no other number."""


def summarize(
    rows: pd.DataFrame,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    protocols: Mapping[str, Protocol] | None = None,
) -> pd.DataFrame:
    """Return the tidy summary: one line per method, layer and metric, with an interval.

    Proportions have Clopper-Pearson intervals, class means those of `class_means.estimate`;
    means, PxAP and oracle accuracies a bootstrap over images, the same resamples for every cell.
    Images of one group (`rows.group_codes`) count together in every interval, and one by one in
    `n`. Metrics whose column the rows lack, or hold nowhere, are left out. Broken images count in
    `error_rate` alone.

    Args:
        rows: one per image, method and layer, as `parts.read_rows` returns them.
        confidence: coverage of the intervals.
        resamples: bootstrap resamples.
        seed: seeds the resampling.
        protocols: of the run, from `protocol.run_protocols`: the IoU levels and the interval of
            those that sweep.

    Returns:
        Columns `method layer metric value ci_low ci_high n n_undefined`; errors and MaxBoxAcc in
        percent, shares in [0, 1] (see `metrics.METRICS`).

    Raises:
        UserError: if there are no rows, an image occurs twice in a cell or is in two groups, or the
            rows were swept under a protocol that is not given.
    """
    if rows.empty:
        raise UserError("there are no rows to summarize: did the run score any image?")
    pairs = cells(rows)
    good = scored(rows)
    lines = _error_lines(rows, pairs, confidence)
    if good.empty:
        return _frame(lines, pairs)
    places = layout(good, pairs)
    labels = places.per_image(good["label"])
    counts = resample_counts(
        len(places.images), groups=places.groups, resamples=resamples, seed=seed
    )
    for name, metric, column in _present(good, protocols or {}):
        if metric.kind == "oracle":
            protocol = _known(base_and_protocol(column)[1], protocols or {})
            score = _oracle(protocol, places.largest_group, confidence)
            found = _together(good, places, column, counts, score)
        elif metric.kind == "pooled":
            found = _together(good, places, column, counts, partial(_pxap, confidence=confidence))
        else:
            matrix = places.matrix(good[column])
            found = _estimates(matrix, metric, labels, places.groups, counts, confidence)
        for pair, estimate in zip(pairs, found, strict=True):
            lines.append(_line(pair, name, metric, estimate))
    return _frame(lines, pairs)


def _present(
    rows: pd.DataFrame, protocols: Mapping[str, Protocol]
) -> list[tuple[str, Metric, str]]:
    """Return (name, metric, column) of every metric that the rows hold, under every protocol.

    The plain names come first, then those of the further protocols, then sweeps of protocols that
    have no plain name.
    """
    named = (base_and_protocol(str(column))[1] for column in rows.columns)
    further = [protocol for protocol in dict.fromkeys(named) if protocol]
    swept = {
        oracle_name(_known(protocol, protocols)): sweep_column(protocol)
        for protocol in further
        if measured(rows, sweep_column(protocol))
    }
    plain = [
        (metric.name, metric, swept.get(name, "") if metric.kind == "oracle" else metric.column)
        for name, metric in METRICS.items()
    ]
    suffixed = [
        (column_of(name, protocol), metric, column_of(metric.column, protocol))
        for protocol in further
        for name, metric in METRICS.items()
        if metric.kind not in ("oracle", "pooled")
    ]
    found = [line for line in plain + suffixed if measured(rows, line[2])]
    sweeps = [(name, column) for name, column in swept.items() if name not in METRICS]
    return found + [(name, metric_of(name), column) for name, column in sweeps]


def _known(protocol: str, protocols: Mapping[str, Protocol]) -> Protocol:
    if protocol not in protocols:
        raise UserError(
            f"the IoU levels of protocol {protocol!r} are not known: pass "
            "protocols=run_protocols(run), with the content of run.json"
        )
    return protocols[protocol]


def _estimates(
    matrix: np.ndarray,
    metric: Metric,
    labels: np.ndarray,
    groups: np.ndarray | None,
    counts: np.ndarray,
    confidence: float,
) -> list[Estimate]:
    if metric.kind == "proportion":
        return [
            proportions.estimate(column, groups=groups, confidence=confidence)
            for column in matrix.T
        ]
    if metric.kind == "class_mean":
        return class_means.estimate(matrix, labels, groups=groups, confidence=confidence)
    return mean_estimates(matrix, counts, confidence=confidence)


def _oracle(
    protocol: Protocol, largest_group: int, confidence: float
) -> Callable[[pd.DataFrame, np.ndarray], Estimate]:
    """Return a function that estimates the best threshold's accuracy from the rows of a cell."""
    assert protocol.interval is not None  # a protocol that sweeps has one
    levels, interval = len(protocol.iou_levels), protocol.interval

    def score(cell: pd.DataFrame, counts: np.ndarray) -> Estimate:
        masks, top = level_masks(cell, protocol.name)
        hits = max_box_acc.distinct_hits(masks, top, levels=levels, interval=interval)
        return best_threshold_estimate(
            hits, counts, confidence=confidence, largest_group=largest_group
        )

    return score


def _pxap(cell: pd.DataFrame, counts: np.ndarray, *, confidence: float) -> Estimate:
    histograms = pxap.from_bytes(cell["pxap_counts"].tolist())
    return intervals_pxap.estimate(histograms, counts, confidence=confidence)


def _together(
    rows: pd.DataFrame,
    places: Layout,
    column: str,
    counts: np.ndarray,
    score: Callable[[pd.DataFrame, np.ndarray], Estimate],
) -> list[Estimate]:
    """Return the estimate of every cell from all of its images at once.

    Args:
        rows: of the images that could be scored.
        places: the cells and the images in their order.
        column: what has to be defined for an image to count.
        counts: (resamples, images) how often each image is drawn.
        score: estimates from a cell's rows and the counts of its images.
    """
    images = places.images
    found = []
    for pair in places.pairs:
        cell = cell_rows(rows, pair)
        cell = cell[cell[column].notna()]
        place = images.get_indexer(pd.Index(cell["image_id"]))
        if cell.empty:
            nan = float("nan")
            found.append(Estimate(nan, nan, nan, 0, len(images)))
            continue
        same = np.array_equal(place, np.arange(len(images)))
        estimate = score(cell, counts if same else counts[:, place])
        found.append(replace(estimate, n_undefined=len(images) - len(cell)))
    return found


def _line(pair: Cell, name: str, metric: Metric, estimate: Estimate) -> dict[str, object]:
    value, low, high = estimate.value, estimate.low, estimate.high
    if metric.complement:
        value, low, high = 1 - value, 1 - high, 1 - low
    scale = metric.scale.factor
    ends = (scale * value, scale * low, scale * high)
    return dict(
        zip(SUMMARY_COLUMNS, (*pair, name, *ends, estimate.n, estimate.n_undefined), strict=True)
    )


def _error_lines(
    rows: pd.DataFrame, pairs: Sequence[Cell], confidence: float
) -> list[dict[str, object]]:
    broken = rows["error"].notna() if "error" in rows else pd.Series(False, index=rows.index)
    lines = []
    for pair, column in zip(pairs, layout(rows, pairs).matrix(broken.astype(float)).T, strict=True):
        found = proportions.estimate(column, confidence=confidence)
        values = (*pair, ERROR_RATE, found.value, found.low, found.high, found.n, 0)
        lines.append(dict(zip(SUMMARY_COLUMNS, values, strict=True)))
    return lines


def _frame(lines: list[dict[str, object]], pairs: Sequence[Cell]) -> pd.DataFrame:
    frame = pd.DataFrame(lines, columns=list(SUMMARY_COLUMNS))
    place = {pair: number for number, pair in enumerate(pairs)}
    order = [place[pair] for pair in zip(frame["method"], frame["layer"], strict=True)]
    return frame.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
