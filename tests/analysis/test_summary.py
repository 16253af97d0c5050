from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from stored import CELLS, PROTOCOLS, break_image, make_rows

from gradcam_bench.analysis.metrics import METRICS, metric_of
from gradcam_bench.analysis.summary import ERROR_RATE, summarize
from gradcam_bench.errors import UserError
from gradcam_bench.report import tables
from gradcam_bench.store.rows import layout


def value(summary, metric, method="grad_cam", layer="layer4"):
    at = (summary["method"] == method) & (summary["layer"] == layer)
    return summary[at & (summary["metric"] == metric)].iloc[0]


def test_summary_is_tidy_with_the_documented_columns_and_controls_last():
    summary = summarize(make_rows())
    columns = ["method", "layer", "metric", "value", "ci_low", "ci_high", "n", "n_undefined"]
    assert list(summary.columns) == columns
    assert not summary.duplicated(["method", "layer", "metric"]).any()
    found = list(summary[["method", "layer"]].drop_duplicates().itertuples(index=False, name=None))
    assert found == list(CELLS)


def test_values_by_hand():
    rows = pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "d"],
            "label": [0, 0, 0, 1],
            "method": "grad_cam",
            "layer": "layer4",
            "error": None,
            "top1_correct": [1.0, 1.0, 0.0, 1.0],
            "gt_known_loc": [1.0, 0.0, 0.0, 0.0],
            "box_iou": [0.75, 0.25, 0.0, 0.0],
            "pointing_hit": [1.0, 1.0, 0.0, 0.0],
            "energy_in_box": [0.5, np.nan, 0.25, 0.75],
            "degenerate": [0.0, 0.0, 0.0, 1.0],
        }
    )
    summary = summarize(rows)
    assert value(summary, "cls_err_top1")["value"] == 25
    assert value(summary, "gt_known_loc_err")["value"] == 75
    assert value(summary, "mean_box_iou")["value"] == 0.25
    assert value(summary, "pointing_hit")["value"] == 0.5
    assert value(summary, "pointing_hit_per_class")["value"] == pytest.approx((2 / 3 + 0) / 2)
    energy = value(summary, "energy_in_box")
    assert (energy["value"], energy["n"], energy["n_undefined"]) == (0.5, 3, 1)
    assert value(summary, "degenerate_rate")["value"] == 0.25


def test_an_errors_interval_is_the_mirrored_interval_of_its_hits():
    summary = summarize(make_rows())
    error, rate = value(summary, "gt_known_loc_err"), value(summary, "pointing_hit")
    assert 0 <= error["ci_low"] <= error["value"] <= error["ci_high"] <= 100
    assert 0 <= rate["ci_low"] <= rate["value"] <= rate["ci_high"] <= 1


def test_order_of_rows_and_parts_changes_no_value():
    rows = make_rows()
    a = summarize(rows)
    b = summarize(rows.iloc[::-1])
    keys = ["method", "layer", "metric"]
    joined = a.merge(b, on=keys)
    assert len(joined) == len(a)
    assert np.allclose(joined["value_x"], joined["value_y"], equal_nan=True)
    exact = joined["metric"].isin(["gt_known_loc_err", "pointing_hit"])
    assert np.allclose(joined["ci_low_x"][exact], joined["ci_low_y"][exact])


def test_the_same_rows_give_the_same_intervals_and_another_seed_others():
    rows = make_rows()
    assert summarize(rows).equals(summarize(rows))
    other = summarize(rows, seed=1)
    assert (
        value(other, "mean_box_iou")["ci_low"] != value(summarize(rows), "mean_box_iou")["ci_low"]
    )


def test_broken_images_are_left_out_and_counted():
    rows = make_rows()
    without = summarize(rows[rows["image_id"] != "image003"])
    broken = summarize(break_image(rows, "image003", "image003.jpg: truncated"))
    for metric in ("gt_known_loc_err", "mean_box_iou", "insertion_auc"):
        assert value(broken, metric)["value"] == value(without, metric)["value"]
        assert value(broken, metric)["n"] == 59
    rate = value(broken, ERROR_RATE)
    assert (rate["value"], rate["n"]) == (1 / 60, 60)


def test_a_run_in_which_everything_broke_still_has_a_summary():
    rows = make_rows(3)[["image_id", "method", "layer"]].assign(error="gone")
    summary = summarize(rows)
    assert set(summary["metric"]) == {ERROR_RATE}
    assert (summary["value"] == 1).all()
    assert tables.headline(summary).shape == (4, 2)


def test_further_protocols_have_their_suffix():
    rows = make_rows()
    summary = summarize(rows)
    at = (rows["method"] == "grad_cam") & (rows["layer"] == "layer4")
    expected = 100 * (1 - rows.loc[at, "gt_known_loc@cam2016"].mean())
    assert value(summary, "gt_known_loc_err@cam2016")["value"] == pytest.approx(expected)
    assert metric_of("gt_known_loc_err@cam2016") is METRICS["gt_known_loc_err"]


def test_oracle_accuracies_are_the_best_threshold_written_out():
    rows = make_rows(40, sweep=True)
    summary = summarize(rows, protocols=PROTOCOLS)
    cell = rows[(rows["method"] == "grad_cam") & (rows["layer"] == "layer4")]
    masks = np.stack([np.frombuffer(mask, np.uint8) for mask in cell["iou_hits@wsol_v2"]])
    levels = [int(t * 255) for t in np.arange(0, 1, 0.001)]
    best = [((masks[:, levels] >> bit) & 1).mean(axis=0).max() for bit in range(3)]
    assert value(summary, "max_box_acc_v2")["value"] == pytest.approx(100 * np.mean(best))
    assert value(summary, "max_box_acc")["value"] == pytest.approx(100 * best[1])


def test_masks_stored_as_lists_count_like_bytes():
    rows = make_rows(10, sweep=True)
    lists = rows.assign(**{"iou_hits@wsol_v1": [list(m) for m in rows["iou_hits@wsol_v1"]]})
    one, two = (summarize(some, protocols=PROTOCOLS) for some in (rows, lists))
    assert one.equals(two)


def test_an_unknown_sweep_needs_its_protocol():
    rows = make_rows(10, sweep=True)
    renamed = rows.rename(columns=lambda c: c.replace("wsol_v1", "mine"))
    with pytest.raises(UserError, match="IoU levels of protocol 'wsol_v1' are not known"):
        summarize(rows)
    with pytest.raises(UserError, match="IoU levels of protocol 'mine' are not known"):
        summarize(renamed, protocols=PROTOCOLS)
    mine = replace(PROTOCOLS["wsol_v1"], name="mine")
    summary = summarize(renamed, protocols=PROTOCOLS | {"mine": mine})
    expected = value(summarize(rows, protocols=PROTOCOLS), "max_box_acc")["value"]
    assert value(summary, "max_box_acc@mine")["value"] == pytest.approx(expected)
    assert "max_box_acc" not in set(summary["metric"])
    assert "max_box_acc@mine" in tables.headline(summary)


def test_a_score_that_is_never_defined_is_no_zero():
    rows = make_rows()
    rows["mask_iou"] = np.nan
    rows.loc[(rows["method"] == "random"), "energy_in_box"] = np.nan
    summary = summarize(rows)
    assert "mask_iou" not in set(summary["metric"])
    random = value(summary, "energy_in_box", "random", "input")
    assert np.isnan(random["value"])
    assert (random["n"], random["n_undefined"]) == (0, 60)


def test_an_image_twice_in_a_cell_is_refused():
    rows = make_rows(5)
    with pytest.raises(UserError, match=r"'image000' has 2 rows for grad_cam, layer3"):
        summarize(pd.concat([rows, rows.iloc[:1]]))
    with pytest.raises(UserError, match="no rows to summarize"):
        summarize(rows.iloc[:0])


def test_a_cell_that_lacks_an_image_has_nan_there():
    rows = make_rows(4)
    matrix = layout(rows.iloc[1:]).matrix(rows.iloc[1:]["box_iou"])
    assert matrix.shape == (4, 4)
    assert np.isnan(matrix).sum() == 1


def test_headline_has_a_line_a_cell_and_a_column_a_metric():
    summary = summarize(make_rows())
    wide = tables.headline(summary)
    assert list(wide["method"]) == ["grad_cam", "grad_cam", "random", "center"]
    assert wide.loc[1, "mean_box_iou"] == value(summary, "mean_box_iou")["value"]
    text = tables.headline(summary, metrics=["gt_known_loc_err"], intervals=True)
    line = value(summary, "gt_known_loc_err")
    expected = f"{line['value']:.2f} [{line['ci_low']:.2f}, {line['ci_high']:.2f}]"
    assert text.loc[1, "gt_known_loc_err"] == expected
    with pytest.raises(UserError, match=r"the summary has no mask_iou; it has: .*cls_err_top1"):
        tables.headline(summary, metrics=["mask_iou"])


TABLE = pd.DataFrame(
    {"method": ["a|b", "c_d"], "mean_box_iou": [0.25, np.nan], "gt_known_loc_err": [12.345, 50.0]}
)


def test_markdown_by_hand():
    assert tables.to_markdown(TABLE) == (
        "| method   |   mean_box_iou |   gt_known_loc_err |\n"
        "|:---------|---------------:|-------------------:|\n"
        "| a\\|b     |         0.2500 |              12.35 |\n"
        "| c_d      |              - |              50.00 |\n"
    )


def test_latex_by_hand():
    assert tables.to_latex(TABLE) == (
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        "method & Box IoU & GT-known loc. error (\\%) \\\\\n"
        "\\midrule\n"
        "a|b & 0.2500 & 12.35 \\\\\n"
        "c\\_d & - & 50.00 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_csv_holds_every_digit(tmp_path):
    summary = summarize(make_rows())
    tables.to_csv(summary, tmp_path / "summary.csv")
    back = pd.read_csv(tmp_path / "summary.csv")
    assert np.array_equal(back["value"], summary["value"], equal_nan=True)


def test_text_turns_or_cuts_a_table_that_is_too_wide():
    wide = tables.headline(summarize(make_rows()))
    narrow = tables.to_text(wide, width=60)
    assert narrow.splitlines()[0].split() == ["method", "grad_cam", "grad_cam", "random", "center"]
    assert "mean_box_iou" in narrow
    many = pd.concat([wide] * 4, ignore_index=True)
    blocks = tables.to_text(many, width=60)
    assert max(map(len, blocks.splitlines())) <= 60
    assert blocks.count("method") > 1
    for metric in wide.columns[2:]:
        assert metric in blocks


def test_every_metric_says_what_it_is():
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.definition
        assert metric.source
        assert metric.low < metric.high
        assert metric.unit != "%" or metric.high == 100
    with pytest.raises(UserError, match="no metric is called 'iou'; there are: cls_err_top1"):
        metric_of("iou")
