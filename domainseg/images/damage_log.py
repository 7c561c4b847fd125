"""Tiles, strips and chunks that cannot be read inside an image that otherwise can.

Seen is what a decoder refuses, what is cut off, and what is not there. Without a checksum
(uncompressed, LZW, JPEG, JPEG 2000, most of Zstd) a few changed bytes can decode to other
pixels, which nothing shows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from domainseg.errors import InputError, sentence
from domainseg.images.files import Location

PixelBox = tuple[tuple[int, int], tuple[int, int]]
"""``((y0, x0), (y1, x1))`` half-open."""


class DamagedTileError(InputError):
    """A part of an image that cannot be read, while the rest may be.

    Attributes:
        path: the file that holds the part.
        level: the resolution level it belongs to.
        box: where it lies, half-open pixels of that level.
    """

    def __init__(self, text: str, path: Location, level: int, box: PixelBox) -> None:
        super().__init__(text)
        self.path = path
        self.level = level
        self.box = box

    # An exception is copied by its args, the sentence alone, which this one is not made of.
    def __reduce__(self) -> tuple[Callable[..., DamagedTileError], tuple[Any, ...]]:
        return (type(self), (str(self), self.path, self.level, self.box))


class Damage:
    """What could not be read of one image: refused, or remembered and left out.

    Safe to use from several threads.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], *, skip: bool) -> None:
        self._sizes = tuple(sizes)
        self._boxes: set[PixelBox] = set()
        self._lock = threading.Lock()
        self.skip = skip

    @property
    def boxes(self) -> tuple[PixelBox, ...]:
        """The parts left out so far: full resolution, sorted, each once."""
        with self._lock:
            return tuple(sorted(self._boxes))

    def add(self, boxes: Sequence[PixelBox]) -> None:
        """Remember ``boxes`` of the full resolution."""
        with self._lock:
            self._boxes.update(boxes)

    def at(self, level: int) -> LevelDamage:
        """Return this record for what is met at ``level``."""
        return LevelDamage(self, level)

    def full_box(self, level: int, box: PixelBox) -> PixelBox:
        """Return the pixels of the full resolution that ``box`` of ``level`` touches."""
        low, high = [], []
        for axis in (0, 1):
            full, size = self._sizes[0][axis], self._sizes[level][axis]
            low.append(box[0][axis] * full // size)
            high.append(min(full, -(-box[1][axis] * full // size)))
        return ((low[0], low[1]), (high[0], high[1]))


@dataclass(frozen=True, slots=True)
class LevelDamage:
    """Where the readers of one resolution level report what they cannot read."""

    damage: Damage
    level: int

    def meet(
        self,
        problem: str,
        box: PixelBox,
        *,
        path: Location,
        wanted: str,
        cause: BaseException | None = None,
    ) -> None:
        """Remember ``box``, half-open px of the level, where damage is skipped.

        Raises:
            DamagedTileError: where it is not; ``problem`` is what was found there.
        """
        if self.damage.skip:
            self.damage.add([self.damage.full_box(self.level, box)])
            return
        (y, x), _ = box
        text = sentence(
            path,
            found=f"{problem} at level {self.level}, y {y}, x {x}",
            wanted=wanted,
            fix="export, copy or download it again, or leave that area out with --skip-bad-tiles",
        )
        raise DamagedTileError(text, path, self.level, box) from cause
