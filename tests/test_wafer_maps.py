"""Made-up wafer maps: functions of their number alone, with zones that are exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from scipy import ndimage

from domainseg.errors import OutputError, RecipeError
from domainseg.instances.encode import read_segmentation
from domainseg.loaders.map_patterns import LOOKS, WHOLE_WAFER, MapLook, draw_map
from domainseg.loaders.map_shapes import SHAPES, Style
from domainseg.loaders.map_wafer import wafer_of
from domainseg.loaders.wafer_map import FAIL, NO_DIE, NO_PATTERN, PATTERNS
from domainseg.loaders.wafer_map_files import write_wafer_maps
from domainseg.loaders.wafer_maps import MIXTURES, SINGLES, WaferMaps, objects_of
from domainseg.records import Array, Instances

STYLES: tuple[Style, ...] = ("mixed", "wm811k")
KINDS: tuple[tuple[str, ...], ...] = ((), *SINGLES, *MIXTURES)


def planes_of(truth: Instances) -> Array:
    """Return where each class is, bool ``(8, H, W)``."""
    planes = np.zeros((len(PATTERNS), *truth.shape), bool)
    for index, ((y0, x0), (y1, x1)) in enumerate(truth.boxes):
        planes[truth.classes[index], y0:y1, x0:x1] |= truth.mask(index)
    return planes


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(STYLES), st.sampled_from(KINDS), st.integers(0, 2**63), st.integers(16, 90))
def test_zones_are_of_the_patterns_asked_for_and_hold_dies_only(
    style: Style, kind: tuple[str, ...], seed: int, side: int
) -> None:
    look = replace(LOOKS[style], sides=(max(16, side - 8), side), untested=0.5)
    dies, zones = draw_map(np.random.default_rng(seed), look, kind)
    assert dies.dtype == np.uint8
    assert zones.dtype == bool
    assert zones.shape == (8, *dies.shape)
    assert set(np.unique(dies).tolist()) <= {0, 1, 2}
    assert look.sides[0] <= min(dies.shape) <= max(dies.shape) <= look.sides[1]
    assert {name for name, zone in zip(PATTERNS, zones, strict=True) if zone.any()} == set(kind)
    assert not (zones & (dies == NO_DIE)).any()


def contrasts(style: Style, name: str, count: int = 150) -> Array:
    """Return the fail share in the zone less that outside, one value a map."""
    found = []
    for seed in range(count):
        dies, zones = draw_map(np.random.default_rng(seed), LOOKS[style], (name,))
        zone = zones[PATTERNS.index(name)]
        beyond = (dies != NO_DIE) & ~zone
        found.append(np.mean(dies[zone] == FAIL) - np.mean(dies[beyond] == FAIL))
    return np.array(found)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", [name for name in PATTERNS if name not in WHOLE_WAFER])
def test_dies_in_a_zone_fail_far_more_often_than_others(style: Style, name: str) -> None:
    found = contrasts(style, name)
    assert np.mean(found > 0) > 0.98
    assert np.mean(found > 0.2) > 0.9
    assert 0.5 < np.median(found) < 0.95


@pytest.mark.parametrize("style", STYLES)
def test_patterns_of_the_whole_wafer_have_their_own_density(style: Style) -> None:
    for name, least, most in (("Random", 0.2, 0.75), ("Near-full", 0.6, 1.0)):
        shares = []
        for seed in range(100):
            dies, zones = draw_map(np.random.default_rng(seed), LOOKS[style], (name,))
            zone = zones[PATTERNS.index(name)]
            assert zone.sum() >= (0.99 if name == "Random" else 0.4) * (dies > 0).sum()
            shares.append(np.mean(dies[dies > 0] == FAIL))
        assert least < np.quantile(shares, 0.03)
        assert np.quantile(shares, 0.97) <= most


def test_mixed_maps_of_the_whole_wafer_are_enlarged_from_fewer_dies() -> None:
    alike = {}
    for style in STYLES:
        look = replace(LOOKS[style], sides=(52, 52), untested=0.0)
        maps = [draw_map(np.random.default_rng(i), look, ("Random",)).dies for i in range(40)]
        beside = [(one[:, 1:], one[:, :-1]) for one in maps]
        alike[style] = np.mean([(a == b)[(a > 0) & (b > 0)].mean() for a, b in beside])
    assert alike["wm811k"] < 0.56
    assert alike["mixed"] > 0.65


def test_the_background_fails_as_often_as_the_look_says() -> None:
    look = replace(LOOKS["mixed"], background_none=(0.1, 0.1))
    shares = [
        np.mean((dies := draw_map(np.random.default_rng(i), look, ()).dies)[dies > 0] == FAIL)
        for i in range(100)
    ]
    assert abs(np.mean(shares) - 0.1) < 4 * np.sqrt(0.09 / 2000 / 100)
    assert np.std(shares) < 1.5 * np.sqrt(0.09 / 2000)
    beyond = []
    for seed in range(60):
        fixed = replace(LOOKS["mixed"], background=(0.2, 0.2))
        dies, zones = draw_map(np.random.default_rng(seed), fixed, ("Edge-Ring",))
        inner = (dies > 0) & ~ndimage.binary_dilation(zones[3], iterations=2)
        beyond.append(np.mean(dies[inner] == FAIL))
    assert abs(np.mean(beyond) - 0.2) < 0.01


def test_nothing_fails_in_the_hole_of_a_mixed_donut_though_other_patterns_may() -> None:
    for seed in range(40):
        dies, zones = draw_map(np.random.default_rng(seed), LOOKS["mixed"], ("Donut",))
        # Two dies at the hole's edge may belong to its jagged outline.
        hole = ndimage.binary_fill_holes(zones[1]) & ~zones[1]
        groups, count = ndimage.label(hole)
        if count:
            largest = groups == np.bincount(groups.ravel())[1:].argmax() + 1
            assert np.mean(dies[largest] == FAIL) < 0.05


def test_the_disc_of_dies_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    for size in ((52, 52), (25, 31), (16, 16)):
        dies = wafer_of(rng, size, reach=1.0).dies
        np.testing.assert_array_equal(dies, dies[::-1])
        np.testing.assert_array_equal(dies, dies[:, ::-1])
        assert abs(dies.mean() - np.pi / 4) < 0.03
    mixed = draw_map(rng, LOOKS["mixed"], ()).dies > 0
    assert not mixed[0].any()
    assert not mixed[:, 0].any()
    disc = mixed[1:, 1:]
    for turned in (disc[::-1], disc[:, ::-1], disc.T):
        np.testing.assert_array_equal(disc, turned)
    look = replace(LOOKS["wm811k"], untested=0.0)
    for seed in range(50):
        there = draw_map(np.random.default_rng(seed), look, ("Scratch",)).dies > 0
        np.testing.assert_array_equal(there, there[:, ::-1])
        assert there[[0, -1]].any(1).all()
        assert there[:, [0, -1]].any(0).all()


def test_untested_dies_are_missing_inside_and_belong_to_no_zone() -> None:
    look = replace(LOOKS["wm811k"], untested=1.0)
    holes = 0
    for seed in range(20):
        dies, zones = draw_map(np.random.default_rng(seed), look, ("Random",))
        missing = ndimage.binary_fill_holes(dies > 0) & (dies == NO_DIE)
        assert missing.mean() < 0.05
        np.testing.assert_array_equal(zones[6], dies > 0)
        holes += int(missing.sum())
    assert holes > 20


def test_clutter_adds_fails_and_changes_no_zone() -> None:
    calm = replace(LOOKS["wm811k"], clutter=0.0)
    more = 0
    for seed in range(30):
        quiet = draw_map(np.random.default_rng(seed), calm, ("Loc",))
        cluttered = draw_map(np.random.default_rng(seed), LOOKS["wm811k"], ("Loc",))
        np.testing.assert_array_equal(quiet.zones, cluttered.zones)
        assert (cluttered.dies >= quiet.dies).all()
        more += int((cluttered.dies > quiet.dies).sum())
    assert more > 60


def zone_centres(style: Style, name: str) -> Array:
    """Return the mean distance of a zone's dies from the centre, in radii, one value a map."""
    found = []
    for seed in range(80):
        zone = draw_map(np.random.default_rng(seed), LOOKS[style], (name,)).zones.any(0)
        rows, columns = np.nonzero(zone)
        v, u = 2 * (rows + 0.5) / zone.shape[0] - 1, 2 * (columns + 0.5) / zone.shape[1] - 1
        found.append(np.hypot(v, u).mean())
    return np.array(found)


def test_the_styles_use_the_words_loc_and_edge_loc_in_their_own_ways() -> None:
    assert np.quantile(zone_centres("mixed", "Edge-Loc"), 0.05) > 0.9
    assert np.quantile(zone_centres("wm811k", "Edge-Loc"), 0.05) > 0.6
    assert np.quantile(zone_centres("mixed", "Loc"), 0.05) > 0.6
    assert np.quantile(zone_centres("wm811k", "Loc"), 0.2) < 0.55
    for style in STYLES:
        assert np.quantile(zone_centres(style, "Center"), 0.95) < 0.45
        assert np.quantile(zone_centres(style, "Edge-Ring"), 0.2) > 0.85
    assert np.quantile(zone_centres("mixed", "Edge-Ring"), 0.05) > 0.85


def test_some_rings_of_wm811k_are_wide_bands_and_all_reach_the_rim() -> None:
    wide = 0
    for seed in range(100):
        zone = draw_map(np.random.default_rng(seed), LOOKS["wm811k"], ("Edge-Ring",)).zones.any(0)
        rows, columns = np.nonzero(zone)
        v, u = 2 * (rows + 0.5) / zone.shape[0] - 1, 2 * (columns + 0.5) / zone.shape[1] - 1
        away = np.hypot(v, u)
        assert away.max() > 0.9
        # A whole ring of an outer radius of 1 and a depth d has a mean radius of 1 - d/2, about.
        wide += away.mean() < 0.9
    assert 5 <= wide <= 35


def test_a_map_is_the_same_every_time_and_in_a_larger_split() -> None:
    few = WaferMaps(train=6, val=3, test=2, style="wm811k", mixtures=5.0)
    many = replace(few, train=9, val=3, test=4)
    entries, more = few.open(Path()).entries(), many.open(Path()).entries()
    assert [e.columns["split"] for e in entries] == ["test"] * 2 + ["train"] * 6 + ["val"] * 3
    assert [e.id for e in more] == sorted(e.id for e in more)
    assert {e.id for e in entries} < {e.id for e in more}
    by_id = {entry.id: entry for entry in more}
    for entry in entries:
        assert by_id[entry.id] == entry
        one, two = few.open(Path()).load(entry), many.open(Path()).load(entry)
        np.testing.assert_array_equal(one.image[...], two.image[...])
        assert one.truth is not None
        assert two.truth is not None
        np.testing.assert_array_equal(one.truth.runs, two.truth.runs)


def test_no_two_maps_are_alike_in_or_across_splits_or_seeds() -> None:
    seen = set()
    for seed in (0, 1):
        options = WaferMaps(train=20, val=20, test=20, seed=seed, none=0.0)
        opened = options.open(Path())
        seen |= {options.drawn(entry).dies.tobytes() for entry in opened.entries()}
    assert len(seen) == 120


@pytest.mark.parametrize("style", STYLES)
def test_a_sample_holds_its_map_its_tags_and_the_groups_of_its_zones(style: Style) -> None:
    options = WaferMaps(train=0, val=60, test=0, style=style, none=2.0, mixtures=10.0)
    opened = options.open(Path())
    assert opened.classes == PATTERNS
    nothing = 0
    for entry in opened.entries():
        sample, drawn = opened.load(entry), options.drawn(entry)
        np.testing.assert_array_equal(sample.image[...], drawn.dies[None])
        assert sample.ignore is not None
        np.testing.assert_array_equal(sample.ignore, drawn.dies == NO_DIE)
        assert (sample.channels, sample.spacing_um, sample.semantic) == (("die",), None, None)
        assert sample.truth is not None
        np.testing.assert_array_equal(planes_of(sample.truth), drawn.zones)
        named = tuple(PATTERNS[i] for i in np.unique(sample.truth.classes))
        assert sample.tags == entry.tags == (named or (NO_PATTERN,))
        assert sample.kind == entry.kind == "+".join(sample.tags)
        assert (len(sample.truth) == 0) == (sample.tags == (NO_PATTERN,))
        nothing += sample.tags == (NO_PATTERN,)
    assert nothing > 0


def test_objects_are_the_8_connected_groups_of_a_plane_and_may_overlap() -> None:
    zones = np.zeros((8, 4, 6), bool)
    zones[1, 0, 0] = zones[1, 1, 1] = zones[1, 3, 3] = True
    zones[7, 1, :4] = True
    truth = objects_of(zones)
    assert truth.ids.tolist() == [1, 2, 3]
    assert truth.classes.tolist() == [1, 1, 7]
    assert truth.areas_px().tolist() == [2, 1, 4]
    assert truth.boxes.tolist() == [[[0, 0], [2, 2]], [[3, 3], [4, 4]], [[1, 0], [2, 4]]]
    assert truth.shape == (4, 6)
    assert len(objects_of(np.zeros((8, 4, 6), bool))) == 0


def test_mixtures_are_the_29_of_mixedwm38() -> None:
    assert len(set(MIXTURES)) == len(MIXTURES) == 29
    for kind in MIXTURES:
        assert 2 <= len(kind) <= 4
        assert list(kind) == sorted(kind, key=PATTERNS.index)
        assert not {"Center", "Donut"} <= set(kind)
        assert not {"Edge-Loc", "Edge-Ring"} <= set(kind)
        assert not set(WHOLE_WAFER) & set(kind)


def test_kinds_come_as_often_as_their_weights_say() -> None:
    options = WaferMaps(train=38 * 400, val=0, test=0)
    kinds = [str(entry.kind) for entry in options.open(Path()).entries()]
    names, counts = np.unique(kinds, return_counts=True)
    assert set(names) == {"+".join(kind) or NO_PATTERN for kind in KINDS}
    assert abs(counts - 400).max() < 5 * np.sqrt(400)
    only = WaferMaps(train=200, val=0, test=0, none=0.0, singles=0.0, mixtures=1.0)
    assert all(len(entry.tags) > 1 for entry in only.open(Path()).entries())
    real = WaferMaps(train=500, val=0, test=0, style="wm811k")
    assert all(len(entry.tags) == 1 for entry in real.open(Path()).entries())


def test_an_option_that_is_none_is_as_in_the_style() -> None:
    for style in STYLES:
        assert WaferMaps(style=style).look() == LOOKS[style]
        assert set(SHAPES[style]) == set(PATTERNS)
    assert WaferMaps(sides=(20, 30)).look() == replace(LOOKS["mixed"], sides=(20, 30))


REFUSED: tuple[tuple[Callable[[], Any], str], ...] = (
    (lambda: WaferMaps(val=-1), "val: found -1, wanted an integer from 0 up; change it."),
    (
        lambda: WaferMaps(style="other"),  # type: ignore[arg-type]
        "style: found 'other', wanted one of mixed, wm811k; change it.",
    ),
    (
        lambda: WaferMaps(singles=-0.5),
        "singles: found -0.5, wanted a weight from 0 up, or null for the style's; change it.",
    ),
    (
        lambda: WaferMaps(none=0, singles=0, mixtures=0),
        "none, singles, mixtures: found 0 for all three, wanted one weight above 0; change it.",
    ),
    (
        lambda: WaferMaps(sides=(8, 52)),
        "sides: found 8, 52, wanted two integers from 16 to 512, rising; change it.",
    ),
    (
        lambda: WaferMaps(sides=(64, 52)),
        "sides: found 64, 52, wanted two integers from 16 to 512, rising; change it.",
    ),
    (
        lambda: WaferMaps(background=(0.2, 0.1)),
        "background: found 0.2, 0.1, wanted two numbers from 0 to 0.5, rising; change it.",
    ),
    (
        lambda: WaferMaps(background_none=(0.0, 0.9)),
        "background_none: found 0, 0.9, wanted two numbers from 0 to 0.5, rising; change it.",
    ),
    (
        lambda: WaferMaps(density=(0.5, 1.5)),
        "density: found 0.5, 1.5, wanted two numbers from 0.2 to 1, rising; change it.",
    ),
    (
        lambda: WaferMaps(background=(0.1, 0.5), density=(0.4, 1.0)),
        "density: found 0.4 at the least, wanted more than the background's 0.5, or no zone can "
        "be seen; change it.",
    ),
    (
        lambda: WaferMaps(edge_fails=(-0.1, 0.1)),
        "edge_fails: found -0.1, 0.1, wanted two numbers from 0 to 0.5, rising; change it.",
    ),
    (
        lambda: MapLook(aspect=0.5),
        "aspect: found 0.5, wanted a number from 1 to 2; change it.",
    ),
    (
        lambda: MapLook(unevenness=1.5),
        "unevenness: found 1.5, wanted a number from 0 to 1; change it.",
    ),
    (
        lambda: MapLook(clutter=21.0),
        "clutter: found 21, wanted a number from 0 to 20; change it.",
    ),
    (
        lambda: MapLook(untested=-1.0),
        "untested: found -1, wanted a number from 0 to 1; change it.",
    ),
    (
        lambda: WaferMaps().open(Path("d"), select={"z": 0}),
        "image.select: found {'z': 0} for wafer maps in d, wanted nothing, as a wafer map is not "
        "a stack; remove it.",
    ),
)


@pytest.mark.parametrize(("action", "text"), REFUSED, ids=[text[:24] for _, text in REFUSED])
def test_options_out_of_range_are_refused(action: Callable[[], Any], text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        action()
    assert str(caught.value) == text


def test_a_pattern_that_is_none_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="'Swirl' is none of the patterns Center, Donut"):
        draw_map(np.random.default_rng(0), MapLook(), ("Swirl",))


def test_written_maps_read_back_with_a_page_and_a_mask_for_each_pattern(tmp_path: Path) -> None:
    options = WaferMaps(style="mixed", train=2, val=0, test=3, none=0, singles=0)
    out = tmp_path / "maps"
    paths = write_wafer_maps(out, options)
    data = options.open(Path())
    assert [path.stem for path in paths] == [entry.id for entry in data.entries()]
    coco = COCO(out / "coco.json")
    files = {image["file_name"]: image["id"] for image in coco.dataset["images"]}
    for entry, path in zip(data.entries(), paths, strict=True):
        drawn = options.drawn(entry)
        np.testing.assert_array_equal(tifffile.imread(path), drawn.dies)
        pages = tifffile.imread(out / "labels" / path.name)
        np.testing.assert_array_equal(pages > 0, drawn.zones)
        marked = np.zeros_like(drawn.zones)
        for one in coco.loadAnns(coco.getAnnIds(files[f"images/{path.name}"])):
            name = coco.cats[one["category_id"]]["name"]
            rle = read_segmentation(one["segmentation"], shape=drawn.dies.shape, where=path)
            marked[PATTERNS.index(name)] |= rle.to_mask()
        np.testing.assert_array_equal(marked, drawn.zones)
    index = (out / "index.csv").read_text().splitlines()
    assert index[0] == "split,image,kind,height,width"
    assert len(index) == 6
    with pytest.raises(OutputError, match="a folder with files in it"):
        write_wafer_maps(out, options)
