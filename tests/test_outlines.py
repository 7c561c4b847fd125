"""Exact outlines: areas, validity, orientation, diagonal contacts, holes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from shapely.geometry import shape

from domainseg.errors import InputError
from domainseg.instances.measure import measure
from domainseg.instances.outlines import Outlines, find_outlines
from domainseg.records import Instances

small_maps = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 3)
)
noise = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).integers(0, 2 + seed % 2, (19, 23)).astype(np.int32)
)


def geometry(outlines: Outlines, index: int) -> Any:
    return shape({"type": "MultiPolygon", "coordinates": outlines.multipolygon(index)})


def outline(rows: Any) -> list[Any]:
    outlines = find_outlines(np.asarray(rows, np.int32))
    assert len(outlines) == 1
    return outlines.multipolygon(0)


def parts_4_connected(mask: NDArray[np.bool_]) -> int:
    """Count 4-connected parts by flood fill."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    count = 0
    while left:
        count += 1
        front = [left.pop()]
        while front:
            y, x = front.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left:
                    left.remove(near)
                    front.append(near)
    return count


# --- hand-made objects ---


def test_a_pixel_is_a_closed_square_counter_clockwise_in_x_and_y() -> None:
    assert outline([[0, 0, 0], [0, 0, 1]]) == [[[[2, 1], [3, 1], [3, 2], [2, 2], [2, 1]]]]


def test_straight_edges_have_no_vertices_between_their_ends() -> None:
    assert outline(np.ones((400, 300))) == [[[[0, 0], [300, 0], [300, 400], [0, 400], [0, 0]]]]


def test_a_hole_is_a_ring_of_the_other_sense() -> None:
    (polygon,) = outline([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
    exterior, hole = polygon
    assert exterior == [[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]]
    assert sorted(hole[:-1]) == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert not shapely.LinearRing(hole).is_ccw


@pytest.mark.parametrize("rows", [[[1, 0], [0, 1]], [[0, 1], [1, 0]]])
def test_pixels_that_touch_by_a_corner_are_two_polygons(rows: Any) -> None:
    polygons = outline(rows)
    assert [len(polygon) for polygon in polygons] == [1, 1]
    assert [len(polygon[0]) for polygon in polygons] == [5, 5]


def test_a_ring_closed_by_a_diagonal_contact_has_a_hole_that_touches_its_exterior() -> None:
    (polygon,) = outline([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
    exterior, hole = polygon
    assert [2, 2] in exterior
    assert [2, 2] in hole
    assert exterior.count([2, 2]) == 1


def test_holes_that_touch_by_a_corner_are_two_rings() -> None:
    (polygon,) = outline([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]])
    assert [len(ring) for ring in polygon] == [5, 5, 5]


def test_an_island_inside_a_hole_is_a_polygon_of_its_own() -> None:
    rows = np.ones((5, 5))
    rows[1:4, 1:4] = 0
    rows[2, 2] = 1
    polygons = outline(rows)
    assert [len(polygon) for polygon in polygons] == [2, 1]
    assert polygons[1][0][0] == [2, 2]


def test_gaps_in_the_numbering_are_kept_and_empty_maps_have_no_outline() -> None:
    outlines = find_outlines(np.array([[9, 0, 4]], np.uint16))
    assert outlines.ids.tolist() == [4, 9]
    assert outlines.multipolygon(0)[0][0][0] == [2, 0]
    for empty in (np.zeros((3, 4), np.int32), np.zeros((0, 0), np.int32)):
        assert len(find_outlines(empty)) == 0


# --- laws ---


def check_polygons(labels: NDArray[np.int32]) -> None:
    outlines = find_outlines(labels)
    assert outlines.ids.tolist() == [i for i in np.unique(labels).tolist() if i]
    for index, label in enumerate(outlines.ids):
        mask = labels == label
        polygons = geometry(outlines, index)
        assert polygons.is_valid, shapely.is_valid_reason(polygons)
        assert polygons.area == np.count_nonzero(mask)
        ys, xs = np.nonzero(mask)
        assert shapely.contains_xy(polygons, xs + 0.5, ys + 0.5).all()
        assert len(polygons.geoms) == parts_4_connected(mask)
        for polygon in polygons.geoms:
            assert polygon.exterior.is_ccw
            assert not any(ring.is_ccw for ring in polygon.interiors)


@given(small_maps)
@settings(deadline=None, max_examples=200)
def test_polygons_are_valid_and_cover_exactly_the_pixels(labels: NDArray[np.int32]) -> None:
    check_polygons(labels)


@given(noise)
@settings(deadline=None, max_examples=40)
def test_polygons_of_noise_are_valid_and_cover_exactly_the_pixels(
    labels: NDArray[np.int32],
) -> None:
    check_polygons(labels)


@given(noise)
@settings(deadline=None, max_examples=40)
def test_edges_are_those_where_the_label_changes(labels: NDArray[np.int32]) -> None:
    outlines = find_outlines(labels)
    padded = np.pad(labels, 1)
    for index, label in enumerate(outlines.ids):
        mask = padded == label
        edges = np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(
            mask[:, 1:] != mask[:, :-1]
        )
        assert geometry(outlines, index).length == edges


@given(noise, st.integers(0, 9), st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_moving_the_map_moves_the_outlines(labels: NDArray[np.int32], dy: int, dx: int) -> None:
    here, there = find_outlines(labels), find_outlines(np.pad(labels, ((dy, 0), (dx, 0))))
    assert (there.vertices == here.vertices + np.array([dx, dy])).all()
    assert there.starts.tolist() == here.starts.tolist()
    assert there.rings.tolist() == here.rings.tolist()
    assert there.polygons.tolist() == here.polygons.tolist()


def test_length_and_width_in_the_table_are_those_of_the_outline() -> None:
    labels = np.random.default_rng(2).integers(0, 30, (30, 30)).astype(np.int32)
    outlines, table = find_outlines(labels), measure(labels)
    for index, row in enumerate(table.iter_rows(named=True)):
        corners = np.array(geometry(outlines, index).convex_hull.exterior.coords)
        spans = corners[:, None] - corners
        assert row["length_px"] == pytest.approx(np.hypot(*spans.T).max(), rel=1e-12)
        directions = np.diff(corners, axis=0)
        normals = np.stack([-directions[:, 1], directions[:, 0]], 1)
        normals /= np.hypot(*normals.T)[:, None]
        widths = np.ptp(corners @ normals.T, axis=0)
        assert row["width_px"] == pytest.approx(widths.min(), rel=1e-12)


def test_instances_have_the_outlines_of_their_label_map() -> None:
    labels = np.random.default_rng(3).integers(0, 4, (20, 20)).astype(np.int32)
    one, other = find_outlines(labels), find_outlines(Instances.from_label_map(labels))
    assert one.vertices.tolist() == other.vertices.tolist()
    assert one.polygons.tolist() == other.polygons.tolist()


def test_a_float_map_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        find_outlines(np.zeros((2, 2)))
    assert str(caught.value) == (
        "label map: found an array of float64 with shape (2, 2), wanted integer labels of shape "
        "(H, W); number the objects first, 0 for background."
    )
