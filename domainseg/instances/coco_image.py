"""An image as COCO's evaluation takes it: run lengths as text, boxes and numbers, no pixels.

**Ignored pixels** that belong to no crowd (a data bar, what nobody labelled) are unknown to
COCO. A prediction with more than half of its pixels there is left out; a truth object with
more than half of its pixels there becomes a crowd. Without such pixels all is as in COCO.

**Parts.** Predictions are matched with truth within their image and class, and only where the
two overlap by half or more. So a dense image falls into groups that know nothing of each
other, and groups, packed into parts of bounded size, give the matching of the whole image
without a table of all its predictions against all its truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from domainseg.errors import InputError, sentence
from domainseg.instances.encode import encode_runs
from domainseg.instances.overlaps import overlap_instances
from domainseg.instances.planes import union
from domainseg.instances.runs import runs_of_instances
from domainseg.records import Instances

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST = 100
"""Predictions of a class that COCO looks at in an image, best scores first."""
_PART = 256
"""Objects, about, that a part holds where groups are small: a table of some 16,000 pairs."""
_NEAR = 0.49
"""Overlap below which a pair may be parted: a little under COCO's lowest threshold, .5, so
that rounding parts no pair that could match."""


@dataclass(frozen=True, slots=True)
class CocoObjects:
    """Truth with crowds, or predictions, of one image.

    Attributes:
        classes: int16 ``(N,)``.
        scores: float32 ``(N,)``; of truth nobody reads them.
        crowd: bool ``(N,)``, none of predictions.
        areas_px: int64 ``(N,)``, number of pixels.
        boxes_xywh: float64 ``(N, 4)``, left, top, width, height, px.
        counts: of each object its compressed RLE, ASCII.
        mask_parts: int64 ``(N,)``, the part an object is in where masks are compared.
        box_parts: int64 ``(N,)``, likewise where boxes are.
    """

    classes: NDArray[np.int16]
    scores: NDArray[np.float32]
    crowd: Mask
    areas_px: Ints
    boxes_xywh: Floats
    counts: tuple[bytes, ...]
    mask_parts: Ints
    box_parts: Ints

    def __len__(self) -> int:
        return len(self.classes)

    def chosen(self, keep: Mask) -> CocoObjects:
        """Return the objects for which ``keep (N,)`` is true."""
        return CocoObjects(
            classes=self.classes[keep],
            scores=self.scores[keep],
            crowd=self.crowd[keep],
            areas_px=self.areas_px[keep],
            boxes_xywh=self.boxes_xywh[keep],
            counts=tuple(self.counts[row] for row in np.flatnonzero(keep)),
            mask_parts=self.mask_parts[keep],
            box_parts=self.box_parts[keep],
        )


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image: its id, its ``(H, W)``, its truth with crowds after it, its predictions."""

    id: str
    shape: tuple[int, int]
    truth: CocoObjects
    predicted: CocoObjects


def coco_image(
    id_: str,
    truth: Instances,
    predicted: Instances,
    *,
    crowds: Instances | None = None,
    boxes_xyxy: Floats | None = None,
    ignore: Mask | None = None,
) -> CocoImage:
    """Return what COCO's evaluation needs of an image; its pixels are not kept.

    ``boxes_xyxy`` are the boxes that a detector gave with its masks, float ``(N, 4)``, left,
    top, right, bottom of each of ``predicted``, px; the box of the mask's pixels where there
    are none. ``ignore`` is bool ``(H, W)`` and may hold the pixels of ``crowds``.

    Raises:
        InputError: for different shapes, another number of boxes than of predictions, or an
            image of 2**32 pixels or more, which COCO's counts cannot hold.
    """
    _require_shapes(id_, truth, predicted, crowds, ignore)
    drawn = truth if crowds is None else _with_crowds(truth, crowds)
    crowd = np.arange(len(drawn)) >= len(truth)
    left_out = np.zeros(len(predicted), bool)
    if (unknown := _unknown(ignore, crowds)) is not None:
        crowd |= _mostly(drawn, unknown)
        left_out = _mostly(predicted, unknown)
    wanted = _objects(drawn, crowd, _boxes_xywh(drawn))
    boxes = _boxes_xywh(predicted) if boxes_xyxy is None else _given(id_, boxes_xyxy, predicted)
    found = _objects(predicted, np.zeros(len(predicted), bool), boxes)
    if np.bincount(predicted.classes, minlength=1).max() > MOST:
        wanted, found = _parted(drawn, predicted, wanted, found)
    return CocoImage(id_, truth.shape, wanted, found.chosen(~left_out))


def _require_shapes(
    id_: str,
    truth: Instances,
    predicted: Instances,
    crowds: Instances | None,
    ignore: Mask | None,
) -> None:
    shapes = {"a prediction": predicted.shape}
    if crowds is not None:
        shapes["crowds"] = crowds.shape
    if ignore is not None:
        shapes["an ignore mask"] = ignore.shape
    for found, shape in shapes.items():
        if shape != truth.shape:
            raise InputError(
                sentence(
                    id_,
                    found=f"{found} of shape {shape}",
                    wanted=f"the shape {truth.shape} of the truth",
                    fix="compare results in the pixels of the annotated image",
                )
            )


def _with_crowds(truth: Instances, crowds: Instances) -> Instances:
    """Return truth and then crowds; ids, which may be the same in both, count from 1."""
    both = Instances.joined([truth, crowds])
    return replace(both, ids=np.arange(1, len(both) + 1))


def _unknown(ignore: Mask | None, crowds: Instances | None) -> Mask | None:
    """Return the ignored pixels outside of crowds, bool ``(H, W)``; None for none."""
    if ignore is None:
        return None
    unknown = ignore if crowds is None else ignore & ~union(crowds)
    return unknown if unknown.any() else None


def _mostly(objects: Instances, unknown: Mask) -> Mask:
    """Return which objects have more than half of their pixels there, bool ``(N,)``."""
    before = np.concatenate([[0], np.cumsum(unknown, dtype=np.int64)])
    starts = objects.runs[:, 0] * objects.shape[1] + objects.runs[:, 1]
    inside = before[starts + objects.runs[:, 2]] - before[starts]
    total = np.concatenate([[0], np.cumsum(inside)])
    hidden = total[objects.offsets[1:]] - total[objects.offsets[:-1]]
    return np.asarray(2 * hidden > objects.areas_px())


def _boxes_xywh(objects: Instances) -> Floats:
    top_left, bottom_right = objects.boxes[:, 0], objects.boxes[:, 1]
    return np.concatenate([top_left, bottom_right - top_left], 1)[:, [1, 0, 3, 2]].astype(float)


def _given(id_: str, boxes_xyxy: Floats, predicted: Instances) -> Floats:
    """Return the detector's boxes as left, top, width, height."""
    if boxes_xyxy.shape != (len(predicted), 4):
        raise InputError(
            sentence(
                id_,
                found=f"boxes of shape {boxes_xyxy.shape}",
                wanted=f"{(len(predicted), 4)}, one of each prediction",
                fix="hand over the boxes of these predictions",
            )
        )
    boxes = np.asarray(boxes_xyxy, np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _objects(objects: Instances, crowd: Mask, boxes_xywh: Floats) -> CocoObjects:
    text, offsets = encode_runs(runs_of_instances(objects))
    whole = np.zeros(len(objects), np.int64)
    return CocoObjects(
        classes=objects.classes,
        scores=objects.scores,
        crowd=crowd,
        areas_px=objects.areas_px(),
        boxes_xywh=boxes_xywh,
        counts=tuple(text[a:b].tobytes() for a, b in pairwise(offsets.tolist())),
        mask_parts=whole,
        box_parts=whole,
    )


def _parted(
    drawn: Instances, predicted: Instances, wanted: CocoObjects, found: CocoObjects
) -> tuple[CocoObjects, CocoObjects]:
    """Return truth and predictions with their parts."""
    mask_pairs = _near(_by_mask(drawn, predicted, wanted.crowd), wanted, found)
    box_pairs = _near(_by_box(drawn.shape, wanted, found), wanted, found)
    sizes = (len(wanted), len(found))
    of_truth, of_predicted = _parts(mask_pairs, sizes)
    truth_boxes, predicted_boxes = _parts(box_pairs, sizes)
    return (
        replace(wanted, mask_parts=of_truth, box_parts=truth_boxes),
        replace(found, mask_parts=of_predicted, box_parts=predicted_boxes),
    )


def _near(overlapping: tuple[Ints, Floats], wanted: CocoObjects, found: CocoObjects) -> Ints:
    """Return the pairs ``(truth, predicted)`` of one class that may match."""
    pairs, overlap = overlapping
    same = wanted.classes[pairs[:, 0]] == found.classes[pairs[:, 1]]
    return np.asarray(pairs[same & (overlap >= _NEAR)])


def _by_mask(drawn: Instances, predicted: Instances, crowd: Mask) -> tuple[Ints, Floats]:
    """Return the pairs of objects that share pixels, and IoU, of crowds the share inside."""
    table = overlap_instances(_numbered(drawn), _numbered(predicted))
    truth, call = table.pairs.T
    united = table.truth_px[truth] + table.predicted_px[call] - table.shared_px
    rows = table.truth_ids[truth] - 1
    whole = np.where(crowd[rows], table.predicted_px[call], united)
    pairs = np.stack([rows, table.predicted_ids[call] - 1], 1)
    return pairs, np.asarray(table.shared_px / whole, np.float64)


def _by_box(shape: tuple[int, int], wanted: CocoObjects, found: CocoObjects) -> tuple[Ints, Floats]:
    """Return the pairs of boxes that meet, and IoU, of crowds the share inside."""
    # Truth lies inside the image, and so does what it shares with any box.
    table = overlap_instances(_filled(wanted, shape), _filled(found, shape))
    pairs = np.stack(
        [table.truth_ids[table.pairs[:, 0]] - 1, table.predicted_ids[table.pairs[:, 1]] - 1], 1
    )
    a, b = wanted.boxes_xywh[pairs[:, 0]], found.boxes_xywh[pairs[:, 1]]
    ends = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = np.prod(np.clip(ends - np.maximum(a[:, :2], b[:, :2]), 0, None), axis=1)
    own = np.prod(b[:, 2:], axis=1)
    whole = np.where(wanted.crowd[pairs[:, 0]], own, own + np.prod(a[:, 2:], axis=1) - shared)
    return pairs, shared / np.maximum(whole, np.finfo(float).tiny)


def _numbered(objects: Instances) -> Instances:
    """Return the objects with ids from 1 up in the order of the rows."""
    return replace(objects, ids=np.arange(1, len(objects) + 1))


def _filled(objects: CocoObjects, shape: tuple[int, int]) -> Instances:
    """Return the pixels that the boxes touch inside the image, as objects numbered from 1."""
    height, width = shape
    left, top = np.floor(objects.boxes_xywh[:, :2]).T
    right, bottom = np.ceil(objects.boxes_xywh[:, :2] + objects.boxes_xywh[:, 2:]).T
    x0, x1 = (np.clip(one, 0, width).astype(np.int64) for one in (left, right))
    y0, y1 = (np.clip(one, 0, height).astype(np.int64) for one in (top, bottom))
    rows = np.where(x1 > x0, np.maximum(y1 - y0, 0), 0)
    owners = np.repeat(np.arange(len(objects)), rows)
    offsets = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
    runs = np.stack(
        [np.arange(len(owners)) - offsets[owners] + y0[owners], x0[owners], (x1 - x0)[owners]], 1
    )
    return Instances(
        ids=np.arange(1, len(objects) + 1),
        boxes=np.stack([y0, x0, y1, x1], 1).reshape(-1, 2, 2),
        runs=runs,
        offsets=offsets,
        classes=objects.classes,
        scores=objects.scores,
        shape=shape,
    )


def _parts(pairs: Ints, sizes: tuple[int, int]) -> tuple[Ints, Ints]:
    """Return the part of each truth object and of each prediction, whole groups to a part."""
    truths, predictions = sizes
    count = truths + predictions
    edges = (np.ones(len(pairs), bool), (pairs[:, 0], truths + pairs[:, 1]))
    groups = connected_components(coo_array(edges, shape=(count, count)), directed=False)[1]
    held = np.bincount(groups)
    parts = ((np.cumsum(held) - held) // _PART)[groups].astype(np.int64)
    return parts[:truths], parts[truths:]
