"""`gradcam-bench explain IMAGE|DIR ... [key=value ...]`: maps laid over one's own pictures."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from gradcam_bench.cli.classes import class_of, short_name
from gradcam_bench.cli.contact_sheet import Captioned, contact_sheet
from gradcam_bench.errors import ExampleError, UserError, nearest
from gradcam_bench.names import METHODS, Cell

if TYPE_CHECKING:
    from gradcam_bench.run.explain import Explainer, Explanation

KEYS = ("model", "layers", "methods", "geometry", "device", "precision", "output_dir")
"""The keys of a run that explain takes; below them everything, e.g. model.checkpoint=FILE."""

SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
"""The files of a folder that are taken for pictures."""

_ROWS = 20  # pictures on a contact sheet


@dataclass(frozen=True)
class Request:
    """What a command asks for.

    Attributes:
        pictures: files by the name that their overlays begin with.
        class_idx: as typed; None for the predicted class.
        overrides: of the config.
    """

    pictures: dict[str, Path]
    class_idx: str | None
    overrides: list[str]


def main(words: Sequence[str]) -> None:
    """Run `gradcam-bench explain` and print the likeliest classes and where the overlays are.

    Raises:
        UserError: a picture that is not there or cannot be read (after the others are done), or
            what `run.explain.Explainer` refuses; nothing is written then.
    """
    request = read_request(words)
    from gradcam_bench import api
    from gradcam_bench.run.explain import Explainer

    config, _ = api.compose(request.overrides)
    explainer = Explainer(config)
    asked = request.class_idx
    class_idx = None if asked is None else class_of(asked, explainer.class_names)
    folder = Path(config.output_dir or "explained")
    rows, broken = [], []
    for name, path in request.pictures.items():
        try:
            rows.append(_explain(explainer, path, folder / name, class_idx))
        except ExampleError as error:
            broken.append(str(error))
            print(error, file=sys.stderr)
    if len(rows) > 1 or (rows and len(rows[0]) > 2):
        for number in range(0, len(rows), _ROWS):
            page = f"_{number // _ROWS + 1}" if len(rows) > _ROWS else ""
            path = folder / f"contact_sheet{page}.png"
            _write(contact_sheet(rows[number : number + _ROWS]), path)
            print(path)
    if broken:
        raise UserError(
            f"{len(broken)} of {len(request.pictures)} pictures could not be explained; the first: "
            f"{broken[0]}"
        )


def read_request(words: Sequence[str]) -> Request:
    """Return what the words after `explain` ask for.

    Raises:
        UserError: a key that explain does not take, no picture, or a path that does not exist.
    """
    paths, overrides, class_idx = [], ["methods=[grad_cam]"], None
    for word in words:
        key, given, value = word.partition("=")
        if word.startswith("-"):
            raise UserError(f"explain has no option {word}: gradcam-bench explain --help")
        if not given or Path(word).exists():
            paths.append(Path(word))
        elif key == "class_idx":
            class_idx = value
        elif key.lstrip("+").split(".")[0] in KEYS:
            overrides.append(word)
        else:
            close = nearest(key, [*KEYS, "class_idx"])
            raise UserError(f"explain takes no key {key!r}.{close} gradcam-bench explain --help")
    if not paths:
        raise UserError("explain expects a picture or a folder: gradcam-bench explain photo.jpg")
    files = [path for given in paths for path in _files(given)]
    return Request(dict(zip(_names(files), files, strict=True)), class_idx, overrides)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"There is no file or folder {path} (seen from {Path.cwd()}).")
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"The folder {path} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
    return found


def _names(files: Sequence[Path]) -> list[str]:
    """Return a name for each picture: the shortest kind of name that tells all of them apart."""
    kinds = (
        [file.stem for file in files],
        [file.name for file in files],
        [f"{file.parent.name}_{file.name}" for file in files],
    )
    for names in kinds:
        if len(set(names)) == len(names):
            return names
    return [f"{number}_{file.name}" for number, file in enumerate(files)]


def _explain(
    explainer: Explainer, path: Path, stem: Path, class_idx: int | None
) -> list[Captioned]:
    """Write and tell the overlays of a picture; return them as a row of the contact sheet."""
    from gradcam_bench.data.images import load_rgb
    from gradcam_bench.report.figures.overlay import overlay

    found = explainer(load_rgb(path), class_idx)
    _tell(path, found, explainer.class_names)
    name = short_name(explainer.class_names[found.class_idx])
    share = found.probabilities[found.class_idx]
    row: list[Captioned] = [(found.view, f"{name}, {100 * share:.1f} %")]
    for cell, heatmap in found.maps.items():
        picture = overlay(found.view, heatmap)
        assert isinstance(picture, Image.Image)
        target = stem.with_name(f"{stem.name}.{_file_part(cell)}.png")
        _write(picture, target)
        print(f"  {target}" + ("" if heatmap.any() else "  (nowhere positive)"))
        row.append((picture, f"{_title(cell[0])}, {cell[1]}"))
    return row


def _tell(path: Path, found: Explanation, names: Sequence[str]) -> None:
    from gradcam_bench.run.explain import likeliest

    print(path)
    shown = likeliest(found.probabilities)
    followed = (found.class_idx, float(found.probabilities[found.class_idx]))
    for index, share in shown if followed in shown else [*shown, followed]:
        mark = "  <- explained" if index == found.class_idx else ""
        print(f"  {100 * share:5.1f} %  {index:>4} {names[index]}{mark}")


def _title(method: str) -> str:
    return METHODS[method].title if method in METHODS else method


def _file_part(cell: Cell) -> str:
    return re.sub(r"[^\w.-]", "_", ".".join(cell))


def _write(picture: Image.Image, path: Path) -> None:
    from gradcam_bench.store.files import make_folder, write_atomically

    make_folder(path.parent)
    content = io.BytesIO()
    picture.save(content, "PNG")
    write_atomically(path, content.getvalue())
