"""What images are of: a table that says of each which unit it shows, of which lot, when and where.

A CSV (UTF-8, comma or semicolon) with a head; ``image`` and ``unit_id`` are needed, of ``lot``,
``step``, ``captured_at``, ``station``, ``slot``, ``pixel_size_um_x`` and ``pixel_size_um_y`` what
is known. Several images may be of one unit. An image that the table names and no run is of
could not be inspected: the unit lacks it, and the verdict says so.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.records import Spacing

NEEDED = ("image", "unit_id")
SAID = ("step", "captured_at", "station", "slot")
"""Columns whose text is kept as it is."""
SIZES = ("pixel_size_um_y", "pixel_size_um_x")
KNOWN = (*NEEDED, "lot", *SAID, *SIZES)
_MOST_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class ImageOf:
    """What is known of an image.

    Attributes:
        image: its name, as the run's, without an ending.
        unit: that it shows, or a part of.
        lot: of the unit; empty where not known.
        about: other facts, name to text.
        spacing_um: pixel size ``(y, x)``, None where not known.
        line: of the table.
    """

    image: str
    unit: str
    lot: str
    about: Mapping[str, str]
    spacing_um: Spacing | None
    line: int


def read_manifest(path: Path) -> dict[str, ImageOf]:
    """Return what a table says of each image, by the image's name without its ending.

    Raises:
        MissingInputError: it is not there.
        InputError: it is no such table, a column is missing or unknown, an image stands in it
            twice, or a size is no number above 0; names the line.
    """
    text = _text(path)
    first = text.split("\n", 1)[0]
    rows = csv.DictReader(
        text.splitlines(), delimiter=";" if ";" in first and "," not in first else ","
    )
    names = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = names
    if missing := [name for name in NEEDED if name not in names]:
        raise _refused(path, 1, f"no column {missing[0]}", f"the columns {' and '.join(NEEDED)}")
    if unknown := [name for name in names if name not in KNOWN]:
        raise _refused(path, 1, f"the column '{unknown[0]}'", f"some of {', '.join(KNOWN)}")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise _refused(path, 1, f"two columns {repeated[0]}", "each once")
    found: dict[str, ImageOf] = {}
    try:
        for row in rows:
            one = _row(path, rows.line_num, row)
            if one.image in found:
                before = found[one.image].line
                raise _refused(
                    path, one.line, f"the image {one.image} again", f"it once, as in line {before}"
                )
            found[one.image] = one
    except csv.Error as error:
        raise _refused(path, rows.line_num, f"no table ({error})", "a CSV") from error
    if not found:
        raise _refused(path, 1, "no image", "a row for each image")
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _refused(path, 1, f"more than {_MOST_BYTES >> 20} MB", "a table of images")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingInputError(
            sentence(path, found="nothing", wanted="a CSV of images", fix="check the path")
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(path, 1, "no text in UTF-8", "a CSV of images") from error


def _row(path: Path, line: int, row: Mapping[str | None, str | None]) -> ImageOf:
    if None in row or None in row.values():
        raise _refused(path, line, "another number of values", "one for each column")
    given = {str(name): (value or "").strip() for name, value in row.items()}
    for name in NEEDED:
        if not given[name]:
            raise _refused(path, line, f"no {name}", f"a {name} in every row")
    sizes = [_size(path, line, name, given.get(name, "")) for name in SIZES]
    if (sizes[0] is None) != (sizes[1] is None):
        raise _refused(path, line, "the pixel size along one axis", "both or neither")
    return ImageOf(
        image=image_name(given["image"]),
        unit=given["unit_id"],
        lot=given.get("lot", ""),
        about={name.replace("_", " "): given[name] for name in SAID if given.get(name)},
        spacing_um=None if sizes[0] is None or sizes[1] is None else (sizes[0], sizes[1]),
        line=line,
    )


def image_name(text: str) -> str:
    """Return the name of an image without folders and endings: what a run is called by."""
    name = PurePath(text.replace("\\", "/")).name
    for ending in (".ome.tif", ".ome.tiff", ".ome.zarr"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return PurePath(name).stem if PurePath(name).suffix.lower() in _ENDINGS else name


_ENDINGS = frozenset(
    (
        *(".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
        *(".mrxs", ".ndpi", ".npy", ".qptiff", ".scn", ".svs", ".zarr"),
    )
)


def _size(path: Path, line: int, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise _refused(path, line, f"{name} '{text}'", "a size above 0 in micrometres")
    return value


def _refused(path: Path, line: int, found: str, wanted: str) -> InputError:
    return InputError(sentence(f"{path}, line {line}", found=found, wanted=wanted, fix="change it"))
