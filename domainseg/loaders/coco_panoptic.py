"""Panoptic annotations of COCO: a PNG of segment ids for each image, and what each is.

The id of a pixel is R + 256 G + 65536 B; 0 is void, where nobody said what it is.
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
from domainseg.images import open_image
from domainseg.loaders import coco_faults as faults
from domainseg.loaders.coco_faults import Fault, Tally
from domainseg.loaders.coco_images import Category, Files, Images, at_byte, class_indices, whole
from domainseg.loaders.coco_marks import Annotated, left_out
from domainseg.records import Array, Instances

MAX_ID = (1 << 24) - 1
"""The largest id that three channels of 8 bits hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """The segments of a file, those of an image side by side, ascending by id.

    Attributes:
        folder: of the PNGs.
        files: path below the folder of each image's PNG, None where it has none, ``(M,)``.
        ids: int64 ``(N,)``, unique in an image.
        classes: int16 ``(N,)``, -1 where the category is none: such pixels are left out.
        crowds: bool ``(N,)``.
        things: bool ``(K,)``, which classes are objects.
        offsets: int64 ``(M + 1,)``; image i has rows ``offsets[i]`` to before ``offsets[i + 1]``.
        lost: rows of images whose PNG is missing.
    """

    folder: Path
    files: Sequence[str | None]
    ids: NDArray[np.int64]
    classes: NDArray[np.int16]
    crowds: NDArray[np.bool_]
    things: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    lost: frozenset[int]

    def present(self, count: int) -> NDArray[np.int64]:
        """Return the pairs of image row and class index of its segments, sorted, ``(P, 2)``."""
        rows = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        keys = np.unique((rows * count + self.classes)[~self.crowds & (self.classes >= 0)])
        return np.stack(np.divmod(keys, max(count, 1)), 1).astype(np.int64)

    def of_image(self, row: int, size: tuple[int, int], *, tally: Tally, strict: bool) -> Annotated:
        """Return what is annotated in the image of a row, whose size is ``(H, W)``.

        An image without a PNG is left out whole; so is, with the fault in ``tally``, one
        whose PNG cannot be used. So are the pixels of segments that are not listed.

        Raises:
            InputError: with ``strict``, for any such fault.
        """
        name = self.files[row]
        if name is None:
            return left_out(size)
        plane = _plane(self.folder / name, size)
        if isinstance(plane, Fault):
            tally.add_once(plane, name)
            if strict:
                raise tally.refusal(plane)
            return left_out(size)
        low, high = int(self.offsets[row]), int(self.offsets[row + 1])
        ids = self.ids[low:high]
        places, known = _places(plane, ids)
        self._count(plane, places, known, ids, name, tally=tally, strict=strict)
        return self._annotated(plane, places, known, slice(low, high))

    def _count(
        self,
        plane: NDArray[np.int64],
        places: NDArray[np.int64],
        known: NDArray[np.bool_],
        ids: NDArray[np.int64],
        name: str,
        *,
        tally: Tally,
        strict: bool,
    ) -> None:
        """Count segments that are in the list alone, or in the PNG alone."""
        empty = ids[np.bincount(places[known], minlength=len(ids)) == 0]
        unlisted = np.unique(plane[~known & (plane > 0)])
        found = ((faults.SEGMENT_NO_PIXEL, empty), (faults.SEGMENT_UNLISTED, unlisted))
        for fault, which in found:
            for one in which.tolist():
                tally.add_once(fault, f"{one} of {name}")
            if strict and len(which):
                raise tally.refusal(fault)

    def _annotated(
        self,
        plane: NDArray[np.int64],
        places: NDArray[np.int64],
        known: NDArray[np.bool_],
        rows: slice,
    ) -> Annotated:
        # One more at the end stands for void and what is not listed.
        classes = np.append(self.classes[rows], -1)
        crowd = np.append(self.crowds[rows], False) & (classes >= 0)
        thing = (classes >= 0) & ~crowd & np.append(self.things, False)[classes]
        stuff = (classes >= 0) & ~crowd & ~thing
        at = np.where(known, places, len(classes) - 1)
        class_of = dict(zip(self.ids[rows].tolist(), self.classes[rows].tolist(), strict=True))

        def objects(chosen: NDArray[np.bool_]) -> Instances:
            return Instances.from_label_map(np.where(chosen[at], plane, 0), classes=class_of)

        return Annotated(
            truth=objects(thing),
            crowds=objects(crowd) if crowd.any() else None,
            ignore=(crowd | (classes < 0))[at],
            semantic=np.where(stuff, classes + 1, 0).astype(np.int16)[at],
        )


def ids_of(colours: Array) -> NDArray[np.int64]:
    """Return the segment ids ``(H, W)`` of a PNG's uint8 ``(3, H, W)``."""
    red, green, blue = colours.astype(np.int64)
    return np.asarray(red + 256 * green + 65536 * blue, np.int64)


def _plane(path: Path, size: tuple[int, int]) -> NDArray[np.int64] | Fault:
    try:
        colours = open_image(path).read()
    except InputError:
        return faults.PNG_UNREADABLE
    if colours.dtype != np.uint8 or len(colours) != 3:
        return faults.PNG_UNREADABLE
    return ids_of(colours) if colours.shape[1:] == size else faults.PNG_SIZE


def _places(
    plane: NDArray[np.int64], ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the place among ascending ids of each pixel's, and whether it is among them."""
    if not len(ids):
        return np.zeros(plane.shape, np.int64), np.zeros(plane.shape, bool)
    places = np.minimum(np.searchsorted(ids, plane), len(ids) - 1)
    return places, ids[places] == plane


@dataclass(slots=True)
class SegmentRows:
    """Takes the list of annotations of a panoptic file."""

    tally: Tally
    _images: dict[int, str] = field(default_factory=dict)
    _counts: array[int] = field(default_factory=lambda: array("q"))
    _numbers: array[int] = field(default_factory=lambda: array("q"))  # id, category_id
    _crowds: bytearray = field(default_factory=bytearray)

    def take(self, value: Any, start: int, stop: int) -> None:
        """Take the segments of an image; what cannot be used is counted instead."""
        entry = value if isinstance(value, dict) else {}
        image, name, listed = (
            whole(entry.get("image_id")),
            entry.get("file_name"),
            entry.get("segments_info"),
        )
        if image is None or not isinstance(name, str) or not isinstance(listed, list):
            self.tally.add(faults.PANOPTIC_FIELDS, at_byte(start) if image is None else image)
            return
        if image in self._images:
            self.tally.add(faults.PANOPTIC_TWICE, image)
            return
        self._images[image] = name
        before: set[int] = set()
        for segment in listed:
            self._take_segment(segment, name, before)
        self._counts.append(len(before))

    def _take_segment(self, value: Any, name: str, before: set[int]) -> None:
        entry: Mapping[str, Any] = value if isinstance(value, dict) else {}
        number, category = whole(entry.get("id")), whole(entry.get("category_id"))
        if number is None or category is None or not 0 < number <= MAX_ID:
            self.tally.add(faults.SEGMENT_FIELDS, f"{entry.get('id')} of {name}")
        elif number in before:
            self.tally.add(faults.SEGMENT_TWICE, f"{number} of {name}")
        else:
            before.add(number)
            self._numbers.extend((number, category))
            self._crowds.append(bool(entry.get("iscrowd")))

    def segments(self, images: Images, categories: Sequence[Category], pngs: Files) -> Segments:
        """Return the segments that fit the images and categories; others are counted."""
        named = np.fromiter(self._images, np.int64, len(self._images))
        rows = images.rows_of(named)
        for image in named[rows < 0].tolist():
            self.tally.add(faults.NO_IMAGE, image)
        names = list(self._images.values())
        ids, category_ids = np.array(self._numbers, np.int64).reshape(-1, 2).T
        owners = np.repeat(np.arange(len(named)), np.array(self._counts, np.int64))
        classes = class_indices(categories, category_ids)
        kept = rows[owners] >= 0
        for at in np.flatnonzero(kept & (classes < 0)).tolist():
            self.tally.add(faults.SEGMENT_CATEGORY, f"{ids[at]} of {names[owners[at]]}")
        # Sorted by image, and in an image by id.
        order = np.lexsort((ids, rows[owners]))
        order = order[kept[order]]
        files: list[str | None] = [None] * len(images)
        lost = set()
        for row, name in zip(rows.tolist(), names, strict=True):
            if row < 0:
                continue
            found = pngs.find(name)
            if isinstance(found, Fault):
                self.tally.add(faults.PNG_MISSING, name)
                lost.add(row)
            else:
                files[row] = found
        return Segments(
            folder=pngs.folder,
            files=files,
            ids=ids[order],
            classes=classes[order],
            crowds=np.frombuffer(self._crowds, np.uint8).astype(bool)[order],
            things=np.array([one.isthing for one in categories], bool),
            offsets=np.searchsorted(rows[owners][order], np.arange(len(images) + 1)).astype(
                np.int64
            ),
            lost=frozenset(lost),
        )
