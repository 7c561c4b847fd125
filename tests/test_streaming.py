"""The forward pass into a store and the decode out of it equal those in memory, whatever stops."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.errors import InputError, OutputError
from domainseg.images.label_store import Look, label_store, open_label_plane
from domainseg.images.resample import Grid, labels_to_source
from domainseg.instances.basins import DecodeOptions, decode
from domainseg.instances.tile_graph import Window
from domainseg.records import UNSEEN, Maps, Plane, Sample, Tile
from domainseg.results import write_results
from domainseg.tiling.decoding import BlockWork, block_boxes, decoding
from domainseg.tiling.forward import MapMaker, forward_maps
from domainseg.tiling.grid import Lattice, core_shape, tiles
from domainseg.tiling.store import MapStore, existing_store, open_store
from domainseg.tiling.stream import stream_maps

Rng = np.random.Generator
spec = importlib.util.spec_from_file_location(
    "decoder_cases", Path(__file__).with_name("decoder_cases.py")
)
assert spec is not None
assert spec.loader is not None
cases = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = cases
spec.loader.exec_module(cases)
random_maps: Callable[..., Maps] = cases.random_maps
random_options: Callable[[Rng, int], DecodeOptions] = cases.random_options


class Drawn:
    """Maps of a network that draws its two outputs from the image: logit and height."""

    def __init__(self, scores: Tensor) -> None:
        self.foreground = 16 * scores[:, :1] - 8
        self.height = scores[:, 1:2].clip(0, 1)
        self.classes = (scores[:, :1] > 0.7).to(torch.uint8)


class Blur(nn.Module):
    """A smooth function of a neighbourhood of five pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.calls.append(tuple(image.shape))
        return nn.functional.avg_pool2d(image, 5, 1, 2)


def blur_maker() -> MapMaker:
    return MapMaker(Blur().eval(), Drawn, 1, torch.device("cpu"))


def picture(shape: tuple[int, int], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((2, *shape), np.float32)


def stored(path: Path, maps: Maps, core_px: int = 64) -> MapStore:
    """Return a store with these maps."""
    layers, height, width = maps.height.shape
    store = open_store(path, layers=layers, shape=(height, width), core=(core_px, core_px))
    for y in range(0, height, core_px):
        for x in range(0, width, core_px):
            box = slice(y, min(y + core_px, height)), slice(x, min(x + core_px, width))
            part = Maps(*(plane[(slice(None), *box)] for plane in planes_of(maps)))
            core = ((y, x), (box[0].stop, box[1].stop))
            store.write(Tile((y, x), (core_px, core_px), core), part)
    return store


def planes_of(maps: Maps) -> tuple[NDArray[Any], ...]:
    return maps.foreground, maps.height, maps.classes


def assert_holds(store: MapStore, maps: Maps) -> None:
    for layer in range(store.layers):
        window = store.window(layer, ((-5, -5), (10**6, 10**6)))
        np.testing.assert_array_equal(window.foreground, maps.foreground[layer])
        np.testing.assert_array_equal(window.height, maps.height[layer])
        np.testing.assert_array_equal(window.classes, maps.classes[layer])


SHAPES = [(1, 1), (1, 200), (200, 1), (64, 64), (65, 130), (130, 65), (129, 200)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("batch", "readers"), [(1, 1), (3, 1), (2, 4)])
def test_maps_on_disk_are_those_in_memory(
    tmp_path: Path, shape: tuple[int, int], batch: int, readers: int
) -> None:
    lattice = Lattice(64, 32, 32, batch)
    plane = picture(shape)
    store = open_store(
        tmp_path / "maps.zarr", layers=1, shape=shape, core=core_shape(shape, lattice)
    )
    spent = stream_maps(blur_maker(), plane, store, lattice, queue=readers, readers=readers)
    assert_holds(store, forward_maps(blur_maker(), plane, lattice))
    assert spent.kept == 0
    assert all(store.has(tile) for tile in tiles(shape, lattice))


def test_tiles_that_are_there_are_not_run_again(tmp_path: Path) -> None:
    lattice, plane = Lattice(64, 32, 32, 1), picture((200, 200))
    store = open_store(tmp_path / "maps.zarr", layers=1, shape=(200, 200), core=(64, 64))
    first = stream_maps(blur_maker(), plane, store, lattice)
    again = stream_maps(blur_maker(), plane, store, lattice)
    assert (first.windows, first.kept) == (16, 0)
    assert (again.windows, again.kept) == (0, 16)


class Failing:
    """A plane that cannot be read after a number of windows."""

    def __init__(self, plane: NDArray[np.float32], good: int) -> None:
        self.plane, self.good = plane, good
        self.shape, self.dtype = plane.shape, plane.dtype

    def __getitem__(self, key: Any) -> Any:
        self.good -= 1
        if self.good < 0:
            raise InputError("gone")
        return self.plane[key]


@pytest.mark.parametrize("good", [0, 1, 5, 13])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_pass_that_failed_goes_on_and_leaves_the_same_bytes(
    tmp_path: Path, good: int, batch: int
) -> None:
    lattice, plane = Lattice(64, 32, 32, batch), picture((200, 200))
    wanted = open_store(tmp_path / "a.zarr", layers=1, shape=(200, 200), core=(64, 64))
    stream_maps(blur_maker(), plane, wanted, lattice)
    store = open_store(tmp_path / "b.zarr", layers=1, shape=(200, 200), core=(64, 64))
    with pytest.raises(InputError, match="gone"):
        stream_maps(blur_maker(), Failing(plane, good), store, lattice)
    again = open_store(tmp_path / "b.zarr", layers=1, shape=(200, 200), core=(64, 64))
    stream_maps(blur_maker(), plane, again, lattice)
    assert bytes_of(tmp_path / "a.zarr") == bytes_of(tmp_path / "b.zarr")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_maps_are_background_where_nothing_is_inspected_and_empty_tiles_are_not_run(
    tmp_path: Path,
) -> None:
    lattice, plane = Lattice(64, 32, 32, 1), picture((192, 192))
    inside = np.zeros((192, 192), bool)
    inside[70:100, 10:150] = True

    def mask(box: Any) -> NDArray[np.bool_]:
        (y0, x0), (y1, x1) = box
        return inside[y0:y1, x0:x1]

    store = open_store(tmp_path / "maps.zarr", layers=1, shape=(192, 192), core=(64, 64))
    spent = stream_maps(blur_maker(), plane, store, lattice, mask=mask)
    whole = forward_maps(blur_maker(), plane, lattice)
    classes = np.where(inside, whole.classes, UNSEEN)
    assert_holds(store, Maps(whole.foreground * inside, whole.height * inside, classes))
    assert (spent.windows, spent.skipped) == (3, 6)
    assert all(store.has(tile) for tile in tiles((192, 192), lattice))


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    store = open_store(tmp_path / "maps.zarr", layers=1, shape=(64, 64), core=(64, 64))
    half = tmp_path / "maps.zarr" / "c" / "0" / "0" / "0.abc.partial"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    (tile,) = tiles((64, 64), Lattice(64, 0, 32, 1))
    assert not store.has(tile)
    open_store(tmp_path / "maps.zarr", layers=1, shape=(64, 64), core=(64, 64))
    assert not half.exists()


def test_a_store_of_another_shape_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "maps.zarr"
    stored(path, Maps(*(np.ones((1, 70, 70), kind) for kind in (np.uint8, np.uint16, np.uint8))))
    store = open_store(path, layers=1, shape=(70, 71), core=(64, 64))
    assert not any(store.has(tile) for tile in tiles((70, 71), Lattice(64, 0, 32, 1)))


def test_maps_that_are_damaged_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "maps.zarr"
    store = stored(path, random_maps(np.random.default_rng(1), 1, largest=60), core_px=32)
    chunk = next(p for p in (path / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-7])
    height, width = store.shape
    with pytest.raises(InputError) as caught:
        store.window(0, ((0, 0), store.shape))
    assert str(caught.value) == (
        f"{path}: found maps that cannot be read at y 0 to {height}, x 0 to {width}, wanted the "
        "maps as they were written; delete it and predict again with --restart."
    )


def test_a_folder_without_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        existing_store(tmp_path / "maps.zarr")
    assert str(caught.value) == (
        f"{tmp_path / 'maps.zarr'}: found no maps, wanted those of a prediction; predict the "
        "image again with --restart and without --drop-maps."
    )


def same_grid(shape: Sequence[int]) -> Grid:
    return Grid((1.0, 1.0), (shape[0], shape[1]), (shape[0], shape[1]))


def check_decode(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 4))
    maps, options = random_maps(rng, classes, largest=90), random_options(rng, classes)
    shape = maps.height.shape[1], maps.height.shape[2]
    scale = rng.choice([0.4, 1.0, 1.7]) if rng.random() < 0.3 else 1.0
    source = tuple(max(1, int(n / scale)) for n in shape) if scale != 1.0 else shape
    grid = Grid((float(scale),) * 2, shape, (source[0], source[1]))
    whole = decode(maps, options)
    wanted = [labels_to_source(layer, grid) for layer in whole.labels]
    shutil.rmtree(folder, ignore_errors=True)
    store = stored(folder / "maps.zarr", maps, core_px=int(rng.choice([16, 32, 48])))
    work = BlockWork(int(rng.integers(7, 60)), int(rng.integers(1, 5)))
    with decoding(store, options, grid=grid, scratch=folder / "scratch", work=work) as decoded:
        assert len(decoded) == len(whole.classes)
        for box in block_boxes((source[0], source[1]), int(rng.integers(5, 60))):
            (y0, x0), (y1, x1) = box
            for layer, labels in enumerate(decoded.labels(box)):
                np.testing.assert_array_equal(labels, wanted[layer][y0:y1, x0:x1])
        for layer, numbering in enumerate(decoded.numberings):
            rows = whole.layers == layer
            np.testing.assert_array_equal(numbering.objects.scores, whole.scores[rows])
            np.testing.assert_array_equal(numbering.objects.classes, whole.classes[rows])
            boxes = decoded.boxes_of(layer)
            for row, label in enumerate(np.flatnonzero(rows) + 1):
                y, x = np.nonzero(wanted[layer] == label)
                if len(y):
                    (y0, x0), (y1, x1) = boxes[row]
                    assert y0 <= y.min() <= y.max() < y1 <= source[0]
                    assert x0 <= x.min() <= x.max() < x1 <= source[1]
    assert not (folder / "scratch").exists()


law = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    database=None,
)
seeds = st.integers(0, 2**32 - 1)


@law
@given(seeds)
def test_decoding_from_disk_equals_decoding_in_memory(tmp_path: Path, seed: int) -> None:
    check_decode(tmp_path / "case", seed)


@pytest.mark.long
@settings(law, max_examples=2000)
@given(seeds)
def test_decoding_from_disk_equals_decoding_in_memory_at_length(tmp_path: Path, seed: int) -> None:
    check_decode(tmp_path / "case", seed)


def test_a_class_that_is_not_split_by_name_is_refused_on_disk_too(tmp_path: Path) -> None:
    maps = Maps(
        np.full((1, 9, 9), 200, np.uint8),
        np.zeros((1, 9, 9), np.uint16),
        np.full((1, 9, 9), 2, np.uint8),
    )
    store = stored(tmp_path / "maps.zarr", maps)
    options = DecodeOptions(split=(True, False))
    with (
        pytest.raises(InputError, match="found class 2, wanted classes below 2"),
        decoding(store, options, grid=same_grid((9, 9)), scratch=tmp_path / "scratch"),
    ):
        pass
    assert not (tmp_path / "scratch").exists()


class Dots:
    """A store without a file: a dot every four pixels, drawn where it is read."""

    layers = 1

    def __init__(self, side: int) -> None:
        self.shape = (side, side)

    def window(self, layer: int, box: Any) -> Window:
        (y0, x0), (y1, x1) = box
        y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1, self.shape[0]), min(x1, self.shape[1])
        dots = np.zeros((y1 - y0, x1 - x0), np.uint8)
        dots[-y0 % 4 :: 4, -x0 % 4 :: 4] = 255
        return Window(dots, dots * np.uint16(257), np.zeros_like(dots), (y0, x0), self.shape)


@pytest.mark.long
def test_more_objects_than_24_bits_can_count_are_numbered(tmp_path: Path) -> None:
    side = 16_400
    across = side // 4
    store = cast("MapStore", Dots(side))
    work = BlockWork(2048, 2)
    scratch = tmp_path / "scratch"
    with decoding(
        store, DecodeOptions(), grid=same_grid((side, side)), scratch=scratch, work=work
    ) as decoded:
        assert len(decoded) == across**2 > 1 << 24
        last = decoded.labels(((side - 8, side - 8), (side, side)))[0]
    assert last[4, 4] == across**2
    assert last[0, 4] == across * (across - 1)
    assert np.count_nonzero(last) == 4


@pytest.mark.long
def test_an_image_of_more_than_2_to_the_31_pixels_goes_to_its_last_object(tmp_path: Path) -> None:
    side = 46_400
    assert side**2 > 1 << 31

    class Sparse(Dots):
        """Two dots, and a line through all of the image that no tile holds."""

        def window(self, layer: int, box: Any) -> Window:
            (y0, x0), (y1, x1) = box
            y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1, side), min(x1, side)
            shown = np.zeros((y1 - y0, x1 - x0), np.uint8)
            for at in (7, side - 5):
                shown[
                    max(0, at - y0) : max(0, at + 2 - y0), max(0, at - x0) : max(0, at + 2 - x0)
                ] = 255
            shown[max(0, 100 - y0) : max(0, 101 - y0)] = 255
            return Window(shown, shown * np.uint16(257), np.zeros_like(shown), (y0, x0), self.shape)

    class Flat:
        shape, dtype = (1, side, side), np.dtype(np.uint8)

        def __getitem__(self, key: Any) -> Any:
            _, rows, columns = key
            return np.full((1, rows.stop - rows.start, columns.stop - columns.start), 9, np.uint8)

    store = cast("MapStore", Sparse(side))
    sample = Sample("wide", Flat(), ("grey",))
    work = BlockWork(2048, 2)
    found = write_results(
        tmp_path,
        sample,
        decoding(
            store,
            DecodeOptions(),
            grid=same_grid((side, side)),
            scratch=tmp_path / "scratch",
            work=work,
        ),
        class_names=("dot",),
        sha256="0" * 64,
        work=work,
    )
    assert found.objects == 3
    table = pl.read_parquet(tmp_path / "objects.parquet")
    assert table["area_px"].to_list() == [4, side, 4]
    assert table["y0_px"].to_list() == [7, 100, side - 5]
    assert table["x0_px"].to_list() == [7, 0, side - 5]
    assert open_label_plane(tmp_path / "labels.ome.zarr")[side - 4, side - 4] == 3


def serially(work: Callable[[Any], None], boxes: Any) -> None:
    for box in boxes:
        work(box)


def test_layers_of_labels_and_the_highest_of_them_have_pyramids(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    layers = [rng.integers(0, 9, (1500, 1100)).astype(np.int32) for _ in range(2)]
    path = tmp_path / "labels.ome.zarr"
    with label_store(path, shape=(1500, 1100), largest=9, look=Look((0.5, 0.5)), layers=2) as store:
        for box in block_boxes((1500, 1100), 1024):
            (y0, x0), (y1, x1) = box
            store.write(box, [layer[y0:y1, x0:x1] for layer in layers])
        store.build_pyramids(serially)
    flat = np.maximum(*layers)
    np.testing.assert_array_equal(open_label_plane(path)[:], flat)
    for number, layer in enumerate(layers):
        np.testing.assert_array_equal(open_label_plane(path, f"layer{number}")[:], layer)
    assert sorted(p.name for p in (path / "labels" / "objects").iterdir() if p.is_dir()) == list(
        "0123"
    )


def test_labels_that_were_not_finished_take_nobodys_place(tmp_path: Path) -> None:
    path = tmp_path / "labels.ome.zarr"
    look = Look()
    with label_store(path, shape=(10, 10), largest=3, look=look) as store:
        store.write(((0, 0), (10, 10)), [np.full((10, 10), 3)])
        store.build_pyramids(serially)

    def fail() -> None:
        with label_store(path, shape=(10, 10), largest=3, look=look) as store:
            store.write(((0, 0), (10, 10)), [np.zeros((10, 10))])
            raise InputError("gone")

    with pytest.raises(InputError, match="gone"):
        fail()
    assert open_label_plane(path)[0, 0] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["labels.ome.zarr"]


def test_a_file_in_the_place_of_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.ome.zarr"
    path.write_text("mine")
    with (
        pytest.raises(OutputError) as caught,
        label_store(path, shape=(10, 10), largest=3, look=Look()),
    ):
        pass
    assert str(caught.value) == (
        f"{path}: found a file of that name, wanted no file or an older folder; move it away."
    )
    assert path.read_text() == "mine"


def test_planes_are_read_as_slices_only() -> None:
    """What a stream asks of a plane is a slice of all channels, rows and columns."""
    asked: list[Any] = []

    class Asked:
        shape, dtype = (2, 100, 100), np.dtype(np.float32)

        def __getitem__(self, key: Any) -> Any:
            asked.append(key)
            return picture((100, 100))[key]

    plane: Plane = Asked()
    forward_maps(blur_maker(), plane, Lattice(64, 32, 32, 1))
    assert all(isinstance(part, slice) for key in asked for part in key)
