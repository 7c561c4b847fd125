"""What a wafer's failing dies look like: one of the patterns of WM-811K, with its evidence.

A label by geometry, for triage: it says where to look first, not what went wrong. The names are
those of Wu, Jang and Chen (IEEE Transactions on Semiconductor Manufacturing 28, 2015): Center,
Donut, Edge-Loc, Edge-Ring, Loc, Near-full, Random, Scratch, and none.

Failing dies are grouped where they lie closer than chance would put them; the largest group is
named by its place, its reach around the wafer and its shape. The limits were chosen on the
training part of WM-811K (`docs/benchmarks.md` has the confusion on its test part).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, convolve
from scipy.ndimage import label as components

PATTERNS: tuple[str, ...] = (
    "Center",
    "Donut",
    "Edge-Loc",
    "Edge-Ring",
    "Loc",
    "Near-full",
    "Random",
    "Scratch",
)
"""Names of the patterns, the classes of every loader of wafer maps too."""
SIGNATURES = (*PATTERNS, "none")
_NEIGHBOURS = np.ones((3, 3))
_SECTORS = 24
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limits:
    """Where one pattern ends and another begins; shares of dies, radii over the wafer's.

    Attributes:
        near_full: share of failing dies from which on nearly all fail.
        random: share of failing dies from which on scattered ones are a pattern.
        scattered: share of the failing dies in the largest group below which they are.
        dense: share of failing dies among a die's neighbours that makes a group.
        group: least number of dies of a group, as a share of all dies.
        rim: radius from which on a die is at the edge.
        ring: share of the sectors that a ring at the edge reaches.
        ring_rate: share of failing dies in a sector's edge that it takes to be reached.
        centre: largest mean radius of a group in the centre.
        hole: rate in the middle over the rate of the group's ring, below which it is a hole.
        donut: share of the sectors that a donut reaches.
        thin: largest width of a scratch, in dies.
        elongated: least length of a scratch over its width.
    """

    near_full: float = 0.685
    random: float = 0.3
    scattered: float = 0.5
    dense: float = 0.667
    group: float = 0.003
    rim: float = 0.88
    ring: float = 0.86
    ring_rate: float = 0.26
    centre: float = 0.31
    hole: float = 0.87
    donut: float = 0.41
    thin: float = 1.94
    elongated: float = 2.27


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Signature:
    """A label and what speaks for it.

    Attributes:
        label: one of SIGNATURES.
        evidence: sentences with the numbers behind the label.
    """

    label: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Wafer:
    """A wafer as a grid.

    Attributes:
        dies: bool ``(H, W)``, where there are inspected dies.
        failed: bool ``(H, W)``.
        radius: float64 ``(H, W)``, distance from the middle over the wafer's radius.
        angle: float64 ``(H, W)``, turns from 0 to 1.
    """

    dies: Mask
    failed: Mask
    radius: Floats
    angle: Floats
    rate: float = field(default=0.0)

    @classmethod
    def of(cls, index: NDArray[np.int64], failed: Mask) -> _Wafer:
        low = index.min(0)
        width, height = (index.max(0) - low + 1).tolist()
        x, y = (index - low).T
        dies = np.zeros((height, width), bool)
        bad = np.zeros((height, width), bool)
        dies[y, x] = True
        bad[y[failed], x[failed]] = True
        rows, columns = np.mgrid[:height, :width]
        # Die sides differ: each axis is measured by its own half width.
        v = (rows - (height - 1) / 2) / (height / 2)
        u = (columns - (width - 1) / 2) / (width / 2)
        turns = np.arctan2(v, u) / (2 * np.pi) % 1.0
        return cls(dies, bad, np.hypot(u, v), turns, float(failed.mean()))

    def share(self, where: Mask) -> float:
        """Return the share of failing dies among those of a part; 0 of none."""
        count = int((self.dies & where).sum())
        return int((self.failed & where).sum()) / count if count else 0.0

    def reach(self, where: Mask, least: float) -> float:
        """Return the share of sectors in which at least that share of a part's dies fails."""
        sector = np.minimum((self.angle * _SECTORS).astype(int), _SECTORS - 1)
        inside = self.dies & where
        total = np.bincount(sector[inside], minlength=_SECTORS)
        bad = np.bincount(sector[inside & self.failed], minlength=_SECTORS)
        there = total > 0
        return float((bad[there] >= least * total[there]).mean()) if there.any() else 0.0


def signature(index: NDArray[np.int64], failed: Mask, *, limits: Limits = LIMITS) -> Signature:
    """Return the pattern of a wafer's failing dies.

    Args:
        index: int64 ``(N, 2)``, ``(x, y)`` of the inspected dies, each once.
        failed: bool ``(N,)``.
        limits: of the patterns.
    """
    if not len(index) or not failed.any():
        return Signature("none", ("no die fails",))
    wafer = _Wafer.of(index, failed)
    rate = f"{wafer.rate:.1%} of {len(index):,} dies fail"
    if wafer.rate >= limits.near_full:
        return Signature("Near-full", (rate,))
    group = _largest_group(wafer, limits)
    if group is None:
        if wafer.rate >= limits.random:
            return Signature("Random", (rate, "failing dies form no group"))
        return Signature("none", (rate, "failing dies form no group"))
    share = int(group.sum()) / int(failed.sum())
    if wafer.rate >= limits.random and share < limits.scattered:
        return Signature("Random", (rate, f"the largest group has {share:.0%} of them"))
    found, why = _named(wafer, group, limits)
    return Signature(found, (rate, *why))


def _largest_group(wafer: _Wafer, limits: Limits) -> Mask | None:
    """Return the largest group of failing dies that lie closer than chance, or None."""
    around = convolve(wafer.dies.astype(float), _NEIGHBOURS, mode="constant") - wafer.dies
    bad = convolve(wafer.failed.astype(float), _NEIGHBOURS, mode="constant") - wafer.failed
    # Three deviations above what the wafer's own rate gives, and at least `dense`.
    expected = wafer.rate + 3 * np.sqrt(wafer.rate * (1 - wafer.rate) / np.maximum(around, 1))
    least = np.maximum(limits.dense, np.minimum(expected, 0.9))
    dense = wafer.failed & (bad >= least * np.maximum(around, 1))
    lines = wafer.failed & ~dense & _on_lines(wafer.failed)
    grown = (dense & (around > 0)) | lines
    joined = binary_dilation(grown, _NEIGHBOURS) & wafer.failed
    labels, count = components(joined, _NEIGHBOURS)
    if not count:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    best = int(sizes.argmax())
    if sizes[best] < max(4.0, limits.group * int(wafer.dies.sum())):
        return None
    return np.asarray(labels == best + 1)


def _on_lines(failed: Mask) -> Mask:
    """Return failing dies in the middle of at least five in a row, in eight directions."""
    found = np.zeros_like(failed)
    padded = np.pad(failed, 2)
    height, width = failed.shape
    steps: Sequence[tuple[int, int]] = ((0, 1), (1, 0), (1, 1), (1, -1))
    for dy, dx in steps:
        row = np.ones_like(failed)
        for k in (-2, -1, 0, 1, 2):
            y, x = 2 + k * dy, 2 + k * dx
            row &= padded[y : y + height, x : x + width]
        found |= row
    return found


def _named(wafer: _Wafer, group: Mask, limits: Limits) -> tuple[str, tuple[str, ...]]:
    count = int(group.sum())
    mean = float(wafer.radius[group].mean())
    edge = wafer.radius >= limits.rim
    at_edge = float((group & edge).sum()) / count
    around = wafer.reach(edge, limits.ring_rate)
    size = f"the largest group has {count:,} dies"
    if at_edge > 0.35 and around >= limits.ring:
        return "Edge-Ring", (size, f"it reaches {around:.0%} of the way around the edge")
    length, width = _extent(group)
    if width <= limits.thin and length >= limits.elongated * width and at_edge < 0.8:
        return "Scratch", (size, f"it is {length:.1f} dies long and {width:.1f} wide")
    middle = wafer.share(wafer.radius < 0.2)
    ring = (wafer.radius > 0.3) & (wafer.radius < 0.7)
    reach = wafer.reach(ring, limits.ring_rate)
    body = wafer.share(ring)
    if body > 0 and middle < limits.hole * body and reach >= limits.donut:
        why = f"{middle:.0%} of the middle fail, {body:.0%} of the ring around it"
        return "Donut", (size, why)
    if mean <= limits.centre:
        return "Center", (size, f"its dies lie {mean:.0%} of the radius from the middle")
    if at_edge > 0.35:
        return "Edge-Loc", (size, f"{at_edge:.0%} of it are at the edge, {around:.0%} around")
    return "Loc", (size, f"its dies lie {mean:.0%} of the radius from the middle")


def _extent(group: Mask) -> tuple[float, float]:
    """Return length and mean width of a group in dies: the longest side, and what is left."""
    y, x = np.nonzero(group)
    places = np.stack([x, y], 1).astype(float)
    centred = places - places.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    spans = np.ptp(centred @ axes.T, axis=0) + 1
    length = float(spans.max())
    return length, len(places) / length
