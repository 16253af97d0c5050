"""IoU levels and intervals that no paper used, from stored rows to every place that tells them."""

import copy

import numpy as np
import pytest
from stored import CELLS, NODES, make_rows, run_json, store_run

from gradcam_bench import api
from gradcam_bench.analysis import curves as curves_of
from gradcam_bench.analysis import published
from gradcam_bench.analysis.analysis import Analysis
from gradcam_bench.analysis.best import best_line
from gradcam_bench.analysis.metrics import METRICS, described, oracle_name, split_name
from gradcam_bench.analysis.oracle_accuracy import oracle_differences
from gradcam_bench.analysis.split_scores import with_split_scores
from gradcam_bench.analysis.stored_run import load_run
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import protocol_of, run_protocols
from gradcam_bench.report import tables, write
from gradcam_bench.report.figures import catalogue, scores
from gradcam_bench.report.one_line import shows
from gradcam_bench.report.sections.scores import definitions
from gradcam_bench.run import loop

LEVELS = {"mine": ([0.25, 0.6], 0.07), "wsol_v1": ([0.3, 0.4], 0.001), "wsol_v2": ([0.5], 0.05)}
NAMES = {
    "mine": "max_box_acc_v2@mine",
    "wsol_v1": "max_box_acc_v2@wsol_v1",
    "wsol_v2": "max_box_acc@wsol_v2",
}
TOP = np.array([255, 200] * 30)


def nodes(levels=None):
    found = {"gradcam2017": copy.deepcopy(NODES["gradcam2017"]) | {"iou_levels": [0.4]}}
    for name, (iou_levels, interval) in (levels or LEVELS).items():
        swept = copy.deepcopy(NODES["wsol_v2"])
        found[name] = swept | {"name": name, "iou_levels": iou_levels, "interval": interval}
    return found


def overlaps():
    """Return the IoU of every image's box at each 8-bit level, by cell, (60, 256)."""
    rng = np.random.default_rng(5)
    found = {}
    for number, cell in enumerate(CELLS):
        best, spread = rng.random((60, 1)), rng.integers(40, 200, size=(60, 1))
        off = np.abs(np.arange(256) - spread) / 255
        found[cell] = np.clip(0.5 * best + 0.45 - 0.1 * number - off, 0, 1)
    return found


def swept_rows():
    rows = make_rows()
    rows = rows.drop(columns=[column for column in rows if column.endswith("@cam2016")])
    for name, (iou_levels, _) in LEVELS.items():
        bits = [
            sum((overlap >= level).astype(np.uint8) << k for k, level in enumerate(iou_levels))
            for overlap in overlaps().values()
        ]
        rows[f"iou_hits@{name}"] = [mask.tobytes() for mask in np.concatenate(bits)]
        rows[f"max_level@{name}"] = np.tile(TOP, len(CELLS))
    return rows


def curves(name, cell):
    """Return the protocol's thresholds and the percentage of right boxes at them, by IoU level."""
    iou_levels, interval = LEVELS[name]
    thresholds = np.arange(0, 1, interval)
    at = (thresholds * TOP[:, None]).astype(int)
    overlap = np.take_along_axis(overlaps()[cell], at, axis=1)
    return thresholds, [100 * (overlap >= level).mean(axis=0) for level in iou_levels]


def expected(name, cell):
    return np.mean([curve.max() for curve in curves(name, cell)[1]])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    stored = run_json()
    stored["config"]["protocols"] = nodes()
    return load_run(store_run(tmp_path_factory.mktemp("odd") / "run", swept_rows(), run=stored))


@pytest.mark.parametrize("protocol", LEVELS)
def test_summary_tests_and_figures_tell_the_same_accuracies(run, protocol):
    name = NAMES[protocol]
    values = run.summary[run.summary["metric"] == name].set_index(["method", "layer"])["value"]
    for cell in CELLS:
        assert values[cell] == pytest.approx(expected(protocol, cell))
    wide = tables.headline(run.summary)
    assert wide[name].tolist() == pytest.approx([expected(protocol, cell) for cell in CELLS])
    told = oracle_differences([run], name).set_index("candidate")
    best = expected(protocol, CELLS[0])  # overlaps fall from cell to cell
    for control in ("random", "center"):
        mine = expected(protocol, (control, "input"))
        assert told.loc[control, "value"] == pytest.approx(mine)
        assert told.loc[control, "difference"] == pytest.approx(mine - best)
    found = curves_of.threshold_curves(run.rows, CELLS[2:], [run.protocols[protocol]])
    axes = scores.accuracy_vs_threshold(found).axes
    panels = [ax for ax in axes if ax.get_visible()]
    assert [ax.get_ylabel() for ax in panels] == [
        f"boxes right at IoU {level} (%)" for level in LEVELS[protocol][0]
    ]
    for control in ("Random", "Center"):
        thresholds, shares = curves(protocol, (control.lower(), "input"))
        peaks = []
        for ax, share in zip(panels, shares, strict=True):
            (line,) = [line for line in ax.get_lines() if line.get_label() == control]
            np.testing.assert_allclose(line.get_xdata(), thresholds)
            np.testing.assert_allclose(line.get_ydata(), share)
            peaks.append(line.get_ydata().max())
        assert np.mean(peaks) == pytest.approx(values[(control.lower(), "input")])


def test_the_runs_own_figures_are_drawn_at_its_levels_and_interval(run):
    figures = catalogue.run_figures(Analysis((run,)))
    drawn = {name: catalogue.drawn(draw) for name, draw in figures.items()}
    first = drawn["accuracy_vs_threshold"].axes[0]  # of the first protocol that sweeps
    assert len(first.get_lines()[0].get_xdata()) == len(np.arange(0, 1, LEVELS["mine"][1]))
    (iou,) = drawn["accuracy_vs_iou"].axes
    assert list(iou.get_lines()[0].get_xdata()) == [0.4, 0.4]
    assert iou.get_xlabel() == "IoU asked for (dotted: 0.4)"


def test_the_report_names_the_levels_that_were_used(run, tmp_path):
    html = write.write_report([run], tmp_path / "report.html").read_text()
    for protocol, name in NAMES.items():
        levels = ", ".join(f"{level:g}" for level in LEVELS[protocol][0])
        assert f"{protocol} (IoU {levels}; oracle threshold: chosen on these images, in" in html
        assert name in html
        assert f"{expected(protocol, ('center', 'input')):.2f}" in html  # among the differences
    assert "in steps of 0.07)" in html
    assert "MaxBoxAcc, oracle @ wsol_v2" in html
    assert "mean over IoU 0.25, 0.6 of the boxes right at each level" in html
    assert "overlaps no true box by IoU 0.4" in html
    assert "IoU 0.3, 0.5, 0.7" not in html
    assert "by IoU 0.5" not in html


def test_the_best_cell_is_judged_by_an_accuracy_of_any_protocol(run):
    kept = run.summary["metric"].isin([*NAMES.values(), "insertion_auc"])
    metric, line = best_line(run.summary[kept])
    assert metric.name == line["metric"] == NAMES["wsol_v2"]
    assert shows(run.summary[kept]).startswith(
        "grad_cam at layer3 (best of 2 layers): MaxBoxAcc, oracle @ wsol_v2 "
    )


def test_what_papers_report_is_compared_with_their_levels_only(run):
    found = published.compare(run.summary, run.run, suite="wsol", any_model=True)
    assert found.empty
    assert len(published.compare(run.summary, run.run, suite="rise"))


def test_plain_names_belong_to_the_published_levels():
    standard = run_protocols({"config": {"protocols": NODES}})
    assert oracle_name(standard["wsol_v1"]) == "max_box_acc"
    assert oracle_name(standard["wsol_v2"]) == "max_box_acc_v2"
    assert split_name(standard["wsol_v1"]) == "box_acc_split"
    assert split_name(standard["wsol_v2"]) == "box_acc_v2_split"
    odd = run_protocols({"config": {"protocols": nodes()}})
    assert {name: oracle_name(odd[name]) for name in LEVELS} == NAMES
    assert split_name(odd["wsol_v2"]) == "box_acc_split@wsol_v2"
    assert split_name(odd["mine"]) == "box_acc_v2_split@mine"
    for name in NAMES.values():
        assert described(name, standard | odd).iou_levels == tuple(LEVELS[name.split("@")[1]][0])
    assert described("max_box_acc", standard) == METRICS["max_box_acc"]


def test_runs_whose_protocols_share_a_name_but_not_the_levels_are_not_compared(run, tmp_path):
    stored = run_json("vgg16")
    stored["config"]["protocols"] = nodes(LEVELS | {"mine": ([0.25, 0.7], 0.07)})
    other = load_run(store_run(tmp_path / "other", swept_rows(), run=stored))
    assert oracle_differences([run, other], NAMES["mine"]).empty
    assert len(oracle_differences([run, other], NAMES["wsol_v2"]))
    told = {metric.title: metric.definition for metric in definitions([run, other])}
    assert "mean over IoU 0.25, 0.6 of" in told["MaxBoxAccV2, oracle @ mine (resnet50)"]
    assert "mean over IoU 0.25, 0.7 of" in told["MaxBoxAccV2, oracle @ mine (vgg16)"]
    assert "boxes right at IoU 0.5" in told["MaxBoxAcc, oracle @ wsol_v2"]


def test_split_thresholds_are_named_by_the_runs_levels(run):
    chosen = {
        name: {"center": {"input": [0.2] * len(levels)}} for name, (levels, _) in LEVELS.items()
    }
    stored = run.run | {"thresholds": {"chosen": chosen}}
    rows = with_split_scores(run.rows, stored)
    added = set(rows.columns) - set(run.rows.columns)
    assert added == {"box_acc_v2_split@mine", "box_acc_v2_split@wsol_v1", "box_acc_split@wsol_v2"}
    summary = summarize(rows, protocols=run.protocols)
    assert set(tables.headline(summary).columns) > added
    center = summary[(summary["metric"] == "box_acc_split@wsol_v2") & (summary["n"] > 0)]
    at = (0.2 * TOP).astype(int)[:, None]
    overlap = np.take_along_axis(overlaps()[("center", "input")], at, axis=1)
    assert center["value"].tolist() == [pytest.approx(100 * (overlap >= 0.5).mean())]


def test_a_protocol_that_run_json_does_not_hold_whole_is_refused():
    with pytest.raises(UserError, match="does not hold protocol 'wsol_v1' as conf/protocol writes"):
        run_protocols({"config": {"protocols": {"wsol_v1": {"iou_levels": [0.5]}}}})
    assert run_protocols({}) == {}


def test_a_fixed_threshold_has_one_iou_level():
    with pytest.raises(UserError, match="iou_levels: expected one level: the threshold is fixed"):
        protocol_of(NODES["gradcam2017"] | {"iou_levels": [0.3, 0.5]})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["protocols.wsol_v2.name=wsol_v1"], "name=wsol_v1 is taken by another protocol"),
        (
            ["protocol=[wsol_v2]", "protocols.wsol_v2.name=wsol_v1"],
            r"protocols\.wsol_v1 is changed \(component is all, largest in conf/protocol/wsol_v1",
        ),
        (
            ["protocols.gradcam2017.threshold=0.3"],
            r"\(threshold is 0\.3, 0\.15 in conf/protocol/gradcam2017\.yaml\).*name=mine",
        ),
        (["protocols.wsol_v2.name='a@b'"], "expects letters, digits"),
    ],
)
def test_a_name_that_papers_use_stands_for_their_protocol_alone(tmp_path, overrides, message):
    config, _ = api.compose(overrides)
    with pytest.raises(UserError, match=message):
        loop.run(config, tmp_path / "run", command="gradcam-bench")
    assert not (tmp_path / "run").exists()


def test_a_changed_protocol_runs_under_a_name_of_its_own(tmp_path):
    changed = ["protocols.wsol_v2.iou_levels=[0.5]", "protocols.wsol_v2.name=half"]
    small = ["dataset.length=4", "faithfulness.enabled=false", "methods=[grad_cam]"]
    run = api.run([*changed, *small], output_dir=tmp_path / "run")
    assert list(run.protocols) == ["gradcam2017", "wsol_v1", "half"]
    assert run.protocols["half"].source.endswith(
        "; changed: iou_levels [0.5], [0.3, 0.5, 0.7] there"
    )
    assert "max_box_acc@half" in set(run.summary["metric"])
    assert "max_box_acc_v2" not in set(run.summary["metric"])
