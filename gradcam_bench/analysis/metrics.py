"""Every metric by its name, and which names stand for it under a run's protocols.

To add a metric is to add one record to `localization_metrics` or `faithfulness_metrics`: its roles
say in which tables, tests and figures it takes part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from gradcam_bench.analysis.faithfulness_metrics import FAITHFULNESS, MAP
from gradcam_bench.analysis.localization_metrics import LOCALIZATION
from gradcam_bench.analysis.metric import Metric
from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.names import base_and_protocol, column_of

METRICS: dict[str, Metric] = {m.name: m for m in (*LOCALIZATION, *FAITHFULNESS, *MAP)}
"""Every metric by its name, in the order of tables."""

ROLES = {
    "headline": "a column of the table at the end of a run",
    "judge": "decides which cell is best, where no judge before it was measured",
    "tested": "compared image by image",
    "sweep": "drawn along the layers",
    "distribution": "drawn as a distribution over images",
    "gallery": "shown beside each picture of the report's gallery",
    "beside": "told in the sentence on a run, after the metric that judges it",
    "classification": "depends on the network alone, not on maps and protocols",
    "papers": "told of other networks where no paper reports this one",
    "readme": "a line of the README's table of a run",
    "theory": "a line of the table of what the controls score",
}
"""What each role of a metric means."""


def metrics_with(role: str) -> list[str]:
    """Return the names of the metrics that have a role, in the order of tables.

    Raises:
        UserError: for a role that is not in ROLES.
    """
    if role not in ROLES:
        raise UserError(f"no metric has the role {role!r}; the roles are: {', '.join(ROLES)}")
    return [name for name, metric in METRICS.items() if role in metric.roles]


def metric_of(name: str) -> Metric:
    """Return the description of a metric of summary.csv; a protocol's suffix "@P" is ignored.

    Raises:
        UserError: for a name that is not in METRICS.
    """
    base, _ = base_and_protocol(name)
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
    return column_of(name, "" if plain else protocol.name)


def protocol_name(name: str) -> str:
    """Return the protocol of a metric of summary.csv: its suffix, or what the plain name means.

    Empty for a metric that depends on no protocol, or on the run's first.
    """
    return base_and_protocol(name)[1] or metric_of(name).protocol


def names_of(base: str, have: Iterable[str]) -> list[str]:
    """Return under which names a metric of equal rank stands in a summary.

    A run has one first protocol, whose numbers have plain names; the same metrics under further
    protocols are shown (`names_with`), but neither judge nor are tested. Swept protocols have no
    first: all of them count.

    Args:
        base: a name of METRICS.
        have: the summary's metrics.

    Returns:
        The plain name, if it is there, and for a metric of a swept protocol those with a suffix.
    """
    names = list(dict.fromkeys(have))
    further = [name for name in names if name != base and base_and_protocol(name)[0] == base]
    return [name for name in names if name == base] + (further if METRICS[base].protocol else [])


def names_with(role: str, have: Iterable[str]) -> list[str]:
    """Return under which names the metrics of a role stand in a summary, further protocols too.

    Args:
        role: a word of ROLES.
        have: the summary's metrics.

    Returns:
        In the order of tables, each plain name followed by those with a protocol's suffix, as
        "gt_known_loc_err" by "gt_known_loc_err@cam2016".
    """
    found: dict[str, list[str]] = {base: [] for base in metrics_with(role)}
    for name in dict.fromkeys(have):
        found.get(base_and_protocol(name)[0], []).append(name)
    return [name for base, names in found.items() for name in sorted(names, key=base.__ne__)]


def shared_names(bases: Iterable[str], summaries: Sequence[pd.DataFrame]) -> list[str]:
    """Return the names, under whatever protocol, that every summary has of some metrics.

    Args:
        bases: names of METRICS.
        summaries: tidy summaries with a column `metric`, one or more.
    """
    have = [set(summary["metric"]) for summary in summaries]
    names = [name for base in bases for name in names_of(base, summaries[0]["metric"])]
    return [name for name in names if all(name in there for there in have)]


def described(name: str, protocols: Mapping[str, Protocol] | None = None) -> Metric:
    """Return a metric of summary.csv as this run measured it.

    Args:
        name: with its protocol's suffix, if it has one.
        protocols: of the run, from `protocol.run_protocols`; without them the definition names
            the published IoU levels.

    Returns:
        The metric with its whole name; the title says the suffix ("MaxBoxAcc, oracle @ mine") and
        the definition the IoU levels of the run's own protocol.

    Raises:
        UserError: for a name that is not in METRICS.
    """
    metric, (_, suffix) = metric_of(name), base_and_protocol(name)
    if suffix:
        metric = replace(metric, name=name, title=f"{metric.title} @ {suffix}")
    if not metric.iou_levels or not protocols:
        return metric
    protocol = protocols.get(protocol_name(name) or next(iter(protocols)))
    if protocol is None:
        return metric
    swept = bool(metric.protocol)
    return replace(metric, iou_levels=protocol.iou_levels if swept else protocol.iou_levels[:1])
