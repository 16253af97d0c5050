"""A localization protocol: every choice between a heatmap and its score, fixed under one name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcam_bench.errors import UserError

CHOICES: dict[str, tuple[object, ...]] = {
    "relu": ("before", "after", "none"),
    "upsampling": ("bilinear", "bicubic", "nearest"),
    "normalization": ("max", "minmax", "none"),
    "quantize": (True, False),
    "threshold_rule": ("fixed", "oracle"),
    "comparison": (">=", ">"),
    "component": ("largest", "all", "foreground"),
    "finder": ("labels", "contours"),
    "connectivity": (4, 8),
    "box": ("half_open", "cv2"),
    "iou": ("half_open", "inclusive"),
    "ground_truth": ("float", "truncated"),
}

MAX_IOU_LEVELS = 8  # which of them an image's box reaches is stored in the bits of one byte


@dataclass(frozen=True)
class Protocol:
    """How a low-resolution map becomes a box, and a box a hit. No choice has a default.

    Attributes:
        name: the name that rows and tables carry.
        source: the publication or the code that fixed these choices.
        relu: "before" or "after" upsampling, or "none".
        upsampling: interpolation to the network's input size, align_corners=False throughout.
        normalization: "max" divides by the maximum where it is positive; "minmax" moves the map to
            [0, 1] and makes a flat map zeros; "none".
        quantize: round the normalised map down to 8 bits, floor(255 * map), before thresholding.
        threshold_rule: "fixed"; or "oracle": swept over 0, interval, ... < 1, and the best on the
            reported images is told. The sweep is stored, so a run given `thresholds_from` tells
            what thresholds chosen on other images score, too (`split`).
        threshold: share of the map's maximum, in [0, 1); None where it is swept.
        interval: step of the sweep, in (0, 1); None for a fixed threshold.
        comparison: foreground is `map >= threshold * max`, or ">". A quantized map is compared with
            the integer part of threshold * max.
        component: "largest", "all" (the box that fits the ground truth best), or "foreground" (one
            box around everything).
        finder: "labels" (connected components; largest by pixel count, the first in row-major
            order on ties) or "contours" (what cv2.findContours(RETR_TREE, CHAIN_APPROX_SIMPLE)
            returns, outlines of holes included; largest by cv2.contourArea).
        connectivity: 4 or 8 neighbours; contours are those of 8-connected components.
        box: "half_open", or "cv2": x, y, x + w, y + h with the far corner clamped to size - 1.
        iou: areas from "half_open" widths, or "inclusive" ones (+1).
        ground_truth: corners kept as "float", or "truncated" to integers, in pixel coordinates of
            the network's input.
        iou_levels: ascending, in (0, 1]; a hit is IoU >= level. One level where the threshold is
            fixed; a swept protocol may have several, and its accuracy is the mean over them.

    Raises:
        UserError: a value outside its choices or range, or choices that exclude one another.
    """

    name: str
    source: str
    relu: str
    upsampling: str
    normalization: str
    quantize: bool
    threshold_rule: str
    comparison: str
    component: str
    finder: str
    connectivity: int
    box: str
    iou: str
    ground_truth: str
    iou_levels: tuple[float, ...]
    threshold: float | None = None
    interval: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise UserError("protocol: expected a name, got an empty one")
        for field, allowed in CHOICES.items():
            given = getattr(self, field)
            if not any(given is choice or given == choice for choice in allowed) or (
                isinstance(given, bool) != isinstance(allowed[0], bool)
            ):
                options = ", ".join(repr(choice) for choice in allowed)
                raise self._error(field, f"one of {options}", given)
        self._check_numbers()
        self._check_combinations()

    def _check_numbers(self) -> None:
        levels: object = self.iou_levels
        try:
            object.__setattr__(self, "iou_levels", tuple(float(x) for x in self.iou_levels))
        except (TypeError, ValueError):
            object.__setattr__(self, "iou_levels", ())
        if (
            not 0 < len(self.iou_levels) <= MAX_IOU_LEVELS
            or list(self.iou_levels) != sorted(set(self.iou_levels))
            or not all(0 < level <= 1 for level in self.iou_levels)
        ):
            expected = f"1 to {MAX_IOU_LEVELS} ascending numbers in (0, 1]"
            raise self._error("iou_levels", expected, levels)
        for field, low, expected in (
            ("threshold", 0.0, "a share of the maximum in [0, 1)"),
            ("interval", 1e-6, "a step in [1e-6, 1)"),
        ):
            given = getattr(self, field)
            number = isinstance(given, (int, float)) and not isinstance(given, bool)
            if given is not None and not (number and low <= given < 1):
                raise self._error(field, expected, given)

    def _check_combinations(self) -> None:
        if self.threshold_rule == "fixed" and self.threshold is None:
            raise self._error("threshold", "a number, because threshold_rule is 'fixed'", None)
        if self.threshold_rule == "fixed" and self.interval is not None:
            raise self._error("interval", "null, because the threshold is fixed", self.interval)
        if self.threshold_rule == "fixed" and len(self.iou_levels) > 1:
            raise self._error("iou_levels", "one level: the threshold is fixed", self.iou_levels)
        if self.threshold_rule == "oracle" and self.threshold is not None:
            raise self._error("threshold", "null: an oracle threshold is swept", self.threshold)
        if self.threshold_rule != "fixed" and self.interval is None:
            raise self._error("interval", f"a step, because of {self.threshold_rule!r}", None)
        if self.threshold_rule != "fixed" and not self.quantize:
            raise self._error("quantize", "True: thresholds are swept over 8-bit levels", False)
        if self.quantize and self.normalization == "none":
            raise self._error("normalization", "'max' or 'minmax', to quantize [0, 1]", "none")
        if self.finder == "contours" and self.connectivity != 8:
            raise self._error("connectivity", "8, as contours have", self.connectivity)

    def _error(self, field: str, expected: str, given: object) -> UserError:
        return UserError(
            f"protocol {self.name!r}: {field}: expected {expected}, got {given!r}; "
            f"correct it in conf/protocol/{self.name}.yaml or on the command line"
        )

    @property
    def swept(self) -> bool:
        """Whether this protocol is scored at every threshold rather than at one."""
        return self.threshold is None

    def thresholds(self) -> np.ndarray:
        """Return the thresholds in ascending order, (T,) float64 in [0, 1).

        0, interval, 2 * interval, ... < 1 where they are swept; otherwise the one that is fixed.
        """
        if self.threshold is not None:
            return np.array([self.threshold])
        assert self.interval is not None  # __post_init__ has checked it
        return np.arange(0, 1, self.interval)


def iou_text(levels: Sequence[float]) -> str:
    """Return IoU levels as sentences and axes write them, e.g. "0.3, 0.5, 0.7"."""
    return ", ".join(f"{level:g}" for level in levels)


def protocol_of(node: Mapping[str, Any], key: str = "") -> Protocol:
    """Build a protocol from its stored config, as run.json keeps it.

    Args:
        node: the arguments of `Protocol`; `_target_` is ignored.
        key: the protocol's key in the config, which the error message names.

    Raises:
        UserError: arguments are missing or unknown, or have values that `Protocol` does not allow.
    """
    values = {name: value for name, value in node.items() if name != "_target_"}
    try:
        return Protocol(**values)
    except TypeError as error:
        raise UserError(
            f"run.json does not hold protocol {key!r} as conf/protocol writes it "
            f"({error}): run again, or restore run.json."
        ) from error


def run_protocols(run: Mapping[str, Any]) -> dict[str, Protocol]:
    """Return the protocols that a run was scored under.

    Whatever is computed from stored rows takes IoU levels, thresholds and intervals from here.

    Args:
        run: the content of run.json; without protocols in it the result is empty.

    Returns:
        Name of the protocol, as in the names of its columns -> protocol, in the run's order (the
        first one's columns have no suffix).

    Raises:
        UserError: an argument of a protocol is missing, unknown or not allowed.
    """
    nodes = (run.get("config") or {}).get("protocols") or {}
    found = [protocol_of(node or {}, key) for key, node in nodes.items()]
    return {protocol.name: protocol for protocol in found}
