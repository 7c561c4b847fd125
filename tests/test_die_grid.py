"""The die grid: pixels, micrometres, die indices and back, as KLARF counts them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainseg.errors import InputError, MissingInputError
from domainseg.quality.die_grid import DieGrid, read_die_grids

GRID = DieGrid(
    pitch_um=(12_000.0, 10_000.0),
    center_um=(5_000.0, 6_000.0),
    wafer_diameter_mm=300.0,
    spacing_um=(2.0, 4.0),
    wafer_center_px=(1_000.0, 500.0),
)

lengths = st.floats(0.1, 1e5)
places = st.floats(-3e5, 3e5)


def test_the_centre_of_the_wafer_is_where_sample_center_location_says() -> None:
    found = GRID.positions(1_000.0, 500.0)
    assert [float(value) for value in found] == [0, 0, 0, 0, 5_000, 6_000]


def test_rows_run_down_and_die_rows_run_up() -> None:
    found = GRID.positions([0.0, 4_000.0, 4_001.0], [500.0, 500.0, 3_000.0])
    assert found.y_um.tolist() == [2_000.0, -6_000.0, -6_002.0]
    assert found.yi.tolist() == [0, 0, -1]
    assert found.yrel.tolist() == [8_000.0, 0.0, 11_998.0]
    assert found.x_um.tolist() == [0.0, 0.0, 10_000.0]
    assert (found.xi.tolist(), found.xrel.tolist()) == ([0, 0, 1], [5_000.0, 5_000.0, 5_000.0])


@given(lengths, lengths, places, places, st.lists(st.tuples(places, places), min_size=1))
def test_index_and_rest_add_up_to_the_place(
    pitch_y: float, pitch_x: float, cx: float, cy: float, where: list[tuple[float, float]]
) -> None:
    grid = DieGrid(
        pitch_um=(pitch_y, pitch_x),
        center_um=(cx, cy),
        wafer_diameter_mm=300.0,
        spacing_um=(0.5, 0.25),
        wafer_center_px=(11.5, -7.0),
    )
    y_px, x_px = np.array(where).T
    found = grid.positions(y_px, x_px)
    np.testing.assert_allclose(found.xi * pitch_x + found.xrel - cx, found.x_um, atol=1e-9)
    np.testing.assert_allclose(found.yi * pitch_y + found.yrel - cy, found.y_um, atol=1e-9)
    assert ((found.xrel >= 0) & (found.xrel < pitch_x)).all()
    assert ((found.yrel >= 0) & (found.yrel < pitch_y)).all()
    back_y, back_x = grid.pixels(found.y_um, found.x_um)
    np.testing.assert_allclose(back_y, y_px, atol=1e-6)
    np.testing.assert_allclose(back_x, x_px, atol=1e-6)


def test_a_place_on_a_border_belongs_to_the_die_right_of_and_above_it() -> None:
    grid = DieGrid(
        pitch_um=(0.1, 0.1),
        center_um=(0.0, 0.0),
        wafer_diameter_mm=1.0,
        spacing_um=(1.0, 1.0),
        wafer_center_px=(0.0, 0.0),
    )
    found = grid.locate(np.zeros(2000), np.arange(2000) * 0.1)
    assert (np.abs(found.xi - np.arange(2000)) <= 1).all()
    assert ((found.xrel >= 0) & (found.xrel < 0.1)).all()
    np.testing.assert_allclose(found.xi * 0.1 + found.xrel, np.arange(2000) * 0.1, atol=1e-12)


def test_dies_are_those_whose_four_corners_are_on_the_wafer() -> None:
    grid = DieGrid(
        pitch_um=(2_000.0, 1_000.0),
        center_um=(500.0, 1_000.0),
        wafer_diameter_mm=7.0,
        spacing_um=(1.0, 1.0),
        wafer_center_px=(0.0, 0.0),
    )
    found = {tuple(row) for row in grid.dies().tolist()}
    wanted = set()
    for xi in range(-9, 10):
        for yi in range(-9, 10):
            x, y = (
                np.array([xi, xi + 1]) * 1_000.0 - 500.0,
                np.array([yi, yi + 1]) * 2_000.0 - 1e3,
            )
            if all(np.hypot(a, b) <= 3_500.0 for a in x for b in y):
                wanted.add((xi, yi))
    assert found == wanted
    assert len(found) == 11
    assert (0, 0) in found
    fewer = {tuple(row) for row in grid.dies(edge_exclusion_mm=1.0).tolist()}
    assert fewer == {(-1, 0), (0, 0), (1, 0)}
    assert len(grid.dies(edge_exclusion_mm=5.0)) == 0


def test_a_written_grid_is_read_for_every_image(tmp_path: Path) -> None:
    path = tmp_path / "die_grid.json"
    text = {
        "pitch_um": {"y": 12_000, "x": 10_000},
        "center_um": {"x": 5_000, "y": 6_000},
        "wafer_diameter_mm": 300,
        "spacing_um": {"y": 2, "x": 4},
        "dies": [[0, 0]],
        "images": {
            "a": {"wafer_center_px": {"y": 1_000, "x": 500}},
            "b": {"wafer_center_px": {"y": 0, "x": -9.5}},
        },
    }
    path.write_text(json.dumps(text), "utf-8")
    found = read_die_grids(path)
    assert found["a"] == GRID
    assert found["b"].wafer_center_px == (0.0, -9.5)
    del text["center_um"]
    path.write_text(json.dumps(text), "utf-8")
    with pytest.raises(InputError) as caught:
        read_die_grids(path)
    assert str(caught.value) == (
        f"{path}: found no die grid in it (KeyError: 'center_um'), wanted pitch_um, center_um, "
        "spacing_um and each image's wafer_center_px with x and y, wafer_diameter_mm, and the "
        "notch down; write the file again."
    )
    path.write_text(json.dumps({**text, "notch": "left"}), "utf-8")
    with pytest.raises(InputError, match="notch left: turn the images"):
        read_die_grids(path)
    with pytest.raises(MissingInputError) as missing:
        read_die_grids(tmp_path / "none.json")
    assert str(missing.value) == (
        f"{tmp_path / 'none.json'}: found no file, wanted a die_grid.json; check the path."
    )


def test_a_grid_without_size_is_refused() -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        DieGrid(
            pitch_um=(0.0, 1.0),
            center_um=(0.0, 0.0),
            wafer_diameter_mm=1.0,
            spacing_um=(1.0, 1.0),
            wafer_center_px=(0.0, 0.0),
        )
    with pytest.raises(ValueError, match="must be finite"):
        DieGrid(
            pitch_um=(1.0, 1.0),
            center_um=(0.0, float("nan")),
            wafer_diameter_mm=1.0,
            spacing_um=(1.0, 1.0),
            wafer_center_px=(0.0, 0.0),
        )
