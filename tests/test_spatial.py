"""Parts of a wafer against the rest, and clusters against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from domainseg.quality.spatial import (
    QUADRANTS,
    RINGS,
    SECTORS,
    Part,
    clusters,
    holm,
    parts,
    rings_of,
    sectors_of,
)

RADIUS = 150_000.0
Floats = NDArray[np.float64]


def disc(count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return places spread evenly over the wafer."""
    radius, angle = RADIUS * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    return radius * np.cos(angle), radius * np.sin(angle)


def cells(pitch: float = 2_000.0) -> tuple[Floats, Floats]:
    """Return the middles ``(N, 2)`` of the wafer's dies and their areas in cm2."""
    steps = np.arange(-RADIUS + pitch / 2, RADIUS, pitch)
    x, y = (v.ravel() for v in np.meshgrid(steps, steps))
    inside = np.hypot(x, y) < RADIUS
    middles = np.stack([x[inside], y[inside]], 1)
    return middles, np.full(len(middles), (pitch * 1e-4) ** 2)


def parts_of(x: Floats, y: Floats) -> dict[tuple[str, str], Part]:
    middles, areas = cells()
    made = parts(x, y, cells_um=middles, cell_cm2=areas, radius_um=RADIUS)
    return {(one.kind, one.name): one for one in made}


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_is_that_of_statsmodels(values: list[float]) -> None:
    wanted = multipletests(values, method="holm")[1] if values else []
    np.testing.assert_allclose(holm(values), wanted, atol=1e-9)


def test_rings_have_equal_areas_and_sectors_equal_angles() -> None:
    x, y = disc(200_000, np.random.default_rng(0))
    for made, count in (
        (rings_of(x, y, RADIUS), RINGS),
        (sectors_of(x, y, QUADRANTS), QUADRANTS),
        (sectors_of(x, y, SECTORS), SECTORS),
    ):
        np.testing.assert_allclose(np.bincount(made) / len(x), 1 / count, atol=0.005)


def test_places_are_in_the_part_of_their_name() -> None:
    one = np.array([1000.0])
    for x, y, quadrant, sector in (
        (one, 0 * one, "upper right", "0° to 45°"),
        (-one, one, "upper left", "135° to 180°"),
        (-one, -0.5 * one, "lower left", "180° to 225°"),
        (one, -one / 2, "lower right", "315° to 360°"),
    ):
        made = parts_of(x, y)
        assert made["quadrant", quadrant].count == 1
        assert made["sector", sector].count == 1
        assert made["ring", "1 of 5, centre"].count == 1
    beyond = parts_of(np.array([RADIUS * 1.01]), np.array([0.0]))
    assert beyond["ring", "5 of 5, edge"].count == 1


def test_each_kind_of_part_has_all_defects_and_all_of_the_area() -> None:
    x, y = disc(500, np.random.default_rng(1))
    made = parts_of(x, y)
    total = cells()[1].sum()
    for kind, count in (("ring", RINGS), ("quadrant", QUADRANTS), ("sector", SECTORS)):
        mine = [part for (name, _), part in made.items() if name == kind]
        assert len(mine) == count
        assert sum(part.count for part in mine) == 500
        assert sum(part.expected for part in mine) == pytest.approx(500)
        assert sum(part.area_cm2 for part in mine) == pytest.approx(total)


def test_a_part_by_hand() -> None:
    x, y = disc(300, np.random.default_rng(2))
    part = parts_of(x, y)["quadrant", "upper left"]
    count = int(((x < 0) & (y > 0)).sum())
    share = part.area_cm2 / cells()[1].sum()
    assert part.count == count
    assert part.p_value == pytest.approx(stats.binomtest(count, 300, share).pvalue, rel=1e-9)
    assert part.density_per_cm2 == pytest.approx(count / part.area_cm2)
    low = stats.chi2.ppf(0.025, 2 * count) / 2 / part.area_cm2
    assert part.interval.low == pytest.approx(low, rel=1e-9)
    assert part.adjusted >= part.p_value


def test_where_density_is_the_same_seldom_anything_is_found() -> None:
    found = 0
    for seed in range(60):
        made = parts_of(*disc(400, np.random.default_rng(seed)))
        found += min(part.adjusted for part in made.values()) < 0.05
    assert found <= 8


def test_a_ring_and_a_sector_that_hold_more_are_found() -> None:
    rng = np.random.default_rng(3)
    x, y = disc(300, rng)
    angle = rng.uniform(0, 2 * np.pi, 100)
    edge = (np.r_[x, 0.97 * RADIUS * np.cos(angle)], np.r_[y, 0.97 * RADIUS * np.sin(angle)])
    found = {name for name, part in parts_of(*edge).items() if part.adjusted < 0.01}
    assert ("ring", "5 of 5, edge") in found
    assert not any(kind == "sector" for kind, _ in found)
    more_x, more_y = disc(2000, rng)
    inside = sectors_of(more_x, more_y, SECTORS) == 2
    sector = (np.r_[x, more_x[inside][:80]], np.r_[y, more_y[inside][:80]])
    found = {name for name, part in parts_of(*sector).items() if part.adjusted < 0.01}
    assert ("sector", "90° to 135°") in found
    assert not any(kind == "ring" for kind, _ in found)


def test_without_defects_nothing_is_found() -> None:
    made = parts_of(np.zeros(0), np.zeros(0))
    assert len(made) == RINGS + QUADRANTS + SECTORS
    assert {part.adjusted for part in made.values()} == {1.0}
    assert all(part.interval.high > 0 for part in made.values())


def test_an_area_that_lies_in_one_part_is_tested_against_nothing() -> None:
    made = parts(
        np.array([100.0]),
        np.array([100.0]),
        cells_um=np.array([[50.0, 50.0]]),
        cell_cm2=np.array([1.0]),
        radius_um=RADIUS,
    )
    assert made == ()


def by_definition(points: Floats, eps: float, least: int) -> tuple[NDArray[np.bool_], list[int]]:
    """Return which points are cores and the component of each core, by brute force."""
    distance = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    core = (distance <= eps).sum(1) >= least
    component = [-1] * len(points)
    for start in np.flatnonzero(core).tolist():
        if component[start] >= 0:
            continue
        stack = [start]
        while stack:
            here = stack.pop()
            if component[here] >= 0:
                continue
            component[here] = start
            stack += np.flatnonzero(core & (distance[here] <= eps)).tolist()
    return core, component


grid_points = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=0, max_size=60
).map(lambda p: np.array(p, np.float64).reshape(-1, 2))
free_points = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(0, 4, (50, 2)).round(2)
)
line_points = st.lists(st.integers(0, 60), max_size=40).map(
    lambda p: np.stack([np.array(p, np.float64), 2.0 * np.array(p, np.float64)], 1)
)


@given(
    st.one_of(grid_points, free_points, line_points),
    st.sampled_from((0.5, 1.0, 2.0, 2.5)),
    st.integers(2, 6),
)
@settings(max_examples=400, deadline=None)
def test_clusters_are_those_of_the_definition(points: Floats, eps: float, least: int) -> None:
    found = clusters(points[:, 0], points[:, 1], eps_um=eps, min_samples=least)
    core, component = by_definition(points, eps, least)
    # Cores: the same partition.
    pairs = {(component[i], int(found[i])) for i in np.flatnonzero(core).tolist()}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    for i, point in enumerate(points):
        distance = np.hypot(*(points - point).T)
        near = core & (distance <= eps)
        assert (found[i] > 0) == near.any()
        if near.any():
            nearest = distance[core].min()
            assert found[i] in set(found[core & (distance == nearest)].tolist())
    # Numbered by their first defect.
    numbers = found[found > 0]
    _, first = np.unique(numbers, return_index=True)
    assert numbers[np.sort(first)].tolist() == list(range(1, len(first) + 1))


def test_a_heap_takes_no_pairs() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(0, 10, (2, 100_000))
    found = clusters(x, y, eps_um=1000.0, min_samples=5)
    assert (found == 1).all()


def test_equal_places_count_each() -> None:
    x = np.array([0.0, 0.0, 0.0, 9.0])
    assert clusters(x, x, eps_um=1.0, min_samples=3).tolist() == [1, 1, 1, 0]
    assert clusters(x, x, eps_um=1.0, min_samples=4).tolist() == [0, 0, 0, 0]
