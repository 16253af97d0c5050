"""docs/extend.md: its files are written, its commands run, and what they promise is looked at."""

import re
import runpy
import shlex
import sys

import pandas as pd
import pytest
from PIL import Image
from repository import ROOT

from gradcam_bench import __main__ as command_line
from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.analysis.stored_run import load_run
from gradcam_bench.report import tables
from gradcam_bench.report.figures import catalogue
from gradcam_bench.run.localization_columns import MAP_COLUMNS
from gradcam_bench.store.schema import COLUMNS

PAGE = (ROOT / "docs" / "extend.md").read_text()
BLOCKS = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
RECIPES = {
    title: BLOCKS.findall(text)
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
}


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Write the files of a recipe into an empty folder and run its commands there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

    def followed(title):
        for kind, text in RECIPES[title]:
            if kind == "bash":
                _run(monkeypatch, shlex.split(text))
                continue
            first, _, rest = text.partition("\n")
            path = tmp_path / re.fullmatch(r"# (\S+\.(?:py|yaml))", first)[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rest)
        return tmp_path

    kept = [(known, dict(known)) for known in (COLUMNS, METRICS, MAP_COLUMNS)]
    yield followed
    for known, before in kept:
        known.clear()
        known.update(before)
    for name in ("my_maps", "my_model", "my_scenes", "my_metric", "my_figure"):
        sys.modules.pop(name, None)


def _run(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", words)
    if words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
    else:
        assert words[0] == "gradcam-bench"
        command_line.main()


def test_the_page_has_the_six_recipes_and_each_says_where_it_stands_in_the_package():
    assert list(RECIPES) == [
        "A method", "A model", "A data set", "A protocol", "A metric", "A figure",
    ]  # fmt: skip
    assert PAGE.count("*In the package:*") == len(RECIPES)
    for path in re.findall(r"`((?:gradcam_bench|conf|docs|tests)/[\w./]+)`", PAGE):
        assert (ROOT / path).exists(), path
    for name in ("run_figures", "joint_figures", "CAPTIONS"):
        assert hasattr(catalogue, name)


def test_a_method_stands_in_rows_and_summary_and_a_figure_is_drawn(follow):
    folder = follow("A method")
    run = load_run(folder / "method")
    name = "my_maps:positive_gradients"
    assert set(run.rows["method"]) == set(run.summary["method"]) == {"grad_cam", name, "center"}
    assert set(run.rows.loc[run.rows["method"] == name, "layer"]) == {"layer4"}
    follow("A figure")
    with Image.open(folder / "my_figures" / "iou_against_size.png") as drawn:
        assert len(drawn.convert("RGB").getcolors(10**6)) > 20
    assert (folder / "my_figures" / "iou_against_size.pdf").stat().st_size > 1000


def test_a_model_runs_at_all_its_layers(follow):
    run = load_run(follow("A model") / "model")
    assert run.run["model"] == "mine"
    assert {"0", "0.1"} <= set(run.rows["layer"])
    assert run.rows["error"].isna().all()


def test_a_data_set_runs(follow):
    run = load_run(follow("A data set") / "dataset")
    assert list(run.rows["image_id"].unique()) == [f"square{i}" for i in range(8)]
    assert run.rows["box_iou"].notna().all()
    assert run.rows["error"].isna().all()


def test_a_protocol_has_columns_and_metrics_of_its_own(follow):
    run = load_run(follow("A protocol") / "protocol")
    assert (run.rows["box_iou@half"] != run.rows["box_iou"]).any()
    assert "gt_known_loc_err@half" in set(run.summary["metric"])


def test_a_metric_stands_in_rows_summary_and_headline(follow, capsys):
    folder = follow("A metric")
    rows = pd.concat(pd.read_parquet(path) for path in (folder / "metric/scores").glob("*.parquet"))
    assert rows["area_at_half"].between(0, 1).all()
    summary = load_run(folder / "metric").summary
    assert set(summary.loc[summary["metric"] == "area_at_half", "method"]) == set(rows["method"])
    assert "area_at_half" in tables.headline(summary)
    assert "area_at_half" in capsys.readouterr().out
