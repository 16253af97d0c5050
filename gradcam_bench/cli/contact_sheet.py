"""Pictures in rows and columns with captions, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_CELL, _MARGIN, _BETWEEN, _FONT = 256, 8, 28, 13  # pixels; _BETWEEN holds the caption

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Captioned = tuple[Image.Image, str]


def contact_sheet(rows: Sequence[Sequence[Captioned]]) -> Image.Image:
    """Return a sheet of pictures, all as wide as high at most, each with its caption below.

    Args:
        rows: of pictures with captions; rows may differ in length, and none is empty.
    """
    small = [[(_scaled(picture), caption) for picture, caption in row] for row in rows]
    heights = [max(picture.height for picture, _ in row) for row in small]
    width = max(len(row) for row in rows) * (_CELL + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", (width, sum(heights) + len(rows) * _BETWEEN + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    top = _MARGIN
    for row, height in zip(small, heights, strict=True):
        for column, (picture, caption) in enumerate(row):
            middle = _MARGIN + column * (_CELL + _MARGIN) + _CELL // 2
            sheet.paste(picture, (middle - picture.width // 2, top + height - picture.height))
            text = _fitting(caption, draw, font)
            draw.text((middle, top + height + 3), text, "black", font, anchor="ma")
        top += height + _BETWEEN
    return sheet


def _scaled(picture: Image.Image) -> Image.Image:
    """Return a picture scaled so that its longer side is a cell's."""
    scale = _CELL / max(picture.size)
    width, height = (max(round(side * scale), 1) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _fitting(
    text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    """Return a text, cut in its middle where it is wider than a cell."""
    shown, kept = text, len(text)
    while draw.textlength(shown, font) > _CELL and kept > 2:
        kept -= 2
        shown = f"{text[: kept // 2]}...{text[len(text) - kept // 2 :]}"
    return shown
