"""Made-up wafers: pure functions of position, defects on the pattern, truth in micrometres."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO
from scipy import ndimage

from domainseg.errors import DomainsegError, InputError, OutputError, RecipeError
from domainseg.instances.encode import read_segmentation
from domainseg.loaders import made_up_files, wafer_files
from domainseg.loaders.mask_folder import MaskFolder
from domainseg.loaders.wafer_classes import Scenery, outline
from domainseg.loaders.wafer_files import COLUMNS, write_wafers
from domainseg.loaders.wafer_look import CLASSES, LAWS, WaferLook
from domainseg.loaders.wafer_pattern import (
    BEVEL_UM,
    EMPTY,
    FILM,
    OUTSIDE,
    STREET,
    Circuit,
    circuit_of,
    lay_pattern,
)
from domainseg.loaders.wafer_pattern import COLUMNS as LINES_UP
from domainseg.loaders.wafer_pattern import ROWS as LINES_ACROSS
from domainseg.loaders.wafer_places import Area, spots, spread_of
from domainseg.loaders.wafer_plane import WaferPlane
from domainseg.loaders.wafer_shapes import blob, draw, gathered, polyline
from domainseg.loaders.wafers import PLACES, Wafers
from domainseg.quality.die_grid import DieGrid, read_die_grids
from domainseg.records import Array, Plane

INSIDE = (300.3, 12_345.1)
"""Centre of the wafer in px, from a field well inside it at half a micrometre a pixel."""


def field_of(
    look: WaferLook | None = None, *, seed: int = 1, side: int = 256, count: int = 6, **over: Any
) -> WaferPlane:
    return WaferPlane(look or WaferLook(), seed, (side, side), INSIDE, count=count, **over)


# Pixels are functions of position.


@st.composite
def planes(draw_: st.DrawFn) -> WaferPlane:
    look = WaferLook(
        spacing_um=draw_(st.sampled_from([0.25, 0.5, 1.0, 5.0])),
        wafer_diameter_mm=draw_(st.sampled_from([5.0, 100.0])),
        edge_exclusion_mm=draw_(st.floats(0, 2)),
        pattern=draw_(st.sampled_from(["circuit", "bare"])),
        blur_px=draw_(st.sampled_from([0.0, 0.8, 2.0])),
        texture=draw_(st.sampled_from([0.0, 0.05])),
        scratch_um=(20.0, 5000.0),
        placement=(draw_(st.sampled_from(LAWS)),),
        bits=draw_(st.sampled_from([8, 16])),
    )
    size = (draw_(st.integers(1, 150)), draw_(st.integers(1, 150)))
    # The whole wafer, its edge, or its inside.
    away = draw_(st.floats(0, 1.01)) * 500.0 * look.wafer_diameter_mm / look.spacing_um
    angle = draw_(st.floats(0, 6.3))
    center = (75.2 - away * np.sin(angle), 74.9 - away * np.cos(angle))
    seed = draw_(st.integers(0, 2**63 - 1))
    return WaferPlane(look, seed, size, center, draw_(st.integers(0, 2)), draw_(st.integers(0, 8)))


@settings(deadline=None, max_examples=60)
@given(planes(), st.data())
def test_any_region_equals_that_crop_of_the_whole(plane: WaferPlane, data: st.DataObject) -> None:
    height, width = plane.size
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
    whole, part = plane.region(0, height, 0, width), plane.region(y0, y1, x0, x1)
    np.testing.assert_array_equal(part.image, whole.image[:, y0:y1, x0:x1])
    np.testing.assert_array_equal(part.labels, whole.labels[y0:y1, x0:x1])
    np.testing.assert_array_equal(plane.labels(y0, y1, x0, x1), part.labels)
    assert whole.image.shape == plane.shape
    assert whole.image.dtype == plane.dtype
    assert whole.labels.dtype == plane.label_dtype


def whole_wafer(**over: Any) -> Wafers:
    """Return wafers of 61,200 px across with scratches up to half the wafer long."""
    return Wafers(
        **{
            "view": "wafer",
            "spacing_um": 5.0,
            "particle_um": (20.0, 400.0),
            "scratch_um": (2_000.0, 150_000.0),
            "scratch_width_um": (10.0, 30.0),
            "residue_um": (500.0, 5_000.0),
            "chip_um": (100.0, 2_000.0),
            "good": 0.0,
            **over,
        }
    )


def test_the_labels_of_a_whole_wafer_are_the_same_for_any_tiling() -> None:
    options = whole_wafer()
    plane = options.plane(options.entry("train", 0))
    assert plane.size == (61_200, 61_200)
    rows = plane.defects.shapes.rows
    longest = int(np.argmax(np.nan_to_num(plane.defects.length_um)))
    assert plane.defects.length_um[longest] > 40_000
    # A strip that the longest scratch crosses, in tiles of two sizes.
    top = int(rows[longest, 1:5:2].mean())
    strip = (top, top + 300, int(rows[longest, 2]), int(rows[longest, 4]))
    views = []
    for side in (97, 512):
        out = np.zeros((300, strip[3] - strip[2]), np.int32)
        for y in range(0, 300, side):
            for x in range(0, out.shape[1], side):
                y1, x1 = min(y + side, 300), min(x + side, out.shape[1])
                out[y:y1, x:x1] = plane.labels(top + y, top + y1, strip[2] + x, strip[2] + x1)
        views.append(out)
    np.testing.assert_array_equal(views[0], views[1])
    assert longest + 1 in np.unique(views[0])


def test_a_wafer_image_is_sliced_like_an_array() -> None:
    plane = field_of(side=40)
    whole = plane[...]
    assert isinstance(plane, Plane)
    keys: tuple[Any, ...] = (0, (slice(None), 3, 4), (0, slice(5, 9)), (-1, slice(0, 99), 39))
    for key in (*keys, (slice(0, 1), slice(8, 8))):
        np.testing.assert_array_equal(plane[key], whole[key])
    with pytest.raises(IndexError):
        plane[:, 40]
    with pytest.raises(IndexError, match="wafer image of 40 x 40"):
        plane.labels(0, 41, 0, 40)
    with pytest.raises(ValueError, match="0 x 5"):
        WaferPlane(WaferLook(), 1, (0, 5), INSIDE)


# The wafer and its pattern.


def grid_at(center: tuple[float, float], spacing: float = 0.5, diameter: float = 300.0) -> DieGrid:
    return DieGrid(
        pitch_um=(2000.0, 2400.0),
        center_um=(1200.0, 1000.0),
        wafer_diameter_mm=diameter,
        spacing_um=(spacing, spacing),
        wafer_center_px=center,
    )


def pattern(circuit: Circuit | None, center: tuple[float, float], side: int = 200) -> Array:
    return lay_pattern(grid_at(center), circuit, (0, side, 0, side), edge_exclusion_mm=3.0)


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    return circuit_of((2000.0, 2400.0), 80.0, 2.0, seed=0)


def test_dies_repeat_with_the_pitch(circuit: Circuit) -> None:
    here = pattern(circuit, (300.0, 900.0))
    # 2000 um are 4000 px, 2400 um are 4800 px.
    np.testing.assert_allclose(pattern(circuit, (300.0 + 4000, 900.0 - 3 * 4800)), here, atol=1e-5)
    assert np.abs(pattern(circuit, (350.0, 900.0)) - here).max() > 0.1


def test_streets_run_between_the_dies(circuit: Circuit) -> None:
    # The corner of four dies is 1000 um above and 1200 um left of the wafer's centre.
    values = pattern(circuit, (100.0 + 2000.0, 100.0 + 2400.0))
    # Streets are 160 px wide; test structures keep to their middle.
    for away in (25, 175):
        np.testing.assert_allclose(values[away, 25:175], STREET)
        np.testing.assert_allclose(values[25:175, away], STREET)
    np.testing.assert_allclose(values[10, [10, 190]], FILM)
    assert values.max() <= STREET + 0.34


def test_a_coarse_pixel_is_the_mean_of_the_fine_ones_it_covers(circuit: Circuit) -> None:
    """Lines finer than a pixel turn grey: no beat of pixels with lines."""
    fine = lay_pattern(
        grid_at((-500.0, -700.0), 0.5), circuit, (0, 600, 0, 600), edge_exclusion_mm=3
    )
    # Pixel centres: coarse pixel 0 covers fine pixels 0 to 11, about 5.5.
    center = ((-500.0 - 5.5) / 12, (-700.0 - 5.5) / 12)
    coarse = lay_pattern(grid_at(center, 6.0), circuit, (0, 50, 0, 50), edge_exclusion_mm=3)
    means = fine.reshape(50, 12, 50, 12).mean((1, 3))
    away = np.abs(coarse - means)
    # Only where a pixel looks at two blocks does it take one for both.
    assert np.median(away) < 1e-3
    assert np.mean(away < 0.02) > 0.9
    assert fine.std() > 2 * away.std()


def test_beyond_the_wafer_and_in_the_notch_it_is_dark() -> None:
    def at(y_um: float, x_um: float) -> float:
        grid = grid_at((y_um / 5.0, -x_um / 5.0), 5.0)
        return float(lay_pattern(grid, None, (0, 1, 0, 1), edge_exclusion_mm=3.0)[0, 0])

    assert at(0.0, 0.0) == pytest.approx(FILM)
    assert at(146_900.0, 0.0) == pytest.approx(FILM)
    assert at(-147_500.0, 3_000.0) > FILM
    assert at(0.0, 150_010.0) == pytest.approx(OUTSIDE)
    assert at(-149_500.0, 0.0) == pytest.approx(OUTSIDE)
    assert at(149_500.0, 0.0) > 3 * OUTSIDE
    assert at(-149_200.0, 900.0) > 3 * OUTSIDE


def test_the_whole_wafer_is_in_the_image_with_its_notch_below() -> None:
    options = Wafers(view="wafer", spacing_um=500.0, noise=0.001, unevenness=0.0, texture=0.0)
    plane = options.plane(options.entry("val", 3))
    image = plane[0] / 255
    height, width = plane.size
    yy, xx = np.mgrid[:height, :width]
    r = np.hypot(yy - plane.wafer_center_px[0], xx - plane.wafer_center_px[1]) * 0.5
    assert (image[r > 152] < 0.1).all()
    assert (image[r < 146] > 0.2).all()
    assert image[:, [0, -1]].max() < 0.1
    sharp = lay_pattern(plane.die_grid, None, (0, height, 0, width), edge_exclusion_mm=3.0)
    column, flipped = sharp[:, width // 2], sharp[::-1, width // 2]
    assert column[-8:].sum() < flipped[-8:].sum()


# Defects: masks, pattern, strength.


def test_a_pixel_is_a_blobs_when_its_centre_is_inside() -> None:
    grid = grid_at((0.0, 0.0))
    shape = blob((10.3, 11.8), np.full(65, 6.2))
    labels, change = draw(gathered([shape]), (2, 24, 3, 22), grid=grid)
    yy, xx = np.mgrid[2:24, 3:22]
    np.testing.assert_array_equal(labels == 1, np.hypot(yy - 10.3, xx - 11.8) <= 6.2)
    assert change.shape == labels.shape


def test_a_pixel_is_a_scratchs_when_its_centre_is_within_half_the_width() -> None:
    grid = grid_at((0.0, 0.0))
    ends = np.array([[3.0, 2.0, 20.0, 30.0, 1.7], [20.0, 30.0, 35.0, 28.0, 1.7]])
    shape = polyline(ends, length_px=1.0, grain=0.0, grain_seed=0)
    labels, _ = draw(gathered([shape]), (0, 40, 0, 40), grid=grid)
    yy, xx = np.mgrid[:40, :40]
    points = np.stack([yy, xx], -1).astype(float)
    wanted = np.zeros((40, 40), bool)
    for row in ends:
        a, b = row[:2], row[2:4]
        t = np.clip(((points - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        wanted |= np.linalg.norm(points - a - t[..., None] * (b - a), axis=-1) <= 1.7
    np.testing.assert_array_equal(labels == 1, wanted)


def test_a_later_defect_covers_an_earlier_one() -> None:
    shapes = gathered([blob((5.0, 5.0), np.full(65, 3.0)), blob((5.0, 8.0), np.full(65, 3.0))])
    labels, _ = draw(shapes, (0, 12, 0, 14), grid=grid_at((0.0, 0.0)))
    assert labels[5].tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 0, 0]


@given(st.floats(1.0, 40.0), st.floats(0, 2), st.floats(0, 0.5), st.integers(0, 99))
def test_no_outline_is_too_small_for_a_pixels_centre(
    radius: float, elongation: float, irregularity: float, seed: int
) -> None:
    edge = outline(
        np.random.default_rng(seed), radius, elongation=elongation, irregularity=irregularity
    )
    assert edge.min() >= 0.75 > np.sqrt(0.5)
    assert edge[0] == edge[-1]


def of_class(name: str, *, count: int = 24, **over: Any) -> Iterator[tuple[WaferPlane, int]]:
    """Yield fields with defects of one class, and the number of each."""
    look = WaferLook(classes=(name,), **over)  # type: ignore[arg-type]
    for seed in range(count // 6):
        plane = WaferPlane(look, seed, (400, 400), INSIDE, circuit=seed, count=6)
        for n in range(len(plane.defects)):
            yield plane, n


def metal_of(plane: WaferPlane) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return where pixel centres are in lines, and the block at each pixel."""
    look = plane.look
    circuit = circuit_of(look.die_um, look.street_um, look.line_um, seed=plane.circuit)
    on = plane.die_grid.positions(*np.mgrid[: plane.size[0], : plane.size[1]])
    i = np.floor((on.yrel - circuit.origin[0]) / circuit.unit[0]).astype(int)
    j = np.floor((on.xrel - circuit.origin[1]) / circuit.unit[1]).astype(int)
    i, j = (np.clip(k, 0, n - 1) for k, n in zip((i, j), circuit.cells.shape, strict=True))
    blocks = circuit.cells[i, j].astype(np.int64)
    x0, y0, x1, y1, kind, pitch, width, *_ = np.moveaxis(circuit.blocks[blocks], -1, 0)
    inside = (on.xrel >= x0) & (on.xrel <= x1) & (on.yrel >= y0) & (on.yrel <= y1)
    pitch = np.where(pitch > 0, pitch, 1.0)
    up = (on.yrel - y0) % pitch <= width
    across = (on.xrel - x0) % pitch <= width
    metal = np.where(kind == LINES_ACROSS, up, np.where(kind == LINES_UP, across, up & across))
    return metal & inside & (kind != EMPTY), blocks


def test_a_bridge_joins_two_lines() -> None:
    seen = 0
    for plane, n in of_class("bridge"):
        metal, _ = metal_of(plane)
        mask = plane.labels(0, 400, 0, 400) == n + 1
        if mask[2:-2, 2:-2].sum() != mask.sum():
            continue
        assert not (metal & mask).any(), "a bridge lies in the space"
        lines, _ = ndimage.label(metal)
        touched = np.unique(lines[ndimage.binary_dilation(mask) & metal])
        assert len(touched) == 2
        joined, _ = ndimage.label(metal | mask)
        assert len(np.unique(joined[np.isin(lines, touched)])) == 1
        seen += 1
    assert seen >= 12


def test_an_open_cuts_one_line() -> None:
    seen = 0
    for plane, n in of_class("open"):
        metal, _ = metal_of(plane)
        mask = plane.labels(0, 400, 0, 400) == n + 1
        lines, _ = ndimage.label(metal)
        cut = np.unique(lines[mask])
        assert len(cut) == 1
        assert cut[0] > 0, "an open lies on a line"
        left, parts = ndimage.label((lines == cut[0]) & ~mask)
        if mask[2:-2, 2:-2].sum() == mask.sum():
            # One part only where the gap is at the very end of the line in this field.
            assert parts in (1, 2)
            assert left.any()
            seen += parts == 2
    assert seen >= 10


def test_a_missing_via_is_one_whole_via() -> None:
    seen = 0
    for plane, n in of_class("missing_via"):
        metal, _ = metal_of(plane)
        mask = plane.labels(0, 400, 0, 400) == n + 1
        vias, _ = ndimage.label(metal)
        (found,) = np.unique(vias[mask])
        assert found > 0
        np.testing.assert_array_equal(mask, vias == found)
        seen += 1
    assert seen >= 12


def test_a_chip_of_a_die_stays_in_its_die() -> None:
    look = WaferLook(classes=("edge_chip",))
    # A corner of four dies is in the middle of the field.
    plane = WaferPlane(look, 4, (400, 400), (200.0 + 2000.0, 200.0 + 2400.0), count=8)
    labels = plane.labels(0, 400, 0, 400)
    assert len(plane.defects) == 8
    on = plane.die_grid.positions(*np.mgrid[:400, :400])
    street = 0.5 * look.street_um
    active = (on.xrel >= street) & (on.xrel <= 2400 - street)
    active &= (on.yrel >= street) & (on.yrel <= 2000 - street)
    for n in np.unique(labels[labels > 0]):
        mask = labels == n
        assert active[mask].all()
        assert len(np.unique(on.xi[mask])) == len(np.unique(on.yi[mask])) == 1
        assert not active[ndimage.binary_dilation(mask)].all(), "a chip is at an edge"


def test_a_chip_of_the_wafer_stays_on_the_wafer() -> None:
    look = WaferLook(classes=("edge_chip",))
    plane = WaferPlane(look, 4, (400, 400), (200.0, 200.0 - 300_000.0), count=4)
    labels = plane.labels(0, 400, 0, 400)
    yy, xx = np.mgrid[:400, :400]
    r = np.hypot(yy - plane.wafer_center_px[0], xx - plane.wafer_center_px[1])
    assert len(np.unique(labels)) == 5
    assert r[labels > 0].max() <= 300_000
    for n in range(1, 5):
        assert r[labels == n].max() > 300_000 - 2


def test_a_scratch_with_gaps_is_one_object_of_several_parts() -> None:
    parts = []
    for plane, n in of_class("scratch", count=36, scratch_um=(60.0, 120.0), scratch_gaps=3):
        mask = plane.labels(0, 400, 0, 400) == n + 1
        parts.append(ndimage.label(mask, np.ones((3, 3)))[1])
    assert min(parts) >= 1
    assert len([number for number in parts if number >= 2]) >= 8


def test_the_length_of_a_scratch_is_that_of_its_centre_line_gaps_included() -> None:
    look = WaferLook(classes=("scratch",), scratch_um=(50.0, 60.0), scratch_width_um=(1.5, 2.0))
    for seed in range(8):
        plane = WaferPlane(look, seed, (900, 900), INSIDE, count=3)
        shapes, defects = plane.defects.shapes, plane.defects
        for n, row in enumerate(shapes.rows):
            segments = shapes.segments[int(row[7]) : int(row[8])]
            drawn = np.linalg.norm(segments[:, 2:4] - segments[:, :2], axis=1).sum()
            jumps = np.linalg.norm(segments[1:, :2] - segments[:-1, 2:4], axis=1).sum()
            whole = (segments[:, :4] >= -0.5).all() and (segments[:, :4] <= 899.5).all()
            if whole:
                # A gap is bridged by a chord here, shorter by a curve's sagitta only.
                assert defects.length_um[n] == pytest.approx(0.5 * (drawn + jumps), rel=2e-3)
                assert 50.0 <= defects.length_um[n] <= 60.0
            assert 1.5 <= defects.width_um[n] <= 2.0


def test_the_length_of_a_scratch_counts_inside_the_image_only() -> None:
    look = WaferLook(classes=("scratch",), scratch_um=(900.0, 1000.0), scratch_gaps=0)
    plane = field_of(look, count=4)
    labels = plane.labels(0, 256, 0, 256)
    for n in range(4):
        y, x = np.nonzero(labels == n + 1)
        chord = 0.5 * np.hypot(np.ptp(y), np.ptp(x))
        assert 0.7 * chord < plane.defects.length_um[n] < 2 * chord + 5
    assert np.isnan(field_of(WaferLook(classes=("pit",))).defects.length_um).all()


FLAT = {"pattern": "bare", "unevenness": 0.0, "texture": 0.0, "bits": 16}


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("particle", {}),
        ("pit", {}),
        ("scratch", {}),
        ("residue", {"residue_um": (10.0, 40.0)}),
        ("residue", {"residue_um": (160.0, 260.0)}),
        ("scratch", {"scratch_um": (250.0, 400.0)}),
    ],
)
def test_contrast_to_noise_is_what_is_measured(name: str, over: dict[str, Any]) -> None:
    look = WaferLook(classes=(name,), contrast_to_noise=(3.0, 3.0), **FLAT, **over)  # type: ignore[arg-type]
    found = []
    for seed in range(16):
        plane = WaferPlane(look, seed, (700, 700), INSIDE, count=1)
        image, labels = plane.region(0, 700, 0, 700)
        mask = labels == 1
        near = ndimage.distance_transform_edt(~mask)
        ring = (near > 4) & (near < 12)
        values = image[0] / 65535
        contrast = abs(values[mask].mean() - values[ring].mean())
        found.append(contrast / values[ring].std())
    assert np.mean(found) == pytest.approx(3.0, rel=0.1)


def test_on_a_pattern_contrast_is_what_the_defect_changes() -> None:
    look = WaferLook(contrast_to_noise=(4.0, 4.0), unevenness=0.0, texture=0.0, bits=16)
    found = []
    for seed in range(8):
        plane = WaferPlane(look, seed, (400, 400), INSIDE, circuit=seed, count=6)
        bare = WaferPlane(look, seed, (400, 400), INSIDE, circuit=seed, count=0)
        image, labels = plane.region(0, 400, 0, 400)
        change = (image[0].astype(float) - bare[0]) / 65535
        found += [
            abs(change[labels == n].mean()) / look.noise
            for n in range(1, len(plane.defects) + 1)
            if (labels == n).sum() >= 9
        ]
    assert len(found) > 30
    assert np.median(found) == pytest.approx(4.0, rel=0.05)


def test_noise_on_film_at_full_light_has_its_deviation_and_grows_with_the_light() -> None:
    look = WaferLook(**FLAT, noise=0.03)  # type: ignore[arg-type]
    values = field_of(look, count=0, side=400)[0] / 65535
    assert values.mean() == pytest.approx(FILM, rel=0.01)
    assert values.std() == pytest.approx(0.03, rel=0.02)
    alone = (values - values.mean()) / values.std()
    for shifted in (alone[1:] * alone[:-1], alone[:, 1:] * alone[:, :-1]):
        assert abs(shifted.mean()) < 0.01
    dark = WaferPlane(look, 0, (200, 200), (0.0, 400_000.0), count=0)[0] / 65535
    assert dark.std() < 0.02


def test_texture_has_its_deviation_and_is_not_that_of_another_image() -> None:
    look = WaferLook(pattern="bare", unevenness=0.0, texture=0.1, noise=0.001, bits=16)
    first, second = (
        field_of(look, count=0, side=1500, seed=seed)[0] / 65535 / FILM - 1 for seed in (1, 2)
    )
    assert first.std() == pytest.approx(0.1, rel=0.1)
    assert abs((first * second).mean()) < 0.15 * 0.1**2


def test_small_defects_keep_clear_of_each_other_where_there_is_room() -> None:
    look = WaferLook(classes=("particle", "pit", "bridge", "missing_via"))
    for seed in range(5):
        plane = WaferPlane(look, seed, (700, 700), INSIDE, count=25)
        labels = plane.labels(0, 700, 0, 700)
        assert len(np.unique(labels)) == 26
        low = ndimage.grey_dilation(labels, size=(3, 3))
        high = np.where(labels > 0, labels, np.iinfo(np.int32).max)
        assert (ndimage.grey_erosion(high, size=(3, 3)) >= low)[low > 0].all()


# Where defects fall.


@pytest.mark.parametrize("law", LAWS)
def test_every_placement_stays_on_the_wafer_and_in_the_image(law: Any) -> None:
    for size, center in (((400, 300), (2000.0, -500.0)), ((2000, 2000), (999.5, 999.5))):
        area = Area(size, center, 950.0 if size[0] == 2000 else 2600.0)
        rng = np.random.default_rng(3)
        found = spots(rng, area, spread_of(law, rng, area), count=300)
        assert area.inside(found).all()
        assert len(found) > 20


def test_placements_have_their_shapes() -> None:
    area = Area((2000, 2000), (999.5, 999.5), 950.0)

    def polar(law: Any, seed: int) -> tuple[Array, Array, Array]:
        rng = np.random.default_rng(seed)
        points = spots(rng, area, spread_of(law, rng, area), count=400)
        away = points - 999.5
        return np.hypot(*away.T), np.arctan2(*away.T), points

    for seed in range(4):
        assert polar("ring", seed)[0].std() < 0.06 * 950
        assert polar("random", seed)[0].std() > 0.15 * 950
        turned = np.exp(1j * polar("sector", seed)[1])
        assert abs(turned.mean()) > 0.9
        assert abs(np.exp(1j * polar("random", seed)[1]).mean()) < 0.2
        points = polar("line", seed)[2]
        assert np.linalg.svd(points - points.mean(0))[1][1] / 20 < 0.02 * 950
        near = polar("cluster", seed)[2]
        apart = np.linalg.norm(near[:, None] - near[None], axis=2)
        assert np.median(np.sort(apart, 1)[:, 40]) < 0.12 * 950


def test_scratches_on_a_wafer_run_from_micrometres_to_across_it() -> None:
    options = whole_wafer(scratch_um=(50.0, 280_000.0), classes=("scratch",), density_per_cm2=0.5)
    plane = options.plane(options.entry("test", 0))
    lengths = plane.defects.length_um
    assert lengths.min() < 500
    assert lengths.max() > 100_000
    away = plane.defects.shapes.segments[:, :2] - np.array(plane.wafer_center_px)
    assert np.linalg.norm(away, axis=1).max() * 5.0 <= 150_000 - BEVEL_UM + 1e-6


def test_fields_lie_where_they_are_wanted() -> None:
    for place in PLACES:
        options = Wafers(field_at=(place,), height=200, width=300)
        for number in range(12):
            plane = options.plane(options.entry("train", number))
            on = plane.die_grid.positions(*np.mgrid[:200, :300])
            r = np.hypot(on.x_um, on.y_um) / 1000
            assert r.min() < 150.1
            if place == "die_edge":
                assert len(np.unique(on.xi)) * len(np.unique(on.yi)) >= 2
            if place == "wafer_edge":
                ends = [r.min() < end < r.max() for end in (147.0, 150.0)]
                assert any(ends)


# The data set.


def test_splits_have_their_counts_and_growth_of_one_changes_no_other() -> None:
    options = Wafers(train=5, val=3, test=2, height=64, width=48, levels=(1.5, 3.0))
    opened = options.open(Path())
    entries = opened.entries()
    assert [e.columns["split"] for e in entries] == ["test"] * 2 + ["train"] * 5 + ["val"] * 3
    assert [e.id for e in entries] == sorted(e.id for e in entries)
    assert [e.kind for e in entries[2:6]] == ["cnr 1.5", "cnr 3", "cnr 1.5", "cnr 3"]
    planes_ = [options.plane(entry) for entry in entries]
    assert len({plane.seed for plane in planes_}) == len({p.wafer_center_px for p in planes_}) == 10
    more = Wafers(train=5, val=9, test=2, height=64, width=48, levels=(1.5, 3.0))
    assert set(planes_) < {more.plane(e) for e in more.open(Path()).entries()}
    assert Wafers(seed=1).plane(entries[0]).seed != options.plane(entries[0]).seed
    assert Wafers().entry("val", 0).kind is None


def test_a_sample_is_the_plane_with_its_truth() -> None:
    options = Wafers(height=190, width=210, good=0.0, spacing_um=0.4, levels=(5.0,), bits=16)
    opened = options.open(Path())
    assert opened.classes == CLASSES
    for entry in opened.entries()[:6]:
        sample, plane = opened.load(entry), options.plane(entry)
        np.testing.assert_array_equal(sample.image[:], plane[...])
        assert sample.truth is not None
        np.testing.assert_array_equal(sample.truth.to_label_map(), plane.labels(0, 190, 0, 210))
        np.testing.assert_array_equal(
            sample.truth.classes, plane.defects.classes[sample.truth.ids - 1]
        )
        assert sample.tags == tuple(
            name for k, name in enumerate(CLASSES) if k in sample.truth.classes
        ) or sample.tags == ("good",)
        assert (sample.spacing_um, sample.kind) == ((0.4, 0.4), "cnr 5")
        assert sample.channels == ("grey",)
        assert sample.image.dtype == np.dtype(np.uint16)
        np.testing.assert_allclose(plane.defects.contrast_to_noise, 5.0)


def test_the_share_of_good_images_is_kept_and_they_have_no_defect() -> None:
    options = Wafers(train=400, height=32, width=32, good=0.3, defects=(3, 3))
    entries = [options.entry("train", n) for n in range(400)]
    good = [entry for entry in entries if entry.tags == ("good",)]
    assert 0.22 < len(good) / 400 < 0.38
    sample = options.open(Path()).load(good[0])
    assert sample.truth is not None
    assert (len(sample.truth), sample.tags) == (0, ("good",))
    assert {options.plane(entry).count for entry in entries} == {0, 3}


def test_images_share_as_many_circuits_as_are_asked_for() -> None:
    options = Wafers(circuits=3, height=32, width=32)
    found = {options.plane(options.entry("train", n)).circuit for n in range(40)}
    assert len(found) == 3
    assert found == {options.plane(options.entry("test", n)).circuit for n in range(40)}


def test_classes_are_those_that_the_pattern_and_the_pixels_show() -> None:
    without = ("particle", "scratch", "pit", "residue", "edge_chip")
    assert Wafers(pattern="bare").class_names == without
    assert Wafers(spacing_um=5.0).class_names == without
    assert Wafers(classes=("pit", "open")).class_names == ("pit", "open")


def test_a_whole_wafer_has_defects_by_its_density() -> None:
    options = whole_wafer(density_per_cm2=1.0)
    counts = [options.plane(options.entry("train", n)).count for n in range(40)]
    area = np.pi * 14.7**2
    assert np.mean(counts) == pytest.approx(area, rel=0.03)


# Files.


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Wafers]:
    options = Wafers(
        train=3, val=1, test=1, height=190, width=170, good=0.0, levels=(2.0, 4.0), defects=(5, 9)
    )
    out = tmp_path_factory.mktemp("made") / "wafers"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_up_files, "TILE", 64)
        written = write_wafers(out, options)
    assert [path.stem for path in written.images] == [
        entry.id for entry in options.open(Path()).entries()
    ]
    assert written.coco == out / "coco.json"
    return out, options


def test_written_wafers_read_back_as_they_were(made: tuple[Path, Wafers]) -> None:
    out, options = made
    opened = MaskFolder(index="index.csv", kind="kind", class_name="defect").open(out)
    for entry, mine in zip(opened.entries(), options.open(Path()).entries(), strict=True):
        assert (entry.columns["split"], entry.kind) == (mine.columns["split"], mine.kind)
        read, plane = opened.load(entry), options.plane(mine)
        np.testing.assert_array_equal(read.image[:], plane[...])
        assert read.truth is not None
        np.testing.assert_array_equal(read.truth.to_label_map(), plane.labels(0, 190, 0, 170))
        assert read.spacing_um == pytest.approx((0.5, 0.5))


def test_the_table_says_what_the_labels_show(made: tuple[Path, Wafers]) -> None:
    out, options = made
    table = rows_of(out / "defects.csv")
    assert tuple(table[0]) == COLUMNS
    assert [(r["image"], r["label"], r["class"]) for r in table] == [
        (r["image"], r["label"], r["class"]) for r in rows_of(out / "classes.csv")
    ]
    pitch_y, pitch_x = options.die_um
    for entry in options.open(Path()).entries():
        plane = options.plane(entry)
        labels, defects = plane.labels(0, 190, 0, 170), plane.defects
        rows = [row for row in table if row["image"] == entry.id]
        assert [int(row["label"]) for row in rows] == np.unique(labels[labels > 0]).tolist()
        for row in rows:
            n = int(row["label"])
            y, x = np.nonzero(labels == n)
            assert float(row["area_um2"]) == pytest.approx(len(y) * 0.25)
            assert row["class"] == options.class_names[defects.classes[n - 1]]
            x_um, y_um = float(row["x_um"]), float(row["y_um"])
            assert x_um == pytest.approx((x.mean() - plane.wafer_center_px[1]) * 0.5)
            assert y_um == pytest.approx((plane.wafer_center_px[0] - y.mean()) * 0.5)
            assert int(row["xi"]) * pitch_x + float(row["xrel"]) - pitch_x / 2 == pytest.approx(
                x_um
            )
            assert int(row["yi"]) * pitch_y + float(row["yrel"]) - pitch_y / 2 == pytest.approx(
                y_um
            )
            assert float(row["contrast_to_noise"]) == pytest.approx(float(str(entry.kind)[4:]))
            is_scratch = row["class"] == "scratch"
            assert (row["length_um"] != "") == (row["width_um"] != "") == is_scratch
            if is_scratch:
                assert float(row["length_um"]) == defects.length_um[n - 1]


def test_the_die_grid_is_read_for_every_image(made: tuple[Path, Wafers]) -> None:
    out, options = made
    grids = read_die_grids(out / "die_grid.json")
    for entry in options.open(Path()).entries():
        assert grids[entry.id] == options.plane(entry).die_grid
    text = json.loads((out / "die_grid.json").read_text("utf-8"))
    assert (text["notch"], text["edge_exclusion_mm"]) == ("down", 3.0)
    dies = np.array(text["dies"])
    corners = (np.abs(dies) + 0.5) * np.array([2400.0, 2000.0])
    assert (np.hypot(*corners.T) <= 147_000).all()
    assert len(dies) > 0.97 * np.pi * 147_000**2 / (2400 * 2000) - 400


def test_the_coco_file_holds_the_same_objects(made: tuple[Path, Wafers]) -> None:
    out, options = made
    coco = COCO(out / "coco.json")
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    for image in coco.loadImgs(coco.getImgIds()):
        assert (out / image["file_name"]).is_file()
        name = Path(image["file_name"]).stem
        split, _, number = name.rpartition("-")
        labels = options.plane(options.entry(split, int(number))).labels(0, 190, 0, 170)
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert [one["label"] for one in found] == np.unique(labels[labels > 0]).tolist()
        for one in found:
            rle = read_segmentation(one["segmentation"], shape=(190, 170), where=name)
            np.testing.assert_array_equal(rle.to_mask(), labels == one["label"])


def test_an_image_beyond_coco_has_no_coco_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wafer_files, "countable", lambda size: False)
    options = Wafers(train=1, val=0, test=0, height=40, width=40)
    written = write_wafers(tmp_path / "o", options)
    assert written.coco is None
    assert not (tmp_path / "o" / "coco.json").exists()
    assert len(rows_of(tmp_path / "o" / "index.csv")) == 1


# Refusals.


def refusal(kind: type[DomainsegError], action: Any) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


def test_writing_into_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert refusal(OutputError, lambda: write_wafers(tmp_path, Wafers())) == (
        f"{tmp_path}: found a folder with files in it, wanted a new or empty folder; "
        "choose another or empty it."
    )
    assert refusal(OutputError, lambda: write_wafers(tmp_path / "a.txt", Wafers())) == (
        f"{tmp_path}/a.txt: found a file, wanted a new or empty folder; choose another or empty it."
    )


def test_a_wafer_too_large_for_memory_is_not_loaded_whole() -> None:
    opened = whole_wafer().open(Path())
    assert refusal(InputError, lambda: opened.load(opened.entries()[0])) == (
        "wafer image test-00000: found 61200 x 61200 px, wanted at most 67108864 px to load it "
        "whole; choose view: field or write them to files."
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"noise": 2.0}, "noise: found 2, wanted a number from 0.001 to 0.2; change it."),
    (
        {"particle_um": (3.0, 1.0)},
        "particle_um: found 3, 1, wanted two numbers above 0, the least first; change it.",
    ),
    (
        {"die_um": (100.0, 4000.0)},
        "die_um: found 100, wanted at least two streets and forty lines: 240; change it.",
    ),
    ({"scratch_gaps": -1}, "scratch_gaps: found -1, wanted an integer from 0 up; change it."),
    (
        {"classes": ()},
        f"classes: found an empty list, wanted some of {', '.join(CLASSES)}; change it.",
    ),
    (
        {"classes": ("crack",)},
        f"classes: found 'crack', wanted some of {', '.join(CLASSES)}; change it.",
    ),
    ({"classes": ("pit", "pit")}, "classes: found pit, pit, wanted each class once; change it."),
    (
        {"placement": ("spiral",)},
        "placement: found 'spiral', wanted some of random, cluster, ring, sector, line; change it.",
    ),
    (
        {"classes": ("bridge",), "pattern": "bare"},
        "classes: found bridge on a bare wafer, wanted pattern: circuit and lines of at least "
        "2 px; change pattern, line_um or spacing_um, or leave the class out.",
    ),
    (
        {"classes": ("open",), "spacing_um": 4.0},
        "classes: found open with lines of 0.5 px, wanted pattern: circuit and lines of at least "
        "2 px; change pattern, line_um or spacing_um, or leave the class out.",
    ),
    ({"width": 0}, "width: found 0, wanted an integer from 1 up; change it."),
    (
        {"defects": (4, 2)},
        "defects: found 4, 2, wanted two integers from 0 up, the least first; change it.",
    ),
    ({"good": 1.5}, "good: found 1.5, wanted a number from 0 to 1; change it."),
    (
        {"density_per_cm2": -1.0},
        "density_per_cm2: found -1.0, wanted a number from 0 to 10000; change it.",
    ),
    ({"levels": (3.0, 0.0)}, "levels: found 3.0, 0.0, wanted numbers above 0; change it."),
    (
        {"field_at": ()},
        "field_at: found an empty list, wanted some of anywhere, die_edge, wafer_edge; change it.",
    ),
]


@pytest.mark.parametrize(("options", "wanted"), REFUSED)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], wanted: str) -> None:
    assert refusal(RecipeError, lambda: Wafers(**options)) == wanted


def test_a_wafer_has_no_part_of_a_stack() -> None:
    assert refusal(RecipeError, lambda: Wafers().open(Path("d"), select={"z": 0})) == (
        "image.select: found {'z': 0} for made-up wafers in d, wanted nothing, as a wafer is not "
        "a stack; remove it."
    )


def test_sizes_are_spread_evenly_in_their_logarithm() -> None:
    look = WaferLook()
    scenery = Scenery(look, field_of().die_grid, None, Area((9, 9), (0.0, 0.0), 1.0))
    rng = np.random.default_rng(0)
    sizes = np.array([scenery.px(rng, (1.0, 100.0), least=4.0) for _ in range(4000)])
    assert sizes.min() == 4.0
    assert sizes.max() <= 200.0
    assert np.mean(sizes < 20.0) == pytest.approx(0.5, abs=0.03)
