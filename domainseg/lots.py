"""A lot out of files and folders: KLARF of other tools, and runs of our own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, UsageError, sentence
from domainseg.images import open_image
from domainseg.manifest import ImageOf, image_name, read_manifest
from domainseg.quality.die_grid import DieGrid, read_die_grids, read_die_plan
from domainseg.quality.image_check import check_plane
from domainseg.quality.klarf_file import read_klarf_text
from domainseg.quality.klarf_tokens import read_bytes
from domainseg.quality.lot import Dies, ImageCheck, Lot, Unit, defect_table, joined
from domainseg.quality.lot_klarf import UM2_PER_CM2, Origin, lot_of_klarf
from domainseg.quality.positions import position_columns
from domainseg.records import Spacing
from domainseg.report.evidence import InspectedImage
from domainseg.report.run_folder import OBJECTS, RECORD, image_folders, read_image, read_objects
from domainseg.report.sections.wording import warned
from domainseg.run_folder import read_record
from domainseg.units import by_unit

DEFECTS = "defects.parquet"
_NEEDED = (
    *("id", "class", "score", "area_px", "x_px", "y_px", "x0_px", "y0_px", "x1_px", "y1_px"),
    *("solidity", "touches_border", "eq_diameter_px", "eq_diameter_um"),
    *("length_px", "length_um", "skeleton_length_px", "skeleton_length_um"),
    *("mean_width_px", "mean_width_um"),
)
"""Columns of a run's table that a lot is made of."""


def read_lot(
    sources: Sequence[Path], *, die_grid: Path | None = None, manifest: Path | None = None
) -> Lot:
    """Return the units of result files (KLARF) and of runs, in their order.

    Args:
        sources: KLARF files, and folders that ``predict`` wrote.
        die_grid: ``die_grid.json`` of the images of runs, which are wafers then.
        manifest: a table that says which unit each image of the runs shows (`manifest`).

    Raises:
        UsageError: no source, or one that is named twice.
        InputError: one cannot be used, or two units have one name.
    """
    if not sources:
        raise UsageError(
            "report: found nothing to report on, wanted runs or KLARF files; name one."
        )
    for source, times in Counter(path.resolve() for path in sources).items():
        if times > 1:
            raise UsageError(
                sentence(source, found="it named twice", wanted="each once", fix="name it once")
            )
    grids = {} if die_grid is None else read_die_grids(die_grid)
    plan = None if die_grid is None else read_die_plan(die_grid)
    known = {} if manifest is None else read_manifest(manifest)
    lots, said_of_runs, runs = [], [], 0
    for source in sources:
        if source.is_file():
            lots.append(_klarf(source))
        else:
            for folder in image_folders(source):
                image = read_image(folder)
                said = _said_of(image.name, known)
                if image.spacing_um is None and said is not None and said.spacing_um is not None:
                    image = _with_size(image, said.spacing_um)
                lots.append(_run(folder, image, grids, plan, said))
                said_of_runs += [(image.name, warning) for warning in image.warnings]
                runs += 1
    lot = joined(lots)
    lot = replace(lot, warnings=(*warned(said_of_runs, runs), *lot.warnings))
    _require_distinct(lot)
    if known:
        lot = by_unit(lot, known)
        _require_distinct(lot)
    return lot


def _require_distinct(lot: Lot) -> None:
    for name, times in Counter(unit.name for unit in lot.units).items():
        if times > 1:
            raise InputError(
                sentence(
                    name, found=f"{times} units of this name", wanted="one", fix="report them apart"
                )
            )


def _klarf(path: Path) -> Lot:
    content = read_bytes(path).tobytes()
    digest = hashlib.sha256(content).hexdigest()
    return lot_of_klarf(read_klarf_text(content, path), Origin(path.name, digest))


def run_folders(sources: Sequence[Path]) -> dict[str, Path]:
    """Return the folder of every run among the sources, by the name of its image."""
    folders = [f for source in sources if source.is_dir() for f in image_folders(source)]
    return {read_image(folder).name: folder for folder in folders}


def _said_of(name: str, known: Mapping[str, ImageOf]) -> ImageOf | None:
    """Return what the table of images says of one; None without a table.

    Raises:
        MissingInputError: there is a table without it.
    """
    if not known:
        return None
    said = known.get(name) or known.get(image_name(name))
    if said is None:
        raise MissingInputError(
            sentence(
                name,
                found="no row of this image in the manifest",
                wanted="one for each image of the runs",
                fix="add it, or leave the run out",
            )
        )
    return said


def _with_size(image: InspectedImage, spacing_um: Spacing) -> InspectedImage:
    area = image.inspected_px * spacing_um[0] * spacing_um[1]
    return replace(image, spacing_um=spacing_um, inspected_um2=area)


def _table(folder: Path, image: InspectedImage) -> pl.DataFrame:
    """Return the defects of a run, with what ``defects`` added where it was called.

    Raises:
        InputError: the table is damaged, older, or of another number of objects.
    """
    _ = read_objects(folder, image)  # refuses what is damaged
    path = folder / DEFECTS if (folder / DEFECTS).is_file() else folder / OBJECTS
    table = pl.read_parquet(path)
    if missing := [name for name in _NEEDED if name not in table.columns]:
        raise InputError(
            sentence(
                path,
                found=f"no column {missing[0]}",
                wanted="the columns that predict writes now",
                fix="predict again",
            )
        )
    if len(table) != image.objects:
        raise InputError(
            sentence(
                path,
                found=f"{len(table)} rows",
                wanted=f"the {image.objects} objects of {RECORD}",
                fix="run `domainseg defects` again",
            )
        )
    return table


def _run(
    folder: Path,
    image: InspectedImage,
    grids: Mapping[str, DieGrid],
    plan: NDArray[np.int64] | None,
    said: ImageOf | None,
) -> Lot:
    if said is not None and said.spacing_um is not None:
        _require_size(image, said.spacing_um, f"manifest, line {said.line}", rtol=1e-3)
    table = _table(folder, image)
    grid = grids.get(image.name)
    if grids and grid is None:
        raise MissingInputError(
            sentence(
                image.name,
                found="no die grid of this image",
                wanted="one for each image of the runs",
                fix="add it to the file",
            )
        )
    if grid is not None:
        image = _of_grid(image, grid)
    columns = _columns(table, image)
    dies = None
    if grid is not None:
        dies = _seen(_dies(grid, image, plan), folder, image, grid)
        columns |= _placed(table, grid, dies)
    area = None if image.inspected_um2 is None else image.inspected_um2 / UM2_PER_CM2
    if dies is not None:  # a wafer is inspected where its dies are, whatever lies around them
        area = len(dies) * dies.pitch_um[0] * dies.pitch_um[1] / UM2_PER_CM2
    unit = Unit(
        name=image.name,
        area_cm2=area,
        area_mpx=image.inspected_px / 1e6,
        diameter_mm=None if grid is None else grid.wafer_diameter_mm,
        dies=dies,
        extent_um=None
        if image.spacing_um is None
        else (image.shape[2] * image.spacing_um[1], image.shape[1] * image.spacing_um[0]),
        extent_px=(float(image.shape[2]), float(image.shape[1])),
        check=_checked(folder, image),
        source=image.name,
        sha256=image.sha256,
        about={"model": image.model.name, "model sha256": image.model.sha256},
    )
    warnings = []
    if dies is not None and not len(dies):
        warnings.append(
            f"{image.name}: no die of its wafer lies whole in the image, so that none is inspected"
        )
    defects = defect_table(columns, len(table))
    return Lot((unit,), defects, image.model.classes, tuple(warnings))


def _require_size(image: InspectedImage, given: Spacing, where: str, *, rtol: float) -> None:
    """Raise InputError where the image's own pixel size is another than the one given."""
    if image.spacing_um is not None and not np.allclose(image.spacing_um, given, rtol=rtol):
        found, wanted = (f"{y:g} x {x:g} um" for y, x in (given, image.spacing_um))
        raise InputError(
            sentence(
                where,
                found=f"pixels of {found}",
                wanted=f"{wanted}, those of the run of {image.name}",
                fix="correct one of them",
            )
        )


def _of_grid(image: InspectedImage, grid: DieGrid) -> InspectedImage:
    """Return the image with the pixel size of its die grid.

    Raises:
        InputError: it has another of its own.
    """
    if image.spacing_um is None:
        return _with_size(image, grid.spacing_um)
    _require_size(image, grid.spacing_um, f"die grid of {image.name}", rtol=1e-4)
    return image


def _seen(dies: Dies, folder: Path, image: InspectedImage, grid: DieGrid) -> Dies:
    """Return the dies less those that damaged or left out parts of the image reach into.

    Raises:
        InputError: only regions of the image were looked at, fewer than its dies cover.
    """
    area = read_record(folder)["area"] or {}
    pitch = np.array(dies.pitch_um)
    whole = len(dies) * float(pitch.prod())
    if (area.get("roi") or area.get("tissue")) and (image.inspected_um2 or 0) < whole * 0.999:
        raise InputError(
            sentence(
                image.name,
                found="regions that were looked at, smaller than the dies of the wafer",
                wanted="the whole of every die",
                fix="predict without --roi, or with one that holds the dies",
            )
        )
    low = dies.lower_left_um()
    kept = np.ones(len(dies), bool)
    for (y0, x0), (y1, x1) in (*area.get("damaged", ()), *area.get("left_out", ())):
        at = grid.positions(np.array([y1, y0]) - 0.5, np.array([x0, x1]) - 0.5)
        kept &= ~(
            (low[:, 0] < at.x_um[1])
            & (low[:, 0] + pitch[0] > at.x_um[0])
            & (low[:, 1] < at.y_um[1])
            & (low[:, 1] + pitch[1] > at.y_um[0])
        )
    return replace(dies, index=dies.index[kept], total=int(kept.sum()))


def _checked(folder: Path, image: InspectedImage) -> ImageCheck:
    """Return how good the image is, of its pixels what can be told where it still is."""
    _, height, width = image.shape
    coverage = image.inspected_px / (height * width)
    like = image.like_training
    check = ImageCheck(coverage=coverage, like=int(like is True), unlike=int(like is False))
    described = read_record(folder)["image"]
    try:
        with open_image(described["path"], select=described["select"]) as opened:
            if opened.shape != image.shape:
                return check
            focus, saturated = check_plane(opened)
    except InputError:
        return check
    return replace(check, focus=focus, saturated=saturated)


def _columns(table: pl.DataFrame, image: InspectedImage) -> dict[str, object]:
    """Return what a run says of its defects, in the frame of the image: y up from below."""
    _, height, _ = image.shape
    sy, sx = image.spacing_um or (np.nan, np.nan)
    x, y = table["x_px"].to_numpy(), table["y_px"].to_numpy()
    count = len(table)
    known = "confidence" in table.columns and table["confidence"].null_count() < max(1, count)
    contrast = [name for name in table.columns if name.startswith("contrast_")]
    contrast = [name for name in contrast if not name.startswith("contrast_to_noise_")]
    return {
        "unit": [image.name] * count,
        "id": table["id"].to_list(),
        "class": table["class"].to_list(),
        "confidence": table["confidence" if known else "score"].cast(pl.Float64),
        "area_um2": table["area_px"].to_numpy() * sy * sx,
        "feret_um": _length(table, "length", sy, sx),
        "length_um": _length(table, "skeleton_length", sy, sx),
        "width_um": _length(table, "mean_width", sy, sx),
        "eq_diameter_um": _length(table, "eq_diameter", sy, sx),
        "solidity": table["solidity"],
        "contrast": table[contrast[0]] if contrast else None,
        "x_um": (x + 0.5) * sx,
        "y_um": (height - 0.5 - y) * sy,
        "box_width_um": (table["x1_px"] - table["x0_px"]).to_numpy() * sx,
        "box_height_um": (table["y1_px"] - table["y0_px"]).to_numpy() * sy,
        "touches_border": table["touches_border"],
        "truncated": table["touches_border"],
        "image": [image.name] * count,
        "x_px": x,
        "y_px": y,
        "area_px": table["area_px"].cast(pl.Float64),
        "box_width_px": (table["x1_px"] - table["x0_px"]).cast(pl.Float64),
        "box_height_px": (table["y1_px"] - table["y0_px"]).cast(pl.Float64),
    }


def _length(table: pl.DataFrame, name: str, sy: float, sx: float) -> NDArray[np.float64]:
    """Return a length in um, of an image whose pixel size the run did not know too."""
    measured = table[f"{name}_um"].cast(pl.Float64)
    pixels = table[f"{name}_px"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return measured.fill_null(pl.Series(pixels * np.sqrt(sy * sx))).to_numpy()


def _placed(table: pl.DataFrame, grid: DieGrid, dies: Dies) -> dict[str, object]:
    at = position_columns(table, grid)
    number = dies.number_of(at["die_x"].to_numpy(), at["die_y"].to_numpy())
    return {
        "x_um": at["wafer_x_um"],
        "y_um": at["wafer_y_um"],
        "die_x": at["die_x"],
        "die_y": at["die_y"],
        "die_xrel_um": at["die_xrel_um"],
        "die_yrel_um": at["die_yrel_um"],
        "inspected": number >= 0,
    }


def _dies(grid: DieGrid, image: InspectedImage, plan: NDArray[np.int64] | None) -> Dies:
    """Return the dies of the plan, else those whole on the wafer, that the image shows whole."""
    _, height, width = image.shape
    index = grid.dies(edge_exclusion_mm=0.0) if plan is None else plan
    pitch = (grid.pitch_um[1], grid.pitch_um[0])
    dies = Dies(index, pitch, grid.center_um, len(index))
    # Outer corners of the image, in the wafer's frame.
    corners = grid.positions(np.array([height - 0.5, -0.5]), np.array([-0.5, width - 0.5]))
    low = dies.lower_left_um()
    slack = 1e-6 * np.array(pitch)
    inside = (low >= np.array([corners.x_um[0], corners.y_um[0]]) - slack).all(1) & (
        low + pitch <= np.array([corners.x_um[1], corners.y_um[1]]) + slack
    ).all(1)
    return replace(dies, index=index[inside], total=int(inside.sum()))
