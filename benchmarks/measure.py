"""How long measuring, outlining and exporting takes, beside scikit-image in the same run.

    python benchmarks/measure.py [--side 4096] [--regionprops]

Prints seconds for a made-up plane of round objects, 15 px apart (74,529 on 4,096 x
4,096 px), once warm. With ``--regionprops`` also `regionprops_table` with the same
columns, which takes minutes on the full plane, and the ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import measure as skimage_measure

from domainseg.instances.export import table_instances, write_coco, write_geojson, write_objects
from domainseg.instances.measure import measure
from domainseg.instances.outlines import find_outlines
from domainseg.instances.overlay import overlay

regionprops_table: Any = skimage_measure.regionprops_table

PITCH = 15
PROPERTIES = (
    "label",
    "bbox",
    "centroid",
    "area",
    "perimeter_crofton",
    "feret_diameter_max",
    "axis_major_length",
    "axis_minor_length",
    "orientation",
    "eccentricity",
    "solidity",
    "equivalent_diameter_area",
    "euler_number",
    "intensity_mean",
    "intensity_std",
    "intensity_min",
    "intensity_max",
)


def made_up_plane(side: int) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Return labels ``(side, side)`` of round objects and a noisy image ``(1, side, side)``."""
    rng = np.random.default_rng(0)
    along = np.arange(side)
    across = side // PITCH + 1
    radius2 = rng.integers(9, 45, (across, across))
    cells = along // PITCH
    offset = (along % PITCH - PITCH // 2) ** 2
    inside = offset[:, None] + offset < radius2[cells[:, None], cells]
    numbers = cells[:, None] * across + cells + 1
    image = rng.integers(0, 1 << 16, (1, side, side)).astype(np.uint16)
    return np.where(inside, numbers, 0).astype(np.int32), image


def seconds(work: Callable[[], Any], *, repeats: int = 3) -> float:
    """Return the shortest of ``repeats`` runs after one that compiles."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--regionprops", action="store_true")
    options = parser.parse_args()
    labels, image = made_up_plane(options.side)
    table = measure(labels, image=image, spacing_um=(0.5, 0.5))
    instances = table_instances(labels, table=table, class_names=("object",))
    print(f"{labels.size / 1e6:.1f} Mpx, {len(table):,} objects")
    ours = seconds(lambda: measure(labels, image=image, spacing_um=(0.5, 0.5)))
    print(f"measure, all columns, one channel {ours:8.2f} s")
    print(f"measure, without an image         {seconds(lambda: measure(labels)):8.2f} s")
    print(f"outlines                          {seconds(lambda: find_outlines(labels)):8.2f} s")
    print(f"overlay                           {seconds(lambda: overlay(image, labels)):8.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        path, names = Path(folder) / "objects", ("object",)
        exports: dict[str, Callable[[], None]] = {
            "GeoJSON": lambda: write_geojson(path, labels, table=table, class_names=names),
            "COCO": lambda: write_coco(path, [("a.png", instances)], class_names=names),
            "Parquet": lambda: write_objects(table, parquet=path),
            "CSV": lambda: write_objects(table, csv=path),
        }
        for name, export in exports.items():
            print(f"{name:33} {seconds(export, repeats=1):8.2f} s")
    if options.regionprops:
        begin = time.perf_counter()
        regionprops_table(labels, image[0], properties=PROPERTIES)
        theirs = time.perf_counter() - begin
        print(f"regionprops_table, same columns   {theirs:8.2f} s, {theirs / ours:.0f} times ours")


if __name__ == "__main__":
    main()
