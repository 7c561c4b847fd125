"""The folders `predict` writes, read into evidence: which images, what is known of each.

A run is one image's folder, or a folder with several of those in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tifffile
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.images import open_image, read_labels
from domainseg.report.evidence import CLASS, IMAGE, InspectedImage, Model
from domainseg.report.json_record import JsonRecord, read_json

RECORD = "run.json"
OBJECTS = "objects.parquet"
OVERLAY = "overlay.png"
LABELS = "labels.tif"
TRUTH = "truth.tif"
SCORES = "evaluation.json"
SCHEMA = 1

_AGAIN = "run predict again"
_COLUMNS: pl.Schema = pl.Schema(
    {
        CLASS: pl.String,
        "area_px": pl.Int64,
        "area_um2": pl.Float64,
        "eq_diameter_px": pl.Float64,
        "eq_diameter_um": pl.Float64,
        "eccentricity": pl.Float64,
        "solidity": pl.Float64,
        "circularity": pl.Float64,
        "touches_border": pl.Boolean,
    }
)
_ALWAYS_KNOWN = (CLASS, "area_px", "eq_diameter_px", "touches_border")


def image_folders(run: Path) -> list[Path]:
    """Return the folder of every image of a run, at any depth, sorted by name.

    Raises:
        MissingInputError: when ``run`` is not there or holds no run.
        InputError: when it is a file, or an image's folder in it lacks its record.
    """
    if not run.exists():
        raise MissingInputError(
            sentence(run, found="nothing", wanted="the folder of a run", fix="check the path")
        )
    if not run.is_dir():
        raise InputError(
            sentence(
                run,
                found="a file",
                wanted="the folder of a run",
                fix="name the folder that predict wrote",
            )
        )
    images = list(_images_below(run))
    if not images:
        raise _no_record(run)
    return images


def _images_below(folder: Path) -> Iterator[Path]:
    """Yield the folders with a record, depth first, names sorted; nothing below a record."""
    if (folder / RECORD).exists():
        yield folder
        return
    # A run of several images has their common table; only an image has labels.
    if (folder / LABELS).exists():
        raise _no_record(folder)
    for child in sorted(folder.iterdir()):
        if child.is_dir() and child.suffix != ".zarr":
            yield from _images_below(child)


def _no_record(folder: Path) -> MissingInputError:
    return MissingInputError(
        sentence(
            folder,
            found=f"no {RECORD}",
            wanted="the record that predict writes last",
            fix="name the folder of a finished run, or resume the run",
        )
    )


def read_image(folder: Path, *, name: str | None = None) -> InspectedImage:
    """Return what ``run.json`` says of an image, under ``name`` where one is given.

    Raises:
        InputError: when the record is damaged, of another schema, or lacks something.
    """
    record = read_json(folder / RECORD, fix=_AGAIN)
    if (schema := record.count("schema")) != SCHEMA:
        raise InputError(
            sentence(
                record.path,
                found=f"schema {schema}",
                wanted=f"schema {SCHEMA}",
                fix=f"use the version of domainseg that wrote it, or {_AGAIN}",
            )
        )
    image, versions = record.record("image"), dict(record.mapping("versions"))
    channels, height, width = image.numbers("shape", length=3)
    known = image.values.get("spacing_um") is not None
    spacing = image.numbers("spacing_um", length=2) if known else None
    scale = record.record("grid").numbers("scale", length=2)
    training = record.mapping("training") if "training" in record.values else {}
    return InspectedImage(
        name=name or image.text("name"),
        sha256=image.text("sha256"),
        shape=(int(channels), int(height), int(width)),
        dtype=image.text("dtype"),
        channels=image.texts("channels"),
        seen_as=image.text_or_none("seen_as") if "seen_as" in image.values else None,
        select=image.mapping("select") if "select" in image.values else {},
        spacing_um=(spacing[0], spacing[1]) if spacing else None,
        kind=image.text_or_none("kind"),
        objects=record.count("objects"),
        inspected_px=record.count("inspected_px"),
        inspected_um2=record.number_or_none("inspected_um2"),
        scale=(scale[0], scale[1]),
        lattice=record.mapping("lattice"),
        versions={"domainseg": record.text("domainseg"), **versions},
        warnings=record.texts("warnings"),
        compared=_compared(training),
        like_training=_like_training(training),
        model=_model(record),
    )


def _compared(training: Mapping[str, Any]) -> bool:
    """Return whether a run knows if its image looks like those of the training.

    Of runs that do not say so, and of images without looks, nothing is told.
    """
    return bool(training.get("compared", True)) or not training.get("looks")


def _like_training(training: Mapping[str, Any]) -> bool | None:
    """Return whether image and objects are like the training's, None where that is not known.

    Sizes are not judged of defects, and are not known where there are few objects and none were
    looked for at other scales.
    """
    if training.get("unlike") or training.get("size"):
        return False
    looks = training.get("compared") and training.get("looks")
    measured = training.get("median_diameter_px") is not None or training.get("probed")
    sizes = measured or training.get("diameters_px") is None
    return True if looks and sizes else None


def _model(record: JsonRecord) -> Model:
    model = record.record("model")
    return Model(
        name=model.text("name"),
        sha256=model.text("sha256"),
        architecture=model.text("architecture"),
        encoder=model.text("encoder"),
        head=model.text("head"),
        classes=model.texts("classes"),
        scores=model.mapping("scores"),
        recipe=record.mapping("recipe"),
    )


def read_objects(folder: Path, image: InspectedImage) -> pl.DataFrame:
    """Return the columns of the object table that a report uses, ``image`` first.

    Raises:
        MissingInputError: when the table is not there.
        InputError: when it is damaged, lacks a column, holds a size that cannot
            be, or has another number of rows than the record says.
    """
    path = folder / OBJECTS
    if not path.exists():
        raise MissingInputError(
            sentence(folder, found=f"no {OBJECTS}", wanted="the object table", fix=_AGAIN)
        )
    try:
        stored = pl.read_parquet_schema(path)
        if missing := [name for name in _COLUMNS if name not in stored]:
            raise _refused(path, f"no column {missing[0]}", "the columns that predict writes")
        table = pl.read_parquet(path, columns=list(_COLUMNS))
        table = table.cast(_COLUMNS, strict=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _refused(path, "a damaged object table", "a whole Parquet file") from error
    _check(path, table, image)
    return table.select(pl.lit(image.name, pl.String).alias(IMAGE), pl.all())


def _check(path: Path, table: pl.DataFrame, image: InspectedImage) -> None:
    if table.height != image.objects:
        raise _refused(
            path, f"{table.height} objects", f"the {image.objects} that {RECORD} speaks of"
        )
    for name in _ALWAYS_KNOWN:
        if table.get_column(name).null_count():
            raise _refused(path, f"an object without {name}", "a value for every object")
    for area in table.get_column("area_px").filter(table.get_column("area_px") < 1).head(1):
        raise _refused(path, f"an object of {area} px", "at least 1 px")


def _refused(path: Path, found: str, wanted: str) -> InputError:
    return InputError(sentence(path, found=found, wanted=wanted, fix=_AGAIN))


def read_picture(path: Path, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return the RGB pixels of a picture of an image, uint8 ``(h, w, 3)``.

    A picture is as large as the image, or smaller by a whole factor.

    Raises:
        InputError: when it is damaged, not RGB, or no picture of an image of ``(H, W)``.
    """
    with open_image(path) as image:
        factor = picture_factor(image.shape[1:], shape)
        sides = [-(-side // factor) for side in shape]
        if image.shape != (3, *sides) or image.dtype != np.uint8:
            raise _refused(
                path,
                f"{image.dtype} pixels of shape {image.shape}",
                f"uint8 of shape {(3, *shape)}, or that divided by a whole number",
            )
        return np.ascontiguousarray(np.moveaxis(image[...], 0, -1))


def picture_factor(picture: Sequence[int], image: Sequence[int]) -> int:
    """Return how many pixels of an image lie side by side in one of its picture."""
    return max(1, -(-max(image) // max(picture)))


def read_label_map(path: Path) -> NDArray[Any]:
    """Return a label map, integer ``(H, W)``; of several layers the highest label per pixel.

    Raises:
        InputError: when it is damaged or cannot be labels.
    """
    layers = 1
    with suppress(tifffile.TiffFileError), tifffile.TiffFile(path) as file:
        layers = len(file.pages)
    if layers == 1:
        return read_labels(path)
    with open_image(path, select={"page": "max"}) as image:
        return image[0]
