"""Figures drawn and encoded once, shared by the files of a run and the page of its report."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from gradcam_bench.analysis.analysis import Analysis
from gradcam_bench.report.figures import catalogue, style
from gradcam_bench.store.files import make_folder

DPI = 300


@dataclass(frozen=True)
class Chart:
    """One figure of a report.

    Attributes:
        name: of its files, without suffix.
        caption: the sentence below it.
        figure: with its layout solved.
    """

    name: str
    caption: str
    figure: Figure

    @cached_property
    def png(self) -> bytes:
        """The figure as a PNG file of 300 dots an inch."""
        return style.png(self.figure, dpi=DPI)

    def save(self, folder: Path) -> list[Path]:
        """Write the figure into an existing folder, as PNG and PDF."""
        written = [folder / f"{self.name}{suffix}" for suffix in (".png", ".pdf")]
        written[0].write_bytes(self.png)
        written[1].write_bytes(style.pdf(self.figure))
        return written

    def embedded(self) -> dict[str, Any]:
        """Return what the page needs: the picture as a data URI, its caption, how to show it."""
        data, kind = self.png, "png"
        if style.has_photographs(self.figure):
            data, kind = _jpeg(data), "jpeg"
        return {
            "name": self.name,
            "uri": f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
            "caption": self.caption,
            "keep_colors": kind == "jpeg" or self.name == "heat_table",
            "wide": self.figure.get_figwidth() > style.COLUMN,
        }


def _jpeg(png: bytes) -> bytes:
    """Return a figure of photographs in a quarter of the bytes."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def charts_of(figures: Mapping[str, catalogue.Draw]) -> list[Chart]:
    """Draw every figure of `catalogue.run_figures` or `catalogue.joint_figures`."""
    return [
        Chart(name, catalogue.CAPTIONS[name], catalogue.drawn(draw))
        for name, draw in figures.items()
    ]


def run_charts(analysis: Analysis) -> list[Chart]:
    """Draw every figure that the only run of an analysis allows."""
    return charts_of(catalogue.run_figures(analysis))


def joint_charts(analysis: Analysis) -> list[Chart]:
    """Draw every figure that several runs allow together."""
    return charts_of(catalogue.joint_figures(analysis))


def save_charts(charts: list[Chart], folder: Path) -> list[Path]:
    """Write figures into a folder, as PNG and PDF; it is made where it is missing."""
    make_folder(folder)
    return [path for chart in charts for path in chart.save(folder)]
