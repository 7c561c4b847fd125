"""The object table against scikit-image, hand-made objects, and laws."""

from __future__ import annotations

import math
import uuid
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import measure as skimage_measure

from domainseg.errors import InputError
from domainseg.instances.columns import OBJECT_COLUMNS, table_columns
from domainseg.instances.measure import (
    OBJECT_NAMESPACE,
    intensity_quanta,
    measure,
    object_table,
)
from domainseg.instances.pieces import Pieces, find_pieces, merge_pieces
from domainseg.instances.runs import runs_of_labels
from domainseg.records import Instances

Labels = NDArray[np.int32]

connected: Any = skimage_measure.label
regionprops_table: Any = skimage_measure.regionprops_table

PIXEL = np.array([[1]], np.int32)
SKIMAGE = {
    "label": "label",
    "y0_px": "bbox-0",
    "x0_px": "bbox-1",
    "y1_px": "bbox-2",
    "x1_px": "bbox-3",
    "y_px": "centroid-0",
    "x_px": "centroid-1",
    "area_px": "area",
    "perimeter_px": "perimeter_crofton",
    "axis_major_px": "axis_major_length",
    "axis_minor_px": "axis_minor_length",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "eq_diameter_px": "equivalent_diameter_area",
    "euler_number": "euler_number",
}
PROPERTIES = sorted({name.rsplit("-", 1)[0] for name in SKIMAGE.values()})


def speckle(seed: int, *, shape: tuple[int, int] = (90, 120), smooth: float = 1.5) -> Labels:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    return np.asarray(connected(noise > 0.1 * noise.std(), connectivity=2), np.int32)


def label_noise(seed: int, *, shape: tuple[int, int] = (40, 50), count: int = 6) -> Labels:
    """Objects of many parts everywhere, diagonal contacts and holes included."""
    return np.random.default_rng(seed).integers(0, count, shape).astype(np.int32)


def assert_equal(one: pl.DataFrame, other: pl.DataFrame, *, without: tuple[str, ...] = ()) -> None:
    left, right = one.drop(without), other.drop(without)
    assert left.columns == right.columns
    for name in left.columns:
        assert left[name].to_list() == right[name].to_list(), name


# --- against scikit-image ---


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", [speckle, label_noise])
def test_numbers_equal_those_of_scikit_image(make: Any, seed: int) -> None:
    labels = make(seed)
    table = measure(labels)
    reference = regionprops_table(labels, properties=PROPERTIES)
    for ours, theirs in SKIMAGE.items():
        np.testing.assert_allclose(
            table[ours].to_numpy(), reference[theirs], rtol=1e-12, atol=1e-6, err_msg=ours
        )
    assert table["solidity"].to_list() == reference["solidity"].tolist()
    assert table["y_px"].to_list() == reference["centroid-0"].tolist()


@pytest.mark.parametrize("seed", range(4))
def test_moments_and_areas_of_oblong_pixels_equal_those_of_scikit_image(seed: int) -> None:
    labels = speckle(seed)
    spacing = (0.7, 0.25)
    table = measure(labels, spacing_um=spacing)
    names = {
        "y_um": "centroid-0",
        "x_um": "centroid-1",
        "area_um2": "area",
        "axis_major_um": "axis_major_length",
        "axis_minor_um": "axis_minor_length",
        "eccentricity": "eccentricity",
        "eq_diameter_um": "equivalent_diameter_area",
    }
    properties = sorted({name.rsplit("-", 1)[0] for name in names.values()})
    reference = regionprops_table(labels, properties=properties, spacing=spacing)
    for ours, theirs in names.items():
        np.testing.assert_allclose(
            table[ours].to_numpy(), reference[theirs], rtol=1e-12, atol=1e-6, err_msg=ours
        )


@pytest.mark.parametrize("seed", range(4))
def test_orientation_is_that_of_scikit_image_counted_from_the_x_axis(seed: int) -> None:
    labels = speckle(seed)
    table = measure(labels)
    reference = regionprops_table(labels, properties=["orientation"])["orientation"]
    ours = table["orientation_deg"].to_numpy()
    off = (ours - np.degrees(reference) - 90) % 180
    known = ~np.isnan(ours)
    assert np.minimum(off, 180 - off)[known].max() < 1e-9
    assert ours[known].min() >= 0
    assert ours[known].max() < 180


@pytest.mark.parametrize("seed", range(4))
def test_length_differs_from_the_feret_diameter_of_scikit_image_by_less_than_a_pixel(
    seed: int,
) -> None:
    labels = speckle(seed)
    reference = regionprops_table(labels, properties=["feret_diameter_max"])["feret_diameter_max"]
    assert np.abs(measure(labels)["length_px"].to_numpy() - reference).max() < 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_intensities_equal_those_of_numpy(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    labels = speckle(3)
    image = (rng.normal(size=(2, *labels.shape)) * 30 + 100).astype(dtype)
    table = measure(labels, image=image, channels=("a", "b"))
    for c, channel in enumerate("ab"):
        for row in table.iter_rows(named=True):
            values = image[c][labels == row["label"]].astype(np.float64)
            assert row[f"intensity_min_{channel}"] == values.min()
            assert row[f"intensity_max_{channel}"] == values.max()
            assert row[f"intensity_mean_{channel}"] == pytest.approx(values.mean(), rel=1e-9)
            assert row[f"intensity_std_{channel}"] == pytest.approx(values.std(), abs=1e-6)


# --- hand-made objects ---


def only(labels: Any, **options: Any) -> dict[str, Any]:
    table = measure(np.asarray(labels, np.int32), **options)
    assert len(table) == 1
    return table.row(0, named=True)


def test_a_single_pixel() -> None:
    row = only(PIXEL, spacing_um=(2.0, 2.0))
    assert row["area_px"] == 1
    assert (row["y_px"], row["x_px"]) == (0.0, 0.0)
    assert row["length_px"] == pytest.approx(math.sqrt(2))
    assert row["width_px"] == 1.0
    assert (row["axis_major_px"], row["axis_minor_px"], row["eccentricity"]) == (0.0, 0.0, 0.0)
    assert row["orientation_deg"] is None
    assert row["solidity"] == 1.0
    assert row["circularity"] == 1.0
    assert row["euler_number"] == 1
    assert row["touches_border"] is True
    assert row["area_um2"] == 4.0
    assert row["length_um"] == pytest.approx(2 * math.sqrt(2))


@pytest.mark.parametrize("n", [2, 7, 5000])
def test_a_row_of_pixels(n: int) -> None:
    row = only(np.ones((1, n)))
    assert row["length_px"] == pytest.approx(math.hypot(n, 1))
    assert row["width_px"] == 1.0
    assert row["axis_major_px"] == pytest.approx(4 * math.sqrt((n * n - 1) / 12))
    assert row["axis_minor_px"] == 0.0
    assert row["orientation_deg"] == 0.0
    assert row["eccentricity"] == 1.0
    assert row["x_px"] == (n - 1) / 2


def test_a_rectangle() -> None:
    labels = np.zeros((9, 9), np.int32)
    labels[2:5, 1:8] = 4
    row = only(labels)
    assert row["label"] == 4
    assert [row[k] for k in ("y0_px", "x0_px", "y1_px", "x1_px")] == [2, 1, 5, 8]
    assert (row["y_px"], row["x_px"]) == (3.0, 4.0)
    assert row["length_px"] == pytest.approx(math.hypot(3, 7))
    assert row["width_px"] == 3.0
    assert row["solidity"] == 1.0
    assert row["touches_border"] is False


@pytest.mark.parametrize(
    ("labels", "degrees"),
    [
        ([[1, 1, 1]], 0.0),
        ([[0, 0, 1], [0, 1, 0], [1, 0, 0]], 45.0),
        ([[1], [1], [1]], 90.0),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 135.0),
        ([[1, 1], [1, 1]], None),
    ],
)
def test_orientation_runs_counter_clockwise_on_the_screen(labels: Any, degrees: Any) -> None:
    assert only(labels)["orientation_deg"] == degrees


@pytest.mark.parametrize(
    ("labels", "euler"),
    [
        ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], 0),
        ([[0, 1, 0], [1, 0, 1], [0, 1, 0]], 0),
        ([[1, 0], [0, 1]], 1),
        ([[1, 0, 1], [0, 0, 0], [1, 0, 1]], 4),
        ([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]], -1),
        ([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], -1),
    ],
)
def test_euler_number_counts_8_connected_parts_less_4_connected_holes(
    labels: Any, euler: int
) -> None:
    assert only(labels)["euler_number"] == euler


def test_parts_of_one_label_are_one_object() -> None:
    labels = np.zeros((5, 30), np.int32)
    labels[0, 0] = labels[4, 29] = 7
    row = only(labels)
    assert row["area_px"] == 2
    assert row["length_px"] == pytest.approx(math.hypot(5, 30))
    assert row["euler_number"] == 2


def test_perimeter_of_a_large_disc_is_that_of_the_circle() -> None:
    yy, xx = np.mgrid[-120:121, -120:121]
    disc = (yy**2 + xx**2 < 100**2).astype(np.int32)
    row = only(disc, spacing_um=(1.0, 1.0))
    assert row["perimeter_px"] == pytest.approx(2 * math.pi * 100, rel=0.02)
    assert row["circularity"] > 0.98
    assert row["length_px"] == pytest.approx(200, abs=1.5)
    assert row["width_px"] == pytest.approx(200, abs=1.5)


def test_a_disc_in_oblong_pixels_keeps_its_lengths() -> None:
    sy, sx = 0.5, 0.25
    yy, xx = np.mgrid[-140:141, -280:281]
    disc = ((yy * sy) ** 2 + (xx * sx) ** 2 < 60**2).astype(np.int32)
    row = only(disc, spacing_um=(sy, sx))
    assert row["area_um2"] == pytest.approx(math.pi * 60**2, rel=1e-3)
    assert row["perimeter_um"] == pytest.approx(2 * math.pi * 60, rel=0.03)
    for name in ("length_um", "width_um", "axis_major_um", "axis_minor_um", "eq_diameter_um"):
        assert row[name] == pytest.approx(120, rel=0.01), name
    assert row["eccentricity"] < 0.1


def test_perimeter_of_an_oblong_pixel_weighs_each_direction_by_its_angle() -> None:
    sy, sx = 3.0, 4.0
    steepness = math.atan2(sy, sx)
    expected = steepness * sy + (math.pi / 2 - steepness) * sx + 2 * math.pi / 4 * sy * sx / 5
    assert only(PIXEL, spacing_um=(sy, sx))["perimeter_um"] == pytest.approx(expected, rel=1e-12)


def test_orientation_of_an_almost_level_line_is_not_180() -> None:
    labels = np.zeros((2, 400_000), np.int32)
    labels[0], labels[1, 200_000] = 1, 1
    assert only(labels)["orientation_deg"] == 0.0


# --- laws ---

maps = st.integers(0, 2**32 - 1).map(
    lambda seed: label_noise(seed, shape=(13, 17), count=2 + seed % 5)
)
shifted_by = ("y0_px", "x0_px", "y1_px", "x1_px", "y_px", "x_px", "touches_border")


@given(maps, st.integers(0, 300), st.integers(0, 300))
@settings(deadline=None, max_examples=40)
def test_moving_an_object_changes_nothing_but_its_place(labels: Labels, dy: int, dx: int) -> None:
    moved = np.pad(labels, ((dy, 3), (dx, 2)))
    here, there = measure(labels), measure(moved)
    assert_equal(here, there, without=shifted_by)
    assert there["y0_px"].to_list() == (here["y0_px"] + dy).to_list()
    np.testing.assert_allclose(there["x_px"], here["x_px"] + dx, rtol=1e-14)


@given(maps)
@settings(deadline=None, max_examples=40)
def test_turning_by_90_degrees_turns_the_orientation_and_nothing_else(labels: Labels) -> None:
    here, there = measure(labels), measure(np.rot90(labels))
    for column in OBJECT_COLUMNS:
        name = column.name
        if name in shifted_by or name == "orientation_deg" or name.endswith(("_um", "_um2")):
            continue
        if name in ("skeleton_length_px", "mean_width_px"):
            continue  # noise has several longest paths; of scratches see test_skeleton.py
        if column.dtype == pl.Float64():
            np.testing.assert_allclose(there[name], here[name], rtol=1e-12, err_msg=name)
        else:
            assert there[name].to_list() == here[name].to_list(), name
    turned = (here["orientation_deg"] + 90) % 180
    off = ((turned - there["orientation_deg"]).abs() % 180).drop_nulls().to_numpy()
    assert np.minimum(off, 180 - off).max(initial=0) < 1e-9
    assert (
        here["orientation_deg"].is_null().to_list() == there["orientation_deg"].is_null().to_list()
    )


@given(maps, st.integers(1, 7), st.integers(1, 9))
@settings(deadline=None, max_examples=40)
def test_a_pixel_cut_into_whole_pixels_keeps_areas_hulls_and_holes(
    labels: Labels, ky: int, kx: int
) -> None:
    coarse = measure(labels, spacing_um=(float(ky), float(kx)))
    fine = measure(np.kron(labels, np.ones((ky, kx), np.int32)), spacing_um=(1.0, 1.0))
    for name in ("area_um2", "length_um", "width_um", "eq_diameter_um"):
        np.testing.assert_allclose(fine[name], coarse[name], rtol=1e-12, err_msg=name)
    assert fine["euler_number"].to_list() == coarse["euler_number"].to_list()


@given(maps, st.floats(0.1, 10))
@settings(deadline=None, max_examples=25)
def test_micrometres_are_pixels_times_the_size_of_square_pixels(
    labels: Labels, size: float
) -> None:
    table = measure(labels, spacing_um=(size, size))
    for column in OBJECT_COLUMNS:
        if column.name.endswith("_px") and f"{column.name[:-3]}_um" in table.columns:
            um = table[f"{column.name[:-3]}_um"]
            np.testing.assert_allclose(um, table[column.name] * size, rtol=1e-9, atol=1e-9)
    unscaled = measure(labels)
    for name in ("eccentricity", "solidity", "circularity", "orientation_deg"):
        np.testing.assert_allclose(table[name], unscaled[name], rtol=1e-9, atol=1e-6)


def tile_pieces(
    labels: Labels, image: Any, quanta: NDArray[np.float64], tile: tuple[int, int]
) -> list[Pieces]:
    parts = []
    corners = product(range(0, labels.shape[0], tile[0]), range(0, labels.shape[1], tile[1]))
    for y, x in corners:
        core = (min(tile[0], labels.shape[0] - y), min(tile[1], labels.shape[1] - x))
        window = runs_of_labels(labels[y : y + core[0] + 1, x : x + core[1] + 1])
        parts.append(find_pieces(window, core=core, origin=(y, x), image=image, quanta=quanta))
    return parts


@given(maps, st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_tiles_merged_in_any_order_give_the_table_of_the_whole(
    labels: Labels, height: int, width: int, shuffler: Any
) -> None:
    image = np.random.default_rng(0).normal(size=(2, *labels.shape)).astype(np.float32)
    options: dict[str, Any] = {"spacing_um": (0.3, 0.5), "channels": ("a", "b")}
    parts = tile_pieces(labels, image, intensity_quanta(image), (height, width))
    shuffler.shuffle(parts)
    half = len(parts) // 2
    halves = [part for part in (parts[:half], parts[half:]) if part]
    merged = merge_pieces([merge_pieces(part) for part in halves])
    assert_equal(
        object_table(merged, runs_of_labels(labels), shape=labels.shape, **options),
        measure(labels, image=image, **options),
    )


def test_sums_beyond_int64_stay_exact() -> None:
    side = 1 << 19
    bar = np.ones((4, 64), np.int32)
    image = np.full((1, 4, 64), 65535, np.uint16)
    quanta = np.ones(1)
    near = find_pieces(runs_of_labels(bar), core=bar.shape, image=image, quanta=quanta)
    runs = np.array([[0, 0, side], [side - 1, 0, side]], np.int64)
    far = Instances(
        ids=np.array([1]),
        boxes=np.array([[[0, 0], [side, side]]]),
        runs=np.repeat(runs, [1, 1], axis=0),
        offsets=np.array([0, 2]),
        classes=np.zeros(1, np.int16),
        scores=np.ones(1, np.float32),
        shape=(side, side),
    )
    row = measure(far).row(0, named=True)
    variance_x, variance_y = (side * side - 1) / 12, (side - 1) ** 2 / 4
    assert row["axis_major_px"] == pytest.approx(4 * math.sqrt(variance_y), rel=1e-15)
    assert row["axis_minor_px"] == pytest.approx(4 * math.sqrt(variance_x), rel=1e-15)
    assert row["length_px"] == pytest.approx(side * math.sqrt(2), rel=1e-15)
    assert near.totals[0, 0].tolist() == [256 * 65535, 256 * 65535**2]


def test_instances_give_the_table_of_their_label_map() -> None:
    labels = speckle(5)
    instances = Instances.from_label_map(labels)
    image = np.random.default_rng(1).integers(0, 4000, (1, *labels.shape)).astype(np.uint16)
    assert_equal(measure(instances, image=image), measure(labels, image=image))


def test_overlapping_instances_are_measured_each_on_its_own() -> None:
    big, small = np.zeros((2, 6, 6), np.int32)
    big[:, :], small[2:4, 2:4] = 1, 2
    one, two = Instances.from_label_map(big), Instances.from_label_map(small)
    both = Instances(
        ids=np.array([1, 2]),
        boxes=np.concatenate([one.boxes, two.boxes]),
        runs=np.concatenate([one.runs, two.runs]),
        offsets=np.array([0, 6, 8]),
        classes=np.array([0, 1], np.int16),
        scores=np.array([1.0, 0.5], np.float32),
        shape=(6, 6),
    )
    table = measure(both, class_names=("cell", "nucleus"))
    assert table["area_px"].to_list() == [36, 4]
    assert table["class"].to_list() == ["cell", "nucleus"]
    assert table["score"].to_list() == [1.0, 0.5]


def test_runs_that_touch_in_a_row_are_one_run() -> None:
    whole = Instances.from_label_map(np.ones((2, 4), np.int32))
    cut = Instances(
        ids=whole.ids,
        boxes=whole.boxes,
        runs=np.array([[0, 0, 1], [0, 1, 3], [1, 0, 2], [1, 2, 2]], np.int64),
        offsets=np.array([0, 4]),
        classes=whole.classes,
        scores=whole.scores,
        shape=whole.shape,
    )
    assert_equal(measure(cut), measure(whole))


# --- schema and borders ---


def test_the_table_has_every_column_of_the_schema_whatever_is_known() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    for table, channels in (
        (measure(np.zeros((3, 3), np.int32)), ()),
        (measure(np.zeros((0, 0), np.int32)), ()),
        (measure(np.eye(3, dtype=np.int32)), ()),
        (
            measure(np.eye(3, dtype=np.int32), image=image, channels=("DAPI", "GFP")),
            ("DAPI", "GFP"),
        ),
    ):
        columns = table_columns(channels)
        assert table.schema == pl.Schema([(c.name, c.dtype) for c in columns])


def test_micrometres_are_null_where_the_pixel_size_is_unknown() -> None:
    row = only(PIXEL)
    unknown = [name for name in row if name.endswith(("_um", "_um2"))]
    assert len(unknown) == 11
    assert [row[name] for name in unknown] == [None] * 11


def test_ids_are_uuid5_of_image_layer_and_label() -> None:
    row = only([[0, 12]], image_sha256="abc", layer=3, image_id="a.png")
    assert row["id"] == str(uuid.uuid5(OBJECT_NAMESPACE, "abc/3/12"))
    assert (row["image"], row["layer"], row["label"]) == ("a.png", 3, 12)
    labels = np.arange(1, 301, dtype=np.int32)[None]
    ids = measure(labels)["id"].to_list()
    assert ids == [str(uuid.uuid5(OBJECT_NAMESPACE, f"/0/{label}")) for label in range(1, 301)]


@pytest.mark.parametrize("gap", [1, 1000, 10**6, 2**40])
def test_gaps_in_the_numbering_are_kept(gap: int) -> None:
    labels = np.array([[1, 0, 2], [0, 3, 0]], np.int64) * gap
    table = measure(labels, classes=[0, 1, 0], class_names=("a", "b"), scores=[0.1, 0.2, 0.3])
    assert table["label"].to_list() == [gap, 2 * gap, 3 * gap]
    assert table["class"].to_list() == ["a", "b", "a"]
    assert table["score"].to_list() == [pytest.approx(v) for v in (0.1, 0.2, 0.3)]


def test_whole_numbers_of_32_bits_are_summed_exactly() -> None:
    image = np.array([[[2**31 - 1, 2**31 - 3]]], np.int32)
    row = only([[1, 1]], image=image)
    assert row["intensity_mean_0"] == 2**31 - 2
    assert row["intensity_std_0"] == 1.0
    assert (row["intensity_min_0"], row["intensity_max_0"]) == (2**31 - 3, 2**31 - 1)


def test_constant_intensity_has_no_spread() -> None:
    image = np.full((1, 50, 50), 0.1, np.float32)
    row = only(np.ones((50, 50)), image=image)
    assert row["intensity_std_0"] == 0.0
    assert row["intensity_mean_0"] == pytest.approx(float(np.float32(0.1)), rel=2**-30)


def test_seventy_thousand_objects_are_measured() -> None:
    yy, xx = np.mgrid[:1600, :1600]
    labels = np.where((yy % 6 < 4) & (xx % 6 < 4), (yy // 6) * 267 + xx // 6 + 1, 0)
    table = measure(labels.astype(np.int32))
    assert len(table) == 267 * 267
    assert table["area_px"].unique().to_list() == [16]
    assert table["label"].to_list() == list(range(1, 267 * 267 + 1))
    assert table["length_px"].unique().to_list() == [math.sqrt(32)]


def test_an_object_larger_than_a_tile_is_whole() -> None:
    labels = np.zeros((3, 9000), np.int32)
    labels[1] = 1
    row = only(labels)
    assert row["length_px"] == pytest.approx(math.hypot(9000, 1))
    assert row["euler_number"] == 1
    reference = regionprops_table(labels, properties=["perimeter_crofton"])
    assert row["perimeter_px"] == pytest.approx(reference["perimeter_crofton"][0], rel=1e-12)


# --- refusals ---


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            np.zeros((2, 2), np.float32),
            "a.png: found an array of float32 with shape (2, 2), wanted integer labels of shape "
            "(H, W); number the objects first, 0 for background.",
        ),
        (
            np.zeros((1, 2, 2), np.int32),
            "a.png: found an array of int32 with shape (1, 2, 2), wanted integer labels of shape "
            "(H, W); number the objects first, 0 for background.",
        ),
        (
            np.array([[-3]], np.int32),
            "a.png: found label -3, wanted labels from 0 to 9223372036854775807; "
            "renumber the objects, 0 for background.",
        ),
        (
            np.array([[2**63]], np.uint64),
            "a.png: found label 9223372036854775808, wanted labels from 0 to 9223372036854775807; "
            "renumber the objects, 0 for background.",
        ),
    ],
)
def test_what_is_no_label_map_is_refused(labels: Any, text: str) -> None:
    with pytest.raises(InputError) as caught:
        measure(labels, image_id="a.png")
    assert str(caught.value) == text


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        measure(PIXEL, image=np.zeros((1, 2, 2)), image_id="a.png")
    assert str(caught.value) == (
        "a.png: found an image of shape (1, 2, 2), wanted (C, 1, 1), the size of the objects' "
        "plane; measure the objects on the image they were found in."
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(InputError) as caught:
        measure(PIXEL, image=np.full((1, 1, 1), value), image_id="a.png")
    assert str(caught.value) == (
        "a.png: found NaN or infinite pixels, wanted finite intensities; "
        "replace them before measuring."
    )


def test_a_plane_too_long_for_exact_sums_is_refused() -> None:
    labels = Instances.from_label_map(PIXEL)
    long = Instances(
        ids=labels.ids,
        boxes=labels.boxes,
        runs=labels.runs,
        offsets=labels.offsets,
        classes=labels.classes,
        scores=labels.scores,
        shape=(1, 2**20 + 1),
    )
    with pytest.raises(InputError) as caught:
        measure(long)
    assert str(caught.value) == (
        "instances: found a plane of 1 x 1048577 px, wanted sides of at most 1048576 px; "
        "measure it as tiles with find_pieces and merge_pieces."
    )


def test_values_that_do_not_fit_the_rows_are_errors_of_the_caller() -> None:
    with pytest.raises(
        ValueError, match=r"classes has shape \(2,\), wanted one per object: \(1,\)"
    ):
        measure(PIXEL, classes=[0, 0])
    with pytest.raises(ValueError, match="classes hold 1, but there are 1 class names"):
        measure(PIXEL, classes=[1])
    with pytest.raises(ValueError, match="does not name each of the 2 channels once"):
        measure(PIXEL, image=np.zeros((2, 1, 1)), channels=("a",))
    with pytest.raises(ValueError, match="is not positive; pass None where it is unknown"):
        measure(PIXEL, spacing_um=(0.0, 1.0))
