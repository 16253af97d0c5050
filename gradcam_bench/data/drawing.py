"""Drawing one scene: textured background, clutter, objects, occluders.

Arrays are (h, w) or (3, h, w) float32 in [0, 1]; lengths are in pixels unless said otherwise;
points are (n, 2), x before y, with the image's corner at (0, 0).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

OVERSAMPLING = 3
"""Outlines are drawn at this many times the size, then averaged down, for smooth edges."""

CLASS_NAMES = (
    "striped disc",
    "segmented ring",
    "cored star",
    "halved heart",
    "framed triangle",
    "chequered square",
    "tipped cross",
    "mottled crescent",
)


@lru_cache(maxsize=8)
def pixel_centres(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of every pixel's centre, (size, size) float32 each."""
    y, x = np.mgrid[:size, :size].astype(np.float32) + np.float32(0.5)
    return x, y


def _turns(count: int) -> np.ndarray:
    """Return `count` angles around a circle, (count,)."""
    return np.linspace(0, 2 * math.pi, count, endpoint=False)


@lru_cache(maxsize=8)
def outline(label: int) -> tuple[np.ndarray, ...]:
    """Return the outline of a class as polygons, (n, 2) each; a second polygon is a hole.

    They are centred on (0, 0), with a radius of about 1.
    """
    turn = _turns(64)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    name = CLASS_NAMES[label].split()[1]
    if name == "disc":
        return (circle,)
    if name == "ring":
        return circle, 0.5 * circle
    if name == "star":
        radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        angle = np.arange(10) * math.pi / 5
        return (radius[:, None] * np.stack([np.sin(angle), -np.cos(angle)], axis=1),)
    if name == "heart":
        x = 16 * np.sin(turn) ** 3
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return (np.stack([x, -y - 2.5], axis=1) / 16,)
    if name == "triangle":
        angle = np.arange(3) * 2 * math.pi / 3
        return (np.stack([np.sin(angle), -np.cos(angle)], axis=1),)
    if name == "square":
        return (np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]),)
    if name == "cross":
        a = 0.34
        corner = np.array([[a, -1.0], [a, -a], [1.0, -a]])
        quarter = np.array([[0.0, -1], [1, 0]])
        turns = [np.linalg.matrix_power(quarter, k) for k in range(4)]
        return (np.concatenate([corner @ turn.T for turn in turns]),)
    # Crescent: an arc around (0, 0) and, between its ends, a flatter one around (0.5, 0).
    arc = np.linspace(0.6, 2 * math.pi - 0.6, 48)
    outer = np.stack([np.cos(arc), np.sin(arc)], axis=1)
    reach = complex(outer[0, 0] - 0.5, outer[0, 1])
    start = math.atan2(reach.imag, reach.real)
    back = np.linspace(2 * math.pi - start, start, 32)
    inner = np.stack([0.5 + abs(reach) * np.cos(back), abs(reach) * np.sin(back)], axis=1)
    return (np.concatenate([outer, inner]),)


def texture(label: int, u: np.ndarray, v: np.ndarray, pixel: float) -> np.ndarray:
    """Return the share of each pixel that a class's texture paints in the second of two colours.

    Args:
        label: class index.
        u: (h, w) horizontal coordinate of each pixel's centre in the units of `outline`, where the
            object has a radius of about 1.
        v: (h, w) vertical coordinate in these units.
        pixel: width of a pixel in these units, over which the texture's edges are softened.

    Returns:
        (h, w) float32 in [0, 1].
    """
    name = CLASS_NAMES[label].split()[0]
    edge: np.ndarray
    if name == "striped":
        edge = np.sin(2 * math.pi * u) / (2 * math.pi)
    elif name == "segmented":
        edge = np.sin(3 * np.arctan2(v, u)) / 4
    elif name == "cored":
        edge = 0.4 - np.hypot(u, v)
    elif name == "halved":
        edge = u
    elif name == "framed":
        edge = 0.24 - np.maximum(v, np.sqrt(0.75) * np.abs(u) - 0.5 * v)
    elif name == "chequered":
        edge = np.cos(1.5 * math.pi * u) * np.cos(1.5 * math.pi * v) / 4
    elif name == "tipped":
        edge = np.maximum(np.abs(u), np.abs(v)) - 0.6
    else:
        return 0.5 + 0.5 * np.sin(9 * u + 2 * np.sin(5 * v)) * np.sin(8 * v + 2 * np.sin(6 * u))
    return np.clip(0.5 + edge / pixel, 0, 1)


def colours(rng: np.random.Generator, count: int, *, vivid: float = 0.7) -> np.ndarray:
    """Return random colours, (count, 3, 1, 1) float32; `vivid` is the largest saturation."""
    hue, saturation, value = rng.random((3, count, 1))
    value = 0.15 + 0.8 * value
    chroma = value * vivid * saturation**0.6
    wheel = np.abs((6 * hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1  # red, green, blue
    rgb = value + chroma * (np.clip(wheel, 0, 1) - 1)
    return rgb.astype(np.float32)[..., None, None]


def noise(
    rng: np.random.Generator, size: int, *, cells: tuple[int, int], angle: float = 0.0
) -> np.ndarray:
    """Return smooth noise, (size, size) float32 in [0, 1].

    It is a random grid of `cells` (rows, columns), interpolated and turned by `angle` in radians.
    """
    grid = Image.fromarray(rng.random(cells, dtype=np.float32))
    if angle == 0.0:
        field = grid.resize((size, size), Image.Resampling.BICUBIC)
    else:  # drawn 1.5 times larger, turned about its middle, cut to size
        wide = 3 * size // 2
        c, s = math.cos(angle), math.sin(angle)
        field = grid.resize((wide, wide), Image.Resampling.BICUBIC).transform(
            (size, size),
            Image.Transform.AFFINE,
            (c, s, wide / 2 - (c + s) * size / 2, -s, c, wide / 2 - (c - s) * size / 2),
            Image.Resampling.BILINEAR,
        )
    return np.clip(np.asarray(field), 0, 1)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a textured background, (3, size, size)."""
    x, y = pixel_centres(size)
    first, second, third = colours(rng, 3, vivid=0.55)
    angle = float(rng.uniform(0, math.pi))
    along = (math.cos(angle) / size) * x + (math.sin(angle) / size) * y
    cloud = noise(rng, size, cells=(4, 4))
    kind = int(rng.integers(5))
    if kind == 0:  # out-of-focus patches
        blend = np.clip(1.6 * cloud - 0.3, 0, 1)
    elif kind == 1:  # ground below a wall or the sky, with an uneven edge
        edge = y / size + 0.08 * cloud - float(rng.uniform(0.3, 0.75))
        blend = np.clip(0.5 + (size / 3) * edge, 0, 1)
    elif kind == 2:  # wood
        blend = noise(rng, size, cells=(int(rng.integers(18, 36)), 3), angle=angle)
    elif kind == 3:  # cloth
        waves = float(rng.uniform(6, 14))
        blend = 0.5 + 0.35 * np.sin(2 * math.pi * (waves * along + 0.8 * cloud))
    else:  # gravel
        cells = int(rng.integers(14, 32))
        blend = 0.25 + 0.5 * noise(rng, size, cells=(cells, cells))
    fine = noise(rng, size, cells=(size // 2, size // 2)) - 0.5
    scene = first + blend * ((second - first) * float(rng.uniform(0.3, 0.8)))
    scene += noise(rng, size, cells=(3, 3)) * ((third - first) * float(rng.uniform(0.1, 0.5)))
    scene += float(rng.uniform(0.03, 0.12)) * fine
    return np.clip(scene, 0, 1)


@lru_cache(maxsize=1)
def _ripples() -> tuple[np.ndarray, np.ndarray]:
    """Return 24 points on the unit circle, (24, 2), and the waves that deform it in `wobbly`.

    The waves, (24, 3) complex, have 2, 3 and 5 periods around the circle and fixed amplitudes.
    """
    turn = _turns(24)
    waves = np.exp(1j * np.outer(turn, [2, 3, 5])) * np.array([0.22, 0.16, 0.12])
    return np.stack([np.cos(turn), np.sin(turn)], axis=1), waves


def wobbly(rng: np.random.Generator, *, radius: float, aspect: float = 1.0) -> np.ndarray:
    """Return an irregular closed outline around (0, 0), (24, 2): a pebble, a leaf, a stain.

    `radius` is its mean radius in pixels; `aspect` is its width over its length.
    """
    circle, waves = _ripples()
    phase = rng.uniform(0, 2 * math.pi, 4)
    r = radius * (1 + (waves @ np.exp(1j * phase[:3])).real)
    c, s = math.cos(phase[3]), math.sin(phase[3])
    return (r[:, None] * circle) @ np.array([[c, s], [-s * aspect, c * aspect]])


def curve(rng: np.random.Generator, *, reach: float) -> np.ndarray:
    """Return a bent line near (0, 0), (12, 2): a twig, a cable, a blade of grass.

    `reach` is the typical distance, in pixels, of its ends from (0, 0).
    """
    start, bend, end = rng.normal(0, reach, (3, 2))
    t = np.linspace(0, 1, 12)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end


def window(points: np.ndarray, *, margin: float, size: int) -> tuple[slice, slice]:
    """Return the rows and columns of the canvas around (n, 2) points; never empty.

    `margin` is the space left around the points and `size` the side of the canvas, in pixels.
    """
    low = np.clip(np.floor(points.min(axis=0) - margin), 0, size - 1).astype(int)
    high = np.clip(np.ceil(points.max(axis=0) + margin), low + 1, size).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def cover_of(polygons: tuple[np.ndarray, ...], where: tuple[slice, slice]) -> np.ndarray:
    """Return the share of each pixel inside the first polygon and outside the second, if any.

    The pixels are those of the rows and columns `where`: (h, w) float32 in [0, 1].
    """
    rows, columns = where
    height, width = rows.stop - rows.start, columns.stop - columns.start
    canvas = Image.new("L", (OVERSAMPLING * width, OVERSAMPLING * height))
    draw = ImageDraw.Draw(canvas)
    corner = np.array([columns.start, rows.start])
    for points, fill in zip(polygons, (255, 0), strict=False):
        # Pillow's coordinates are those of pixel centres, ours of pixel corners.
        draw.polygon((OVERSAMPLING * (points - corner) - 0.5).ravel().tolist(), fill=fill)
    return np.asarray(canvas.reduce(OVERSAMPLING), dtype=np.float32) / 255


def lay(
    scene: np.ndarray,
    cover: np.ndarray,
    paint: np.ndarray,
    *,
    light: tuple[float, float],
    height: float,
) -> None:
    """Paint something on the scene, in place, lit from one side and casting a shadow.

    Args:
        scene: (3, h, w), changed in place.
        cover: (h, w), the share of each pixel that the thing covers.
        paint: (3, h, w), the thing's colour times `cover`.
        light: unit vector (x, y) in the image plane, towards the light.
        height: how far the thing stands out from the scene, in pixels.
    """
    image = Image.fromarray((255 * cover).astype(np.uint8))
    blurred = image.filter(ImageFilter.GaussianBlur(height))
    soft = np.asarray(blurred, np.float32) / 255
    reach = 1.5 * height
    away = round(-reach * light[0]), round(-reach * light[1])
    shadow = np.asarray(ImageChops.offset(blurred, *away), np.float32)
    slope = np.zeros_like(soft)
    slope[:, 1:-1] -= light[0] * (soft[:, 2:] - soft[:, :-2])
    slope[1:-1] -= light[1] * (soft[2:] - soft[:-2])
    scene *= (1 - cover) * (1 - (0.45 / 255) * shadow)
    scene += paint
    scene += (0.3 * height) * cover * slope


def clutter(
    rng: np.random.Generator, scene: np.ndarray, *, count: int, light: tuple[float, float]
) -> None:
    """Paint `count` things that belong to no class on the scene, in place.

    They are pebbles, leaves, twigs and specks, lit from the direction `light` as in `lay`.
    """
    size = scene.shape[-1]
    wide = 2 * size
    canvas = Image.new("RGBa", (wide, wide))  # "a": colours are multiplied by alpha, as `lay` wants
    draw = ImageDraw.Draw(canvas)
    for red, green, blue in (255 * colours(rng, count)).astype(int).reshape(-1, 3).tolist():
        fill = (red, green, blue, 255)
        place = rng.uniform(0, wide, 2)
        width = max(1, int(rng.integers(2, 7)) * size // 96)
        kind = int(rng.integers(4))
        if kind == 0:
            pebble = wobbly(rng, radius=wide * float(rng.uniform(0.02, 0.11)))
            draw.polygon((pebble + place).ravel().tolist(), fill=fill)
        elif kind == 1:
            leaf = wobbly(rng, radius=wide * float(rng.uniform(0.06, 0.18)), aspect=0.3)
            draw.polygon((leaf + place).ravel().tolist(), fill=fill)
        elif kind == 2:
            twig = curve(rng, reach=wide * float(rng.uniform(0.1, 0.5)))
            draw.line((twig + place).ravel().tolist(), fill=fill, width=width, joint="curve")
        else:
            r = width / 2.5
            for x, y in place + rng.normal(0, wide * float(rng.uniform(0.02, 0.1)), (8, 2)):
                draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    layer = np.ascontiguousarray(np.asarray(canvas.reduce(2)).transpose(2, 0, 1))
    layer = layer.astype(np.float32) / 255
    lay(scene, layer[3], layer[:3], light=light, height=size / 96)
