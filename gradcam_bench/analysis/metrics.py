"""Every number that a table may hold: what it is, where it comes from, which way is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import iou_text

if TYPE_CHECKING:
    from gradcam_bench.localization.protocol import Protocol


Kind = Literal["proportion", "mean", "class_mean", "oracle", "pooled"]


@dataclass(frozen=True)
class Metric:
    """One metric of summary.csv.

    Attributes:
        name: the name in summary.csv; a further protocol P adds the suffix "@P".
        title: the short name for axes and table heads.
        unit: "%" or "" (a share, an IoU or an area in [0, 1]).
        low: the smallest possible value.
        high: the largest possible value.
        better: "lower", "higher" or "" where neither is better.
        column: the row column it is made of.
        kind: how a value and its interval come from that column. "proportion" is a mean of hits
            with a Clopper-Pearson interval; "mean" a mean with a bootstrap interval; "class_mean"
            the mean over classes of class means (`class_means`); "oracle" the best threshold's
            accuracy, chosen on the reported images and again inside every resample; "pooled" the
            average precision of the pixels of all images together, bootstrapped over images.
        complement: the value is one minus the mean (an error).
        source: where the definition comes from, with the section of the paper.
        wording: the definition in one line, with "{iou}" where the IoU levels belong.
        iou_levels: the levels of a hit that the plain name stands for; empty where there are none.
        protocol: the swept protocol that the plain name stands for; empty for other metrics.
    """

    name: str
    title: str
    unit: str
    low: float
    high: float
    better: Literal["lower", "higher", ""]
    column: str
    kind: Kind
    complement: bool
    source: str
    wording: str
    iou_levels: tuple[float, ...] = ()
    protocol: str = ""

    @property
    def definition(self) -> str:
        """One line, with the IoU levels."""
        return self.wording.format(iou=iou_text(self.iou_levels))

    @property
    def scale(self) -> float:
        """100 where the unit is percent, else 1."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def label(self) -> str:
        """The title with its unit and the better direction, for an axis."""
        unit = f" ({self.unit})" if self.unit else ""
        arrow = {"lower": " ↓", "higher": " ↑", "": ""}[self.better]
        return f"{self.title}{unit}{arrow}"


def _error(
    name: str,
    title: str,
    column: str,
    source: str,
    wording: str,
    *,
    iou_levels: tuple[float, ...] = (),
) -> Metric:
    return Metric(
        name, title, "%", 0, 100, "lower", column, "proportion", True, source, wording, iou_levels
    )


def _share(
    name: str,
    title: str,
    better: Literal["lower", "higher", ""],
    kind: Kind,
    source: str,
    wording: str,
    *,
    column: str = "",
    unit: str = "",
) -> Metric:
    high = 100.0 if unit == "%" else 1.0
    return Metric(name, title, unit, 0, high, better, column or name, kind, False, source, wording)


def _box_accuracy(
    name: str,
    title: str,
    kind: Kind,
    wording: str,
    *,
    protocol: str,
    iou_levels: tuple[float, ...],
    column: str = "",
) -> Metric:
    """Return a metric of a swept protocol's boxes, in percent."""
    share = _share(name, title, "higher", kind, _CHOE, wording, column=column, unit="%")
    return replace(share, protocol=protocol, iou_levels=iou_levels)


def _score(
    name: str, title: str, better: Literal["lower", "higher"], source: str, wording: str
) -> Metric:
    return Metric(
        name,
        title,
        "",
        float("-inf"),
        float("inf"),
        better,
        name,
        "mean",
        False,
        source,
        wording,
    )


_ILSVRC = "Russakovsky et al. 2015 (ILSVRC), 4.2; the box of Selvaraju et al. 2017, 4.1"

_RISE = "Petsiuk et al. 2018 (RISE), 4.1"

_CHOE = "Choe et al. 2020 (WSOL evaluation), 4.2"

_ROAD = "Rong et al. 2022 (ROAD), 5"

_PLUS = "Chattopadhay et al. 2018 (Grad-CAM++), 4.1"

_ALL = (
    _error(
        "cls_err_top1",
        "Top-1 class. error",
        "top1_correct",
        "Russakovsky et al. 2015 (ILSVRC), 4.1",
        "images whose first prediction is not the label",
    ),
    _error(
        "cls_err_top5",
        "Top-5 class. error",
        "top5_correct",
        "Russakovsky et al. 2015 (ILSVRC), 4.1",
        "images whose first five predictions lack the label",
    ),
    _error(
        "gt_known_loc_err",
        "GT-known loc. error",
        "gt_known_loc",
        _ILSVRC,
        "images whose box, from the map of the true class, overlaps no true box by IoU {iou}",
        iou_levels=(0.5,),
    ),
    _error(
        "loc_err_top1",
        "Top-1 loc. error",
        "top1_loc",
        _ILSVRC,
        "images whose box or whose first prediction is wrong",
    ),
    _error(
        "loc_err_top5",
        "Top-5 loc. error",
        "top5_loc",
        _ILSVRC,
        "images whose box is wrong or whose first five predictions lack the label",
    ),
    _share(
        "mean_box_iou",
        "Box IoU",
        "higher",
        "mean",
        "Selvaraju et al. 2017 (Grad-CAM)",
        "IoU of the predicted box with the nearest true box; 0 where there is no predicted box",
        column="box_iou",
    ),
    _share(
        "pointing_hit",
        "Pointing hit",
        "higher",
        "proportion",
        "Zhang et al. 2018 (Excitation Backprop), 4.2; Fong et al. 2019 (TorchRay)",
        "images whose highest point lies within 15 pixels of a true box",
    ),
    _share(
        "pointing_hit_per_class",
        "Pointing hit, class mean",
        "higher",
        "class_mean",
        "Zhang et al. 2018 (Excitation Backprop), 4.2; Fong et al. 2019 (TorchRay)",
        "the same, averaged within each class first, then over the classes that occur",
        column="pointing_hit",
    ),
    _share(
        "energy_in_box",
        "Energy in box",
        "higher",
        "mean",
        "Wang et al. 2020 (Score-CAM), 4.2",
        "share of the positive map inside the union of the true boxes",
    ),
    _share(
        "energy_in_mask",
        "Energy in mask",
        "higher",
        "mean",
        "Wang et al. 2020 (Score-CAM), 4.2, on masks",
        "share of the positive map on the object's own pixels",
    ),
    _share(
        "mask_iou",
        "Mask IoU",
        "higher",
        "mean",
        "defined here",
        "IoU of the thresholded map with the object's mask",
    ),
    _share(
        "discrimination_hit",
        "Discrimination",
        "higher",
        "proportion",
        "defined here, after Selvaraju et al. 2017",
        "two-object images whose map for a class has more energy on its own object",
    ),
    _share(
        "discrimination_share",
        "Discrimination share",
        "higher",
        "mean",
        "defined here, after Selvaraju et al. 2017",
        "energy on the own object over the energy on both objects",
    ),
    _box_accuracy(
        "max_box_acc",
        "MaxBoxAcc, oracle",
        "oracle",
        "boxes right at IoU {iou}, at the best threshold for these very images (oracle threshold)",
        protocol="wsol_v1",
        iou_levels=(0.5,),
        column="iou_hits@wsol_v1",
    ),
    _box_accuracy(
        "max_box_acc_v2",
        "MaxBoxAccV2, oracle",
        "oracle",
        "mean over IoU {iou} of the boxes right at each level's best threshold (oracle)",
        protocol="wsol_v2",
        iou_levels=(0.3, 0.5, 0.7),
        column="iou_hits@wsol_v2",
    ),
    _box_accuracy(
        "box_acc_split",
        "BoxAcc, split",
        "proportion",
        "boxes right at IoU {iou}, at the threshold chosen on other images (split threshold)",
        protocol="wsol_v1",
        iou_levels=(0.5,),
    ),
    _box_accuracy(
        "box_acc_v2_split",
        "BoxAccV2, split",
        "mean",
        "mean over IoU {iou} of the boxes right at each level's threshold from other images"
        " (split)",
        protocol="wsol_v2",
        iou_levels=(0.3, 0.5, 0.7),
    ),
    _share(
        "pxap",
        "PxAP",
        "higher",
        "pooled",
        _CHOE,
        "average precision of the pixels of all images together, ranked by the map, against masks",
        column="pxap_counts",
        unit="%",
    ),
    _share(
        "deletion_auc",
        "Deletion AUC",
        "lower",
        "mean",
        _RISE,
        "area under the predicted class's probability while pixels go, most important first",
    ),
    _share(
        "insertion_auc",
        "Insertion AUC",
        "higher",
        "mean",
        _RISE,
        "area under the predicted class's probability while pixels come back onto a blurred image",
    ),
    _share(
        "average_drop",
        "Average drop",
        "lower",
        "mean",
        _PLUS,
        "mean loss of confidence, relative, when only the explained part is shown",
        unit="%",
    ),
    _share(
        "increase_in_confidence",
        "Increase in confidence",
        "higher",
        "proportion",
        _PLUS,
        "images whose confidence rises when only the explained part is shown",
        unit="%",
    ),
    _share(
        "average_gain",
        "Average gain",
        "higher",
        "mean",
        "Zhang et al. 2024 (Opti-CAM)",
        "mean gain of confidence, relative to the room above it, when only that part is shown",
        unit="%",
    ),
    _score(
        "log_odds_drop",
        "Log-odds drop",
        "lower",
        "after Schulz et al. 2020 and common practice",
        "mean loss of log(p / (1 - p)) when only the explained part is shown",
    ),
    _share(
        "road_morf",
        "ROAD, most relevant first",
        "lower",
        "mean",
        _ROAD,
        "mean probability after 20, 40, 60, 80 % of the pixels, most relevant first, were imputed",
    ),
    _share(
        "road_lerf",
        "ROAD, least relevant first",
        "higher",
        "mean",
        _ROAD,
        "the same with the least relevant pixels imputed first",
    ),
    Metric(
        "road",
        "ROAD",
        "",
        -0.5,
        0.5,
        "higher",
        "road",
        "mean",
        False,
        _ROAD,
        "half of least minus most relevant first",
    ),
    _share(
        "degenerate_rate",
        "Degenerate maps",
        "lower",
        "proportion",
        "defined here",
        "maps that are nowhere positive; they count as misses",
        column="degenerate",
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

HEADLINE = (
    "cls_err_top1",
    "cls_err_top5",
    "gt_known_loc_err",
    "loc_err_top1",
    "loc_err_top5",
    "mean_box_iou",
    "pointing_hit",
    "energy_in_box",
    "energy_in_mask",
    "discrimination_hit",
    "max_box_acc",
    "max_box_acc_v2",
    "box_acc_split",
    "box_acc_v2_split",
    "pxap",
    "deletion_auc",
    "insertion_auc",
    "degenerate_rate",
)
"""What the table at the end of a run shows, where it was measured."""


def metric_of(name: str) -> Metric:
    """Return the description of a metric of summary.csv; a protocol's suffix "@P" is ignored.

    Raises:
        UserError: for a name that is not in METRICS.
    """
    base = name.split("@", 1)[0]
    if base not in METRICS:
        raise UserError(f"no metric is called {name!r}; there are: {', '.join(METRICS)}")
    return METRICS[base]


def oracle_name(protocol: Protocol) -> str:
    """Return the metric that a swept protocol's best thresholds give.

    Returns:
        `max_box_acc@P` of a protocol P with one IoU level, `max_box_acc_v2@P` of one with several.
        The names without suffix belong to wsol_v1 and wsol_v2 at the levels they were published
        with: 0.5, and 0.3, 0.5, 0.7.
    """
    return _swept_name(protocol, "max_box_acc", "max_box_acc_v2")


def split_name(protocol: Protocol) -> str:
    """Return the metric that thresholds from other images give; named as in `oracle_name`."""
    return _swept_name(protocol, "box_acc_split", "box_acc_v2_split")


def _swept_name(protocol: Protocol, one: str, several: str) -> str:
    name = one if len(protocol.iou_levels) == 1 else several
    published = (METRICS[name].protocol, METRICS[name].iou_levels)
    plain = (protocol.name, protocol.iou_levels) == published
    return name if plain else f"{name}@{protocol.name}"


def protocol_name(name: str) -> str:
    """Return the protocol of a metric of summary.csv: its suffix, or what the plain name means.

    Empty for a metric that depends on no protocol, or on the run's first.
    """
    return name.partition("@")[2] or metric_of(name).protocol


def names_of(base: str, have: Iterable[str]) -> list[str]:
    """Return under which names a metric stands in a summary.

    Args:
        base: a name of METRICS.
        have: the summary's metrics.

    Returns:
        The plain name, if it is there, and for a metric of a swept protocol those with a suffix.
    """
    names = list(dict.fromkeys(have))
    further = [name for name in names if METRICS[base].protocol and name.startswith(f"{base}@")]
    return [name for name in names if name == base] + further


def described(name: str, protocols: Mapping[str, Protocol] | None = None) -> Metric:
    """Return a metric of summary.csv as this run measured it.

    Args:
        name: with its protocol's suffix, if it has one.
        protocols: of the run, from `protocols.run_protocols`; without them the definition names
            the published IoU levels.

    Returns:
        The metric with its whole name; the title says the suffix ("MaxBoxAcc, oracle @ mine") and
        the definition the IoU levels of the run's own protocol.

    Raises:
        UserError: for a name that is not in METRICS.
    """
    metric, suffix = metric_of(name), name.partition("@")[2]
    if suffix:
        metric = replace(metric, name=name, title=f"{metric.title} @ {suffix}")
    if not metric.iou_levels or not protocols:
        return metric
    protocol = protocols.get(protocol_name(name) or next(iter(protocols)))
    if protocol is None:
        return metric
    swept = bool(metric.protocol)
    return replace(metric, iou_levels=protocol.iou_levels if swept else protocol.iou_levels[:1])
