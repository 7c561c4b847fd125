"""Intensity ranges are exact percentiles of whole images, applied alike to every region."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from domainseg.errors import InputError, UsageError
from domainseg.images import normalise as normalise_module
from domainseg.images import open_image
from domainseg.images.normalise import (
    Normalisation,
    Range,
    apply_range,
    measure_group_range,
    measure_range,
)
from domainseg.images.segments import SegmentCache

RNG = np.random.default_rng(13)


def _expected(values: NDArray[Any], options: Normalisation) -> NDArray[np.float32]:
    percentiles = [options.low_percentile, options.high_percentile]
    flat = values.astype(np.float32)
    return np.asarray(np.percentile(flat, percentiles, method="inverted_cdf"), np.float32)


def _values(dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if np.dtype(dtype).kind == "f":
        return (RNG.normal(0, 1, shape) ** 5).astype(dtype)
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize(
    "dtype",
    ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"],
)
@pytest.mark.parametrize("percentiles", [(1.0, 99.8), (0.0, 100.0), (12.5, 50.0)])
def test_the_range_is_the_order_statistic_of_every_dtype(
    dtype: str, percentiles: tuple[float, float]
) -> None:
    plane = _values(dtype, (2, 33, 41))
    options = Normalisation(*percentiles)
    found = measure_range(plane, options)
    assert found.low.dtype == found.high.dtype == np.float32
    for channel in range(2):
        low, high = _expected(plane[channel], options)
        assert (found.low[channel], found.high[channel]) == (low, high)


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.just(1), st.integers(1, 6), st.integers(1, 6)),
           elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    st.floats(0, 99), st.floats(0.5, 1),
)  # fmt: skip
def test_float_percentiles_are_exact(plane: NDArray[np.float32], low: float, part: float) -> None:
    options = Normalisation(low, low + part * (100 - low))
    found = measure_range(plane, options)
    np.testing.assert_array_equal([found.low[0], found.high[0]], _expected(plane, options))


def test_one_bright_grain_does_not_coarsen_a_float_image() -> None:
    plane = RNG.normal(0, 1, (1, 100, 100))
    plane[0, 5, 5] = 1e30
    found = measure_range(plane, Normalisation(1, 99))
    np.testing.assert_array_equal(
        [found.low[0], found.high[0]], _expected(plane, Normalisation(1, 99))
    )


@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize("threads", [1, 3])
def test_counting_in_pieces_changes_nothing(
    dtype: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = _values(dtype, (3, 50, 20))
    whole = measure_range(plane, Normalisation())
    monkeypatch.setattr(normalise_module, "PIECE_PX", 60)
    pieces = measure_range(plane, Normalisation(), threads=threads)
    np.testing.assert_array_equal(pieces.low, whole.low)
    np.testing.assert_array_equal(pieces.high, whole.high)


def test_every_tile_of_a_wide_image_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded_segments: list[int]
) -> None:
    pixels = _values("u1", (48, 640))
    tifffile.imwrite(tmp_path / "wide.tif", pixels, tile=(16, 16), compression="zlib")
    # A row of tiles is more than a piece and more than what stays in the cache.
    monkeypatch.setattr(normalise_module, "PIECE_PX", 1024)
    monkeypatch.setattr(SegmentCache.__init__, "__defaults__", (1,))
    with open_image(tmp_path / "wide.tif") as image:
        found = measure_range(image, Normalisation(1, 99), threads=2)
    assert sorted(decoded_segments) == list(range(3 * 40))
    low, high = _expected(pixels, Normalisation(1, 99))
    assert (found.low[0], found.high[0]) == (low, high)


def test_an_error_while_counting_ends_all_threads() -> None:
    class Broken:
        shape, dtype = (1, 4096, 4096), np.dtype(np.uint8)

        def __getitem__(self, key: Any) -> Any:
            raise InputError("broken")

    with pytest.raises(InputError, match="broken"):
        measure_range(Broken(), Normalisation(), threads=3)


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_ignored_pixels_do_not_count(dtype: str) -> None:
    plane = _values(dtype, (2, 30, 20))
    ignore = np.zeros((30, 20), bool)
    ignore[10:, 3:] = True
    options = Normalisation(5, 95)
    found = measure_range(plane, options, ignore=ignore)
    for channel in range(2):
        low, high = _expected(plane[channel][~ignore], options)
        assert (found.low[channel], found.high[channel]) == (low, high)


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_one_range_for_the_image_keeps_the_colours(dtype: str) -> None:
    plane = _values(dtype, (3, 20, 20))
    options = Normalisation(5, 95, per="image")
    found = measure_range(plane, options)
    low, high = _expected(plane, options)
    np.testing.assert_array_equal(found.low, [low] * 3)
    np.testing.assert_array_equal(found.high, [high] * 3)


def test_a_group_is_measured_as_one_image() -> None:
    planes = [_values("u2", (2, 9, 11)), _values("u2", (2, 30, 4)), _values("u1", (2, 5, 5))]
    options = Normalisation(scope="group")
    for group in (planes[:2], planes):
        joined = np.concatenate([p.reshape(2, 1, -1).astype(np.uint16) for p in group], axis=2)
        found, expected = measure_group_range(group, options), measure_range(joined, options)
        np.testing.assert_array_equal(found.low, expected.low)
        np.testing.assert_array_equal(found.high, expected.high)


def test_a_fixed_range_is_what_was_given() -> None:
    options = Normalisation(scope="fixed", fixed_low=100, fixed_high=4000)
    found = measure_range(np.zeros((2, 3, 3), np.uint16), options)
    assert (found.low.tolist(), found.high.tolist()) == ([100, 100], [4000, 4000])


def test_low_becomes_zero_and_high_becomes_one() -> None:
    region = np.array([[[10, 20, 30]], [[0, 50, 100]]], np.uint8)
    out = apply_range(region, Range(np.array([10, 0], "f4"), np.array([30, 200], "f4")))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [[[0, 0.5, 1]], [[0, 0.25, 0.5]]])


def test_values_far_outside_are_cut() -> None:
    region = np.array([[[-1000.0, 0.0, 1000.0]]])
    out = apply_range(region, Range(np.array([0], "f4"), np.array([1], "f4")))
    np.testing.assert_array_equal(out, [[[-1, 0, 4]]])


@pytest.mark.parametrize("value", [0.0, 255.0, -3e38])
def test_a_constant_image_becomes_zero(value: float) -> None:
    plane = np.full((1, 4, 4), value, np.float32)
    assert not apply_range(plane, measure_range(plane, Normalisation())).any()


def test_values_too_near_to_divide_by_become_zero() -> None:
    plane = np.array([[[0.0, 1e-44]]], np.float32)
    assert not apply_range(plane, measure_range(plane, Normalisation(0, 100))).any()


def test_a_region_is_normalised_as_that_part_of_the_whole() -> None:
    plane = _values("u2", (3, 40, 40))
    found = measure_range(plane, Normalisation())
    np.testing.assert_array_equal(
        apply_range(plane[:, 5:9, 3:30], found), apply_range(plane, found)[:, 5:9, 3:30]
    )


def test_the_region_is_not_changed() -> None:
    region = np.ones((1, 2, 2), np.float32)
    apply_range(region, Range(np.array([0], "f4"), np.array([2], "f4")))
    assert (region == 1).all()


def test_an_image_of_ignored_pixels_only_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        measure_range(np.ones((1, 2, 2)), Normalisation(), ignore=np.ones((2, 2), bool))
    assert str(caught.value) == (
        "image: found no pixel that counts, wanted at least one to measure the intensity range "
        "on; check the ignore mask."
    )


def test_a_group_of_different_channels_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"images with \[1, 2\] channels in a group"):
        measure_group_range([np.ones((1, 2, 2)), np.ones((2, 2, 2))], Normalisation())


@pytest.mark.parametrize("percentiles", [(5.0, 5.0), (-1.0, 50.0), (1.0, 101.0)])
def test_impossible_percentiles_are_refused(percentiles: tuple[float, float]) -> None:
    with pytest.raises(UsageError) as caught:
        Normalisation(*percentiles)
    assert str(caught.value) == (
        f"normalisation: found percentiles {percentiles[0]} and {percentiles[1]}, wanted "
        "0 <= low < high <= 100; correct low_percentile and high_percentile."
    )


@pytest.mark.parametrize(
    ("scope", "low", "high"), [("fixed", None, None), ("fixed", 2.0, 1.0), ("image", 0.0, 1.0)]
)
def test_a_fixed_range_belongs_to_scope_fixed(
    scope: Any, low: float | None, high: float | None
) -> None:
    with pytest.raises(UsageError) as caught:
        Normalisation(scope=scope, fixed_low=low, fixed_high=high)
    assert str(caught.value) == (
        f"normalisation: found scope {scope} with fixed_low {low} and fixed_high {high}, wanted "
        "fixed_low < fixed_high with scope fixed, and neither without; correct scope, fixed_low "
        "and fixed_high."
    )
