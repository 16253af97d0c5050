"""Imagenette, whose ILSVRC validation images have boxes: a benchmark without registration."""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from pathlib import Path

from gradcam_bench.data.annotations import (
    contents,
    file_size,
    imagenet_classes,
    imagenet_index,
    load_example,
    read_box_table,
    require_folder,
    short_names,
)
from gradcam_bench.data.example import Example
from gradcam_bench.errors import ExampleError, UserError

EXPECTED = (
    "the folder of Imagenette v2 (imagenette2, imagenette2-320 or imagenette2-160) "
    "with train/n*/*.JPEG and val/n*/*.JPEG"
)


class Imagenette:
    """The images of Imagenette v2 that come from ILSVRC's validation set, with all their boxes.

    These keep their names (ILSVRC2012_val_*) in both train and val; the other images, from
    ILSVRC's training set, have no boxes here and are left out. Boxes are scaled per axis from the
    original image's size to the file's. Labels are indices among the 1000 classes of ImageNet.

    Args:
        root: folder of the full-size, 320 px or 160 px version.
        boxes: CSV with a row per box: image_id,wnid,width,height,xmin,ymin,xmax,ymax, in pixels of
            the original width x height. None takes the packaged file of all 500 such images.

    Raises:
        UserError: the root holds no image with boxes, or the box file is broken.
    """

    def __init__(self, *, root: str, boxes: str | None = None) -> None:
        folder = require_folder(root, expected=EXPECTED)
        if boxes is None:
            with resources.as_file(
                resources.files("gradcam_bench.data") / "imagenette_boxes.csv"
            ) as packaged:
                annotations = read_box_table(packaged)
        else:
            annotations = read_box_table(Path(boxes).expanduser())
        images = {
            path.stem: path
            for part in ("train", "val")
            for path in folder.glob(f"{part}/n*/ILSVRC2012_val_*.JPEG")
            if path.stem in annotations
        }
        if not images:
            raise UserError(
                f"no image with boxes found in dataset.root={root}, which holds "
                f"{contents(folder)}; expected {EXPECTED}"
            )
        self.image_ids = tuple(sorted(images))
        self.class_names = short_names(imagenet_classes().values())
        self._images = tuple(str(images[image_id]) for image_id in self.image_ids)
        self._annotations = tuple(annotations[image_id] for image_id in self.image_ids)
        if unknown := {a.wnids[0] for a in self._annotations} - imagenet_index().keys():
            raise UserError(
                f"box file: {min(unknown)} is not one of the 1000 classes of ILSVRC-2012; "
                f"correct the column wnid"
            )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        """Return example `index`; raises ExampleError, naming the file, where it is broken."""
        path, annotation = self._images[index], self._annotations[index]
        wnid, folder = annotation.wnids[0], os.path.basename(os.path.dirname(path))
        if folder != wnid:
            raise ExampleError(
                f"image {path} lies in the folder of {folder}, but its boxes are of {wnid}; "
                f"move it back, or correct the box file",
                path=path,
            )
        return load_example(
            self.image_ids[index],
            path,
            label=imagenet_index()[wnid],
            size=annotation.size,
            boxes=annotation.boxes,
        )

    def fingerprint(self) -> str:
        """Return 16 hex digits of the SHA-256 of what is there to evaluate.

        Covers image ids, labels, sizes of the image files in bytes, and the boxes with the size
        they are given in; not the pixels.
        """
        digest = hashlib.sha256()
        for image_id, path, a in zip(self.image_ids, self._images, self._annotations, strict=True):
            row = f"{image_id} {a.wnids[0]} {file_size(path)} {a.size} {a.boxes.tolist()}\n"
            digest.update(row.encode())
        return digest.hexdigest()[:16]
