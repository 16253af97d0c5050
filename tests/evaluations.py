"""What turns a batch into rows, made from the pieces that a test has at hand."""

import torch

from gradcam_bench.run.batch import Evaluation
from gradcam_bench.run.faithfulness_columns import FaithfulnessColumns
from gradcam_bench.run.localization_columns import MapScores
from gradcam_bench.run.maps import CellMaps, Input


def evaluation(
    cam,
    preprocessing,
    *,
    methods,
    protocols,
    perturber,
    memory_format=torch.channels_last,
    follow_label=False,
    road=False,
):
    to_input = Input(preprocessing, torch.device("cpu"), memory_format)
    return Evaluation(
        to_input,
        CellMaps(cam, methods, to_input.size, seed=0),
        MapScores(protocols, to_input.size),
        FaithfulnessColumns(perturber.scores, preprocessing, perturber.options, follow_label, road),
    )
