"""Whether a TIFF's directories are all there.

tifffile keeps what it can of a cut file: a stack whose last directories are missing opens
as a shorter stack, which would be a wrong answer without a word. So the chain of
directories is walked first (TIFF 6.0, section 2; BigTIFF: 8-byte counts and offsets).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from domainseg.images.files import damaged, refusing_damage

_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
"""Bytes of one value of each field type; 0 for types that do not exist."""
_FIRST_PRIVATE_TAG = 32768


def check_chain(path: Path) -> None:
    """Refuse a TIFF whose directories, or the values they point to, lie outside the file.

    Private tags may point anywhere: vendors leave them broken in files that are whole.

    Raises:
        InputError: when the file is cut, or is no TIFF.
    """
    size = path.stat().st_size
    with refusing_damage(path, "TIFF"), path.open("rb") as file:
        start = file.read(16)
        order = {b"II": "<", b"MM": ">"}[start[:2]]
        (version,) = struct.unpack(order + "H", start[2:4])
        big = {42: False, 43: True}[version]
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), start, 8 if big else 4)
        seen: set[int] = set()
        while at:
            if at in seen:
                raise damaged(path, "TIFF")
            seen.add(at)
            at = _next_directory(path, file, at, order, big=big, size=size)
        if not seen:
            raise damaged(path, "TIFF")


def _next_directory(
    path: Path, file: BinaryIO, at: int, order: str, *, big: bool, size: int
) -> int:
    """Return the offset of the directory after the one at ``at``, 0 after the last."""
    count_format, entry_format, offset_format = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    file.seek(at)
    head = file.read(struct.calcsize(order + count_format))
    (count,) = struct.unpack(order + count_format, head)
    entry = struct.Struct(order + entry_format)
    offset = struct.Struct(order + offset_format)
    if at + count * entry.size > size:
        raise damaged(path, "TIFF")
    entries = file.read(count * entry.size)
    for tag, kind, values, inline in entry.iter_unpack(entries):
        length = values * (_TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0)
        outside = length > offset.size and offset.unpack(inline)[0] + length > size
        if outside and tag < _FIRST_PRIVATE_TAG:
            raise damaged(path, "TIFF")
    following = file.read(offset.size)
    return int(offset.unpack(following)[0])
