"""The validation set of Tiny ImageNet: 10,000 images of 64 x 64 pixels, one box each."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import numpy as np

from gradcam_bench.data.annotations import (
    contents,
    imagenet_classes,
    imagenet_index,
    load_example,
    read_lines,
    require_folder,
    short_names,
)
from gradcam_bench.data.example import Example
from gradcam_bench.errors import ExampleError, UserError

EXPECTED = (
    "the folder tiny-imagenet-200 with val/images/*.JPEG, val/val_annotations.txt and wnids.txt"
)
_SIZE = (64, 64)

_Row = tuple[str, str, tuple[int, int, int, int]]


def _read_rows(table: Path) -> dict[str, _Row]:
    """Return image id -> (file name, wnid, half-open box) from val_annotations.txt."""
    rows = {}
    for number, line in enumerate(read_lines(table), start=1):
        try:
            name, wnid, *corners = line.split("\t")
            x0, y0, x1, y1 = (int(corner) for corner in corners)
        except ValueError:
            raise UserError(
                f"{table}, line {number}: expected 'file wnid xmin ymin xmax ymax' separated by "
                f"tabs, got {line!r}; restore the file"
            ) from None
        # Far corners are the last pixel inside: over the 10,000 boxes coordinates run from 0 to
        # 63, never 64 (4,485 have xmax 63), and 24 boxes have xmax = xmin, 17 ymax = ymin, none
        # less. So one is added to make them half-open.
        rows[os.path.splitext(name)[0]] = name, wnid, (x0, y0, x1 + 1, y1 + 1)
    if not rows:
        raise UserError(f"{table} is empty; restore the file")
    return rows


class TinyImageNet:
    """Validation images of Tiny ImageNet with their box.

    Boxes are half-open: one is added to the far corners of val_annotations.txt, which are the
    last pixel inside. Images of another size than 64 x 64 (enlarged copies) get scaled boxes.

    Args:
        root: the folder tiny-imagenet-200.
        labels: "imagenet" for the index among the 1000 classes of ImageNet, for networks trained
            there; "tiny" for the index among the 200 sorted wnids of wnids.txt.

    Raises:
        UserError: a file is missing or broken, or a wnid is not among the classes of `labels`.
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
        rows = _read_rows(table)
        self.image_ids = tuple(sorted(rows))
        self._rows = tuple(rows[image_id] for image_id in self.image_ids)

        if labels == "imagenet":
            index, names = imagenet_index(), imagenet_classes()
        else:
            index = {w: i for i, w in enumerate(sorted(read_lines(folder / "wnids.txt")))}
            names = dict(
                line.split("\t", 1) for line in read_lines(folder / "words.txt") if "\t" in line
            )
        if unknown := {wnid for _, wnid, _ in self._rows} - index.keys():
            where = "the 1000 classes of ImageNet" if labels == "imagenet" else "wnids.txt"
            raise UserError(
                f"{table}: {min(unknown)} is not among {where} (dataset.labels={labels}); "
                f"use the other labels, or restore the file"
            )
        self._index = index
        self.class_names = short_names(names.get(wnid, wnid) for wnid in index)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        """Return example `index`; raises ExampleError, naming the file, where it is broken."""
        name, wnid, box = self._rows[index]
        x0, y0, x1, y1 = box
        if x1 <= x0 or y1 <= y0:
            raise ExampleError(
                f"the box of {name} in val_annotations.txt, {x0} {y0} {x1 - 1} {y1 - 1}, is inside "
                f"out; restore the file",
                path=None,  # the table is part of the data set's fingerprint
            )
        return load_example(
            self.image_ids[index],
            str(self._folder / name),
            label=self._index[wnid],
            size=_SIZE,
            boxes=np.array([box]),
        )

    def fingerprint(self) -> str:
        """Return 16 hex digits of the SHA-256 of what is there to evaluate.

        Covers image ids, labels and boxes; not the image files.
        """
        rows = (
            (i, self._index[wnid], box)
            for i, (_, wnid, box) in zip(self.image_ids, self._rows, strict=True)
        )
        return hashlib.sha256(repr(list(rows)).encode()).hexdigest()[:16]
