"""Windows spread over an image, and over what of it is inspected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainseg.images.regions import Inspected, read_regions
from domainseg.images.resample import Grid
from domainseg.images.windows import Window, inspected_windows, spread_windows


def square(path: Path, x: float, y: float, side: float) -> Path:
    """Write a polygon."""
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [corners]}))
    return path


def grid(shape: tuple[int, int], scale: float) -> Grid:
    """Return a model grid."""
    return Grid((scale, scale), (round(shape[0] * scale), round(shape[1] * scale)), shape)


def middles(windows: Sequence[Window]) -> list[tuple[float, float]]:
    return [
        ((rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2)
        for rows, columns in windows
    ]


@given(
    shape=st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
    most=st.sampled_from([1, 4, 9, 16]),
    side=st.sampled_from([1, 64, 256]),
)
def test_windows_are_few_of_one_size_and_inside(
    shape: tuple[int, int], most: int, side: int
) -> None:
    found = list(spread_windows(shape, most=most, side=side))
    assert 1 <= len(found) <= most
    assert len({(rows.start, columns.start) for rows, columns in found}) == len(found)
    for window in found:
        for span, size in zip(window, shape, strict=True):
            assert span.start >= 0
            assert span.stop <= size
            assert span.stop - span.start == min(side, size)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_a_small_region_of_a_large_image_has_the_windows(tmp_path: Path, scale: float) -> None:
    shape = (40_000, 60_000)
    regions = read_regions(square(tmp_path / "roi.geojson", 31_007.5, 20_003, 900))
    found = inspected_windows(
        grid(shape, scale), Inspected(shape, regions=regions), most=9, side=128
    )
    assert len(found) == 9
    for y, x in middles(found):
        assert 20_003 <= y / scale <= 20_903
        assert 31_007 <= x / scale <= 31_908


@pytest.mark.parametrize("corner", [0, 2900])
def test_a_region_at_the_border_has_the_window(tmp_path: Path, corner: int) -> None:
    shape = (3000, 3000)
    regions = read_regions(square(tmp_path / "roi.geojson", corner, corner, 100))
    (found,) = inspected_windows(
        grid(shape, 1.0), Inspected(shape, regions=regions), most=9, side=256
    )
    start = 0 if corner == 0 else 2744
    assert found == (slice(start, start + 256), slice(start, start + 256))


def test_tiny_regions_far_apart_have_windows(tmp_path: Path) -> None:
    shape = (50_000, 50_000)
    places = [(100, 100), (49_000, 49_500), (20_123, 31_871)]
    corners = [[[[x, y], [x + 30, y], [x + 30, y + 30], [x, y + 30], [x, y]]] for y, x in places]
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps({"type": "MultiPolygon", "coordinates": corners}))
    area = Inspected(shape, regions=read_regions(roi))
    found = inspected_windows(grid(shape, 1.0), area, most=9, side=256)
    assert len(found) == 3
    for (y, x), (rows, columns) in zip(places, found, strict=True):
        assert rows.start <= y + 15 < rows.stop
        assert columns.start <= x + 15 < columns.stop


def test_of_regions_apart_all_have_windows(tmp_path: Path) -> None:
    shape = (4000, 4000)
    corners = [
        [[[x, y], [x + 700, y], [x + 700, y + 700], [x, y + 700], [x, y]]]
        for x, y in ((0, 0), (3300, 3300))
    ]
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps({"type": "MultiPolygon", "coordinates": corners}))
    area = Inspected(shape, regions=read_regions(roi))
    found = np.array(middles(inspected_windows(grid(shape, 1.0), area, most=9, side=128)))
    assert {tuple(one) for one in found < 2000} == {(True, True), (False, False)}


def test_a_region_smaller_than_a_window_has_one(tmp_path: Path) -> None:
    shape = (3000, 3000)
    regions = read_regions(square(tmp_path / "roi.geojson", 2000, 1000, 60))
    (found,) = inspected_windows(
        grid(shape, 1.0), Inspected(shape, regions=regions), most=9, side=256
    )
    assert middles([found]) == [(1030, 2030)]


def test_where_nothing_is_inspected_in_the_middles_the_box_is_looked_at(tmp_path: Path) -> None:
    shape = (600, 600)
    area = Inspected(shape, left_out=(((0, 0), shape),))
    whole = list(spread_windows(shape, most=9, side=128))
    assert list(inspected_windows(grid(shape, 1.0), area, most=9, side=128)) == whole
    assert list(inspected_windows(grid(shape, 1.0), None, most=9, side=128)) == whole
    # A ring: nothing is inspected in its middle, and it is as wide as a window.
    outer = [[300, 300], [400, 300], [400, 400], [300, 400], [300, 300]]
    inner = [[310, 310], [310, 390], [390, 390], [390, 310], [310, 310]]
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps({"type": "Polygon", "coordinates": [outer, inner]}))
    area = Inspected(shape, regions=read_regions(roi))
    (found,) = inspected_windows(grid(shape, 1.0), area, most=9, side=128)
    assert middles([found]) == [(350, 350)]
