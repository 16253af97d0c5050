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
SIGNS = np.array([-1, -1, 1, 1], dtype=np.int16)[:, None, None]
NOWHERE = -32767  # in a table of maxima: no component at this level


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


def quantized(heatmap: np.ndarray) -> np.ndarray:
    """Return floor(255 * heatmap) as uint8; what bicubic overshoot leaves outside [0, 1] is cut."""
    return _scaled(heatmap).astype(np.uint8)


def _scaled(heatmap: np.ndarray) -> np.ndarray:
    return np.clip(heatmap.astype(np.float32, copy=False), 0, 1) * np.float32(LEVELS - 1)


def components(heatmap: np.ndarray, *, connectivity: int = 8, size: str = "area") -> Components:
    """Return the components of {floor(255 * heatmap) >= level} at levels 1 to 255.

    Args:
        heatmap: (H, W) float32 in [0, 1].
        connectivity: 4 or 8 neighbours.
        size: "area" (for 8 neighbours), "pixels", or "none".
    """
    fine = np.pad(_scaled(heatmap), 1)
    maxima, sizes, _ = _merge(fine, fine.astype(np.uint8), connectivity, size)
    maxima[:, :, 0] = NOWHERE
    sizes[:, 0] = 0
    return _finished(maxima, sizes)


def holes(heatmap: np.ndarray) -> Components:
    """Return the holes of {q >= level}: 4-connected {q < level} that the outside does not reach.

    q is floor(255 * heatmap), and 0 outside. The size of a hole is left at 0.
    """
    fine = np.pad(_scaled(heatmap), 1)
    inverse = (LEVELS - 1) - fine.astype(np.uint8)
    np.negative(fine, out=fine)
    inverse[0, 0] = inverse[-1, -1] = 0  # two corners of the outside, which stays in one piece
    fine[0, 0] = fine[-1, -1] = -LEVELS
    inverted, sizes, outside = _merge(fine, inverse, 4, "none")
    inverted[:, outside] = NOWHERE
    maxima = np.full_like(inverted, NOWHERE)
    maxima[:, :, 1:] = inverted[:, :, :0:-1]  # {q < level} is {255 - q >= 256 - level}
    return _finished(maxima, sizes)


def _finished(maxima: np.ndarray, sizes: np.ndarray) -> Components:
    """Turn the table of maxima (-y0, y1, -x0, x1) into boxes."""
    alive = maxima[0] != NOWHERE
    return Components(maxima[[2, 0, 3, 1]] * SIGNS, alive, sizes)


def _merge(
    fine: np.ndarray, padded: np.ndarray, connectivity: int, size: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return maxima of (-y0, y1, -x0, x1), (4, C, 256), sizes (C, 256), and whose hill is first.

    Args:
        fine: padded before rounding: hills seen there are fewer, as slopes have no steps.
        padded: (H + 2, W + 2) uint8, 0 in its first and its last corner.
        connectivity: 4 or 8.
        size: as in `components`.
    """
    width = padded.shape[1]
    offsets = (width - 1, width, width + 1) if connectivity == 8 else (width,)
    flat, smooth = padded.ravel(), fine.ravel()
    first, summit = _hills(smooth)
    if not len(first):
        return np.zeros((4, 0, LEVELS), np.int16), np.zeros((0, LEVELS), np.int64), 0
    lengths = np.diff(first, append=len(flat))
    lengths[0] += first[0]
    number = np.repeat(np.arange(len(first)), lengths)
    owner = _join(smooth, summit, number, offsets)
    count = int(owner.max()) + 1
    reach = np.full((2, 2, count * LEVELS), NOWHERE, dtype=np.int16)
    _reach(reach[0], owner * LEVELS + flat[summit], summit // width - 1)
    _, summit = _hills(np.ascontiguousarray(fine.T).ravel())
    x, y = np.divmod(summit, len(fine))
    pixel = y * width + x
    _reach(reach[1], owner[number[pixel]] * LEVELS + flat[pixel], x - 1)
    boxes = reach.reshape(4, count, LEVELS)
    boxes = np.maximum.accumulate(boxes[:, :, ::-1], axis=2)[:, :, ::-1]
    basin = np.repeat(owner.astype(np.uint8 if count <= LEVELS else np.uint32), lengths)
    sizes = _size_table(padded, basin.reshape(padded.shape), count, size)
    outside = int(owner[0])
    for into, gone, level in _mergers(_passes(flat, basin, count, (1, *offsets)), outside, count):
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


def _join(
    smooth: np.ndarray, summit: np.ndarray, number: np.ndarray, offsets: tuple[int, ...]
) -> np.ndarray:
    """Join each hill with one whose slope beside its summit is at least as high.

    Returns:
        The number of the maximum to which each hill leads, (hills,).
    """
    order = np.arange(len(summit))
    beside = summit + np.array([*offsets, *(-k for k in offsets)])[:, None]
    height = smooth.take(beside, mode="clip")  # outside the array lie its ends, which are lowest
    other = number.take(beside, mode="clip")
    higher = (height > smooth[summit]) | ((height == smooth[summit]) & (other > order))
    into = order.copy()
    which = np.nonzero(higher)
    into[which[1]] = other[which]
    further = into[into]
    while (further != into).any():
        into, further = further, further[further]
    place = np.cumsum(into == order) - 1
    return place[into]


def _passes(
    flat: np.ndarray, basin: np.ndarray, count: int, offsets: tuple[int, ...]
) -> np.ndarray:
    """Return where basins touch, as sorted keys (one * count + other) * 256 + level, one < other.

    Args:
        flat: (pixels,) uint8 levels.
        basin: (pixels,) the maximum to which each pixel belongs.
        count: of maxima.
        offsets: from a pixel to its neighbours to the right and below.
    """
    keys = []
    for offset in offsets:
        pixel = np.flatnonzero(basin[:-offset] != basin[offset:])
        level = np.minimum(flat[pixel], flat[pixel + offset])
        one, other = basin[pixel].astype(np.int64), basin[pixel + offset].astype(np.int64)
        pair = np.minimum(one, other) * count + np.maximum(one, other)
        keys.append(pair * LEVELS + level)
    return np.sort(np.concatenate(keys))


def _reach(table: np.ndarray, key: np.ndarray, position: np.ndarray) -> None:
    """Write how far hills reach along one axis, -first and last + 1, into a (2, C * 256) table.

    The rows of a component at a level are those of its hills that are so high; its columns are
    those of the hills into which columns fall. Positions ascend, and the last one written stays.
    """
    table[1, key] = position + 1
    table[0, key[::-1]] = -position[::-1]


def _size_table(padded: np.ndarray, owner: np.ndarray, count: int, size: str) -> np.ndarray:
    """Return the size at each level that each maximum's own pixels bring in: (C, 256) int64.

    Four pixels in a square span an area of 1, three of them 1/2, fewer none. They hang together,
    so each square counts for the owner of its highest pixel.
    """
    if size == "none":
        return np.zeros((count, LEVELS), dtype=np.int64)
    wide = np.uint16 if owner.dtype == np.uint8 else np.uint32
    if size == "pixels":
        key = owner.astype(wide) * wide(LEVELS) + padded
        table = np.bincount(key.ravel(), minlength=count * LEVELS)
    else:
        # The owner, tagged with the pixel's level in the top byte: the maximum is the highest's.
        # Shifting the tag out leaves the key. 50 us, where np.where and indices take 150.
        tagged = (padded.astype(wide) << wide(8 * wide().itemsize - 8)) | owner
        tagged = np.maximum(tagged[:, :-1], tagged[:, 1:])
        key = np.maximum(tagged[:-1], tagged[1:]) << wide(8)
        low = np.minimum(padded[:, :-1], padded[:, 1:])
        high = np.maximum(padded[:, :-1], padded[:, 1:])
        fourth = np.minimum(low[:-1], low[1:])
        third = np.minimum(np.maximum(low[:-1], low[1:]), np.minimum(high[:-1], high[1:]))
        table = np.bincount((key | third).ravel(), minlength=count * LEVELS)
        table += np.bincount((key | fourth).ravel(), minlength=count * LEVELS)
    table = table.reshape(count, LEVELS)
    return table[:, ::-1].cumsum(axis=1)[:, ::-1]


def _mergers(passes: np.ndarray, outside: int, count: int) -> list[tuple[int, int, int]]:
    """Return who merges, (goes on, ends, level), from the highest level down; outside goes on."""
    if not len(passes):
        return []
    highest = passes[np.append(passes[1:] // LEVELS != passes[:-1] // LEVELS, True)]
    pairs, levels = np.divmod(highest, LEVELS)
    order = np.argsort(-levels, kind="stable")
    ones, others = np.divmod(pairs[order], count)
    parent: dict[int, int] = {}
    mergers = []
    for a, b, at in zip(ones.tolist(), others.tolist(), levels[order].tolist(), strict=True):
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
