"""The 95 % intervals of every kind of metric hold what they estimate in about 95 % of data sets.

scripts/interval_coverage.py draws the data sets; docs/interval_coverage.csv holds the shares of
2000 each, and docs/metrics.md shows them.
"""

import numpy as np
import pandas as pd
import pytest
from repository import ROOT, load_script

COVERAGE = load_script("interval_coverage")
STORED = pd.read_csv(ROOT / "docs" / "interval_coverage.csv")
SETS = {"oracle": 150, "pooled": 150, "proportion": 600, "mean": 1000, "class mean": 1000}
CLOSE = (0.935, 0.97)
# What is known to lie outside, each told in docs/metrics.md.
FLOORS = {"oracle": 0.91, "pooled": 0.92, "60 scenes of 1 to 8, 95 % hits": 0.9}


def bounds(kind, name):
    """Return what the true coverage may be; an exact interval may cover more than it says."""
    low, high = CLOSE
    return FLOORS.get(name, FLOORS.get(kind, low)), 1.0 if kind == "proportion" else high


@pytest.mark.parametrize("name", COVERAGE.SCENARIOS)
def test_an_interval_covers_as_often_as_it_says_and_is_no_wider_than_it_must(name):
    kind, draw = COVERAGE.SCENARIOS[name]
    covered, width = COVERAGE.judged(draw(np.random.default_rng(1), SETS[kind]))
    low, high = bounds(kind, name)
    error = 3 * np.sqrt(0.05 * 0.95 / SETS[kind])  # of a share of simulated data sets
    assert low - error <= covered <= high + error
    assert 0.9 - error <= width <= 1.25 + error


def test_every_population_is_stored_and_covered_within_its_bounds():
    assert list(STORED["data"]) == list(COVERAGE.SCENARIOS)
    for line in STORED.to_dict("records"):
        low, high = bounds(line["kind"], line["data"])
        error = 2 * np.sqrt(0.05 * 0.95 / line["data sets"])
        assert low - error <= line["coverage (%)"] / 100 <= high + error, line["data"]
