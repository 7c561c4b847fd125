"""A run's objects as defects: contrast, votes, confidence, and where they lie on the wafer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import zarr
from numpy.typing import NDArray

from domainseg.atomic import atomic_path
from domainseg.errors import InputError, sentence
from domainseg.images import image_sha256, open_image
from domainseg.images.image import Image
from domainseg.images.label_store import open_label_plane, stored_names
from domainseg.images.regions import Box
from domainseg.instances.class_votes import vote_columns, votes_in
from domainseg.quality.calibration import Calibration
from domainseg.quality.contrast import Ring, RingSums, contrast_columns
from domainseg.quality.die_grid import DieGrid, read_die_grids
from domainseg.quality.positions import position_columns
from domainseg.quality.repeaters import repeaters
from domainseg.run_files import LABEL_STORE, TABLE
from domainseg.run_folder import MAPS, read_record
from domainseg.tiling.store import existing_store

PARQUET = "defects.parquet"
CSV = "defects.csv"
REPEATER_PX = 3
"""By how many pixels places of one and the same thing differ from die to die."""
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
    repeater_um: float | None = None,
    tell: Tell = lambda _stage, _done, _total: None,
) -> Defects:
    """Write ``defects.parquet`` and ``defects.csv`` of a finished run.

    They hold the object table and, for each object, ``contrast_<channel>`` and
    ``contrast_to_noise_<channel>`` against its ring; ``class_share``, ``second_class`` and
    ``second_share``, the votes of its pixels (null where the maps were dropped);
    ``confidence``, the score calibrated as the model file says (null where it was not tuned,
    or the rules were changed since); with ``die_grid``, a ``die_grid.json``, its place on the
    wafer and in its die, ``die_repeats``, the dies that have a defect at the same place within
    ``repeater_um`` (by default three pixels), and ``repeater``, whether they are more than
    chance explains (`quality.repeaters`). The image is read again, block by block, where it was
    when it was predicted, or at ``image``.

    Raises:
        MissingInputError: ``run`` is no finished run, its image is gone, or the grid is.
        InputError: the image has changed, or the grid names another or other pixels.
        OutputError: a file cannot be written.
    """
    folder = Path(run)
    record = read_record(folder)
    described = record["image"]
    place = described["path"] if image is None else image
    grid = None
    if die_grid is not None:
        grid = _grid_of(Path(die_grid), described["name"], described["spacing_um"])
    table = pl.read_parquet(folder / TABLE)
    classes = record["model"]["classes"]
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
        labels = [
            open_label_plane(folder / LABEL_STORE, name)
            for name in stored_names(folder / LABEL_STORE)
        ]
        rings = _rings(labels, opened, table, ring or Ring(), _unseen(record), tell)
        parts = [table, contrast_columns(table, rings, opened.channels)]
    parts.append(vote_columns(table, _votes(folder, record, labels, tell), classes))
    parts.append(pl.DataFrame([_confidence(record, table)]))
    if grid is not None:
        at = position_columns(table, grid)
        parts += [at, _repeats(at, grid, repeater_um)]
    made = pl.concat(parts, how="horizontal")
    with atomic_path(folder / PARQUET) as partial:
        made.write_parquet(partial)
    with atomic_path(folder / CSV) as partial:
        made.write_csv(partial)
    return Defects(folder, made)


def _repeats(at: pl.DataFrame, grid: DieGrid, tolerance_um: float | None) -> pl.DataFrame:
    found = repeaters(
        at.select("die_x", "die_y").to_numpy(),
        at.select("die_xrel_um", "die_yrel_um").to_numpy(),
        pitch_um=(grid.pitch_um[1], grid.pitch_um[0]),
        dies=len(grid.dies()),
        tolerance_um=tolerance_um or REPEATER_PX * max(grid.spacing_um),
    )
    return pl.DataFrame({"die_repeats": found.dies, "repeater": found.repeats})


def _grid_of(path: Path, name: str, spacing_um: Sequence[float] | None) -> DieGrid:
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
    grid = grids[name]
    if spacing_um is not None and not np.allclose(grid.spacing_um, spacing_um, rtol=1e-4):
        found, wanted = (
            f"{x:g} x {y:g} um" for y, x in (grid.spacing_um, (spacing_um[0], spacing_um[1]))
        )
        raise InputError(
            sentence(
                path,
                found=f"pixels of {found}",
                wanted=f"{wanted}, those of the run",
                fix="correct spacing_um",
            )
        )
    return grid


def _confidence(record: dict[str, Any], table: pl.DataFrame) -> pl.Series:
    stored = record["model"].get("calibration")
    rules = record["model"].get("calibrated_rules") or {}
    instances = record["recipe"]["instances"]
    if stored is None or any(instances[name] != value for name, value in rules.items()):
        return pl.Series("confidence", [None] * table.height, pl.Float64)
    made = Calibration.from_json(stored).apply(table["score"].to_numpy())
    return pl.Series("confidence", made)


def _rings(
    planes: Sequence[zarr.Array[Any]],
    image: Image,
    table: pl.DataFrame,
    ring: Ring,
    unseen: Sequence[Box],
    tell: Tell,
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
            seen = np.ones(window.shape, bool)
            for (v0, u0), (v1, u1) in unseen:
                rows = slice(max(v0 - top, 0), max(v1 - top, 0))
                seen[rows, max(u0 - left, 0) : max(u1 - left, 0)] = False
            sums.add(window, image[:, top:bottom, left:right], core=core, seen=seen)
    tell("contrast", len(planes) * len(blocks), len(planes) * len(blocks))
    return sums


def _votes(
    folder: Path, record: dict[str, Any], planes: Sequence[zarr.Array[Any]], tell: Tell
) -> list[NDArray[np.int64]]:
    """Return the class votes of the pixels of all objects, block by block; none without maps."""
    if not (folder / MAPS).exists():
        return []
    store = existing_store(folder / MAPS)
    scale = record["grid"]["scale"]
    votes = []
    for layer, labels in enumerate(planes):
        blocks = list(_blocks((int(labels.shape[0]), int(labels.shape[1]))))
        for done, (y0, y1, x0, x1) in enumerate(blocks):
            tell("class votes", layer * len(blocks) + done, len(planes) * len(blocks))
            window = np.asarray(labels[y0:y1, x0:x1])
            if not window.any():
                continue
            rows = _on_grid(np.arange(y0, y1), scale[0], store.shape[0])
            columns = _on_grid(np.arange(x0, x1), scale[1], store.shape[1])
            box = ((int(rows[0]), int(columns[0])), (int(rows[-1]) + 1, int(columns[-1]) + 1))
            classes = store.window(layer, box).classes
            votes.append(votes_in(window, classes[np.ix_(rows - rows[0], columns - columns[0])]))
    return votes


def _on_grid(pixels: NDArray[np.int64], scale: float, size: int) -> NDArray[np.int64]:
    """Return the model pixels along an axis that the centres of an image's pixels lie in."""
    return np.asarray(np.minimum(np.floor((pixels + 0.5) * scale), size - 1), np.int64)


def _unseen(record: dict[str, Any]) -> list[Box]:
    """Return the boxes of the image that show nothing of it: damaged tiles, data bars."""
    area = record["area"] or {}
    boxes = (*area.get("damaged", ()), *area.get("left_out", ()))
    return [((y0, x0), (y1, x1)) for (y0, x0), (y1, x1) in boxes]


def _blocks(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    for y in range(0, size[0], BLOCK_PX):
        for x in range(0, size[1], BLOCK_PX):
            yield y, min(y + BLOCK_PX, size[0]), x, min(x + BLOCK_PX, size[1])
