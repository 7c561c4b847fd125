"""Made-up detections, and what pycocotools makes of them: the reference of COCO's numbers."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from domainseg.instances.coco_ap import CocoAp
from domainseg.instances.coco_image import CocoImage, coco_image
from domainseg.records import Instances

Mask = NDArray[np.bool_]
CAPS = (1, 10, 100)
NO_CAP = (1, 10, 100_000)


@dataclass(frozen=True)
class Case:
    """One image with truth, crowds and predictions, as `coco_image` takes them."""

    id: str
    truth: Instances
    predicted: Instances
    crowds: Instances | None = None
    boxes_xyxy: NDArray[np.float64] | None = None

    def image(self) -> CocoImage:
        return coco_image(
            self.id,
            self.truth,
            self.predicted,
            crowds=self.crowds,
            boxes_xyxy=self.boxes_xyxy,
        )


def objects(
    masks: Sequence[Mask],
    *,
    shape: tuple[int, int],
    classes: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
) -> Instances:
    """Return masks, which may overlap and each have a pixel, as objects numbered from 1."""
    nothing = Instances.from_label_map(np.zeros(shape, np.uint8))
    joined = Instances.joined(
        [nothing, *(Instances.from_label_map(mask.astype(np.uint8)) for mask in masks)]
    )
    count = len(masks)
    return replace(
        joined,
        ids=np.arange(1, count + 1),
        classes=np.array([0] * count if classes is None else classes, np.int16),
        scores=np.array([1.0] * count if scores is None else scores, np.float32),
    )


def masks_of(instances: Instances) -> list[Mask]:
    """Return the objects as dense masks ``(H, W)``."""
    found = []
    for row in range(len(instances)):
        whole = np.zeros(instances.shape, bool)
        (y0, x0), (y1, x1) = instances.boxes[row]
        whole[y0:y1, x0:x1] = instances.mask(row)
        found.append(whole)
    return found


def box(y: int, x: int, height: int, width: int, *, shape: tuple[int, int]) -> Mask:
    """Return a mask of one rectangle."""
    mask = np.zeros(shape, bool)
    mask[max(y, 0) : y + height, max(x, 0) : x + width] = True
    return mask


# The reference ------------------------------------------------------------------------------


def evaluated(cases: Sequence[Case], kind: str, *, caps: tuple[int, ...] = CAPS) -> Any:
    """Return pycocotools' evaluation of the cases, their images in the order they come in.

    COCO's own numbers are among it where ``caps`` begin with `CAPS`.
    """
    truths: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    images = []
    for number, case in enumerate(cases, start=1):
        height, width = case.truth.shape
        images.append({"id": number, "height": height, "width": width})
        for side, crowd in ((case.truth, 0), (case.crowds, 1)):
            for mask, index in zip(*_rows(side), strict=True):
                code = _encoded(mask)
                truths.append(
                    {
                        "id": len(truths) + 1,
                        "image_id": number,
                        "category_id": index + 1,
                        "iscrowd": crowd,
                        "area": int(mask.sum()),
                        "segmentation": code,
                        "bbox": _box(code),
                    }
                )
        scores = case.predicted.scores.tolist()
        for row, (mask, index) in enumerate(zip(*_rows(case.predicted), strict=True)):
            code = _encoded(mask)
            one = {"image_id": number, "category_id": index + 1, "score": scores[row]}
            if kind == "mask":
                one["segmentation"] = code
            elif case.boxes_xyxy is None:
                one["bbox"] = _box(code)
            else:
                left, top, right, bottom = case.boxes_xyxy[row].tolist()
                one["bbox"] = [left, top, right - left, bottom - top]
            calls.append(one)
    classes = sorted({one["category_id"] for one in (*truths, *calls)})
    categories = [{"id": index, "name": str(index)} for index in classes]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        truth = COCO()
        truth.dataset = {"images": images, "annotations": truths, "categories": categories}
        truth.createIndex()
        found = COCO()
        found.dataset = {"images": images, "annotations": [], "categories": categories}
        found.createIndex()
        if calls:
            found = truth.loadRes(calls)
        evaluation = COCOeval(truth, found, iouType="segm" if kind == "mask" else "bbox")
        evaluation.params.maxDets = list(caps)
        evaluation.evaluate()
        evaluation.accumulate()
        if caps[:3] == CAPS:
            evaluation.summarize()
    return evaluation


def _rows(side: Instances | None) -> tuple[list[Mask], list[int]]:
    return ([], []) if side is None else (masks_of(side), side.classes.tolist())


def _encoded(mask: Mask) -> Any:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def _box(code: Any) -> list[float]:
    with warnings.catch_warnings():
        # pycocotools 2.0.11 hands out an array type that numpy 2 finds outdated.
        warnings.simplefilter("ignore", DeprecationWarning)
        left, top, width, height = np.asarray(coco_mask.toBbox(code)).tolist()
    return [left, top, width, height]


def twelve(evaluation: Any, *, column: int | None = None, cap: int = 2) -> list[float]:
    """Return the twelve numbers of all classes, or of one, from the accumulated curves.

    ``cap`` is the place of what is looked at among the caps.
    """
    chosen = slice(None) if column is None else slice(column, column + 1)
    precision = evaluation.eval["precision"][:, :, chosen]
    recall = evaluation.eval["recall"][:, chosen]

    def mean(values: Any) -> float:
        there = values[values > -1]
        return float(there.mean()) if there.size else -1.0

    return [
        mean(precision[:, :, :, 0, cap]),
        mean(precision[0, :, :, 0, cap]),
        mean(precision[5, :, :, 0, cap]),
        *(mean(precision[:, :, :, area, cap]) for area in (1, 2, 3)),
        *(mean(recall[:, :, 0, few]) for few in (0, 1, cap)),
        *(mean(recall[:, :, area, cap]) for area in (1, 2, 3)),
    ]


def numbers(ap: CocoAp) -> list[float]:
    """Return our twelve numbers in COCO's order, -1 where COCO says so."""
    ours = [
        *(ap.ap, ap.ap50, ap.ap75, ap.ap_small, ap.ap_medium, ap.ap_large),
        *(ap.ar_1, ap.ar_10, ap.ar, ap.ar_small, ap.ar_medium, ap.ar_large),
    ]
    return [-1.0 if np.isnan(one) else one for one in ours]


# Made up ------------------------------------------------------------------------------------


def blob(rng: np.random.Generator, shape: tuple[int, int], size: int) -> Mask:
    """Return a rectangle or an ellipse about ``size`` px across, inside the image."""
    height, width = np.clip(rng.integers(size // 2 + 1, 2 * size, 2), 1, shape).tolist()
    y = int(rng.integers(0, shape[0] - height + 1))
    x = int(rng.integers(0, shape[1] - width + 1))
    mask = box(y, x, height, width, shape=shape)
    if rng.random() < 0.5:
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        away = ((rows - y - (height - 1) / 2) / height) ** 2
        away = away + ((columns - x - (width - 1) / 2) / width) ** 2
        mask = mask & (away <= 0.25)
    return mask


def moved(mask: Mask, rng: np.random.Generator, *, by: int) -> Mask:
    """Return a mask moved by up to ``by`` px, or as it was where that leaves the image."""
    dy, dx = rng.integers(-by, by + 1, 2)
    out = np.zeros_like(mask)
    height, width = mask.shape
    out[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = mask[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return out if out.any() else mask


def random_case(
    id_: str, rng: np.random.Generator, *, truths: int, calls: int, crowds: int = 0
) -> Case:
    """Return an image of three classes; its predictions are near truth or anywhere.

    Class 3 is predicted alone, class 4 has crowds alone. Scores have one digit, so many
    are equal; half of the boxes are those of masks, half were moved.
    """
    shape = (150, 180)
    sizes = (6, 6, 30, 33, 90)
    masks = [blob(rng, shape, int(rng.choice(sizes))) for _ in range(truths)]
    masks[: truths // 10] = [box(3, 5, 32, 32, shape=shape)] * (truths // 10)
    classes = rng.integers(0, 3, truths).tolist()
    found, named = [], []
    for _ in range(calls):
        if masks and rng.random() < 0.7:
            row = int(rng.integers(len(masks)))
            found.append(moved(masks[row], rng, by=3))
            named.append(classes[row] if rng.random() < 0.9 else 3)
        else:
            found.append(blob(rng, shape, int(rng.choice(sizes))))
            named.append(int(rng.integers(0, 4)))
    predicted = objects(
        found, shape=shape, classes=named, scores=np.round(rng.random(calls), 1).tolist()
    )
    regions = [blob(rng, shape, 70) for _ in range(crowds)]
    corners = predicted.boxes[:, :, ::-1].reshape(-1, 4).astype(float)
    corners += rng.uniform(-2, 2, corners.shape) * (rng.random((calls, 1)) < 0.5)
    return Case(
        id_,
        objects(masks, shape=shape, classes=classes),
        predicted,
        objects(regions, shape=shape, classes=rng.choice([0, 1, 4], crowds).tolist())
        if crowds
        else None,
        corners,
    )


def random_cases(seed: int) -> list[Case]:
    """Return images with much, with little, with nothing of each side, and one very full."""
    rng = np.random.default_rng(seed)
    sizes = [(12, 20, 2), (5, 9, 0), (0, 6, 0), (7, 0, 1), (0, 0, 0), (0, 4, 3), (60, 420, 1)]
    return [
        random_case(f"{number:02d}", rng, truths=truths, calls=calls, crowds=crowds)
        for number, (truths, calls, crowds) in enumerate(sizes)
    ]
