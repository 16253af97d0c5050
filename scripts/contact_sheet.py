"""Draw 48 test scenes of Shapes and 12 of two objects, each asked for in turn, with boxes.

    python scripts/contact_sheet.py

Writes results/zoo/scenes.png.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.patches import Rectangle

from gradcam_bench.data.shapes import Shapes
from gradcam_bench.report.figures import style

OUTPUT = Path("results/zoo/scenes.png")
COLUMNS = 12


def main() -> None:
    singles = [(example, "#ffffff") for example in (Shapes(length=48)[i] for i in range(48))]
    pairs = Shapes(length=48, mode="pair")
    asked = [(pairs[i], "#ffffff" if i % 2 == 0 else "#56b4e9") for i in range(24)]
    shown = singles + asked
    with style.paper():
        figure, axes = style.new_axes(
            width=9, height=0.86 * len(shown) / COLUMNS, rows=len(shown) // COLUMNS, columns=COLUMNS
        )
        for panel, (example, color) in zip(axes, shown, strict=True):
            panel.imshow(example.image)
            x0, y0, x1, y1 = example.boxes[0]
            panel.add_patch(
                Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=color, lw=0.9)
            )
            panel.set_title(pairs.class_names[example.label], fontsize=5, pad=1.5)
            panel.set_axis_off()
        figure.savefig(OUTPUT, dpi=130)
    print(f"Written to {OUTPUT}")


if __name__ == "__main__":
    main()
