"""TIFF, BigTIFF, OME-TIFF, ImageJ stacks and TIFF-based slides, read by region.

Pages are parsed by tifffile and decoded segment by segment (``tiff_pages``). Pixels are
what the file stores, with three exceptions that ``stored=True`` lifts for label images:
bilevel pixels become uint8 0 and 1, "white is zero" integers are inverted, and palettes
are looked up, save ImageJ's, which only colour a measured intensity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from domainseg.errors import InputError, sentence
from domainseg.images.damage_log import Damage, LevelDamage
from domainseg.images.files import refusing_damage
from domainseg.images.image import Box, Header, Image
from domainseg.images.npy import image_dtype
from domainseg.images.projection import projected
from domainseg.images.segments import SegmentCache
from domainseg.images.select import Projection, check_names, pick_channels, pick_planes
from domainseg.images.tiff_chain import check_chain
from domainseg.images.tiff_layout import COLOURS, described, layout_of, series_of
from domainseg.images.tiff_pages import Page, page_of
from domainseg.records import Array

READABLE = (
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE,
    tifffile.PHOTOMETRIC.YCBCR,
)
"""Colour spaces whose samples are, or become, channels."""


@dataclass(frozen=True, slots=True)
class Tone:
    """How stored samples become pixels: inverted at a value, looked up, or left."""

    dtype: np.dtype[Any]
    white_zero_at: int | None = None
    palette: Array | None = None

    @property
    def black(self) -> int:
        """The stored value that becomes 0, or the darkest colour of a palette."""
        if self.palette is not None:
            return int(np.argmin(self.palette.sum(axis=0, dtype=np.int64)))
        return self.white_zero_at or 0

    def apply(self, samples: Array) -> Array:
        """Return ``(S, h, w)`` samples as pixels; a palette turns one sample into three."""
        if self.palette is not None:
            return self.palette[:, samples[0]]
        if self.white_zero_at is not None:
            samples = np.subtract(self.white_zero_at, samples, dtype=self.dtype)
        return samples.astype(self.dtype, copy=False)


@dataclass(frozen=True, slots=True)
class Stack:
    """The pages of one level: a tuple of planes to project for each page channel."""

    pages: tuple[tuple[Page, ...], ...]
    projection: Projection | None
    tone: Tone

    def read(
        self, at: int, rows: slice, columns: slice, *, cache: SegmentCache, damage: LevelDamage
    ) -> Array:
        """Return the pixels ``(samples, h, w)`` of page channel ``at``, projected."""
        blocks = (page.read(rows, columns, cache=cache, damage=damage) for page in self.pages[at])
        return projected(map(self.tone.apply, blocks), self.projection)


class TiffReader:
    """Regions of a TIFF: every output channel is a page channel and a sample of it."""

    def __init__(
        self, levels: Sequence[Stack], channels: Sequence[tuple[int, int]], *, damage: Damage
    ) -> None:
        self._levels = tuple(levels)
        self._channels = tuple(channels)
        self._damage = damage
        self._cache = SegmentCache()

    def read(self, level: int, box: Box) -> Array:
        """Return the region; each page that holds one of its channels is read once."""
        stack = self._levels[level]
        wanted = self._channels[box[0]]
        shape = (len(wanted), *(s.stop - s.start for s in box[1:]))
        out = np.empty(shape, stack.tone.dtype)
        if out.size == 0:
            return out
        for at in dict.fromkeys(page for page, _ in wanted):
            rows = [i for i, (page, _) in enumerate(wanted) if page == at]
            damage = self._damage.at(level)
            block = stack.read(at, box[1], box[2], cache=self._cache, damage=damage)
            for row in rows:
                out[row] = block[wanted[row][1]]
        return out

    def segment(self, level: int) -> tuple[int, int]:
        """Return ``(h, w)`` of the strips or tiles of the level; one row of stored samples."""
        return self._levels[level].pages[0][0].segment

    def close(self) -> None:
        """Let decoded segments go."""
        self._cache.clear()


def open_tiff(
    path: Path,
    select: Mapping[str, object],
    *,
    stored: bool = False,
    skip_damaged: bool = False,
) -> Image:
    """Return a TIFF as an Image with all its resolution levels; no pixel is read.

    ``stored`` gives the samples as they are (see the module), which is what labels are. With
    ``skip_damaged``, strips and tiles that cannot be read are 0 (the darkest colour of a
    palette) and stand in ``Image.damaged``.

    Raises:
        InputError: when the file is damaged, its colour space has no channels of its own,
            or it is a stack that ``select`` does not resolve.
    """
    check_chain(path)
    with refusing_damage(path, "TIFF"), tifffile.TiffFile(path) as tif:
        position, series = series_of(path, tif, select)
        spacing, given = described(tif, series, position)
        layout = layout_of(path, series, given)
        tone = _tone(path, series, stored=stored, imagej=tif.is_imagej)
        check_names(path, layout.axes, select)
        picks = pick_planes(path, layout.axes, select)
        planes = layout.planes(picks)
        samples = layout.samples if tone.palette is None else COLOURS
        names = layout.channel_names(len(planes), samples)
        picked = pick_channels(path, names, select)
        projection = next((pick.projection for pick in picks if pick.projection), None)
        levels = [
            Stack(_pages(path, level, planes, i, fill=tone.black), projection, tone)
            for i, level in enumerate(series.levels)
        ]
        header = Header(
            path=path,
            format="OME-TIFF" if tif.is_ome else "ImageJ TIFF" if tif.is_imagej else "TIFF",
            dtype=tone.dtype,
            channels=tuple(names[i] for i in picked),
            sizes=tuple((s.keyframe.imagelength, s.keyframe.imagewidth) for s in series.levels),
            spacing_um=spacing,
        )
    damage = Damage(header.sizes, skip=skip_damaged)
    reader = TiffReader(levels, [divmod(i, len(samples)) for i in picked], damage=damage)
    reopen = partial(open_tiff, path, select, stored=stored, skip_damaged=skip_damaged)
    return Image(header, reader, reopen=reopen, damage=damage)


def _pages(
    path: Path,
    level: tifffile.TiffPageSeries,
    planes: Sequence[Sequence[int]],
    index: int,
    *,
    fill: int,
) -> tuple[tuple[Page, ...], ...]:
    """Return the page readers of one level, each with a key of its own in the cache."""
    key = index * (1 + max(max(stack) for stack in planes))
    return tuple(
        tuple(page_of(path, level, plane, key=key + plane, fill=fill) for plane in stack)
        for stack in planes
    )


def _tone(path: Path, series: tifffile.TiffPageSeries, *, stored: bool, imagej: bool) -> Tone:
    """Return how samples become pixels.

    Raises:
        InputError: for colour spaces other than grey, RGB, YCbCr and palette, and for
            samples that are no real numbers.
    """
    page, kinds = series.keyframe, tifffile.PHOTOMETRIC
    if page.dtype is None or page.photometric not in READABLE:
        raise InputError(
            sentence(
                path,
                found=f"{getattr(page.photometric, 'name', page.photometric)} samples "
                f"of {page.bitspersample} bits",
                wanted="grey, RGB, YCbCr or palette pixels",
                fix="export it as RGB or grey",
            )
        )
    dtype = image_dtype(path, np.dtype(page.dtype))
    if stored:
        return Tone(dtype)
    if page.photometric == kinds.MINISWHITE and dtype.kind == "u":
        return Tone(dtype, white_zero_at=(1 << page.bitspersample) - 1)
    if page.photometric == kinds.PALETTE and not imagej and page.colormap is not None:
        table = np.asarray(page.colormap)
        if (table % 257 == 0).all():
            table = (table // 257).astype(np.uint8)
        return Tone(table.dtype, palette=table)
    return Tone(dtype)
