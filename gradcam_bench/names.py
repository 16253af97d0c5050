"""Words that both wings share: the controls, their layer, a cell, a row."""

from __future__ import annotations

from typing import Any

CONTROLS = ("random", "center")
"""The methods that see neither the network nor, for `center`, the image."""

CONTROL_LAYER = "input"
"""What stands as the layer of the controls: they depend on none."""

Cell = tuple[str, str]
"""A method and a layer."""

Row = dict[str, Any]
"""The columns of one image, method and layer, by name."""


def cell_name(cell: Cell) -> str:
    """Return "method, layer", or the method alone for a control."""
    return cell[0] if cell[0] in CONTROLS else f"{cell[0]}, {cell[1]}"
