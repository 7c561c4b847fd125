"""A trained network with all it takes to turn an image into objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.allocator import keep_freed_memory
from domainseg.errors import ModelFileError, RecipeError, sentence
from domainseg.images.channels import DIE_MAP, as_channels
from domainseg.images.image import Image, Level
from domainseg.images.levels import level_for, snapped_to_level
from domainseg.images.normalise import Range, apply_range, measure_group_range, measure_range
from domainseg.images.resample import Grid, grid_for, labels_to_source, resample_region
from domainseg.instances.basins import Decoded, DecodeOptions, decode
from domainseg.models.model_file import ModelCard, read_model
from domainseg.recipe import Data, Recipe, recipe_from_json, require_classes, with_overrides
from domainseg.records import Entry, Instances, Maps, Plane, Sample
from domainseg.sources import Source
from domainseg.tiling.forward import UNIT, MapMaker, Precision, forward_maps
from domainseg.tiling.grid import Lattice, tiles

RANGE_PX = 1 << 24
"""Of an image with levels the range is measured on the coarsest with at least so many pixels."""


@dataclass(frozen=True, slots=True)
class Segmenter:
    """A network, its recipe, and the lattice it is run on.

    Attributes:
        recipe: the resolved recipe.
        classes: class names.
        make_maps: network and head on a device.
        lattice: how images are cut.
        diameter_px: median object diameter in training, px of the images.
        whole_window_layers: layers of the network that make its maps depend on the tiling.
    """

    recipe: Recipe
    classes: tuple[str, ...]
    make_maps: MapMaker
    lattice: Lattice
    diameter_px: float | None
    whole_window_layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Objects of one image, in the image's own pixels.

    Attributes:
        labels: int32 ``(L, H, W)``, 0 background, numbered over all layers; a number is
            missing where an object of the model grid fell between the image's pixels.
        foreground: uint8 ``(L, H, W)``, quantum of the foreground of the nearest pixel of
            the model grid.
        decoded: class, score and layer of each label (row i is label i + 1), with areas and
            boxes on the model grid.
        grid: the model grid.
        intensity: range that was mapped to [0, 1].
        warnings: what was assumed, one sentence each.
        seconds: wall-clock time it took.
    """

    labels: NDArray[np.int32]
    foreground: NDArray[np.uint8]
    decoded: Decoded
    grid: Grid
    intensity: Range
    warnings: tuple[str, ...]
    seconds: float

    def instances(self) -> Instances:
        """Return the objects of all layers with class and score; those of two may overlap."""
        classes = dict(enumerate(self.decoded.classes.tolist(), start=1))
        scores = dict(enumerate(self.decoded.scores.tolist(), start=1))
        layers = [
            Instances.from_label_map(layer, classes=classes, scores=scores) for layer in self.labels
        ]
        lengths = np.concatenate([np.diff(layer.offsets) for layer in layers])
        return Instances(
            ids=np.concatenate([layer.ids for layer in layers]),
            boxes=np.concatenate([layer.boxes for layer in layers]),
            runs=np.concatenate([layer.runs for layer in layers]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            classes=np.concatenate([layer.classes for layer in layers]),
            scores=np.concatenate([layer.scores for layer in layers]),
            shape=layers[0].shape,
        )


def choose_device(wanted: str) -> torch.device:
    """Return the device named, or for ``auto`` a GPU where there is one.

    Raises:
        RecipeError: the device named is not there.
    """
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    if not there[wanted]:
        raise RecipeError(
            sentence(
                "train.device",
                found=f"'{wanted}', which is not here",
                wanted="auto or cpu",
                fix="change it",
            )
        )
    return torch.device(wanted)


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """Return ``bf16`` or ``fp32``; for ``auto`` bf16 where the processor computes in it."""
    if wanted == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return "bf16"
        return "fp32"
    return "bf16" if wanted == "bf16" else "fp32"


def map_maker(
    network: nn.Module,
    recipe: Recipe,
    classes: Sequence[str],
    *,
    device: torch.device,
    precision: Precision,
) -> MapMaker:
    """Return network and head of a recipe as one maker of maps; the network is set to eval."""
    head, count = recipe.head, len(classes)

    def encode(scores: Tensor) -> Any:
        return head.maps(scores, classes=count)

    if device.type == "cpu":
        keep_freed_memory()
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    support = DIE_MAP.index("die") if recipe.data.channels == "die_map" else None
    return MapMaker(network, encode, head.layers(count), device, precision, support=support)


def open_segmenter(
    path: Path, *, overrides: Sequence[str] = (), device: str = "auto", precision: str = "auto"
) -> tuple[Segmenter, ModelCard]:
    """Return the segmenter of a model file, its recipe changed by ``overrides``.

    Raises:
        ModelFileError: the file is truncated, foreign, or its weights do not fit its recipe.
        RecipeError: an override does not fit, or the device is not there.
    """
    card, weights = read_model(path)
    recipe = recipe_from_json(card.recipe, where=str(path))
    recipe = with_overrides(recipe, overrides) if overrides else recipe
    # The file holds every weight: none is fetched to be overwritten.
    architecture = recipe.model.without_weights()
    network = architecture.build(recipe.data.channel_count, recipe.head.outputs(len(card.classes)))
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelFileError(
            sentence(
                path,
                found="weights of another shape",
                wanted=f"those of {recipe.model.name} with encoder {recipe.model.encoder}",
                fix="drop the override of the model, or train the recipe again",
            )
        ) from error
    place = choose_device(device)
    made = map_maker(
        network, recipe, card.classes, device=place, precision=choose_precision(precision, place)
    )
    tiling = recipe.tiling
    made = replace(made, symmetries=tiling.symmetries)
    halo = card.halo_px if tiling.halo_px == "measured" else tiling.halo_px
    lattice = Lattice(tiling.core_px, halo, card.stride_px, tiling.batch)
    segmenter = Segmenter(
        recipe, card.classes, made, lattice, card.diameter_px, card.whole_window_layers
    )
    return segmenter, card


def decode_options(recipe: Recipe, classes: Sequence[str]) -> DecodeOptions:
    """Return the decoder's options of a recipe.

    Raises:
        RecipeError: an option names a class that is not one of ``classes``.
    """
    rules = recipe.instances
    areas, scores = rules.min_area_px, rules.min_score
    if isinstance(areas, dict):
        require_classes("instances.min_area_px", areas, classes)
    if isinstance(scores, dict):
        require_classes("instances.min_score", scores, classes)
    return DecodeOptions(
        threshold=rules.threshold,
        split=recipe.splits(classes),
        prominence=rules.prominence,
        merge_classes=rules.merge_classes,
        min_area_px=(
            tuple(areas.get(name, 0) for name in classes) if isinstance(areas, dict) else areas
        ),
        max_area_px=rules.max_area_px,
        min_score=(
            tuple(scores.get(name, 0.0) for name in classes) if isinstance(scores, dict) else scores
        ),
        fill_holes=rules.fill_holes,
    )


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


def segment(
    segmenter: Segmenter,
    sample: Sample,
    *,
    diameter_px: float | None = None,
    intensity: Range | None = None,
) -> Segmentation:
    """Return the objects of a sample's image, in its own pixels.

    ``diameter_px`` is the median diameter of the objects in the image, needed when the
    recipe works at a diameter; where it is None the training's diameter is assumed, and
    the segmentation says so. ``intensity`` is the range of the image's group, its own when
    None.

    Raises:
        InputError: the image does not fit the recipe.
    """
    begun = time.monotonic()
    mapped = mapped_by(segmenter, sample, diameter_px=diameter_px, intensity=intensity)
    made = segmentation_of(mapped, decode_options(segmenter.recipe, segmenter.classes))
    return replace(made, seconds=time.monotonic() - begun)


@dataclass(frozen=True, slots=True)
class Mapped:
    """What the network sees in one image, before it is decoded.

    Attributes:
        maps: on the model grid.
        grid: the model grid.
        intensity: range that was mapped to [0, 1].
        warnings: what was assumed, one sentence each.
    """

    maps: Maps
    grid: Grid
    intensity: Range
    warnings: tuple[str, ...]


def mapped_by(
    segmenter: Segmenter,
    sample: Sample,
    *,
    diameter_px: float | None = None,
    intensity: Range | None = None,
) -> Mapped:
    """Return the maps of a sample's image; the arguments are those of `segment`.

    Raises:
        InputError: the image does not fit the recipe.
    """
    recipe = segmenter.recipe
    warnings = []
    if recipe.data.diameter_px is not None and diameter_px is None:
        warnings.append(diameter_assumed(segmenter))
    diameter_px = segmenter.diameter_px if diameter_px is None else diameter_px
    plane = model_plane(recipe, sample, diameter_px=diameter_px, intensity=intensity)
    blind = segmenter.whole_window_layers
    if blind and len(tiles(plane.grid.model_shape, segmenter.lattice)) > 1:
        warnings.append(tiling_shows(blind))
    maps = forward_maps(segmenter.make_maps, plane, segmenter.lattice)
    return Mapped(maps, plane.grid, plane.intensity, tuple(warnings))


def segmentation_of(mapped: Mapped, options: DecodeOptions) -> Segmentation:
    """Return the objects of an image's maps, in the image's own pixels."""
    begun = time.monotonic()
    decoded = decode(mapped.maps, options)
    labels, foreground = (
        np.stack([labels_to_source(layer, mapped.grid) for layer in layers])
        for layers in (decoded.labels, mapped.maps.foreground)
    )
    return Segmentation(
        labels,
        foreground,
        decoded,
        mapped.grid,
        mapped.intensity,
        mapped.warnings,
        time.monotonic() - begun,
    )


def diameter_assumed(segmenter: Segmenter) -> str:
    """Return what is said where a model works at a diameter and none was given."""
    assumed = f"{segmenter.diameter_px:.3g} px assumed, that of the training images"
    return f"object diameter not given: {assumed}"


def tiling_shows(layers: Sequence[str]) -> str:
    """Return what is said of a network with layers that see whole windows."""
    return (
        f"the tiling shows in the maps: {len(layers)} layers of the network, "
        f"{layers[0]} the first, see whole windows"
    )
