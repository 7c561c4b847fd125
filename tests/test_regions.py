"""Regions: which pixels lie inside polygons, and the inspected area they are part of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError
from domainseg.images import regions as regions_module
from domainseg.images.regions import (
    Box,
    Edge,
    Inspected,
    Regions,
    edge_boxes,
    read_regions,
    regions_of,
)
from domainseg.images.resample import Grid, resample_labels
from domainseg.images.tissue import Tissue

Ring = list[list[float]]
Write = Callable[[Any], Path]


def ring(*points: tuple[float, float]) -> Ring:
    """Return a closed ring of (x, y)."""
    return [list(map(float, point)) for point in (*points, points[0])]


def square(x: float, y: float, side: float) -> Ring:
    return ring((x, y), (x + side, y), (x + side, y + side), (x, y + side))


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation"}}


def collection(*geometries: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": [feature(g) for g in geometries]}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def save(value: Any) -> Path:
        path = tmp_path / "roi.geojson"
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return save


@pytest.fixture
def read(write: Write) -> Callable[[Any], Regions]:
    return lambda value: read_regions(write(value))


Read = Callable[[Any], Regions]


def picture(mask: NDArray[np.bool_]) -> list[str]:
    return ["".join(".#"[int(value)] for value in row) for row in mask]


def test_a_pixel_is_inside_when_its_centre_is(read: Read) -> None:
    assert picture(read(polygon(square(1, 1, 2))).inside(((0, 0), (4, 4)))) == [
        "....",
        ".##.",
        ".##.",
        "....",
    ]
    # Centres at 0.5 and 1.5 on the left and upper edge are inside, at 2.5 on the others not.
    assert picture(read(polygon(square(0.5, 0.5, 2))).inside(((0, 0), (4, 4)))) == [
        "##..",
        "##..",
        "....",
        "....",
    ]


def test_inner_rings_are_holes_and_islands_in_them_are_not(read: Read) -> None:
    found = read(polygon(square(0, 0, 7), square(1, 1, 5), square(3, 3, 1)))
    assert picture(found.inside(((0, 0), (7, 7)))) == [
        "#######",
        "#.....#",
        "#.....#",
        "#..#..#",
        "#.....#",
        "#.....#",
        "#######",
    ]


def test_polygons_are_united_also_where_they_overlap(read: Read) -> None:
    two = collection(polygon(square(0, 0, 3)), polygon(square(1, 1, 3)))
    expected = ["###.", "####", "####", ".###"]
    assert picture(read(two).inside(((0, 0), (4, 4)))) == expected
    # As one polygon the same rings leave out what both hold.
    one = polygon(square(0, 0, 3), square(1, 1, 3))
    assert picture(read(one).inside(((0, 0), (4, 4)))) == ["###.", "#..#", "#..#", ".###"]


def test_members_of_a_multipolygon_are_polygons_of_their_own(read: Read) -> None:
    members = [[square(0, 0, 3)], [square(1, 1, 3), square(2, 2, 1)]]
    found = read({"type": "MultiPolygon", "coordinates": members})
    assert len(found) == 2
    assert picture(found.inside(((0, 0), (4, 4)))) == ["###.", "####", "####", ".###"]


def test_a_diagonal_passes_between_the_centres(read: Read) -> None:
    found = read(polygon(ring((0, 0), (4, 4), (0, 4))))
    assert picture(found.inside(((0, 0), (4, 4)))) == ["....", "#...", "##..", "###."]


def test_what_lies_outside_the_image_is_no_matter(read: Read) -> None:
    found = read(polygon(square(-5, -5, 8)))
    assert picture(found.inside(((-1, -1), (4, 5)))) == [
        "####..",
        "####..",
        "####..",
        "####..",
        "......",
    ]


@pytest.mark.parametrize(
    "value",
    [
        polygon(square(1, 0, 2)),
        feature(polygon(square(1, 0, 2))),
        collection(polygon(square(1, 0, 2))),
        [feature(polygon(square(1, 0, 2)))],
        {"type": "GeometryCollection", "geometries": [polygon(square(1, 0, 2))]},
        polygon([[*point, 9.0] for point in square(1, 0, 2)]),
    ],
)
def test_every_form_of_geojson_gives_the_same_area(read: Read, value: Any) -> None:
    assert picture(read(value).inside(((0, 0), (2, 4)))) == [".##.", ".##."]


def test_the_file_is_named_by_its_bytes(write: Write) -> None:
    path = write(polygon(square(0, 0, 2)))
    found = read_regions(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(found) == 1


COORDINATES = st.integers(-8, 40).map(lambda quarters: quarters / 4)
RINGS = st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=7).map(
    lambda points: ring(*points)
)
POLYGONS = st.lists(st.lists(RINGS, min_size=1, max_size=3), min_size=1, max_size=3)


def made(polygons: list[list[Ring]]) -> Regions:
    rings = [[np.array(ring) for ring in polygon] for polygon in polygons]
    return regions_of(rings, path=Path("made"), sha256="")


def slowly_inside(polygons: list[list[Ring]], ys: Any, xs: Any) -> NDArray[np.bool_]:
    """Count for every point the edges of each polygon to the left of it, or through it."""
    out = np.zeros((len(ys), len(xs)), bool)
    for rings in polygons:
        crossed = np.zeros(out.shape, int)
        for points in rings:
            for (xa, ya), (xb, yb) in pairwise(points):
                (xa, ya), (xb, yb) = sorted(((xa, ya), (xb, yb)), key=lambda p: p[1])
                for i, y in enumerate(ys):
                    if ya <= y < yb:
                        crossed[i] += xa + (y - ya) * (xb - xa) / (yb - ya) <= np.array(xs)
        out |= crossed % 2 == 1
    return out


@settings(deadline=None, max_examples=200)
@given(POLYGONS)
def test_the_scanline_is_the_even_odd_rule(polygons: list[list[Ring]]) -> None:
    centres = np.arange(-3, 12) + 0.5
    expected = slowly_inside(polygons, centres, centres)
    np.testing.assert_array_equal(made(polygons).inside(((-3, -3), (12, 12))), expected)


@settings(deadline=None, max_examples=100)
@given(POLYGONS, st.integers(-3, 11), st.integers(-3, 11), st.integers(0, 9), st.integers(0, 9))
def test_a_box_by_itself_is_that_part_of_the_whole(
    polygons: list[list[Ring]], y: int, x: int, h: int, w: int
) -> None:
    found = made(polygons)
    whole = found.inside(((-3, -3), (20, 20)))
    part = found.inside(((y, x), (y + h, x + w)))
    np.testing.assert_array_equal(part, whole[y + 3 : y + 3 + h, x + 3 : x + 3 + w])


@settings(deadline=None, max_examples=100)
@given(POLYGONS, st.floats(0.3, 3), st.integers(1, 12))
def test_points_of_another_raster_follow_the_same_rule(
    polygons: list[list[Ring]], step: float, count: int
) -> None:
    points = (np.arange(count) + 0.5) * step
    expected = slowly_inside(polygons, points, points)
    np.testing.assert_array_equal(made(polygons).inside_at(points, points), expected)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1, max_size=5))
def test_polygons_that_share_a_border_share_no_pixel_and_leave_none_out(
    middle: list[tuple[float, float]],
) -> None:
    """A line from (2, -2) to (5, 12) through any points parts a square, even where it crosses."""
    line = [(2.0, -2.0), *middle, (5.0, 12.0)]
    left = [ring(*line, (-2, 12), (-2, -2))]
    right = [ring(*line, (12, 12), (12, -2))]
    box: Box = ((-2, -2), (12, 12))
    both = made([left]).inside(box).astype(int) + made([right]).inside(box)
    whole = made([[ring((-2, -2), (12, -2), (12, 12), (-2, 12))]]).inside(box)
    np.testing.assert_array_equal(both % 2, whole)


def test_many_bands_of_edges_are_one_polygon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A saw of 500 teeth, and edges as long as all of it."""
    teeth = [(30.0 if n % 2 else 10.0, n / 2) for n in range(1001)]
    saw = [[ring(*teeth, (0.0, 500.0), (0.0, 0.0))]]
    whole = made(saw)
    assert len(whole.bands.bounds) == 3
    monkeypatch.setattr(regions_module, "EDGE_BAND_PX", 7)
    many = made(saw)
    assert len(many.bands.bounds) == 73
    box: Box = ((0, 0), (500, 40))
    np.testing.assert_array_equal(many.inside(box), whole.inside(box))
    np.testing.assert_array_equal(
        whole.inside(box), slowly_inside(saw, np.arange(500) + 0.5, np.arange(40) + 0.5)
    )


def test_a_polygon_without_area_holds_nothing() -> None:
    flat = made([[ring((0, 1), (5, 1), (9, 1))]])
    assert not flat.inside(((0, 0), (10, 10))).any()


REFUSED = [
    ("{", "{path}: found text that is not JSON (line 1), wanted GeoJSON polygons; "
     "export the annotations as GeoJSON."),
    (collection(), "{path}: found no polygon, wanted at least one; draw an area."),
    (
        collection(polygon(square(0, 0, 2)), {"type": "LineString", "coordinates": []}),
        "{path}: feature 2: found geometry LineString, wanted Polygon or MultiPolygon; "
        "remove it or draw an area in its place.",
    ),
    (
        {"type": "Point", "coordinates": [1, 2]},
        "{path}: found geometry Point, wanted Polygon or MultiPolygon; "
        "remove it or draw an area in its place.",
    ),
    (
        collection(None),
        "{path}: feature 1: found no geometry, wanted Polygon or MultiPolygon; "
        "remove it or draw an area in its place.",
    ),
    (
        3,
        "{path}: found no geometry, wanted Polygon or MultiPolygon; "
        "remove it or draw an area in its place.",
    ),
    (
        polygon([[0, 0], [1, 0], [0, 0]]),
        "{path}, ring 1: found 3 positions, wanted at least 4, of which the last is the "
        "first; draw or export it again.",
    ),
    (
        polygon(square(0, 0, 9), square(1, 1, 2)[:-1]),
        "{path}, ring 2: found a ring that is not closed, wanted the last position to be the "
        "first; draw or export it again.",
    ),
    (
        {"type": "MultiPolygon", "coordinates": [[[*square(0, 0, 2)[:-1], [5, 5]]]]},
        "{path}, polygon 1, ring 1: found a ring that is not closed, wanted the last position "
        "to be the first; draw or export it again.",
    ),
    (
        polygon([[0, 0], [float("nan"), 3], [2, 2], [0, 0]]),
        "{path}, ring 1: found position [nan, 3], wanted finite pixels; draw or export it again.",
    ),
    (
        polygon([[0, 0], ["a", 3], [2, 2], [0, 0]]),
        "{path}, ring 1: found a position that is not [x, y], wanted two numbers; "
        "draw or export it again.",
    ),
    (
        polygon([[0, 0], [1], [2, 2], [0, 0]]),
        "{path}, ring 1: found a position that is not [x, y], wanted two numbers; "
        "draw or export it again.",
    ),
    (polygon(), "{path}: found a polygon without a ring, wanted one; remove it."),
    (
        {"type": "Polygon"},
        "{path}: found something else than a list, wanted GeoJSON (RFC 7946); "
        "draw or export it again.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("value", "said"), REFUSED)
def test_what_is_no_area_is_refused_by_place(write: Write, value: Any, said: str) -> None:
    path = write(value)
    with pytest.raises(InputError) as refused:
        read_regions(path)
    assert str(refused.value) == said.format(path=path)


def test_a_file_that_is_missing_empty_or_a_folder_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError) as missing:
        read_regions(tmp_path / "none.json")
    assert str(missing.value) == (
        f"{tmp_path / 'none.json'}: found no such file, wanted a GeoJSON file; check the path."
    )
    path = write(" \n")
    with pytest.raises(MissingInputError) as empty:
        read_regions(path)
    assert str(empty.value) == (
        f"{path}: found an empty file, wanted GeoJSON polygons; export it again."
    )
    with pytest.raises(InputError) as folder:
        read_regions(tmp_path)
    assert str(folder.value) == (
        f"{tmp_path}: found a folder, wanted a GeoJSON file; name a file inside it."
    )


def test_regions_wholly_outside_the_image_are_refused(write: Write) -> None:
    path = write(collection(polygon(square(20, 3, 4)), polygon(square(-9, 3, 9))))
    with pytest.raises(InputError) as refused:
        Inspected((10, 20), read_regions(path))
    assert str(refused.value) == (
        f"{path}: found polygons from x -9 to 24 and y 3 to 12, wanted one inside the image of "
        "20 x 10 px; give pixels of the full resolution, x to the right and y down."
    )
    assert Inspected((10, 21), read_regions(path)).count_px() == 4


def coarse(shape: tuple[int, int], *cells: tuple[int, int]) -> Tissue:
    """Return tissue in cells of 4 px."""
    mask = np.zeros((-(-shape[0] // 4), -(-shape[1] // 4)), bool)
    for cell in cells:
        mask[cell] = True
    return Tissue(mask, (4.0, 4.0), shape)


def test_the_inspected_area_is_what_all_limits_leave(read: Read) -> None:
    area = Inspected(
        (6, 8),
        regions=read(polygon(square(1, 1, 6))),
        tissue=coarse((6, 8), (0, 0), (1, 1)),
        damaged=(((0, 0), (2, 3)), ((5, 5), (9, 9)), ((5, 6), (6, 7))),
    )
    assert picture(area.inside(((0, 0), (6, 8)))) == [
        "........",
        "...#....",
        ".###....",
        ".###....",
        "....###.",
        "....#...",
    ]
    assert area.count_px() == 11
    assert not area.is_everything
    assert area.any_in(((0, 0), (2, 4)))
    assert not area.any_in(((0, 0), (2, 3)))
    assert not area.any_in(((0, 0), (0, 0)))
    assert not area.inside(((-3, -3), (0, 0))).any()


def test_without_limits_every_pixel_of_the_image_is_inspected() -> None:
    area = Inspected((3, 4))
    assert area.is_everything
    assert area.count_px() == 12
    np.testing.assert_array_equal(
        area.inside(((-1, 2), (2, 6))), [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    )


def test_counting_in_bands_is_counting_the_whole(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = Inspected((40, 30), read(polygon(ring((3, 2), (28, 9), (14, 39)))))
    whole = int(area.inside(((0, 0), (40, 30))).sum())
    assert area.count_px() == whole > 300
    for band in (1, 31, 200):
        monkeypatch.setattr(regions_module, "BAND_PX", band)
        assert area.count_px() == whole
        assert area.any_in(((0, 0), (40, 30)))


def test_an_image_of_billions_of_pixels_is_asked_without_holding_it(read: Read) -> None:
    area = Inspected((1 << 20, 1 << 20), read(polygon(square(999_990.5, 500_000, 20))))
    part = area.inside(((500_019, 999_985), (500_021, 999_995)))
    assert picture(part) == [".....#####", ".........."]


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 0.5), (0.37, 0.81), (2.0, 1.5)])
def test_the_model_grid_sees_what_its_centres_see(scale: tuple[float, float], read: Read) -> None:
    shape = (31, 44)
    area = Inspected(
        shape, read(polygon(ring((3, 2), (40, 9), (14, 30)))), damaged=(((5, 10), (12, 20)),)
    )
    grid_shape = tuple(int(np.ceil(n * s)) for n, s in zip(shape, scale, strict=True))
    grid = Grid(scale, (grid_shape[0], grid_shape[1]), shape)
    whole = resample_labels(area.inside(((0, 0), shape)).astype(np.uint8), grid)
    box: Box = ((2, 3), (grid_shape[0], grid_shape[1] - 1))
    np.testing.assert_array_equal(area.on_grid(grid, box), whole[2:, 3:-1])


def test_a_grid_of_another_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a grid of \(3, 3\) px for an image of \(4, 4\) px"):
        Inspected((4, 4)).on_grid(Grid((1.0, 1.0), (3, 3), (3, 3)), ((0, 0), (3, 3)))


def test_tissue_of_another_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tissue of \(8, 8\) px for an image of \(4, 4\) px"):
        Inspected((4, 4), tissue=coarse((8, 8)))


def test_the_record_says_what_limits_the_area(write: Write) -> None:
    path = write(collection(polygon(square(0, 0, 2)), polygon(square(1, 1, 2))))
    area = Inspected(
        (8, 8),
        read_regions(path),
        coarse((8, 8), (1, 1)),
        damaged=(((0, 0), (2, 3)),),
        left_out=(((7, 0), (8, 8)),),
    )
    expected = {
        "roi": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "polygons": 2},
        "tissue": {"downsample": [4.0, 4.0], "share": 0.25, "assumed": None},
        "damaged": [[[0, 0], [2, 3]]],
        "left_out": [[[7, 0], [8, 8]]],
    }
    assert area.to_record() == expected
    assert json.loads(json.dumps(area.to_record())) == expected
    whole: dict[str, Any] = {"roi": None, "tissue": None, "damaged": [], "left_out": []}
    assert Inspected((8, 8)).to_record() == whole


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    widths=st.dictionaries(st.sampled_from(["top", "bottom", "left", "right"]), st.integers(0, 5)),
)
def test_edges_are_left_out_once_and_nothing_else_is(
    shape: tuple[int, int], widths: dict[Edge, int]
) -> None:
    height, width = shape
    y, x = np.mgrid[:height, :width]
    seen = (y >= widths.get("top", 0)) & (y < height - widths.get("bottom", 0))
    seen &= (x >= widths.get("left", 0)) & (x < width - widths.get("right", 0))
    if not seen.any():
        with pytest.raises(InputError) as caught:
            edge_boxes(shape, widths, where="a.tif")
        assert str(caught.value) == (
            f"a.tif: found {height} x {width} px, all of them within ignore_edges_px, wanted "
            "pixels to look at; lower image.ignore_edges_px or leave the image out."
        )
        return
    boxes = edge_boxes(shape, widths, where="a.tif")
    times = np.zeros(shape, int)
    for (y0, x0), (y1, x1) in boxes:
        assert (y0, x0) < (y1, x1)
        times[y0:y1, x0:x1] += 1
    np.testing.assert_array_equal(times, ~seen)
    area = Inspected(shape, left_out=boxes)
    np.testing.assert_array_equal(area.inside(((0, 0), shape)), seen)
    assert area.is_everything == bool(seen.all())
