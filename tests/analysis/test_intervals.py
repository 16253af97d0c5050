import numpy as np
import pytest
from scipy import stats as scipy_stats
from stored import make_rows

from gradcam_bench.analysis import class_means, comparison, intervals, paired_tests, proportions
from gradcam_bench.errors import UserError
from gradcam_bench.localization import max_box_acc

# --- intervals


def test_resample_counts_draw_n_images_each_and_depend_on_the_seed_alone():
    counts = intervals.resample_counts(50, resamples=20, seed=3)
    assert (counts.sum(axis=1) == 50).all()
    assert np.array_equal(counts, intervals.resample_counts(50, resamples=20, seed=3))
    assert not np.array_equal(counts, intervals.resample_counts(50, resamples=20, seed=4))


def test_bootstrap_means_by_hand():
    values = np.array([[1.0, np.nan], [3.0, 4.0]])
    counts = np.array([[2, 0], [1, 1], [0, 2]], dtype=np.uint8)
    means = intervals.bootstrap_means(values, counts)
    assert np.array_equal(means, [[1, np.nan], [2, 4], [3, 4]], equal_nan=True)


def test_bootstrap_interval_is_scipys():
    values = np.random.default_rng(0).beta(0.6, 1.2, size=(200, 1))
    counts = intervals.resample_counts(200, resamples=8000, seed=1)
    low, high = intervals.percentile_interval(intervals.bootstrap_means(values, counts))
    theirs = scipy_stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=8000, method="percentile", rng=2
    ).confidence_interval
    width = theirs.high - theirs.low
    assert low[0] == pytest.approx(theirs.low, abs=0.04 * width)
    assert high[0] == pytest.approx(theirs.high, abs=0.04 * width)


def test_percentile_and_bca_intervals_are_close_from_100_images_on():
    values = np.random.default_rng(0).beta(0.5, 2, size=100)  # skewed, as energies are
    ends = [
        scipy_stats.bootstrap((values,), np.mean, n_resamples=20000, method=m, rng=2)
        for m in ("percentile", "BCa")
    ]
    a, b = (end.confidence_interval for end in ends)
    assert abs(a.low - b.low) < 0.08 * (a.high - a.low)
    assert abs(a.high - b.high) < 0.08 * (a.high - a.low)


def test_clopper_pearson_closed_forms():
    none = proportions.estimate(np.zeros(20))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 20))
    half = proportions.estimate(np.r_[np.ones(7), np.zeros(3), np.nan])
    assert (half.value, half.n, half.n_undefined) == (0.7, 10, 1)
    assert half.low == pytest.approx(scipy_stats.beta.ppf(0.025, 7, 4))
    assert half.high == pytest.approx(scipy_stats.beta.ppf(0.975, 8, 3))


def test_wilson_interval_is_narrower_than_the_exact_one():
    hits = np.r_[np.ones(30), np.zeros(70)]
    exact, wilson = (proportions.estimate(hits, method=m) for m in ("exact", "wilson"))
    assert exact.low < wilson.low < 0.3 < wilson.high < exact.high


def test_a_proportion_of_something_else_than_hits_is_refused():
    with pytest.raises(UserError, match=r"0 or 1; one is 0\.5"):
        proportions.estimate(np.array([0, 1, 0.5]))


def test_mean_of_class_means_by_hand():
    values = np.array([[1.0], [0.0], [1.0], [1.0], [np.nan]])
    classes = np.array([4, 4, 7, 7, 9])  # class 9 has no defined image: it takes no part
    (found,) = class_means.estimate(values, classes)
    assert (found.value, found.n, found.n_undefined) == (0.75, 4, 1)
    assert found.low <= 0.75 <= found.high


def test_the_variance_of_class_means_is_that_of_stratified_sampling():
    values, classes = np.random.default_rng(0).random(30), np.repeat([0, 1, 2], [5, 10, 15])
    parts = [values[classes == k] for k in range(3)]
    shares = np.array([part.var(ddof=1) / len(part) for part in parts]) / 9
    variance, freedom = class_means._variance(values, np.ones(30), classes, None)
    assert variance == pytest.approx(shares.sum())
    assert freedom == pytest.approx(shares.sum() ** 2 / (shares**2 / [4, 9, 14]).sum())
    (found,) = class_means.estimate(values[:, None], classes + 7)
    assert found.value == pytest.approx(np.mean([part.mean() for part in parts]))
    ends = proportions.wilson_interval(
        found.value,
        found.value * (1 - found.value) / variance,
        scipy_stats.t.ppf(0.975, freedom),
    )
    assert (found.low, found.high) == pytest.approx(ends)


def test_class_means_of_one_image_a_class_have_the_variance_of_a_mean_of_images():
    values = np.random.default_rng(0).random(40)
    (found,) = class_means.estimate(values[:, None], np.arange(40))
    error = values.std(ddof=1) / np.sqrt(40)
    low, high = proportions.wilson_interval(
        found.value, found.value * (1 - found.value) / error**2, scipy_stats.t.ppf(0.975, 39)
    )
    assert (found.low, found.high) == pytest.approx((low, high))


def test_class_means_that_do_not_vary_still_have_an_interval():
    hits, classes = np.ones((40, 1)), np.repeat(np.arange(4), 10)
    (found,) = class_means.estimate(hits, classes)
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(1 - 0.09, abs=0.01)  # Wilson, 40 hits of 40
    for values, labels in (([1.0], [3]), ([1.0, 0.0], [3, 3]), ([1.0, np.nan], [3, 4])):
        (found,) = class_means.estimate(np.array(values)[:, None], np.array(labels))
        assert 0 <= found.low < found.value <= found.high <= 1
        assert found.high - found.low > 0.7  # next to nothing is known
    (found,) = class_means.estimate(np.full((3, 1), np.nan), np.arange(3))
    assert (found.n, found.n_undefined) == (0, 3)
    assert np.isnan([found.value, found.low, found.high]).all()


def test_class_means_of_something_outside_0_to_1_are_refused():
    with pytest.raises(UserError, match=r"scores in \[0, 1\]; one is 1\.5"):
        class_means.estimate(np.array([[0.5], [1.5]]), np.array([0, 1]))


def test_resamples_that_hold_fewer_defined_images_are_divided_by_those():
    # 400 images, half of them undefined for one cell: as 200 images, not as 400 with 200 misses.
    rng = np.random.default_rng(0)
    hits = rng.random((400, 1)) < 0.5
    counts = intervals.resample_counts(400, resamples=2000, seed=0)
    half = intervals.best_threshold_estimate([hits[:200]], counts[:, :200])
    alone = intervals.best_threshold_estimate(
        [hits[:200]], intervals.resample_counts(200, resamples=2000, seed=1)
    )
    assert half.value == alone.value
    width = alone.high - alone.low
    assert half.low == pytest.approx(alone.low, abs=0.06 * width)
    assert half.high == pytest.approx(alone.high, abs=0.06 * width)
    by_hand = (counts[:, :200] @ hits[:200, 0].astype(float)) / counts[:, :200].sum(axis=1)
    low, high = np.percentile(by_hand, [2.5, 97.5])
    assert half.low == pytest.approx(2 * half.value - high)
    assert half.high == pytest.approx(2 * half.value - low)


def test_a_resample_without_a_defined_image_is_left_out():
    hits = np.array([[True]])
    counts = np.array([[0], [1], [2]], dtype=np.uint8)
    found = intervals.best_threshold_estimate([hits], counts)
    assert (found.value, found.low, found.high, found.n) == (1, 1, 1, 1)


# --- oracle thresholds


def test_a_threshold_means_another_level_on_a_darker_map():
    levels = max_box_acc.threshold_levels(np.array([255, 100, 0]), np.array([0, 0.25, 0.5, 0.75]))
    assert levels.tolist() == [[0, 63, 127, 191], [0, 25, 50, 75], [0, 0, 0, 0]]


def test_distinct_thresholds_leave_out_only_what_hits_alike():
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (40, 256), dtype=np.uint8)
    top = rng.choice([0, 101, 255], 40)
    thresholds = np.arange(0, 1, 0.001)
    every = max_box_acc.threshold_hits(masks, top, bit=0, thresholds=thresholds)
    kept = max_box_acc.distinct_thresholds(top, thresholds)
    assert 255 <= len(kept) < 360
    some = max_box_acc.threshold_hits(masks, top, bit=0, thresholds=kept)
    assert {column.tobytes() for column in some.T} == {column.tobytes() for column in every.T}


def test_threshold_hits_look_up_the_integer_part_of_threshold_times_maximum():
    masks = np.zeros((2, 256), np.uint8)
    masks[0, 100] = 0b10
    masks[1, 50] = 0b01
    half = np.array([0.0, 0.5])
    hits = max_box_acc.threshold_hits(masks, np.array([200, 100]), bit=1, thresholds=half)
    assert hits.tolist() == [[False, True], [False, False]]
    hits = max_box_acc.threshold_hits(masks, np.array([200, 100]), bit=0, thresholds=half)
    assert hits.tolist() == [[False, False], [False, True]]


def test_best_threshold_accuracy_is_the_maximum_over_thresholds_and_the_mean_over_levels():
    one = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]], dtype=bool)  # best: 3 of 4
    two = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], dtype=bool)  # best: 1 of 4
    counts = intervals.resample_counts(4, resamples=100, seed=0)
    found = intervals.best_threshold_estimate([one, two], counts)
    assert found.value == pytest.approx((0.75 + 0.25) / 2)
    assert found.low <= found.value <= found.high


def test_thresholds_that_cannot_win_are_left_out_without_changing_the_interval():
    rng = np.random.default_rng(0)
    centre = rng.normal(0.3, 0.08, size=(2000, 1))
    hits = np.abs(np.linspace(0, 1, 100) - centre) < 0.12
    counts = intervals.resample_counts(2000, resamples=200, seed=0)
    everything = intervals.bootstrap_means(hits.astype(float), counts).max(axis=1)
    value = hits.mean(axis=0).max()
    low, high = np.percentile(everything, [2.5, 97.5])
    found = intervals.best_threshold_estimate([hits], counts)
    assert found.low == pytest.approx(2 * value - high)
    assert found.high == pytest.approx(2 * value - low)
    assert intervals._contenders(hits).shape[1] < 40


# --- paired tests


def test_mcnemar_is_the_binomial_test_of_the_disagreements():
    x = np.r_[np.ones(8), np.zeros(2), np.ones(90)]
    y = np.r_[np.zeros(8), np.ones(2), np.ones(90)]
    found = paired_tests.mcnemar(x, y)
    assert found.p_value == pytest.approx(
        2 * sum(scipy_stats.binom.pmf(k, 10, 0.5) for k in (0, 1, 2))
    )
    assert found.difference == pytest.approx(0.06)
    assert found.effect == pytest.approx(0.3)
    assert paired_tests.mcnemar(x, x).p_value == 1


def test_sign_flip_p_value_is_scipys_permutation_test():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.6, 1, size=40), rng.normal(0, 1, size=40)
    theirs = scipy_stats.permutation_test(
        (x, y),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=9999,
        vectorized=True,
        rng=1,
    )
    assert paired_tests.sign_flip(x, y).p_value == pytest.approx(theirs.pvalue, abs=0.01)


def test_sign_flip_p_value_of_three_equal_signs_is_one_quarter():
    p_value = paired_tests.sign_flip_p_values(np.array([[1.0], [1.0], [1.0]]))[0]
    assert p_value == pytest.approx(0.25, abs=0.02)  # 2 of the 8 sign patterns are as extreme


def test_sign_flip_leaves_undefined_differences_out():
    rng = np.random.default_rng(0)
    values = rng.normal(0.4, 1, size=50)
    with_gaps = np.r_[values, np.full(30, np.nan)][:, None]
    p_values = (
        paired_tests.sign_flip_p_values(with_gaps)[0],
        paired_tests.sign_flip_p_values(values[:, None])[0],
    )
    assert p_values[0] == pytest.approx(p_values[1], abs=0.02)


def test_p_values_are_uniform_where_nothing_differs():
    rng = np.random.default_rng(0)
    p_values = paired_tests.sign_flip_p_values(rng.standard_t(3, size=(60, 400)), flips=999)
    assert 0.02 <= np.mean(p_values < 0.05) <= 0.09
    assert p_values.min() > 0


def test_holm_by_hand():
    adjusted = paired_tests.holm([0.01, 0.04, 0.03, 0.005, np.nan])
    assert np.allclose(adjusted, [0.03, 0.06, 0.06, 0.02, np.nan], equal_nan=True)
    assert paired_tests.holm([0.9, 0.8]).tolist() == [1, 1]


def test_images_needed_for_scores_is_the_textbook_number():
    differences = np.tile([1.5, -0.5], 200)  # mean 0.5, sd 1
    assert paired_tests.images_needed(differences) == pytest.approx(
        34, abs=1
    )  # paired t, d_z = 0.5
    assert paired_tests.images_needed(np.zeros(10)) == np.inf


def test_images_needed_for_hits_gives_the_power_it_promises():
    rng = np.random.default_rng(0)
    draw = [0.2, 0.7, 0.1]  # wins, ties, losses
    pilot = np.repeat([1, 0, -1], [200, 700, 100])
    n = int(paired_tests.images_needed(pilot, hits=True))
    found = 0
    for _ in range(300):
        wins, _, losses = rng.multinomial(n, draw)
        found += scipy_stats.binomtest(wins, wins + losses).pvalue < 0.05
    assert 0.72 <= found / 300 <= 0.88


def test_images_needed_counts_a_group_that_says_the_same_once():
    differences = np.random.default_rng(0).normal(0.2, 1, 200)
    alone = paired_tests.images_needed(differences)
    copies, groups = np.repeat(differences, 3), np.repeat(np.arange(200), 3)
    assert paired_tests.images_needed(copies, groups=groups) == pytest.approx(3 * alone, rel=0.01)
    own = paired_tests.images_needed(differences, groups=np.arange(200))
    assert own == alone


def test_flipping_groups_is_flipping_their_sums():
    rng = np.random.default_rng(0)
    differences, groups = rng.normal(0.1, 1, (60, 2)), rng.permutation(np.arange(60) % 20)
    sums = np.stack([differences[groups == g].sum(axis=0) for g in range(20)])
    found = paired_tests.sign_flip_p_values(differences, groups=groups, flips=999)
    assert np.allclose(found, paired_tests.sign_flip_p_values(sums, flips=999))


def test_p_values_of_groups_are_uniform_where_nothing_differs_and_of_images_are_not():
    rng = np.random.default_rng(0)
    hits = np.repeat(rng.integers(-1, 2, size=(40, 400)), 3, axis=0).astype(float)
    groups = np.repeat(np.arange(40), 3)
    grouped = paired_tests.sign_flip_p_values(hits, groups=groups, flips=499)
    assert 0.02 <= np.mean(grouped < 0.05) <= 0.09
    assert np.mean(paired_tests.sign_flip_p_values(hits, flips=499) < 0.05) > 0.15


# --- comparisons of cells and runs


def test_the_reference_is_the_best_candidate_that_is_no_control():
    rows = make_rows()
    found = comparison.compare(comparison.candidates(rows, "gt_known_loc_err"), "gt_known_loc_err")
    assert set(found["reference"]) == {"grad_cam, layer4"}
    assert list(found["candidate"]) == ["grad_cam, layer3", "random", "center"]
    assert (found["difference"] > 0).all()  # every other has the larger error
    assert (found["ci_low"] <= found["difference"]).all()
    assert (found["difference"] <= found["ci_high"]).all()
    assert (found["p_holm"] >= found["p"]).all()


def test_a_difference_of_errors_is_minus_the_difference_of_hits_in_points():
    rows = make_rows()
    found = comparison.compare(comparison.candidates(rows, "loc_err_top1"), "loc_err_top1")
    hits = rows.pivot(index="image_id", columns=["method", "layer"], values="top1_loc").mean()
    expected = -100 * (hits["random", "input"] - hits["grad_cam", "layer4"])
    line = found.set_index("candidate").loc["random"]
    assert line["difference"] == pytest.approx(expected)
    assert line["effect"] > 0


def test_a_cell_compared_with_its_own_copy_differs_by_nothing():
    series = comparison.candidates(make_rows(), "mean_box_iou")["grad_cam, layer4"]
    found = comparison.compare({"a": series, "b": series}, "mean_box_iou").iloc[0]
    assert (found["difference"], found["p"]) == (0, 1)
    assert np.isnan(found["images_needed"])  # no number of images shows a difference of zero


def test_order_of_rows_does_not_change_a_comparison():
    rows = make_rows()
    mixed = rows.sample(frac=1, random_state=0)
    a, b = (
        comparison.compare(comparison.candidates(r, "mean_box_iou"), "mean_box_iou").set_index(
            "candidate"
        )
        for r in (rows, mixed)
    )
    assert np.allclose(a["difference"], b.loc[a.index, "difference"])


def test_different_images_are_refused_or_joined_and_counted():
    one = comparison.candidates(make_rows(60), "mean_box_iou", run="one")
    two = comparison.candidates(make_rows(40, seed=1), "mean_box_iou", run="two")
    with pytest.raises(UserError, match=r'40 in common, 20 not.*unmatched="common"'):
        comparison.compare(one | two, "mean_box_iou")
    found = comparison.compare(one | two, "mean_box_iou", unmatched="common")
    assert set(found["n"]) == {40}
    assert set(found["n_left_out"]) == {20}
    other = two["two, random"].rename(lambda image_id: "other" + image_id)
    with pytest.raises(UserError, match="no image in common"):
        comparison.compare(
            {"a": one["one, random"], "b": other}, "mean_box_iou", unmatched="common"
        )


def test_undefined_scores_are_left_out_of_their_pair_and_counted():
    rows = make_rows()
    rows.loc[rows.index[:5], "energy_in_box"] = np.nan  # of grad_cam, layer3
    found = comparison.compare(comparison.candidates(rows, "energy_in_box"), "energy_in_box")
    lines = found.set_index("candidate")
    assert lines.loc["grad_cam, layer3", ["n", "n_undefined"]].tolist() == [55, 5]
    assert lines.loc["random", ["n", "n_undefined"]].tolist() == [60, 0]


def test_what_cannot_be_paired_is_refused():
    rows = make_rows()
    for metric, why, instead in (
        ("max_box_acc", "its threshold is the best for all images together", "box_acc_split"),
        ("max_box_acc_v2@mine", "its threshold is the best", "thresholds_from=DIR"),
        ("pointing_hit_per_class", "it is a mean over classes", "pointing_hit"),
        ("pxap", "it ranks the pixels of all images together", "energy_in_mask or mask_iou"),
    ):
        with pytest.raises(UserError) as error:
            comparison.candidates(rows, metric)
        assert f"{metric} has no value per image ({why}" in str(error.value)
        assert instead in str(error.value)
    with pytest.raises(UserError, match="no metric is called 'box_uoi'"):
        comparison.candidates(rows, "box_uoi")
    with pytest.raises(UserError, match="hold no mask_iou"):
        comparison.candidates(rows, "mask_iou")
    values = comparison.candidates(rows, "mean_box_iou")
    with pytest.raises(UserError, match=r"no candidate is called 'layer5'.*grad_cam, layer4"):
        comparison.compare(values, "mean_box_iou", reference="layer5")
    with pytest.raises(UserError, match="needs two candidates; given: random"):
        comparison.compare({"random": values["random"]}, "mean_box_iou")


def test_a_candidate_without_any_value_has_no_line_and_none_at_all_is_refused():
    values = comparison.candidates(make_rows(), "energy_in_box")
    nothing = values["random"] * np.nan
    found = comparison.compare(values | {"random": nothing}, "energy_in_box")
    assert list(found["candidate"]) == ["grad_cam, layer3", "center"]
    assert found["p_holm"].notna().all()
    # The best of those that have a value: a control, where no other does.
    only = {"a": nothing, "random": nothing, "center": values["center"]}
    empty = comparison.compare(only, "energy_in_box")
    assert empty.empty
    assert list(empty.columns) == list(comparison.compare(values, "energy_in_box").columns)
    with pytest.raises(UserError, match="no candidate has a defined value on the common images"):
        comparison.compare({"a": nothing, "b": nothing}, "energy_in_box")


def test_one_common_image_is_compared_without_a_spread():
    values = comparison.candidates(make_rows(1), "mean_box_iou")
    found = comparison.compare(values, "mean_box_iou")
    assert set(found["n"]) == {1}
    assert found["images_needed"].isna().all()
    assert found["p"].eq(1).all()
