"""Yield models against their published values, and counts that cluster."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from domainseg.quality.yields import (
    bose_einstein,
    clustering,
    models,
    murphy,
    negative_binomial,
    poisson,
    seeds,
    uniform,
)

means = st.floats(1e-6, 50)


def test_half_a_defect_per_die_by_every_model() -> None:
    given = [round(one.of(0.5), 3) for one in models(alpha=2.0)]
    assert given == [0.607, 0.619, 0.632, 0.667, 0.493, 0.640]


@given(means)
def test_each_model_is_the_mean_of_poisson_over_its_law_of_densities(x: float) -> None:
    def mean(density: stats.rv_continuous) -> float:
        high = density.ppf(1 - 1e-12)
        value, _ = integrate.quad(
            lambda d: np.exp(-d) * density.pdf(d), 0, high, points=[x], limit=200
        )
        return float(value)

    assert murphy(x) == pytest.approx(mean(stats.triang(0.5, 0, 2 * x)), abs=1e-6)
    assert uniform(x) == pytest.approx(mean(stats.uniform(0, 2 * x)), abs=1e-6)
    assert seeds(x) == pytest.approx(mean(stats.expon(scale=x)), abs=1e-6)
    assert negative_binomial(x, alpha=3.0) == pytest.approx(
        mean(stats.gamma(3.0, scale=x / 3.0)), abs=1e-6
    )


@given(means)
def test_the_more_densities_differ_the_more_dies_are_good(x: float) -> None:
    ordered = [poisson(x), murphy(x), uniform(x), seeds(x)]
    assert ordered == sorted(ordered)
    assert negative_binomial(x, alpha=1.0) == pytest.approx(seeds(x))
    assert negative_binomial(x, alpha=1e9) == pytest.approx(poisson(x), rel=1e-5)


def test_without_defects_every_die_is_good() -> None:
    assert [one.of(0.0) for one in models(alpha=2.0)] == [1.0] * 6
    # Where differences are lost in rounding, they must not become more than 1.
    assert all(1 - 1e-5 < one.of(1e-12) <= 1 for one in models(alpha=2.0))


def test_the_negative_binomial_is_shown_only_where_its_alpha_is_known() -> None:
    assert [one.name for one in models(None)] == [
        "Poisson",
        "Murphy, triangular",
        "Murphy, uniform",
        "Seeds",
        "Seeds, other form",
    ]
    assert models(2.0)[-1].name == "negative binomial, alpha 2"
    for alpha in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"alpha is .*, wanted a number above 0"):
            negative_binomial(1.0, alpha=alpha)


def test_critical_layers_fail_one_by_one() -> None:
    (model,) = models(None, layers=3)[-1:]
    assert model.name == "Bose-Einstein, 3 critical layers"
    assert model.of(0.5) == pytest.approx(seeds(0.5) ** 3)
    with pytest.raises(ValueError, match="layers is 0, wanted a whole number above 0"):
        bose_einstein(0.5, layers=0)


def test_clustered_counts_are_found_out_and_their_alpha_is_near() -> None:
    rng = np.random.default_rng(0)
    made = clustering(rng.negative_binomial(2.0, 2.0 / 2.84, 2000))
    assert made is not None
    assert made.ratio is not None
    assert made.p_value is not None
    assert made.alpha is not None
    assert made.ratio == pytest.approx(1.42, abs=0.1)
    assert made.p_value < 1e-20
    assert made.alpha == pytest.approx(2.0, abs=0.5)


def test_independent_counts_are_called_clustered_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(1)
    found = [clustering(rng.poisson(1.5, 400)) for _ in range(400)]
    below = [one is not None and one.p_value is not None and one.p_value < 0.05 for one in found]
    assert 0.02 < np.mean(below) < 0.09


def test_the_test_of_dispersion_by_hand() -> None:
    counts = np.array([0, 1, 0, 5, 2, 0, 0, 1])
    made = clustering(counts)
    assert made is not None
    chi2 = ((counts - counts.mean()) ** 2).sum() / counts.mean()
    assert made.p_value == pytest.approx(stats.chi2.sf(chi2, 7), rel=1e-9)
    assert made.alpha == pytest.approx(counts.mean() ** 2 / (counts.var(ddof=1) - counts.mean()))


def test_even_counts_have_no_alpha_and_few_dies_no_answer() -> None:
    even = clustering(np.array([2, 2, 2, 2]))
    assert even is not None
    assert (even.ratio, even.alpha) == (0.0, None)
    assert even.p_value == 1.0
    nothing = clustering(np.zeros(5, np.int64))
    assert nothing is not None
    assert (nothing.ratio, nothing.p_value, nothing.alpha) == (None, None, None)
    assert clustering(np.array([3])) is None
    assert clustering(np.array([], np.int64)) is None
