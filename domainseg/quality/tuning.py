"""Which setting serves a stated aim, given what each setting finds on validation images.

A setting is judged by what it finds: of the truth objects a share (**recall**), of its calls
a share that is right (**precision**). F1 is the harmonic mean of the two. The **escape rate**
is the share of truth objects that nobody calls; what is bounded is the upper end of its
95 % interval (Wilson 1927), as the validation images are a sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import UsageError, sentence
from domainseg.quality.statistics import wilson_interval

AimName = Literal["f1", "recall", "escape"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a setting is to serve.

    Attributes:
        name: ``f1``: the best F1; ``recall``: the highest recall with at most
            ``false_calls_per_mpx``; ``escape``: the fewest false calls with an escape rate
            whose upper bound is at most ``escape_rate``.
        false_calls_per_mpx: with ``recall``.
        escape_rate: with ``escape``, between 0 and 1.
    """

    name: AimName = "f1"
    false_calls_per_mpx: float | None = None
    escape_rate: float | None = None

    def __post_init__(self) -> None:
        given = {
            "recall": self.false_calls_per_mpx is not None,
            "escape": self.escape_rate is not None,
        }
        for name, is_given in given.items():
            if is_given != (self.name == name):
                option = {"recall": "false_calls_per_mpx", "escape": "escape_rate"}[name]
                raise UsageError(
                    sentence(
                        "aim",
                        found=f"{self.name} {'with' if is_given else 'without'} {option}",
                        wanted=f"{option} with the aim {name}, and with no other",
                        fix=f"{'drop' if is_given else 'give'} {option}",
                    )
                )
        if self.escape_rate is not None and not 0 < self.escape_rate < 1:
            raise _out_of_range("escape_rate", self.escape_rate, "between 0 and 1")
        budget = self.false_calls_per_mpx
        if budget is not None and not 0 <= budget < math.inf:
            raise _out_of_range("false_calls_per_mpx", budget, "of 0 or more")


def _out_of_range(name: str, value: float, wanted: str) -> UsageError:
    return UsageError(
        sentence(f"aim.{name}", found=f"{value:g}", wanted=f"a number {wanted}", fix="change it")
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one setting finds on the validation images.

    Attributes:
        truths: number of truth objects.
        found: those that were found.
        calls: number of calls.
        false: those that are false.
        mpx: inspected area, Mpx.
    """

    truths: int
    found: int
    calls: int
    false: int
    mpx: float

    @property
    def recall(self) -> float:
        """Found / truths; 1 without a truth object."""
        return self.found / self.truths if self.truths else 1.0

    @property
    def precision(self) -> float:
        """Calls that are not false / calls; 1 without a call."""
        return (self.calls - self.false) / self.calls if self.calls else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision."""
        total = self.recall + self.precision
        return 2 * self.recall * self.precision / total if total else 0.0

    @property
    def false_per_mpx(self) -> float:
        """False calls per Mpx."""
        return self.false / self.mpx if self.mpx else math.inf

    @property
    def escape_bound(self) -> float:
        """Upper end of the 95 % interval of the escape rate."""
        return wilson_interval(self.truths - self.found, self.truths).high


@dataclass(frozen=True, slots=True)
class Evidence:
    """Truth objects and calls of all validation images at one way to decode them.

    Attributes:
        found_from: ``(N,)``, the score of calls from which on each truth object is found,
            -inf where it never is.
        call_scores: ``(M,)``.
        false: bool ``(M,)``.
        mpx: inspected area, Mpx.
    """

    found_from: NDArray[np.float64]
    call_scores: NDArray[np.float64]
    false: NDArray[np.bool_]
    mpx: float

    def at(self, min_score: float) -> Outcome:
        """Return what is found when calls below ``min_score`` are dropped."""
        kept = self.call_scores >= min_score
        return Outcome(
            truths=len(self.found_from),
            found=int(np.count_nonzero(self.found_from >= min_score)),
            calls=int(np.count_nonzero(kept)),
            false=int(np.count_nonzero(kept & self.false)),
            mpx=self.mpx,
        )

    def at_each(self, min_scores: NDArray[np.float64]) -> Iterator[Outcome]:
        """Yield what `at` returns for each score."""
        kinds = (self.found_from, self.call_scores, self.call_scores[self.false])
        counts = [len(kind) - np.searchsorted(np.sort(kind), min_scores) for kind in kinds]
        for found, calls, false in zip(*(count.tolist() for count in counts), strict=True):
            yield Outcome(len(self.found_from), found, calls, false, self.mpx)


def preference(outcome: Outcome, aim: Aim) -> tuple[float, ...]:
    """Return what makes one outcome better than another for the aim: the larger tuple wins.

    Where no setting keeps a bound, the one nearest to it wins.
    """
    if aim.name == "f1":
        return (outcome.f1, outcome.recall)
    if aim.name == "recall":
        assert aim.false_calls_per_mpx is not None
        over = max(0.0, outcome.false_per_mpx - aim.false_calls_per_mpx)
        return (-over, outcome.recall, -outcome.false_per_mpx)
    assert aim.escape_rate is not None
    over = max(0.0, outcome.escape_bound - aim.escape_rate)
    return (-over, -outcome.false_per_mpx, outcome.recall)


def keeps(outcome: Outcome, aim: Aim) -> bool:
    """Return whether the outcome keeps the bound that the aim states."""
    return aim.name == "f1" or preference(outcome, aim)[0] == 0


def best_score(evidence: Evidence, aim: Aim, *, floor: float) -> float:
    """Return the smallest score of calls that serves the aim best.

    Tried is 0, which drops no call, and the score of every call above ``floor``; of equally
    good ones the lowest is taken, the one that drops the fewest calls. What is returned lies
    between that call's score and the next lower one.
    """
    scores = np.unique(evidence.call_scores)
    best, least = preference(evidence.at(0.0), aim), 0.0
    for (lower, score), outcome in zip(
        pairwise((0.0, *scores.tolist())), evidence.at_each(scores), strict=True
    ):
        gained = preference(outcome, aim)
        if score > floor and gained > best:
            best, least = gained, between(lower, score)
    return least


def between(low: float, high: float) -> float:
    """Return the shortest decimal between two numbers, from the first on below the second.

    A limit on an object's own score would be a matter of its last bit, which a sum in
    another order may change.
    """
    for digits in range(1, 17):
        middle = round(0.5 * (low + high), digits)
        if low < middle < high:
            return middle
    return low


def area_candidates(areas_px: NDArray[np.int64]) -> list[int]:
    """Return smallest areas worth trying: 0 and low quantiles of the true areas, px, rising."""
    if not len(areas_px):
        return [0]
    quantiles = np.quantile(areas_px, (0.0, 0.005, 0.01, 0.02, 0.05), method="lower")
    halves = [int(quantiles[0]) // 4, int(quantiles[0]) // 2]
    return sorted({0, *halves, *(int(q) for q in quantiles)})


def class_limits(
    present: NDArray[np.bool_],
    objects: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]],
    *,
    now: tuple[int, float] = (0, 0.0),
) -> tuple[int, float, float]:
    """Return smallest area and score of one class that give its image labels the best F1.

    Args:
        present: bool ``(I,)``, which images have the class.
        objects: per image the areas and the scores of the objects of the class.
        now: the limits so far; they stay unless others are better, and where no image has
            the class, which says nothing of its limits.

    Returns:
        area px, score, and the F1 they reach; of equally good limits the lowest.
    """
    owners = np.concatenate([np.full(len(a), i) for i, (a, _) in enumerate(objects)]).astype(int)
    areas = np.concatenate([a for a, _ in objects])
    scores = np.concatenate([s for _, s in objects])

    def reached(area: int, score: float) -> float:
        return _label_f1(present, owners[(areas >= area) & (scores >= score)])

    best = (*now, reached(*now))
    if not present.any() or not len(scores):
        return best
    tried = np.unique(np.quantile(scores, np.linspace(0, 1, 33), method="lower")).tolist()
    limits = [0.0, *(between(low, high) for low, high in pairwise((0.0, *tried)) if low < high)]
    for area in (0, 2, 4, 6, 8, 12, 16, 24, 32, 48):
        for score in limits:
            f1 = reached(area, score)
            if f1 > best[2] + 1e-12:
                best = (area, score, f1)
    return best


def _label_f1(present: NDArray[np.bool_], called: NDArray[np.int64]) -> float:
    labelled = np.zeros(len(present), bool)
    labelled[called] = True
    either = np.count_nonzero(present) + np.count_nonzero(labelled)
    return 2 * np.count_nonzero(present & labelled) / either if either else 1.0
