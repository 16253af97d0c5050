"""The page of a report: one self-contained HTML file of what an analysis holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from gradcam_bench.analysis.analysis import Analysis
from gradcam_bench.report import answers
from gradcam_bench.report.charts import Chart
from gradcam_bench.report.figures import style
from gradcam_bench.report.gallery import gallery_data, gallery_images
from gradcam_bench.report.one_line import shows
from gradcam_bench.report.sections import comparisons, failures, how, scores

GALLERY_LIMIT = 150
"""Pictures in a report's gallery, over all of its runs; some 20 kB each."""


def render(
    analysis: Analysis, charts: Mapping[str, Sequence[Chart]], *, joint: Sequence[Chart] = ()
) -> str:
    """Return the report as HTML; every stored text is escaped.

    Args:
        analysis: of one run or several.
        charts: the figures of each run, by its name.
        joint: figures of several runs together.
    """
    template = _environment().get_template("report.html.j2")
    return template.render(
        title=how.title(analysis),
        dates=how.dates(analysis),
        incomplete=how.incomplete(analysis),
        several=analysis.several,
        shows=shows(analysis.summary),
        answers=answers.answers(analysis),
        headline=scores.headline(analysis),
        coinciding=answers.coinciding(analysis),
        exports=scores.exports(analysis),
        charts=_groups(analysis, charts, joint),
        tests=comparisons.tests(analysis),
        oracles=comparisons.oracles(analysis),
        papers=comparisons.papers(analysis),
        failures=failures.failures(analysis),
        gallery=_gallery(analysis),
        colormap=style.colormap_bytes(),
        definitions=scores.definitions(analysis.runs),
        runs=[how.facts(run) for run in analysis.runs],
    )


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("gradcam_bench.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _groups(
    analysis: Analysis, charts: Mapping[str, Sequence[Chart]], joint: Sequence[Chart]
) -> list[dict[str, Any]]:
    """Return the figures in groups: those of all runs together first, then those of each run."""
    groups = [("figure-", "", joint)]
    for number, run in enumerate(analysis.runs):
        title = run.name if analysis.several else ""
        groups.append((f"figure-{number}-", title, charts[run.name]))
    return [
        {"id": start, "title": title, "charts": [chart.embedded() for chart in found]}
        for start, title, found in groups
        if found
    ]


def _gallery(analysis: Analysis) -> dict[str, Any]:
    images = gallery_images(analysis.runs, limit=GALLERY_LIMIT)
    return {
        "runs": [
            gallery_data(run, chosen, best=analysis.failures[run.name].cell)
            for run, chosen in zip(analysis.runs, images, strict=True)
        ]
    }
