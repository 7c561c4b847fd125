"""Which resolution level serves: for a model grid, and for a picture of the whole image.

Pixel j of a level covers [j, j + 1) * downsample of the full resolution, the downsample being
the ratio of the two sizes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from domainseg.images.channels import ChannelView
from domainseg.images.image import Image, Key, Level, region_of
from domainseg.images.resample import SAME_SCALE, Grid
from domainseg.images.sweep import segment_of
from domainseg.records import Array, Plane

BAND_PX = 1 << 23
"""Pixels of one channel read at a time for an overview, one row of segments at least."""


@dataclass(frozen=True, slots=True)
class FittedPlane:
    """A plane cut, or its last row and column repeated, to a height and width.

    Attributes:
        plane: where pixels come from.
        size: ``(H, W)``.
    """

    plane: Plane
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        return (int(self.plane.shape[0]), *self.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source dtype."""
        return self.plane.dtype

    def __getitem__(self, key: Key, /) -> Array:
        (channels, rows, columns), dropped = region_of(key, self.shape)
        reads = [
            slice(min(part.start, length - 1), max(min(part.stop, length), 1))
            for part, length in zip((rows, columns), self.plane.shape[1:], strict=True)
        ]
        block = np.asarray(self.plane[channels, reads[0], reads[1]])
        for axis, (part, read) in enumerate(zip((rows, columns), reads, strict=True), start=1):
            wanted = np.arange(part.start, part.stop) - read.start
            block = block.take(np.minimum(wanted, block.shape[axis] - 1), axis=axis)
        return block.squeeze(axis=dropped) if dropped else block


def level_for(image: Plane, grid: Grid) -> tuple[Plane, Grid]:
    """Return the level of ``image`` to resample to ``grid`` from, and the grid of that level.

    It is the coarsest level that is still as fine as the model grid (its downsample at most
    1 / scale, within SAME_SCALE or a pixel of its size), so that reading costs as little as it
    can and nothing is enlarged. ``resample_region(plane, grid, region)`` with what comes back
    covers the same ground as with what went in: the model grid is the same, its source is the
    level.

    Where the level's size is the model grid's, give or take the pixel by which pyramids round,
    its pixels are the model's, untouched. Without levels (numpy), or when the model grid does
    not shrink the image, both come back as they are.

    Args:
        image: an image, a view of its channels, or any other plane.
        grid: the model grid of the full resolution.

    Raises:
        ValueError: when ``grid`` is of an image of another size.
    """
    if tuple(image.shape[1:]) != tuple(grid.source_shape):
        raise ValueError(f"plane {image.shape} is not the source {grid.source_shape} of the grid")
    serving = [level for level in _levels(image) if _serves(level, grid)]
    best = max(serving, key=lambda level: level.downsample, default=None)
    if max(grid.scale_yx) >= 1.0 or best is None or best.index == 0:
        return image, grid
    plane, size = _with_level(image, best), (best.shape[1], best.shape[2])
    if not _is_at(best, grid):
        scale = _times(grid.scale_yx, best.downsample)
        return plane, Grid(scale, grid.model_shape, size)
    if grid.model_shape != size:
        plane = FittedPlane(plane, grid.model_shape)
    return plane, Grid((1.0, 1.0), grid.model_shape, grid.model_shape)


def snapped_to_level(image: Plane, grid: Grid) -> Grid:
    """Return ``grid`` with the scale of the level of ``image`` that is within SAME_SCALE of it.

    The model grid then has that level's pixels, which ``level_for`` gives untouched: pixel
    sizes in files are not known better, and resampling by half a percent blurs every pixel.
    Without such a level the grid comes back as it is.
    """
    for level in _levels(image)[1:]:
        near = all(abs(s - 1.0) <= SAME_SCALE for s in _times(grid.scale_yx, level.downsample))
        if near or _is_at(level, grid):
            size = (level.shape[1], level.shape[2])
            exact = [n / full for n, full in zip(size, grid.source_shape, strict=True)]
            return Grid((exact[0], exact[1]), size, grid.source_shape)
    return grid


def overview(image: Plane, *, longest_px: int) -> tuple[Array, tuple[float, float]]:
    """Return a picture ``(C, h, w)`` of the whole image and its downsample ``(y, x)``.

    The longer side has ``longest_px`` pixels, or the image's own where it is smaller. Each
    pixel is the mean of the ground it covers, by area, in float64, rounded to the source
    dtype where that is integer. Read by bands from the coarsest level that has as many
    pixels, so memory is a band and the picture.
    """
    height, width = int(image.shape[1]), int(image.shape[2])
    shrink = min(1.0, longest_px / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    return shrunk(image, size), (height / size[0], width / size[1])


def shrunk(image: Plane, size: tuple[int, int]) -> Array:
    """Return a picture ``(C, *size)`` of the whole image, which is no smaller, as `overview`."""
    source = image
    for level in _levels(image):
        if level.shape[1] >= size[0] and level.shape[2] >= size[1]:
            source = _with_level(image, level)
    return _averaged(source, size)


def _levels(image: Plane) -> Sequence[Level]:
    """Return the levels of an image or of the image behind a view; none of other planes."""
    while isinstance(image, ChannelView):
        image = image.plane
    return image.levels if isinstance(image, Image) else ()


def _with_level(image: Plane, level: Level) -> Plane:
    """Return ``level`` with the channels that ``image``, a view perhaps, has."""
    if isinstance(image, ChannelView):
        return dataclasses.replace(image, plane=_with_level(image.plane, level))
    return level


def _times(scale: tuple[float, float], downsample: tuple[float, float]) -> tuple[float, float]:
    return (scale[0] * downsample[0], scale[1] * downsample[1])


def _lengths(level: Level, grid: Grid) -> list[tuple[int, float]]:
    """Return for each axis the pixels of the level and those of the model grid, unrounded."""
    wanted = _times(grid.scale_yx, (grid.source_shape[0], grid.source_shape[1]))
    return list(zip(level.shape[1:], wanted, strict=True))


def _serves(level: Level, grid: Grid) -> bool:
    """Tell whether the level is as fine as the model grid, within SAME_SCALE or one pixel.

    Sizes of levels are whole numbers, so a small level's downsample is not known better.
    """
    return all(wanted <= n + max(1.0, SAME_SCALE * n) for n, wanted in _lengths(level, grid))


def _is_at(level: Level, grid: Grid) -> bool:
    """Tell whether the level's pixels are the model grid's, give or take the last."""
    return all(abs(n - wanted) <= 1.0 for n, wanted in _lengths(level, grid))


def _averaged(plane: Plane, size: tuple[int, int]) -> Array:
    """Return ``plane`` area-averaged to ``size``, which is no larger."""
    channels, height, width = (int(n) for n in plane.shape)
    columns = _shares(width, size[1])
    first, share = _shares(height, size[0])
    sums = np.zeros((channels, *size), np.float64)
    for top, bottom in _bands(plane):
        band = np.asarray(plane[:, top:bottom])
        for channel in range(channels):
            _add_rows(band[channel], first[top:bottom], share[top:bottom], *columns, sums[channel])
    sums *= math.prod(size) / (height * width)
    if np.dtype(plane.dtype).kind != "f":
        np.rint(sums, out=sums)
    return sums.astype(plane.dtype)


def _bands(plane: Plane) -> list[tuple[int, int]]:
    """Return bands of rows, of whole segments where the plane has any."""
    channels, height, width = (int(n) for n in plane.shape)
    rows = segment_of(plane)[0]
    step = rows * max(1, BAND_PX // (channels * width * rows))
    return [(top, min(top + step, height)) for top in range(0, height, step)]


def _shares(length: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return for each of ``length`` pixels the first of ``target`` it overlaps, and how much.

    A pixel overlaps two at most; what the first does not take is the next one's.
    """
    at = np.arange(length)
    first = at * target // length
    # In integers: the border (first + 1) * length / target must not come out a hair off.
    share = np.minimum(((first + 1) * length - at * target) / target, 1.0)
    return first.astype(np.int64), share


@numba.njit(nogil=True, cache=True)
def _add_rows(
    pixels: NDArray[Any],
    first_row: NDArray[np.int64],
    row_share: NDArray[np.float64],
    first_column: NDArray[np.int64],
    column_share: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    """Add ``pixels`` ``(h, w)``, weighed by the area each shares with them, to ``sums``."""
    line = np.empty(sums.shape[1] + 1, np.float64)
    for y in range(pixels.shape[0]):
        line[:] = 0.0
        for x in range(pixels.shape[1]):
            value = np.float64(pixels[y, x])
            line[first_column[x]] += column_share[x] * value
            line[first_column[x] + 1] += (1.0 - column_share[x]) * value
        row, share = first_row[y], row_share[y]
        for x in range(sums.shape[1]):
            sums[row, x] += share * line[x]
            if share < 1.0:
                sums[row + 1, x] += (1.0 - share) * line[x]
