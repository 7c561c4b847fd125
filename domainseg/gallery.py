"""Pictures of a lot: its worst defects, and where on each image those that count lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image as Pixels
from PIL import ImageDraw

from domainseg.errors import InputError
from domainseg.images import image_sha256, open_image
from domainseg.images.image import Image
from domainseg.images.label_store import open_label_plane, stored_names
from domainseg.quality.assess import Assessment
from domainseg.quality.lot import Unit
from domainseg.quality.rules import GRADES
from domainseg.report.crops import draw_object, window_around
from domainseg.report.document import MEASURE, Picture
from domainseg.report.judged.places import GRADE_COLOURS
from domainseg.report.judged.ranking import worst_first
from domainseg.report.numbers import written
from domainseg.report.pictures import Shot, encode_within, shrink
from domainseg.report.run_folder import (
    OBJECTS,
    OVERLAY,
    picture_factor,
    read_image,
    read_picture,
)
from domainseg.report.scale_bar import with_scale_bar
from domainseg.report.visible import shortened
from domainseg.run_files import LABEL_STORE
from domainseg.run_folder import read_record

SHOWN = 24
"""Defects with a picture."""
IMAGES = 12
"""Images with a picture of where their defects lie."""
_DOTS = 2500
_RADIUS = 3.5
_BYTES = 3_000_000
_LONGEST = 3000
"""Side of the largest part of an image that is read for a picture, px."""
_RANGE = (0.5, 99.5)
"""Percentiles of the part that are drawn black and white."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A defect to be drawn: its row of the assessment, and of the object table."""

    defect: Mapping[str, Any]
    label: int
    box: tuple[tuple[int, int], tuple[int, int]]


def worst_pictures(made: Assessment, runs: Mapping[str, Path]) -> tuple[Picture, ...]:
    """Return pictures of the worst defects, the worst first, at most `SHOWN`.

    ``runs`` holds the folder of the run of each image. Defects whose image is gone or was changed
    since have none.
    """
    if not runs:
        return ()
    worst = worst_first(made.defects.filter(pl.col("image").is_in(list(runs))), SHOWN)
    rows = worst.to_dicts()
    shots: dict[int, Shot] = {}
    for image in dict.fromkeys(worst["image"].to_list()):
        mine = [(i, row) for i, row in enumerate(rows) if row["image"] == image]
        shots |= _shots_of(runs[image], mine)
    return tuple(encode_within([shots[i] for i in sorted(shots)], budget=_BYTES))


def unit_pictures(made: Assessment, runs: Mapping[str, Path]) -> tuple[Picture, ...]:
    """Return a small picture of each image that shows no wafer, at most `IMAGES`.

    Defects that count are dots in the colours of their grades, the worst on top. The picture is
    the overlay that ``predict`` wrote; a run without one has none.
    """
    shots: list[Shot] = []
    for unit in made.lot.units:
        for image in _images_of(made, unit):
            folder = runs.get(image)
            if folder is not None and len(shots) < IMAGES and (folder / OVERLAY).is_file():
                shots.append(_dotted(made, image, folder))
    return tuple(encode_within(shots, budget=_BYTES))


def _images_of(made: Assessment, unit: Unit) -> list[str]:
    """Return the images of a unit, none of a wafer, whose map is drawn."""
    if unit.dies is not None:
        return []
    named = made.defects.filter(pl.col("unit") == unit.name)["image"].drop_nulls().unique()
    return sorted({unit.name, *named.to_list()})


def _dotted(made: Assessment, image: str, folder: Path) -> Shot:
    shape = read_image(folder).shape[1:]
    picture = read_picture(folder / OVERLAY, shape)
    factor = picture_factor(picture.shape[:2], shape)
    canvas = Pixels.fromarray(shrink(picture)).convert("L").convert("RGB")
    scale = canvas.width / picture.shape[1] / factor
    defects = made.defects.filter((pl.col("image") == image) & pl.col("counts"))
    worst = worst_first(defects, _DOTS)
    draw = ImageDraw.Draw(canvas)
    for x, y, grade in reversed(worst.select("x_px", "y_px", "grade").rows()):
        at = ((x + 0.5) * scale, (y + 0.5) * scale)
        draw.circle(at, _RADIUS, fill=GRADE_COLOURS[grade], outline="#ffffff")
    counts = {grade: int((defects["grade"] == grade).sum()) for grade in GRADES}
    said = ", ".join(f"{count:,} {grade}" for grade, count in counts.items() if count)
    return Shot(
        np.asarray(canvas, np.uint8),
        alt=f"{shortened(image)} with its defects as dots: {said or 'none counts'}.",
        title=image,
        note=said or "no defect counts",
    )


def _shots_of(folder: Path, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[int, Shot]:
    record = read_record(folder)
    described = record["image"]
    names = stored_names(folder / LABEL_STORE)
    planes = [open_label_plane(folder / LABEL_STORE, name) for name in names]
    objects = pl.read_parquet(folder / OBJECTS).filter(
        pl.col("id").is_in([row["id"] for _, row in rows])
    )
    places = {row["id"]: row for row in objects.iter_rows(named=True)}
    skip = bool((record["area"] or {}).get("damaged"))
    try:
        if image_sha256(described["path"]) != described["sha256"]:
            return {}
        with open_image(described["path"], select=described["select"], skip_damaged=skip) as opened:
            return {i: _shot(opened, planes, row, places[row["id"]]) for i, row in rows}
    except (InputError, OSError):
        return {}


def _shot(
    image: Image, planes: Sequence[Any], defect: Mapping[str, Any], place: Mapping[str, Any]
) -> Shot:
    shape = (int(image.shape[1]), int(image.shape[2]))
    box = ((place["y0_px"], place["x0_px"]), (place["y1_px"], place["x1_px"]))
    (y0, x0), (y1, x1) = window_around(box, shape=shape)
    for_y, for_x = max(0, y1 - y0 - _LONGEST) // 2, max(0, x1 - x0 - _LONGEST) // 2
    y0, y1, x0, x1 = y0 + for_y, y1 - for_y, x0 + for_x, x1 - for_x
    label = int(place["label"])
    windows = (np.asarray(plane[y0:y1, x0:x1]) for plane in planes)
    labels = next((window for window in windows if (window == label).any()), None)
    if labels is None:
        labels = np.zeros((y1 - y0, x1 - x0), np.int32)
    drawn = draw_object(_grey(image[:, y0:y1, x0:x1]), labels, label)
    spacing = image.spacing_um or _spacing(defect)
    size = None if spacing is None else spacing[1] * (x1 - x0) / drawn.shape[1]
    name, grade = shortened(str(defect["class"]), 40), defect["grade"]
    return Shot(
        with_scale_bar(drawn, um_per_px=size),
        alt=f"{name}, {grade}, severity {defect['severity']:.1f}, outlined in the image.",
        title=f"{name}: {grade}",
        note=_note(defect),
    )


def _spacing(defect: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the pixel size of a defect whose image does not say: a die grid may."""
    area_um2, area_px = defect["area_um2"], defect["area_px"]
    if not area_um2 or not area_px:
        return None
    side = float(np.sqrt(area_um2 / area_px))
    return side, side


def _grey(part: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a part of an image as brightness, uint8 ``(H, W)``, stretched to its own range."""
    stretched = []
    for channel in np.asarray(part, np.float32):
        finite = channel[np.isfinite(channel)]
        low, high = np.percentile(finite, _RANGE) if finite.size else (0.0, 1.0)
        scaled = (np.nan_to_num(channel) - low) / max(float(high - low), 1e-12)
        stretched.append(np.clip(scaled, 0.0, 1.0))
    return np.asarray(np.rint(255 * np.mean(stretched, axis=0)), np.uint8)


def _note(defect: Mapping[str, Any]) -> str:
    """Return where the defect is, how large, and what its severity is made of."""
    parts = [f"no. {shortened(str(defect['id']), 9)}"]
    if defect["die_x"] is not None and defect["die_y"] is not None:
        parts.append(f"die {defect['die_x']}, {defect['die_y']}")
    if defect["area_um2"] is not None:
        parts.append(f"{written(defect['area_um2'], MEASURE)} µm²")
    elif defect["area_px"] is not None:
        parts.append(f"{defect['area_px']:,.0f} px")
    factors = " \u00d7 ".join(
        f"{word} {defect[f'{key}_factor']:.2f}"
        for word, key in (
            ("class", "weight"),
            ("zone", "zone"),
            ("size", "size"),
            ("contrast", "contrast"),
        )
    )
    return f"{', '.join(parts)}. Severity {defect['severity']:.1f} = 100 \u00d7 {factors}"
