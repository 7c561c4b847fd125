"""Windows spread over an image, or over what of it is inspected."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

from domainseg.images.regions import Box, Inspected
from domainseg.images.resample import Grid

Window = tuple[slice, slice]
"""Rows and columns."""
FINER = 16
"""Times as many windows are candidates where only a part of the image is inspected."""


def spread_windows(shape: Sequence[int], *, most: int, side: int) -> Iterator[Window]:
    """Yield rows and columns of at most so many windows, evenly spread over ``(H, W)``.

    They are ``side`` px wide, each amid its share of the image, and all of the image where it is
    small; ``most`` is a square.
    """
    height, width = shape
    for _, window in _spread((height, width), ((0, 0), (height, width)), most=most, side=side):
        yield window


def inspected_windows(
    grid: Grid, area: Inspected | None, *, most: int, side: int
) -> tuple[Window, ...]:
    """Return at most so many windows of a model grid, each around a place that is inspected.

    Evenly chosen ones of many candidates, in the box around what is inspected; where none of these
    is, of those in the box of each polygon, and at last windows of the whole box.
    """
    if area is None:
        return tuple(spread_windows(grid.model_shape, most=most, side=side))
    shape, around = grid.model_shape, _on_grid(area.extent, grid)
    found = _inspected(grid, area, [around], most=FINER * most, side=side)
    if not found:
        boxes = [_on_grid(box, grid) for box in area.extents(most)]
        found = _inspected(grid, area, boxes, most=FINER * most, side=side)
    if not found:
        found = [window for _, window in _spread(shape, around, most=most, side=side)]
    count = min(len(found), most)
    return tuple(found[i * len(found) // count] for i in range(count))


def _spread(
    shape: tuple[int, int], within: Box, *, most: int, side: int
) -> Iterator[tuple[tuple[int, int], Window]]:
    """Yield places evenly spread over a box of ``(H, W)``, and the window around each."""
    spans = []
    for axis, size in enumerate(shape):
        low, high = within[0][axis], within[1][axis]
        count = min(math.isqrt(most), -(-(high - low) // side))
        middles = [low + (high - low) * (2 * i + 1) // (2 * count) for i in range(count)]
        starts = [min(max(0, middle - side // 2), max(0, size - side)) for middle in middles]
        spans.append(
            [
                (middle, slice(at, min(size, at + side)))
                for middle, at in zip(middles, starts, strict=True)
            ]
        )
    for (y, rows), (x, columns) in product(*spans):
        yield (y, x), (rows, columns)


def _inspected(
    grid: Grid, area: Inspected, boxes: Sequence[Box], *, most: int, side: int
) -> list[Window]:
    """Return the windows around those of the places in boxes that are inspected, each once."""
    found: dict[tuple[int, int], Window] = {}
    for box in boxes:
        for (y, x), window in _spread(grid.model_shape, box, most=most, side=side):
            if area.on_grid(grid, ((y, x), (y + 1, x + 1))).all():
                found[window[0].start, window[1].start] = window
    return list(found.values())


def _on_grid(box: Box, grid: Grid) -> Box:
    """Return the box of a model grid around one of the image."""
    y, x = grid.scale_yx
    (y0, x0), (y1, x1) = box
    height, width = grid.model_shape
    return (
        (min(math.floor(y0 * y), height - 1), min(math.floor(x0 * x), width - 1)),
        (min(math.ceil(y1 * y), height), min(math.ceil(x1 * x), width)),
    )
