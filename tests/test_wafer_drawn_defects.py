"""Defects of made-up wafers: on their pattern, as strong as asked for, where asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_wafers import INSIDE, field_of, grid_at, whole_wafer
from numpy.typing import NDArray
from scipy import ndimage

from domainseg.loaders.wafer_classes import outline
from domainseg.loaders.wafer_look import LAWS, WaferLook
from domainseg.loaders.wafer_pattern import (
    BEVEL_UM,
    EMPTY,
    FILM,
    circuit_of,
)
from domainseg.loaders.wafer_pattern import COLUMNS as LINES_UP
from domainseg.loaders.wafer_pattern import ROWS as LINES_ACROSS
from domainseg.loaders.wafer_places import Area, spots, spread_of
from domainseg.loaders.wafer_plane import WaferPlane
from domainseg.loaders.wafer_shapes import blob, draw, gathered, polyline
from domainseg.loaders.wafers import PLACES, Wafers
from domainseg.records import Array

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
