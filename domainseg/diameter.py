"""How large the objects of an image are, found by looking at it at several scales.

A network finds objects best at the sizes that it was trained on. At every scale windows are
segmented; the median diameter of what is found there is believed the more, the surer the
network is of its pixels, and the nearer it is to the middle of the sizes of the training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from domainseg.errors import UsageError, sentence
from domainseg.images.normalise import Range
from domainseg.images.regions import Inspected
from domainseg.images.windows import inspected_windows
from domainseg.instances.basins import Decoded, decode
from domainseg.model_plane import ModelPlane, model_plane
from domainseg.models.model_file import ModelCard
from domainseg.outside import Found, Outside, scales_images, sizes_seen
from domainseg.records import Sample
from domainseg.segmenter import Segmenter, decode_options
from domainseg.tiling.forward import forward_maps

SCALES = (1.0, 2.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""Pixels that the network sees for one of the image."""
WINDOWS = 9
WINDOW_PX = 256
LEAST_PX = 48
"""Shorter side of an image at a scale; smaller ones are left out."""
FEWEST = 3
"""Objects that a median takes."""
DOUBT = 0.05
"""Of the mean probability, for each factor of two away from the middle of the sizes."""
_UNIT = 100.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What is found at one scale.

    Attributes:
        scale: pixels that the network sees for one of the image.
        objects: number of objects.
        diameter_px: their median, px of the image.
        score: mean probability of their pixels.
    """

    scale: float
    objects: int
    diameter_px: float
    score: float

    def belief(self, middle_px: float) -> float:
        """Return how far the reading is believed, with sizes of the training around a middle."""
        away = abs(math.log2(self.diameter_px * self.scale / middle_px))
        return self.score - DOUBT * away


def estimate_diameter(
    segmenter: Segmenter,
    card: ModelCard,
    sample: Sample,
    *,
    intensity: Range | None = None,
    area: Inspected | None = None,
) -> float | None:
    """Return the median diameter of an image's objects, px of the image, to three digits.

    None where too few are found at every scale. ``intensity`` is the range of the image's group,
    ``area`` what of the image is inspected.

    Raises:
        InputError: the image does not fit the model.
        UsageError: the model draws no maps, or does not know what sizes it was trained on.
    """
    sizes = sizes_seen(card)
    if sizes is None or segmenter.detector is not None:
        raise UsageError(
            sentence(
                "--diameter-px",
                found="auto, for a model that cannot measure it",
                wanted="one that draws maps and knows the sizes of its training",
                fix="give the diameter as a number",
            )
        )
    found = diameter_readings(segmenter, sample, intensity=intensity, area=area)
    if not found:
        return None
    best = max(found, key=lambda one: one.belief(sizes.middle))
    return float(f"{best.diameter_px:.3g}")


def compared(
    segmenter: Segmenter,
    card: ModelCard,
    sample: Sample,
    plane: ModelPlane,
    found: Found,
    *,
    area: Inspected | None,
    probe: bool = True,
    fix: str | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Return how an image and its objects compare with the training's (`Outside.judged`).

    ``found`` are its objects. Where their sizes are doubtful, these are measured at other scales,
    unless ``probe`` forbids it, as the size was given or measured before, the model would not scale
    the image or it finds objects one by one.
    ``fix`` is what to do about other sizes, where scaling the image is asked for in another way.
    """
    recipe = segmenter.recipe
    outside, probed = Outside.of(card, recipe, plane, area), None
    scales = scales_images(recipe, card)
    if fix is not None and scales:
        outside = replace(outside, fix=fix)
    looked = probe and found.doubtful and segmenter.detector is None and scales
    if looked:
        probed = estimate_diameter(segmenter, card, sample, intensity=plane.intensity, area=area)
    return outside.judged(found, plane.grid.scale_yx, probed, probed=looked or not probe)


def diameter_readings(
    segmenter: Segmenter,
    sample: Sample,
    *,
    intensity: Range | None = None,
    area: Inspected | None = None,
) -> tuple[Reading, ...]:
    """Return what is found at each scale at which there are enough objects.

    The range of intensities is measured once, whatever the scale.
    """
    alone = replace(segmenter, engine=replace(segmenter.make_maps, symmetries=1))
    readings = []
    for scale in SCALES:
        data = segmenter.recipe.data.model_copy(update={"diameter_px": scale * _UNIT})
        recipe = segmenter.recipe.model_copy(update={"data": data})
        plane = model_plane(
            recipe,
            sample,
            diameter_px=_UNIT,
            intensity=intensity,
            threads=torch.get_num_threads(),
        )
        intensity = plane.intensity
        if scale != 1 and min(plane.shape[1:]) < LEAST_PX:
            continue
        made = _reading(replace(alone, recipe=recipe), plane, scale, area)
        if made is not None:
            readings.append(made)
    return tuple(readings)


def _reading(
    segmenter: Segmenter, plane: ModelPlane, scale: float, area: Inspected | None
) -> Reading | None:
    options = decode_options(segmenter.recipe, segmenter.classes)
    diameters, scores = [], []
    for rows, columns in inspected_windows(plane.grid, area, most=WINDOWS, side=WINDOW_PX):
        pixels = plane[:, rows, columns]
        maps = forward_maps(segmenter.make_maps, pixels, segmenter.lattice)
        if area is not None:
            box = ((rows.start, columns.start), (rows.stop, columns.stop))
            maps = maps.within(area.on_grid(plane.grid, box))
        made = decode(maps, options)
        inside = _inside(made, pixels.shape[1:])
        diameters.append(np.sqrt(4 / np.pi * made.areas_px[inside]))
        scores.append(made.scores[inside])
    every = np.concatenate(diameters)
    if len(every) < FEWEST:
        return None
    score = np.average(np.concatenate(scores), weights=every**2)
    return Reading(scale, len(every), float(np.median(every)) / scale, float(score))


def _inside(made: Decoded, shape: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which objects do not touch the border of a window."""
    boxes = made.boxes
    return np.asarray((boxes[:, 0] > 0).all(1) & (boxes[:, 1] < np.array(shape)).all(1))
