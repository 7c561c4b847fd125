"""Label maps and instances as horizontal runs, object after object.

Everything that is measured or outlined here works on runs, so that its cost
follows the number of runs and not the boxes, and a label map and overlapping
instances take the same road.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.instances.kernel import kernel
from domainseg.records import Array, Instances

_DENSE = 1 << 16
"""Labels up to this, or up to four times the number of runs, are ranked by a table."""


@dataclass(frozen=True, slots=True)
class ObjectRuns:
    """The pixels of objects as maximal runs in raster order, object after object.

    Attributes:
        ids: int64 ``(N,)``, positive, unique; ascending when they come from a label map.
        runs: int64 ``(R, 3)``, rows ``(row, start, length)``; two runs of one object
            in one row never touch.
        offsets: int64 ``(N + 1,)``; object i owns ``runs[offsets[i]:offsets[i + 1]]``.
        shape: ``(H, W)`` of the plane the rows and columns count in.
    """

    ids: NDArray[np.int64]
    runs: NDArray[np.int64]
    offsets: NDArray[np.int64]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.ids)


def runs_of_labels(labels: Array, *, where: str = "label map") -> ObjectRuns:
    """Return the runs of every positive label of an integer ``(H, W)`` map, ids ascending.

    The time is linear in the pixels (plus the sorting of the runs where labels are
    far larger than their number). ``where`` names the map in errors.

    Raises:
        InputError: for a map that is not two-dimensional, not of integers, or holds
            a negative label or one beyond int64.
    """
    check_label_map(labels, where=where)
    runs, values = _find_runs(labels)
    ids, ranks = _ranked(values)
    offsets, runs = _grouped(runs, ranks, len(ids))
    return ObjectRuns(ids, runs, offsets, (int(labels.shape[0]), int(labels.shape[1])))


def runs_of_instances(instances: Instances) -> ObjectRuns:
    """Return the runs of ``instances`` in their order; runs that touch in a row are joined."""
    runs, offsets = _joined(instances.runs, instances.offsets)
    return ObjectRuns(instances.ids, runs, offsets, instances.shape)


def object_runs(objects: Array | Instances, *, where: str = "label map") -> ObjectRuns:
    """Return the runs of a label map (see `runs_of_labels`) or of instances."""
    if isinstance(objects, Instances):
        return runs_of_instances(objects)
    return runs_of_labels(objects, where=where)


def check_label_map(labels: Array, *, where: str) -> None:
    """Raise InputError unless ``labels`` is an integer ``(H, W)`` map without negatives."""
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InputError(
            sentence(
                where,
                found=f"an array of {labels.dtype} with shape {labels.shape}",
                wanted="integer labels of shape (H, W)",
                fix="number the objects first, 0 for background",
            )
        )
    if not labels.size:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > np.iinfo(np.int64).max:
        raise InputError(
            sentence(
                where,
                found=f"label {low if low < 0 else high}",
                wanted=f"labels from 0 to {np.iinfo(np.int64).max}",
                fix="renumber the objects, 0 for background",
            )
        )


@kernel
def _find_runs(labels: Any) -> Any:
    """Return runs ``(R, 3)`` of equal positive labels and their labels, in raster order."""
    height, width = labels.shape
    count = 0
    for y in range(height):
        before = 0
        for x in range(width):
            value = int(labels[y, x])
            count += value > 0 and value != before
            before = value
    runs = np.empty((count, 3), np.int64)
    values = np.empty(count, np.int64)
    last = -1
    for y in range(height):
        before = 0
        for x in range(width):
            value = int(labels[y, x])
            if value > 0:
                if value != before:
                    last += 1
                    runs[last, 0], runs[last, 1], runs[last, 2] = y, x, 0
                    values[last] = value
                runs[last, 2] += 1
            before = value
    return runs, values


def _ranked(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct values, ascending, and the rank of every value among them."""
    high = int(values.max(initial=0))
    if high > max(_DENSE, 4 * len(values)):
        ids, ranks = np.unique(values, return_inverse=True)
        return ids, ranks.astype(np.int64)
    present = np.zeros(high + 1, np.bool_)
    present[values] = True
    ids = np.flatnonzero(present).astype(np.int64)
    table = np.cumsum(present) - 1
    return ids, np.asarray(table[values], np.int64)


@kernel
def _grouped(runs: Any, ranks: Any, count: int) -> Any:
    """Return offsets and the runs sorted by rank, raster order kept (a counting sort)."""
    offsets = np.zeros(count + 1, np.int64)
    for rank in ranks:
        offsets[rank + 1] += 1
    for i in range(count):
        offsets[i + 1] += offsets[i]
    following = offsets.copy()
    grouped = np.empty_like(runs)
    for r in range(len(runs)):
        grouped[following[ranks[r]]] = runs[r]
        following[ranks[r]] += 1
    return offsets, grouped


@kernel
def _joined(runs: Any, offsets: Any) -> Any:
    """Return the runs with those that touch in a row made one, and the new offsets."""
    joined = np.empty_like(runs)
    starts = np.zeros_like(offsets)
    last = -1
    for i in range(len(offsets) - 1):
        for r in range(offsets[i], offsets[i + 1]):
            y, x, n = runs[r]
            if (
                last >= starts[i]
                and joined[last, 0] == y
                and joined[last, 1] + joined[last, 2] == x
            ):
                joined[last, 2] += n
            else:
                last += 1
                joined[last, 0], joined[last, 1], joined[last, 2] = y, x, n
        starts[i + 1] = last + 1
    return joined[: last + 1], starts
