"""The model grid: regions equal crops, constants stay, labels come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from domainseg.errors import InputError, UsageError
from domainseg.images import resample as resample_module
from domainseg.images.resample import (
    Grid,
    grid_for,
    labels_to_source,
    resample_labels,
    resample_region,
)

RNG = np.random.default_rng(11)
SCALES = (0.13, 1 / 3, 0.5, 0.731, 1.0, 1.25, 2.0, 3.7)


def _grid(shape: tuple[int, int], sy: float, sx: float) -> Grid:
    return grid_for(shape, (sy, sx), wanted_spacing_um=1.0)


@pytest.mark.parametrize("sy", SCALES)
def test_a_region_is_that_part_of_the_whole_bit_for_bit(sy: float) -> None:
    plane = RNG.integers(0, 65536, (2, 83, 61)).astype(np.uint16)
    grid = _grid((83, 61), sy, 1.37 * sy)
    whole = resample_region(plane, grid)
    assert whole.shape == (2, *grid.model_shape)
    for _ in range(30):
        y0, y1 = sorted(int(v) for v in RNG.integers(0, grid.model_shape[0] + 1, 2))
        x0, x1 = sorted(int(v) for v in RNG.integers(0, grid.model_shape[1] + 1, 2))
        part = resample_region(plane, grid, ((y0, x0), (y1, x1)))
        np.testing.assert_array_equal(part, whole[:, y0:y1, x0:x1])


def test_reading_in_bands_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = RNG.normal(0, 1, (1, 90, 40)).astype(np.float32)
    grid = _grid((90, 40), 0.41, 0.41)
    whole = resample_region(plane, grid)
    monkeypatch.setattr(resample_module, "BAND_PX", 200)
    np.testing.assert_array_equal(resample_region(plane, grid), whole)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("value", [0, 7, 255, 60001])
def test_a_constant_stays_that_constant(scale: float, value: int) -> None:
    plane = np.full((1, 37, 41), value, np.uint16)
    assert (resample_region(plane, _grid((37, 41), scale, scale)) == value).all()


def test_the_same_grid_gives_the_same_values() -> None:
    plane = RNG.integers(0, 65536, (3, 9, 8)).astype(np.uint16)
    grid = grid_for((9, 8), None)
    assert grid == Grid((1.0, 1.0), (9, 8), (9, 8))
    out = resample_region(plane, grid, ((2, 1), (7, 8)))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, plane[:, 2:7, 1:8])


def test_one_axis_alone_is_resampled() -> None:
    plane = RNG.integers(0, 256, (1, 6, 8)).astype(np.uint8)
    out = resample_region(plane, _grid((6, 8), 1.0, 0.5))
    x = plane[0].astype(float)
    # A model pixel's centre lies between source pixels 2j and 2j + 1, the triangle is two
    # source pixels wide on each side: weights 1/8, 3/8, 3/8, 1/8, cut at the border.
    expected = np.stack(
        [
            (3 * x[:, 0] + 3 * x[:, 1] + x[:, 2]) / 7,
            (x[:, 1] + 3 * x[:, 2] + 3 * x[:, 3] + x[:, 4]) / 8,
            (x[:, 3] + 3 * x[:, 4] + 3 * x[:, 5] + x[:, 6]) / 8,
            (x[:, 5] + 3 * x[:, 6] + 3 * x[:, 7]) / 7,
        ],
        axis=1,
    )
    np.testing.assert_allclose(out[0], expected, rtol=1e-6)


def test_doubling_interpolates_between_centres() -> None:
    plane = np.array([[[0.0, 4.0, 8.0]]], np.float32)
    out = resample_region(plane, _grid((1, 3), 1.0, 2.0))
    np.testing.assert_allclose(out[0, 0], [0, 1, 3, 5, 7, 8])


@pytest.mark.parametrize("scale", [0.5, 0.731, 2.0])
def test_a_ramp_stays_a_ramp_at_the_right_place(scale: float) -> None:
    ramp = np.broadcast_to(np.arange(100, dtype=np.float32), (1, 4, 100))
    out = resample_region(ramp, _grid((4, 100), 1.0, scale))
    centres = (np.arange(out.shape[2]) + 0.5) / scale - 0.5
    inside = (centres > 3) & (centres < 96)
    # Between octaves a triangle's samples do not balance exactly: a twentieth of a pixel.
    np.testing.assert_allclose(out[0, 0, inside], centres[inside], atol=0.06)


def test_a_checkerboard_turns_grey_and_not_into_a_moire() -> None:
    board = (np.indices((96, 96)).sum(0) % 2)[None].astype(np.float32)
    inner = resample_region(board, _grid((96, 96), 0.4, 0.4))[0, 3:-3, 3:-3]
    np.testing.assert_allclose(inner, 0.5, atol=0.02)


def test_only_the_source_under_the_region_is_read() -> None:
    read: list[tuple[slice, slice]] = []

    class Recording:
        shape = (1, 1000, 1000)
        dtype = np.dtype(np.uint8)

        def __getitem__(self, key: tuple[slice, slice, slice], /) -> NDArray[Any]:
            read.append(key[1:])
            return np.zeros((1, 1000, 1000), np.uint8)[key]

    resample_region(Recording(), _grid((1000, 1000), 0.5, 0.5), ((100, 200), (110, 220)))
    assert [(r.start, r.stop, c.start, c.stop) for r, c in read] == [(199, 222, 399, 442)]


def test_a_region_outside_or_another_image_is_a_value_error() -> None:
    plane = np.zeros((1, 8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"region \(\(0, 0\), \(9, 4\)\) is outside"):
        resample_region(plane, grid_for((8, 8), None), ((0, 0), (9, 4)))
    with pytest.raises(ValueError, match=r"plane \(1, 8, 8\) is not the source \(9, 8\)"):
        resample_region(plane, grid_for((9, 8), None))
    with pytest.raises(ValueError, match=r"labels \(8, 8\) do not fit the grid \(9, 8\)"):
        resample_labels(plane[0], grid_for((9, 8), None))


def test_labels_are_picked_at_the_centres_of_pixels() -> None:
    labels = np.array([[1, 2, 3, 4, 5]], np.int32)
    smaller = _grid((1, 5), 1.0, 0.5)
    assert smaller.model_shape == (1, 3)
    np.testing.assert_array_equal(resample_labels(labels, smaller), [[2, 4, 5]])
    model = np.array([[7, 8, 9]], np.int32)
    np.testing.assert_array_equal(labels_to_source(model, smaller), [[7, 7, 8, 8, 9]])
    larger = _grid((1, 5), 1.0, 2.0)
    np.testing.assert_array_equal(resample_labels(labels, larger), [[1, 1, 2, 2, 3, 3, 4, 4, 5, 5]])


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.floats(1.0, 15.0), st.floats(1.0, 15.0)),
)
def test_labels_come_back_exactly_from_a_finer_grid(
    shape: tuple[int, int], scale: tuple[float, float]
) -> None:
    labels = np.arange(1, shape[0] * shape[1] + 1).reshape(shape)
    grid = _grid(shape, *scale)
    np.testing.assert_array_equal(labels_to_source(resample_labels(labels, grid), grid), labels)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.floats(1 / 64, 16.0), st.floats(1 / 64, 16.0)),
)
def test_every_source_pixel_has_a_model_pixel(
    shape: tuple[int, int], scale: tuple[float, float]
) -> None:
    grid = _grid(shape, *scale)
    for length, model, s in zip(shape, grid.model_shape, grid.scale_yx, strict=True):
        assert (length - 0.5) * s < model
        assert model == 1 or (model - 1) / s < length + 1e-6 / s


def test_objects_of_one_diameter_become_the_wanted_diameter() -> None:
    grid = grid_for((100, 60), None, diameter_px=30, object_diameter_px=20)
    assert grid == Grid((1.5, 1.5), (150, 90), (100, 60))


def test_oblong_pixels_become_square() -> None:
    grid = grid_for((100, 60), (0.5, 0.25), wanted_spacing_um=0.5)
    assert grid == Grid((1.0, 0.5), (100, 30), (100, 60))
    assert grid_for((100, 60), (0.5, 0.25), wanted_spacing_um=(1.0, 0.25)).scale_yx == (0.5, 1.0)


def test_a_scale_within_a_percent_of_one_is_one() -> None:
    assert grid_for((99, 99), (0.499, 0.5049), wanted_spacing_um=0.5).is_identity
    assert not grid_for((99, 99), (0.49, 0.5), wanted_spacing_um=0.5).is_identity


def test_a_length_times_a_scale_is_not_a_pixel_too_long() -> None:
    assert 0.07 * 100 > 7
    assert _grid((100, 100), 0.07, 0.07).model_shape == (7, 7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"wanted_spacing_um": 0.5},
            "a.png: found no pixel size in the file, wanted one, to resample to data.spacing_um: "
            "0.5; give it with --spacing-um, or choose data.diameter_px or neither.",
        ),
        (
            {"diameter_px": 30.0},
            "a.png: found no diameter of the image's objects, wanted one, to scale them to "
            "data.diameter_px: 30.0; give it with --diameter-px.",
        ),
        (
            {"diameter_px": 30.0, "object_diameter_px": 1.0},
            "a.png: found a scale of 30 x 30 to the model grid, wanted between 0.01562 and 16; "
            "check the objects' diameter (--diameter-px) and data.diameter_px in the recipe.",
        ),
        (
            {"wanted_spacing_um": 0.01, "spacing_um": (1.0, 1.0)},
            "a.png: found a scale of 100 x 100 to the model grid, wanted between 0.01562 and 16; "
            "check the image's pixel size (--spacing-um) and data.spacing_um in the recipe.",
        ),
        (
            {"size_px": 1024},
            "a.png: found a scale of 128 x 128 to the model grid, wanted between 0.01562 and 16; "
            "check the size of the image and data.size_px in the recipe.",
        ),
    ],
)
def test_a_grid_that_cannot_be_made_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        grid_for((8, 8), **{"spacing_um": None, "where": "a.png", **options})
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"wanted_spacing_um": 0.5, "diameter_px": 30.0},
            "a.png: found both data.spacing_um and data.diameter_px, wanted one way to choose the "
            "model grid; remove one of them.",
        ),
        (
            {"wanted_spacing_um": 0.0},
            "a.png: found data.spacing_um 0.0 x 0.0, wanted a length above 0; correct it.",
        ),
        (
            {"diameter_px": float("nan")},
            "a.png: found data.diameter_px nan, wanted a length above 0; correct it.",
        ),
    ],
)
def test_a_grid_asked_for_wrongly_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        grid_for((8, 8), (1.0, 1.0), where="a.png", **options)
    assert str(caught.value) == words
