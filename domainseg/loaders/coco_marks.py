"""The annotations of a COCO file of instances: where each stands, checked, and its pixels.

What is kept of an annotation is its numbers and the place of its bytes in the file, some 40
bytes; its outline is read again when its image is. So a file of half a gigabyte takes tens
of megabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError
from domainseg.instances.encode import Rle, decode_rle, read_segmentation
from domainseg.loaders import coco_faults as faults
from domainseg.loaders.coco_faults import Fault, Tally
from domainseg.loaders.coco_images import Category, Images, at_byte, class_indices, whole
from domainseg.loaders.coco_json import read_again
from domainseg.loaders.coco_scan import scan
from domainseg.loaders.masks import GOOD
from domainseg.records import Array, Instances

CORNERS = 1 << 20
"""Coordinates that are held before their bounds are taken."""
RUN = 4096
"""Annotations that are taken from their bytes at a time."""
SMALL_BYTES = 1 << 25
"""Below this a file is decoded without a kernel."""
_INSIDE = (0.0, 0.0, 1.0, 1.0)
"""Bounds that every image has room for, of annotations without corners."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """What is annotated in an image.

    Attributes:
        truth: the objects.
        crowds: regions in which nobody told the objects apart, None without any.
        ignore: bool ``(H, W)`` of what is left out, or None.
        semantic: int16 ``(H, W)``, class index + 1 of stuff, 0 elsewhere; None without stuff.
    """

    truth: Instances
    crowds: Instances | None = None
    ignore: NDArray[np.bool_] | None = None
    semantic: Array | None = None

    def tags(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return the sorted names of the classes in it, crowds aside; ``good`` for none.

        An image that is left out whole may show anything: it has no tag.
        """
        if self.ignore is not None and self.ignore.all():
            return ()
        present = set(self.truth.classes.tolist())
        if self.semantic is not None:
            present |= {int(value) - 1 for value in np.unique(self.semantic) if value > 0}
        return tuple(sorted(classes[index] for index in present)) or (GOOD,)


def left_out(size: tuple[int, int]) -> Annotated:
    """Return what stands for an image of ``(H, W)`` whose annotations cannot be used."""
    nothing = Instances.from_label_map(np.zeros(size, np.uint8))
    return Annotated(nothing, ignore=np.ones(size, bool))


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """The annotations of a file that can be used, those of an image side by side.

    Attributes:
        path: of the file.
        state: of the file when it was opened, as `state_of`.
        ids: int64 ``(N,)``, unique, as in the file.
        lift: what makes the smallest id at least 1, added to all.
        classes: int16 ``(N,)``.
        crowds: bool ``(N,)``.
        spans: int64 ``(N, 2)``, first byte and number of bytes.
        offsets: int64 ``(M + 1,)``; image i has rows ``offsets[i]`` to before ``offsets[i + 1]``.
    """

    path: Path
    state: tuple[int, int]
    ids: NDArray[np.int64]
    lift: int
    classes: NDArray[np.int16]
    crowds: NDArray[np.bool_]
    spans: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def lost(self) -> frozenset[int]:
        """Rows of images that cannot be used: none."""
        return frozenset()

    def present(self, count: int) -> NDArray[np.int64]:
        """Return the pairs of image row and class index of its objects, sorted, ``(P, 2)``."""
        rows = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        keys = np.unique((rows * count + self.classes)[~self.crowds])
        return np.stack(np.divmod(keys, max(count, 1)), 1).astype(np.int64)

    def of_image(self, row: int, size: tuple[int, int], *, tally: Tally, strict: bool) -> Annotated:
        """Return what is annotated in the image of a row, whose size is ``(H, W)``.

        An annotation that turns out to have no pixels, or run lengths that do not fit, goes
        to ``tally``.

        Raises:
            InputError: with ``strict`` for such an annotation; when the file has changed.
        """
        drawn = self._drawn(row, size, tally=tally, strict=strict)
        truth = self._instances([one for one in drawn if not self.crowds[one[0]]], size)
        crowds = [one for one in drawn if self.crowds[one[0]]]
        if not crowds:
            return Annotated(truth)
        ignore = np.logical_or.reduce([rle.to_mask() for _, rle in crowds])
        return Annotated(truth, self._instances(crowds, size), np.asarray(ignore, bool))

    def _drawn(
        self, row: int, size: tuple[int, int], *, tally: Tally, strict: bool
    ) -> list[tuple[int, Rle]]:
        """Return the place and the pixels of each annotation of an image that has some."""
        low, high = int(self.offsets[row]), int(self.offsets[row + 1])
        spans = [(int(start), int(length)) for start, length in self.spans[low:high]]
        drawn = []
        for at, entry in enumerate(read_again(self.path, spans, state=self.state), low):
            found = _pixels(entry, size)
            if isinstance(found, Rle):
                drawn.append((at, found))
                continue
            tally.add_once(found, int(self.ids[at]))
            if strict:
                raise tally.refusal(found)
        return drawn

    def _instances(self, drawn: Sequence[tuple[int, Rle]], size: tuple[int, int]) -> Instances:
        return decode_rle(
            [rle for _, rle in drawn],
            shape=size,
            ids=[int(self.ids[at]) + self.lift for at, _ in drawn],
            classes=[int(self.classes[at]) for at, _ in drawn],
        )


def _pixels(entry: Mapping[str, Any], size: tuple[int, int]) -> Rle | Fault:
    """Return the pixels of an annotation, or why it has none."""
    try:
        rle = read_segmentation(entry["segmentation"], shape=size, where="annotation")
    except InputError:
        return faults.RUNS
    return rle if rle.area_px() else faults.NO_PIXEL


@dataclass(slots=True)
class MarkRows:
    """Takes the list of annotations of a file of instances."""

    tally: Tally
    state: tuple[int, int]
    _numbers: array[int] = field(default_factory=lambda: array("q"))  # id, image_id, category_id
    _crowds: bytearray = field(default_factory=bytearray)
    _spans: array[int] = field(default_factory=lambda: array("q"))
    _sizes: array[int] = field(default_factory=lambda: array("q"))  # of run lengths, else -1
    _bounds: list[NDArray[np.float64]] = field(default_factory=list)
    _corners: array[float] = field(default_factory=lambda: array("d"))
    _lengths: array[int] = field(default_factory=lambda: array("q"))  # in _corners

    def take(self, value: Any, start: int, stop: int) -> None:
        """Take an annotation; one that cannot be used is counted instead."""
        entry = value if type(value) is dict else {}
        numbers = (
            whole(entry.get("id")),
            whole(entry.get("image_id")),
            whole(entry.get("category_id")),
        )
        if None in numbers:
            fault = faults.PANOPTIC if "segments_info" in entry else faults.FIELDS
            self.tally.add(fault, at_byte(start) if numbers[0] is None else numbers[0])
            return
        box = entry.get("bbox")
        wrong = None if box is None or _has_area(box) else faults.BOX
        wrong = wrong or self._take_outline(entry.get("segmentation"))
        if wrong is not None:
            self.tally.add(wrong, numbers[0])
            return
        self._numbers.extend(numbers)  # type: ignore[arg-type] # None was refused
        self._crowds.append(bool(entry.get("iscrowd")))
        self._spans.extend((start, stop - start))
        if len(self._corners) >= CORNERS:
            self._take_bounds()

    def take_bytes(self, raw: NDArray[np.uint8], at: int, before: int) -> int:
        """Take annotations of the usual form from their bytes, as `TakesBytes`.

        Of a small file none, which is decoded sooner than the kernel is loaded.
        """
        if self.state[0] < SMALL_BYTES:
            return at
        while True:
            numbers, spans = np.empty((RUN, 3), np.int64), np.empty((RUN, 2), np.int64)
            bounds, crowds = np.empty((RUN, 4)), np.empty(RUN, np.uint8)
            count, at = scan(raw, at, numbers, crowds, spans, bounds)
            if count:
                self._take_bounds()
                spans[:count, 0] += before
                self._numbers.frombytes(numbers[:count].tobytes())
                self._spans.frombytes(spans[:count].tobytes())
                self._sizes.frombytes(np.full((count, 2), -1, np.int64).tobytes())
                self._crowds += crowds[:count].tobytes()
                self._bounds.append(bounds[:count].copy())
            if count < RUN:
                return int(at)

    def _take_outline(self, segmentation: Any) -> Fault | None:
        """Take the corners of polygons or the size of run lengths, or return what is wrong."""
        if type(segmentation) is list:
            before = len(self._corners)
            fault = _add_corners(self._corners, segmentation)
            if fault is not None:
                del self._corners[before:]
                return fault
            self._lengths.append(len(self._corners) - before)
            self._sizes.extend((-1, -1))
            return None
        if type(segmentation) is not dict:
            return faults.NO_OUTLINE
        size = _runs_size(segmentation)
        if isinstance(size, Fault):
            return size
        self._lengths.append(0)
        self._sizes.extend(size)
        return None

    def _take_bounds(self) -> None:
        """Keep of the corners that are held what each annotation spans."""
        if not len(self._lengths) and self._bounds:
            return
        lengths = np.array(self._lengths, np.int64)
        xy = np.array(self._corners, np.float64).reshape(-1, 2)
        bounds = np.tile(np.array(_INSIDE), (len(lengths), 1))
        drawn = lengths > 0
        if drawn.any():
            first = (np.cumsum(lengths) - lengths)[drawn] // 2
            # A coordinate that is not a number makes a bound that is none.
            bounds[drawn, :2] = np.minimum.reduceat(xy, first, axis=0)
            bounds[drawn, 2:] = np.maximum.reduceat(xy, first, axis=0)
        self._bounds.append(bounds)
        self._corners, self._lengths = array("d"), array("q")

    def marks(self, images: Images, categories: Sequence[Category]) -> Marks:
        """Return the annotations that fit the images and categories; others are counted."""
        self._take_bounds()
        ids, image_ids, category_ids = np.array(self._numbers, np.int64).reshape(-1, 3).T
        bounds = np.concatenate(self._bounds)
        sizes = np.array(self._sizes, np.int64).reshape(-1, 2)
        rows, classes = images.rows_of(image_ids), class_indices(categories, category_ids)
        repeated = np.ones(len(ids), bool)
        repeated[np.unique(ids, return_index=True)[1]] = False
        size = images.sizes[rows] if len(images) else np.zeros((len(ids), 2), np.int64)
        checks = (
            (faults.ID_TWICE, repeated),
            (faults.NO_IMAGE, rows < 0),
            (faults.NO_CATEGORY, classes < 0),
            (faults.RUNS_SIZE, (sizes[:, 0] >= 0) & (sizes != size).any(axis=1)),
            *_outside(bounds, size),
        )
        usable = np.ones(len(ids), bool)
        for fault, wrong in checks:
            new = usable & wrong
            if count := int(np.count_nonzero(new)):
                self.tally.add_all(fault, ids[new][: faults.NAMED].tolist(), count)
                usable &= ~wrong
        kept = np.flatnonzero(usable)
        kept = kept[np.argsort(rows[kept], kind="stable")]
        return Marks(
            path=self.tally.path,
            state=self.state,
            ids=ids[kept],
            lift=max(0, 1 - int(ids.min(initial=1))),
            classes=classes[kept],
            crowds=np.frombuffer(self._crowds, np.uint8).astype(bool)[kept],
            spans=np.array(self._spans, np.int64).reshape(-1, 2)[kept],
            offsets=np.searchsorted(rows[kept], np.arange(len(images) + 1)).astype(np.int64),
        )


def _outside(
    bounds: NDArray[np.float64], size: NDArray[np.int64]
) -> tuple[tuple[Fault, NDArray[np.bool_]], ...]:
    """Return which annotations have bounds ``(x0, y0, x1, y1)`` that their image has not.

    What reaches out a little is clipped when it is drawn. Far beyond, the outline would be
    traced step by step through nothing, in memory of its length.
    """
    low, high, sides = bounds[:, :2], bounds[:, 2:], size[:, ::-1]
    longer = size.max(axis=1, keepdims=True)
    beyond = (high <= 0) | (low >= sides)
    far = (low < -longer) | (high > sides + longer)
    return (
        (faults.NO_NUMBERS, np.asarray(~np.isfinite(bounds).all(axis=1))),
        (faults.OUTSIDE, np.asarray(beyond.any(axis=1))),
        (faults.FAR, np.asarray(far.any(axis=1))),
    )


def _has_area(box: Any) -> bool:
    """Return whether a bbox is four numbers with a width and a height above 0."""
    try:
        _, _, width, height = box
        return bool(width > 0 and height > 0)
    except (TypeError, ValueError):
        return False


def _add_corners(corners: array[float], polygons: list[Any]) -> Fault | None:
    """Append the coordinates of all polygons, or return what is wrong with one of them."""
    if not polygons:
        return faults.NO_OUTLINE
    try:
        for polygon in polygons:
            if len(polygon) < 6 or len(polygon) % 2:
                return faults.SHORT
            corners.fromlist(polygon)
    except (TypeError, OverflowError):
        return faults.NO_NUMBERS
    return None


def _runs_size(segmentation: Mapping[str, Any]) -> tuple[int, int] | Fault:
    """Return height and width of run lengths, or what can be seen to be wrong with them."""
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(size, list) or len(size) != 2:
        return faults.RUNS
    height, width = whole(size[0]), whole(size[1])
    if height is None or width is None or min(height, width) < 0:
        return faults.RUNS
    if isinstance(counts, str):
        # Whether they add up is seen when they are read for their image.
        return (height, width) if counts else faults.RUNS
    fault = _counts_fault(counts, height * width)
    return (height, width) if fault is None else fault


def _counts_fault(counts: Any, pixels: int) -> Fault | None:
    """Return what is wrong with uncompressed run lengths, or None."""
    try:
        numbers = np.array(array("q", counts), np.int64)
    except (TypeError, OverflowError, ValueError):
        return faults.RUNS
    if numbers.min(initial=0) < 0 or int(numbers.sum()) != pixels:
        return faults.RUNS
    return None if numbers[1::2].any() else faults.NO_PIXEL
