"""What a detector finds: boxes, each with a class, a score and a small grid of its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.instances.runs import ObjectRuns

GRID_TOP = 255
"""Quantum of mask probability 1."""


@dataclass(frozen=True, slots=True)
class Detections:
    """Objects that a detector found, N of them, in no order; they may overlap.

    Attributes:
        boxes: float32 ``(N, 2, 2)``, ``[[y0, x0], [y1, x1]]``, px; a pixel i covers i to i + 1.
        grids: uint8 ``(N, M, M)``, probability that a cell of the box is the object, in quanta
            of 1 / GRID_TOP.
        classes: int16 ``(N,)``.
        scores: float32 ``(N,)`` in [0, 1].
    """

    boxes: NDArray[np.float32]
    grids: NDArray[np.uint8]
    classes: NDArray[np.int16]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def none(cls, side: int) -> Detections:
        """Return no objects, with grids of ``side`` cells."""
        return cls(
            np.zeros((0, 2, 2), np.float32),
            np.zeros((0, side, side), np.uint8),
            np.zeros(0, np.int16),
            np.zeros(0, np.float32),
        )

    @classmethod
    def joined(cls, parts: Sequence[Detections]) -> Detections:
        """Return the objects of one or more sets, set after set."""
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.grids for part in parts]),
            np.concatenate([part.classes for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Detections:
        """Return the objects that a mask ``(N,)`` or an index names."""
        return Detections(
            self.boxes[which], self.grids[which], self.classes[which], self.scores[which]
        )

    def placed(self, origin: tuple[int, int], scale_yx: tuple[float, float]) -> Detections:
        """Return the objects of a window at ``origin`` of a grid, in px of what the grid shows.

        ``scale_yx`` is px of the grid per px of that.
        """
        boxes = (self.boxes.astype(np.float64) + np.array(origin)) / np.array(scale_yx)
        return replace(self, boxes=boxes.astype(np.float32))


def paste(
    found: Detections, thresholds: NDArray[np.float32], *, shape: tuple[int, int]
) -> ObjectRuns:
    """Return the pixels of detections, ids from 1 in their order; one may have none.

    A pixel belongs to an object where the probability at its centre reaches the object's
    threshold: bilinear between the centres of the grid's cells, that of the nearest between
    these and the sides of the box. What lies outside the image is left out.

    Args:
        found: N detections, boxes in px of the image.
        thresholds: float32 ``(N,)``, probabilities.
        shape: ``(H, W)`` of the image.
    """
    boxes = np.ascontiguousarray(found.boxes.reshape(-1, 4), np.float64)
    grids = np.ascontiguousarray(found.grids)
    quanta = np.asarray(thresholds, np.float32) * np.float32(GRID_TOP)
    counts = np.zeros(len(found) + 1, np.int64)
    nothing = np.zeros((0, 3), np.int64)
    _paste(boxes, grids, quanta, shape[0], shape[1], counts, nothing, False)
    offsets = np.cumsum(counts)
    runs = np.empty((int(offsets[-1]), 3), np.int64)
    _paste(boxes, grids, quanta, shape[0], shape[1], offsets, runs, True)
    return ObjectRuns(np.arange(1, len(found) + 1), runs, offsets, shape)


@kernel
def _paste(
    boxes: NDArray[np.float64],
    grids: NDArray[np.uint8],
    quanta: NDArray[np.float32],
    height: int,
    width: int,
    offsets: NDArray[np.int64],
    runs: NDArray[np.int64],
    write: bool,
) -> None:
    """Count the runs of object i in ``offsets[i + 1]``, or write them from ``offsets[i]`` on."""
    side = grids.shape[1]
    for i in range(len(boxes)):
        y0, x0, y1, x1 = boxes[i]
        if not (y1 > y0 and x1 > x0):
            continue
        top, bottom = max(0, int(np.ceil(y0 - 0.5))), min(height, int(np.ceil(y1 - 0.5)))
        left, right = max(0, int(np.ceil(x0 - 0.5))), min(width, int(np.ceil(x1 - 0.5)))
        down, across = side / (y1 - y0), side / (x1 - x0)
        at = offsets[i]
        count = 0
        for y in range(top, bottom):
            v = min(max((y + 0.5 - y0) * down - 0.5, 0.0), side - 1.0)
            upper = min(int(v), max(side - 2, 0))
            lower = min(upper + 1, side - 1)
            b = np.float32(v - upper)
            start = -1
            for x in range(left, right):
                u = min(max((x + 0.5 - x0) * across - 0.5, 0.0), side - 1.0)
                one = min(int(u), max(side - 2, 0))
                other = min(one + 1, side - 1)
                a = np.float32(u - one)
                above = (1 - a) * grids[i, upper, one] + a * grids[i, upper, other]
                below = (1 - a) * grids[i, lower, one] + a * grids[i, lower, other]
                inside = (1 - b) * above + b * below >= quanta[i]
                if inside and start < 0:
                    start = x
                if start >= 0 and (not inside or x == right - 1):
                    stop = x + 1 if inside else x
                    if write:
                        runs[at + count, 0] = y
                        runs[at + count, 1] = start
                        runs[at + count, 2] = stop - start
                    count += 1
                    start = -1
        if not write:
            offsets[i + 1] = count
