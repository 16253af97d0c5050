"""The validation set of ILSVRC-2012 in any of its three usual layouts."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gradcam_bench.data.annotation_tables import read_solution
from gradcam_bench.data.annotations import (
    MAX_XML_BYTES,
    Faults,
    contents,
    imagenet_classes,
    imagenet_index,
    known_classes,
    load_example,
    read_xml,
    require_folder,
    short_names,
)
from gradcam_bench.data.devkit import read_devkit
from gradcam_bench.data.example import Example
from gradcam_bench.data.regular_files import file_size, read_regular
from gradcam_bench.errors import ExampleError, UserError, brief

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
# Where to look under the root; only the first folder that holds such files is used.
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
    """Return stem (file name without suffix) -> path of the files in a folder."""
    found: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in suffixes and stem.startswith(prefix):
                _add(found, stem, entry.path)
    return found


def _synset_files(folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Return stem -> path of the files in a folder's synset folders (n01440764, ...)."""
    with os.scandir(folder) as entries:
        synsets = [e.path for e in entries if _SYNSET.fullmatch(e.name) and e.is_dir()]
    found: dict[str, str] = {}
    for synset in synsets:
        for stem, path in _files(synset, suffixes).items():
            _add(found, stem, path)
    return found


def _add(found: dict[str, str], stem: str, path: str) -> None:
    """Add a file; raises UserError where another has the same stem, as either may be right."""
    if stem in found:
        first, second = sorted((found[stem], path))
        raise UserError(f"one image in two files: {first} and {second}; remove the wrong one")
    found[stem] = path


def _find_images(root: Path) -> tuple[Path, dict[str, str], bool]:
    """Return the folder of the images, image id -> path, and whether synset folders hold them."""
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
    """Return the folder of the box files, and image id -> path of its box file."""
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


@dataclass(frozen=True)
class _Labels:
    """The labels of all images, from a file of labels or from the names of synset folders.

    Attributes:
        source: where the labels come from, for error messages.
        path: the file to correct where a label is wrong, None for the synset folders.
        wnids: image id -> wnid of its class, where it is known.
        faults: image id -> what is wrong with its label.
    """

    source: str
    path: str | None
    wnids: dict[str, str]
    faults: Faults


def _synset_labels(images: dict[str, str]) -> _Labels:
    """Return the labels given by the synset folders: an image's class is its folder's name."""
    labels = {i: os.path.basename(os.path.dirname(path)) for i, path in images.items()}
    source = "the synset folders"
    return _Labels(source, None, *known_classes(labels, imagenet_index(), source))


def _listed_labels(root: Path) -> _Labels | None:
    """Return the labels of the Kaggle file or the devkit, or None where there is neither."""
    for solution in (root / name for name in SOLUTIONS):
        if solution.is_file():
            listed, faults = read_solution(solution)
            known, unknown = known_classes(listed, imagenet_index(), str(solution))
            return _Labels(str(solution), str(solution), known, faults | unknown)
    for devkit in (root / name for name in DEVKIT_FOLDERS):
        if (devkit / "ILSVRC2012_validation_ground_truth.txt").is_file():
            wnids = enumerate(read_devkit(devkit), start=1)
            labels = {f"ILSVRC2012_val_{number:08d}": wnid for number, wnid in wnids}
            known, unknown = known_classes(labels, imagenet_index(), str(devkit))
            return _Labels(str(devkit), str(devkit), known, unknown)
    return None


class ImageNet:
    """ILSVRC-2012 validation images with all boxes of their class.

    Labels are positions among the 1000 sorted wnids, even where only some classes are present.
    An image's class is that of its synset folder; without these, that of LOC_val_solution.csv, else
    of the devkit, else the one class that its XML names. Boxes are floats as written in the XML, in
    pixels of its <size>. Where the image file has another size (a resized copy) or an EXIF
    rotation, they are moved to the pixels of the upright image (`geometry.fit_boxes`).

    Args:
        root: the data set's folder, in any layout of `EXPECTED`, which is detected.

    Raises:
        UserError: no layout's folder holds images, or none box files, or the labels are broken.
    """

    def __init__(self, *, root: str) -> None:
        folder = require_folder(root, expected=EXPECTED)
        image_folder, images, by_synset = _find_images(folder)
        self._xml_folder, self._xmls = _find_xmls(folder, image_folder)
        self._labels = _synset_labels(images) if by_synset else _listed_labels(folder)
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
        wnid = self._wnid(index, annotation.wnids, xml)
        mine = [name == wnid for name in annotation.wnids]
        if not any(mine):
            named = brief(", ".join(sorted(set(annotation.wnids))))
            raise ExampleError(
                f"annotation {xml} has boxes of {named} but none of the image's class {wnid}; "
                f"restore the file, or the labels",
                kind="label",
                path=xml,
            )
        return load_example(
            image_id,
            self._images[index],
            label=imagenet_index()[wnid],
            size=annotation.size,
            boxes=annotation.boxes[mine],
        )

    def _wnid(self, index: int, named: tuple[str, ...], xml: str) -> str:
        image_id, labels = self.image_ids[index], self._labels
        if labels is None:
            names = sorted(set(named))
            if len(names) > 1 or names[0] not in imagenet_index():
                raise ExampleError(
                    f"annotation {xml} should name one of the 1000 classes of ILSVRC-2012 to be "
                    f"the image's label, but names {brief(', '.join(names))}; add "
                    f"LOC_val_solution.csv or the devkit",
                    kind="label",
                    path=xml,
                )
            return names[0]
        if image_id not in labels.wnids:
            kind, fault = labels.faults.get(image_id, ("label", "there is no line of it"))
            raise ExampleError(
                f"image {image_id} has no label in {labels.source} ({fault}); restore it",
                kind=kind,
                path=labels.path or self._images[index],
            )
        return labels.wnids[image_id]

    def fingerprint(self) -> str:
        """Return 16 hex digits of the SHA-256 of the examples, to tell data sets apart.

        Covers image ids, labels (where a file or folder gives them), sizes of the image files in
        bytes, and the contents of the XMLs that can be read; not the pixels.
        """
        digest = hashlib.sha256()
        for image_id, path in zip(self.image_ids, self._images, strict=True):
            wnid = self._labels.wnids.get(image_id) if self._labels else None
            digest.update(f"{image_id} {wnid} {file_size(path)}\n".encode())
            if image_id in self._xmls:
                with suppress(OSError):  # reported when the example is loaded
                    digest.update(read_regular(self._xmls[image_id], limit=MAX_XML_BYTES))
        return digest.hexdigest()[:16]
