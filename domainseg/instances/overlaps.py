"""Which truth and predicted objects share pixels, and how many: the table all scores read.

The table is sparse. It grows with the pairs that touch, not with truth times
prediction, so that 70,000 objects against 70,000 fit where a dense table would
need 39 GB.

**Ignored pixels** count nowhere: not in an area, an intersection or a union. An
object none of whose pixels remain is not in the table. A predicted object with
more than half of its pixels ignored is *excused*: where nothing matches it, it
is no false object either. This is the rule for void pixels of Kirillov et al.,
Panoptic Segmentation, CVPR 2019, section 4.2. A truth object that is partly
ignored counts with the pixels that remain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from domainseg.errors import InputError, sentence
from domainseg.records import Array, Instances

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Sparse overlap table of N truth objects and M predicted objects.

    Attributes:
        truth_ids: int64 ``(N,)``, ascending; labels may have gaps.
        predicted_ids: int64 ``(M,)``, ascending.
        truth_px: int64 ``(N,)``, area without ignored pixels, at least 1.
        predicted_px: int64 ``(M,)``, likewise.
        pairs: int64 ``(K, 2)``, rows ``(truth, predicted)`` of objects that share a
            pixel, in ascending order. Rows index the arrays above; they are not ids.
        shared_px: int64 ``(K,)``, the pixels each pair shares, at least 1.
        excused: bool ``(M,)``, True where most of the object is ignored.
        foreground_px: pixels inside any truth object, any predicted object, and
            both; a pixel of several objects counts once.
    """

    truth_ids: Ints
    predicted_ids: Ints
    truth_px: Ints
    predicted_px: Ints
    pairs: Ints
    shared_px: Ints
    excused: Mask
    foreground_px: tuple[int, int, int]

    def iou(self) -> NDArray[np.float64]:
        """Return intersection over union of each pair, float64 ``(K,)``, in (0, 1].

        One correctly rounded division of two integers: an IoU equals 0.55 exactly
        when the pixel counts stand at 11 to 20.
        """
        both = self.truth_px[self.pairs[:, 0]] + self.predicted_px[self.pairs[:, 1]]
        return np.asarray(self.shared_px / (both - self.shared_px), np.float64)


def overlap_maps(
    truth: Array, predicted: Array, *, ignore: Mask | None = None, where: object = "label maps"
) -> Overlaps:
    """Return the overlap table of two integer ``(H, W)`` label maps, 0 for background.

    Labels may have any gaps. Time and memory are linear in the pixels, whatever
    the number of objects. ``ignore`` is bool ``(H, W)``, True for pixels that are
    left out; ``where`` begins the error's sentence.

    Raises:
        InputError: for different shapes, a dtype that is not integer, or a negative label.
    """
    _require_labels(truth, f"{where}, truth")
    _require_labels(predicted, f"{where}, prediction")
    _require_shape(predicted.shape, truth.shape, ignore, where)
    flat_truth, flat_predicted = truth.ravel(), predicted.ravel()
    starts = _starts_of_runs(flat_truth, flat_predicted)
    length = np.diff(starts, append=flat_truth.size)
    seen = length
    if ignore is not None and len(starts):
        seen = np.add.reduceat(~ignore.ravel(), starts, dtype=np.int64)
    truth_ids, truth_rows = _rows_of_labels(flat_truth[starts])
    predicted_ids, predicted_rows = _rows_of_labels(flat_predicted[starts])
    in_truth, in_predicted = truth_rows >= 0, predicted_rows >= 0
    both = in_truth & in_predicted
    return _table(
        truth_ids,
        predicted_ids,
        _sums(truth_rows[in_truth], seen[in_truth], len(truth_ids)),
        _sums(predicted_rows[in_predicted], seen[in_predicted], len(predicted_ids)),
        whole_px=_sums(predicted_rows[in_predicted], length[in_predicted], len(predicted_ids)),
        shared=(truth_rows[both], predicted_rows[both], seen[both]),
        foreground_px=(int(seen[in_truth].sum()), int(seen[in_predicted].sum())),
        shared_foreground_px=int(seen[both].sum()),
    )


def overlap_instances(
    truth: Instances,
    predicted: Instances,
    *,
    ignore: Mask | None = None,
    where: object = "instances",
) -> Overlaps:
    """Return the overlap table of two records; objects of one record may overlap each other.

    Classes play no part here, see `overlap_classes`. No dense mask is made: time
    grows with the runs and with the pairs of runs that meet.

    Raises:
        InputError: for different shapes.
    """
    _require_shape(predicted.shape, truth.shape, ignore, where)
    hidden = _hidden_before(ignore)
    return _overlap_intervals(_intervals(truth), _intervals(predicted), hidden)


def overlap_classes(
    truth: Instances,
    predicted: Instances,
    *,
    ignore: Mask | None = None,
    where: object = "instances",
) -> dict[int, Overlaps]:
    """Return one overlap table per class index that occurs on either side, ascending.

    Each holds the objects of its class alone: an object under the wrong class is
    missed in the one table and false in the other.

    Raises:
        InputError: for different shapes.
    """
    _require_shape(predicted.shape, truth.shape, ignore, where)
    hidden = _hidden_before(ignore)
    classes = np.union1d(truth.classes, predicted.classes)
    return {
        int(index): _overlap_intervals(
            _intervals(truth, truth.classes == index),
            _intervals(predicted, predicted.classes == index),
            hidden,
        )
        for index in classes
    }


def _require_labels(labels: Array, where: str) -> None:
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InputError(
            sentence(
                where,
                found=f"{labels.dtype} of shape {labels.shape}",
                wanted="whole-number labels of shape (H, W)",
                fix="label the objects before they are compared",
            )
        )
    if labels.dtype.kind == "i" and labels.size and (lowest := int(labels.min())) < 0:
        raise InputError(
            sentence(
                where,
                found=f"label {lowest}",
                wanted="0 for background and positive labels",
                fix="hand over pixels to leave out as the ignore mask instead",
            )
        )


def _require_shape(
    predicted: tuple[int, ...], truth: tuple[int, ...], ignore: Mask | None, where: object
) -> None:
    found = "a prediction" if predicted != truth else "an ignore mask"
    shape = predicted if predicted != truth or ignore is None else ignore.shape
    if shape != truth:
        raise InputError(
            sentence(
                where,
                found=f"{found} of shape {tuple(shape)}",
                wanted=f"the shape {tuple(truth)} of the truth",
                fix="compare results in the pixels of the annotated image",
            )
        )


def _starts_of_runs(first: Array, second: Array) -> Ints:
    """Return where a stretch of equal ``(first, second)`` begins; both flat, of one length."""
    if not first.size:
        return np.zeros(0, np.int64)
    breaks = np.empty(first.size, bool)
    breaks[0] = True
    np.not_equal(first[1:], first[:-1], out=breaks[1:])
    breaks[1:] |= second[1:] != second[:-1]
    return np.flatnonzero(breaks)


def _rows_of_labels(labels: Array) -> tuple[Ints, Ints]:
    """Return the positive labels, ascending, and each entry's row among them, -1 for 0."""
    if not labels.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    highest = int(labels.max())
    # A look-up table is linear; it is out of the question for labels such as
    # 2**40, which are sorted. Both give the same rows.
    if highest > 8 * labels.size + 65536:
        ids, rows = np.unique(labels, return_inverse=True)
        background = int(ids[0] == 0)
        return ids[background:].astype(np.int64), rows.reshape(-1).astype(np.int64) - background
    present = np.zeros(highest + 1, bool)
    present[labels] = True
    present[0] = False
    ids = np.flatnonzero(present)
    rows_of = np.cumsum(present, dtype=np.int64) - 1
    rows_of[0] = -1
    return ids, rows_of[labels]


def _sums(rows: Ints, amounts: Ints, count: int) -> Ints:
    """Return the sum of ``amounts`` per row, int64 ``(count,)``."""
    # bincount adds in float64, which is exact below 2**53 pixels.
    return np.bincount(rows, weights=amounts, minlength=count).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Intervals:
    """Objects as half-open intervals of linear pixel index; ``owners`` are rows of ``ids``."""

    ids: Ints
    owners: Ints
    starts: Ints
    ends: Ints


def _intervals(instances: Instances, chosen: Mask | None = None) -> _Intervals:
    """Return the runs of the objects, or of those ``chosen``, ordered by ascending id."""
    keep = np.ones(len(instances), bool) if chosen is None else chosen
    order = np.argsort(instances.ids[keep], kind="stable")
    rows = np.full(len(instances), -1, np.int64)
    rows[np.flatnonzero(keep)[order]] = np.arange(len(order))
    owners = rows[np.repeat(np.arange(len(instances)), np.diff(instances.offsets))]
    runs = instances.runs[owners >= 0]
    starts = runs[:, 0] * instances.shape[1] + runs[:, 1]
    return _Intervals(instances.ids[keep][order], owners[owners >= 0], starts, starts + runs[:, 2])


def _hidden_before(ignore: Mask | None) -> Ints | None:
    """Return the number of ignored pixels before each linear index, int64 ``(H * W + 1,)``."""
    if ignore is None:
        return None
    return np.concatenate([[0], np.cumsum(ignore, dtype=np.int64)])


def _seen(starts: Ints, ends: Ints, hidden: Ints | None) -> Ints:
    """Return the pixels of each interval that are not ignored."""
    length = ends - starts
    return length if hidden is None else length - (hidden[ends] - hidden[starts])


def _overlap_intervals(truth: _Intervals, predicted: _Intervals, hidden: Ints | None) -> Overlaps:
    of_truth, of_predicted, starts, ends = _crossings(
        truth.starts, truth.ends, predicted.starts, predicted.ends
    )
    any_truth = _united(truth.starts, truth.ends)
    any_predicted = _united(predicted.starts, predicted.ends)
    any_both = _crossings(*any_truth, *any_predicted)[2:]
    count = len(predicted.ids)
    return _table(
        truth.ids,
        predicted.ids,
        _sums(truth.owners, _seen(truth.starts, truth.ends, hidden), len(truth.ids)),
        _sums(predicted.owners, _seen(predicted.starts, predicted.ends, hidden), count),
        whole_px=_sums(predicted.owners, predicted.ends - predicted.starts, count),
        shared=(
            truth.owners[of_truth],
            predicted.owners[of_predicted],
            _seen(starts, ends, hidden),
        ),
        foreground_px=(
            int(_seen(*any_truth, hidden).sum()),
            int(_seen(*any_predicted, hidden).sum()),
        ),
        shared_foreground_px=int(_seen(*any_both, hidden).sum()),
    )


def _crossings(
    a_starts: Ints, a_ends: Ints, b_starts: Ints, b_ends: Ints
) -> tuple[Ints, Ints, Ints, Ints]:
    """Return every pair of intervals that meet: index in a, index in b, start and end shared.

    Two intervals meet when b begins inside a, or a begins strictly inside b. Both
    are stretches of a sorted array, so the cost is the sort and the pairs found.
    """
    a_order, b_order = np.argsort(a_starts), np.argsort(b_starts)
    a_sorted, b_sorted = a_starts[a_order], b_starts[b_order]
    low = np.searchsorted(b_sorted, a_starts, "left")
    a_first, b_first = _listed(low, np.searchsorted(b_sorted, a_ends, "left") - low)
    low = np.searchsorted(a_sorted, b_starts, "right")
    b_second, a_second = _listed(low, np.searchsorted(a_sorted, b_ends, "left") - low)
    a = np.concatenate([a_first, a_order[a_second]])
    b = np.concatenate([b_order[b_first], b_second])
    return a, b, np.maximum(a_starts[a], b_starts[b]), np.minimum(a_ends[a], b_ends[b])


def _listed(low: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Return for each i the numbers ``low[i], low[i] + 1, ...``, ``counts[i]`` of them, and i."""
    owner = np.repeat(np.arange(len(low)), counts)
    before = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - before[owner] + low[owner]


def _united(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return the union of intervals as disjoint intervals, ascending."""
    if not len(starts):
        return starts, ends
    order = np.argsort(starts)
    reach = np.maximum.accumulate(ends[order])
    first = np.concatenate([[True], starts[order][1:] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return starts[order][first], reach[last]


def _table(
    truth_ids: Ints,
    predicted_ids: Ints,
    truth_px: Ints,
    predicted_px: Ints,
    *,
    whole_px: Ints,
    shared: tuple[Ints, Ints, Ints],
    foreground_px: tuple[int, int],
    shared_foreground_px: int,
) -> Overlaps:
    """Return the table without the objects that are ignored whole.

    ``whole_px`` is the predicted area with ignored pixels; ``shared`` lists
    (truth row, predicted row, pixels), a pair in as many pieces as it has.
    """
    truth_kept, predicted_kept = truth_px > 0, predicted_px > 0
    truth_rows, predicted_rows, pieces = shared
    # Rows are numbered among the kept; a piece of a dropped object has no pixel.
    some = pieces > 0
    rows = (np.cumsum(truth_kept) - 1)[truth_rows[some]]
    columns = (np.cumsum(predicted_kept) - 1)[predicted_rows[some]]
    shape = (int(truth_kept.sum()), int(predicted_kept.sum()))
    table = csr_array((pieces[some], (rows, columns)), shape=shape)
    table.sum_duplicates()
    owners = np.repeat(np.arange(shape[0]), np.diff(table.indptr))
    return Overlaps(
        truth_ids=truth_ids[truth_kept],
        predicted_ids=predicted_ids[predicted_kept],
        truth_px=truth_px[truth_kept],
        predicted_px=predicted_px[predicted_kept],
        pairs=np.stack([owners, table.indices], 1).astype(np.int64),
        shared_px=table.data.astype(np.int64),
        excused=(2 * (whole_px - predicted_px) > whole_px)[predicted_kept],
        foreground_px=(*foreground_px, shared_foreground_px),
    )
