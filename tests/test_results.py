"""What a run leaves does not depend on blocks and threads, nor on the run before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from domainseg import model_plane, results
from domainseg.errors import OutputError, UsageError
from domainseg.images.label_store import open_label_plane
from domainseg.images.resample import Grid
from domainseg.instances.basins import DecodeOptions
from domainseg.instances.overlay import overlay
from domainseg.predict import predict
from domainseg.records import Maps, Sample, Tile
from domainseg.results import write_results
from domainseg.run_files import TABLE
from domainseg.run_folder import alone_in
from domainseg.runs import RunOptions
from domainseg.tiling.decoding import BlockWork, decoding
from domainseg.tiling.store import MapStore, open_store

Write = Callable[..., Path]
SIDE = 1500


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> MapStore:
    """Maps of dots of 9 px, 32 px apart, and of a stripe through all of them."""
    y, x = np.mgrid[:SIDE, :SIDE]
    near = np.hypot(y % 32 - 16, x % 32 - 16)
    height = np.clip(1 - near / 9, 0, 1)
    height[700:704] = 1.0
    path = tmp_path_factory.mktemp("maps") / "maps.zarr"
    store = open_store(path, layers=1, shape=(SIDE, SIDE), core=(1504, 1504))
    maps = Maps(
        np.where(height > 0, 200, 20).astype(np.uint8)[None],
        (65535 * height).astype(np.uint16)[None],
        np.zeros((1, SIDE, SIDE), np.uint8),
    )
    store.write(Tile((0, 0), (1504, 1504), ((0, 0), (SIDE, SIDE))), maps)
    return store


def written(folder: Path, store: MapStore, work: BlockWork) -> dict[str, bytes]:
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (2, SIDE, SIDE), np.uint8)
    write_results(
        folder,
        Sample("a", image, ("red", "green"), spacing_um=(0.5, 0.25)),
        decoding(
            store,
            DecodeOptions(prominence=0.1, fill_holes=True),
            grid=Grid((1.0, 1.0), (SIDE, SIDE), (SIDE, SIDE)),
            scratch=folder / "scratch",
            work=work,
        ),
        class_names=("dot",),
        sha256="0" * 64,
        work=work,
    )
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_blocks_and_threads_change_no_byte(tmp_path: Path, store: MapStore) -> None:
    wanted = written(tmp_path / "whole", store, BlockWork(2048, 1))
    labels = np.asarray(open_label_plane(tmp_path / "whole" / "labels.ome.zarr")[:])
    assert pl.read_parquet(tmp_path / "whole" / "objects.parquet").height == labels.max() > 2000
    for work in (BlockWork(512, 4), BlockWork(1024, 3), BlockWork(300, 2)):
        found = written(tmp_path / f"{work.block_px}", store, work)
        assert found.keys() == wanted.keys()
        assert [name for name in wanted if found[name] != wanted[name]] == []


def test_labels_that_are_written_last_are_the_same(
    tmp_path: Path, store: MapStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = written(tmp_path / "beside", store, BlockWork(512, 2))
    monkeypatch.setattr(results, "BESIDE_PX", 0)
    assert written(tmp_path / "last", store, BlockWork(512, 2)) == wanted


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_no_labels_of_a_smaller_image_stay_beside_those_of_a_larger(
    tmp_path: Path, bright_model: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((40, 50), np.uint8)
    pixels[5:15, 5:15] = 255
    image = save(tmp_path / "a.png", pixels)
    (run,) = predict(bright_model(), [image], tmp_path / "out")
    assert (run.folder / "labels.tif").exists()
    monkeypatch.setattr(results, "LABELS_PX", 100)
    predict(bright_model(), [image], tmp_path / "out", options=RunOptions(restart=True))
    assert not (run.folder / "labels.tif").exists()


@pytest.mark.parametrize("picture", ["_write_plain", "_write_overlay"])
def test_a_picture_that_cannot_be_written_ends_the_run_without_a_record(
    tmp_path: Path, bright_model: Write, monkeypatch: pytest.MonkeyPatch, picture: str
) -> None:
    def full(*_: object) -> None:
        raise OutputError("the disk is full")

    image = save(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(results, picture, full)
    with pytest.raises(OutputError, match="the disk is full"):
        predict(bright_model(), [image], tmp_path / "out")
    assert not (tmp_path / "out" / "a" / "run.json").exists()
    assert not (tmp_path / "out" / "a" / ".scratch").exists()


def test_a_run_that_was_stopped_goes_on_with_restart_too(
    tmp_path: Path, bright_model: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = save(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    options = RunOptions(restart=True)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(results, "reap", stop)
        with pytest.raises(KeyboardInterrupt):
            predict(bright_model(), [image], tmp_path / "out", options=options)
    maps = tmp_path / "out" / "a" / "maps.zarr" / "c" / "0" / "0" / "0"
    before = maps.stat().st_mtime_ns
    predict(bright_model(), [image], tmp_path / "out", options=options)
    assert maps.stat().st_mtime_ns == before
    predict(bright_model(), [image], tmp_path / "out", options=options)
    assert maps.stat().st_mtime_ns != before


def test_damaged_tiles_are_left_out_of_range_area_and_objects(
    tmp_path: Path, bright_model: Write
) -> None:
    """Dots of 200 on 150: with the lost tile as black, 150 would be bright."""
    pixels = np.full((256, 256), 150, np.uint8)
    pixels[10::32, 10::32] = 200
    pixels[11::32, 10::32] = 200
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages.first.dataoffsets[5], tif.pages.first.databytecounts[5]
    spoiled = bytearray(path.read_bytes())
    spoiled[offset : offset + count] = bytes(count)
    path.write_bytes(spoiled)
    scale = {"scope": "image", "low_percentile": 0.0, "high_percentile": 100.0}
    model = bright_model(data={"normalise": scale})
    options = RunOptions(skip_bad_tiles=True)
    (run,) = predict(model, [path], tmp_path / "out", options=options)
    assert run.count == 60
    assert run.warnings == ("1 damaged tiles of the image file were not inspected",)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("spacing_um", "--spacing-um"),
        ("diameter_px", "--diameter-px"),
        ("max_memory_mb", "--max-memory"),
    ],
)
def test_lengths_that_are_none_are_refused(field: str, option: str, value: float) -> None:
    with pytest.raises(UsageError) as caught:
        replace(RunOptions(), **{field: value})  # type: ignore[arg-type]
    assert str(caught.value) == f"{option}: found {value:g}, wanted a number above 0; correct it."


def test_a_run_that_goes_on_does_not_measure_the_range_again(
    tmp_path: Path, bright_model: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(2).integers(0, 200, (90, 130)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    model = bright_model(data={"normalise": {"scope": "image"}})

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(results, "reap", stop)
        with pytest.raises(KeyboardInterrupt):
            predict(model, [tmp_path / "a.tif"], tmp_path / "out")
    with monkeypatch.context() as broken:
        broken.setattr(model_plane, "measure_range", stop)
        (run,) = predict(model, [tmp_path / "a.tif"], tmp_path / "out")
    (whole,) = predict(model, [tmp_path / "a.tif"], tmp_path / "whole")
    assert (run.folder / "run.json").read_bytes() == (whole.folder / "run.json").read_bytes()
    assert (run.folder / TABLE).read_bytes() == (whole.folder / TABLE).read_bytes()


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path, bright_model: Write) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((50, 50), np.uint8))
    model, folder = bright_model(), tmp_path / "out" / "a"
    with alone_in(folder), pytest.raises(OutputError) as caught:
        predict(model, [tmp_path / "a.tif"], tmp_path / "out")
    assert str(caught.value) == (
        f"{folder}: found another process at work in it, wanted one at a time; wait until it has "
        "ended, or choose another output folder."
    )
    (run,) = predict(model, [tmp_path / "a.tif"], tmp_path / "out")
    assert not (run.folder / ".lock").exists()


@pytest.mark.parametrize("levels", [1, 3])
def test_the_picture_is_that_of_the_whole_image(
    tmp_path: Path, bright_model: Write, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.full((2200, 2100), 40, np.uint8)
    pixels[1000:1100, 300:1900] = 200
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(pixels, tile=(256, 256), subifds=levels - 1)
        for level in range(1, levels):
            small = pixels[:: 2**level, :: 2**level]
            tif.write(small, tile=(256, 256), subfiletype=1)
    model = bright_model(tiling={"core_px": 1024})
    (run,) = predict(model, [tmp_path / "a.tif"], tmp_path / "out")
    with Image.open(run.folder / "overlay.png") as picture:
        shown = np.asarray(picture)
    labels = tifffile.imread(run.folder / "labels.tif")
    wanted = overlay(pixels[None], labels.astype(np.int32))
    assert shown.shape == wanted.shape == (1100, 1050, 3)
    assert (shown == wanted).all()
