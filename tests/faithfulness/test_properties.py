"""What no input may change: only the order of a map counts, and no image sees its neighbours."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from perturber import Perturber
from toys import Residual

from gradcam_bench.faithfulness.baselines import pixel_rank
from gradcam_bench.faithfulness.curves import Options
from gradcam_bench.faithfulness.scorers import TorchScorer
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.names import Ties
from gradcam_bench.store.parts import Store

SIZE = 8
PIXELS = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", SIZE)
IDS = ["a", "b", "c", "d", "e"]


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.int8, (2, 5, 6), elements=st.integers(0, 9)),
    arrays(np.float32, 10, elements=st.floats(0.125, 8, width=32)),
    st.sampled_from(Ties),
)
def test_ranks_depend_on_the_order_of_the_values_alone(levels, steps, ties):
    values = np.cumsum(steps)[levels]  # any strictly increasing function of ten levels
    ranks = [
        pixel_rank(torch.from_numpy(maps.astype(np.float32)), ties=ties, image_ids=IDS[:2], seed=3)
        for maps in (levels, values)
    ]
    assert torch.equal(*ranks)
    for rank, level in zip(ranks[0], levels, strict=True):
        in_order = level.ravel()[rank.ravel().argsort().numpy()]
        assert (np.diff(in_order) <= 0).all()
        assert sorted(rank.ravel().tolist()) == list(range(30))


@cache
def scorer():
    return TorchScorer(Residual().eval())


def all_scores(images, maps, targets, ids, batch_size, options):
    perturber = Perturber(scorer(), PIXELS, options, batch_size=batch_size, seed=7)
    curves = perturber.curves(images, maps, targets, ids)
    confidence = perturber.confidence(images, maps, targets)
    return [curves.deletion, curves.insertion, *(confidence[k][..., None] for k in confidence)]


@settings(deadline=None, max_examples=20)
@given(
    st.permutations(range(5)),
    st.integers(1, 5),
    st.integers(1, 40),
    st.sampled_from(Ties),
    st.sampled_from(["zeros", "noise", "blur"]),
)
def test_no_score_depends_on_batch_size_order_or_neighbours(order, kept, batch, ties, start):
    g = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, SIZE, SIZE, generator=g)
    maps = torch.randn(5, 2, SIZE, SIZE, generator=g).relu()
    targets = torch.tensor([0, 1, 2, 3, 0])
    options = Options(steps=6, ties=ties, insertion_baseline=start, deletion_baseline=start)
    whole = all_scores(images, maps, targets, IDS, 16, options)
    some = order[:kept]
    part = all_scores(
        images[some], maps[some], targets[some], [IDS[i] for i in some], batch, options
    )
    for a, b in zip(part, whole, strict=True):
        torch.testing.assert_close(a, b[some], atol=1e-5, rtol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.integers(1, 30), st.integers(1, 7))
def test_shards_hold_every_image_once(images, part_size, count):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(
            Path(folder) / "out", {"config_hash": "x"}, n_images=images, part_size=part_size
        )
        held = [
            index
            for shard in range(count)
            for part in store.missing_parts(shard, count)
            for index in store.images_of(part)
        ]
    assert sorted(held) == list(range(images))


def test_average_gain_and_increase_agree_about_who_gained():
    g = torch.Generator().manual_seed(1)
    images = torch.randn(5, 3, SIZE, SIZE, generator=g)
    maps = torch.rand(5, 2, SIZE, SIZE, generator=g)
    found = Perturber(scorer(), PIXELS).confidence(images, maps, torch.tensor([0, 1, 2, 3, 0]))
    gained = found["increase_in_confidence"] == 1
    assert torch.equal(gained, found["average_gain"] > 0)
    assert torch.equal(gained, found["log_odds_drop"] < 0)
    assert not (gained & (found["average_drop"] > 0)).any()
    assert gained.any()
