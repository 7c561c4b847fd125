"""PNG, JPEG, BMP and npy files give the pixels they hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from domainseg.images import image_sha256, open_image

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (5, 7)).astype(np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
RGBA = RNG.integers(0, 256, (5, 7, 4)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7)).astype(np.uint16)


def _save(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    Pillow.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("pixels", "channels"),
    [
        (GREY, ("grey",)),
        (DEEP, ("grey",)),
        (RGB, ("red", "green", "blue")),
        (RGBA, ("red", "green", "blue", "alpha")),
        (RGBA[..., :2], ("grey", "alpha")),
    ],
)
def test_a_png_gives_the_pixels_written(
    tmp_path: Path, pixels: NDArray[Any], channels: tuple[str, ...]
) -> None:
    path = _save(tmp_path / "a.png", pixels)
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    with open_image(path) as image:
        assert image.channels == channels
        assert image.dtype == pixels.dtype
        assert image.shape == planes.shape
        assert image.spacing_um is None
        assert image.format == "PNG"
        np.testing.assert_array_equal(image.read(), planes)
        np.testing.assert_array_equal(image[:, 1:3, 2:6], planes[:, 1:3, 2:6])


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_a_16_bit_colour_png_keeps_its_low_bytes(tmp_path: Path, samples: int) -> None:
    pixels = RNG.integers(0, 65536, (4, 6, samples)).astype(np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    image = open_image(path)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.read(), np.moveaxis(pixels, -1, 0))


def test_a_bmp_gives_the_pixels_written(tmp_path: Path) -> None:
    image = open_image(_save(tmp_path / "a.bmp", RGB))
    assert image.format == "BMP"
    np.testing.assert_array_equal(image.read(), np.moveaxis(RGB, -1, 0))


def test_a_jpeg_gives_what_its_decoder_gives(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg", RGB, quality=95)
    image = open_image(path)
    expected = np.moveaxis(imagecodecs.jpeg_decode(path.read_bytes()), -1, 0)
    assert image.format == "JPEG"
    np.testing.assert_array_equal(image.read(), expected)


def test_the_content_and_not_the_ending_decides_the_decoder(tmp_path: Path) -> None:
    path = tmp_path / "really_a_jpeg.png"
    Pillow.fromarray(GREY).save(path, format="JPEG")
    assert open_image(path).format == "JPEG"


def test_a_bilevel_png_is_zero_and_one(tmp_path: Path) -> None:
    image = open_image(_save(tmp_path / "a.png", GREY > 128))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image.read()[0], GREY > 128)


def test_a_palette_png_gives_its_colours(tmp_path: Path) -> None:
    indexed = Pillow.fromarray(np.array([[0, 1], [1, 2]], np.uint8), mode="L").convert("P")
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    indexed.save(tmp_path / "p.png")
    image = open_image(tmp_path / "p.png")
    assert image.channels == ("red", "green", "blue")
    expected = [[[10, 40], [40, 70]], [[20, 50], [50, 80]], [[30, 60], [60, 90]]]
    np.testing.assert_array_equal(image.read(), expected)


def test_a_palette_png_with_transparency_has_an_alpha_channel(tmp_path: Path) -> None:
    indexed = Pillow.fromarray(np.array([[0, 1]], np.uint8), mode="L").convert("P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.save(tmp_path / "p.png", transparency=1)
    image = open_image(tmp_path / "p.png")
    assert image.channels == ("red", "green", "blue", "alpha")
    np.testing.assert_array_equal(image[3], [[255, 0]])


@pytest.mark.parametrize(("dpi", "spacing"), [(300, None), (25400, 1.0), (1200, None)])
def test_a_print_resolution_is_not_a_pixel_size(
    tmp_path: Path, dpi: int, spacing: float | None
) -> None:
    image = open_image(_save(tmp_path / "a.png", GREY, dpi=(dpi, dpi)))
    if spacing is None:
        assert image.spacing_um is None
    else:
        assert image.spacing_um == pytest.approx((spacing, spacing), rel=1e-4)


def test_a_one_pixel_image_is_an_image(tmp_path: Path) -> None:
    image = open_image(_save(tmp_path / "a.png", np.array([[9]], np.uint8)))
    assert image.shape == (1, 1, 1)
    assert image[0, 0, 0] == 9


def test_slicing_follows_numpy(tmp_path: Path) -> None:
    image = open_image(_save(tmp_path / "a.png", RGBA))
    planes = np.moveaxis(RGBA, -1, 0)
    for key in (
        np.s_[0],
        np.s_[-1, 2:],
        np.s_[1:3, ..., 2],
        np.s_[...],
        np.s_[:, -3:99, 5],
        np.s_[:, 4:2],
    ):
        np.testing.assert_array_equal(image[key], planes[key])
    np.testing.assert_array_equal(np.asarray(image), planes)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (np.s_[:, ::2], "step 2: a lazy image is read with step 1; see Image.level"),
        (np.s_[0, 0, 0, 0], "4 indices for an image of 3 axes (channel, y, x)"),
        (np.s_[1], "index 1 is outside an axis of length 1"),
    ],
)
def test_an_index_that_cannot_be_read_is_an_index_error(
    tmp_path: Path, key: Any, words: str
) -> None:
    image = open_image(_save(tmp_path / "a.png", GREY))
    with pytest.raises(IndexError) as caught:
        image[key]
    assert str(caught.value) == words


def test_a_region_is_a_copy_of_its_own(tmp_path: Path) -> None:
    image = open_image(_save(tmp_path / "a.png", GREY))
    image[:, :2, :2][...] = 0
    np.testing.assert_array_equal(image.read()[0], GREY)


def test_a_pickled_image_opens_the_file_again(tmp_path: Path) -> None:
    image = open_image(_save(tmp_path / "a.png", RGB), select={"channel": "green"})
    again = pickle.loads(pickle.dumps(image))
    assert again.channels == ("green",)
    np.testing.assert_array_equal(again.read(), image.read())


def test_channels_are_selected_by_name_or_index_in_the_order_asked(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", RGB)
    image = open_image(path, select={"channel": ["blue", 0]})
    assert image.channels == ("blue", "red")
    np.testing.assert_array_equal(image.read(), np.moveaxis(RGB, -1, 0)[[2, 0]])


def test_an_image_without_a_stack_takes_the_selection_of_its_only_plane(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", GREY)
    image = open_image(path, select={"z": "max", "t": 0, "series": 0})
    np.testing.assert_array_equal(image.read()[0], GREY)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i4", ">f4", "<f8"])
def test_an_npy_plane_gives_its_values_in_native_order(tmp_path: Path, dtype: str) -> None:
    values = np.arange(35, dtype=dtype).reshape(5, 7)
    np.save(tmp_path / "a.npy", values)
    image = open_image(tmp_path / "a.npy")
    assert image.dtype.isnative
    assert image[:, 1:3].dtype == image.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(image[:, 1:3, 2:], values[None, 1:3, 2:])


def test_an_npy_array_has_its_channels_first_or_its_colours_last(tmp_path: Path) -> None:
    first = RNG.random((2, 5, 7)).astype(np.float32)
    np.save(tmp_path / "first.npy", first)
    np.save(tmp_path / "last.npy", RGB[:, :, :3])
    np.save(tmp_path / "fortran.npy", np.asfortranarray(first))
    image = open_image(tmp_path / "first.npy")
    assert image.channels == ("c0", "c1")
    np.testing.assert_array_equal(image[1:, 2:4], first[1:, 2:4])
    colours = open_image(tmp_path / "last.npy")
    assert colours.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(colours.read(), np.moveaxis(RGB, -1, 0))
    np.testing.assert_array_equal(open_image(tmp_path / "fortran.npy").read(), first)


def test_a_bool_npy_is_zero_and_one(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY > 128)
    image = open_image(tmp_path / "a.npy")
    assert image.read().dtype == np.uint8
    np.testing.assert_array_equal(image.read()[0], GREY > 128)


def test_the_checksum_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert (
        image_sha256(tmp_path / "abc")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
