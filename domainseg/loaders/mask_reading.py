"""One mask or annotation file read, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from domainseg.errors import InputError, sentence
from domainseg.loaders import polygons
from domainseg.loaders.folder import same_size
from domainseg.loaders.masks import (
    Annotation,
    components,
    foreground_of,
    mask_values,
    of_one_class,
    regions,
    semantic_of,
)
from domainseg.records import Array, Instances

POLYGON_ENDINGS = {"yolo_seg": ".txt", "labelme": ".json"}
"""Endings of annotation files that are no images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the files of a data set are read; the fields are those of `MaskFolder`."""

    masks: str
    threshold: int | None
    label_channel: int | None
    classes: Mapping[int, str] | None
    label_names: Mapping[str, str] | None

    def annotation(self, path: Path, size: tuple[int, int]) -> Annotation:
        """Return what a file marks in an image of ``(H, W)``.

        Raises:
            InputError: when it is damaged, is of another size, or holds what cannot be a
                label or is not in the class table.
        """
        if self.masks == "yolo_seg":
            return polygons.read_yolo(path, self.classes or {}, shape=size)
        if self.masks == "labelme":
            return polygons.read_labelme(path, self.label_names or {}, shape=size)
        values = mask_values(path, self.label_channel)
        same_size(path, values, size)
        if self.masks == "semantic":
            semantic, unsure = semantic_of(path, values, self.classes or {})
            return Annotation(components(semantic), semantic, unsure if unsure.any() else None)
        return Annotation(self._objects(path, values))

    def _objects(self, path: Path, values: Array) -> Instances:
        """Return the objects of a mask that tells nothing of their classes."""
        if self.masks == "binary":
            return components(foreground_of(path, values, self.threshold))
        if self.masks == "regions":
            return Instances.from_label_map(regions(values))
        return Instances.from_label_map(values)


def of_folder(
    path: Path, truth: Instances, folder: str, *, owner: str | None, index: int
) -> Instances:
    """Return the objects as those of their folder's class, number ``index``.

    Raises:
        InputError: when a mask in a folder of good images marks something, or one in a
            folder of defects marks nothing.
    """
    if (owner is None) != (len(truth) == 0):
        marked = f"{len(truth)} object{'s' * (len(truth) > 1)}"
        raise InputError(
            sentence(
                path,
                found=f"{marked} in {folder}, a folder of good images"
                if owner is None
                else f"nothing marked in {folder}, a folder of {owner}",
                wanted="an empty mask or none" if owner is None else "an object or more",
                fix="correct the mask, move the image, or name it in leave_out",
            )
        )
    return truth if owner is None else of_one_class(truth, index)
