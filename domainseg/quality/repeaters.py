"""Defects that many dies have at the same place: of the reticle, or of the design itself.

What falls on a wafer by chance does not fall on the same place of many dies. A defect is a
repeater where more dies have one at its place than chance explains, all defects of the wafer
taken together. What chance would give is Poisson distributed with the defects' own density
(KLARF marks such defects in the column REPEATER).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import poisson

LEVEL = 0.01
"""Chance that any defect of a wafer without repeaters is called one."""
FEWEST = 3
"""Dies that have a defect at a place, at least, before it repeats."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Repeaters:
    """Which defects of a wafer lie at a place of their die where others have one too.

    Attributes:
        dies: int64 ``(N,)``, dies with a defect at the place of each, its own among them.
        least: dies from which on a defect repeats.
    """

    dies: Integers
    least: int

    @property
    def repeats(self) -> NDArray[np.bool_]:
        """Whether each defect repeats, bool ``(N,)``."""
        return np.asarray(self.dies >= self.least)


def repeaters(
    die: Integers,
    place_um: Floats,
    *,
    pitch_um: tuple[float, float],
    dies: int,
    tolerance_um: float,
    fewest: int = FEWEST,
) -> Repeaters:
    """Return the repeaters of one wafer.

    A place is a square of three times ``tolerance_um`` along each side, in the middle third of
    which the defect lies: two within the tolerance along both axes are always at one place,
    two more than twice as far apart never.

    Args:
        die: int64 ``(N, 2)``, index of the die of each defect.
        place_um: float64 ``(N, 2)``, ``(x, y)`` in it.
        pitch_um: ``(x, y)`` of the dies.
        dies: that were inspected.
        tolerance_um: by how much places of one and the same thing differ from die to die.
        fewest: dies that make a repeater where chance alone would let fewer do.
    """
    count = len(place_um)
    if not count:
        return Repeaters(np.zeros(0, np.int64), fewest)
    _, number = np.unique(die, axis=0, return_inverse=True)
    cell = np.floor(place_um / tolerance_um).astype(np.int64)
    cell -= cell.min(0) - 1
    across = int(cell[:, 1].max()) + 2
    own = cell[:, 0] * across + cell[:, 1]
    # Every cell that holds a defect, with the dies that have one in it or next to it.
    kinds = int(number.max()) + 1
    held = np.unique(own * kinds + number.ravel())
    places, at = np.unique(held // kinds, return_inverse=True)
    pairs = [np.zeros(0, np.int64)]
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            target = places + dx * across + dy
            row = np.minimum(np.searchsorted(places, target), len(places) - 1)
            there = places[row] == target
            # The dies of cell ``places`` are seen from the cell ``target``.
            pairs.append((row * kinds)[at][there[at]] + (held % kinds)[there[at]])
    seen = np.unique(np.concatenate(pairs))
    by_cell = np.bincount(seen // kinds, minlength=len(places))
    found = by_cell[np.searchsorted(places, own)]
    return Repeaters(found, max(fewest, _least(count, pitch_um, dies, tolerance_um)))


def _least(count: int, pitch_um: tuple[float, float], dies: int, tolerance_um: float) -> int:
    """Return the dies at one place that chance reaches nowhere, but for `LEVEL`.

    Other dies have a defect at the place of one by chance as often as the density of all and
    the area of a place say; Bonferroni's correction is for the number of defects.
    """
    area = min(1.0, 9 * tolerance_um**2 / (pitch_um[0] * pitch_um[1]))
    expected = count * area * (1 - 1 / max(dies, 2))
    return 2 + int(poisson.isf(LEVEL / count, expected))
