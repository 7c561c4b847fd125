"""What was inspected together: units, and a table of their defects in one frame.

A unit is a wafer, a panel, a slide, or an image that stands for itself. Its frame is in
micrometres, y up, and has its origin in a wafer's centre, else in the lower left corner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

DEFECTS: Mapping[str, pl.DataType] = {
    "unit": pl.String(),
    "id": pl.String(),
    "class": pl.String(),
    "confidence": pl.Float64(),
    "area_um2": pl.Float64(),
    "feret_um": pl.Float64(),
    "length_um": pl.Float64(),
    "width_um": pl.Float64(),
    "eq_diameter_um": pl.Float64(),
    "solidity": pl.Float64(),
    "contrast": pl.Float64(),
    "x_um": pl.Float64(),
    "y_um": pl.Float64(),
    "box_width_um": pl.Float64(),
    "box_height_um": pl.Float64(),
    "die_x": pl.Int64(),
    "die_y": pl.Int64(),
    "die_xrel_um": pl.Float64(),
    "die_yrel_um": pl.Float64(),
    "kill_prob": pl.Float64(),
    "touches_border": pl.Boolean(),
    "truncated": pl.Boolean(),
    "image": pl.String(),
    "x_px": pl.Float64(),
    "y_px": pl.Float64(),
    "area_px": pl.Float64(),
    "box_width_px": pl.Float64(),
    "box_height_px": pl.Float64(),
    "inspected": pl.Boolean(),
}
"""Columns of the defects of a lot, null where not known: ``x_um`` and ``y_um`` in the unit's
frame, ``die_xrel_um`` and ``die_yrel_um`` from the die's lower left corner, ``length_um`` along
the centre line and ``width_um`` across it, ``x_px`` and ``y_px`` in the image, y down;
``truncated`` where it may go on outside of what was seen;
``kill_prob`` as the inspection file gives it, ``inspected`` false where it lies outside of what
was to be inspected."""


@dataclass(frozen=True, slots=True)
class Dies:
    """The dies of a wafer that were inspected.

    Attributes:
        index: int64 ``(N, 2)``, ``(xi, yi)``, each once; ``yi`` counts upwards. Where the
            inspected dies are not known, those with defects.
        pitch_um: ``(x, y)`` from one to the next.
        center_um: ``(x, y)`` of the wafer's centre from the lower left corner of die (0, 0).
        total: how many were inspected; None where that is not known.
    """

    index: NDArray[np.int64]
    pitch_um: tuple[float, float]
    center_um: tuple[float, float]
    total: int | None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def listed(self) -> bool:
        """Whether every inspected die is in ``index``."""
        return self.total == len(self.index)

    def lower_left_um(self) -> NDArray[np.float64]:
        """Return the corner of each die in the unit's frame, float64 ``(N, 2)``."""
        pitch, center = (np.array(v, np.float64) for v in (self.pitch_um, self.center_um))
        return np.asarray(self.index * pitch - center, np.float64)

    def number_of(self, xi: NDArray[np.int64], yi: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each die named, int64, -1 where it was not inspected."""
        if not len(self.index):
            return np.full(len(xi), -1, np.int64)
        keys = _keys(self.index[:, 0], self.index[:, 1])
        order = np.argsort(keys)
        wanted = _keys(np.asarray(xi), np.asarray(yi))
        at = order[np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)]
        return np.asarray(np.where(keys[at] == wanted, at, -1), np.int64)


def _keys(xi: NDArray[np.int64], yi: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number of its own for each die whose indices are below 2**31."""
    return np.asarray((xi.astype(np.int64) << 32) + yi, np.int64)


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """How good an image is to look at.

    Attributes:
        focus: sharpness, None where it was not measured.
        saturated: share of pixels at the ends of the range, None likewise.
        coverage: share of the image that was looked at, None likewise.
        images: how many images this is of.
        like: how many of them are like those that their model was trained on, by how they look
            and, where sizes are judged, by the sizes of their objects.
        unlike: how many are unlike them; of the others it is not known.
    """

    focus: float | None = None
    saturated: float | None = None
    coverage: float | None = 1.0
    images: int = 1
    like: int = 0
    unlike: int = 0


@dataclass(frozen=True, slots=True)
class Unit:
    """One thing that was inspected.

    Attributes:
        name: unique in the lot.
        lot: that it belongs to; empty where not known.
        area_cm2: inspected, None where the pixel size is not known.
        area_mpx: inspected, in million pixels; None where there is no image.
        diameter_mm: of a wafer, else None.
        notch: where a wafer's notch is.
        dies: of a wafer that were inspected, else None.
        extent_um: ``(width, height)`` of the one image that it is, None where there is none or its
            pixel size is not known.
        extent_px: the same in pixels.
        check: of its image, None without one.
        failed: images of it that could not be read.
        source: name of the file or folder that this comes from.
        sha256: of the source, or of its image.
        about: other facts, name to text, such as step and station.
        class_numbers: of the classes, as its source has them; empty where it has none.
    """

    name: str
    lot: str = ""
    area_cm2: float | None = None
    area_mpx: float | None = None
    diameter_mm: float | None = None
    notch: str = "down"
    dies: Dies | None = None
    extent_um: tuple[float, float] | None = None
    extent_px: tuple[float, float] | None = None
    check: ImageCheck | None = None
    failed: tuple[str, ...] = ()
    source: str = ""
    sha256: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    class_numbers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lot:
    """Units and their defects.

    Attributes:
        units: in the order in which they are reported.
        defects: columns as DEFECTS, sorted by unit, then in the order of their source.
        classes: names, also of those that no defect has.
        warnings: one sentence each.
    """

    units: tuple[Unit, ...]
    defects: pl.DataFrame
    classes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def empty_defects() -> pl.DataFrame:
    """Return a table of no defects."""
    return pl.DataFrame(schema=dict(DEFECTS))


def defect_table(columns: Mapping[str, Any], count: int) -> pl.DataFrame:
    """Return a table of ``count`` defects with these columns, the others null.

    Values that are not finite become null.
    """
    made = {
        name: pl.Series(name, values, dtype=kind, strict=False)
        if (values := columns.get(name)) is not None
        else pl.Series(name, [None] * count, dtype=kind)
        for name, kind in DEFECTS.items()
    }
    table = pl.DataFrame(made)
    floats = [name for name, kind in DEFECTS.items() if kind == pl.Float64()]
    return table.with_columns(
        pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats
    )


def joined(lots: Sequence[Lot]) -> Lot:
    """Return one lot of several, whose units have different names."""
    return Lot(
        units=tuple(unit for lot in lots for unit in lot.units),
        defects=pl.concat([empty_defects(), *(lot.defects for lot in lots)]),
        classes=tuple(dict.fromkeys(name for lot in lots for name in lot.classes)),
        warnings=tuple(dict.fromkeys(line for lot in lots for line in lot.warnings)),
    )
