"""TIFF files of every layout give, region by region, what tifffile gives whole."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.images import open_image
from domainseg.images.segments import SegmentCache

RNG = np.random.default_rng(3)


def _random(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    if np.dtype(dtype).kind == "f":
        return RNG.normal(0, 100, shape).astype(dtype)
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype=np.dtype(dtype).newbyteorder("="))


STORAGE: dict[str, dict[str, Any]] = {
    "raw": {},
    "raw big-endian": {"byteorder": ">"},
    "strips": {"rowsperstrip": 7, "compression": "lzw"},
    "one strip": {"rowsperstrip": 70, "compression": "zlib", "predictor": True},
    "tiles": {"tile": (16, 32), "compression": "zstd"},
    "raw tiles": {"tile": (32, 16)},
    "BigTIFF": {"bigtiff": True, "tile": (16, 16)},
}


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
def test_every_region_is_that_part_of_the_image(tmp_path: Path, storage: str, dtype: str) -> None:
    pixels = _random((70, 53), dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **STORAGE[storage])
    with open_image(tmp_path / "a.tif") as image:
        assert (image.shape, image.dtype) == ((1, 70, 53), pixels.dtype)
        assert image.channels == ("grey",)
        np.testing.assert_array_equal(image.read()[0], pixels)
        for _ in range(8):
            y0, y1 = sorted(RNG.integers(0, 71, 2))
            x0, x1 = sorted(RNG.integers(0, 54, 2))
            region = image[:, y0:y1, x0:x1]
            assert region.dtype.isnative
            np.testing.assert_array_equal(region[0], pixels[y0:y1, x0:x1])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_colours_come_channel_first_from_either_layout(
    tmp_path: Path, compression: str | None, planar: str, tile: tuple[int, int] | None
) -> None:
    planes = _random((4, 40, 37), "uint8")
    stored = planes if planar == "separate" else np.moveaxis(planes, 0, -1)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        photometric="rgb",
        planarconfig=planar,
        extrasamples=["unassalpha"],
        compression=compression,
        tile=tile,
    )
    image = open_image(tmp_path / "a.tif")
    assert image.channels == ("red", "green", "blue", "alpha")
    np.testing.assert_array_equal(image[:, 3:30, 10:], planes[:, 3:30, 10:])
    some = open_image(tmp_path / "a.tif", select={"channel": ["blue", "red"]})
    np.testing.assert_array_equal(some[:, 5:9], planes[[2, 0], 5:9])


def test_samples_that_are_no_colours_are_channels(tmp_path: Path) -> None:
    planes = _random((7, 20, 30), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack", planarconfig="separate")
    image = open_image(tmp_path / "a.tif")
    assert image.channels == ("c0", "c1", "c2", "c3", "c4", "c5", "c6")
    np.testing.assert_array_equal(image.read(), planes)


@pytest.mark.parametrize("sub", [True, False])
def test_a_pyramid_has_its_levels_from_sub_directories_or_pages(tmp_path: Path, sub: bool) -> None:
    full = _random((64, 96), "uint8")
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        first: dict[str, Any] = {"subifds": 2} if sub else {}
        writer.write(full, tile=(16, 16), metadata=None, photometric="minisblack", **first)
        for step in (2, 4):
            level = full[::step, ::step]
            kind: dict[str, Any] = {"photometric": "minisblack", "subfiletype": 1, "metadata": None}
            writer.write(level, tile=(16, 16), **kind)
    image = open_image(tmp_path / "a.tif")
    assert [level.shape for level in image.levels] == [(1, 64, 96), (1, 32, 48), (1, 16, 24)]
    assert image.level(2).downsample == (4.0, 4.0)
    for i, step in enumerate((1, 2, 4)):
        np.testing.assert_array_equal(
            image.level(i)[:, 3:9, 5:], full[None, ::step, ::step][:, 3:9, 5:]
        )


def test_ome_names_channels_and_gives_the_pixel_size(tmp_path: Path) -> None:
    planes = _random((2, 20, 30), "uint16")
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        planes,
        photometric="minisblack",
        metadata={
            "axes": "CYX",
            "Channel": {"Name": ["DAPI", "GFP"]},
            "PhysicalSizeX": 325.0,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "\u00b5m",
        },
    )
    image = open_image(tmp_path / "a.ome.tif")
    assert image.format == "OME-TIFF"
    assert image.channels == ("DAPI", "GFP")
    assert image.spacing_um == pytest.approx((0.5, 0.325))
    np.testing.assert_array_equal(open_image(image.path, select={"channel": "GFP"})[0], planes[1])


@pytest.mark.parametrize(
    ("unit", "size"),
    [("micron", 0.25), ("um", 0.25), ("\\u00B5m", 0.25), ("nm", 2.5e-4), ("mm", 250.0)],
)
def test_imagej_gives_the_pixel_size_in_its_unit(tmp_path: Path, unit: str, size: float) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        _random((6, 8), "uint16"),
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"unit": unit, "axes": "YX"},
    )
    assert open_image(tmp_path / "a.tif").spacing_um == pytest.approx((2 * size, size))


@pytest.mark.parametrize(
    ("per_unit", "unit", "spacing"),
    [
        (20000.0, "CENTIMETER", 0.5),
        (50800.0, "INCH", 0.5),
        (300.0, "INCH", None),
        (1200.0, "INCH", None),
        (2400.0, "INCH", 25400 / 2400),
        (28.35, "CENTIMETER", None),
        (1.0, "INCH", None),
        (20000.0, "NONE", None),
    ],
)
def test_resolution_tags_give_a_pixel_size_unless_a_printers(
    tmp_path: Path, per_unit: float, unit: str, spacing: float | None
) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        _random((6, 8), "uint8"),
        resolution=(per_unit, per_unit),
        resolutionunit=unit,
    )
    found = open_image(tmp_path / "a.tif").spacing_um
    assert found == (None if spacing is None else pytest.approx((spacing, spacing)))


def test_a_pixel_size_in_an_unknown_unit_is_unknown(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        _random((6, 8), "uint16"),
        imagej=True,
        resolution=(4.0, 4.0),
        metadata={"unit": "pixel", "axes": "YX"},
    )
    assert open_image(tmp_path / "a.tif").spacing_um is None


def test_white_is_zero_is_inverted(tmp_path: Path) -> None:
    pixels = _random((6, 8), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").read()[0], 65535 - pixels)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    table = _random((3, 256), "uint8")
    pixels = _random((6, 8), "uint8")
    colormap = table.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="palette", colormap=colormap)
    image = open_image(tmp_path / "a.tif")
    assert image.channels == ("red", "green", "blue")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[:, 2:4, 3:], table[:, pixels[2:4, 3:]])


def test_an_imagej_stack_of_one_directory_is_read_plane_by_plane(tmp_path: Path) -> None:
    stack = _random((3, 2, 20, 30), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    image = open_image(tmp_path / "a.tif", select={"z": 2})
    assert image.format == "ImageJ TIFF"
    np.testing.assert_array_equal(image[:, 4:9, 3:], stack[2, :, 4:9, 3:])


def test_tiles_that_were_never_stored_are_zero(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32), np.uint8)
    pixels[:16, :16] = 5
    tiles = iter([pixels[:16, :16], None, None, None])
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        shape: dict[str, Any] = {"shape": (32, 32), "dtype": "uint8", "tile": (16, 16)}
        writer.write(tiles, compression="zlib", photometric="minisblack", **shape)
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").read()[0], pixels)


def test_threads_and_copies_read_the_same(tmp_path: Path) -> None:
    pixels = _random((200, 200), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(16, 16), compression="zlib")
    image = open_image(tmp_path / "a.tif")
    tops = range(0, 190, 7)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda top: image[0, top : top + 10], tops))
    for top, region in zip(tops, read, strict=True):
        np.testing.assert_array_equal(region, pixels[top : top + 10])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).read(), image.read())


def test_the_segment_cache_keeps_the_newest_within_its_bytes() -> None:
    cache = SegmentCache(limit_bytes=25)
    for i in range(3):
        cache.put((0, i), np.full(10, i, np.uint8))
    assert cache.get((0, 0)) is None
    assert cache.get((0, 1)) is not None
    cache.put((0, 3), np.zeros(10, np.uint8))
    assert cache.get((0, 2)) is None
    assert cache.get((0, 1)) is not None
    cache.put((0, 4), np.zeros(100, np.uint8))
    assert cache.get((0, 4)) is not None
    assert cache.get((0, 1)) is None
