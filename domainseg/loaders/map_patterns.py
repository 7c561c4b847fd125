"""Made-up wafer maps: which dies fail, and which of them a pattern struck.

A map is drawn from fail densities: that of the background, and over each pattern's zone
one that is high inside and falls over the rim. The zone of a pattern is where its own
share is at least a half, whatever the dies there did, so it is exact by construction.

The styles follow the two public sets: `mixed` MixedWM38 (Wang et al., IEEE Trans.
Semicond. Manuf. 33, 2020), `wm811k` WM-811K (Wu et al., IEEE Trans. Semicond. Manuf. 28,
2015), which use the words Loc and Edge-Loc differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from domainseg.errors import RecipeError, sentence
from domainseg.loaders.map_shapes import SHAPES, Style
from domainseg.loaders.map_wafer import Draw, Wafer, towards, wafer_of
from domainseg.loaders.wafer_map import FAIL, NO_DIE, PASS, PATTERNS
from domainseg.records import Array

WHOLE_WAFER = ("Near-full", "Random")
"""Patterns that stand alone, as they leave no room for another."""
PLAIN: Mapping[Style, tuple[str, ...]] = {
    "mixed": tuple(name for name in PATTERNS if name != "Random"),
    "wm811k": ("Edge-Ring", "Near-full", "Scratch"),
}
"""Patterns in which no rows or columns of dies hold out."""
GROUP = np.ones((3, 3), bool)
"""Neighbours of a die: 8."""

_RANGES = {
    "background": (0.0, 0.5),
    "background_none": (0.0, 0.5),
    "density": (0.2, 1.0),
    "edge_fails": (0.0, 0.5),
}
_NUMBERS = {
    "aspect": (1.0, 2.0),
    "unevenness": (0.0, 1.0),
    "clutter": (0.0, 20.0),
    "untested": (0.0, 1.0),
}
MIN_SIDE, MAX_SIDE = 16, 512


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLook:
    """What the pixels of made-up maps depend on; a range is ``(low, high)``.

    Attributes:
        style: whose shapes the patterns have, and whose words: in ``mixed`` Loc is a blob
            near the rim and Edge-Loc a thin arc along it, in ``wm811k`` Edge-Loc is any
            piece of the rim and Loc lies inside.
        sides: range of the rows and columns of dies, each map its own.
        aspect: largest ratio of rows to columns and of columns to rows.
        background: range of the share of dies that fail where no pattern struck, on the
            smallest maps; it falls as the dies of larger maps get smaller.
        background_none: the same on maps without a pattern.
        density: range of the share of dies that fail well inside a zone; Near-full,
            Random and Scratch have densities of their own.
        edge_fails: range of what is added to the background in the outermost ring of dies.
        unevenness: largest share by which the background leans to one side or the middle.
        clutter: mean number of clusters of 2 to 4 failing dies that are no pattern; with
            it come failing dies in the centre and repeats from field to field.
        untested: share of the maps with up to 3 % of the dies missing inside.
    """

    style: Style = "mixed"
    sides: tuple[int, int] = (52, 52)
    aspect: float = 1.0
    background: tuple[float, float] = (0.15, 0.23)
    background_none: tuple[float, float] = (0.01, 0.2)
    density: tuple[float, float] = (0.95, 1.0)
    edge_fails: tuple[float, float] = (0.0, 0.0)
    unevenness: float = 0.0
    clutter: float = 0.0
    untested: float = 0.0

    def __post_init__(self) -> None:
        if self.style not in SHAPES:
            _refuse("style", repr(self.style), f"one of {', '.join(SHAPES)}")
        low, high = self.sides
        if not MIN_SIDE <= low <= high <= MAX_SIDE:
            _refuse(
                "sides", f"{low}, {high}", f"two integers from {MIN_SIDE} to {MAX_SIDE}, rising"
            )
        for name, (least, most) in _RANGES.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                wanted = f"two numbers from {least:g} to {most:g}, rising"
                _refuse(name, f"{low:g}, {high:g}", wanted)
        for name, (least, most) in _NUMBERS.items():
            if not least <= (value := getattr(self, name)) <= most:
                _refuse(name, f"{value:g}", f"a number from {least:g} to {most:g}")
        if self.density[0] <= self.background[1]:
            _refuse(
                "density",
                f"{self.density[0]:g} at the least",
                f"more than the background's {self.background[1]:g}, or no zone can be seen",
            )


def _refuse(name: str, found: str, wanted: str) -> None:
    raise RecipeError(sentence(name, found=found, wanted=wanted, fix="change it"))


LOOKS: Mapping[Style, MapLook] = {
    "mixed": MapLook(),
    "wm811k": MapLook(
        style="wm811k",
        sides=(24, 64),
        aspect=1.25,
        background=(0.01, 0.25),
        background_none=(0.02, 0.26),
        density=(0.65, 1.0),
        edge_fails=(0.0, 0.4),
        unevenness=0.5,
        clutter=1.0,
        untested=0.05,
    ),
}
"""What the maps of each style are like, as measured on the public set."""


class DrawnMap(NamedTuple):
    """A made-up map and its truth.

    Attributes:
        dies: uint8 ``(H, W)``: 0 no die, 1 pass, 2 fail.
        zones: bool ``(8, H, W)``, in the order of PATTERNS: the dies each pattern struck;
            zones may overlap and hold dies only.
    """

    dies: NDArray[np.uint8]
    zones: NDArray[np.bool_]


def draw_map(rng: Draw, look: MapLook, patterns: Sequence[str]) -> DrawnMap:
    """Return a map with these patterns and no other, each with a zone that is not empty.

    Raises:
        ValueError: when a pattern is not one of PATTERNS.
    """
    if unknown := sorted(set(patterns) - set(PATTERNS)):
        raise ValueError(f"{unknown[0]!r} is none of the patterns {', '.join(PATTERNS)}")
    size = _size(rng, look)
    if look.style == "mixed" and set(patterns) & set(WHOLE_WAFER):
        # MixedWM38 holds these enlarged from smaller maps.
        return _enlarged(_drawn(rng, look, patterns, _coarse(rng, size), filled=True), size)
    return _drawn(rng, look, patterns, size)


def _size(rng: Draw, look: MapLook) -> tuple[int, int]:
    """Return rows and columns: small maps are the more common."""
    low, high = look.sides
    side = low * (high / low) ** (rng.random() ** 1.5)
    stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(look.aspect))
    height, width = np.clip(np.rint([side * stretch, side / stretch]), low, high)
    return int(height), int(width)


def _coarse(rng: Draw, size: tuple[int, int]) -> tuple[int, int]:
    share = rng.uniform(0.5, 0.75)
    return int(size[0] * share), int(size[1] * share)


def _enlarged(small: DrawnMap, size: tuple[int, int]) -> DrawnMap:
    """Return the map at ``size``, interpolated linearly and cut at a half."""
    down, right = (_weights(new, old) for new, old in zip(size, small.dies.shape, strict=True))

    def grown(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(down @ plane @ right.T >= 0.5)

    there = grown(small.dies != NO_DIE)
    dies = np.where(there, np.where(grown(small.dies == FAIL), FAIL, PASS), NO_DIE)
    zones = np.zeros((len(small.zones), *size), bool)
    for index in np.flatnonzero(small.zones.any((1, 2))):
        zones[index] = grown(small.zones[index]) & there
    return DrawnMap(dies.astype(np.uint8), zones)


def _weights(new: int, old: int) -> Array:
    """Return the weight of each of ``old`` places in each of ``new``, float ``(new, old)``."""
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.clip(1.0 - np.abs(at[:, None] - np.arange(old)), 0.0, 1.0)


def _drawn(
    rng: Draw,
    look: MapLook,
    patterns: Sequence[str],
    size: tuple[int, int],
    *,
    filled: bool = False,
) -> DrawnMap:
    wafer = _wafer(rng, look, size, filled=filled)
    passing = 1.0 - _background(rng, look, wafer, struck=bool(patterns))
    zones = np.zeros((len(PATTERNS), *size), bool)
    spared: list[NDArray[np.bool_]] = []
    struck = np.ones(size)
    for name in sorted(patterns):
        shape = SHAPES[look.style][name]
        zone = np.zeros(size, bool)
        while not zone.any():
            strike = shape(rng, wafer)
            zone = _zone(strike.share, wafer.dies, keep=0.0 if name == "Scratch" else 0.15)
        zones[PATTERNS.index(name)] = zone
        density = rng.uniform(*look.density) if strike.flat is None else strike.flat
        share = np.where(zone, strike.share, np.minimum(strike.share, 0.45))
        struck *= 1.0 - np.clip(density * share * _stripes(rng, look, name, size), 0.0, 1.0)
        if strike.spared is not None:
            spared.append(strike.spared)
    for hole in spared:
        passing[hole] = 1.0
    fails = rng.random(size) >= passing * struck
    if look.clutter:
        _add_clutter(rng, look.clutter, fails)
    dies = np.where(wafer.dies, np.where(fails, FAIL, PASS), NO_DIE).astype(np.uint8)
    return DrawnMap(dies, zones)


def _wafer(rng: Draw, look: MapLook, size: tuple[int, int], *, filled: bool) -> Wafer:
    """Return the disc of dies; some maps of WM-811K miss a few dies inside."""
    if look.style == "mixed" and not filled:
        # The disc of MixedWM38 leaves the first row and the first column empty.
        return wafer_of(rng, size, reach=25.6 / 26, moved=(0.5, 0.5))
    reach = rng.uniform(0.992, 1.01)
    room = 0.5 * (size[0] * reach - (size[0] - 1))
    wafer = wafer_of(rng, size, reach=reach, moved=(0.9 * room * rng.uniform(-1, 1), 0.0))
    if rng.random() < look.untested:
        missing = rng.random(size) < rng.uniform(0.002, 0.03)
        wafer = wafer._replace(dies=wafer.dies & ~missing)
    return wafer


def _background(rng: Draw, look: MapLook, wafer: Wafer, *, struck: bool) -> Array:
    """Return the fail density of each die before any pattern, float ``(H, W)``."""
    low, high = look.background if struck else look.background_none
    # A smaller die has less area for the same defects; the half power of its area fits WM-811K.
    smaller = look.sides[0] / (2.0 * wafer.per_radius)
    base = low + (high - low) * (rng.random() ** (1.3 if struck and look.unevenness else 1.0))
    base *= min(smaller, 1.0)
    density: Array = np.full(wafer.dies.shape, base)
    if look.unevenness:
        lean = towards(wafer, rng.uniform(-np.pi, np.pi))
        bowl = 1.0 - 2.0 * wafer.radius**2
        density *= 1.0 + look.unevenness * (rng.random() * lean + rng.uniform(-0.6, 1.0) * bowl)
    if look.edge_fails[1]:
        density += rng.uniform(*look.edge_fails) * np.clip(1.5 - wafer.rim, 0.0, 1.0)
    return np.clip(density, 0.0, 1.0)


def _zone(share: Array, dies: NDArray[np.bool_], *, keep: float) -> NDArray[np.bool_]:
    """Return the dies with at least half a share, in groups of ``keep`` of the largest or more.

    A frayed rim leaves crumbs beside a zone that nobody would call a pattern.
    """
    zone = (share >= 0.5) & dies
    if not keep:
        return zone
    groups, count = ndimage.label(zone, GROUP)
    if count < 2:
        return zone
    sizes = np.bincount(groups.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= keep * sizes.max())[groups] & zone)


def _stripes(rng: Draw, look: MapLook, name: str, size: tuple[int, int]) -> Array | float:
    """Return the factor of a pattern's density: of one map in 15, rows and columns that hold."""
    if name in PLAIN[look.style] or rng.random() > 0.07:
        return 1.0
    across, down = rng.integers(2, 5, 2)
    rows = np.arange(size[0]) % down == 0
    columns = np.arange(size[1]) % across == 0
    kind = rng.integers(3)
    held = rows[:, None] & (kind != 0) | columns[None, :] & (kind != 1)
    return np.where(held, rng.uniform(0.3, 0.7), 1.0)


def _add_clutter(rng: Draw, mean: float, fails: NDArray[np.bool_]) -> None:
    """Make dies fail that are no pattern: small clusters, the centre, repeats of a field."""
    height, width = fails.shape
    for _ in range(rng.poisson(mean)):
        steps = rng.integers(-1, 2, (rng.integers(2, 5), 2))
        if rng.random() < 0.4:
            steps[:] = steps[0]  # a short line
        at = np.cumsum(steps, axis=0) + rng.integers((height, width))
        fails[at[:, 0] % height, at[:, 1] % width] = True
    often = min(mean, 1.0)
    if rng.random() < 0.5 * often:
        at = np.array([height // 2, width // 2]) + rng.integers(-1, 2, (rng.integers(1, 5), 2))
        fails[at[:, 0], at[:, 1]] = True
    if rng.random() < 0.04 * often:
        down, across = rng.integers(3, 9, 2)
        top, left = rng.integers(down), rng.integers(across)
        field = fails[top::down, left::across]
        field |= rng.random(field.shape) < rng.uniform(0.2, 0.7)
