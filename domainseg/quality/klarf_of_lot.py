"""KLARF out of a lot that was judged: one file per wafer, with its severities."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from domainseg.quality.assess import Assessment
from domainseg.quality.klarf import MARKS, InspectionTest, Klarf, Table, Version, Wafer
from domainseg.quality.lot import Unit
from domainseg.quality.lot_klarf import UM2_PER_CM2

STATION = ("DOMAINSEG", "domainseg")
NO_TIME = ("01-01-1970", "00:00:00")
"""Of files whose inspection has no known time: equal inputs give equal bytes."""


def klarf_of(made: Assessment, unit: Unit, *, version: Version, software: str) -> Klarf:
    """Return the result file of one wafer: defects that count, and those to review.

    DEFECTID is that of the source where it has numbers. KILLPROB holds the chance of a kill,
    CONTRAST the contrast against the ring, both where all are known, SEVERITY (a
    column of this software) the severity; DEFECTAREA is the area of the mask and DSIZE the
    largest caliper diameter. REVIEWSAMPLE is 1 where someone has to look, REPEATER where many
    dies have a defect at the same place.

    Raises:
        ValueError: the unit has no dies.
    """
    if unit.dies is None:
        raise ValueError(f"{unit.name} has no dies, wanted a wafer")
    mine = made.defects.filter(
        (pl.col("unit") == unit.name)
        & (pl.col("grade") != "ignore")
        & pl.col("die_x").is_not_null()
        & pl.col("die_y").is_not_null()
    )
    numbers = _class_numbers(made, unit)
    classes = {number: name for name, number in numbers.items()}
    when = _time(unit)
    clusters = mine["cluster"].to_numpy()
    nothing = np.zeros(len(mine), np.int64)
    columns = {
        "DEFECTID": _ids(mine),
        "XREL": _within(mine["die_xrel_um"], unit.dies.pitch_um[0]),
        "YREL": _within(mine["die_yrel_um"], unit.dies.pitch_um[1]),
        "XINDEX": mine["die_x"].to_numpy(),
        "YINDEX": mine["die_y"].to_numpy(),
        "XSIZE": _numbers(mine["box_width_um"]),
        "YSIZE": _numbers(mine["box_height_um"]),
        "DEFECTAREA": _numbers(mine["area_um2"]),
        "DSIZE": _numbers(mine["feret_um"]),
        "CLASSNUMBER": np.array([numbers[name] for name in mine["class"]], np.int64),
        "TEST": nothing + 1,
        "CLUSTERNUMBER": clusters,
        "ROUGHBINNUMBER": nothing,
        "FINEBINNUMBER": nothing,
        "REVIEWSAMPLE": (mine["grade"] == "review").cast(pl.Int64).to_numpy(),
        **_known(mine, {"KILLPROB": "kill_prob", "CONTRAST": "contrast"}),
        "SEVERITY": mine["severity"].to_numpy(),
    } | _repeats(made, mine)
    columns["IMAGECOUNT"] = nothing
    counted = mine.filter(pl.col("counts"))
    defective = counted.select("die_x", "die_y").n_unique() if len(counted) else 0
    area = unit.area_cm2 or 0.0
    total = unit.dies.total if unit.dies.total is not None else len(unit.dies)
    summary = {
        "TESTNO": np.array([1]),
        "NDEFECT": np.array([len(counted)]),
        "DEFDENSITY": np.array([len(counted) / area if area else 0.0]),
        "NDIE": np.array([total]),
        "NDEFDIE": np.array([defective]),
    }
    wafer = Wafer(
        name=unit.name.rpartition("/")[2],
        slot=int(slot) if (slot := unit.about.get("slot", "")).isdecimal() else None,
        center_um=unit.dies.center_um,
        tests=(
            InspectionTest(1, area * UM2_PER_CM2, unit.dies.index if unit.dies.listed else None),
        ),
        defects=Table(columns),
        summary=Table(summary),
    )
    mark = {"down": "DOWN", "left": "LEFT", "up": "UP", "right": "RIGHT"}[unit.notch]
    return Klarf(
        version=version,
        lot=unit.lot,
        pitch_um=unit.dies.pitch_um,
        diameter_mm=unit.diameter_mm,
        mark="NOTCH",
        mark_degrees=float(MARKS[mark]),
        classes={0: "Unclassified"} | classes,
        wafers=(wafer,),
        timestamps={"FileTimestamp": when, "ResultTimestamp": when},
        fields={
            "InspectionStationID": (*STATION, software),
            "SampleType": ("WAFER",),
            "DeviceID": (unit.about.get("device", ""),),
            "SetupID": (unit.about.get("setup", ""), *when),
            "StepID": (unit.about.get("step", ""),),
        },
    )


def _time(unit: Unit) -> tuple[str, ...]:
    """Return date and time of the inspection as two words, as a result file or a manifest has it.

    A date in the order of ISO 8601 becomes month, day and year, as KLARF has it.
    """
    told = unit.about.get("inspected at") or unit.about.get("captured at") or ""
    iso = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?))?.*", told.strip())
    if iso:
        year, month, day, clock = iso.groups()
        clock = clock or "00:00:00"
        return f"{month}-{day}-{year}", clock if len(clock) == 8 else f"{clock}:00"
    words = tuple(told.split())
    return words if len(words) == 2 else NO_TIME


def _ids(mine: pl.DataFrame) -> np.ndarray[Any, Any]:
    """Return the number of each defect: its own where all have one, else from 1 on."""
    own = mine["id"].cast(pl.Int64, strict=False)
    if own.null_count() or not own.is_between(0, 2**31 - 1).all() or own.n_unique() < len(own):
        return np.arange(1, len(mine) + 1)
    return own.to_numpy()


def _known(mine: pl.DataFrame, columns: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns of which every value is known: a file has no word for one that is not."""
    return {
        name: mine[column].to_numpy()
        for name, column in columns.items()
        if not mine[column].null_count()
    }


def _repeats(made: Assessment, mine: pl.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    """Return the column REPEATER where repeaters were looked for."""
    if made.rules.detection.repeaters is None:
        return {}
    return {"REPEATER": mine["repeater"].cast(pl.Int64).to_numpy()}


def _class_numbers(made: Assessment, unit: Unit) -> dict[str, int]:
    """Return the number of each class: that of the unit's source, else the next that is free."""
    numbers = dict(unit.class_numbers)
    taken = set(numbers.values()) | {0}
    for name in made.lot.classes:
        if name not in numbers:
            numbers[name] = max(taken) + 1
            taken.add(numbers[name])
    return numbers


def _numbers(values: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a column, 0 where it is not known: readers take no NA in 1.1 and 1.2."""
    return values.fill_null(0.0).to_numpy()


def _within(values: pl.Series, pitch: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return places in a die, inside it after rounding too."""
    return np.clip(_numbers(values), 0.0, np.nextafter(pitch, 0.0))
