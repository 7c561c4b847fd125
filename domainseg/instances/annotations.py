"""Objects as entries of a COCO annotation or result file, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.instances.encode import Rle, decode_rle, encode_rle, read_segmentation
from domainseg.records import Instances


@dataclass(frozen=True, slots=True)
class Annotation:
    """One entry of ``annotations`` in a COCO file, or of a list of COCO results.

    Attributes:
        id: unique within the file; None in results, which carry none.
        image_id: the image's id in the file.
        category_id: the category's id in the file, not the class index.
        segmentation: the pixels; polygons are rasterised by pycocotools when read.
        area: px; COCO states the polygon's, which need not be a whole number.
        bbox: ``(x, y, width, height)``, px.
        iscrowd: a region of objects nobody told apart: to be ignored, not matched.
        score: confidence of a result, None in truth.
    """

    id: int | None
    image_id: int
    category_id: int
    segmentation: Rle
    area: float
    bbox: tuple[float, float, float, float]
    iscrowd: bool = False
    score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry with COCO's keys; ``id`` and ``score`` only where they are known."""
        named = {} if self.id is None else {"id": self.id}
        scored = {} if self.score is None else {"score": self.score}
        return {
            **named,
            "image_id": self.image_id,
            "category_id": self.category_id,
            "segmentation": self.segmentation.to_dict(),
            "area": self.area,
            "bbox": list(self.bbox),
            "iscrowd": int(self.iscrowd),
            **scored,
        }

    @classmethod
    def from_dict(
        cls, entry: Mapping[str, Any], *, shape: tuple[int, int], where: object = "annotation"
    ) -> Annotation:
        """Return the annotation of a COCO entry on an image of ``shape`` (H, W).

        Polygons, uncompressed and compressed RLE are read. ``area`` and ``bbox``
        are taken from the pixels where the entry has none; ``where`` begins the
        error's sentence.

        Raises:
            InputError: for a missing key, a malformed segmentation, or another size.
        """
        name = f"{where} {entry['id']}" if "id" in entry else str(where)
        for key in ("image_id", "category_id", "segmentation"):
            if key not in entry:
                raise InputError(
                    sentence(
                        name,
                        found=f"no {key}",
                        wanted="image_id, category_id and segmentation",
                        fix="hand over a COCO file of instances",
                    )
                )
        rle = read_segmentation(entry["segmentation"], shape=shape, where=name)
        x, y, width, height = entry.get("bbox") or rle.bbox()
        score = entry.get("score")
        return cls(
            id=int(entry["id"]) if "id" in entry else None,
            image_id=int(entry["image_id"]),
            category_id=int(entry["category_id"]),
            segmentation=rle,
            area=float(entry.get("area", rle.area_px())),
            bbox=(float(x), float(y), float(width), float(height)),
            iscrowd=bool(entry.get("iscrowd", 0)),
            score=None if score is None else float(score),
        )


def annotations_of(
    instances: Instances,
    *,
    image_id: int,
    category_ids: Sequence[int],
    first_id: int | None = None,
    scored: bool = False,
) -> list[Annotation]:
    """Return one COCO annotation per object; class index i becomes ``category_ids[i]``.

    Annotation ids are the objects' own, or count from ``first_id``, since a COCO
    file wants them unique over all its images. ``scored`` adds the scores. COCO
    has no place for ``parents``.

    Raises:
        InputError: for an image of 2**32 pixels or more.
    """
    ids = instances.ids if first_id is None else first_id + np.arange(len(instances))
    corners = instances.boxes.astype(float)
    sizes = corners[:, 1] - corners[:, 0]
    areas = instances.areas_px()
    return [
        Annotation(
            id=int(ids[row]),
            image_id=image_id,
            category_id=category_ids[int(instances.classes[row])],
            segmentation=rle,
            area=float(areas[row]),
            bbox=(corners[row, 0, 1], corners[row, 0, 0], sizes[row, 1], sizes[row, 0]),
            score=float(instances.scores[row]) if scored else None,
        )
        for row, rle in enumerate(encode_rle(instances))
    ]


def instances_of(
    annotations: Sequence[Annotation], *, shape: tuple[int, int], category_ids: Sequence[int]
) -> Instances:
    """Return the objects of one image; crowd regions are left to `crowd_mask`.

    Category ``category_ids[i]`` becomes class index i. Ids are the annotations',
    or count from 1 where one has none; a missing score is 1.

    Raises:
        InputError: for a category that is not listed, an object without a pixel,
            or a segmentation of another size.
    """
    objects = [one for one in annotations if not one.iscrowd]
    index = {category: number for number, category in enumerate(category_ids)}
    for one in objects:
        if one.category_id not in index:
            raise InputError(
                sentence(
                    f"annotation {one.id}",
                    found=f"category {one.category_id}",
                    wanted="one of " + ", ".join(map(str, category_ids)),
                    fix="name the category or leave its annotations out",
                )
            )
    ids = [one.id for one in objects if one.id is not None]
    return decode_rle(
        [one.segmentation for one in objects],
        shape=shape,
        ids=ids if len(ids) == len(objects) else None,
        classes=[index[one.category_id] for one in objects],
        scores=[1.0 if one.score is None else one.score for one in objects],
    )


def crowd_mask(annotations: Sequence[Annotation], *, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return bool ``(H, W)``, True inside any crowd region: the ignore mask of the image."""
    mask = np.zeros(shape, bool)
    for one in annotations:
        if one.iscrowd:
            mask |= one.segmentation.to_mask()
    return mask
