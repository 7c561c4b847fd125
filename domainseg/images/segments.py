"""Pieces of an image (strips, tiles, chunks): those decoded last, and regions laid from them."""

from __future__ import annotations

import threading
from collections import OrderedDict

from domainseg.records import Array


class SegmentCache:
    """The strips or tiles decoded last, up to a number of bytes; the newest always stays.

    Neighbouring regions share segments, and a page that is one compressed strip would
    otherwise be decoded again for every region.
    """

    def __init__(self, limit_bytes: int = 1 << 26) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._segments: OrderedDict[tuple[int, ...], Array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, ...]) -> Array | None:
        """Return the segment, or None."""
        with self._lock:
            if key in self._segments:
                self._segments.move_to_end(key)
            return self._segments.get(key)

    def put(self, key: tuple[int, ...], segment: Array) -> None:
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


def copy_overlap(block: Array, at: tuple[int, int], *, out: Array, corner: tuple[int, int]) -> None:
    """Copy into ``out`` what of ``block`` falls into it.

    Both are ``(h, w, ...)``; ``at`` and ``corner`` are the ``(y, x)`` of their first pixels.
    """
    (y, x), (top, left) = at, corner
    first_y, first_x = max(y, top), max(x, left)
    part = block[first_y - y : top + out.shape[0] - y, first_x - x : left + out.shape[1] - x]
    first_y, first_x = first_y - top, first_x - left
    out[first_y : first_y + part.shape[0], first_x : first_x + part.shape[1]] = part
