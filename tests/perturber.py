"""Deletion, insertion and their kin of one scorer, called with plain tensors."""

from dataclasses import replace

from gradcam_bench.faithfulness import curves, masked, road
from gradcam_bench.faithfulness.curves import Options
from gradcam_bench.faithfulness.target_scores import Explained, TargetScores


class Perturber:
    """The metrics of `gradcam_bench.faithfulness`, all of one scorer."""

    def __init__(self, scorer, preprocessing, options=None, *, batch_size=32, seed=0):
        self.scores, self.preprocessing = TargetScores(scorer, batch_size), preprocessing
        self.options = replace(options or Options(), seed=seed)

    def curves(self, images, heatmaps, targets, image_ids):
        explained = Explained(images, heatmaps, targets, image_ids)
        return curves.deletion_and_insertion(
            explained, self.scores, self.preprocessing, self.options
        )

    def confidence(self, images, heatmaps, targets):
        return masked.confidence(Explained(images, heatmaps, targets, ()), self.scores)

    def road(self, images, heatmaps, targets, image_ids):
        explained = Explained(images, heatmaps, targets, image_ids)
        return road.road(explained, self.scores, ties=self.options.ties, seed=self.options.seed)
