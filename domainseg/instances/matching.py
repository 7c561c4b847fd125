"""Truth objects matched with predicted objects, and the scores that follow.

With TP matched pairs, FN missed truth objects and FP false predictions at a
threshold of intersection over union (IoU):

- **AP** = TP / (TP + FP + FN) at IoU >= t, the precision of the 2018 Data Science
  Bowl (Caicedo et al., Nature Methods 2019), without ranking by score; **mean AP**
  is its mean over t = .5, .55, ..., .9. (The Bowl itself went on to .95.)
- **precision** = TP / (TP + FP), **recall** = TP / (TP + FN),
  **F1** = 2 TP / (2 TP + FP + FN), all at IoU >= .5.
- **PQ** = SQ * RQ (Kirillov et al., Panoptic Segmentation, CVPR 2019), matched at
  IoU > .5: **SQ** is the mean IoU of the matched pairs, **RQ** their F1.
- **AJI** (Kumar et al., IEEE TMI 36(7), 2017, algorithm 1, as in the authors' script
  of 2018): each truth object takes the prediction of highest IoU; intersections
  over unions, each summed over the truth objects; predictions that nobody took add
  their area to the unions. A prediction may be taken by several truth objects and
  then adds to both sums each time. Ties go to the lowest label.
- **Dice** = 2 * both / (truth + prediction), in pixels of foreground; excused
  predictions keep the pixels that are not ignored.
- **merged**: predictions that hold at least half of each of two or more truth objects.
- **split**: truth objects that hold at least half of each of two or more predictions
  (the mirror image of merged). Excused predictions count in neither.

Where both sides are empty every ratio is 1; where only one is, every ratio is 0
(SQ too where nothing matched, so that PQ = SQ * RQ always). Ratios are float64.

Other libraries differ in three places. ``stardist.matching`` (0.9.2) gives 0, not 1,
for empty against empty; rounds the IoU to float32, so that a pair within 6e-8 of the
threshold may change sides (at steps of .05: unions above 800,000 px) and its means of
IoU differ by as much; and takes PQ at >= .5. For t < .5 its counts are ours, but
among equally large matchings it also weighs pairs below t. Scripts that compare
``IoU >= t`` without assigning partners count two matches where a truth object of
2n px is cut into halves of exactly n px, both at IoU .5; and ``numpy.arange(.5, .95,
.05)`` holds 0.6000000000000001, which an IoU of 3/5 does not reach.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from domainseg.errors import UsageError, sentence
from domainseg.instances.overlaps import Ints, Overlaps

# Quotients of integers, because sums of .05 drift off the numbers they stand for.
THRESHOLDS: tuple[float, ...] = tuple(k / 20 for k in range(10, 19))
"""The IoU thresholds .5, .55, ..., .9."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Matched pairs, missed truth objects and false predictions at one threshold.

    They add up over images; the ratios of the sum are the pooled ratios.
    """

    matched: int = 0
    missed: int = 0
    false: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.matched + other.matched, self.missed + other.missed, self.false + other.false
        )

    @property
    def ap(self) -> float:
        """TP / (TP + FP + FN)."""
        return self._ratio(self.matched, self.matched + self.false + self.missed)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 when nothing was predicted where something is."""
        return self._ratio(self.matched, self.matched + self.false)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 0 when something was predicted where nothing is."""
        return self._ratio(self.matched, self.matched + self.missed)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return self._ratio(2 * self.matched, 2 * self.matched + self.false + self.missed)

    def _ratio(self, part: int, whole: int) -> float:
        nothing = self.matched + self.missed + self.false == 0
        return 1.0 if nothing else part / max(whole, 1)


@dataclass(frozen=True, slots=True)
class Matches:
    """Who matched whom; rows index the `Overlaps` they come from.

    Attributes:
        pairs: int64 ``(TP, 2)``, rows ``(truth, predicted)``; no row occurs twice.
        iou: float64 ``(TP,)``.
        missed: int64 ``(FN,)``, truth rows without a partner.
        false: int64 ``(FP,)``, predicted rows without a partner and not excused.
    """

    pairs: Ints
    iou: NDArray[np.float64]
    missed: Ints
    false: Ints

    @property
    def counts(self) -> Counts:
        """The three counts."""
        return Counts(len(self.pairs), len(self.missed), len(self.false))


def match(overlaps: Overlaps, threshold: float, *, strict: bool = False) -> Matches:
    """Return the matching of IoU >= ``threshold`` (> when ``strict``), as large as can be.

    Above .5 disjoint objects have at most one possible partner each. At .5
    exactly, below it, and where objects overlap each other they may have several:
    then the matching with the most pairs is taken, and among those the one with
    the highest sum of IoU. Its cost grows with the square of the largest group of
    objects that compete, which is a handful unless the threshold is near 0.

    Raises:
        UsageError: when the threshold is not in (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise UsageError(
            sentence(
                "IoU threshold",
                found=str(threshold),
                wanted="more than 0 and at most 1",
                fix="write 0.5 for half",
            )
        )
    iou = overlaps.iou()
    possible = iou > threshold if strict else iou >= threshold
    pairs, iou = overlaps.pairs[possible], iou[possible]
    partners_of_truth = np.bincount(pairs[:, 0], minlength=len(overlaps.truth_ids))
    partners_of_predicted = np.bincount(pairs[:, 1], minlength=len(overlaps.predicted_ids))
    taken = (partners_of_truth[pairs[:, 0]] == 1) & (partners_of_predicted[pairs[:, 1]] == 1)
    contested = np.flatnonzero(~taken)
    if len(contested):
        taken[contested[_assigned(pairs[contested], iou[contested])]] = True
    pairs, iou = pairs[taken], iou[taken]
    unmatched = ~overlaps.excused
    unmatched[pairs[:, 1]] = False
    return Matches(
        pairs=pairs,
        iou=iou,
        missed=np.setdiff1d(np.arange(len(overlaps.truth_ids)), pairs[:, 0]),
        false=np.flatnonzero(unmatched),
    )


def _assigned(pairs: Ints, iou: NDArray[np.float64]) -> Ints:
    """Return which of the contested ``pairs`` make the largest matching, best IoU first."""
    truth, rows = np.unique(pairs[:, 0], return_inverse=True)
    predicted, columns = np.unique(pairs[:, 1], return_inverse=True)
    size = len(truth) + len(predicted)
    graph = coo_array((np.ones(len(pairs)), (rows, len(truth) + columns)), shape=(size, size))
    groups = connected_components(graph, directed=False)[1][rows]
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    chosen = [
        group[_assigned_group(rows[group], columns[group], iou[group])]
        for group in np.split(order, cuts)
    ]
    return np.concatenate(chosen)


def _assigned_group(rows: Ints, columns: Ints, iou: NDArray[np.float64]) -> Ints:
    """Return the chosen edges of one connected group by the Hungarian method."""
    truth, i = np.unique(rows, return_inverse=True)
    predicted, j = np.unique(columns, return_inverse=True)
    shape = (len(truth), len(predicted))
    # One pair more outweighs any sum of IoU, which adds less than 1 in all.
    worth = np.zeros(shape)
    worth[i, j] = 1.0 + iou / (2 * min(shape))
    edges = np.full(shape, -1, np.int64)
    edges[i, j] = np.arange(len(rows))
    found = edges[linear_sum_assignment(worth, maximize=True)]
    return np.asarray(found[found >= 0], np.int64)


@dataclass(frozen=True, slots=True)
class Metrics:
    """The ratios of one image, or of several together; float64, definitions above.

    ``ap`` has one value per threshold of `THRESHOLDS`, ``mean_ap`` is their mean;
    precision, recall and F1 are those at IoU >= .5.
    """

    ap: tuple[float, ...]
    mean_ap: float
    precision: float
    recall: float
    f1: float
    pq: float
    sq: float
    rq: float
    aji: float
    dice: float


def mean_metrics(metrics: Sequence[Metrics]) -> Metrics:
    """Return the mean of each ratio over at least one set of them, each of equal weight.

    SQ and RQ are averaged too, so that the mean PQ is not their product.
    """
    count = len(metrics)
    columns = zip(*(one.ap for one in metrics), strict=True)
    means = {
        name: math.fsum(getattr(one, name) for one in metrics) / count
        for name in (field.name for field in fields(Metrics) if field.name != "ap")
    }
    return Metrics(ap=tuple(math.fsum(column) / count for column in columns), **means)


@dataclass(frozen=True, slots=True)
class Tally:
    """The sums every ratio is made of; they add up over images.

    Attributes:
        truths: number of truth objects.
        predictions: number of predicted objects, excused ones included.
        counts: one `Counts` per threshold of `THRESHOLDS`, at IoU >= t.
        panoptic: counts at IoU > .5.
        panoptic_iou: sum of the IoU of the pairs matched at IoU > .5.
        aji_px: summed intersections and unions of the aggregated Jaccard index.
        foreground_px: pixels of truth, of prediction, of both.
        merged: predictions that hold two truth objects or more.
        split: truth objects that hold two predictions or more.
    """

    truths: int = 0
    predictions: int = 0
    counts: tuple[Counts, ...] = (Counts(),) * len(THRESHOLDS)
    panoptic: Counts = Counts()
    panoptic_iou: float = 0.0
    aji_px: tuple[int, int] = (0, 0)
    foreground_px: tuple[int, int, int] = (0, 0, 0)
    merged: int = 0
    split: int = 0

    def __add__(self, other: Tally) -> Tally:
        mine, theirs = self.foreground_px, other.foreground_px
        return Tally(
            truths=self.truths + other.truths,
            predictions=self.predictions + other.predictions,
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            panoptic=self.panoptic + other.panoptic,
            panoptic_iou=self.panoptic_iou + other.panoptic_iou,
            aji_px=(self.aji_px[0] + other.aji_px[0], self.aji_px[1] + other.aji_px[1]),
            foreground_px=(mine[0] + theirs[0], mine[1] + theirs[1], mine[2] + theirs[2]),
            merged=self.merged + other.merged,
            split=self.split + other.split,
        )

    def metrics(self) -> Metrics:
        """Return the ratios of these sums."""
        ap = tuple(count.ap for count in self.counts)
        at_half = self.counts[0]
        rq = self.panoptic.f1
        nothing = self.panoptic == Counts()
        sq = 1.0 if nothing else self.panoptic_iou / max(self.panoptic.matched, 1)
        shared, united = self.aji_px
        truth, predicted, both = self.foreground_px
        return Metrics(
            ap=ap,
            mean_ap=math.fsum(ap) / len(ap),
            precision=at_half.precision,
            recall=at_half.recall,
            f1=at_half.f1,
            pq=sq * rq,
            sq=sq,
            rq=rq,
            aji=shared / united if united else 1.0,
            dice=2 * both / (truth + predicted) if truth + predicted else 1.0,
        )


def tally(overlaps: Overlaps) -> Tally:
    """Return the sums of one image, of which `Tally.metrics` are the ratios."""
    panoptic = match(overlaps, 0.5, strict=True)
    merged, split = _merged_and_split(overlaps)
    return Tally(
        truths=len(overlaps.truth_ids),
        predictions=len(overlaps.predicted_ids),
        counts=tuple(match(overlaps, threshold).counts for threshold in THRESHOLDS),
        panoptic=panoptic.counts,
        panoptic_iou=math.fsum(panoptic.iou),
        aji_px=_aji_px(overlaps),
        foreground_px=overlaps.foreground_px,
        merged=merged,
        split=split,
    )


def _aji_px(overlaps: Overlaps) -> tuple[int, int]:
    """Return the summed intersections and unions of the aggregated Jaccard index."""
    truth, predicted = overlaps.pairs.T
    order = np.lexsort((predicted, -overlaps.iou(), truth))
    best = order[np.flatnonzero(np.diff(truth[order], prepend=-1))]
    shared = int(overlaps.shared_px[best].sum())
    # |A or B| = |A| + |B| - |A and B|; a truth object without a partner adds |A|.
    united = int(overlaps.truth_px.sum() + overlaps.predicted_px[predicted[best]].sum()) - shared
    unused = ~overlaps.excused
    unused[predicted[best]] = False
    return shared, united + int(overlaps.predicted_px[unused].sum())


def _merged_and_split(overlaps: Overlaps) -> tuple[int, int]:
    truth, predicted = overlaps.pairs.T
    counted = ~overlaps.excused[predicted]
    held = (2 * overlaps.shared_px >= overlaps.truth_px[truth]) & counted
    within = (2 * overlaps.shared_px >= overlaps.predicted_px[predicted]) & counted
    merged = np.bincount(predicted[held]) >= 2
    split = np.bincount(truth[within]) >= 2
    return int(merged.sum()), int(split.sum())
