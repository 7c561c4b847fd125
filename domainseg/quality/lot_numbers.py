"""The numbers of a lot that rules may be about, each with its interval or why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import gamma
from statsmodels.stats.proportion import proportion_confint

from domainseg.quality.lot import Lot
from domainseg.quality.rules import Accept, Rules
from domainseg.quality.statistics import Interval, poisson_interval

Floats = NDArray[np.float64]
MM2_PER_CM2 = 100.0


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a lot.

    Attributes:
        value: None where it cannot be known.
        interval: of ``confidence``, None where it has none.
        why: where it cannot be known, why not.
    """

    value: float | None
    interval: Interval | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of a lot that rules may be about."""

    lot: Lot
    defects: pl.DataFrame
    dies: pl.DataFrame
    units: pl.DataFrame
    rules: Rules

    def area_cm2(self) -> float | None:
        """Return the inspected area, None where that of a unit is not known."""
        areas = [unit.area_cm2 for unit in self.lot.units]
        return None if None in areas else math.fsum(a for a in areas if a is not None)

    def of(self, rule: Accept) -> Number:
        """Return the number that a rule is about, with the interval that it asks for."""
        counted = self.defects.filter(pl.col("counts"))
        if rule.class_name is not None:
            counted = counted.filter(pl.col("class") == rule.class_name)
        name = rule.metric
        if name.startswith("density"):
            return self._density(rule, counted)
        if name == "count_repeaters":
            return self._repeaters(rule)
        if name.startswith("count"):
            grade = name.removeprefix("count").removeprefix("_")
            chosen = counted.filter(pl.col("grade") == grade) if grade else counted
            return Number(
                float(len(chosen)), poisson_interval(len(chosen), confidence=rule.confidence)
            )
        if name == "demerits":
            return Number(float(counted["demerits"].sum()))
        if name == "die_yield":
            return self._die_yield(rule)
        if name == "unit_yield":
            return self._unit_yield(rule)
        return self._positive(rule, counted)

    def _repeaters(self, rule: Accept) -> Number:
        """Return how many repeat, those for review for that reason among them."""
        if self.rules.detection.repeaters is None:
            return Number(None, why="the rules do not look for repeaters")
        chosen = self.defects.filter(pl.col("repeater") & (pl.col("grade") != "ignore"))
        if rule.class_name is not None:
            chosen = chosen.filter(pl.col("class") == rule.class_name)
        return Number(float(len(chosen)))

    def _density(self, rule: Accept, counted: pl.DataFrame) -> Number:
        area = self.area_cm2()
        if area is None:
            return Number(None, why="the pixel size of an image is not known")
        if area <= 0:
            return Number(None, why="nothing was inspected")
        if rule.metric == "density_per_mm2":
            area *= MM2_PER_CM2
        if rule.metric == "density_killers_per_cm2":
            return self._killers(rule, counted, area)
        count = len(counted)
        interval = poisson_interval(count, exposure=area, confidence=rule.confidence)
        return Number(count / area, interval)

    def _killers(self, rule: Accept, counted: pl.DataFrame, area: float) -> Number:
        """Return the density of killers: defects weighed by their chance to kill.

        The interval is that of a sum of weights under Poisson counts, by the method of Fay and
        Feuer (Statistics in Medicine 16, 1997), which is exact where all weights are equal.
        """
        unknown = int(counted["kill_prob"].null_count())
        if unknown:
            return Number(None, why=f"the kill probability of {unknown} defects is not known")
        weights = counted["kill_prob"].to_numpy() / area
        largest = [r.kill_prob for r in self.rules.classes.values() if r.kill_prob is not None]
        most = max([*weights.tolist(), *(k / area for k in largest)], default=1.0 / area)
        return Number(
            float(weights.sum()), weighted_interval(weights, most, confidence=rule.confidence)
        )

    def _unit_yield(self, rule: Accept) -> Number:
        judged = self.units["passed"].drop_nulls()
        if not len(judged):
            return Number(None, why="no unit is judged as one: wafers are judged by their dies")
        return proportion(int(judged.sum()), len(judged), confidence=rule.confidence)

    def _die_yield(self, rule: Accept) -> Number:
        with_dies = [unit.dies for unit in self.lot.units if unit.dies is not None]
        if not with_dies:
            return Number(None, why="no unit has dies")
        totals = [dies.total for dies in with_dies]
        if None in totals:
            return Number(None, why="how many dies were inspected is not known")
        total = sum(t for t in totals if t is not None)
        failed = int((~self.dies["passed"]).sum())
        return proportion(total - failed, total, confidence=rule.confidence)

    def _positive(self, rule: Accept, counted: pl.DataFrame) -> Number:
        signs = {
            name: found.positive
            for name in counted["class"].unique().to_list()
            if (found := self.rules.of_class(name)) is not None and found.positive is not None
        }
        told = counted["class"].replace_strict(signs, default=None, return_dtype=pl.Boolean)
        known = told.drop_nulls()
        if not len(known):
            return Number(None, why="no object is of a class that is positive or negative")
        return proportion(int(known.sum()), len(known), confidence=rule.confidence)


def proportion(count: int, total: int, *, confidence: float) -> Number:
    """Return a share with its Wilson interval (1927); unknown of nothing."""
    if total <= 0:
        return Number(None, why="there is none")
    low, high = proportion_confint(count, total, alpha=1 - confidence, method="wilson")
    return Number(count / total, Interval(max(0.0, float(low)), min(1.0, float(high))))


def weighted_interval(weights: Floats, most: float, *, confidence: float) -> Interval:
    """Return the interval of the mean of a sum of weighted Poisson counts (Fay and Feuer 1997).

    Args:
        weights: of the events that were counted.
        most: the largest weight that an event can have.
        confidence: of the interval.
    """
    tail = (1 - confidence) / 2
    total, variance = float(weights.sum()), float((weights**2).sum())
    low = 0.0
    if total > 0:
        low = float(gamma.ppf(tail, total**2 / variance, scale=variance / total))
    above, spread = total + most, variance + most**2
    high = float(gamma.ppf(1 - tail, above**2 / spread, scale=spread / above)) if above else 0.0
    return Interval(low, high)
