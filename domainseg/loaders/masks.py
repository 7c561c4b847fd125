"""Mask values turned into objects, classes and the pixels nobody is sure of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from domainseg.errors import InputError, sentence
from domainseg.images import open_image, read_labels
from domainseg.records import Array, Instances

BACKGROUND, IGNORE = "background", "ignore"
"""Names in a class table that are no classes."""
GOOD = "good"
"""The tag of an image that is known to be without objects."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What somebody marked in one image.

    Attributes:
        truth: the objects.
        semantic: class index from 1 up of each pixel (0 background), or None.
        unsure: bool ``(H, W)``, True where the mark says to ignore, or None.
    """

    truth: Instances
    semantic: Array | None = None
    unsure: NDArray[np.bool_] | None = None

    def tags(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return the sorted names of the classes that are present, ``("good",)`` for none."""
        present = set(self.truth.classes.tolist())
        if self.semantic is not None:
            present |= {int(value) - 1 for value in np.unique(self.semantic) if value > 0}
        return tuple(sorted(classes[index] for index in present)) or (GOOD,)


def nothing(size: tuple[int, int]) -> Annotation:
    """Return the annotation of an image of ``(H, W)`` without objects."""
    return Annotation(Instances.from_label_map(np.zeros(size, np.uint8)))


def class_names(table: Mapping[Any, str] | None) -> tuple[str, ...]:
    """Return the names of a class table that are classes, each once, in its order."""
    names = dict.fromkeys((table or {}).values())
    return tuple(name for name in names if name not in (BACKGROUND, IGNORE))


def mask_values(path: Path, channel: int | None) -> Array:
    """Return the integers ``(H, W)`` of a mask, or of one channel of it.

    Raises:
        InputError: when the file is damaged or holds no integers there.
    """
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


def foreground_of(path: Path, values: Array, threshold: int | None) -> NDArray[np.bool_]:
    """Return where a mask of two levels is foreground, bool ``(H, W)``.

    Without a threshold a mask may hold 0 and one other value: of a soft edge nobody has
    said which side it belongs to.

    Raises:
        InputError: when there is no threshold and the mask has more levels, or when it
            has values above 0 and none that reaches the threshold.
    """
    present = np.unique(values)
    high = int(present.max(initial=0))
    if threshold is not None:
        if 0 < high < threshold:
            raise InputError(
                sentence(
                    path,
                    found=f"values up to {high}, none of which reaches threshold {threshold}",
                    wanted="foreground where the mask is not 0",
                    fix="lower threshold or correct the mask",
                )
            )
        return np.asarray(values >= threshold)
    if len(present[present > 0]) > 1:
        half = 128 if values.dtype.itemsize == 1 else (high + 1) // 2
        raise InputError(
            sentence(
                path,
                found=f"{len(present)} grey levels from {present.min()} to {high}",
                wanted="two, 0 and one other",
                fix=f"if its edges are soft set threshold: {half}, "
                "if its values are classes set masks: semantic",
            )
        )
    return np.asarray(values > 0)


def semantic_of(
    path: Path, values: Array, table: Mapping[int, str]
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Return class indices from 1 up (0 background) and where the table says to ignore.

    Raises:
        InputError: when ``values`` holds some that the table does not name.
    """
    names = class_names(table)
    present, inverse = np.unique(values, return_inverse=True)
    if unknown := set(present.tolist()) - set(table) - {0}:
        one = len(unknown) == 1
        raise InputError(
            sentence(
                path,
                found=f"the value {min(unknown)}"
                if one
                else f"{len(present)} grey levels, {len(unknown)} of them of no class "
                f"({min(unknown)} is the first)",
                wanted=f"one of {', '.join(map(str, sorted({0, *table})))}",
                fix="add it to classes or correct the mask"
                if one
                else "add them to classes; if the edges of one class are soft set "
                "masks: binary and threshold: 128",
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


def runs_of_window(window: NDArray[np.bool_], origin: tuple[int, int]) -> Array:
    """Return the runs ``(R, 3)`` of a window's pixels in the plane it lies in, raster order."""
    inside = Instances.from_label_map(window.view(np.uint8))
    return inside.runs + np.array([*origin, 0], np.int64)


def stacked(runs: Sequence[Array], classes: Sequence[int], *, shape: tuple[int, int]) -> Instances:
    """Return objects numbered from 1 up from their runs; they may overlap, none is empty."""
    offsets = np.concatenate([[0], np.cumsum([len(of_one) for of_one in runs])]).astype(np.int64)
    rows = np.concatenate([np.zeros((0, 3), np.int64), *runs])
    boxes = np.zeros((len(runs), 2, 2), np.int64)
    for box, of_one in zip(boxes, runs, strict=True):
        box[0] = of_one[:, :2].min(axis=0)
        box[1] = of_one[:, 0].max() + 1, (of_one[:, 1] + of_one[:, 2]).max()
    return Instances(
        ids=np.arange(1, len(runs) + 1, dtype=np.int64),
        boxes=boxes,
        runs=rows,
        offsets=offsets,
        classes=np.array(classes, np.int16),
        scores=np.ones(len(runs), np.float32),
        shape=shape,
    )


def of_one_class(instances: Instances, index: int) -> Instances:
    """Return the objects, all of class ``index``."""
    return replace(instances, classes=np.full(len(instances), index, np.int16))
