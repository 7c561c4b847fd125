"""How much context a core needs: measured on the trained network, not guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.records import Plane, Tile
from domainseg.tiling.forward import MapMaker
from domainseg.tiling.grid import core_in_window, read_window

PROBABILITY_TOLERANCE = 0.02
"""Largest difference of foreground probability that a tiling may cause."""
FLIP_TOLERANCE = 1e-4
"""Largest share of pixels a tiling may move across probability 0.5."""


@dataclass(frozen=True, slots=True)
class HaloReading:
    """What one halo costs in exactness.

    Attributes:
        halo_px: the halo.
        difference: largest difference of foreground probability from the widest halo.
        flipped: share of pixels on the other side of probability 0.5.
    """

    halo_px: int
    difference: float
    flipped: float

    @property
    def within(self) -> bool:
        """Tell whether both figures are within the tolerances of this module."""
        return self.difference <= PROBABILITY_TOLERANCE and self.flipped <= FLIP_TOLERANCE


def measure_halos(
    make_maps: MapMaker, plane: Plane, *, core_px: int, halos: Sequence[int], reference_px: int
) -> tuple[HaloReading, ...]:
    """Return one reading per halo, of a core amid ``plane`` against halo ``reference_px``.

    The plane is float32 ``(C, H, W)``; it is mirrored where it ends.
    """
    corner = tuple(max(0, (size - core_px) // 2) for size in plane.shape[1:])
    wanted = _core_probability(make_maps, plane, corner, core_px, reference_px)
    readings = []
    for halo in halos:
        got = _core_probability(make_maps, plane, corner, core_px, halo)
        difference = float(np.abs(got - wanted).max())
        flipped = float(((got >= 0.5) != (wanted >= 0.5)).mean())
        readings.append(HaloReading(halo, difference, flipped))
    return tuple(readings)


def smallest_halo(readings: Sequence[HaloReading]) -> HaloReading:
    """Return the first reading from which on all are within tolerance, the last when none is.

    Readings do not fall steadily: one halo may happen to agree where wider ones do not.
    """
    chosen = readings[-1]
    for reading in reversed(readings):
        if not reading.within:
            break
        chosen = reading
    return chosen


def _core_probability(
    make_maps: MapMaker, plane: Plane, corner: tuple[int, ...], core_px: int, halo: int
) -> NDArray[np.float32]:
    y, x = corner
    side = core_px + 2 * halo
    tile = Tile((y - halo, x - halo), (side, side), ((y, x), (y + core_px, x + core_px)))
    window = np.asarray(read_window(plane, tile), np.float32)
    rows, columns = core_in_window(tile)
    logit = make_maps(window[None]).foreground[0, :, rows, columns]
    probability: NDArray[np.float32] = logit.float().sigmoid().cpu().numpy()
    return probability
