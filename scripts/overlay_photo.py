"""Lay Grad-CAM over photographs: the picture at the top of the README.

    python scripts/overlay_photo.py                       (two CC0 photographs of scikit-image)
    python scripts/overlay_photo.py cat.jpg dog.jpg       (your own; add model=NAME for another)

Writes overlay.png into results/overlay.
"""

from __future__ import annotations

from pathlib import Path

import skimage.data
import torch
from PIL import Image

from gradcam_bench import GradCAM, api, overlay
from gradcam_bench.config import bind
from gradcam_bench.data.annotations import imagenet_classes, short_names
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.data.images import load_rgb
from gradcam_bench.report.figures import style

FOLDER = Path("results/overlay")


def main(arguments: list[str]) -> None:
    files = [a for a in arguments if "=" not in a]
    overrides = [a for a in arguments if "=" in a] or ["model=efficientnet_lite0"]
    photographs = [load_rgb(file) for file in files] or [
        Image.fromarray(skimage.data.chelsea()),
        Image.fromarray(skimage.data.coffee()),
    ]
    config, _ = api.compose(overrides)
    model = bind(config.model, "model")()
    names = short_names(imagenet_classes().values())
    cam = GradCAM(model.network, model.default_layer)
    preprocessing = model.preprocessing
    geometry = Geometry(preprocessing.size, interpolation=preprocessing.interpolation)
    with style.paper():
        figure, axes = style.new_axes(
            width=7.2, height=1.9 * len(photographs), rows=len(photographs), columns=3
        )
        for row, photograph in enumerate(photographs):
            pixels = torch.from_numpy(geometry.image(photograph)).permute(2, 0, 1)
            img = preprocessing.normalize(pixels[None])[0]
            top = cam.forward(img).softmax(0).topk(2)
            titles = ["photograph"]
            pictures = [photograph]
            for probability, class_idx in zip(*map(torch.Tensor.tolist, top), strict=True):
                pictures.append(overlay(photograph, cam.generate(img, class_idx)))  # type: ignore[arg-type]
                titles.append(f"{names[class_idx]} ({probability:.0%})")
            for panel, picture, title in zip(axes[3 * row :], pictures, titles, strict=False):
                panel.imshow(picture)
                panel.set_title(title)
                panel.set_axis_off()
        FOLDER.mkdir(parents=True, exist_ok=True)
        figure.savefig(FOLDER / "overlay.png", dpi=160)
    print(f"Written to {FOLDER}/overlay.png: {model.name}, {model.default_layer}")


if __name__ == "__main__":
    api.run_script(main)
