"""Tiles of objects give the files of the whole image, byte for byte, and hold little."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import measure as skimage_measure

from domainseg.errors import OutputError
from domainseg.instances import object_files
from domainseg.instances.export import table_instances, write_coco, write_geojson, write_objects
from domainseg.instances.harvest import Harvest, ObjectFiles, Scene, Sheaf, reap
from domainseg.instances.measure import intensity_quanta, measure
from domainseg.records import Array, Instances, Spacing

Box = tuple[tuple[int, int], tuple[int, int]]
Labels = NDArray[np.int32]

connected: Any = skimage_measure.label

FILES = ("objects.parquet", "objects.csv", "objects.geojson", "objects.coco.json")
CLASSES = ("cell", "debris, other", "µ")


@dataclass(frozen=True)
class Case:
    """Layers of labels ``(L, H, W)``, what is known of them, and how they are cut."""

    labels: Labels
    cores: Sequence[Box]
    image: Array | None = None
    spacing_um: Spacing | None = None
    padding: int = 0
    held_bytes: int = 1 << 26

    @property
    def shape(self) -> tuple[int, int]:
        return (self.labels.shape[1], self.labels.shape[2])

    @property
    def count(self) -> int:
        return int(self.labels.max(initial=0)) + 2  # the last ones have no pixel

    @property
    def classes(self) -> NDArray[np.int16]:
        return np.arange(self.count, dtype=np.int16) % len(CLASSES)

    @property
    def scores(self) -> NDArray[np.float32]:
        return np.random.default_rng(self.count).random(self.count, np.float32)

    @property
    def channels(self) -> tuple[str, ...]:
        return () if self.image is None else tuple(f'c"{i}' for i in range(len(self.image)))

    def span(self, layer: int) -> slice:
        """Return the rows of the labels of a layer, which are numbered through all layers."""
        ends = [0, *(int(plane.max(initial=0)) for plane in self.labels)]
        last = layer == len(self.labels) - 1
        return slice(max(ends[: layer + 1]), self.count if last else max(ends[: layer + 2]))

    def boxes(self) -> NDArray[np.int32]:
        """Return boxes of all labels, enlarged by the padding; zeros where there is no pixel."""
        boxes = np.zeros((self.count, 2, 2), np.int32)
        for plane in self.labels:
            found = Instances.from_label_map(plane)
            boxes[found.ids - 1] = found.boxes
            boxes[found.ids - 1, 0] -= self.padding
            boxes[found.ids - 1, 1] += self.padding
        return boxes

    def scene(self, layer: int = 0) -> Scene:
        return Scene(
            shape=self.shape,
            class_names=CLASSES,
            channels=self.channels,
            quanta=np.zeros(0) if self.image is None else intensity_quanta(self.image),
            spacing_um=self.spacing_um,
            image_id="a.png",
            image_sha256="12ab",
            layer=layer,
        )


def reaped(case: Case, core: Box, *, layer: int = 0, boxes: NDArray[np.int32]) -> Sheaf:
    (y0, x0), (y1, x1) = core
    span = case.span(layer)
    return reap(
        case.labels[layer, y0 : y1 + 1, x0 : x1 + 1],
        core=core,
        scene=case.scene(layer),
        image=case.image,
        boxes=boxes[span],
        classes=case.classes[span],
        scores=case.scores[span],
        first=span.start + 1,
    )


def harvest_of(case: Case, files: ObjectFiles, folder: Path, *, layer: int = 0) -> Harvest:
    span = case.span(layer)
    return Harvest(
        files,
        scene=case.scene(layer),
        boxes=case.boxes()[span],
        classes=case.classes[span],
        scores=case.scores[span],
        scratch=folder / f"scratch{layer}",
        first=span.start + 1,
        held_bytes=case.held_bytes,
    )


def harvested(case: Case, folder: Path) -> ObjectFiles:
    boxes = case.boxes()
    with ObjectFiles(folder, scene=case.scene()) as files:
        for layer in range(len(case.labels)):
            harvest = harvest_of(case, files, folder, layer=layer)
            for core in case.cores:
                harvest.add(reaped(case, core, layer=layer, boxes=boxes))
            harvest.finish()
            assert harvest.pending == 0
    return files


def at_once(case: Case, folder: Path) -> pl.DataFrame:
    """Write the files of the whole image with the functions for what fits into memory."""
    frames = []
    for layer, plane in enumerate(case.labels):
        rows = np.unique(plane[plane > 0]) - 1
        frames.append(
            measure(
                plane,
                classes=case.classes[rows],
                scores=case.scores[rows],
                class_names=CLASSES,
                image=case.image,
                channels=case.channels,
                spacing_um=case.spacing_um,
                image_id="a.png",
                image_sha256="12ab",
                layer=layer,
            )
        )
    table = pl.concat(frames)
    instances = table_instances(case.labels, table=table, class_names=CLASSES)
    write_objects(table, parquet=folder / FILES[0], csv=folder / FILES[1])
    objects = instances if len(case.labels) > 1 else case.labels[0]
    write_geojson(folder / FILES[2], objects, table=table, class_names=CLASSES)
    write_coco(folder / FILES[3], [("a.png", instances)], class_names=CLASSES)
    return table


def assert_same_files(case: Case, folder: Path) -> pl.DataFrame:
    for name in ("tiles", "whole"):
        (folder / name).mkdir(parents=True)
    files = harvested(case, folder / "tiles")
    table = at_once(case, folder / "whole")
    for name in FILES:
        one, other = ((folder / part / name).read_bytes() for part in ("tiles", "whole"))
        assert one == other, name
    assert files.coco
    assert files.rows == table.height
    assert files.per_class == {name: int((table["class"] == name).sum()) for name in CLASSES}
    spilled = [path for path in (folder / "tiles").rglob("*") if path.is_file()]
    assert sorted(path.name for path in spilled) == sorted(FILES)
    return table


def grid(shape: tuple[int, int], rows: Sequence[int], columns: Sequence[int]) -> list[Box]:
    """Return cores in raster order, cut below each of ``rows`` and right of each of ``columns``."""
    return [
        ((y0, x0), (y1, x1))
        for y0, y1 in pairwise(sorted({0, *rows, shape[0]}))
        for x0, x1 in pairwise(sorted({0, *columns, shape[1]}))
    ]


# --- made-up label maps ---


def blobs(random: np.random.Generator, shape: tuple[int, int]) -> Labels:
    """Concave objects with holes, numbered by their first pixel, every third left out."""
    noise = gaussian_filter(random.normal(size=shape), 1.2)
    labels = np.asarray(connected(noise > 0, connectivity=2), np.int32)
    labels[labels % 3 == 2] = 0
    return labels


def percolating(random: np.random.Generator, shape: tuple[int, int]) -> Labels:
    return np.asarray(connected(random.random(shape) < 0.5, connectivity=2), np.int32)


def label_noise(random: np.random.Generator, shape: tuple[int, int]) -> Labels:
    """Few objects of many parts everywhere: diagonal contacts and holes in every tile."""
    return random.integers(0, 5, shape).astype(np.int32)


def frame_and_dots(random: np.random.Generator, shape: tuple[int, int]) -> Labels:
    """One object around all others, larger than any tile."""
    inside = np.zeros(shape, bool)
    inside[2:-2, 2:-2] = random.random((shape[0] - 4, shape[1] - 4)) < 0.15
    labels = np.asarray(connected(inside, connectivity=2), np.int32)
    labels[labels > 0] += 1
    labels[0], labels[-1], labels[:, 0], labels[:, -1] = 1, 1, 1, 1
    return labels


KINDS = (blobs, percolating, label_noise, frame_and_dots)
IMAGES: tuple[tuple[type[np.generic] | None, int], ...] = (
    (None, 0),
    (np.uint8, 3),
    (np.uint16, 2),
    (np.float32, 1),
)


def picture(random: np.random.Generator, shape: tuple[int, int], kind: int) -> Array | None:
    dtype, channels = IMAGES[kind]
    if dtype is None:
        return None
    values = 1000 * random.normal(size=(channels, *shape))
    return (values if dtype == np.float32 else values.astype(np.int64)).astype(dtype)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = (draw(st.integers(5, 40)), draw(st.integers(5, 40)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = draw(st.sampled_from(KINDS))(random, shape)
    if draw(st.booleans()):
        above = draw(st.sampled_from(KINDS))(random, shape)
        labels = np.stack([labels, np.where(above > 0, above + labels.max(), 0)])
    rows = draw(st.lists(st.integers(1, shape[0] - 1), max_size=3))
    if draw(st.booleans()):
        columns = [draw(st.lists(st.integers(1, shape[1] - 1), max_size=3))] * (len(rows) + 1)
    else:
        columns = [draw(st.lists(st.integers(1, shape[1] - 1), max_size=3)) for _ in [0, *rows]]
    edges = list(pairwise(sorted({0, *rows, shape[0]})))
    cores = [
        ((y0, x0), (y1, x1))
        for (y0, y1), cuts in zip(edges, columns, strict=False)
        for x0, x1 in pairwise(sorted({0, *cuts, shape[1]}))
    ]
    return Case(
        labels=labels.reshape(-1, *shape).astype(np.int32),
        cores=cores,
        image=picture(random, shape, draw(st.integers(0, len(IMAGES) - 1))),
        spacing_um=draw(st.sampled_from([None, (0.5, 0.5), (0.3, 0.7)])),
        padding=draw(st.sampled_from([0, 1, 7, 100])),
        held_bytes=draw(st.sampled_from([0, 3000, 1 << 26])),
    )


# --- the law ---


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_tiles_give_the_files_of_the_whole_image(
    case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert_same_files(case, tmp_path_factory.mktemp("law"))


@pytest.mark.long
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_tiles_give_the_files_of_the_whole_image_at_length(
    case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert_same_files(case, tmp_path_factory.mktemp("law"))


def test_a_scratch_across_all_tiles_is_one_object_with_one_outline(tmp_path: Path) -> None:
    labels = np.zeros((1, 40, 60), np.int32)
    labels[0, 19:21] = 1
    labels[0, :, 29:31] = 1
    case = Case(labels, grid((40, 60), rows=[7, 20, 33], columns=[10, 30, 50]))
    table = assert_same_files(case, tmp_path)
    assert table["area_px"].to_list() == [120 + 80 - 4]
    feature = json.loads((tmp_path / "tiles" / FILES[2]).read_text())["features"][0]
    assert feature["geometry"]["type"] == "Polygon"
    assert len(feature["geometry"]["coordinates"][0]) == 13


def test_a_contact_across_a_corner_of_four_tiles_belongs_to_one_object(tmp_path: Path) -> None:
    labels = np.array([[[0, 1], [1, 0]]], np.int32)
    table = assert_same_files(Case(labels, grid((2, 2), rows=[1], columns=[1])), tmp_path)
    assert table["euler_number"].to_list() == [1]


def test_an_image_without_objects_gives_valid_empty_files(tmp_path: Path) -> None:
    case = Case(np.zeros((1, 6, 7), np.int32), grid((6, 7), rows=[3], columns=[4]))
    table = assert_same_files(case, tmp_path)
    folder = tmp_path / "tiles"
    assert pl.read_parquet(folder / FILES[0]).equals(table)
    assert pl.read_csv(folder / FILES[1]).columns == table.columns
    assert json.loads((folder / FILES[2]).read_text())["features"] == []
    assert json.loads((folder / FILES[3]).read_text())["annotations"] == []


def test_an_image_without_pixels_has_no_tiles_and_no_objects(tmp_path: Path) -> None:
    assert_same_files(Case(np.zeros((1, 0, 5), np.int32), []), tmp_path)


@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (1, 1)])
def test_one_pixel_wide_images_are_cut_like_others(shape: tuple[int, int], tmp_path: Path) -> None:
    labels = np.ones((1, *shape), np.int32)
    rows, columns = ([*range(7, n, 7)] for n in shape)
    assert_same_files(Case(labels, grid(shape, rows=rows, columns=columns)), tmp_path)


# --- what is held ---


def dots(shape: tuple[int, int]) -> Labels:
    """Return objects of one pixel in every second row and column, but for the first column."""
    labels = np.zeros((1, *shape), np.int32)
    places = labels[0, ::2, 2::2]
    places[:] = np.arange(2, places.size + 2).reshape(places.shape)
    return labels


def test_many_objects_fill_row_groups_that_are_the_same(tmp_path: Path) -> None:
    case = Case(dots((300, 300)), grid((300, 300), rows=[70, 140, 211], columns=[151]))
    table = assert_same_files(case, tmp_path)
    assert table.height == 150 * 149


def test_no_finished_object_is_held_after_a_row_of_tiles(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = blobs(random, (200, 30))[None]
    case = Case(labels, grid((200, 30), rows=[*range(16, 200, 16)], columns=[11, 19]))
    boxes = case.boxes()
    tops, bottoms = boxes[:, 0, 0], boxes[:, 1, 0]
    with ObjectFiles(tmp_path, scene=case.scene()) as files:
        harvest = harvest_of(case, files, tmp_path)
        for core in case.cores:
            harvest.add(reaped(case, core, boxes=boxes))
            if core[1][1] == 30:
                crossing = (tops < core[1][0]) & (bottoms > core[1][0])
                assert harvest.pending == np.count_nonzero(crossing)
        assert harvest.finish() == len(np.unique(labels)) - 1


def test_rows_leave_as_soon_as_no_smaller_label_can_come(tmp_path: Path) -> None:
    case = Case(dots((300, 300)), grid((300, 300), rows=[100, 240], columns=[]))
    boxes = case.boxes()
    with ObjectFiles(tmp_path, scene=case.scene()) as files:
        harvest = harvest_of(case, files, tmp_path)
        counts = []
        for core in case.cores:
            harvest.add(reaped(case, core, boxes=boxes))
            counts.append(files.rows)
        harvest.finish()
    # Label 1 has no pixel, so the first 16,384 labels are 16,383 objects.
    assert counts == [0, 16_383, 150 * 149]


def test_a_scratch_delays_the_rows_after_it_on_disk_and_not_in_memory(tmp_path: Path) -> None:
    labels = dots((300, 300))
    labels[0, :, 0] = 1
    cores = grid((300, 300), rows=[100, 240], columns=[])
    case = Case(labels, cores, held_bytes=0)
    boxes = case.boxes()
    with ObjectFiles(tmp_path, scene=case.scene()) as files:
        harvest = harvest_of(case, files, tmp_path)
        for core in cores[:2]:
            harvest.add(reaped(case, core, boxes=boxes))
        assert harvest.pending == 1
        assert files.rows == 0
        waiting = list((tmp_path / "scratch0").iterdir())
        assert sum(len(pl.read_ipc(path.read_bytes())) for path in waiting) == 120 * 149
        harvest.add(reaped(case, cores[2], boxes=boxes))
        harvest.finish()
        assert list((tmp_path / "scratch0").iterdir()) == []
    assert files.rows == 150 * 149 + 1


def test_a_tile_is_told_the_same_whatever_was_told_before() -> None:
    case = Case(blobs(np.random.default_rng(1), (40, 40))[None], [])
    core = ((8, 8), (30, 24))
    one, two = (reaped(case, core, boxes=case.boxes()) for _ in range(2))
    assert one.rows.equals(two.rows)
    assert one.parts.keys() == two.parts.keys()
    assert all(np.array_equal(one.parts[label], two.parts[label]) for label in one.parts)
    assert set(one.rows["label"]).isdisjoint(one.parts)


# --- whole or not at all ---


def test_a_broken_block_leaves_the_files_of_before(tmp_path: Path) -> None:
    case = Case(np.ones((1, 4, 4), np.int32), [((0, 0), (4, 4))])
    for name in FILES:
        (tmp_path / name).write_text("before")

    def stop() -> None:
        with ObjectFiles(tmp_path, scene=case.scene()) as files:
            harvest_of(case, files, tmp_path).add(reaped(case, case.cores[0], boxes=case.boxes()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"before"}


def test_a_full_disk_at_the_end_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(np.ones((1, 4, 4), np.int32), [((0, 0), (4, 4))])

    def full(*_: object, **__: object) -> list[str]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(object_files, "annotation_lines", full)
    with pytest.raises(OutputError) as caught:
        harvested(case, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: found no room left on the disk, wanted room for the whole file; "
        "free some space or choose another output folder."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_kill_in_the_middle_leaves_no_output_file(tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from domainseg.instances.harvest import ObjectFiles, Scene
        scene = Scene((9, 9), ("cell",), (), np.zeros(0), None, "a.png", "")
        with ObjectFiles(Path(sys.argv[1]), scene=scene):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    ended = subprocess.run(command, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert not any((tmp_path / name).exists() for name in FILES)


def test_without_room_in_coco_the_other_files_are_written(tmp_path: Path) -> None:
    scene = Scene((1 << 16, 1 << 16), ("cell",), (), np.zeros(0), None, "a.png", "")
    (tmp_path / FILES[3]).write_text("of an earlier run")
    window = np.zeros((9, 9), np.int32)
    window[2:4, 2:4] = 1
    sheaf = reap(
        window,
        core=((0, 0), (8, 8)),
        scene=scene,
        image=None,
        boxes=np.array([[[2, 2], [4, 4]]], np.int32),
        classes=np.zeros(1, np.int16),
        scores=np.ones(1, np.float32),
    )
    with ObjectFiles(tmp_path, scene=scene) as files:
        files.write(sheaf.rows)
    assert not files.coco
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES[:3])
    assert pl.read_parquet(tmp_path / FILES[0])["area_px"].to_list() == [4]


# --- what does not fit ---


def small() -> Case:
    labels = np.zeros((1, 6, 8), np.int32)
    labels[0, 1:5, 1:7] = 1
    return Case(labels, grid((6, 8), rows=[3], columns=[4]))


def test_tiles_out_of_order_are_refused(tmp_path: Path) -> None:
    case = small()
    with ObjectFiles(tmp_path, scene=case.scene()) as files:
        harvest = harvest_of(case, files, tmp_path)
        harvest.add(reaped(case, case.cores[0], boxes=case.boxes()))
        with pytest.raises(ValueError, match=r"tile at \(3, 0\) was added where that at \(0, 4\)"):
            harvest.add(reaped(case, case.cores[2], boxes=case.boxes()))
        with pytest.raises(ValueError, match=r"the tile at \(0, 4\) was not added"):
            harvest.finish()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.zeros((0, 2, 2), np.int32)}, "label 1 has no box: those are of 1 to 0"),
        ({"first": 5}, "label 1 has no box: those are of 5 to 5"),
        (
            {"boxes": np.array([[[1, 1], [5, 6]]], np.int32)},
            r"label 1 has pixels in \[\[1, 1\], \[5, 7\]\], outside its box \[\[1, 1\], \[5, 6\]\]",
        ),
        ({"core": ((0, 0), (5, 8))}, r"a window of shape \(6, 7\), wanted \(6, 8\)"),
        ({"image": np.zeros((1, 6, 8))}, "1 channels with 0 names and 0 quanta"),
    ],
)
def test_what_does_not_fit_the_labels_is_refused(changes: dict[str, Any], message: str) -> None:
    case = small()
    window = case.labels[0, :, : 7 if "core" in changes else 8]
    options: dict[str, Any] = {
        "core": ((0, 0), (6, 8)),
        "scene": case.scene(),
        "image": None,
        "boxes": np.array([[[1, 1], [5, 7]]], np.int32),
        "classes": np.zeros(1, np.int16),
        "scores": np.ones(1, np.float32),
    }
    with pytest.raises(ValueError, match=message):
        reap(window, **(options | changes))


def test_an_image_of_another_size_is_refused() -> None:
    image = np.zeros((1, 6, 8), np.uint8)
    case = Case(small().labels, [], image=image)
    with pytest.raises(ValueError, match=r"an image of shape \(1, 6, 7\) in a scene of shape"):
        reap(
            case.labels[0],
            core=((0, 0), (6, 8)),
            scene=case.scene(),
            image=image[..., :7],
            boxes=case.boxes(),
            classes=case.classes,
            scores=case.scores,
        )


def rows_of(folder: Path) -> Iterator[int]:
    metadata = pq.ParquetFile(folder / FILES[0]).metadata
    for group in range(metadata.num_row_groups):
        yield metadata.row_group(group).num_rows


def test_row_groups_have_a_fixed_number_of_rows_despite_gaps(tmp_path: Path) -> None:
    labels = dots((300, 300))
    labels[labels % 5 == 3] = 0
    harvested(Case(labels, grid((300, 300), rows=[150], columns=[])), tmp_path)
    count = np.count_nonzero(labels)
    assert list(rows_of(tmp_path)) == [16_384, count - 16_384]
