"""The records of the metrics that compare a map, or a prediction, with what is annotated."""

from __future__ import annotations

from gradcam_bench.analysis.metric import PERCENT, Metric
from gradcam_bench.store.rows import sweep_column

_ILSVRC = "Russakovsky et al. 2015 (ILSVRC), 4.1"

_ILSVRC_BOX = "Russakovsky et al. 2015 (ILSVRC), 4.2; the box of Selvaraju et al. 2017, 4.1"

_POINTING = "Zhang et al. 2018 (Excitation Backprop), 4.2; Fong et al. 2019 (TorchRay)"

_TWO_OBJECTS = "defined here, after Selvaraju et al. 2017"

_CHOE = "Choe et al. 2020 (WSOL evaluation), 4.2"

LOCALIZATION = (
    Metric(
        name="cls_err_top1", title="Top-1 class. error", kind="proportion", column="top1_correct",
        better="lower", scale=PERCENT, complement=True, source=_ILSVRC,
        wording="images whose first prediction is not the label",
        roles=frozenset({"headline", "classification"}),
    ),
    Metric(
        name="cls_err_top5", title="Top-5 class. error", kind="proportion", column="top5_correct",
        better="lower", scale=PERCENT, complement=True, source=_ILSVRC,
        wording="images whose first five predictions lack the label",
        roles=frozenset({"headline", "classification"}),
    ),
    Metric(
        name="gt_known_loc_err", title="GT-known loc. error", kind="proportion",
        column="gt_known_loc", better="lower", scale=PERCENT, complement=True, source=_ILSVRC_BOX,
        wording="images whose box, from the map of the true class, overlaps no true box by IoU"
        " {iou}",
        iou_levels=(0.5,),
        roles=frozenset({"headline", "judge", "tested", "sweep", "readme", "theory"}),
    ),
    Metric(
        name="loc_err_top1", title="Top-1 loc. error", kind="proportion", column="top1_loc",
        better="lower", scale=PERCENT, complement=True, source=_ILSVRC_BOX,
        wording="images whose box or whose first prediction is wrong",
        roles=frozenset({"headline", "readme", "papers"}),
    ),
    Metric(
        name="loc_err_top5", title="Top-5 loc. error", kind="proportion", column="top5_loc",
        better="lower", scale=PERCENT, complement=True, source=_ILSVRC_BOX,
        wording="images whose box is wrong or whose first five predictions lack the label",
        roles=frozenset({"headline", "readme"}),
    ),
    Metric(
        name="mean_box_iou", title="Box IoU", kind="mean", column="box_iou", better="higher",
        source="Selvaraju et al. 2017 (Grad-CAM)",
        wording="IoU of the predicted box with the nearest true box; 0 where there is no predicted"
        " box",
        roles=frozenset(
            {"headline", "judge", "tested", "distribution", "gallery", "readme", "theory"}
        ),
    ),
    Metric(
        name="pointing_hit", title="Pointing hit", kind="proportion", column="pointing_hit",
        better="higher", source=_POINTING,
        wording="images whose highest point lies within 15 pixels of a true box",
        roles=frozenset({"headline", "readme", "theory"}),
    ),
    Metric(
        name="pointing_hit_per_class", title="Pointing hit, class mean", kind="class_mean",
        column="pointing_hit", better="higher", source=_POINTING,
        wording="the same, averaged within each class first, then over the classes that occur",
    ),
    Metric(
        name="energy_in_box", title="Energy in box", kind="mean", column="energy_in_box",
        better="higher", source="Wang et al. 2020 (Score-CAM), 4.2",
        wording="share of the positive map inside the union of the true boxes",
        roles=frozenset({"headline", "tested", "distribution", "gallery", "readme", "theory"}),
    ),
    Metric(
        name="energy_in_mask", title="Energy in mask", kind="mean", column="energy_in_mask",
        better="higher", source="Wang et al. 2020 (Score-CAM), 4.2, on masks",
        wording="share of the positive map on the object's own pixels",
        roles=frozenset({"headline", "distribution", "gallery"}),
    ),
    Metric(
        name="mask_iou", title="Mask IoU", kind="mean", column="mask_iou", better="higher",
        source="defined here", wording="IoU of the thresholded map with the object's mask",
        roles=frozenset({"gallery"}),
    ),
    Metric(
        name="discrimination_hit", title="Discrimination", kind="proportion",
        column="discrimination_hit", better="higher", source=_TWO_OBJECTS,
        wording="two-object images whose map for a class has more energy on its own object",
        roles=frozenset({"headline", "tested", "beside"}),
    ),
    Metric(
        name="discrimination_share", title="Discrimination share", kind="mean",
        column="discrimination_share", better="higher", source=_TWO_OBJECTS,
        wording="energy on the own object over the energy on both objects",
        roles=frozenset({"gallery"}),
    ),
    Metric(
        name="max_box_acc", title="MaxBoxAcc, oracle", kind="oracle",
        column=sweep_column("wsol_v1"), better="higher", scale=PERCENT, source=_CHOE,
        wording="boxes right at IoU {iou}, at the best threshold for these very images (oracle"
        " threshold)",
        protocol="wsol_v1", iou_levels=(0.5,),
        roles=frozenset({"headline", "judge", "readme", "theory"}),
    ),
    Metric(
        name="max_box_acc_v2", title="MaxBoxAccV2, oracle", kind="oracle",
        column=sweep_column("wsol_v2"), better="higher", scale=PERCENT, source=_CHOE,
        wording="mean over IoU {iou} of the boxes right at each level's best threshold (oracle)",
        protocol="wsol_v2", iou_levels=(0.3, 0.5, 0.7),
        roles=frozenset({"headline", "judge", "readme", "theory", "papers"}),
    ),
    Metric(
        name="box_acc_split", title="BoxAcc, split", kind="proportion", column="box_acc_split",
        better="higher", scale=PERCENT, source=_CHOE,
        wording="boxes right at IoU {iou}, at the threshold chosen on other images (split"
        " threshold)",
        protocol="wsol_v1", iou_levels=(0.5,),
        roles=frozenset({"headline", "tested"}),
    ),
    Metric(
        name="box_acc_v2_split", title="BoxAccV2, split", kind="mean", column="box_acc_v2_split",
        better="higher", scale=PERCENT, source=_CHOE,
        wording="mean over IoU {iou} of the boxes right at each level's threshold from other images"
        " (split)",
        protocol="wsol_v2", iou_levels=(0.3, 0.5, 0.7),
        roles=frozenset({"headline"}),
    ),
    Metric(
        name="pxap", title="PxAP", kind="pooled", column="pxap_counts", better="higher",
        scale=PERCENT, source=_CHOE,
        wording="average precision of the pixels of all images together, ranked by the map, against"
        " masks",
        roles=frozenset({"headline"}),
    ),
)  # fmt: skip
