"""The channels a model was made for, taken from an image by region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domainseg.errors import InputError, sentence
from domainseg.images.image import Key, region_of
from domainseg.images.select import choosing
from domainseg.records import Array, Plane

RGB = ("red", "green", "blue")
LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue (ITU-R BT.709), applied to the stored values."""


DIE_MAP = ("die", "fail")
"""Channels that a wafer map becomes: 1 where there is a die, 1 where it fails."""
DIE_FAILS = 2
"""Largest value of a wafer map: 0 no die, 1 a die that passes, 2 one that fails."""


@dataclass(frozen=True, slots=True)
class DieMapView:
    """A wafer map, one value per die, as the two channels DIE_MAP; sliced by region.

    Attributes:
        plane: ``(1, H, W)``, values 0 to DIE_FAILS.
        where: the file, for the error.
    """

    plane: Plane
    where: str

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the two channels."""
        return DIE_MAP

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(2, H, W)``."""
        return (len(DIE_MAP), int(self.plane.shape[1]), int(self.plane.shape[2]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8."""
        return np.dtype(np.uint8)

    def __getitem__(self, key: Key, /) -> Array:
        (channels, rows, columns), dropped = region_of(key, self.shape)
        values = np.asarray(self.plane[0, rows, columns])
        if values.size and not (values.min() >= 0 and values.max() <= DIE_FAILS):
            stray = values[(values < 0) | (values > DIE_FAILS)][0]
            raise InputError(
                sentence(
                    self.where,
                    found=f"the value {stray} in a wafer map",
                    wanted="0 (no die), 1 (passes) or 2 (fails)",
                    fix="recode it, or change data.channels",
                )
            )
        out = np.stack([values > 0, values == DIE_FAILS]).astype(np.uint8)[channels]
        return out.squeeze(axis=dropped) if dropped else out


@dataclass(frozen=True, slots=True)
class ChannelView:
    """Channels of another plane: reordered, repeated, or weighed into one; sliced by region.

    Attributes:
        plane: where pixels come from.
        channels: the names of this view's channels.
        sources: the index in ``plane`` of each channel, or of what is weighed.
        weights: one weight per source for a single weighed channel, or None.
    """

    plane: Plane
    channels: tuple[str, ...]
    sources: tuple[int, ...]
    weights: tuple[float, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        return (len(self.channels), int(self.plane.shape[1]), int(self.plane.shape[2]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source dtype; weighed integers are rounded to it."""
        return self.plane.dtype

    def __getitem__(self, key: Key, /) -> Array:
        (channels, rows, columns), dropped = region_of(key, self.shape)
        sources = self.sources if self.weights else self.sources[channels]
        out = self._read(sources, rows, columns)
        if self.weights is not None:
            out = self._weighed(out)[channels]
        return out.squeeze(axis=dropped) if dropped else out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a view of channels has no array to share: every read is a copy")
        return np.asarray(self[...], dtype)

    def _read(self, sources: tuple[int, ...], rows: slice, columns: slice) -> Array:
        """Return the source channels, each read once, as a new array."""
        shape = (len(sources), rows.stop - rows.start, columns.stop - columns.start)
        if not sources:
            return np.empty(shape, self.dtype)
        low, high = min(sources), max(sources) + 1
        block = np.asarray(self.plane[low:high, rows, columns])
        if sources == tuple(range(low, high)) and not isinstance(self.plane, np.ndarray):
            return block  # a read of its own already
        return block[[source - low for source in sources]]

    def _weighed(self, block: Array) -> Array:
        weights = np.array(self.weights, np.float64)
        total = np.tensordot(weights, block, axes=(0, 0))[None]
        return (total if self.dtype.kind == "f" else np.rint(total)).astype(self.dtype)


def as_channels(
    image: Plane, channels: Sequence[str], *, wanted: str | Sequence[str], where: str | Path
) -> ChannelView | DieMapView:
    """Return ``image`` with the channels that ``data.channels`` asks for, lazily.

    Args:
        image: a plane ``(C, H, W)``.
        channels: its channel names.
        wanted: ``rgb``: red, green and blue (three unnamed channels count as these), or one
            channel of any name repeated; ``grey``: one channel of any name, or the luminance
            of RGB (LUMINANCE, rounded to the dtype); ``die_map``: a wafer map of one
            channel as the two of DIE_MAP; or a list of names that must be the image's own,
            in any order. ``rgb``, ``grey`` and ``die_map`` leave an alpha channel out.
        where: the file, for the error.

    Raises:
        InputError: when the image has other channels.
    """
    found = tuple(channels)
    if not isinstance(wanted, str):
        names = tuple(wanted)
        if len(set(names)) == len(names) and sorted(names) == sorted(found):
            return ChannelView(image, names, tuple(found.index(name) for name in names))
        choice = names if set(names) <= set(found) else None
        raise _refused(where, found, f"data.channels [{', '.join(names)}]", choice)
    opaque = tuple(name for name in found if name != "alpha")
    colours = _colours(found, opaque)
    alone = (found.index(opaque[0]),) if len(opaque) == 1 else None
    if wanted == "rgb" and (colours or alone):
        return ChannelView(image, RGB, colours or (alone or ()) * 3)
    if wanted == "die_map" and alone:
        return DieMapView(image if image.shape[0] == 1 else _alone(image, alone), str(where))
    if wanted == "grey" and alone:
        return ChannelView(image, ("grey",), alone)
    if wanted == "grey" and colours:
        return ChannelView(image, ("grey",), colours, LUMINANCE)
    raise _refused(where, found, f"data.channels {wanted}", 0)


def seen_as(channels: Sequence[str], wanted: str | Sequence[str]) -> str | None:
    """Return in words what `as_channels` makes of an image's channels, None where it takes all.

    What is repeated, weighed into one or left out is an assumption about the image.
    """
    found = tuple(channels)
    if not isinstance(wanted, str):
        return None
    opaque = tuple(name for name in found if name != "alpha")
    said = []
    if wanted == "grey" and _colours(found, opaque):
        said.append(f"the luminance of {', '.join(opaque)}")
    if wanted == "rgb" and len(opaque) == 1:
        said.append(f"{opaque[0]} as each of {', '.join(RGB)}")
    if wanted == "rgb" and opaque == ("c0", "c1", "c2"):
        said.append(f"{', '.join(opaque)} as {', '.join(RGB)}")
    if len(opaque) < len(found):
        said.append("alpha left out")
    return ", ".join(said) or None


def _alone(image: Plane, source: tuple[int, ...]) -> ChannelView:
    return ChannelView(image, ("grey",), source)


def _colours(found: tuple[str, ...], opaque: tuple[str, ...]) -> tuple[int, ...]:
    """Return where red, green and blue lie, nothing when the image has no such channels."""
    if set(opaque) == set(RGB) and len(opaque) == 3:
        return tuple(found.index(name) for name in RGB)
    return (0, 1, 2) if found == ("c0", "c1", "c2") else ()


def _refused(
    where: str | Path,
    found: tuple[str, ...],
    wanted: str,
    choice: int | Sequence[str] | None,
) -> InputError:
    """Return what is said of channels that do not fit, with those to choose where any would."""
    change = "change data.channels"
    return InputError(
        sentence(
            where,
            found=f"channels {', '.join(found)}",
            wanted=wanted,
            fix=change if choice is None else f"{choosing({'channel': choice})}, or {change}",
        )
    )
