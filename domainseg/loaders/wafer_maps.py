"""Made-up wafer maps with the exact zone of every pattern, as a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from domainseg.errors import RecipeError, sentence
from domainseg.loaders.map_patterns import GROUP, LOOKS, DrawnMap, MapLook, draw_map
from domainseg.loaders.map_shapes import Style
from domainseg.loaders.wafer_map import NO_DIE, NO_PATTERN, PATTERNS, refuse_selection
from domainseg.records import Entry, Instances, Sample

SPLITS = ("test", "train", "val")
"""Names of the splits, sorted."""
SINGLES: tuple[tuple[str, ...], ...] = tuple((name,) for name in PATTERNS)
"""Kinds of map with one pattern."""
MIXTURES: tuple[tuple[str, ...], ...] = tuple(
    kind
    for parts in product(
        ((), ("Center",), ("Donut",)),
        ((), ("Edge-Loc",), ("Edge-Ring",)),
        ((), ("Loc",)),
        ((), ("Scratch",)),
    )
    if len(kind := sum(parts, ())) > 1
)
"""The 29 kinds of map with several patterns, those of MixedWM38."""
_MIX = {"mixed": (1.0, 8.0, 29.0), "wm811k": (2.0, 8.0, 0.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class WaferMaps:
    """Made-up wafer maps in three splits; the column ``split`` names them.

    A map is a function of (seed, split, number) and the options of its look and mix, so
    more maps in one split change no other, and no map stands in two. What is None is as
    in the style.

    Attributes:
        name: of the layout.
        train: number of training maps.
        val: number of validation maps.
        test: number of test maps.
        seed: any integer.
        style: ``mixed``: maps as in MixedWM38, where Loc is a blob near the rim and
            Edge-Loc a thin arc along it; ``wm811k``: as in WM-811K, where Edge-Loc is any
            piece of the rim and Loc lies inside.
        none: weight of maps without a pattern.
        singles: weight of maps with one pattern, each of the eight alike.
        mixtures: weight of maps with several, each of 29 kinds alike: Center or Donut,
            Edge-Loc or Edge-Ring, Loc, Scratch, two to four of them.
        sides: ``(low, high)`` of the rows and columns of dies.
        aspect: largest ratio of rows to columns and of columns to rows.
        background: ``(low, high)`` of the share of dies that fail where no pattern struck,
            on the smallest maps; it falls as the dies of larger maps get smaller.
        background_none: the same on maps without a pattern.
        density: ``(low, high)`` of the share of dies that fail well inside a zone;
            Near-full, Random and Scratch have densities of their own.
        edge_fails: ``(low, high)`` of what the outermost dies fail more than the background.
        unevenness: largest share by which the background leans to one side or the middle.
        clutter: mean number of small clusters of failing dies that are no pattern.
        untested: share of the maps with up to 3 % of the dies missing inside.
    """

    name: Literal["wafer_maps"] = "wafer_maps"
    train: int = 4096
    val: int = 512
    test: int = 512
    seed: int = 0
    style: Style = "mixed"
    none: float | None = None
    singles: float | None = None
    mixtures: float | None = None
    sides: tuple[int, int] | None = None
    aspect: float | None = None
    background: tuple[float, float] | None = None
    background_none: tuple[float, float] | None = None
    density: tuple[float, float] | None = None
    edge_fails: tuple[float, float] | None = None
    unevenness: float | None = None
    clutter: float | None = None
    untested: float | None = None

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            if (value := getattr(self, name)) < 0:
                raise _refused(name, f"{value}", "an integer from 0 up")
        self.look()
        for name in ("none", "singles", "mixtures"):
            if (weight := getattr(self, name)) is not None and not 0 <= weight < np.inf:
                raise _refused(name, f"{weight:g}", "a weight from 0 up, or null for the style's")
        if not sum(self.mix()):
            raise _refused("none, singles, mixtures", "0 for all three", "one weight above 0")

    def open(self, root: Path, *, select: Mapping[str, object] | None = None) -> WaferMapSet:
        """Return the data set; nothing is read, so ``root`` only has its place in the protocol.

        Raises:
            RecipeError: when ``select`` asks for part of a stack, which a map is not.
        """
        refuse_selection(root, select)
        return WaferMapSet(self)

    def look(self) -> MapLook:
        """Return what the pixels depend on, the style's where an option is None.

        Raises:
            RecipeError: when a value is out of range.
        """
        if self.style not in LOOKS:
            return MapLook(style=self.style)
        given: dict[str, Any] = {
            field.name: value
            for field in fields(MapLook)
            if (value := getattr(self, field.name)) is not None
        }
        return replace(LOOKS[self.style], **given)

    def mix(self) -> tuple[float, float, float]:
        """Return the weights of no pattern, one and several, the style's where None."""
        own = (self.none, self.singles, self.mixtures)
        usual = _MIX[self.style]
        none, singles, mixtures = (
            b if a is None else float(a) for a, b in zip(own, usual, strict=True)
        )
        return none, singles, mixtures

    def drawn(self, entry: Entry) -> DrawnMap:
        """Return the map of an entry with its zones."""
        patterns = tuple(tag for tag in entry.tags if tag != NO_PATTERN)
        rng = np.random.default_rng(int.from_bytes(self._digest(entry.id)[:16], "little"))
        return draw_map(rng, self.look(), patterns)

    def patterns(self, name: str) -> tuple[str, ...]:
        """Return the patterns of the map with this id."""
        chance = int.from_bytes(self._digest(name)[16:24], "little") / 2**64
        weights = self.mix()
        chance *= sum(weights)
        for kinds, weight in zip((((),), SINGLES, MIXTURES), weights, strict=True):
            if chance < weight:
                return kinds[min(int(chance / weight * len(kinds)), len(kinds) - 1)]
            chance -= weight
        return ()

    def _digest(self, name: str) -> bytes:
        return hashlib.sha256(f"wafer map:{self.seed}:{name}".encode()).digest()


@dataclass(frozen=True, slots=True)
class WaferMapSet:
    """The maps that ``WaferMaps`` names; each is drawn when it is loaded."""

    options: WaferMaps

    @property
    def classes(self) -> tuple[str, ...]:
        """The patterns."""
        return PATTERNS

    def entries(self) -> tuple[Entry, ...]:
        """Return every map, sorted by id, with its split and patterns."""
        found = []
        for split in SPLITS:
            for number in range(getattr(self.options, split)):
                name = f"{split}-{number:06d}"
                tags = self.options.patterns(name) or (NO_PATTERN,)
                columns = {"split": split}
                found.append(
                    Entry(name, group=name, kind="+".join(tags), tags=tags, columns=columns)
                )
        return tuple(found)

    def load(self, entry: Entry) -> Sample:
        """Return the map as uint8 ``(1, H, W)`` with one object per group of a zone's dies.

        The class of an object is its pattern's index in PATTERNS; what is no die is in
        ``ignore``.
        """
        dies, zones = self.options.drawn(entry)
        return Sample(
            id=entry.id,
            image=dies[None],
            channels=("die",),
            truth=objects_of(zones),
            ignore=dies == NO_DIE,
            tags=entry.tags,
            group=entry.group,
            kind=entry.kind,
        )


def objects_of(zones: NDArray[np.bool_]) -> Instances:
    """Return the 8-connected groups of each plane of ``(K, H, W)``, of the plane's class.

    Objects of two planes may overlap; ids rise from 1, plane after plane.
    """
    planes = []
    first = 0
    for index in np.flatnonzero(zones.any((1, 2))).tolist():
        groups, count = ndimage.label(zones[index], GROUP)
        labels = np.where(groups > 0, groups + first, 0)
        classes = dict.fromkeys(range(first + 1, first + count + 1), index)
        planes.append(Instances.from_label_map(labels, classes=classes))
        first += count
    if not planes:
        return Instances.from_label_map(np.zeros(zones.shape[1:], np.int32))
    return Instances.joined(planes)


def _refused(name: str, found: str, wanted: str) -> RecipeError:
    return RecipeError(sentence(name, found=found, wanted=wanted, fix="change it"))
