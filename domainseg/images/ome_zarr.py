"""Labels that are at hand, a plane in memory or on disk, written as OME-Zarr 0.5."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from domainseg.images.label_store import (
    Box,
    LabelPlane,
    Look,
    Property,
    Rgba,
    chunk_boxes,
    label_store,
)
from domainseg.images.labels import checked_labels
from domainseg.records import Array, Spacing


def write_labels_ome_zarr(
    path: str | os.PathLike[str],
    labels: LabelPlane,
    *,
    spacing_um: Spacing | None,
    colors: Mapping[int, Rgba] | None = None,
    properties: Mapping[int, Mapping[str, Property]] | None = None,
) -> None:
    """Write ``(H, W)`` labels as an OME-Zarr 0.5 folder that appears whole or not at all.

    uint16 where every label fits, else uint32. See `label_store` for the pyramid and for
    ``spacing_um``, ``colors`` and ``properties``. The plane is read in chunks, twice, so the
    memory needed is that of one.

    Raises:
        InputError: for values that cannot be labels.
        OutputError: when a label is above 4294967295, or the folder cannot be written.
    """
    target = Path(path)
    shape = (int(labels.shape[0]), int(labels.shape[1]))

    def read(box: Box) -> Array:
        (y0, x0), (y1, x1) = box
        return checked_labels(target, np.asarray(labels[y0:y1, x0:x1]))

    largest = max((int(read(box).max(initial=0)) for box in chunk_boxes(shape)), default=0)
    look = Look(spacing_um, colors, properties)
    with label_store(target, shape=shape, largest=largest, look=look) as store:
        for box in chunk_boxes(shape):
            store.write(box, [read(box)])
        store.build_pyramids(_one_by_one)


def _one_by_one(work: Callable[[Box], None], boxes: Iterable[Box]) -> None:
    for box in boxes:
        work(box)
