"""The map store: what the network said of an image, on disk, one file a tile.

``maps.zarr`` is one uint16 array ``(2 L, H, W)``. Of layer l, plane 2 l holds the foreground
quantum in its low and the class in its high byte, plane 2 l + 1 the height. The shard is a
tile's core, so that a file that is there is a tile that is done: it appears by a rename, also
when all of it is background. Inside it small chunks let a reader take a margin of a neighbour
without unpacking all of it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from domainseg.atomic import writing_below
from domainseg.errors import InputError, sentence
from domainseg.instances.tile_graph import Box, Window
from domainseg.records import UNSEEN, Maps, Tile

FAST = BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")
"""Half the time of Zstandard to write and a third to read, for a tenth more on disk."""
LONGEST_CHUNK_PX = 512
"""Sides of the chunks inside a shard: what a decode reads too much at its margins."""


@dataclass(frozen=True, slots=True)
class MapStore:
    """The maps of one image on disk.

    Attributes:
        path: the zarr folder.
        array: uint16 ``(2 L, H, W)``.
        core: ``(h, w)`` of the tiles.
    """

    path: Path
    array: zarr.Array[Any]
    core: tuple[int, int]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.array.shape[0]) // 2

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)``."""
        return (int(self.array.shape[1]), int(self.array.shape[2]))

    def has(self, tile: Tile) -> bool:
        """Tell whether the maps of a tile's core are there, whole."""
        (y, x), _ = tile.core
        return self._file(y // self.core[0], x // self.core[1]).is_file()

    def write(self, tile: Tile, maps: Maps) -> None:
        """Write the maps of a tile's core, at once or not at all.

        Raises:
            OutputError: when they cannot be written.
        """
        (y0, x0), (y1, x1) = tile.core
        packed = np.empty((2 * self.layers, y1 - y0, x1 - x0), np.uint16)
        packed[0::2] = maps.classes
        packed[0::2] <<= 8
        packed[0::2] |= maps.foreground
        packed[1::2] = maps.height
        with writing_below(self.path):
            self.array[:, y0:y1, x0:x1] = packed

    def window(self, layer: int, box: Box) -> Window:
        """Return what a decode reads of a layer: the maps inside ``box``, clipped to the image.

        Raises:
            InputError: when a part of the store is missing or damaged.
        """
        height, width = self.shape
        (y0, x0), (y1, x1) = box
        y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1, height), min(x1, width)
        try:
            packed = np.asarray(self.array[2 * layer : 2 * layer + 2, y0:y1, x0:x1])
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise InputError(
                sentence(
                    self.path,
                    found=f"maps that cannot be read at y {y0} to {y1}, x {x0} to {x1}",
                    wanted="the maps as they were written",
                    fix="delete it and predict again with --restart",
                )
            ) from error
        low = packed[0].astype(np.uint8)  # wraps: the low byte
        return Window(
            low, packed[1].copy(), (packed[0] >> 8).astype(np.uint8), (y0, x0), self.shape
        )

    def missing(self) -> tuple[int, int] | None:
        """Return where the first tile without maps begins, ``(y, x)``, None where all are there."""
        for y in range(0, self.shape[0], self.core[0]):
            for x in range(0, self.shape[1], self.core[1]):
                if not self._file(y // self.core[0], x // self.core[1]).is_file():
                    return y, x
        return None

    def sweep(self) -> None:
        """Delete what a writer that was killed left half written."""
        for partial in self.path.rglob("*.partial"):
            partial.unlink(missing_ok=True)

    def _file(self, row: int, column: int) -> Path:
        return self.path / "c" / "0" / str(row) / str(column)


def open_store(
    path: Path, *, layers: int, shape: tuple[int, int], core: tuple[int, int]
) -> MapStore:
    """Return the store at ``path``, with what it holds; an empty one where there is none.

    A store of another shape, or of other cores ``(h, w)``, is replaced.

    Raises:
        OutputError: when it cannot be created.
    """
    store = _existing(path, layers, shape, core)
    if store is not None:
        store.sweep()
        return store
    chunk = tuple(_chunk_side(side) for side in core)
    with writing_below(path):
        if path.exists():
            shutil.rmtree(path)
        zarr.create_array(
            path,
            shape=(2 * layers, *shape),
            dtype="uint16",
            chunks=(2, *chunk),
            shards=(2 * layers, *core),
            compressors=FAST,
            fill_value=0,
            dimension_names=("map", "y", "x"),
        )
    return existing_store(path)


def existing_store(path: Path) -> MapStore:
    """Return the store at ``path``.

    Raises:
        InputError: when there is none, or it cannot be read.
    """
    try:
        # A tile of zeros must have its file too: only what is there counts as done.
        array = zarr.open_array(path, mode="r+").with_config({"write_empty_chunks": True})
        assert array.shards is not None
        return MapStore(path, array, (array.shards[1], array.shards[2]))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(
            sentence(
                path,
                found="no maps",
                wanted="those of a prediction",
                fix="predict the image again with --restart and without --drop-maps",
            )
        ) from error


def _existing(
    path: Path, layers: int, shape: tuple[int, int], core: tuple[int, int]
) -> MapStore | None:
    try:
        store = existing_store(path)
    except InputError:
        return None
    return store if (store.layers, store.shape, store.core) == (layers, shape, core) else None


def _chunk_side(core_px: int) -> int:
    """Return the largest divisor of the core that a margin may cost."""
    sides = (core_px // n for n in range(1, core_px + 1) if core_px % n == 0)
    return next(side for side in sides if side <= LONGEST_CHUNK_PX)


def blank(tile: Tile, layers: int) -> Maps:
    """Return maps of a tile's core where nobody looked."""
    (y0, x0), (y1, x1) = tile.core
    shape = (layers, y1 - y0, x1 - x0)
    zeros: NDArray[np.uint8] = np.zeros(shape, np.uint8)
    return Maps(zeros, np.zeros(shape, np.uint16), np.full(shape, UNSEEN, np.uint8))
