"""The lazy image: a header, its levels, and a reader that fetches one region at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import EllipsisType, TracebackType
from typing import Any, Protocol, Self

import numpy as np

from domainseg.images.damage_log import Damage, PixelBox
from domainseg.images.files import Location, check_finite
from domainseg.records import Array, Spacing

Key = int | slice | EllipsisType | tuple[int | slice | EllipsisType, ...]
Box = tuple[slice, slice, slice]


class Reader(Protocol):
    """What a format supplies: pixels of one region; safe to call from several threads."""

    def read(self, level: int, box: Box) -> Array:
        """Return a new native-endian ``(c, h, w)`` array of channels, rows and columns."""
        ...

    def segment(self, level: int) -> tuple[int, int]:
        """Return ``(h, w)`` of what is decoded at once, laid out from pixel (0, 0) on."""
        ...

    def close(self) -> None:
        """Let go of whatever is held; reading afterwards may open it again."""
        ...


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an image before a pixel is read.

    Attributes:
        path: the file or folder, or its URL as text.
        format: its format in words, as in "OME-TIFF".
        dtype: of the pixels, native byte order.
        channels: one name per channel.
        sizes: ``(H, W)`` of every resolution level, full resolution first.
        spacing_um: pixel size ``(y, x)`` of the first level, None when unknown.
    """

    path: Location
    format: str
    dtype: np.dtype[Any]
    channels: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    spacing_um: Spacing | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image; sliced like an array ``(C, H, W)``.

    Slices have step 1 and are clipped to the image, integers drop their axis, and every
    result is a new array in the source dtype.
    """

    header: Header
    reader: Reader
    index: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        return (len(self.header.channels), *self.header.sizes[self.index])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source dtype."""
        return self.header.dtype

    @property
    def downsample(self) -> tuple[float, float]:
        """Pixels of the full resolution per pixel of this level, ``(y, x)``."""
        (full_h, full_w), (h, w) = self.header.sizes[0], self.header.sizes[self.index]
        return (full_h / h, full_w / w)

    @property
    def segment(self) -> tuple[int, int]:
        """``(h, w)`` of the tiles, strips or chunks, the first of which starts at pixel (0, 0).

        Regions that are whole segments are read without decoding anything twice.
        """
        return self.reader.segment(self.index)

    def __getitem__(self, key: Key, /) -> Array:
        box, dropped = region_of(key, self.shape)
        region = self.reader.read(self.index, box)
        check_finite(self.header.path, region, origin=(box[0].start, box[1].start, box[2].start))
        return region.squeeze(axis=dropped) if dropped else region

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a lazy image has no array to share: every read is a copy")
        return np.asarray(self[...], dtype)


class Image:
    """An image of any size, sliced like an array ``(C, H, W)`` at full resolution.

    Only the regions that are asked for are decoded where the format allows it (TIFF, slides,
    OME-Zarr, npy); PNG, JPEG and BMP are decoded whole on the first read. Several threads
    may read at once. A copy sent to another process opens the file again there, and a forked
    one reads through handles of its own. Close it, or use it in a ``with`` block.

    Attributes:
        header: path, format, dtype, channel names, level sizes and pixel size.
        levels: every resolution, full resolution first.
    """

    def __init__(
        self,
        header: Header,
        reader: Reader,
        *,
        reopen: Callable[..., Image],
        damage: Damage | None = None,
    ) -> None:
        """Take what a format opened.

        ``reopen()`` opens it again, with ``skip_damaged=`` in that way; ``damage`` is what
        ``reader`` reports to.
        """
        self.header = header
        self.levels = tuple(Level(header, reader, i) for i in range(len(header.sizes)))
        self._reader = reader
        self._reopen = reopen
        self._damage = damage or Damage(header.sizes, skip=False)

    @property
    def path(self) -> Location:
        """The file or folder, or its URL as text."""
        return self.header.path

    @property
    def format(self) -> str:
        """The format in words, as in "OME-TIFF"."""
        return self.header.format

    @property
    def channels(self) -> tuple[str, ...]:
        """One name per channel."""
        return self.header.channels

    @property
    def spacing_um(self) -> Spacing | None:
        """Pixel size ``(y, x)`` in micrometres at full resolution, None when unknown."""
        return self.header.spacing_um

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source dtype."""
        return self.header.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` at full resolution."""
        return self.levels[0].shape

    def __getitem__(self, key: Key, /) -> Array:
        return self.levels[0][key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.levels[0].__array__(dtype, copy)

    def level(self, index: int) -> Level:
        """Return resolution ``index``, 0 being the full one."""
        return self.levels[index]

    def read(self) -> Array:
        """Return every pixel at full resolution, ``(C, H, W)`` in the source dtype.

        Raises:
            InputError: when the file is damaged or holds NaN or infinite pixels.
        """
        return self[...]

    @property
    def damaged(self) -> tuple[PixelBox, ...]:
        """Boxes read as 0 because they are damaged, found so far.

        Half-open ``((y0, x0), (y1, x1))`` in pixels of the full resolution, sorted, each
        once. Empty unless the image was opened with ``skip_damaged``; every process keeps
        its own. ``find_damaged`` finds them all at once.
        """
        return self._damage.boxes

    def remember_damaged(self, boxes: Sequence[PixelBox]) -> None:
        """Add to ``damaged``, where damage is skipped, what was found in another way."""
        if self._damage.skip:
            self._damage.add(boxes)

    def reopened(self, *, skip_damaged: bool) -> Image:
        """Return the same image opened anew, with nothing decoded and no damage met."""
        return self._reopen(skip_damaged=skip_damaged)

    def close(self) -> None:
        """Let go of decoded pixels and open handles; reading again opens them again."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Image], tuple[()]]:
        return (self._reopen, ())

    def __repr__(self) -> str:
        name = PurePosixPath(str(self.path)).name
        return f"<Image {name} {self.format} {self.shape} {self.dtype}>"


def region_of(key: Key, shape: tuple[int, int, int]) -> tuple[Box, tuple[int, ...]]:
    """Return the three slices that ``key`` means, with start and stop inside ``shape``.

    The second value names the axes that an integer index drops.

    Raises:
        IndexError: for a step other than 1, too many indices, or an integer outside.
    """
    parts = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (4 - len(parts))
    parts += [slice(None)] * (3 - len(parts))
    if len(parts) > 3:
        raise IndexError(f"{len(parts)} indices for an image of 3 axes (channel, y, x)")
    slices = tuple(_slice_of(part, n) for part, n in zip(parts, shape, strict=True))
    dropped = tuple(i for i, part in enumerate(parts) if not isinstance(part, slice))
    return (slices[0], slices[1], slices[2]), dropped


def _slice_of(part: int | slice | EllipsisType, length: int) -> slice:
    if isinstance(part, slice):
        start, stop, step = part.indices(length)
        if step != 1:
            raise IndexError(f"step {step}: a lazy image is read with step 1; see Image.level")
        return slice(start, max(start, stop))
    if isinstance(part, EllipsisType):
        raise IndexError("an index can hold one ellipsis only")
    index = part.__index__()
    if not -length <= index < length:
        raise IndexError(f"index {index} is outside an axis of length {length}")
    return slice(index % length, index % length + 1)
