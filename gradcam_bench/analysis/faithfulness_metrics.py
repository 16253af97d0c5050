"""The records of the metrics that ask the network again, and of those of the map alone."""

from __future__ import annotations

from gradcam_bench.analysis.metric import PERCENT, SHARE, UNBOUNDED, Metric, Scale

_RISE = "Petsiuk et al. 2018 (RISE), 4.1"

_PLUS = "Chattopadhay et al. 2018 (Grad-CAM++), 4.1"

_ROAD = "Rong et al. 2022 (ROAD), 5"

FAITHFULNESS = (
    Metric(
        name="deletion_auc", title="Deletion AUC", kind="mean", column="deletion_auc",
        better="lower", source=_RISE,
        wording="area under the predicted class's probability while pixels go, most important"
        " first",
        roles=frozenset({"headline", "tested", "distribution", "gallery", "readme"}),
    ),
    Metric(
        name="insertion_auc", title="Insertion AUC", kind="mean", column="insertion_auc",
        better="higher", source=_RISE,
        wording="area under the predicted class's probability while pixels come back onto a blurred"
        " image",
        roles=frozenset(
            {"headline", "judge", "tested", "sweep", "distribution", "gallery", "beside", "readme",
             "papers"}
        ),
    ),
    Metric(
        name="average_drop", title="Average drop", kind="mean", column="average_drop",
        better="lower", scale=PERCENT, source=_PLUS,
        wording="mean loss of confidence, relative, when only the explained part is shown",
        roles=frozenset({"readme"}),
    ),
    Metric(
        name="increase_in_confidence", title="Increase in confidence", kind="proportion",
        column="increase_in_confidence", better="higher", scale=PERCENT, source=_PLUS,
        wording="images whose confidence rises when only the explained part is shown",
    ),
    Metric(
        name="average_gain", title="Average gain", kind="mean", column="average_gain",
        better="higher", scale=PERCENT, source="Zhang et al. 2024 (Opti-CAM)",
        wording="mean gain of confidence, relative to the room above it, when only that part is"
        " shown",
    ),
    Metric(
        name="log_odds_drop", title="Log-odds drop", kind="mean", column="log_odds_drop",
        better="lower", scale=UNBOUNDED, source="after Schulz et al. 2020 and common practice",
        wording="mean loss of log(p / (1 - p)) when only the explained part is shown",
    ),
    Metric(
        name="road_morf", title="ROAD, most relevant first", kind="mean", column="road_morf",
        better="lower", source=_ROAD,
        wording="mean probability after 20, 40, 60, 80 % of the pixels, most relevant first, were"
        " imputed",
    ),
    Metric(
        name="road_lerf", title="ROAD, least relevant first", kind="mean", column="road_lerf",
        better="higher", source=_ROAD,
        wording="the same with the least relevant pixels imputed first",
    ),
    Metric(
        name="road", title="ROAD", kind="mean", column="road", better="higher",
        scale=Scale("", 1.0, -0.5, 0.5, SHARE.digits), source=_ROAD,
        wording="half of least minus most relevant first",
        roles=frozenset({"readme"}),
    ),
)  # fmt: skip

MAP = (
    Metric(
        name="degenerate_rate", title="Degenerate maps", kind="proportion", column="degenerate",
        better="lower", source="defined here",
        wording="maps that are nowhere positive; they count as misses",
        roles=frozenset({"headline"}),
    ),
)  # fmt: skip
