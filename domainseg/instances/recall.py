"""Detections of many images brought together: recall, false calls, sizes, free response.

The definitions stand in `domainseg.instances.detection`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from domainseg.instances.detection import PX_PER_MPX, DetectionRule, ImageDetection
from domainseg.instances.figures import UNKNOWN, between, ends, figure, known, share
from domainseg.instances.free_response import FreeResponse, free_response
from domainseg.quality.statistics import Interval, poisson_interval, wilson_interval

UM2_PER_CM2 = 1e8
SIZE_BINS_PX = (0.0, 4.0, 8.0, 16.0, 32.0, 64.0, math.inf)
"""Edges of the sizes that recall is reported by."""
SAME_PIXEL = 0.001
"""Pixel sizes that differ by less, relatively, are one."""


@dataclass(frozen=True, slots=True)
class Detected:
    """Truth objects and calls of several images.

    Attributes:
        name: what they have in common: a kind, a class, or "all".
        images: number of images.
        truths: number of truth objects.
        found: those that calls of any class find.
        named: those that calls of their own class find, None where classes are not compared.
        calls: number of predicted objects.
        false: those that are near no truth object of any class.
        inspected_px: pixels looked at.
        inspected_um2: their area, None where an image has no pixel size.
    """

    name: str
    images: int
    truths: int
    found: int
    named: int | None
    calls: int
    false: int
    inspected_px: int
    inspected_um2: float | None

    @property
    def recall(self) -> float:
        """Found / truths; NaN without a truth object."""
        return self.found / self.truths if self.truths else math.nan

    @property
    def named_recall(self) -> float:
        """Named / truths; NaN without a truth object, or where classes are not compared."""
        return math.nan if self.named is None or not self.truths else self.named / self.truths

    @property
    def recall_interval(self) -> Interval:
        """95 % interval of `recall`."""
        return wilson_interval(self.found, self.truths)

    @property
    def false_per_image(self) -> float:
        """False calls per image."""
        return self.false / self.images if self.images else math.nan

    @property
    def mpx(self) -> float:
        """Inspected area, Mpx."""
        return self.inspected_px / PX_PER_MPX

    @property
    def false_per_mpx(self) -> float:
        """False calls per Mpx; NaN where nothing was inspected."""
        return self.false * PX_PER_MPX / self.inspected_px if self.inspected_px else math.nan

    @property
    def false_per_mpx_interval(self) -> Interval:
        """95 % interval of `false_per_mpx`."""
        if not self.inspected_px:
            return Interval(0.0, math.inf)
        return poisson_interval(self.false, exposure=self.mpx)

    @property
    def false_per_cm2(self) -> float | None:
        """False calls per cm2, None where the area is not known."""
        return self.false * UM2_PER_CM2 / self.inspected_um2 if self.inspected_um2 else None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; what is not known is None."""
        return {
            "images": self.images,
            "truths": self.truths,
            "found": self.found,
            "recall": known(self.recall),
            "recall_interval": ends(self.recall_interval),
            "named": self.named,
            "named_recall": known(self.named_recall),
            "calls": self.calls,
            "false_calls": self.false,
            "false_calls_per_image": known(self.false_per_image),
            "false_calls_per_mpx": known(self.false_per_mpx),
            "false_calls_per_mpx_interval": ends(self.false_per_mpx_interval),
            "false_calls_per_cm2": self.false_per_cm2,
            "inspected_px": self.inspected_px,
            "inspected_um2": self.inspected_um2,
        }


@dataclass(frozen=True, slots=True)
class SizeBin:
    """Truth objects with an equivalent diameter in ``[low_px, high_px)``, and those found."""

    low_px: float
    high_px: float
    truths: int
    found: int

    @property
    def recall(self) -> float:
        """Found / truths; NaN without a truth object."""
        return self.found / self.truths if self.truths else math.nan

    def described(self, unit: str, scale: float) -> str:
        """Return the bin in words, in a unit of which ``scale`` are a pixel."""
        low, high = f"{self.low_px * scale:.4g}", f"{self.high_px * scale:.4g}"
        if math.isinf(self.high_px):
            return f"diameter {low} {unit} or more"
        return f"diameter {low} to {high} {unit}"

    def to_json(self, um_per_px: float | None) -> dict[str, Any]:
        """Return plain JSON values; an end that is open is None."""
        low_um, high_um = (
            None if um_per_px is None else known(end * um_per_px)
            for end in (self.low_px, self.high_px)
        )
        return {
            "low_px": self.low_px,
            "high_px": known(self.high_px),
            "low_um": low_um,
            "high_um": high_um,
            "truths": self.truths,
            "found": self.found,
            "recall": known(self.recall),
            "recall_interval": ends(wilson_interval(self.found, self.truths)),
        }


@dataclass(frozen=True, slots=True)
class Detection:
    """Detection over many images.

    Attributes:
        rule: when a defect is found.
        images: one per image, sorted by id.
        all: every image together.
        kinds: one per kind, sorted by name.
        classes: one per class that occurs, in the order of the class names; empty where
            no class was named.
        sizes: by equivalent diameter; the bins partition the truth objects.
        response: the free-response curve over all classes.
        rates: false calls per Mpx at which recall is read off it.
        um_per_px: the pixel size where all images have one and the same, else None.
    """

    rule: DetectionRule
    images: tuple[ImageDetection, ...]
    all: Detected
    kinds: tuple[Detected, ...]
    classes: tuple[Detected, ...]
    sizes: tuple[SizeBin, ...]
    response: FreeResponse
    rates: tuple[float, ...] = ()
    um_per_px: float | None = None

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the header and the rows of a plain table: kinds, all, then classes."""
        summaries = (*self.kinds, self.all, *self.classes)
        columns: dict[str, list[str]] = {
            "detection": [one.name for one in summaries],
            "defects": [str(one.truths) for one in summaries],
            "found": [str(one.found) for one in summaries],
            "recall": [share(one.recall) for one in summaries],
            "95 %": [between(one.recall_interval) if one.truths else UNKNOWN for one in summaries],
            "named": [share(one.named_recall) for one in summaries],
            "false": [str(one.false) for one in summaries],
            "per Mpx": [figure(one.false_per_mpx) for one in summaries],
            "per cm2": [figure(one.false_per_cm2) for one in summaries],
        }
        if not self.classes:
            del columns["named"]
        if self.all.inspected_um2 is None:
            del columns["per cm2"]
        return tuple(columns), list(zip(*columns.values(), strict=True))

    def size_table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return recall by size, and recall at the false calls that were asked for."""
        unit, scale = ("px", 1.0) if self.um_per_px is None else ("um", self.um_per_px)
        rows: list[tuple[str, ...]] = [
            (one.described(unit, scale), str(one.truths), share(one.recall))
            for one in self.sizes
            if one.truths
        ]
        rows += [
            (f"at {rate:g} false calls per Mpx", str(self.all.truths), share(recall))
            for rate in self.rates
            if not math.isnan(recall := self.response.recall_at(rate))
        ]
        return ("recall of", "defects", "recall"), rows

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values in a fixed order of keys; what is not known is None."""
        return {
            "tolerance_px": self.rule.tolerance_px,
            "min_cover": self.rule.min_cover,
            "all": self.all.to_json(),
            "kinds": {one.name: one.to_json() for one in self.kinds},
            "classes": {one.name: one.to_json() for one in self.classes},
            "sizes": [one.to_json(self.um_per_px) for one in self.sizes],
            "recall_at": [self._reading(rate) for rate in self.rates],
            "free_response": self.response.points(),
            "images": [
                {
                    "id": one.id,
                    "truths": len(one.truth_px),
                    "found": int(one.found.sum()),
                    "calls": len(one.false),
                    "false_calls": int(one.false.sum()),
                }
                for one in self.images
            ],
        }

    def _reading(self, rate: float) -> dict[str, float | None]:
        recall, score = self.response.at(rate)
        return {"false_calls_per_mpx": rate, "recall": known(recall), "score": score}


def summarise_detection(
    images: Sequence[ImageDetection],
    *,
    rule: DetectionRule,
    class_names: Sequence[str] = (),
    size_bins_px: Sequence[float] = SIZE_BINS_PX,
    rates: Sequence[float] = (),
) -> Detection:
    """Return the detections of at least one image together; their order does not matter.

    ``size_bins_px`` are rising edges; sizes outside are in no bin. Without
    ``class_names`` classes are not told apart.
    """
    rows = tuple(sorted(images, key=lambda one: one.id))
    classed = bool(class_names)
    kinds = sorted({one.kind for one in rows if one.kind is not None})
    occurring = np.unique(
        np.concatenate([np.concatenate([one.truth_classes, one.call_classes]) for one in rows])
    )
    return Detection(
        rule=rule,
        images=rows,
        all=_detected("all", rows, classed=classed),
        kinds=tuple(
            _detected(name, [one for one in rows if one.kind == name], classed=classed)
            for name in kinds
        ),
        classes=tuple(
            _detected(class_names[index], [one.of_class(index) for one in rows], classed=True)
            for index in occurring.tolist()
            if classed
        ),
        sizes=_sizes(rows, size_bins_px),
        response=free_response(rows),
        rates=tuple(rates),
        um_per_px=_um_per_px(rows),
    )


def _detected(name: str, images: Sequence[ImageDetection], *, classed: bool) -> Detected:
    areas = [
        None if one.spacing_um is None else one.inspected_px * math.prod(one.spacing_um)
        for one in images
    ]
    whole = [area for area in areas if area is not None]
    return Detected(
        name=name,
        images=len(images),
        truths=sum(len(one.truth_px) for one in images),
        found=sum(int(one.found.sum()) for one in images),
        named=sum(int(one.named.sum()) for one in images) if classed else None,
        calls=sum(len(one.false) for one in images),
        false=sum(int(one.false.sum()) for one in images),
        inspected_px=sum(one.inspected_px for one in images),
        inspected_um2=math.fsum(whole) if len(whole) == len(areas) else None,
    )


def _sizes(images: Sequence[ImageDetection], edges: Sequence[float]) -> tuple[SizeBin, ...]:
    area = np.concatenate([one.truth_px for one in images])
    diameter = np.sqrt(4 / np.pi * area)
    found = np.concatenate([one.found for one in images])
    bins = []
    for low, high in pairwise(edges):
        inside = (diameter >= low) & (diameter < high)
        bins.append(SizeBin(low, high, int(inside.sum()), int(found[inside].sum())))
    return tuple(bins)


def _um_per_px(images: Sequence[ImageDetection]) -> float | None:
    """Return the side of a pixel where all are squares of one size, else None."""
    sides = [side for one in images for side in (one.spacing_um or (math.nan,))]
    first = sides[0]
    same = all(abs(side - first) <= SAME_PIXEL * first for side in sides)
    return first if same and not math.isnan(first) else None
