"""Made-up wafer maps as files: maps, zones of their patterns, tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile

from domainseg.atomic import atomic_path
from domainseg.instances.export import write_coco
from domainseg.loaders.made_up_files import INDEX, begin_data_set, write_table
from domainseg.loaders.wafer_map import PATTERNS
from domainseg.loaders.wafer_maps import WaferMaps, WaferMapSet
from domainseg.records import Array, Entry, Instances


def write_wafer_maps(out: Path, options: WaferMaps) -> tuple[Path, ...]:
    """Write every map of the data set below ``out`` and return the paths of the maps.

    ``images/`` holds the dies as uint8: 0 none, 1 passes, 2 fails. ``labels/`` holds a page
    for each pattern in the order of PATTERNS, uint16: the numbers of its groups of dies, for
    zones overlap. Beside them stand ``index.csv`` (split, image, kind, height, width),
    ``classes.csv`` (image, label, class) and ``coco.json`` with a mask for each group.

    Raises:
        OutputError: when ``out`` exists and is not an empty folder, or cannot be written.
    """
    begin_data_set(out)
    data = WaferMapSet(options)
    entries = data.entries()
    sizes = {}
    classes: list[tuple[str, int, str]] = []

    def written() -> Iterator[tuple[str, Instances]]:
        for entry in entries:
            sample = data.load(entry)
            assert sample.truth is not None
            dies, zones = np.asarray(sample.image[0]), sample.truth
            _write(out / "images" / f"{entry.id}.tif", dies)
            _write(out / "labels" / f"{entry.id}.tif", _pages(zones))
            sizes[entry.id] = dies.shape
            named = zip(zones.ids.tolist(), zones.classes.tolist(), strict=True)
            classes.extend((entry.id, label, PATTERNS[index]) for label, index in named)
            yield f"images/{entry.id}.tif", zones

    write_coco(out / "coco.json", written(), class_names=PATTERNS)
    write_table(out / "classes.csv", ("image", "label", "class"), classes)
    # Last, so that a run that was cut short leaves no index that looks whole.
    write_table(out / "index.csv", INDEX, [_row(entry, sizes[entry.id]) for entry in entries])
    return tuple(out / "images" / f"{entry.id}.tif" for entry in entries)


def _pages(zones: Instances) -> Array:
    """Return the numbers of the groups of each pattern, uint16 ``(K, H, W)``."""
    pages = np.zeros((len(PATTERNS), *zones.shape), np.uint16)
    for index, (label, page) in enumerate(zip(zones.ids, zones.classes, strict=True)):
        (y0, x0), (y1, x1) = zones.boxes[index]
        pages[page, y0:y1, x0:x1][zones.mask(index)] = label
    return pages


def _write(path: Path, pixels: Array) -> None:
    with atomic_path(path) as partial:
        tifffile.imwrite(
            partial, pixels, photometric="minisblack", compression="zlib", metadata=None
        )


def _row(entry: Entry, size: Sequence[int]) -> tuple[str | int, ...]:
    return (entry.columns["split"], entry.id, entry.kind or "", *size)
