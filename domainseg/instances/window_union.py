"""Objects that a detector saw in overlapping windows, put together as one image's.

A window is a core, which it owns, and a halo around it. What a window sees whole belongs to
the window whose core holds its centre; what a window cuts is a part, and parts of one object
from two windows are known by their agreement where both windows look. The result is a
function of the set of windows: their order changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.runs import ObjectRuns, runs_of_parts, select_runs
from domainseg.instances.shared_pixels import (
    Shared,
    areas_of,
    areas_within,
    boxes_of,
    find_shared,
)

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

AGREE = 0.5
"""IoU of two parts, where both windows look, from which on they are of one object; and the
share of a part that must lie in a whole object for it to be a part of that."""
EDGE_PX = 2.0
"""An object this near to a side of its window, px of the model grid, is taken to go on."""
DRIFT = 0.1
"""Share of an object's side by which its centre may differ from one window to the next: so
far beyond its core a window still offers what it sees, so that no object falls between two."""
DRIFT_PX = 2.0


@dataclass(frozen=True, slots=True)
class Sightings:
    """Objects as windows saw them, N of all windows.

    Attributes:
        objects: their pixels in px of the image; runs that do not touch, in raster order.
        classes: int16 ``(N,)``.
        scores: float32 ``(N,)``.
        windows: int64 ``(N,)``, number of the window in raster order.
        whole: bool ``(N,)``, whether the window did not cut the object.
        owned: bool ``(N,)``, whether the core of the window holds its centre.
        near: bool ``(N,)``, whether the centre lies in the core or little beyond.
        extents: int64 ``(N, 2, 2)``, what of the image its window shows, half-open.
        cores: int64 ``(N, 2, 2)``, likewise its core.
    """

    objects: ObjectRuns
    classes: NDArray[np.int16]
    scores: NDArray[np.float32]
    windows: Ints
    whole: Mask
    owned: Mask
    near: Mask
    extents: Ints
    cores: Ints

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, keep: Mask) -> Sightings:
        """Return those for which ``keep (N,)`` is true."""
        return Sightings(
            select_runs(self.objects, keep),
            self.classes[keep],
            self.scores[keep],
            self.windows[keep],
            self.whole[keep],
            self.owned[keep],
            self.near[keep],
            self.extents[keep],
            self.cores[keep],
        )


@dataclass(frozen=True, slots=True)
class United:
    """The objects of an image, N of them, in raster order of their first pixels.

    Attributes:
        objects: their pixels, ids from 1; they may overlap.
        classes: int16 ``(N,)``.
        scores: float32 ``(N,)``; of parts their mean, weighed by area.
        parts: int64 ``(N,)``, sightings that were united: 1 of an object that a window saw whole.
        seams: bool ``(N,)``, whether the object reaches into more than one core.
    """

    objects: ObjectRuns
    classes: NDArray[np.int16]
    scores: NDArray[np.float32]
    parts: Ints
    seams: Mask

    def __len__(self) -> int:
        return len(self.scores)


def unite(seen: Sightings, *, most_iou: float) -> United:
    """Return the objects that windows saw, each once.

    1. Of whole objects near a core, those of one class with an IoU above ``most_iou`` are
       seen twice, and of any class where two windows saw them and not both own them: what a
       core owns is kept before what lies beyond one, then the higher score, then the earlier
       window and row.
    2. A part that lies in a whole object that another window saw, by `AGREE`, is that object's.
    3. The other parts that reach into the core of their window are united where two of one
       class agree in what both windows show; one alone is kept where its core owns it.
    4. Of what there is then, those of one class with an IoU above ``most_iou`` are one, the
       one with the higher score.
    """
    whole = seen.select(seen.whole & seen.near)
    whole = whole.select(_distinct(whole, most_iou))
    reaching = areas_within(seen.objects, seen.cores) > 0
    parts = seen.select(~seen.whole & reaching)
    parts = parts.select(~_contained(parts, whole))
    return _finished(whole, parts, _grouped(parts), most_iou)


def _distinct(seen: Sightings, most_iou: float) -> Mask:
    """Return which objects stand when of two that are one the better one does.

    What a window sees beyond its core only stands in for what another window should have
    seen: where that has seen something, whatever its class, it is no object of its own.
    """
    shared = find_shared(seen.objects)
    one, other = shared.pairs.T
    stand_in = seen.windows[one] != seen.windows[other]
    stand_in &= ~(seen.owned[one] & seen.owned[other])
    twice = _iou(seen.objects, shared) > most_iou
    twice &= stand_in | (seen.classes[one] == seen.classes[other])
    order = np.lexsort((np.arange(len(seen)), seen.windows, -seen.scores, ~seen.owned))
    return _greedy(shared.pairs[twice], order)


def _greedy(pairs: Ints, order: Ints) -> Mask:
    """Return which items stand: in ``order``, each that no standing one is paired with."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    stands = np.ones(len(order), bool)
    better = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    worse = pairs.sum(1) - better
    # A pair is judged when all that could strike its better one has been.
    for at in np.argsort(rank[better], kind="stable"):
        if stands[better[at]]:
            stands[worse[at]] = False
    return stands


def _iou(objects: ObjectRuns, shared: Shared) -> NDArray[np.float64]:
    areas = areas_of(objects)
    both = areas[shared.pairs].sum(1)
    return np.asarray(shared.areas_px / np.maximum(both - shared.areas_px, 1))


def _contained(parts: Sightings, whole: Sightings) -> Mask:
    """Return which parts lie in a whole object that another window saw, whatever its class."""
    contained = np.zeros(len(parts), bool)
    if not len(parts) or not len(whole):
        return contained
    both = _stacked([parts.objects, whole.objects])
    shared = find_shared(both)
    one, other = shared.pairs.T
    across = (one < len(parts)) & (other >= len(parts))
    one, other = one[across], other[across] - len(parts)
    inside = shared.areas_px[across] >= AGREE * areas_of(parts.objects)[one]
    same = parts.windows[one] == whole.windows[other]
    inside &= ~same | (parts.classes[one] == whole.classes[other])
    contained[one[inside]] = True
    return contained


def _grouped(parts: Sightings) -> Ints:
    """Return for each part the first part of its object, int64 ``(N,)``."""
    shared = find_shared(parts.objects)
    one, other = shared.pairs.T
    same = (parts.windows[one] != parts.windows[other]) & (
        parts.classes[one] == parts.classes[other]
    )
    one, other, areas = one[same], other[same], shared.areas_px[same]
    low = np.maximum(parts.extents[one, 0], parts.extents[other, 0])
    high = np.minimum(parts.extents[one, 1], parts.extents[other, 1])
    both_look = np.stack([low, high], 1)
    seen_by_one = areas_within(_chosen(parts.objects, one), both_look)
    seen_by_other = areas_within(_chosen(parts.objects, other), both_look)
    agree = areas >= AGREE * np.maximum(seen_by_one + seen_by_other - areas, 1)
    root = np.arange(len(parts))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = int(root[i])
        return i

    for i, j in zip(one[agree].tolist(), other[agree].tolist(), strict=True):
        a, b = find(i), find(j)
        root[max(a, b)] = min(a, b)
    return np.array([find(i) for i in range(len(parts))], np.int64)


def _finished(whole: Sightings, parts: Sightings, group: Ints, most_iou: float) -> United:
    """Return whole objects and united parts, each once, in raster order."""
    heads, counts = np.unique(group, return_counts=True)
    alone = heads[counts == 1]
    keep = np.ones(len(parts), bool)
    keep[alone] = parts.owned[alone]
    parts, group = parts.select(keep), group[keep]
    heads, at, counts = np.unique(group, return_inverse=True, return_counts=True)
    areas = areas_of(parts.objects).astype(np.float64)
    weights = np.bincount(at, weights=areas, minlength=len(heads))
    scores = np.bincount(at, weights=areas * parts.scores, minlength=len(heads)) / np.maximum(
        weights, 1
    )
    first = np.searchsorted(group[np.argsort(group, kind="stable")], heads)
    of_head = np.argsort(group, kind="stable")[first] if len(heads) else first
    made = _merged(parts.objects, at, len(heads))
    objects = _stacked([whole.objects, made])
    classes = np.concatenate([whole.classes, parts.classes[of_head]]).astype(np.int16)
    scored = np.concatenate([whole.scores, scores.astype(np.float32)]).astype(np.float32)
    number = np.concatenate([np.ones(len(whole), np.int64), counts])
    # A united object reaches into several cores; a whole one where it leaves its own.
    whole_px = areas_within(whole.objects, whole.cores)
    crossing = np.concatenate([whole_px < areas_of(whole.objects), counts > 1])
    return _numbered(objects, classes, scored, number, crossing, most_iou)


def _numbered(
    objects: ObjectRuns,
    classes: NDArray[np.int16],
    scores: NDArray[np.float32],
    parts: Ints,
    seams: Mask,
    most_iou: float,
) -> United:
    shared = find_shared(objects)
    twice = _iou(objects, shared) > most_iou
    twice &= classes[shared.pairs[:, 0]] == classes[shared.pairs[:, 1]]
    firsts = objects.runs[np.minimum(objects.offsets[:-1], max(len(objects.runs) - 1, 0)), :2]
    order = np.lexsort((firsts[:, 1], firsts[:, 0], -scores)) if len(objects) else np.zeros(0, int)
    stands = _greedy(shared.pairs[twice], np.asarray(order, np.int64))
    stands &= np.diff(objects.offsets) > 0
    rows = np.flatnonzero(stands)
    # Two may begin at one pixel: then the larger class, the higher score.
    rows = rows[np.lexsort((-scores[rows], classes[rows], firsts[rows, 1], firsts[rows, 0]))]
    kept = _chosen(objects, rows)
    ids = np.arange(1, len(rows) + 1)
    return United(
        ObjectRuns(ids, kept.runs, kept.offsets, objects.shape),
        classes[rows],
        scores[rows],
        parts[rows],
        seams[rows],
    )


def _merged(objects: ObjectRuns, groups: Ints, count: int) -> ObjectRuns:
    """Return the union of the pixels of each group's objects."""
    pieces: list[list[NDArray[np.int32]]] = [[] for _ in range(count)]
    for i, group in enumerate(groups.tolist()):
        low, high = objects.offsets[i], objects.offsets[i + 1]
        pieces[group].append(objects.runs[low:high].astype(np.int32))
    united = [[_union_of_runs(np.concatenate(of_one))] for of_one in pieces]
    return runs_of_parts(np.arange(1, count + 1), united, shape=objects.shape)


def _union_of_runs(runs: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return runs that may overlap as runs that do not, in raster order."""
    runs = runs[np.lexsort((runs[:, 1], runs[:, 0]))]
    stops = runs[:, 1] + runs[:, 2]
    # Along a row the furthest stop so far: rows are set apart by more than an image is wide.
    apart = runs[:, 0].astype(np.int64) * (int(stops.max(initial=0)) + 1)
    furthest = np.maximum.accumulate(apart + stops)
    opens = np.ones(len(runs), bool)
    opens[1:] = (apart + runs[:, 1])[1:] > furthest[:-1]
    first = np.flatnonzero(opens)
    last = np.append(first[1:], len(runs)) - 1
    lengths = furthest[last] - apart[first] - runs[first, 1]
    return np.stack([runs[first, 0], runs[first, 1], lengths], 1).astype(np.int32)


def _chosen(objects: ObjectRuns, rows: Ints) -> ObjectRuns:
    """Return the objects of these rows, in their order; one may be chosen again."""
    lengths = np.diff(objects.offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    steps = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], lengths)
    picked = np.repeat(objects.offsets[:-1][rows], lengths) + steps
    return ObjectRuns(objects.ids[rows], objects.runs[picked], offsets, objects.shape)


def _stacked(parts: Sequence[ObjectRuns]) -> ObjectRuns:
    """Return the objects of several sets of one image, numbered from 1."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return ObjectRuns(
        np.arange(1, len(lengths) + 1),
        np.concatenate([part.runs for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        parts[0].shape,
    )


def join_sightings(parts: Sequence[Sightings], *, shape: tuple[int, int]) -> Sightings:
    """Return the sightings of all windows as one set; those of the earlier window first."""
    parts = sorted((part for part in parts if len(part)), key=lambda part: int(part.windows[0]))
    if not parts:
        return no_sightings(shape)
    return Sightings(
        _stacked([part.objects for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.windows for part in parts]),
        np.concatenate([part.whole for part in parts]),
        np.concatenate([part.owned for part in parts]),
        np.concatenate([part.near for part in parts]),
        np.concatenate([part.extents for part in parts]),
        np.concatenate([part.cores for part in parts]),
    )


def no_sightings(shape: tuple[int, int]) -> Sightings:
    """Return none, of an image of ``shape``."""
    objects = ObjectRuns(
        np.zeros(0, np.int64), np.zeros((0, 3), np.int64), np.zeros(1, np.int64), shape
    )
    none, boxes = np.zeros(0, bool), np.zeros((0, 2, 2), np.int64)
    return Sightings(
        objects,
        np.zeros(0, np.int16),
        np.zeros(0, np.float32),
        np.zeros(0, np.int64),
        none,
        none,
        none,
        boxes,
        boxes,
    )


def sighted(
    objects: ObjectRuns,
    *,
    boxes: NDArray[np.float32],
    classes: NDArray[np.int16],
    scores: NDArray[np.float32],
    window: int,
    extent: Ints,
    core: Ints,
    edge_px: tuple[float, float],
) -> Sightings:
    """Return what one window saw; objects without a pixel are left out.

    Args:
        objects: N objects in px of the image.
        boxes: float32 ``(N, 2, 2)`` of the detector, px of the image.
        classes: ``(N,)``.
        scores: ``(N,)``.
        window: number of the window in raster order.
        extent: int64 ``(2, 2)``, what of the image the window shows.
        core: int64 ``(2, 2)``, its core.
        edge_px: `EDGE_PX` in px of the image, ``(y, x)``.
    """
    limit = np.array(objects.shape)
    edge = np.array(edge_px)
    tight = boxes_of(objects)
    low = np.minimum(boxes[:, 0], tight[:, 0])
    high = np.maximum(boxes[:, 1], tight[:, 1])
    # Where the window ends with the image nothing goes on.
    cut = ((extent[0] > 0) & (low < extent[0] + edge)).any(1)
    cut |= ((extent[1] < limit) & (high > extent[1] - edge)).any(1)
    centres = boxes.mean(1)
    # A centre at or beyond the image's border is the core's that lies along it.
    after = (centres >= core[0]) | (core[0] <= 0)
    before = (centres < core[1]) | (core[1] >= limit)
    owned = (after & before).all(1)
    slack = DRIFT_PX + DRIFT * (boxes[:, 1] - boxes[:, 0])
    near = ((centres >= core[0] - slack) & (centres < core[1] + slack)).all(1)
    count = len(objects)
    every = Sightings(
        objects,
        classes,
        scores,
        np.full(count, window, np.int64),
        ~cut,
        owned,
        near | owned,
        np.broadcast_to(extent, (count, 2, 2)).astype(np.int64),
        np.broadcast_to(core, (count, 2, 2)).astype(np.int64),
    )
    return every.select(np.diff(objects.offsets) > 0)
