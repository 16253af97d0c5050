"""The classes of ImageNet, and the boxes of one image from the XML that it comes with."""

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

Faults = dict[str, tuple[str, str]]  # image id -> kind (of ExampleError), and the fault in words


@dataclass(frozen=True)
class Annotation:
    """The boxes of one image, as its annotator wrote them.

    Attributes:
        size: (width, height) of the image that was annotated.
        wnids: one class name a box.
        boxes: (B, 4) float64 xyxy in pixels of `size`, exactly as written.
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

    ("tench, Tinca tinca", ...) gives ("tench", ...). Two classes of ImageNet are the crane, the
    bird and the machine, with no other synonym: those stay equal, and the index tells them apart.
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
    """Part labels of classes that there are from the others.

    Args:
        labels: image id -> wnid.
        classes: the wnids that there are.
        source: of the labels, for the message.

    Returns:
        Image id -> wnid of known class, and image id -> its fault, of kind "label", of the others.

    Raises:
        UserError: not one class is known: the labels are those of another data set.
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
    """Return `root` as a path; raises UserError, telling what was `expected`, if it is no folder.

    A relative root is taken from the working directory; `~` is the home folder.
    """
    if not root:
        raise UserError(f"dataset.root is not given; expected {expected}")
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is a file, not a folder" if path.is_file() else "does not exist"
        raise UserError(f"dataset.root={root} {what} (seen from {Path.cwd()}); expected {expected}")
    return path


def contents(folder: Path) -> str:
    """Return the first names in a folder, for messages that tell what was found."""
    names = sorted(os.listdir(folder))
    if not names:
        return "an empty folder"
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def load_example(
    image_id: str, path: str, *, label: int, size: tuple[int, int], boxes: np.ndarray
) -> Example:
    """Return the example of an image file; boxes in a frame of `size` move to the file's pixels.

    Raises:
        ExampleError: the image cannot be read, is too small or too long to show anything, or is no
            copy of the one that was annotated (kind "box").
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
    """Refuses what an XML may declare: entities that grow without bound, files to fetch."""

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
        ExampleError: the file is missing, cannot be read, is no XML, has no size or no box (kind
            "annotation"), or a size or a box that cannot be right (kind "box"; see `rules`).
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
    # ElementTree.ParseError is a SyntaxError; LookupError is of an encoding unknown to Python.
    except (OSError, SyntaxError, LookupError, ValueError) as error:
        raise ExampleError(
            f"annotation {name} is broken ({brief(error)}); restore the file from its source",
            kind=kind_of(error),
            path=name,
        ) from error
    return Annotation(size, wnids, np.array(boxes))
