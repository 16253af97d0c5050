"""Words that both wings share: controls, cells, rows, the choices of a config, names of code."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
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


class Choice(str, Enum):
    """One of a few words. A member equals its word, and is written as it."""

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]


class Precision(Choice):
    """In what the network computes; the lower ones by autocast."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Fit(Choice):
    """How an image becomes the network's square input."""

    squash = "squash"  # both sides are resized
    center_crop = "center_crop"  # the shorter side is resized, the middle of the longer one kept


class Scoring(Choice):
    """Who scores perturbed images."""

    auto = "auto"  # by device, precision and the length of the run
    torch = "torch"
    compile = "compile"
    onnxruntime = "onnxruntime"


class Followed(Choice):
    """The class whose map and whose score faithfulness follows."""

    predicted = "predicted"
    label = "label"


class Score(Choice):
    """What the curves of deletion and insertion tell of a class."""

    probability = "probability"  # after the softmax
    logit = "logit"


class Ties(Choice):
    """The order of pixels that are equal in a map."""

    stable = "stable"  # row by row
    reversed = "reversed"
    random = "random"  # drawn per image


class Baseline(Choice):
    """What a perturbation replaces pixels by; see `faithfulness.baselines.baseline`."""

    zeros = "zeros"
    black = "black"
    blur = "blur"
    mean = "mean"
    noise = "noise"


def without_places(identity: Any) -> Any:
    """Return a run's identity without the places of our own code, which move.

    Each `_target_` inside this package is cut to its last name, so that the identity that an older
    version stored equals that of the same config today. A user's own target stays whole.
    """
    if isinstance(identity, Mapping):
        cut = {key: without_places(value) for key, value in identity.items()}
        target = cut.get("_target_")
        if isinstance(target, str) and target.startswith("gradcam_bench."):
            cut["_target_"] = target.rpartition(".")[2]
        return cut
    if isinstance(identity, list | tuple):
        return [without_places(value) for value in identity]
    return identity
