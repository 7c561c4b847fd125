"""Data sets written in the format of COCO: instances as JSON, panoptic segments as PNG and JSON.

Both are written image by image, in the memory of one image and a line of text for each, and
appear whole or not at all.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TextIO, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from domainseg.atomic import atomic_path, make_folder
from domainseg.errors import InputError, sentence
from domainseg.instances.annotations import Annotation, annotations_of
from domainseg.loaders.coco_images import Category
from domainseg.loaders.coco_panoptic import MAX_ID
from domainseg.records import Array, Entry, Sample

Tell = Callable[[int, int, str], None]
"""Called with images done, images in all, and the name of the next."""


class Samples(Protocol):
    """What has samples with classes: a data set, or one whose classes were mapped."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the object classes."""
        ...

    def load(self, entry: Entry) -> Sample:
        """Return the sample of an entry."""
        ...


def write_instances(
    path: Path,
    samples: Samples,
    entries: Sequence[Entry],
    *,
    file_names: Mapping[str, str] | None = None,
    keep_ids: bool = False,
    tell: Tell = lambda _done, _total, _name: None,
) -> int:
    """Write the objects of ``entries`` as COCO instances, and return how many there are.

    Masks are compressed run lengths; ``bbox`` and ``area`` are those of the pixels. Crowds
    have ``iscrowd`` 1. Category ids count from 1 in the order of the classes, image ids from
    1. An annotation's id counts from 1, or with ``keep_ids`` is the object's own. ``file_names``
    are what images are called by their id; the id itself where it is not among them. Scores,
    parents, stuff, and what is ignored beside crowds have no place in the format.

    Raises:
        InputError: an image has no truth or is too large for COCO's run lengths; with
            ``keep_ids`` two objects have one id; and what loading raises.
        OutputError: the file cannot be written.
    """
    named = file_names or {}
    categories = [Category(number, name) for number, name in enumerate(samples.classes, 1)]
    ids: array[int] = array("q")
    with atomic_path(path) as partial, _coco_file(partial, categories) as file:
        for done, entry in enumerate(entries):
            tell(done, len(entries), entry.id)
            sample = samples.load(entry)
            first = None if keep_ids else len(ids) + 1
            annotations = _annotations(sample, done + 1, first, len(categories))
            ids.extend(one.id for one in annotations if one.id is not None)
            file.write(
                {"id": done + 1, "file_name": named.get(entry.id, entry.id)},
                sample.image.shape[1:],
                [one.to_dict() for one in annotations],
            )
        if keep_ids:
            _refuse_twice(path, np.array(ids, np.int64))
    tell(len(entries), len(entries), "")
    return len(ids)


@runtime_checkable
class _NamesFiles(Protocol):
    """A data set that knows the file of each image by id."""

    @property
    def images(self) -> Mapping[str, Path]: ...


def file_names(dataset: object, root: Path) -> dict[str, str]:
    """Return what `write_instances` calls the images of a data set: paths from ``root`` on.

    Empty where the data set has no files, as made-up data have none.
    """
    if not isinstance(dataset, _NamesFiles):
        return {}
    return {
        name: Path(os.path.relpath(path, root)).as_posix() for name, path in dataset.images.items()
    }


def _annotations(
    sample: Sample, image_id: int, first: int | None, classes: int
) -> list[Annotation]:
    """Return the objects of an image, then its crowds."""
    if sample.truth is None:
        raise InputError(
            sentence(
                sample.id,
                found="no annotation",
                wanted="objects to write",
                fix="leave the image out",
            )
        )
    category_ids = range(1, classes + 1)
    found = annotations_of(
        sample.truth, image_id=image_id, category_ids=category_ids, first_id=first
    )
    if sample.crowds is not None:
        crowds = annotations_of(
            sample.crowds,
            image_id=image_id,
            category_ids=category_ids,
            first_id=None if first is None else first + len(found),
        )
        found += [replace(one, iscrowd=True) for one in crowds]
    return found


def _refuse_twice(path: Path, ids: NDArray[np.int64]) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            sentence(
                path,
                found=f"{np.count_nonzero(counts > 1)} ids of several objects, "
                f"{values[counts > 1][0]} the first",
                wanted="ids that no two objects of the data set share",
                fix="write it without keep_ids",
            )
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a panoptic image.

    Attributes:
        id: its value in the id map, 1 to 2**24 - 1.
        category_id: of the category.
        iscrowd: whether nobody told the objects in it apart.
    """

    id: int
    category_id: int
    iscrowd: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PanopticImage:
    """An image whose every pixel belongs to a segment or is void.

    Attributes:
        id: in the file.
        file_name: of the image; the PNG has its last part, with the ending ``.png``.
        ids: integer ``(H, W)``, id of the segment of each pixel, 0 for void.
        segments: every segment of ``ids``, in any order.
    """

    id: int
    file_name: str
    ids: Array
    segments: Sequence[Segment]


def write_panoptic(
    path: Path, pngs: Path, images: Iterable[PanopticImage], *, categories: Sequence[Category]
) -> None:
    """Write panoptic annotations: a PNG for each image into ``pngs``, and the JSON last.

    ``images`` are gone through once; area and box of a segment are those of its pixels.

    Raises:
        ValueError: the segments of an image are not those of its id map, an id does not fit
            into three channels of 8 bits, a category is none of ``categories``, or two images
            have a PNG of one name.
        OutputError: a file cannot be written.
    """
    make_folder(pngs)
    known = {one.id for one in categories}
    written: set[str] = set()
    with atomic_path(path) as partial, _coco_file(partial, categories) as file:
        for image in images:
            listed = _segments_info(image, known)
            png = f"{PurePosixPath(image.file_name).stem}.png"
            if png in written:
                raise ValueError(f"{image.file_name}: {png} was written for another image")
            written.add(png)
            with atomic_path(pngs / png) as drawn:
                Picture.fromarray(_colours(image.ids)).save(drawn)
            described: dict[str, Any] = {"id": image.id, "file_name": image.file_name}
            entry = {"image_id": image.id, "file_name": png, "segments_info": listed}
            file.write(described, image.ids.shape, [entry])


def _segments_info(image: PanopticImage, known: set[int]) -> list[dict[str, Any]]:
    """Return the segments of an image with their areas and boxes, in the order given."""
    present, areas = np.unique(image.ids, return_counts=True)
    named = [one.id for one in image.segments]
    if len(set(named)) < len(named) or set(named) != set(present.tolist()) - {0}:
        raise ValueError(f"{image.file_name}: segments {named} are not those of its id map")
    if ids_beyond := [n for n in present.tolist() if not 0 <= n <= MAX_ID]:
        raise ValueError(f"{image.file_name}: id {ids_beyond[0]} is not from 1 to {MAX_ID}")
    if unknown := {one.category_id for one in image.segments} - known:
        raise ValueError(f"{image.file_name}: category {min(unknown)} is none of the file's")
    boxes = _boxes(image.ids, present)
    rows = {int(number): row for row, number in enumerate(present)}
    return [
        {
            "id": one.id,
            "category_id": one.category_id,
            "iscrowd": int(one.iscrowd),
            "bbox": boxes[rows[one.id]],
            "area": int(areas[rows[one.id]]),
        }
        for one in image.segments
    ]


def _boxes(ids: Array, present: Array) -> list[list[int]]:
    """Return ``[x, y, width, height]`` of the pixels of each id in ``present``, ascending."""
    ranks = np.searchsorted(present, ids).ravel()
    spans = []
    for places in np.unravel_index(np.arange(ids.size), ids.shape):
        low, high = np.full(len(present), ids.size), np.zeros(len(present), np.int64)
        np.minimum.at(low, ranks, places)
        np.maximum.at(high, ranks, places + 1)
        spans.append((low, high))
    (y0, y1), (x0, x1) = spans
    return [[int(n) for n in box] for box in np.stack([x0, y0, x1 - x0, y1 - y0], 1)]


def _colours(ids: Array) -> NDArray[np.uint8]:
    """Return ids as ``(H, W, 3)``: R + 256 G + 65536 B."""
    wide = np.asarray(ids, np.uint32)
    return np.stack([wide & 255, wide >> 8 & 255, wide >> 16], -1).astype(np.uint8)


class _CocoFile:
    """The images of a COCO file, each followed by its annotations, a line for each.

    The list of images ends the file, since the sizes are known then; it is kept as text.
    """

    def __init__(self, file: TextIO) -> None:
        self.images: list[str] = []
        self._file = file
        self._begun = False

    def write(
        self,
        image: Mapping[str, Any],
        shape: tuple[int, ...],
        annotations: Iterable[Mapping[str, Any]],
    ) -> None:
        """Append an image of ``shape`` ``(H, W)`` and its annotations."""
        sized = {**image, "height": int(shape[0]), "width": int(shape[1])}
        self.images.append(json.dumps(sized))
        for one in annotations:
            self._file.write(",\n" if self._begun else "\n")
            self._file.write(json.dumps(one))
            self._begun = True


@contextmanager
def _coco_file(path: Path, categories: Sequence[Category]) -> Iterator[_CocoFile]:
    """Yield what images are written to; the file is whole when the block is through."""
    kinds = [
        {"id": one.id, "name": one.name, "supercategory": "", "isthing": int(one.isthing)}
        for one in categories
    ]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"info": {"description": "domainseg"}, "licenses": [],\n"annotations": [')
        images = _CocoFile(file)
        yield images
        file.write(f'\n],\n"categories": {json.dumps(kinds)},\n"images": [\n')
        file.write(",\n".join(images.images))
        file.write("\n]}\n")
