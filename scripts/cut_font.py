"""Cut matplotlib's DejaVu Sans to the letters that figures use: the font of all figures.

    python scripts/cut_font.py

Most of the time of writing a PDF goes into the subsetting of its font, and most of that into
layout tables for scripts that our figures do not use. The cut font takes a tenth of the time; what
it lacks, as the letters of a class name in another script, comes from DejaVu Sans as before.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from fontTools import subset, ttLib

from gradcam_bench.report.figures.style import FONT, FONT_FILE

LETTERS = [
    *range(0x20, 0x180),  # Latin
    *range(0x370, 0x400),  # Greek
    *range(0x2010, 0x2028),  # dashes, quotation marks, dots
    *range(0x2190, 0x219A),  # arrows
    0x2212,  # minus
    0x2248, 0x2264, 0x2265,  # about, at most, at least
]  # fmt: skip


def main() -> None:
    source = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ttLib.TTFont(source)
    for table in ("GSUB", "GDEF", "MATH", "FFTM"):
        if table in font:
            del font[table]
    options = subset.Options(layout_features=["kern"], name_IDs=["*"], glyph_names=True)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=LETTERS)
    cutter.subset(font)
    for record in font["name"].names:
        if record.nameID in (1, 4, 16):
            record.string = FONT
        if record.nameID == 6:
            record.string = FONT.replace(" ", "")
    font.save(FONT_FILE)
    print(f"Written to {FONT_FILE}: {FONT_FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
