"""Does a map depend on what the network learned? Parameter randomisation.

References:
    Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, section 4: weights are
    re-initialised from the output towards the input ("cascading") or one layer at a time
    ("independent"), and the maps compared with the original's by Spearman's rank correlation and
    by SSIM. Departures: batch norms keep their parameters, and maps are compared after the ReLU,
    which is what Grad-CAM shows.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from gradcam_bench.cam.controls import center_map, random_map
from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.cam.methods import grad_cam
from gradcam_bench.cam.upsampling import normalize_by_max, upsample
from gradcam_bench.data.example import Dataset
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness.target_scores import Explained
from gradcam_bench.localization.boxes import localize
from gradcam_bench.localization.energy import energy_in_region
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.models.model import Model
from gradcam_bench.names import Row
from gradcam_bench.run.batches import Item, batches

MODES = ("cascading", "independent")


def weight_layers(network: nn.Module) -> list[str]:
    """Return the convolutions and linear layers, from the output towards the input.

    The order is that of registration, which the networks here share with their forward pass.
    """
    weighted = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    return weighted[::-1]


def randomized(network: nn.Module, names: Sequence[str], *, seed: int) -> nn.Module:
    """Return a copy of the network whose named layers are initialised anew.

    The global random generator is left alone. Each layer's draw depends on the seed and on the
    layer's whole name, so the draws of different layers are independent of one another.
    """
    own = copy.deepcopy(network)
    for name in names:
        module = own.get_submodule(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_layer_seed(seed, name))
            module.reset_parameters()  # type: ignore[operator]
    return own


def _layer_seed(seed: int, name: str) -> int:
    """Return the seed of one layer's new weights, in [0, 2**63)."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def variants(network: nn.Module, *, mode: str, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield ("original", network), then a randomised copy per layer, named by the layer.

    Args:
        network: in eval mode.
        mode: "cascading" (a layer and all layers after it) or "independent" (that layer alone).
        seed: of the new weights.

    Raises:
        UserError: an unknown mode.
    """
    if mode not in MODES:
        raise UserError(f"mode expects one of {', '.join(MODES)}, got {mode!r}.")
    yield "original", network
    names = weight_layers(network)
    for i, name in enumerate(names):
        chosen = names[: i + 1] if mode == "cascading" else [name]
        yield name, randomized(network, chosen, seed=seed)


def similarity(maps: np.ndarray, original: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare heatmaps (N, H, W) in [0, 1] image by image.

    Returns:
        Spearman's rank correlation and SSIM (7 x 7 window, range 1), (N,) each. The correlation
        with a flat map is undefined: NaN.
    """
    ranks, structures = [], []
    for a, b in zip(maps, original, strict=True):
        flat = a.max() == a.min() or b.max() == b.min()
        ranks.append(np.nan if flat else stats.spearmanr(a.ravel(), b.ravel()).statistic)
        structures.append(structural_similarity(a, b, data_range=1.0))
    return np.array(ranks), np.array(structures)


BATCH = 50
"""Images whose maps are compared at a time."""


def randomization_check(
    model: Model,
    dataset: Dataset,
    protocol: Protocol,
    *,
    insertion: Callable[[Explained], Tensor],
    mode: str = "cascading",
    seed: int = 0,
) -> pd.DataFrame:
    """Randomise a network layer by layer and follow its Grad-CAM maps at the default layer.

    Args:
        model: the trained network.
        dataset: the images; maps are computed for their labels.
        protocol: how boxes are derived from a map, which is taken after the ReLU.
        insertion: gives the areas under the insertion curve, (N, 1), scored by the trained network:
            do the randomised maps still show it what it needs?
        mode: "cascading" or "independent", see `variants`.
        seed: of the new weights and of the control `random`.

    Returns:
        One row per step and image: step (0 is the original), layer, image_id, spearman, ssim,
        box_iou, energy_in_box, insertion_auc. The controls stand in rows of step -1.
    """
    size = model.preprocessing.size
    geometry = Geometry(size=size, interpolation=model.preprocessing.interpolation)  # type: ignore[arg-type]
    loader = batches(
        dataset, geometry, range(len(dataset)), batch_size=BATCH, num_workers=0, pin=False
    )
    networks = list(variants(model.network, mode=mode, seed=seed))
    rows: list[Row] = []
    for batch in loader:
        x = model.preprocessing.normalize(batch.images)
        measure = _Measure(batch.good, x, protocol, insertion)
        controls = {
            "random": random_map(measure.image_ids, seed),
            "center": center_map(len(batch.good), (size, size)),
        }
        for control, found in controls.items():
            rows += measure(found, step=-1, layer=control)
        for step, (name, network) in enumerate(networks):
            rows += measure(_signed_maps(network, model.default_layer, measure), step, name)
    return pd.DataFrame(rows)


def _signed_maps(network: nn.Module, layer: str, measure: _Measure) -> Tensor:
    """Return the Grad-CAM maps (N, h, w) of a batch's images for their labels, before the ReLU."""
    cam = GradCAM(network, layer)
    cam.forward(measure.x)
    cam.backward(measure.labels)
    return grad_cam(cam.activations[0], cam.gradients[0])


@dataclass
class _Measure:
    """Compares maps of one batch of images with those of the original network.

    Attributes:
        items: the images, none broken.
        x: (N, 3, H, W), normalised.
        protocol: how boxes are derived from a heatmap.
        insertion: gives the areas under the insertion curve, (N, 1).
        original: the original network's heatmaps, (N, H, W); None before step 0.
    """

    items: Sequence[Item]
    x: Tensor
    protocol: Protocol
    insertion: Callable[[Explained], Tensor]
    original: np.ndarray | None = None

    @property
    def image_ids(self) -> list[str]:
        """The ids of the images."""
        return [item.image_id for item in self.items]

    @property
    def labels(self) -> Tensor:
        """The class asked for, one per image, (N,) int64."""
        return torch.tensor([item.label for item in self.items])

    def __call__(self, signed: Tensor, step: int, layer: str) -> list[Row]:
        """Return a row per image for signed maps (N, h, w) of one step."""
        heat = normalize_by_max(upsample(signed.relu(), (self.x.shape[-2], self.x.shape[-1])))
        explained = Explained(self.x, heat[:, None], self.labels, self.image_ids)
        insertion = self.insertion(explained)[:, 0].tolist()
        maps = heat.numpy()
        if step == 0:
            self.original = maps
        ranks = structures = np.full(len(maps), np.nan)
        if self.original is not None:
            ranks, structures = similarity(maps, self.original)
        rows: list[Row] = []
        for i, item in enumerate(self.items):
            assert item.boxes is not None
            rows.append(
                {
                    "step": step,
                    "layer": layer,
                    "image_id": item.image_id,
                    "spearman": ranks[i],
                    "ssim": structures[i],
                    "box_iou": localize(maps[i], item.boxes, self.protocol).box_iou,
                    "energy_in_box": energy_in_region(maps[i], item.boxes),
                    "insertion_auc": insertion[i],
                }
            )
        return rows
