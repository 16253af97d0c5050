import collections
import shutil

import numpy as np
import pandas as pd
import pytest
from stored import CELLS, PROTOCOLS, make_rows, run_json, store_run

from gradcam_bench.analysis import (
    analysis,
    best,
    coincidence,
    comparison,
    curves,
    failures,
    intervals,
    published,
    stored_run,
)
from gradcam_bench.analysis.analysis import Analysis, analyse
from gradcam_bench.analysis.best import best_cell, is_certain, with_ties
from gradcam_bench.analysis.coincidence import coinciding
from gradcam_bench.analysis.comparison import candidates, compare
from gradcam_bench.analysis.drawn_cells import drawn_cells
from gradcam_bench.analysis.summary import summarize

ANSWERS = [
    name
    for name, value in vars(Analysis).items()
    if not name.startswith("_") and not callable(value)
]
NETWORK = CELLS[1]


def run_of(rows, name="run", **changes):
    run = run_json(**changes)
    summary = summarize(rows, protocols=PROTOCOLS)
    return stored_run.Run(name, None, rows, run, summary, pd.DataFrame())


def ask(found):
    """Ask an analysis everything that a report may ask, and that of each run by itself."""
    for one in (found, *found.alone.values()):
        for name in ANSWERS:
            getattr(one, name)


# --- computed once


def test_every_answer_on_three_runs_is_computed_once(tmp_path, monkeypatch):
    calls = collections.Counter()

    def count(module, name):
        original = getattr(module, name)

        def counted(*args, **kwargs):
            calls[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    for name in ("read_rows", "summarize"):
        count(stored_run, name)
    for name in ("candidates", "compare"):
        count(best, name)
    for name in ("oracle_differences", "coinciding", "failures_of"):
        count(analysis, name)
    for name in (
        "faithfulness_curves", "threshold_curves", "iou_curves", "score_distributions",
    ):  # fmt: skip
        count(curves, name)
    count(published, "published")
    folders = [
        store_run(tmp_path / str(seed), make_rows(20, seed=seed, sweep=True), run=run_json(model))
        for seed, model in enumerate(("resnet50", "vgg16", "alexnet"))
    ]
    found = analyse(folders)
    ask(found)
    ask(found)
    together, tested = 4, len(found.tests)  # all runs, and each by itself
    assert tested == 5
    assert calls == {
        "read_rows": 3,
        "summarize": 3,
        "coinciding": 3,
        "failures_of": 3,
        "faithfulness_curves": 3,
        "threshold_curves": 3,
        "iou_curves": 3,
        "score_distributions": 3,
        "compare": tested * together,
        "candidates": tested * 2 * 3,
        "oracle_differences": len(found.oracle_differences) * together,
        "published": 2 * 3,  # of the same network, and of any
    }


def test_resamples_of_the_same_images_are_drawn_once(monkeypatch):
    drawn = []
    original = np.random.default_rng
    monkeypatch.setattr(
        intervals.np.random, "default_rng", lambda seed: drawn.append(seed) or original(seed)
    )
    first = intervals.resample_counts(123, seed=77)
    again = intervals.resample_counts(123, seed=77)
    assert drawn == [77]
    assert first is again
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 9
    groups = np.arange(246) % 123
    assert np.array_equal(intervals.resample_counts(246, groups=groups, seed=77), first[:, groups])
    assert drawn == [77]


# --- ties


def test_cells_that_are_not_certainly_worse_are_ties_of_the_best():
    rows = make_rows(60)
    copy = rows[rows["layer"] == "layer4"].assign(layer="layer4_again")
    found = Analysis((run_of(pd.concat([rows, copy], ignore_index=True)),))
    assert found.best.ties == ("grad_cam, layer4_again",)
    lines = found.compared("gt_known_loc_err").set_index("candidate")
    assert lines.loc["grad_cam, layer4_again", "difference"] == 0
    assert not is_certain(lines.loc["grad_cam, layer4_again"])
    assert is_certain(lines.loc["grad_cam, layer3"])


def test_a_control_is_no_tie_and_a_cell_that_is_certainly_worse_is_none():
    line = {"reference": "a, x", "p_holm": 0.5}
    compared = pd.DataFrame(
        [line | {"candidate": "b, x"}, line | {"candidate": "random"},
         line | {"candidate": "c, x", "p_holm": 0.049}]
    )  # fmt: skip
    found = best_cell([run_of(make_rows(20))])
    named = best.replace(found, cell=("a", "x"))
    assert with_ties(named, compared, several=False).ties == ("b, x",)
    assert with_ties(found, compared, several=False).ties == ()  # the reference is another
    named = best.replace(found, cell=("b", "x"))
    assert with_ties(named, compared, several=False).ties == ("a, x",)


def test_an_oracle_metrics_ties_are_told_by_intervals():
    rows = make_rows(20, sweep=True).drop(columns=["gt_known_loc", "box_iou"])
    rows = rows.drop(columns=[c for c in rows if c.startswith(("box_iou@", "gt_known_loc@"))])
    other = rows[rows["layer"] == "layer4"].assign(method="hires_cam")
    found = Analysis((run_of(pd.concat([rows, other], ignore_index=True)),))
    assert found.best.metric.kind == "oracle"
    assert found.best.ties == ("hires_cam, layer4",)


# --- methods that are equal


def test_methods_of_equal_scores_at_a_layer_coincide():
    rows = make_rows(30)
    layer4 = rows[rows["layer"] == "layer4"]
    nearly = layer4.assign(method="hires_cam", energy_in_box=layer4["energy_in_box"] + 1e-8)
    other = layer4.assign(method="layer_cam", energy_in_box=layer4["energy_in_box"] + 1e-4)
    joined = pd.concat([rows, nearly, other], ignore_index=True)
    (found,) = coinciding(joined)
    assert (found.layer, found.methods) == ("layer4", ("grad_cam", "hires_cam"))
    assert found.text(str.upper) == (
        "GRAD_CAM and HIRES_CAM coincide at layer4: before global average pooling and one linear "
        "layer they are equal by construction."
    )
    assert Analysis((run_of(joined),)).coincide == {"run": [found]}


@pytest.mark.parametrize(
    ("column", "difference", "images", "equal"),
    [
        ("box_iou", 0.1, 1, True),  # the last bit moved a pixel of one image in 150
        ("box_iou", 0.1, 2, False),
        ("deletion_auc", 1e-4, 150, True),  # the last bit changed the order of pixels
        ("insertion_auc", 1e-2, 150, False),
        ("energy_in_box", 1e-5, 150, False),
    ],
)
def test_equal_maps_may_differ_in_the_last_bit(column, difference, images, equal):
    rows = make_rows(150, cells=[NETWORK], curves=True)
    other = rows.assign(method="hires_cam")
    other.loc[other.index[:images], column] += difference
    assert bool(coinciding(pd.concat([rows, other], ignore_index=True))) is equal


def test_other_methods_that_coincide_are_not_said_to_have_to():
    rows = make_rows(30)
    same = rows[rows["layer"] == "layer4"].assign(method="layer_cam")
    (found,) = coinciding(pd.concat([rows, same], ignore_index=True))
    assert not found.by_construction
    assert found.text() == (
        "grad_cam and layer_cam coincide at layer4: their scores are equal, image by image."
    )


def test_nothing_coincides_where_nothing_was_measured():
    rows = make_rows(5)[["image_id", "method", "layer", "label", "error"]]
    assert coinciding(rows) == []
    undefined = make_rows(5)
    names = [m.column for m in coincidence.METRICS.values() if m.column in undefined]
    undefined.loc[undefined["method"] == "grad_cam", names] = np.nan
    same = undefined[undefined["layer"] == "layer4"].assign(method="hires_cam")
    assert coinciding(pd.concat([undefined, same], ignore_index=True)) == []


# --- what is drawn


MANY = [(f"method{m}", f"layer{n}") for m in range(9) for n in range(3)]


def test_many_methods_are_drawn_at_their_last_layer_the_first_ones_stay():
    found = drawn_cells(make_rows(1, cells=[*MANY, *CELLS[2:]], curves=False))
    assert found.cells == [(f"method{m}", "layer2") for m in range(4)] + list(CELLS[2:])
    assert found.left_out == 27 - 4


def test_the_best_and_the_asked_for_are_always_drawn():
    rows = make_rows(1, cells=[*MANY, *CELLS[2:]], curves=False)
    asked = [("method0", "layer0"), ("method8", "layer1")]
    found = drawn_cells(rows, always=asked)
    assert set(asked) <= set(found.cells)
    assert [cell for cell in found.cells if cell[0] == "method0"] == asked[:1]
    assert len(found.cells) == 6
    everything = drawn_cells(rows, always=MANY)
    assert everything.cells == [*MANY, *CELLS[2:]]
    assert everything.left_out == 0


def test_of_one_method_the_layers_nearest_to_the_output_are_drawn():
    cells = [("grad_cam", f"layer{n:02d}") for n in range(12)]
    found = drawn_cells(make_rows(1, cells=[*cells, *CELLS[2:]], curves=False), always=cells[:1])
    assert found.cells == [cells[0], *cells[-3:], *CELLS[2:]]
    assert found.left_out == 8


def test_the_layers_that_a_config_names_are_drawn(tmp_path):
    cells = [("grad_cam", f"layer{n:02d}") for n in range(12)]
    rows = make_rows(5, cells=[*cells, *CELLS[2:]], curves=False)
    config = {**run_json()["config"], "layers": ["layer01", "layer02"]}
    drawn = Analysis((run_of(rows, config=config),)).drawn["run"]
    assert {cells[1], cells[2]} <= set(drawn.cells)


def test_a_band_of_a_curve_is_the_bootstrap_of_its_images():
    rows = make_rows(30)
    found = curves.faithfulness_curves(rows, [NETWORK])
    deletion = found[found["kind"] == "deletion"]
    stored = np.stack(list(rows.loc[rows["layer"] == "layer4", "deletion_curve"]))
    counts = intervals.resample_counts(30, resamples=500)
    low, high = intervals.percentile_interval(intervals.bootstrap_means(stored, counts))
    assert np.allclose(deletion["mean"], stored.mean(axis=0))
    assert np.allclose(deletion[["low", "high"]], np.stack([low, high], axis=1))
    assert deletion["changed"].iloc[[0, -1]].tolist() == [0, 100]


def test_a_threshold_curve_peaks_at_the_summarys_oracle_accuracy():
    rows = make_rows(30, sweep=True)
    summary = summarize(rows, protocols=PROTOCOLS)
    for name, metric in (("wsol_v1", "max_box_acc"), ("wsol_v2", "max_box_acc_v2")):
        found = curves.threshold_curves(rows, [NETWORK], [PROTOCOLS[name]])
        assert found.groupby("level")["best"].sum().eq(1).all()
        at = (summary["metric"] == metric) & (summary["layer"] == "layer4")
        best_shares = found[found["best"]]["share"]
        assert best_shares.mean() == pytest.approx(summary[at]["value"].item())
    assert curves.threshold_curves(make_rows(3), [NETWORK], [PROTOCOLS["wsol_v1"]]).empty


# --- what is not defined


@pytest.mark.parametrize("columns", [["energy_in_box"], ["box_iou", "gt_known_loc"], "all"])
@pytest.mark.parametrize("where", ["everywhere", "in one cell"])
def test_scores_that_are_not_defined_leave_the_analysis_whole(columns, where, tmp_path):
    rows = make_rows(12, sweep=True)
    if columns == "all":
        columns = [c for c in rows if pd.api.types.is_float_dtype(rows[c])]
    at = np.ones(len(rows), bool) if where == "everywhere" else rows["layer"] == "layer4"
    rows.loc[at, columns] = np.nan
    found = analyse([store_run(tmp_path / "run", rows)])
    ask(found)
    for frame in found.tests.values():
        assert np.isfinite(frame[["difference", "ci_low", "ci_high", "p", "p_holm"]]).all(axis=None)


def test_runs_one_of_which_has_no_defined_energy_are_compared_by_the_rest(tmp_path):
    rows = make_rows(12)
    without = rows.assign(energy_in_box=np.nan)
    folders = [
        store_run(tmp_path / name, some, run=run_json(name))
        for name, some in (("one", rows), ("two", without))
    ]
    found = analyse(folders)
    ask(found)
    assert "energy_in_box" not in found.tests
    assert "mean_box_iou" in found.tests


def test_a_constant_or_absent_difference_has_no_infinite_number_and_no_negative_zero():
    series = candidates(make_rows(20), "mean_box_iou")["grad_cam, layer4"]
    found = compare({"a": series, "same": series, "less": series - 0.125}, "mean_box_iou")
    numbers = found.select_dtypes("number").to_numpy()
    assert not np.isinf(numbers).any()
    assert not np.signbit(numbers[numbers == 0]).any()
    errors = candidates(make_rows(20), "gt_known_loc_err")["grad_cam, layer4"]
    found = compare({"a": errors, "same": errors}, "gt_known_loc_err").iloc[0]
    assert not np.signbit(found["difference"])
    assert np.isnan(found["images_needed"])


def test_a_class_without_a_name_is_told_by_its_number():
    rows = make_rows(40, curves=False)
    found = failures.worst_classes(rows, NETWORK, class_names=["first"], limit=99)
    assert set(found["class"]) == {"first", *(f"class {number}" for number in range(1, 6))}


# --- names


def test_runs_of_one_model_are_named_by_what_differs(tmp_path):
    one = store_run(tmp_path / "one", make_rows(5, curves=False))
    two = shutil.copytree(one, tmp_path / "two")
    config = {**run_json()["config"], "layers": "all"}
    three = store_run(tmp_path / "three", make_rows(5, curves=False), run=run_json(config=config))
    names = [run.name for run in stored_run.load_runs([one, two])]
    assert names == ["resnet50 (one)", "resnet50 (two)"]
    names = [run.name for run in stored_run.load_runs([one, three])]
    assert names == ["resnet50", "resnet50, layers=all"]


def test_names_with_commas_still_tell_controls(tmp_path):
    config = {**run_json()["config"], "methods": ["random", "grad_cam"]}
    one = store_run(tmp_path / "one", make_rows(12, curves=False))
    two = store_run(tmp_path / "two", make_rows(12, curves=False), run=run_json(config=config))
    found = analyse([one, two])
    reference = found.compared("mean_box_iou")["reference"].iloc[0]
    assert reference.endswith("grad_cam, layer4")
    assert comparison.is_control(f"{found.runs[1].name}, random")
