"""How much context a core needs: measured on the trained network, not guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from domainseg.records import Plane, Tile
from domainseg.tiling.forward import MapMaker
from domainseg.tiling.grid import core_in_window, read_window

PROBABILITY_TOLERANCE = 0.02
"""Largest difference of foreground probability that a tiling may cause."""
FLIP_TOLERANCE = 1e-4
"""Largest share of pixels a tiling may move across probability 0.5."""
HALO_STRIDES = (0, 1, 2, 3, 4, 6, 8, 10, 12)
"""Halos that a training tries, in strides of the network."""
REFERENCE_STRIDES = 14
"""The halo that they are compared with."""
MOST_CORES = 12
"""Cores that halos are measured on; with stride 32 each costs a forward pass of 5 Mpx."""

OBJECT_SHARE = 0.99
"""Share of the training objects that a detector's windows see whole."""
OBJECT_CONTEXT_PX = 64
"""What a detector sees beyond an object, px of the model grid."""


@dataclass(frozen=True, slots=True)
class HaloReading:
    """What one halo costs in exactness.

    Attributes:
        halo_px: the halo.
        difference: largest difference of foreground probability from the widest halo.
        flipped: share of a core's pixels on the other side of probability 0.5; the
            largest of several cores.
    """

    halo_px: int
    difference: float
    flipped: float

    @property
    def within(self) -> bool:
        """Tell whether both figures are within the tolerances of this module."""
        return self.difference <= PROBABILITY_TOLERANCE and self.flipped <= FLIP_TOLERANCE


@dataclass(frozen=True, slots=True)
class HaloImage:
    """An image to measure halos on.

    Attributes:
        plane: float32 ``(C, H, W)``, as the network sees it.
        centres: int64 ``(N, 2)``, where its annotated objects are, px of the plane.
    """

    plane: Plane
    centres: NDArray[np.int64]


def measure_on_objects(
    make_maps: MapMaker,
    images: Sequence[HaloImage],
    *,
    core_px: int,
    halos: Sequence[int],
    reference_px: int,
) -> tuple[HaloReading, ...]:
    """Return the worst reading of each halo over `MOST_CORES` cores at most, on objects.

    One core cannot tell: where nothing is, every halo agrees, and each object is another
    sample. The cores are the images' fullest, then their second fullest, and so on; of
    images without objects the middle.
    """
    full = [object_cores(one.centres, one.plane.shape[1:], core_px=core_px) for one in images]
    cores = [
        [(image.plane, corner) for corner in corners]
        for image, corners in zip(images, full, strict=True)
    ]
    in_turn = [core for core in chain.from_iterable(zip_longest(*cores)) if core is not None]
    readings = [
        measure_halos(
            make_maps,
            plane,
            core_px=core_px,
            halos=halos,
            reference_px=reference_px,
            corner=corner,
        )
        for plane, corner in in_turn[:MOST_CORES]
    ]
    return worst_readings(readings)


def object_cores(
    centres: NDArray[np.int64], shape: tuple[int, ...], *, core_px: int
) -> tuple[tuple[int, int], ...]:
    """Return the corners of the cores of a grid amid ``(H, W)`` that hold centres of objects.

    Those with the most centres come first; without any it is the middle core alone.
    """
    counts = [max(1, size // core_px) for size in shape]
    corner = [max(0, (size - n * core_px) // 2) for size, n in zip(shape, counts, strict=True)]
    cells = (centres - corner) // core_px
    inside = ((cells >= 0) & (cells < counts)).all(axis=1)
    held = np.bincount(
        np.ravel_multi_index(tuple(cells[inside].T), counts), minlength=counts[0] * counts[1]
    )
    order = np.argsort(-held, kind="stable")[: np.count_nonzero(held)]
    if not len(order):
        return (_middle(shape, core_px),)
    rows, columns = np.unravel_index(order, counts)
    return tuple(
        (corner[0] + int(row) * core_px, corner[1] + int(column) * core_px)
        for row, column in zip(rows, columns, strict=True)
    )


def _middle(shape: tuple[int, ...], core_px: int) -> tuple[int, int]:
    y, x = (max(0, (size - core_px) // 2) for size in shape)
    return y, x


def object_halo(sides_px: NDArray[np.int64], *, stride_px: int) -> int:
    """Return the halo with which the window that owns an object sees all of it, px.

    Half of the longest side of any object but the longest in a hundred (of those parts are
    united), and `OBJECT_CONTEXT_PX` beyond it.

    Args:
        sides_px: ``(N,)``, the longer side of each training object's box.
        stride_px: coarsest stride of the network; the halo is a multiple of it.
    """
    longest = float(np.quantile(sides_px, OBJECT_SHARE)) if len(sides_px) else 0.0
    return int(-(-(longest / 2 + OBJECT_CONTEXT_PX) // stride_px)) * stride_px


def measure_halos(
    make_maps: MapMaker,
    plane: Plane,
    *,
    core_px: int,
    halos: Sequence[int],
    reference_px: int,
    corner: tuple[int, int] | None = None,
) -> tuple[HaloReading, ...]:
    """Return one reading per halo, of a core of ``plane`` against halo ``reference_px``.

    The plane is float32 ``(C, H, W)``; it is mirrored where it ends. The core is the one at
    ``corner``, the middle one by default.
    """
    if corner is None:
        corner = _middle(plane.shape[1:], core_px)
    wanted = _core_probability(make_maps, plane, corner, core_px, reference_px)
    readings = []
    for halo in halos:
        got = _core_probability(make_maps, plane, corner, core_px, halo)
        difference = float(np.abs(got - wanted).max())
        flipped = float(((got >= 0.5) != (wanted >= 0.5)).mean())
        readings.append(HaloReading(halo, difference, flipped))
    return tuple(readings)


def worst_readings(cores: Sequence[Sequence[HaloReading]]) -> tuple[HaloReading, ...]:
    """Return for each halo the largest difference and the largest share flipped of all cores.

    Every core has readings of the same halos, in one order.
    """
    return tuple(
        HaloReading(
            readings[0].halo_px,
            max(reading.difference for reading in readings),
            max(reading.flipped for reading in readings),
        )
        for readings in zip(*cores, strict=True)
    )


def sufficient_halo(readings: Sequence[HaloReading]) -> HaloReading:
    """Return the reading one wider than the first from which on all are within tolerance.

    One wider, because a few cores do not hold the extreme of a large image: on 7 and 12 Mpx
    the first halo within tolerance on twelve cores (.008) differed by up to .058, the next by
    .009. Readings do not fall steadily either: one halo may happen to agree where wider ones
    do not. The last reading where there is no wider one.
    """
    within = len(readings)
    while within and readings[within - 1].within:
        within -= 1
    return readings[min(within + 1, len(readings) - 1)]


def _core_probability(
    make_maps: MapMaker, plane: Plane, corner: tuple[int, int], core_px: int, halo: int
) -> NDArray[np.float32]:
    y, x = corner
    side = core_px + 2 * halo
    tile = Tile((y - halo, x - halo), (side, side), ((y, x), (y + core_px, x + core_px)))
    window = np.asarray(read_window(plane, tile), np.float32)
    rows, columns = core_in_window(tile)
    logit = make_maps(window[None]).foreground[0, :, rows, columns]
    probability: NDArray[np.float32] = logit.float().sigmoid().cpu().numpy()
    return probability
