"""What tiles change for a model that finds objects one by one: other objects, or doubled ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.gathering import gather, object_rules
from domainseg.images.resample import Grid
from domainseg.instances.matching import match
from domainseg.instances.overlaps import overlap_instances
from domainseg.instances.runs import ObjectRuns
from domainseg.instances.shared_pixels import areas_of, find_shared
from domainseg.records import Instances
from domainseg.segmenter import Segmenter
from domainseg.tiling.detecting import Detector, detect_windows
from domainseg.tiling.grid import Lattice
from domainseg.tiling.sensitivity import SETTING_HEADER, Setting, threads

SAME_IOU = 0.9
"""IoU from which on an object is taken to be the same."""
LEAST_F1 = 0.99
"""Of objects at `SAME_IOU`, against those of one window over all."""
DOUBLED_IOU = 0.5
"""IoU above which two objects of one class are one that was found twice."""
WHOLE_MPX = 6.0
"""Largest image that goes through a detector in one window, Mpx: its pyramid takes memory."""
HEADER = (
    *SETTING_HEADER,
    "objects",
    "F1 at IoU .9",
    "doubled",
    "across seams",
    "united",
    "within",
)


@dataclass(frozen=True, slots=True)
class ObjectReading:
    """What one setting changes against one window over all.

    Attributes:
        setting: the setting.
        objects: number of objects.
        f1: of these at IoU 0.9.
        doubled: pairs of one class with an IoU above 0.5.
        seams: objects that reach into more than one core.
        united: of these, put together of parts.
    """

    setting: Setting
    objects: int
    f1: float
    doubled: int
    seams: int
    united: int

    @property
    def within(self) -> bool:
        """Whether the objects are the same, but for one in a hundred, and none is doubled."""
        return self.f1 >= LEAST_F1 and self.doubled == 0

    def row(self) -> tuple[str, ...]:
        """Return the reading as a row of the table."""
        return (
            *self.setting.columns(),
            str(self.objects),
            f"{self.f1:.4f}",
            str(self.doubled),
            str(self.seams),
            str(self.united),
            ("yes" if self.within else "NO") if self.setting.judged else "-",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the reading as plain values."""
        return {
            **self.setting.to_json(),
            "objects": self.objects,
            "f1": self.f1,
            "doubled": self.doubled,
            "seams": self.seams,
            "united": self.united,
            "within": self.within if self.setting.judged else None,
        }


@dataclass(frozen=True, slots=True)
class ObjectsCompared:
    """What settings change in the objects that are found one by one in an image.

    Attributes:
        shape: ``(H, W)`` of the image.
        objects: number of objects in one window over all of it.
        readings: one for each setting.
        precision: ``fp32`` or ``bf16``, as it was run.
    """

    shape: tuple[int, int]
    objects: int
    readings: tuple[ObjectReading, ...]
    precision: str

    @property
    def beyond(self) -> tuple[ObjectReading, ...]:
        """The readings of judged settings that find other objects."""
        return tuple(one for one in self.readings if one.setting.judged and not one.within)

    @property
    def passed(self) -> bool:
        """Whether every setting of the model's own tiles finds the same objects."""
        return not self.beyond

    def worst(self) -> tuple[int, Setting, str, str]:
        """Return how many settings show, the worst, how far it goes, and what was wanted."""
        worst = min(self.beyond, key=lambda one: one.f1)
        return (
            len(self.beyond),
            worst.setting,
            f"F1 {worst.f1:.4f}, {worst.doubled} objects doubled",
            f"at least {LEAST_F1} at IoU {SAME_IOU}, and none doubled",
        )

    def summary(self) -> str:
        """Return what the settings are compared with."""
        height, width = self.shape
        return (
            f"against one window of {height} x {width} px with {self.objects} objects, "
            f"{self.precision}"
        )

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return header and one row for each setting."""
        return HEADER, tuple(one.row() for one in self.readings)

    def to_json(self) -> dict[str, Any]:
        """Return every figure as plain values."""
        return {
            "objects": self.objects,
            "tolerance": {"f1": LEAST_F1, "iou": SAME_IOU, "doubled": 0},
            "readings": [one.to_json() for one in self.readings],
        }

    def limits(self) -> tuple[str, ...]:
        """Return what the verdict does not cover: nothing."""
        return ()


def compare_objects(
    segmenter: Segmenter,
    pixels: NDArray[np.float32],
    settings: Sequence[Setting],
    *,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> ObjectsCompared:
    """Return what each setting changes in the objects of ``(C, H, W)``.

    Blends are left out: there are no scores of pixels to average.
    """
    detector = segmenter.detector
    assert detector is not None
    tried = [one for one in settings if one.method != "blend"]
    tell(0, len(tried) + 1)
    whole = replace(segmenter.lattice, core_px=_covering(pixels.shape[1:], segmenter.lattice))
    wanted, _, _ = _found(segmenter, detector, pixels, Setting("tiles", whole))
    readings = []
    for done, setting in enumerate(tried, start=1):
        tell(done, len(tried) + 1)
        with threads(setting.threads):
            found, seams, united = _found(segmenter, detector, pixels, setting)
        f1 = match(overlap_instances(wanted, found), threshold=SAME_IOU).counts.f1
        readings.append(ObjectReading(setting, len(found), f1, count_doubled(found), seams, united))
    tell(len(tried) + 1, len(tried) + 1)
    shape = (pixels.shape[1], pixels.shape[2])
    return ObjectsCompared(shape, len(wanted), tuple(readings), detector.precision)


def _covering(shape: Sequence[int], lattice: Lattice) -> int:
    return -(-max(shape) // lattice.stride_px) * lattice.stride_px


def _found(
    segmenter: Segmenter, detector: Detector, pixels: NDArray[np.float32], setting: Setting
) -> tuple[Instances, int, int]:
    """Return the objects, and how many lie on seams and were put together."""
    size = (pixels.shape[1], pixels.shape[2])
    made = gather(
        detect_windows(detector, pixels, setting.lattice, offset=setting.offset),
        object_rules(segmenter.recipe, segmenter.classes),
        grid=Grid((1.0, 1.0), size, size),
    )
    found = made.objects
    objects = Instances(
        ids=found.objects.ids,
        boxes=found.boxes,
        runs=found.objects.runs,
        offsets=found.objects.offsets,
        classes=found.classes,
        scores=found.scores,
        shape=found.objects.shape,
    )
    return objects, made.seams, made.united


def count_doubled(objects: Instances) -> int:
    """Return the pairs of objects of one class with an IoU above `DOUBLED_IOU`."""
    runs = ObjectRuns(objects.ids, objects.runs, objects.offsets, objects.shape)
    shared = find_shared(runs)
    areas = areas_of(runs)[shared.pairs].sum(1) - shared.areas_px
    one, other = objects.classes[shared.pairs].T
    twice = (shared.areas_px > DOUBLED_IOU * areas) & (one == other)
    return int(np.count_nonzero(twice))
