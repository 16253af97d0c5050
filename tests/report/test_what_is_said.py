"""What tables, figures and the page leave out or cannot tell apart, they say."""

import ast
import json

import numpy as np
import pandas as pd
import pytest
from repository import ROOT
from stored import CELLS, make_pictures, make_rows, run_json, store_run

from gradcam_bench.analysis.analysis import Analysis, analyse
from gradcam_bench.analysis.stored_run import Run
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.report import answers, tables, write
from gradcam_bench.report.sections import comparisons, how, scores

REPORT = sorted((ROOT / "gradcam_bench" / "report").rglob("*.py"))
COMPUTING = {
    "comparability", "comparison", "intervals", "intervals_pxap", "class_means", "paired_tests",
    "proportions", "published", "summary", "failures", "oracle_accuracy", "coincidence",
}  # fmt: skip


@pytest.mark.parametrize("path", REPORT, ids=lambda path: path.stem)
def test_nothing_in_report_imports_what_computes(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = {part for name in names if ".analysis" in name for part in name.split(".")}
    assert not parts & COMPUTING
    assert "gradcam_bench.analysis.best.comparison" not in names


def test_further_protocols_stand_in_every_table(tmp_path):
    rows = make_rows(20, cells=CELLS[1:])
    directory = store_run(tmp_path / "run", rows)
    told = write.finish(directory)
    for text in (
        told,
        (directory / "report.html").read_text(),
        (directory / "tables" / "headline.md").read_text(),
        (directory / "tables" / "headline.tex").read_text().replace("\\", ""),
    ):
        assert "@cam2016" in text or "@ cam2016" in text
    names = tables.headline_names(summarize(rows))
    at = names.index("gt_known_loc_err")
    assert names[at + 1] == "gt_known_loc_err@cam2016"


def tied():
    rows = make_rows()
    same = rows[rows["layer"] == "layer4"]
    rows = pd.concat([same, same.assign(method="hires_cam"), rows[rows["layer"] == "input"]])
    return Analysis((Run("m", None, rows, {"config": {}}, summarize(rows), pd.DataFrame()),))


def test_equal_methods_are_called_so_and_all_bold():
    analysis = tied()
    which, lead, *_ = answers.answers(analysis)
    assert "Indistinguishable by this metric on these images: grad_cam, layer4; hires_cam" in (
        which.text
    )
    assert lead.short == "indistinguishable from hires_cam, layer4"
    (said,) = answers.coinciding(analysis)
    assert said.startswith("Grad-CAM and HiResCAM coincide at layer4: before global average")
    two = pd.concat([analysis.summary, analysis.summary.assign(method="x", value=50.0)])
    bold = scores.headline(Analysis((Run("m", None, None, {}, two, pd.DataFrame()),)))
    place = [head["name"] for head in bold["heads"]].index("mean_box_iou")
    marks = {line["key"][0]: line["cells"][place]["best"] for line in bold["lines"]}
    assert not marks["random"]


def test_several_equal_values_are_bold():
    lines = [
        ("a", 0.5), ("b", 0.50000001), ("c", 0.3), ("d", 0.2), ("random", 0.9),
    ]  # fmt: skip
    frame = pd.DataFrame(
        [
            {"method": method, "layer": "l", "metric": "mean_box_iou", "value": value,
             "ci_low": 0.0, "ci_high": 1.0, "n": 5, "n_undefined": 0}
            for method, value in lines
        ]
    )  # fmt: skip
    found = scores.headline(Analysis((Run("m", None, None, {}, frame, pd.DataFrame()),)))
    marked = [line["key"][0] for line in found["lines"] if line["cells"][0]["best"]]
    assert marked == ["a", "b"]


def test_no_minus_zero_and_no_infinity_is_written():
    table = pd.DataFrame({"a": ["x"], "difference": [-0.0], "needed": [np.inf]})
    for text in (tables.to_markdown(table), tables.to_latex(table), tables.to_text(table)):
        assert "-0.0" not in text
        assert "inf" not in text
    assert "inf" not in tables.to_csv(table)
    for family in comparisons.tests(tied()):
        for line in family["lines"]:
            assert not {"-0.00", "inf", "nan"} & {str(value) for value in line.values()}


def test_an_incomplete_run_is_marked_and_told(tmp_path, capsys):
    rows = make_rows(12, cells=CELLS[1:])
    stored = run_json(n_images=60)
    stored["config"]["part_size"] = 12
    directory = store_run(tmp_path / "run", rows, run=stored, pictures=make_pictures(rows))
    write.main([str(directory)])
    assert capsys.readouterr().out.splitlines()[0] == "12 of 60 images, 4 parts missing"
    page = (directory / "report.html").read_text()
    assert "<strong>Incomplete:</strong> 12 of 60 images, 4 parts missing" in page
    (directory / "run.json").write_text(json.dumps(stored | {"n_images": 12}))
    assert how.incomplete(analyse([directory])) == []


def test_the_title_names_data_set_and_date(tmp_path):
    rows = make_rows(12, cells=CELLS[1:])
    stored = run_json(started="2026-11-20T10:00:00", n_images=12)
    found = analyse([store_run(tmp_path / "run", rows, run=stored)])
    assert (how.title(found), how.dates(found)) == ("resnet50 on ImageNet", "2026-11-20")
