"""Images beside their masks: one image file, one mask or annotation file of the same name.

    images/plate1/a.tif   labels/plate1/a.png     id plate1/a
    a.jpg  a_mask.png                             id a, with label_suffix: _mask
    MT_Crack/Imgs/a.jpg  MT_Crack/Imgs/a.png      id MT_Crack/Imgs/a, with image_endings,
                                                  label_endings and class_folders

The id of an image is its path below the image folder without ending and suffix.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import MissingInputError, sentence
from domainseg.images import open_image, read_labels
from domainseg.loaders import mask_options
from domainseg.loaders.folder import ENDINGS, existing_folder, same_size, spacing_of
from domainseg.loaders.index import indexed_entries
from domainseg.loaders.mask_reading import POLYGON_ENDINGS, Reading, of_folder
from domainseg.loaders.masks import GOOD, Annotation, class_names, nothing
from domainseg.loaders.pairing import (
    Role,
    files_of,
    refuse_folders_without_masks,
    refuse_lonely,
    refuse_unlabelled,
)
from domainseg.loaders.places import (
    class_folder,
    folder_columns,
    folder_value,
    groups_of,
    is_folder_column,
    left_out,
    owners,
)
from domainseg.records import Entry, Sample

YOLO_NAMES = "classes"
"""A list of class names that annotation tools leave beside YOLO files; it is no label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFolder:
    """Images and masks in folders, nested as deep as they like.

    An image without objects is *good*: its mask is empty, or one of the options below says
    that it needs none. The tags of a sample are the sorted names of the classes in it, or
    ``good``; a sample that nobody annotated has none.

    The folders of an id are columns: ``folder_1``, ``folder_2`` and so on, ``folder`` for
    all of them; a column of the index of the same name comes first.

    Attributes:
        name: of the layout.
        images: folder of the images, relative to the data's root; ``.`` for the root.
        labels: folder of the masks; may be the images' own where suffix or ending tell
            the two apart.
        image_suffix: what every image's name ends with, before its ending.
        label_suffix: what every mask's name ends with, before its ending.
        image_endings: of the images, such as ``[.jpg]``; empty for all that can be read.
        label_endings: of the masks, likewise.
        label_renames: parts of a mask's path below its folder, and what stands there in
            its image's path: ``{ground_truth/: test/}``.
        masks: ``labels``: every positive value is one object; ``binary``: every
            8-connected component is one; ``regions``: every 8-connected region of one
            value is one; ``semantic``: values are classes, components are objects;
            ``yolo_seg`` and ``labelme``: annotation files whose polygons are objects.
        threshold: smallest value that is foreground, with ``binary``; 128 for masks
            with soft edges. Without it a mask holds 0 and one other value.
        label_channel: channel of a colour mask that holds the values, None for grey masks.
        classes: value to class name, with ``semantic`` and ``yolo_seg``. The names
            ``background`` (0 unless said) and ``ignore`` are no classes.
        label_names: label to class name, with ``labelme``; likewise.
        class_name: of the one class of the other kinds.
        class_folders: folder to the class of all objects in it, null or ``good`` for good
            images, which need no mask; one of an image's folders must be listed. It is
            the entry's kind unless ``kind`` names a column.
        good_without_mask: count images without a mask as good.
        labels_optional: let images without a mask pass, to predict only.
        index: CSV with one row per image, relative to the root; its columns become
            the entries' columns.
        key: column of the index that holds the id, with or without an ending.
        kind: column to report results by.
        group: column that must not straddle a split (plate, patient).
        group_pattern: regular expression, searched in the id, whose first group must not
            straddle a split.
        group_gap: with ``group_pattern``, which then finds a number: numbers that follow
            each other by at most this are one group (frames of one piece).
        leave_out: ids to pass over; ``*`` and ``?`` stand for any text and any character.
        ignore: folder of masks whose pixels above 0 are left out, named as the
            images with ``ignore_suffix``; an image may have none.
        ignore_suffix: what every ignore mask's name ends with, before its ending.
        spacing_um: pixel size of every image, overriding what the files say.
    """

    name: Literal["mask_folder"] = "mask_folder"
    images: str = "images"
    labels: str = "labels"
    image_suffix: str = ""
    label_suffix: str = ""
    image_endings: tuple[str, ...] = ()
    label_endings: tuple[str, ...] = ()
    label_renames: dict[str, str] = field(default_factory=dict)
    masks: Literal["labels", "binary", "regions", "semantic", "yolo_seg", "labelme"] = "labels"
    threshold: int | None = None
    label_channel: int | None = None
    classes: dict[int, str] | None = None
    label_names: dict[str, str] | None = None
    class_name: str = "object"
    class_folders: dict[str, str | None] | None = None
    good_without_mask: bool = False
    labels_optional: bool = False
    index: str | None = None
    key: str = "image"
    kind: str | None = None
    group: str | None = None
    group_pattern: str | None = None
    group_gap: int | None = None
    leave_out: tuple[str, ...] = ()
    ignore: str | None = None
    ignore_suffix: str = ""
    spacing_um: float | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        mask_options.check_classes(self.masks, self.classes, self.label_names, self.class_folders)
        mask_options.check_threshold(self.masks, self.threshold)
        mask_options.check_unmarked(self.good_without_mask, self.labels_optional)
        mask_options.check_endings(self.image_endings, self.label_endings, self.masks)
        mask_options.check_columns(self.index, self.kind, self.group)
        mask_options.check_groups(self.group, self.group_pattern, self.group_gap)
        mask_options.check_apart(self.roles["images"], self.roles["labels"])

    @property
    def roles(self) -> dict[str, Role]:
        """How images, labels and ignore masks are told apart, by name."""
        endings = (
            (POLYGON_ENDINGS[self.masks],) if self.masks in POLYGON_ENDINGS else self.label_endings
        )
        found = [
            Role(
                name="images",
                folder=self.images,
                suffix=self.image_suffix,
                endings=_lower(self.image_endings),
            ),
            Role(
                name="labels",
                folder=self.labels,
                suffix=self.label_suffix,
                endings=_lower(endings),
                renames=self.label_renames,
            ),
        ]
        if self.ignore is not None:
            found.append(
                Role(name="ignore", folder=self.ignore, suffix=self.ignore_suffix, endings=ENDINGS)
            )
        return {role.name: role for role in found}

    @property
    def table(self) -> Mapping[int, str] | Mapping[str, str] | None:
        """Value or label to class name, None where masks hold objects of one class."""
        return self.label_names if self.masks == "labelme" else self.classes

    @property
    def reading(self) -> Reading:
        """How a mask or annotation file is read."""
        return Reading(
            masks=self.masks,
            threshold=self.threshold,
            label_channel=self.label_channel,
            classes=self.classes,
            label_names=self.label_names,
        )

    def owner_of(self, folder: str | None) -> str | None:
        """Return the class of a class folder, None for good images."""
        return owners(self.class_folders or {}).get(folder or "")

    def is_good(self, folder: str | None, *, marked: bool) -> bool:
        """Tell whether an image is known to be good before a pixel is read."""
        if folder is not None and self.owner_of(folder) is None:
            return True
        return self.good_without_mask and not marked

    def open(self, root: Path, *, select: Mapping[str, object] | None = None) -> Folder:
        """Return the data set below ``root``: files are paired, no pixel is read.

        Raises:
            MissingInputError: when a folder or the index is missing, no image is there, an
                image has no mask or a mask no image, or a folder of defects has no masks.
            InputError: when two files share an id, the index does not name exactly the
                images, or an id has no class folder or group.
        """
        existing_folder(root, "data")
        images = self._files(root, "images")
        if not images:
            raise MissingInputError(
                sentence(
                    root / self.images,
                    found="no image",
                    wanted=f"files named *{self.image_suffix} with "
                    f"{', '.join(self.image_endings or ENDINGS[2:])}",
                    fix="check the folder and image_suffix",
                )
            )
        outside = left_out(images, self.leave_out)
        kept = {name: path for name, path in images.items() if name not in outside}
        labels, ignored = self._files(root, "labels"), self._files(root, "ignore")
        for what, found in (("label", labels), ("ignore mask", ignored)):
            refuse_lonely(kept, found, what, beside=outside)
        folders = self._class_folders(kept)
        self._refuse_unmarked(kept, labels, folders)
        entries = [
            self._placed(entry, folders.get(entry.id), marked=entry.id in labels)
            for entry in self._listed(root, images)
            if entry.id in kept
        ]
        grouped = self._grouped(entries)
        return Folder(self, grouped, kept, labels, ignored, folders, dict(select or {}))

    def _files(self, root: Path, role: str) -> dict[str, Path]:
        """Return the files of one role by id; none where it has no folder and needs none."""
        roles = self.roles
        one = roles.pop(role, None)
        if one is None or (
            role == "labels" and self.labels_optional and not (root / self.labels).is_dir()
        ):
            return {}
        found = files_of(root, one, roles.values())
        if role == "labels" and self.masks == "yolo_seg":
            found.pop(YOLO_NAMES, None)
        return found

    def _class_folders(self, names: Collection[str]) -> dict[str, str]:
        """Return the class folder of each id, empty where folders name no classes."""
        listed = self.class_folders
        return {} if listed is None else {name: class_folder(name, listed) for name in names}

    def _refuse_unmarked(
        self, images: Mapping[str, Path], labels: Collection[str], folders: Mapping[str, str]
    ) -> None:
        """Raise when an image, or a folder of defects, lacks the masks that it must have."""
        if self.labels_optional:
            return
        defects = owners(self.class_folders or {})
        refuse_folders_without_masks(folders, labels, defects)
        if not self.good_without_mask:
            bare_ids = {
                name for name in images.keys() - labels if folders.get(name) in (None, *defects)
            }
            refuse_unlabelled(images, bare_ids, self.labels)

    def _listed(self, root: Path, names: Collection[str]) -> tuple[Entry, ...]:
        """Return the entries with what the index says of them."""
        return indexed_entries(
            names,
            None if self.index is None else root / self.index,
            key=self.key,
            kind=None if is_folder_column(self.kind) else self.kind,
            group=None if is_folder_column(self.group) else self.group,
        )

    def _placed(self, entry: Entry, folder: str | None, *, marked: bool) -> Entry:
        """Return the entry with what its path and its files say of it."""
        columns = {**folder_columns(entry.id), **entry.columns}
        kind, group, tags = entry.kind, entry.group, entry.tags
        if self.kind is not None and is_folder_column(self.kind):
            kind = columns.get(self.kind) or folder_value(entry.id, self.kind)
        elif self.kind is None and folder is not None:
            kind = folder
        if self.group is not None and is_folder_column(self.group):
            group = columns.get(self.group) or folder_value(entry.id, self.group)
        if self.is_good(folder, marked=marked):
            tags = (GOOD,)
        elif marked and (owner := self.owner_of(folder)) is not None:
            tags = (owner,)
        return replace(entry, columns=columns, kind=kind, group=group, tags=tags)

    def _grouped(self, entries: Collection[Entry]) -> tuple[Entry, ...]:
        if self.group_pattern is None:
            return tuple(entries)
        groups = groups_of([entry.id for entry in entries], self.group_pattern, self.group_gap)
        return tuple(replace(entry, group=groups[entry.id]) for entry in entries)


@dataclass(frozen=True, slots=True)
class Folder:
    """The paired files of a mask folder."""

    options: MaskFolder
    listed: tuple[Entry, ...]
    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    ignored: Mapping[str, Path]
    folders: Mapping[str, str]
    select: Mapping[str, object]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the table."""
        if (listed := self.options.class_folders) is not None:
            return tuple(dict.fromkeys(owners(listed).values()))
        return class_names(self.options.table) or (self.options.class_name,)

    def entries(self) -> tuple[Entry, ...]:
        """Return every image, sorted by id."""
        return self.listed

    def load(self, entry: Entry) -> Sample:
        """Return the image with its mask; in memory, or lazy where nobody annotated it.

        Raises:
            InputError: when a file is damaged, the sizes differ, a mask holds what cannot
                be a label or is not in the class table, or a mask in a class folder
                contradicts the folder.
        """
        image = open_image(self.images[entry.id], select=self.select)
        size = (image.shape[1], image.shape[2])
        marks = self._annotation(entry, size)
        return Sample(
            id=entry.id,
            image=image if marks is None else image.read(),
            channels=image.channels,
            spacing_um=spacing_of(self.options.spacing_um, image.spacing_um),
            truth=None if marks is None else marks.truth,
            semantic=None if marks is None else marks.semantic,
            ignore=self._ignore(entry, size, None if marks is None else marks.unsure),
            tags=() if marks is None else marks.tags(self.classes),
            group=entry.group,
            kind=entry.kind,
        )

    def _annotation(self, entry: Entry, size: tuple[int, int]) -> Annotation | None:
        """Return what is marked in an image, None when nobody looked."""
        path, folder = self.labels.get(entry.id), self.folders.get(entry.id)
        options = self.options
        if path is None:
            return nothing(size) if options.is_good(folder, marked=False) else None
        marks = options.reading.annotation(path, size)
        if folder is None:
            return marks
        owner = options.owner_of(folder)
        index = 0 if owner is None else self.classes.index(owner)
        truth = of_folder(path, marks.truth, folder, owner=owner, index=index)
        return replace(marks, truth=truth)

    def _ignore(
        self, entry: Entry, size: tuple[int, int], unsure: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_] | None:
        """Return the pixels left out: of the ignore mask and of the mask itself."""
        parts = [] if unsure is None else [unsure]
        if (path := self.ignored.get(entry.id)) is not None:
            masked = read_labels(path) > 0
            same_size(path, masked, size)
            parts.append(masked)
        return np.logical_or.reduce(parts) if parts else None


def _lower(endings: tuple[str, ...]) -> tuple[str, ...]:
    """Return endings in lower case, all that can be read for none."""
    return tuple(ending.lower() for ending in endings) or ENDINGS
