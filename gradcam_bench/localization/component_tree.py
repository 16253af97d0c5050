"""The connected components of an 8-bit heatmap's foreground at every threshold, in one pass.

Raising the threshold only shrinks the foreground {q >= level} of an 8-bit map q, so the components
at all levels form a tree (the component tree, or max-tree). It is built from the highest level to
the lowest, without labelling the foreground of any level:

1. Each row is cut into hills: runs of pixels whose values rise and then fall. At every level, the
   foreground pixels of one hill are contiguous, so that hills can stand in for pixels. A map
   upsampled from 7 x 7 to 224 x 224 has 50176 pixels, but only some 800 hills.
2. A hill is joined to a hill of an adjacent row that is at least as high where its summit touches
   it: whenever part of the first is foreground, the two are connected. The joined groups are called
   basins; there is one for each local maximum of the map, some fifteen in all.
3. From the highest level down, each basin gains its pixels of that level, and basins that touch at
   that level are merged with union-find (as in Kruskal's algorithm).

The holes of a foreground are the 4-connected components of the inverted map, except the one that
surrounds the image.

Compiled by Numba, finding the components and holes of a 224 x 224 Grad-CAM map takes a third of the
time of the same steps in NumPy, and a fiftieth of the time of labelling every level with OpenCV.
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

_FAR = np.iinfo(np.int32).max  # stands for "no coordinate yet" where the smallest is kept


@dataclass(frozen=True)
class Components:
    """The components of {q >= level} at every level, K of them in all.

    Attributes:
        level: (K,) int64 in 1..255, ascending; a component that exists at several levels has one
            entry for each.
        boxes: (K, 4) int64 in pixels, half-open xyxy.
        size: (K,) int64, the number of pixels, or twice the area that their centres span, in square
            pixels; holes do not count.
    """

    level: np.ndarray
    boxes: np.ndarray
    size: np.ndarray


def components(q: np.ndarray, *, connectivity: int = 8, size: str = "area") -> Components:
    """Return the components of {q >= level} at levels 1 to 255.

    Args:
        q: (H, W) uint8, the quantized heatmap.
        connectivity: 4 or 8, the number of neighbours of a pixel.
        size: what `Components.size` holds: "area" (needs connectivity 8), "pixels", or "none" for
            zeros, which is faster.
    """
    level, boxes, sizes = _sweep(q, connectivity == 8, SIZES.index(size), False)
    return Components(level[::-1], boxes[::-1], sizes[::-1])


def holes(q: np.ndarray) -> Components:
    """Return the holes of the foreground {q >= level} at every level.

    A hole is a 4-connected component of the background {q < level} that does not reach the image's
    border. Sizes are zeros.

    Args:
        q: (H, W) uint8, the quantized heatmap.
    """
    inverse = np.full((q.shape[0] + 2, q.shape[1] + 2), LEVELS - 1, dtype=np.uint8)
    inverse[1:-1, 1:-1] -= q
    level, boxes, sizes = _sweep(inverse, False, SIZES.index("none"), True)
    return Components(LEVELS - level, boxes - 1, sizes)  # {q < level} is {255 - q >= 256 - level}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have Numba compile a function when it is first called, and cache the result on disk."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no cache folder is writable
        return njit(nogil=True)(function)


@_compiled
def _sweep(
    levels: np.ndarray, diagonal: bool, measure: int, outside: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the level, box and size of every component, from the highest level down.

    Args:
        levels: (H, W) uint8, the quantized heatmap, or its inverse when holes are sought.
        diagonal: whether pixels that touch only at a corner are connected (8 neighbours, not 4).
        measure: index into `SIZES`.
        outside: whether to leave out the component of the top left pixel, which surrounds the image
            when `levels` is inverted and padded.

    Returns:
        Arrays (K,), (K, 4) and (K,) as in `Components`.
    """
    hill, start, summit = _hills(levels)
    owner, count = _join(levels, hill, summit, diagonal)
    reach = _reach(levels, start, summit, owner, count)
    basin = hill  # reuses the memory: from here on, each pixel holds the number of its basin
    for h in range(len(owner)):
        basin.ravel()[start[h] : start[h + 1]] = owner[h]
    size = _sizes(levels, basin, count, measure)
    passes, first_pass = _passes(levels, start, owner, diagonal)

    level_of = np.empty(LEVELS * count, np.int64)
    boxes = np.empty((LEVELS * count, 4), np.int64)
    sizes = np.empty(LEVELS * count, np.int64)
    found = 0
    own_box = np.full((count, 4), _FAR, np.int64)  # x0, y0, -x1, -y1, as in `reach`
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
    """Cut each row into hills: runs of pixels whose values rise and then fall, plateaus allowed.

    Returns:
        The number of each pixel's hill, (H, W); the row-major index of the pixel where each hill
        starts, followed by the end of the last, (hills + 1,); and the row-major index of the first
        pixel of each hill's highest plateau, its summit, (hills,).
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
    """Group hills into basins by joining each to a neighbour at least as high as its summit.

    The neighbour is a hill of an adjacent row that touches the summit with a pixel as high or
    higher. Each hill is joined to at most one such neighbour, so at any level the hills of a basin
    that reach the level are connected to each other.

    Returns:
        The number of each hill's basin, (hills,), and the number of basins.
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
    """Return a bounding box of what each basin gains at each level: (256, basins, 4) int32.

    A box is x0, y0, -x1, -y1 in pixels: with the far corner negated, the box around several is the
    minimum of each number. Pixels that lie between others of the basin may be missing from their
    own level's box, but the union with the boxes of all higher levels is exact.
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
    """Return by how much each basin's size grows at each level: (256, basins) int32.

    The size is what `measure` says. For the area, each square of four neighbouring pixels counts:
    four foreground pixels span an area of 1, three an area of 1/2, fewer none. These pixels are
    connected, so the area of the square is added to the basin of its highest pixel.
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
        for x in range(width - 1):  # a separate loop, so that the compiler can vectorize it
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
    """Return the passes: where two basins touch, and the highest level at which they do.

    Returns:
        The two basins of each pass, (passes, 2), in ascending order of its level; and the number of
        the first pass of each level, (257,): those of level v run from entry v up to entry v + 1.
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
