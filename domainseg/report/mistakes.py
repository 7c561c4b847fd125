"""Where prediction and truth disagree, object by object, largest first.

The kinds are those of `domainseg.instances.matching` at IoU .5, so that what a
page shows is what its table counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.matching import match
from domainseg.instances.overlaps import Overlaps
from domainseg.records import Array, Instances

Kind = Literal["missed", "false", "merged", "split"]
KINDS: tuple[Kind, ...] = ("merged", "split", "missed", "false")
"""In the order they are shown: a merged object explains the missed ones inside it."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One disagreement.

    Attributes:
        kind: what went wrong.
        truth: labels of the truth objects concerned.
        predicted: labels of the predictions concerned.
        box: ``((y0, x0), (y1, x1))`` half-open around all of them, px.
        area_px: of the missed, split or false object, or of the merged prediction.
    """

    kind: Kind
    truth: tuple[int, ...]
    predicted: tuple[int, ...]
    box: tuple[tuple[int, int], tuple[int, int]]
    area_px: int


def find_mistakes(overlaps: Overlaps, truth: Array, predicted: Array) -> list[Mistake]:
    """Return every disagreement of two label maps and their overlap table.

    A merged prediction holds at least half of each of two truth objects or more;
    a split truth object holds at least half of each of two predictions or more;
    missed and false objects have no partner at IoU >= .5. Sorted by kind, then by
    falling area, then by label.
    """
    matches = match(overlaps, 0.5)
    of_truth, of_predicted = overlaps.pairs.T
    counted = ~overlaps.excused[of_predicted]
    held = counted & (2 * overlaps.shared_px >= overlaps.truth_px[of_truth])
    within = counted & (2 * overlaps.shared_px >= overlaps.predicted_px[of_predicted])
    merged = _groups(of_predicted[held], of_truth[held])
    split = _groups(of_truth[within], of_predicted[within])
    # Rows of truth, rows of prediction, and the area that ranks the mistake.
    groups: list[tuple[Kind, Sequence[int], Sequence[int], int]] = [
        *(("merged", rows, (row,), overlaps.predicted_px[row]) for row, rows in merged),
        *(("split", (row,), rows, overlaps.truth_px[row]) for row, rows in split),
        *(("missed", (row,), (), overlaps.truth_px[row]) for row in matches.missed),
        *(("false", (), (row,), overlaps.predicted_px[row]) for row in matches.false),
    ]
    boxes = _boxes(truth), _boxes(predicted)
    found = []
    for kind, truth_rows, predicted_rows, area in groups:
        ids = [int(overlaps.truth_ids[row]) for row in truth_rows]
        other = [int(overlaps.predicted_ids[row]) for row in predicted_rows]
        box = _around([boxes[0][i] for i in ids] + [boxes[1][i] for i in other])
        found.append(Mistake(kind, tuple(ids), tuple(other), box, int(area)))
    return sorted(found, key=_order)


def instructive(mistakes: Sequence[Mistake], *, limit: int) -> list[Mistake]:
    """Return at most ``limit`` mistakes, the kinds in turn, no object shown twice.

    The truth objects inside a merged prediction are mostly missed as well, and
    the pieces of a split object false; they are left to the larger picture.
    """
    joined = [one for one in mistakes if one.kind in ("merged", "split")]
    truth = {label for one in joined for label in one.truth}
    predicted = {label for one in joined for label in one.predicted}
    alone = [
        one
        for one in mistakes
        if (one.kind == "missed" and truth.isdisjoint(one.truth))
        or (one.kind == "false" and predicted.isdisjoint(one.predicted))
    ]
    by_kind = [[one for one in (*joined, *alone) if one.kind == kind] for kind in KINDS]
    chosen = [one for turn in zip_longest(*by_kind) for one in turn if one is not None]
    return sorted(chosen[:limit], key=_order)


def _order(mistake: Mistake) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    return KINDS.index(mistake.kind), -mistake.area_px, mistake.truth, mistake.predicted


def _groups(owners: NDArray[np.int64], members: NDArray[np.int64]) -> list[tuple[int, list[int]]]:
    """Return each owner of two members or more, ascending, with its members."""
    order = np.lexsort((members, owners))
    names, starts, counts = np.unique(owners[order], return_index=True, return_counts=True)
    return [
        (int(name), members[order][start : start + count].tolist())
        for name, start, count in zip(names, starts, counts, strict=True)
        if count >= 2
    ]


def _boxes(labels: Array) -> dict[int, NDArray[np.int64]]:
    instances = Instances.from_label_map(labels)
    return dict(zip(instances.ids.tolist(), instances.boxes, strict=True))


def _around(boxes: Sequence[NDArray[np.int64]]) -> tuple[tuple[int, int], tuple[int, int]]:
    stack = np.stack(list(boxes))
    (y0, x0), (y1, x1) = stack[:, 0].min(0).tolist(), stack[:, 1].max(0).tolist()
    return (y0, x0), (y1, x1)
