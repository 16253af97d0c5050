"""The validation set of ILSVRC-2012 in any of its three usual layouts."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from gradcam_bench.data.annotations import (
    contents,
    file_size,
    imagenet_classes,
    imagenet_index,
    load_example,
    read_devkit,
    read_solution,
    read_xml,
    require_folder,
    short_names,
)
from gradcam_bench.data.example import Example
from gradcam_bench.errors import ExampleError, UserError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
# Where to look under the root; the first folder that holds such files is taken, alone.
IMAGE_FOLDERS = (
    "ILSVRC/Data/CLS-LOC/val",
    "Data/CLS-LOC/val",
    "val",
    "ILSVRC2012_img_val",
    ".",
)
BOX_FOLDERS = (
    "ILSVRC/Annotations/CLS-LOC/val",
    "Annotations/CLS-LOC/val",
    "ILSVRC2012_bbox_val_v3/val",
    "ILSVRC2012_bbox_val_v3",
    "bbox/val",
    "bbox",
    "val_annotations",
)
DEVKIT_FOLDERS = ("ILSVRC2012_devkit_t12/data", "devkit/data")
SOLUTIONS = ("LOC_val_solution.csv", "../LOC_val_solution.csv")
EXPECTED = """the ILSVRC-2012 validation set in one of three layouts:
  Kaggle:    ILSVRC/Data/CLS-LOC/val/*.JPEG, ILSVRC/Annotations/CLS-LOC/val/*.xml, \
LOC_val_solution.csv
  official:  val/ILSVRC2012_val_*.JPEG, ILSVRC2012_bbox_val_v3/val/*.xml, \
ILSVRC2012_devkit_t12/data/
  by synset: val/n01440764/*.JPEG, with *.xml beside them or in ILSVRC2012_bbox_val_v3/val/"""

_SYNSET = re.compile(r"n\d{8}")


def _files(folder: str, suffixes: tuple[str, ...], prefix: str = "") -> dict[str, str]:
    """Return stem -> path of the files in a folder."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in suffixes and stem.startswith(prefix):
                found[stem] = entry.path
    return found


def _synset_files(folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Return stem -> path of the files in the synset folders of a folder."""
    with os.scandir(folder) as entries:
        synsets = [e.path for e in entries if _SYNSET.fullmatch(e.name) and e.is_dir()]
    found: dict[str, str] = {}
    for synset in synsets:
        for stem, path in _files(synset, suffixes).items():
            if found.setdefault(stem, path) != path:
                raise UserError(
                    f"one image in two synset folders: {found[stem]} and {path}; "
                    f"remove the wrong one"
                )
    return found


def _find_images(root: Path) -> tuple[Path, dict[str, str], bool]:
    """Return the folder of the images, id -> path, and whether they lie in synset folders."""
    for folder in (root / name for name in IMAGE_FOLDERS):
        if not folder.is_dir():
            continue
        if images := _files(str(folder), IMAGE_SUFFIXES, "ILSVRC2012_val_"):
            return folder, images, False
        if images := _synset_files(str(folder), IMAGE_SUFFIXES):
            return folder, images, True
    raise UserError(
        f"no images found in dataset.root={root}, which holds {contents(root)}; expected {EXPECTED}"
    )


def _find_xmls(root: Path, image_folder: Path) -> tuple[Path, dict[str, str]]:
    """Return the folder of the box files and id -> path."""
    for folder in (*(root / name for name in BOX_FOLDERS), image_folder):
        if not folder.is_dir():
            continue
        if xmls := _files(str(folder), (".xml",)) or _synset_files(str(folder), (".xml",)):
            return folder, xmls
    raise UserError(
        f"images are in {image_folder}, but box files (*.xml) neither there nor under "
        f"dataset.root={root} in {', '.join(BOX_FOLDERS)}; extract ILSVRC2012_bbox_val_v3.tgz "
        f"into {root / BOX_FOLDERS[3]}"
    )


def _synset_labels(images: dict[str, str]) -> dict[str, str]:
    """Return id -> wnid from the name of the folder that each image lies in."""
    labels = {i: os.path.basename(os.path.dirname(path)) for i, path in images.items()}
    return _check_labels(labels, "the synset folders")


def _listed_labels(root: Path) -> dict[str, str] | None:
    """Return id -> wnid from a file of labels, or None where the XMLs are to tell it."""
    for solution in (root / name for name in SOLUTIONS):
        if solution.is_file():
            return _check_labels(read_solution(solution), str(solution))
    for devkit in (root / name for name in DEVKIT_FOLDERS):
        if (devkit / "ILSVRC2012_validation_ground_truth.txt").is_file():
            wnids = enumerate(read_devkit(devkit), start=1)
            labels = {f"ILSVRC2012_val_{number:08d}": wnid for number, wnid in wnids}
            return _check_labels(labels, str(devkit))
    return None


def _check_labels(labels: dict[str, str], source: str) -> dict[str, str]:
    """Return the labels; raises UserError where a wnid is not one of the 1000."""
    if unknown := set(labels.values()) - imagenet_index().keys():
        raise UserError(
            f"{source}: {min(unknown)} is not one of the 1000 classes of ILSVRC-2012; "
            f"remove it or restore the labels"
        )
    return labels


class ImageNet:
    """ILSVRC-2012 validation images with all boxes of their class.

    Labels are positions among the 1000 sorted wnids, also where only some classes are present.
    The label comes from the image's synset folder, else LOC_val_solution.csv, else the devkit,
    else the one class its XML names. Boxes are floats as written, in the pixels of the XML's
    <size>; where the image file has another size (a resized copy), or an EXIF rotation, they are
    carried to the pixels of the upright image (`geometry.fit_boxes`).

    Args:
        root: the data set's folder; the layout is found out. See `EXPECTED`, and the folder names
            above it.

    Raises:
        UserError: no image or no box file is where a layout has it, or the labels are broken.
    """

    def __init__(self, *, root: str) -> None:
        folder = require_folder(root, expected=EXPECTED)
        image_folder, images, by_synset = _find_images(folder)
        self._xml_folder, self._xmls = _find_xmls(folder, image_folder)
        self._wnids = _synset_labels(images) if by_synset else _listed_labels(folder)
        self.image_ids = tuple(sorted(images))
        self.class_names = short_names(imagenet_classes().values())
        self._images = tuple(images[image_id] for image_id in self.image_ids)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        """Return example `index`; raises ExampleError, naming the file, where it is broken."""
        image_id = self.image_ids[index]
        xml = self._xmls.get(image_id, str(self._xml_folder / f"{image_id}.xml"))
        annotation = read_xml(xml)
        wnid = self._wnid(image_id, annotation.wnids, xml)
        mine = [name == wnid for name in annotation.wnids]
        if not any(mine):
            raise ExampleError(
                f"annotation {xml} has boxes of {', '.join(sorted(set(annotation.wnids)))} but "
                f"none of the image's class {wnid}; restore the file, or the labels",
                path=xml,
            )
        return load_example(
            image_id,
            self._images[index],
            label=imagenet_index()[wnid],
            size=annotation.size,
            boxes=annotation.boxes[mine],
        )

    def _wnid(self, image_id: str, named: tuple[str, ...], xml: str) -> str:
        if self._wnids is None:
            names = sorted(set(named))
            if len(names) > 1 or names[0] not in imagenet_index():
                raise ExampleError(
                    f"annotation {xml} should name one of the 1000 classes of ILSVRC-2012 to be "
                    f"the image's label, but names {', '.join(names)}; add LOC_val_solution.csv "
                    f"or the devkit",
                    path=xml,
                )
            return names[0]
        if image_id not in self._wnids:
            raise ExampleError(
                f"image {image_id} has no label in the list of labels; restore its line",
                path=None,  # the list is part of the data set's fingerprint
            )
        return self._wnids[image_id]

    def fingerprint(self) -> str:
        """Return 16 hex digits of the SHA-256 of what is there to evaluate.

        Covers image ids, labels (where a file or folder gives them), sizes of the image files in
        bytes, and the XMLs byte by byte; not the pixels. 2 s for 50,000 images.
        """
        digest = hashlib.sha256()
        for image_id, path in zip(self.image_ids, self._images, strict=True):
            wnid = self._wnids.get(image_id) if self._wnids else None
            digest.update(f"{image_id} {wnid} {file_size(path)}\n".encode())
            if image_id in self._xmls:
                digest.update(Path(self._xmls[image_id]).read_bytes())
        return digest.hexdigest()[:16]
