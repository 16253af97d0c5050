"""One look for every figure: one paper column wide, colour-blind safe, the same in PNG and PDF."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gradcam_bench.names import CONTROLS, Cell, method_title
from gradcam_bench.store.files import make_folder

COLORMAP = "inferno"
"""Of heatmaps, here and in the report's page."""

COLUMN = 3.5
"""Width in inches of one column of a paper."""

PAGE = 7.1
"""Width in inches of both columns."""

FONT = "DejaVu Sans Latin"
"""The font of all figures: DejaVu Sans cut by scripts/cut_font.py, which makes PDFs quick."""

FONT_FILE = Path(__file__).with_name("DejaVuSansLatin.ttf")

CONTROL_COLORS = {"random": "#b0b0b0", "center": "#6e6e6e"}

_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)),
)  # fmt: skip

_MARKERS = "osD^vPX*"


def cell_title(cell: Cell, *, one_layer: bool = False) -> str:
    """Return "Grad-CAM, layer4"; controls and runs of one layer need no layer."""
    title = method_title(cell[0])
    return title if one_layer or cell[0] in CONTROLS else f"{title}, {cell[1]}"


def wrapped(text: str, width: int) -> str:
    """Return a text in lines of at most `width` letters, names cut where they are longer."""
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))


def color(names: list[str], name: str) -> str:
    """Return the colour of a name among others: controls are grey, the rest Okabe-Ito-like."""
    if name in CONTROL_COLORS:
        return CONTROL_COLORS[name]
    others = [other for other in names if other not in CONTROL_COLORS]
    palette = sns.color_palette("colorblind").as_hex()
    # Grey (number 7) is for controls.
    usable = [shade for number, shade in enumerate(palette) if number != 7]
    return usable[others.index(name) % len(usable)]


def dash(number: int) -> str | tuple[int, tuple[int, ...]]:
    """Return a line style, so that lines are told apart without colour."""
    return _DASHES[number % len(_DASHES)]


def marker(number: int) -> str:
    """Return a marker, so that points are told apart without colour."""
    return _MARKERS[number % len(_MARKERS)]


def colormap_bytes() -> str:
    """Return the gallery's colormap as base64 of 256 RGB triples, for the report's page."""
    table = np.rint(255 * mpl.colormaps[COLORMAP](np.arange(256))[:, :3]).astype(np.uint8)
    return base64.b64encode(table.tobytes()).decode()


@cache
def _register_font() -> None:
    font_manager.fontManager.addfont(FONT_FILE)


@contextmanager
def paper() -> Iterator[None]:
    """Draw in the shared style; the global style is left as found."""
    _register_font()
    settings = {
        **sns.axes_style("ticks"),
        "font.size": 7,
        "axes.labelsize": 7,
        "axes.titlesize": 7,
        "xtick.labelsize": 6.5,
        "ytick.labelsize": 6.5,
        "legend.fontsize": 6.5,
        "legend.title_fontsize": 6.5,
        "legend.frameon": False,
        "font.family": [FONT, "DejaVu Sans"],
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e3e3e3",
        "grid.linewidth": 0.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.5,
        "savefig.dpi": 300,
        "pdf.fonttype": 42,
    }
    with mpl.rc_context(settings):
        yield


def new_axes(
    *,
    width: float = COLUMN,
    height: float = 2.3,
    columns: int = 1,
    rows: int = 1,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure, free of pyplot's global state, and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, list(axes.ravel())


def figure_of(axes: Axes) -> Figure:
    """Return the figure that axes stand in."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def legend_below(axes: Axes, *, title: str | None = None) -> None:
    """Put the legend of axes under their figure, where it hides nothing, in columns that fit.

    The figure grows by the lines after the first, so that the axes keep their size.
    """
    handles, labels = axes.get_legend_handles_labels()
    figure = figure_of(axes)
    each = 0.45 + 0.05 * max(map(len, labels))  # inches: the handle and its gaps, a letter
    columns = max(1, min(len(labels), int(figure.get_figwidth() / each)))
    lines = -(-len(labels) // columns) + (title is not None)
    figure.set_figheight(figure.get_figheight() + 0.13 * (lines - 1))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title)


def title_above(figure: Figure, title: str) -> None:
    """Write a short note above all axes of a figure; an empty one is no note."""
    if title:
        figure.suptitle(title, fontsize=6.5)


def left_out(count: int, one: str, many: str) -> str:
    """Return "3 more methods are not drawn"; empty where nothing is left out."""
    if not count:
        return ""
    return f"1 more {one} is not drawn" if count == 1 else f"{count} more {many} are not drawn"


def settle(figure: Figure) -> Figure:
    """Solve the layout of a figure and keep it, so that PNG and PDF need not solve it again."""
    engine = figure.get_layout_engine()
    if engine is not None:
        with paper():
            engine.execute(figure)
            figure.set_layout_engine("none")
    return figure


def has_photographs(figure: Figure) -> bool:
    """Return whether a figure shows pictures, whose colours 256 are too few for."""
    return any(axes.images for axes in figure.axes)


def png(figure: Figure, *, dpi: float) -> bytes:
    """Return a figure as PNG; without photographs in 256 colours.

    Those are a third of the size (12 figures of two runs: 31 to 42 %) and change a pixel by 0.05
    of 255 levels at most on average, as all that is lost are shades of text edges.
    """
    picture = Image.fromarray(_pixels(figure, dpi)).convert("RGB")
    if not has_photographs(figure):
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    small = io.BytesIO()
    picture.save(small, "PNG", dpi=(dpi, dpi))
    return small.getvalue()


def _pixels(figure: Figure, dpi: float) -> np.ndarray:
    """Draw a figure and return its pixels, (height, width, 4) uint8."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    before = figure.dpi
    try:
        figure.set_dpi(dpi)
        with paper():
            canvas.draw()
        return np.array(canvas.buffer_rgba())
    finally:
        figure.set_dpi(before)


def pdf(figure: Figure) -> bytes:
    """Return a figure as PDF without a date, so that the same rows give the same file."""
    buffer = io.BytesIO()
    with paper():
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside each other; `path` has no suffix."""
    make_folder(path.parent)
    written = [path.with_name(path.name + suffix) for suffix in (".png", ".pdf")]
    settle(figure)
    written[0].write_bytes(png(figure, dpi=300))
    written[1].write_bytes(pdf(figure))
    return written
