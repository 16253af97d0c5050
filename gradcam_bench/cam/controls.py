"""The control maps, which depend neither on the network nor on the image's pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradcam_bench.seeds import image_rng

RANDOM_GRID = 7  # cells per side, as many as the last layer of VGG and ResNet has at 224 px


def random_map(image_ids: Sequence[str], seed: int) -> Tensor:
    """Return the control `random`: uniform noise on a 7 x 7 grid, (N, 7, 7).

    Each image's noise depends on (seed, image_id) alone, so neither batches nor shards change it.
    """
    return torch.stack(
        [
            torch.from_numpy(image_rng(seed, image_id, "random").random((RANDOM_GRID, RANDOM_GRID)))
            for image_id in image_ids
        ]
    ).float()


def center_map(n: int, size: tuple[int, int]) -> Tensor:
    """Return the control `center`: 1 - max(|x|, |y|) with x, y in (-1, 1); (N, H, W).

    Foreground at a threshold t of the maximum is the centred box of relative side about 1 - t,
    so its localization has a closed form.
    """
    y, x = (torch.linspace(-1 + 1 / s, 1 - 1 / s, s) for s in size)
    return (1 - torch.maximum(y[:, None].abs(), x[None, :].abs())).expand(n, -1, -1)
