"""JPEG files that decode without an error and are broken all the same: blanks where pixels were.

Pillow does not hand on the decoder's warnings. A file whose download or disk left zeros in the
middle therefore opens as a picture whose rest is gray or striped. It is told from a sound file by
what a long run of zero bits can mean under the file's own Huffman tables (ITU-T T.81, annex C: the
first code of each table is all zeros). A long run of bytes 255 never stands for pixels (annex B:
such a byte begins a marker). Only files that hold such a run at all are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# A run that no photograph comes near: two blocks of 63 coefficients, all of them -1, take less.
RUN = 64
# Scans that refine coefficients hold raw bits between their codes; libjpeg keeps at most 1000.
REFINED_RUN = 256
MAX_SCANS = 100  # libjpeg writes 10; each costs a pass over all blocks, for a few bytes of file

_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # not stuffed, not a restart
_ZEROS, _RUN_OF_ZEROS = re.compile(rb"\x00{%d,}" % RUN), bytes(RUN)
_ONES, _RUN_OF_ONES = re.compile(rb"\xff{%d,}" % RUN), b"\xff" * RUN
_SOI, _EOI, _SOS, _DHT, _TEM = 0xD8, 0xD9, 0xDA, 0xC4, 0x01
_COMMENTS = {*range(0xE0, 0xF0), 0xFE}
_FRAMES = {*range(0xC0, 0xD0)} - {_DHT, 0xC8, 0xCC}
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_ANY = 2**62


@dataclass(frozen=True)
class _Frame:
    """What a frame header tells: its marker, and component id -> its blocks in the image."""

    code: int
    blocks: dict[int, int]


# (class and place of a Huffman table as DHT has them) -> (bits, symbol) of its code of all zeros
_Tables = dict[int, tuple[int, int]]


def blanked(data: bytes) -> str | None:
    """Return in words what stands where a JPEG's picture was, or None.

    Args:
        data: a file, of any kind; other formats, and JPEGs too broken to be followed, give None,
            for the decoder tells those.

    A run of more than `RUN` zero bytes is an error where zero bits mean anything but flat blocks
    (all coefficients but the first are zero), or more flat blocks than the image has. Shorter runs
    are let pass, and so is everything in arithmetic coding.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    if _RUN_OF_ZEROS not in data and _RUN_OF_ONES not in data:
        return None
    try:
        for limit, start, end in _regions(data):
            runs = [len(run[0]) for run in _ZEROS.finditer(data, start, end)]
            if runs and max(runs) > limit:
                return f"{max(runs)} bytes of its picture are 0"
            if ones := _ONES.match(data, end):
                return f"{len(ones[0])} bytes of its picture are 255"
    except (IndexError, KeyError, ValueError, ZeroDivisionError):  # headers that make no sense
        return None
    return None


def _regions(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield what belongs to the picture: the longest sound run of zero bytes, its start, its end.

    That is the data of every scan, and from the first one on what lies between them but for
    comments: tables and headers, whose loss loses the next scan.
    """
    frame, tables, place, begun = _Frame(0, {}), _Tables(), 2, False
    while found := _MARKER.search(data, place):
        code, before, place = found[1][0], place, found.end()
        if code not in (_SOI, _EOI, _TEM):
            place += int.from_bytes(data[place : place + 2], "big")
        body = data[found.end() + 2 : place]
        if begun and code not in _COMMENTS:
            yield RUN, before, place
        if code == _EOI:
            return
        if code == _DHT:
            tables |= _first_codes(body)
        elif code in _FRAMES:
            frame = _Frame(code, _blocks(body))
        elif code == _SOS:
            after, begun = _MARKER.search(data, place), True
            end = after.start() if after else len(data)
            yield _longest(frame, tables, body), place, end
            place = end
    yield RUN, place, len(data)


def many_scans(data: bytes) -> bool:
    """Tell whether a progressive JPEG may cost more passes than `MAX_SCANS` to decode."""
    return data.count(b"\xff\xda") > MAX_SCANS


def _first_codes(body: bytes) -> _Tables:
    """Return the code of all zeros of each table in a DHT segment: its bits and its symbol."""
    tables = _Tables()
    while body:
        counts = body[1:17]
        symbols = body[17 : 17 + sum(counts)]
        if symbols:
            bits = min(length for length, count in enumerate(counts, start=1) if count)
            tables[body[0]] = bits, symbols[0]
        body = body[17 + sum(counts) :]
    return tables


def _blocks(body: bytes) -> dict[int, int]:
    """Return id -> number of 8 x 8 blocks of each component of a frame header."""
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    parts = [body[i : i + 3] for i in range(6, 6 + 3 * body[5], 3)]
    sampling = {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
    across, down = (8 * max(s[axis] for s in sampling.values()) for axis in (0, 1))
    units = -(-width // across) * -(-height // down)
    return {name: units * h * v for name, (h, v) in sampling.items()}


def _longest(frame: _Frame, tables: _Tables, body: bytes) -> int:
    """Return the longest run of zero bytes that the data of a scan, by its header, may have."""
    if frame.code not in (*_SEQUENTIAL, _PROGRESSIVE):
        return _ANY
    pairs = body[1 : 1 + 2 * body[0]]
    first, refines = body[1 + len(pairs)], body[3 + len(pairs)] >> 4
    shortest, bits = REFINED_RUN if refines else RUN, 0
    for component, chosen in zip(pairs[::2], pairs[1::2], strict=True):
        blocks = frame.blocks[component]
        if first == 0 and refines:
            bits += blocks  # one bit each, without a code
        elif first == 0:
            bits += blocks * sum(tables[chosen >> 4])  # a code, and as many bits as it names
        if first == 0 and frame.code == _PROGRESSIVE:
            continue
        length, symbol = tables[0x10 | (chosen & 15)]
        run, size = divmod(symbol, 16)
        if size or run > (14 if frame.code == _PROGRESSIVE else 0):
            return shortest  # zero bits stand for coefficients, alike in every block
        bits += -(-blocks // 2**run) * (length + run)  # the end of 2 ** run blocks
    return max(shortest, bits // 8 + 2)
