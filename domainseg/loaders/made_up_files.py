"""Made-up data sets on disk: tiled TIFF written tile by tile, and the tables beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from domainseg.atomic import atomic_path, atomic_text, make_folder
from domainseg.errors import OutputError, sentence
from domainseg.records import Array, Spacing

TILE = 512
"""Side of the tiles of written files, px."""
INDEX = ("split", "image", "kind", "height", "width")
"""Columns of ``index.csv``."""


def begin_data_set(out: Path) -> None:
    """Create ``out`` with the folders ``images`` and ``labels``.

    Raises:
        OutputError: when ``out`` exists and is not an empty folder, or cannot be created.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            sentence(
                out,
                found="a folder with files in it" if out.is_dir() else "a file",
                wanted="a new or empty folder",
                fix="choose another or empty it",
            )
        )
    for folder in ("images", "labels"):
        make_folder(out / folder)


def tile_regions(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield ``(y0, y1, x0, x1)`` of the tiles of a file of ``size`` ``(H, W)``, in raster order."""
    for y in range(0, size[0], TILE):
        for x in range(0, size[1], TILE):
            yield y, min(y + TILE, size[0]), x, min(x + TILE, size[1])


def write_tiles(
    path: Path,
    tiles: Iterator[Array],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    spacing_um: Spacing | None,
) -> None:
    """Write a TIFF of ``shape`` ``(H, W)`` or ``(H, W, 3)`` from its tiles in raster order.

    Raises:
        OutputError: when it cannot be written.
    """
    size: dict[str, Any] = {}
    if spacing_um is not None:
        per_cm = (1e4 / spacing_um[1], 1e4 / spacing_um[0])
        size = {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
    with atomic_path(path) as partial:
        tifffile.imwrite(
            partial,
            tiles,
            shape=shape,
            dtype=dtype,
            tile=(TILE, TILE),
            photometric="rgb" if len(shape) == 3 else "minisblack",
            compression="zlib",
            metadata=None,
            bigtiff=int(np.prod(shape)) * dtype.itemsize > 1 << 31,
            **size,
        )


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV with one header line.

    Raises:
        OutputError: when it cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    atomic_text(path, text.getvalue())
