"""Laws and published values of the intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.rates import confint_poisson

from domainseg.quality.statistics import (
    Interval,
    Quartiles,
    dispersion,
    poisson_interval,
    quartiles,
    wilson_interval,
)


@given(
    count=st.integers(0, 10**6),
    exposure=st.floats(1e-6, 1e6),
    confidence=st.floats(0.5, 0.999),
)
def test_poisson_interval_is_the_exact_one(count: int, exposure: float, confidence: float) -> None:
    got = poisson_interval(count, exposure=exposure, confidence=confidence)
    low, high = confint_poisson(count, exposure, method="exact-c", alpha=1 - confidence)
    assert got.low == pytest.approx(np.nan_to_num(low), rel=1e-9, abs=1e-300)
    assert got.high == pytest.approx(high, rel=1e-9)


def test_no_object_still_bounds_the_rate_from_above() -> None:
    got = poisson_interval(0, exposure=2.0)
    assert got.low == 0.0
    assert got.high == pytest.approx(3.6888794541 / 2)  # -ln(0.025)


def test_sixteen_defects_on_a_wafer_give_the_published_interval() -> None:
    got = poisson_interval(16, exposure=232.96)
    assert (round(got.low, 4), round(got.high, 4)) == (0.0393, 0.1115)


@given(trials=st.integers(1, 10**6), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_wilson_interval_is_the_score_interval(
    trials: int, share: float, confidence: float
) -> None:
    successes = round(share * trials)
    got = wilson_interval(successes, trials, confidence=confidence)
    low, high = proportion_confint(successes, trials, alpha=1 - confidence, method="wilson")
    assert got.low == pytest.approx(max(low, 0.0), abs=1e-12)
    assert got.high == pytest.approx(min(high, 1.0), abs=1e-12)
    assert 0.0 <= got.low <= successes / trials <= got.high <= 1.0


@given(trials=st.integers(0, 1000))
def test_wilson_interval_of_failures_mirrors_that_of_successes(trials: int) -> None:
    for successes in {0, trials // 3, trials}:
        one, other = wilson_interval(successes, trials), wilson_interval(trials - successes, trials)
        assert one.low == pytest.approx(1 - other.high, abs=1e-12)


def test_wilson_interval_of_five_in_a_hundred() -> None:
    got = wilson_interval(5, 100)
    assert (round(got.low, 4), round(got.high, 4)) == (0.0215, 0.1118)


def test_nothing_tried_is_nothing_known() -> None:
    assert wilson_interval(0, 0) == Interval(0.0, 1.0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: poisson_interval(-1), "a count of -1 is negative"),
        (lambda: poisson_interval(1, exposure=0.0), "exposure of 0.0 is not positive and finite"),
        (lambda: poisson_interval(1, exposure=float("nan")), "not positive and finite"),
        (lambda: poisson_interval(1, confidence=1.0), "confidence 1.0 is not between 0 and 1"),
        (lambda: wilson_interval(3, 2), "3 successes in 2 trials is impossible"),
        (lambda: wilson_interval(-1, 2), "-1 successes in 2 trials is impossible"),
        (lambda: wilson_interval(0, 0, confidence=2.0), "confidence 2.0 is not between"),
        (lambda: dispersion([1, 2], [1.0]), "2 counts do not fit 1 exposures"),
        (lambda: dispersion([1, 2], [1.0, 0.0]), "every exposure must be positive"),
    ],
)
def test_impossible_arguments_are_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=text):
        call()


def test_quartiles_leave_out_what_is_not_a_number() -> None:
    values = np.array([4.0, np.nan, 1.0, 2.0, np.inf, 3.0, 5.0])
    assert quartiles(values) == Quartiles(5, 2.0, 3.0, 4.0)
    assert quartiles(np.array([7.0])) == Quartiles(1, 7.0, 7.0, 7.0)
    assert quartiles(np.array([np.nan])) is None
    assert quartiles(np.zeros(0)) is None


def test_equal_counts_on_equal_areas_have_no_dispersion() -> None:
    got = dispersion([5, 5, 5], [1.0, 1.0, 1.0])
    assert got is not None
    assert (got.index, got.p_value) == (0.0, 1.0)


def test_dispersion_of_equal_areas_is_variance_over_mean() -> None:
    counts = [2, 9, 4, 1]
    got = dispersion(counts, [3.0] * 4)
    assert got is not None
    assert got.index == pytest.approx(np.var(counts, ddof=1) / np.mean(counts))


def test_counts_in_proportion_to_area_are_not_dispersed() -> None:
    got = dispersion([10, 20, 40], [1.0, 2.0, 4.0])
    assert got is not None
    assert got.index == pytest.approx(0.0)


def test_dispersion_needs_two_images_and_one_object() -> None:
    assert dispersion([3], [1.0]) is None
    assert dispersion([0, 0], [1.0, 1.0]) is None
