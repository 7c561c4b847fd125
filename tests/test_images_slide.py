"""Slides through OpenSlide have the pixels, levels and pixel size of the file."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.errors import InputError
from domainseg.images import DamagedTileError, find_damaged, image_sha256, open_image
from domainseg.images import slide as slide_module
from domainseg.images.image import Image
from domainseg.images.slide import on_background, open_slide
from domainseg.images.tiff import open_tiff

DATA = Path(__file__).parents[1].parent / "shared" / "data"
RNG = np.random.default_rng(2)
needs_openslide = pytest.mark.skipif(
    slide_module._library() is None, reason="the extra 'slides' is not installed"
)


def _smooth(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    waves = [100 * np.sin(y / a + x / b) for a, b in ((31, 47), (53, -29), (-37, 41))]
    return np.asarray(128 + np.stack(waves, -1) + RNG.normal(0, 3, (height, width, 3)), np.uint8)


def _write(path: Path, *, codec: str = "zlib", shape: tuple[int, int] = (1500, 1100)) -> Path:
    """Write a slide as Aperio's scanners do, with a second level of a quarter the size."""
    full = _smooth(*shape)
    about = "Aperio Image Library v11.2.1 \r\n1100x1500 (256x256)|AppMag = 20|MPP = 0.2500"
    how: dict[str, Any] = {"photometric": "rgb", "metadata": None, "compression": codec}
    with tifffile.TiffWriter(path) as writer:
        writer.write(full, tile=(256, 256), description=about, **how)
        small = full[:: shape[0] // 8, :: shape[1] // 8]
        writer.write(small, description="thumbnail", **how)
        writer.write(full[2::4, 2::4], tile=(256, 256), description=about, **how)
    return path


def _spoil(path: Path, segment: int, page: int = 0) -> None:
    with tifffile.TiffFile(path) as tif:
        found = tif.pages[page]
        offset, count = found.dataoffsets[segment], found.databytecounts[segment]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = bytes(count)
    path.write_bytes(data)


@needs_openslide
@pytest.mark.parametrize("codec", ["zlib", "lzw", "jpeg"])
def test_a_slide_has_the_pixels_that_tifffile_reads(tmp_path: Path, codec: str) -> None:
    path = _write(tmp_path / "a.svslide", codec=codec)
    image, expected = open_image(path), open_tiff(path, {})
    assert image.format == "aperio slide"
    assert image.channels == expected.channels == ("red", "green", "blue")
    assert image.spacing_um == expected.spacing_um == (0.25, 0.25)
    assert [level.shape for level in image.levels] == [level.shape for level in expected.levels]
    # Two builds of one decoder may round apart, and filter halved colours apart.
    allowed = 0 if codec in ("zlib", "lzw") else 6
    for ours, theirs in zip(image.levels, expected.levels, strict=True):
        difference = ours[...].astype(int) - theirs[...].astype(int)
        assert abs(difference).max() <= allowed


@needs_openslide
def test_a_region_is_that_part_of_the_whole_at_every_level(tmp_path: Path) -> None:
    # Levels of 999 and 250 rows: no whole number of pixels of the one in the other.
    image = open_image(_write(tmp_path / "a.svslide", shape=(999, 1301)))
    for level in image.levels:
        whole = level[...]
        assert level.segment == (512, 512)
        for _ in range(6):
            y0, y1 = sorted(RNG.integers(0, level.shape[1] + 1, 2))
            x0, x1 = sorted(RNG.integers(0, level.shape[2] + 1, 2))
            image.close()
            np.testing.assert_array_equal(level[:, y0:y1, x0:x1], whole[:, y0:y1, x0:x1])
    np.testing.assert_array_equal(image[2, 511:514, 7], image.read()[2, 511:514, 7])


@needs_openslide
def test_channels_are_chosen_and_other_axes_have_length_1(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.svslide")
    image = open_image(path, select={"channel": ["blue", 0], "z": "max", "t": 0})
    assert image.channels == ("blue", "red")
    np.testing.assert_array_equal(image[:, :9, :9], open_image(path)[:, :9, :9][[2, 0]])
    with pytest.raises(InputError, match=r"found no axis .page. that image\.select asks for"):
        open_image(path, select={"page": 0})


@needs_openslide
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_threads_copies_and_forks_read_the_same(tmp_path: Path) -> None:
    image = open_image(_write(tmp_path / "a.svslide"))
    whole = image.read()
    image.close()
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda top: image[:, top : top + 100], range(0, 1500, 100)))
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), whole)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).read(), whole)
    assert _sum_in_a_fork(image) == int(whole.sum())


def _sum_in_a_fork(image: Image) -> int:
    context = multiprocessing.get_context("fork")
    ends = context.Pipe(duplex=False)
    image.close()
    child = context.Process(target=lambda: ends[1].send(int(image.read().sum())))
    child.start()
    assert ends[0].poll(20)
    total = ends[0].recv()
    child.join(20)
    assert child.exitcode == 0
    return int(total)


@needs_openslide
def test_a_corrupt_tile_is_named_or_left_out(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.svslide", codec="jpeg")
    whole = open_image(path).read()
    _spoil(path, 7)
    with pytest.raises(DamagedTileError) as caught:
        open_image(path)[:, 256:300, 512:600]
    assert str(caught.value) == (
        f"{path}: found a truncated or corrupt tile at level 0, y 256, x 512, wanted a complete "
        "slide; export, copy or download it again, or leave that area out with --skip-bad-tiles."
    )
    image = open_image(path, skip_damaged=True)
    whole[:, 256:512, 512:768] = 0
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda top: image[:, top : top + 50], range(0, 1500, 50)))
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), whole)
    assert image.damaged == (((256, 512), (512, 768)),)
    assert find_damaged(open_image(path)) == image.damaged


def test_a_jpeg_tile_that_is_half_overwritten_is_damage(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.svs", codec="jpeg")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[3]
        count = tif.pages.first.databytecounts[3]
    data = bytearray(path.read_bytes())
    data[offset + count // 2 : offset + count // 2 + 90] = bytes(90)
    path.write_bytes(data)
    assert find_damaged(open_image(path), levels=[0]) == (((0, 768), (256, 1024)),)


@needs_openslide
def test_a_file_that_is_no_slide_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mrxs"
    path.write_text("no slide")
    with pytest.raises(InputError) as caught:
        open_image(path)
    assert str(caught.value) == (
        f"{path}: found a damaged slide, or no slide, wanted a slide that OpenSlide knows; "
        "export, copy or download it again, with the files that belong to it."
    )


@pytest.mark.parametrize("ending", slide_module.ENDINGS)
def test_without_openslide_a_slide_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(slide_module, "_library", lambda: None)
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"slide")
    with pytest.raises(InputError) as caught:
        open_image(path)
    assert str(caught.value) == (
        f"{path}: found a slide of a format that OpenSlide reads, which is not installed, wanted "
        "the extra 'slides'; run pip install 'domainseg[slides]'."
    )


def test_an_svs_is_read_as_the_tiff_it_is_whatever_is_installed(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.svs")
    image = open_image(path)
    assert image.format == "TIFF"
    assert image.spacing_um == (0.25, 0.25)
    np.testing.assert_array_equal(image.read(), np.moveaxis(tifffile.imread(path), -1, 0))


def test_colours_are_laid_on_the_background_by_their_opacity() -> None:
    background = np.array([200, 100, 0], np.uint8)
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [100, 0, 255, 51]]], np.uint8)
    assert on_background(rgba, background).tolist() == [
        [[10, 20, 30], [200, 100, 0], [180, 80, 51]]
    ]


def test_an_mrxs_slide_is_known_by_all_its_files(tmp_path: Path) -> None:
    path = tmp_path / "a.mrxs"
    path.write_bytes(b"thumbnail")
    alone = image_sha256(path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"pixels")
    together = image_sha256(path)
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"pixelz")
    assert len({alone, together, image_sha256(path)}) == 3


def test_a_vms_slide_is_known_by_the_files_it_names(tmp_path: Path) -> None:
    path = tmp_path / "a.vms"
    path.write_text("[Virtual Microscope Specimen]\nImageFile=a.jpg\nNoLayers=1\n")
    alone = image_sha256(path)
    (tmp_path / "a.jpg").write_bytes(b"pixels")
    (tmp_path / "b.jpg").write_bytes(b"another's")
    together = image_sha256(path)
    (tmp_path / "b.jpg").write_bytes(b"changed")
    assert image_sha256(path) == together != alone


@needs_openslide
def test_a_real_slide_is_the_same_through_both_readers() -> None:
    path = DATA / "slides" / "cmu-1-small-region.svs"
    if not path.exists():
        pytest.skip(f"no {path}")
    ours, tiffs = open_slide(path, {}), open_tiff(path, {})
    assert (ours.shape, ours.spacing_um) == (tiffs.shape, tiffs.spacing_um)
    region = np.s_[:, 1000:1513, 700:1300]
    assert abs(ours[region].astype(int) - tiffs[region].astype(int)).max() <= 2
    assert find_damaged(ours) == ()
