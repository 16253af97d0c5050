"""Scores of the image masked by its heatmap: average drop, average gain and the like.

References:
    Chattopadhay et al., Grad-CAM++, WACV 2018, section 4.1: average drop and increase in
    confidence; Zhang et al., Opti-CAM, CVIU 2024, section 4: average gain.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.cam.upsampling import normalize_by_max
from gradcam_bench.faithfulness.target_scores import Explained, TargetScores


def confidence(explained: Explained, scores: TargetScores) -> dict[str, Tensor]:
    """Score each image masked by each of its maps: image * heatmap / max, in normalised space.

    With Y the probability of the clean image and O that of the masked one: average drop is
    max(0, Y - O) / Y, increase in confidence is O > Y, average gain is max(0, O - Y) / (1 - Y).
    A drop from Y = 0 and a gain above Y = 1 are undefined (NaN), and so is every score where
    the network's logits are not finite.

    Args:
        explained: N images with M maps each.
        scores: gives the network's probability of one class per image.

    Returns:
        average_drop and average_gain in [0, 1], increase_in_confidence in {0, 1}, and
        log_odds_drop, the loss of log(p / (1 - p)); (N, M) each.
    """
    images, heatmaps, targets = explained.images, explained.heatmaps, explained.targets
    n, m = heatmaps.shape[:2]
    clean = scores(images, targets)[:, None]
    masks = normalize_by_max(heatmaps.flatten(0, 1)).view_as(heatmaps)
    masked = (images[:, None] * masks[:, :, None]).flatten(0, 1)
    through = scores(masked, targets.repeat_interleave(m)).view(n, m)
    lost, won = (clean - through).relu(), (through - clean).relu()
    undefined = clean.isnan() | through.isnan()
    tiny = torch.finfo(torch.float32).tiny
    odds = [p.clamp(tiny, 1 - 1e-7).logit() for p in (clean, through)]
    return {
        "average_drop": torch.where(clean > 0, lost / clean, torch.nan),
        "increase_in_confidence": (through > clean).float().masked_fill(undefined, torch.nan),
        "average_gain": torch.where(clean < 1, won / (1 - clean), torch.nan),
        "log_odds_drop": odds[0] - odds[1],
    }
