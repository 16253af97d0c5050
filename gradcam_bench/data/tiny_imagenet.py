"""The validation set of Tiny ImageNet: 10,000 images of 64 x 64 pixels, one box each."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import numpy as np

from gradcam_bench.data.annotations import (
    Faults,
    contents,
    imagenet_classes,
    imagenet_index,
    known_classes,
    load_example,
    require_folder,
    short_names,
)
from gradcam_bench.data.example import Example
from gradcam_bench.data.regular_files import read_lines
from gradcam_bench.data.rules import MAX_PIXELS, check_boxes
from gradcam_bench.errors import ExampleError, UserError, brief

EXPECTED = (
    "the folder tiny-imagenet-200 with val/images/*.JPEG, val/val_annotations.txt and wnids.txt"
)
_SIZE = (64, 64)

_Row = tuple[str, str, tuple[int, int, int, int]]


def _read_row(name: str, fields: list[str]) -> _Row:
    """Return (file name, wnid, half-open xyxy box in pixels) of one line of val_annotations.txt.

    Args:
        name: the line's first field, the file name.
        fields: the line's other fields.

    Raises:
        ValueError: a field is missing or cannot be right.
    """
    # A name with a folder in it would lead out of val/images, perhaps out of the data set.
    if name != os.path.basename(name) or name in (".", "..") or not name.isprintable():
        raise ValueError("the name is no plain file name")
    wnid, *corners = fields
    x0, y0, x1, y1 = (int(corner) for corner in corners)
    if max(map(abs, (x0, y0, x1, y1))) > MAX_PIXELS:
        raise ValueError(f"a corner is beyond {MAX_PIXELS} pixels")
    # The file's far corner is the last pixel inside the box, as its 10,000 boxes show: coordinates
    # run from 0 to 63, never 64 (4,485 boxes have xmax 63); 24 boxes have xmax = xmin, and 17 have
    # ymax = ymin, but none has less. So one is added to make the boxes half-open.
    return name, wnid, (x0, y0, x1 + 1, y1 + 1)


def _read_rows(table: Path) -> tuple[dict[str, _Row], Faults]:
    """Read val_annotations.txt.

    Returns:
        Image id -> (file name, wnid, half-open box) of the images whose lines are right, and image
        id -> what is wrong with the line of each other image.

    Raises:
        UserError: the file is empty, or a line names no image.
    """
    rows: dict[str, _Row] = {}
    faults: Faults = {}
    for number, line in enumerate(read_lines(table), start=1):
        if not line.strip():
            continue
        name, *fields = line.split("\t")
        image_id = os.path.splitext(name)[0]
        if not image_id:
            raise UserError(
                f"{table}, line {number}: expected 'file wnid xmin ymin xmax ymax' separated by "
                f"tabs, got {brief(line)!r}; restore the file"
            )
        if image_id in rows or image_id in faults:
            faults[image_id] = "annotation", f"line {number} names it again"
            continue
        try:
            rows[image_id] = _read_row(name, fields)
        except ValueError as error:
            faults[image_id] = (
                "annotation",
                f"line {number}: expected 'file wnid xmin ymin xmax ymax' separated by tabs, "
                f"got {brief(line)!r}: {brief(error)}",
            )
    if not rows:
        raise UserError(f"{table} is empty, or no line of it is right; restore the file")
    return {image_id: row for image_id, row in rows.items() if image_id not in faults}, faults


class TinyImageNet:
    """Validation images of Tiny ImageNet, with one box each.

    Boxes are half-open: one is added to the far corners of val_annotations.txt, which are the
    last pixel inside. If an image is not 64 x 64 (an enlarged copy), its box is scaled along.
    A line that is broken, or names an unknown class, breaks only the example of its image.

    Args:
        root: the folder tiny-imagenet-200.
        labels: "imagenet" for the index among the 1000 classes of ImageNet, for networks trained
            there; "tiny" for the index among the 200 sorted wnids of wnids.txt.

    Raises:
        UserError: a file is missing or broken as a whole, or none of its classes is among those of
            `labels`.
    """

    def __init__(self, *, root: str, labels: Literal["imagenet", "tiny"] = "imagenet") -> None:
        if labels not in ("imagenet", "tiny"):
            raise UserError(f"dataset.labels must be imagenet or tiny, got {labels!r}")
        folder = require_folder(root, expected=EXPECTED)
        table = folder / "val" / "val_annotations.txt"
        self._folder = folder / "val" / "images"
        if not table.is_file() or not self._folder.is_dir():
            raise UserError(
                f"val/val_annotations.txt or val/images is missing in dataset.root={root}, which "
                f"holds {contents(folder)}; expected {EXPECTED}"
            )
        self._table, (rows, faults) = str(table), _read_rows(table)
        if labels == "imagenet":
            index, names = imagenet_index(), imagenet_classes()
        else:
            index = {w: i for i, w in enumerate(sorted(read_lines(folder / "wnids.txt")))}
            names = dict(
                line.split("\t", 1) for line in read_lines(folder / "words.txt") if "\t" in line
            )
        where = "the 1000 classes of ImageNet" if labels == "imagenet" else "wnids.txt"
        known, unknown = known_classes(
            {image_id: wnid for image_id, (_, wnid, _) in rows.items()},
            index,
            f"{table} (dataset.labels={labels}: {where})",
        )
        self.image_ids = tuple(sorted(rows.keys() | faults.keys()))
        self._rows = {image_id: rows[image_id] for image_id in known}
        self._faults = faults | unknown
        self._index = index
        self.class_names = short_names(names.get(wnid, wnid) for wnid in index)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        """Return example `index`; raises ExampleError, naming the file, where it is broken."""
        image_id = self.image_ids[index]
        if image_id not in self._rows:
            raise self._broken(image_id, *self._faults[image_id])
        name, wnid, box = self._rows[image_id]
        try:
            check_boxes([box], _SIZE)
        except ExampleError as error:
            raise self._broken(image_id, error.kind, str(error)) from None
        return load_example(
            image_id,
            str(self._folder / name),
            label=self._index[wnid],
            size=_SIZE,
            boxes=np.array([box]),
        )

    def _broken(self, image_id: str, kind: str, fault: str) -> ExampleError:
        return ExampleError(
            f"the line of {brief(image_id)} in {self._table} is broken ({fault}); restore the file",
            kind=kind,
            path=self._table,
        )

    def fingerprint(self) -> str:
        """Return 16 hex digits of the SHA-256 of the examples, to tell data sets apart.

        Covers image ids, labels and boxes; not the image files.
        """
        rows: list[tuple] = []
        for image_id in self.image_ids:
            if image_id in self._rows:
                _, wnid, box = self._rows[image_id]
                rows.append((image_id, self._index[wnid], box))
            else:
                rows.append((image_id, "broken"))
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
