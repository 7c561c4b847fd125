"""What an evaluation gathers beside matched objects: detection, outlines, pixels, labels, COCO.

Images come one at a time; of each only counts are kept, and for COCO's ranking the objects as
run lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.boundary_f import BoundaryCounts, boundary_counts, summarise_boundary
from domainseg.instances.coco_ap import summarise_coco
from domainseg.instances.coco_image import CocoImage, coco_image
from domainseg.instances.detection import DetectionRule, ImageDetection, detect
from domainseg.instances.image_labels import ImageLabels, image_labels, summarise_labels
from domainseg.instances.image_level import ImageScore, image_score, summarise_images
from domainseg.instances.panoptic_quality import (
    Panoptic,
    PanopticCounts,
    panoptic_counts,
    panoptic_segments,
    summarise_panoptic,
)
from domainseg.instances.pixel_scores import ImagePixels, pixel_scores, summarise_pixels
from domainseg.instances.planes import union
from domainseg.instances.recall import SIZE_BINS_PX, summarise_detection
from domainseg.instances.scores import Evaluation
from domainseg.records import Array, Instances, Spacing

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """An image with its prediction and with all that is known of it.

    Attributes:
        id: unique among the images.
        predicted: the objects that were found.
        truth: the drawn objects, none of an image that is known to be good; None where
            nobody knows where they are.
        drawn: whether somebody drew the truth, and it does not follow from a label.
        labels: bool ``(K,)``, which classes the image shows, or None.
        foreground: uint8 ``(L, H, W)`` quanta of the foreground, or None.
        failing: bool ``(H, W)``, which dies of a wafer map fail, or None.
        ignore: bool ``(H, W)``, True for pixels that are left out, or None.
        crowds: regions of a class whose objects nobody told apart, or None; part of ``ignore``.
        semantic: int ``(H, W)``, class + 1 of true regions, 0 of other pixels, or None.
        segments: the predicted objects and regions, each pixel in one, or None.
        spacing_um: pixel size ``(y, x)``, or None.
        kind: the stratum results are also reported by, or None.
    """

    id: str
    predicted: Instances
    truth: Instances | None = None
    drawn: bool = True
    labels: Mask | None = None
    foreground: NDArray[np.uint8] | None = None
    failing: Mask | None = None
    ignore: Mask | None = None
    crowds: Instances | None = None
    semantic: Array | None = None
    segments: Panoptic | None = None
    spacing_um: Spacing | None = None
    kind: str | None = None

    @property
    def defect(self) -> bool | None:
        """Whether the image holds a defect, None where nobody knows."""
        if self.truth is not None:
            return len(self.truth) > 0
        return None if self.labels is None else bool(self.labels.any())


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """What is looked at.

    Attributes:
        defects: detection, outlines, pixels, and images with a defect.
        coco: average precision as COCO defines it; wants ``classed``.
        panoptic: panoptic quality; likewise.
        stuff: names of the classes that are regions.
        rule: when a defect is found.
        boundary_px: tolerance of outlines, None for a share of the diagonal.
        size_bins_px: edges of the sizes recall is reported by.
        rates: false calls per Mpx at which recall is read off the free-response curve.
        image_pixels: pixels whose largest probabilities score an image.
        class_names: names of the K classes.
        classed: whether truth and prediction have the same classes.
    """

    defects: bool = False
    coco: bool = False
    panoptic: bool = False
    stuff: tuple[str, ...] = ()
    rule: DetectionRule = field(default_factory=DetectionRule)
    boundary_px: float | None = None
    size_bins_px: tuple[float, ...] = SIZE_BINS_PX
    rates: tuple[float, ...] = ()
    image_pixels: int = 1
    class_names: tuple[str, ...] = ()
    classed: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was gathered so far; it grows image by image.

    Attributes:
        looking: what is looked at.
    """

    looking: Looking
    _detections: list[ImageDetection] = field(default_factory=list)
    _outlines: list[tuple[str, BoundaryCounts]] = field(default_factory=list)
    _pixels: list[ImagePixels] = field(default_factory=list)
    _scores: list[ImageScore] = field(default_factory=list)
    _labels: list[ImageLabels] = field(default_factory=list)
    _coco: list[CocoImage] = field(default_factory=list)
    _panoptic: list[PanopticCounts] = field(default_factory=list)

    def add(self, one: Inspection) -> None:
        """Gather what an image says; its arrays are not kept."""
        if self.looking.defects:
            self._add_defects(one)
        if self.looking.coco and one.truth is not None:
            self._coco.append(
                coco_image(one.id, one.truth, one.predicted, crowds=one.crowds, ignore=one.ignore)
            )
        if self.looking.panoptic and one.truth is not None and one.segments is not None:
            self._panoptic.append(self._counted(one.truth, one.segments, one))
        if one.labels is not None:
            self._labels.append(
                image_labels(
                    one.id,
                    one.labels,
                    one.predicted,
                    truth=one.truth if one.drawn else None,
                    failing=one.failing,
                    ignore=one.ignore,
                )
            )

    def _counted(self, truth: Instances, segments: Panoptic, one: Inspection) -> PanopticCounts:
        names = self.looking.class_names
        wanted = panoptic_segments(
            truth,
            semantic=one.semantic,
            stuff=[names.index(name) for name in self.looking.stuff],
            crowds=one.crowds,
            ignore=one.ignore,
        )
        return panoptic_counts(wanted, segments, class_count=len(names), where=one.id)

    def _add_defects(self, one: Inspection) -> None:
        truth, looking = one.truth, self.looking
        if (defect := one.defect) is not None:
            self._scores.append(
                image_score(
                    one.id,
                    one.predicted,
                    defect=defect,
                    foreground=one.foreground,
                    ignore=one.ignore,
                    pixels=looking.image_pixels,
                )
            )
        if truth is None:
            return
        self._detections.append(
            detect(
                one.id,
                truth,
                one.predicted,
                rule=looking.rule,
                ignore=one.ignore,
                spacing_um=one.spacing_um,
                kind=one.kind,
            )
        )
        outlines = boundary_counts(
            union(truth),
            union(one.predicted),
            tolerance_px=looking.boundary_px,
            ignore=one.ignore,
        )
        self._outlines.append((one.id, outlines))
        self._pixels.append(
            pixel_scores(one.id, truth, one.predicted, foreground=one.foreground, ignore=one.ignore)
        )

    def added_to(self, evaluation: Evaluation) -> Evaluation:
        """Return the evaluation with what was gathered; nothing is there of no image."""
        looking = self.looking
        names: Sequence[str] = looking.class_names if looking.classed else ()
        if self._detections:
            # Of one class the row would be that of all.
            told_apart = names if len(names) > 1 else ()
            evaluation = replace(
                evaluation,
                detection=summarise_detection(
                    self._detections,
                    rule=looking.rule,
                    class_names=told_apart,
                    size_bins_px=looking.size_bins_px,
                    rates=looking.rates,
                ),
                boundary=summarise_boundary(self._outlines, tolerance_px=looking.boundary_px),
                pixels=summarise_pixels(self._pixels, class_names=told_apart),
            )
        if self._scores:
            ranked = summarise_images(self._scores, pixels=looking.image_pixels)
            evaluation = replace(evaluation, image_level=ranked)
        if self._labels:
            labels = summarise_labels(self._labels, class_names=looking.class_names)
            evaluation = replace(evaluation, image_labels=labels)
        if self._coco:
            coco = summarise_coco(self._coco, class_names=looking.class_names)
            evaluation = replace(evaluation, coco=coco)
        if self._panoptic:
            quality = summarise_panoptic(
                reduce(add, self._panoptic),
                class_names=looking.class_names,
                stuff=looking.stuff,
            )
            evaluation = replace(evaluation, panoptic=quality)
        return evaluation
