"""The page of a report: what the template needs, from stored runs, without torch."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from gradcam_bench.analysis import failures, published
from gradcam_bench.analysis.best import best_cell
from gradcam_bench.analysis.metric import Metric
from gradcam_bench.analysis.metrics import METRICS, described, metric_of, names_of
from gradcam_bench.analysis.oracle_accuracy import oracle_differences, oracles
from gradcam_bench.analysis.stored_run import Run, joined_summary
from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import Protocol, iou_text
from gradcam_bench.names import CONTROLS, Cell
from gradcam_bench.report import answers, tables
from gradcam_bench.report.figures import catalogue, style
from gradcam_bench.report.gallery import gallery_data, gallery_images
from gradcam_bench.report.tables import interval_text, value_text
from gradcam_bench.store import parts
from gradcam_bench.store.rows import cell_rows, cells

GALLERY_LIMIT = 150
"""Pictures in a report's gallery, over all of its runs; some 20 kB each."""


def paper_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the comparison with papers of all runs, a column `run` in front."""
    frames = []
    for run in runs:
        frame = published.compare(run.summary, run.run)
        frame.insert(0, "run", run.name)
        if len(frame):
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def render(
    runs: Sequence[Run], tests: Mapping[str, pd.DataFrame], joint: Mapping[str, Figure]
) -> str:
    """Return the report as HTML; every stored text is escaped.

    Args:
        runs: one or many.
        tests: from `findings.comparisons`.
        joint: figures of several runs together, by name.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gradcam_bench.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("report.html.j2")
    return template.render(
        title=", ".join(run.name for run in runs),
        several=len(runs) > 1,
        shows=answers.shows(joined_summary(runs) if len(runs) > 1 else runs[0].summary),
        answers=_answers(runs, tests),
        runs=[_run_context(run) for run in runs],
        headline=_headline(runs),
        exports=_exports(runs),
        charts=_charts(runs, joint),
        tests=_tests(runs, tests),
        oracles=_oracles(runs),
        papers=_papers(runs),
        failures=[_failures(run) for run in runs],
        definitions=definitions(runs),
        gallery={
            "runs": [
                gallery_data(run, images, best=_best_cell(run))
                for run, images in zip(runs, gallery_images(runs, limit=GALLERY_LIMIT), strict=True)
            ]
        },
        colormap=style.colormap_bytes(),
    )


def _answers(runs: Sequence[Run], tests: Mapping[str, pd.DataFrame]) -> list[answers.Answer]:
    try:
        return answers.answers(runs, tests)
    except UserError:  # controls only, or no common score
        return []


def _run_context(run: Run) -> dict[str, Any]:
    """Return what was run and how, as (name, text) lines."""
    stored, config = run.run, run.run.get("config") or {}
    dataset = config.get("dataset") or {}
    versions = stored.get("versions") or {}
    seconds, n = stored.get("seconds"), stored.get("n_images")
    lines = {
        "Command": stored.get("command"),
        "Network": f"{stored.get('model', '?')}, weights: {stored.get('weights', '?')}",
        "Data": f"{str(dataset.get('_target_', '?')).rpartition('.')[2]}, {n} images",
        "Data fingerprint": stored.get("data_fingerprint"),
        "Input": f"{config.get('geometry', '?')} to the network's size",
        "Protocols": "; ".join(map(_protocol, run.protocols.values())),
        "Split thresholds": _split(stored.get("thresholds")),
        "Layers": ", ".join(stored.get("layers") or []),
        "Methods": ", ".join(config.get("methods") or []),
        "Deletion, insertion": _faithfulness(config.get("faithfulness") or {}),
        "Device": f"{stored.get('device', '?')}, {config.get('precision', '?')}",
        "Seconds": f"{seconds:,.0f}" if isinstance(seconds, int | float) else None,
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Commit": stored.get("commit"),
        "Computed by": "; ".join(parts.provenance_differences(stored)),
        "Config hash": stored.get("config_hash"),
        "Folder": str(run.directory),
    }
    return {"name": run.name, "lines": [(key, str(text)) for key, text in lines.items() if text]}


def _protocol(protocol: Protocol) -> str:
    """Return "wsol_v1 (IoU 0.5; oracle threshold: chosen on these images, in steps of 0.001)"."""
    rule = f"threshold {protocol.threshold}"
    if protocol.swept:
        rule = f"oracle threshold: chosen on these images, in steps of {protocol.interval:g}"
    return f"{protocol.name} (IoU {iou_text(protocol.iou_levels)}; {rule})"


def _split(thresholds: dict[str, Any] | None) -> str | None:
    if not thresholds:
        return None
    return f"chosen on {thresholds['n_images']} images of {thresholds['from']}"


def _faithfulness(node: dict[str, Any]) -> str:
    if not node.get("enabled"):
        return "off"
    skipped = ("enabled", "steps")
    choices = [f"{key.replace('_', ' ')} {node[key]}" for key in node if key not in skipped]
    return ", ".join([f"{node.get('steps', '?')} steps", *choices])


def _headline(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the headline table: heads with definitions, lines of value and interval."""
    summary = joined_summary(runs)
    wide = tables.headline(summary)
    names = [name for name in wide.columns if name.partition("@")[0] in METRICS]
    texts = {
        (line["run"], line["method"], line["layer"], line["metric"]): line
        for line in summary.to_dict("records")
    }
    best = {name: _best_of(wide, name) for name in names}
    lines = []
    for record in wide.to_dict("records"):
        key = (record["run"], record["method"], record["layer"])
        values = []
        for name in names:
            value, interval = _value_and_interval(texts.get((*key, name)))
            values.append(
                {"value": value, "interval": interval, "best": record[name] == best[name]}
            )
        control = record["method"] in CONTROLS
        lines.append(
            {"key": key if len(runs) > 1 else key[1:], "control": control, "cells": values}
        )
    heads = [{"name": name, "metric": _described(runs, name)} for name in names]
    return {"columns": ["run", "method", "layer"][len(runs) < 2 :], "heads": heads, "lines": lines}


def _described(runs: Sequence[Run], name: str) -> Metric:
    """Return a metric as the first run that has it measured it."""
    run = next(run for run in runs if name in set(run.summary["metric"]))
    return described(name, run.protocols)


def _best_of(wide: pd.DataFrame, name: str) -> float:
    judged = wide.loc[~wide["method"].isin(CONTROLS), name].dropna()
    best = judged.min() if metric_of(name).better == "lower" else judged.max()
    shared = (judged == best).sum() > max(1, len(judged) // 2)
    return float("nan") if len(judged) < 2 or shared else float(best)


def _value_and_interval(line: dict | None) -> tuple[str, str]:
    if line is None or pd.isna(line["value"]):
        return "-", ""
    metric = metric_of(line["metric"])
    value = value_text(metric, line["value"]).removesuffix(" %")
    return value, interval_text(metric, line["ci_low"], line["ci_high"])


def _exports(runs: Sequence[Run]) -> list[tuple[str, str]]:
    wide = tables.headline(joined_summary(runs) if len(runs) > 1 else runs[0].summary)
    return [
        ("Markdown", tables.to_markdown(wide)),
        ("LaTeX", tables.to_latex(wide)),
        ("CSV", tables.to_csv(wide)),
    ]


def _charts(runs: Sequence[Run], joint: Mapping[str, Figure]) -> list[dict[str, Any]]:
    """Return every figure as a data URI with its caption, grouped: all runs together, then each."""
    groups = [{"title": "", "charts": [_chart(*item) for item in joint.items()]}]
    for run in runs:
        charts = [_chart(name, draw()) for name, draw in catalogue.run_figures(run).items()]
        groups.append({"title": run.name if len(runs) > 1 else "", "charts": charts})
    return [group for group in groups if group["charts"]]


def _chart(name: str, figure: Figure) -> dict[str, Any]:
    data, kind = style.png(figure, dpi=200), "png"
    if style.has_photographs(figure):
        data, kind = _jpeg(data), "jpeg"
    return {
        "uri": f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
        "caption": catalogue.CAPTIONS[name],
        "keep_colors": kind == "jpeg" or name == "heat_table",
    }


def _jpeg(png: bytes) -> bytes:
    """Return a figure of photographs in a quarter of the bytes."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def _tests(runs: Sequence[Run], tests: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Return one family of paired tests a metric."""
    return [
        {"metric": _described(runs, name), "lines": frame.to_dict("records")}
        for name, frame in tests.items()
    ]


def _oracles(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the differences of accuracies whose threshold was chosen on these images."""
    found = []
    for name in oracles(runs):
        frame = oracle_differences(runs, name)
        if len(frame):
            found.append({"metric": _described(runs, name), "lines": frame.to_dict("records")})
    return found


def _papers(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the comparison with papers; its lines refer to the reasons by number."""
    lines = paper_table(runs).to_dict("records")
    reasons = list(dict.fromkeys(x["comparable"] for x in lines if x["comparable"] != "yes"))
    for line in lines:
        line["title"] = metric_of(line["metric"]).title
        if line["comparable"] in reasons:
            line["comparable"] = f"no ({reasons.index(line['comparable']) + 1})"
    return {"lines": lines, "reasons": [reason.removeprefix("no: ") for reason in reasons]}


def _failures(run: Run) -> dict[str, Any]:
    """Return what went wrong in a run, at its best cell."""
    broken = run.rows[run.rows["error"].notna()] if "error" in run.rows else run.rows[:0]
    broken = broken.drop_duplicates("image_id")
    cell = _best_cell(run)
    mine = cell_rows(run.rows, cell)
    degenerate = mine[mine["degenerate"] == 1] if "degenerate" in mine else mine[:0]
    names = run.run.get("class_names")
    return {
        "run": run.name,
        "cell": style.cell_title(cell),
        "kinds": failures.failure_kinds(run.rows, cell).to_dict("records"),
        "groups": failures.error_by_group(run.rows, cell).to_dict("records"),
        "classes": failures.worst_classes(run.rows, cell, class_names=names).to_dict("records"),
        "broken": broken[["image_id", "error"]].to_dict("records"),
        "degenerate": list(degenerate["image_id"]),
    }


def _best_cell(run: Run) -> Cell:
    try:
        return best_cell([run]).cell
    except UserError:  # controls only, or no score to judge by
        return cells(run.rows)[0]


def definitions(runs: Sequence[Run]) -> list[Metric]:
    """Return what was measured, each metric once for every set of IoU levels it was measured at.

    Where runs differ in them, the title says whose they are.
    """
    found = []
    for base in METRICS:
        names = [name for run in runs for name in names_of(base, run.summary["metric"])]
        for name in dict.fromkeys(names):
            by_run = {
                run.name: described(name, run.protocols)
                for run in runs
                if name in set(run.summary["metric"])
            }
            kinds = list(dict.fromkeys(by_run.values()))
            for kind in kinds:
                whose = ", ".join(run for run, metric in by_run.items() if metric == kind)
                title = kind.title if len(kinds) == 1 else f"{kind.title} ({whose})"
                found.append(replace(kind, title=title))
    return found
