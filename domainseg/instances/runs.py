"""Label maps and instances as horizontal runs, object after object.

Everything that is measured or outlined here works on runs, so that its cost
follows the number of runs and not the boxes, and a label map and overlapping
instances take the same road.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    runs, values = raster_runs(labels)
    ids, ranks = _ranked(values)
    offsets, runs = _grouped(runs, ranks, len(ids))
    return ObjectRuns(ids, runs, offsets, (int(labels.shape[0]), int(labels.shape[1])))


def runs_of_instances(instances: Instances) -> ObjectRuns:
    """Return the runs of ``instances`` in their order; runs that touch in a row are joined."""
    runs, offsets = _joined(instances.runs, instances.offsets)
    return ObjectRuns(instances.ids, runs, offsets, instances.shape)


def runs_of_parts(
    ids: NDArray[np.int64], parts: Sequence[Sequence[NDArray[np.int32]]], *, shape: tuple[int, int]
) -> ObjectRuns:
    """Return objects whose runs come in parts, joined where a cut went through them.

    ``parts[i]`` are the parts of object ``ids[i]``: int32 ``(n, 3)``, rows as in
    `ObjectRuns`, in px of the whole image of ``shape``; each in raster order, and of
    two parts that share a row of the image the left one first. The time is linear
    in the runs and in the rows that an object spans.
    """
    pieces = [piece for of_one in parts for piece in of_one]
    lengths = [sum(map(len, of_one)) for of_one in parts]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    in_parts = np.concatenate([np.zeros((0, 3), np.int32), *pieces])
    runs, offsets = _joined(_by_row(in_parts, offsets), offsets)
    return ObjectRuns(ids, runs, offsets, shape)


def select_runs(objects: ObjectRuns, keep: NDArray[np.bool_]) -> ObjectRuns:
    """Return the objects for which ``keep (N,)`` is true."""
    lengths = np.diff(objects.offsets)
    return ObjectRuns(
        objects.ids[keep],
        objects.runs[np.repeat(keep, lengths)],
        np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64),
        objects.shape,
    )


def split_runs(objects: ObjectRuns) -> dict[int, NDArray[np.int32]]:
    """Return the runs by id, int32 ``(n, 3)``, of the objects that have any."""
    runs = objects.runs.astype(np.int32)
    spans = zip(objects.ids.tolist(), pairwise(objects.offsets.tolist()), strict=True)
    # Copies, so that what is held of an object does not hold the rest of its tile.
    return {label: runs[low:high].copy() for label, (low, high) in spans if high > low}


def slice_runs(objects: ObjectRuns, start: int, stop: int) -> ObjectRuns:
    """Return the objects from row ``start`` to before row ``stop``, without copying their runs."""
    offsets = objects.offsets[start : stop + 1]
    runs = objects.runs[offsets[0] : offsets[-1]]
    return ObjectRuns(objects.ids[start:stop], runs, offsets - offsets[0], objects.shape)


def move_runs(
    objects: ObjectRuns, *, origin: tuple[int, int], shape: tuple[int, int]
) -> ObjectRuns:
    """Return the objects of a window in px of the image of ``shape`` that has it at ``origin``."""
    corner = np.array([*origin, 0], np.int64)
    return ObjectRuns(objects.ids, objects.runs + corner, objects.offsets, shape)


def crop_runs(objects: ObjectRuns, shape: tuple[int, int]) -> ObjectRuns:
    """Return the objects inside the first ``(h, w)`` pixels of the plane; some may have no run."""
    height, width = shape
    inside = (objects.runs[:, 0] < height) & (objects.runs[:, 1] < width)
    runs = objects.runs[inside]
    np.minimum(runs[:, 2], width - runs[:, 1], out=runs[:, 2])
    before = np.concatenate([[0], np.cumsum(inside)]).astype(np.int64)
    return ObjectRuns(objects.ids, runs, before[objects.offsets], shape)


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
def raster_runs(labels: Any) -> Any:
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
def _by_row(runs: Any, offsets: Any) -> Any:
    """Return the runs of each object sorted by row, in a row as they came (a counting sort)."""
    sorted_runs = np.empty((len(runs), 3), np.int64)
    for i in range(len(offsets) - 1):
        low, high = offsets[i], offsets[i + 1]
        if low == high:
            continue
        first, last = runs[low, 0], runs[low, 0]
        for r in range(low, high):
            first, last = min(first, runs[r, 0]), max(last, runs[r, 0])
        following = np.zeros(last - first + 2, np.int64)
        for r in range(low, high):
            following[runs[r, 0] - first + 1] += 1
        for y in range(1, len(following)):
            following[y] += following[y - 1]
        for r in range(low, high):
            y = runs[r, 0] - first
            sorted_runs[low + following[y]] = runs[r]
            following[y] += 1
    return sorted_runs


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
