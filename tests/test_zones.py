"""Zones: what lies in which, in the order of the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from domainseg.errors import InputError, MissingInputError
from domainseg.quality.rules import Zone
from domainseg.quality.zones import Area, Boxes, first_zone, read_zones


def zone(name: str = "pad", **values: Any) -> Zone:
    return Zone.model_validate({"name": name, "file": f"{name}.geojson", **values})


def square(x: float, y: float, side: float) -> list[list[list[float]]]:
    return [[[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]]


def written(folder: Path, name: str, *polygons: list[list[list[float]]]) -> None:
    shapes = {"type": "MultiPolygon", "coordinates": list(polygons)}
    (folder / f"{name}.geojson").write_text(json.dumps(shapes))


def at(*places: tuple[float, float], size: float = 2.0) -> Boxes:
    x, y = np.array(places, np.float64).reshape(-1, 2).T
    return Boxes(x, y, np.full(len(x), size), np.full(len(x), size))


def area(folder: Path, **values: Any) -> Area:
    written(folder, "pad", square(0, 0, 10))
    (made,) = read_zones([zone(**values)], folder)
    return made


def test_by_the_centroid_by_any_touch_and_by_a_share(tmp_path: Path) -> None:
    # A box of side 2: in the middle, half over the edge, a quarter in, beside, far.
    boxes = at((5, 5), (10, 5), (10.5, 5), (11, 5), (11.01, 5))
    held = {
        touch: area(tmp_path, touch=touch).holds(boxes).tolist()
        for touch in ("centroid", "any", "area>=0.5", "area>=0.25", "area>=1")
    }
    assert held == {
        "centroid": [True, True, False, False, False],
        "any": [True, True, True, True, False],
        "area>=0.5": [True, True, False, False, False],
        "area>=0.25": [True, True, True, False, False],
        "area>=1": [True, False, False, False, False],
    }


def test_a_box_that_is_given_is_taken_and_not_the_one_around_the_centroid(tmp_path: Path) -> None:
    boxes = Boxes(
        np.array([20.0]),
        np.array([5.0]),
        np.array([12.0]),
        np.array([1.0]),
        x0=np.array([9.0]),
        y0=np.array([4.5]),
    )
    assert area(tmp_path, touch="any").holds(boxes).tolist() == [True]
    assert area(tmp_path, touch="centroid").holds(boxes).tolist() == [False]


def test_a_point_without_a_size_lies_where_it_is(tmp_path: Path) -> None:
    boxes = at((5, 5), (10, 5), (11, 5), size=0.0)
    for touch in ("centroid", "any", "area>=0.7"):
        assert area(tmp_path, touch=touch).holds(boxes).tolist() == [True, True, False]


def test_holes_and_several_polygons(tmp_path: Path) -> None:
    holed = [*square(0, 0, 10), *square(4, 4, 2)]
    written(tmp_path, "pad", holed, square(20, 0, 5))
    (made,) = read_zones([zone()], tmp_path)
    assert made.holds(at((2, 2), (5, 5), (22, 2), (15, 2))).tolist() == [True, False, True, False]
    assert shapely.area(made.shape) == pytest.approx(100 - 4 + 25)
    assert len(made.sha256) == 64


def test_a_ring_that_crosses_itself_holds_both_of_its_halves(tmp_path: Path) -> None:
    bow = [[[0.0, 0.0], [4.0, 4.0], [4.0, 0.0], [0.0, 4.0], [0.0, 0.0]]]
    written(tmp_path, "pad", bow)
    (made,) = read_zones([zone()], tmp_path)
    assert made.holds(at((3, 2), (1, 2), (2, 3.5))).tolist() == [True, True, False]


def test_the_first_zone_holds(tmp_path: Path) -> None:
    written(tmp_path, "inner", square(4, 4, 2))
    written(tmp_path, "outer", square(0, 0, 10))
    boxes = at((5, 5), (1, 1), (30, 30))
    elsewhere = Zone(name="elsewhere")

    def numbers(*zones: Zone) -> list[int]:
        return [int(n) for n in first_zone(read_zones(zones, tmp_path), lambda _: boxes, 3)]

    inner, outer = zone("inner"), zone("outer")
    assert numbers(inner, outer) == [0, 1, -1]
    assert numbers(outer, inner) == [0, 0, -1]
    assert numbers(inner, outer, elsewhere) == [0, 1, 2]
    assert numbers() == [-1, -1, -1]


def test_each_zone_is_asked_in_its_own_frame_and_one_without_it_holds_nothing(
    tmp_path: Path,
) -> None:
    written(tmp_path, "die", square(0, 0, 1))
    written(tmp_path, "image", square(100, 100, 1))
    areas = read_zones([zone("die", frame="die"), zone("image", frame="image")], tmp_path)
    frames = {"die": at((0.5, 0.5), (50, 50)), "image": at((7, 7), (100.5, 100.5))}
    assert first_zone(areas, frames.__getitem__, 2).tolist() == [0, 1]
    assert first_zone(areas, {**frames, "die": None}.__getitem__, 2).tolist() == [-1, 1]
    assert first_zone(areas, lambda _frame: None, 3).tolist() == [-1, -1, -1]
    # What is everywhere holds in every frame, and without one.
    everywhere = read_zones([Zone(name="elsewhere")], tmp_path)
    assert first_zone(everywhere, lambda _frame: None, 2).tolist() == [0, 0]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"none\.geojson: found no such file"):
        read_zones([zone("none")], tmp_path)
    (tmp_path / "empty.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(InputError, match="found no polygon, wanted at least one"):
        read_zones([zone("empty")], tmp_path)
