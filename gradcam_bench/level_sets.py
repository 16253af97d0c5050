"""All level sets of an 8-bit heatmap in one sweep: every component's box at every threshold.

The foregrounds {q >= level} of an 8-bit map q lie inside one another, so their components form a
tree. It is found without labelling a single level:

1. Each row falls into hills, runs that rise and then fall. A hill cut at any level stays in one
   piece, so a map upsampled from 7x7 is some 800 hills where it is 50176 pixels.
2. A hill whose summit touches a hill at least as high joins it: nothing is lost at any level.
   What is left are the local maxima of the map, some ten of them.
3. The maxima merge pairwise where they meet, from the highest pass down (Kruskal's algorithm),
   and with them their tables of box and size per level.

The holes of the foregrounds are the components, by 4 neighbours, of the inverted map, but for
the outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVELS = 256
NOWHERE = -32768  # in a table of maxima: no component at this level


@dataclass(frozen=True)
class Components:
    """The components of {q >= level}, C of them; when two merge, one number goes on.

    Attributes:
        boxes: (4, C, 256) int16, half-open x0, y0, x1, y1 of each component at each level.
        alive: (C, 256) bool, whether the component exists at that level.
        size: (C, 256) int64, its pixels, or twice the area that its pixels' centres span, holes
            left out; 0 where it does not exist.
    """

    boxes: np.ndarray
    alive: np.ndarray
    size: np.ndarray


def components(heatmap: np.ndarray, *, connectivity: int = 8, size: str = "area") -> Components:
    """Return the components of {floor(255 heatmap) >= level} at levels 1 to 255.

    Args:
        heatmap: (H, W) float32 in [0, 1].
        connectivity: 4 or 8 neighbours.
        size: "area" (for 8 neighbours), "pixels", or "none".
    """
    fine = np.zeros((heatmap.shape[0] + 2, heatmap.shape[1] + 2), dtype=np.float32)
    np.multiply(heatmap, LEVELS - 1, out=fine[1:-1, 1:-1], casting="same_kind")
    boxes, sizes, _ = _merge(fine, fine.astype(np.uint8), connectivity, size)
    boxes[:, :, 0] = NOWHERE
    sizes[:, 0] = 0
    return _finished(boxes, sizes)


def holes(heatmap: np.ndarray) -> Components:
    """Return the holes of {q >= level}: 4-connected {q < level} that the outside does not reach.

    q is floor(255 heatmap), 0 outside. The size of a hole is left at 0.
    """
    fine = np.zeros((heatmap.shape[0] + 2, heatmap.shape[1] + 2), dtype=np.float32)
    np.multiply(heatmap, LEVELS - 1, out=fine[1:-1, 1:-1], casting="same_kind")
    inverse = (LEVELS - 1) - fine.astype(np.uint8)
    np.negative(fine, out=fine)
    inverse[0, 0] = inverse[-1, -1] = 0  # two corners of the outside, which stays in one piece
    fine[0, 0] = fine[-1, -1] = -LEVELS
    inverted, sizes, outside = _merge(fine, inverse, 4, "none")
    inverted[:, outside] = NOWHERE
    boxes = np.full_like(inverted, NOWHERE)
    boxes[:, :, 1:] = inverted[:, :, :0:-1]  # {q < level} is {255 - q >= 256 - level}
    return _finished(boxes, sizes)


def _finished(maxima: np.ndarray, sizes: np.ndarray) -> Components:
    """Turn the table of maxima (-x0, -y0, x1, y1) into boxes."""
    alive = maxima[0] != NOWHERE
    np.negative(maxima[:2], out=maxima[:2])
    return Components(maxima, alive, sizes)


def _merge(
    fine: np.ndarray, padded: np.ndarray, connectivity: int, size: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return maxima of (-x0, -y0, x1, y1), (4, C, 256), sizes (C, 256), and whose hill is first.

    Args:
        fine: padded before rounding: hills seen there are fewer, as slopes have no steps.
        padded: (H + 2, W + 2) uint8, 0 in its first and its last corner.
        connectivity: 4 or 8.
        size: as in `components`.
    """
    width = padded.shape[1]
    flat = padded.ravel()
    first, summit = _hills(fine.ravel())
    if not len(first):
        return np.zeros((4, 0, LEVELS), np.int16), np.zeros((0, LEVELS), np.int64), 0
    height = flat[summit].astype(np.int64)
    number = _hill_of_pixel(first, len(flat))
    offsets = (width - 1, width, width + 1) if connectivity == 8 else (width,)
    passes = _passes(flat, first, number, offsets)
    owner, passes = _join(height, passes)
    count = int(owner.max()) + 1
    boxes = np.full((4, count, LEVELS), NOWHERE, dtype=np.int16)
    _reach(boxes[1::2], owner, height, summit // width - 1)
    upright = np.ascontiguousarray(fine.T).ravel()
    _, summit = _hills(upright)
    x, y = np.divmod(summit, len(fine))
    pixel = y * width + x
    _reach(boxes[::2], owner[number[pixel]], flat[pixel], x - 1)
    sizes = _size_table(padded, owner[number], count, size)
    outside = int(owner[0])
    for into, gone, level in _mergers(*passes, outside):
        upto = level + 1
        np.maximum(boxes[:, into, :upto], boxes[:, gone, :upto], out=boxes[:, into, :upto])
        boxes[:, gone, :upto] = NOWHERE
        sizes[into, :upto] += sizes[gone, :upto]
        sizes[gone, :upto] = 0
    return boxes, sizes, outside


def _hills(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut a 1-D array, lowest at both ends, into runs that rise and then do not; (first, summit).

    What comes before the first rise belongs to no hill; it is as low as the ends.
    """
    rises = np.zeros(len(flat), dtype=bool)
    np.greater(flat[1:], flat[:-1], out=rises[1:])
    turns = np.flatnonzero(rises[1:] != rises[:-1])
    return turns[::2] + 1, turns[1::2]


def _hill_of_pixel(first: np.ndarray, n_pixels: int) -> np.ndarray:
    """Return the number of each pixel's hill, (n_pixels,); what comes before the first is in it."""
    lengths = np.diff(first, append=n_pixels)
    lengths[:1] += first[:1]
    return np.repeat(np.arange(len(first)), lengths)


def _passes(
    flat: np.ndarray, first: np.ndarray, number: np.ndarray, offsets: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of neighbouring hills and the highest level, > 0, at which they touch."""
    order = np.arange(len(first))
    one, other, level = [order[:-1]], [order[1:]], [flat[first[1:] - 1]]
    starts = np.zeros(len(flat), dtype=bool)
    starts[first] = True
    starts[0] = True
    for offset in offsets:
        cuts = np.flatnonzero(starts[:-offset] | starts[offset:])
        touching = np.minimum(flat[:-offset], flat[offset:])
        one.append(number[cuts])
        other.append(number[cuts + offset])
        level.append(np.maximum.reduceat(touching, cuts))
    levels = np.concatenate(level)
    keep = np.flatnonzero(levels)
    return np.concatenate(one)[keep], np.concatenate(other)[keep], levels[keep]


def _join(
    height: np.ndarray, passes: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Join each hill with one at least as high that its summit touches, until none is left to.

    Returns:
        The number of each hill's maximum, and the passes between different maxima.
    """
    one, other, level = passes
    owner = np.arange(len(height))
    while len(one):
        count = len(height)
        up = height[other] * count + other > height[one] * count + one
        low, high = np.where(up, one, other), np.where(up, other, one)
        lossless = np.flatnonzero(level == height[low])
        if not len(lossless):
            break
        into = np.arange(count)
        into[low[lossless]] = high[lossless]
        further = into[into]
        while (further != into).any():
            into, further = further, further[further]
        left = np.flatnonzero(into == np.arange(count))
        place = np.zeros(count, dtype=np.int64)
        place[left] = np.arange(len(left))
        place = place[into]
        owner, height = place[owner], height[left]
        one, other = place[one], place[other]
        between = np.flatnonzero(one != other)
        one, other, level = one[between], other[between], level[between]
    return owner, (one, other, level)


def _reach(table: np.ndarray, owner: np.ndarray, height: np.ndarray, position: np.ndarray) -> None:
    """Write how far hills reach along one axis, (-first, last + 1), into a (2, C, 256) table.

    The rows of a component at a level are those of its hills that are so high; its columns are
    those of the hills into which columns fall. Positions are in ascending order.
    """
    table[1, owner, height] = position + 1  # ascending positions, so the last one stays
    table[0, owner[::-1], height[::-1]] = -position[::-1]
    table[:] = np.maximum.accumulate(table[:, :, ::-1], axis=2)[:, :, ::-1]


def _size_table(padded: np.ndarray, owner: np.ndarray, count: int, size: str) -> np.ndarray:
    """Return the size at each level that each maximum's own pixels bring in: (C, 256) int64.

    Four pixels in a square span an area of 1, three of them 1/2, fewer none. They hang together,
    so each square counts for the owner of its highest pixel.
    """
    if size == "none":
        return np.zeros((count, LEVELS), dtype=np.int64)
    owner = owner.astype(np.min_scalar_type(count)).reshape(padded.shape)
    if size == "pixels":
        table = _histogram(owner, padded, count)
    else:
        left, right = padded[:, :-1], padded[:, 1:]
        low, high = np.minimum(left, right), np.maximum(left, right)
        owner = np.where(left >= right, owner[:, :-1], owner[:, 1:])
        owner = np.where(high[:-1] >= high[1:], owner[:-1], owner[1:])
        fourth = np.minimum(low[:-1], low[1:])
        third = np.minimum(np.maximum(low[:-1], low[1:]), np.minimum(high[:-1], high[1:]))
        table = _histogram(owner, third, count) + _histogram(owner, fourth, count)
    return table[:, ::-1].cumsum(axis=1)[:, ::-1]


def _histogram(owner: np.ndarray, level: np.ndarray, count: int) -> np.ndarray:
    """Count (owner, level) pairs: (count, 256) int64."""
    key = owner * np.array(LEVELS, np.min_scalar_type(count * LEVELS)) + level
    return np.bincount(key.ravel(), minlength=count * LEVELS).reshape(count, LEVELS)


def _mergers(
    one: np.ndarray, other: np.ndarray, level: np.ndarray, outside: int
) -> list[tuple[int, int, int]]:
    """Return who merges, (goes on, ends, level), from the highest level down; outside goes on."""
    if not len(one):
        return []
    count = int(max(one.max(), other.max())) + 1
    key = np.sort((np.minimum(one, other) * count + np.maximum(one, other)) * LEVELS + level)
    key = key[np.append(key[1:] // LEVELS != key[:-1] // LEVELS, True)]  # the highest of a pair
    key = key[np.argsort(-(key % LEVELS), kind="stable")]
    pair, at_level = np.divmod(key, LEVELS)
    parent: dict[int, int] = {}
    mergers = []
    for a, b, at in zip(
        (pair // count).tolist(), (pair % count).tolist(), at_level.tolist(), strict=True
    ):
        while a in parent:
            a = parent[a]
        while b in parent:
            b = parent[b]
        if a != b:
            if b == outside:
                a, b = b, a
            parent[b] = a
            mergers.append((a, b, at))
    return mergers
