"""Detect JPEG files that are partly overwritten with zeros, yet decode without an error.

Pillow does not pass on the decoder's warnings. A file in which a broken download or disk left zeros
therefore opens as an image that is gray or striped from there on. To recognize such files, a long
run of zero bits is decoded with the file's own Huffman tables (ITU-T T.81, annex C: the first code
of each table is all zeros): if it stands for anything but flat blocks, or for more blocks than the
image has, the file is damaged. A long run of bytes 255 never stands for pixels (annex B: such a
byte begins a marker). Files without a long run of either byte need no further check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Runs of bytes up to this length are accepted; no photograph comes near: two blocks of 63
# coefficients, all of them -1, take less.
RUN = 64
# The same for scans that refine coefficients, which hold raw bits between their codes (libjpeg
# writes at most 1000 of these at a time).
REFINED_RUN = 256
MAX_SCANS = 100  # libjpeg writes 10; a few bytes each make the decoder go over the whole image

_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # neither a stuffed byte nor a restart marker
_ZEROS, _RUN_OF_ZEROS = re.compile(rb"\x00{%d,}" % RUN), bytes(RUN)
_ONES, _RUN_OF_ONES = re.compile(rb"\xff{%d,}" % RUN), b"\xff" * RUN
_SOI, _EOI, _SOS, _DHT, _TEM = 0xD8, 0xD9, 0xDA, 0xC4, 0x01
_COMMENTS = {*range(0xE0, 0xF0), 0xFE}
_FRAMES = {*range(0xC0, 0xD0)} - {_DHT, 0xC8, 0xCC}
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_ANY = 2**62


@dataclass(frozen=True)
class _Frame:
    """A JPEG frame header (SOF): its marker code, and component id -> its number of blocks."""

    code: int
    blocks: dict[int, int]


# (class and place of a Huffman table as DHT has them) -> (bits, symbol) of its code of all zeros
_Tables = dict[int, tuple[int, int]]


def blanked(data: bytes) -> str | None:
    """Return how a JPEG's image data was overwritten, in words, or None where it was not.

    A run of more than `RUN` zero bytes counts as overwritten where zero bits stand for anything but
    flat blocks (in which all coefficients but the first are zero), or for more flat blocks than the
    image has. Shorter runs are accepted, and so is everything that is arithmetically coded.

    Args:
        data: the bytes of a file of any format. Other formats give None, and so do JPEGs whose
            headers make no sense, as the decoder reports those.
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
    """Yield the regions of a file that the image depends on, with what run of zeros each allows.

    These are the data of every scan and, after the first of them, the tables and headers between
    scans, without which the next scan cannot be decoded. Comments are left out.

    Yields:
        The longest run of zero bytes that an intact file may have in the region, and where the
        region starts and ends, all in bytes.
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
    """Return whether a progressive JPEG may have more than `MAX_SCANS` scans to decode."""
    return data.count(b"\xff\xda") > MAX_SCANS


def _first_codes(body: bytes) -> _Tables:
    """Return length in bits and symbol of the all-zeros code of each table in a DHT segment."""
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
    """Return component id -> number of 8 x 8 blocks, from the body of a frame header."""
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    parts = [body[i : i + 3] for i in range(6, 6 + 3 * body[5], 3)]
    sampling = {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
    across, down = (8 * max(s[axis] for s in sampling.values()) for axis in (0, 1))
    units = -(-width // across) * -(-height // down)
    return {name: units * h * v for name, (h, v) in sampling.items()}


def _longest(frame: _Frame, tables: _Tables, body: bytes) -> int:
    """Return the longest run of zero bytes that the data of an intact scan may have.

    Args:
        frame: the frame header that the scan belongs to.
        tables: the Huffman tables defined before the scan.
        body: of the scan's header.
    """
    if frame.code not in (*_SEQUENTIAL, _PROGRESSIVE):
        return _ANY
    pairs = body[1 : 1 + 2 * body[0]]
    first, refines = body[1 + len(pairs)], body[3 + len(pairs)] >> 4
    shortest, bits = REFINED_RUN if refines else RUN, 0
    for component, chosen in zip(pairs[::2], pairs[1::2], strict=True):
        blocks = frame.blocks[component]
        if first == 0 and refines:
            bits += blocks  # one raw bit per block
        elif first == 0:
            bits += blocks * sum(tables[chosen >> 4])  # a code, and as many bits as its symbol says
        if first == 0 and frame.code == _PROGRESSIVE:
            continue
        length, symbol = tables[0x10 | (chosen & 15)]
        run, size = divmod(symbol, 16)
        if size or run > (14 if frame.code == _PROGRESSIVE else 0):
            return shortest  # zero bits would stand for the same coefficients in every block
        bits += -(-blocks // 2**run) * (length + run)  # one code ends 2 ** run blocks
    return max(shortest, bits // 8 + 2)
