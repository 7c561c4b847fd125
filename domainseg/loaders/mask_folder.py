"""Images beside their masks: one image file, one mask file of the same name.

    images/plate1/a.tif   labels/plate1/a.png     id plate1/a
    a.jpg  a_mask.png                             id a, with label_suffix: _mask

The id of an image is its path below the image folder without ending and suffix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from domainseg.errors import InputError, MissingInputError, RecipeError, sentence
from domainseg.images import open_image, read_labels
from domainseg.loaders.folder import (
    ENDINGS,
    existing_folder,
    files_by_id,
    same_size,
    some,
    spacing_of,
)
from domainseg.loaders.index import indexed_entries, refuse_columns_without_index
from domainseg.records import Array, Entry, Instances, Sample

BACKGROUND, IGNORE = "background", "ignore"
"""Names in a class table that are no classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFolder:
    """Images and masks in folders, nested as deep as they like.

    Attributes:
        name: of the layout.
        images: folder of the images, relative to the data's root; ``.`` for the root.
        labels: folder of the masks; may be the images' own when ``label_suffix`` is set.
        image_suffix: what every image's name ends with, before its ending.
        label_suffix: what every mask's name ends with, before its ending.
        masks: ``labels``: every positive value is one object; ``binary``: every
            8-connected component is one; ``regions``: every 8-connected region of one
            value is one; ``semantic``: values are classes, components are objects.
        threshold: smallest value that is foreground, with ``binary``; 128 for masks
            with soft edges.
        label_channel: channel of a colour mask that holds the values, None for grey masks.
        classes: value to class name, with ``semantic``. The names ``background`` (0
            unless said) and ``ignore`` are no classes.
        class_name: of the one class of the other kinds.
        index: CSV with one row per image, relative to the root; its columns become
            the entries' columns.
        key: column of the index that holds the id, with or without an ending.
        kind: column of the index to report results by.
        group: column of the index that must not straddle a split (plate, patient).
        ignore: folder of masks whose pixels above 0 are left out, named as the
            images with ``ignore_suffix``; an image may have none.
        ignore_suffix: what every ignore mask's name ends with, before its ending.
        labels_optional: let images without a mask pass, to predict only.
        spacing_um: pixel size of every image, overriding what the files say.
    """

    name: Literal["mask_folder"] = "mask_folder"
    images: str = "images"
    labels: str = "labels"
    image_suffix: str = ""
    label_suffix: str = ""
    masks: Literal["labels", "binary", "regions", "semantic"] = "labels"
    threshold: int = 1
    label_channel: int | None = None
    classes: dict[int, str] | None = None
    class_name: str = "object"
    index: str | None = None
    key: str = "image"
    kind: str | None = None
    group: str | None = None
    ignore: str | None = None
    ignore_suffix: str = ""
    labels_optional: bool = False
    spacing_um: float | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.masks == "semantic") != bool(self.classes):
            raise RecipeError(
                sentence(
                    "classes",
                    found=f"{'a table' if self.classes else 'none'} with masks: {self.masks}",
                    wanted="a table of value to name with masks: semantic, and none otherwise",
                    fix="change one of them",
                )
            )
        refuse_columns_without_index(self.index, self.kind, self.group)
        if self.label_suffix == self.image_suffix and self.labels == self.images:
            raise RecipeError(
                sentence(
                    "labels",
                    found=f"images and labels both named *{self.image_suffix} in {self.images}",
                    wanted="names that tell them apart",
                    fix="set label_suffix or another folder",
                )
            )

    def open(self, root: Path, *, select: Mapping[str, object] | None = None) -> Folder:
        """Return the data set below ``root``: files are paired, no pixel is read.

        Raises:
            MissingInputError: when a folder or the index is missing, or no image is there.
            InputError: when an image has no mask or a mask no image, two files share
                an id, or the index does not name exactly the images.
        """
        existing_folder(root, "data")
        images = self._files(root, "images")
        if not images:
            raise MissingInputError(
                sentence(
                    root / self.images,
                    found="no image",
                    wanted=f"files named *{self.image_suffix} with {', '.join(ENDINGS[2:])}",
                    fix="check the folder and image_suffix",
                )
            )
        labels = self._files(root, "labels")
        ignored = self._files(root, "ignore")
        self._refuse_unpaired(images, labels, ignored)
        index = None if self.index is None else root / self.index
        entries = indexed_entries(
            images.keys(), index, key=self.key, kind=self.kind, group=self.group
        )
        return Folder(self, entries, images, labels, ignored, dict(select or {}))

    def _files(self, root: Path, role: Literal["images", "labels", "ignore"]) -> dict[str, Path]:
        """Return the files of one role by id; the other roles' files are told apart."""
        roles = {
            "images": (self.images, self.image_suffix),
            "labels": (self.labels, self.label_suffix),
        }
        if self.ignore is not None:
            roles["ignore"] = (self.ignore, self.ignore_suffix)
        if role not in roles or (
            role == "labels" and self.labels_optional and not (root / self.labels).is_dir()
        ):
            return {}
        name, suffix = roles.pop(role)
        folder = existing_folder(root / name, role)
        return files_by_id(
            folder,
            suffix,
            skip_folders=[root / other for other, _ in roles.values() if root / other != folder],
            # In a shared folder the longest suffix decides: a_mask is not an image named a_mask.
            skip_suffixes=[
                end
                for other, end in roles.values()
                if root / other == folder and len(end) > len(suffix)
            ],
        )

    def _refuse_unpaired(
        self, images: Mapping[str, Path], labels: Mapping[str, Path], ignored: Mapping[str, Path]
    ) -> None:
        """Raise when a mask has no image, or an image no mask that it must have."""
        for role, found in (("label", labels), ("ignore mask", ignored)):
            if lonely := found.keys() - images.keys():
                raise MissingInputError(
                    sentence(
                        found[min(lonely)],
                        found=f"{len(lonely)} {role}{'s' * (len(lonely) > 1)} without an image: "
                        f"{some(lonely)}",
                        wanted=f"an image for every {role}",
                        fix=f"add the image or remove the {role}",
                    )
                )
        bare_images = images.keys() - labels.keys()
        if bare_images and not self.labels_optional:
            raise MissingInputError(
                sentence(
                    images[min(bare_images)],
                    found=f"{len(bare_images)} image{'s' * (len(bare_images) > 1)} without a "
                    f"label: {some(bare_images)}",
                    wanted=f"a file of the same name in {self.labels}",
                    fix="add the label, remove the image, or set labels_optional to predict only",
                )
            )


@dataclass(frozen=True, slots=True)
class Folder:
    """The paired files of a mask folder."""

    options: MaskFolder
    listed: tuple[Entry, ...]
    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    ignored: Mapping[str, Path]
    select: Mapping[str, object]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the table."""
        return class_names(self.options.classes) or (self.options.class_name,)

    def entries(self) -> tuple[Entry, ...]:
        """Return every image, sorted by id."""
        return self.listed

    def load(self, entry: Entry) -> Sample:
        """Return the image with its mask; in memory, or lazy where it has no mask.

        Raises:
            InputError: when a file is damaged, the sizes differ, or a mask holds what
                cannot be a label or is not in the class table.
        """
        image = open_image(self.images[entry.id], select=self.select)
        size = (image.shape[1], image.shape[2])
        truth = semantic = ignore = None
        if entry.id in self.ignored:
            ignore = read_labels(self.ignored[entry.id]) > 0
            same_size(self.ignored[entry.id], ignore, size)
        if entry.id in self.labels:
            path = self.labels[entry.id]
            values = _values(path, self.options.label_channel)
            same_size(path, values, size)
            truth, semantic, unsure = self._annotation(path, values)
            ignore = unsure if ignore is None else ignore if unsure is None else ignore | unsure
        return Sample(
            id=entry.id,
            image=image if truth is None else image.read(),
            channels=image.channels,
            spacing_um=spacing_of(self.options.spacing_um, image.spacing_um),
            truth=truth,
            semantic=semantic,
            ignore=ignore,
            group=entry.group,
            kind=entry.kind,
        )

    def _annotation(
        self, path: Path, values: Array
    ) -> tuple[Instances, Array | None, NDArray[np.bool_] | None]:
        """Return the objects, the class of each pixel and the unsure pixels of a mask."""
        options = self.options
        if options.classes is not None:
            semantic, unsure = semantic_of(path, values, options.classes)
            return components(semantic), semantic, unsure if unsure.any() else None
        if options.masks == "binary":
            return components(values >= options.threshold), None, None
        if options.masks == "regions":
            return Instances.from_label_map(regions(values)), None, None
        return Instances.from_label_map(values), None, None


def class_names(table: Mapping[int, str] | None) -> tuple[str, ...]:
    """Return the names of a class table that are classes, each once, in its order."""
    names = dict.fromkeys((table or {}).values())
    return tuple(name for name in names if name not in (BACKGROUND, IGNORE))


def semantic_of(
    path: Path, values: Array, table: Mapping[int, str]
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Return class indices from 1 up (0 background) and where the table says to ignore.

    Raises:
        InputError: when ``values`` holds one that the table does not name.
    """
    names = class_names(table)
    present, inverse = np.unique(values, return_inverse=True)
    if unknown := set(present.tolist()) - set(table) - {0}:
        raise InputError(
            sentence(
                path,
                found=f"the value {min(unknown)}",
                wanted=f"one of {', '.join(map(str, sorted({0, *table})))}",
                fix="add it to classes or correct the mask",
            )
        )
    called = [table.get(int(value), BACKGROUND) for value in present]
    index = np.array([names.index(n) + 1 if n in names else 0 for n in called], np.int16)
    unsure = np.array([name == IGNORE for name in called], bool)
    inverse = inverse.reshape(values.shape)
    return index[inverse], unsure[inverse]


def regions(values: Array) -> Array:
    """Return the 8-connected regions of one positive value, numbered from 1 up."""
    label: Any = measure.label
    return np.asarray(label(values, background=0, connectivity=2))


def components(semantic: Array) -> Instances:
    """Return one object per 8-connected component of one class; bool, or indices from 1 up."""
    numbered = regions(semantic.astype(np.uint8) if semantic.dtype == bool else semantic)
    owner = np.zeros(int(numbered.max(initial=0)) + 1, np.int16)
    owner[numbered.ravel()] = semantic.ravel()
    return Instances.from_label_map(
        numbered, classes={i: int(owner[i]) - 1 for i in range(1, len(owner))}
    )


def _values(path: Path, channel: int | None) -> Array:
    """Return the integers ``(H, W)`` of a mask, or of one channel of it."""
    if channel is None:
        return np.asarray(read_labels(path))
    image = open_image(path)
    if channel >= image.shape[0] or image.dtype.kind not in "ui":
        raise InputError(
            sentence(
                path,
                found=f"{image.shape[0]} channel{'s' * (image.shape[0] > 1)} of {image.dtype}",
                wanted=f"integers in channel {channel}",
                fix="correct label_channel",
            )
        )
    return image[channel]
