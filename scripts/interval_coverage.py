"""Simulate how often the 95 % intervals of every kind of metric hold what they estimate.

    python scripts/interval_coverage.py

draws data sets from populations whose value is known, and writes docs/interval_coverage.csv: the
share of intervals that hold the value, and their mean width as a multiple of what it should be
(2 x 1.96 standard deviations of the estimate over the data sets). tests/analysis/test_coverage.py
does the
same with fewer data sets. It takes a few minutes of one core.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from gradcam_bench.analysis import class_means, intervals_pxap, proportions
from gradcam_bench.analysis.intervals import (
    Estimate,
    best_threshold_estimate,
    mean_estimates,
    resample_counts,
)
from gradcam_bench.localization import pxap

TARGET = Path(__file__).parents[1] / "docs" / "interval_coverage.csv"
Intervals = np.ndarray
"""(data sets, 4): the estimate, both ends of its interval, and the value of the population."""
PAIRS = 2
"""Images a group, where all groups are equally large."""


def paired_up(images: int) -> np.ndarray:
    """Return groups of two images, two images of a group next to each other."""
    return np.repeat(np.arange(images // PAIRS), PAIRS)


def uneven(groups: int) -> np.ndarray:
    """Return groups of 1, 2, ..., 8, 1, 2, ... images."""
    return np.repeat(np.arange(groups), np.arange(groups) % 8 + 1)


def alike(
    own: np.ndarray, rng: np.random.Generator, groups: np.ndarray | None, share: float
) -> np.ndarray:
    """Return images of which a share follows its group, so that two correlate by share squared.

    Args:
        own: (images, ...) independent draws of one distribution.
        rng: random numbers.
        groups: (images,) group of each image, or None.
        share: chance that an image follows the first image of its group.
    """
    if groups is None:
        return own
    first = np.unique(groups, return_index=True)[1][groups]
    follows = rng.random(own.shape) < share
    return np.where(follows, own[first], own)


def as_array(found: list[Estimate], truth: np.ndarray | float) -> Intervals:
    ends = np.array([(e.value, e.low, e.high) for e in found])
    return np.column_stack([ends, np.broadcast_to(truth, len(ends))])


def of_proportions(
    rng: np.random.Generator,
    sets: int,
    *,
    images: int = 100,
    share: float = 0.7,
    groups: np.ndarray | None = None,
    same: float = 0.0,
) -> Intervals:
    images = images if groups is None else len(groups)
    hits = alike((rng.random((images, sets)) < share).astype(float), rng, groups, same)
    return as_array([proportions.estimate(column, groups=groups) for column in hits.T], share)


def of_means(
    rng: np.random.Generator,
    sets: int,
    *,
    images: int = 100,
    undefined: float = 0.0,
    groups: np.ndarray | None = None,
    same: float = 0.0,
) -> Intervals:
    images = images if groups is None else len(groups)
    scores = alike(rng.beta(0.8, 2, size=(images, sets)), rng, groups, same)
    scores[rng.random(scores.shape) < undefined] = np.nan
    counts = resample_counts(images, groups=groups, resamples=1000, seed=int(rng.integers(99)))
    return as_array(mean_estimates(scores, counts), 0.8 / 2.8)


def of_class_means(
    rng: np.random.Generator,
    sets: int,
    *,
    images: int,
    classes: int,
    mean: float = 0.6,
    unbalanced: float = 0.0,
    scores: bool = False,
    groups: np.ndarray | None = None,
    same: float = 0.0,
) -> Intervals:
    """Draw classes, then images of random classes; 20 data sets share their images' classes.

    Args:
        rng: random numbers.
        sets: data sets.
        images: of a data set.
        classes: of the population; its value is the mean over all of them.
        mean: of a class's chance of a hit; the classes' variance is 0.15 mean (1 - mean).
        unbalanced: standard deviation of the logarithm of the classes' frequencies.
        scores: the images have scores in (0, 1) instead of hits.
        groups: group of each image.
        same: chance that an image draws the number its group draws.
    """
    found = []
    for start in range(0, sets, 20):
        columns = min(20, sets - start)
        frequency = np.exp(unbalanced * rng.normal(size=classes))
        label = rng.choice(classes, size=images, p=frequency / frequency.sum())
        chance = rng.beta(mean / 0.15 - mean, (1 - mean) / 0.15 - 1 + mean, (classes, columns))
        draw = alike(rng.random((images, columns)), rng, groups, same)
        # A score is uniform in 0.4 around (chance + 1) / 3, a hit is a draw below the chance.
        values = (chance[label] + 0.4 + 1.2 * draw) / 3 if scores else draw < chance[label]
        truth = (chance.mean(axis=0) + 1) / 3 if scores else chance.mean(axis=0)
        estimates = class_means.estimate(values.astype(float), label, groups=groups)
        found.append(as_array(estimates, truth))
    return np.concatenate(found)


def of_oracles(
    rng: np.random.Generator,
    sets: int,
    *,
    images: int = 500,
    undefined: int = 0,
    groups: np.ndarray | None = None,
    same: float = 0.0,
) -> Intervals:
    """Draw images that are right at the thresholds near their own best."""
    thresholds = np.linspace(0, 1, 21)

    def hits(count: int) -> np.ndarray:
        centre = alike(rng.normal(0.3, 0.15, count), rng, groups if count == images else None, same)
        return np.abs(thresholds - centre[:, None]) < 0.2

    truth = hits(400_000).mean(axis=0).max()
    found = []
    for seed in range(sets):
        counts = resample_counts(images, groups=groups, resamples=400, seed=seed)
        keep = np.sort(rng.permutation(images)[undefined:])
        largest = 1 if groups is None else int(np.bincount(groups).max())
        found.append(
            best_threshold_estimate([hits(images)[keep]], counts[:, keep], largest_group=largest)
        )
    return as_array(found, truth)


def of_pools(
    rng: np.random.Generator,
    sets: int,
    *,
    images: int = 100,
    undefined: int = 0,
    groups: np.ndarray | None = None,
    same: float = 0.0,
) -> Intervals:
    """Draw images whose masks differ in size and whose maps differ in quality."""
    bins = np.linspace(0, 1, 40)

    def histograms(count: int) -> np.ndarray:
        latent = alike(rng.normal(size=(count, 3)), rng, groups if count == images else None, same)
        quality, inside = 1.5 + latent[:, :1], 100 * np.exp(0.5 * latent[:, 1:2])
        shapes = np.stack([np.exp(-3 * bins + 0 * quality), np.exp(quality * bins)], axis=1)
        sizes = np.stack([np.full_like(inside, 900), inside], axis=1)
        return rng.poisson(sizes * shapes / shapes.sum(axis=2, keepdims=True))

    truth = pxap.pixel_average_precision(histograms(100_000).sum(axis=0))
    found = []
    for seed in range(sets):
        counts = resample_counts(images, groups=groups, resamples=400, seed=seed)
        keep = np.sort(rng.permutation(images)[undefined:])
        found.append(intervals_pxap.estimate(histograms(images)[keep], counts[:, keep]))
    return as_array(found, truth)


SCENARIOS: dict[str, tuple[str, Callable[..., Intervals]]] = {
    "100 images": ("proportion", of_proportions),
    "100 images, 97 % hits": ("proportion", partial(of_proportions, share=0.97)),
    "100 scenes of 2": ("proportion", partial(of_proportions, groups=paired_up(200), same=0.7)),
    "100 scenes of 2, always alike": (
        "proportion",
        partial(of_proportions, groups=paired_up(200), same=1.0),
    ),
    "60 scenes of 1 to 8": ("proportion", partial(of_proportions, groups=uneven(60), same=0.6)),
    "60 scenes of 1 to 8, 95 % hits": (
        "proportion",
        partial(of_proportions, groups=uneven(60), same=0.6, share=0.95),
    ),
    "100 images, skewed scores": ("mean", of_means),
    "100 images, half undefined": ("mean", partial(of_means, undefined=0.5)),
    "100 scenes of 2, skewed scores": ("mean", partial(of_means, groups=paired_up(200), same=0.7)),
    "80 scenes of 1 to 8": ("mean", partial(of_means, groups=uneven(80), same=0.6)),
    "500 images, 1000 classes": ("class mean", partial(of_class_means, images=500, classes=1000)),
    "500 images, 50 classes": ("class mean", partial(of_class_means, images=500, classes=50)),
    "5000 images, 1000 classes": (
        "class mean",
        partial(of_class_means, images=5000, classes=1000),
    ),
    "200 images, 10 classes": ("class mean", partial(of_class_means, images=200, classes=10)),
    "200 images, 10 classes, 97 % hits": (
        "class mean",
        partial(of_class_means, images=200, classes=10, mean=0.97),
    ),
    "1000 images, 300 unbalanced classes": (
        "class mean",
        partial(of_class_means, images=1000, classes=300, unbalanced=0.7),
    ),
    "500 images, 1000 classes, scores": (
        "class mean",
        partial(of_class_means, images=500, classes=1000, scores=True),
    ),
    "500 images, 50 classes, scores": (
        "class mean",
        partial(of_class_means, images=500, classes=50, scores=True),
    ),
    "250 scenes of 2, 50 classes": (
        "class mean",
        partial(of_class_means, images=500, classes=50, groups=paired_up(500), same=0.8),
    ),
    "250 scenes of 2, 8 classes": (
        "class mean",
        partial(of_class_means, images=500, classes=8, groups=paired_up(500), same=0.8),
    ),
    "500 images": ("oracle", of_oracles),
    "500 images, 150 undefined": ("oracle", partial(of_oracles, undefined=150)),
    "500 scenes of 2": (
        "oracle",
        partial(of_oracles, images=1000, groups=paired_up(1000), same=0.8),
    ),
    "100 images, pooled": ("pooled", of_pools),
    "150 images, 50 undefined": ("pooled", partial(of_pools, images=150, undefined=50)),
    "100 scenes of 2, pooled": (
        "pooled",
        partial(of_pools, images=200, groups=paired_up(200), same=0.8),
    ),
}
"""By name: the kind of metric, and what draws data sets and their intervals."""


def judged(intervals: Intervals) -> tuple[float, float]:
    """Return the share of intervals that hold the value, and their relative width."""
    value, low, high, truth = intervals.T
    covered = float(((low <= truth) & (truth <= high)).mean())
    return covered, float((high - low).mean() / (2 * 1.96 * (value - truth).std()))


def main(sets: int = 2000) -> None:
    lines = []
    for name, (kind, draw) in SCENARIOS.items():
        covered, width = judged(draw(np.random.default_rng(0), sets))
        lines.append([kind, name, sets, round(100 * covered, 1), round(width, 2)])
        print(*lines[-1], flush=True)
    columns = ["kind", "data", "data sets", "coverage (%)", "relative width"]
    pd.DataFrame(lines, columns=columns).to_csv(TARGET, index=False)


if __name__ == "__main__":
    main()
