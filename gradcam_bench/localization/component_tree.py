"""All level sets of an 8-bit heatmap in one sweep: every component's box at every level.

The foregrounds {q >= level} of an 8-bit map q lie inside one another, so their components form a
tree. It is found without labelling a single level:

1. Each row falls into hills, runs that rise and then fall. A hill cut at any level stays in one
   piece, so a map upsampled from 7x7 is some 800 hills where it is 50176 pixels.
2. A hill whose summit lies beside a slope at least as high joins that slope's hill: nothing is
   lost at any level. What is left are the local maxima of the map and their basins, some fifteen.
3. From the highest level down, each basin adds what it holds at that level, and basins that meet
   there merge (Kruskal's algorithm).

The holes of the foregrounds are the components, by 4 neighbours, of the inverted map, but for
the outside.

Compiled by Numba, components and holes of a Grad-CAM map of 224 x 224 take a third of the time of
the same steps in NumPy, and a fiftieth of labelling every level with OpenCV.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

LEVELS = 256

SIZES = ("none", "pixels", "area")

_PIXELS, _AREA = SIZES.index("pixels"), SIZES.index("area")

_FAR = np.iinfo(np.int32).max  # no coordinate yet


@dataclass(frozen=True)
class Components:
    """The components of {q >= level} at every level, K of them in all.

    Attributes:
        level: (K,) int64 in 1..255, ascending; a component appears once at each level it lives.
        boxes: (K, 4) int64, half-open x0, y0, x1, y1.
        size: (K,) int64, pixels, or twice the area that the pixels' centres span, holes left out.
    """

    level: np.ndarray
    boxes: np.ndarray
    size: np.ndarray


def components(q: np.ndarray, *, connectivity: int = 8, size: str = "area") -> Components:
    """Return the components of {q >= level} at levels 1 to 255.

    Args:
        q: (H, W) uint8.
        connectivity: 4 or 8 neighbours.
        size: "area" (for 8 neighbours), "pixels", or "none" (zeros).
    """
    level, boxes, sizes = _sweep(q, connectivity == 8, SIZES.index(size), False)
    return Components(level[::-1], boxes[::-1], sizes[::-1])


def holes(q: np.ndarray) -> Components:
    """Return the holes of {q >= level}: 4-connected {q < level} that the outside does not reach.

    Args:
        q: (H, W) uint8.
    """
    inverse = np.full((q.shape[0] + 2, q.shape[1] + 2), LEVELS - 1, dtype=np.uint8)
    inverse[1:-1, 1:-1] -= q
    level, boxes, sizes = _sweep(inverse, False, SIZES.index("none"), True)
    return Components(LEVELS - level, boxes - 1, sizes)  # {q < level} is {255 - q >= 256 - level}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, and keep the result for the next process."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder to keep it in is writable
        return njit(nogil=True)(function)


@_compiled
def _sweep(
    levels: np.ndarray, diagonal: bool, measure: int, outside: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return level, boxes and size of all components, from the highest level down.

    Args:
        levels: (H, W) uint8.
        diagonal: whether pixels that touch at a corner hang together.
        measure: place in SIZES.
        outside: leave out the component of the first pixel.
    """
    hill, start, summit = _hills(levels)
    owner, count = _join(levels, hill, summit, diagonal)
    reach = _reach(levels, start, summit, owner, count)
    basin = hill  # hills are not looked up any more; their pixels take the basin's number
    for h in range(len(owner)):
        basin.ravel()[start[h] : start[h + 1]] = owner[h]
    size = _sizes(levels, basin, count, measure)
    passes, first_pass = _passes(levels, start, owner, diagonal)

    level_of = np.empty(LEVELS * count, np.int64)
    boxes = np.empty((LEVELS * count, 4), np.int64)
    sizes = np.empty(LEVELS * count, np.int64)
    found = 0
    own_box = np.full((count, 4), _FAR, np.int64)  # as in `reach`
    own_size = np.zeros(count, np.int64)
    parent = np.arange(count)
    for level in range(LEVELS - 1, 0, -1):
        for c in range(count):
            root = _root(parent, c)
            own_size[root] += size[level, c]
            for side in range(4):
                own_box[root, side] = min(own_box[root, side], reach[level, c, side])
        for k in range(first_pass[level], first_pass[level + 1]):
            into, gone = _root(parent, passes[k, 0]), _root(parent, passes[k, 1])
            if into != gone:
                parent[gone] = into
                own_size[into] += own_size[gone]
                for side in range(4):
                    own_box[into, side] = min(own_box[into, side], own_box[gone, side])
        left_out = _root(parent, owner[0]) if outside else -1
        for c in range(count):
            if parent[c] == c and own_box[c, 0] != _FAR and c != left_out:
                level_of[found] = level
                sizes[found] = own_size[c]
                for side in range(2):
                    boxes[found, side] = own_box[c, side]
                    boxes[found, 2 + side] = -own_box[c, 2 + side]
                found += 1
    return level_of[:found], boxes[:found], sizes[:found]


@_compiled
def _root(parent: np.ndarray, node: int) -> int:
    """Return the root of a node in a union-find forest, shortening its path."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@_compiled
def _hills(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut each row into runs that rise and then fall, plateaus allowed.

    Returns:
        The hill of each pixel (H, W); the pixel, in row-major order, where each starts, and the
        end of the last (hills + 1,); the first pixel of each one's highest plateau (hills,).
    """
    height, width = levels.shape
    hill = np.empty((height, width), np.int32)
    start = np.empty(height * width + 1, np.int32)
    summit = np.empty(height * width, np.int32)
    count = 0
    for y in range(height):
        falling, before = True, np.int64(-1)
        for x in range(width):
            level = np.int64(levels[y, x])
            if level > before:
                if falling:
                    start[count] = y * width + x
                    count += 1
                    falling = False
                summit[count - 1] = y * width + x
            elif level < before:
                falling = True
            before = level
            hill[y, x] = count - 1
    start[count] = height * width
    return hill, start[: count + 1], summit[:count]


@_compiled
def _join(
    levels: np.ndarray, hill: np.ndarray, summit: np.ndarray, diagonal: bool
) -> tuple[np.ndarray, int]:
    """Join each hill with one in the next row that is at least as high beside its summit.

    A hill follows one other at most, so the hills joined that reach a level hang together there.

    Returns:
        The number of the basin to which each hill leads, (hills,), and the number of basins.
    """
    height, width = levels.shape
    parent = np.arange(len(summit))
    for h in range(len(summit)):
        y, x = divmod(summit[h], width)
        level = levels[y, x]
        joined = False
        while not joined and x < width and levels[y, x] == level and hill[y, x] == h:
            for beside in (y - 1, y + 1):
                if not 0 <= beside < height:
                    continue
                for z in range(max(x - diagonal, 0), min(x + diagonal + 1, width)):
                    if not joined and levels[beside, z] >= level:
                        own, other = _root(parent, h), _root(parent, hill[beside, z])
                        if own != other:
                            parent[own] = other
                            joined = True
            x += 1
    owner = np.empty(len(summit), np.int32)
    count = 0
    for h in range(len(summit)):
        if parent[h] == h:
            owner[h] = count
            count += 1
    for h in range(len(summit)):
        owner[h] = owner[_root(parent, h)]
    return owner, count


@_compiled
def _reach(
    levels: np.ndarray, start: np.ndarray, summit: np.ndarray, owner: np.ndarray, count: int
) -> np.ndarray:
    """Return how far each basin reaches by what it adds at each level: (256, basins, 4) int32.

    The four are x0, y0, -x1, -y1, of which the smallest count.
    """
    width = levels.shape[1]
    reach = np.full((LEVELS, count, 4), _FAR, np.int32)
    for h in range(len(summit)):
        y = start[h] // width
        first, top, end = start[h] - y * width, summit[h] - y * width, start[h + 1] - y * width
        at_top = reach[levels[y, top], owner[h]]
        at_top[1] = min(at_top[1], y)
        at_top[3] = min(at_top[3], -(y + 1))
        before = np.int64(-1)
        for x in range(first, top + 1):
            level = np.int64(levels[y, x])
            if level != before:
                reach[level, owner[h], 0] = min(reach[level, owner[h], 0], x)
                before = level
        before = np.int64(-1)
        for x in range(end - 1, top - 1, -1):
            level = np.int64(levels[y, x])
            if level != before:
                reach[level, owner[h], 2] = min(reach[level, owner[h], 2], -(x + 1))
                before = level
    return reach


@_compiled
def _sizes(levels: np.ndarray, basin: np.ndarray, count: int, measure: int) -> np.ndarray:
    """Return the size that each basin's pixels bring in at each level: (256, basins) int32.

    Four pixels in a square span an area of 1, three of them 1/2, fewer none. They hang together,
    so each square counts for the basin of its highest pixel.
    """
    height, width = levels.shape
    size = np.zeros((LEVELS, count), np.int32)
    if measure == _PIXELS:
        for y in range(height):
            for x in range(width):
                size[levels[y, x], basin[y, x]] += 1
    if measure != _AREA:
        return size
    third, fourth = np.empty(width, np.uint8), np.empty(width, np.uint8)
    for y in range(height - 1):
        for x in range(width - 1):  # a loop of its own, which the compiler vectorizes
            a, b, c, d = levels[y, x], levels[y, x + 1], levels[y + 1, x], levels[y + 1, x + 1]
            low, other = min(a, b), min(c, d)
            fourth[x] = min(low, other)
            third[x] = min(max(low, other), min(max(a, b), max(c, d)))
        for x in range(width - 1):
            own = basin[y, x]
            right, below, across = basin[y, x + 1], basin[y + 1, x], basin[y + 1, x + 1]
            if right != own or below != own or across != own:
                best = levels[y, x]
                if levels[y, x + 1] > best:
                    best, own = levels[y, x + 1], right
                if levels[y + 1, x] > best:
                    best, own = levels[y + 1, x], below
                if levels[y + 1, x + 1] > best:
                    own = across
            size[third[x], own] += 1
            size[fourth[x], own] += 1
    return size


@_compiled
def _passes(
    levels: np.ndarray, start: np.ndarray, owner: np.ndarray, diagonal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return where hills of different basins touch.

    Returns:
        The two basins of each pass, (passes, 2), ordered by its level, and the first pass of each
        level, (257,).
    """
    width = levels.shape[1]
    hills = len(owner)
    found = np.empty((8 * hills, 3), np.int32)
    count = 0
    above = 0
    for h in range(hills):
        y = start[h] // width
        first, end = start[h] - y * width, start[h + 1] - y * width
        if first > 0 and owner[h - 1] != owner[h]:
            found[count, 0] = owner[h - 1]
            found[count, 1] = owner[h]
            found[count, 2] = min(levels[y, first - 1], levels[y, first])
            count += 1
        if y == 0:
            continue
        row = (y - 1) * width
        while start[above + 1] - row <= max(first - diagonal, 0):
            above += 1
        other = above
        while start[other] - row < min(end + diagonal, width):
            if owner[other] != owner[h]:
                highest = 0
                for step in range(-diagonal, diagonal + 1):
                    left = max(first, start[other] - row - step)
                    right = min(end, start[other + 1] - row - step)
                    for x in range(left, right):
                        highest = max(highest, min(levels[y, x], levels[y - 1, x + step]))
                found[count, 0] = owner[other]
                found[count, 1] = owner[h]
                found[count, 2] = highest
                count += 1
            other += 1
    first_pass = np.zeros(LEVELS + 2, np.int64)
    for k in range(count):
        first_pass[found[k, 2] + 2] += 1
    for level in range(LEVELS):
        first_pass[level + 2] += first_pass[level + 1]
    passes = np.empty((count, 2), np.int32)
    for k in range(count):
        place = first_pass[found[k, 2] + 1]
        passes[place, 0] = found[k, 0]
        passes[place, 1] = found[k, 1]
        first_pass[found[k, 2] + 1] += 1
    return passes, first_pass[:-1]
