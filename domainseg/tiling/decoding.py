"""The streaming decode: from a map store to numbered labels, in blocks, on several threads.

The pixel functions are those of the decoder in memory; only what a block leaves behind is
kept (`domainseg.instances.residue`). Blocks have nothing to do with the tiles of the network,
and like those they change no object.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from domainseg.atomic import writing_below
from domainseg.images.resample import Grid
from domainseg.instances.basins import DecodeOptions, check_classes
from domainseg.instances.plateaus import MARGIN
from domainseg.instances.residue import Numbering, Quilt, Residue, settle
from domainseg.instances.tile_graph import Box, graph_of_tile
from domainseg.tiling.linking import link_numbering
from domainseg.tiling.store import FAST, MapStore
from domainseg.tiling.stream import Tell, in_order


@dataclass(frozen=True, slots=True)
class BlockWork:
    """How a decode is spread over blocks and threads; no result depends on it.

    Attributes:
        block_px: side of a block.
        workers: threads.
    """

    block_px: int = 2048
    workers: int = 2


@dataclass(frozen=True, slots=True)
class DecodedStore:
    """The objects of an image whose labels are painted on demand.

    Attributes:
        numberings: the objects of each layer, numbered through all of them.
        codes: int32 ``(L, H, W)``, what each block left, on disk.
        block_px: side of a block.
        grid: from the model grid, on which this is, to the image's own pixels.
        links: objects that there are fewer because some were linked.
    """

    numberings: tuple[Numbering, ...]
    codes: zarr.Array[Any]
    block_px: int
    grid: Grid
    links: int = 0

    def __len__(self) -> int:
        return sum(len(numbering) for numbering in self.numberings)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.numberings)

    def first(self, layer: int) -> int:
        """Return the smallest label of a layer."""
        return self.numberings[layer].first

    def classes_of(self, layer: int) -> NDArray[np.int16]:
        """Return the class of each object of a layer, int16 ``(n,)``."""
        return self.numberings[layer].objects.classes

    def scores_of(self, layer: int) -> NDArray[np.float32]:
        """Return the score of each object of a layer, float32 ``(n,)``."""
        return self.numberings[layer].objects.scores

    def labels(self, box: Box) -> tuple[NDArray[np.int32], ...]:
        """Return the labels of every layer in a box of the image, int32 ``(h, w)`` each.

        As `images.resample.labels_to_source`: each pixel's centre picks its label.
        """
        if self.grid.is_identity:
            return tuple(self.on_grid(layer, box) for layer in range(len(self.numberings)))
        rows, columns = (
            _picked(start, stop, scale, size)
            for start, stop, scale, size in zip(
                *box, self.grid.scale_yx, self.grid.model_shape, strict=True
            )
        )
        inner = (
            (int(rows[0]), int(columns[0])),
            (int(rows[-1]) + 1, int(columns[-1]) + 1),
        )
        taken = np.ix_(rows - rows[0], columns - columns[0])
        return tuple(self.on_grid(i, inner)[taken] for i in range(len(self.numberings)))

    def boxes_of(self, layer: int) -> NDArray[np.int32]:
        """Return boxes of a layer's objects in pixels of the image, int32 ``(N, 2, 2)``.

        An object lies inside its box, which may be larger by a pixel or two where the grids
        differ.
        """
        boxes = self.numberings[layer].objects.boxes
        if self.grid.is_identity:
            return boxes
        scale = np.array(self.grid.scale_yx)
        limit = np.array(self.grid.source_shape)
        low = np.floor(boxes[:, 0] / scale).astype(np.int64) - 1
        high = np.ceil(boxes[:, 1] / scale).astype(np.int64) + 1
        # The last model pixel stands in for whatever the image has beyond it.
        high = np.where(boxes[:, 1] >= np.array(self.grid.model_shape), limit, high)
        return np.stack([np.clip(low, 0, limit), np.clip(high, 0, limit)], 1).astype(np.int32)

    def on_grid(self, layer: int, box: Box) -> NDArray[np.int32]:
        """Return the labels of a layer in a box of the model grid."""
        (y0, x0), (y1, x1) = box
        side, across = self.block_px, -(-self.codes.shape[2] // self.block_px)
        out = np.empty((y1 - y0, x1 - x0), np.int32)
        for i in range(y0 // side, -(-y1 // side)):
            for j in range(x0 // side, -(-x1 // side)):
                top, left = max(y0, i * side), max(x0, j * side)
                bottom, right = min(y1, (i + 1) * side), min(x1, (j + 1) * side)
                codes = np.asarray(self.codes[layer, top:bottom, left:right])
                painted = self.numberings[layer].paint(i * across + j, codes)
                out[top - y0 : bottom - y0, left - x0 : right - x0] = painted
        return out


def block_boxes(shape: tuple[int, int], side: int) -> list[Box]:
    """Return the boxes of the blocks of an image ``(H, W)``, in raster order."""
    return [
        ((y, x), (min(y + side, shape[0]), min(x + side, shape[1])))
        for y in range(0, shape[0], side)
        for x in range(0, shape[1], side)
    ]


@contextmanager
def decoding(
    store: MapStore,
    options: DecodeOptions,
    *,
    grid: Grid,
    scratch: Path,
    work: BlockWork = BlockWork(),
    tell: Tell = lambda _done, _total: None,
) -> Iterator[DecodedStore]:
    """Yield the objects of the maps in a store; ``scratch`` exists while the block runs.

    Raises:
        InputError: the store is damaged, or holds a class that ``options.split`` does not
            name.
        OutputError: ``scratch`` cannot be written.
    """
    blocks = block_boxes(store.shape, work.block_px)
    passes = store.layers * (1 if options.link_px is None else 2)
    try:
        with writing_below(scratch):
            shutil.rmtree(scratch, ignore_errors=True)
            codes = _codes_array(scratch / "codes.zarr", store, work.block_px)
            numberings: list[Numbering] = []
            first = 1
            for layer in range(store.layers):
                behind = layer * len(blocks)

                def told(done: int, _total: int, behind: int = behind) -> None:
                    tell(behind + done, passes * len(blocks))

                one = _number_layer(
                    store, layer, options, codes, blocks, work=work, first=first, tell=told
                )
                numberings.append(one)
                first += len(one)
            decoded = DecodedStore(tuple(numberings), codes, work.block_px, grid)
            if options.link_px is not None:
                decoded = _linked(decoded, options.link_px, blocks, work=work, tell=tell)
        yield decoded
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _number_layer(
    store: MapStore,
    layer: int,
    options: DecodeOptions,
    codes: zarr.Array[Any],
    blocks: Sequence[Box],
    *,
    work: BlockWork,
    first: int,
    tell: Tell,
) -> Numbering:
    rules, keep = options.rules(), options.filter()

    def decode_block(box: Box) -> Residue:
        (y0, x0), (y1, x1) = box
        window = store.window(layer, ((y0 - MARGIN, x0 - MARGIN), (y1 + MARGIN, x1 + MARGIN)))
        check_classes(window.foreground, window.classes, options)
        residue, painted = settle(graph_of_tile(rules.gated(window), box, rules), keep=keep)
        codes[layer, y0:y1, x0:x1] = painted
        return residue

    quilt = Quilt(store.shape)
    with ThreadPoolExecutor(work.workers) as pool:
        for done, residue in enumerate(
            in_order(pool, decode_block, blocks, ahead=work.workers), start=1
        ):
            quilt.add(residue)
            tell(done, len(blocks))
    return quilt.finish(limit=rules.limit, keep=keep, first=first)


def _linked(
    decoded: DecodedStore,
    gaps: Sequence[int | None],
    blocks: Sequence[Box],
    *,
    work: BlockWork,
    tell: Tell,
) -> DecodedStore:
    """Return the objects with those of one class linked across gaps, numbered anew."""
    numberings: list[Numbering] = []
    links, first = 0, 1
    layers = len(decoded.numberings)
    for layer, numbering in enumerate(decoded.numberings):
        behind = (layers + layer) * len(blocks)

        def told(done: int, _total: int, behind: int = behind) -> None:
            tell(behind + done, 2 * layers * len(blocks))

        one, fewer = link_numbering(
            numbering,
            partial(decoded.on_grid, layer),
            gaps=gaps,
            blocks=blocks,
            shape=(decoded.codes.shape[1], decoded.codes.shape[2]),
            workers=work.workers,
            first=first,
            tell=told,
        )
        numberings.append(one)
        links, first = links + fewer, first + len(one)
    return replace(decoded, numberings=tuple(numberings), links=links)


def _codes_array(path: Path, store: MapStore, side: int) -> zarr.Array[Any]:
    return zarr.create_array(
        path,
        shape=(store.layers, *store.shape),
        dtype="int32",
        chunks=(1, min(side, store.shape[0]), min(side, store.shape[1])),
        compressors=FAST,
        fill_value=0,
    )


def _picked(start: int, stop: int, scale: float, size: int) -> NDArray[np.int64]:
    """Return the model index under the centre of each pixel from ``start`` to ``stop``."""
    centres = np.floor((np.arange(start, stop) + 0.5) * scale).astype(np.int64)
    return np.asarray(np.minimum(centres, size - 1))


def spread(pool: ThreadPoolExecutor, *, ahead: int) -> Callable[..., None]:
    """Return what calls a function with every item on the pool, some items ahead."""

    def each(work: Callable[[Any], Any], items: Any) -> None:
        for _ in in_order(pool, work, items, ahead=ahead):
            pass

    return each


def window_of(box: Box, shape: tuple[int, int]) -> Box:
    """Return a block and the row below and the column right of it, where the image goes on."""
    (y0, x0), (y1, x1) = box
    return (y0, x0), (min(y1 + 1, shape[0]), min(x1 + 1, shape[1]))
