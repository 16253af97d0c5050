"""The protocols of conf/protocol, written out a second time."""

from dataclasses import replace

from gradcam_bench.localization.protocol import Protocol

GRADCAM2017 = Protocol(
    name="gradcam2017",
    source="test",
    relu="before",
    upsampling="bilinear",
    normalization="max",
    quantize=False,
    threshold_rule="fixed",
    threshold=0.15,
    comparison=">=",
    component="largest",
    finder="labels",
    connectivity=8,
    box="half_open",
    iou="half_open",
    ground_truth="float",
    iou_levels=(0.5,),
)
V1 = Protocol(
    name="wsol_v1",
    source="test",
    relu="none",
    upsampling="bicubic",
    normalization="minmax",
    quantize=True,
    threshold_rule="oracle",
    interval=0.001,
    comparison=">",
    component="largest",
    finder="contours",
    connectivity=8,
    box="cv2",
    iou="inclusive",
    ground_truth="truncated",
    iou_levels=(0.5,),
)
V2 = replace(V1, name="wsol_v2", component="all", iou_levels=(0.3, 0.5, 0.7))
