"""Centre lines of drawn scratches are as long as what was drawn, however they lie and bend."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from domainseg.instances.centre_lines import line_lengths, long_lines, may_be_long
from domainseg.instances.harvest import Harvest, ObjectFiles, Scene, reap
from domainseg.instances.measure import measure
from domainseg.instances.pieces import find_pieces
from domainseg.instances.pixel_graph import FAR, pixel_graph, sweep
from domainseg.instances.runs import runs_of_instances, runs_of_labels
from domainseg.records import Instances

Mask = NDArray[np.bool_]
Curve = NDArray[np.float64]
WIDTHS = (1.0, 2.0, 3.5, 6.0, 12.0)
ANGLES = range(0, 180, 15)
PLACE = (0.31, 0.17)
"""Curves begin between pixels: on them, a line of width 2 would be 3 px wide."""


def turned(y: Any, x: Any, degrees: float) -> Curve:
    angle = np.radians(degrees)
    return np.stack(
        [y * np.cos(angle) - x * np.sin(angle), x * np.cos(angle) + y * np.sin(angle)], 1
    )


def straight(length: float, degrees: float) -> Curve:
    x = np.linspace(0, length, int(20 * length) + 2)
    return turned(0 * x, x, degrees)


def arc(length: float, radius: float, degrees: float) -> Curve:
    at = np.linspace(0, length, int(20 * length) + 2) / radius
    return turned(radius * np.cos(at), radius * np.sin(at), degrees)


def spiral(turns: float, pitch: float, degrees: float) -> Curve:
    at = np.linspace(2 * np.pi, 2 * np.pi * (turns + 1), int(3000 * turns))
    return turned(pitch * at / 6.28 * np.cos(at), pitch * at / 6.28 * np.sin(at), degrees)


def wave(length: float, degrees: float) -> Curve:
    x = np.linspace(0, length, int(40 * length))
    return turned(15 * np.sin(x / 13), x, degrees)


def arc_length(curve: Curve) -> float:
    return float(np.hypot(*np.diff(curve, axis=0).T).sum())


def drawn(curve: Curve, width: float) -> Mask:
    """Return the pixels whose centre lies on a band around the curve, cut square at its ends."""
    pad = int(width) + 3
    curve = curve - np.floor(curve.min(axis=0)) + pad + PLACE
    shape = np.ceil(curve.max(axis=0)).astype(int) + pad + 1
    near = np.zeros(shape, bool)
    reach = int(width / 2) + 2
    middles = np.unique(np.rint(curve).astype(int), axis=0)
    for dy, dx in product(range(-reach, reach + 1), repeat=2):
        near[middles[:, 0] + dy, middles[:, 1] + dx] = True
    pixels = np.argwhere(near)
    away, nearest = cKDTree(curve).query(pixels)
    inside = away <= width / 2
    for end, beside in ((0, 1), (len(curve) - 1, len(curve) - 2)):
        ahead = (pixels - curve[end]) @ (curve[end] - curve[beside]) > 0
        inside &= ~((nearest == end) & ahead)
    mask = np.zeros(shape, bool)
    mask[tuple(pixels[inside].T)] = True
    return mask


def line_of(mask: Mask, **options: Any) -> dict[str, Any]:
    table = measure(mask.astype(np.int32), **options)
    return table.select("skeleton_length_px", "mean_width_px", "skeleton_length_um").row(
        0, named=True
    )


# --- as long as it was drawn ---


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("length", [20.0, 60.0, 400.0])
def test_straight_scratches_of_any_direction_have_their_length(length: float, width: float) -> None:
    if length < 3.3 * width:
        return  # not elongated
    for degrees in ANGLES:
        mask = drawn(straight(length, degrees), width)
        found = line_of(mask)["skeleton_length_px"]
        # Where in its last pixel a line ends cannot be seen.
        assert abs(found - length) <= max(0.01 * length, 1.5), degrees
        assert line_of(mask)["mean_width_px"] == np.count_nonzero(mask) / found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("degrees", [0, 40, 110])
def test_bent_scratches_have_the_length_of_their_arc(width: float, degrees: float) -> None:
    curves = {
        "quarter": arc(150, 95, degrees),
        "half": arc(150, 48, degrees),
        "horseshoe": arc(220, 48, degrees),
        "spiral": spiral(3, 30, degrees),
        "wave": wave(300, degrees),
    }
    for name, curve in curves.items():
        length = arc_length(curve)
        found = line_of(drawn(curve, width))["skeleton_length_px"]
        assert found == pytest.approx(length, rel=0.02), name


def test_a_scratch_of_5000_px_has_its_length() -> None:
    for width in (1, 12):
        mask = drawn(arc(5000, 3000, 30), width)
        assert line_of(mask)["skeleton_length_px"] == pytest.approx(5000, rel=0.002)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 5), (1, 20), (2, 20), (3, 30), (5, 41), (12, 60)]
)
def test_bars_have_their_sides_exactly(height: int, width: int) -> None:
    mask = np.pad(np.ones((height, width), bool), 2)
    assert line_of(mask)["skeleton_length_px"] == pytest.approx(width, rel=1e-12)
    assert line_of(mask)["mean_width_px"] == pytest.approx(height, rel=1e-12)


def test_a_diagonal_of_pixels_counts_from_corner_to_corner() -> None:
    found = line_of(np.eye(30, dtype=bool))["skeleton_length_px"]
    assert found == pytest.approx(30 * np.sqrt(2), rel=1e-12)


def test_rough_edges_and_holes_change_little() -> None:
    mask = drawn(arc(300, 150, 20), 8)
    rng = np.random.default_rng(0)
    torn = mask & (rng.random(mask.shape) > 0.08)
    assert line_of(torn)["skeleton_length_px"] == pytest.approx(300, rel=0.03)


def test_branches_do_not_count() -> None:
    mask = np.zeros((60, 220), bool)
    mask[30:34, 10:210] = True
    mask[5:30, 100:103] = True
    assert line_of(mask)["skeleton_length_px"] == pytest.approx(200, rel=0.01)


def test_parts_add_up_and_gaps_do_not_count() -> None:
    mask = np.zeros((9, 130), bool)
    mask[3:5, 2:42] = mask[3:5, 50:70] = mask[4, 100] = True
    assert line_of(mask)["skeleton_length_px"] == pytest.approx(40 + 20 + 1, rel=1e-12)


def test_pixels_that_are_not_square_stretch_the_line() -> None:
    across = line_of(np.pad(np.ones((1, 40), bool), 2), spacing_um=(2.0, 0.5))
    along = line_of(np.pad(np.ones((40, 1), bool), 2), spacing_um=(2.0, 0.5))
    assert across["skeleton_length_um"] == pytest.approx(20, rel=1e-12)
    assert along["skeleton_length_um"] == pytest.approx(80, rel=1e-12)
    slanted = line_of(np.eye(50, dtype=bool), spacing_um=(3.0, 4.0))
    assert slanted["skeleton_length_um"] == pytest.approx(50 * 5, rel=1e-12)


# --- which objects have one ---


def test_round_and_stout_objects_have_no_centre_line() -> None:
    y, x = np.mgrid[:60, :60]
    disc = np.hypot(y - 30, x - 30) < 20
    for mask in (disc, np.pad(np.ones((10, 25), bool), 2), np.ones((1, 2), bool)):
        assert set(line_of(mask, spacing_um=(1.0, 1.0)).values()) == {None}


def test_an_object_has_a_line_when_that_is_three_widths_long() -> None:
    lengths = range(20, 60)
    lines = [line_of(np.pad(np.ones((10, n), bool), 2)) for n in lengths]
    shown = [line["skeleton_length_px"] is not None for line in lines]
    assert shown == [n >= 30 for n in lengths]


def test_a_ring_is_as_long_as_half_its_way_round() -> None:
    y, x = np.mgrid[:120, :120]
    away = np.hypot(y - 60, x - 60)
    ring = (away > 40) & (away < 44)
    assert line_of(ring)["skeleton_length_px"] == pytest.approx(np.pi * 42, rel=0.06)


def test_objects_of_millions_of_pixels_are_no_candidates() -> None:
    runs = np.array([[y, 0, 1 << 16] for y in range(65)])
    bar = Instances(
        ids=np.array([1]),
        boxes=np.array([[[0, 0], [65, 1 << 16]]]),
        runs=runs,
        offsets=np.array([0, 65]),
        classes=np.zeros(1, np.int16),
        scores=np.ones(1, np.float32),
        shape=(65, 1 << 16),
    )
    objects = runs_of_instances(bar)
    assert not may_be_long(find_pieces(objects, core=bar.shape)).any()
    objects = type(objects)(objects.ids, objects.runs[:64], np.array([0, 64]), bar.shape)
    assert may_be_long(find_pieces(objects, core=bar.shape)).all()


# --- it does not depend on how it is looked at ---


@pytest.mark.parametrize("width", [1.0, 2.5, 5.0, 11.0])
def test_turned_and_mirrored_scratches_have_the_same_length(width: float) -> None:
    for curve in (arc(180, 60, 33), spiral(2, 33, 50), wave(200, 71), straight(77, 12)):
        mask = drawn(curve, width)
        wanted = line_of(mask)["skeleton_length_px"]
        for view in (np.rot90(mask), np.rot90(mask, 2), mask[::-1], mask[:, ::-1], mask.T):
            assert line_of(view)["skeleton_length_px"] == pytest.approx(wanted, rel=1e-12)


def scratched(seed: int) -> NDArray[np.int32]:
    """Return labels of scratches and dots, which may cross: then the later one is on top."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((150, 170), np.int32)
    for label in range(1, 9):
        curve = arc(rng.uniform(5, 90), rng.uniform(30, 200), rng.uniform(0, 360))
        mask = drawn(curve, rng.uniform(1, 7))[:110, :110]
        y, x = rng.integers(0, 40, 2)
        labels[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = label
    return labels


@given(st.integers(0, 2**32 - 1), st.integers(7, 70), st.integers(7, 70))
@settings(deadline=None, max_examples=10)
def test_tiles_give_the_lines_of_the_whole_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int
) -> None:
    labels = scratched(seed)
    spacing_um = (0.4, 0.25)
    whole = measure(labels, spacing_um=spacing_um, image_id="a")
    folder = tmp_path_factory.mktemp("tiles")
    tiled = harvested(folder, labels, (height, width), spacing_um)
    names = ["label", "skeleton_length_px", "skeleton_length_um", "mean_width_px", "mean_width_um"]
    assert tiled.select(names).equals(whole.select(names))
    assert whole["skeleton_length_px"].null_count() < len(whole)


def harvested(
    folder: Path, labels: NDArray[np.int32], tile: tuple[int, int], spacing_um: tuple[float, float]
) -> pl.DataFrame:
    shape = (labels.shape[0], labels.shape[1])
    count = int(labels.max())
    scene = Scene(shape, ("object",), (), np.zeros(0), spacing_um, "a", "")
    boxes = np.tile(np.array([[[0, 0], shape]], np.int32), (count, 1, 1))
    known: dict[str, Any] = {
        "boxes": boxes,
        "classes": np.zeros(count, np.int16),
        "scores": np.ones(count, np.float32),
    }
    with ObjectFiles(folder, scene=scene) as files:
        harvest = Harvest(files, scene=scene, scratch=folder / "scratch", **known)
        for y, x in product(range(0, shape[0], tile[0]), range(0, shape[1], tile[1])):
            y1, x1 = min(y + tile[0], shape[0]), min(x + tile[1], shape[1])
            window = labels[y : y1 + 1, x : x1 + 1]
            core = ((y, x), (y1, x1))
            harvest.add(reap(window, core=core, scene=scene, image=None, **known))
        harvest.finish()
    return pl.read_parquet(folder / "objects.parquet")


def test_the_order_of_the_runs_objects_does_not_matter() -> None:
    labels = scratched(3)
    runs = runs_of_labels(labels)
    pieces = find_pieces(runs, core=(150, 170))
    back = np.arange(len(runs))[::-1]
    wanted = line_lengths(runs, np.arange(len(runs)))
    np.testing.assert_array_equal(line_lengths(runs, back), wanted[::-1])
    assert (np.isnan(long_lines(pieces, runs)[:, 0]) | (wanted[:, 0] > 0)).all()


# --- distances ---


def test_distances_go_round_what_is_not_the_object() -> None:
    rows = ["111", "1..", "111"]
    labels = np.array([[int(c == "1") for c in row] for row in rows])
    graph = pixel_graph(runs_of_labels(labels).runs)
    distances = np.full(7, FAR, np.int32)
    reached = np.empty(7, np.int32)
    assert sweep(graph, 2, distances, np.empty((2, 7), np.int32), reached) == 7
    assert distances.tolist() == [10, 5, 0, 12, 17, 19, 24]
    assert sorted(reached.tolist()) == list(range(7))


def test_distances_are_those_of_scipy() -> None:
    mask = np.random.default_rng(2).random((30, 40)) < 0.62
    ys, xs = np.nonzero(mask)
    number = {place: i for i, place in enumerate(zip(ys.tolist(), xs.tolist(), strict=True))}
    edges = [
        (i, number[y + dy, x + dx], 7 if dy and dx else 5)
        for (y, x), i in number.items()
        for dy, dx in product((-1, 0, 1), repeat=2)
        if (dy or dx) and (y + dy, x + dx) in number
    ]
    one, two, steps = np.array(edges).T
    n = len(ys)
    wanted = dijkstra(coo_matrix((steps, (one, two)), (n, n)).tocsr(), indices=0)
    graph = pixel_graph(runs_of_labels(mask.astype(np.int32)).runs)
    distances, reached = np.full(n, FAR, np.int32), np.empty(n, np.int32)
    count = sweep(graph, 0, distances, np.empty((2, n), np.int32), reached)
    np.testing.assert_array_equal(np.where(distances == FAR, np.inf, distances), wanted)
    assert count == np.isfinite(wanted).sum()
    assert (np.diff(distances[reached[:count]]) >= 0).all()
