"""OME-Zarr 0.4 and 0.5 images, read chunk by chunk from a folder or a URL."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from domainseg.images.damage_log import Damage
from domainseg.images.files import Location, location_of
from domainseg.images.image import Box, Header, Image
from domainseg.images.npy import image_dtype
from domainseg.images.ome_zarr_metadata import SPATIAL, Multiscale, read_multiscale
from domainseg.images.projection import projected
from domainseg.images.segments import SegmentCache, copy_overlap
from domainseg.images.select import Axis, Projection, check_names, pick_channels, pick_planes
from domainseg.images.tiff_layout import Layout
from domainseg.images.zarr_chunks import Cell, Chunks, Extent, open_chunks
from domainseg.images.zarr_store import METADATA, open_store
from domainseg.records import Array

REQUESTS = 8
"""Chunks asked for at the same time behind a URL, for every region that is read."""

Index = tuple[int, ...]
"""One plane of an array: a position on every axis but y and x."""


def is_ome_zarr(path: str | os.PathLike[str]) -> bool:
    """Tell whether this is a URL, or a folder with the metadata of a zarr hierarchy."""
    location = location_of(path)
    if not isinstance(location, Path):
        return True
    return location.is_dir() and any((location / name).is_file() for name in METADATA)


def open_ome_zarr(
    location: Location, select: Mapping[str, object], *, skip_damaged: bool = False
) -> Image:
    """Return the OME-Zarr image in a folder or at a URL with all its levels.

    Levels that differ from the first in more than height and width are left out, with those
    that follow. ``skip_damaged`` reads chunks that do not decode, or are missing without being
    empty (see ``zarr_chunks``), as 0 and puts them into ``Image.damaged``.

    Raises:
        MissingInputError: when there is no zarr hierarchy.
        InputError: when the server does not answer, the metadata is damaged or of another
            version, there is no image or several, or ``select`` does not resolve the stack.
    """
    store = open_store(location)
    multiscale = read_multiscale(store, select)
    chunks = open_chunks(store, multiscale)
    first = chunks.arrays[0]
    axes = _axes(multiscale, first.shape)
    check_names(location, axes, select)
    picks = pick_planes(location, axes, select)
    layout = Layout(axes, ("grey",))
    stacks = layout.planes(picks)
    names = layout.channel_names(len(stacks), layout.samples)
    picked = pick_channels(location, names, select)
    lengths = tuple(axis.length for axis in axes)
    at = [multiscale.axes.index(axis) for axis in SPATIAL]
    header = Header(
        path=location,
        format=f"OME-Zarr {'0.4' if multiscale.zarr_format == 2 else '0.5'}",
        dtype=image_dtype(location, np.dtype(first.dtype)),
        channels=tuple(names[i] for i in picked),
        sizes=tuple((int(a.shape[at[0]]), int(a.shape[at[1]])) for a in chunks.arrays),
        spacing_um=multiscale.spacing_um,
    )
    damage = Damage(header.sizes, skip=skip_damaged)
    reader = ZarrReader(
        chunks,
        multiscale,
        planes=[[_unravel(plane, lengths) for plane in stacks[i]] for i in picked],
        projection=next((pick.projection for pick in picks if pick.projection), None),
        dtype=header.dtype,
        damage=damage,
    )
    reopen = partial(open_ome_zarr, location, select, skip_damaged=skip_damaged)
    return Image(header, reader, reopen=reopen, damage=damage)


class ZarrReader:
    """Regions of an OME-Zarr image; every process that reads opens its own arrays.

    ``planes`` holds for each channel the planes to project.
    """

    def __init__(
        self,
        chunks: Chunks,
        multiscale: Multiscale,
        *,
        planes: Sequence[Sequence[Index]],
        projection: Projection | None,
        dtype: np.dtype[Any],
        damage: Damage,
    ) -> None:
        self._location = chunks.store.location
        self._multiscale = multiscale
        self._planes = tuple(tuple(stack) for stack in planes)
        self._projection = projection
        self._dtype = dtype
        self._damage = damage
        self._cache = SegmentCache()
        self._lock = threading.Lock()
        self._opened: Chunks | None = chunks
        y, x = (multiscale.axes.index(axis) for axis in SPATIAL)
        self._segments = [(int(a.chunks[y]), int(a.chunks[x])) for a in chunks.arrays]

    def read(self, level: int, box: Box) -> Array:
        """Return the region; each chunk is decoded once, or taken from those read last."""
        channels, rows, columns = box
        stacks = self._planes[channels]
        out = np.empty(
            (len(stacks), rows.stop - rows.start, columns.stop - columns.start), self._dtype
        )
        if out.size:
            for at, stack in enumerate(stacks):
                blocks = (self._plane(level, plane, rows, columns) for plane in stack)
                out[at] = projected(blocks, self._projection)
        return out

    def segment(self, level: int) -> tuple[int, int]:
        """Return ``(h, w)`` of the chunks of the level."""
        return self._segments[level]

    def close(self) -> None:
        """Let chunks and connections go."""
        self._cache.clear()
        with self._lock:
            self._opened = None

    def _chunks(self) -> Chunks:
        with self._lock:
            if self._opened is None or self._opened.process != os.getpid():
                self._opened = open_chunks(open_store(self._location), self._multiscale)
            return self._opened

    def _plane(self, level: int, plane: Index, rows: slice, columns: slice) -> Array:
        """Return the region ``(h, w)`` of one plane."""
        chunks = self._chunks()
        cells = chunks.cells(level, self._extent(plane, rows, columns))
        read = partial(self._chunk, chunks, level)
        if chunks.store.is_remote and len(cells) > 1:
            with ThreadPoolExecutor(min(REQUESTS, len(cells))) as pool:
                blocks = list(pool.map(read, cells))
        else:
            blocks = [read(cell) for cell in cells]
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start), self._dtype)
        for cell, block in zip(cells, blocks, strict=True):
            extent = chunks.extent(level, cell)
            y, x = self._spatial(extent)
            image = self._image(block, extent, plane)
            copy_overlap(image, (y.start, x.start), out=out, corner=(rows.start, columns.start))
        return out

    def _chunk(self, chunks: Chunks, level: int, cell: Cell) -> Array:
        """Return the pixels of a chunk, 0 where it is damaged and damage is skipped."""
        kept = self._cache.get((level, *cell))
        if kept is not None:
            return kept
        values, problem = chunks.read(level, cell)
        if problem is not None:
            y, x = self._spatial(chunks.extent(level, cell))
            box = ((y.start, x.start), (y.stop, x.stop))
            wanted = "every chunk of the image"
            self._damage.at(level).meet(problem, box, path=self._location, wanted=wanted)
        native = values.astype(self._dtype, copy=False)
        self._cache.put((level, *cell), native)
        return native

    def _extent(self, plane: Index, rows: slice, columns: slice) -> Extent:
        """Return the part of the array that holds a region of a plane."""
        others = iter(slice(at, at + 1) for at in plane)
        spatial = dict(zip(SPATIAL, (rows, columns), strict=True))
        return tuple(spatial.get(axis) or next(others) for axis in self._multiscale.axes)

    def _spatial(self, extent: Extent) -> tuple[slice, slice]:
        """Return the rows and columns of a part of the array."""
        y, x = (extent[self._multiscale.axes.index(axis)] for axis in SPATIAL)
        return y, x

    def _image(self, block: Array, extent: Extent, plane: Index) -> Array:
        """Return one plane of a chunk that covers ``extent``, ``(h, w)``."""
        axes = self._multiscale.axes
        others = iter(plane)
        index = tuple(
            slice(None) if axis in SPATIAL else next(others) - part.start
            for axis, part in zip(axes, extent, strict=True)
        )
        image = block[index]
        return image if axes.index("y") < axes.index("x") else image.T


def _axes(multiscale: Multiscale, shape: Sequence[int]) -> tuple[Axis, ...]:
    """Return the axes but y and x; the channels have the metadata's names where they fit."""
    axes = []
    for name, length in zip(multiscale.axes, shape, strict=True):
        labels: tuple[str, ...] = ()
        if name == "channel":
            fits = len(multiscale.channels) == length
            given = multiscale.channels if fits else ("",) * length
            labels = tuple(n or (f"c{i}" if length > 1 else "") for i, n in enumerate(given))
        if name not in SPATIAL:
            axes.append(Axis(name, int(length), labels))
    return tuple(axes)


def _unravel(plane: int, lengths: tuple[int, ...]) -> Index:
    return tuple(int(i) for i in np.unravel_index(plane, lengths)) if lengths else ()
