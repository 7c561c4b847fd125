"""Parts of one object put together across gaps, as a recipe asks for it.

Two objects of a class are one when background no wider than the class's gap lies between
two of their pixels: the Chebyshev distance of these is at most ``gap + 1``. What is linked
to one object is one object. It has the class of its parts, the mean of their scores weighted
by area, and the place in the numbering of its first pixel.

Nearness is a matter of two pixels, and being linked of the pairs that are near; so any blocks
with a margin of ``gap + 1`` pixels find what the whole image shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from domainseg.instances.kernel import kernel
from domainseg.instances.runs import raster_runs
from domainseg.records import Array

APART = -1
"""Gap of classes whose objects are not linked."""


@dataclass(frozen=True, slots=True)
class NearPairs:
    """What a window of labels says of the objects of classes that are linked.

    Attributes:
        pairs: int64 ``(P, 2)``, objects that belong together; as few as say so.
        ids: int64 ``(M,)``, the objects seen in the core, ascending.
        areas_px: int64 ``(M,)``, their pixels in the core.
    """

    pairs: NDArray[np.int64]
    ids: NDArray[np.int64]
    areas_px: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Links:
    """Which objects become one.

    Attributes:
        groups: int64 ``(N,)``, the number, from 0 on, of the object that each becomes part
            of, in the order of the first of its parts.
        areas_px: int64 ``(N,)``, the area of each; of objects that are not linked it may be 0.
    """

    groups: NDArray[np.int64]
    areas_px: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Objects that there are."""
        return int(self.groups.max(initial=-1)) + 1

    @property
    def links(self) -> int:
        """Objects that there are fewer."""
        return len(self.groups) - self.count

    def first(self) -> NDArray[np.int64]:
        """Return the first part of each object, int64 ``(count,)``."""
        return np.unique(self.groups, return_index=True)[1].astype(np.int64)

    def summed(self, values: Array) -> Array:
        """Return the sums of the parts' values ``(N, ...)``, in their order."""
        total = np.zeros((self.count, *values.shape[1:]), values.dtype)
        np.add.at(total, self.groups, values)
        return total

    def scores(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean score of each object's parts, by area, float32 ``(count,)``."""
        parts = np.bincount(self.groups, minlength=self.count)
        weights = np.maximum(self.areas_px, 1).astype(np.float64)
        total = np.bincount(self.groups, weights, self.count)
        means = np.bincount(self.groups, weights * scores, self.count) / np.maximum(total, 1)
        return np.where(parts > 1, means, scores[self.first()]).astype(np.float32)

    def boxes(self, boxes: Array) -> Array:
        """Return the box around each object's parts, ``(count, 2, 2)``."""
        order = np.argsort(self.groups, kind="stable")
        starts = np.searchsorted(self.groups[order], np.arange(self.count))
        if not len(starts):
            return boxes
        low = np.minimum.reduceat(boxes[order, 0], starts, axis=0)
        high = np.maximum.reduceat(boxes[order, 1], starts, axis=0)
        return np.stack([low, high], 1)


def link_labels(labels: Array, classes: ArrayLike, gaps: Sequence[int | None]) -> NDArray[np.int32]:
    """Return the new label of each label of a map, int32 ``(N + 1,)``; background stays 0.

    Args:
        labels: integer ``(H, W)``, the objects 1 to N.
        classes: class of each object, ``(N,)``.
        gaps: of each class, the widest gap in px that is bridged, None for none.
    """
    links = find_links(labels, np.asarray(classes), gaps=gaps)
    return np.concatenate([[0], links.groups + 1]).astype(np.int32)


def find_links(
    labels: Array, classes: NDArray[Any], *, gaps: Sequence[int | None], first: int = 1
) -> Links:
    """Return which objects ``first``, ``first + 1``, ... of a label map become one."""
    shape = (int(labels.shape[0]), int(labels.shape[1]))
    near = near_pairs(labels, classes, gaps=gaps, core=((0, 0), shape), first=first)
    return joined_links([near], len(classes))


def near_pairs(
    window: Array,
    classes: NDArray[Any],
    *,
    gaps: Sequence[int | None],
    core: tuple[tuple[int, int], tuple[int, int]],
    first: int = 1,
) -> NearPairs:
    """Return what a window of an image's labels says; objects are counted from label ``first``.

    ``core`` is the part of the window, in its own px, that is not in another window's core;
    the window reaches `reach` px beyond it to the left, to the right and down.
    """
    widths = np.array([APART if gap is None else gap for gap in gaps], np.int64)
    runs, values = raster_runs(window)
    owners = values - first
    linked = owners >= 0
    classes = np.asarray(classes, np.int64)  # an empty list has no type of its own
    linked[linked] = widths[classes[owners[linked]]] > APART
    runs, owners = runs[linked], owners[linked]
    ids, owners = np.unique(owners, return_inverse=True)
    kinds = classes[ids]
    rows = np.searchsorted(runs[:, 0], np.arange(window.shape[0] + 1))
    parents = _parents(runs, rows, owners, kinds, widths)
    apart = parents != np.arange(len(ids))
    (y0, x0), (y1, x1) = core
    inside = (runs[:, 0] >= y0) & (runs[:, 0] < y1)
    lengths = np.minimum(runs[:, 1] + runs[:, 2], x1) - np.maximum(runs[:, 1], x0)
    areas = np.zeros(len(ids), np.int64)
    np.add.at(areas, owners[inside], np.maximum(lengths[inside], 0))
    return NearPairs(
        np.stack([ids[parents[apart]], ids[apart]], 1), ids[areas > 0], areas[areas > 0]
    )


def reach(gaps: Sequence[int | None]) -> int:
    """Return how many pixels beyond its core a window must show."""
    return max((gap + 1 for gap in gaps if gap is not None), default=0)


def joined_links(parts: Sequence[NearPairs], count: int) -> Links:
    """Return which of ``count`` objects become one, from the windows of an image in any order."""
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *(part.pairs for part in parts)])
    areas = np.zeros(count, np.int64)
    for part in parts:
        areas[part.ids] += part.areas_px
    roots = _roots(pairs, count)
    return Links(np.unique(roots, return_inverse=True)[1].astype(np.int64), areas)


@kernel
def _find(parents: Any, i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@kernel
def _unite(parents: Any, i: int, j: int) -> None:
    """Make two sets one, whose root is its lowest member."""
    i, j = _find(parents, i), _find(parents, j)
    parents[max(i, j)] = min(i, j)


@kernel
def _roots(pairs: Any, count: int) -> Any:
    """Return the lowest member of the set of each of ``count`` objects."""
    parents = np.arange(count)
    for i, j in pairs:
        _unite(parents, i, j)
    for i in range(count):
        parents[i] = _find(parents, i)
    return parents


@kernel
def _parents(runs: Any, rows: Any, owners: Any, kinds: Any, widths: Any) -> Any:
    """Return the lowest of the objects each is linked to, from all pairs of rows that are near."""
    parents = np.arange(len(kinds))
    widest = widths.max() if len(widths) else -1
    for y in range(len(rows) - 1):
        for below in range(y, min(y + widest + 2, len(rows) - 1)):
            begin = rows[below]
            for a in range(rows[y], rows[y + 1]):
                one, gap = owners[a], widths[kinds[owners[a]]]
                start, stop = runs[a, 1], runs[a, 1] + runs[a, 2]
                while begin < rows[below + 1] and runs[begin, 1] + runs[begin, 2] < start - widest:
                    begin += 1
                b = begin
                while b < rows[below + 1] and runs[b, 1] <= stop + widest:
                    two = owners[b]
                    near = runs[b, 1] <= stop + gap and runs[b, 1] + runs[b, 2] >= start - gap
                    if one != two and near and below - y <= gap + 1 and kinds[one] == kinds[two]:
                        _unite(parents, one, two)
                    b += 1
    for i in range(len(parents)):
        parents[i] = _find(parents, i)
    return parents
