"""Whether the compressed data of a JPEG is whole.

libjpeg fills what it cannot decode with grey and says so in a warning that nobody reads, so a
cut or overwritten tile of a slide would become a grey field. Here the Huffman codes of a
baseline scan are walked without computing a pixel: each block must be made of codes that
exist and hold 64 coefficients, and the scan must end where its last block ends (ITU-T T.81,
sections B and F). That takes about as long as decoding, and finds nearly all tiles in which 60
bytes or more were overwritten; codes that fall into step again soon enough hide a smaller hole.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

_SOF_HUFFMAN = (0xC0, 0xC1)
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DHT, _SOI, _EOI, _SOS, _DRI = 0xC4, 0xD8, 0xD9, 0xDA, 0xDD
_ALONE = (0x01, *range(0xD0, 0xD9))
"""Markers without a length."""
_END = b"\xff\xd9"

Codes = NDArray[np.uint16]
"""What each of the 65,536 next 16 bits begin with: length << 8 | symbol, 0 for no code."""


@dataclass(slots=True)
class _Headers:
    """What the segments before a scan say."""

    tables: dict[int, bytes] = field(default_factory=dict)
    interval: int = 0
    size: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    huffman: bool = False


def check_jpeg(data: bytes, tables: bytes | None = None) -> None:
    """Refuse a JPEG stream whose data is cut or does not decode.

    Baseline and extended Huffman scans are walked to their end; of progressive, lossless and
    arithmetic ones, and of those with a scan for each component, only the end marker is
    looked for. ``tables`` is the stream that holds the tables where ``data`` has none.

    Raises:
        ValueError, LookupError, struct.error: when it is not whole.
    """
    headers = _Headers()
    if tables:
        _read_headers(tables, headers)
    scan = _read_headers(data, headers)
    if scan is None:
        raise ValueError("a JPEG stream without a scan")
    at, components = scan
    walkable = headers.huffman and all(headers.size)
    if not walkable or set(components) != set(headers.sampling):
        if data.find(_END, at) < 0:
            raise ValueError("a JPEG stream without its end")
        return
    _check_scan(np.frombuffer(data, np.uint8), at, headers, components)


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield marker, position behind it, and body of every segment up to the first scan."""
    at = 2
    if data[:2] != bytes((0xFF, _SOI)):
        raise ValueError("no JPEG stream")
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError("bytes between the segments of a JPEG stream")
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
        elif kind == _EOI:
            return
        elif kind in _ALONE:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            at += 2 + length
            yield kind, at, data[at - length + 2 : at]
            if kind == _SOS:
                return


def _read_headers(data: bytes, headers: _Headers) -> tuple[int, dict[int, tuple[int, int]]] | None:
    """Fill ``headers``; return where the first scan starts and its components' tables."""
    for kind, behind, body in _segments(data):
        if kind == _DHT:
            headers.tables.update(_definitions(body))
        elif kind == _DRI:
            (headers.interval,) = struct.unpack_from(">H", body)
        elif kind in _SOF:
            headers.huffman = kind in _SOF_HUFFMAN
            height, width = struct.unpack_from(">HH", body, 1)
            headers.size = (height, width)
            parts = [body[6 + 3 * i : 9 + 3 * i] for i in range(body[5])]
            headers.sampling = {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
        elif kind == _SOS:
            parts = [body[1 + 2 * i : 3 + 2 * i] for i in range(body[0])]
            return behind, {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
    return None


def _definitions(body: bytes) -> Mapping[int, bytes]:
    """Return the Huffman tables of a DHT segment by class << 4 | number: counts and symbols."""
    found = {}
    at = 0
    while at + 17 <= len(body):
        end = at + 17 + sum(body[at + 1 : at + 17])
        found[body[at]] = body[at + 1 : end]
        at = end
    return found


@lru_cache(maxsize=16)
def _stacked(definitions: tuple[bytes, ...]) -> Codes:
    """Return the look-up tables ``(n, 65536)`` of a scan; the tiles of a slide share them."""
    return np.stack([_codes(definition) for definition in definitions])


def _codes(definition: bytes) -> Codes:
    """Return the look-up table of a Huffman table."""
    counts, symbols = definition[:16], definition[16:]
    if len(symbols) != sum(counts):
        raise ValueError("a cut Huffman table")
    lengths = [length for length, count in enumerate(counts, start=1) for _ in range(count)]
    out = np.zeros(1 << 16, np.uint16)
    at = 0
    for length, symbol in zip(lengths, symbols, strict=True):
        out[at : at + (1 << (16 - length))] = length << 8 | symbol
        at += 1 << (16 - length)
    if at > 1 << 16:
        raise ValueError("a Huffman table with too many codes")
    return out


def _check_scan(
    data: NDArray[np.uint8], at: int, headers: _Headers, components: Mapping[int, tuple[int, int]]
) -> None:
    """Walk the scan that starts at byte ``at``."""
    if len(components) == 1:
        blocks, step = [next(iter(components))], (8, 8)
    else:
        sampling = {name: headers.sampling[name] for name in components}
        blocks = [name for name, (across, down) in sampling.items() for _ in range(across * down)]
        step = (8 * max(v for _, v in sampling.values()), 8 * max(h for h, _ in sampling.values()))
    units = math.prod(math.ceil(n / s) for n, s in zip(headers.size, step, strict=True))
    names = list(dict.fromkeys(key for dc, ac in components.values() for key in (dc, 16 | ac)))
    if not set(names) <= set(headers.tables):
        raise ValueError("a JPEG scan without its Huffman tables")
    codes = _stacked(tuple(headers.tables[name] for name in names))
    dc = np.array([names.index(components[name][0]) for name in blocks])
    ac = np.array([names.index(16 | components[name][1]) for name in blocks])
    if not _walk(data, at, codes, dc, ac, units, headers.interval):
        raise ValueError("JPEG data that does not decode to its end")


@numba.njit(nogil=True, cache=True)
def _behind(data: NDArray[np.uint8], at: int, kind: int) -> int:
    """Return the position behind the marker ``kind`` at ``at``, fill bytes before it; or -1."""
    while at + 1 < len(data) and data[at] == 0xFF and data[at + 1] == 0xFF:
        at += 1
    found = at + 1 < len(data) and data[at] == 0xFF and data[at + 1] == kind
    return at + 2 if found else -1


@numba.njit(nogil=True, cache=True)
def _filled(
    data: NDArray[np.uint8], at: int, window: np.uint64, held: int
) -> tuple[int, np.uint64, int]:
    """Return position, window and bits held after taking bytes up to the next marker.

    The window holds the next ``held`` bits at its low end; the byte 0 behind 0xFF is stuffing.
    """
    while held <= 48 and at < len(data):
        byte = data[at]
        if byte == 0xFF:
            if at + 1 >= len(data) or data[at + 1] != 0:
                break
            at += 1
        at += 1
        window = (window << np.uint64(8)) | np.uint64(byte)
        held += 8
    return at, window, held


@numba.njit(nogil=True, cache=True)
def _behind_block(
    data: NDArray[np.uint8], at: int, window: np.uint64, held: int, dc: Codes, ac: Codes
) -> tuple[int, np.uint64, int]:
    """Return position, window and bits held behind one block; fewer than 0 bits for no block."""
    k = 0
    while k < 64:
        at, window, held = _filled(data, at, window, held)
        peek = window >> np.uint64(held - 16) if held >= 16 else window << np.uint64(16 - held)
        code = (dc if k == 0 else ac)[np.int64(peek & np.uint64(0xFFFF))]
        symbol = int(code & 0xFF)
        extra = symbol & 15
        held -= int(code >> 8) + extra
        if code == 0 or held < 0 or (k == 0 and symbol > 15):
            return at, window, -1
        if k > 0 and extra == 0 and symbol != 0xF0:
            break
        k += 1 if k == 0 else (symbol >> 4) + 1
    return at, window, held if k <= 64 else -1


@numba.njit(nogil=True, cache=True)
def _walk(
    data: NDArray[np.uint8],
    at: int,
    codes: NDArray[np.uint16],
    dc: NDArray[np.int64],
    ac: NDArray[np.int64],
    units: int,
    interval: int,
) -> bool:
    """Tell whether ``units`` groups of blocks fill the scan; ``dc`` and ``ac`` name tables."""
    window = np.uint64(0)
    held = 0
    for unit in range(units):
        if interval > 0 and unit > 0 and unit % interval == 0:
            at = _behind(data, at, 0xD0 + (unit // interval - 1) % 8)
            if held >= 8 or at < 0:
                return False
            held = 0
        for block in range(len(dc)):
            at, window, held = _behind_block(
                data, at, window, held, codes[dc[block]], codes[ac[block]]
            )
            if held < 0:
                return False
    return held < 8 and (at >= len(data) or _behind(data, at, 0xD9) > 0)
