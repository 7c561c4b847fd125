"""Panoptic quality: one number for objects and for regions, class by class.

A panoptic segmentation gives each pixel to one segment or to none; a segment is an object (a
thing) or all pixels of a region class (stuff), and has one class. A predicted and a true
segment of one class match when their IoU is above .5, which no segment can be with two. Per
class, with TP matched pairs, FP and FN unmatched predictions and truth segments (Kirillov et
al., Panoptic Segmentation, CVPR 2019, eq. 1 and 2; counts add over images first):

- **PQ** = sum of IoU over the pairs / (TP + FP / 2 + FN / 2) = SQ * RQ;
- **SQ** = sum of IoU / TP, 0 without a pair; **RQ** = TP / (TP + FP / 2 + FN / 2).

Over things, stuff and all classes it is the mean of the classes that occur in truth or as a
false prediction. A class that does not occur has no PQ, and is in no mean: NaN here, null in
JSON.

Two kinds of truth are not scored, as in section 4.2 of the paper and in its authors' script:

- **void**, pixels of no truth segment: they are left out of the union of every IoU;
- **crowds**, regions of a class in which nobody told the objects apart: never matched and never
  missed, but, unlike void, inside the union.

An unmatched prediction with more than half of its pixels in void, or in crowds of its class, or
in both together, is not false.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.instances.figures import known, share
from domainseg.instances.overlaps import Overlaps, overlap_maps
from domainseg.instances.planes import pixels_of, union
from domainseg.records import Array, Instances

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Header and rows."""


@dataclass(frozen=True, slots=True)
class Panoptic:
    """A panoptic segmentation of one image.

    Attributes:
        plane: integer ``(H, W)``, id of the segment of each pixel, 0 for none.
        ids: int64 ``(N,)``, positive and unique; every id of the plane is among them. A
            segment without a pixel does not exist.
        classes: int16 ``(N,)``, index into the class names.
        crowd: bool ``(N,)``, regions whose objects nobody told apart; none of a prediction.
    """

    plane: Array
    ids: Ints
    classes: NDArray[np.int16]
    crowd: Mask


def panoptic_segments(
    things: Instances,
    *,
    semantic: Array | None = None,
    stuff: Collection[int] | None = None,
    crowds: Instances | None = None,
    ignore: Mask | None = None,
) -> Panoptic:
    """Return objects and regions as one panoptic segmentation, its ids counted from 1.

    ``semantic`` is ``(H, W)`` with class + 1 per pixel, 0 for none, as in `Sample`; of it the
    classes ``stuff`` are taken, or all. Things lie above crowds, crowds above stuff. Pixels of
    ``ignore``, bool ``(H, W)``, become void unless they belong to a crowd.

    Raises:
        InputError: when two things share a pixel, or planes differ in shape.
    """
    plane = np.zeros(things.shape, np.int32)
    classes: list[int] = []
    if semantic is not None:
        _require_shape(semantic.shape, things.shape, "a class plane")
        for value in np.unique(semantic[semantic > 0]).tolist():
            if stuff is None or value - 1 in stuff:
                classes.append(value - 1)
                plane[semantic == value] = len(classes)
    held = None
    regions = len(classes)
    if crowds is not None:
        _require_shape(crowds.shape, things.shape, "crowds")
        _paint(plane, crowds, first=regions + 1)
        classes += crowds.classes.tolist()
        held = union(crowds)
    above = len(classes)
    if _paint(plane, things, first=above + 1) < int(things.areas_px().sum()):
        raise InputError(
            sentence(
                "panoptic segmentation",
                found="objects that overlap",
                wanted="each pixel in one segment",
                fix="decide which object owns the shared pixels",
            )
        )
    classes += things.classes.tolist()
    if ignore is not None:
        _require_shape(ignore.shape, things.shape, "an ignore mask")
        plane[ignore if held is None else ignore & ~held] = 0
    numbers = np.arange(1, len(classes) + 1, dtype=np.int64)
    crowd = (numbers > regions) & (numbers <= above)
    return Panoptic(plane, numbers, np.array(classes, np.int16), crowd)


def _paint(plane: Array, objects: Instances, *, first: int) -> int:
    """Write the numbers ``first``, ``first + 1``, ... into the plane; return the pixels shown."""
    pixels, owners = pixels_of(objects)
    plane.ravel()[pixels] = owners + first
    return int(np.count_nonzero(plane >= first))


def _require_shape(shape: tuple[int, ...], wanted: tuple[int, int], found: str) -> None:
    if tuple(shape) != wanted:
        raise InputError(
            sentence(
                "panoptic segmentation",
                found=f"{found} of shape {tuple(shape)}",
                wanted=f"the shape {wanted} of the objects",
                fix="bring both to the pixels of one image",
            )
        )


@dataclass(frozen=True, slots=True)
class PanopticCounts:
    """Matched and unmatched segments of K classes; they add up over images.

    Attributes:
        matched: int64 ``(K,)``, pairs of IoU above .5.
        missed: int64 ``(K,)``, truth segments without a partner.
        false: int64 ``(K,)``, predicted segments without a partner, not excused.
        iou: float64 ``(K,)``, sum of the IoU of the pairs.
    """

    matched: Ints
    missed: Ints
    false: Ints
    iou: Floats

    @classmethod
    def nothing(cls, classes: int) -> PanopticCounts:
        """Return the counts of no image."""
        none = np.zeros(classes, np.int64)
        return cls(none, none, none, np.zeros(classes))

    def __add__(self, other: PanopticCounts) -> PanopticCounts:
        return PanopticCounts(
            self.matched + other.matched,
            self.missed + other.missed,
            self.false + other.false,
            self.iou + other.iou,
        )

    def quality(self) -> Floats:
        """Return PQ, SQ and RQ of each class, float64 ``(3, K)``; NaN where it does not occur."""
        halves = self.matched + (self.missed + self.false) / 2
        there = halves > 0
        sq = self.iou / np.maximum(self.matched, 1)
        rq = self.matched / np.where(there, halves, 1.0)
        return np.where(there, np.stack([sq * rq, sq, rq]), np.nan)


def panoptic_counts(
    truth: Panoptic, predicted: Panoptic, *, class_count: int, where: object = "panoptic"
) -> PanopticCounts:
    """Return the counts of one image; time and memory are linear in its pixels.

    ``where`` begins the error's sentence.

    Raises:
        InputError: for planes of different shapes, a plane that holds no whole numbers or an
            id that is not listed, or a class outside of 0 to ``class_count - 1``.
    """
    overlaps = overlap_maps(truth.plane, predicted.plane, where=where)
    wanted = _listed(truth, overlaps.truth_ids, class_count, f"{where}, truth")
    found = _listed(predicted, overlaps.predicted_ids, class_count, f"{where}, prediction")
    of_truth, of_predicted = truth.classes[wanted], predicted.classes[found]
    crowd = truth.crowd[wanted]
    pairs, iou = _matched(overlaps, of_truth, of_predicted, crowd)
    missed, false = ~crowd, ~_excused(overlaps, of_truth, of_predicted, crowd)
    missed[pairs[:, 0]] = False
    false[pairs[:, 1]] = False
    matched = of_truth[pairs[:, 0]]
    return PanopticCounts(
        matched=np.bincount(matched, minlength=class_count),
        missed=np.bincount(of_truth[missed], minlength=class_count),
        false=np.bincount(of_predicted[false], minlength=class_count),
        iou=np.bincount(matched, weights=iou, minlength=class_count).astype(np.float64),
    )


def _listed(one: Panoptic, ids: Ints, class_count: int, where: str) -> Ints:
    """Return the row of each id of a plane; refuse ids that have none, and unknown classes."""
    order = np.argsort(one.ids)
    at = np.searchsorted(one.ids[order], ids)
    known_ids = np.append(one.ids[order], -1)
    if len(alone := ids[known_ids[at] != ids]):
        raise InputError(
            sentence(
                where,
                found=f"the id {alone[0]} in the plane alone",
                wanted="every segment listed with its class",
                fix="list it, or set its pixels to 0",
            )
        )
    rows = order[at]
    outside = [index for index in one.classes[rows].tolist() if not 0 <= index < class_count]
    if outside:
        raise InputError(
            sentence(
                where,
                found=f"a segment of class {outside[0]}",
                wanted=f"classes 0 to {class_count - 1}",
                fix="name every class",
            )
        )
    return rows


def _visible_px(overlaps: Overlaps) -> Ints:
    """Return of each prediction the pixels that are not void, int64 ``(M,)``."""
    visible = np.zeros(len(overlaps.predicted_ids), np.int64)
    np.add.at(visible, overlaps.pairs[:, 1], overlaps.shared_px)
    return visible


def _matched(
    overlaps: Overlaps, of_truth: Array, of_predicted: Array, crowd: Mask
) -> tuple[Ints, Floats]:
    """Return the pairs ``(truth, predicted)`` of one class with IoU above .5, and the IoU."""
    truth, predicted = overlaps.pairs.T
    shared = overlaps.shared_px
    united = overlaps.truth_px[truth] + _visible_px(overlaps)[predicted] - shared
    # Whole numbers: a rounded quotient could come out at .5 on either side.
    match = (of_truth[truth] == of_predicted[predicted]) & ~crowd[truth] & (2 * shared > united)
    return overlaps.pairs[match], shared[match] / united[match]


def _excused(overlaps: Overlaps, of_truth: Array, of_predicted: Array, crowd: Mask) -> Mask:
    """Return which predictions lie mostly in void and crowds of their class, bool ``(M,)``."""
    truth, predicted = overlaps.pairs.T
    unscored = overlaps.predicted_px - _visible_px(overlaps)
    own = crowd[truth] & (of_truth[truth] == of_predicted[predicted])
    np.add.at(unscored, predicted[own], overlaps.shared_px[own])
    return np.asarray(2 * unscored > overlaps.predicted_px)


@dataclass(frozen=True, slots=True)
class PanopticScore:
    """PQ, SQ and RQ, float64, of a class or the mean of several; NaN where nothing occurs.

    Attributes:
        name: of the class, or "all", "things", "stuff".
        classes: how many classes the mean is over, 1 of a class that occurs.
        matched: TP; ``missed`` FN; ``false`` FP: of all of them together.
    """

    name: str
    classes: int
    matched: int
    missed: int
    false: int
    pq: float
    sq: float
    rq: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; what is not known is None."""
        return {
            "classes": self.classes,
            "matched": self.matched,
            "missed": self.missed,
            "false": self.false,
            "pq": known(self.pq),
            "sq": known(self.sq),
            "rq": known(self.rq),
        }


@dataclass(frozen=True, slots=True)
class PanopticQuality:
    """Panoptic quality over many images.

    Attributes:
        all: mean over the classes that occur.
        things: over those that are objects.
        stuff: over those that are regions.
        classes: of each class, in the order of the class names.
    """

    all: PanopticScore
    things: PanopticScore
    stuff: PanopticScore
    classes: tuple[PanopticScore, ...]

    def table(self) -> Table:
        """Return the header and the rows of a plain table: means, then classes that occur."""
        there = [one for one in self.classes if one.classes]
        rows: list[tuple[str, ...]] = [
            (
                one.name,
                str(one.classes),
                *map(share, (one.pq, one.sq, one.rq)),
                *map(str, (one.matched, one.missed, one.false)),
            )
            for one in (self.all, self.things, self.stuff, *there)
        ]
        return ("panoptic", "classes", "PQ", "SQ", "RQ", "matched", "missed", "false"), rows

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; what is not known is None."""
        return {
            "all": self.all.to_json(),
            "things": self.things.to_json(),
            "stuff": self.stuff.to_json(),
            "classes": {one.name: one.to_json() for one in self.classes},
        }


def summarise_panoptic(
    counts: PanopticCounts, *, class_names: Sequence[str], stuff: Collection[str] = ()
) -> PanopticQuality:
    """Return the panoptic quality of summed counts; ``stuff`` names the classes of regions."""
    quality = counts.quality()
    region = np.array([name in stuff for name in class_names], bool)

    def of(name: str, chosen: Mask) -> PanopticScore:
        there = chosen & ~np.isnan(quality[0])
        pq, sq, rq = (float(one[there].mean()) if there.any() else math.nan for one in quality)
        matched, missed, false = (
            int(one[chosen].sum()) for one in (counts.matched, counts.missed, counts.false)
        )
        return PanopticScore(name, int(there.sum()), matched, missed, false, pq, sq, rq)

    every = np.arange(len(class_names))
    return PanopticQuality(
        all=of("all", np.ones(len(class_names), bool)),
        things=of("things", ~region),
        stuff=of("stuff", region),
        classes=tuple(of(name, every == index) for index, name in enumerate(class_names)),
    )
