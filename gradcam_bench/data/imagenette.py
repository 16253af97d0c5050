"""Imagenette: ILSVRC images that anyone can download without registering, some with boxes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container
from importlib import resources
from pathlib import Path

from gradcam_bench.data.annotation_tables import read_box_table
from gradcam_bench.data.annotations import (
    Annotation,
    contents,
    imagenet_classes,
    imagenet_index,
    known_classes,
    load_example,
    require_folder,
    short_names,
)
from gradcam_bench.data.example import Example
from gradcam_bench.data.regular_files import file_size
from gradcam_bench.errors import ExampleError, UserError

EXPECTED = (
    "the folder of Imagenette v2 (imagenette2, imagenette2-320 or imagenette2-160) "
    "with train/n*/*.JPEG and val/n*/*.JPEG"
)


def _find_images(folder: Path, wanted: Container[str]) -> dict[str, str]:
    """Return image id -> path of the ILSVRC validation images whose ids are `wanted`.

    Raises:
        UserError: two files are named for the same image.
    """
    found: dict[str, str] = {}
    for part in ("train", "val"):
        for path in folder.glob(f"{part}/n*/ILSVRC2012_val_*.JPEG"):
            if path.stem in wanted and found.setdefault(path.stem, str(path)) != str(path):
                raise UserError(
                    f"one image in two files: {found[path.stem]} and {path}; remove the wrong one"
                )
    return found


class Imagenette:
    """The images of Imagenette v2 that come from ILSVRC's validation set, with all their boxes.

    These keep their names (ILSVRC2012_val_*) in both train and val; the other images, from
    ILSVRC's training set, have no boxes here and are left out, as is every image that the box file
    does not name. Boxes are scaled from the original image's size to the file's. Labels are indices
    among the 1000 classes of ImageNet.

    Args:
        root: folder of the full-size, 320 px or 160 px version.
        boxes: CSV with a row per box: image_id,wnid,width,height,xmin,ymin,xmax,ymax, in pixels of
            the original width x height. None takes the packaged file of all 500 such images.

    Raises:
        UserError: the root holds no image with boxes, the box file is broken as a whole, or none
            of its classes is one of ImageNet's. A broken row breaks the example of its image.
    """

    def __init__(self, *, root: str, boxes: str | None = None) -> None:
        folder = require_folder(root, expected=EXPECTED)
        packaged = resources.files("gradcam_bench.data") / "imagenette_boxes.csv"
        if boxes is None:
            self._table: str | None = None
            with resources.as_file(packaged) as path:
                annotations, faults = read_box_table(path)
        else:
            self._table = boxes
            annotations, faults = read_box_table(Path(boxes).expanduser())
        images = _find_images(folder, annotations.keys() | faults.keys())
        if not images:
            raise UserError(
                f"no image with boxes found in dataset.root={root}, which holds "
                f"{contents(folder)}; expected {EXPECTED}"
            )
        labels = {i: annotations[i].wnids[0] for i in images if i in annotations}
        known, unknown = known_classes(labels, imagenet_index(), "column wnid of the box file")
        self.image_ids = tuple(sorted(images))
        self.class_names = short_names(imagenet_classes().values())
        self._images = tuple(images[image_id] for image_id in self.image_ids)
        self._annotations = {image_id: annotations[image_id] for image_id in known}
        self._faults = faults | unknown

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        """Return example `index`; raises ExampleError, naming the file, where it is broken."""
        image_id, path = self.image_ids[index], self._images[index]
        annotation = self._annotation(image_id)
        wnid, folder = annotation.wnids[0], os.path.basename(os.path.dirname(path))
        if folder != wnid:
            raise ExampleError(
                f"image {path} lies in the folder of {folder}, but its boxes are of {wnid}; "
                f"move it back, or correct the box file",
                kind="label",
                path=path,
            )
        return load_example(
            image_id,
            path,
            label=imagenet_index()[wnid],
            size=annotation.size,
            boxes=annotation.boxes,
        )

    def _annotation(self, image_id: str) -> Annotation:
        if image_id in self._annotations:
            return self._annotations[image_id]
        kind, fault = self._faults[image_id]
        raise ExampleError(
            f"the boxes of image {image_id} in the box file {self._table} are broken ({fault}); "
            f"correct the row",
            kind=kind,
            path=self._table,
        )

    def fingerprint(self) -> str:
        """Return 16 hex digits of the SHA-256 of the examples, to tell data sets apart.

        Covers image ids, labels, sizes of the image files in bytes, and the boxes with the size
        they are given in; not the pixels.
        """
        digest = hashlib.sha256()
        for image_id, path in zip(self.image_ids, self._images, strict=True):
            a = self._annotations.get(image_id)
            boxes = f"{a.wnids[0]} {file_size(path)} {a.size} {a.boxes.tolist()}" if a else "broken"
            digest.update(f"{image_id} {boxes}\n".encode())
        return digest.hexdigest()[:16]
