from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from domainseg.errors import InputError, UsageError
from domainseg.instances.ascent import climb, label_basins, peak_keys
from domainseg.instances.basins import Decoded, DecodeOptions, decode, decode_tiles
from domainseg.instances.mosaic import (
    edges_of_tiles,
    join_graph,
    join_tiles,
    numbers_of_nodes,
    write_labels,
)
from domainseg.instances.plateaus import MARGIN, rank_pixels
from domainseg.instances.saddles import WAY_BITS, Edges, edge_key
from domainseg.instances.tile_graph import (
    Box,
    DecodeRules,
    Slopes,
    TileGraph,
    Window,
    find_slopes,
    graph_of_slopes,
    graph_of_tile,
    merge_slopes,
    open_basins,
)
from domainseg.records import Maps, probability


def load(name: str) -> Any:
    """Return a module that stands beside the tests."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


decode_slowly: Callable[[Maps, DecodeOptions], dict[str, Any]] = load(
    "decoder_reference"
).decode_slowly
cases = load("decoder_cases")
random_maps: Callable[..., Maps] = cases.random_maps
random_options: Callable[[Rng, int], DecodeOptions] = cases.random_options
random_tiles: Callable[[Rng, tuple[int, int]], list[Box]] = cases.random_tiles
assert_same: Callable[[Decoded, Decoded | dict[str, Any]], None] = cases.assert_same

Rng = np.random.Generator


def check_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 4))
    maps, options = random_maps(rng, classes, largest=26), random_options(rng, classes)
    assert_same(decode(maps, options), decode_slowly(maps, options))


def check_tiles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 4))
    maps, options = random_maps(rng, classes, largest=70), random_options(rng, classes)
    whole = decode(maps, options)
    assert_same(decode(maps, options, tile_px=int(rng.integers(1, 40))), whole)
    shape = maps.height.shape[1], maps.height.shape[2]
    assert_same(decode_tiles(maps, options, random_tiles(rng, shape)), whole)


law = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
long_law = settings(law, max_examples=2500)
seeds = st.integers(0, 2**32 - 1)


@law
@given(seeds)
def test_decoding_equals_the_definition(seed: int) -> None:
    check_definition(seed)


@law
@given(seeds)
def test_tiles_in_any_order_give_what_the_whole_image_gives(seed: int) -> None:
    check_tiles(seed)


@pytest.mark.long
@long_law
@given(seeds)
def test_decoding_equals_the_definition_at_length(seed: int) -> None:
    check_definition(seed)


@pytest.mark.long
@long_law
@given(seeds)
def test_tiles_in_any_order_give_what_the_whole_image_gives_at_length(seed: int) -> None:
    check_tiles(seed)


# Variants of the decoder, put together from its own pure functions.

KeepEdges = Callable[[Edges, list[TileGraph]], NDArray[np.bool_]]


def labels_of_tiles(
    tiles: Sequence[TileGraph], options: DecodeOptions, keep: KeepEdges | None = None
) -> NDArray[np.int32]:
    """Labels of one layer; ``keep`` says which edges are not lost on the way."""
    tiles = list(tiles)
    edges, contacts = edges_of_tiles(tiles)
    if keep is not None:
        edges = edges[keep(edges, tiles)]
    mosaic = join_graph(tiles, edges, contacts, limit=options.rules().limit, keep=options.filter())
    labels = np.zeros(tiles[0].shape, np.int32)
    for tile, objects in zip(tiles, mosaic.objects, strict=True):
        write_labels(tile, numbers_of_nodes(objects, first=1), labels)
    return labels


def square_tiles(shape: tuple[int, int], side: int) -> list[Box]:
    rows, columns = ([*range(0, length, side), length] for length in shape)
    return [((y0, x0), (y1, x1)) for y0, y1 in pairwise(rows) for x0, x1 in pairwise(columns)]


def graphs_of_layer(maps: Maps, options: DecodeOptions, side: int) -> list[TileGraph]:
    window = Window.of_layer(maps, 0)
    return [
        graph_of_tile(window, core, options.rules()) for core in square_tiles(window.shape, side)
    ]


def not_across_corners(side: int) -> KeepEdges:
    def keep(edges: Edges, tiles: list[TileGraph]) -> NDArray[np.bool_]:
        width = tiles[0].shape[1]
        index = (edges[:, 2] & ((1 << 44) - 1)) >> WAY_BITS
        way = edges[:, 2] & 15
        y, x = index // width, index % width
        other_y, other_x = y + way // 3 - 1, x + way % 3 - 1
        corner = (y // side != other_y // side) & (x // side != other_x // side)
        return np.asarray(~corner)

    return keep


def slopes_by_position(window: Window, core: Box, rules: DecodeRules) -> Slopes:
    """Steps 1 and 2 with ties broken by the pixel's index alone, g left out."""
    slopes = find_slopes(window, core, rules)
    ranks = slopes.ranks & ~np.uint32(31)
    ways = np.empty_like(slopes.ways)
    climb(ranks, slopes.kinds, *slopes.place, ways)
    labels = np.zeros_like(slopes.labels)
    ends = label_basins(ways, labels)
    columns, width = ways.shape[1], window.shape[1]
    peaks = peak_keys(ends, ranks, *slopes.place, columns, slopes.first(width), width)
    return replace(slopes, ranks=ranks, ways=ways, labels=labels, peaks=peaks)


def labels_by_position(maps: Maps, options: DecodeOptions) -> NDArray[np.int32]:
    window, rules = Window.of_layer(maps, 0), options.rules()
    slopes = slopes_by_position(window, ((0, 0), window.shape), rules)
    merged = merge_slopes(slopes, open_basins(slopes), width=window.shape[1], limit=rules.limit)
    return labels_of_tiles([graph_of_slopes(window, slopes, rules, merged)], options)


def plane(rows: str, *, kinds: str | None = None, step: int = 6000) -> Maps:
    """Digits are heights in steps, dots background; ``kinds`` gives classes by digit."""
    lines = rows.split()
    height = np.array([[0 if c == "." else int(c) * step for c in line] for line in lines])
    inside = np.array([[c != "." for c in line] for line in lines])
    classes = np.zeros(height.shape, np.uint8)
    if kinds is not None:
        classes = np.array([[int(c) for c in line] for line in kinds.split()], np.uint8)
    return Maps(
        np.where(inside, 200, 20).astype(np.uint8)[None],
        height.astype(np.uint16)[None],
        classes[None],
    )


def digits(labels: NDArray[np.int32]) -> list[str]:
    return ["".join("." if v == 0 else str(v) for v in row) for row in labels]


def labels_of(maps: Maps, options: DecodeOptions | None = None) -> list[str]:
    return digits(decode(maps, options or DecodeOptions()).labels[0])


def test_an_edge_across_a_corner_of_four_tiles_joins_and_is_missed_when_dropped() -> None:
    maps, options = plane("5... .6.. .... ...."), DecodeOptions()
    tiles = graphs_of_layer(maps, options, 1)
    assert digits(labels_of_tiles(tiles, options)) == ["1...", ".1..", "....", "...."]
    dropped = labels_of_tiles(tiles, options, not_across_corners(1))
    assert digits(dropped) == ["1...", ".2..", "....", "...."]


def test_the_law_of_tiles_fails_when_corner_edges_are_dropped() -> None:
    rng, options, broken = np.random.default_rng(0), DecodeOptions(), 0
    for _ in range(40):
        maps = random_maps(rng, 1)
        whole = decode(maps, options).labels[0]
        tiles = graphs_of_layer(maps, options, 4)
        np.testing.assert_array_equal(labels_of_tiles(tiles, options), whole)
        broken += not np.array_equal(labels_of_tiles(tiles, options, not_across_corners(4)), whole)
    assert broken >= 3


def test_two_equal_peaks_split_their_flat_valley_in_the_middle_and_not_by_position() -> None:
    maps = plane("9222222229 9222222229")
    assert labels_of(maps) == ["1111122222", "1111122222"]
    assert digits(labels_by_position(maps, DecodeOptions())) == ["1122222222", "1122222222"]


def test_the_definition_is_missed_when_ties_are_broken_by_position_alone() -> None:
    rng, options, broken = np.random.default_rng(1), DecodeOptions(), 0
    for _ in range(20):
        inside, height = cases.plateaus(rng, (24, 24))
        maps = Maps(
            np.where(inside, 200, 0).astype(np.uint8)[None],
            height.astype(np.uint16)[None],
            np.zeros((1, 24, 24), np.uint8),
        )
        wanted = decode_slowly(maps, options)["labels"][0]
        np.testing.assert_array_equal(decode(maps, options).labels[0], wanted)
        broken += not np.array_equal(labels_by_position(maps, options), wanted)
    assert broken >= 3


def test_contraction_inside_tiles_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    fewer = 0
    for _ in range(30):
        classes = int(rng.integers(1, 3))
        maps = random_maps(rng, classes, largest=70)
        options = random_options(rng, classes)
        window, rules = Window.of_layer(maps, 0), options.rules()
        with_it, without = [], []
        for core in square_tiles(window.shape, 25):
            with_it.append(graph_of_tile(window, core, rules))
            slopes = find_slopes(window, core, rules)
            every = np.ones(len(slopes.peaks), bool)
            merged = merge_slopes(slopes, every, width=window.shape[1], limit=rules.limit)
            without.append(graph_of_slopes(window, slopes, rules, merged))
        fewer += sum(len(t.peaks) for t in without) - sum(len(t.peaks) for t in with_it)
        one, two = (
            join_tiles(tiles, limit=rules.limit, keep=options.filter())
            for tiles in (with_it, without)
        )
        np.testing.assert_array_equal(one.sums, two.sums)
        np.testing.assert_array_equal(
            labels_of_tiles(with_it, options), labels_of_tiles(without, options)
        )
    assert fewer > 100


def test_a_tile_depends_on_no_pixel_beyond_its_margin() -> None:
    rng = np.random.default_rng(3)
    options = DecodeOptions(fill_holes=True)
    for family in cases.FAMILIES:
        inside, height = family(rng, (60, 70))
        maps = Maps(
            np.where(inside, 200, 0).astype(np.uint8)[None],
            height.astype(np.uint16)[None],
            np.zeros((1, 60, 70), np.uint8),
        )
        tiles = []
        for core in square_tiles((60, 70), 9):
            y0, x0 = (max(v - MARGIN, 0) for v in core[0])
            y1, x1 = (v + MARGIN for v in core[1])
            part = Maps(
                maps.foreground[:, y0:y1, x0:x1],
                maps.height[:, y0:y1, x0:x1],
                maps.classes[:, y0:y1, x0:x1],
            )
            window = replace(Window.of_layer(part, 0), origin=(y0, x0), shape=(60, 70))
            tiles.append(graph_of_tile(window, core, options.rules()))
        np.testing.assert_array_equal(
            labels_of_tiles(tiles, options), decode(maps, options).labels[0]
        )


def distinct_heights(rng: Rng) -> Maps:
    """A plane of a few hills, no two pixels of one height."""
    shape = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
    inside, height = cases.bumps(rng, shape)
    order = np.argsort(np.argsort((height + rng.integers(0, 4000, shape)).ravel()))
    quanta = np.where(inside, 200, 0).astype(np.uint8)[None]
    spread = (order * 40).reshape(1, *shape).astype(np.uint16)
    return Maps(quanta, spread, rng.integers(0, 2, (1, *shape)).astype(np.uint8))


def three_basins_meet(maps: Maps, rules: DecodeRules) -> bool:
    """Whether saddles tie: a pixel from which edges of one height lead to two other basins."""
    window = Window.of_layer(maps, 0)
    labels = np.pad(find_slopes(window, ((0, 0), window.shape), rules).labels, 1)
    around = np.lib.stride_tricks.sliding_window_view(labels, (3, 3)).reshape(-1, 9)
    return any(len(set(nine[nine > 0])) > 2 for nine in around)


def turned_over(array: NDArray[Any]) -> NDArray[Any]:
    return array[:, ::-1, ::-1]


def test_rotation_by_half_a_turn_rotates_the_objects_where_nothing_ties() -> None:
    rng, options = np.random.default_rng(4), DecodeOptions(prominence=0.02, merge_classes=True)
    compared = merged = 0
    for _ in range(150):
        maps = distinct_heights(rng)
        if three_basins_meet(maps, options.rules()):
            continue
        turned = Maps(
            turned_over(maps.foreground), turned_over(maps.height), turned_over(maps.classes)
        )
        one, two = decode(maps, options), decode(turned, options)
        pairs = np.stack([one.labels.ravel(), turned_over(two.labels).ravel()])
        inside = np.unique(pairs[:, pairs[0] > 0], axis=1)
        assert inside.shape[1] == len(one.areas_px) == len(two.areas_px)
        unmerged = decode(maps, replace(options, prominence=0.0))
        merged += len(unmerged.areas_px) > len(one.areas_px)
        compared += 1
    assert compared >= 20
    assert merged >= 5


# Hand-made planes.


def test_a_single_pixel_is_an_object_with_its_own_numbers() -> None:
    maps = plane("... ..7 ...")
    found = decode(maps, DecodeOptions())
    assert digits(found.labels[0]) == ["...", "..1", "..."]
    assert found.areas_px.tolist() == [1]
    assert found.boxes.tolist() == [[[1, 2], [2, 3]]]
    assert found.centroids.tolist() == [[1.0, 2.0]]
    assert found.classes.tolist() == [0]
    assert found.scores[0] == pytest.approx(float(probability(np.array(200))), abs=1 / 65535)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 7), (1, 0, 4), (0, 3, 3)])
def test_maps_without_foreground_give_no_object(shape: tuple[int, int, int]) -> None:
    maps = Maps(np.zeros(shape, np.uint8), np.zeros(shape, np.uint16), np.zeros(shape, np.uint8))
    found = decode(maps, DecodeOptions())
    assert found.labels.shape == shape
    assert not found.labels.any()
    assert found.boxes.shape == (0, 2, 2)
    assert found.centroids.shape == (0, 2)


@pytest.mark.parametrize("height", [0, 65535])
@pytest.mark.parametrize("tile_px", [None, 7])
def test_a_plateau_that_fills_the_image_is_one_object(height: int, tile_px: int | None) -> None:
    shape = (1, 40, 50)
    maps = Maps(np.full(shape, 255, "u1"), np.full(shape, height, "u2"), np.zeros(shape, "u1"))
    found = decode(maps, DecodeOptions(prominence=0.0), tile_px=tile_px)
    assert (found.labels == 1).all()
    assert found.areas_px.tolist() == [2000]
    assert found.centroids.tolist() == [[19.5, 24.5]]


def test_a_bridge_of_one_pixel_splits_where_it_is_low_and_joins_where_it_is_high() -> None:
    assert labels_of(plane("88.88 88288 88.88")) == ["11.22", "11222", "11.22"]
    assert labels_of(plane("88.88 88888 88.88")) == ["11.11", "11111", "11.11"]


def test_a_peak_stays_apart_from_a_rise_of_the_limit_on() -> None:
    options = DecodeOptions(prominence=100 / 65535)
    for rise, objects in ((99, 1), (100, 2)):
        height = np.array([[[500, 500 - rise, 500]]], np.uint16)
        maps = Maps(np.full((1, 1, 3), 200, np.uint8), height, np.zeros((1, 1, 3), np.uint8))
        assert options.rules().limit == 100
        assert len(decode(maps, options).areas_px) == objects


def test_the_largest_of_tied_saddles_is_visited_first() -> None:
    # Both saddles of the middle peak are equal: the later in the image joins it.
    assert labels_of(plane("97897", step=1000), DecodeOptions(prominence=0.02)) == ["11222"]


def test_plateaus_are_shared_up_to_sixteen_steps_and_by_index_beyond() -> None:
    maps = plane("9" + "2" * 40 + "9")
    assert labels_of(maps) == ["1" * 17 + "2" * 25]


def test_classes_that_touch_stay_apart_unless_merged_and_then_vote() -> None:
    maps = plane("55555 56665 55555", kinds="11222 11222 11222")
    apart = decode(maps, DecodeOptions())
    assert digits(apart.labels[0]) == ["11222"] * 3
    assert apart.classes.tolist() == [1, 2]
    merged = decode(maps, DecodeOptions(merge_classes=True))
    assert digits(merged.labels[0]) == ["11111"] * 3
    assert merged.classes.tolist() == [2]


def test_a_tied_vote_goes_to_the_lowest_class() -> None:
    maps = plane("5555", kinds="3113")
    assert decode(maps, DecodeOptions(merge_classes=True)).classes.tolist() == [1]


def test_only_classes_that_are_split_are_split() -> None:
    maps = plane("929 929 ... 929", kinds="000 000 000 111")
    assert labels_of(maps, DecodeOptions(split=(True, False))) == ["122", "122", "...", "333"]
    assert labels_of(maps, DecodeOptions(split=(False, True))) == ["111", "111", "...", "233"]
    assert labels_of(maps, DecodeOptions(split=False)) == ["111", "111", "...", "222"]


def test_holes_are_filled_only_wholly_inside_one_object() -> None:
    ring = plane("5555. 5..5. 5.55. 5555.")
    assert labels_of(ring, DecodeOptions(fill_holes=True)) == ["1111.", "1111.", "1111.", "1111."]
    assert labels_of(ring)[1] == "1..1."
    open_to_border = plane("555 5.5 5.5")
    assert labels_of(open_to_border, DecodeOptions(fill_holes=True)) == ["111", "1.1", "1.1"]
    around_another = plane("55555 5...5 5.5.5 5...5 55555")
    assert labels_of(around_another, DecodeOptions(fill_holes=True))[2] == "1.2.1"
    between_two = plane("555 5.5 555", kinds="001 001 001")
    assert labels_of(between_two, DecodeOptions(fill_holes=True)) == ["112", "1.2", "112"]
    # Background is 4-connected: a diagonal gap in the ring does not exist.
    diagonal = plane(".5. 5.5 .5.")
    assert labels_of(diagonal, DecodeOptions(fill_holes=True)) == [".1.", "111", ".1."]


def test_a_filled_hole_counts_as_area_but_not_as_evidence_or_vote() -> None:
    maps = plane("555 5.5 555", kinds="000 010 000")
    bare = decode(maps, DecodeOptions())
    filled = decode(maps, DecodeOptions(fill_holes=True, merge_classes=True))
    assert (bare.areas_px[0], filled.areas_px[0]) == (8, 9)
    assert bare.scores[0] == filled.scores[0]
    assert filled.classes[0] == 0


def test_filters_drop_objects_and_the_rest_are_numbered_again() -> None:
    maps = plane("5.55.555.55555")
    assert labels_of(maps, DecodeOptions(min_area_px=2, max_area_px=3)) == ["..11.222......"]
    quanta = maps.foreground.copy()
    quanta[0, 0, 2:4] = 130
    assert labels_of(replace(maps, foreground=quanta), DecodeOptions(min_score=0.9)) == [
        "1....222.33333"
    ]


def test_a_class_may_have_limits_of_its_own() -> None:
    maps = plane("5.55.555.55555")
    kinds = np.zeros_like(maps.classes)
    kinds[0, 0, 5:] = 1
    both = replace(maps, classes=kinds)
    assert labels_of(both, DecodeOptions(min_area_px=(2, 4))) == ["..11.....22222"]
    quanta = np.where(maps.foreground > 128, 130, 0).astype(np.uint8)
    faint = replace(both, foreground=quanta)
    assert labels_of(faint, DecodeOptions(min_score=(0.9, 0.1))) == [".....111.22222"]


def test_threshold_is_a_probability() -> None:
    quanta = np.array([[[127, 128, 129, 255, 0]]], np.uint8)
    maps = Maps(quanta, np.zeros((1, 1, 5), np.uint16), np.zeros((1, 1, 5), np.uint8))
    assert labels_of(maps) == [".111."]
    assert labels_of(maps, DecodeOptions(threshold=0.99)) == ["...1."]


def test_layers_are_decoded_alone_and_numbered_on() -> None:
    one, two = plane("5.5"), plane("555")
    maps = Maps(
        np.concatenate([one.foreground, two.foreground]),
        np.concatenate([one.height, two.height]),
        np.concatenate([one.classes, two.classes]),
    )
    found = decode(maps, DecodeOptions())
    assert found.labels.tolist() == [[[1, 0, 2]], [[3, 3, 3]]]
    assert found.layers.tolist() == [0, 0, 1]


@pytest.mark.parametrize("tile_px", [None, 100])
def test_seventy_thousand_objects_are_numbered_in_raster_order(tile_px: int | None) -> None:
    quanta = np.zeros((1, 540, 540), np.uint8)
    quanta[:, ::2, ::2] = 200
    zeros = np.zeros(quanta.shape, np.uint8)
    found = decode(Maps(quanta, zeros.astype(np.uint16), zeros), DecodeOptions(), tile_px=tile_px)
    numbers = np.arange(1, 72_901)
    np.testing.assert_array_equal(found.labels[0, ::2, ::2].ravel(), numbers)
    np.testing.assert_array_equal(
        found.centroids[:, 0] * 540 + found.centroids[:, 1], np.flatnonzero(quanta)
    )
    assert (found.areas_px == 1).all()


def test_maps_that_are_views_or_read_only_decode_alike() -> None:
    maps = random_maps(np.random.default_rng(5), 2)
    views = Maps(
        np.repeat(maps.foreground, 2, 2)[:, :, ::2],
        np.repeat(maps.height, 2, 2)[:, :, ::2],
        np.repeat(maps.classes, 2, 2)[:, :, ::2],
    )
    frozen = Maps(maps.foreground.copy(), maps.height.copy(), maps.classes.copy())
    for array in (frozen.foreground, frozen.height, frozen.classes):
        array.flags.writeable = False
    assert_same(decode(views, DecodeOptions()), decode(maps, DecodeOptions()))
    assert_same(decode(frozen, DecodeOptions()), decode(maps, DecodeOptions()))


def test_ranks_hold_the_height_and_the_distance_to_higher_ground() -> None:
    maps = plane("92222.", step=1)
    planes = maps.foreground[0], maps.height[0], maps.classes[0]
    ranks, kinds = rank_pixels(*planes, quantum=128, bridged=False, box=((0, 0), (1, 6)))
    assert (ranks[1, 1:-1] >> 5).tolist() == [10, 3, 3, 3, 3, 0]
    assert (ranks[1, 1:-1] & 31).tolist() == [0, 15, 14, 13, 12, 0]
    assert not ranks[[0, 2]].any()
    assert kinds.shape == ranks.shape == (3, 8)


@pytest.mark.parametrize("way", [0, 1, 2, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("ranks", [(900, 64), (64, 900), (64, 64), (70, 64)])
def test_an_edge_has_one_key_from_both_its_ends(way: int, ranks: tuple[int, int]) -> None:
    width, index = 100, 5050
    there = index + (way // 3 - 1) * width + way % 3 - 1
    one, two = np.int64(ranks[0]), np.int64(ranks[1])
    key = int(edge_key(one, two, index, way, width))
    assert key == edge_key(two, one, there, 8 - way, width)
    rank, lower = min((ranks[0], index), (ranks[1], there))
    assert (key >> 44, key >> 4 & (1 << 40) - 1) == (rank >> 5, lower)


def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys, domainseg, domainseg.instances; print('numba' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


# Every sentence.


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (
            {"threshold": 1.0},
            "threshold: found 1.0, wanted a number between 0 and 1; change threshold",
        ),
        (
            {"prominence": 2.0},
            "prominence: found 2.0, wanted a number from 0 to 1; change prominence",
        ),
        (
            {"min_score": -0.1},
            "min_score: found -0.1, wanted a number from 0 to 1; change min_score",
        ),
        (
            {"min_area_px": -1},
            "min_area_px: found -1, wanted a number of 0 or more; change min_area_px",
        ),
        (
            {"min_area_px": 5, "max_area_px": 4},
            "max_area_px: found 4, wanted a number of 5 or more; change max_area_px",
        ),
    ],
)
def test_options_outside_their_range_are_refused(option: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        DecodeOptions(**option)
    assert str(caught.value) == f"DecodeOptions.{text}."


def test_maps_that_do_not_fit_each_other_are_refused() -> None:
    maps = plane("555")
    with pytest.raises(InputError) as caught:
        decode(replace(maps, classes=maps.classes[:, :, :2]), DecodeOptions())
    assert str(caught.value) == (
        "maps.classes: found uint8 (1, 1, 2), wanted uint8 (1, 1, 3); "
        "quantise all three maps of one prediction together."
    )
    with pytest.raises(InputError, match=r"maps\.height: found int64 \(1, 1, 3\), wanted uint16"):
        decode(replace(maps, height=maps.height.astype(np.int64)), DecodeOptions())


def test_maps_without_a_layer_axis_are_refused() -> None:
    maps = plane("555")
    flat = Maps(maps.foreground[0], maps.height[0], maps.classes[0])
    with pytest.raises(InputError) as caught:
        decode(flat, DecodeOptions())
    assert str(caught.value) == (
        "maps.foreground: found uint8 (1, 3), wanted uint8 (layers, rows, columns); "
        "quantise all three maps of one prediction together."
    )


def test_a_class_that_split_does_not_name_is_refused_where_it_is_foreground() -> None:
    options = DecodeOptions(split=(True, False))
    with pytest.raises(InputError) as caught:
        decode(plane("5.5", kinds="002"), options)
    assert str(caught.value) == (
        "maps.classes: found class 2, wanted classes below 2, the length of DecodeOptions.split; "
        "give split one entry for each class, or a single True or False."
    )
    assert labels_of(plane("5.5", kinds="020"), options) == ["1.2"]


@pytest.mark.parametrize(
    "cores",
    [
        [((0, 0), (2, 2))],
        [((0, 0), (2, 3)), ((0, 2), (2, 4))],
        [((0, 0), (2, 2)), ((0, 2), (1, 4)), ((1, 2), (2, 4))],
        [((0, 0), (2, 4)), ((0, 0), (2, 4))],
    ],
)
def test_tiles_that_are_no_grid_are_refused(cores: list[Box]) -> None:
    with pytest.raises(UsageError) as caught:
        decode_tiles(plane("5555 5555"), DecodeOptions(), cores)
    assert str(caught.value) == (
        f"tiles: found {len(cores)} that leave gaps, overlap or do not stand in rows, "
        "wanted a grid that covers the 2 x 4 pixels once; "
        "cut the image along whole rows, and each row into columns."
    )


def test_a_tile_without_pixels_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        decode(plane("5"), DecodeOptions(), tile_px=0)
    assert str(caught.value) == "tile_px: found 0, wanted 1 or more; change it."
