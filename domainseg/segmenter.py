"""A trained network with all it takes to turn an image into objects."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.allocator import keep_freed_memory
from domainseg.errors import ModelFileError, RecipeError, sentence
from domainseg.images.channels import DIE_MAP
from domainseg.images.normalise import Range
from domainseg.images.regions import Inspected, edge_boxes
from domainseg.images.resample import Grid, labels_to_source
from domainseg.instances.basins import Decoded, DecodeOptions, decode
from domainseg.model_plane import model_plane
from domainseg.models.model_file import ModelCard, read_model
from domainseg.recipe import Recipe, recipe_from_json, require_classes, with_overrides
from domainseg.recipe_sections import DEFAULT_THRESHOLD
from domainseg.records import Instances, Maps, Sample
from domainseg.tiling.forward import MapMaker, Precision, forward_maps
from domainseg.tiling.grid import Lattice, tiles


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
        return Instances.joined(layers)


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
    areas, scores, least = rules.min_area_px, rules.min_score, rules.threshold
    if isinstance(least, dict):
        require_classes("instances.threshold", least, classes)
    if isinstance(areas, dict):
        require_classes("instances.min_area_px", areas, classes)
    if isinstance(scores, dict):
        require_classes("instances.min_score", scores, classes)
    return DecodeOptions(
        threshold=(
            tuple(least.get(name, DEFAULT_THRESHOLD) for name in classes)
            if isinstance(least, dict)
            else least
        ),
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
        link_px=recipe.links(classes),
    )


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
    if (area := within_edges(recipe, sample)) is not None:
        maps = maps.within(area.on_grid(plane.grid, ((0, 0), plane.grid.model_shape)))
    return Mapped(maps, plane.grid, plane.intensity, tuple(warnings))


def within_edges(recipe: Recipe, sample: Sample) -> Inspected | None:
    """Return an image less the edges that the recipe leaves out, None for all of it."""
    _, height, width = sample.image.shape
    edges = recipe.image.ignore_edges_px
    area = Inspected((height, width), left_out=edge_boxes((height, width), edges, where=sample.id))
    return None if area.is_everything else area


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
