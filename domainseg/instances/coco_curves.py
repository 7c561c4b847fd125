"""Precision and recall as COCO accumulates them, class by class, by faster-coco-eval.

Classes know nothing of each other, so one is evaluated at a time: memory is that of the
annotations of the largest class, not of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.coco_image import MOST, CocoImage, CocoObjects

Kind = Literal["mask", "box"]
Annotation = dict[str, Any]
"""One object as COCO's files have it."""

CAPS = (1, 10, MOST)
"""Predictions of a class in an image that COCO looks at, best first: 1 and 10 for recall only."""
THRESHOLDS = tuple(k / 20 for k in range(10, 20))
"""The IoU thresholds .5, .55, ..., .95, T of them."""
RECALLS = 101
"""Recalls 0, .01, ..., 1 that precision is read at."""
AREAS = 4
"""Sizes: all, small, medium, large."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What COCO's accumulation leaves of K classes at M caps; -1 where there is no truth.

    Attributes:
        precision: float64 ``(K, T, RECALLS, AREAS, M)``.
        recall: float64 ``(K, T, AREAS, M)``, the highest.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    @classmethod
    def unknown(cls, classes: int, caps: int) -> Curves:
        """Return the curves of classes without truth."""
        size = (classes, len(THRESHOLDS))
        return cls(
            np.full((*size, RECALLS, AREAS, caps), -1.0), np.full((*size, AREAS, caps), -1.0)
        )

    @classmethod
    def joined(cls, parts: Sequence[Curves]) -> Curves:
        """Return the curves of the classes of all parts, one at least, with equal caps."""
        return cls(
            np.concatenate([one.precision for one in parts]),
            np.concatenate([one.recall for one in parts]),
        )

    def widest(self) -> Curves:
        """Return the curves at the largest cap alone."""
        return Curves(self.precision[..., -1:], self.recall[..., -1:])


def class_curves(
    images: Sequence[CocoImage], index: int, *, kind: Kind, capped: bool = True
) -> Curves:
    """Return the curves of the class ``index``, K = 1, at `CAPS` or, M = 1, without a cap.

    Of one image or more, those without the class change nothing; equal scores are taken in the
    order of the images, then of the rows.
    """
    pages = _Pages(index, kind, parted=not capped)
    for number, (image, scores) in enumerate(_ranked(images, index)):
        pages.add(number, image, scores=scores)
    caps = CAPS if capped else (pages.fullest,)
    if all(one["iscrowd"] for one in pages.truths):
        return Curves.unknown(1, len(caps))
    return _evaluated(pages, kind, caps)


def _ranked(
    images: Sequence[CocoImage], index: int
) -> Iterator[tuple[CocoImage, NDArray[np.float64]]]:
    """Yield each image with what stands for the scores of its predictions of the class.

    Only the order of scores matters. Their negative rank among all keeps the order, and that
    of equal ones, also where parts of an image take the places of images.
    """
    scores = [one.predicted.scores[one.predicted.classes == index] for one in images]
    ends = np.cumsum([len(of_one) for of_one in scores])
    order = np.argsort(-np.concatenate([np.zeros(0, np.float32), *scores]), kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(len(order))
    yield from zip(images, np.split(-ranks, ends[:-1]), strict=True)


@dataclass(frozen=True, slots=True)
class _Pages:
    """Images or parts of them, with annotations of one class; numbers of both count from 1.

    To COCO's evaluation an annotation numbered 0 would be one that nothing matched.
    """

    index: int
    kind: Kind
    parted: bool
    numbers: dict[tuple[int, int], int] = field(default_factory=dict)
    sizes: list[Annotation] = field(default_factory=list)
    truths: list[Annotation] = field(default_factory=list)
    calls: list[Annotation] = field(default_factory=list)

    @property
    def fullest(self) -> int:
        """Largest number of predictions on a page, at least 1."""
        pages = [one["image_id"] for one in self.calls]
        return int(np.bincount(pages).max()) if pages else 1

    def add(self, number: int, image: CocoImage, *, scores: NDArray[np.float64]) -> None:
        """Add what an image has of the class; ``scores`` are of its predictions, in order."""
        for made in self._annotations(number, image.truth, shape=image.shape):
            self.truths.append({"id": len(self.truths) + 1, **made})
        annotations = self._annotations(number, image.predicted, shape=image.shape)
        for made, score in zip(annotations, scores.tolist(), strict=True):
            if self.kind == "box":
                made["area"] = made["bbox"][2] * made["bbox"][3]
            self.calls.append({"id": len(self.calls) + 1, "score": score, **made})

    def _annotations(
        self, number: int, objects: CocoObjects, *, shape: tuple[int, int]
    ) -> Iterator[Annotation]:
        """Yield the objects of the class, each on its page, without a number of their own."""
        parts = objects.mask_parts if self.kind == "mask" else objects.box_parts
        for row in np.flatnonzero(objects.classes == self.index).tolist():
            made = {
                "image_id": self._page((number, int(parts[row]) if self.parted else 0), shape),
                "category_id": 1,
                "iscrowd": int(objects.crowd[row]),
                "area": int(objects.areas_px[row]),
                "bbox": objects.boxes_xywh[row].tolist(),
            }
            if self.kind == "mask":
                text = objects.counts[row].decode("ascii")
                made["segmentation"] = {"size": list(shape), "counts": text}
            yield made

    def _page(self, key: tuple[int, int], shape: tuple[int, int]) -> int:
        """Return the number of the page of an image and part, a new one the first time."""
        page = self.numbers.setdefault(key, len(self.numbers) + 1)
        if page > len(self.sizes):
            self.sizes.append({"id": page, "height": shape[0], "width": shape[1]})
        return page

    def dataset(self, annotations: list[Annotation]) -> dict[str, list[Annotation]]:
        """Return pages with truth or with predictions as COCO's files have them."""
        return {
            "images": self.sizes,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "1"}],
        }


def _evaluated(pages: _Pages, kind: Kind, caps: Sequence[int]) -> Curves:
    # Imported here because it brings OpenCV along, which nothing else of this layer needs.
    from faster_coco_eval.core import COCO, COCOeval_faster

    truth, found = COCO(pages.dataset(pages.truths)), COCO(pages.dataset(pages.calls))
    # One thread: most tables of a page take microseconds, less than handing them out does.
    evaluation = COCOeval_faster(
        truth, found, iouType="segm" if kind == "mask" else "bbox", rle_iou_max_workers=1
    )
    evaluation.params.maxDets = list(caps)
    evaluation.evaluate()
    # Both have an axis of length 1 for the class, behind the others.
    return Curves(
        precision=np.moveaxis(np.asarray(evaluation.eval["precision"]), 2, 0),
        recall=np.moveaxis(np.asarray(evaluation.eval["recall"]), 1, 0),
    )
