"""Images that belong together are one piece of evidence, in every interval and every test."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from maps import blobs, histograms
from stored import PROTOCOLS, make_rows, run_json

import gradcam_bench
from gradcam_bench.analysis import (
    comparison,
    curves,
    intervals,
    oracle_accuracy,
    proportions,
    summary,
)
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.config import config_dir, register
from gradcam_bench.data.shapes import Shapes
from gradcam_bench.errors import UserError
from gradcam_bench.run import loop
from gradcam_bench.store.parts import read_rows
from gradcam_bench.store.rows import cells, group_codes, layout

N = 80
KEYS = ["method", "layer", "metric"]


@pytest.fixture(scope="module")
def rows():
    """Rows of every kind of metric."""
    found = make_rows(N, sweep=True)
    counts = [h.astype("<u2").tobytes() for h in histograms(*blobs(N))]
    found["pxap_counts"] = found["image_id"].map(
        dict(zip(found["image_id"][:N], counts, strict=True))
    )
    return found


def copied(rows, *, group=True):
    """Return the rows with a copy of every image, which is its group's second."""
    copies = rows.assign(image_id=rows["image_id"] + "-B")
    names = rows["image_id"] if group else None
    return pd.concat([rows.assign(group=names), copies.assign(group=names)], ignore_index=True)


def summarize(rows):
    return summary.summarize(rows, protocols=PROTOCOLS)


def run_of(rows):
    return Run("a", Path(), rows, run_json(), summarize(rows), pd.DataFrame())


def test_a_copy_of_every_image_in_its_group_narrows_no_interval(rows):
    one, two = summarize(rows), summarize(copied(rows))
    joined = one.merge(two, on=KEYS, suffixes=("", "_two"))
    joined = joined[joined["metric"] != summary.ERROR_RATE]
    assert set(joined["metric"]) >= {
        "gt_known_loc_err", "mean_box_iou", "pointing_hit_per_class", "max_box_acc", "pxap",
    }  # fmt: skip
    assert np.allclose(joined["value"], joined["value_two"])
    assert (joined["n_two"] == 2 * joined["n"]).all()
    width = joined["ci_high"] - joined["ci_low"]
    ratio = ((joined["ci_high_two"] - joined["ci_low_two"]) / width)[width > 0]
    assert ratio.between(0.96, 1.04).all()


def test_the_same_copies_without_a_group_narrow_every_interval(rows):
    one, two = summarize(rows), summarize(copied(rows, group=False))
    joined = one.merge(two, on=KEYS, suffixes=("", "_two"))
    width = joined["ci_high"] - joined["ci_low"]
    ratio = ((joined["ci_high_two"] - joined["ci_low_two"]) / width)[width > 0]
    assert ratio.median() == pytest.approx(np.sqrt(1 / 2), abs=0.05)


def test_groups_of_one_image_change_nothing(rows):
    own = rows.assign(group="scene of " + rows["image_id"])
    assert summarize(own).equals(summarize(rows))
    assert summarize(rows.assign(group=None)).equals(summarize(rows))
    for metric in ("gt_known_loc_err", "mean_box_iou"):
        a, b = (comparison.compare(comparison.candidates(r, metric), metric) for r in (own, rows))
        assert a.equals(b)


def test_the_order_of_grouped_rows_changes_no_interval_beyond_the_draws(rows):
    mixed = copied(rows).sample(frac=1, random_state=0)
    a, b = (summarize(r).set_index(KEYS) for r in (copied(rows), mixed))
    b = b.loc[a.index]
    exact = a.index.get_level_values("metric").isin(["gt_known_loc_err", "pointing_hit_per_class"])
    assert np.allclose(a.loc[exact, ["ci_low", "ci_high"]], b.loc[exact, ["ci_low", "ci_high"]])


@pytest.mark.parametrize("metric", ["gt_known_loc_err", "mean_box_iou", "energy_in_box"])
def test_a_copy_of_every_image_in_its_group_makes_no_difference_surer(rows, metric):
    one, two = (
        comparison.compare(comparison.candidates(r, metric), metric) for r in (rows, copied(rows))
    )
    assert np.allclose(one["difference"], two["difference"])
    assert np.allclose(one["ci_low"], two["ci_low"])
    assert np.allclose(one["ci_high"], two["ci_high"])
    assert np.allclose(one["effect"], two["effect"], rtol=0.01)
    assert set(two["test"]) == {"sign-flip permutation by group"}
    assert np.allclose(two["n"], 2 * one["n"])
    if metric != "gt_known_loc_err":  # else McNemar's test against the signs
        assert np.allclose(one["p"], two["p"])
        assert np.allclose(2 * one["images_needed"], two["images_needed"], atol=2)  # rounded up
    else:
        assert np.allclose(one["p"], two["p"], atol=0.02)


def test_the_oracles_difference_resamples_groups(rows):
    one = oracle_accuracy.oracle_differences([run_of(rows)], "max_box_acc_v2")
    two = oracle_accuracy.oracle_differences([run_of(copied(rows))], "max_box_acc_v2")
    columns = ["value", "difference", "ci_low", "ci_high"]
    assert np.allclose(one[columns], two[columns])
    assert (two["n"] == 2 * one["n"]).all()


def test_a_run_stored_without_groups_takes_those_of_a_run_that_has_them(rows):
    grouped = comparison.candidates(copied(rows), "mean_box_iou", run="new")
    old = comparison.candidates(copied(rows, group=False), "mean_box_iou", run="old")
    for values in (grouped | old, old | grouped):
        found = comparison.compare(values, "mean_box_iou")
        assert set(found["test"]) == {"sign-flip permutation by group"}
    assert set(comparison.compare(old, "mean_box_iou")["test"]) == {"sign-flip permutation"}


def test_the_bands_of_the_curves_resample_groups(rows):
    bands = []
    for table in (rows, copied(rows)):
        found = curves.faithfulness_curves(table, cells(table))
        bands.append(found[["low", "high"]].to_numpy())
    assert np.allclose(*bands)


def test_groups_are_read_by_image_and_an_image_alone_is_its_own():
    table = pd.DataFrame({"image_id": ["a", "b", "c", "a"], "group": ["s", None, "s", "s"]})
    assert group_codes(pd.Index(["a", "b", "c", "d"]), table).tolist() == [0, 1, 0, 2]
    assert group_codes(pd.Index(["a", "b"]), table) is None
    assert group_codes(pd.Index(["a", "c"]), table.drop(columns="group")) is None


def test_an_image_of_two_groups_is_refused(rows):
    wrong = copied(rows)
    wrong.loc[0, "group"] = "elsewhere"
    with pytest.raises(UserError, match="'image000' belongs to the groups 'elsewhere', 'image000'"):
        layout(wrong)


def test_whole_groups_are_drawn():
    groups = np.array([0, 1, 1, 2, 0, 2, 2])
    counts = intervals.resample_counts(7, groups=groups, resamples=50, seed=0)
    alone = intervals.resample_counts(3, resamples=50, seed=0)
    assert np.array_equal(counts, alone[:, groups])


def test_a_share_of_groups_that_always_agree_is_that_of_the_groups():
    hits, groups = np.repeat([1.0, 0.0, 1.0, 1.0] * 20, 5), np.repeat(np.arange(80), 5)
    found = proportions.estimate(hits, groups=groups)
    alone = proportions.estimate(hits[::5])
    assert (found.value, found.n) == (alone.value, 400)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.003)
    wilson = proportions.estimate(hits, groups=groups, method="wilson")
    assert found.low < wilson.low < wilson.high < found.high
    never = proportions.estimate(0 * hits, groups=groups)
    assert (never.low, never.high) == (0, pytest.approx(1 - 0.025 ** (1 / 80)))
    one = proportions.estimate(hits[:5], groups=groups[:5])
    assert (one.low, one.high) == (pytest.approx(0.025), 1)


def test_groups_never_say_more_than_their_images_would_alone():
    hits, groups = np.tile([1.0, 0.0], 50), np.repeat(np.arange(50), 2)  # always one of each two
    found, alone = proportions.estimate(hits, groups=groups), proportions.estimate(hits)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_every_resampling_of_the_package_says_which_images_belong_together():
    missing = []
    for path in Path(gradcam_bench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and "groups" not in {k.arg for k in node.keywords}:
                name = ast.unparse(node.func).rpartition(".")[2]
                if name in ("resample_counts", "sign_flip_p_values", "flipped"):
                    missing.append(f"{path.name}:{node.lineno}")
    assert not missing


# --- from the data set to the rows


def test_the_two_questions_about_a_scene_are_one_group():
    pair = Shapes(mode="pair", length=4)
    assert [pair[i].group for i in range(4)] == 2 * ["shapes-test-000000"] + 2 * [
        "shapes-test-000001"
    ]
    assert Shapes(length=1)[0].group is None


def test_a_run_stores_the_groups_and_resamples_scenes(tmp_path):
    register()
    small = ["++dataset.length=12", "dataset.mode=pair", "faithfulness.enabled=false"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("benchmark", overrides=[*small])
    loop.run(config, tmp_path, command="")
    rows = read_rows(tmp_path)
    assert (rows["image_id"].str[:-2] == rows["group"]).all()
    assert layout(rows).groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    by_scene = rows[rows["method"] == "center"].groupby("group")["box_iou"].mean()
    line = summarize(rows).set_index(["method", "metric"]).loc[("center", "mean_box_iou")]
    counts = intervals.resample_counts(6, resamples=1000, seed=0)
    low, high = intervals.percentile_interval(
        intervals.bootstrap_means(by_scene.to_numpy()[:, None], counts)
    )
    assert (line["ci_low"], line["ci_high"]) == pytest.approx((low[0], high[0]))
