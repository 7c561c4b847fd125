"""An image as the network sees it: channels, model grid, intensity range; read by region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from domainseg.images.channels import as_channels
from domainseg.images.image import Image, Level
from domainseg.images.levels import level_for, snapped_to_level
from domainseg.images.normalise import Range, apply_range, measure_group_range, measure_range
from domainseg.images.resample import Grid, grid_for, resample_region
from domainseg.recipe import Recipe
from domainseg.recipe_sections import Data
from domainseg.records import Entry, Plane, Sample
from domainseg.sources import Source
from domainseg.tiling.forward import UNIT

RANGE_PX = 1 << 24
"""Of an image with levels the range is measured on the coarsest with at least so many pixels."""


@dataclass(frozen=True, slots=True)
class ModelPlane:
    """An image as the network sees it: channels, model grid, range; float32, read by region.

    Values lie in [0, 1]: augmentation keeps training there, so beyond it the network was
    never asked.

    Attributes:
        plane: the channels, of the level of the image that is read.
        grid: from the image's full resolution to the model grid.
        intensity: what becomes 0 and 1.
        reading: from the level that is read to the model grid.
    """

    plane: Plane
    grid: Grid
    intensity: Range
    reading: Grid

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` on the model grid."""
        return (self.plane.shape[0], *self.grid.model_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always float32."""
        return np.dtype(np.float32)

    @property
    def stored(self) -> Plane | None:
        """The pixels before the range is applied, where the network's device can do that.

        That is so for integers of 8 and 16 bits that are not resampled: a window is then a
        fraction of its size until it is used.
        """
        plain = self.reading.is_identity and self.plane.dtype in (np.uint8, np.uint16)
        return self.plane if plain else None

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.float32]:
        _, rows, columns = key
        y0, y1, _ = rows.indices(self.grid.model_shape[0])
        x0, x1, _ = columns.indices(self.grid.model_shape[1])
        if self.reading.is_identity:
            region = np.asarray(self.plane[:, y0:y1, x0:x1])
        else:
            region = resample_region(self.plane, self.reading, ((y0, x0), (y1, x1)))
        return apply_range(region, self.intensity, clip=UNIT)


def object_diameter(sample: Sample) -> float | None:
    """Return the median diameter of the sample's annotated objects, px, None without any.

    The diameter of an object is that of the circle of its area.
    """
    if sample.truth is None or not len(sample.truth):
        return None
    return float(np.sqrt(4 / np.pi * np.median(sample.truth.areas_px())))


def median_diameter(source: Source, entries: Sequence[Entry]) -> float | None:
    """Return the median diameter of all objects of these entries, px of the images, or None.

    Every sample is read, one at a time; the diameter of an object is that of the circle of
    its area.
    """
    truths = (source.load(entry).truth for entry in entries)
    areas = [truth.areas_px() for truth in truths if truth is not None]
    joined = np.concatenate([np.zeros(0), *areas])
    return float(np.sqrt(4 / np.pi * np.median(joined))) if len(joined) else None


def model_plane(
    recipe: Recipe,
    sample: Sample,
    *,
    diameter_px: float | None,
    intensity: Range | None = None,
    threads: int = 1,
) -> ModelPlane:
    """Return a sample's image as the network sees it.

    ``diameter_px`` is the median diameter of the image's objects, for recipes that work at
    one; ``intensity`` is the range of the image's group, its own when None, measured by so
    many ``threads``.

    Raises:
        InputError: channels that do not fit, or a pixel size or diameter that is needed.
    """
    data = recipe.data
    image = sample.image

    def chosen(level: Plane) -> Plane:
        return as_channels(level, sample.channels, wanted=data.channels, where=sample.id)

    grid, level, reading = _model_grid(data, sample, diameter_px)
    if intensity is None:
        measured = _coarse(image)
        ignore = sample.ignore if measured is image else None
        intensity = measure_range(chosen(measured), data.normalise, ignore=ignore, threads=threads)
    return ModelPlane(chosen(level), grid, intensity, reading)


def model_shape(recipe: Recipe, sample: Sample, *, diameter_px: float | None) -> tuple[int, int]:
    """Return ``(H, W)`` of a sample's image on the model grid; no pixel is read.

    Raises:
        InputError: channels that do not fit, or a pixel size or diameter that is needed.
    """
    data = recipe.data
    as_channels(sample.image, sample.channels, wanted=data.channels, where=sample.id)
    return _model_grid(data, sample, diameter_px)[0].model_shape


def levels_read(recipe: Recipe, sample: Sample, *, diameter_px: float | None) -> tuple[int, ...]:
    """Return the levels of a sample's image that a run reads: the first, and the network's.

    Raises:
        InputError: a pixel size or diameter that is needed.
    """
    _, level, _ = _model_grid(recipe.data, sample, diameter_px)
    return tuple(sorted({0, level.index if isinstance(level, Level) else 0}))


def _model_grid(data: Data, sample: Sample, diameter_px: float | None) -> tuple[Grid, Plane, Grid]:
    """Return the model grid, the level that is read, and the grid from that level on."""
    image = sample.image
    grid = grid_for(
        (image.shape[1], image.shape[2]),
        sample.spacing_um,
        wanted_spacing_um=data.spacing_um,
        object_diameter_px=diameter_px,
        diameter_px=data.diameter_px,
        size_px=data.size_px,
        where=sample.id,
    )
    grid = snapped_to_level(image, grid)
    return (grid, *level_for(image, grid))


def _coarse(image: Plane) -> Plane:
    """Return the coarsest level of an image that has RANGE_PX, the image itself without one."""
    levels = image.levels[1:] if isinstance(image, Image) else ()
    large = [level for level in levels if level.shape[1] * level.shape[2] >= RANGE_PX]
    return large[-1] if large else image


@dataclass(frozen=True, slots=True)
class _Lent:
    """A plane, or the ignore mask of one, that is loaded for each read and let go of."""

    load: Callable[[], Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    path: str

    def __getitem__(self, key: Any) -> Any:
        return self.load()[key]


def group_range(data: Data, load: Callable[[int], Sample], count: int) -> Range:
    """Return the one intensity range of samples ``load(0)`` to ``load(count - 1)``.

    One sample is held at a time, so each is loaded two or three times.

    Raises:
        InputError: an image whose channels do not fit, or no pixel that counts.
    """
    loaded = lru_cache(maxsize=1)(load)

    def plane_of(number: int) -> Plane:
        sample = loaded(number)
        return as_channels(sample.image, sample.channels, wanted=data.channels, where=sample.id)

    def mask_of(number: int) -> NDArray[np.bool_] | None:
        return loaded(number).ignore

    planes: list[Plane] = []
    masks: list[NDArray[np.bool_] | None] = []
    for number in range(count):
        plane, mask, name = plane_of(number), mask_of(number), loaded(number).id
        planes.append(_Lent(partial(plane_of, number), plane.shape, plane.dtype, name))
        if mask is not None:
            # Read like an array, by rows; a group's masks need not fit in memory either.
            lent = _Lent(partial(mask_of, number), mask.shape, mask.dtype, name)
            mask = cast("NDArray[np.bool_]", lent)
        masks.append(mask)
    return measure_group_range(planes, data.normalise, ignores=masks)


def group_ranges(recipe: Recipe, source: Source, entries: Sequence[Entry]) -> dict[str, Range]:
    """Return the range of each group that an entry belongs to, over all images of the group.

    Empty unless ``data.normalise.scope`` is ``group``. Images count whatever their part of
    the split: a plate is as bright in training as in a test.
    """
    if recipe.data.normalise.scope != "group":
        return {}

    def load(members: Sequence[Entry], number: int) -> Sample:
        return source.load(members[number])

    ranges = {}
    for group in sorted({entry.group for entry in entries}):
        members = [entry for entry in source.dataset.entries() if entry.group == group]
        ranges[group] = group_range(recipe.data, partial(load, members), len(members))
    return ranges
