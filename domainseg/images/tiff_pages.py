"""Regions of single TIFF pages: only the strips or tiles that a region touches are decoded.

Every read opens the file for itself. A handle that is kept has one position, which threads
and forked loader workers would move under each other.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import tifffile

from domainseg.errors import InputError, sentence
from domainseg.images.files import damaged, refusing_damage
from domainseg.records import Array

Shape5 = tuple[int, int, int, int, int]
"""Separate samples, depth, height, width, contiguous samples: tifffile's normal page shape."""


class Page(Protocol):
    """One stored plane with its samples."""

    def read(self, rows: slice, columns: slice, cache: SegmentCache) -> Array:
        """Return a ``(samples, h, w)`` array in native byte order."""
        ...


class SegmentCache:
    """The strips or tiles decoded last, up to a number of bytes; the newest always stays.

    Neighbouring regions share segments, and a page that is one compressed strip would
    otherwise be decoded again for every region.
    """

    def __init__(self, limit_bytes: int = 1 << 26) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._segments: OrderedDict[tuple[int, int], Array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> Array | None:
        """Return the segment, or None."""
        with self._lock:
            if key in self._segments:
                self._segments.move_to_end(key)
            return self._segments.get(key)

    def put(self, key: tuple[int, int], segment: Array) -> None:
        """Keep the segment, letting the oldest go where the limit is passed."""
        with self._lock:
            if key in self._segments:
                return
            self._segments[key] = segment
            self._bytes += segment.nbytes
            while self._bytes > self._limit and len(self._segments) > 1:
                self._bytes -= self._segments.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Let everything go."""
        with self._lock:
            self._segments.clear()
            self._bytes = 0


@dataclass(frozen=True, slots=True)
class RawPage:
    """A page whose samples lie in the file as they are: mapped for the length of one read."""

    path: Path
    offset: int
    dtype: np.dtype[Any]
    shape: Shape5

    def read(self, rows: slice, columns: slice, cache: SegmentCache) -> Array:
        """Return a ``(samples, h, w)`` array in native byte order."""
        with refusing_damage(self.path, "TIFF"):
            stored = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        region = stored[:, 0, rows, columns, :]
        native = np.array(region, self.dtype.newbyteorder("="), subok=False)
        return _samples_first(native)


@dataclass(frozen=True, slots=True)
class SegmentedPage:
    """A page in strips or tiles, compressed or not.

    Attributes:
        path: the file, of several a multi-file OME-TIFF has.
        offsets, counts: position and length in bytes of every segment; length 0 is empty.
        decode: tifffile's decoder of the page.
        tables: what JPEG segments share: keyword arguments of ``decode``.
        segment: ``(h, w)`` of a strip or tile.
        shape: of the page.
        dtype: native.
        empty: value of segments that are not stored.
    """

    path: Path
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    decode: Callable[..., Any]
    tables: dict[str, bytes | None]
    segment: tuple[int, int]
    shape: Shape5
    dtype: np.dtype[Any]
    empty: float
    key: int = field(default=0)

    def read(self, rows: slice, columns: slice, cache: SegmentCache) -> Array:
        """Return a ``(samples, h, w)`` array in native byte order."""
        separate, _, _, _, contiguous = self.shape
        h, w = rows.stop - rows.start, columns.stop - columns.start
        out = np.full((separate, h, w, contiguous), self.empty, self.dtype)
        with refusing_damage(self.path, "TIFF"), self.path.open("rb") as file:
            for index, sample, y, x in self._touched(rows, columns):
                values = self._segment(index, file, cache)
                if values is None:
                    continue
                top, left = max(y, rows.start), max(x, columns.start)
                part = values[top - y : rows.stop - y, left - x : columns.stop - x]
                top, left = top - rows.start, left - columns.start
                out[sample, top : top + part.shape[0], left : left + part.shape[1]] = part
        return _samples_first(out)

    def _touched(self, rows: slice, columns: slice) -> Iterator[tuple[int, int, int, int]]:
        """Yield index, separate sample, y and x of every segment that meets the region."""
        separate, _, height, width, _ = self.shape
        h, w = self.segment
        down, across = math.ceil(height / h), math.ceil(width / w)
        for sample in range(separate):
            for i in range(rows.start // h, math.ceil(rows.stop / h)):
                for j in range(columns.start // w, math.ceil(columns.stop / w)):
                    yield (sample * down + i) * across + j, sample, i * h, j * w

    def _segment(self, index: int, file: BinaryIO, cache: SegmentCache) -> Array | None:
        """Return one decoded segment ``(h, w, contiguous samples)``, None where it is empty."""
        kept = cache.get((self.key, index))
        if kept is not None:
            return kept
        if index >= len(self.offsets):
            raise damaged(self.path, "TIFF")
        if self.counts[index] == 0 or self.offsets[index] == 0:
            return None
        file.seek(self.offsets[index])
        data = file.read(self.counts[index])
        if len(data) < self.counts[index]:
            raise damaged(self.path, "TIFF")
        values: Array = np.asarray(self.decode(data, index, **self.tables)[0])[0]
        cache.put((self.key, index), values)
        return values


def page_of(path: Path, series: tifffile.TiffPageSeries, plane: int, *, key: int) -> Page:
    """Return the reader of page ``plane`` of ``series``; ``key`` names it in the cache.

    Raises:
        InputError: when the page is missing, or cannot be decoded at all.
    """
    frame = series.keyframe
    shape: Shape5 = frame.shaped
    if series.dataoffset is not None and frame.is_final and not series.is_multifile:
        dtype = np.dtype(series.dtype).newbyteorder(frame.parent.byteorder)
        offset = series.dataoffset + plane * math.prod(shape) * dtype.itemsize
        return RawPage(path, offset, dtype, shape)
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
    tables: dict[str, bytes | None] = {}
    if frame.compression in _JPEG:
        tables = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
    return SegmentedPage(
        path=Path(page.parent.filehandle.path),
        offsets=tuple(page.dataoffsets),
        counts=tuple(page.databytecounts),
        decode=frame.decode,
        tables=tables,
        segment=(
            (frame.tilelength, frame.tilewidth)
            if frame.is_tiled
            else (min(frame.rowsperstrip, frame.imagelength), frame.imagewidth)
        ),
        shape=shape,
        dtype=np.dtype(series.dtype),
        empty=frame.nodata,
        key=key,
    )


_JPEG = (
    tifffile.COMPRESSION.OJPEG,
    tifffile.COMPRESSION.JPEG,
    tifffile.COMPRESSION.JPEG_LOSSY,
    tifffile.COMPRESSION.ALT_JPEG,
)


def _samples_first(block: Array) -> Array:
    """Return ``(separate, h, w, contiguous)`` as ``(samples, h, w)``, one of the first being 1."""
    separate, h, w, contiguous = block.shape
    if contiguous == 1:
        return block.reshape(separate, h, w)
    return np.moveaxis(block, -1, 1).reshape(separate * contiguous, h, w)
