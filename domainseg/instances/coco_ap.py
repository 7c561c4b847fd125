"""Average precision as COCO defines it, of boxes and of masks, with and without its cap.

The numbers are those of ``pycocotools.cocoeval.COCOeval`` (Lin et al., ECCV 2014, and
https://cocodataset.org/#detection-eval), computed by faster-coco-eval. Per class and IoU
threshold, predictions of all images are taken in falling order of their score, equal scores in
the order of the images' ids, then of the rows. Each takes the truth object of its image that is
not taken yet and has the highest IoU, if that reaches the threshold. Precision, made to fall
with recall, is read at the recalls 0, .01, ..., 1 and averaged.

- **AP** is the mean over IoU .5, .55, ..., .95 and over the classes with truth; **AP .5** and
  **AP .75** are those at one threshold. **AR** is the highest recall, averaged alike.
- **small**, **medium**, **large** are truth objects of at most 32**2 px, of 32**2 to 96**2 px,
  of at least 96**2 px; one of exactly 32**2 px is both small and medium, as in COCO.
  Predictions of another size that match nothing are not counted. The size of a truth object is
  its number of pixels, where COCO's files carry the area of polygons; that of a prediction is
  its number of pixels where masks are compared, width times height where boxes are.
- **Crowds** are never missed. A prediction that matches no object, and lies in a crowd of its
  class by the threshold's share of itself, is not counted; of a box, in the crowd's box.
- COCO looks at the 100 best predictions of a class in an image (**AR 1** and **AR 10** at the
  best one and ten). In an image of 2,000 cells that makes recall .05 at best, so everything is
  given without this cap too.

A class without truth has no AP, and is in no mean: NaN here, null in JSON. Of ignored pixels
see `domainseg.instances.coco_image`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from domainseg.instances.coco_curves import AREAS, CAPS, THRESHOLDS, Curves, Kind, class_curves
from domainseg.instances.coco_image import MOST, CocoImage
from domainseg.instances.figures import known, share
from domainseg.records import Array

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Header and rows."""
_HEADER = ("AP", "AP .5", "AP .75", "small", "medium", "large")
_RECALL_HEADER = ("AR 1", "AR 10", "AR", "AR small", "AR medium", "AR large")


@dataclass(frozen=True, slots=True)
class CocoAp:
    """COCO's twelve numbers, float64 in [0, 1]; NaN where there is no truth of that size.

    Attributes:
        ap: mean over the thresholds .5 to .95; ``ap50`` and ``ap75`` at one of them.
        ap_small: of small objects; ``ap_medium``, ``ap_large`` alike.
        ar_1: recall of the best prediction of each class in each image; ``ar_10`` of the ten.
        ar: recall of all that are looked at; ``ar_small``, ``ar_medium``, ``ar_large`` alike.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar: float
    ar_small: float
    ar_medium: float
    ar_large: float

    def to_json(self) -> dict[str, float | None]:
        """Return the numbers by name; None where there is no truth."""
        return {field.name: known(getattr(self, field.name)) for field in fields(self)}

    def cells(self) -> tuple[str, ...]:
        """Return the twelve numbers in their order, as text."""
        return tuple(share(getattr(self, field.name)) for field in fields(self))


@dataclass(frozen=True, slots=True)
class CocoPair:
    """Numbers at COCO's cap of 100 predictions of a class in an image, and without a cap."""

    capped: CocoAp
    uncapped: CocoAp

    def to_json(self) -> dict[str, Any]:
        """Return both as plain JSON values."""
        return {"capped": self.capped.to_json(), "uncapped": self.uncapped.to_json()}


@dataclass(frozen=True, slots=True)
class CocoClass:
    """One class: its name, its truth objects without crowds, its predictions, its numbers."""

    name: str
    truths: int
    calls: int
    mask: CocoPair
    box: CocoPair


@dataclass(frozen=True, slots=True)
class Coco:
    """COCO's numbers over many images.

    Attributes:
        images: number of images.
        truths: number of truth objects, without crowds.
        crowds: number of crowds.
        calls: number of predicted objects.
        beyond: predictions that COCO's cap leaves out.
        mask: where masks are compared, over all classes.
        box: where boxes are, likewise; those around the masks, where nobody gave others.
        classes: one per class that occurs, in the order of the class names.
    """

    images: int
    truths: int
    crowds: int
    calls: int
    beyond: int
    mask: CocoPair
    box: CocoPair
    classes: tuple[CocoClass, ...]

    def tables(self) -> list[Table]:
        """Return the table of all classes, and of several that of each."""
        return [self.table(), self.class_table()] if len(self.classes) > 1 else [self.table()]

    def table(self) -> Table:
        """Return the header and the rows of a plain table, without a cap where it matters."""
        pairs = {"masks": self.mask, "boxes of masks": self.box}
        rows = [(name, *pair.capped.cells()) for name, pair in pairs.items()]
        if self.beyond:
            rows = [(f"{name}, best {MOST}", *cells) for name, *cells in rows]
            rows += [(f"{name}, all", *pair.uncapped.cells()) for name, pair in pairs.items()]
        return (f"COCO, {self.truths} objects", *_HEADER, *_RECALL_HEADER), rows

    def class_table(self) -> Table:
        """Return AP of each class with truth, or predictions, without a cap where it matters."""
        columns = [f"{kind} {name}" for kind in ("mask", "box") for name in _HEADER[:3]]
        header = ("COCO, class", "objects", "predicted", *columns)
        rows = []
        for one in self.classes:
            pairs = (one.mask, one.box)
            found = [pair.uncapped if self.beyond else pair.capped for pair in pairs]
            cells = [cell for ap in found for cell in ap.cells()[:3]]
            rows.append((one.name, str(one.truths), str(one.calls), *cells))
        return header, rows

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; what is not known is None."""
        return {
            "images": self.images,
            "objects": self.truths,
            "crowds": self.crowds,
            "predicted": self.calls,
            "max_detections": MOST,
            "beyond_max_detections": self.beyond,
            "mask": self.mask.to_json(),
            "box": self.box.to_json(),
            "classes": {
                one.name: {
                    "objects": one.truths,
                    "predicted": one.calls,
                    "mask": one.mask.to_json(),
                    "box": one.box.to_json(),
                }
                for one in self.classes
            },
        }


def summarise_coco(images: Sequence[CocoImage], *, class_names: Sequence[str]) -> Coco:
    """Return COCO's numbers over images; their order is free, their ids differ.

    Raises:
        IndexError: for a class without a name.
    """
    ordered = sorted(images, key=lambda one: one.id)
    there = _by_class(ordered)
    counts = [_counts(there[index], index) for index in there]
    beyond = [one.beyond for one in counts]
    mask, masks = _numbers(there, beyond, "mask")
    box, boxes = _numbers(there, beyond, "box")
    return Coco(
        images=len(ordered),
        truths=sum(one.truths for one in counts),
        crowds=sum(int(one.truth.crowd.sum()) for one in ordered),
        calls=sum(one.calls for one in counts),
        beyond=sum(beyond),
        mask=mask,
        box=box,
        classes=tuple(
            CocoClass(class_names[index], count.truths, count.calls, mask=one, box=other)
            for index, count, one, other in zip(there, counts, masks, boxes, strict=True)
        ),
    )


def _by_class(images: Sequence[CocoImage]) -> dict[int, list[CocoImage]]:
    """Return the images that hold each class on either side, in their order; classes ascend."""
    there: dict[int, list[CocoImage]] = {}
    for one in images:
        for index in np.union1d(one.truth.classes, one.predicted.classes).tolist():
            there.setdefault(index, []).append(one)
    return dict(sorted(there.items()))


@dataclass(frozen=True, slots=True)
class _Counts:
    """Truth objects without crowds, predictions, and those beyond the cap, of a class."""

    truths: int
    calls: int
    beyond: int


def _counts(images: Sequence[CocoImage], index: int) -> _Counts:
    truths = [one.truth.classes[~one.truth.crowd] == index for one in images]
    calls = [int((one.predicted.classes == index).sum()) for one in images]
    return _Counts(
        truths=sum(int(mine.sum()) for mine in truths),
        calls=sum(calls),
        beyond=sum(max(0, count - MOST) for count in calls),
    )


def _numbers(
    there: Mapping[int, Sequence[CocoImage]], beyond: Sequence[int], kind: Kind
) -> tuple[CocoPair, list[CocoPair]]:
    """Return the numbers of all classes together, and of each."""
    capped = [class_curves(images, index, kind=kind) for index, images in there.items()]
    uncapped = [
        class_curves(images, index, kind=kind, capped=False) if cut else at_cap.widest()
        for (index, images), at_cap, cut in zip(there.items(), capped, beyond, strict=True)
    ]
    if not there:
        capped, uncapped = [Curves.unknown(0, len(CAPS))], [Curves.unknown(0, 1)]
    each = [_pair(one, other) for one, other in zip(capped, uncapped, strict=True)]
    return _pair(Curves.joined(capped), Curves.joined(uncapped)), each[: len(there)]


def _pair(capped: Curves, uncapped: Curves) -> CocoPair:
    first, every = _twelve(capped), _twelve(uncapped)
    # The best one and ten predictions are the same under either cap.
    return CocoPair(first, replace(every, ar_1=first.ar_1, ar_10=first.ar_10))


def _twelve(curves: Curves) -> CocoAp:
    """Return COCO's numbers at the last cap; AR 1 and AR 10 at the first and the second."""
    precision, recall = curves.precision, curves.recall
    at = {threshold: THRESHOLDS.index(threshold) for threshold in (0.5, 0.75)}
    ap, small, medium, large = (_mean(precision[:, :, :, area, -1]) for area in range(AREAS))
    ar, ar_small, ar_medium, ar_large = (_mean(recall[:, :, area, -1]) for area in range(AREAS))
    return CocoAp(
        ap=ap,
        ap50=_mean(precision[:, at[0.5], :, 0, -1]),
        ap75=_mean(precision[:, at[0.75], :, 0, -1]),
        ap_small=small,
        ap_medium=medium,
        ap_large=large,
        ar_1=_mean(recall[:, :, 0, 0]),
        ar_10=_mean(recall[:, :, 0, min(1, recall.shape[-1] - 1)]),
        ar=ar,
        ar_small=ar_small,
        ar_medium=ar_medium,
        ar_large=ar_large,
    )


def _mean(values: Array) -> float:
    """Return the mean over what is there, NaN for nothing."""
    there = values[values > -1]
    return float(there.mean()) if there.size else math.nan
