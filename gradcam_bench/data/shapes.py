"""Shapes: drawn scenes in which the pixels of each object are known exactly."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gradcam_bench.data import drawing
from gradcam_bench.data.example import Example
from gradcam_bench.errors import UserError

SPLITS = ("train", "validation", "test")
MODES = ("single", "pair")
SMALLEST, LARGEST = 0.1, 0.6
"""The longer side of an object's box lies between these shares of the image's side."""
MAX_HIDDEN = 0.2
"""Occluders hide at most this share of an object."""
FINGERPRINTED = 16
"""`Shapes.fingerprint` covers this many scenes; all others are drawn by the same code."""


@dataclass(frozen=True)
class Scene:
    """One drawn scene.

    Attributes:
        image: (size, size, 3) uint8.
        labels: class index of each object, all different.
        masks: (size, size) bool per object, its visible pixels; the masks are disjoint.
        hidden: the share, in [0, 1], of each object's pixels that occluders hide.
    """

    image: np.ndarray
    labels: tuple[int, ...]
    masks: tuple[np.ndarray, ...]
    hidden: tuple[float, ...]


def mask_box(mask: np.ndarray) -> np.ndarray:
    """Return the tight half-open box of a mask with at least one pixel, (1, 4) float64 xyxy."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=np.float64)


def draw_scene(rng: np.random.Generator, *, size: int = 96, objects: int = 1) -> Scene:
    """Draw one scene: background, clutter, `objects` objects of different classes, occluders.

    Args:
        rng: source of everything random in the scene.
        size: side of the image in pixels.
        objects: number of objects, 1 or 2.
    """
    labels = tuple(int(k) for k in rng.permutation(len(drawing.CLASS_NAMES))[:objects])
    direction = float(rng.uniform(0, 2 * math.pi))
    light = (math.cos(direction), math.sin(direction))
    sides, centres = _places(rng, size=size, objects=objects)
    canvas = drawing.background(rng, size)
    drawing.clutter(rng, canvas, count=int(rng.integers(2, 13)), light=light)
    wholes = [
        _draw_object(rng, canvas, label, side=side, centre=centre, light=light)
        for label, side, centre in zip(labels, sides, centres, strict=True)
    ]
    masks = [whole.copy() for whole in wholes]
    for _ in range(int(rng.integers(0, 4))):
        aim = int(rng.integers(2 * objects))  # half of the occluders aim at an object
        middle = np.array(centres[aim]) if aim < objects else rng.uniform(0, size, 2)
        spread = 0.5 * sides[aim] if aim < objects else 0.0
        radius = float(rng.uniform(0.03, 0.16)) * size
        shape = drawing.wobbly(rng, radius=radius, aspect=float(rng.choice([0.2, 0.35, 1.0])))
        shape = shape + middle + rng.uniform(-spread, spread, 2)
        where = drawing.window(shape, margin=0.04 * size, size=size)
        cover = drawing.cover_of((shape,), where)
        left = [mask.copy() for mask in masks]
        for mask in left:
            mask[where] &= cover < 0.5
        if all(_enough(whole, mask) for whole, mask in zip(wholes, left, strict=True)):
            masks = left
            paint = cover * drawing.colours(rng, 1)[0]
            patch = canvas[:, where[0], where[1]]
            drawing.lay(patch, cover, paint, light=light, height=1.2 * size / 96)
    return Scene(
        image=_exposed(rng, canvas),
        labels=labels,
        masks=tuple(masks),
        hidden=tuple(float(1 - m.sum() / w.sum()) for m, w in zip(masks, wholes, strict=True)),
    )


def _places(
    rng: np.random.Generator, *, size: int, objects: int
) -> tuple[list[float], list[tuple[float, float]]]:
    """Return sides and (x, y) centres, in pixels, of one square per object to draw it in.

    The squares lie inside the image, at least 2 pixels apart.
    """
    low, high = SMALLEST * size + 1.5, LARGEST * size - 1.5
    sides = low + (high - low) * np.sqrt(rng.random(objects))  # like photographs: more large ones
    while True:
        centres = [rng.uniform(s / 2 + 1, size - s / 2 - 1, 2) for s in sides]
        gaps = [
            np.abs(centres[i] - centres[j]).max() - (sides[i] + sides[j]) / 2
            for i in range(objects)
            for j in range(i)
        ]
        if all(gap >= 2 for gap in gaps):
            return [float(s) for s in sides], [(float(x), float(y)) for x, y in centres]
        sides = np.maximum(0.95 * sides, low)  # two large objects may not fit beside each other


def _draw_object(
    rng: np.random.Generator,
    canvas: np.ndarray,
    label: int,
    *,
    side: float,
    centre: tuple[float, float],
    light: tuple[float, float],
) -> np.ndarray:
    """Draw an object on the canvas, in place; return its mask, (size, size) bool."""
    size = canvas.shape[-1]
    angle, stretch = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0.85, 1.0))
    c, s = math.cos(angle), math.sin(angle)
    matrix = np.array([[c, -s * stretch], [s, c * stretch]])
    polygons = [points @ matrix.T for points in drawing.outline(label)]
    low, high = polygons[0].min(axis=0), polygons[0].max(axis=0)
    scale = side / float((high - low).max())
    origin = np.array(centre) - scale * (low + high) / 2
    polygons = [scale * points + origin for points in polygons]
    where = drawing.window(polygons[0], margin=0.2 * side, size=size)
    cover = drawing.cover_of(tuple(polygons), where)

    x, y = drawing.pixel_centres(size)
    dx, dy = x[where] - float(origin[0]), y[where] - float(origin[1])
    (a, b), (d, e) = np.linalg.inv(scale * matrix).tolist()
    second = drawing.texture(label, a * dx + b * dy, d * dx + e * dy, 1 / scale)
    patch = canvas[:, where[0], where[1]]
    first, other = _tones(rng, around=patch.mean(axis=(1, 2), keepdims=True))
    paint = first + second * (other - first)
    paint += (0.25 * light[0] / side) * dx + (0.25 * light[1] / side) * dy
    drawing.lay(patch, cover, cover * paint, light=light, height=0.05 * side)
    mask = np.zeros((size, size), dtype=bool)
    mask[where] = cover >= 0.5
    return mask


def _tones(rng: np.random.Generator, *, around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two colours, (3, 1, 1) each, that differ from each other and from `around`.

    Their distribution is the same for every class, and so is that of their order: a network cannot
    tell the class from the colour.
    """
    candidates = list(drawing.colours(rng, 8, vivid=0.9))
    base = max(candidates[:4], key=lambda c: min(float(np.abs(c - around).mean()), 0.3))
    second = max(candidates[4:], key=lambda c: min(abs(float((c - base).mean())), 0.35))
    return (base, second) if rng.random() < 0.5 else (second, base)


def _enough(whole: np.ndarray, visible: np.ndarray) -> bool:
    """Return whether enough of an object stays visible to recognize it.

    Args:
        whole: (size, size) bool, all pixels of the object.
        visible: (size, size) bool, those that no occluder hides.
    """
    if visible.sum() < (1 - MAX_HIDDEN) * whole.sum():
        return False
    x0, y0, x1, y1 = mask_box(visible)[0]
    return bool(max(x1 - x0, y1 - y0) >= SMALLEST * whole.shape[0])


def _exposed(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Return the canvas, (3, size, size), as if photographed: (size, size, 3) uint8.

    Uneven light, a vignette, a tint and sensor noise are added.
    """
    size = canvas.shape[-1]
    x, y = drawing.pixel_centres(size)
    right, down = x / size - 0.5, y / size - 0.5
    tilt = rng.uniform(-0.25, 0.25, 2).tolist()
    gain = 1.05 + tilt[0] * right + tilt[1] * down
    gain -= float(rng.uniform(0, 0.5)) * (right**2 + down**2)
    tint = rng.uniform(0.93, 1.07, (3, 1, 1)).astype(np.float32)
    grain = float(rng.uniform(0.005, 0.02)) * rng.standard_normal((size, size), dtype=np.float32)
    photo = np.clip(canvas * gain * tint + grain, 0, 1)
    return np.ascontiguousarray((255 * photo + 0.5).astype(np.uint8).transpose(1, 2, 0))


class Shapes:
    """Photograph-like scenes with one object, or two, of eight classes; see `drawing.CLASS_NAMES`.

    The classes differ in shape and texture; place, size (10 to 60 % of the side, large ones more
    often: the density grows linearly from 10 %), rotation, colour, clutter, light and occlusion
    (at most `MAX_HIDDEN`) are random. Scene i depends on (seed, split, mode, i) alone, so
    `length` only says how many there are.

    With `mode="pair"` each scene holds two objects of different classes, apart from each other,
    and yields two examples: example 2k has the class of the first object as its label (id ending in
    "-A"), 2k + 1 that of the second ("-B"); `other_label` and `other_mask` are those of the other
    object. The two examples form a `group`, named by their id without its ending, because they show
    the same image.

    Args:
        split: "train", "validation" or "test"; they share no scene.
        size: side of the images in pixels, 64 to 1024.
        length: number of examples, at least 1; even in mode "pair".
        seed: at least 0.
        mode: "single" or "pair".

    Raises:
        UserError: an argument is not one of these values or out of its range.
    """

    def __init__(
        self,
        *,
        split: str = "test",
        size: int = 96,
        length: int = 200,
        seed: int = 0,
        mode: str = "single",
    ) -> None:
        if split not in SPLITS:
            raise UserError(f"split: expected one of {', '.join(SPLITS)}; got {split!r}.")
        if mode not in MODES:
            raise UserError(f"mode: expected one of {', '.join(MODES)}; got {mode!r}.")
        for name, value, low, high in (
            ("size", size, 64, 1024),
            ("length", length, 1, 10**6),
            ("seed", seed, 0, 2**63 - 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UserError(
                    f"{name}: expected a whole number from {low} to {high}; got {value!r}."
                )
        if mode == "pair" and length % 2:
            raise UserError(
                f"length: mode 'pair' asks twice about every scene, so expected an even number; "
                f"got {length}."
            )
        self.split, self.size, self.seed, self.mode = split, size, seed, mode
        self.class_names = drawing.CLASS_NAMES
        if mode == "single":
            ids = [f"shapes-{split}-{i:06d}" for i in range(length)]
        else:
            ids = [f"shapes-{split}-{i // 2:06d}-{'AB'[i % 2]}" for i in range(length)]
        self.image_ids = tuple(ids)

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.image_ids)

    def scene(self, index: int) -> Scene:
        """Draw scene `index`, counted from 0; in mode "pair" two examples share each scene."""
        entropy = (self.seed, SPLITS.index(self.split), MODES.index(self.mode), index)
        objects = 1 + MODES.index(self.mode)
        return draw_scene(np.random.default_rng(entropy), size=self.size, objects=objects)

    def __getitem__(self, index: int) -> Example:
        """Return example `index`; raises IndexError outside the data set."""
        index = range(len(self))[index]
        pair = self.mode == "pair"
        scene = self.scene(index // 2 if pair else index)
        asked = index % 2 if pair else 0
        return Example(
            image_id=self.image_ids[index],
            image=Image.fromarray(scene.image),
            label=scene.labels[asked],
            boxes=mask_box(scene.masks[asked]),
            mask=scene.masks[asked],
            other_label=scene.labels[1 - asked] if pair else None,
            other_mask=scene.masks[1 - asked] if pair else None,
            group=self.image_ids[index].removesuffix("-A").removesuffix("-B") if pair else None,
        )

    def fingerprint(self) -> str:
        """Return a short hash of the arguments and of the first scenes' labels and boxes."""
        digest = hashlib.sha256(
            f"shapes {self.split} {self.size} {len(self)} {self.seed} {self.mode}".encode()
        )
        for index in range(min(FINGERPRINTED, len(self))):
            example = self[index]
            digest.update(f"{example.image_id} {example.label} {example.boxes.tolist()}".encode())
        return digest.hexdigest()[:16]
