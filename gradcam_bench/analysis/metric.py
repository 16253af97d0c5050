"""What one metric is: a record that also knows how its numbers are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gradcam_bench.localization.protocol import iou_text

Kind = Literal["proportion", "mean", "class_mean", "oracle", "pooled"]

Better = Literal["lower", "higher", ""]

UNDEFINED = "-"
"""What stands for a number that is not defined."""


@dataclass(frozen=True)
class Scale:
    """What the values of a metric are counted in.

    Attributes:
        unit: "%" or "".
        factor: by what a mean over rows, in [0, 1], is multiplied.
        low: the smallest possible value.
        high: the largest possible value.
        digits: decimals of every text that shows a value, in tables, sentences and figures.
    """

    unit: str
    factor: float
    low: float
    high: float
    digits: int


PERCENT = Scale("%", 100.0, 0.0, 100.0, 2)

SHARE = Scale("", 1.0, 0.0, 1.0, 4)
"""A share, an area, an IoU or a probability."""

UNBOUNDED = Scale("", 1.0, -math.inf, math.inf, 4)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric of summary.csv.

    Attributes:
        name: the name in summary.csv; under a further protocol P it is "name@P".
        title: the short name for axes and table heads.
        kind: how a value and its interval come from the column. "proportion" is a mean of hits
            with a Clopper-Pearson interval; "mean" a mean with a bootstrap interval; "class_mean"
            the mean over classes of class means (`class_means`); "oracle" the best threshold's
            accuracy, chosen on the reported images and again inside every resample; "pooled" the
            average precision of the pixels of all images together, bootstrapped over images.
        column: the row column it is made of.
        better: "lower", "higher" or "" where neither is better.
        source: where the definition comes from, with the section of the paper.
        wording: the definition in one line, with "{iou}" where the IoU levels belong.
        scale: unit, range and decimals of the values.
        complement: whether the value is one minus the mean of the column, as an error is.
        roles: where the metric takes part, words of `ROLES`.
        iou_levels: the IoU levels of a hit that the plain name stands for; empty where there are
            none.
        protocol: the swept protocol that the plain name stands for; empty for other metrics.
    """

    name: str
    title: str
    kind: Kind
    column: str
    better: Better
    source: str
    wording: str
    scale: Scale = SHARE
    complement: bool = False
    roles: frozenset[str] = frozenset()
    iou_levels: tuple[float, ...] = ()
    protocol: str = ""

    @property
    def definition(self) -> str:
        """The definition in one line, with the IoU levels."""
        return self.wording.format(iou=iou_text(self.iou_levels))

    @property
    def unit(self) -> str:
        """A percent sign, or nothing."""
        return self.scale.unit

    @property
    def digits(self) -> int:
        """Decimals of every text that shows a value."""
        return self.scale.digits

    @property
    def low(self) -> float:
        """The smallest possible value."""
        return self.scale.low

    @property
    def high(self) -> float:
        """The largest possible value."""
        return self.scale.high

    @property
    def label(self) -> str:
        """The title with its unit and an arrow to the better direction, for an axis."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.title}{unit}{self.arrow}"

    @property
    def arrow(self) -> str:
        """An arrow to the better direction, after a space; empty where neither is better."""
        return {"lower": " ↓", "higher": " ↑", "": ""}[self.better]

    @property
    def sign(self) -> float:
        """What a difference is multiplied with so that more is better: -1 of errors, else 1."""
        return -1.0 if self.better == "lower" else 1.0

    def number(self, value: float) -> str:
        """Return "33.02" or "0.6531", without the unit."""
        return number_text(value, self.digits)

    def text(self, value: float) -> str:
        """Return "33.02 %" or "0.6531"."""
        return self._with_unit(self.number(value), self.unit)

    def difference_text(self, difference: float) -> str:
        """Return "3.20 points", as a difference between percentages is called, or "0.0120"."""
        return self._with_unit(self.number(difference), "points" if self.unit == "%" else self.unit)

    def interval_text(self, low: float, high: float) -> str:
        """Return "[28.81, 37.20]"."""
        return f"[{self.number(low)}, {self.number(high)}]"

    def estimate_text(self, value: float, low: float, high: float) -> str:
        """Return "36.60 [32.40, 41.00]", without the unit; "-" where there is no value."""
        if not math.isfinite(value):
            return UNDEFINED
        return f"{self.number(value)} {self.interval_text(low, high)}"

    @staticmethod
    def _with_unit(number: str, unit: str) -> str:
        return f"{number} {unit}" if unit and number != UNDEFINED else number


def number_text(value: float, digits: int, *, sign: bool = False) -> str:
    """Return a number with a fixed count of decimals, never "-0.00", "inf" or "nan".

    Args:
        value: the number.
        digits: decimals.
        sign: write "+" before positive numbers.

    Returns:
        The text; "-" where the number is not finite.
    """
    if not math.isfinite(value):
        return UNDEFINED
    rounded = round(float(value), digits) + 0.0  # -0.0 + 0.0 is 0.0
    return f"{rounded:{'+' if sign and rounded else ''}.{digits}f}"
