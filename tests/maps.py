"""Heatmaps and masks that agree more or less, and their histograms of scores."""

import numpy as np

from gradcam_bench.localization import pxap


def blobs(n=40, size=24, seed=0):
    """Return smooth maps in [0, 1] and masks that they follow more or less."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    maps, masks = [], []
    for _ in range(n):
        (cy, cx), r = rng.uniform(6, size - 6, 2), rng.uniform(3, 7)
        dy, dx = rng.normal(0, 3, 2)
        masks.append((y - cy) ** 2 + (x - cx) ** 2 < r**2)
        heat = np.exp(-((y - cy - dy) ** 2 + (x - cx - dx) ** 2) / (2 * rng.uniform(2, 6) ** 2))
        heat = heat + 0.1 * rng.random(heat.shape)
        maps.append(((heat - heat.min()) / np.ptp(heat)).astype(np.float32))
    return maps, masks


def histograms(maps, masks):
    found = [pxap.score_histogram(h, m) for h, m in zip(maps, masks, strict=True)]
    return pxap.from_bytes([pxap.to_bytes(histogram) for histogram in found])
