"""Objects and regions as one panoptic segmentation: every pixel in one segment or in none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from domainseg.gathering import Gathered
from domainseg.instances.panoptic_quality import Panoptic
from domainseg.instances.shared_pixels import areas_of
from domainseg.loaders.coco_images import Category
from domainseg.loaders.coco_panoptic import ids_of
from domainseg.loaders.coco_write import PanopticImage, Segment, write_panoptic
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.run_files import PANOPTIC, PANOPTIC_PNGS


def merged(found: Gathered, head: PanopticHead) -> Panoptic | None:
    """Return the segments of an image, None where its model draws no regions.

    As Kirillov et al. 2019 (Panoptic Segmentation, section 7): objects by falling score, each
    with the pixels that no better one has, and dropped where less than
    ``head.visible_share`` of it is left; then the regions with what no object has, each class
    with fewer than ``head.least_region_px`` dropped. What is left is void.
    """
    if found.regions is None:
        return None
    plane = np.zeros(found.regions.shape, np.int32)
    classes: list[int] = []
    objects = found.objects.objects
    areas = areas_of(objects)
    for i in np.argsort(-found.objects.scores, kind="stable").tolist():
        runs = objects.runs[objects.offsets[i] : objects.offsets[i + 1]]
        free = [plane[y, x : x + n] == 0 for y, x, n in runs.tolist()]
        left = sum(int(np.count_nonzero(one)) for one in free)
        if left == 0 or left < head.visible_share * areas[i]:
            continue
        classes.append(int(found.objects.classes[i]))
        for (y, x, n), one in zip(runs.tolist(), free, strict=True):
            plane[y, x : x + n][one] = len(classes)
    regions = np.where(plane == 0, found.regions, 0)
    for value, count in zip(*np.unique(regions[regions > 0], return_counts=True), strict=True):
        if count >= head.least_region_px:
            classes.append(int(value) - 1)
            plane[regions == value] = len(classes)
    numbers = np.arange(1, len(classes) + 1, dtype=np.int64)
    crowd = np.zeros(len(classes), bool)
    return Panoptic(plane, numbers, np.array(classes, np.int16), crowd)


def write_merged(
    folder: Path, image: str, segments: Panoptic, classes: Sequence[str], head: PanopticHead
) -> None:
    """Write a panoptic segmentation as COCO's JSON and PNG into the folder of a run.

    Category ids are class indices from 1, as in the run's other COCO file.

    Raises:
        OutputError: a file cannot be written.
    """
    stuff = set(head.stuff or ())
    categories = [
        Category(number, name, isthing=name not in stuff)
        for number, name in enumerate(classes, start=1)
    ]
    listed = [
        Segment(int(number), int(kind) + 1)
        for number, kind in zip(segments.ids, segments.classes, strict=True)
    ]
    one = PanopticImage(1, image, segments.plane, listed)
    write_panoptic(folder / PANOPTIC, folder / PANOPTIC_PNGS, [one], categories=categories)


def read_merged(folder: Path) -> Panoptic | None:
    """Return what `write_merged` wrote into the folder of a run, None where there is none."""
    path = folder / PANOPTIC
    if not path.is_file():
        return None
    (told,) = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    with Picture.open(folder / PANOPTIC_PNGS / told["file_name"]) as picture:
        plane = ids_of(np.asarray(picture).transpose(2, 0, 1))
    segments = told["segments_info"]
    return Panoptic(
        plane,
        np.array([one["id"] for one in segments], np.int64),
        np.array([one["category_id"] - 1 for one in segments], np.int16),
        np.zeros(len(segments), bool),
    )
