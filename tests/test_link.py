"""Objects linked across gaps: which, how they are numbered, and the same from any blocks."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from domainseg.errors import RecipeError, UsageError
from domainseg.images.resample import Grid
from domainseg.instances.basins import DecodeOptions, decode
from domainseg.instances.link import find_links, joined_links, link_labels, near_pairs, reach
from domainseg.predict import predict
from domainseg.recipe import load_recipe
from domainseg.records import Maps, Tile
from domainseg.redecode import decode_run
from domainseg.runs import RunOptions
from domainseg.tiling.decoding import BlockWork, decoding
from domainseg.tiling.store import MapStore, open_store

Labels = NDArray[np.int32]

COUNT = 40


def labelled(*rows: str) -> Labels:
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.int32)


# --- which objects are one ---


def test_a_gap_of_as_many_pixels_is_bridged_and_a_wider_one_is_not() -> None:
    row = labelled("11..22...33")
    assert link_labels(row, [0, 0, 0], [2]).tolist() == [0, 1, 1, 2]
    assert link_labels(row, [0, 0, 0], [3]).tolist() == [0, 1, 1, 1]
    assert link_labels(row, [0, 0, 0], [1]).tolist() == [0, 1, 2, 3]
    assert link_labels(row.T, [0, 0, 0], [2]).tolist() == [0, 1, 1, 2]


def test_a_gap_is_as_wide_aslant_as_along_its_longer_side() -> None:
    aslant = labelled("1...", "....", "....", "..2.")
    assert link_labels(aslant, [0, 0], [2]).tolist() == [0, 1, 1]
    assert link_labels(aslant, [0, 0], [1]).tolist() == [0, 1, 2]
    assert link_labels(aslant[:, ::-1], [0, 0], [2]).tolist() == [0, 1, 1]
    assert link_labels(aslant[:, ::-1], [0, 0], [1]).tolist() == [0, 1, 2]


def test_a_gap_of_none_joins_what_touches() -> None:
    touching = labelled("112", "..2", "3..", ".4.")
    assert link_labels(touching, [0] * 4, [0]).tolist() == [0, 1, 1, 2, 2]


def test_only_objects_of_one_class_with_a_gap_of_its_own_are_linked() -> None:
    row = labelled("1.2.3.4.5")
    assert link_labels(row, [0, 1, 0, 1, 1], [None, 1]).tolist() == [0, 1, 2, 3, 4, 4]
    assert link_labels(row, [0, 1, 0, 1, 1], [3, 1]).tolist() == [0, 1, 2, 1, 3, 3]
    assert link_labels(row, [0, 1, 0, 1, 1], [None, None]).tolist() == [0, 1, 2, 3, 4, 5]


def test_objects_are_numbered_by_the_first_of_their_parts() -> None:
    ladder = labelled("1..2", "....", "3..4", "....", "1..4")
    assert link_labels(ladder, [0, 1, 1, 0], [3, 3]).tolist() == [0, 1, 2, 2, 1]


def test_labels_that_no_pixel_has_stay_alone() -> None:
    assert link_labels(labelled("1.3"), [0, 0, 0], [1]).tolist() == [0, 1, 2, 1]
    assert link_labels(np.zeros((0, 5), np.int32), [], [1]).tolist() == [0]
    assert link_labels(np.zeros((3, 0), np.int32), [0], [1]).tolist() == [0, 1]


def test_scores_are_means_by_area_and_single_objects_keep_theirs() -> None:
    links = find_links(labelled("111.2..3"), np.zeros(3, np.int16), gaps=[1])
    scores = np.array([0.5, 0.9, 0.7], np.float32)
    assert links.links == 1
    assert links.scores(scores).tolist() == [np.float32((3 * 0.5 + scores[1]) / 4), scores[2]]
    boxes = np.array([[[0, 0], [1, 3]], [[0, 4], [1, 5]], [[0, 7], [1, 8]]])
    assert links.boxes(boxes).tolist() == [[[0, 0], [1, 5]], [[0, 7], [1, 8]]]


# --- laws ---


def scattered(seed: int) -> tuple[Labels, NDArray[np.int16]]:
    """Return labels in pieces of a few pixels, and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, COUNT + 1, (31, 43)).astype(np.int32)
    classes = rng.integers(0, 3, COUNT).astype(np.int16)
    return np.where(rng.random(labels.shape) < 0.03, labels, 0), classes


def by_definition(labels: Labels, classes: NDArray[np.int16], gaps: list[int | None]) -> list[int]:
    pixels = np.argwhere(labels)
    owners = labels[tuple(pixels.T)] - 1
    away = np.abs(pixels[:, None] - pixels[None]).max(axis=2)
    widest = np.array([-2 if gap is None else gap for gap in gaps])[classes[owners]]
    near = (away <= widest[:, None] + 1) & (classes[owners][:, None] == classes[owners])
    one, two = np.nonzero(near)
    count = len(classes)
    graph = coo_matrix((np.ones(len(one)), (owners[one], owners[two])), (count, count))
    _, groups = connected_components(graph, directed=False)
    order: dict[int, int] = {}
    return [0, *(order.setdefault(group, len(order) + 1) for group in groups.tolist())]


@given(st.integers(0, 2**32 - 1), st.lists(st.one_of(st.none(), st.integers(0, 6)), min_size=3))
@settings(deadline=None, max_examples=40)
def test_links_are_those_of_the_definition(seed: int, gaps: list[int | None]) -> None:
    labels, classes = scattered(seed)
    assert link_labels(labels, classes, gaps).tolist() == by_definition(labels, classes, gaps)


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(1, 20), st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_blocks_in_any_order_say_what_the_whole_says(
    seed: int, gap: int, height: int, width: int
) -> None:
    labels, classes = scattered(seed)
    gaps = [gap, None, gap + 2]
    margin = reach(gaps)
    parts = []
    for y, x in product(range(0, 31, height), range(0, 43, width)):
        left = max(x - margin, 0)
        window = labels[y : y + height + margin, left : x + width + margin]
        core = ((0, x - left), (min(height, 31 - y), min(x + width, 43) - left))
        parts.append(near_pairs(window, classes, gaps=gaps, core=core))
    whole = find_links(labels, classes, gaps=gaps)
    found = joined_links(parts[::-1], len(classes))
    assert found.groups.tolist() == whole.groups.tolist()
    assert found.areas_px.tolist() == whole.areas_px.tolist()
    areas = np.bincount(labels.ravel(), minlength=COUNT + 1)[1:]
    assert whole.areas_px.tolist() == np.where(classes == 1, 0, areas).tolist()


def test_linking_what_is_linked_changes_nothing() -> None:
    labels, classes = scattered(5)
    first = link_labels(labels, classes, [3, 2, None])
    kept = np.unique(first[1:], return_index=True)[1]
    again = link_labels(first[labels], classes[kept], [3, 2, None])
    assert again.tolist() == list(range(len(kept) + 1))


# --- in the decoder ---


def dashes(layers: int = 1) -> Maps:
    """Return maps of broken lines of two classes, other ones in each layer."""
    rng = np.random.default_rng(layers)
    foreground = np.full((layers, 90, 140), 20, np.uint8)
    classes = np.zeros_like(foreground)
    for layer, y in product(range(layers), range(3, 88, 9)):
        x = 0
        while x < 140:
            length, gap = int(rng.integers(2, 20)), int(rng.integers(1, 8))
            foreground[layer, y : y + 2, x : x + length] = rng.integers(150, 250)
            x += length + gap
        classes[layer, y : y + 2] = rng.integers(0, 2)
    return Maps(foreground, np.full(foreground.shape, 1000, np.uint16), classes)


def stored(path: Path, maps: Maps) -> MapStore:
    store = open_store(path, layers=len(maps.height), shape=(90, 140), core=(96, 144))
    store.write(Tile((0, 0), (96, 144), ((0, 0), (90, 140))), maps)
    return store


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("block_px", [17, 64, 200])
def test_blocks_link_what_is_linked_in_memory(tmp_path: Path, layers: int, block_px: int) -> None:
    maps = dashes(layers)
    options = DecodeOptions(min_area_px=5, link_px=(4, None))
    whole = decode(maps, options)
    made = decoding(
        stored(tmp_path / "maps.zarr", maps),
        options,
        grid=Grid((1.0, 1.0), (90, 140), (90, 140)),
        scratch=tmp_path / "scratch",
        work=BlockWork(block_px),
    )
    with made as found:
        labels = np.stack(found.labels(((0, 0), (90, 140))))
        assert found.links == whole.links > 10
        np.testing.assert_array_equal(labels, whole.labels)
        objects = [numbering.objects for numbering in found.numberings]
        for name in ("classes", "scores", "boxes"):
            joined = np.concatenate([getattr(one, name) for one in objects])
            np.testing.assert_array_equal(joined, getattr(whole, name))
        assert [n.first for n in found.numberings] == [
            int(np.searchsorted(whole.layers, layer)) + 1 for layer in range(layers)
        ]


def test_linked_objects_have_the_table_of_their_pixels() -> None:
    maps = dashes(2)
    plain, found = decode(maps, DecodeOptions()), decode(maps, DecodeOptions(link_px=(4, 2)))
    assert found.links == len(plain.classes) - len(found.classes)
    np.testing.assert_array_equal(found.labels > 0, plain.labels > 0)
    for row, label in enumerate(range(1, len(found.classes) + 1)):
        ys, xs = np.nonzero(found.labels[found.layers[row]] == label)
        assert found.areas_px[row] == len(ys)
        assert found.boxes[row].tolist() == [[ys.min(), xs.min()], [ys.max() + 1, xs.max() + 1]]
        np.testing.assert_allclose(found.centroids[row], [ys.mean(), xs.mean()], rtol=1e-12)
        parts = np.unique(plain.labels[found.labels == label])
        weights = plain.areas_px[parts - 1]
        mean = np.average(plain.scores[parts - 1].astype(float), weights=weights)
        assert found.scores[row] == np.float32(mean)


def test_links_of_no_class_leave_the_objects_as_they_are() -> None:
    maps = dashes()
    plain, found = decode(maps, DecodeOptions()), decode(maps, DecodeOptions(link_px=(None, None)))
    for name in ("labels", "layers", "classes", "areas_px", "scores", "boxes", "links"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))


def test_a_gap_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError) as raised:
        DecodeOptions(link_px=(None, -1))
    assert str(raised.value) == (
        "DecodeOptions.link_px: found -1, wanted a number from 0 to 1024; change link_px."
    )


# --- in a run ---


def test_the_recipe_names_classes_and_gaps() -> None:
    recipe = load_recipe("nuclei-unet", ["instances.link_px={scratch: 4}"])
    assert recipe.links(("pit", "scratch")) == (None, 4)
    assert load_recipe("nuclei-unet").links(("pit",)) is None
    with pytest.raises(RecipeError) as raised:
        recipe.links(("pit", "scratches"))
    assert str(raised.value) == (
        "instances.link_px: found 'scratch', wanted classes of the recipe (pit, scratches); "
        "correct the name."
    )


def test_a_run_decoded_again_with_links_is_the_run_with_links(
    tmp_path: Path, bright_model: Callable[..., Path]
) -> None:
    pixels = np.zeros((120, 130), np.uint8)
    for x in range(5, 120, 20):
        pixels[40:44, x : x + 15] = pixels[80:84, x : x + 17] = 250
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    model = bright_model()
    change = "instances.link_px={cell: 4}"
    (plain,) = predict(model, [tmp_path / "a.tif"], tmp_path / "plain", options=RunOptions())
    options = RunOptions(overrides=(change,))
    (wanted,) = predict(model, [tmp_path / "a.tif"], tmp_path / "linked", options=options)
    again = decode_run(plain.folder, [change], out=tmp_path / "again")
    records = [json.loads((run.folder / "run.json").read_text()) for run in (wanted, again)]
    assert records[0] == records[1]
    assert records[0]["links"] == plain.count - wanted.count > 0
    assert records[0]["objects"] == wanted.count
    for name in ("objects.parquet", "labels.tif"):
        assert (again.folder / name).read_bytes() == (wanted.folder / name).read_bytes()
