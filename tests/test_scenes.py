"""Made-up scenes: pure functions of position, exact in truth, written as they are computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from domainseg.errors import DomainsegError, InputError, OutputError, RecipeError
from domainseg.loaders import made_up_files
from domainseg.loaders.mask_folder import MaskFolder
from domainseg.loaders.scene_cells import (
    ANGLES,
    GLOW,
    MIN_SEPARATION,
    Cells,
    Cover,
    cells_near,
    cover,
)
from domainseg.loaders.scene_plane import Look, Scene
from domainseg.loaders.scene_stains import CHANNELS, Stain
from domainseg.loaders.scenes import Scenes, write_scenes
from domainseg.records import Array, Plane

STAINS: tuple[Stain, ...] = tuple(CHANNELS)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    look = Look(
        diameter_px=draw(st.floats(4, 30)),
        density=draw(st.floats(0, 0.9)),
        clumping=draw(st.floats(0, 1)),
        elongation=draw(st.floats(0, 1.5)),
        irregularity=draw(st.floats(0, 0.5)),
        spread=draw(st.floats(0, 0.6)),
        blur_px=draw(st.sampled_from([0.0, 0.7, 3.0])),
        bits=draw(st.sampled_from([8, 16])),
    )
    size = (draw(st.integers(1, 120)), draw(st.integers(1, 120)))
    return Scene(look, draw(st.integers()), size, draw(st.sampled_from(STAINS)))


@settings(deadline=None, max_examples=60)
@given(scenes(), st.data())
def test_any_region_equals_that_crop_of_the_whole(scene: Scene, data: st.DataObject) -> None:
    height, width = scene.size
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
    whole, part = scene.region(0, height, 0, width), scene.region(y0, y1, x0, x1)
    np.testing.assert_array_equal(part.image, whole.image[:, y0:y1, x0:x1])
    np.testing.assert_array_equal(part.labels, whole.labels[y0:y1, x0:x1])
    np.testing.assert_array_equal(scene.labels(y0, y1, x0, x1), part.labels)
    assert whole.image.shape == scene.shape
    assert whole.image.dtype == scene.dtype
    assert whole.labels.dtype == scene.label_dtype


def test_regions_far_out_in_a_huge_scene_agree_where_they_overlap() -> None:
    scene = Scene(Look(diameter_px=12.0), 3, (50_000, 50_000), "stained")
    first = scene.region(49_700, 50_000, 49_600, 49_850)
    second = scene.region(49_800, 49_950, 49_700, 50_000)
    np.testing.assert_array_equal(first.image[:, 100:250, 100:], second.image[:, :, :150])
    np.testing.assert_array_equal(first.labels[100:250, 100:], second.labels[:, :150])
    assert len(np.unique(first.labels)) > 50
    assert scene.label_dtype == np.int32
    assert Scene(Look(diameter_px=4.0), 0, (200_000, 200_000)).label_dtype == np.int64


def test_a_scene_is_sliced_like_an_array() -> None:
    scene = Scene(Look(), 1, (40, 50), "stained")
    whole = scene[...]
    assert isinstance(scene, Plane)
    keys: tuple[Any, ...] = (
        0,
        (slice(None), 3, 4),
        (1, slice(5, 9)),
        (Ellipsis, slice(-7, None)),
        (-1, slice(0, 99), 49),
        (slice(0, 2), slice(8, 8)),
    )
    for key in keys:
        np.testing.assert_array_equal(scene[key], whole[key])
    with pytest.raises(IndexError):
        scene[:, 40]
    with pytest.raises(IndexError):
        scene.labels(0, 41, 0, 50)
    with pytest.raises(ValueError, match="0 x 5"):
        Scene(Look(), 1, (0, 5))


def discs(*rows: tuple[float, float, float]) -> Cells:
    """Return discs ``(y, x, radius)`` with ids from 1 up."""
    table = np.array(rows)
    return Cells(
        np.arange(1, len(rows) + 1),
        table[:, :2].copy(),
        np.repeat(table[:, 2:], ANGLES + 1, 1),
        table[:, 2].copy(),
        np.ones(len(rows)),
    )


def test_a_pixel_belongs_to_the_cell_it_lies_deepest_in() -> None:
    rows = ((20.0, 20.0, 12.0), (20.0, 36.0, 8.0), (33.3, 26.1, 9.5))
    planes = cover(discs(*rows), (3, 50, 2, 60))
    yy, xx = np.mgrid[3:50, 2:60] + 0.5
    depth = np.stack([np.hypot(yy - y, xx - x) / radius for y, x, radius in rows])
    wanted = np.where(depth.min(0) <= 1, depth.argmin(0) + 1, 0)
    np.testing.assert_array_equal(planes.labels, wanted)
    assert planes.labels[17, 25] == 1  # inside both of the first two, deeper in the first
    near = depth.min(0) < GLOW
    np.testing.assert_allclose(planes.rho[near], depth.min(0)[near], rtol=1e-6)
    assert (planes.rho[~near] == np.float32(GLOW)).all()


def test_on_a_tie_the_first_cell_keeps_the_pixel() -> None:
    planes = cover(discs((5.5, 3.5, 4.0), (5.5, 9.5, 4.0)), (0, 11, 0, 13))
    assert planes.labels[5].tolist() == [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]


def kept(look: Look, seed: int = 5, side: int = 600) -> Cells:
    style = (look.diameter_px, look.spread, look.density, look.clumping)
    shape = (look.elongation, look.irregularity)
    return cells_near(seed, (0, side, 0, side), width=side, style=style, shape=shape)


def closeness(cells: Cells) -> Array:
    """Return each close pair's distance in sums of their radii, and 9 for each lone cell."""
    tree: Any = cKDTree(cells.centres)
    pairs: Array = tree.query_pairs(2.0 * cells.reach.max(), output_type="ndarray")
    apart = np.linalg.norm(cells.centres[pairs[:, 0]] - cells.centres[pairs[:, 1]], axis=1)
    nearest = np.full(len(cells.ids), 9.0)
    for column in (0, 1):
        ratio = apart / cells.reach[pairs].sum(1)
        np.minimum.at(nearest, pairs[:, column], ratio)
    return nearest


def test_no_two_cells_are_closer_than_the_separation() -> None:
    look = Look(
        density=0.9, elongation=0.0, irregularity=0.0, spread=0.6, clumping=1.0, diameter_px=8.0
    )
    cells = kept(look, side=3000)
    assert len(cells.ids) > 30_000
    assert closeness(cells).min() >= MIN_SEPARATION
    assert len(np.unique(cells.ids)) == len(cells.ids)


def test_no_cell_or_glow_is_missing_from_a_small_region() -> None:
    look = Look(diameter_px=8.0, elongation=1.5, irregularity=0.5, density=0.9, clumping=1.0)
    whole = cover(kept(look, side=800), (0, 800, 0, 800))
    style, shape = (8.0, look.spread, look.density, look.clumping), (1.5, 0.5)
    rng = np.random.default_rng(0)
    for y, x in rng.integers(0, 790, (400, 2)).tolist():
        region = (y, y + 10, x, x + 10)
        part = cover(cells_near(5, region, width=800, style=style, shape=shape), region)
        for name in Cover._fields:
            wanted = getattr(whole, name)[y : y + 10, x : x + 10]
            np.testing.assert_array_equal(getattr(part, name), wanted)


def test_clumping_puts_cells_in_contact() -> None:
    alone, clumped = (
        closeness(kept(Look(density=0.25, clumping=share, elongation=0.0, irregularity=0.0)))
        for share in (0.0, 0.9)
    )
    assert np.mean(clumped <= 1.0) > np.mean(alone <= 1.0) + 0.25


def test_without_elongation_and_irregularity_cells_are_discs_of_the_diameter() -> None:
    cells = kept(Look(elongation=0.0, irregularity=0.0, spread=0.0, diameter_px=20.0))
    np.testing.assert_allclose(cells.outlines, 10.0)
    shaped = kept(Look(elongation=0.8, irregularity=0.0, spread=0.0, diameter_px=20.0))
    ratio = shaped.outlines.max(1) / shaped.outlines.min(1)
    assert ratio.min() >= 1.0
    assert 1.7 < ratio.max() <= 1.8 + 1e-9
    assert kept(Look(irregularity=0.4)).outlines.std(1).min() > 0


def test_a_cell_is_the_same_from_every_region_that_sees_it() -> None:
    look = Look(irregularity=0.3)
    style = (look.diameter_px, look.spread, look.density, look.clumping)
    shape = (look.elongation, look.irregularity)
    whole = kept(look)
    part = cells_near(5, (250, 260, 100, 300), width=600, style=style, shape=shape)
    rows = np.searchsorted(whole.ids, part.ids)
    assert 5 < len(part.ids) < len(whole.ids) / 2
    for mine, theirs in zip(part, whole, strict=True):
        np.testing.assert_array_equal(mine, theirs[rows])


def test_almost_every_cell_is_in_one_piece() -> None:
    from skimage.measure import label

    scene = Scene(Look(), 2, (900, 900))
    labels = scene.labels(0, 900, 0, 900)
    cells, pieces = len(np.unique(labels)) - 1, int(label(labels, connectivity=2).max())  # type: ignore[no-untyped-call]
    assert cells > 400
    assert pieces - cells <= 2


def test_noise_is_normal_grows_with_the_light_and_is_fresh_at_every_pixel() -> None:
    noisy, clean = (
        Scene(Look(density=0, blur_px=0, noise=share, bits=16), 0, (400, 400), "brightfield")[0]
        / 65535
        for share in (0.05, 0.0)
    )
    values = (noisy - clean) / (0.05 * np.sqrt(clean + 0.04))
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert abs(np.mean(np.abs(values) < 1) - 0.683) < 0.01
    assert abs(np.mean(np.abs(values) < 2) - 0.954) < 0.01
    for shifted in (values[1:] * values[:-1], values[:, 1:] * values[:, :-1]):
        assert abs(shifted.mean()) < 0.01


def mean_inside_and_out(stain: Stain) -> tuple[Array, Array]:
    image, labels = Scene(Look(noise=0.0, unevenness=0.0), 4, (300, 300), stain).region(
        0, 300, 0, 300
    )
    return image[:, labels > 0].mean(1), image[:, labels == 0].mean(1)


def test_each_stain_shows_the_cells_in_its_own_way() -> None:
    inside, outside = mean_inside_and_out("fluorescence")
    assert inside[0] > 4 * outside[0]
    inside, outside = mean_inside_and_out("stained")
    assert (inside < outside).all()
    assert inside[2] > inside[0] > inside[1]  # purple: blue over red over green
    assert outside[0] > outside[1]  # pink
    inside, outside = mean_inside_and_out("brightfield")
    assert 0.7 * outside[0] < inside[0] < outside[0]


def test_the_blur_is_a_gaussian_of_its_width() -> None:
    sharp, blurred = (
        Scene(Look(noise=0, unevenness=0, blur_px=sigma, bits=16), 3, (200, 200))[0].astype(float)
        for sigma in (0.0, 2.5)
    )
    wanted = gaussian_filter(sharp, 2.5)
    inner = (slice(12, -12), slice(12, -12))
    assert np.abs(blurred - wanted)[inner].max() < 0.004 * wanted.max()
    assert np.abs(sharp - wanted)[inner].max() > 0.1 * wanted.max()


def test_unevenness_darkens_the_corners_and_bits_widen_the_scale() -> None:
    look = Look(density=0, noise=0, unevenness=0.8, bits=16)
    image = Scene(look, 0, (400, 400), "brightfield")[0].astype(float)
    corners = np.mean([image[:40, :40], image[-40:, :40], image[:40, -40:], image[-40:, -40:]])
    assert corners < 0.75 * image[180:220, 180:220].mean()
    assert len(np.unique(image)) > 256


def test_splits_have_their_counts_and_no_scene_in_common() -> None:
    options = Scenes(train=5, val=3, test=2, height=64, width=48, stains=STAINS)
    opened = options.open(Path())
    entries = opened.entries()
    assert [e.columns["split"] for e in entries] == ["test"] * 2 + ["train"] * 5 + ["val"] * 3
    assert [e.id for e in entries] == sorted(e.id for e in entries)
    assert [e.kind for e in entries[2:7]] == [*STAINS, *STAINS[:2]]
    assert len({options.scene(e).seed for e in entries}) == 10
    more = Scenes(train=5, val=9, test=2, height=64, width=48, stains=STAINS)
    assert {options.scene(e) for e in entries} < {
        more.scene(e) for e in more.open(Path()).entries()
    }
    assert Scenes(seed=1).scene(entries[0]).seed != options.scene(entries[0]).seed


def test_a_sample_is_the_scene_with_its_truth() -> None:
    options = Scenes(
        height=90, width=110, stains=("stained",), spacing_um=0.25, class_name="nucleus"
    )
    opened = options.open(Path())
    entry = opened.entries()[0]
    sample, scene = opened.load(entry), options.scene(entry)
    np.testing.assert_array_equal(sample.image[:], scene[...])
    assert sample.truth is not None
    np.testing.assert_array_equal(sample.truth.to_label_map(), scene.labels(0, 90, 0, 110))
    assert (sample.spacing_um, sample.kind) == ((0.25, 0.25), "stained")
    assert sample.channels == ("red", "green", "blue")
    assert opened.classes == ("nucleus",)
    unknown = Scenes(spacing_um=None)
    assert unknown.scene(unknown.open(Path()).entries()[0]).spacing_um is None


@pytest.mark.parametrize("side", [512, 37])
def test_written_scenes_read_back_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    monkeypatch.setattr(made_up_files, "TILE", 64)
    options = Scenes(train=1, val=1, test=1, height=side // 4, width=side // 2, stains=STAINS[:2])
    out = tmp_path / "made"
    written = write_scenes(out, options)
    assert [path.name for path in written] == [f"{s}-00000.tif" for s in ("test", "train", "val")]
    opened = MaskFolder(index="index.csv", kind="kind", class_name="cell").open(out)
    for entry, made in zip(opened.entries(), options.open(Path()).entries(), strict=True):
        assert (entry.columns["split"], entry.kind) == (made.columns["split"], made.kind)
        read, scene = opened.load(entry), options.scene(made)
        np.testing.assert_array_equal(read.image[:], scene[...])
        assert read.truth is not None
        np.testing.assert_array_equal(read.truth.to_label_map(), scene.labels(0, *_rest(scene)))
        assert read.spacing_um == pytest.approx((0.5, 0.5))


def _rest(scene: Scene) -> tuple[int, int, int]:
    return scene.size[0], 0, scene.size[1]


def refusal(kind: type[DomainsegError], action: Any) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


def test_writing_into_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert refusal(OutputError, lambda: write_scenes(tmp_path, Scenes())) == (
        f"{tmp_path}: found a folder with files in it, wanted a new or empty folder; "
        "choose another or empty it."
    )
    assert refusal(OutputError, lambda: write_scenes(tmp_path / "a.txt", Scenes())) == (
        f"{tmp_path}/a.txt: found a file, wanted a new or empty folder; choose another or empty it."
    )


def test_a_scene_too_large_for_memory_is_not_loaded_whole() -> None:
    opened = Scenes(height=50_000, width=50_000).open(Path())
    assert refusal(InputError, lambda: opened.load(opened.entries()[0])) == (
        "scene test-00000: found 50000 x 50000 px, wanted at most 67108864 px to load it whole; "
        "make the scenes smaller or write them to files."
    )


def test_options_out_of_range_are_refused() -> None:
    assert refusal(RecipeError, lambda: Scenes(noise=2.0)) == (
        "noise: found 2, wanted a number from 0 to 0.5; change it."
    )
    assert refusal(RecipeError, lambda: Look(spacing_um=0.0)) == (
        "spacing_um: found 0, wanted micrometres above 0, or null for unknown; change it."
    )
    assert refusal(RecipeError, lambda: Scenes(width=0)) == (
        "width: found 0, wanted an integer from 1 up; change it."
    )
    assert refusal(RecipeError, lambda: Scenes(stains=())) == (
        "stains: found an empty list, wanted some of fluorescence, stained, brightfield; change it."
    )
    assert refusal(RecipeError, lambda: Scenes().open(Path("d"), select={"z": 0})) == (
        "image.select: found {'z': 0} for made-up scenes in d, wanted nothing, as a scene is not a "
        "stack; remove it."
    )
