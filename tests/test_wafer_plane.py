"""Made-up wafers: pixels are functions of position, dies repeat with their pitch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_wafers import INSIDE, field_of, grid_at, whole_wafer

from domainseg.loaders.wafer_look import LAWS, WaferLook
from domainseg.loaders.wafer_pattern import (
    FILM,
    OUTSIDE,
    STREET,
    Circuit,
    circuit_of,
    lay_pattern,
)
from domainseg.loaders.wafer_plane import WaferPlane
from domainseg.loaders.wafers import Wafers
from domainseg.records import Array, Plane

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
