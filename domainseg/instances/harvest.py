"""Objects measured, outlined and written tile by tile, as the whole image at once would be.

`reap` takes from one tile what the tile alone can tell: finished rows of the objects
that lie wholly in its core, and of the others their pieces and runs inside it. It is a
pure function. `Harvest` takes the tiles in raster order, puts the parts of an object
together as soon as the last tile that it may reach was added, and hands the rows on in
the order of the labels. It holds the objects that cross the present front, and the rows
that wait for a smaller label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.instances.object_files import ROWS, ObjectFiles
from domainseg.instances.object_rows import Scene, object_rows
from domainseg.instances.pieces import AREA, Pieces, find_pieces, merge_pieces, select_pieces
from domainseg.instances.runs import (
    crop_runs,
    move_runs,
    runs_of_labels,
    runs_of_parts,
    select_runs,
    split_runs,
)
from domainseg.instances.spill import Spill
from domainseg.instances.tile_graph import Box
from domainseg.records import Array, Plane

__all__ = ["Harvest", "ObjectFiles", "Scene", "Sheaf", "reap"]

_HELD_BYTES = 1 << 26
_TOGETHER = 4096
"""Objects that are outlined at a time."""


@dataclass(frozen=True, slots=True)
class Sheaf:
    """What one tile tells of its objects.

    Attributes:
        core: the tile's core, px of the image.
        rows: `object_rows` of the objects that lie wholly in it, labels ascending.
        pieces: the pieces of the others, labels ascending.
        parts: of these the runs in the core by label, int32 ``(n, 3)``, px of the image.
    """

    core: Box
    rows: pl.DataFrame
    pieces: Pieces
    parts: Mapping[int, NDArray[np.int32]]


def reap(
    window: Array,
    *,
    core: Box,
    scene: Scene,
    image: Plane | None,
    boxes: NDArray[np.int32],
    classes: NDArray[np.int16],
    scores: NDArray[np.float32],
    first: int = 1,
) -> Sheaf:
    """Return what a tile tells of its objects.

    Args:
        window: integer labels, 0 for background, of the core and of one row below it and
            one column to its right where the image goes on.
        core: ``((y0, x0), (y1, x1))``, px of the image.
        scene: what the tiles share.
        image: the whole ``(C, H, W)``, of which the core is read; None where the scene
            has no channels.
        boxes: int32 ``(N, 2, 2)``, a box around label ``first + i`` in row i, px of the
            image; it may be larger than the object.
        classes: index into the scene's class names per label.
        scores: confidence per label.
        first: the smallest label.

    Raises:
        ValueError: when the window does not fit the core, or the boxes, channels or image
            do not fit the labels.
    """
    _require_fit(window, core, scene, image)
    shape = (core[1][0] - core[0][0], core[1][1] - core[0][1])
    seen = runs_of_labels(window, where=scene.image_id or "label map")
    pieces = find_pieces(seen, core=shape, origin=core[0], image=image, quanta=scene.quanta)
    bounds = _bounds_of(pieces, boxes, scene.shape, first)
    whole = _inside(bounds, np.array(core))
    runs = select_runs(seen, np.isin(seen.ids, pieces.ids, assume_unique=True))
    runs = move_runs(crop_runs(runs, shape), origin=core[0], shape=scene.shape)
    at = pieces.ids[whole] - first
    rows = object_rows(
        select_pieces(pieces, whole),
        select_runs(runs, whole),
        scene,
        classes=classes[at],
        scores=scores[at],
    )
    return Sheaf(core, rows, select_pieces(pieces, ~whole), split_runs(select_runs(runs, ~whole)))


class Harvest:
    """The objects of one layer on their way from tiles to files.

    Args:
        files: what the rows are written to; layers one after the other.
        scene: what the tiles share.
        boxes: as in `reap`, likewise ``classes``, ``scores`` and ``first``.
        scratch: folder for rows that wait, of this layer alone.
        held_bytes: what waiting rows may take of memory.
    """

    def __init__(
        self,
        files: ObjectFiles,
        *,
        scene: Scene,
        boxes: NDArray[np.int32],
        classes: NDArray[np.int16],
        scores: NDArray[np.float32],
        scratch: Path,
        first: int = 1,
        held_bytes: int = _HELD_BYTES,
    ) -> None:
        self._files, self._scene, self._first = files, scene, first
        self._classes, self._scores = classes, scores
        self._bottoms = np.minimum(boxes[:, 1, 0], scene.shape[0])
        starts = np.arange(0, len(boxes), ROWS)
        self._bucket_bottoms = np.maximum.reduceat(self._bottoms, starts) if len(starts) else starts
        self._spill = Spill(scratch, held_bytes=held_bytes)
        self._bucket = 0
        self._next = (0, 0)
        self._pieces: list[Pieces] = []
        self._parts: dict[int, list[NDArray[np.int32]]] = {}
        self._rows = 0

    @property
    def pending(self) -> int:
        """Objects that are held because tiles to come may have more of them."""
        return len(self._parts)

    def add(self, sheaf: Sheaf) -> None:
        """Take a tile. The tiles come in raster order: row after row, each from left to right.

        Raises:
            ValueError: when another tile was next.
            OutputError: when there is no room for rows on the disk.
        """
        (y0, x0), (y1, x1) = sheaf.core
        if (y0, x0) != self._next:
            raise ValueError(f"tile at {(y0, x0)} was added where that at {self._next} is next")
        self._put(sheaf.rows)
        if len(sheaf.pieces):
            self._pieces.append(sheaf.pieces)
        for label, runs in sheaf.parts.items():
            self._parts.setdefault(label, []).append(runs)
        self._next = (y0, x1)
        if x1 == self._scene.shape[1]:
            self._next = (y1, 0)
            self._advance(y1)

    def finish(self) -> int:
        """Write all rows that are left and return the number of objects.

        Raises:
            ValueError: when tiles are missing.
        """
        height, width = self._scene.shape
        if self._next != (height, 0) and height * width > 0:
            raise ValueError(f"the tile at {self._next} was not added")
        return self._rows

    def _advance(self, front: int) -> None:
        """Finish the objects above row ``front``, of which no more can come."""
        if self._pieces:
            merged = merge_pieces(self._pieces)
            finished = self._bottoms[merged.ids - self._first] <= front
            alive = select_pieces(merged, ~finished)
            # One part an object from here on: each row of tiles merges what it added.
            self._pieces = [alive] if len(alive) else []
            rows = np.flatnonzero(finished)
            for start in range(0, len(rows), _TOGETHER):
                some = np.zeros_like(finished)
                some[rows[start : start + _TOGETHER]] = True
                self._put(self._joined(select_pieces(merged, some)))
        self._write_buckets(front)

    def _write_buckets(self, front: int) -> None:
        """Write the rows whose turn it is: no label up to theirs can have a pixel to come."""
        while self._bucket < len(self._bucket_bottoms):
            if self._bucket_bottoms[self._bucket] > front:
                return
            if (rows := self._spill.take(self._bucket)) is not None:
                self._files.write(rows)
            self._bucket += 1

    def _joined(self, pieces: Pieces) -> pl.DataFrame:
        """Return the rows of objects whose parts have all come."""
        parts = [self._parts.pop(label) for label in pieces.ids.tolist()]
        at = pieces.ids - self._first
        return object_rows(
            pieces,
            runs_of_parts(pieces.ids, parts, shape=self._scene.shape),
            self._scene,
            classes=self._classes[at],
            scores=self._scores[at],
        )

    def _put(self, rows: pl.DataFrame) -> None:
        """Keep rows until all of their bucket of `ROWS` labels are there."""
        buckets = (rows["label"].to_numpy() - self._first) // ROWS
        cuts = np.flatnonzero(np.diff(buckets)) + 1
        for low, high in pairwise([0, *cuts.tolist(), len(buckets)]):
            if high > low:
                self._spill.put(int(buckets[low]), rows[low:high])
        self._rows += rows.height


def _require_fit(window: Array, core: Box, scene: Scene, image: Plane | None) -> None:
    (y0, x0), (y1, x1) = core
    height, width = scene.shape
    wanted = (min(y1 + 1, height) - y0, min(x1 + 1, width) - x0)
    if window.shape != wanted:
        raise ValueError(f"a window of shape {window.shape}, wanted {wanted} for the core {core}")
    channels = 0 if image is None else int(image.shape[0])
    if not channels == len(scene.channels) == len(scene.quanta):
        raise ValueError(
            f"{channels} channels with {len(scene.channels)} names and {len(scene.quanta)} quanta"
        )
    if image is not None and tuple(image.shape[1:]) != scene.shape:
        raise ValueError(f"an image of shape {image.shape} in a scene of shape {scene.shape}")


def _bounds_of(
    pieces: Pieces, boxes: NDArray[np.int32], shape: tuple[int, int], first: int
) -> NDArray[np.int64]:
    """Return the boxes of the objects, cut at the image's border, int64 ``(N, 2, 2)``.

    Raises:
        ValueError: for a label without a box, or with a pixel outside it: an object would
            be finished before all of it was seen.
    """
    rows = pieces.ids - first
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(boxes):
        stray = pieces.ids[(rows < 0) | (rows >= len(boxes))]
        last = first + len(boxes) - 1
        raise ValueError(f"label {stray[0]} has no box: those are of {first} to {last}")
    bounds = np.clip(boxes[rows].astype(np.int64), 0, shape)
    beyond = (pieces.counts[:, AREA] > 0) & ~_inside(pieces.boxes, bounds)
    if beyond.any():
        at = int(np.flatnonzero(beyond)[0])
        raise ValueError(
            f"label {pieces.ids[at]} has pixels in {pieces.boxes[at].tolist()}, "
            f"outside its box {boxes[rows[at]].tolist()}"
        )
    return np.asarray(bounds, np.int64)


def _inside(inner: NDArray[np.int64], outer: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which boxes ``(N, 2, 2)`` lie inside one box, or each inside its own."""
    low = inner[:, 0] >= outer[..., 0, :]
    high = inner[:, 1] <= outer[..., 1, :]
    return np.asarray(low.all(axis=1) & high.all(axis=1), np.bool_)
