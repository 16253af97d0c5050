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


def cell_name(cell: Cell, *, run: str = "") -> str:
    """Return "method, layer", or the method alone for a control.

    Args:
        cell: method and layer.
        run: the name of the run, put in front where there are several.
    """
    name = cell[0] if cell[0] in CONTROLS else f"{cell[0]}, {cell[1]}"
    return f"{run}, {name}" if run else name


def is_control(name: str) -> bool:
    """Return whether a name from `cell_name` is that of a control."""
    return name.rpartition(", ")[2] in CONTROLS


def column_of(base: str, protocol: str = "") -> str:
    """Return the name of a row column, or of a metric, under one of a run's protocols.

    Args:
        base: the plain name, such as "gt_known_loc".
        protocol: the protocol's name; empty for the one that the plain name stands for.

    Returns:
        E.g. "gt_known_loc@cam2016", or the plain name.
    """
    return f"{base}@{protocol}" if protocol else base


def base_and_protocol(name: str) -> tuple[str, str]:
    """Return the plain name and the protocol of a name from `column_of`; empty if it has none."""
    base, _, protocol = name.partition("@")
    return base, protocol
