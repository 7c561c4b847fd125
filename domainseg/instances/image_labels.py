"""Image labels that follow from masks: which classes an image shows, and where.

The **predicted labels** of an image are the classes of which at least one object was
found; without an object the image is ``None``. Its **truth** is the set of classes that it
is labelled with, empty for ``None``.

- **exact**: share of the images whose set of labels is right, with the interval of Wilson
  (1927).
- Per class, over images: **precision** = TP / (TP + FP), **recall** = TP / (TP + FN), **F1** =
  2 TP / (2 TP + FP + FN). ``None`` is a class of its own: an image without a label.
- **macro F1**: mean of F1 over the classes that occur in truth or prediction, None
  included, as in Opitz and Burst, Macro F1 and Macro F1, 2019, equation 1.

Where no image has two true labels each gets one: the class of its object of highest score
(of equal scores, the larger object). Then there is a **confusion** matrix over the classes
and None, an **accuracy**, and a macro F1 over the same.

Where masks are drawn, the **mask IoU** is the mean IoU of class masks over all pairs of an
image and a class that is in its truth or its prediction.

On a wafer map a pattern should hold the failing dies it is made of and not the whole wafer.
Of each image with a true label the **failing share** is the share of the failing dies that
lie in the union of its masks, 0 where nothing was predicted; **localised** is the share of
these images where it is between LOCALISED. A pattern of the whole wafer covers all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.figures import between, ends, known, share
from domainseg.instances.pixel_scores import PixelCounts
from domainseg.instances.planes import union
from domainseg.quality.statistics import Interval, wilson_interval
from domainseg.records import Instances

NONE = "None"
"""What an image without a label is called."""
LOCALISED = (0.02, 0.8)
"""Shares of the failing dies between which masks say where a pattern is."""

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """The labels of one image, of K classes.

    Attributes:
        id: of the image.
        truth: bool ``(K,)``.
        predicted: bool ``(K,)``.
        strongest: class index of the object of highest score, K without an object.
        mask_ious: IoU of each class in truth or prediction, where masks are drawn.
        failing_share: share of the failing dies inside the masks; None where the image has no
            true label or no die fails, or is no wafer map.
    """

    id: str
    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    strongest: int
    mask_ious: tuple[float, ...] = ()
    failing_share: float | None = None


def image_labels(
    id_: str,
    labels: NDArray[np.bool_],
    predicted: Instances,
    *,
    truth: Instances | None = None,
    failing: Mask | None = None,
    ignore: Mask | None = None,
) -> ImageLabels:
    """Return the labels of an image: ``labels`` bool ``(K,)`` are true, ``predicted`` was found.

    ``truth`` are the drawn objects, None where none were drawn; ``failing`` says which dies
    of a wafer map fail, bool ``(H, W)``.
    """
    found = np.zeros(len(labels), bool)
    found[predicted.classes] = True
    ious: tuple[float, ...] = ()
    if truth is not None:
        seen = np.ones(truth.shape, bool) if ignore is None else ~ignore
        ious = _mask_ious(truth, predicted, seen)
    covered = None
    if failing is not None and labels.any() and failing.any():
        covered = float(np.mean(union(predicted)[failing]))
    return ImageLabels(id_, labels, found, strongest_class(predicted, len(labels)), ious, covered)


@dataclass(frozen=True, slots=True)
class ClassF1:
    """Images that have a class, that were given it, and both."""

    name: str
    truth: int
    predicted: int
    both: int

    @property
    def precision(self) -> float:
        """TP / (TP + FP); NaN where it was never predicted."""
        return self.both / self.predicted if self.predicted else math.nan

    @property
    def recall(self) -> float:
        """TP / (TP + FN); NaN where it never is."""
        return self.both / self.truth if self.truth else math.nan

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN where the class does not occur."""
        either = self.truth + self.predicted
        return 2 * self.both / either if either else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "truth": self.truth,
            "predicted": self.predicted,
            "both": self.both,
            "precision": known(self.precision),
            "recall": known(self.recall),
            "f1": known(self.f1),
        }


@dataclass(frozen=True, slots=True)
class SingleLabels:
    """Images of one label each.

    Attributes:
        names: the classes, and None last.
        confusion: int64 ``(K + 1, K + 1)``, rows are truth, columns prediction.
    """

    names: tuple[str, ...]
    confusion: Counts

    @property
    def classes(self) -> tuple[ClassF1, ...]:
        """Counts of each class, None included."""
        truth, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return tuple(
            ClassF1(name, int(truth[i]), int(predicted[i]), int(self.confusion[i, i]))
            for i, name in enumerate(self.names)
        )

    @property
    def accuracy(self) -> float:
        """Share of the images with the right label."""
        return int(np.trace(self.confusion)) / max(int(self.confusion.sum()), 1)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur."""
        return macro_f1(self.classes)

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the confusion matrix as a plain table, with recall and F1 of each row."""
        rows = [
            (name, *map(str, counts), share(one.recall), share(one.f1))
            for name, counts, one in zip(
                self.names, self.confusion.tolist(), self.classes, strict=True
            )
        ]
        return ("truth \\ predicted", *self.names, "recall", "F1"), rows

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "names": list(self.names),
            "confusion": self.confusion.tolist(),
            "accuracy": self.accuracy,
            "macro_f1": known(self.macro_f1),
            "classes": {one.name: one.to_json() for one in self.classes},
        }


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Image labels of many images.

    Attributes:
        names: the K classes.
        images: one per image, sorted by id; at least one.
        single: where no image has two true labels, what one label each gives; else None.
    """

    names: tuple[str, ...]
    images: tuple[ImageLabels, ...]
    single: SingleLabels | None

    @property
    def right(self) -> int:
        """Number of images whose set of labels is right."""
        return sum(bool(np.array_equal(one.truth, one.predicted)) for one in self.images)

    @property
    def exact(self) -> float:
        """Share of the images whose set of labels is right."""
        return self.right / len(self.images)

    @property
    def exact_interval(self) -> Interval:
        """95 % interval of `exact`."""
        return wilson_interval(self.right, len(self.images))

    @property
    def classes(self) -> tuple[ClassF1, ...]:
        """Counts of each class over the sets of labels, None last."""
        truth = _with_none(np.stack([one.truth for one in self.images]))
        predicted = _with_none(np.stack([one.predicted for one in self.images]))
        both = truth & predicted
        return tuple(
            ClassF1(name, int(truth[:, i].sum()), int(predicted[:, i].sum()), int(both[:, i].sum()))
            for i, name in enumerate((*self.names, NONE))
        )

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur in the sets of labels."""
        return macro_f1(self.classes)

    @property
    def mask_ious(self) -> list[float]:
        """IoU of every pair of an image and a class, where masks are drawn."""
        return [iou for one in self.images for iou in one.mask_ious]

    @property
    def mask_iou(self) -> float:
        """Mean of `mask_ious`; NaN without any."""
        return math.fsum(self.mask_ious) / len(self.mask_ious) if self.mask_ious else math.nan

    @property
    def failing_shares(self) -> list[float]:
        """Share of the failing dies inside the masks, of each image where it is known."""
        return [one.failing_share for one in self.images if one.failing_share is not None]

    @property
    def localised(self) -> float:
        """Share of the images whose failing share is between LOCALISED; NaN without any."""
        low, high = LOCALISED
        shares = self.failing_shares
        return sum(low <= one <= high for one in shares) / len(shares) if shares else math.nan

    def tables(self) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
        """Return what applies: all labels together, each class, the confusion matrix."""
        found = [self.figures(), self.table()]
        return found if self.single is None else [*found, self.single.table()]

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the counts of each class as a plain table."""
        rows = [
            (
                one.name,
                str(one.truth),
                str(one.predicted),
                *map(share, (one.precision, one.recall, one.f1)),
            )
            for one in self.classes
        ]
        return ("label", "images", "predicted", "precision", "recall", "F1"), rows

    def figures(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the figures of all labels together as a plain table."""
        rows: list[tuple[str, ...]] = [
            ("all labels right", share(self.exact), between(self.exact_interval)),
            ("macro F1", share(self.macro_f1), ""),
        ]
        if self.single is not None:
            rows.append(("accuracy of one label each", share(self.single.accuracy), ""))
            rows.append(("macro F1 of one label each", share(self.single.macro_f1), ""))
        if self.mask_ious:
            rows.append((f"IoU of {len(self.mask_ious)} masks", share(self.mask_iou), ""))
        if count := len(self.failing_shares):
            low, high = LOCALISED
            name = f"{low:.0%} to {high:.0%} of the failing dies masked, of {count} maps"
            rows.append((name, share(self.localised), ""))
        return (f"{len(self.images)} images with labels", "share", "95 %"), rows

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values in a fixed order of keys; what is not known is None."""
        return {
            "count": len(self.images),
            "exact": self.exact,
            "exact_interval": ends(self.exact_interval),
            "macro_f1": known(self.macro_f1),
            "classes": {one.name: one.to_json() for one in self.classes},
            "single": None if self.single is None else self.single.to_json(),
            "masks": {"pairs": len(self.mask_ious), "mean_iou": known(self.mask_iou)},
            "failing_dies": {
                "images": len(self.failing_shares),
                "median_share": known(_median(self.failing_shares)),
                "between": list(LOCALISED),
                "localised": known(self.localised),
            },
            "images": [
                {
                    "id": one.id,
                    "truth": self._named(one.truth),
                    "predicted": self._named(one.predicted),
                    "failing_share": one.failing_share,
                }
                for one in self.images
            ],
        }

    def _named(self, chosen: NDArray[np.bool_]) -> list[str]:
        return [name for name, there in zip(self.names, chosen.tolist(), strict=True) if there]


def summarise_labels(images: Sequence[ImageLabels], *, class_names: Sequence[str]) -> LabelScores:
    """Return the labels of at least one image together; their order does not matter."""
    rows = tuple(sorted(images, key=lambda one: one.id))
    names = tuple(class_names)
    single = None
    if all(one.truth.sum() <= 1 for one in rows):
        count = len(names)
        confusion = np.zeros((count + 1, count + 1), np.int64)
        for one in rows:
            truth = int(np.argmax(one.truth)) if one.truth.any() else count
            confusion[truth, one.strongest] += 1
        single = SingleLabels((*names, NONE), confusion)
    return LabelScores(names, rows, single)


def macro_f1(classes: Sequence[ClassF1]) -> float:
    """Return the mean F1 over the classes that occur; NaN where none does."""
    scores = [one.f1 for one in classes if not math.isnan(one.f1)]
    return math.fsum(scores) / len(scores) if scores else math.nan


def strongest_class(predicted: Instances, none: int) -> int:
    """Return the class of the object of highest score, ``none`` without an object.

    Of equal scores the larger object counts, then the one with the lower number.
    """
    if not len(predicted):
        return none
    order = np.lexsort((-predicted.ids, predicted.areas_px(), predicted.scores))
    return int(predicted.classes[order[-1]])


def _mask_ious(truth: Instances, predicted: Instances, seen: Mask) -> tuple[float, ...]:
    counts = [
        PixelCounts.of_masks(
            union(truth, truth.classes == index), union(predicted, predicted.classes == index), seen
        )
        for index in np.union1d(truth.classes, predicted.classes)
    ]
    return tuple(one.iou for one in counts if not math.isnan(one.iou))


def _with_none(labels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return ``(N, K)`` labels with a last column for images without any."""
    return np.concatenate([labels, ~labels.any(axis=1, keepdims=True)], axis=1)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan
