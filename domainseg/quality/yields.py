"""Yield models: what share of dies should be good at a density of killing defects.

All take ``x``, the mean number of killing defects per die (die area times density). The
literature disagrees on the names, so each comes with its formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc


@dataclass(frozen=True, slots=True)
class YieldModel:
    """One model.

    Attributes:
        name: that it goes by.
        formula: of the yield, with x the defects per die.
        assumes: how densities are spread over dies, in words.
        of: the yield of x.
    """

    name: str
    formula: str
    assumes: str
    of: Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Clustering:
    """How unevenly defects are spread over dies.

    Attributes:
        mean: defects per die.
        variance: of the counts, with n - 1.
        ratio: variance over mean, 1 where they fall independently; None without defects.
        p_value: chance of counts that differ this much or more if they did; None likewise.
        alpha: of the negative binomial, by the moments, mean^2 / (variance - mean); None
            where the counts vary no more than by chance.
    """

    mean: float
    variance: float
    ratio: float | None
    p_value: float | None
    alpha: float | None


def poisson(x: float) -> float:
    """Return exp(-x): defects fall independently, everywhere alike."""
    return float(np.exp(-x))


def murphy(x: float) -> float:
    """Return ((1 - exp(-x)) / x)^2: densities in a triangle to twice the mean (Murphy 1964)."""
    return float((-np.expm1(-x) / x) ** 2) if x > 0 else 1.0


def uniform(x: float) -> float:
    """Return (1 - exp(-2 x)) / (2 x): densities even between 0 and twice the mean (Murphy 1964)."""
    return float(-np.expm1(-2 * x) / (2 * x)) if x > 0 else 1.0


def seeds(x: float) -> float:
    """Return 1 / (1 + x): densities fall exponentially (Seeds 1967)."""
    return 1.0 / (1.0 + x)


def seeds_root(x: float) -> float:
    """Return exp(-sqrt(x)): what other texts call the model of Seeds."""
    return float(np.exp(-np.sqrt(x)))


def bose_einstein(x: float, *, layers: int) -> float:
    """Return (1 + x)^-n: ``layers`` critical layers, each with the density of ``x``.

    Raises:
        ValueError: unless ``layers`` is above 0.
    """
    if layers < 1:
        raise ValueError(f"layers is {layers}, wanted a whole number above 0")
    return float(np.exp(-layers * np.log1p(x)))


def negative_binomial(x: float, *, alpha: float) -> float:
    """Return (1 + x / alpha)^-alpha: densities after a gamma law (Stapper 1973).

    Raises:
        ValueError: unless ``alpha`` is above 0.
    """
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}, wanted a number above 0")
    return float(np.exp(-alpha * np.log1p(x / alpha)))


def models(alpha: float | None, *, layers: int | None = None) -> tuple[YieldModel, ...]:
    """Return the models; those of ``alpha`` and of critical ``layers`` where these are known."""
    made = [
        YieldModel("Poisson", "exp(-x)", "the same density everywhere", poisson),
        YieldModel(
            "Murphy, triangular", "((1 - exp(-x)) / x)^2", "densities in a triangle", murphy
        ),
        YieldModel(
            "Murphy, uniform",
            "(1 - exp(-2x)) / (2x)",
            "densities even from 0 to twice the mean",
            uniform,
        ),
        YieldModel("Seeds", "1 / (1 + x)", "densities that fall exponentially", seeds),
        YieldModel("Seeds, other form", "exp(-sqrt(x))", "as other texts give it", seeds_root),
    ]
    if alpha is not None:
        made.append(
            YieldModel(
                f"negative binomial, alpha {alpha:.3g}",
                "(1 + x / alpha)^-alpha",
                "densities after a gamma law",
                partial(negative_binomial, alpha=alpha),
            )
        )
    if layers is not None:
        made.append(
            YieldModel(
                f"Bose-Einstein, {layers} critical layers",
                "(1 + x)^-n",
                "each of n layers has this density, falling exponentially",
                partial(bose_einstein, layers=layers),
            )
        )
    return tuple(made)


def clustering(counts: NDArray[np.integer]) -> Clustering | None:
    """Return how counts per die vary, int ``(N,)``; None of fewer than two dies.

    The test is Fisher's index of dispersion: (n - 1) variance / mean is chi-squared with
    n - 1 degrees of freedom where counts are Poisson.
    """
    if len(counts) < 2:
        return None
    mean, variance = float(np.mean(counts)), float(np.var(counts, ddof=1))
    if mean == 0:
        return Clustering(0.0, 0.0, None, None, None)
    degrees = len(counts) - 1
    alpha = mean**2 / (variance - mean) if variance > mean else None
    return Clustering(
        mean, variance, variance / mean, float(chdtrc(degrees, degrees * variance / mean)), alpha
    )
