"""Whether an image and its objects are like those that a model was trained on.

What is asked is simple and documented (`images.appearance`, and the median diameter of objects):
it finds what is inverted, overexposed, empty, noisy, of another stain or of another scale. An
image that passes may still be unlike in what objects are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from domainseg.images.appearance import FEATURES, MOST_WINDOWS, WINDOW_PX, Looks, appearance
from domainseg.images.regions import Inspected
from domainseg.images.windows import inspected_windows
from domainseg.model_plane import ModelPlane
from domainseg.models.model_file import ModelCard
from domainseg.recipe import Recipe
from domainseg.training.prepared import Prepared

QUANTILES = (0.005, 0.05, 0.5, 0.95, 0.995)
"""Of the median diameter of the objects of each training image, over the images."""
BEYOND = 1.25
"""So many times beyond the outer ones objects are unlike the training's."""
FEWEST_OBJECTS = 5
"""Of fewer objects the median says nothing."""
DOUBTED_SCORE = 0.88
"""Mean score of objects below which their size is looked at again, at other scales: a network that
finds parts of large objects, or clumps of small ones, is less sure of them."""
DIAMETER = "eq_diameter_px"
SCORE = "score"
RECORD_KEY = "training"
"""Of a run's record: how its image and objects compare with those of the training."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Median diameters of the objects of training images, px of the model grid.

    Attributes:
        low, high: all images but a hundredth lie between them.
        usual_low, usual_high: nine of ten images do.
        middle: half of the images are below.
    """

    low: float
    usual_low: float
    middle: float
    usual_high: float
    high: float

    def target(self, diameter_px: float) -> float:
        """Return the diameter that objects of this one are to have, to be like the training's."""
        if self.low <= diameter_px <= self.high:
            return diameter_px
        return min(max(diameter_px, self.usual_low), self.usual_high)

    def include(self, diameter_px: float) -> bool:
        """Return whether objects of a diameter are like those of the training."""
        return self.low / BEYOND <= diameter_px <= self.high * BEYOND


def sizes_seen(card: ModelCard) -> Sizes | None:
    """Return what a model's card says of the sizes of its training; None where it does not."""
    known = card.seen.get("diameters_px")
    return None if known is None else Sizes(*(float(one) for one in known))


def looks_of(
    recipe: Recipe, plane: ModelPlane, area: Inspected | None = None
) -> NDArray[np.float64] | None:
    """Return how an image looks, float64 ``(8,)``; None of wafer maps, which show no light.

    With ``area`` only windows are looked at whose middle is inspected.
    """
    if recipe.data.channels == "die_map":
        return None

    return appearance(plane, inspected_windows(plane.grid, area, most=MOST_WINDOWS, side=WINDOW_PX))


def seen_in_training(images: Sequence[Prepared]) -> dict[str, Any]:
    """Return how training images look and how large their objects are, as plain values."""
    seen: dict[str, Any] = {}
    known = [(image.looks, image.kind) for image in images if image.looks is not None]
    looks = Looks.of([one for one, _ in known], [kind for _, kind in known])
    if looks is not None:
        seen["looks"] = looks.to_json()
    areas = [np.median(image.areas_px) for image in images if len(image.areas_px)]
    if areas:
        found = np.quantile(np.sqrt(4 / np.pi * np.array(areas)), QUANTILES)
        seen["diameters_px"] = [round(float(one), 2) for one in found]
    return seen


def scales_images(recipe: Recipe, card: ModelCard) -> bool:
    """Return whether a model takes images as they are and knows sizes it was trained on.

    A wafer map is never scaled, as its pixels are dies, and neither is what is searched for
    defects, which have all sizes.
    """
    data = recipe.data
    fixed = (data.diameter_px, data.spacing_um, data.size_px)
    return _judges_sizes(recipe) and sizes_seen(card) is not None and fixed == (None, None, None)


def _judges_sizes(recipe: Recipe) -> bool:
    """Return whether the sizes of a model's objects say anything of an image."""
    return recipe.data.channels != "die_map" and not recipe.evaluate.defects


def at_diameter(recipe: Recipe, card: ModelCard, diameter_px: float | None) -> Recipe:
    """Return a model's recipe for an image whose objects have this median diameter, px of it.

    A model that works at a diameter is as it is. One that takes images as they are scales those
    whose objects are beyond the sizes of its training, to the sizes of nine of ten images there.
    """
    sizes = sizes_seen(card)
    if diameter_px is None or sizes is None or not scales_images(recipe, card):
        return recipe
    data = recipe.data.model_copy(update={"diameter_px": sizes.target(diameter_px)})
    return recipe.model_copy(update={"data": data})


@dataclass(frozen=True, slots=True)
class Found:
    """What of an image's objects says whether they are as the training's.

    Attributes:
        median_px: median diameter, px of the image; None of fewer than `FEWEST_OBJECTS`.
        doubtful: whether they are too few, or the network too unsure of them, to believe it.
    """

    median_px: float | None
    doubtful: bool

    @classmethod
    def of(cls, diameters_px: NDArray[np.floating], scores: NDArray[np.floating]) -> Found:
        """Return what objects say by their diameters, px of the image, and scores."""
        if len(diameters_px) < FEWEST_OBJECTS:
            return cls(None, True)
        return cls(float(np.median(diameters_px)), float(np.mean(scores)) < DOUBTED_SCORE)

    @classmethod
    def in_table(cls, table: Path) -> Found:
        """Return what the objects of a run's table say."""
        read = pq.read_table(table, columns=[DIAMETER, SCORE])
        return cls.of(read[DIAMETER].to_numpy(), read[SCORE].to_numpy())


@dataclass(frozen=True, slots=True)
class Outside:
    """How far an image lies outside of what a model was trained on.

    Attributes:
        numbers: how it looks, by name; empty where that is not asked.
        compared: whether the model's file says how the images of its training looked.
        unlike: what is said where it looks unlike the training's images.
        sizes: of the objects of the training; None where they are not known, of defects, which have
            all sizes, and of wafer maps.
        fix: what is said to do about objects of other sizes.
    """

    numbers: Mapping[str, float]
    compared: bool
    unlike: str | None
    sizes: Sizes | None
    fix: str

    @classmethod
    def of(
        cls, card: ModelCard, recipe: Recipe, plane: ModelPlane, area: Inspected | None
    ) -> Outside:
        """Return how an image compares with those of a model's training."""
        numbers = looks_of(recipe, plane, area)
        known = Looks.from_json(card.seen.get("looks", {}))
        why = None if numbers is None or known is None else known.unlike(numbers)
        shown = (
            {} if numbers is None else dict(zip(FEATURES, numbers.round(5).tolist(), strict=True))
        )
        told = None if why is None else why.text()
        sizes = sizes_seen(card) if _judges_sizes(recipe) else None
        return cls(shown, known is not None, told, sizes, _fix(recipe, card))

    def judged(
        self,
        found: Found,
        scale_yx: tuple[float, float],
        probed_px: float | None = None,
        *,
        probed: bool = False,
    ) -> tuple[dict[str, Any], list[str]]:
        """Return what the record says with the objects found, and the sentences to say.

        ``scale_yx`` leads from the image to the model grid; ``probed`` is whether the size was
        given or looked for at other scales, and ``probed_px`` the diameter that was measured there,
        px of the image, None where too few objects were found at every scale.
        """
        sizes = self.sizes
        record = {
            "looks": dict(self.numbers),
            "compared": self.compared,
            "unlike": self.unlike,
            "fix": self.fix,
            "diameters_px": None if sizes is None else [sizes.low, sizes.high],
            "probed": probed,
            "probed_diameter_px": probed_px,
        }
        record |= _sized(record, found, scale_yx)
        return {RECORD_KEY: record}, said_of(record)


def said_of(record: Mapping[str, Any]) -> list[str]:
    """Return the sentences in what a run's record says of the training."""
    return [text for text in (record["unlike"], record["size"]) if text is not None]


def judged_again(
    record: Mapping[str, Any], found: Found, scale_yx: tuple[float, float]
) -> dict[str, Any]:
    """Return what a run's record says of the training, for other objects.

    Without the network nothing is measured anew: a diameter measured at other scales still holds
    where the objects are doubtful, and is not asked for where they are not.
    """
    return {**record, **_sized(record, found, scale_yx)}


def _sized(
    record: Mapping[str, Any], found: Found, scale_yx: tuple[float, float]
) -> dict[str, Any]:
    """Return the median diameter of objects on the model grid, and what is said of sizes."""
    scale = float(np.sqrt(scale_yx[0] * scale_yx[1]))
    bounds, probed = record["diameters_px"], record.get("probed_diameter_px")
    median = None if found.median_px is None else round(found.median_px * scale, 3)
    size = None
    if bounds is not None:
        known = f"those of its training images {bounds[0]:.3g} to {bounds[1]:.3g} px"
        if found.doubtful and probed is not None:
            if _beyond(probed * scale, bounds):
                seen = f"at other scales the objects look {probed * scale:.3g} px across"
                size = f"{seen}, {known}; {record['fix']}"
        elif median is not None and _beyond(median, bounds):
            seen = f"the objects are {median:.3g} px across in the median as the model sees them"
            size = f"{seen}, {known}; {record['fix']}"
    return {"median_diameter_px": median, "size": size}


def _beyond(diameter_px: float, bounds: Sequence[float]) -> bool:
    low, high = bounds
    return not low / BEYOND <= diameter_px <= high * BEYOND


def _fix(recipe: Recipe, card: ModelCard) -> str:
    """Return what to do about objects of other sizes than those of the training."""
    if scales_images(recipe, card):
        return "--diameter-px auto scales the image"
    if recipe.data.diameter_px is not None:
        return "check --diameter-px"
    if recipe.data.spacing_um is not None:
        return "check --spacing-um"
    return "look at the outlines"
