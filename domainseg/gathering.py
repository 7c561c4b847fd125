"""From what a detector found in windows to the objects of an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from domainseg.images.resample import Grid, labels_to_source
from domainseg.instances.detections import paste
from domainseg.instances.layering import Layered, layered
from domainseg.instances.runs import ObjectRuns, raster_runs, runs_of_parts, select_runs
from domainseg.instances.shared_pixels import areas_of, boxes_of
from domainseg.instances.window_union import (
    EDGE_PX,
    Sightings,
    United,
    join_sightings,
    sighted,
    unite,
)
from domainseg.models.heads.detection import DetectionHead
from domainseg.recipe import Recipe, require_classes
from domainseg.recipe_sections import DEFAULT_THRESHOLD
from domainseg.records import Tile
from domainseg.tiling.detecting import WindowDetections

REGIONS_PX = 1 << 26
"""Images of more pixels have no panoptic segmentation, which is held in memory."""


@dataclass(frozen=True, slots=True)
class ObjectRules:
    """How detections become objects; arrays hold a value for each class.

    Attributes:
        threshold: float32 ``(K,)``, least probability of a pixel of a mask.
        min_score: float32 ``(K,)``.
        min_area_px: float64 ``(K,)``, px of the model grid.
        max_area_px: float, px of the model grid; infinite = no bound.
        fill_holes: fill holes of each object.
        most_iou: of two objects of one class with a larger IoU the better one stays.
    """

    threshold: NDArray[np.float32]
    min_score: NDArray[np.float32]
    min_area_px: NDArray[np.float64]
    max_area_px: float
    fill_holes: bool
    most_iou: float


def object_rules(recipe: Recipe, classes: Sequence[str]) -> ObjectRules:
    """Return the rules of a recipe.

    Raises:
        RecipeError: an option names a class that is not one of ``classes``.
    """
    rules = recipe.instances
    assert isinstance(recipe.head, DetectionHead)

    def each(option: str, default: float) -> NDArray[np.float64]:
        value = getattr(rules, option)
        if not isinstance(value, dict):
            return np.full(len(classes), value, np.float64)
        require_classes(f"instances.{option}", value, classes)
        return np.array([value.get(name, default) for name in classes], np.float64)

    return ObjectRules(
        threshold=each("threshold", DEFAULT_THRESHOLD).astype(np.float32),
        min_score=each("min_score", 0.0).astype(np.float32),
        min_area_px=each("min_area_px", 0.0),
        max_area_px=np.inf if rules.max_area_px is None else rules.max_area_px,
        fill_holes=rules.fill_holes,
        most_iou=recipe.head.nms_iou,
    )


@dataclass(frozen=True, slots=True)
class Gathered:
    """The objects of an image, in its own pixels, and how they came out of windows.

    Attributes:
        objects: in layers.
        seams: objects that reach into more than one core.
        united: of these, put together of parts that no window saw whole.
        proposals_cut: windows in which a limit of proposals was met.
        detections_cut: windows in which that of detections was.
        regions: uint8 ``(H, W)``, class + 1 of regions, 0 of other pixels; None of a model that
            draws none, and of images of more than `REGIONS_PX`.
    """

    objects: Layered
    seams: int
    united: int
    proposals_cut: int
    detections_cut: int
    regions: NDArray[np.uint8] | None = None

    def to_record(self) -> dict[str, Any]:
        """Return the counts as plain values for a run's record."""
        return {
            "seams": {"objects": self.seams, "united": self.united},
            "limits_reached": {
                "proposals": self.proposals_cut,
                "detections": self.detections_cut,
            },
        }

    def warnings(self) -> tuple[str, ...]:
        """Return what may be missing, one sentence each."""
        said = []
        if self.detections_cut:
            said.append(
                f"objects may be missing: {self.detections_cut} windows have more than "
                "head.detections of them; raise it, or lower tiling.core_px"
            )
        if self.proposals_cut:
            said.append(
                f"objects may be missing: in {self.proposals_cut} windows head.proposals or "
                "head.proposals_per_level left out what is likelier an object than not; raise "
                "them, or lower tiling.core_px"
            )
        return tuple(said)


def gather(
    windows: Iterable[tuple[Tile, WindowDetections]],
    rules: ObjectRules,
    *,
    grid: Grid,
    tell: Callable[[int], None] = lambda _done: None,
) -> Gathered:
    """Return the objects of an image from what its windows show; their order changes nothing.

    Masks are drawn in the image's own pixels, whatever the grid that they were found on. Where
    a window is not inspected no object has a pixel.
    """
    seen: list[Sightings] = []
    regions: NDArray[np.uint8] | None = None
    proposals_cut = detections_cut = 0
    for done, (tile, found) in enumerate(windows, start=1):
        proposals_cut += found.proposals_cut
        detections_cut += found.detections_cut
        seen.append(_sightings(tile, found, rules, grid))
        if found.regions is not None and math.prod(grid.source_shape) <= REGIONS_PX:
            if regions is None:
                regions = np.zeros(grid.model_shape, np.uint8)
            (y0, x0), (y1, x1) = tile.core
            regions[y0:y1, x0:x1] = found.regions
        tell(done)
    united = unite(join_sightings(seen, shape=grid.source_shape), most_iou=rules.most_iou)
    united = _right_sizes(united, rules, grid)
    objects = layered(united.objects, classes=united.classes, scores=united.scores)
    return Gathered(
        objects,
        seams=int(np.count_nonzero(united.seams)),
        united=int(np.count_nonzero(united.parts > 1)),
        proposals_cut=proposals_cut,
        detections_cut=detections_cut,
        regions=None if regions is None else labels_to_source(regions, grid),
    )


def _sightings(tile: Tile, seen: WindowDetections, rules: ObjectRules, grid: Grid) -> Sightings:
    found = seen.detections
    found = found.select(found.scores >= rules.min_score[found.classes])
    found = found.placed(tile.origin, grid.scale_yx)
    objects = paste(found, rules.threshold[found.classes], shape=grid.source_shape)
    if rules.fill_holes:
        objects = _filled(objects)
    boxes = found.boxes
    if seen.inspected is not None:
        objects = _within(objects, seen.inspected, tile, grid)
        # What is not looked at has no say in where an object is, nor in whether it goes on.
        boxes = boxes_of(objects).astype(np.float32)
    window = np.array([tile.origin, np.add(tile.origin, tile.shape)])
    return sighted(
        objects,
        boxes=boxes,
        classes=found.classes,
        scores=found.scores,
        window=tile.core[0][0] * grid.model_shape[1] + tile.core[0][1],
        extent=_on_image(np.clip(window, 0, grid.model_shape), grid),
        core=_on_image(np.array(tile.core), grid),
        edge_px=(EDGE_PX / grid.scale_yx[0], EDGE_PX / grid.scale_yx[1]),
    )


def _on_image(box: NDArray[np.int64], grid: Grid) -> NDArray[np.int64]:
    """Return a box of the model grid in px of the image; cores still partition it."""
    made = np.rint(box / np.array(grid.scale_yx)).astype(np.int64)
    ends = box >= np.array(grid.model_shape)
    whole = np.array(grid.source_shape, np.int64)
    return np.asarray(np.where(ends, whole, np.minimum(made, whole)), np.int64)


def _filled(objects: ObjectRuns) -> ObjectRuns:
    """Return the objects without holes."""
    boxes = boxes_of(objects)
    # Where no row has two runs there is no hole; so are nearly all.
    holed = np.diff(objects.offsets) > boxes[:, 1, 0] - boxes[:, 0, 0]
    return _remade(objects, lambda mask, _corner: np.asarray(binary_fill_holes(mask), bool), holed)


def _within(
    objects: ObjectRuns, inspected: NDArray[np.bool_], tile: Tile, grid: Grid
) -> ObjectRuns:
    """Return what of the objects lies where their window is looked at."""
    starts = (max(tile.origin[0], 0), max(tile.origin[1], 0))

    def picked(first: int, count: int, axis: int) -> NDArray[np.int64]:
        centres = (np.arange(first, first + count) + 0.5) * grid.scale_yx[axis]
        index = np.floor(centres).astype(np.int64) - starts[axis]
        return np.asarray(np.clip(index, 0, inspected.shape[axis] - 1), np.int64)

    def inside(mask: NDArray[np.bool_], corner: tuple[int, int]) -> NDArray[np.bool_]:
        rows, columns = (picked(corner[i], mask.shape[i], i) for i in (0, 1))
        return np.asarray(mask & inspected[np.ix_(rows, columns)])

    return _remade(objects, inside, np.ones(len(objects), bool))


def _remade(
    objects: ObjectRuns,
    change: Callable[[NDArray[np.bool_], tuple[int, int]], NDArray[np.bool_]],
    which: NDArray[np.bool_],
) -> ObjectRuns:
    """Return the objects, the mask of those of ``which`` changed inside its box, one at a time."""
    boxes = boxes_of(objects)
    parts: list[list[NDArray[np.int32]]] = []
    for i in range(len(objects)):
        runs = objects.runs[objects.offsets[i] : objects.offsets[i + 1]].astype(np.int32)
        if not which[i] or not len(runs):
            parts.append([runs])
            continue
        (y0, x0), (y1, x1) = boxes[i].tolist()
        mask = np.zeros((y1 - y0, x1 - x0), bool)
        for y, start, length in runs.tolist():
            mask[y - y0, start - x0 : start - x0 + length] = True
        made, _ = raster_runs(change(mask, (y0, x0)).astype(np.uint8))
        parts.append([(made + np.array([y0, x0, 0])).astype(np.int32)])
    return runs_of_parts(objects.ids, parts, shape=objects.shape)


def _right_sizes(united: United, rules: ObjectRules, grid: Grid) -> United:
    """Return the objects whose areas are between the least and the largest."""
    areas = areas_of(united.objects) * grid.scale_yx[0] * grid.scale_yx[1]
    keep = (areas >= rules.min_area_px[united.classes]) & (areas <= rules.max_area_px)
    if keep.all():
        return united
    kept = select_runs(united.objects, keep)
    return replace(
        united,
        objects=replace(kept, ids=np.arange(1, len(kept) + 1)),
        classes=united.classes[keep],
        scores=united.scores[keep],
        parts=united.parts[keep],
        seams=united.seams[keep],
    )
