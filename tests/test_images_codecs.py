"""Strips and tiles of every compression give, region by region, the pixels of the whole."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from domainseg.errors import InputError
from domainseg.images import DamagedTileError, open_image
from domainseg.images.files import DAMAGE
from domainseg.images.jpeg_stream import check_jpeg
from domainseg.images.tiff_codecs import rgb_of_ycbcr

RNG = np.random.default_rng(8)


def _smooth(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a picture that compresses as photographs do."""
    steps = RNG.normal(0, 1, shape).cumsum(axis=0).cumsum(axis=1)
    return np.asarray(128 + 100 * np.sin(steps / 400) + RNG.normal(0, 3, shape), np.uint8)


COLOURS = _smooth((150, 170, 3))
CODECS: dict[str, dict[str, Any]] = {
    "none": {},
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib", "predictor": True},
    "zstd": {"compression": "zstd"},
    "jpeg in YCbCr": {"compression": "jpeg", "subsampling": (1, 1)},
    "jpeg in YCbCr, halved": {"compression": "jpeg"},
    "jpeg in RGB": {"compression": "jpeg", "compressionargs": {"outcolorspace": 2}},
    "jpeg 2000": {"compression": "jpeg2000"},
    "Aperio 33005": {"compression": 33005},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tile": (64, 48)},
    "strips": {"rowsperstrip": 40},
    "BigTIFF": {"tile": (32, 32), "bigtiff": True},
    "big-endian": {"tile": (32, 32), "byteorder": ">"},
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_region_is_that_part_of_what_tifffile_reads(
    tmp_path: Path, layout: str, codec: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, COLOURS, photometric="rgb", **CODECS[codec], **LAYOUTS[layout])
    expected = np.moveaxis(tifffile.imread(path), -1, 0)
    assert abs(expected.astype(int) - np.moveaxis(COLOURS, -1, 0)).mean() < 8
    image = open_image(path)
    assert image.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(image.read(), expected)
    for region in (np.s_[:, 60:70, 40:60], np.s_[1:, 149:, :], np.s_[:, :1, 169:], np.s_[0, 33, 7]):
        np.testing.assert_array_equal(image[region], expected[region])


@pytest.mark.parametrize("codec", ["lzw", "zlib", "zstd", "jpeg", "jpeg2000", None])
@pytest.mark.parametrize("sub", [True, False])
def test_every_level_of_a_pyramid_has_its_own_pixels(tmp_path: Path, codec: Any, sub: bool) -> None:
    full = _smooth((128, 192))
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=sub) as writer:
        how: dict[str, Any] = {"tile": (32, 32), "photometric": "minisblack", "metadata": None}
        first: dict[str, Any] = {"subifds": 2} if sub else {}
        writer.write(full, compression=codec, **how, **first)
        for step in (2, 4):
            reduced = full[::step, ::step]
            writer.write(reduced, compression=codec, subfiletype=1, **how)
    image = open_image(path)
    with tifffile.TiffFile(path) as tif:
        stored = [level.asarray() for level in tif.series[0].levels]
    assert [level.shape for level in image.levels] == [(1, 128, 192), (1, 64, 96), (1, 32, 48)]
    for level, pixels in zip(image.levels, stored, strict=True):
        np.testing.assert_array_equal(level[0], pixels)
        np.testing.assert_array_equal(level[0, 5:31, 17:], pixels[5:31, 17:])


@pytest.mark.parametrize("codec", ["zlib", None])
def test_every_level_of_an_ome_pyramid_has_its_own_channels(
    tmp_path: Path, codec: str | None
) -> None:
    stack = RNG.integers(0, 60_000, (3, 2, 96, 128)).astype(np.uint16)
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, bigtiff=True, byteorder=">") as writer:
        how: dict[str, Any] = {"tile": (32, 32), "compression": codec, "photometric": "minisblack"}
        writer.write(stack, subifds=1, metadata={"axes": "ZCYX"}, **how)
        writer.write(stack[..., ::2, ::2], subfiletype=1, metadata=None, **how)
    for z in (0, 2):
        image = open_image(path, select={"z": z})
        for _ in range(2):
            np.testing.assert_array_equal(image.level(0)[:, 30:70, 5:99], stack[z, :, 30:70, 5:99])
            np.testing.assert_array_equal(image.level(1)[...], stack[z, :, ::2, ::2])
    most = open_image(path, select={"z": "max", "channel": 1})
    np.testing.assert_array_equal(most.level(1)[0], stack[:, 1, ::2, ::2].max(axis=0))


@pytest.mark.parametrize("shape", [(301, 1), (1, 301), (1, 1)])
@pytest.mark.parametrize("layout", [{"tile": (16, 16)}, {"rowsperstrip": 7}, {}])
@pytest.mark.parametrize("codec", [None, "lzw", "zstd", "jpeg2000"])
def test_images_one_pixel_wide_or_high_are_read(
    tmp_path: Path, shape: tuple[int, int], layout: dict[str, Any], codec: str | None
) -> None:
    pixels = RNG.integers(0, 256, shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=codec, **layout)
    image = open_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.read()[0], pixels)
    np.testing.assert_array_equal(image[0, -1:, :1], pixels[-1:, :1])


def test_an_image_of_more_than_2_to_the_31_pixels_is_read_by_region(tmp_path: Path) -> None:
    side, tile, wide = 65_536, 1_024, 64
    pixels = _smooth((tile, tile))
    tiles = (pixels if i in (0, wide * wide - 1) else None for i in range(wide * wide))
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as writer:
        shape: dict[str, Any] = {"shape": (side, side), "dtype": "uint8", "tile": (tile, tile)}
        writer.write(tiles, compression="zstd", photometric="minisblack", **shape)
    image = open_image(tmp_path / "a.tif")
    assert image.shape == (1, side, side)
    assert image.shape[1] * image.shape[2] > 2**31
    np.testing.assert_array_equal(image[0, -100:, -50:], pixels[-100:, -50:])
    np.testing.assert_array_equal(image[0, 1000:1040, 1000:1040][:24, :24], pixels[1000:, 1000:])
    assert image[0, 40_000:40_010, 30_000:30_010].max() == 0


def _tiles_of(path: Path, tiles: list[bytes], **how: Any) -> None:
    """Write tiles that are compressed already."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(iter(tiles), dtype="uint8", tile=(64, 64), metadata=None, **how)


def _ycbcr(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Pillow.fromarray(colours).convert("YCbCr"))


def test_aperios_jpeg_2000_in_ycbcr_becomes_rgb(tmp_path: Path) -> None:
    colours = _smooth((64, 128, 3))
    path = tmp_path / "a.tif"
    halves = [np.ascontiguousarray(colours[:, :64]), np.ascontiguousarray(colours[:, 64:])]
    tiles = [
        bytes(imagecodecs.jpeg2k_encode(_ycbcr(half), codecformat="j2k", level=0, mct=False))
        for half in halves
    ]
    _tiles_of(path, tiles, shape=(64, 128, 3), photometric="rgb", compression=33003)
    image = open_image(path)
    assert image.channels == ("red", "green", "blue")
    # The colours went through 8 bits of YCbCr: no more is lost than that.
    difference = image.read().astype(int) - np.moveaxis(colours, -1, 0)
    assert abs(difference).max() <= 3
    np.testing.assert_array_equal(image[:, 3:9, 60:70], image.read()[:, 3:9, 60:70])


def _halved_chroma(y: int, blue: int, red: int) -> bytes:
    """Return a 64 x 64 JPEG 2000 code stream whose Cb and Cr are half as wide.

    Put together of three streams of one component and one packet: no encoder here halves.
    """
    parts = []
    for value, width in ((y, 64), (blue, 32), (red, 32)):
        plane = np.full((64, width), value, np.uint8)
        code = bytes(
            imagecodecs.jpeg2k_encode(
                plane, codecformat="j2k", level=0, reversible=True, mct=False, resolutions=1
            )
        )
        parts.append(code)
    code = parts[0]
    packets = b"".join(part[part.index(b"\xff\x93") + 2 : -2] for part in parts)
    (length,) = struct.unpack_from(">H", code, 4)
    size = struct.pack(">H", 38 + 3 * 3) + code[6:40] + struct.pack(">H", 3)
    size += bytes((7, 1, 1, 7, 2, 1, 7, 2, 1))
    start, data = code.index(b"\xff\x90"), code.index(b"\xff\x93")
    tile = bytearray(code[start:data])
    struct.pack_into(">I", tile, 6, len(tile) + 2 + len(packets))
    head = code[:4] + size + code[4 + length : start]
    return head + bytes(tile) + b"\xff\x93" + packets + b"\xff\xd9"


def test_halved_chroma_is_converted_once(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tiles = [_halved_chroma(120, 110, 150)]
    _tiles_of(path, tiles, shape=(64, 64, 3), photometric="rgb", compression=33003)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags["PhotometricInterpretation"].overwrite(6)
    expected = rgb_of_ycbcr(np.array([120, 110, 150], np.uint8)).astype(int)
    found = open_image(path)[:, 30:32, 10:12].astype(int)
    assert abs(found - expected[:, None, None]).max() <= 1


def test_ycbcr_becomes_rgb_as_the_standard_says() -> None:
    colours = RNG.integers(0, 256, (50, 50, 3)).astype(np.uint8)
    pillows = np.asarray(Pillow.fromarray(colours, mode="YCbCr").convert("RGB"))
    assert abs(rgb_of_ycbcr(colours).astype(int) - pillows).max() <= 1
    greys = np.full((1, 4, 3), 128, np.uint8)
    greys[0, :, 0] = (0, 17, 200, 255)
    np.testing.assert_array_equal(rgb_of_ycbcr(greys), np.repeat(greys[..., :1], 3, axis=-1))


@pytest.mark.parametrize(("codec", "name"), [("zlib", "ADOBE_DEFLATE"), (None, "NONE")])
def test_ycbcr_that_nothing_converts_is_refused(
    tmp_path: Path, codec: str | None, name: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, COLOURS, photometric="rgb", compression=codec)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags["PhotometricInterpretation"].overwrite(6)
    with pytest.raises(InputError) as caught:
        open_image(path)
    assert str(caught.value) == (
        f"{path}: found YCbCr samples in compression {name}, wanted strips or tiles of a "
        "common compression (none, LZW, Deflate, Zstd, JPEG, JPEG 2000) in grey or RGB; "
        "export it again."
    )


def test_a_compression_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, COLOURS[..., 0], compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags["Compression"].overwrite(32809)
    with pytest.raises(InputError, match="found compression THUNDERSCAN, wanted strips or tiles"):
        open_image(path)


def _jpeg(pixels: NDArray[np.uint8], **how: Any) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", **how)
    return file.getvalue()


def _is_whole(data: bytes) -> bool:
    try:
        check_jpeg(data)
    except DAMAGE:
        return False
    return True


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    grey=st.booleans(),
    quality=st.integers(1, 100),
    subsampling=st.integers(0, 2),
    kind=st.sampled_from([{}, {"optimize": True}, {"progressive": True}]),
    restart=st.sampled_from([{}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}]),
    noise=st.integers(0, 2**32 - 1),
)
def test_every_jpeg_that_an_encoder_writes_is_whole(
    size: tuple[int, int],
    grey: bool,
    quality: int,
    subsampling: int,
    kind: dict[str, Any],
    restart: dict[str, Any],
    noise: int,
) -> None:
    rng = np.random.default_rng(noise)
    pixels = rng.integers(0, 1 + noise % 256, size if grey else (*size, 3)).astype(np.uint8)
    how = {"quality": quality, "subsampling": subsampling, **kind, **restart}
    check_jpeg(_jpeg(pixels, **how))


@pytest.mark.parametrize("how", [{}, {"restart_marker_blocks": 4}, {"optimize": True}])
def test_a_jpeg_that_is_cut_or_overwritten_is_not_whole(how: dict[str, Any]) -> None:
    data = _jpeg(COLOURS, quality=85, **how)
    start = data.index(b"\xff\xda") + 14
    assert _is_whole(data)
    assert not any(_is_whole(data[:end]) for end in range(start, len(data) - 2, 37))
    places = range(start, len(data) - 70, 11)
    hidden = [at for at in places if _is_whole(data[:at] + bytes(60) + data[at + 60 :])]
    # Huffman codes may fall into step again, with as many blocks as before.
    assert len(hidden) <= 0.1 * len(places)
    assert not _is_whole(b"")
    assert not _is_whole(bytes(len(data)))
    assert not _is_whole(data[: data.index(b"\xff\xc4")] + data[start - 14 :])


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_jpeg_tile_that_libjpeg_would_turn_grey_is_damage(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, COLOURS, tile=(64, 64), compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages.first.dataoffsets[4], tif.pages.first.databytecounts[4]
        if damage == "cut":
            with tifffile.TiffFile(path, mode="r+") as writable:
                tag = writable.pages.first.tags["TileByteCounts"]
                tag.overwrite([n // 2 if i == 4 else n for i, n in enumerate(tag.value)])
    if damage == "overwritten":
        data = bytearray(path.read_bytes())
        data[offset + count // 2 : offset + count - 100] = bytes(count - count // 2 - 100)
        path.write_bytes(data)
    with pytest.raises(DamagedTileError, match="corrupt tile at level 0, y 64, x 64"):
        open_image(path).read()
    image = open_image(path, skip_damaged=True)
    assert image[:, 64:128, 64:128].max() == 0
    assert image[:, :64, :64].min(initial=255) < 255
    assert image.damaged == (((64, 64), (128, 128)),)
