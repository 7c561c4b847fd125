"""Where objects lie on a wafer and in its dies, by hand and by what must hold everywhere."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainseg.quality.die_grid import DieGrid
from domainseg.quality.positions import position_columns

GRID = DieGrid(
    pitch_um=(100.0, 50.0),
    center_um=(20.0, 30.0),
    wafer_diameter_mm=200.0,
    spacing_um=(2.0, 0.5),
    wafer_center_px=(40.0, 60.0),
)
NAMES = (
    "wafer_x_um",
    "wafer_y_um",
    "radius_um",
    "die_x",
    "die_y",
    "die_xrel_um",
    "die_yrel_um",
)


def places(*centroids: tuple[float, float]) -> pl.DataFrame:
    ys, xs = zip(*centroids, strict=True) if centroids else ((), ())
    table = pl.DataFrame({"y_px": ys, "x_px": xs}, schema={"y_px": pl.Float64, "x_px": pl.Float64})
    return position_columns(table, GRID)


def test_the_centre_of_the_wafer_is_where_its_die_says() -> None:
    assert places((40, 60)).rows(named=True) == [
        dict(zip(NAMES, (0.0, 0.0, 0.0, 0, 0, 20.0, 30.0), strict=True))
    ]


def test_y_goes_up_and_dies_are_counted_from_the_lower_left() -> None:
    # 50 px above and 100 px to the left of the centre: 100 um up, 50 um to the left.
    (row,) = places((-10, -40)).rows(named=True)
    assert row == {
        "wafer_x_um": -50.0,
        "wafer_y_um": 100.0,
        "radius_um": pytest.approx(np.hypot(50, 100)),
        "die_x": -1,
        "die_y": 1,
        "die_xrel_um": 20.0,
        "die_yrel_um": 30.0,
    }


def test_no_objects_have_the_same_columns() -> None:
    table = places()
    assert tuple(table.columns) == NAMES
    assert table.schema == places((1, 1)).schema
    assert table.height == 0


@given(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_die_and_place_in_it_give_the_place_on_the_wafer(y: float, x: float) -> None:
    (row,) = places((y, x)).rows(named=True)
    assert 0 <= row["die_xrel_um"] < 50
    assert 0 <= row["die_yrel_um"] < 100
    back_x = row["die_x"] * 50 + row["die_xrel_um"] - 20
    back_y = row["die_y"] * 100 + row["die_yrel_um"] - 30
    assert back_x == pytest.approx(row["wafer_x_um"], abs=1e-6)
    assert back_y == pytest.approx(row["wafer_y_um"], abs=1e-6)
    assert row["radius_um"] == pytest.approx(np.hypot(back_y, back_x), abs=1e-6)
