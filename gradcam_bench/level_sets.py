"""All level sets of an 8-bit heatmap in one sweep: every component's box at every level.

The foregrounds {q >= level} of an 8-bit map q lie inside one another, so their components form a
tree. It is found without labelling a single level:

1. Each row falls into hills, runs that rise and then fall. A hill cut at any level stays in one
   piece, so a map upsampled from 7x7 is some 800 hills where it is 50176 pixels.
2. A hill whose summit lies beside a slope at least as high joins that slope's hill: nothing is
   lost at any level. What is left are the local maxima of the map, some ten of them.
3. The maxima merge pairwise where they meet, from the highest pass down (Kruskal's algorithm),
   and with them their tables of box and size per level.

The holes of the foregrounds are the components, by 4 neighbours, of the inverted map, but for
the outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVELS = 256
NOWHERE = -32767  # in a table of maxima: no component at this level
SIGNS = np.array([-1, -1, 1, 1], dtype=np.int16)[:, None, None]


@dataclass(frozen=True)
class Components:
    """The components of {q >= level}, C of them; when two merge, one number goes on.

    Attributes:
        boxes: (4, C, 256) int16, half-open x0, y0, x1, y1 of each component at each level.
        alive: (C, 256) bool, whether the component exists at that level; the rest means nothing
            where it does not.
        size: (C, 256) int64, its pixels, or twice the area that its pixels' centres span, holes
            left out.
    """

    boxes: np.ndarray
    alive: np.ndarray
    size: np.ndarray


def padded_levels(heatmap: np.ndarray) -> np.ndarray:
    """Return 255 * heatmap, cut to [0, 255], in a frame of zeros: (H + 2, W + 2) float32."""
    fine = np.zeros((heatmap.shape[0] + 2, heatmap.shape[1] + 2), dtype=np.float32)
    inside = fine[1:-1, 1:-1]
    np.clip(heatmap, 0, 1, out=inside, casting="same_kind")
    inside *= LEVELS - 1
    return fine


def quantized(heatmap: np.ndarray) -> np.ndarray:
    """Return floor(255 * heatmap) as uint8; what bicubic overshoot leaves outside [0, 1] is cut."""
    return padded_levels(heatmap)[1:-1, 1:-1].astype(np.uint8)


def components(fine: np.ndarray, *, connectivity: int = 8, size: str = "area") -> Components:
    """Return the components of {q >= level} at levels 1 to 255; q is `fine` rounded down.

    Args:
        fine: (H + 2, W + 2) from `padded_levels`.
        connectivity: 4 or 8 neighbours.
        size: "area" (for 8 neighbours), "pixels", or "none".
    """
    tree = _tree(fine, fine.astype(np.uint8), connectivity, size)
    tree.alive[:, 0] = False
    return tree


def holes(fine: np.ndarray) -> Components:
    """Return the holes of {q >= level}: 4-connected {q < level} that the outside does not reach.

    Args:
        fine: (H + 2, W + 2) from `padded_levels`; q is `fine` rounded down.
    """
    inverse = (LEVELS - 1) - fine.astype(np.uint8)
    fine = np.negative(fine)
    inverse[0, 0] = inverse[-1, -1] = 0  # two corners of the outside, which stays in one piece
    fine[0, 0] = fine[-1, -1] = -LEVELS
    tree = _tree(fine, inverse, 4, "none", outside=True)
    # {q < level} is {255 - q >= 256 - level}.
    boxes, alive = np.zeros_like(tree.boxes), np.zeros_like(tree.alive)
    boxes[:, :, 1:], alive[:, 1:] = tree.boxes[:, :, :0:-1], tree.alive[:, :0:-1]
    return Components(boxes, alive, tree.size)


def _tree(
    fine: np.ndarray, levels: np.ndarray, connectivity: int, size: str, *, outside: bool = False
) -> Components:
    """Return the components of a padded map.

    Args:
        fine: the map before rounding, lowest in its first and last corner. It shows the same
            hills as `levels`, but few of them twice: its slopes have no steps.
        levels: (H + 2, W + 2) uint8.
        connectivity: 4 or 8.
        size: as in `components`.
        outside: leave out the component of the first hill.
    """
    width = levels.shape[1]
    offsets = (width - 1, width, width + 1) if connectivity == 8 else (width,)
    flat, smooth = levels.ravel(), fine.ravel()
    first, summit = _hills(smooth)
    if not len(first):
        none = np.zeros((0, LEVELS), dtype=np.int64)
        return Components(np.zeros((4, 0, LEVELS), np.int16), none.astype(bool), none)
    lengths = np.diff(first, append=len(flat))
    lengths[0] += first[0]
    hill = np.repeat(np.arange(len(first)), lengths)
    owner = _join(smooth, summit, hill, offsets)
    count = int(owner.max()) + 1

    reach = np.full((2, 2, count * LEVELS), NOWHERE, dtype=np.int16)
    _reach(reach[0], owner * LEVELS + flat[summit], summit // width - 1)
    _, summit = _hills(np.ascontiguousarray(fine.T).ravel())
    x, y = np.divmod(summit, len(fine))
    pixel = y * width + x
    _reach(reach[1], owner[hill[pixel]] * LEVELS + flat[pixel], x - 1)
    reach = reach.reshape(4, count, LEVELS)
    reach = np.maximum.accumulate(reach[:, :, ::-1], axis=2)[:, :, ::-1]

    basin = np.repeat(owner.astype(np.uint8 if count <= LEVELS else np.uint32), lengths)
    sizes = _sizes(levels, basin.reshape(levels.shape), count, size)
    gone_below = np.full(count, -1)
    passes = _passes(flat, basin, count, (1, *offsets))
    for into, gone, level in _mergers(passes, count, int(owner[0]) if outside else -1):
        upto = level + 1
        np.maximum(reach[:, into, :upto], reach[:, gone, :upto], out=reach[:, into, :upto])
        if size != "none":
            sizes[into, :upto] += sizes[gone, :upto]
        gone_below[gone] = level
    alive = (reach[0] != NOWHERE) & (np.arange(LEVELS) > gone_below[:, None])
    if outside:
        alive[owner[0]] = False
    return Components(reach[[2, 0, 3, 1]] * SIGNS, alive, sizes)


def _hills(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut a 1-D array, lowest at both ends, into runs that rise and then do not; (first, summit).

    What comes before the first rise belongs to no hill; it is as low as the ends.
    """
    rises = np.zeros(len(flat), dtype=bool)
    np.greater(flat[1:], flat[:-1], out=rises[1:])
    turns = np.flatnonzero(rises[1:] != rises[:-1])
    return turns[::2] + 1, turns[1::2]


def _join(
    smooth: np.ndarray, summit: np.ndarray, hill: np.ndarray, offsets: tuple[int, ...]
) -> np.ndarray:
    """Join each hill with one whose slope beside its summit is at least as high.

    Returns:
        The number of the maximum to which each hill leads, (hills,).
    """
    order = left = np.arange(len(summit))
    into = order.copy()
    for offset in (*offsets, *(-k for k in offsets)):
        beside = summit[left] + offset
        height = smooth.take(beside, mode="clip")  # beyond its ends, which are lowest
        other = hill.take(beside, mode="clip")
        top = smooth[summit[left]]
        higher = (height > top) | ((height == top) & (other > left))
        into[left[higher]] = other[higher]
        left = left[~higher]
    further = into[into]
    while (further != into).any():
        into, further = further, further[further]
    place = np.cumsum(into == order) - 1
    return place[into]


def _reach(table: np.ndarray, key: np.ndarray, position: np.ndarray) -> None:
    """Write how far hills reach along one axis, -first and last + 1, into a (2, C * 256) table.

    The rows of a component at a level are those of its hills that are so high; its columns are
    those of the hills into which columns fall. Positions ascend, and the last one written stays.
    """
    table[1, key] = position + 1
    table[0, key[::-1]] = -position[::-1]


def _sizes(levels: np.ndarray, basin: np.ndarray, count: int, size: str) -> np.ndarray:
    """Return the size at each level that each maximum's own pixels bring in: (C, 256) int64.

    Four pixels in a square span an area of 1, three of them 1/2, fewer none. They hang together,
    so each square counts for the basin of its highest pixel.
    """
    if size == "none":
        return np.zeros((count, LEVELS), dtype=np.int64)
    wide: np.dtype = np.dtype(np.uint16 if basin.dtype == np.uint8 else np.uint32)
    tagged = basin.astype(wide)
    if size == "pixels":
        key = np.left_shift(tagged, 8) | levels
        table = np.bincount(key.ravel(), minlength=count * LEVELS)
    else:
        # The basin, tagged with the pixel's level in the top byte: the maximum is the highest's.
        # Shifting the tag out leaves the key. 50 us, where np.where takes 150.
        tagged |= np.left_shift(levels.astype(wide), 8 * wide.itemsize - 8)
        tagged = np.maximum(tagged[:, :-1], tagged[:, 1:])
        key = np.left_shift(np.maximum(tagged[:-1], tagged[1:]), 8)
        low = np.minimum(levels[:, :-1], levels[:, 1:])
        high = np.maximum(levels[:, :-1], levels[:, 1:])
        fourth = np.minimum(low[:-1], low[1:])
        third = np.minimum(np.maximum(low[:-1], low[1:]), np.minimum(high[:-1], high[1:]))
        table = np.bincount((key | third).ravel(), minlength=count * LEVELS)
        table += np.bincount((key | fourth).ravel(), minlength=count * LEVELS)
    table = table.reshape(count, LEVELS)
    return table[:, ::-1].cumsum(axis=1)[:, ::-1]


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
    borders = [np.flatnonzero(basin[:-offset] != basin[offset:]) for offset in offsets]
    pixel = np.concatenate(borders)
    beside = np.concatenate([border + k for border, k in zip(borders, offsets, strict=True)])
    level = np.minimum(flat[pixel], flat[beside])
    one, other = basin[pixel], basin[beside]
    pair = np.minimum(one, other).astype(np.int64) * count + np.maximum(one, other)
    return np.sort(pair * LEVELS + level)


def _mergers(passes: np.ndarray, count: int, outside: int) -> list[tuple[int, int, int]]:
    """Return who merges, (goes on, ends, level), from the highest level down; outside goes on."""
    if not len(passes):
        return []
    pairs = passes // LEVELS
    highest = np.flatnonzero(np.append(pairs[1:] != pairs[:-1], True))
    pairs, levels = pairs[highest], passes[highest] % LEVELS
    order = np.argsort(-levels, kind="stable")
    ones, others = np.divmod(pairs[order], count)
    parent: dict[int, int] = {}
    mergers = []
    for a, b, level in zip(ones.tolist(), others.tolist(), levels[order].tolist(), strict=True):
        while a in parent:
            a = parent[a]
        while b in parent:
            b = parent[b]
        if a != b:
            if b == outside:
                a, b = b, a
            parent[b] = a
            mergers.append((a, b, level))
    return mergers
