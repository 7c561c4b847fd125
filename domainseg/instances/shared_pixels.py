"""How many pixels objects share that may overlap, from their runs, without a dense mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.instances.runs import ObjectRuns

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shared:
    """Pairs of objects that share pixels, P of them, each once.

    Attributes:
        pairs: int64 ``(P, 2)``, indices of the two objects, the smaller first; ascending.
        areas_px: int64 ``(P,)``, pixels that both hold, at least 1.
    """

    pairs: Ints
    areas_px: Ints


def areas_of(objects: ObjectRuns) -> Ints:
    """Return the number of pixels of each object, int64 ``(N,)``."""
    total = np.concatenate([[0], np.cumsum(objects.runs[:, 2])])
    return np.asarray(total[objects.offsets[1:]] - total[objects.offsets[:-1]], np.int64)


def boxes_of(objects: ObjectRuns) -> Ints:
    """Return the boxes of objects, int64 ``(N, 2, 2)``, half-open; zeros of one without pixels."""
    boxes = np.zeros((len(objects), 2, 2), np.int64)
    _boxes(objects.runs, objects.offsets, boxes)
    return boxes


def find_shared(objects: ObjectRuns) -> Shared:
    """Return the pairs of objects that share pixels, and how many."""
    boxes = boxes_of(objects)
    # Along the longer side of the image fewer boxes are met at a time.
    axis = int(objects.shape[1] > objects.shape[0])
    order = np.argsort(boxes[:, 0, axis], kind="stable")
    nothing = np.zeros((0, 3), np.int64)
    count = _cross(boxes, order, axis, objects.runs, objects.offsets, nothing)
    found = np.empty((count, 3), np.int64)
    _cross(boxes, order, axis, objects.runs, objects.offsets, found)
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    return Shared(found[:, :2].copy(), found[:, 2].copy())


def areas_within(objects: ObjectRuns, boxes: Ints) -> Ints:
    """Return how many pixels of each object lie in its box, int64 ``(N,)``.

    ``boxes`` is int64 ``(N, 2, 2)``, half-open, px of the image.
    """
    areas = np.zeros(len(objects), np.int64)
    _within(objects.runs, objects.offsets, boxes, areas)
    return areas


@kernel
def _boxes(runs: Ints, offsets: Ints, boxes: Ints) -> None:
    for i in range(len(boxes)):
        first, last = offsets[i], offsets[i + 1]
        if first == last:
            continue
        left, right = runs[first, 1], 0
        for k in range(first, last):
            left = min(left, runs[k, 1])
            right = max(right, runs[k, 1] + runs[k, 2])
        boxes[i, 0, 0], boxes[i, 0, 1] = runs[first, 0], left
        boxes[i, 1, 0], boxes[i, 1, 1] = runs[last - 1, 0] + 1, right


@kernel
def _cross(boxes: Ints, order: Ints, axis: int, runs: Ints, offsets: Ints, found: Ints) -> int:
    """Write ``(i, j, pixels)`` of each pair where there is room; return how many there are."""
    count, other = 0, 1 - axis
    for a in range(len(order)):
        i = order[a]
        for b in range(a + 1, len(order)):
            j = order[b]
            if boxes[j, 0, axis] >= boxes[i, 1, axis]:
                break
            if boxes[j, 0, other] >= boxes[i, 1, other]:
                continue
            if boxes[j, 1, other] <= boxes[i, 0, other]:
                continue
            area = _common(runs, offsets[i], offsets[i + 1], offsets[j], offsets[j + 1])
            if area == 0:
                continue
            if count < len(found):
                found[count, 0], found[count, 1] = min(i, j), max(i, j)
                found[count, 2] = area
            count += 1
    return count


@kernel
def _common(runs: Ints, a: int, a_end: int, b: int, b_end: int) -> int:
    """Return the pixels that two lists of runs in raster order have in common."""
    area = 0
    while a < a_end and b < b_end:
        if runs[a, 0] != runs[b, 0]:
            if runs[a, 0] < runs[b, 0]:
                a += 1
            else:
                b += 1
            continue
        a_stop, b_stop = runs[a, 1] + runs[a, 2], runs[b, 1] + runs[b, 2]
        area += max(0, min(a_stop, b_stop) - max(runs[a, 1], runs[b, 1]))
        if a_stop <= b_stop:
            a += 1
        else:
            b += 1
    return area


@kernel
def _within(runs: Ints, offsets: Ints, boxes: Ints, areas: Ints) -> None:
    for i in range(len(areas)):
        top, left = boxes[i, 0]
        bottom, right = boxes[i, 1]
        for k in range(offsets[i], offsets[i + 1]):
            if top <= runs[k, 0] < bottom:
                stop = min(runs[k, 1] + runs[k, 2], right)
                areas[i] += max(0, stop - max(runs[k, 1], left))
