"""A lot out of KLARF files: what another tool found, to be reported on without images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.quality.klarf import InspectionTest, Klarf, Table, Wafer
from domainseg.quality.lot import Dies, Lot, Unit, defect_table, joined

UM2_PER_CM2 = 1e8
MOST_DIES_ACROSS = 4096
"""Of a wafer; one of 300 mm has dies of 0.07 mm then."""
NOTCHES = {0.0: "down", 90.0: "left", 180.0: "up", 270.0: "right"}


@dataclass(frozen=True, slots=True)
class Origin:
    """The file that a KLARF was read from."""

    name: str
    sha256: str


def lot_of_klarf(klarf: Klarf, origin: Origin) -> Lot:
    """Return the wafers of a KLARF file as a lot.

    Places are measured from the wafer's centre. Areas and diameters are those that the tool
    wrote: what it means by them is its own business, and the report says so.

    Raises:
        InputError: there is no wafer, or one without a centre or a pitch of dies.
    """
    if not klarf.wafers:
        raise InputError(
            sentence(
                origin.name, found="no wafer", wanted="at least one", fix="export it with results"
            )
        )
    return joined([_wafer(klarf, wafer, origin) for wafer in klarf.wafers])


def _wafer(klarf: Klarf, wafer: Wafer, origin: Origin) -> Lot:
    name = f"{klarf.lot}/{wafer.name}" if klarf.lot else wafer.name
    pitch, center = klarf.pitch_um, wafer.center_um
    if pitch is None or center is None:
        missing = "DiePitch" if pitch is None else "SampleCenterLocation"
        raise InputError(
            sentence(
                f"{origin.name}, wafer {wafer.name}",
                found=f"no {missing}",
                wanted="both it and the places of the defects",
                fix="export it with the die grid",
            )
        )
    warnings: list[str] = []
    where = f"{origin.name}, wafer {wafer.name}"
    _require_lengths(klarf, wafer, where)
    table = wafer.defects
    count = len(table)
    place = {
        axis: (_column(table, f"{axis}INDEX"), _near(_column(table, f"{axis}REL"), side))
        for axis, side in zip("XY", pitch, strict=True)
    }
    for axis, (index, _) in place.items():
        _require_index(index, f"{axis}INDEX", where)
    dies = _dies(wafer, pitch, center, place)
    inspected = _inspected(dies, place)
    warnings += _places_lacking(name, place, inspected)
    if not dies.listed:
        warnings.append(f"{name}: the file does not list the inspected dies")
    area = _area_um2(wafer.tests)
    if area is None and dies.total:
        area = dies.total * pitch[0] * pitch[1]
        warnings.append(f"{name}: the file does not give the inspected area, its dies' is taken")
    classes = _classes(klarf, table)
    # Writers put 0 where nothing was measured.
    square, feret = (_known(_column(table, key)) for key in ("DEFECTAREA", "DSIZE"))
    kill = _column(table, "KILLPROB")
    if wrong := int(np.count_nonzero((kill < 0) | (kill > 1))):
        warnings.append(f"{name}: {wrong:,} KILLPROB are no chance from 0 to 1: not known")
        kill = np.where((kill >= 0) & (kill <= 1), kill, np.nan)
    defects = defect_table(
        {
            "unit": [name] * count,
            "id": [str(value) for value in _column(table, "DEFECTID").astype(np.int64).tolist()]
            if "DEFECTID" in table.columns
            else [str(number) for number in range(1, count + 1)],
            "class": classes,
            "area_um2": square,
            "feret_um": feret,
            "eq_diameter_um": np.sqrt(4 / np.pi * square),
            "contrast": _column(table, "CONTRAST"),
            "x_um": place["X"][0] * pitch[0] + place["X"][1] - center[0],
            "y_um": place["Y"][0] * pitch[1] + place["Y"][1] - center[1],
            "box_width_um": _column(table, "XSIZE"),
            "box_height_um": _column(table, "YSIZE"),
            "die_x": _whole(place["X"][0]),
            "die_y": _whole(place["Y"][0]),
            "die_xrel_um": place["X"][1],
            "die_yrel_um": place["Y"][1],
            "kill_prob": kill,
            "inspected": inspected,
        },
        count,
    )
    unit = Unit(
        name=name,
        lot=klarf.lot,
        area_cm2=None if area is None else area / UM2_PER_CM2,
        diameter_mm=klarf.diameter_mm or None,
        notch=NOTCHES.get(klarf.mark_degrees or 0.0, "down"),
        dies=dies,
        source=origin.name,
        sha256=origin.sha256,
        about=_about(klarf, wafer),
        class_numbers=_numbers(klarf, table),
    )
    known = [klarf.classes[number] for number in sorted(klarf.classes)]
    return Lot((unit,), defects, tuple(dict.fromkeys([*known, *classes])), tuple(warnings))


def _column(table: Table, name: str) -> NDArray[np.float64]:
    """Return a column of numbers, NaN where there is none."""
    values = table.columns.get(name)
    if values is None or values.dtype == object:
        return np.full(len(table), np.nan)
    return np.asarray(values, np.float64)


def _near(values: NDArray[np.float64], pitch: float) -> NDArray[np.float64]:
    """Return places in a die, NaN where they are farther off than ten dies and so are none."""
    return np.where(np.abs(values) <= 10 * pitch, values, np.nan)


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sizes, NaN where they are 0 or below."""
    return np.where(values > 0, values, np.nan)


def _require_lengths(klarf: Klarf, wafer: Wafer, where: str) -> None:
    """Raise InputError where a length or an area cannot be."""
    pitch = klarf.pitch_um or (1.0,)
    least = [test.area_um2 for test in wafer.tests if test.area_um2 is not None]
    if klarf.diameter_mm is not None:
        least.append(klarf.diameter_mm)
    for name, fits in (
        ("DiePitch", all(np.isfinite(v) and v > 0 for v in pitch)),
        ("SampleSize or AreaPerTest", all(np.isfinite(v) and v >= 0 for v in least)),
    ):
        if not fits:
            wanted = "lengths above 0" if name == "DiePitch" else "numbers of 0 or more"
            raise InputError(
                sentence(
                    where, found=f"{name} that cannot be", wanted=wanted, fix="correct the line"
                )
            )
    if wafer.center_um is not None and not np.isfinite(wafer.center_um).all():
        raise InputError(
            sentence(
                where, found="no SampleCenterLocation", wanted="x and y of it", fix="correct it"
            )
        )
    for test in wafer.tests:
        if test.plan is not None:
            for column, name in zip(test.plan.T, ("XINDEX", "YINDEX"), strict=True):
                _require_index(column.astype(np.float64), f"SampleTestPlan {name}", where)
    numbers = _column(wafer.defects, "CLASSNUMBER")
    _require_whole(numbers, "CLASSNUMBER", where, most=2**31)


def _require_index(values: NDArray[np.float64], name: str, where: str) -> None:
    """Raise InputError unless indices of dies are whole, and no wafer has dies so far apart."""
    _require_whole(values, name, where, most=2**31)
    known = values[np.isfinite(values)]
    if len(known) and np.ptp(known) >= MOST_DIES_ACROSS:
        raise InputError(
            sentence(
                where,
                found=f"{name} from {known.min():g} to {known.max():g}",
                wanted=f"at most {MOST_DIES_ACROSS:,} dies across a wafer",
                fix="correct the numbers of the dies",
            )
        )


def _require_whole(values: NDArray[np.float64], name: str, where: str, *, most: int) -> None:
    wrong = np.isfinite(values) & ((values != np.floor(values)) | (np.abs(values) >= most))
    if wrong.any():
        raise InputError(
            sentence(
                where,
                found=f"{name} {values[wrong][0]:g}",
                wanted=f"a whole number between -{most:,} and {most:,}",
                fix="correct the row",
            )
        )


def _inspected(
    dies: Dies, place: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> NDArray[np.bool_]:
    """Return which defects lie on inspected dies; all where these are not listed."""
    x, y = place["X"][0], place["Y"][0]
    inside = np.ones(len(x), bool)
    if dies.listed:
        known = np.isfinite(x) & np.isfinite(y)
        inside[known] = dies.number_of(x[known].astype(np.int64), y[known].astype(np.int64)) >= 0
    return inside


def _places_lacking(
    name: str,
    place: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    inspected: NDArray[np.bool_],
) -> list[str]:
    """Return a sentence on defects without a place, and on those off the inspected dies."""
    lacking = np.zeros(len(inspected), bool)
    for index, within in place.values():
        lacking |= ~np.isfinite(index) | ~np.isfinite(within)
    made = []
    if count := int(np.count_nonzero(lacking)):
        made.append(f"{name}: the place of {count:,} of {len(inspected):,} defects is not known")
    if count := int(np.count_nonzero(~inspected)):
        made.append(f"{name}: {count:,} defects lie on dies that were not inspected: ignored")
    return made


def _whole(values: NDArray[np.float64]) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64).fill_nan(None).cast(pl.Int64)


def _classes(klarf: Klarf, table: Table) -> list[str]:
    """Return the name of each defect's class; its number where the file has no name for it."""
    numbers = _column(table, "CLASSNUMBER")
    names = {float(number): text or f"class {number}" for number, text in klarf.classes.items()}
    return [
        names.get(number, "unclassified" if np.isnan(number) else f"class {number:g}")
        for number in numbers.tolist()
    ]


def _numbers(klarf: Klarf, table: Table) -> dict[str, int]:
    """Return the number of each class by the name that `_classes` gives it."""
    numbers = _column(table, "CLASSNUMBER")
    known = {text or f"class {number}": number for number, text in klarf.classes.items()}
    met = dict(zip(_classes(klarf, table), numbers.tolist(), strict=True))
    return known | {name: int(n) for name, n in met.items() if not np.isnan(n)}


def _dies(
    wafer: Wafer,
    pitch: tuple[float, float],
    center: tuple[float, float],
    place: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> Dies:
    plans = [test.plan for test in wafer.tests if test.plan is not None]
    if plans:
        index = np.unique(np.concatenate(plans), axis=0)
        return Dies(index, pitch, center, len(index))
    places = np.stack([place["X"][0], place["Y"][0]], 1)
    index = np.unique(places[np.isfinite(places).all(1)].astype(np.int64), axis=0)
    counts = _column(wafer.summary, "NDIE")
    known = counts[np.isfinite(counts)]
    total = int(known.max()) if len(known) and known.max() < 2**31 else None
    if total is not None and total < len(index):
        total = None  # several tests of other dies each, or a wrong number
    return Dies(index, pitch, center, total)


def _area_um2(tests: tuple[InspectionTest, ...]) -> float | None:
    """Return the inspected area: tests of the same dies look at the same area, once.

    A test adds the share of its area that lies on dies no test before it has looked at.
    """
    seen: set[tuple[int, int]] = set()
    total, known = 0.0, False
    for test in tests:
        if test.area_um2 is None:
            continue
        dies = set() if test.plan is None else set(map(tuple, test.plan.tolist()))
        new = len(dies - seen) / len(dies) if dies else float(not known)
        total, known = total + new * test.area_um2, True
        seen |= dies
    return total if known else None


def _about(klarf: Klarf, wafer: Wafer) -> dict[str, str]:
    said = {**klarf.fields, **klarf.timestamps}
    about = {
        name: " ".join(said[key])
        for name, key in (
            ("device", "DeviceID"),
            ("step", "StepID"),
            ("station", "InspectionStationID"),
            ("inspected at", "ResultTimestamp"),
        )
        if said.get(key)
    }
    if said.get("SetupID"):
        about["setup"] = said["SetupID"][0]
    if wafer.slot is not None:
        about["slot"] = str(wafer.slot)
    return about
