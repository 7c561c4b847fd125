"""What a report is built from: plain records of runs, as read from their folders.

Sections take these and nothing else; where the files lie and how they are read
is not their business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from domainseg.quality.statistics import Interval
from domainseg.records import Spacing
from domainseg.report.document import Picture

CLASS = "class"
IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Model:
    """The model a run used; ``recipe`` is the resolved recipe as nested mappings."""

    name: str
    sha256: str
    architecture: str
    encoder: str
    head: str
    classes: tuple[str, ...]
    scores: Mapping[str, Any]
    recipe: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InspectedImage:
    """One image and how it was inspected.

    Attributes:
        name: unique in the report.
        sha256: of the image file.
        shape: ``(C, H, W)`` px.
        dtype: of the source.
        channels: names.
        seen_as: what the model was shown of them, in words; None for all as they are.
        select: what of a stack was read, by axis; empty for all of the file.
        spacing_um: pixel size ``(y, x)``, None when unknown.
        kind: the stratum results are reported by, or None.
        objects: how many were found.
        inspected_px: pixels that were looked at, the denominator of densities.
        inspected_um2: the same in square micrometres, None when unknown.
        scale: model grid over image grid, ``(y, x)``.
        lattice: tiles, batch, threads, precision, device of the forward pass.
        versions: of domainseg and of what it computed with.
        warnings: one sentence each.
        compared: whether it is known if the image looks like those of the training, or it is a
            map that shows no light.
        like_training: whether the image looks like those of the training and its objects have
            their sizes, where sizes are judged; None where that is not known.
        model: the model used.
    """

    name: str
    sha256: str
    shape: tuple[int, int, int]
    dtype: str
    channels: tuple[str, ...]
    seen_as: str | None
    select: Mapping[str, object]
    spacing_um: Spacing | None
    kind: str | None
    objects: int
    inspected_px: int
    inspected_um2: float | None
    scale: tuple[float, float]
    lattice: Mapping[str, Any]
    versions: Mapping[str, Any]
    warnings: tuple[str, ...]
    compared: bool
    like_training: bool | None
    model: Model


@dataclass(frozen=True, slots=True)
class Scores:
    """Agreement with the truth, of one image or of several together.

    Attributes:
        name: of the image, the kind or the class; "all" of all images.
        kind: of the image, None of several or where it is not known.
        images: how many.
        objects: annotated objects.
        ap: one per threshold of the `Evaluation`; of several images their mean.
        mean_ap: mean over the thresholds; of several images their mean.
        mean_ap_interval: 95 % interval over images, None where not known.
        f1, pq, aji, dice: of several images pooled, None where not known.
        matched, missed, false: objects with and without a partner at IoU .5.
        merged, split: objects that should be several, objects that should be one.
    """

    name: str
    kind: str | None
    images: int
    objects: int
    ap: tuple[float | None, ...]
    mean_ap: float | None
    mean_ap_interval: Interval | None
    f1: float | None
    pq: float | None
    aji: float | None
    dice: float | None
    matched: int
    missed: int
    false: int
    merged: int
    split: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores per image, and summaries: all images first, then each kind; and by class."""

    thresholds: tuple[float, ...]
    images: tuple[Scores, ...]
    summaries: tuple[Scores, ...]
    classes: tuple[Scores, ...] = ()


@dataclass(frozen=True, slots=True)
class WorstCase:
    """An image with low agreement: its scores and crops of its largest mistakes."""

    scores: Scores
    crops: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a report says, before it is said.

    Attributes:
        images: at least one, in the order of the report.
        objects: one row an object; ``image`` holds `InspectedImage.name`. Columns
            are those of the object table, at least ``class``, ``area_px`` and
            ``eq_diameter_px``.
        pictures: images with outlines, by image name.
        evaluation: where truth is known.
        worst: lowest agreement first.
    """

    images: tuple[InspectedImage, ...]
    objects: pl.DataFrame
    pictures: Mapping[str, Picture]
    evaluation: Evaluation | None = None
    worst: tuple[WorstCase, ...] = ()

    @property
    def calibrated(self) -> bool:
        """Whether the pixel size, and so the inspected area, is known for every image."""
        return all(image.inspected_um2 is not None for image in self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of all models, in their order, then any others found."""
        named = [name for image in self.images for name in image.model.classes]
        found = self.objects.get_column(CLASS).unique().sort().to_list()
        return tuple(dict.fromkeys([*named, *found]))
