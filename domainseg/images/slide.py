"""Scanned slides that OpenSlide reads: NDPI, MRXS, SCN, VMS, BIF and their kin.

OpenSlide draws a region at a position of the full resolution, which lies between two pixels
of a level whose downsample is not a whole number. So every level is read in cells of a fixed
lattice: a pixel then has one value, whatever region it is read with.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.images.channels import RGB
from domainseg.images.damage_log import Damage, PixelBox
from domainseg.images.files import reading
from domainseg.images.image import Box, Header, Image
from domainseg.images.pixel_size import spacing_from_lengths
from domainseg.images.segments import SegmentCache, copy_overlap
from domainseg.images.select import pick_flat
from domainseg.records import Array, Spacing

ENDINGS = (".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide")
"""File endings that only OpenSlide reads. An SVS is a TIFF and read as one: what OpenSlide
interpolates between levels would make results depend on whether it is installed."""
CELL_PX = 512
"""Cells are whole tiles of the slide, at least this high and wide."""
TILE_PX = 256
"""A part is marked as damaged by tiles of this size where the slide does not tell its own."""
LARGEST_TILE_PX = 4096
WHITE = "ffffff"


@dataclass(frozen=True, slots=True)
class SlideLevel:
    """How a level is read.

    Attributes:
        size: ``(H, W)``.
        downsample: OpenSlide's pixels of the full resolution per pixel.
        tile: ``(h, w)`` of the slide's tiles.
        cell: ``(h, w)`` of the cells of the lattice, whole tiles.
    """

    size: tuple[int, int]
    downsample: float
    tile: tuple[int, int]
    cell: tuple[int, int]


def open_slide(path: Path, select: Mapping[str, object], *, skip_damaged: bool = False) -> Image:
    """Return the scan of a slide as uint8 red, green and blue, with all its levels.

    Where nothing was scanned stands the slide's background colour, or white. With
    ``skip_damaged`` tiles that cannot be decoded are 0 and stand in ``Image.damaged``. A JPEG
    tile that is damaged inside OpenSlide draws as libjpeg fills it, and nothing shows it.

    Raises:
        InputError: when OpenSlide is not installed, does not know the file or finds it
            damaged, or ``select`` does not fit.
    """
    library = _library()
    if library is None:
        raise InputError(
            sentence(
                path,
                found="a slide of a format that OpenSlide reads, which is not installed",
                wanted="the extra 'slides'",
                fix="run pip install 'domainseg[slides]'",
            )
        )
    picked = pick_flat(path, RGB, select)
    with reading(path):
        slide = _opened(library, path)
    properties = dict(slide.properties)
    levels = _levels(slide, properties)
    header = Header(
        path=path,
        format=f"{properties.get('openslide.vendor', 'OpenSlide')} slide",
        dtype=np.dtype(np.uint8),
        channels=tuple(RGB[i] for i in picked),
        sizes=tuple(level.size for level in levels),
        spacing_um=_spacing(properties),
    )
    damage = Damage(header.sizes, skip=skip_damaged)
    reader = SlideReader(
        library,
        path,
        levels,
        picked=picked,
        background=_background(properties),
        damage=damage,
    )
    reopen = partial(open_slide, path, select, skip_damaged=skip_damaged)
    return Image(header, reader, reopen=reopen, damage=damage)


class SlideReader:
    """Regions of a slide; every process opens it for itself."""

    def __init__(
        self,
        library: Any,
        path: Path,
        levels: tuple[SlideLevel, ...],
        *,
        picked: tuple[int, ...],
        background: NDArray[np.uint8],
        damage: Damage,
    ) -> None:
        self._library = library
        self._path = path
        self._levels = levels
        self._picked = list(picked)
        self._background = background
        self._damage = damage
        self._cache = SegmentCache()
        self._lock = threading.Lock()
        self._slide: tuple[int, Any] | None = None

    def read(self, level: int, box: Box) -> Array:
        """Return the region, laid from cells."""
        channels, rows, columns = box
        h, w = self._levels[level].cell
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)
        if out.size:
            for i in range(rows.start // h, -(-rows.stop // h)):
                for j in range(columns.start // w, -(-columns.stop // w)):
                    cell = self._cell(level, i, j)
                    copy_overlap(cell, (i * h, j * w), out=out, corner=(rows.start, columns.start))
        return np.ascontiguousarray(np.moveaxis(out, -1, 0)[self._picked[channels]])

    def segment(self, level: int) -> tuple[int, int]:
        """Return ``(h, w)`` of the cells of the level."""
        return self._levels[level].cell

    def close(self) -> None:
        """Let cells and the slide go."""
        self._cache.clear()
        # Another thread may be reading: the library closes the slide with its last user.
        with self._lock:
            self._slide = None

    def _cell(self, level: int, i: int, j: int) -> Array:
        kept = self._cache.get((level, i, j))
        if kept is not None:
            return kept
        h, w = self._levels[level].cell
        height, width = self._levels[level].size
        at, size = (i * h, j * w), (min(h, height - i * h), min(w, width - j * w))
        slide = self._shared()
        try:
            values = self._draw(slide, level, at, size)
        except self._library.OpenSlideError:
            # A slide that met an error answers nothing any more, whoever asks.
            with self._lock:
                if self._slide is not None and self._slide[1] is slide:
                    self._slide = None
            values = self._tile_by_tile(level, at, size)
        self._cache.put((level, i, j), values)
        return values

    def _meet(self, level: int, box: PixelBox, cause: BaseException | None) -> None:
        problem, wanted = "a truncated or corrupt tile", "a complete slide"
        self._damage.at(level).meet(problem, box, path=self._path, wanted=wanted, cause=cause)

    def _shared(self) -> Any:
        """Return the slide as this process opened it: file positions do not survive a fork."""
        with self._lock:
            if self._slide is None or self._slide[0] != os.getpid():
                with reading(self._path):
                    self._slide = (os.getpid(), _opened(self._library, self._path))
            return self._slide[1]

    def _tile_by_tile(self, level: int, at: tuple[int, int], size: tuple[int, int]) -> Array:
        """Return a cell some of whose tiles are damaged, read through handles of its own."""
        out = np.zeros((*size, 3), np.uint8)
        slide = None
        th, tw = self._levels[level].tile
        for y in range(at[0], at[0] + size[0], th):
            for x in range(at[1], at[1] + size[1], tw):
                end = (min(y + th, at[0] + size[0]), min(x + tw, at[1] + size[1]))
                if slide is None:
                    with reading(self._path):
                        slide = _opened(self._library, self._path)
                try:
                    tile = self._draw(slide, level, (y, x), (end[0] - y, end[1] - x))
                except self._library.OpenSlideError as error:
                    slide = None
                    self._meet(level, ((y, x), end), error)
                else:
                    copy_overlap(tile, (y, x), out=out, corner=at)
        return out

    def _draw(
        self, slide: Any, level: int, at: tuple[int, int], size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Return ``(h, w, 3)`` pixels of a level, drawn on the background."""
        downsample = self._levels[level].downsample
        x, y = round(at[1] * downsample), round(at[0] * downsample)
        drawn = np.asarray(slide.read_region((x, y), level, (size[1], size[0])))
        return on_background(drawn, self._background)


def on_background(rgba: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``(h, w, 4)`` colours with their opacity as ``(h, w, 3)`` on one colour."""
    colours, opacity = rgba[..., :3], rgba[..., 3:]
    if (opacity == 255).all():
        return np.ascontiguousarray(colours)
    share = opacity.astype(np.uint32)
    mixed = colours * share + background * (255 - share)
    return ((mixed + 127) // 255).astype(np.uint8)


def _library() -> Any:
    """Return the package openslide, None where it or its library is not installed."""
    try:
        return importlib.import_module("openslide")
    except (ImportError, OSError):
        return None


def _opened(library: Any, path: Path) -> Any:
    try:
        return library.OpenSlide(str(path))
    except library.OpenSlideError as error:
        raise InputError(
            sentence(
                path,
                found="a damaged slide, or no slide",
                wanted="a slide that OpenSlide knows",
                fix="export, copy or download it again, with the files that belong to it",
            )
        ) from error


def _levels(slide: Any, properties: Mapping[str, str]) -> tuple[SlideLevel, ...]:
    levels = []
    for i, (width, height) in enumerate(slide.level_dimensions):
        tile = tuple(
            _tile_length(properties.get(f"openslide.level[{i}].tile-{side}", ""))
            for side in ("height", "width")
        )
        cell = tuple(length * -(-CELL_PX // length) for length in tile)
        downsample = float(slide.level_downsamples[i])
        levels.append(
            SlideLevel((height, width), downsample, (tile[0], tile[1]), (cell[0], cell[1]))
        )
    return tuple(levels)


def _tile_length(written: str) -> int:
    length = int(written) if written.isdecimal() else 0
    return length if 0 < length <= LARGEST_TILE_PX else TILE_PX


def _spacing(properties: Mapping[str, str]) -> Spacing | None:
    try:
        y, x = (float(properties[f"openslide.mpp-{axis}"]) for axis in "yx")
    except (KeyError, ValueError):
        return None
    return spacing_from_lengths(y, x, "um")


def _background(properties: Mapping[str, str]) -> NDArray[np.uint8]:
    colour = properties.get("openslide.background-color", WHITE)
    return np.frombuffer(bytes.fromhex(colour), np.uint8)
