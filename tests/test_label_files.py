"""Label images are read as stored, written whole, and come back equal."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image as Pillow

from domainseg.errors import InputError, OutputError
from domainseg.images import label_store as ome_zarr_module
from domainseg.images import labels as labels_module
from domainseg.images import open_image, read_labels, write_labels
from domainseg.images.label_store import commonest_of_four
from domainseg.images.ome_zarr import write_labels_ome_zarr

RNG = np.random.default_rng(17)
LABELS = RNG.integers(0, 300, (40, 50)).astype(np.uint16)


def _refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_labels(path)
    return str(caught.value).replace(str(path), path.name)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_a_png_keeps_its_numbers(tmp_path: Path, dtype: str) -> None:
    labels = LABELS.astype(dtype)
    Pillow.fromarray(labels).save(tmp_path / "a.png")
    read = read_labels(tmp_path / "a.png")
    assert read.dtype == labels.dtype
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_png_of_few_bits_keeps_its_numbers(tmp_path: Path, bits: int) -> None:
    labels = (LABELS % (1 << bits)).astype(np.uint8)
    Pillow.fromarray(labels, mode="L").convert("P").save(tmp_path / "p.png", bits=bits)
    np.testing.assert_array_equal(read_labels(tmp_path / "p.png"), labels)
    data = bytearray((tmp_path / "p.png").read_bytes())
    if bits > 1:
        data[25] = 0  # colour type: grey instead of palette
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        (tmp_path / "g.png").write_bytes(data)
        np.testing.assert_array_equal(read_labels(tmp_path / "g.png"), labels)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", ">i8"])
@pytest.mark.parametrize("ending", [".tif", ".npy"])
def test_integers_of_any_width_keep_their_numbers(tmp_path: Path, dtype: str, ending: str) -> None:
    labels = LABELS.astype(dtype)
    path = tmp_path / f"a{ending}"
    if ending == ".npy":
        np.save(path, labels)
    else:
        tifffile.imwrite(path, labels.astype(labels.dtype.newbyteorder("=")))
    read = read_labels(path)
    assert read.dtype.kind == labels.dtype.kind
    np.testing.assert_array_equal(read, labels)


def test_labels_are_what_is_stored_and_not_what_is_shown(tmp_path: Path) -> None:
    small = (LABELS % 256).astype(np.uint8)
    colormap = RNG.integers(0, 65536, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", small, photometric="palette", colormap=colormap)
    tifffile.imwrite(tmp_path / "w.tif", small, photometric="miniswhite")
    np.testing.assert_array_equal(read_labels(tmp_path / "p.tif"), small)
    np.testing.assert_array_equal(read_labels(tmp_path / "w.tif"), small)


def test_a_bool_mask_is_zero_and_one(tmp_path: Path) -> None:
    mask = LABELS > 100
    np.save(tmp_path / "a.npy", mask)
    tifffile.imwrite(tmp_path / "a.tif", mask)
    Pillow.fromarray(mask).save(tmp_path / "a.png")
    for name in ("a.npy", "a.tif", "a.png"):
        read = read_labels(tmp_path / name)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, mask)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_real_and_complex_numbers_cannot_be_labels(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", LABELS.astype(dtype))
    assert _refusal(tmp_path / "a.npy") == (
        f"a.npy: found {dtype} values, which cannot be labels, wanted integers; if they are whole "
        "numbers, save them with labels.astype('uint16') or 'uint32'."
    )


def test_float_tiff_labels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(np.float32))
    assert _refusal(tmp_path / "a.tif") == (
        "a.tif: found float32 values, which cannot be labels, wanted integers; if they are whole "
        "numbers, save them with labels.astype('uint16') or 'uint32'."
    )


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colours_cannot_be_labels(tmp_path: Path, name: str) -> None:
    colours = np.zeros((4, 5, 3), np.uint8)
    if name == "a.png":
        Pillow.fromarray(colours).save(tmp_path / name)
    else:
        tifffile.imwrite(tmp_path / name, colours, photometric="rgb")
    shape = (4, 5, 3) if name == "a.png" else (3, 4, 5)
    assert _refusal(tmp_path / name) == (
        f"{name}: found an image of shape {shape}, which cannot be a label image, wanted a plane "
        "(H, W) with one integer per pixel; save the object numbers as one grey 16-bit channel, "
        "not as colours."
    )


def test_negative_labels_are_refused(tmp_path: Path) -> None:
    labels = np.zeros((4, 5), np.int16)
    labels[2, 3] = -7
    np.save(tmp_path / "a.npy", labels)
    assert _refusal(tmp_path / "a.npy") == (
        "a.npy: found the negative label -7 at y 2, x 3, wanted 0 for background and positive "
        "numbers for objects; renumber the objects and set everything else to 0."
    )


def test_a_lossy_label_image_is_refused(tmp_path: Path) -> None:
    Pillow.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "a.jpg")
    assert _refusal(tmp_path / "a.jpg") == (
        "a.jpg: found the ending '.jpg', wanted a lossless label image, one of .png, .bmp, .tif, "
        ".tiff, .btf, .tf8, .npy; export the labels as PNG or TIFF."
    )


@pytest.mark.parametrize("largest", [0, 65535, 65536, 4294967295])
@pytest.mark.parametrize("tiled", [False, True])
def test_written_labels_come_back_equal(
    tmp_path: Path, largest: int, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tiled:
        monkeypatch.setattr(labels_module, "TILED_ABOVE_PX", 100)
    labels = (LABELS.astype(np.int64) * (largest > 0)).copy()
    labels[3, 4] = largest
    path = tmp_path / "labels.tif"
    write_labels(path, labels, spacing_um=None)
    read = read_labels(path)
    assert read.dtype == (np.uint16 if largest <= 65535 else np.uint32)
    np.testing.assert_array_equal(read, labels)
    with tifffile.TiffFile(path) as tif:
        assert tif.pages.first.is_tiled == tiled
        assert tif.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE


@pytest.mark.parametrize("spacing", [(0.499, 0.325), (1 / 3, 1e-4), (25.0, 30.0)])
def test_the_pixel_size_of_written_labels_is_exact(
    tmp_path: Path, spacing: tuple[float, float]
) -> None:
    write_labels(tmp_path / "a.tif", LABELS, spacing_um=spacing)
    image = open_image(tmp_path / "a.tif")
    assert (image.format, image.spacing_um) == ("OME-TIFF", spacing)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        x, y = tif.pages.first.resolution
        assert tif.pages.first.resolutionunit == tifffile.RESUNIT.CENTIMETER
        assert (1e4 / y, 1e4 / x) == pytest.approx(spacing, rel=1e-6)


def test_an_unknown_pixel_size_is_not_written(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.tif", LABELS, spacing_um=None)
    assert open_image(tmp_path / "a.tif").spacing_um is None


def test_the_same_labels_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        write_labels(tmp_path / name, LABELS, spacing_um=(0.5, 0.5))
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_labels_too_large_for_a_file_leave_nothing_behind(tmp_path: Path) -> None:
    labels = np.array([[1 << 32]])
    with pytest.raises(OutputError) as caught:
        write_labels(tmp_path / "a.tif", labels, spacing_um=None)
    assert str(caught.value) == (
        f"{tmp_path / 'a.tif'}: found label 4294967296, wanted labels up to 4294967295, the most "
        "that image formats hold; renumber the objects."
    )
    with pytest.raises(InputError, match="float64 values, which cannot be labels"):
        write_labels(tmp_path / "a.tif", labels.astype(float), spacing_um=None)
    assert list(tmp_path.iterdir()) == []


def _read_json(path: Path) -> dict[str, Any]:
    attributes: dict[str, Any] = dict(zarr.open_group(path, mode="r").attrs)
    return attributes


def test_zarr_labels_come_back_equal_with_their_pyramid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ome_zarr_module, "CHUNK", 16)
    monkeypatch.setattr(ome_zarr_module, "SMALLEST_PX", 16)
    path = tmp_path / "labels.ome.zarr"
    write_labels_ome_zarr(path, LABELS, spacing_um=(0.5, 0.25))
    expected = LABELS
    for level, shape in enumerate([(40, 50), (20, 25), (10, 13)]):
        array: Any = zarr.open_array(path / f"labels/objects/{level}", mode="r")
        assert (array.shape, array.dtype) == (shape, np.uint16)
        assert array.metadata.zarr_format == 3
        assert array.metadata.dimension_names == ("y", "x")
        np.testing.assert_array_equal(array[:], expected)
        coarser = np.empty(((shape[0] + 1) // 2, (shape[1] + 1) // 2), np.uint16)
        commonest_of_four(expected, coarser)
        expected = coarser
    assert not (path / "labels/objects/3").exists()


def test_zarr_metadata_follow_version_0_5(tmp_path: Path) -> None:
    path = tmp_path / "labels.ome.zarr"
    write_labels_ome_zarr(
        path,
        np.tile(LABELS, (7, 6)),
        spacing_um=(0.5, 0.25),
        colors={2: (0, 255, 0, 255), 1: (255, 0, 0, 128)},
        properties={1: {"area_um2": 3.5, "class": "cell", "solidity": float("nan")}},
    )
    label = _read_json(path / "labels/objects")["ome"]
    assert label == {
        "version": "0.5",
        "multiscales": [
            {
                "name": "objects",
                "axes": [
                    {"name": "y", "type": "space", "unit": "micrometer"},
                    {"name": "x", "type": "space", "unit": "micrometer"},
                ],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [0.5, 0.25]},
                            {"type": "translation", "translation": [0.0, 0.0]},
                        ],
                    },
                    {
                        "path": "1",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1.0, 0.5]},
                            {"type": "translation", "translation": [0.25, 0.125]},
                        ],
                    },
                ],
                "type": "mode",
            }
        ],
        "image-label": {
            "source": {"image": "../../"},
            "colors": [
                {"label-value": 1, "rgba": [255, 0, 0, 128]},
                {"label-value": 2, "rgba": [0, 255, 0, 255]},
            ],
            "properties": [{"label-value": 1, "area_um2": 3.5, "class": "cell"}],
        },
    }
    assert _read_json(path / "labels")["ome"] == {"version": "0.5", "labels": ["objects"]}
    (scales,) = _read_json(path)["ome"]["multiscales"]
    for dataset in scales["datasets"]:
        assert (path / dataset["path"] / "zarr.json").exists()


def test_zarr_metadata_name_no_unit_and_no_empty_list(tmp_path: Path) -> None:
    write_labels_ome_zarr(tmp_path / "a.ome.zarr", LABELS, spacing_um=None)
    label = _read_json(tmp_path / "a.ome.zarr/labels/objects")["ome"]
    assert label["multiscales"][0]["axes"][0] == {"name": "y", "type": "space"}
    assert label["image-label"] == {"source": {"image": "../../"}}


def test_large_numbers_make_zarr_labels_32_bit(tmp_path: Path) -> None:
    write_labels_ome_zarr(tmp_path / "a.zarr", LABELS.astype(np.int64) + 70000, spacing_um=None)
    array: Any = zarr.open_array(tmp_path / "a.zarr/labels/objects/0", mode="r")
    assert array.dtype == np.uint32
    np.testing.assert_array_equal(array[:], LABELS.astype(np.int64) + 70000)


def test_a_zarr_that_fails_leaves_the_old_one_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_labels_ome_zarr(path, LABELS, spacing_um=None)

    class Failing:
        shape = (3000, 10)
        reads = 0

        def __getitem__(self, key: slice, /) -> NDArray[np.uint8]:
            self.reads += 1
            if self.reads > 4:
                raise OSError(28, "No space left on device")
            return np.ones((3000, 10), np.uint8)[key]

    with pytest.raises(OutputError) as caught:
        write_labels_ome_zarr(path, Failing(), spacing_um=None)
    assert str(caught.value) == (
        f"{path}: found no way to write it (No space left on device), wanted a folder with room "
        "and write permission; free some room or choose another place."
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    array: Any = zarr.open_array(path / "labels/objects/0", mode="r")
    np.testing.assert_array_equal(array[:], LABELS)
    write_labels_ome_zarr(path, LABELS[::-1], spacing_um=None)
    array = zarr.open_array(path / "labels/objects/0", mode="r")
    np.testing.assert_array_equal(array[:], LABELS[::-1])
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_file_in_the_place_of_a_zarr_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    path.write_text("mine")
    with pytest.raises(OutputError) as caught:
        write_labels_ome_zarr(path, LABELS, spacing_um=None)
    assert str(caught.value) == (
        f"{path}: found a file of that name, wanted no file or an older folder; move it away."
    )
    assert path.read_text() == "mine"


def test_the_commonest_label_of_four_goes_up() -> None:
    labels = np.array(
        [
            [1, 1, 0, 0, 0, 5, 2],
            [1, 0, 0, 7, 5, 0, 0],
            [1, 2, 3, 4, 4, 3, 0],
        ],
        np.uint16,
    )
    out = np.empty((2, 4), np.uint16)
    commonest_of_four(labels, out)
    np.testing.assert_array_equal(out, [[1, 0, 5, 2], [1, 3, 4, 0]])
