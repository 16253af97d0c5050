import math

import pytest
from stored import make_rows, store_run

from gradcam_bench.analysis import curves
from gradcam_bench.analysis.analysis import analyse
from gradcam_bench.analysis.best import best_line, metrics_to_test
from gradcam_bench.analysis.metric import PERCENT, Metric, number_text
from gradcam_bench.analysis.metrics import (
    METRICS,
    ROLES,
    metric_of,
    metrics_with,
    names_of,
    names_with,
)
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.errors import UserError
from gradcam_bench.names import base_and_protocol, column_of
from gradcam_bench.report import tables

ERROR, SHARE = METRICS["gt_known_loc_err"], METRICS["mean_box_iou"]


@pytest.fixture
def toy(monkeypatch):
    """Register one record more, as a new line of a data module would."""
    record = Metric(
        name="toy", title="Toy", kind="mean", column="toy_column", better="higher",
        scale=PERCENT, source="defined here", wording="a column of these tests",
        roles=frozenset(ROLES),
    )  # fmt: skip
    monkeypatch.setitem(METRICS, "toy", record)
    return record


def test_a_metric_is_added_by_its_record_alone(toy, tmp_path):
    rows = make_rows(20, curves=False)
    rows["toy_column"] = rows["box_iou"] ** 2
    rows = rows.drop(columns=["gt_known_loc", "box_iou"])  # no judge comes before it
    (run,) = analyse([store_run(tmp_path / "run", rows)]).runs
    line = run.summary[(run.summary["metric"] == "toy") & (run.summary["layer"] == "layer4")]
    expected = rows.loc[rows["layer"] == "layer4", "toy_column"].mean()
    assert line["value"].item() == pytest.approx(100 * expected)
    assert "toy" in tables.headline(run.summary)
    assert best_line(run.summary)[0] is toy
    assert "toy" in metrics_to_test([run])
    found = analyse([run])
    assert found.best.metric is toy
    assert "toy" in found.tests
    assert "toy" in set(found.distributions[run.name]["metric"])
    for role in ROLES:
        assert "toy" in metrics_with(role)


def test_further_protocols_stand_after_the_plain_name():
    have = ["box_iou", "mean_box_iou@b", "loc_err_top1", "gt_known_loc_err@b", "mean_box_iou"]
    expected = ["gt_known_loc_err@b", "loc_err_top1", "mean_box_iou", "mean_box_iou@b"]
    assert names_with("headline", have) == expected
    assert names_of("mean_box_iou", have) == ["mean_box_iou"]  # one protocol is the first
    swept = ["max_box_acc@b", "max_box_acc", "max_box_acc_v2"]
    assert names_of("max_box_acc", swept) == ["max_box_acc", "max_box_acc@b"]


def test_roles_are_known_words_and_the_order_is_that_of_the_records():
    for metric in METRICS.values():
        assert metric.roles <= set(ROLES), metric.name
    for role in ROLES:
        names = metrics_with(role)
        assert names == [name for name in METRICS if name in names]
        assert names, f"no metric has the role {role!r}: drop it"
    with pytest.raises(UserError, match="no metric has the role 'heading'; the roles are: headl"):
        metrics_with("heading")


def test_what_is_drawn_as_a_distribution_or_tested_has_a_value_per_image():
    for name in {*metrics_with("distribution"), *metrics_with("tested"), *metrics_with("gallery")}:
        assert METRICS[name].kind in ("mean", "proportion")


def test_one_rounding_rule_serves_values_differences_and_intervals():
    assert ERROR.text(33.016) == "33.02 %"
    assert ERROR.number(33.016) == "33.02"
    assert ERROR.difference_text(-3.2) == "-3.20 points"
    assert ERROR.interval_text(28.8, 37.204) == "[28.80, 37.20]"
    assert ERROR.estimate_text(36.6, 32.4, 41) == "36.60 [32.40, 41.00]"
    assert SHARE.text(0.65314) == "0.6531"
    assert SHARE.difference_text(0.012) == "0.0120"


@pytest.mark.parametrize("tiny", [-1e-9, -0.0, 0.0, 1e-9, -0.0049])
def test_no_text_shows_a_negative_zero(tiny):
    assert ERROR.text(tiny) == "0.00 %"
    assert ERROR.difference_text(tiny) == "0.00 points"
    assert ERROR.interval_text(tiny, 1) == "[0.00, 1.00]"
    assert number_text(tiny, 2, sign=True) == "0.00"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_dash_without_a_unit(value):
    assert ERROR.text(value) == ERROR.difference_text(value) == ERROR.number(value) == "-"
    assert ERROR.estimate_text(value, value, value) == "-"
    assert ERROR.interval_text(value, 1) == "[-, 1.00]"


def test_signs_are_written_where_they_are_asked_for():
    assert number_text(0.126, 2, sign=True) == "+0.13"
    assert number_text(-0.126, 2, sign=True) == "-0.13"


def test_a_column_name_is_taken_apart_as_it_was_built():
    for base, protocol in (("gt_known_loc", "cam2016"), ("box_iou", "")):
        assert base_and_protocol(column_of(base, protocol)) == (base, protocol)
    assert column_of("gt_known_loc_err", "cam2016") == "gt_known_loc_err@cam2016"
    assert metric_of(column_of("gt_known_loc_err", "cam2016")) is ERROR


def test_a_scale_that_is_multiplied_keeps_its_range():
    summary = summarize(make_rows(20))
    for line in summary[summary["metric"].isin(METRICS)].to_dict("records"):
        metric = METRICS[line["metric"]]
        assert metric.low <= line["value"] <= metric.high


def test_distributions_are_of_the_rows_own_columns():
    rows = make_rows(10)
    found = curves.score_distributions(rows, [("grad_cam", "layer4")], ["mean_box_iou", "mask_iou"])
    assert set(found["metric"]) == {"mean_box_iou"}
    assert found["score"].tolist() == rows.loc[rows["layer"] == "layer4", "box_iou"].tolist()
