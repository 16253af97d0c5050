import io
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot, rcParams
from matplotlib.figure import Figure
from PIL import Image
from stored import CELLS, PROTOCOLS, break_image, make_pictures, make_rows, run_json, store_run

from gradcam_bench.analysis import comparison, curves
from gradcam_bench.analysis.analysis import analyse
from gradcam_bench.analysis.metrics import metrics_with
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.errors import UserError
from gradcam_bench.report import charts, write
from gradcam_bench.report.figures import catalogue, comparisons, scores, style
from gradcam_bench.report.figures import gallery as photographs

ROWS = make_rows(sweep=True)
SUMMARY = summarize(ROWS, protocols=PROTOCOLS)
NETWORK = CELLS[1]


def swept(rows, protocol, cells):
    return curves.threshold_curves(rows, cells, [PROTOCOLS[protocol]])


def distributions(rows):
    return curves.score_distributions(rows, CELLS[1:], metrics_with("distribution"))


def write_figures(directory):
    return charts.save_charts(charts.run_charts(analyse([directory])), directory / "figures")


def drawn_line(ax, label):
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_accuracy_against_iou_is_the_share_of_boxes_at_least_that_good():
    ax = scores.accuracy_vs_iou(curves.iou_curves(ROWS, [NETWORK]))
    x, y = drawn_line(ax, "Grad-CAM")
    iou = ROWS.loc[ROWS["layer"] == "layer4", "box_iou"]
    assert y[0] == 100
    assert y[np.isclose(x, 0.5)][0] == pytest.approx(100 * (iou >= 0.5).mean())
    assert (np.diff(y) <= 0).all()


def test_accuracy_against_threshold_peaks_at_max_box_acc():
    (ax,) = scores.accuracy_vs_threshold(swept(ROWS, "wsol_v1", [NETWORK])).axes
    _, y = drawn_line(ax, "Grad-CAM")
    at = (SUMMARY["metric"] == "max_box_acc") & (SUMMARY["layer"] == "layer4")
    assert y.max() == pytest.approx(SUMMARY[at]["value"].iloc[0])


def test_faithfulness_curves_are_the_means_of_the_stored_curves():
    figure = scores.faithfulness_curves(curves.faithfulness_curves(ROWS, [NETWORK]))
    x, y = drawn_line(figure.axes[0], "Grad-CAM")
    stored = np.stack(list(ROWS.loc[ROWS["layer"] == "layer4", "deletion_curve"]))
    assert (x[0], x[-1]) == (0, 100)
    assert np.allclose(y, stored.mean(axis=0))


def test_layer_sweep_draws_every_layer_in_order_with_its_interval():
    figure = comparisons.layer_sweep(SUMMARY, metrics=["gt_known_loc_err"])
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["layer3", "layer4"]
    container = ax.containers[0]
    at = (SUMMARY["metric"] == "gt_known_loc_err") & (SUMMARY["method"] == "grad_cam")
    assert np.allclose(container.lines[0].get_ydata(), SUMMARY[at]["value"])
    (bars,) = container.lines[2]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    assert np.allclose(ends, SUMMARY[at][["ci_low", "ci_high"]])


def test_architectures_and_heat_table_show_every_run():
    two = pd.concat([SUMMARY.assign(run="a"), summarize(make_rows(seed=1)).assign(run="b")])
    ax = comparisons.architectures(two)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a\n(best of 2)", "b\n(best of 2)"]
    ax = comparisons.heat_table(two)
    texts = [text.get_text() for text in ax.texts]
    at = (two["metric"] == "gt_known_loc_err") & (two["method"] == "grad_cam")
    assert texts == [f"{v:.2f}" for v in two[at]["value"]]
    assert [patch.get_xy() for patch in ax.patches] == [(1, 0), (1, 1)]  # layer4 is the best


def test_layers_of_different_networks_stand_by_depth_and_the_best_by_name():
    other = summarize(make_rows(seed=1)).replace({"layer4": "head", "layer3": "stem"})
    ax = comparisons.heat_table(pd.concat([SUMMARY.assign(run="a"), other.assign(run="b")]))
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == ["a\nbest: layer4", "b\nbest: head"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2"]


def test_nothing_of_a_figure_is_cut_off_or_covered():
    names = ["grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam"]
    long = [f"features.denseblock4.denselayer{number}" for number in range(18)]
    pairs = [(name, layer) for name in names for layer in long] + list(CELLS[2:])
    rows = make_rows(6, cells=pairs, sweep=True)
    summary = summarize(rows, resamples=20, protocols=PROTOCOLS)
    tests = comparison.compare(comparison.candidates(rows, "gt_known_loc_err"), "gt_known_loc_err")
    models = [
        "efficientnet_lite0 (results/tried_on_tuesday/with_other_weights, seed=12345678)",
        "mobilenet_v3_large", "resnet50", "inception_v3", "c", "d",
    ]  # fmt: skip
    joint = pd.concat([summary.assign(run=name) for name in models])
    costs = pd.DataFrame(
        {
            "name": models,
            "metric": "gt_known_loc_err",
            "seconds": 1.0,
            "value": 3.0,
            "ci_low": 2,
            "ci_high": 4,
        }
    )
    deep = [pair for pair in pairs if pair[0] == "grad_cam"][-4:]
    for drawn in (
        comparisons.layer_sweep(summary), comparisons.heat_table(joint),
        comparisons.architectures(joint),
        comparisons.paired_differences(tests), comparisons.cost_vs_quality(costs),
        scores.accuracy_vs_threshold(swept(rows, "wsol_v1", deep), note="3 more are not drawn"),
        scores.accuracy_vs_threshold(swept(rows, "wsol_v2", deep)),
        scores.accuracy_vs_iou(curves.iou_curves(rows, deep)),
        scores.faithfulness_curves(curves.faithfulness_curves(rows, deep), note="3 more"),
    ):  # fmt: skip
        figure = drawn if isinstance(drawn, Figure) else style.figure_of(drawn)
        assert figure.get_figwidth() in (style.COLUMN, style.PAGE)
        figure.draw_without_rendering()
        whole = figure.bbox.padded(2)
        for ax in figure.axes:
            box = ax.get_tightbbox()
            assert whole.x0 <= box.x0 < box.x1 <= whole.x1
            assert whole.y0 <= box.y0 < box.y1 <= whole.y1
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert whole.x0 <= box.x0 < box.x1 <= whole.x1
            assert not any(box.overlaps(ax.bbox) for ax in figure.axes)


def test_line_figures_have_256_colours_and_photographs_all():
    pictures = make_pictures(ROWS)
    drawn = photographs.gallery(pictures, ROWS)
    assert style.has_photographs(drawn)
    plain = scores.score_distributions(distributions(ROWS))
    assert not style.has_photographs(plain)
    with Image.open(io.BytesIO(style.png(drawn, dpi=100))) as image:
        assert image.mode == "RGB"
    with Image.open(io.BytesIO(style.png(plain, dpi=100))) as image:
        assert image.mode == "P"
        few = np.asarray(image.convert("RGB"), dtype=int)
    buffer = io.BytesIO()
    with style.paper():
        plain.savefig(buffer, format="png", dpi=100)
    with Image.open(buffer) as image:
        assert np.abs(np.asarray(image.convert("RGB"), dtype=int) - few).mean() < 0.1


def test_paired_differences_fill_only_what_is_certain():
    tests = comparison.compare(comparison.candidates(ROWS, "mean_box_iou"), "mean_box_iou")
    tests.loc[0, "p_holm"] = 0.2
    ax = comparisons.paired_differences(tests)
    faces = [line.get_markerfacecolor() for line in ax.get_lines() if line.get_marker() == "o"]
    assert [face == "white" for face in faces] == [True, False, False]
    assert len(comparisons.paired_differences(tests, limit=2).get_yticks()) == 2


def test_cost_is_drawn_against_quality():
    costs = pd.DataFrame(
        {"name": ["a", "b"], "metric": "gt_known_loc_err",
         "seconds": [0.1, 0.3], "value": [40.0, 30.0],
         "ci_low": [35.0, 25.0], "ci_high": [45.0, 35.0]}
    )  # fmt: skip
    ax = comparisons.cost_vs_quality(costs)
    points = [container.lines[0].get_xydata()[0].tolist() for container in ax.containers]
    assert points == [[0.1, 40], [0.3, 30]]


def test_gallery_orders_pictures_from_best_to_worst():
    pictures = make_pictures(ROWS)
    figure = photographs.gallery(pictures, ROWS, columns=2)
    shown = [float(ax.get_title().split()[0]) for ax in figure.axes]
    kept = ROWS[ROWS["image_id"].isin(pictures["image_id"]) & (ROWS["layer"] == "layer4")]
    ordered = sorted(kept["box_iou"].round(2), reverse=True)
    assert shown[:2] == ordered[:2]
    assert shown[4:] == ordered[::-1][:2]


def test_stored_heatmap_is_upsampled_like_torch():
    torch = pytest.importorskip("torch")
    low = np.random.default_rng(0).integers(0, 256, size=(4, 5)).astype(np.uint8)
    ours = photographs.stored_heatmap(low.tobytes(), (4, 5), (32, 40))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(low / 255.0)[None, None], size=(32, 40), mode="bilinear"
    )[0, 0].numpy()
    assert np.abs(ours - theirs).max() < 1e-5


def test_an_overlay_leaves_the_picture_where_the_map_is_zero():
    picture = np.full((2, 2, 3), 100, np.uint8)
    mixed = photographs.blended(picture, np.array([[0.0, 1.0], [0.0, 0.5]]))
    assert (mixed[:, 0] == 100).all()
    assert (mixed[:, 1] != 100).any(axis=-1).all()


def test_figures_are_one_column_wide_and_leave_the_global_style_alone(monkeypatch):
    monkeypatch.setitem(rcParams, "font.size", 13)
    before = dict(rcParams)
    figure = scores.score_distributions(distributions(ROWS))
    assert figure.get_figwidth() == style.COLUMN
    assert dict(rcParams) == before
    assert not pyplot.get_fignums()


def test_colors_of_methods_differ_and_controls_are_grey():
    names = ["a", "b", "c", "d", "e", "random", "center"]
    colors = [style.color(names, name) for name in names]
    assert len(set(colors)) == len(names)
    for grey in colors[-2:]:
        assert grey[1:3] == grey[3:5] == grey[5:7]


def test_write_figures_writes_png_and_pdf_of_all_that_the_rows_allow(tmp_path):
    rows = break_image(ROWS, "image003", "image003.jpg: truncated")
    directory = store_run(tmp_path / "run", rows, pictures=make_pictures(rows))
    written = write_figures(directory)
    names = {path.stem for path in written}
    assert names == {
        "layer_sweep", "paired_differences", "score_distributions", "faithfulness_curves",
        "accuracy_vs_iou", "accuracy_vs_threshold", "gallery",
    }  # fmt: skip
    assert names <= set(catalogue.CAPTIONS)
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width == pytest.approx(300 * style.COLUMN, abs=2)
                assert np.asarray(image.convert("L")).std() > 5
        else:
            assert path.read_bytes().startswith(b"%PDF")


def test_a_run_without_faithfulness_boxes_or_pictures_still_has_figures(tmp_path):
    rows = make_rows(20, cells=CELLS[1:], curves=False)
    rows = rows.drop(columns=[c for c in rows if "box_" in c or "loc" in c])
    directory = store_run(tmp_path / "run", rows, run=run_json(config={}))
    assert {path.stem for path in write_figures(directory)} == {"score_distributions"}


def test_cells_without_a_defined_score_are_left_out_of_a_figure():
    rows = make_rows(8)
    rows.loc[rows["method"] == "random", ["deletion_curve", "insertion_curve", "box_iou"]] = None
    rows["box_iou"] = rows["box_iou"].astype(float)
    rows.at[8, "deletion_curve"] = np.full(29, np.nan)  # one undefined curve of grad_cam, layer4
    figure = scores.faithfulness_curves(curves.faithfulness_curves(rows, CELLS[1:]))
    labels = [line.get_label() for line in figure.axes[0].get_lines()]
    assert labels == ["Grad-CAM", "Center"]
    assert np.isfinite(drawn_line(figure.axes[0], "Grad-CAM")[1]).all()
    lines = scores.accuracy_vs_iou(curves.iou_curves(rows, CELLS[1:])).get_lines()
    assert [line.get_label() for line in lines][1:] == ["Grad-CAM", "Center"]


def test_what_cannot_be_drawn_says_what_is_missing():
    rows = make_rows(10, curves=False)
    with pytest.raises(UserError, match=r"no deletion curves: run with faithfulness\.enabled"):
        scores.faithfulness_curves(curves.faithfulness_curves(rows, CELLS))
    with pytest.raises(UserError, match="no threshold sweep: run with a protocol that sweeps"):
        scores.accuracy_vs_threshold(swept(rows, "wsol_v1", CELLS))
    with pytest.raises(UserError, match="the rows hold no scores"):
        scores.score_distributions(distributions(rows[:0]))
    with pytest.raises(UserError, match="the summary has no mask_iou; it has: "):
        comparisons.heat_table(SUMMARY, metric="mask_iou")
    with pytest.raises(UserError, match="no picture of cam at layer4 has a box_iou"):
        photographs.gallery(make_pictures(ROWS), ROWS, cell=("cam", "layer4"))


def test_a_caption_tells_that_there_was_no_prediction():
    line = {"label": 0, "predicted": float("nan"), "box_iou": 0.5}
    assert photographs._caption(line, "box_iou", ["tabby", "dog"]) == "0.50 tabby\nno prediction"
    assert photographs._caption(line | {"predicted": 1.0}, "box_iou", ["tabby", "dog"]).endswith(
        "dog"
    )


def test_no_figure_computes_and_each_is_drawn_and_encoded_once(tmp_path, monkeypatch):
    rows = make_rows(20, sweep=True)
    directory = store_run(tmp_path / "run", rows, pictures=make_pictures(rows))
    calls = Counter()

    def counted(name):
        original = getattr(style, name)

        def call(figure, **named):
            calls[name, id(figure)] += 1
            return original(figure, **named)

        monkeypatch.setattr(style, name, call)

    counted("png")
    counted("pdf")
    write.finish(directory)
    names = {path.stem for path in (directory / "figures").glob("*.png")}
    assert len(names) > 4
    assert [name for name, _ in calls].count("png") == len(names)
    assert [name for name, _ in calls].count("pdf") == len(names)
    assert set(calls.values()) == {1}


def test_a_note_counts_what_a_figure_leaves_out_and_the_best_is_always_drawn(tmp_path):
    pairs = [("grad_cam", f"layer{number}") for number in range(9)] + list(CELLS[2:])
    rows = make_rows(20, cells=pairs)
    rows.loc[rows["layer"] == "layer0", ["gt_known_loc", "box_iou"]] = 1.0
    found = analyse([store_run(tmp_path / "run", rows)])
    drawn = {name: catalogue.drawn(draw) for name, draw in catalogue.run_figures(found).items()}
    (legend,) = drawn["accuracy_vs_iou"].legends
    assert legend.get_title().get_text() == "5 more pairs of method and layer are not drawn"
    assert "Grad-CAM, layer0" in [text.get_text() for text in legend.get_texts()]
    assert drawn["score_distributions"].get_suptitle().startswith("5 more pairs")
    tests = found.tests["gt_known_loc_err"]
    ax = comparisons.paired_differences(tests, limit=2, always=["center"])
    assert "center" in [tick.get_text() for tick in ax.get_yticklabels()]
    assert ax.get_title(loc="right").startswith(f"{len(tests) - 3} farther ones not drawn")


def test_letters_that_the_cut_font_lacks_come_from_the_whole_one():
    with style.paper():
        figure, (ax,) = style.new_axes()
        ax.set_title("Жук ↓ é")
        figure.draw_without_rendering()  # a missing letter would warn
