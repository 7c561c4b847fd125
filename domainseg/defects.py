"""A run's objects as defects: contrast, confidence, and where they lie on the wafer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import zarr

from domainseg.atomic import atomic_path
from domainseg.errors import InputError, sentence
from domainseg.images import image_sha256, open_image
from domainseg.images.image import Image
from domainseg.images.label_store import open_label_plane, plane_names
from domainseg.quality.calibration import Calibration
from domainseg.quality.contrast import Ring, RingSums, contrast_columns
from domainseg.quality.die_grid import DieGrid, read_die_grids
from domainseg.quality.positions import position_columns
from domainseg.recipe import recipe_from_json
from domainseg.results import LABEL_STORE, TABLE
from domainseg.run_folder import RECORD, read_record

PARQUET = "defects.parquet"
CSV = "defects.csv"
BLOCK_PX = 2048
"""Side of what is read at a time."""

Tell = Callable[[str, int, int], None]
"""Called with the stage, blocks done and blocks in all."""


@dataclass(frozen=True, slots=True)
class Defects:
    """What `add_defects` wrote.

    Attributes:
        folder: of the run; it holds ``defects.parquet`` and ``defects.csv`` now.
        table: one row a defect: the columns of the object table, then those that are new.
    """

    folder: Path
    table: pl.DataFrame


def add_defects(
    run: Path | str,
    *,
    die_grid: Path | str | None = None,
    image: Path | str | None = None,
    ring: Ring | None = None,
    tell: Tell = lambda _stage, _done, _total: None,
) -> Defects:
    """Write ``defects.parquet`` and ``defects.csv`` of a finished run.

    They hold the object table and, for each object, ``contrast_<channel>`` and
    ``contrast_to_noise_<channel>`` against its ring; ``confidence``, the score calibrated as
    the model file says (null where it was not tuned); with ``die_grid``, a ``die_grid.json``,
    its place on the wafer and in its die. The image is read again, block by block, where it
    was when it was predicted, or at ``image``.

    Raises:
        MissingInputError: ``run`` is no finished run, its image is gone, or the grid is.
        InputError: the image has changed, or the grid names another.
        OutputError: a file cannot be written.
    """
    folder = Path(run)
    record = read_record(folder)
    described = record["image"]
    place = described["path"] if image is None else image
    grid = None if die_grid is None else _grid_of(Path(die_grid), described["name"])
    table = pl.read_parquet(folder / TABLE)
    skip = bool((record["area"] or {}).get("damaged"))
    with open_image(place, select=described["select"], skip_damaged=skip) as opened:
        if image_sha256(place) != described["sha256"]:
            raise InputError(
                sentence(
                    place,
                    found="another image than the one that was predicted",
                    wanted="the same file",
                    fix="predict it again",
                )
            )
        labels = [open_label_plane(folder / LABEL_STORE, name) for name in _planes(folder, record)]
        rings = _rings(labels, opened, table, ring or Ring(), tell)
        parts = [table, contrast_columns(table, rings, opened.channels)]
    parts.append(pl.DataFrame([_confidence(record, table)]))
    if grid is not None:
        parts.append(position_columns(table, grid))
    made = pl.concat(parts, how="horizontal")
    with atomic_path(folder / PARQUET) as partial:
        made.write_parquet(partial)
    with atomic_path(folder / CSV) as partial:
        made.write_csv(partial)
    return Defects(folder, made)


def _grid_of(path: Path, name: str) -> DieGrid:
    grids = read_die_grids(path)
    if name not in grids:
        known = ", ".join(sorted(grids)[:3])
        raise InputError(
            sentence(
                path,
                found=f"the images {known}{' and more' * (len(grids) > 3)}",
                wanted=f"{name}, the image of the run",
                fix="give the die grid of this image",
            )
        )
    return grids[name]


def _confidence(record: dict[str, Any], table: pl.DataFrame) -> pl.Series:
    stored = record["model"].get("calibration")
    if stored is None:
        return pl.Series("confidence", [None] * table.height, pl.Float64)
    made = Calibration.from_json(stored).apply(table["score"].to_numpy())
    return pl.Series("confidence", made)


def _planes(folder: Path, record: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the label planes of a run, one a layer."""
    recipe = recipe_from_json(record["recipe"], where=str(folder / RECORD))
    return plane_names(recipe.head.layers(len(record["model"]["classes"])))


def _rings(
    planes: Sequence[zarr.Array[Any]], image: Image, table: pl.DataFrame, ring: Ring, tell: Tell
) -> RingSums:
    """Return the rings of all objects; labels are numbered over all layers."""
    sums = RingSums(int(table["label"].to_numpy().max(initial=0)), image.shape[0], ring=ring)
    size = (int(image.shape[1]), int(image.shape[2]))
    blocks = list(_blocks(size))
    for number, labels in enumerate(planes):
        for done, (y0, y1, x0, x1) in enumerate(blocks):
            tell("contrast", number * len(blocks) + done, len(planes) * len(blocks))
            top, left = max(0, y0 - ring.reach_px), max(0, x0 - ring.reach_px)
            bottom, right = min(size[0], y1 + ring.reach_px), min(size[1], x1 + ring.reach_px)
            window = np.asarray(labels[top:bottom, left:right])
            if not window.any():
                continue
            core = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
            sums.add(window, image[:, top:bottom, left:right], core=core)
    tell("contrast", len(planes) * len(blocks), len(planes) * len(blocks))
    return sums


def _blocks(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    for y in range(0, size[0], BLOCK_PX):
        for x in range(0, size[1], BLOCK_PX):
            yield y, min(y + BLOCK_PX, size[0]), x, min(x + BLOCK_PX, size[1])
