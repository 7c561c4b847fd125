"""Files that cannot be an image are refused in one sentence that names them."""

from __future__ import annotations

import re
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from domainseg.errors import InputError, MissingInputError
from domainseg.images import image_sha256, open_image
from domainseg.images import raster as raster_module

GREY = np.random.default_rng(1).integers(0, 256, (64, 64)).astype(np.uint8)


def _refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_image(path).read()
    return str(caught.value).replace(str(path), path.name)


def _cut(path: Path, keep: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def _damaged(name: str, kind: str) -> str:
    return (
        f"{name}: found a truncated or corrupt {kind} file, wanted a complete {kind} file; "
        "export, copy or download it again."
    )


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "a.png") == (
        "a.png: found nothing, wanted an image file; check the path."
    )
    with pytest.raises(MissingInputError):
        open_image(tmp_path / "a.png")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    assert _refusal(tmp_path / "a.png") == (
        "a.png: found a folder, wanted an image file; name a file inside it."
    )


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    assert _refusal(tmp_path / "a.tif") == (
        "a.tif: found an empty file (0 bytes), wanted an image; export or copy it again."
    )


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    assert _refusal(tmp_path / "a.gif") == (
        "a.gif: found the ending '.gif', wanted one of .png, .jpg, .jpeg, .bmp, .tif, .tiff, "
        ".btf, .tf8, .npy, .svs, .ndpi, .mrxs, .scn, .vms, .vmu, .bif, .svslide, .zarr; "
        "convert it, for example to TIFF."
    )


@pytest.mark.parametrize("keep", [0.01, 0.2, 0.9, 0.998])
def test_a_cut_png_is_refused(tmp_path: Path, keep: float) -> None:
    Pillow.fromarray(GREY).save(tmp_path / "a.png")
    kind = "PNG, JPEG or BMP" if keep < 0.02 and (tmp_path / "a.png").stat().st_size < 9 else "PNG"
    refusal = _refusal(_cut(tmp_path / "a.png", keep))
    assert refusal in (_damaged("a.png", kind), _damaged("a.png", "PNG, JPEG or BMP"))


def test_a_cut_16_bit_colour_png_is_refused(tmp_path: Path) -> None:
    deep = np.repeat(GREY[..., None], 3, axis=2).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    assert _refusal(_cut(tmp_path / "a.png", 0.5)) == _damaged("a.png", "PNG")


def test_a_png_with_a_broken_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Pillow.fromarray(GREY).save(path)
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    assert _refusal(path) == _damaged("a.png", "PNG")


def test_a_cut_jpeg_is_refused(tmp_path: Path) -> None:
    Pillow.fromarray(GREY).save(tmp_path / "a.jpg")
    assert _refusal(_cut(tmp_path / "a.jpg", 0.7)) == _damaged("a.jpg", "JPEG")


def test_text_with_an_image_ending_is_refused(tmp_path: Path) -> None:
    for name, kind in (("a.png", "PNG, JPEG or BMP"), ("a.tif", "TIFF"), ("a.npy", "NumPy .npy")):
        (tmp_path / name).write_text("not an image, but a note about one")
        assert _refusal(tmp_path / name) == _damaged(name, kind)


@pytest.mark.parametrize("keep", [0.001, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("layout", ["raw", "strips", "tiles", "pages", "imagej", "ome"])
def test_a_cut_tiff_is_refused_and_never_shorter(tmp_path: Path, layout: str, keep: float) -> None:
    path = tmp_path / "a.tif"
    stack = np.stack([GREY, GREY.T, GREY[::-1]])
    match layout:
        case "raw":
            tifffile.imwrite(path, GREY)
        case "strips":
            tifffile.imwrite(path, GREY, rowsperstrip=8, compression="lzw")
        case "tiles":
            tifffile.imwrite(path, GREY, tile=(16, 16), compression="zlib")
        case "pages":
            tifffile.imwrite(path, stack, photometric="minisblack", metadata=None)
        case "imagej":
            tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZYX"})
        case "ome":
            tifffile.imwrite(path, stack, ome=True, photometric="minisblack", compression="zlib")
    refusal = _refusal(_cut(path, keep))
    tile = re.fullmatch(
        r"a\.tif: found a truncated( or corrupt)? (tile|strip) at level 0, y \d+, x \d+, "
        "wanted a complete TIFF file; export, copy or download it again, or leave that area out "
        r"with --skip-bad-tiles\.",
        refusal,
    )
    # The directory of these layouts stands before the pixels, and may be whole.
    assert refusal == _damaged("a.tif", "TIFF") or (
        tile is not None and layout in ("raw", "strips", "tiles")
    )


def test_an_imagej_stack_of_one_directory_with_cut_planes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    stack = np.stack([GREY, GREY.T, GREY[::-1]])
    with tifffile.TiffWriter(path, imagej=True) as writer:
        writer.write(stack, metadata={"axes": "ZYX"}, contiguous=True)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        first = tif.pages.first
        end_of_planes = first.dataoffsets[0] + stack.nbytes
        next_pointer = first.offset + 2 + 12 * len(first.tags)
    data[next_pointer : next_pointer + 4] = bytes(4)
    path.write_bytes(data[:end_of_planes])
    assert open_image(path, select={"z": 2}).read()[0].tolist() == stack[2].tolist()
    path.write_bytes(data[: end_of_planes - 1])
    assert _refusal(path) == _damaged("a.tif", "TIFF")


def test_a_tiff_whose_directories_run_in_a_circle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, byteorder="<")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        first = tif.pages.first
        next_pointer = first.offset + 2 + 12 * len(first.tags)
    data[next_pointer : next_pointer + 4] = first.offset.to_bytes(4, "little")
    path.write_bytes(data)
    assert _refusal(path) == _damaged("a.tif", "TIFF")


def test_a_cut_npy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY)
    assert _refusal(_cut(tmp_path / "a.npy", 0.9)) == _damaged("a.npy", "NumPy .npy")


def test_an_npy_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert _refusal(tmp_path / "a.npy") == _damaged("a.npy", "NumPy .npy")


@pytest.mark.parametrize("shape", [(4,), (5, 5, 5), (9, 9, 5), (2, 3, 8, 8), (0, 7)])
def test_an_npy_whose_shape_is_no_image_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert _refusal(tmp_path / "a.npy") == (
        f"a.npy: found an array of shape {shape}, wanted (H, W), (C, H, W) with C the shortest "
        "axis, or (H, W, 3) or (H, W, 4); save one plane with its channels first."
    )


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5), np.complex64))
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.complex64))
    for name in ("a.npy", "a.tif"):
        assert _refusal(tmp_path / name) == (
            f"{name}: found complex64 pixels, wanted integers or real numbers; "
            "save the magnitude or another real quantity."
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused_where_they_are_read(
    tmp_path: Path, bad: float
) -> None:
    pixels = np.zeros((2, 20, 30), np.float32)
    pixels[1, 7, 9] = pixels[1, 7, 11] = bad
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="separate")
    np.save(tmp_path / "a.npy", pixels)
    for name in ("a.tif", "a.npy"):
        image = open_image(tmp_path / name)
        assert image[:, :7].sum() == 0
        assert image[0].sum() == 0
        with pytest.raises(InputError) as caught:
            image[1:, 5:9, 8:12]
        assert str(caught.value) == (
            f"{tmp_path / name}: found 2 NaN or infinite of 16 values read, the first at channel "
            "1, y 7, x 9, wanted finite pixels; replace them before segmenting, for example with "
            "numpy.nan_to_num."
        )


def test_ink_colours_are_refused(tmp_path: Path) -> None:
    Pillow.fromarray(np.repeat(GREY[..., None], 4, axis=2), mode="CMYK").save(tmp_path / "a.jpg")
    assert _refusal(tmp_path / "a.jpg") == (
        "a.jpg: found CMYK pixels, wanted a grey, RGB or RGBA image; "
        "convert the image to RGB or grey."
    )
    inks = np.repeat(GREY[..., None], 4, axis=2)
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    assert _refusal(tmp_path / "a.tif") == (
        "a.tif: found SEPARATED samples of 8 bits, wanted grey, RGB, YCbCr or palette pixels; "
        "export it as RGB or grey."
    )


def test_an_animated_png_is_refused(tmp_path: Path) -> None:
    frames = [Pillow.fromarray(GREY), Pillow.fromarray(GREY.T)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert _refusal(tmp_path / "a.png") == (
        "a.png: found an animated PNG, wanted a grey, RGB or RGBA image; "
        "save the frame you mean as its own file."
    )


def test_a_raster_too_large_to_decode_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raster_module, "MAX_PIXELS", 1000)
    Pillow.fromarray(GREY).save(tmp_path / "a.png")
    assert _refusal(tmp_path / "a.png") == (
        "a.png: found 4096 pixels in a PNG, which is decoded whole (at most 1000), wanted a grey, "
        "RGB or RGBA image; convert it to a tiled TIFF, which is read by region."
    )


def test_a_tiff_of_volumes_is_refused(tmp_path: Path) -> None:
    volume = np.zeros((16, 32, 32), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", volume, photometric="minisblack", volumetric=True, tile=(16, 16, 16)
    )
    assert _refusal(tmp_path / "a.tif") == (
        "a.tif: found pages that are volumes 16 planes deep, wanted one plane a page; "
        "export the stack with one page for each plane."
    )


def _ome_of_two_files(me: int) -> str:
    files = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="m{c}.ome.tif">'
        f"urn:uuid:0000000{c}-0000-0000-0000-000000000000</UUID></TiffData>"
        for c in (0, 1)
    )
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="urn:uuid:0000000{me}-0000-0000-0000-000000000000"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" '
        f'SizeC="2" SizeZ="1" SizeT="1">{files}</Pixels></Image></OME>'
    )


def test_a_set_of_files_is_one_image_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    planes = np.stack([GREY, GREY.T])
    for i in (0, 1):
        path = tmp_path / f"m{i}.ome.tif"
        tifffile.imwrite(path, planes[i], description=_ome_of_two_files(i), metadata=None)
    np.testing.assert_array_equal(open_image(tmp_path / "m0.ome.tif").read(), planes)
    digest = image_sha256(tmp_path / "m0.ome.tif")
    tifffile.imwrite(path, 255 - planes[1], description=_ome_of_two_files(1), metadata=None)
    assert image_sha256(tmp_path / "m0.ome.tif") != digest
    (tmp_path / "m1.ome.tif").unlink()
    assert _refusal(tmp_path / "m0.ome.tif") == (
        "m0.ome.tif: found no pixels for plane 1, wanted a page for every plane, in this file or "
        "one it names; put the other files of the set beside it."
    )
