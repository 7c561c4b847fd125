"""The scores of an evaluation: of images, of kinds and classes, as a table and as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from domainseg.instances.boundary_f import Boundary
from domainseg.instances.coco_ap import Coco
from domainseg.instances.figures import known
from domainseg.instances.image_labels import LabelScores
from domainseg.instances.image_level import ImageLevel
from domainseg.instances.matching import THRESHOLDS, Metrics, Tally
from domainseg.instances.panoptic_quality import PanopticQuality
from domainseg.instances.pixel_scores import Pixels
from domainseg.instances.recall import Detection

Interval = tuple[float, float]
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Header and rows."""
TABLE_HEADER = (
    "images of",
    "images",
    "objects",
    "AP .5",
    "AP .75",
    "AP .5-.9",
    "F1",
    "PQ",
    "AJI",
    "Dice",
    "missed",
    "false",
    "merged",
    "split",
)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """The scores of one image."""

    id: str
    kind: str | None
    tally: Tally
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Summary:
    """The scores of several images together.

    Attributes:
        name: the kind or class they have in common, or "all".
        images: how many there are; of a class, those where it occurs on either side.
        tally: the sums over the images.
        mean: the mean of each ratio over the images, each of equal weight.
        pooled: the ratios of ``tally``.
        mean_ap_interval: 95 % bootstrap interval of ``mean.mean_ap`` over images;
            NaN where none was asked for or fewer than two images are there.
    """

    name: str
    images: int
    tally: Tally
    mean: Metrics
    pooled: Metrics
    mean_ap_interval: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate_pairs` found.

    Attributes:
        images: one row per image, sorted by id.
        all: every image together.
        kinds: one summary per kind, sorted by name; an image without a kind is in ``all`` only.
        classes: one summary per class that occurs, in the order of the class names,
            objects matched within the class only; empty where no class was named.
        class_mean: mean of the pooled ratios over ``classes``, or None.
        detection: which defects were found, None where nobody asked.
        boundary: how well outlines agree, likewise.
        pixels: rankings and IoU of pixels, likewise.
        image_level: images ranked by whether they hold a defect, likewise.
        image_labels: classes that images show, likewise.
        coco: average precision as COCO defines it, likewise.
        panoptic: quality of objects and regions together, likewise.
    """

    images: tuple[ImageRow, ...]
    all: Summary
    kinds: tuple[Summary, ...] = ()
    classes: tuple[Summary, ...] = ()
    class_mean: Metrics | None = None
    detection: Detection | None = None
    boundary: Boundary | None = None
    pixels: Pixels | None = None
    image_level: ImageLevel | None = None
    image_labels: LabelScores | None = None
    coco: Coco | None = None
    panoptic: PanopticQuality | None = None

    def table(self) -> Table:
        """Return the header and the rows of a plain table: kinds, all, then classes.

        AP and mean AP are means over images; F1 (at IoU .5), PQ, AJI and Dice are pooled.
        """
        summaries = (*self.kinds, self.all, *self.classes)
        return TABLE_HEADER, [_table_row(summary) for summary in summaries]

    def tables(self) -> list[Table]:
        """Return the tables of all that was scored: objects first, where there were any."""
        found: list[Table] = [self.table()] if self.all.images else []
        if self.coco is not None:
            found += self.coco.tables()
        if self.panoptic is not None:
            found.append(self.panoptic.table())
        if self.detection is not None:
            found += [self.detection.table(), self.detection.size_table()]
        found += [
            part.table()
            for part in (self.boundary, self.pixels, self.image_level)
            if part is not None
        ]
        if self.image_labels is not None:
            found += self.image_labels.tables()
        return [table for table in found if table[1]]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values in a fixed order of keys; what is not known is None.

        What was not asked for has no key.
        """
        parts = {
            "detection": self.detection,
            "boundary": self.boundary,
            "pixels": self.pixels,
            "image_level": self.image_level,
            "image_labels": self.image_labels,
            "coco": self.coco,
            "panoptic": self.panoptic,
        }
        return self._objects_json() | {
            name: part.to_json() for name, part in parts.items() if part is not None
        }

    def _objects_json(self) -> dict[str, Any]:
        return {
            "thresholds": list(THRESHOLDS),
            "all": _summary_json(self.all),
            "kinds": {summary.name: _summary_json(summary) for summary in self.kinds},
            "classes": {summary.name: _summary_json(summary) for summary in self.classes},
            "class_mean": None if self.class_mean is None else _metrics_json(self.class_mean),
            "images": [
                {
                    "id": row.id,
                    "kind": row.kind,
                    "counts": _counts_json(row.tally),
                    **_metrics_json(row.metrics),
                }
                for row in self.images
            ],
        }


def _table_row(summary: Summary) -> tuple[str, ...]:
    mean, pooled, total = summary.mean, summary.pooled, summary.tally
    at_half, at_three_quarters = (mean.ap[THRESHOLDS.index(t)] for t in (0.5, 0.75))
    means = (at_half, at_three_quarters, mean.mean_ap)
    ratios = (*means, pooled.f1, pooled.pq, pooled.aji, pooled.dice)
    wrong = (total.counts[0].missed, total.counts[0].false, total.merged, total.split)
    return (
        summary.name,
        str(summary.images),
        str(total.truths),
        *(f"{ratio:.3f}" for ratio in ratios),
        *map(str, wrong),
    )


def _summary_json(summary: Summary) -> dict[str, Any]:
    return {
        "images": summary.images,
        "counts": _counts_json(summary.tally),
        "mean": _metrics_json(summary.mean),
        "pooled": _metrics_json(summary.pooled),
        "mean_ap_interval": [known(end) for end in summary.mean_ap_interval],
    }


def _counts_json(total: Tally) -> dict[str, int]:
    at_half = total.counts[0]
    return {
        "objects": total.truths,
        "predicted": total.predictions,
        "matched": at_half.matched,
        "missed": at_half.missed,
        "false": at_half.false,
        "merged": total.merged,
        "split": total.split,
    }


def _metrics_json(metrics: Metrics) -> dict[str, Any]:
    ratios = {field.name: getattr(metrics, field.name) for field in fields(Metrics)}
    ratios["ap"] = [known(ap) for ap in metrics.ap]
    return {name: known(v) if isinstance(v, float) else v for name, v in ratios.items()}


def nothing(name: str) -> Summary:
    """Return the summary of no image, whose ratios are not known."""
    unknown = Metrics(
        ap=(math.nan,) * len(THRESHOLDS),
        **{field.name: math.nan for field in fields(Metrics) if field.name != "ap"},
    )
    return Summary(name, 0, Tally(), unknown, unknown, (math.nan, math.nan))
