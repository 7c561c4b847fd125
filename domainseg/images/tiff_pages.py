"""Regions of single TIFF pages: only the strips or tiles that a region touches are decoded.

A strip or tile that lies outside the file, does not decode, or has another size than it
should is damage: of itself, not of the page.

Every read opens the file for itself. A handle that is kept has one position, which threads
and forked loader workers would move under each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import tifffile

from domainseg.errors import InputError, sentence
from domainseg.images.damage_log import LevelDamage
from domainseg.images.files import DAMAGE, reading
from domainseg.images.segments import SegmentCache, copy_overlap
from domainseg.images.tiff_codecs import Decode, Verify, check_codec, decoder_of, verifier_of
from domainseg.records import Array

Shape5 = tuple[int, int, int, int, int]
"""Separate samples, depth, height, width, contiguous samples: tifffile's normal page shape."""
WHOLE = "a complete TIFF file"
"""What is wanted where a part is damaged."""


class Page(Protocol):
    """One stored plane with its samples."""

    @property
    def segment(self) -> tuple[int, int]:
        """``(h, w)`` of what is decoded at once."""
        ...

    def read(
        self, rows: slice, columns: slice, *, cache: SegmentCache, damage: LevelDamage
    ) -> Array:
        """Return a ``(samples, h, w)`` array in native byte order."""
        ...


@dataclass(frozen=True, slots=True)
class RawPage:
    """A page whose samples lie in the file as they are: mapped for the length of one read.

    Attributes:
        path: the file.
        offset: of the first sample, in bytes.
        dtype: as stored.
        shape: of the page.
        fill: stored value of what is cut off.
    """

    path: Path
    offset: int
    dtype: np.dtype[Any]
    shape: Shape5
    fill: int

    @property
    def segment(self) -> tuple[int, int]:
        """One row: nothing is decoded."""
        return (1, self.shape[3])

    def read(
        self, rows: slice, columns: slice, *, cache: SegmentCache, damage: LevelDamage
    ) -> Array:
        """Return a ``(samples, h, w)`` array in native byte order."""
        separate, _, height, width, contiguous = self.shape
        row_bytes = width * contiguous * self.dtype.itemsize
        h, w = rows.stop - rows.start, columns.stop - columns.start
        out = np.full((separate, h, w, contiguous), self.fill, self.dtype.newbyteorder("="))
        with reading(self.path) as size:
            for sample in range(separate):
                start = self.offset + sample * height * row_bytes
                there = min(max(0, (size - start) // row_bytes), height)
                if there < rows.stop:
                    box = ((there, 0), (height, width))
                    damage.meet("a truncated strip", box, path=self.path, wanted=WHOLE)
                count = min(rows.stop, there) - rows.start
                if count > 0:
                    first, part = start + rows.start * row_bytes, (count, width, contiguous)
                    stored = np.memmap(self.path, self.dtype, "r", first, part)
                    out[sample, :count] = stored[:, columns]
        return _samples_first(out)


@dataclass(frozen=True, slots=True)
class SegmentedPage:
    """A page in strips or tiles, compressed or not.

    Attributes:
        path: the file, of several a multi-file OME-TIFF has.
        offsets, counts: position and length in bytes of every segment; length 0 is empty.
        decode: of the segments.
        verify: whether a segment is whole, without decoding it, or None.
        tiled: whether they are tiles, else strips.
        segment: ``(h, w)`` of a strip or tile.
        shape: of the page.
        dtype: native.
        empty: value of segments that are not stored.
        fill: value of segments that are damaged.
        key: names the page in the cache.
    """

    path: Path
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    decode: Decode
    verify: Verify | None
    tiled: bool
    segment: tuple[int, int]
    shape: Shape5
    dtype: np.dtype[Any]
    empty: float
    fill: int
    key: int

    def read(
        self, rows: slice, columns: slice, *, cache: SegmentCache, damage: LevelDamage
    ) -> Array:
        """Return a ``(samples, h, w)`` array in native byte order."""
        separate, _, _, _, contiguous = self.shape
        h, w = rows.stop - rows.start, columns.stop - columns.start
        out = np.full((separate, h, w, contiguous), self.empty, self.dtype)
        with reading(self.path) as size, self.path.open("rb") as file:
            for index, sample, y, x in self._touched(rows, columns):
                values = cache.get((self.key, index))
                if values is None:
                    data = self._stored(index, file, size)
                    if data == b"":
                        continue
                    values = self._decoded(data, index, (y, x), damage)
                    cache.put((self.key, index), values)
                corner = (rows.start, columns.start)
                copy_overlap(values, (y, x), out=out[sample], corner=corner)
        return _samples_first(out)

    def _is_whole(self, data: bytes) -> bool:
        try:
            if self.verify is not None:
                self.verify(data)
        except DAMAGE:
            return False
        return True

    def _touched(self, rows: slice, columns: slice) -> Iterator[tuple[int, int, int, int]]:
        """Yield index, separate sample, y and x of every segment that meets the region."""
        separate, _, height, width, _ = self.shape
        h, w = self.segment
        down, across = math.ceil(height / h), math.ceil(width / w)
        for sample in range(separate):
            for i in range(rows.start // h, math.ceil(rows.stop / h)):
                for j in range(columns.start // w, math.ceil(columns.stop / w)):
                    yield (sample * down + i) * across + j, sample, i * h, j * w

    def _stored(self, index: int, file: BinaryIO, size: int) -> bytes | None:
        """Return the bytes of a segment, none where it is empty, None where they are missing."""
        if index >= min(len(self.offsets), len(self.counts)):
            return None
        offset, count = self.offsets[index], self.counts[index]
        if count == 0 or offset == 0:
            return b""
        if offset + count > size:
            return None
        file.seek(offset)
        return file.read(count)

    def _decoded(
        self, data: bytes | None, index: int, origin: tuple[int, int], damage: LevelDamage
    ) -> Array:
        """Return the segment at ``origin``, at least as large as its part of the image."""
        (y, x), (_, _, height, width, contiguous) = origin, self.shape
        h, w = min(self.segment[0], height - y), min(self.segment[1], width - x)
        cause: BaseException | None = None
        if data is not None:
            try:
                values = self.decode(data, index)
            except DAMAGE as error:
                cause = error
            else:
                if values.shape[0] >= h and values.shape[1] >= w:
                    return values
        problem = f"a truncated or corrupt {'tile' if self.tiled else 'strip'}"
        box = ((y, x), (y + h, x + w))
        damage.meet(problem, box, path=self.path, wanted=WHOLE, cause=cause)
        return np.full((h, w, contiguous), self.fill, self.dtype)


def page_of(
    path: Path, series: tifffile.TiffPageSeries, plane: int, *, key: int, fill: int
) -> Page:
    """Return the reader of page ``plane`` of ``series``; ``key`` names it in the cache.

    ``fill`` is what is put, as a stored value, where a part is damaged.

    Raises:
        InputError: when the page is missing, or cannot be decoded at all.
    """
    frame = series.keyframe
    check_codec(path, frame)
    shape: Shape5 = frame.shaped
    if series.dataoffset is not None and frame.is_final and not series.is_multifile:
        dtype = np.dtype(series.dtype).newbyteorder(frame.parent.byteorder)
        offset = series.dataoffset + plane * math.prod(shape) * dtype.itemsize
        return RawPage(path, offset, dtype, shape, fill)
    page = series[plane]
    if page is None:
        raise InputError(
            sentence(
                path,
                found=f"no pixels for plane {plane}",
                wanted="a page for every plane, in this file or one it names",
                fix="put the other files of the set beside it",
            )
        )
    return SegmentedPage(
        path=Path(page.parent.filehandle.path),
        offsets=tuple(page.dataoffsets),
        counts=tuple(page.databytecounts),
        decode=decoder_of(page, frame),
        verify=verifier_of(page, frame),
        tiled=frame.is_tiled,
        segment=(
            (frame.tilelength, frame.tilewidth)
            if frame.is_tiled
            else (min(frame.rowsperstrip, frame.imagelength), frame.imagewidth)
        ),
        shape=shape,
        dtype=np.dtype(series.dtype),
        empty=frame.nodata,
        fill=fill,
        key=key,
    )


def _samples_first(block: Array) -> Array:
    """Return ``(separate, h, w, contiguous)`` as ``(samples, h, w)``, one of the first being 1."""
    separate, h, w, contiguous = block.shape
    if contiguous == 1:
        return block.reshape(separate, h, w)
    return np.moveaxis(block, -1, 1).reshape(separate * contiguous, h, w)
