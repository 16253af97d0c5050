"""Which layer stands for a method, and which for a published number."""

import pandas as pd
import pytest
from stored import NODES, PROTOCOLS, make_rows, run_json

from gradcam_bench.analysis import published
from gradcam_bench.analysis.oracle_accuracy import oracle_differences
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.analysis.summary import summarize

CELLS = (
    ("grad_cam", "layer3"),
    ("grad_cam", "layer4"),
    ("grad_cam_plus_plus", "layer3"),
    ("grad_cam_plus_plus", "layer4"),
    ("center", "input"),
)
LEVELS = {"wsol_v1": 1, "wsol_v2": 3}


def hits(share, levels, n=20):
    """Return masks of n images, of which the first `share` are right at every level."""
    right, wrong = bytes([2**levels - 1]) * 256, bytes(256)
    return [right if i < share * n else wrong for i in range(n)]


def test_each_method_stands_at_its_best_layer_by_the_metric_that_is_compared():
    shares = {  # the best layers differ between methods and between metrics
        "wsol_v1": dict(zip(CELLS, (0.9, 0.6, 0.3, 0.5, 0.4), strict=True)),
        "wsol_v2": dict(zip(CELLS, (0.2, 0.8, 0.7, 0.1, 0.3), strict=True)),
    }
    rows = make_rows(20, cells=CELLS, sweep=True)
    for protocol, of_cells in shares.items():
        for cell, share in of_cells.items():
            mine = (rows["method"] == cell[0]) & (rows["layer"] == cell[1])
            masks = pd.Series(hits(share, LEVELS[protocol]), index=rows.index[mine])
            rows.loc[mine, f"iou_hits@{protocol}"] = masks
    summary = summarize(rows, protocols=PROTOCOLS)
    run = Run("m", None, rows, run_json(), summary, pd.DataFrame())
    for name, reference, others in (
        ("max_box_acc", "grad_cam, layer3", {"grad_cam_plus_plus, layer4": 50, "center": 40}),
        ("max_box_acc_v2", "grad_cam, layer4", {"grad_cam_plus_plus, layer3": 70, "center": 30}),
    ):
        found = oracle_differences([run], name, resamples=10)
        assert set(found["reference"]) == {reference}
        assert dict(zip(found["candidate"], found["value"], strict=True)) == pytest.approx(others)


def summary_of(*lines):
    columns = ["method", "layer", "metric", "value"]
    return pd.DataFrame(lines, columns=columns).assign(ci_low=0.0, ci_high=1.0, n=60)


MEASURED = summary_of(
    ("grad_cam", "layer2", "insertion_auc", 0.2),
    ("grad_cam", "layer3", "insertion_auc", 0.3),
    ("grad_cam", "layer4", "insertion_auc", 0.4),
    ("grad_cam", "layer4.2", "insertion_auc", float("nan")),
    ("random", "input", "insertion_auc", 0.1),
    ("center", "input", "insertion_auc", 0.15),
)


def told(monkeypatch, summary, model="resnet50", run=None, **changes):
    """Return our value and layer beside one published number of ResNet-50."""
    entry = {
        "suite": "s", "paper": "p", "dataset": "ilsvrc_val", "model": model,
        "model_in_paper": "ResNet-50", "method": "grad_cam", "layer": "", "protocol": "",
        "metric": "insertion_auc", "value": 0.5, "images": 60, "kind": "paper",
        "confidence": "read", "source": "here",
    }  # fmt: skip
    known = published.published().columns
    line = dict.fromkeys(known, "") | entry | changes
    monkeypatch.setattr(published, "published", lambda: pd.DataFrame([line])[list(known)])
    found = published.compare(summary, run or run_json(model))
    return [(line["ours"], line["layer"]) for line in found.to_dict("records")]


@pytest.mark.parametrize(
    ("layer", "ours"),
    [
        ("layer3", (0.3, "layer3")),
        ("", (0.4, "layer4")),
        ("conv5", (0.4, "layer4")),  # not run here: the deepest that was
        ("layer4.2", (0.4, "layer4")),  # run here, but undefined
    ],
)
def test_a_published_number_stands_beside_its_own_layer_or_else_the_deepest(
    monkeypatch, layer, ours
):
    assert told(monkeypatch, MEASURED, layer=layer) == [ours]


def test_a_published_number_without_a_method_stands_beside_no_control(monkeypatch):
    assert told(monkeypatch, MEASURED, method="") == [(0.4, "layer4")]
    assert told(monkeypatch, MEASURED, method="", layer="layer2") == [(0.2, "layer2")]
    assert told(monkeypatch, MEASURED[4:], method="") == []


def test_cam_is_grad_cam_at_the_layer_of_the_configuration_only(monkeypatch):
    assert told(monkeypatch, MEASURED, method="cam") == [(0.4, "layer4")]
    assert told(monkeypatch, MEASURED[:2], method="cam") == []
    assert told(monkeypatch, MEASURED, method="cam", model="densenet121") == []


def test_a_paper_s_protocol_is_read_from_the_columns_that_carry_its_name(monkeypatch):
    first, second = list(NODES)[:2]
    summary = summary_of(
        ("grad_cam", "layer4", "loc_err_top1", 50.0),
        ("grad_cam", "layer4", f"loc_err_top1@{second}", 40.0),
    )
    for protocol, value in ((first, 50.0), (second, 40.0), ("", 50.0), ("elsewhere", 50.0)):
        found = told(monkeypatch, summary, metric="loc_err_top1", protocol=protocol)
        assert found == [(value, "layer4")], protocol
