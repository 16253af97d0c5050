"""Labels and boxes from the files that annotated data sets come with."""

from __future__ import annotations

import csv
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from gradcam_bench.data.example import Example
from gradcam_bench.data.geometry import fit_boxes
from gradcam_bench.data.images import load_oriented
from gradcam_bench.errors import ExampleError, UserError

BOX_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
TABLE_COLUMNS = ("image_id", "wnid", "width", "height", *BOX_COLUMNS)


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


def file_size(path: str) -> int:
    """Return the bytes of a file, -1 where it is missing: that is told when it is loaded."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file; raises UserError where it cannot be read as such."""
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore the file") from error


def load_example(
    image_id: str, path: str, *, label: int, size: tuple[int, int], boxes: np.ndarray
) -> Example:
    """Return the example of an image file; boxes in a frame of `size` move to the file's pixels.

    Raises:
        ExampleError: the image cannot be read.
    """
    image, orientation = load_oriented(path)
    boxes = fit_boxes(boxes, size, image.size, orientation=orientation)
    return Example(image_id=image_id, image=image, label=label, boxes=boxes)


def _check_annotation(size: tuple[int, int], boxes: np.ndarray) -> None:
    """Raise ValueError, in words, where a size or a box cannot be right."""
    if min(size) < 1:
        raise ValueError(f"the image size is {size[0]} x {size[1]}")
    if not np.isfinite(boxes).all():
        raise ValueError("a box has a corner that is no number")
    flat = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    if flat.any():
        raise ValueError(f"box {boxes[flat][0].tolist()} has no area")


def _number(node: ElementTree.Element, path: str) -> float:
    text = node.findtext(path)
    if text is None:
        raise ValueError(f"<{path.rsplit('/')[-1]}> is missing")
    return float(text)


def read_xml(path: str | os.PathLike[str]) -> Annotation:
    """Read a box file of ILSVRC (PASCAL VOC's format).

    Raises:
        ExampleError: the file is missing, is no XML, or has no size, no box, or a box without area.
    """
    try:
        root = ElementTree.parse(path).getroot()
        size = int(_number(root, "size/width")), int(_number(root, "size/height"))
        objects = root.findall("object")
        if not objects:
            raise ValueError("there is no <object>")
        wnids = tuple((node.findtext("name") or "").strip() for node in objects)
        boxes = np.array(
            [[_number(node, f"bndbox/{key}") for key in BOX_COLUMNS] for node in objects]
        )
        _check_annotation(size, boxes)
    except FileNotFoundError:
        raise ExampleError(
            f"annotation {os.fspath(path)} does not exist; restore the file", path=path
        ) from None
    except (OSError, SyntaxError, ValueError) as error:  # ElementTree.ParseError is a SyntaxError
        raise ExampleError(
            f"annotation {os.fspath(path)} is broken ({error}); restore the file from its source",
            path=path,
        ) from error
    return Annotation(size, wnids, boxes)


def read_solution(path: Path) -> dict[str, str]:
    """Read image id -> wnid from Kaggle's LOC_val_solution.csv ("ImageId,PredictionString").

    Raises:
        UserError: a line has not the form "id,wnid xmin ymin xmax ymax ...".
    """
    labels = {}
    for number, line in enumerate(read_lines(path)[1:], start=2):
        image_id, _, boxes = line.partition(",")
        if not line.strip():
            continue
        if not boxes.strip():
            raise UserError(
                f"{path}, line {number}: expected 'image_id,wnid xmin ymin xmax ymax ...', "
                f"got {line!r}; restore the file from Kaggle"
            )
        labels[image_id] = boxes.split()[0]
    return labels


def read_devkit(folder: Path) -> list[str]:
    """Read the wnids of validation images 1, 2, ... from the data folder of the official devkit.

    The ground truth file holds one ILSVRC2012_ID a line; meta.mat says which wnid that is.

    Raises:
        UserError: meta.mat is missing or broken, or an id is not in it.
    """
    from scipy.io import loadmat  # 0.2 s to import, needed for this layout alone

    meta, truth = folder / "meta.mat", folder / "ILSVRC2012_validation_ground_truth.txt"
    fix = "extract ILSVRC2012_devkit_t12.tar.gz again, or remove it to take labels from the XMLs"
    try:
        synsets = np.atleast_1d(loadmat(meta, squeeze_me=True)["synsets"])
        wnid_of = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}
    except Exception as error:  # loadmat raises anything on a broken file
        raise UserError(f"{meta} cannot be read ({error}); {fix}") from error
    try:
        return [wnid_of[int(line)] for line in read_lines(truth)]
    except (KeyError, ValueError) as error:
        raise UserError(f"{truth} has a label that is not in meta.mat ({error}); {fix}") from error


def read_box_table(path: Path) -> dict[str, Annotation]:
    """Read image id -> annotation from a CSV with a row per box and the columns `TABLE_COLUMNS`.

    Raises:
        UserError: the file or a column is missing, or a row is broken or at odds with the others
            of its image.
    """
    reader = csv.DictReader(read_lines(path))
    if missing := [key for key in TABLE_COLUMNS if key not in (reader.fieldnames or ())]:
        raise UserError(f"box file {path} has no column {', '.join(missing)}; add it")
    rows: dict[str, list[list[float]]] = {}
    heads: dict[str, tuple[str, int, int]] = {}
    for row in reader:
        try:
            head = row["wnid"], int(row["width"]), int(row["height"])
            box = [float(row[key]) for key in BOX_COLUMNS]
            _check_annotation(head[1:], np.array([box]))
            if heads.setdefault(row["image_id"], head) != head:
                raise ValueError("wnid or size differs from an earlier row of this image")
        except (TypeError, ValueError) as error:
            raise UserError(
                f"box file {path}, line {reader.line_num}: {error}; correct the row"
            ) from error
        rows.setdefault(row["image_id"], []).append(box)
    return {
        image_id: Annotation(
            (width, height), (wnid,) * len(rows[image_id]), np.array(rows[image_id])
        )
        for image_id, (wnid, width, height) in heads.items()
    }
