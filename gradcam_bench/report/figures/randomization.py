"""The figure of the parameter randomisation check."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradcam_bench.report.figures import style

SIMILARITY = {"spearman": "rank correlation", "ssim": "SSIM"}

SCORES = {
    "box_iou": "box IoU",
    "energy_in_box": "energy in box",
    "insertion_auc": "insertion AUC",
}


def randomization(check: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw how maps and scores change as a network is randomised layer by layer.

    Args:
        check: from `run.randomization.randomization_check`.
        title: above the figure.

    Returns:
        Two panels: similarity to the trained network's maps, and scores with the controls' level;
        bands are 95 % intervals of the mean over images.
    """
    steps = check[check["step"] >= 0].drop_duplicates("step").sort_values("step")
    controls = check[check["step"] < 0].groupby("layer")
    with style.paper():
        figure, (similar, scored) = style.new_axes(height=4.6, rows=2)
        _lines(similar, check, SIMILARITY)
        _lines(scored, check, SCORES)
        for number, column in enumerate(SCORES):
            for control, dashes in (("random", ":"), ("center", "--")):
                level = controls[column].mean()[control]
                scored.axhline(level, color=f"C{number}", ls=dashes, lw=0.7, alpha=0.8)
        similar.set(ylabel="similarity to the original map", ylim=(-0.25, 1.05))
        scored.set(ylabel="score", ylim=(0, 1.05), xlabel="randomised from the output up to …")
        for panel in (similar, scored):
            panel.set_xticks(range(len(steps)))
        similar.tick_params(axis="x", labelbottom=False)
        similar.legend(ncols=2, loc="upper right")
        scored.set_xticklabels(steps["layer"], rotation=60, ha="right")
        scored.plot([], [], color="0.4", ls=":", lw=0.7, label="random control")
        scored.plot([], [], color="0.4", ls="--", lw=0.7, label="center control")
        scored.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        if title:
            similar.set_title(title)
    return figure


def _lines(panel: Axes, check: pd.DataFrame, columns: dict[str, str]) -> None:
    found = check[check["step"] >= 0].groupby("step")
    for number, (column, name) in enumerate(columns.items()):
        mean, error = found[column].mean(), 1.96 * found[column].sem()
        line = style.dash(number)
        panel.plot(mean.index, mean, label=name, ls=line, marker=style.marker(number))
        panel.fill_between(mean.index, mean - error, mean + error, alpha=0.2, lw=0)
