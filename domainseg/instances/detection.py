"""Which annotated defects were found, and how many calls were false.

Overlap by IoU is no measure of detection where objects are thin or tiny: a scratch one
pixel wide that is drawn one pixel beside itself has an IoU of 0, and was found. Here the
two sides are compared with a tolerance of some pixels, and by coverage:

- A **call** is a predicted object. It is **false** when less than ``min_cover`` of its
  pixels lie within ``tolerance_px`` of any truth object, whatever the classes. A blob over
  the whole image, which touches every defect and says nothing, is therefore false.
- A truth object is **found** when at least ``min_cover`` of its pixels lie within
  ``tolerance_px`` of calls that are not false, all of them taken together: a scratch that
  is found in five pieces is found once. Several truth objects may be found by one call.
- It is **named** when calls of its own class do so.

Distances are Euclidean, between centres of pixels. Ignored pixels count on neither side; a
truth object none of whose pixels remain does not exist, and a call with more than half of
its pixels ignored is never false (as in `domainseg.instances.overlaps`).

**Recall** is found / truth, with the interval of Wilson (1927), which takes objects as
independent. False calls are given per image, per Mpx and, where every image has a pixel
size, per cm2 of the inspected area, which is the pixels that are not ignored; the interval
of the rate is that of Garwood (1936).

**Free response** (Bunch et al., Proc. SPIE 127, 1977): with calls taken in falling order of
their score, recall against false calls per Mpx. A truth object is found from that score on
at which the calls so far cover enough of it, so recall never falls along the curve. Calls
below the thresholds of the recipe are not there, so the curve ends where they do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.planes import disc_maximum, pixels_of, union
from domainseg.records import Array, Instances, Spacing

NEVER = -math.inf
"""Score from which on an object is found that no call finds."""
PX_PER_MPX = 1e6
NEARLY = 1e-9
"""What a share of pixels may lack by rounding: .1 of 30 pixels are 3, not 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionRule:
    """When a defect is found and a call is false.

    Attributes:
        tolerance_px: how far beside a defect a call may lie, px.
        min_cover: share of a defect that calls must cover, and of a call that must lie on
            defects; more than 0.
    """

    tolerance_px: float = 2.0
    min_cover: float = 0.1


@dataclass(frozen=True, slots=True)
class ImageDetection:
    """What was found in one image with N truth objects and M calls.

    Attributes:
        id: of the image.
        kind: the stratum results are also reported by, or None.
        inspected_px: pixels that are not ignored.
        spacing_um: pixel size ``(y, x)``, or None.
        truth_classes: int16 ``(N,)``.
        truth_px: int64 ``(N,)``, area without ignored pixels, at least 1.
        found_from: float32 ``(N,)``, the score from which on it is found, or NEVER.
        named_from: float32 ``(N,)``, likewise by calls of its own class.
        call_classes: int16 ``(M,)``; calls that are ignored whole are left out.
        call_scores: float32 ``(M,)``.
        false: bool ``(M,)``.
    """

    id: str
    kind: str | None
    inspected_px: int
    spacing_um: Spacing | None
    truth_classes: NDArray[np.int16]
    truth_px: NDArray[np.int64]
    found_from: NDArray[np.float32]
    named_from: NDArray[np.float32]
    call_classes: NDArray[np.int16]
    call_scores: NDArray[np.float32]
    false: NDArray[np.bool_]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which truth objects were found, bool ``(N,)``."""
        return np.asarray(self.found_from > NEVER)

    @property
    def named(self) -> NDArray[np.bool_]:
        """Which truth objects were found by calls of their class, bool ``(N,)``."""
        return np.asarray(self.named_from > NEVER)

    def of_class(self, index: int) -> ImageDetection:
        """Return the truth objects and the calls of one class."""
        mine, called = self.truth_classes == index, self.call_classes == index
        return replace(
            self,
            truth_classes=self.truth_classes[mine],
            truth_px=self.truth_px[mine],
            found_from=self.found_from[mine],
            named_from=self.named_from[mine],
            call_classes=self.call_classes[called],
            call_scores=self.call_scores[called],
            false=self.false[called],
        )


def detect(
    id_: str,
    truth: Instances,
    predicted: Instances,
    *,
    rule: DetectionRule,
    ignore: NDArray[np.bool_] | None = None,
    spacing_um: Spacing | None = None,
    kind: str | None = None,
) -> ImageDetection:
    """Return which of the ``truth`` objects were found, and which calls are false.

    Both are of one shape, ``ignore`` is bool ``(H, W)``; objects may overlap. Time grows
    with the pixels of the image, not with truth times calls.
    """
    seen = np.ones(truth.shape, bool) if ignore is None else ~ignore
    pixels, owners = pixels_of(truth)
    counted = seen.ravel()[pixels]
    pixels, owners = pixels[counted], owners[counted]
    area = np.bincount(owners, minlength=len(truth))
    calls = _Calls.of(predicted, truth, seen, rule)
    found = calls.found_from(pixels, owners, area, rule)
    named = np.full(len(truth), NEVER, np.float32)
    for index in np.intersect1d(truth.classes, predicted.classes):
        mine = truth.classes == index
        of_class = mine[owners]
        scores = calls.of_class(int(index)).found_from(
            pixels[of_class], owners[of_class], area, rule
        )
        named[mine] = scores[mine]
    there, shown = area > 0, calls.visible_px > 0
    return ImageDetection(
        id=id_,
        kind=kind,
        inspected_px=int(np.count_nonzero(seen)),
        spacing_um=spacing_um,
        truth_classes=truth.classes[there],
        truth_px=area[there].astype(np.int64),
        found_from=found[there],
        named_from=named[there],
        call_classes=predicted.classes[shown],
        call_scores=predicted.scores[shown],
        false=(calls.far & ~calls.excused)[shown],
    )


@dataclass(frozen=True, slots=True)
class _Calls:
    """Predicted objects of an image, and where those lie that are not ``far`` from truth."""

    predicted: Instances
    visible_px: NDArray[np.int64]
    far: NDArray[np.bool_]
    excused: NDArray[np.bool_]
    chosen: NDArray[np.bool_]

    @classmethod
    def of(
        cls, predicted: Instances, truth: Instances, seen: NDArray[np.bool_], rule: DetectionRule
    ) -> _Calls:
        near = disc_maximum(union(truth) & seen, rule.tolerance_px, outside=0) & seen
        pixels, owners = pixels_of(predicted)
        count = len(predicted)
        visible = _sums(owners, seen.ravel()[pixels], count)
        close = _sums(owners, near.ravel()[pixels], count)
        far = close < np.maximum(rule.min_cover * visible - NEARLY, NEARLY)
        whole = predicted.areas_px()
        excused = 2 * (whole - visible) > whole
        return cls(predicted, visible, far, excused, ~far)

    def of_class(self, index: int) -> _Calls:
        return replace(self, chosen=self.chosen & (self.predicted.classes == index))

    def found_from(
        self,
        pixels: NDArray[np.int64],
        owners: NDArray[np.int64],
        area: NDArray[np.int64],
        rule: DetectionRule,
    ) -> NDArray[np.float32]:
        """Return of each truth object the score from which on calls cover enough of it.

        That is the k-th largest of the best scores near its pixels, k pixels being enough.
        """
        found = np.full(len(area), NEVER, np.float32)
        if not len(pixels) or not self.chosen.any():
            return found
        best = self._best(rule.tolerance_px).ravel()[pixels]
        order = np.lexsort((-best, owners))
        needed = np.maximum(np.ceil(rule.min_cover * area - NEARLY), 1).astype(np.int64)
        present = np.flatnonzero(np.bincount(owners, minlength=len(area)))
        first = np.searchsorted(owners[order], present)
        found[present] = best[order][first + needed[present] - 1]
        return found

    def _best(self, tolerance_px: float) -> Array:
        """Return the best score of a chosen call within the tolerance, float32 ``(H, W)``."""
        height, width = self.predicted.shape
        best = np.full(height * width, NEVER, np.float32)
        pixels, owners = pixels_of(self.predicted)
        mine = self.chosen[owners]
        scores = self.predicted.scores[owners[mine]]
        # Of a pixel that is listed several times numpy keeps the last value: the highest.
        order = np.argsort(scores, kind="stable")
        best[pixels[mine][order]] = scores[order]
        return disc_maximum(best.reshape(height, width), tolerance_px, outside=NEVER)


def _sums(owners: NDArray[np.int64], chosen: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Return how many chosen pixels each object has, int64 ``(count,)``."""
    return np.bincount(owners[chosen], minlength=count).astype(np.int64)
