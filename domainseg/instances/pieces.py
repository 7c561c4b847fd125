"""What is known of objects after some of their pixels were seen, in exact whole numbers.

A tile gives the pieces of the objects it touches, and pieces merge by adding
integers, joining boxes and taking hulls of hulls. So the numbers of an object
are the same however the image was cut and in whatever order the tiles came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.hulls import (
    Hulls,
    hulls_of_runs,
    joined_hulls,
    merge_hulls,
    select_hulls,
)
from domainseg.instances.kernel import kernel
from domainseg.instances.runs import ObjectRuns
from domainseg.records import Array, Plane

AREA, PAIRS_X, PAIRS_Y, PAIRS_DIAGONAL, CLIQUES = range(5)
"""Columns of ``Pieces.counts``."""
SUM_Y, SUM_X, SUM_YY, SUM_XX, SUM_XY = range(5)
"""Columns of ``Pieces.moments``."""
TOTAL, SQUARES = range(2)
"""Last axis of ``Pieces.totals``."""
LONGEST_SIDE = 1 << 20
"""No plane may be longer: a run's sum of squares must stay inside int64."""

_LIMB = 32
_EXACT = 1 << 62
_READ_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Pieces:
    """Mergeable integer sums of N objects.

    ``moments`` and ``totals`` are int64, or Python integers (dtype object) where
    one object is too large for int64; either way they are exact.

    Attributes:
        ids: int64 ``(N,)``, unique.
        boxes: int64 ``(N, 2, 2)`` half-open, px of the whole image.
        counts: int64 ``(N, 5)``: pixels; pairs of neighbours along x, along y, along
            both diagonals; cliques of three neighbours less those of four.
        moments: ``(N, 5)``: sums of y, x, yy, xx, xy, counted from the box's corner.
        hulls: convex hulls of the pixel centres, px of the whole image.
        totals: ``(N, C, 2)``: sums of the intensities and of their squares, in quanta.
        extremes: float64 ``(N, C, 2)``: smallest and largest intensity.
        quanta: float64 ``(C,)``: what the intensities were rounded to (`intensity_quanta`).
    """

    ids: NDArray[np.int64]
    boxes: NDArray[np.int64]
    counts: NDArray[np.int64]
    moments: Array
    hulls: Hulls
    totals: Array
    extremes: NDArray[np.float64]
    quanta: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)


def find_pieces(
    runs: ObjectRuns,
    *,
    core: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
    image: Plane | None = None,
    quanta: NDArray[np.float64] | None = None,
) -> Pieces:
    """Return the pieces of the objects with a pixel or a contact in a tile's core.

    ``runs`` are those of a window that begins at ``origin`` in the image and
    reaches one row and one column beyond the core ``(h, w)``, where the image
    does: a contact belongs to the core that holds the upper left pixel of its box,
    which at the core's last corner need not be a pixel of the object, so that a
    piece may have contacts and no area. ``image`` is the whole image ``(C, H, W)``,
    of which only the core is read; ``quanta`` are those of `intensity_quanta`, the
    same for every tile.
    """
    boxes, counts, limbs = _sum_runs(runs.runs, runs.offsets, core[0], core[1])
    _add_contacts(runs.runs, runs.offsets, core[0], core[1], counts)
    hulls = hulls_of_runs(runs.runs, runs.offsets, shape=core)
    quanta = np.zeros(0) if quanta is None else quanta
    totals, extremes = _intensities(runs, core, origin, image, quanta)
    keep = counts.any(axis=1)
    chains = np.concatenate([[True], np.repeat(keep, 2)])
    corner = np.array(origin, np.int64)
    return Pieces(
        ids=runs.ids[keep],
        boxes=boxes[keep] + corner,
        counts=counts[keep],
        moments=_moments_of_limbs(limbs[keep]),
        hulls=Hulls(hulls.points + corner, hulls.offsets[chains]),
        totals=totals[keep],
        extremes=extremes[keep],
        quanta=quanta,
    )


def merge_pieces(parts: Sequence[Pieces]) -> Pieces:
    """Return the pieces of all parts with those of one id made one, ids ascending.

    At least one part is needed. Merging may be repeated and done in any order.
    """
    if len(parts) == 1:
        return parts[0]
    ids, groups = np.unique(np.concatenate([part.ids for part in parts]), return_inverse=True)
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], np.arange(len(ids)))
    counts, all_boxes, totals = (
        np.concatenate(arrays)[order]
        for arrays in zip(*((p.counts, p.boxes, p.totals) for p in parts), strict=True)
    )
    extremes = np.concatenate([part.extremes for part in parts])[order]
    boxes = _united(all_boxes, first)
    moments = np.concatenate([part.moments for part in parts])[order]
    shifts = all_boxes[:, 0] - boxes[groups[order], 0]
    moments = _shifted(moments, counts[:, AREA], shifts)
    return Pieces(
        ids=ids,
        boxes=boxes,
        counts=_added(counts, first),
        moments=_added(moments, first),
        hulls=merge_hulls(
            joined_hulls([part.hulls for part in parts]),
            np.asarray(groups, np.int64),
            count=len(ids),
        ),
        totals=_added(totals, first),
        extremes=_extremes(extremes, first),
        quanta=parts[0].quanta,
    )


def select_pieces(pieces: Pieces, keep: NDArray[np.bool_]) -> Pieces:
    """Return the pieces of the objects for which ``keep (N,)`` is true."""
    return Pieces(
        ids=pieces.ids[keep],
        boxes=pieces.boxes[keep],
        counts=pieces.counts[keep],
        moments=pieces.moments[keep],
        hulls=select_hulls(pieces.hulls, keep),
        totals=pieces.totals[keep],
        extremes=pieces.extremes[keep],
        quanta=pieces.quanta,
    )


def exact(values: Array, *, bound: float) -> Array:
    """Return ``values`` for arithmetic up to ``bound``: as they are, or as Python integers.

    ``bound`` may be estimated in floats: 2**62 leaves a factor of two to int64.
    """
    return values if bound < _EXACT else values.astype(object)


def _united(boxes: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(first):
        return np.zeros((0, 2, 2), np.int64)
    low = np.minimum.reduceat(boxes[:, 0], first, axis=0)
    high = np.maximum.reduceat(boxes[:, 1], first, axis=0)
    return np.stack([low, high], 1)


def _extremes(extremes: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    if not len(first):
        return extremes
    low = np.minimum.reduceat(extremes[..., 0], first, axis=0)
    high = np.maximum.reduceat(extremes[..., 1], first, axis=0)
    return np.stack([low, high], -1)


def _added(values: Array, first: NDArray[np.int64]) -> Array:
    """Return the sums of consecutive groups that begin at ``first``, exact."""
    if not len(first) or not values.size:
        return values[: len(first)]
    bound = float(np.abs(values).max()) * len(values)
    return np.asarray(np.add.reduceat(exact(values, bound=bound), first, axis=0))


def _shifted(moments: Array, area: NDArray[np.int64], shifts: NDArray[np.int64]) -> Array:
    """Return moments counted from a corner that lies ``shifts (N, 2)`` further up and left."""
    if not len(area):
        return moments
    reach = float(shifts.max()) + LONGEST_SIDE
    bound = 4 * float(area.max()) * reach * reach
    moments = exact(moments, bound=bound)
    n, dy, dx = (exact(v, bound=bound) for v in (area, shifts[:, 0], shifts[:, 1]))
    y, x, yy, xx, xy = moments.T
    columns = (
        y + n * dy,
        x + n * dx,
        yy + 2 * dy * y + n * dy * dy,
        xx + 2 * dx * x + n * dx * dx,
        xy + dy * x + dx * y + n * dy * dx,
    )
    return np.stack(columns, 1)


def _moments_of_limbs(limbs: NDArray[np.int64]) -> Array:
    """Return ``(N, 5)`` moments of limbs ``(N, 5, 2)``, the high one worth 2**32."""
    high = exact(limbs[..., 0], bound=float(limbs[..., 0].max(initial=0)) * 2.0**_LIMB)
    return np.asarray(high * (1 << _LIMB) + limbs[..., 1])


def _intensities(
    runs: ObjectRuns,
    core: tuple[int, int],
    origin: tuple[int, int],
    image: Plane | None,
    quanta: NDArray[np.float64],
) -> tuple[Array, NDArray[np.float64]]:
    """Return totals ``(N, C, 2)`` and extremes ``(N, C, 2)`` of the pixels in the core."""
    totals: Array = np.zeros((len(runs), len(quanta), 2), np.int64)
    extremes = np.zeros((len(runs), len(quanta), 2))
    if image is None or not len(runs):
        return totals, extremes
    for c, pixels in enumerate(_channels(image, core, origin)):
        quantum = quanta[c]
        sums, extremes[:, c] = _sum_intensities(pixels, runs.runs, runs.offsets, 1 / quantum)
        squares = exact(sums[:, 1], bound=float(sums[:, 1].max(initial=0)) * 2.0**_LIMB)
        if squares.dtype == object:
            totals = totals.astype(object)
        totals[:, c, TOTAL] = sums[:, 0]
        totals[:, c, SQUARES] = squares * (1 << _LIMB) + sums[:, 2]
    return totals, extremes


def _channels(image: Plane, core: tuple[int, int], origin: tuple[int, int]) -> Iterator[Array]:
    """Yield the core of each channel; as many are read at once as memory allows.

    The pixels of all channels lie together in many files: to read them one by one
    would decode the file as often.
    """
    rows, columns = (slice(o, o + size) for o, size in zip(origin, core, strict=True))
    together = max(1, _READ_BYTES // max(1, core[0] * core[1] * image.dtype.itemsize))
    for first in range(0, int(image.shape[0]), together):
        yield from np.asarray(image[first : first + together, rows, columns])


@kernel
def _carry(limbs: Any, value: int) -> None:
    """Add a whole number of up to 62 bits, not negative, to ``(high, low)``."""
    limbs[0] += value >> 32
    limbs[1] += value & 0xFFFFFFFF


@kernel
def _boxes_of_runs(runs: Any, offsets: Any, height: int, width: int) -> Any:
    boxes = np.zeros((len(offsets) - 1, 2, 2), np.int64)
    for i in range(len(boxes)):
        y0, x0, y1, x1 = height, width, 0, 0
        for r in range(offsets[i], offsets[i + 1]):
            y, start = runs[r, 0], runs[r, 1]
            if y < height and start < width:
                y0, x0 = min(y0, y), min(x0, start)
                y1, x1 = max(y1, y + 1), max(x1, min(start + runs[r, 2], width))
        boxes[i, 0, 0], boxes[i, 0, 1], boxes[i, 1, 0], boxes[i, 1, 1] = y0, x0, y1, x1
    return boxes


@kernel
def _sum_runs(runs: Any, offsets: Any, height: int, width: int) -> Any:
    """Return boxes, counts (the area filled in) and moments as limbs ``(N, 5, 2)``."""
    boxes = _boxes_of_runs(runs, offsets, height, width)
    counts = np.zeros((len(boxes), 5), np.int64)
    limbs = np.zeros((len(boxes), 5, 2), np.int64)
    for i in range(len(boxes)):
        for r in range(offsets[i], offsets[i + 1]):
            if runs[r, 0] >= height or runs[r, 1] >= width:
                continue
            y = runs[r, 0] - boxes[i, 0, 0]
            x = runs[r, 1] - boxes[i, 0, 1]
            n = min(runs[r, 2], width - runs[r, 1])
            steps = n * (n - 1) // 2
            sum_x = n * x + steps
            counts[i, 0] += n
            _carry(limbs[i, 0], n * y)
            _carry(limbs[i, 1], sum_x)
            _carry(limbs[i, 2], n * y * y)
            _carry(limbs[i, 3], n * x * x + 2 * x * steps + steps * (2 * n - 1) // 3)
            _carry(limbs[i, 4], y * sum_x)
    return boxes, counts, limbs


@kernel
def _common(a0: int, a1: int, b0: int, b1: int, width: int) -> int:
    """Return how many columns of ``[0, width)`` two half-open intervals share."""
    return max(0, min(a1, b1, width) - max(a0, b0, 0))


@kernel
def _add_contact(counts: Any, a0: int, a1: int, b0: int, b1: int, width: int) -> None:
    """Count the contacts of a run with one below it by the column of their left corner."""
    counts[2] += _common(a0, a1, b0, b1, width)
    counts[3] += _common(a0, a1, b0 - 1, b1 - 1, width)
    counts[3] += _common(a0 - 1, a1 - 1, b0, b1, width)
    # A pair of neighbours inside the run a begins in [a0, a1 - 1).
    counts[4] += _common(a0, a1 - 1, b0, b1, width) + _common(a0, a1 - 1, b0 - 1, b1 - 1, width)
    counts[4] += _common(a0, a1, b0, b1 - 1, width) + _common(a0 - 1, a1 - 1, b0, b1 - 1, width)
    counts[4] -= _common(a0, a1 - 1, b0, b1 - 1, width)


@kernel
def _add_contacts(runs: Any, offsets: Any, height: int, width: int, counts: Any) -> None:
    """Fill in the pairs and cliques whose upper left corner lies in the core."""
    for i in range(len(offsets) - 1):
        below = offsets[i]
        for r in range(offsets[i], offsets[i + 1]):
            y, a0, a1 = runs[r, 0], runs[r, 1], runs[r, 1] + runs[r, 2]
            if y >= height:
                break
            counts[i, 1] += _common(a0, a1 - 1, a0, a1 - 1, width)
            while below < offsets[i + 1] and (
                runs[below, 0] <= y
                or (runs[below, 0] == y + 1 and runs[below, 1] + runs[below, 2] < a0)
            ):
                below += 1
            b = below
            while b < offsets[i + 1] and runs[b, 0] == y + 1 and runs[b, 1] <= a1:
                b0, b1 = runs[b, 1], runs[b, 1] + runs[b, 2]
                _add_contact(counts[i], a0, a1, b0, b1, width)
                b += 1


@kernel
def _sum_intensities(pixels: Any, runs: Any, offsets: Any, inverse: float) -> Any:
    """Return ``(N, 3)`` sum, high and low limb of the squares, and ``(N, 2)`` extremes."""
    height, width = pixels.shape
    sums = np.zeros((len(offsets) - 1, 3), np.int64)
    extremes = np.zeros((len(offsets) - 1, 2))
    for i in range(len(offsets) - 1):
        low, high = np.inf, -np.inf
        for r in range(offsets[i], offsets[i + 1]):
            y, start = runs[r, 0], runs[r, 1]
            if y >= height:
                break
            for x in range(start, min(start + runs[r, 2], width)):
                value = float(pixels[y, x])
                quanta = int(np.rint(value * inverse))
                sums[i, 0] += quanta
                _carry(sums[i, 1:], quanta * quanta)
                low, high = min(low, value), max(high, value)
        extremes[i, 0], extremes[i, 1] = low, high
    return sums, extremes
