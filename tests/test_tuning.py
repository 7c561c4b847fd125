"""Which setting serves an aim: by hand, and by trying every one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from domainseg.errors import UsageError
from domainseg.quality.statistics import wilson_interval
from domainseg.quality.tuning import (
    Aim,
    Evidence,
    Outcome,
    area_candidates,
    best_score,
    between,
    class_limits,
    keeps,
    preference,
)

NEVER = -math.inf
EVIDENCE = Evidence(
    found_from=np.array([0.9, 0.8, 0.6, NEVER]),
    call_scores=np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.5]),
    false=np.array([False, False, True, False, True, True]),
    mpx=2.0,
)


def test_an_outcome_by_hand() -> None:
    assert EVIDENCE.at(0.0) == Outcome(truths=4, found=3, calls=6, false=3, mpx=2.0)
    at = EVIDENCE.at(0.6)
    assert at == Outcome(truths=4, found=3, calls=4, false=1, mpx=2.0)
    assert (at.recall, at.precision, at.false_per_mpx) == (0.75, 0.75, 0.5)
    assert at.f1 == 0.75
    assert at.escape_bound == wilson_interval(1, 4).high


def test_without_truth_and_calls_nothing_is_wrong() -> None:
    nothing = Outcome(truths=0, found=0, calls=0, false=0, mpx=1.0)
    assert (nothing.recall, nothing.precision, nothing.f1) == (1.0, 1.0, 1.0)


def test_best_f1_drops_false_calls_where_that_costs_less_than_it_gains() -> None:
    # Between the score of the last call that is kept and that of the first that is dropped.
    assert best_score(EVIDENCE, Aim(), floor=0.0) == 0.55
    assert EVIDENCE.at(0.8).f1 == pytest.approx(2 / 3)
    assert EVIDENCE.at(0.6).f1 == 0.75


def test_recall_keeps_its_budget_of_false_calls() -> None:
    aim = Aim(name="recall", false_calls_per_mpx=0.4)
    score = best_score(EVIDENCE, aim, floor=0.0)
    assert score == 0.75
    assert EVIDENCE.at(score).found == 2
    assert keeps(EVIDENCE.at(score), aim)
    generous = Aim(name="recall", false_calls_per_mpx=0.5)
    assert best_score(EVIDENCE, generous, floor=0.0) == 0.55


def test_escape_keeps_its_bound_with_the_fewest_false_calls() -> None:
    bound = EVIDENCE.at(0.6).escape_bound
    aim = Aim(name="escape", escape_rate=bound)
    assert best_score(EVIDENCE, aim, floor=0.0) == 0.55
    loose = Aim(name="escape", escape_rate=EVIDENCE.at(0.8).escape_bound)
    assert best_score(EVIDENCE, loose, floor=0.0) == 0.75


def test_a_bound_that_cannot_be_kept_is_come_near_to_and_said() -> None:
    aim = Aim(name="escape", escape_rate=0.01)
    score = best_score(EVIDENCE, aim, floor=0.0)
    assert EVIDENCE.at(score).found == 3
    assert not keeps(EVIDENCE.at(score), aim)


@pytest.mark.parametrize(
    "aim",
    [Aim(), Aim(name="recall", false_calls_per_mpx=1.0), Aim(name="escape", escape_rate=0.3)],
    ids=lambda aim: aim.name,
)
def test_no_score_of_a_call_serves_better(aim: Aim) -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        calls = np.round(rng.random(300), 3)
        found = np.where(rng.random(20) < 0.7, rng.choice(calls, 20), NEVER)
        evidence = Evidence(found, calls, rng.random(300) < 0.5, mpx=7.0)
        chosen = best_score(evidence, aim, floor=0.0)
        reached = preference(evidence.at(chosen), aim)
        assert all(preference(evidence.at(score), aim) <= reached for score in (0.0, *calls))
        assert list(evidence.at_each(calls)) == [evidence.at(score) for score in calls]


def test_a_limit_lies_between_two_scores_and_is_short() -> None:
    assert between(0.5, 0.75) == 0.6
    assert between(0.0, 1.0) == 0.5
    assert between(0.123449, 0.123461) == 0.12346
    low = 0.5
    high = float(np.nextafter(np.float32(low), np.float32(1)))
    assert low < between(low, high) < high
    assert between(low, float(np.nextafter(low, 1.0))) == low


def test_areas_that_are_tried_begin_with_none_and_rise() -> None:
    tried = area_candidates(np.array([40, 9, 100, 400]))
    assert tried[0] == 0
    assert tried == sorted(set(tried))
    assert 9 in tried
    assert max(tried) <= 40
    assert area_candidates(np.zeros(0, np.int64)) == [0]


def test_limits_of_a_class_drop_what_is_no_label() -> None:
    present = np.array([True, True, False, False])
    objects = [
        (np.array([30, 2]), np.array([0.9, 0.6])),
        (np.array([25]), np.array([0.7])),
        (np.array([3]), np.array([0.95])),
        (np.array([40]), np.array([0.55])),
    ]
    area, score, f1 = class_limits(present, objects)
    assert f1 == 1.0
    assert 3 < area <= 25
    assert 0.55 < score <= 0.7


def test_a_class_that_is_never_called_has_no_limits() -> None:
    nothing = (np.zeros(0, np.int64), np.zeros(0))
    assert class_limits(np.array([True, False]), [nothing, nothing]) == (0, 0.0, 0.0)
    assert class_limits(np.array([False, False]), [nothing, nothing]) == (0, 0.0, 1.0)


def test_limits_stay_unless_others_are_better() -> None:
    objects = [
        (np.array([30]), np.array([0.9])),
        (np.array([3]), np.array([0.7])),
    ]
    absent = np.array([False, False])
    assert class_limits(absent, objects, now=(6, 0.6)) == (6, 0.6, 0.0)
    # 6 px and .6 leave the one object that is a label; so would 0 px and .8.
    first = np.array([True, False])
    assert class_limits(first, objects, now=(6, 0.6)) == (6, 0.6, 1.0)
    assert class_limits(first, objects, now=(40, 0.6)) == (0, 0.8, 1.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"name": "recall"},
            "aim: found recall without false_calls_per_mpx, wanted false_calls_per_mpx with the "
            "aim recall, and with no other; give false_calls_per_mpx.",
        ),
        (
            {"escape_rate": 0.1},
            "aim: found f1 with escape_rate, wanted escape_rate with the aim escape, and with "
            "no other; drop escape_rate.",
        ),
        (
            {"name": "escape", "escape_rate": 1.0},
            "aim.escape_rate: found 1, wanted a number between 0 and 1; change it.",
        ),
        (
            {"name": "recall", "false_calls_per_mpx": -1.0},
            "aim.false_calls_per_mpx: found -1, wanted a number of 0 or more; change it.",
        ),
    ],
)
def test_aims_that_are_none_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Aim(**options)  # type: ignore[arg-type]
    assert str(caught.value) == words
