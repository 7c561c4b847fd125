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


def spread_windows(
    shape: Sequence[int], *, most: int, side: int, within: Box | None = None
) -> Iterator[Window]:
    """Yield rows and columns of at most so many windows, evenly spread over ``(H, W)``.

    They are ``side`` px wide, each amid its share of the image, or of the box ``within`` it,
    and all of the image where it is small; ``most`` is a square.
    """
    spans = []
    for axis, size in enumerate(shape):
        low, high = (0, size) if within is None else (within[0][axis], within[1][axis])
        count = min(math.isqrt(most), -(-(high - low) // side))
        middles = [low + (high - low) * (2 * i + 1) // (2 * count) for i in range(count)]
        starts = [min(max(0, middle - side // 2), max(0, size - side)) for middle in middles]
        spans.append([slice(at, min(size, at + side)) for at in starts])
    yield from product(*spans)


def inspected_windows(
    grid: Grid, area: Inspected | None, *, most: int, side: int
) -> tuple[Window, ...]:
    """Return at most so many windows of a model grid, in whose middle the image is inspected.

    Of many candidates evenly chosen ones are taken; those of the whole image where ``area`` is
    None, or where nothing is inspected in the middle of any.
    """
    plain = tuple(spread_windows(grid.model_shape, most=most, side=side))
    if area is None:
        return plain
    found = [
        window
        for window in spread_windows(
            grid.model_shape, most=FINER * most, side=side, within=_on_grid(area.extent, grid)
        )
        if _is_inspected(window, grid, area)
    ]
    count = min(len(found), most)
    return tuple(found[i * len(found) // count] for i in range(count)) or plain


def _on_grid(box: Box, grid: Grid) -> Box:
    """Return the box of a model grid around one of the image."""
    y, x = grid.scale_yx
    (y0, x0), (y1, x1) = box
    height, width = grid.model_shape
    return (
        (min(math.floor(y0 * y), height - 1), min(math.floor(x0 * x), width - 1)),
        (min(math.ceil(y1 * y), height), min(math.ceil(x1 * x), width)),
    )


def _is_inspected(window: Window, grid: Grid, area: Inspected) -> bool:
    y, x = ((span.start + span.stop) // 2 for span in window)
    return bool(area.on_grid(grid, ((y, x), (y + 1, x + 1))).all())
