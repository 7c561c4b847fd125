"""The level a model grid is read from, and pictures of whole images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from domainseg.images import Image, Level, open_image
from domainseg.images.channels import ChannelView, as_channels
from domainseg.images.levels import FittedPlane, level_for, overview, snapped_to_level
from domainseg.images.resample import Grid, grid_for, resample_region

RNG = np.random.default_rng(4)


def _halved(pixels: NDArray[Any], *, up: bool) -> NDArray[Any]:
    """Return means of 2 x 2 pixels; an odd edge is repeated or dropped."""
    h, w = pixels.shape[-2:]
    if up:
        pixels = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + [(0, h % 2), (0, w % 2)], "edge")
    pixels = pixels[..., : pixels.shape[-2] // 2 * 2, : pixels.shape[-1] // 2 * 2]
    parts = [pixels[..., i::2, j::2].astype(float) for i in (0, 1) for j in (0, 1)]
    return np.rint(sum(parts) / 4).astype(pixels.dtype)


def _pyramid(path: Path, full: NDArray[Any], count: int, *, up: bool = True) -> list[NDArray[Any]]:
    """Write a pyramid of RGB ``(3, H, W)`` and return its levels."""
    levels = [full]
    while len(levels) < count:
        levels.append(_halved(levels[-1], up=up))
    with tifffile.TiffWriter(path) as writer:
        for i, level in enumerate(levels):
            kind: dict[str, Any] = {"subfiletype": 1} if i else {}
            stored = np.moveaxis(level, 0, -1)
            writer.write(stored, tile=(16, 16), photometric="rgb", metadata=None, **kind)
    return levels


@pytest.fixture
def slide(tmp_path: Path) -> tuple[Image, list[NDArray[Any]]]:
    full = RNG.integers(0, 256, (3, 161, 227)).astype(np.uint8)
    levels = _pyramid(tmp_path / "a.tif", full, 4)
    return open_image(tmp_path / "a.tif"), levels


def _index(image: Image, plane: object) -> int:
    source = plane.plane if isinstance(plane, FittedPlane | ChannelView) else plane
    return source.index if isinstance(source, Level) else 0


@pytest.mark.parametrize(
    ("scale", "index"),
    [
        (1.0, 0),
        (1.7, 0),
        (0.51, 0),
        (0.502, 1),
        (0.5, 1),
        (0.4, 1),
        (0.25, 2),
        (0.2, 2),
        (0.125, 3),
        (0.02, 3),
    ],
)
def test_the_level_is_the_coarsest_that_is_as_fine_as_the_model_grid(
    slide: tuple[Image, list[NDArray[Any]]], scale: float, index: int
) -> None:
    image, _ = slide
    grid = grid_for((161, 227), (scale, scale), wanted_spacing_um=1.0)
    plane, reading = level_for(image, grid)
    assert _index(image, plane) == index
    assert reading.model_shape == grid.model_shape
    assert tuple(plane.shape[1:]) == reading.source_shape


def test_one_axis_that_does_not_shrink_keeps_the_full_resolution(
    slide: tuple[Image, list[NDArray[Any]]],
) -> None:
    image, _ = slide
    grid = grid_for((161, 227), (0.25, 1.0), wanted_spacing_um=1.0)
    assert level_for(image, grid) == (image, grid)


@pytest.mark.parametrize("up", [True, False])
def test_at_the_scale_of_a_level_the_model_sees_its_pixels(tmp_path: Path, up: bool) -> None:
    full = RNG.integers(0, 256, (3, 161, 227)).astype(np.uint8)
    levels = _pyramid(tmp_path / "a.tif", full, 3, up=up)
    image = open_image(tmp_path / "a.tif")
    for i in (1, 2):
        scale = 0.5**i
        grid = grid_for((161, 227), (scale, scale), wanted_spacing_um=1.0)
        plane, reading = level_for(image, grid)
        assert reading.is_identity
        found = resample_region(plane, reading)
        # A pyramid that drops an odd edge ends a pixel before the model grid does.
        rows, columns = (
            np.minimum(np.arange(n), m - 1)
            for n, m in zip(grid.model_shape, levels[i].shape[1:], strict=True)
        )
        np.testing.assert_array_equal(found, levels[i][:, rows][:, :, columns])
        h, w = grid.model_shape
        corner = ((h - 3, w - 5), (h, w))
        np.testing.assert_array_equal(
            resample_region(plane, reading, corner), found[:, h - 3 :, w - 5 :]
        )


@pytest.mark.parametrize("scale", [0.5, 0.37, 0.25, 0.19, 0.11])
def test_a_level_covers_the_same_ground_as_the_full_resolution(
    tmp_path: Path, scale: float
) -> None:
    y, x = np.mgrid[:1024, :1280] + 0.5
    ramps = np.stack([20 + y / 8, 40 + x / 8, 100 + 0 * x]).astype(np.float32)
    levels = [ramps]
    for _ in range(3):
        part = levels[-1]
        levels.append(part.reshape(3, part.shape[1] // 2, 2, -1, 2).mean(axis=(2, 4)))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for i, level in enumerate(levels):
            kind: dict[str, Any] = {"subfiletype": 1} if i else {}
            stored = np.moveaxis(level, 0, -1)
            writer.write(stored, tile=(64, 64), photometric="rgb", metadata=None, **kind)
    image = open_image(tmp_path / "a.tif")
    grid = grid_for((1024, 1280), (scale, scale), wanted_spacing_um=1.0)
    plane, reading = level_for(image, grid)
    assert _index(image, plane) > 0
    region = ((20, 30), (grid.model_shape[0] - 20, grid.model_shape[1] - 20))
    found, wanted = resample_region(plane, reading, region), resample_region(ramps, grid, region)
    # On a ramp the value is the place, 1/8 a pixel. Weights on few pixels scatter by less than
    # a tenth of a level's pixel; a shift would show in the mean.
    level_px = 1024 / reading.source_shape[0] / 8
    np.testing.assert_allclose(found, wanted, atol=0.1 * level_px)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), wanted.mean(axis=(1, 2)), atol=0.01)


def test_views_of_channels_keep_their_channels_at_every_level(
    slide: tuple[Image, list[NDArray[Any]]],
) -> None:
    image, levels = slide
    view = as_channels(image, image.channels, wanted=["blue", "red", "green"], where="a.tif")
    grid = grid_for((161, 227), (0.25, 0.25), wanted_spacing_um=1.0)
    plane, reading = level_for(view, grid)
    found = resample_region(plane, reading)
    np.testing.assert_array_equal(found[:, :40, :56], levels[2][[2, 0, 1], :40, :56])
    np.testing.assert_array_equal(
        overview(view, longest_px=57)[0], overview(image, longest_px=57)[0][[2, 0, 1]]
    )


def test_planes_without_levels_come_back_as_they_are() -> None:
    pixels = np.zeros((1, 40, 50), np.uint8)
    grid = grid_for((40, 50), (0.25, 0.25), wanted_spacing_um=1.0)
    plane, reading = level_for(pixels, grid)
    assert plane is pixels
    assert reading is grid
    assert snapped_to_level(pixels, grid) is grid
    with pytest.raises(ValueError, match=r"is not the source \(40, 50\) of the grid"):
        level_for(np.zeros((1, 40, 51), np.uint8), grid)


def test_a_grid_snaps_to_the_level_within_a_percent(
    slide: tuple[Image, list[NDArray[Any]]],
) -> None:
    image, levels = slide
    near = grid_for((161, 227), (0.498, 0.498), wanted_spacing_um=1.0)
    snapped = snapped_to_level(image, near)
    assert snapped == Grid((81 / 161, 114 / 227), (81, 114), (161, 227))
    plane, reading = level_for(image, snapped)
    assert reading.is_identity
    np.testing.assert_array_equal(resample_region(plane, reading), levels[1])
    far = grid_for((161, 227), (0.47, 0.47), wanted_spacing_um=1.0)
    assert snapped_to_level(image, far) is far


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    data=st.data(),
)
def test_a_fitted_plane_repeats_the_edge_or_cuts_it(
    shape: tuple[int, int, int], size: tuple[int, int], data: st.DataObject
) -> None:
    pixels = np.arange(np.prod(shape)).reshape(shape)
    rows = np.minimum(np.arange(size[0]), shape[1] - 1)
    columns = np.minimum(np.arange(size[1]), shape[2] - 1)
    whole = pixels[:, rows][:, :, columns]
    plane = FittedPlane(pixels, size)
    assert plane.shape == whole.shape
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(0, size[0])] * 2)))
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(0, size[1])] * 2)))
    np.testing.assert_array_equal(plane[:, y0:y1, x0:x1], whole[:, y0:y1, x0:x1])
    np.testing.assert_array_equal(plane[0], whole[0])


def _area_means(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return exact means by area: every pixel cut into as many parts as there are targets."""
    h, w = size
    fine = np.repeat(np.repeat(pixels.astype(float), h, axis=1), w, axis=2)
    parts = fine.reshape(len(pixels), h, pixels.shape[1], w, pixels.shape[2])
    return np.asarray(parts.mean(axis=(2, 4)))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    longest=st.integers(1, 45),
    kind=st.sampled_from([np.uint8, np.uint16, np.float32]),
    seed=st.integers(0, 999),
)
def test_an_overview_is_the_mean_by_area(
    shape: tuple[int, int, int], longest: int, kind: Any, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 250, shape).astype(kind)
    picture, (down_y, down_x) = overview(pixels, longest_px=longest)
    assert picture.dtype == kind
    assert max(picture.shape[1:]) == min(longest, *[max(shape[1:])])
    assert (down_y, down_x) == (shape[1] / picture.shape[1], shape[2] / picture.shape[2])
    exact = _area_means(pixels, (picture.shape[1], picture.shape[2]))
    np.testing.assert_allclose(picture, exact, atol=0.51 if kind != np.float32 else 1e-3)


def test_an_overview_of_the_image_s_own_size_is_the_image() -> None:
    pixels = RNG.integers(0, 2**16, (2, 30, 20)).astype(np.uint16)
    picture, downsample = overview(pixels, longest_px=500)
    assert downsample == (1.0, 1.0)
    np.testing.assert_array_equal(picture, pixels)


class _Counting:
    """A plane that remembers how much was read of it at a time."""

    def __init__(self, pixels: NDArray[Any]) -> None:
        self.pixels, self.shape, self.dtype = pixels, pixels.shape, pixels.dtype
        self.rows: list[int] = []

    def __getitem__(self, key: Any) -> Any:
        part = self.pixels[key]
        self.rows.append(part.shape[1])
        return part


def test_an_overview_is_read_by_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = RNG.integers(0, 256, (1, 90, 50)).astype(np.uint8)
    whole, _ = overview(pixels, longest_px=31)
    monkeypatch.setattr("domainseg.images.levels.BAND_PX", 500)
    plane = _Counting(pixels)
    picture, _ = overview(plane, longest_px=31)
    np.testing.assert_array_equal(picture, whole)
    assert plane.rows == [10] * 9


def test_an_overview_comes_from_the_coarsest_level_that_suffices(
    slide: tuple[Image, list[NDArray[Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, levels = slide
    read: list[int] = []
    real = Level.__getitem__

    def noting(level: Level, key: Any) -> Any:
        read.append(level.index)
        return real(level, key)

    monkeypatch.setattr(Level, "__getitem__", noting)
    picture, _ = overview(image, longest_px=57)
    assert set(read) == {2}
    assert picture.shape == (3, 40, 57)
    np.testing.assert_allclose(picture, _area_means(levels[2], (40, 57)), atol=0.51)
    read.clear()
    overview(image, longest_px=58)
    assert set(read) == {1}
