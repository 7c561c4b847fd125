"""Made-up wafers as files: images, labels, and the truth in the units of a factory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domainseg.atomic import atomic_text
from domainseg.instances.encode import countable
from domainseg.instances.export import write_coco
from domainseg.instances.runs import ObjectRuns, runs_of_labels, runs_of_parts
from domainseg.loaders.made_up_files import (
    INDEX,
    begin_data_set,
    tile_regions,
    write_table,
    write_tiles,
)
from domainseg.loaders.wafer_plane import WaferPlane
from domainseg.loaders.wafers import Wafers, WaferSet
from domainseg.records import Array, Entry, Instances

COLUMNS = (
    "image",
    "label",
    "class",
    "wafer_x_um",
    "wafer_y_um",
    "die_x",
    "die_y",
    "die_xrel_um",
    "die_yrel_um",
    "area_um2",
    "skeleton_length_um",
    "mean_width_um",
    "contrast_to_noise",
)
"""Columns of ``defects.csv``, named as those of a run's: centroid from the wafer's centre (y up),
die, place in the die from its lower left corner, area of the label, and of a scratch the arc
length of its centre line, gaps included, and its width; empty where a class has no such number."""

Row = tuple[Any, ...]


class Written(NamedTuple):
    """The files of a data set.

    Attributes:
        images: paths of the images.
        coco: path of the COCO file, None where an image is too large for it.
    """

    images: tuple[Path, ...]
    coco: Path | None


def write_wafers(out: Path, options: Wafers) -> Written:
    """Write every image of the data set below ``out``, region by region.

    ``images/`` and ``labels/`` hold tiled TIFF with the pixel size; labels are int32,
    one number a defect. Beside them stand ``index.csv`` (split, image, kind, height,
    width), ``classes.csv`` (image, label, class), ``defects.csv`` (`COLUMNS`),
    ``die_grid.json`` (`domainseg.quality.die_grid.read_die_grids`) and ``coco.json``,
    which is left out where an image has 2**32 pixels or more. Memory follows the tile
    and the defects, not the image.

    Raises:
        OutputError: when ``out`` exists and is not an empty folder, or cannot be written.
    """
    begin_data_set(out)
    entries = WaferSet(options).entries()
    planes = {entry.id: options.plane(entry) for entry in entries}
    rows: list[Row] = []
    images = _each_written(out, planes, rows)
    coco = out / "coco.json" if all(countable(p.size) for p in planes.values()) else None
    if coco is None:
        for _ in images:
            pass
    else:
        write_coco(coco, images, class_names=options.class_names)
    write_table(out / "classes.csv", ("image", "label", "class"), [row[:3] for row in rows])
    write_table(out / "defects.csv", COLUMNS, rows)
    if planes:
        atomic_text(out / "die_grid.json", _die_grids(planes))
    # Last, so that a run that was cut short leaves no index that looks whole.
    write_table(
        out / "index.csv",
        INDEX,
        [_indexed(entry, planes[entry.id]) for entry in entries],
    )
    return Written(tuple(out / "images" / f"{name}.tif" for name in planes), coco)


def _each_written(
    out: Path, planes: dict[str, WaferPlane], rows: list[Row]
) -> Iterator[tuple[str, Instances]]:
    """Write image after image, append the rows of its defects and yield its objects."""
    for name, plane in planes.items():
        write_tiles(
            out / "images" / f"{name}.tif",
            _image_tiles(plane),
            shape=plane.size,
            dtype=plane.dtype,
            spacing_um=plane.spacing_um,
        )
        seen = _Seen(plane)
        write_tiles(
            out / "labels" / f"{name}.tif",
            seen.tiles(),
            shape=plane.size,
            dtype=plane.label_dtype,
            spacing_um=plane.spacing_um,
        )
        objects = seen.objects()
        rows += defect_rows(name, plane, objects)
        yield f"images/{name}.tif", objects


def defect_rows(name: str, plane: WaferPlane, objects: Instances) -> list[Row]:
    """Return a row of `COLUMNS` for each object, whose ids are labels of the plane."""
    defects, spacing = plane.defects, plane.look.spacing_um
    areas = objects.areas_px()
    y_px, x_px = _centroids(objects, areas)
    on = plane.die_grid.positions(y_px, x_px)
    rows: list[Row] = []
    for n, label in enumerate(objects.ids.tolist()):
        place = (on.x_um[n], on.y_um[n], on.xi[n], on.yi[n], on.xrel[n], on.yrel[n])
        k = label - 1
        sizes = (defects.length_um[k], defects.width_um[k])
        rows.append(
            (
                name,
                label,
                plane.look.class_names[defects.classes[k]],
                *(value.item() for value in place),
                areas[n].item() * spacing**2,
                *("" if np.isnan(size) else size.item() for size in sizes),
                defects.contrast_to_noise[k].item(),
            )
        )
    return rows


def _centroids(
    objects: Instances, areas: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``(y, x)`` of each object, px; the centre of the first pixel is 0.0."""
    if not len(objects):
        return np.zeros(0), np.zeros(0)
    row, start, length = objects.runs.T
    first = objects.offsets[:-1]
    y = np.add.reduceat(row * length, first) / areas
    x = np.add.reduceat((start + 0.5 * (length - 1)) * length, first) / areas
    return y, x


@dataclass(frozen=True, slots=True)
class _Seen:
    """The label tiles of a plane, and the objects in those that have gone by."""

    plane: WaferPlane
    parts: dict[int, list[NDArray[np.int32]]] = field(default_factory=dict)

    def tiles(self) -> Iterator[Array]:
        """Yield the label tiles in raster order."""
        for y0, y1, x0, x1 in tile_regions(self.plane.size):
            tile = self.plane.labels(y0, y1, x0, x1)
            if tile.any():
                self._keep(runs_of_labels(tile), (y0, x0))
            yield tile

    def _keep(self, found: ObjectRuns, corner: tuple[int, int]) -> None:
        runs = (found.runs + np.array([*corner, 0])).astype(np.int32)
        for n, label in enumerate(found.ids.tolist()):
            part = runs[found.offsets[n] : found.offsets[n + 1]]
            self.parts.setdefault(label, []).append(part)

    def objects(self) -> Instances:
        """Return the objects of all tiles; their ids are the labels that have a pixel."""
        labels = sorted(self.parts)
        whole = runs_of_parts(
            np.array(labels, np.int64),
            [self.parts[label] for label in labels],
            shape=self.plane.size,
        )
        return Instances(
            ids=whole.ids,
            boxes=_boxes(whole),
            runs=whole.runs,
            offsets=whole.offsets,
            classes=self.plane.defects.classes[whole.ids - 1],
            scores=np.ones(len(whole), np.float32),
            shape=self.plane.size,
        )


def _boxes(objects: ObjectRuns) -> NDArray[np.int64]:
    """Return the boxes ``(N, 2, 2)``, half-open."""
    if not len(objects):
        return np.zeros((0, 2, 2), np.int64)
    row, start, length = objects.runs.T
    low, high = np.stack([row, start], 1), np.stack([row + 1, start + length], 1)
    first = objects.offsets[:-1]
    corners = [np.minimum.reduceat(low, first), np.maximum.reduceat(high, first)]
    return np.stack(corners, 1).astype(np.int64)


def _die_grids(planes: dict[str, WaferPlane]) -> str:
    """Return the text of ``die_grid.json``; all images share the dies."""
    plane = next(iter(planes.values()))
    grid, exclusion = plane.die_grid, plane.look.edge_exclusion_mm
    text = {
        "pitch_um": _named(grid.pitch_um),
        "center_um": _named(grid.center_um[::-1]),
        "wafer_diameter_mm": grid.wafer_diameter_mm,
        "notch": "down",
        "edge_exclusion_mm": exclusion,
        "spacing_um": _named(grid.spacing_um),
        "images": {n: {"wafer_center_px": _named(p.wafer_center_px)} for n, p in planes.items()},
        "dies": grid.dies(edge_exclusion_mm=exclusion).tolist(),
    }
    return json.dumps(text) + "\n"


def _named(yx: tuple[float, float]) -> dict[str, float]:
    return {"x": yx[1], "y": yx[0]}


def _indexed(entry: Entry, plane: WaferPlane) -> Row:
    return (entry.columns["split"], entry.id, entry.kind or "", *plane.size)


def _image_tiles(plane: WaferPlane) -> Iterator[Array]:
    for y0, y1, x0, x1 in tile_regions(plane.size):
        yield plane[0, y0:y1, x0:x1]
