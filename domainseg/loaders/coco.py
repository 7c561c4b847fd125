"""Data sets in the format of COCO: a JSON of images, categories and annotations.

    train2017/000000000009.jpg
    annotations/instances_train2017.json
    annotations/panoptic_train2017.json
    annotations/panoptic_train2017/000000000009.png

Outlines are polygons, which pycocotools rasterises as for every other user of COCO, or run
lengths, plain or compressed. The id of an image is its file's path below the image folder
without ending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np

from domainseg.errors import InputError, MissingInputError, RecipeError, sentence
from domainseg.images import open_image
from domainseg.loaders.coco_faults import (
    FILE_MISSING,
    FILE_TWICE,
    IMAGE_SIZE,
    PNG_MISSING,
    Fault,
    Tally,
)
from domainseg.loaders.coco_images import Category, CategoryRows, Files, ImageRows, Images
from domainseg.loaders.coco_json import Take, TakesBytes, read_lists, state_of
from domainseg.loaders.coco_marks import Annotated, MarkRows, Marks, left_out
from domainseg.loaders.coco_panoptic import SegmentRows, Segments
from domainseg.loaders.folder import bare, existing_folder, spacing_of
from domainseg.loaders.masks import GOOD
from domainseg.loaders.places import folder_columns
from domainseg.records import Entry, Sample

SPLIT = "split"
"""Column of the part that an image's annotation file stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coco:
    """Images in a folder and their annotations in one COCO file, or one for each part.

    An image that no annotation names is *good*: it has no objects. Regions that are marked
    ``iscrowd`` are no objects: they become the crowds of the sample, and what it ignores.
    Of a panoptic file things are objects, stuff is the semantic plane, and void is ignored.

    Attributes:
        name: of the layout.
        images: folder of the images, relative to the data's root. An image is the file
            that its ``file_name`` leads to from there; else the one with the last part of
            ``file_name``, which may be an address, anywhere below.
        annotations: the COCO file, relative to the root; or several by what they are for,
            as in ``{train: a.json, val: b.json}``, which becomes the column ``split``.
        panoptic: folder of the PNGs, where the annotations are panoptic; null where they
            are instances.
        on_error: ``skip`` leaves out what cannot be used and counts it (`CocoImages.skipped`,
            `domainseg check`); ``refuse`` ends with the first. To skip is the default
            because COCO's own files hold boxes without area and crowds without a pixel.
        labels_optional: let a file without a list of annotations pass, to predict only.
        spacing_um: pixel size of every image, overriding what the files say.
    """

    name: Literal["coco"] = "coco"
    images: str = "images"
    annotations: str | dict[str, str] = "annotations.json"
    panoptic: str | None = None
    on_error: Literal["skip", "refuse"] = "skip"
    labels_optional: bool = False
    spacing_um: float | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.annotations:
            raise RecipeError(
                sentence(
                    "annotations",
                    found="no file",
                    wanted="a COCO file, or one for each part",
                    fix="name it",
                )
            )

    def with_unlabelled(self) -> Self:
        """Return the loader that takes files without annotations too."""
        return replace(self, labels_optional=True)

    def open(self, root: Path, *, select: Mapping[str, object] | None = None) -> CocoImages:
        """Return the data set below ``root``; no pixel is read.

        The annotations are gone through once, in memory of some 40 bytes for each; their
        outlines stay in the file. What is wrong with one is found here, but for run
        lengths that do not fit and regions without a pixel, which `CocoImages.load` finds.

        Raises:
            MissingInputError: when a folder or file is missing, or every image.
            InputError: when a file is no JSON, no COCO file or has nothing that can be
                used, when files have different categories, or, with ``on_error: refuse``,
                when anything in them cannot be used.
        """
        existing_folder(root, "data")
        folder = existing_folder(root / self.images, "images")
        pngs = None
        if self.panoptic is not None:
            pngs = Files(existing_folder(root / self.panoptic, "PNGs"))
        inner = pngs is not None and folder in pngs.folder.parents
        files = Files(folder, skip=pngs.folder if pngs is not None and inner else None)
        named = self.annotations
        paths = [(None, named)] if isinstance(named, str) else [*named.items()]
        parts = tuple(
            _read_part(root / path, part, pngs, optional=self.labels_optional)
            for part, path in paths
        )
        _refuse_other_categories(parts)
        places = _places(parts, files)
        if self.on_error == "refuse":
            for part in parts:
                part.tally.refuse()
        return CocoImages(self, folder, parts, places, _entries(parts, places), dict(select or {}))


class Place(NamedTuple):
    """Where an image stands: path below the folder, its part, its row there."""

    path: str
    part: int
    row: int


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One annotation file.

    Attributes:
        name: what it is for, None where there is one file.
        images: of the file.
        categories: of the file, in the order of their ids.
        marks: its annotations, None where it has no list of them.
        tally: what could not be used.
    """

    name: str | None
    images: Images
    categories: tuple[Category, ...]
    marks: Marks | Segments | None
    tally: Tally

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return tuple(one.name for one in self.categories)


@dataclass(frozen=True, slots=True, eq=False)
class CocoImages:
    """The images of COCO files."""

    options: Coco
    folder: Path
    parts: tuple[Part, ...]
    places: Mapping[str, Place]
    listed: tuple[Entry, ...]
    select: Mapping[str, object]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the category ids."""
        return self.parts[0].classes

    @property
    def stuff(self) -> tuple[str, ...]:
        """Names of the classes that are regions, never objects; none without ``panoptic``."""
        if self.options.panoptic is None:
            return ()
        return tuple(one.name for one in self.parts[0].categories if not one.isthing)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The id in the file of each class."""
        return tuple(one.id for one in self.parts[0].categories)

    @property
    def images(self) -> dict[str, Path]:
        """The file of each image by id."""
        return {name: self.folder / place.path for name, place in self.places.items()}

    @property
    def skipped(self) -> tuple[str, ...]:
        """A sentence for each kind of thing that was skipped: how many, why, the first."""
        return tuple(said for part in self.parts for said in part.tally.sentences())

    def entries(self) -> tuple[Entry, ...]:
        """Return every image whose file is there, sorted by id, with the classes in it."""
        return self.listed

    def load(self, entry: Entry) -> Sample:
        """Return the image with its objects, in memory; lazy where it has no annotations.

        The ids of objects are those of the annotations, all raised by one number where the
        smallest of the file is below 1; of panoptic files those of the segments. With
        ``on_error: skip`` an image of another size than the annotations say is ignored
        whole.

        Raises:
            InputError: when the image is damaged, or the annotation file has changed; with
                ``on_error: refuse``, when an annotation has no pixel or does not fit.
        """
        place = self.places[entry.id]
        part = self.parts[place.part]
        image = open_image(self.folder / place.path, select=self.select)
        sample = Sample(
            id=entry.id,
            image=image,
            channels=image.channels,
            spacing_um=spacing_of(self.options.spacing_um, image.spacing_um),
            group=entry.group,
            kind=entry.kind,
        )
        if part.marks is None:
            return sample
        found = self._annotated(part, place, (image.shape[1], image.shape[2]))
        return replace(
            sample,
            image=image.read(),
            truth=found.truth,
            crowds=found.crowds,
            semantic=found.semantic,
            ignore=found.ignore,
            tags=found.tags(self.classes),
        )

    def _annotated(self, part: Part, place: Place, size: tuple[int, int]) -> Annotated:
        assert part.marks is not None
        strict = self.options.on_error == "refuse"
        if size != tuple(part.images.sizes[place.row].tolist()):
            part.tally.add_once(IMAGE_SIZE, place.path)
            if strict:
                raise part.tally.refusal(IMAGE_SIZE)
            return left_out(size)
        return part.marks.of_image(place.row, size, tally=part.tally, strict=strict)


def _read_part(path: Path, name: str | None, pngs: Files | None, *, optional: bool) -> Part:
    """Return what one file holds; with ``optional`` it may lack the list of annotations."""
    tally = Tally(path)
    images, categories = ImageRows(tally), CategoryRows(tally)
    rows = MarkRows(tally, state_of(path)) if pngs is None else SegmentRows(tally)
    takers: dict[str, Take | TakesBytes] = {
        "images": images.take,
        "categories": categories.take,
        "annotations": rows if isinstance(rows, MarkRows) else rows.take,
    }
    present = read_lists(path, takers)
    needed = {"images", "categories"} if optional else set(takers)
    if missing := [one for one in takers if one in needed - present]:
        raise InputError(
            sentence(
                path,
                found=f"no list of {' and none of '.join(missing)}",
                wanted="an object with the lists images, annotations and categories",
                fix="name a COCO file in annotations"
                + (
                    "" if missing != ["annotations"] else ", or set labels_optional to predict only"
                ),
            )
        )
    found, kinds = images.images(), categories.categories()
    for what, count in (("image", len(found)), ("category", len(kinds))):
        if not count:
            raise _nothing_left(tally, what)
    marks: Marks | Segments | None = None
    if "annotations" in present:
        if isinstance(rows, MarkRows):
            marks = rows.marks(found, kinds)
        elif pngs is not None:
            marks = rows.segments(found, kinds, pngs)
        wrong = [fault for fault in tally.counts if fault.what in ("annotation", "segment")]
        if marks is not None and not len(marks.ids) and wrong:
            raise tally.refusal(wrong[0], fix="correct them: there is no other")
    return Part(name, found, kinds, marks, tally)


def _nothing_left(tally: Tally, what: str) -> InputError:
    """Return the error for a file that has no image or no category that can be used."""
    if wrong := [fault for fault in tally.counts if fault.what == what]:
        return tally.refusal(wrong[0], fix="correct them: there is no other")
    return InputError(
        sentence(
            tally.path,
            found=f"no {what}",
            wanted="at least one",
            fix="name a COCO file in annotations",
        )
    )


def _refuse_other_categories(parts: Sequence[Part]) -> None:
    """Raise InputError when two files give the classes other names or ids."""
    first = parts[0]
    for part in parts[1:]:
        if part.categories != first.categories:
            differing = sorted({one.name for one in {*part.categories} ^ {*first.categories}})
            raise InputError(
                sentence(
                    part.tally.path,
                    found=f"other categories than in {first.tally.path.name} "
                    f"({', '.join(differing[:3])})",
                    wanted="the same ids and names in every file",
                    fix="export them together",
                )
            )


def _places(parts: Sequence[Part], files: Files) -> dict[str, Place]:
    """Return where each image stands by its id; images that cannot be used are counted."""
    places: dict[str, Place] = {}
    named = 0
    for number, part in enumerate(parts):
        lost = frozenset() if part.marks is None else part.marks.lost
        for row, name in enumerate(part.images.names):
            named += 1
            path = files.find(name)
            if isinstance(path, Fault):
                part.tally.add(path, name)
            elif (image_id := bare(path)) in places:
                part.tally.add(FILE_TWICE, name)
            elif row not in lost:
                places[image_id] = Place(path, number, row)
    if not places:
        for part in parts:
            if PNG_MISSING in part.tally.counts and FILE_MISSING not in part.tally.counts:
                raise part.tally.refusal(PNG_MISSING, fix="check panoptic")
        raise MissingInputError(
            sentence(
                files.folder,
                found=f"none of the {named} images of the annotations, such as "
                f"{parts[0].images.names[0]}",
                wanted="their files",
                fix="check images",
            )
        )
    return places


def _entries(parts: Sequence[Part], places: Mapping[str, Place]) -> tuple[Entry, ...]:
    """Return the entries of the images, sorted by id."""
    tags = [_tags(part) for part in parts]
    columns: dict[tuple[str, int], Mapping[str, str]] = {}
    entries = []
    for name in sorted(places):
        place = places[name]
        # Images of one folder share the mapping: there may be a hundred thousand.
        key = (name.rpartition("/")[0], place.part)
        if key not in columns:
            part = parts[place.part].name
            columns[key] = folder_columns(name) | ({} if part is None else {SPLIT: part})
        entries.append(
            Entry(name, group=name, tags=tags[place.part][place.row], columns=columns[key])
        )
    return tuple(entries)


def _tags(part: Part) -> list[tuple[str, ...]]:
    """Return the tags of each image of a file: the sorted names of its classes, or ``good``."""
    if part.marks is None:
        return [()] * len(part.images)
    tags: list[tuple[str, ...]] = [(GOOD,)] * len(part.images)
    if isinstance(part.marks, Segments):
        # Nobody said what such an image shows.
        tags = [() if name is None else (GOOD,) for name in part.marks.files]
    classes = part.classes
    rows, indices = part.marks.present(len(classes)).T
    names = [classes[index] for index in indices.tolist()]
    bounds = np.flatnonzero(np.diff(rows, prepend=-1, append=len(part.images)))
    alike: dict[tuple[str, ...], tuple[str, ...]] = {}
    for low, high in pairwise(bounds.tolist()):
        found = tuple(sorted(names[low:high]))
        tags[int(rows[low])] = alike.setdefault(found, found)
    return tags
