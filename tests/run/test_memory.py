"""Memory stays where the second batch left it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import evaluation
from perturber import Perturber
from toys import Residual

from gradcam_bench import GradCAM, api
from gradcam_bench.config import bind
from gradcam_bench.faithfulness.curves import Options
from gradcam_bench.faithfulness.scorers import TorchScorer
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.run.batches import Batch, Item

SIZE, BATCH, BATCHES = 224, 4, 50
STATM = Path("/proc/self/statm")


def resident():
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def a_batch(number):
    rng = np.random.default_rng(number)
    box = np.array([[40.0, 50.0, 160.0, 170.0]])
    items = [
        Item(
            BATCH * number + i,
            f"{number}-{i}",
            # Coarse, so that maps have few components: per-pixel noise has thousands.
            image=rng.integers(0, 256, (7, 7, 3), dtype=np.uint8).repeat(32, 0).repeat(32, 1),
            label=i % 4,
            boxes=box,
            view=(SIZE, SIZE),
            view_boxes=box,
        )
        for i in range(BATCH)
    ]
    images = torch.from_numpy(np.stack([item.image for item in items])).permute(0, 3, 1, 2)
    return Batch(items, images)


@pytest.mark.skipif(not STATM.exists(), reason="reads /proc/self/statm, which only Linux has")
def test_fifty_batches_leave_nothing_behind():
    network = Residual().eval()
    pixels = Preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3, "bilinear", SIZE)
    config, _ = api.compose(["protocol=[gradcam2017]"])
    evaluate = evaluation(
        GradCAM(network, "last_relu"),
        pixels,
        methods=["grad_cam", "random"],
        protocols=[bind(node, name)() for name, node in config.protocols.items()],
        perturber=Perturber(TorchScorer(network), pixels, Options(steps=2)),
    )
    rows = []
    for number in range(BATCHES + 2):
        rows += evaluate(a_batch(number), set()).rows()
        if number == 1:
            start = resident()
    assert len(rows) == BATCH * (BATCHES + 2)
    # One batch's images alone, kept by mistake, are 2.4 MB: fifty of them 120.
    assert resident() - start < 50e6
