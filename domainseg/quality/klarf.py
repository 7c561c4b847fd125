"""KLARF: the result file of wafer inspection, read and written in versions 1.1, 1.2 and 1.8.

In memory lengths are micrometres and areas square micrometres, as in 1.1 and 1.2; version 1.8
has nanometres. Statements, columns and lists of the lot and of a wafer that this module has no
name for are kept as they were and written again where the version has a place for them; of a
statement that repeats, the last. Not kept are, in 1.8, other records, and other fields and lists
of the records of tests and summaries.

No specification of the format is public. What is known is from files of inspection tools and
from open readers: jklarfreader (MIT), klarf-reader (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainseg.records import Array

Version = Literal["1.1", "1.2", "1.8"]
VERSIONS: tuple[Version, ...] = ("1.1", "1.2", "1.8")
MARKS = {"DOWN": 0, "LEFT": 90, "UP": 180, "RIGHT": 270}
"""Where the notch or flat is, and the degrees that 1.8 writes for it."""
LENGTHS = frozenset(
    {"X", "Y", "XREL", "YREL", "XSIZE", "YSIZE", "DSIZE", "DMAX", "GDSX", "GDSY", "CELLSIZE"}
)
"""Columns in micrometres; nanometres in 1.8."""
AREAS = frozenset({"DEFECTAREA", "CRITICALAREA", "AREAPERTEST", "INSPAREA"})
"""Columns in square micrometres; square nanometres in 1.8."""
INTEGERS = frozenset(
    {
        "DEFECTID",
        "XINDEX",
        "YINDEX",
        "CLASSNUMBER",
        "TEST",
        "CLUSTERNUMBER",
        "ROUGHBINNUMBER",
        "FINEBINNUMBER",
        "REVIEWSAMPLE",
        "IMAGECOUNT",
        "TESTNO",
        "NDEFECT",
        "NDIE",
        "NDEFDIE",
    }
)
"""Columns that hold whole numbers."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a list, column by column.

    Attributes:
        columns: name to its values, all of one length: float64, NaN where the file says
            ``NA``; int64 where every value is a whole number and the column is one of
            INTEGERS; object, of text, where a value is none.
    """

    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len({len(values) for values in self.columns.values()}) > 1:
            raise ValueError("the columns of a table differ in length")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


@dataclass(frozen=True, slots=True)
class Image:
    """A picture of a defect.

    Attributes:
        number: of the image in its file, or of its defect where each has a file of its own.
        kind: type of image, a number in 1.1 and 1.2, text such as ``Patch`` in 1.8.
        file: that holds it; empty where none was named.
        format: of the file, as 1.8 names it.
    """

    number: int
    kind: str
    file: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True)
class InspectionTest:
    """What one inspection test looked at.

    Attributes:
        number: of the test; the column TEST of the defects names it.
        area_um2: inspected; None where the file does not say.
        plan: int64 ``(N, 2)``, ``(xi, yi)`` of the inspected dies; None where it does not say.
    """

    number: int
    area_um2: float | None = None
    plan: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Wafer:
    """The results of one wafer.

    Attributes:
        name: WaferID.
        slot: in its carrier; None where the file does not say.
        die_origin_um: ``(x, y)``.
        center_um: ``(x, y)`` of the wafer's centre from the lower left corner of die (0, 0).
        tests: in the order of the file.
        defects: one row each, without IMAGELIST.
        images: row of the defects to its pictures.
        summary: one row per test.
        fields: other statements, name to what follows it, texts without their quotes.
        tables: other lists of 1.8.
    """

    name: str
    slot: int | None = None
    die_origin_um: tuple[float, float] = (0.0, 0.0)
    center_um: tuple[float, float] | None = None
    tests: tuple[InspectionTest, ...] = ()
    defects: Table = field(default_factory=Table)
    images: Mapping[int, tuple[Image, ...]] = field(default_factory=dict)
    summary: Table = field(default_factory=Table)
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Klarf:
    """One result file.

    Attributes:
        version: of the file.
        lot: LotID.
        pitch_um: ``(x, y)`` from one die to the next.
        diameter_mm: of the wafer.
        mark: ``NOTCH`` or ``FLAT``.
        mark_degrees: clockwise from down, as 1.8 counts; None where the file does not say.
        classes: number to name.
        class_codes: number to the code that 1.8 keeps beside the name, where it has one.
        wafers: in the order of the file.
        timestamps: name to date and time as written: FileTimestamp, ResultTimestamp.
        fields: other statements of the file and the lot, such as DeviceID, StepID, SetupID.
        tables: other lists of the lot in 1.8.
        dropped: what a file of 1.8 held that there is no place for here, a phrase each.
    """

    version: Version
    lot: str = ""
    pitch_um: tuple[float, float] | None = None
    diameter_mm: float | None = None
    mark: str | None = None
    mark_degrees: float | None = None
    classes: Mapping[int, str] = field(default_factory=dict)
    class_codes: Mapping[int, str] = field(default_factory=dict)
    wafers: tuple[Wafer, ...] = ()
    timestamps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
