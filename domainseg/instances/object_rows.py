"""Finished objects as rows: the columns of the table and what their exports are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.instances.encode import countable
from domainseg.instances.measure import object_table
from domainseg.instances.object_text import ObjectType, geometries, rle_counts
from domainseg.instances.outlines import outlines_of_runs
from domainseg.instances.pieces import Pieces
from domainseg.instances.runs import ObjectRuns
from domainseg.records import Spacing


@dataclass(frozen=True, slots=True)
class Scene:
    """What all tiles of one layer of an image share.

    Attributes:
        shape: ``(H, W)`` of the image.
        class_names: names of the classes.
        channels: one name per channel that is measured; none without an image.
        quanta: float64 ``(C,)``, `intensity_quanta` of the whole image.
        spacing_um: pixel size ``(y, x)``, None when unknown.
        image_id: value of the column ``image``, and the file name in COCO.
        image_sha256: goes into the objects' ids.
        layer: value of the column ``layer``.
        object_type: what QuPath makes of the outlines.
    """

    shape: tuple[int, int]
    class_names: tuple[str, ...]
    channels: tuple[str, ...]
    quanta: NDArray[np.float64]
    spacing_um: Spacing | None
    image_id: str
    image_sha256: str
    layer: int = 0
    object_type: ObjectType = "detection"


def object_rows(
    pieces: Pieces,
    runs: ObjectRuns,
    scene: Scene,
    *,
    classes: NDArray[np.int16],
    scores: NDArray[np.float32],
) -> pl.DataFrame:
    """Return the table of whole objects (`object_table`) with their ``geometry`` and ``rle``.

    ``pieces`` and ``runs`` are those of the same objects in the same order, in px of the
    image. ``rle`` is missing where COCO cannot hold the image.
    """
    table = object_table(
        pieces,
        runs,
        shape=scene.shape,
        classes=classes,
        scores=scores,
        class_names=scene.class_names,
        channels=scene.channels,
        spacing_um=scene.spacing_um,
        image_id=scene.image_id,
        image_sha256=scene.image_sha256,
        layer=scene.layer,
    )
    texts = [geometries(outlines_of_runs(runs))]
    if countable(scene.shape):
        texts.append(rle_counts(runs))
    return table.with_columns(texts)
