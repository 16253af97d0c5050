"""Runs of ten small scenes, composed and computed as the command line does."""

from gradcam_bench.api import compose
from gradcam_bench.run import loop
from gradcam_bench.store.parts import read_rows

SMALL = [
    "++dataset.length=10",
    "part_size=4",
    "batch_size=3",
    "faithfulness.steps=6",
    "scoring=torch",
]


def config(*overrides):
    return compose([*SMALL, *overrides])[0]


def run(directory, *overrides):
    done = loop.run(config(*overrides), directory, command="gradcam-bench")
    return done, read_rows(directory)


def scores(rows):
    return rows.select_dtypes(float).to_numpy()
