"""``image.select``: which plane of a stack, and which channels, by name or index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from domainseg.errors import InputError, sentence
from domainseg.images.files import Location

Projection = Literal["max", "mean"]
ALWAYS = ("channel", "series", "t", "z")
"""Axes every image has; a file without one has it with length 1."""
CORRECT = "correct --select, or image.select in the recipe"


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a stack: its name in ``image.select``, its length, names of its positions."""

    name: str
    length: int
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        labels = f" ({', '.join(self.labels)})" if any(self.labels) else ""
        return f"{self.name}={self.length}{labels}"


@dataclass(frozen=True, slots=True)
class Pick:
    """Positions taken from one axis; more than one are projected, or become channels."""

    indices: tuple[int, ...]
    projection: Projection | None = None
    as_channels: bool = False


def choosing(choice: Mapping[str, int | str | Sequence[str]]) -> str:
    """Return how to choose planes or channels: by options, and in a recipe.

    >>> choosing({"t": 0, "z": "max"})
    'give --select t=0 --select z=max, or image.select: {t: 0, z: max} in the recipe'
    """
    many = {axis: list(value) for axis, value in choice.items() if isinstance(value, list | tuple)}
    options = {**choice, **{axis: ",".join(names) for axis, names in many.items()}}
    entries = {**choice, **{axis: f"[{', '.join(names)}]" for axis, names in many.items()}}
    given = " ".join(f"--select {axis}={value}" for axis, value in options.items())
    written = ", ".join(f"{axis}: {value}" for axis, value in entries.items())
    return f"give {given}, or image.select: {{{written}}} in the recipe"


def check_names(path: Location, axes: Sequence[Axis], select: Mapping[str, object]) -> None:
    """Refuse a name in ``select`` that is no axis of this image.

    Raises:
        InputError: listing the axes there are.
    """
    known = {axis.name for axis in axes} | set(ALWAYS)
    for name in select:
        if name not in known:
            there = ", ".join(str(axis) for axis in axes) or "y and x only"
            raise InputError(
                sentence(
                    path,
                    found=f"no axis '{name}' that image.select asks for",
                    wanted=f"one of {', '.join(sorted(known))} (the image has {there})",
                    fix=CORRECT,
                )
            )


def pick_planes(
    path: Location, axes: Sequence[Axis], select: Mapping[str, object]
) -> tuple[Pick, ...]:
    """Return what to take of each axis of ``axes`` but the channel axis, in their order.

    An axis of length 1 needs no entry. Projections over several axes are one projection
    over all their planes, so they must be of one kind.

    Raises:
        InputError: when an axis longer than 1 has no entry (listing axes and what to write),
            when an entry is out of range or not understood, or when max and mean are mixed.
    """
    stack = [axis for axis in axes if axis.name != "channel"]
    missing = [axis.name for axis in stack if axis.length > 1 and axis.name not in select]
    if missing:
        choice = {name: "max" if name == "z" else 0 for name in missing}
        way = "an index, max or mean for each"
        if not set(missing) <= set(ALWAYS):
            way += ", or channel to take the pages as channels"
        raise InputError(
            sentence(
                path,
                found=f"a stack with axes {', '.join(str(a) for a in axes if a.length > 1)}",
                wanted="one plane",
                fix=f"{choosing(choice)} ({way})",
            )
        )
    picks = tuple(_pick(path, axis, select.get(axis.name, 0)) for axis in stack)
    kinds = {pick.projection for pick in picks if pick.projection}
    if len(kinds) > 1:
        raise InputError(
            sentence(
                path,
                found="both max and mean in image.select",
                wanted="one kind of projection",
                fix="use the same for every axis, or an index",
            )
        )
    return picks


def pick_series(path: Location, axis: Axis, select: Mapping[str, object]) -> int:
    """Return which image of a file with several is meant, by index or name.

    Raises:
        InputError: when there are several and ``select`` names none, or names another.
    """
    value = select.get("series")
    if value is None:
        if axis.length > 1:
            raise InputError(
                sentence(
                    path,
                    found=f"{axis.length} images in one file ({', '.join(axis.labels)})",
                    wanted="one",
                    fix=f"{choosing({'series': 0})} (an index or a name)",
                )
            )
        return 0
    return _position(path, axis, value)


def pick_channels(
    path: Location, names: Sequence[str], select: Mapping[str, object]
) -> tuple[int, ...]:
    """Return the channel indices that ``select`` asks for, in its order; all by default.

    Raises:
        InputError: for a name or index that is not there, or that is there twice.
    """
    value = select.get("channel")
    if value is None:
        return tuple(range(len(names)))
    wanted = value if isinstance(value, list | tuple) else [value]
    axis = Axis("channel", len(names), tuple(names))
    picked = tuple(_position(path, axis, item) for item in wanted)
    if not picked or len(set(picked)) < len(picked):
        raise InputError(
            sentence(
                path,
                found=f"image.select.channel {list(wanted)}",
                wanted="at least one channel, each once",
                fix=f"choose from {', '.join(names)}",
            )
        )
    return picked


def pick_flat(
    path: Location, names: Sequence[str], select: Mapping[str, object]
) -> tuple[int, ...]:
    """Return the channel indices of a file that holds one plane, t, z and series of length 1.

    Raises:
        InputError: as the functions above.
    """
    check_names(path, (), select)
    pick_series(path, Axis("series", 1), select)
    pick_planes(path, (Axis("t", 1), Axis("z", 1)), select)
    return pick_channels(path, names, select)


def _pick(path: Location, axis: Axis, value: object) -> Pick:
    every = tuple(range(axis.length))
    match value:
        case "max" | "mean":
            return Pick(every, value)
        case "channel" if axis.name not in ALWAYS:
            return Pick(every, as_channels=True)
        case _:
            return Pick((_position(path, axis, value),))


def _position(path: Location, axis: Axis, value: object) -> int:
    """Return the index on ``axis`` that ``value``, a name or an index, means."""
    if isinstance(value, str) and axis.labels.count(value) == 1:
        return axis.labels.index(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < axis.length:
        return value
    wanted = f"an index from 0 to {axis.length - 1}"
    if axis.name not in ("channel", "series"):
        wanted += ", max or mean"
    if any(axis.labels):
        wanted += f", or one of {', '.join(axis.labels)}"
    raise InputError(
        sentence(
            path,
            found=f"image.select.{axis.name}: {value}",
            wanted=wanted,
            fix=CORRECT,
        )
    )
