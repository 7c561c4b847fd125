"""The model grid: one resampling by global coordinates, in training and in prediction.

Coordinates run over the whole image: source pixel i covers [i, i + 1), model pixel j covers
[j, j + 1) / scale of the source. What a model pixel gets depends on its global index alone,
so a region resampled by itself equals that part of the whole image bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, UsageError, sentence
from domainseg.records import Array, Plane, Spacing

Region = tuple[tuple[int, int], tuple[int, int]]
"""``((y0, x0), (y1, x1))`` half-open."""

SAME_SCALE = 0.01
"""Scales this near to 1 are 1: pixel sizes in files are not known better, and resampling
by half a percent blurs every pixel to change nothing that a network can see."""
SCALE_LIMITS = (1 / 64, 16.0)
"""Scales outside are taken for a mistake of units, not for a wish."""
BAND_PX = 1 << 24
"""Source pixels of one channel read at a time."""
_OF_IMAGE = {
    "data.spacing_um": "the image's pixel size (--spacing-um)",
    "data.diameter_px": "the objects' diameter (--diameter-px)",
    "data.size_px": "the size of the image",
}
"""What of an image leads to its scale, by what is asked for in the recipe."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The model grid of one image.

    Attributes:
        scale_yx: model pixels per source pixel.
        model_shape: ``(H, W)`` on the model grid: every source pixel's centre is inside.
        source_shape: ``(H, W)`` of the image.
    """

    scale_yx: tuple[float, float]
    model_shape: tuple[int, int]
    source_shape: tuple[int, int]

    @property
    def is_identity(self) -> bool:
        """Whether model and source pixels are the same."""
        return self.scale_yx == (1.0, 1.0)


def grid_for(
    shape: tuple[int, int],
    spacing_um: Spacing | None,
    *,
    wanted_spacing_um: float | Spacing | None = None,
    diameter_px: float | None = None,
    object_diameter_px: float | None = None,
    size_px: int | None = None,
    where: object = "image",
) -> Grid:
    """Return the model grid of an image ``shape`` (H, W) with pixels of ``spacing_um``.

    With ``wanted_spacing_um`` a model pixel is that long in each direction, whatever the
    source's pixels are (they may be oblong). With ``diameter_px`` objects of
    ``object_diameter_px`` source pixels become ``diameter_px`` model pixels. With ``size_px``
    both sides of the image become that long, whatever they are. With none of them the
    grids are the same. Scales within SAME_SCALE of 1 are 1, but for ``size_px``.

    Raises:
        UsageError: when two ways are asked for, or a length is not positive.
        InputError: when the pixel size or the objects' diameter is needed and unknown, or the
            scale lies outside SCALE_LIMITS; ``where`` is what the sentence names.
    """
    asked = {
        "data.spacing_um": wanted_spacing_um,
        "data.diameter_px": diameter_px,
        "data.size_px": size_px,
    }
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise UsageError(
            sentence(
                where,
                found=f"both {given[0]} and {given[1]}",
                wanted="one way to choose the model grid",
                fix="remove one of them",
            )
        )
    scale = (1.0, 1.0)
    if size_px is not None:
        scale = (size_px / shape[0], size_px / shape[1])
    elif wanted_spacing_um is not None:
        scale = _scale_by_spacing(spacing_um, wanted_spacing_um, where)
    elif diameter_px is not None:
        scale = _scale_by_diameter(diameter_px, object_diameter_px, where)
    near = 0.0 if size_px is not None else SAME_SCALE
    sy, sx = (1.0 if abs(s - 1.0) <= near else float(s) for s in scale)
    low, high = SCALE_LIMITS
    if not (low <= min(sy, sx) and max(sy, sx) <= high):
        raise InputError(
            sentence(
                where,
                found=f"a scale of {sy:.4g} x {sx:.4g} to the model grid",
                wanted=f"between {low:.4g} and {high:.4g}",
                fix=f"check {_OF_IMAGE[given[0]]} and {given[0]} in the recipe",
            )
        )
    if size_px is not None:
        return Grid((sy, sx), (size_px, size_px), shape)
    return Grid((sy, sx), (_model_length(shape[0], sy), _model_length(shape[1], sx)), shape)


def resample_region(plane: Plane, grid: Grid, region: Region | None = None) -> NDArray[np.float32]:
    """Return ``region`` of the model grid (all by default), float32 ``(C, h, w)``.

    Linear interpolation, its triangle widened to 1 / scale source pixels where the image
    shrinks (no aliasing), cut and renormalised at the image's border; sums in float64.
    Scale 1 gives the source's values (exact up to 2**24). Only the source rows and columns
    under the region are read, BAND_PX at a time.

    Raises:
        ValueError: when the region is not inside the model grid or the plane is not the
            grid's source.
    """
    (y0, x0), (y1, x1) = region or ((0, 0), grid.model_shape)
    if not (0 <= y0 <= y1 <= grid.model_shape[0] and 0 <= x0 <= x1 <= grid.model_shape[1]):
        raise ValueError(f"region {region} is outside the model grid {grid.model_shape}")
    if tuple(plane.shape[1:]) != tuple(grid.source_shape):
        raise ValueError(f"plane {plane.shape} is not the source {grid.source_shape} of the grid")
    if grid.is_identity or y0 == y1 or x0 == x1:
        out = np.empty((plane.shape[0], y1 - y0, x1 - x0), np.float32)
        if out.size:
            out[...] = plane[:, y0:y1, x0:x1]
        return out
    rows = _taps(np.arange(y0, y1), grid.scale_yx[0], grid.source_shape[0])
    columns = _taps(np.arange(x0, x1), grid.scale_yx[1], grid.source_shape[1])
    return _resample_bands(plane, rows, columns)


def resample_labels(labels: Array, grid: Grid) -> Array:
    """Return ``(H, W)`` labels on the model grid: each model pixel's centre picks its label."""
    return _pick(labels, grid.source_shape, grid.model_shape, inverse_of(grid.scale_yx))


def labels_to_source(labels: Array, grid: Grid) -> Array:
    """Return model-grid labels in source pixels: each source pixel's centre picks its label.

    Undoes ``resample_labels`` exactly where the scale is 1 or more.
    """
    return _pick(labels, grid.model_shape, grid.source_shape, grid.scale_yx)


def inverse_of(scale_yx: tuple[float, float]) -> tuple[float, float]:
    """Return source pixels per model pixel."""
    return (1.0 / scale_yx[0], 1.0 / scale_yx[1])


@dataclass(frozen=True, slots=True)
class _Taps:
    """For each output index the first source index and the weights from there on."""

    first: NDArray[np.int64]
    weights: NDArray[np.float64]

    @property
    def source(self) -> slice:
        """The source indices that any weight touches."""
        return slice(int(self.first[0]), int(self.first[-1]) + self.weights.shape[1])


def _taps(indices: NDArray[np.int64], scale: float, length: int) -> _Taps:
    """Return the triangle's weights at global model ``indices`` over a source of ``length``."""
    radius = max(1.0, 1.0 / scale)
    centre = (indices + 0.5) / scale
    count = min(math.ceil(2 * radius) + 1, length)
    first = np.clip(np.floor(centre - radius - 0.5).astype(np.int64) + 1, 0, length - count)
    distance = np.abs(first[:, None] + np.arange(count) + 0.5 - centre[:, None])
    weights = np.maximum(0.0, 1.0 - distance / radius)
    return _Taps(first, weights / weights.sum(axis=1, keepdims=True))


def _resample_bands(plane: Plane, rows: _Taps, columns: _Taps) -> NDArray[np.float32]:
    out = np.empty((plane.shape[0], len(rows.first), len(columns.first)), np.float32)
    width = columns.source.stop - columns.source.start
    source_rows = rows.source.stop - rows.source.start
    per_row = max(1.0, source_rows / len(rows.first)) * width
    step = max(1, int(BAND_PX / per_row))
    for start in range(0, len(rows.first), step):
        band = slice(start, start + step)
        part = _Taps(rows.first[band], rows.weights[band])
        source = np.ascontiguousarray(plane[:, part.source, columns.source], np.float32)
        for channel, pixels in enumerate(source):
            across = np.empty((len(pixels), len(columns.first)), np.float32)
            _weigh_columns(pixels, columns.first - columns.source.start, columns.weights, across)
            _weigh_rows(across, part.first - part.source.start, part.weights, out[channel, band])
    return out


# Sums run in one fixed order in float64, without fastmath: the compiler may not reorder
# them, so that a pixel's value cannot depend on the region it was computed in.
@numba.njit(nogil=True, cache=True)
def _weigh_columns(
    pixels: NDArray[np.float32],
    first: NDArray[np.int64],
    weights: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            total = 0.0
            for k in range(weights.shape[1]):
                total += weights[x, k] * pixels[y, first[x] + k]
            out[y, x] = total


@numba.njit(nogil=True, cache=True)
def _weigh_rows(
    pixels: NDArray[np.float32],
    first: NDArray[np.int64],
    weights: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    total = np.empty(out.shape[1], np.float64)
    for y in range(out.shape[0]):
        total[:] = 0.0
        for k in range(weights.shape[1]):
            weight = weights[y, k]
            for x in range(out.shape[1]):
                total[x] += weight * pixels[first[y] + k, x]
        for x in range(out.shape[1]):
            out[y, x] = total[x]


def _pick(
    labels: Array,
    from_shape: tuple[int, int],
    to_shape: tuple[int, int],
    step_yx: tuple[float, float],
) -> Array:
    """Return ``labels`` at the centres of another grid, ``step_yx`` of its pixels a pixel."""
    if tuple(labels.shape) != tuple(from_shape):
        raise ValueError(f"labels {labels.shape} do not fit the grid {from_shape}")
    index = []
    for length, source, step in zip(to_shape, from_shape, step_yx, strict=True):
        centres = np.floor((np.arange(length) + 0.5) * step).astype(np.int64)
        index.append(np.minimum(centres, source - 1))
    return np.asarray(labels[np.ix_(*index)])


def _model_length(length: int, scale: float) -> int:
    # A product such as 0.7 * 10 may come out a hair above its integer; a pixel more for
    # that would hold nothing of the image.
    return max(1, math.ceil(length * scale - 1e-6))


def _scale_by_spacing(
    spacing_um: Spacing | None, wanted_um: float | Spacing, where: object
) -> tuple[float, float]:
    wanted = wanted_um if isinstance(wanted_um, tuple) else (wanted_um, wanted_um)
    _check_lengths(where, "data.spacing_um", wanted)
    if spacing_um is None:
        raise InputError(
            sentence(
                where,
                found="no pixel size in the file",
                wanted=f"one, to resample to data.spacing_um: {wanted_um}",
                fix="give it with --spacing-um, or choose data.diameter_px or neither",
            )
        )
    _check_lengths(where, "pixel size", spacing_um)
    return (spacing_um[0] / wanted[0], spacing_um[1] / wanted[1])


def _scale_by_diameter(
    diameter_px: float, object_diameter_px: float | None, where: object
) -> tuple[float, float]:
    _check_lengths(where, "data.diameter_px", (diameter_px,))
    if object_diameter_px is None:
        raise InputError(
            sentence(
                where,
                found="no diameter of the image's objects",
                wanted=f"one, to scale them to data.diameter_px: {diameter_px}",
                fix="give it with --diameter-px",
            )
        )
    _check_lengths(where, "object diameter", (object_diameter_px,))
    scale = diameter_px / object_diameter_px
    return (scale, scale)


def _check_lengths(where: object, name: str, lengths: tuple[float, ...]) -> None:
    if not all(math.isfinite(length) and length > 0 for length in lengths):
        raise UsageError(
            sentence(
                where,
                found=f"{name} {' x '.join(str(length) for length in lengths)}",
                wanted="a length above 0",
                fix="correct it",
            )
        )
