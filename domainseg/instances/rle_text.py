"""COCO's compressed run-length encoding of objects, straight from their runs along rows.

COCO counts down the columns. A run down a column begins at every pixel without one
of the object above it and ends at every pixel without one below it; both come from
comparing each row of runs with its neighbour. So the cost follows the runs of the
object along both axes, never its pixels, its box or the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from domainseg.instances.kernel import kernel

_LONGEST_COUNT = 7
"""Characters of a difference of two counts below 2**32: 34 bits, five to a character."""


@kernel
def rle_texts(runs: Any, offsets: Any, height: int, width: int) -> Any:
    """Return the compressed counts of each object as ASCII, and where each begins.

    ``runs`` and ``offsets`` are those of `ObjectRuns` in an image of ``(height, width)``;
    the text is uint8, its offsets int64 ``(N + 1,)``.
    """
    text = np.empty(16 * len(runs) + 16, np.uint8)
    ends = np.zeros(len(offsets), np.int64)
    at = 0
    for i in range(len(offsets) - 1):
        starts, stops = _column_runs(runs[offsets[i] : offsets[i + 1]], height)
        text = _with_room(text, at, _LONGEST_COUNT * (2 * len(starts) + 1))
        at = _write_counts(text, at, starts, stops, height * width)
        ends[i + 1] = at
    return text[:at].copy(), ends


@kernel
def _column_runs(runs: Any, height: int) -> Any:
    """Return first and one past the last index of the runs down the columns, column-major."""
    if len(runs) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    tops, bottoms = _uncovered(runs, -1), _uncovered(runs, 1)
    left, right = runs[0, 1], runs[0, 1] + runs[0, 2]
    for r in range(len(runs)):
        left, right = min(left, runs[r, 1]), max(right, runs[r, 1] + runs[r, 2])
    first = np.zeros(right - left + 1, np.int64)
    for s in range(len(tops)):
        first[tops[s, 1] - left] += 1
        first[tops[s, 2] - left] -= 1
    # Twice summed: how many runs begin in each column, then in all columns before it.
    begun, before = 0, 0
    for x in range(len(first)):
        begun, first[x] = begun + first[x], before
        before += begun
    return (
        _in_columns(tops, first, left, height, 0),
        _in_columns(bottoms, first, left, height, 1),
    )


@kernel
def _uncovered(runs: Any, step: int) -> Any:
    """Return rows ``(row, start, stop)`` of the pixels without one of the object ``step`` rows on.

    In raster order. Each run of either row ends or begins at most one stretch, so there
    are at most twice as many stretches as runs.
    """
    stretches = np.empty((2 * len(runs), 3), np.int64)
    count, other = 0, 0
    for r in range(len(runs)):
        y, x, stop = runs[r, 0], runs[r, 1], runs[r, 1] + runs[r, 2]
        while other < len(runs) and (
            runs[other, 0] < y + step
            or (runs[other, 0] == y + step and runs[other, 1] + runs[other, 2] <= x)
        ):
            other += 1
        cover = other
        while cover < len(runs) and runs[cover, 0] == y + step and runs[cover, 1] < stop:
            if runs[cover, 1] > x:
                stretches[count, 0], stretches[count, 1], stretches[count, 2] = y, x, runs[cover, 1]
                count += 1
            x = runs[cover, 1] + runs[cover, 2]
            cover += 1
        if x < stop:
            stretches[count, 0], stretches[count, 1], stretches[count, 2] = y, x, stop
            count += 1
    return stretches[:count]


@kernel
def _in_columns(stretches: Any, first: Any, left: int, height: int, shift: int) -> Any:
    """Return the column-major index of every pixel of the stretches, ``shift`` rows below it.

    A counting sort by column, in which the rows keep their order.
    """
    following = first.copy()
    indices = np.empty(first[-1], np.int64)
    for s in range(len(stretches)):
        for x in range(stretches[s, 1], stretches[s, 2]):
            indices[following[x - left]] = x * height + stretches[s, 0] + shift
            following[x - left] += 1
    return indices


@kernel
def _write_counts(text: Any, at: int, starts: Any, stops: Any, total: int) -> int:
    """Write outside, inside, outside, ... from ``at``; no empty count at the end."""
    written = np.zeros(3, np.int64)
    reached, k = 0, 0
    while k < len(starts):
        start, stop = starts[k], stops[k]
        k += 1
        # What ends at the bottom of a column goes on at the top of the next.
        while k < len(starts) and starts[k] == stop:
            stop = stops[k]
            k += 1
        at = _write_count(text, at, start - reached, written)
        at = _write_count(text, at, stop - start, written)
        reached = stop
    if reached < total or not len(starts):
        at = _write_count(text, at, total - reached, written)
    return at


@kernel
def _write_count(text: Any, at: int, count: int, written: Any) -> int:
    """Write a count as pycocotools does (maskApi.c, rleToString); return the end of the text.

    Little-endian groups of five bits with a sixth for "goes on", in two's complement;
    from the fourth on, the difference from the count two before. ``written`` holds how
    many counts there are, the last, and the one before it.
    """
    value = count - (written[2] if written[0] > 2 else 0)
    written[0] += 1
    written[2] = written[1]
    written[1] = count
    more = True
    while more:
        group = value & 31
        value >>= 5
        more = value != -1 if group & 16 else value != 0
        text[at] = 48 + group + (32 if more else 0)
        at += 1
    return at


@kernel
def _with_room(text: Any, at: int, room: int) -> Any:
    """Return the text, moved into twice the space where ``room`` more would not fit."""
    if at + room <= len(text):
        return text
    larger = np.empty(max(2 * len(text), at + room), np.uint8)
    larger[:at] = text[:at]
    return larger
