"""The chunks of an OME-Zarr pyramid, and which of them are damaged.

A chunk that is not there is legal in zarr, where it stands for the fill value, and usual in a
copy that failed. The pyramid is the witness: a missing chunk is empty where the array has a
fill value and every pixel of the next coarser level that lies wholly inside the chunk holds
it too. Without that witness (the last level, coarser pixels with something in them, or whose
own chunk is missing without a witness) it is damaged. So a writer that leaves empty chunks
out is understood wherever it wrote a pyramid; a single level must hold all its chunks. Inside
a shard the index says which chunks are empty, and is believed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import zarr

from domainseg.errors import DomainsegError, InputError, MissingInputError, sentence
from domainseg.images.files import DAMAGE, damaged, refusing_damage
from domainseg.images.ome_zarr_metadata import SPATIAL, Multiscale
from domainseg.images.zarr_store import ChunkStore
from domainseg.records import Array

Cell = tuple[int, ...]
"""A chunk's position in the grid of chunks, one number an axis."""
Extent = tuple[slice, ...]
"""A part of an array, one slice an axis."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """The arrays of a pyramid, opened in one process: connections do not survive a fork.

    Attributes:
        store: where the chunks lie.
        axes: names of the arrays' axes.
        arrays: full resolution first.
        process: the id of the process that opened them.
    """

    store: ChunkStore
    axes: tuple[str, ...]
    arrays: tuple[zarr.Array[Any], ...]
    process: int = field(default_factory=os.getpid)

    def read(self, level: int, cell: Cell) -> tuple[Array, str | None]:
        """Return the pixels of a chunk and what is wrong with it; 0 where something is.

        Raises:
            InputError: when the disk or server does not answer, which is no damage.
        """
        array = self.arrays[level]
        extent = self.extent(level, cell)
        key = _key(array, cell)
        problem = None
        try:
            values = np.asarray(array[extent])
            if key in self.store.missing and not self._is_empty(level, extent):
                _check_there(self.store, array)
                problem = f"no chunk {key}"
        except DomainsegError:
            raise
        except DAMAGE:
            problem = f"a truncated or corrupt chunk {key}"
        if problem is not None:
            values = np.zeros([part.stop - part.start for part in extent], array.dtype)
        return values, problem

    def extent(self, level: int, cell: Cell) -> Extent:
        """Return the part of the array of ``level`` that a chunk covers."""
        array = self.arrays[level]
        return tuple(
            slice(at * length, min((at + 1) * length, total))
            for at, length, total in zip(cell, array.chunks, array.shape, strict=True)
        )

    def cells(self, level: int, extent: Sequence[slice]) -> list[Cell]:
        """Return the chunks that a part of the array of ``level`` touches, in C order."""
        pairs = zip(extent, self.arrays[level].chunks, strict=True)
        return list(
            product(*(range(part.start // n, math.ceil(part.stop / n)) for part, n in pairs))
        )

    def names(self) -> Iterator[str]:
        """Yield the name of every object that may hold pixels, level by level in C order."""
        for array in self.arrays:
            pairs = zip(array.shape, array.shards or array.chunks, strict=True)
            for outer in product(*(range(math.ceil(total / length)) for total, length in pairs)):
                yield _name(array, outer)

    def _is_empty(self, level: int, extent: Extent) -> bool:
        """Tell whether the next coarser level shows the fill value all over a missing chunk."""
        fill = self.arrays[level].metadata.fill_value
        if fill is None or level + 1 >= len(self.arrays):
            return False
        inside = self._coarser_inside(level, extent)
        if any(part.start >= part.stop for part in inside):
            return False
        for cell in self.cells(level + 1, inside):
            values, problem = self.read(level + 1, cell)
            overlap = tuple(
                slice(max(part.start - there.start, 0), part.stop - there.start)
                for part, there in zip(inside, self.extent(level + 1, cell), strict=True)
            )
            if problem is not None or not (values[overlap] == fill).all():
                return False
        return True

    def _coarser_inside(self, level: int, extent: Extent) -> Extent:
        """Return the pixels of the next coarser level that lie wholly inside ``extent``."""
        finer, coarser = self.arrays[level].shape, self.arrays[level + 1].shape
        parts = []
        for axis, part, n, m in zip(self.axes, extent, finer, coarser, strict=True):
            shrunk = slice(-(-part.start * m // n), part.stop * m // n)
            parts.append(shrunk if axis in SPATIAL else part)
        return tuple(parts)


def open_chunks(store: ChunkStore, multiscale: Multiscale) -> Chunks:
    """Return the levels of ``multiscale``, up to the first that is no smaller copy of the first.

    Raises:
        InputError: when one is missing or its metadata damaged.
    """
    arrays: list[zarr.Array[Any]] = []
    for path in multiscale.paths:
        array = _open_array(store, path, multiscale)
        if arrays and not _is_copy(array, arrays[0], multiscale.axes):
            break
        arrays.append(array)
    return Chunks(store, multiscale.axes, tuple(arrays))


def _is_copy(array: zarr.Array[Any], first: zarr.Array[Any], axes: Sequence[str]) -> bool:
    """Tell whether two levels differ in nothing but their height and width."""
    return array.dtype == first.dtype and all(
        here <= there if axis in SPATIAL else here == there
        for axis, here, there in zip(axes, array.shape, first.shape, strict=True)
    )


def _open_array(store: ChunkStore, path: str, multiscale: Multiscale) -> zarr.Array[Any]:
    name = "zarr.json" if multiscale.zarr_format == 3 else ".zarray"
    if store.document(f"{path}/{name}") is None:
        raise InputError(
            sentence(
                store.location,
                found=f"no array {path}, which its metadata names as a level",
                wanted="every level",
                fix="copy or download it again",
            )
        )
    with refusing_damage(store.location, "OME-Zarr"):
        array = zarr.open_array(store, path=path, mode="r", zarr_format=multiscale.zarr_format)
        if _is_blosc(array):
            store.framed.add(array.path)
        if array.ndim != len(multiscale.axes) or 0 in array.shape:
            raise damaged(store.location, "OME-Zarr")
    return array


def _is_blosc(array: zarr.Array[Any]) -> bool:
    """Tell whether the stored objects are Blosc frames."""
    codecs = [*array.compressors]
    return bool(codecs) and not array.shards and "blosc" in type(codecs[-1]).__name__.lower()


def _check_there(store: ChunkStore, array: zarr.Array[Any]) -> None:
    """Refuse to take an image that went away for one that has lost its chunks."""
    name = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    if store.fetch(f"{array.path}/{name}") is None:
        raise MissingInputError(
            sentence(
                store.location,
                found="nothing where it was opened",
                wanted="the image to stay while it is read",
                fix="bring it back and run the same command again",
            )
        )


def _key(array: zarr.Array[Any], cell: Cell) -> str:
    """Return the object that holds a chunk: its own, or the shard around it."""
    stored = array.shards or array.chunks
    outer = tuple(
        at * inner // around for at, inner, around in zip(cell, array.chunks, stored, strict=True)
    )
    return _name(array, outer)


def _name(array: zarr.Array[Any], outer: Cell) -> str:
    return f"{array.path}/{array.metadata.encode_chunk_key(outer)}"
