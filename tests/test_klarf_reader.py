"""Real KLARF files read as another reader reads them, field by field."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainseg.quality.klarf import MARKS, Klarf, Wafer
from domainseg.quality.klarf_file import read_klarf

DATA = Path(__file__).parents[2] / "shared" / "data" / "klarf"
FILES = ("CPS3TwithoutReview.001", "QUU_NUU.000", "simple12.klarf")
"""Those of 1.1 and 1.2 that the other reader can read: it knows no 1.8, and of a file whose
lists begin on the line of their statement it says nothing."""
DEFECT = {
    "id": "DEFECTID",
    "x_rel": "XREL",
    "y_rel": "YREL",
    "x_index": "XINDEX",
    "y_index": "YINDEX",
    "x_size": "XSIZE",
    "y_size": "YSIZE",
    "area": "DEFECTAREA",
    "d_size": "DSIZE",
    "class_number": "CLASSNUMBER",
    "test_id": "TEST",
    "cluster_number": "CLUSTERNUMBER",
    "image_count": "IMAGECOUNT",
    "roughbin": "ROUGHBINNUMBER",
    "finebin": "FINEBINNUMBER",
}
SUMMARY = {
    "number_of_defects": "NDEFECT",
    "defect_density": "DEFDENSITY",
    "number_of_dies": "NDIE",
    "number_of_def_dies": "NDEFDIE",
}


def other(path: Path) -> Any:
    """Return what klarf-reader makes of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes in its patterns
        from klarf_reader.klarf import Klarf as Reader
    return Reader.load_from_file(path)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_another_reader_reads_it(name: str) -> None:
    mine, theirs = read_klarf(DATA / name), other(DATA / name)
    same_lot(mine, theirs)
    # It keeps one wafer of each name, the last.
    mine_by_name = {wafer.name: wafer for wafer in mine.wafers}
    assert set(mine_by_name) == {wafer.id for wafer in theirs.wafers}
    for wafer in theirs.wafers:
        same_wafer(mine_by_name[wafer.id], wafer, pitch_um=mine.pitch_um)


def same_lot(mine: Klarf, theirs: Any) -> None:
    assert float(mine.version) == theirs.file_version
    assert mine.lot == theirs.lot_id
    assert mine.pitch_um == (theirs.die_pitch.x, theirs.die_pitch.y)
    assert mine.diameter_mm == theirs.sample_size
    assert mine.mark == theirs.sample_orientation_mark_type.strip('"')  # which it leaves on
    assert mine.mark_degrees == MARKS[theirs.orientation_mark_location.strip('"').upper()]
    assert " ".join(mine.timestamps["FileTimestamp"]) == theirs.file_timestamp
    assert " ".join(mine.timestamps["ResultTimestamp"]) == theirs.result_timestamp
    station = theirs.inspection_station_id
    # It parts texts at their blanks, and takes the first three parts.
    parts = " ".join(mine.fields["InspectionStationID"]).split()[:3]
    assert parts == [station.mfg, station.model, station.id]
    assert mine.fields["SampleType"] == (theirs.sample_type,)
    assert mine.fields.get("DeviceID", (None,)) == (theirs.device_id,)
    assert mine.fields["StepID"] == (theirs.step_id,)
    name, *date = mine.fields["SetupID"]
    assert (name, " ".join(date)) == (theirs.setup_id.name, theirs.setup_id.date)
    plans = [test.plan for test in mine.wafers[0].tests if test.plan is not None]
    assert bool(plans) == theirs.has_sample_test_plan
    if plans:
        np.testing.assert_array_equal(
            plans[0], np.stack([theirs.sample_plan_test.x, theirs.sample_plan_test.y], axis=1)
        )


def same_wafer(mine: Wafer, theirs: Any, *, pitch_um: tuple[float, float] | None) -> None:
    assert mine.slot == theirs.slot
    assert mine.die_origin_um == (theirs.die_origin.x, theirs.die_origin.y)
    center = theirs.sample_center_location
    assert mine.center_um == (center.x, center.y)
    assert [(test.number, test.area_um2) for test in mine.tests] == [
        (test.id, test.area) for test in theirs.tests
    ]
    assert len(mine.defects) == len(theirs.defects)
    columns = mine.defects.columns
    for field, column in DEFECT.items():
        wanted = [getattr(defect, field) for defect in theirs.defects]
        got = columns.get(column, np.zeros(len(wanted)))
        np.testing.assert_array_equal(got, wanted, err_msg=column)
    # Its points are the places from the wafer's centre.
    assert pitch_um is not None
    x = columns["XINDEX"] * pitch_um[0] + columns["XREL"] - mine.center_um[0]
    y = columns["YINDEX"] * pitch_um[1] + columns["YREL"] - mine.center_um[1]
    np.testing.assert_allclose(np.stack([x, y], 1), [d.point for d in theirs.defects], atol=1e-6)
    for field, column in SUMMARY.items():
        assert mine.summary.columns[column][0] == getattr(theirs.summary, field)
