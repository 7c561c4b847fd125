"""Real files of four domains open with the pixels their own decoders give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from domainseg.images import open_image, read_labels
from domainseg.records import Instances

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


def _first(pattern: str) -> Path:
    found = sorted(DATA.glob(pattern))
    if not found:
        pytest.skip(f"no ../shared/data/{pattern}")
    return found[0]


@pytest.mark.parametrize(
    ("pattern", "channels"),
    [
        ("nuclei-dsb2018/images/*.png", None),
        ("nuclei-dsb2018-kaggle-layout/*/images/*.png", ("red", "green", "blue", "alpha")),
        ("surface-magnetic-tile/MT_Blowhole/Imgs/*.jpg", ("grey",)),
    ],
)
def test_a_real_raster_is_what_pillow_reads(pattern: str, channels: tuple[str, ...] | None) -> None:
    path = _first(pattern)
    with Pillow.open(path) as expected_image:
        expected = np.asarray(expected_image)
    image = open_image(path)
    assert channels is None or image.channels == channels
    assert image.spacing_um is None
    planes = expected[None] if expected.ndim == 2 else np.moveaxis(expected, -1, 0)
    np.testing.assert_array_equal(image.read(), planes)


def test_a_real_label_png_keeps_its_numbers() -> None:
    path = _first("nuclei-dsb2018/labels/*.png")
    labels = read_labels(path)
    assert labels.dtype == np.uint16
    with Pillow.open(path) as expected:
        np.testing.assert_array_equal(labels, np.asarray(expected))
    np.testing.assert_array_equal(Instances.from_label_map(labels).to_label_map(), labels)


def test_a_histology_tile_is_what_tifffile_reads_and_has_no_pixel_size() -> None:
    path = _first("histology-monuseg/*.tif")
    image = open_image(path)
    assert image.spacing_um is None  # 1 pixel per inch stands in its tags
    expected = np.moveaxis(tifffile.imread(path), -1, 0)
    np.testing.assert_array_equal(image.read(), expected)
    np.testing.assert_array_equal(image[:, 301:507, 77:400], expected[:, 301:507, 77:400])


def test_an_aperio_slide_opens_at_its_scan_with_its_pixel_size() -> None:
    path = _first("slides/*.svs")
    image = open_image(path)
    assert image.spacing_um == (0.499, 0.499)
    assert image.shape == (3, 2967, 2220)
    expected = np.moveaxis(tifffile.imread(path, series=0), -1, 0)
    region = np.s_[:, 1000:1513, 700:1300]
    np.testing.assert_array_equal(image[region], expected[region])
    assert open_image(path, select={"series": "Macro"}).shape == (3, 431, 1280)
