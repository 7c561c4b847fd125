"""OME-Zarr images in folders and behind URLs: their pixels, axes, levels, and lost chunks."""

from __future__ import annotations

import functools
import json
import multiprocessing
import pickle
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError
from domainseg.images import DamagedTileError, find_damaged, image_sha256, is_ome_zarr, open_image
from domainseg.images import zarr_store as store_module
from domainseg.images.files import location_of
from domainseg.images.image import Image

RNG = np.random.default_rng(11)
STACK = RNG.integers(1, 60_000, (2, 3, 4, 50, 70)).astype(np.uint16)
"""t, c, z, y, x; no pixel has the fill value."""
PLANE = RNG.integers(1, 255, (64, 96)).astype(np.uint8)
AXES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def write_image(
    path: Path,
    levels: Sequence[NDArray[Any]],
    axes: str,
    *,
    version: str = "0.5",
    chunk: int = 32,
    scale: Sequence[float] | None = None,
    units: dict[str, str] | None = None,
    labels: Sequence[str] | None = None,
    **how: Any,
) -> Path:
    """Write an OME-Zarr image; arrays and metadata as the specification has them."""
    zarr_format: Literal[2, 3] = 3 if version == "0.5" else 2
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    datasets = []
    for i, pixels in enumerate(levels):
        chunks = tuple(chunk if axis in "yx" else 1 for axis in axes)
        if zarr_format == 2:
            how = {"chunk_key_encoding": {"name": "v2", "separator": "/"}, **how}
        array = group.create_array(
            str(i), shape=pixels.shape, dtype=pixels.dtype, **{"chunks": chunks, **how}
        )
        array[...] = pixels
        factor = [f * levels[0].shape[k] / pixels.shape[k] for k, f in enumerate(scale or ())]
        transformations = [{"type": "scale", "scale": factor or [1.0] * len(axes)}]
        datasets.append({"path": str(i), "coordinateTransformations": transformations})
    described = [
        {"name": a, "type": AXES[a], **({"unit": units[a]} if units and a in units else {})}
        for a in axes
    ]
    ome: dict[str, Any] = {"multiscales": [{"axes": described, "datasets": datasets}]}
    if labels:
        ome["omero"] = {"channels": [{"label": label} for label in labels]}
    if zarr_format == 3:
        group.attrs["ome"] = {"version": version, **ome}
    else:
        ome["multiscales"][0]["version"] = version
        group.attrs.update(ome)
    return path


def pyramid(pixels: NDArray[Any], count: int) -> list[NDArray[Any]]:
    return [pixels[..., :: 2**i, :: 2**i] for i in range(count)]


def chunk_file(path: Path, level: int, *cell: int) -> Path:
    inner = "/".join(map(str, cell))
    return next(p for p in (path / f"{level}/c/{inner}", path / f"{level}/{inner}") if p.exists())


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_stack_is_resolved_by_select_and_read_by_region(tmp_path: Path, version: str) -> None:
    path = write_image(
        tmp_path / "a.zarr",
        pyramid(STACK, 2),
        "tczyx",
        version=version,
        scale=(1, 1, 2, 0.5, 325),
        units={"z": "micrometer", "y": "micrometer", "x": "nanometer"},
        labels=["DAPI", "GFP", "RFP"],
    )
    image = open_image(path, select={"t": 1, "z": 2})
    assert image.format == f"OME-Zarr {version}"
    assert image.channels == ("DAPI", "GFP", "RFP")
    assert image.spacing_um == pytest.approx((0.5, 0.325))
    assert [level.shape for level in image.levels] == [(3, 50, 70), (3, 25, 35)]
    np.testing.assert_array_equal(image.read(), STACK[1, :, 2])
    np.testing.assert_array_equal(image[1:, 30:40, 31:65], STACK[1, 1:, 2, 30:40, 31:65])
    np.testing.assert_array_equal(image.level(1)[2, 3:9], STACK[1, 2, 2, ::2, ::2][3:9])
    one = open_image(path, select={"t": 0, "z": "max", "channel": "GFP"})
    np.testing.assert_array_equal(one[0], STACK[0, 1].max(axis=0))
    mean = open_image(path, select={"t": 0, "z": "mean", "channel": [2, 0]})
    np.testing.assert_array_equal(mean.read(), np.rint(STACK[0, [2, 0]].mean(axis=1)))


def test_an_ambiguous_stack_lists_its_axes(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", [STACK], "tczyx")
    with pytest.raises(InputError) as caught:
        open_image(path, select={"t": 0})
    assert str(caught.value) == (
        f"{path}: found a stack with axes t=2, channel=3 (c0, c1, c2), z=4, wanted one plane; "
        "give --select z=max, or image.select: {z: max} in the recipe (an index, max or mean "
        "for each)."
    )


@pytest.mark.parametrize("how", [{"shards": (64, 64), "chunks": (16, 16)}, {"chunks": (7, 50)}])
def test_chunks_and_shards_of_any_shape_are_read(tmp_path: Path, how: dict[str, Any]) -> None:
    path = write_image(tmp_path / "a.zarr", [PLANE], "yx", **how)
    image = open_image(path)
    assert (image.channels, image.spacing_um) == (("grey",), None)
    assert image.levels[0].segment == how["chunks"]
    np.testing.assert_array_equal(image.read()[0], PLANE)
    np.testing.assert_array_equal(image[0, 13:51, 47:48], PLANE[13:51, 47:48])


def test_axes_may_stand_in_any_order(tmp_path: Path) -> None:
    stored = np.transpose(STACK[0, :, 0], (2, 0, 1))
    image = open_image(write_image(tmp_path / "a.zarr", [stored], "xcy", chunk=16))
    np.testing.assert_array_equal(image[:, 5:40, 20:], STACK[0, :, 0, 5:40, 20:])


def test_big_endian_and_boolean_pixels_become_native_numbers(tmp_path: Path) -> None:
    wide = STACK[0, 0, 0]
    path = write_image(tmp_path / "a.zarr", [wide.astype(">u2")], "yx", version="0.4")
    image = open_image(path)
    assert image.dtype.isnative
    np.testing.assert_array_equal(image.read()[0], wide)
    flags = write_image(tmp_path / "b.zarr", [wide > 30_000], "yx")
    assert open_image(flags).dtype == np.uint8
    np.testing.assert_array_equal(open_image(flags).read()[0], wide > 30_000)


@pytest.mark.parametrize(
    ("units", "scale", "spacing"),
    [
        ({}, (0.5, 0.5), None),
        ({"y": "micrometer"}, (0.5, 0.5), None),
        ({"y": "millimeter", "x": "millimeter"}, (5e-4, 2.5e-4), (0.5, 0.25)),
        ({"y": "meter", "x": "nanometer"}, (1e-6, 250.0), (1.0, 0.25)),
        ({"y": "micrometer", "x": "micrometer"}, None, (1.0, 1.0)),
    ],
)
def test_the_pixel_size_needs_a_unit(
    tmp_path: Path, units: dict[str, str], scale: Any, spacing: Any
) -> None:
    path = write_image(tmp_path / "a.zarr", [PLANE], "yx", units=units, scale=scale)
    found = open_image(path).spacing_um
    assert found == (None if spacing is None else pytest.approx(spacing))


def test_scales_of_level_and_image_multiply(tmp_path: Path) -> None:
    units = dict.fromkeys("yx", "micrometer")
    path = write_image(tmp_path / "a.zarr", [PLANE], "yx", units=units, scale=(0.5, 0.5))
    document = json.loads((path / "zarr.json").read_text())
    multiscale = document["attributes"]["ome"]["multiscales"][0]
    multiscale["coordinateTransformations"] = [{"type": "scale", "scale": [4.0, 2.0]}]
    (path / "zarr.json").write_text(json.dumps(document))
    assert open_image(path).spacing_um == pytest.approx((2.0, 1.0))


def _bioformats2raw(path: Path) -> Path:
    zarr.open_group(path, mode="w", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    for i in range(2):
        write_image(path / str(i), [PLANE + i], "yx", version="0.4")
    return path


def test_one_of_several_images_is_chosen_by_series(tmp_path: Path) -> None:
    path = _bioformats2raw(tmp_path / "a.zarr")
    np.testing.assert_array_equal(open_image(path, select={"series": 1})[0], PLANE + 1)
    np.testing.assert_array_equal(open_image(path, select={"series": "0"})[0], PLANE)
    np.testing.assert_array_equal(open_image(path / "1")[0], PLANE + 1)
    with pytest.raises(InputError, match=r"found 2 images in one file \(0, 1\), wanted one"):
        open_image(path)


@pytest.mark.parametrize(
    ("attributes", "found", "fix"),
    [
        (
            {"plate": {"wells": [{"path": "B/3"}, {"path": "B/4"}]}},
            "a plate of 2 wells",
            "name the image of a field, as in {path}/B/3/0",
        ),
        (
            {"well": {"images": [{"path": "0"}]}},
            "a well of 1 fields",
            "name one of them, as in {path}/0",
        ),
        (
            {"labels": ["cells"]},
            "a group of label images (cells)",
            "name one of them, as in {path}/cells",
        ),
        ({}, "a zarr hierarchy without multiscales metadata", "name the group of an image"),
    ],
)
def test_a_hierarchy_that_is_no_image_says_where_one_is(
    tmp_path: Path, attributes: dict[str, Any], found: str, fix: str
) -> None:
    path = tmp_path / "a.zarr"
    zarr.open_group(path, mode="w", zarr_format=3, attributes={"ome": attributes})
    with pytest.raises(InputError) as caught:
        open_image(path)
    assert str(caught.value) == (
        f"{path}: found {found}, wanted an OME-Zarr image; {fix.format(path=path)}."
    )


def test_an_older_version_is_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", [PLANE], "yx", version="0.4")
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0] |= {"version": "0.3", "axes": ["y", "x"]}
    (path / ".zattrs").write_text(json.dumps(attributes))
    with pytest.raises(InputError) as caught:
        open_image(path)
    assert str(caught.value) == (
        f"{path}: found OME-Zarr version 0.3, whose axes have no types, wanted version 0.4 or "
        "0.5; convert it to one of them."
    )


def test_metadata_that_is_cut_or_names_a_level_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", pyramid(PLANE, 2), "yx")
    shutil.rmtree(path / "1")
    with pytest.raises(InputError) as caught:
        open_image(path)
    assert str(caught.value) == (
        f"{path}: found no array 1, which its metadata names as a level, wanted every level; "
        "copy or download it again."
    )
    (path / "zarr.json").write_text('{"attributes": ')
    with pytest.raises(InputError, match="found a truncated or corrupt OME-Zarr file"):
        open_image(path)


def test_levels_end_where_more_than_height_and_width_differ(tmp_path: Path) -> None:
    stack = STACK[0, 0]
    levels = [stack, stack[:, ::2, ::2], stack[::2, ::4, ::4]]
    image = open_image(write_image(tmp_path / "a.zarr", levels, "zyx"), select={"z": 3})
    assert [level.shape for level in image.levels] == [(1, 50, 70), (1, 25, 35)]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_missing_chunk_is_named(tmp_path: Path, version: str) -> None:
    path = write_image(tmp_path / "a.zarr", pyramid(STACK, 2), "tczyx", version=version)
    lost = chunk_file(path, 0, 1, 2, 0, 1, 2)
    lost.unlink()
    image = open_image(path, select={"t": 1, "z": 0})
    np.testing.assert_array_equal(image[:2], STACK[1, :2, 0])
    with pytest.raises(DamagedTileError) as caught:
        image[2, 40:, 65:]
    assert str(caught.value) == (
        f"{path}: found no chunk {lost.relative_to(path).as_posix()} at level 0, y 32, x 64, "
        "wanted every chunk of the image; export, copy or download it again, or leave that area "
        "out with --skip-bad-tiles."
    )
    assert open_image(path, select={"t": 0, "z": 0}).read().min() > 0


@pytest.mark.parametrize("spoil", ["cut", "overwritten", "empty"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_corrupt_chunk_is_named_or_left_out(tmp_path: Path, version: str, spoil: str) -> None:
    path = write_image(tmp_path / "a.zarr", pyramid(PLANE, 2), "yx", version=version)
    chunk = chunk_file(path, 0, 1, 1)
    data = chunk.read_bytes()
    chunk.write_bytes({"cut": data[:-7], "overwritten": bytes(len(data)), "empty": b""}[spoil])
    name = chunk.relative_to(path).as_posix()
    with pytest.raises(DamagedTileError) as caught:
        open_image(path).read()
    assert f"found a truncated or corrupt chunk {name} at level 0, y 32, x 32," in str(caught.value)
    image = open_image(path, skip_damaged=True)
    expected = PLANE.copy()
    expected[32:, 32:64] = 0
    np.testing.assert_array_equal(image.read()[0], expected)
    np.testing.assert_array_equal(image[0, 30:50, 60:], expected[30:50, 60:])
    assert image.damaged == (((32, 32), (64, 64)),)
    assert find_damaged(open_image(path)) == image.damaged


def test_a_missing_shard_is_all_its_chunks_and_an_empty_one_inside_is_empty(tmp_path: Path) -> None:
    pixels = PLANE.copy()
    pixels[:16, :16] = 0
    path = write_image(tmp_path / "a.zarr", [pixels], "yx", shards=(32, 32), chunks=(16, 16))
    np.testing.assert_array_equal(open_image(path).read()[0], pixels)
    chunk_file(path, 0, 1, 2).unlink()
    assert find_damaged(open_image(path)) == (
        ((32, 64), (48, 80)),
        ((32, 80), (48, 96)),
        ((48, 64), (64, 80)),
        ((48, 80), (64, 96)),
    )


def _dark_corner() -> NDArray[np.uint8]:
    pixels = PLANE.copy()
    pixels[:, :64] = 0
    return pixels


def test_chunks_that_were_left_out_as_empty_are_empty_where_the_pyramid_says_so(
    tmp_path: Path,
) -> None:
    pixels = _dark_corner()
    path = write_image(tmp_path / "a.zarr", pyramid(pixels, 3), "yx")
    assert not (path / "0/c/0/0").exists()
    assert not (path / "1/c/0/0").exists()
    image = open_image(path)
    np.testing.assert_array_equal(image.read()[0], pixels)
    np.testing.assert_array_equal(image.level(1)[0], pixels[::2, ::2])
    assert find_damaged(image) == ()
    chunk_file(path, 0, 1, 2).unlink()
    assert find_damaged(open_image(path)) == (((32, 64), (64, 96)),)


def test_without_a_pyramid_a_chunk_that_is_not_there_is_damage(tmp_path: Path) -> None:
    pixels = _dark_corner()
    path = write_image(tmp_path / "a.zarr", [pixels], "yx")
    assert len(find_damaged(open_image(path))) == 4
    kept = write_image(tmp_path / "b.zarr", [pixels], "yx", config={"write_empty_chunks": True})
    assert find_damaged(open_image(kept)) == ()
    np.testing.assert_array_equal(open_image(kept).read()[0], pixels)


def test_a_whole_level_that_is_missing_is_damage_even_where_finer_pixels_are_dark(
    tmp_path: Path,
) -> None:
    path = write_image(tmp_path / "a.zarr", pyramid(_dark_corner(), 3), "yx")
    shutil.rmtree(path / "2/c")
    with pytest.raises(DamagedTileError, match="no chunk 2/c/0/0 at level 2, y 0, x 0"):
        open_image(path).level(2)[...]
    with pytest.raises(DamagedTileError, match="no chunk 0/c/0/0 at level 0, y 0, x 0"):
        open_image(path)[0, :4, :4]


def test_an_undefined_fill_value_makes_every_missing_chunk_damage(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", pyramid(_dark_corner(), 3), "yx", version="0.4")
    assert find_damaged(open_image(path)) == ()
    described = json.loads((path / "0/.zarray").read_text())
    (path / "0/.zarray").write_text(json.dumps({**described, "fill_value": None}))
    assert len(find_damaged(open_image(path), levels=[0])) == 4


def test_an_image_that_went_away_is_no_damage(tmp_path: Path) -> None:
    image = open_image(write_image(tmp_path / "a.zarr", [PLANE], "yx"), skip_damaged=True)
    shutil.rmtree(tmp_path / "a.zarr")
    with pytest.raises(MissingInputError) as caught:
        image.read()
    assert str(caught.value) == (
        f"{tmp_path / 'a.zarr'}: found nothing where it was opened, wanted the image to stay "
        "while it is read; bring it back and run the same command again."
    )
    assert image.damaged == ()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_threads_copies_and_forks_read_the_same(tmp_path: Path) -> None:
    image = open_image(write_image(tmp_path / "a.zarr", [PLANE], "yx", chunk=16))
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda top: image[0, top : top + 5], range(0, 64, 5)))
    np.testing.assert_array_equal(np.concatenate(rows), PLANE)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).read()[0], PLANE)
    assert _sum_in_a_fork(image) == int(PLANE.sum())
    image.close()
    np.testing.assert_array_equal(image.read()[0], PLANE)


def _sum_in_a_fork(image: Image) -> int:
    """Return what a forked process sums, which opens the arrays anew."""
    context = multiprocessing.get_context("fork")
    ends = context.Pipe(duplex=False)
    child = context.Process(target=lambda: ends[1].send(int(image.read().sum())))
    child.start()
    assert ends[0].poll(20)
    total = ends[0].recv()
    child.join(20)
    assert child.exitcode == 0
    return int(total)


class _Handler(SimpleHTTPRequestHandler):
    """A plain file server that says nothing, and fails when it is told to."""

    failures: dict[str, list[int]] = {}  # noqa: RUF012 - handlers are made by the server

    def do_GET(self) -> None:
        waiting = self.failures.get(self.path)
        if waiting:
            self.send_error(waiting.pop(0))
        else:
            super().do_GET()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serve the test's folder, and yield its URL."""
    handler = functools.partial(_Handler, directory=str(tmp_path))
    _Handler.failures = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_behind_a_url_is_that_in_the_folder(
    tmp_path: Path, served: str, version: str
) -> None:
    write_image(tmp_path / "a.zarr", pyramid(STACK, 2), "tczyx", version=version)
    select = {"t": 0, "z": 1}
    image = open_image(f"{served}/a.zarr", select=select)
    assert image.path == f"{served}/a.zarr"
    assert "a.zarr" in repr(image)
    np.testing.assert_array_equal(image.read(), STACK[0, :, 1])
    np.testing.assert_array_equal(image.level(1)[1, 9:20], STACK[0, 1, 1, ::2, ::2][9:20])
    chunk_file(tmp_path / "a.zarr", 0, 0, 1, 1, 0, 0).unlink()
    image.close()
    with pytest.raises(DamagedTileError, match=r"no chunk 0/.*0/1/1/0/0 at level 0, y 0, x 0"):
        image[1, 5:9, 5:9]


def test_shards_are_read_from_a_server_that_knows_no_ranges(tmp_path: Path, served: str) -> None:
    write_image(tmp_path / "a.zarr", [PLANE], "yx", shards=(32, 32), chunks=(16, 16))
    np.testing.assert_array_equal(open_image(f"{served}/a.zarr").read()[0], PLANE)


def test_an_image_in_memory_and_one_by_file_url_are_read(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a b.zarr", [PLANE], "yx")
    memory = fsspec.filesystem("memory")
    memory.put(str(path), "/a.zarr", recursive=True)
    np.testing.assert_array_equal(open_image("memory://a.zarr").read()[0], PLANE)
    assert location_of(path.as_uri()) == path
    np.testing.assert_array_equal(open_image(path.as_uri()).read()[0], PLANE)
    before = image_sha256("memory://a.zarr")
    memory.pipe("/a.zarr/0/c/0/0", b"other")
    assert image_sha256("memory://a.zarr") != before
    memory.rm("/a.zarr", recursive=True)


def test_a_url_with_nothing_behind_it_is_refused(served: str) -> None:
    with pytest.raises(MissingInputError) as caught:
        open_image(f"{served}/b.zarr")
    assert str(caught.value) == (
        f"{served}/b.zarr: found nothing (no zarr.json, .zattrs or .zgroup), wanted an OME-Zarr "
        "image; check the address."
    )


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PAUSE_S", 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        port = server.server_address[1]
    with pytest.raises(InputError) as caught:
        open_image(f"http://127.0.0.1:{port}/a.zarr")
    assert str(caught.value) == (
        f"http://127.0.0.1:{port}/a.zarr: found no answer (Connect call failed ('127.0.0.1', "
        f"{port})), wanted an OME-Zarr image at that address; check the address and the network."
    )


def test_a_server_that_fails_for_a_moment_is_asked_again_and_never_counts_as_damage(
    tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PAUSE_S", 0.0)
    write_image(tmp_path / "a.zarr", [PLANE], "yx")
    image = open_image(f"{served}/a.zarr", skip_damaged=True)
    _Handler.failures = {"/a.zarr/0/c/0/0": [503, 503], "/a.zarr/0/c/1/1": [503] * 9}
    np.testing.assert_array_equal(image[0, :32, :32], PLANE[:32, :32])
    with pytest.raises(InputError, match=r"found no answer \(HTTP status 503\), wanted an OME"):
        image[0, 40, 40]
    assert image.damaged == ()


def test_metadata_that_may_not_be_read_is_taken_for_metadata_that_is_not_there(
    tmp_path: Path, served: str
) -> None:
    write_image(tmp_path / "a.zarr", [PLANE], "yx", version="0.4")
    _Handler.failures = {"/a.zarr/zarr.json": [403]}
    np.testing.assert_array_equal(open_image(f"{served}/a.zarr").read()[0], PLANE)


def test_urls_of_other_files_and_of_unknown_kinds_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        open_image("https://example.org/a.tif")
    assert str(caught.value) == (
        "https://example.org/a.tif: found the URL of a .tif file, wanted that of an OME-Zarr "
        "image, which is read chunk by chunk; download the file and name it."
    )
    with pytest.raises(InputError) as caught:
        open_image("gopher://example.org/a.zarr")
    assert str(caught.value) == (
        "gopher://example.org/a.zarr: found no package that reads gopher URLs (Protocol not "
        "known: gopher), wanted one that fsspec knows; install it, or copy the image to a folder."
    )


def test_a_folder_is_an_image_by_its_metadata(tmp_path: Path) -> None:
    write_image(tmp_path / "image", [PLANE], "yx")
    (tmp_path / "other.zarr").mkdir()
    assert is_ome_zarr(tmp_path / "image")
    assert is_ome_zarr(str(tmp_path / "image"))
    assert is_ome_zarr("https://example.org/image")
    assert not is_ome_zarr(tmp_path / "other.zarr")
    assert not is_ome_zarr(tmp_path / "none.zarr")
    with pytest.raises(InputError, match="found a folder, wanted an image file"):
        open_image(tmp_path / "other.zarr")


def test_the_digest_of_a_folder_follows_every_byte_and_name(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", pyramid(PLANE, 2), "yx")
    before = image_sha256(path)
    shutil.copytree(path, tmp_path / "b.zarr")
    assert image_sha256(tmp_path / "b.zarr") == before
    chunk = chunk_file(path, 1, 0, 0)
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    changed = image_sha256(path)
    chunk.rename(chunk.with_name("7"))
    assert len({before, changed, image_sha256(path)}) == 3


def test_the_digest_of_a_url_follows_metadata_sizes_and_times(tmp_path: Path, served: str) -> None:
    path = write_image(tmp_path / "a.zarr", pyramid(PLANE, 2), "yx")
    url = f"{served}/a.zarr"
    before = image_sha256(url)
    assert image_sha256(url) == before
    chunk = chunk_file(path, 1, 0, 0)
    data = chunk.read_bytes()
    chunk.write_bytes(data + b"0")
    longer = image_sha256(url)
    chunk.unlink()
    absent = image_sha256(url)
    chunk.write_bytes(data)
    document = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(document + " ")
    assert len({before, longer, absent, image_sha256(url)}) == 4
