"""A trained network with all it takes to turn an image into objects."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.allocator import keep_freed_memory
from domainseg.errors import ModelFileError, RecipeError, UsageError, sentence
from domainseg.gathering import Gathered, gather, object_rules
from domainseg.images.channels import DIE_MAP
from domainseg.images.normalise import Range
from domainseg.images.regions import Inspected, edge_boxes
from domainseg.images.resample import Grid, labels_to_source
from domainseg.instances.basins import Decoded, DecodeOptions, decode
from domainseg.instances.panoptic_quality import Panoptic
from domainseg.instances.shared_pixels import areas_of
from domainseg.model_plane import ModelPlane, model_plane
from domainseg.models.folding import fold_batch_norms
from domainseg.models.heads.detection import DetectionHead
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.models.mask_rcnn import MaskRCNNNetwork
from domainseg.models.model_file import ModelCard, read_model
from domainseg.panoptic import merged
from domainseg.recipe import Recipe, recipe_from_json, require_classes, with_overrides
from domainseg.recipe_sections import DEFAULT_THRESHOLD
from domainseg.records import Instances, Maps, Sample, quantise_logit
from domainseg.tiling.detecting import Detector, detect_windows
from domainseg.tiling.forward import MapMaker, Precision, forward_maps
from domainseg.tiling.grid import Lattice, tiles


@dataclass(frozen=True, slots=True)
class Segmenter:
    """A network, its recipe, and the lattice it is run on.

    Attributes:
        recipe: the resolved recipe.
        classes: class names.
        engine: network and head on a device: what makes maps, or what finds objects.
        lattice: how images are cut.
        diameter_px: median object diameter in training, px of the images.
        whole_window_layers: layers of the network that make its maps depend on the tiling.
    """

    recipe: Recipe
    classes: tuple[str, ...]
    engine: MapMaker | Detector
    lattice: Lattice
    diameter_px: float | None
    whole_window_layers: tuple[str, ...] = ()

    @property
    def make_maps(self) -> MapMaker:
        """What makes maps.

        Raises:
            UsageError: of a model that finds objects one by one and draws no maps.
        """
        if isinstance(self.engine, Detector):
            raise UsageError(
                sentence(
                    f"model.name {self.recipe.model.name}",
                    found="a model that finds objects one by one",
                    wanted="one that draws maps, which is what this command looks at",
                    fix="train a unet, fpn or fcn",
                )
            )
        return self.engine

    @property
    def detector(self) -> Detector | None:
        """What finds objects, None of a model that draws maps."""
        return self.engine if isinstance(self.engine, Detector) else None


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
        panoptic: objects and regions, each pixel in one; None of a model without regions.
    """

    labels: NDArray[np.int32]
    foreground: NDArray[np.uint8]
    decoded: Decoded
    grid: Grid
    intensity: Range
    warnings: tuple[str, ...]
    seconds: float
    panoptic: Panoptic | None = None

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


def build_network(recipe: Recipe, classes: Sequence[str]) -> nn.Module:
    """Return the network of a recipe, with the rules that its head gives it."""
    network = recipe.model.build(recipe.data.channel_count, recipe.head.outputs(len(classes)))
    head = recipe.head
    if not isinstance(head, DetectionHead):
        return network
    finding = cast("MaskRCNNNetwork", network).follow(head)
    if isinstance(head, PanopticHead):
        stuff = [classes.index(name) for name in head.stuff or ()]
        finding.draw_regions(stuff, weight=head.semantic_weight)
    return finding


def open_engine(
    network: nn.Module,
    recipe: Recipe,
    classes: Sequence[str],
    *,
    device: torch.device,
    precision: Precision,
) -> MapMaker | Detector:
    """Return network and head of a recipe as what makes maps, or what finds objects.

    The network is set to eval.
    """
    head, count = recipe.head, len(classes)
    if device.type == "cpu":
        keep_freed_memory()
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    if isinstance(head, DetectionHead):
        return Detector(cast("MaskRCNNNetwork", network).detect, device, precision)

    def encode(scores: Tensor) -> Any:
        return head.maps(scores, classes=count)

    support = DIE_MAP.index("die") if recipe.data.channels == "die_map" else None
    return MapMaker(network, encode, head.layers(count), device, precision, support=support)


def settle_network(network: nn.Module, recipe: Recipe) -> nn.Module:
    """Return a network that does not learn any more in the form that predictions run.

    Its normalisations are folded where it draws maps; the network itself is set to eval.
    """
    if isinstance(recipe.head, DetectionHead):
        return network.eval()
    channels, stride = recipe.data.channel_count, recipe.model.stride
    return fold_batch_norms(network.eval(), channels=channels, stride=stride)


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
    bare = recipe.model_copy(update={"model": recipe.model.without_weights()})
    network = build_network(bare, card.classes)
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
    settled = settle_network(network, recipe)
    place = choose_device(device)
    made = open_engine(
        settled, recipe, card.classes, device=place, precision=choose_precision(precision, place)
    )
    tiling = recipe.tiling
    if isinstance(made, MapMaker):
        made = replace(made, symmetries=tiling.symmetries, folded=settled is not network)
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
    if segmenter.detector is not None:
        made = _detected(segmenter, sample, diameter_px=diameter_px, intensity=intensity)
    else:
        mapped = mapped_by(segmenter, sample, diameter_px=diameter_px, intensity=intensity)
        made = segmentation_of(mapped, decode_options(segmenter.recipe, segmenter.classes))
    return replace(made, seconds=time.monotonic() - begun)


def _detected(
    segmenter: Segmenter, sample: Sample, *, diameter_px: float | None, intensity: Range | None
) -> Segmentation:
    """Return the objects that are found in a sample's image, one by one."""
    engine = segmenter.detector
    assert engine is not None
    plane, warnings = _seen_plane(segmenter, sample, diameter_px, intensity)
    area = within_edges(segmenter.recipe, sample)
    mask = None if area is None else partial(area.on_grid, plane.grid)
    gathered = gather(
        detect_windows(engine, plane, segmenter.lattice, mask=mask),
        object_rules(segmenter.recipe, segmenter.classes),
        grid=plane.grid,
    )
    said = (*warnings, *gathered.warnings())
    made = _segmentation_of_objects(gathered, plane, said)
    head = segmenter.recipe.head
    if isinstance(head, PanopticHead):
        return replace(made, panoptic=merged(gathered, head))
    return made


def _segmentation_of_objects(
    gathered: Gathered, plane: ModelPlane, warnings: tuple[str, ...]
) -> Segmentation:
    """Return objects as a segmentation; a pixel's foreground is the score of its object."""
    found = gathered.objects
    labels = np.stack(found.labels(((0, 0), plane.grid.source_shape)))
    scores = found.scores.astype(np.float64)
    # Where no object is, the least that there is.
    quanta = np.concatenate([[0], quantise_logit(_logit(scores))]).astype(np.uint8)
    decoded = Decoded(
        labels=labels,
        layers=np.repeat(np.arange(found.layers), np.diff(found.starts)).astype(np.int16),
        classes=found.classes,
        areas_px=areas_of(found.objects),
        scores=found.scores,
        boxes=found.boxes,
        centroids=(found.boxes.sum(1) - 1) / 2,
    )
    return Segmentation(labels, quanta[labels], decoded, plane.grid, plane.intensity, warnings, 0.0)


def _logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside) - np.log1p(-inside))


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
    plane, warnings = _seen_plane(segmenter, sample, diameter_px, intensity)
    maps = forward_maps(segmenter.make_maps, plane, segmenter.lattice)
    if (area := within_edges(recipe, sample)) is not None:
        maps = maps.within(area.on_grid(plane.grid, ((0, 0), plane.grid.model_shape)))
    return Mapped(maps, plane.grid, plane.intensity, warnings)


def _seen_plane(
    segmenter: Segmenter, sample: Sample, diameter_px: float | None, intensity: Range | None
) -> tuple[ModelPlane, tuple[str, ...]]:
    """Return an image as the network sees it, and what was assumed, one sentence each."""
    warnings = []
    if segmenter.recipe.data.diameter_px is not None and diameter_px is None:
        warnings.append(diameter_assumed(segmenter))
    diameter_px = segmenter.diameter_px if diameter_px is None else diameter_px
    plane = model_plane(segmenter.recipe, sample, diameter_px=diameter_px, intensity=intensity)
    blind = segmenter.whole_window_layers
    if blind and len(tiles(plane.grid.model_shape, segmenter.lattice)) > 1:
        warnings.append(tiling_shows(blind))
    return plane, tuple(warnings)


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
