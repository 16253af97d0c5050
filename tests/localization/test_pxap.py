"""PxAP from stored histograms: the reference's number, its interval, and what a run stores."""

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from maps import blobs, histograms
from stored import PROTOCOLS, make_rows

from gradcam_bench.analysis import intervals, intervals_pxap
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.config import config_dir, register
from gradcam_bench.localization import pxap
from gradcam_bench.report import tables
from gradcam_bench.run import loop
from gradcam_bench.store.parts import read_rows


def choe(maps, masks, interval=0.001):
    """Write out the evaluator of Choe et al. 2020: histograms with edges 0, ..., 1, 2, 3."""
    edges = np.append(np.arange(0, 1, interval), [1.0, 2.0, 3.0])
    true = sum(np.histogram(h[m].astype(float), edges)[0] for h, m in zip(maps, masks, strict=True))
    false = sum(
        np.histogram(h[~m].astype(float), edges)[0] for h, m in zip(maps, masks, strict=True)
    )
    tp, fp = true[::-1].cumsum(), false[::-1].cumsum()
    precision, recall = tp / np.maximum(tp + fp, 1), tp / true.sum()
    return float((precision[1:] * np.diff(recall)).sum())


def test_stored_histograms_give_the_references_number():
    maps, masks = blobs()
    pooled = histograms(maps, masks).sum(axis=0)
    assert pxap.pixel_average_precision(pooled) == pytest.approx(choe(maps, masks), abs=1e-12)


@pytest.mark.parametrize("interval", [0.001, 0.01, 0.3, 1 / 3, 1 / 49])
def test_a_score_on_an_edge_or_next_to_it_falls_into_the_right_bin(interval):
    edges = np.append(np.arange(0, 1, interval), 1.0)
    near = edges.astype(np.float32)
    scores = np.concatenate([near, np.nextafter(near, np.float32(2)), np.nextafter(near, -near)])
    scores = np.clip(scores, 0, 1)[None]
    place = np.searchsorted(edges, scores.astype(float), side="right") - 1
    found = pxap.score_histogram(scores, np.ones(scores.shape, bool), interval=interval)
    assert found[1].tolist() == np.bincount(place[0], minlength=len(edges)).tolist()
    assert not found[0].any()


@pytest.mark.parametrize("size", [200, 300])  # 300 x 300 pixels are more than 16 bits count
def test_a_histogram_comes_back_from_its_bytes(size):
    flat = np.zeros((size, size))
    mask = np.zeros(flat.shape, bool)
    mask[0, :5] = True
    stored = pxap.to_bytes(pxap.score_histogram(flat, mask))
    assert len(stored) == 2 * 1001 * (2 if size == 200 else 4)
    back = pxap.from_bytes([stored, stored])
    assert back.shape == (2, 2, 1001)
    assert back[1, :, 0].tolist() == [size * size - 5, 5]
    assert back.sum() == 2 * size * size
    assert pxap.to_bytes(pxap.score_histogram(flat, ~mask & mask)) is None


def test_the_interval_is_that_of_pooling_every_resample_over_all_bins():
    found = histograms(*blobs(80))
    counts = intervals.resample_counts(80, resamples=500, seed=0)
    whole = found.reshape(80, -1).astype(float)
    samples = [
        pxap.pixel_average_precision(pooled.reshape(2, -1))
        for pooled in counts.astype(float) @ whole
    ]
    low, high = np.percentile(samples, [2.5, 97.5])
    estimate = intervals_pxap.estimate(found, counts)
    assert estimate.value == pxap.pixel_average_precision(found.sum(axis=0))
    assert estimate.low == pytest.approx(low, abs=0.01 * (high - low))
    assert estimate.high == pytest.approx(high, abs=0.01 * (high - low))
    assert estimate.n == 80


def test_the_interval_covers_the_pxap_of_the_population():
    population = histograms(*blobs(4000, seed=1))
    truth = pxap.pixel_average_precision(population.sum(axis=0))
    counts = intervals.resample_counts(50, resamples=200, seed=0)
    covered = 0
    for start in range(0, 4000, 50):
        found = intervals_pxap.estimate(population[start : start + 50], counts)
        covered += found.low <= truth <= found.high
    assert 0.86 <= covered / 80 <= 1


def masked_rows(n=30):
    maps, masks = blobs(n)
    rows = make_rows(n)
    counts = [h.astype("<u2").tobytes() for h in histograms(maps, masks)]
    rows["pxap_counts"] = rows["image_id"].map(dict(zip(rows["image_id"][:n], counts, strict=True)))
    return rows, maps, masks


def pxap_lines(rows):
    summary = summarize(rows, protocols=PROTOCOLS)
    return summary[summary["metric"] == "pxap"].set_index(["method", "layer"])


def test_the_summary_pools_the_pixels_of_all_images_in_percent():
    rows, maps, masks = masked_rows()
    line = pxap_lines(rows).loc["grad_cam", "layer4"]
    assert line["value"] == pytest.approx(100 * choe(maps, masks))
    assert line["ci_low"] < line["value"] < line["ci_high"]
    assert (line["n"], line["n_undefined"]) == (30, 0)
    assert "pxap" in tables.headline(summarize(rows, protocols=PROTOCOLS))


def test_an_image_whose_mask_is_empty_takes_no_part_and_is_counted():
    rows, maps, masks = masked_rows()
    at = (rows["image_id"] == "image004") & (rows["layer"] == "layer4")
    rows.loc[at, "pxap_counts"] = None
    line = pxap_lines(rows).loc["grad_cam", "layer4"]
    left = [i for i in range(30) if i != 4]
    expected = choe([maps[i] for i in left], [masks[i] for i in left])
    assert line["value"] == pytest.approx(100 * expected)
    assert (line["n"], line["n_undefined"]) == (29, 1)


def test_order_of_rows_changes_no_value():
    rows, _, _ = masked_rows()
    mixed = pxap_lines(rows.sample(frac=1, random_state=0))["value"]
    pd.testing.assert_series_equal(mixed.sort_index(), pxap_lines(rows)["value"].sort_index())


def test_rows_without_masks_have_no_pxap():
    assert "pxap" not in set(summarize(make_rows(5))["metric"])


# --- what a run stores


def run(directory, *overrides):
    register()
    small = ["dataset.length=10", "part_size=4", "batch_size=3", "faithfulness.enabled=false"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("benchmark", overrides=[*small, *overrides])
    loop.run(config, directory, command="")
    return read_rows(directory)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


def test_every_pixel_is_counted_once_inside_or_outside_the_mask(whole):
    found = pxap.from_bytes(whole["pxap_counts"].tolist())
    assert set(found.sum(axis=(1, 2))) == {96 * 96}
    inside = whole.assign(inside=found[:, 1].sum(axis=1)).groupby("image_id")["inside"]
    assert (inside.nunique() == 1).all()  # every map of an image meets the same mask


@pytest.mark.parametrize("how", ["batch_size=1", "batch_size=8", "shards"])
def test_batches_and_shards_count_alike(whole, tmp_path, how):
    if how == "shards":
        run(tmp_path, "shard.count=2", "shard.index=1")
        rows = run(tmp_path, "shard.count=2", "shard.index=0")
    else:
        rows = run(tmp_path, how)
    assert rows["image_id"].tolist() == whole["image_id"].tolist()
    found, expected = (pxap.from_bytes(r["pxap_counts"].tolist()) for r in (rows, whole))
    # Sums in another order may carry a pixel over the edge of a bin, no more.
    moved = np.abs(found.cumsum(axis=2, dtype=int) - expected.cumsum(axis=2, dtype=int))
    assert moved.max() <= 2
    assert pxap_lines(rows)["value"].tolist() == pytest.approx(
        pxap_lines(whole)["value"].tolist(), abs=1e-3
    )


def test_the_map_is_that_of_the_first_protocol_that_sweeps(whole, tmp_path):
    alone = run(tmp_path / "a", "protocol=[wsol_v2]")
    assert alone["pxap_counts"].tolist() == whole["pxap_counts"].tolist()
    changed = ["protocols.wsol_v2.relu=before", "protocols.wsol_v2.name=with_relu"]
    other = run(tmp_path / "b", "protocol=[wsol_v2,wsol_v1]", *changed)
    cam = whole["method"] == "grad_cam"
    assert other["pxap_counts"][cam].tolist() != whole["pxap_counts"][cam].tolist()
    assert "pxap_counts" not in run(tmp_path / "c", "protocol=[gradcam2017]")
