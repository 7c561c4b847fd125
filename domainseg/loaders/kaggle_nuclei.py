"""The layout of the 2018 Data Science Bowl: one folder per image, one mask file per nucleus.

<id>/images/<id>.png   <id>/masks/*.png
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.images import open_image, read_labels
from domainseg.loaders.folder import existing_folder, files_by_id, same_size, spacing_of
from domainseg.loaders.index import indexed_entries, read_names, refuse_columns_without_index
from domainseg.records import Entry, Instances, Sample
from domainseg.shipped import shipped


@dataclass(frozen=True, slots=True, kw_only=True)
class KaggleNuclei:
    """One folder per image, with one 0/255 mask per object.

    Attributes:
        name: of the layout.
        class_name: of the objects.
        index: CSV with one row per image, relative to the root, or one that comes with
            domainseg beside the data cards; its columns become the entries' columns.
        key: column of the index that holds the folder's name.
        index_only: leave out images that the index does not name; it may name one by how its
            name begins.
        kind: column of the index to report results by.
        group: column of the index that must not straddle a split.
        labels_optional: let images without a folder of masks pass, to predict only.
        spacing_um: pixel size of every image, None for what the files say.
    """

    name: Literal["kaggle_nuclei"] = "kaggle_nuclei"
    class_name: str = "nucleus"
    index: str | None = None
    key: str = "ImageId"
    index_only: bool = False
    kind: str | None = None
    group: str | None = None
    labels_optional: bool = False
    spacing_um: float | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        only = self.key if self.index_only else None
        refuse_columns_without_index(self.index, self.kind, self.group, only)

    def open(self, root: Path, *, select: Mapping[str, object] | None = None) -> NucleiFolders:
        """Return the data set below ``root``; no pixel is read.

        Raises:
            MissingInputError: when the folder is missing, holds no image, or an image
                has no folder of masks.
            InputError: when a folder holds several images, or the index does not name
                exactly the images; with ``index_only``, when it names one there is not.
        """
        existing_folder(root, "data")
        folders = sorted(path.parent for path in root.glob("*/images") if path.is_dir())
        if not folders:
            raise MissingInputError(
                sentence(
                    root,
                    found="no image",
                    wanted="folders <id>/images/<id>.png with <id>/masks",
                    fix="check the path or use the loader mask_folder",
                )
            )
        places = {folder.name: folder for folder in folders}
        index = self._index(root)
        if index is not None and self.index_only:
            named = read_names(index, self.key, places)
            places = {name: places[full] for name, full in named.items()}
        images = {name: self._image(folder) for name, folder in places.items()}
        entries = indexed_entries(
            images.keys(), index, key=self.key, kind=self.kind, group=self.group
        )
        return NucleiFolders(self, entries, images, dict(select or {}))

    def _index(self, root: Path) -> Path | None:
        """Return where the index is, None for none."""
        if self.index is None:
            return None
        own = root / self.index
        coming = own if own.exists() else shipped("datasets") / self.index
        return coming if coming.is_file() else own

    def _image(self, folder: Path) -> Path:
        """Return the one image of a folder that has its masks, where they are wanted."""
        if not self.labels_optional and not (folder / "masks").is_dir():
            raise MissingInputError(
                sentence(
                    folder,
                    found="an image without a folder of masks",
                    wanted=f"{folder.name}/masks, empty where there is no object",
                    fix="add it, remove the image, or set labels_optional to predict only",
                )
            )
        return _only_image(folder)


@dataclass(frozen=True, slots=True)
class NucleiFolders:
    """The folders of a Kaggle data set."""

    options: KaggleNuclei
    listed: tuple[Entry, ...]
    images: Mapping[str, Path]
    select: Mapping[str, object]

    @property
    def classes(self) -> tuple[str, ...]:
        """The one class name."""
        return (self.options.class_name,)

    def entries(self) -> tuple[Entry, ...]:
        """Return every image, sorted by id."""
        return self.listed

    def load(self, entry: Entry) -> Sample:
        """Return the image with its objects, in memory; lazy where it has no masks.

        Objects are numbered from 1 in the order of their files' names; where two
        overlap, the first keeps the pixel (``overlap_px`` counts them).

        Raises:
            InputError: when a file is damaged, or a mask is empty or of another size.
        """
        image = open_image(self.images[entry.id], select=self.select)
        masks = self._masks(entry)
        truth = None
        if masks is not None:
            labels, _ = merge(masks, (image.shape[1], image.shape[2]))
            truth = Instances.from_label_map(labels)
        return Sample(
            id=entry.id,
            image=image if truth is None else image.read(),
            channels=image.channels,
            spacing_um=spacing_of(self.options.spacing_um, image.spacing_um),
            truth=truth,
            group=entry.group,
            kind=entry.kind,
        )

    def overlap_px(self, entry: Entry) -> int:
        """Return how many pixels of an image more than one mask claims.

        Raises:
            InputError: as `load`.
        """
        shape = open_image(self.images[entry.id], select=self.select).shape
        masks = self._masks(entry)
        return 0 if masks is None else merge(masks, (shape[1], shape[2]))[1]

    def _masks(self, entry: Entry) -> tuple[Path, ...] | None:
        """Return the mask files sorted by name, None when there is no folder of masks."""
        folder = self.images[entry.id].parents[1] / "masks"
        if not folder.is_dir():
            return None
        found = files_by_id(folder, "")
        return tuple(found[name] for name in sorted(found))


def merge(paths: tuple[Path, ...], size: tuple[int, int]) -> tuple[NDArray[np.int32], int]:
    """Return the label map of the masks, numbered from 1, and the count of contested pixels.

    The first mask keeps a pixel that several claim.

    Raises:
        InputError: when a mask is damaged, has no foreground, or is not of ``size``.
    """
    labels = np.zeros(size, np.int32)
    contested = np.zeros(size, bool)
    for number, path in enumerate(paths, 1):
        mask = read_labels(path) > 0
        same_size(path, mask, size)
        if not mask.any():
            raise InputError(
                sentence(
                    path,
                    found="no foreground pixel",
                    wanted="one object above 0",
                    fix="remove the file",
                )
            )
        contested |= mask & (labels > 0)
        labels[mask & (labels == 0)] = number
    return labels, int(np.count_nonzero(contested))


def _only_image(folder: Path) -> Path:
    """Return the one image of a folder."""
    images = sorted(files_by_id(folder / "images", "").values())
    if len(images) != 1:
        raise InputError(
            sentence(
                folder / "images",
                found=f"{len(images)} images",
                wanted="one",
                fix="leave one image in it",
            )
        )
    return images[0]
