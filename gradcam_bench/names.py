"""Words that both wings share: methods and controls, cells, rows, names of columns.

The methods' maps are computed in cam/methods.py and cam/controls.py, by functions of their names;
what is known of them without computing a map stands here, because reports must not load torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Method:
    """What is known of a method without computing a map.

    Attributes:
        name: in `methods=`, in the rows and in the summary; also of the function that computes it.
        title: as papers write it, for figures and tables.
        source: the paper, and the equations that the function spells out.
        cost: what a map takes beside the forward pass that all methods share.
    """

    name: str
    title: str
    source: str
    cost: str


_BACKWARD = "the backward pass, shared by all methods"

_EIGENVECTOR = "the first eigenvector of a matrix of K x K or (h w) x (h w)"

METHODS = {
    method.name: method
    for method in (
        Method("grad_cam", "Grad-CAM", "Selvaraju et al. 2017, equations 1 and 2", _BACKWARD),
        Method(
            "grad_cam_plus_plus",
            "Grad-CAM++",
            "Chattopadhay et al. 2018, equations 10 and 19",
            _BACKWARD,
        ),
        Method("hires_cam", "HiResCAM", "Draelos and Carin 2020, equation 5", _BACKWARD),
        Method("xgrad_cam", "XGrad-CAM", "Fu et al. 2020, equation 8", _BACKWARD),
        Method("layer_cam", "LayerCAM", "Jiang et al. 2021, equations 4 and 5", _BACKWARD),
        Method("eigen_cam", "Eigen-CAM", "Muhammad and Yeasin 2020", _EIGENVECTOR),
        Method(
            "eigen_grad_cam",
            "Eigen-Grad-CAM",
            "Eigen-CAM of gradients times activations, as the grad-cam package defines it",
            f"{_BACKWARD}; {_EIGENVECTOR}",
        ),
        Method("random", "Random", "control: noise on a 7 x 7 grid, other noise per image", "none"),
        Method("center", "Center", "control: the same pyramid in the middle of any image", "none"),
    )
}
"""Every built-in method by its name, in the order of lists; the controls come last."""

CONTROLS = ("random", "center")
"""The methods that see neither the network nor, for `center`, the image."""

CONTROL_LAYER = "input"
"""What stands as the layer of the controls: they depend on none."""

Cell = tuple[str, str]
"""A method and a layer."""

Row = dict[str, Any]
"""The columns of one image, method and layer, by name."""


def method_title(name: str) -> str:
    """Return a method as papers write it; of a user's "module:function", the function's name."""
    return METHODS[name].title if name in METHODS else name.rpartition(":")[2]


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
