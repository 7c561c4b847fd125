"""Tiles joined in constant memory give what all tiles at once give."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from domainseg.instances import residue
from domainseg.instances.basins import DecodeOptions, decode
from domainseg.instances.residue import Numbering, Quilt, Residue, settle
from domainseg.instances.tile_graph import Box, Window, graph_of_tile
from domainseg.records import Maps

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
random_tiles: Callable[[Rng, tuple[int, int]], list[Box]] = cases.random_tiles

law = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
seeds = st.integers(0, 2**32 - 1)
CUTS = ((0, 2), (2, 5), (5, 7))
THIRDS: list[Box] = [((y0, x0), (y1, x1)) for y0, y1 in CUTS for x0, x1 in CUTS]
"""Nine tiles of a plane of 7 x 7."""


def quilted(
    maps: Maps, layer: int, options: DecodeOptions, cores: Sequence[Box], *, first: int = 1
) -> tuple[NDArray[np.int32], Numbering]:
    """Return the labels of a layer and its objects, tile by tile."""
    window = options.rules().gated(Window.of_layer(maps, layer))
    keep = options.filter()
    quilt, painted = Quilt(window.shape), []
    for core in sorted(cores):
        left, codes = settle(graph_of_tile(window, core, options.rules()), keep=keep)
        quilt.add(left)
        painted.append((core, codes))
    numbering = quilt.finish(limit=options.rules().limit, keep=keep, first=first)
    labels = np.full(window.shape, -1, np.int32)
    for tile, (((y0, x0), (y1, x1)), codes) in enumerate(painted):
        labels[y0:y1, x0:x1] = numbering.paint(tile, codes)
    return labels, numbering


def assert_quilted(maps: Maps, options: DecodeOptions, cores: Sequence[Box]) -> None:
    whole = decode(maps, options)
    first = 1
    for layer in range(len(maps.height)):
        labels, numbering = quilted(maps, layer, options, cores, first=first)
        np.testing.assert_array_equal(labels, whole.labels[layer])
        rows = whole.layers == layer
        for name in ("classes", "scores", "boxes"):
            found, wanted = getattr(numbering.objects, name), getattr(whole, name)[rows]
            np.testing.assert_array_equal(found, wanted, err_msg=name)
        first += len(numbering)


def check(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 4))
    maps, options = random_maps(rng, classes, largest=60), random_options(rng, classes)
    shape = (int(maps.height.shape[1]), int(maps.height.shape[2]))
    assert_quilted(maps, options, random_tiles(rng, shape))


@law
@given(seeds)
def test_tiles_joined_one_by_one_give_what_the_whole_image_gives(seed: int) -> None:
    check(seed)


@pytest.mark.long
@settings(law, max_examples=2500)
@given(seeds)
def test_tiles_joined_one_by_one_give_what_the_whole_image_gives_at_length(seed: int) -> None:
    check(seed)


def plane(rows: str, *, step: int = 6000) -> Maps:
    """Digits are heights in steps, dots background."""
    lines = rows.split()
    height = np.array([[0 if c == "." else int(c) * step for c in line] for line in lines])
    inside = np.array([[c != "." for c in line] for line in lines])
    return Maps(
        np.where(inside, 200, 20).astype(np.uint8)[None],
        height.astype(np.uint16)[None],
        np.zeros((1, *height.shape), np.uint8),
    )


def residue_of(maps: Maps, core: Box, options: DecodeOptions) -> tuple[Residue, NDArray[np.int32]]:
    graph = graph_of_tile(Window.of_layer(maps, 0), core, options.rules())
    return settle(graph, keep=options.filter())


def test_an_object_inside_a_tile_leaves_no_node() -> None:
    maps = plane("....... .99..8. .99..8. .....8. .......")
    left, codes = residue_of(maps, ((0, 0), (4, 7)), DecodeOptions())
    assert left.settled.firsts.tolist() == [8]
    assert left.settled.boxes.tolist() == [[[1, 1], [3, 3]]]
    assert len(left.peaks) == 1  # the column of eights touches the seam
    assert codes[1].tolist() == [0, -1, -1, 0, 0, 1, 0]


def test_a_hole_inside_a_tile_is_filled_at_once_and_one_that_goes_on_waits() -> None:
    options = DecodeOptions(fill_holes=True)
    ring = plane("..... .999. .9.9. .999. .....")
    left, codes = residue_of(ring, ((0, 0), (5, 5)), options)
    assert (codes < 0).sum() == 9
    assert len(left.peaks) == 0
    cut, _ = residue_of(ring, ((0, 0), (3, 5)), options)
    assert np.count_nonzero(cut.peaks == 0) == 2
    assert np.count_nonzero(cut.reaching) == 1


def test_background_beside_a_settled_object_is_no_hole_of_what_lies_outside() -> None:
    """A ring around several tiles, with an island: the middle is beside both, so no hole."""
    maps = plane("9999999 9.....9 9.....9 9..5..9 9.....9 9.....9 9999999")
    options = DecodeOptions(fill_holes=True)
    labels, _ = quilted(maps, 0, options, THIRDS)
    np.testing.assert_array_equal(labels, decode(maps, options).labels[0])
    assert labels[2, 2] == 0
    left, _ = residue_of(maps, ((2, 2), (5, 5)), options)
    assert left.reaching.tolist() == [True]
    assert len(left.contacts) == 0


def test_the_law_fails_when_a_settled_neighbour_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps = plane("9999999 9.....9 9.....9 9..5..9 9.....9 9.....9 9999999")
    options = DecodeOptions(fill_holes=True)
    fates = residue._fates

    def forgetful(*arguments: Any) -> Any:
        found = fates(*arguments)
        return replace(found, never=np.zeros_like(found.never))

    monkeypatch.setattr(residue, "_fates", forgetful)
    labels, _ = quilted(maps, 0, options, THIRDS)
    assert not np.array_equal(labels, decode(maps, options).labels[0])


def test_what_is_kept_follows_the_seams_and_not_the_pixels() -> None:
    """A field of separate dots: only those on a seam are remembered as nodes."""
    height = np.zeros((300, 300), np.uint16)
    height[5::10, 5::10] = 60000
    height[4::10, 5::10] = 50000
    inside = height > 0
    maps = Maps(
        np.where(inside, 200, 20).astype(np.uint8)[None],
        height[None],
        np.zeros((1, 300, 300), np.uint8),
    )
    left, _ = residue_of(maps, ((100, 100), (200, 200)), DecodeOptions())
    assert len(left.peaks) == 0
    assert len(left.settled.firsts) == 100
    cut, _ = residue_of(maps, ((105, 100), (205, 200)), DecodeOptions())
    assert len(cut.peaks) == 20
    assert len(cut.settled.firsts) == 90


def test_an_image_without_objects_has_no_numbers() -> None:
    maps = plane("... ... ...")
    labels, numbering = quilted(maps, 0, DecodeOptions(fill_holes=True), [((0, 0), (3, 3))])
    assert not labels.any()
    assert len(numbering) == 0
