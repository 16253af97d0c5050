"""The classes of ImageNet, and the boxes of one image, read from its XML file."""

from __future__ import annotations

import csv
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from gradcam_bench.data.example import Example
from gradcam_bench.data.geometry import fit_boxes
from gradcam_bench.data.images import load_oriented
from gradcam_bench.data.regular_files import read_regular
from gradcam_bench.data.rules import check_boxes, check_image, to_number, to_pixels
from gradcam_bench.errors import ExampleError, UserError, brief, kind_of

BOX_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
MAX_XML_BYTES = 2**20  # some 4,000 boxes

Faults = dict[str, tuple[str, str]]  # image id -> ExampleError's kind, and what is wrong


@dataclass(frozen=True)
class Annotation:
    """The boxes of one image, as its annotator wrote them.

    Attributes:
        size: (width, height) in pixels of the image that was annotated.
        wnids: WordNet id of the class of each box (e.g. "n01440764"), B of them.
        boxes: (B, 4) float64 xyxy in pixels of the annotated image, exactly as written.
    """

    size: tuple[int, int]
    wnids: tuple[str, ...]
    boxes: np.ndarray


@cache
def imagenet_classes() -> dict[str, str]:
    """Return wnid -> names of the 1000 ILSVRC-2012 classes, in the order of the class index."""
    text = (resources.files("gradcam_bench.data") / "imagenet_classes.csv").read_text("utf-8")
    return {row["wnid"]: row["names"] for row in csv.DictReader(text.splitlines())}


@cache
def imagenet_index() -> dict[str, int]:
    """Return wnid -> class index: the position among the 1000 wnids in sorted order."""
    return {wnid: index for index, wnid in enumerate(sorted(imagenet_classes()))}


def short_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the first synonym of each class, or all of them where the first is not unique.

    ("tench, Tinca tinca", ...) gives ("tench", ...). ImageNet has two classes named "crane", the
    bird and the machine, without any other synonym: their names stay equal, and only the class
    index distinguishes them.
    """
    names = tuple(names)
    first = [name.split(", ")[0] for name in names]
    count = Counter(first)
    return tuple(
        short if count[short] == 1 else name for short, name in zip(first, names, strict=True)
    )


def known_classes(
    labels: Mapping[str, str], classes: Container[str], source: str
) -> tuple[dict[str, str], Faults]:
    """Separate the labels that name a known class from those that do not.

    Args:
        labels: image id -> wnid.
        classes: the known wnids.
        source: where the labels come from, which the error message names.

    Returns:
        Image id -> wnid of the images with a known class, and image id -> a fault of kind "label"
        for each of the others.

    Raises:
        UserError: no label names a known class, so they must belong to another data set.
    """
    known = {i: wnid for i, wnid in labels.items() if wnid in classes}
    faults = {
        i: ("label", f"{brief(wnid)} is none of the classes")
        for i, wnid in labels.items()
        if i not in known
    }
    if faults and not known:
        raise UserError(
            f"{source}: {brief(min(labels.values()))} is not one of the classes, nor is any other "
            f"label; restore the labels"
        )
    return known, faults


def require_folder(root: str | os.PathLike[str], *, expected: str) -> Path:
    """Return the folder `root` as a path.

    A relative root is taken from the working directory; `~` is the home folder.

    Raises:
        UserError: it is no folder; the message says what was `expected` in its place.
    """
    if not root:
        raise UserError(f"dataset.root is not given; expected {expected}")
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is a file, not a folder" if path.is_file() else "does not exist"
        raise UserError(f"dataset.root={root} {what} (seen from {Path.cwd()}); expected {expected}")
    return path


def contents(folder: Path) -> str:
    """Return the first file names in a folder, for messages that say what was found there."""
    names = sorted(os.listdir(folder))
    if not names:
        return "an empty folder"
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def load_example(
    image_id: str, path: str, *, label: int, size: tuple[int, int], boxes: np.ndarray
) -> Example:
    """Load an image file and move its boxes to the image's own pixel coordinates.

    Args:
        image_id: id of the image in its data set.
        path: of the image file.
        label: class index.
        size: (width, height) in pixels of the annotated image, of which the file may be a resized
            copy.
        boxes: (B, 4) xyxy in pixels of the annotated image.

    Raises:
        ExampleError: the image cannot be read, is too small or too elongated to show anything, or
            is no copy of the annotated image (kind "box").
    """
    image, orientation = load_oriented(path)
    try:
        check_image(image.size)
        boxes = fit_boxes(boxes, size, image.size, orientation=orientation)
    except ExampleError as error:
        raise ExampleError(
            f"image {path} cannot be used ({error}); restore the file from its source",
            kind=error.kind,
            path=path,
        ) from None
    return Example(image_id=image_id, image=image, label=label, boxes=boxes)


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses an XML document type, which may declare entities without bound or files to fetch."""

    def doctype(self, *_: object) -> None:
        raise ValueError("it declares a document type, which box files do not")


def _parse(content: bytes) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    parser.feed(content)
    return parser.close()


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if text is None:
        raise ValueError(f"<{path.rsplit('/')[-1]}> is missing")
    return text


def read_xml(path: str | os.PathLike[str]) -> Annotation:
    """Read a box file of ILSVRC (PASCAL VOC's format).

    Raises:
        ExampleError: the file is missing, cannot be read, is no XML, or has no size or no box (kind
            "annotation"); or its size or a box cannot be right (kind "box"; see `rules`).
    """
    name = os.fspath(path)
    try:
        root = _parse(read_regular(path, limit=MAX_XML_BYTES))
        width, height = _text(root, "size/width"), _text(root, "size/height")
        objects = root.findall("object")
        if not objects:
            raise ValueError("there is no <object>")
        wnids = tuple((node.findtext("name") or "").strip() for node in objects)
        corners = [[_text(node, f"bndbox/{key}") for key in BOX_COLUMNS] for node in objects]
        size = to_pixels(width), to_pixels(height)
        boxes = [[to_number(corner) for corner in box] for box in corners]
        check_boxes(boxes, size)
    except FileNotFoundError:
        raise ExampleError(
            f"annotation {name} does not exist; restore the file", kind="annotation", path=name
        ) from None
    # ElementTree.ParseError is a SyntaxError; an encoding unknown to Python raises LookupError.
    except (OSError, SyntaxError, LookupError, ValueError) as error:
        raise ExampleError(
            f"annotation {name} is broken ({brief(error)}); restore the file from its source",
            kind=kind_of(error),
            path=name,
        ) from error
    return Annotation(size, wnids, np.array(boxes))
