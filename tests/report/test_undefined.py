"""A score that is undefined, everywhere or in some cells, leaves the rest of a report standing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stored import CELLS, PROTOCOLS, make_pictures, make_rows, run_json, store_run

from gradcam_bench.analysis import comparison
from gradcam_bench.analysis.analysis import Analysis, analyse
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.errors import UserError
from gradcam_bench.report import answers, charts, html, write
from gradcam_bench.report.figures import catalogue, comparisons, style
from gradcam_bench.report.figures.gallery import gallery_cell

ALL = make_rows(8, cells=CELLS[1:3], classes=2, sweep=True).assign(
    mask_iou=0.3, energy_in_mask=0.4, discrimination_hit=1.0, discrimination_share=0.6,
    object_area=np.tile(np.linspace(0.1, 0.8, 8), 2), average_drop=0.2, road=0.1,
)  # fmt: skip
PICTURES = make_pictures(ALL, keep=3)
SCORES = [name for name in ALL if pd.api.types.is_float_dtype(ALL[name])]
STORED = [name for name in ALL if "_curve" in name or "iou_hits" in name]
NETWORK = ALL["method"] == "grad_cam"
EVERYWHERE = ALL["method"].notna()


def undefined(column, where):
    rows = ALL.copy()
    rows.loc[where, column] = np.nan if column in SCORES else None
    return rows


def as_run(rows, name="m"):
    summary = summarize(rows, protocols=PROTOCOLS, resamples=20)
    return Run(name, Path(name), rows, run_json(name), summary, PICTURES)


@pytest.fixture
def quick(monkeypatch):
    """Draw every figure, but turn none into pixels, which takes seconds."""
    monkeypatch.setattr(style, "png", lambda figure, dpi: b"")
    monkeypatch.setattr(charts, "_jpeg", lambda data: data)


@pytest.mark.parametrize("column", [*SCORES, *STORED])
def test_summary_figures_and_report_stand_where_the_network_has_no_score(column, quick):
    run = as_run(undefined(column, NETWORK))
    found = Analysis((run,))
    assert ">nan" not in html.render(found, {run.name: charts.run_charts(found)})
    for name in set(run.summary["metric"]):
        lines = run.summary[run.summary["metric"] == name].set_index("method")
        assert lines.loc["random", "n"] == 8


@pytest.mark.parametrize("column", [*SCORES, *STORED])
def test_a_column_that_is_undefined_everywhere_is_as_good_as_none(column, quick):
    run, bare = as_run(undefined(column, EVERYWHERE)), as_run(ALL.drop(columns=column))
    pd.testing.assert_frame_equal(run.summary, bare.summary)
    one, other = Analysis((run,)), Analysis((bare,))
    assert set(catalogue.run_figures(one)) == set(catalogue.run_figures(other))
    assert list(one.tests) == list(other.tests)


def test_a_network_without_any_energy_is_reported_beside_one_that_has_some(tmp_path):
    # Seen of a transformer whose maps were nowhere positive: only its controls had energy.
    rows = undefined("energy_in_box", NETWORK)
    stored = store_run(tmp_path / "run", rows, run=run_json("vit_b_16"), pictures=PICTURES)
    found = analyse([stored])
    assert "energy_in_box" not in found.tests  # one control is left, alone
    assert "Energy in box" in write.write_report(found, stored / "report.html").read_text()
    assert answers.answers(found)
    both = Analysis((*found.runs, as_run(ALL, "resnet50"))).tests["energy_in_box"]
    assert set(both["reference"]) == {"resnet50, grad_cam, layer4"}
    assert set(both["candidate"]) == {"resnet50, random", "vit_b_16, random"}


@pytest.mark.parametrize("column", ["gt_known_loc", "insertion_auc", "energy_in_box"])
def test_a_run_that_lacks_every_value_of_a_score_is_drawn_beside_others(column, quick):
    pair = Analysis((as_run(undefined(column, NETWORK), "vgg16"), as_run(ALL, "resnet50")))
    assert charts.joint_charts(pair)


def test_the_cost_of_every_run_is_set_against_the_score_that_all_have():
    rows = ALL.drop(columns=[name for name in ALL if "gt_known_loc" in name or "box_iou" in name])
    pair = Analysis((as_run(rows, "vgg16"), as_run(ALL, "resnet50")))
    figure = catalogue.drawn(catalogue.joint_figures(pair)["cost_vs_quality"])
    axes = figure.axes[0]
    assert "MaxBoxAcc" in axes.get_ylabel()
    for run, container in zip(pair.runs, axes.containers, strict=True):
        at = (run.summary["metric"] == "max_box_acc") & (run.summary["method"] == "grad_cam")
        assert container.lines[0].get_ydata() == run.summary.loc[at, "value"].to_numpy()


def test_candidates_without_any_value_are_no_comparison():
    values = {name: pd.Series([np.nan, np.nan], index=["a", "b"]) for name in ("x, l", "random")}
    with pytest.raises(UserError, match="no candidate has a defined value on the common images"):
        comparison.compare(values, "mean_box_iou")
    values["x, l"] = pd.Series([0.5, 0.6], index=["a", "b"])
    found = comparison.compare(values, "mean_box_iou")
    assert found.empty
    assert {"candidate", "p_holm", "n_undefined"} <= set(found.columns)


def test_the_gallery_shows_a_cell_that_has_scores():
    rows = make_rows(8, sweep=False, curves=False)
    pictures = make_pictures(rows, keep=3)
    assert gallery_cell(pictures, rows) == ("grad_cam", "layer4")
    rows.loc[rows["layer"] == "layer4", "box_iou"] = np.nan
    assert gallery_cell(pictures, rows) == ("grad_cam", "layer3")
    rows.loc[rows["layer"] == "layer3", "box_iou"] = np.nan
    assert gallery_cell(pictures, rows) == ("random", "input")
    rows["box_iou"] = np.nan
    assert gallery_cell(pictures, rows) is None


def test_a_layer_without_a_score_keeps_its_place_in_the_table_of_layers():
    summary = summarize(make_rows(8, curves=False))
    two = pd.concat([summary.assign(run="a"), summary.assign(run="b")])
    gone = (two["run"] == "a") & (two["layer"] == "layer3")
    two.loc[gone, ["value", "ci_low", "ci_high"]] = np.nan
    axes = comparisons.heat_table(two)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["layer3", "layer4"]
    assert axes.patches[0].get_xy() == (1, 0)
