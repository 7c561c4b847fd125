"""Pixels ranked by foreground probability: AUROC, AP, PRO; and the IoU of pixels.

Probabilities come as the 256 quanta of `domainseg.records.Maps`, of which a higher one is a
higher probability. So a ranking is a histogram of 256 bins for each side, exact for the
maps as they are, and memory does not grow with the pixels. Logits beyond -8 and 7.94 share
the outermost quanta and tie.

- **AUROC** and **AP** are those of `domainseg.instances.ranking`.
- **PRO** (Bergmann et al., Uninformed Students, CVPR 2020, section 3.4): the mean over truth
  objects of the share of each that is above a threshold, integrated over the false-positive
  rate of the good pixels from 0 to PRO_LIMIT by trapezoids, over PRO_LIMIT. Every annotated
  object is a region, where the authors take connected components.
- **IoU** of pixels: pixels in both / pixels in either, summed over the images first. **good**
  is what lies in no object, **defect** what lies in any; of a class, what lies in its
  objects. The mean is over the classes that occur on either side, and does not hold good.

Ignored pixels count nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.figures import known
from domainseg.instances.planes import pixels_of, union
from domainseg.instances.ranking import Ranking
from domainseg.records import Instances

QUANTA = 256
PRO_LIMIT = 0.3
"""Largest false-positive rate that PRO looks at."""

Mask = NDArray[np.bool_]
Histogram = NDArray[np.int64]


NO_PIXELS = Ranking(np.zeros(QUANTA, np.int64), np.zeros(QUANTA, np.int64))


@dataclass(frozen=True, slots=True)
class Coverage:
    """Sum over truth objects of the share of each at or above a quantum.

    Attributes:
        regions: number of truth objects.
        shares: float64 ``(QUANTA,)``, by falling quantum.
    """

    regions: int
    shares: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PixelCounts:
    """Pixels in truth, in prediction, in both; they add up."""

    truth: int = 0
    predicted: int = 0
    both: int = 0

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(
            self.truth + other.truth, self.predicted + other.predicted, self.both + other.both
        )

    @classmethod
    def of_masks(cls, truth: Mask, predicted: Mask, seen: Mask) -> PixelCounts:
        """Return the counts of two masks ``(H, W)`` where ``seen``."""
        ours, theirs = predicted & seen, truth & seen
        return cls(
            int(np.count_nonzero(theirs)),
            int(np.count_nonzero(ours)),
            int(np.count_nonzero(ours & theirs)),
        )

    @property
    def iou(self) -> float:
        """Pixels in both / pixels in either; NaN without a pixel."""
        either = self.truth + self.predicted - self.both
        return self.both / either if either else math.nan


@dataclass(frozen=True, slots=True)
class ImagePixels:
    """The pixels of one image.

    Attributes:
        id: of the image.
        ranking: of its pixels, None where there are no maps.
        coverage: of its truth objects, None where there are no maps.
        counts: of defect pixels.
        good: of good pixels.
        by_class: of each class index that occurs.
    """

    id: str
    ranking: Ranking | None
    coverage: Coverage | None
    counts: PixelCounts
    good: PixelCounts
    by_class: Mapping[int, PixelCounts] = field(default_factory=dict)


def pixel_scores(
    id_: str,
    truth: Instances,
    predicted: Instances,
    *,
    foreground: NDArray[np.uint8] | None = None,
    ignore: Mask | None = None,
) -> ImagePixels:
    """Return what the pixels of an image say.

    ``foreground`` is ``(L, H, W)`` quanta, of which the largest over the layers counts; all
    planes have the shape of the truth.
    """
    seen = np.ones(truth.shape, bool) if ignore is None else ~ignore
    theirs, ours = union(truth), union(predicted)
    classes = np.union1d(truth.classes, predicted.classes)
    ranking = coverage = None
    if foreground is not None:
        quanta = foreground.max(axis=0)
        ranking = Ranking(_histogram(quanta[~theirs & seen]), _histogram(quanta[theirs & seen]))
        coverage = _coverage(truth, quanta, seen)
    return ImagePixels(
        id=id_,
        ranking=ranking,
        coverage=coverage,
        counts=PixelCounts.of_masks(theirs, ours, seen),
        good=PixelCounts.of_masks(~theirs, ~ours, seen),
        by_class={
            int(index): PixelCounts.of_masks(
                union(truth, truth.classes == index),
                union(predicted, predicted.classes == index),
                seen,
            )
            for index in classes
        },
    )


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixel scores of many images.

    Attributes:
        images: number of images.
        ranked: those of them with maps.
        ranking: of all their pixels.
        regions: truth objects in images with maps.
        pro: per-region overlap, NaN without a region or a good pixel.
        defect: counts of defect pixels.
        good: counts of good pixels.
        classes: counts per class that occurs, in the order of the class names; empty where
            no class was named.
    """

    images: int
    ranked: int
    ranking: Ranking
    regions: int
    pro: float
    defect: PixelCounts
    good: PixelCounts
    classes: Mapping[str, PixelCounts]

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur, or that of defects where none was named."""
        ious = [one.iou for one in self.classes.values() if not math.isnan(one.iou)]
        return math.fsum(ious) / len(ious) if ious else self.defect.iou

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the header and the rows of a plain table; what is not known is left out."""
        rows = [
            ("AUROC", self.ranking.auroc),
            ("AP", self.ranking.average_precision),
            (f"PRO to {PRO_LIMIT:g}", self.pro),
            ("IoU good", self.good.iou),
            ("IoU defect", self.defect.iou),
            *((f"IoU {name}", one.iou) for name, one in self.classes.items()),
        ]
        if self.classes:
            rows.append(("mean IoU of classes", self.mean_iou))
        shown: list[tuple[str, ...]] = [
            (name, f"{value:.4f}") for name, value in rows if not math.isnan(value)
        ]
        return ("pixels", "score"), shown

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; what is not known is None."""
        return {
            "images": self.images,
            "images_with_maps": self.ranked,
            "good_px": int(self.ranking.good.sum()),
            "defect_px": int(self.ranking.defect.sum()),
            "auroc": known(self.ranking.auroc),
            "average_precision": known(self.ranking.average_precision),
            "regions": self.regions,
            "pro": known(self.pro),
            "pro_limit": PRO_LIMIT,
            "iou": {"good": known(self.good.iou), "defect": known(self.defect.iou)},
            "classes": {name: known(one.iou) for name, one in self.classes.items()},
            "mean_iou": known(self.mean_iou),
        }


def summarise_pixels(images: Sequence[ImagePixels], *, class_names: Sequence[str] = ()) -> Pixels:
    """Return the pixel scores of images together, the same bits whatever their order."""
    rows = sorted(images, key=lambda one: one.id)
    ranking = sum((one.ranking for one in rows if one.ranking is not None), NO_PIXELS)
    coverages = [one.coverage for one in rows if one.coverage is not None]
    by_class: dict[int, PixelCounts] = {}
    for row in rows:
        for index, counts in row.by_class.items():
            by_class[index] = by_class.get(index, PixelCounts()) + counts
    regions = sum(one.regions for one in coverages)
    shares = sum((one.shares for one in coverages), np.zeros(QUANTA))
    return Pixels(
        images=len(rows),
        ranked=len(coverages),
        ranking=ranking,
        regions=regions,
        pro=_pro(ranking, shares, regions),
        defect=sum((one.counts for one in rows), PixelCounts()),
        good=sum((one.good for one in rows), PixelCounts()),
        classes={class_names[i]: by_class[i] for i in sorted(by_class) if class_names},
    )


def _histogram(quanta: NDArray[np.uint8]) -> Histogram:
    return np.bincount(quanta, minlength=QUANTA).astype(np.int64)


def _coverage(truth: Instances, quanta: NDArray[np.uint8], seen: Mask) -> Coverage:
    pixels, owners = pixels_of(truth)
    counted = seen.ravel()[pixels]
    pixels, owners = pixels[counted], owners[counted]
    bins = owners * QUANTA + quanta.ravel()[pixels]
    counts = np.bincount(bins, minlength=len(truth) * QUANTA).reshape(-1, QUANTA)
    counts = counts[counts.any(axis=1)]
    above = np.cumsum(counts[:, ::-1], axis=1)
    return Coverage(len(counts), (above / above[:, -1:]).sum(axis=0))


def _pro(ranking: Ranking, shares: NDArray[np.float64], regions: int) -> float:
    """Return the area under mean coverage against false-positive rate, up to PRO_LIMIT."""
    if not regions or not ranking.good.any():
        return math.nan
    rate = np.concatenate([[0.0], ranking.false_positive_rate])
    cover = np.concatenate([[0.0], shares / regions])
    # The curve is cut at the limit, where it is interpolated.
    inside = rate < PRO_LIMIT
    at_limit = _interpolated(PRO_LIMIT, rate, cover)
    x = np.concatenate([rate[inside], [PRO_LIMIT]])
    y = np.concatenate([cover[inside], [at_limit]])
    return float(np.trapezoid(y, x)) / PRO_LIMIT


def _interpolated(limit: float, rate: NDArray[np.float64], cover: NDArray[np.float64]) -> float:
    """Return the coverage at a rate, between the last point below it and the first not."""
    after = int(np.argmax(rate >= limit))
    before = after - 1
    step = (limit - rate[before]) / (rate[after] - rate[before])
    return float(cover[before] + step * (cover[after] - cover[before]))
