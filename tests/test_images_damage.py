"""Damaged tiles inside good files are named, or left out and remembered."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from domainseg.errors import InputError, MissingInputError
from domainseg.images import DamagedTileError, find_damaged, open_image
from domainseg.images import damage as damage_module
from domainseg.images import tiff_pages as pages_module
from domainseg.images.damage_log import Damage
from domainseg.images.image import Image, Level

PIXELS = np.random.default_rng(5).integers(1, 255, (64, 48)).astype(np.uint8)
WHOLE = "wanted a complete TIFF file; export, copy or download it again, or leave that area out"


def _tiled(path: Path, pixels: NDArray[Any] = PIXELS, **how: Any) -> Path:
    how = {"tile": (16, 16), "compression": "zlib", "photometric": "minisblack", **how}
    tifffile.imwrite(path, pixels, **how)
    return path


def _spoil(path: Path, *segments: int, page: int = 0) -> None:
    """Overwrite segments of a page with zeros."""
    with tifffile.TiffFile(path) as tif:
        found = tif.pages[page]
        spans = [(found.dataoffsets[i], found.databytecounts[i]) for i in segments]
    data = bytearray(path.read_bytes())
    for offset, count in spans:
        data[offset : offset + count] = bytes(count)
    path.write_bytes(data)


def _without(pixels: NDArray[Any], *boxes: tuple[int, int, int, int]) -> NDArray[Any]:
    out = pixels.copy()
    for y0, x0, y1, x1 in boxes:
        out[..., y0:y1, x0:x1] = 0
    return out


def test_a_corrupt_tile_is_named_with_its_level_and_place(tmp_path: Path) -> None:
    path = _tiled(tmp_path / "a.tif")
    _spoil(path, 7)
    image = open_image(path)
    np.testing.assert_array_equal(image[0, :32], PIXELS[:32])
    with pytest.raises(DamagedTileError) as caught:
        image[0, 30:34, 15:17]
    assert str(caught.value) == (
        f"{path}: found a truncated or corrupt tile at level 0, y 32, x 16, {WHOLE} "
        "with --skip-bad-tiles."
    )
    error = caught.value
    assert (error.path, error.level, error.box) == (path, 0, ((32, 16), (48, 32)))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.box, copy.exit_code) == (str(error), error.box, 3)


def test_a_corrupt_tile_that_is_skipped_is_0_and_remembered_once(tmp_path: Path) -> None:
    path = _tiled(tmp_path / "a.tif")
    _spoil(path, 11, 7)
    image = open_image(path, skip_damaged=True)
    assert not image.damaged
    expected = _without(PIXELS, (32, 16, 48, 32), (48, 32, 64, 48))
    for _ in range(2):
        np.testing.assert_array_equal(image.read()[0], expected)
    assert image.damaged == (((32, 16), (48, 32)), ((48, 32), (64, 48)))
    copy = pickle.loads(pickle.dumps(image))
    assert not copy.damaged
    np.testing.assert_array_equal(copy[0, 40:, 20:], expected[40:, 20:])
    assert copy.damaged == image.damaged


def test_threads_find_the_same_damage(tmp_path: Path) -> None:
    path = _tiled(tmp_path / "a.tif")
    _spoil(path, *range(0, 12, 2))
    whole = open_image(path, skip_damaged=True)
    pixels = whole.read()
    image = open_image(path, skip_damaged=True)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda top: image[0, top : top + 3], range(0, 64, 3)))
    np.testing.assert_array_equal(np.concatenate(rows), pixels[0])
    assert image.damaged == whole.damaged
    assert len(image.damaged) == 6


@pytest.mark.parametrize("rows", [1, 7, 16])
def test_strips_behind_the_end_of_the_file_are_damaged(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, rowsperstrip=rows, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offsets = tif.pages.first.dataoffsets
    path.write_bytes(path.read_bytes()[: offsets[-1] + 1])
    last = (len(offsets) - 1) * rows
    with pytest.raises(DamagedTileError, match=f"corrupt strip at level 0, y {last}, x 0,"):
        open_image(path).read()
    image = open_image(path, skip_damaged=True)
    np.testing.assert_array_equal(image.read()[0], _without(PIXELS, (last, 0, 64, 48)))
    assert image.damaged == (((last, 0), (64, 48)),)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_uncompressed_rows_behind_the_end_of_the_file_are_damaged(
    tmp_path: Path, planar: str
) -> None:
    path = tmp_path / "a.tif"
    planes = np.stack([PIXELS, PIXELS[::-1], 255 - PIXELS])
    stored = planes if planar == "separate" else np.moveaxis(planes, 0, -1)
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[0]
    row = 48 * (1 if planar == "separate" else 3)
    whole = 64 * 2 + 40 if planar == "separate" else 40
    path.write_bytes(path.read_bytes()[: offset + whole * row + 5])
    with pytest.raises(DamagedTileError) as caught:
        open_image(path)[:, 30:50]
    assert str(caught.value) == (
        f"{path}: found a truncated strip at level 0, y 40, x 0, {WHOLE} with --skip-bad-tiles."
    )
    image = open_image(path, skip_damaged=True)
    expected = planes.copy()
    expected[slice(2, 3) if planar == "separate" else slice(0, 3), 40:] = 0
    np.testing.assert_array_equal(image.read(), expected)
    np.testing.assert_array_equal(image[:, 50:60, 3:9], expected[:, 50:60, 3:9])
    assert image.damaged == (((40, 0), (64, 48)),)


def test_damage_where_white_is_zero_is_black(tmp_path: Path) -> None:
    path = _tiled(tmp_path / "a.tif", photometric="miniswhite")
    _spoil(path, 0)
    image = open_image(path, skip_damaged=True)
    np.testing.assert_array_equal(image.read()[0], _without(255 - PIXELS, (0, 0, 16, 16)))


def test_one_tile_of_several_planes_is_one_box(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    planes = np.stack([PIXELS, PIXELS // 2, PIXELS // 3])
    _tiled(path, planes, photometric="rgb", planarconfig="separate")
    _spoil(path, 5, 12 + 5)
    image = open_image(path, skip_damaged=True)
    expected = planes.copy()
    expected[:2, 16:32, 32:] = 0
    np.testing.assert_array_equal(image.read(), expected)
    assert image.damaged == (((16, 32), (32, 48)),)


def test_damage_of_a_coarse_level_is_told_in_pixels_of_the_full_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    full = np.tile(PIXELS, (2, 2))[:127, :95]
    with tifffile.TiffWriter(path) as writer:
        how: dict[str, Any] = {"tile": (16, 16), "compression": "zlib", "metadata": None}
        writer.write(full, photometric="minisblack", **how)
        writer.write(full[::2, ::2], photometric="minisblack", subfiletype=1, **how)
    _spoil(path, 5, page=1)
    with pytest.raises(DamagedTileError, match="level 1, y 16, x 32"):
        open_image(path).level(1)[...]
    image = open_image(path, skip_damaged=True)
    np.testing.assert_array_equal(image.read()[0], full)
    assert not image.damaged
    assert image.level(1)[0, 16:32, 32:].max() == 0
    # Level 1 is 64 x 48: one of its pixels is 127/64 by 95/48 of the full ones.
    assert image.damaged == (((31, 63), (64, 95)),)
    assert find_damaged(image, levels=[0]) == ()
    assert find_damaged(image) == (((31, 63), (64, 95)),)


def test_all_damage_is_found_before_anything_is_read(tmp_path: Path) -> None:
    path = _tiled(tmp_path / "a.tif")
    _spoil(path, 1, 10)
    boxes = (((0, 16), (16, 32)), ((48, 16), (64, 32)))
    strict, lenient = open_image(path), open_image(path, skip_damaged=True)
    assert find_damaged(strict, threads=3) == boxes
    assert strict.damaged == ()
    assert find_damaged(lenient) == boxes
    assert lenient.damaged == boxes
    _tiled(path)
    assert find_damaged(open_image(path)) == ()


def test_finding_damage_decodes_every_tile_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded_segments: list[int]
) -> None:
    monkeypatch.setattr(damage_module, "PIECE_BYTES", 600)
    assert find_damaged(open_image(_tiled(tmp_path / "a.tif"))) == ()
    assert sorted(decoded_segments) == list(range(12))


class _Sized:
    """A level of a given size, cut into segments of a given size."""

    def __init__(self, shape: tuple[int, int, int], segment: tuple[int, int]) -> None:
        self.shape, self.segment, self.dtype = shape, segment, np.dtype(np.uint16)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 60), st.integers(1, 60)),
    segment=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    limit=st.integers(1, 3000),
)
def test_pieces_cover_a_level_once_in_whole_segments(
    shape: tuple[int, int, int], segment: tuple[int, int], limit: int
) -> None:
    level: Any = _Sized(shape, segment)
    covered = np.zeros(shape, int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(damage_module, "PIECE_BYTES", limit)
        for channels, rows, columns in damage_module._pieces(level):
            covered[channels, rows, columns] += 1
            h, w = (min(n, total) for n, total in zip(segment, shape[1:], strict=True))
            assert (rows.start % h, columns.start % w) == (0, 0)
            area = (rows.stop - rows.start) * (columns.stop - columns.start)
            assert area <= max(h * w, limit // (2 * shape[0]))
    assert (covered == 1).all()


@given(
    full=st.integers(1, 200), size=st.integers(1, 200), ends=st.tuples(st.integers(), st.integers())
)
def test_a_box_of_a_level_covers_all_pixels_of_the_full_one_under_it(
    full: int, size: int, ends: tuple[int, int]
) -> None:
    size = min(size, full)
    low, high = sorted(end % (size + 1) for end in ends)
    damage = Damage([(full, 1), (size, 1)], skip=True)
    (y0, _), (y1, _) = damage.full_box(1, ((low, 0), (high, 1)))
    touched = [y for y in range(full) if y * size < high * full and (y + 1) * size > low * full]
    assert list(range(y0, y1)) == touched if low < high else y0 <= y1 <= y0 + 1


def test_a_count_beyond_the_file_is_damage_and_not_memory(tmp_path: Path) -> None:
    path = _tiled(tmp_path / "a.tif", bigtiff=True)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tag = tif.pages.first.tags["TileByteCounts"]
        counts = list(tag.value)
        counts[3] = 1 << 40
        tag.overwrite(counts, dtype="Q")
    assert find_damaged(open_image(path)) == (((16, 0), (32, 16)),)


def test_a_file_that_went_away_is_no_damage(tmp_path: Path) -> None:
    path = _tiled(tmp_path / "a.tif")
    image = open_image(path, skip_damaged=True)
    path.unlink()
    with pytest.raises(MissingInputError) as caught:
        image.read()
    assert str(caught.value) == f"{path}: found nothing, wanted an image file; check the path."
    assert image.damaged == ()


def test_an_error_of_the_disk_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _tiled(tmp_path / "a.tif")
    image = open_image(path, skip_damaged=True)

    def failing(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(pages_module.SegmentedPage, "_stored", failing)
    with pytest.raises(InputError) as caught:
        image.read()
    assert str(caught.value) == (
        f"{path}: found an error of the system (Input/output error), wanted a file that can be "
        "read; check the disk or the network share it lies on."
    )
    assert image.damaged == ()


def test_an_image_that_is_decoded_whole_has_no_part_to_leave_out(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Pillow.fromarray(PIXELS).save(path)
    assert find_damaged(open_image(path)) == ()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=re.escape("a truncated or corrupt PNG file")):
        find_damaged(open_image(path, skip_damaged=True))


def test_an_opened_image_tells_its_segments(tmp_path: Path) -> None:
    def segments(image: Image) -> list[tuple[int, int]]:
        return [level.segment for level in image.levels if isinstance(level, Level)]

    assert segments(open_image(_tiled(tmp_path / "a.tif"))) == [(16, 16)]
    tifffile.imwrite(tmp_path / "b.tif", PIXELS, rowsperstrip=5, compression="zlib")
    assert segments(open_image(tmp_path / "b.tif")) == [(5, 48)]
    tifffile.imwrite(tmp_path / "c.tif", PIXELS)
    np.save(tmp_path / "d.npy", PIXELS)
    assert segments(open_image(tmp_path / "c.tif")) == [(1, 48)]
    assert segments(open_image(tmp_path / "d.npy")) == [(1, 48)]
    Pillow.fromarray(PIXELS).save(tmp_path / "e.png")
    assert segments(open_image(tmp_path / "e.png")) == [(64, 48)]
