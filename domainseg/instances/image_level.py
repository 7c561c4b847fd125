"""Images ranked by how likely they hold a defect.

The score of an image is the mean of the largest probabilities among its pixels, or the
largest score of its objects, 0 without any. The two answer differently: the first looks
below the thresholds of the recipe, the second at what would be reported. The mean is over
about as many pixels as the smallest defect has: the largest alone is that of one noisy
pixel. Ignored pixels do not count.

AUROC and AP are those of `domainseg.instances.ranking`, over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.figures import known, share
from domainseg.instances.ranking import Ranking
from domainseg.records import Instances, probability


@dataclass(frozen=True, slots=True)
class ImageScore:
    """How likely one image holds a defect.

    Attributes:
        id: of the image.
        defect: whether it holds one.
        probability: mean of the largest foreground probabilities, None where there are no
            maps.
        object_score: largest score of an object, 0 without any.
    """

    id: str
    defect: bool
    probability: float | None
    object_score: float


def image_score(
    id_: str,
    predicted: Instances,
    *,
    defect: bool,
    foreground: NDArray[np.uint8] | None = None,
    ignore: NDArray[np.bool_] | None = None,
    pixels: int = 1,
) -> ImageScore:
    """Return the scores of an image; ``foreground`` is ``(L, H, W)`` quanta.

    Of the ``pixels`` largest probabilities, those of the likeliest layer at each pixel, the
    mean is taken.
    """
    largest = None
    if foreground is not None:
        seen = foreground if ignore is None else foreground[:, ~ignore]
        # A probability rises with its quantum: the largest of the one are those of the other.
        counts = np.bincount(seen.max(0, initial=0).ravel(), minlength=256)[::-1]
        taken = np.diff(np.minimum(np.cumsum(counts), pixels), prepend=0)
        quanta = np.arange(255, -1, -1, dtype=np.uint8)
        largest = float(taken @ probability(quanta) / max(int(taken.sum()), 1))
    return ImageScore(id_, defect, largest, float(predicted.scores.max(initial=0.0)))


@dataclass(frozen=True, slots=True)
class ImageLevel:
    """Images with and without defects, ranked.

    Attributes:
        images: one per image, sorted by id.
        by_probability: ranking of the images with maps.
        by_object: ranking of all of them.
        pixels: over how many pixels the probability is the mean.
    """

    images: tuple[ImageScore, ...]
    by_probability: Ranking
    by_object: Ranking
    pixels: int = 1

    @property
    def defect(self) -> int:
        """Number of images with a defect."""
        return sum(one.defect for one in self.images)

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the header and the rows of a plain table; a ranking of nothing is left out."""
        good = len(self.images) - self.defect
        largest = "largest probability"
        if self.pixels > 1:
            largest = f"mean of the {self.pixels} largest probabilities"
        rankings = {largest: self.by_probability, "best object": self.by_object}
        rows = [
            (f"{self.defect} with, {good} without, by {name}", *map(share, ratios))
            for name, one in rankings.items()
            if one.defect.any() and one.good.any()
            for ratios in [(one.auroc, one.average_precision)]
        ]
        return ("images with a defect", "AUROC", "AP"), rows

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; what is not known is None."""
        return {
            "good": len(self.images) - self.defect,
            "defect": self.defect,
            "pixels": self.pixels,
            "by_probability": _ranking_json(self.by_probability),
            "by_object": _ranking_json(self.by_object),
            "images": [
                {
                    "id": one.id,
                    "defect": one.defect,
                    "probability": one.probability,
                    "object_score": one.object_score,
                }
                for one in self.images
            ],
        }


def summarise_images(images: Sequence[ImageScore], *, pixels: int = 1) -> ImageLevel:
    """Return the ranking of images scored over ``pixels`` each; their order does not matter."""
    rows = tuple(sorted(images, key=lambda one: one.id))
    mapped = [one for one in rows if one.probability is not None]
    return ImageLevel(
        images=rows,
        by_probability=_ranking([(one.defect, one.probability or 0.0) for one in mapped]),
        by_object=_ranking([(one.defect, one.object_score) for one in rows]),
        pixels=pixels,
    )


def _ranking(scored: Sequence[tuple[bool, float]]) -> Ranking:
    good = np.array([score for defect, score in scored if not defect])
    return Ranking.of_scores(good, np.array([score for defect, score in scored if defect]))


def _ranking_json(ranking: Ranking) -> dict[str, Any]:
    return {"auroc": known(ranking.auroc), "average_precision": known(ranking.average_precision)}
