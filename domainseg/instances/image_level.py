"""Images ranked by how likely they hold a defect.

The score of an image is the largest quantum of its pixels, or the largest score of its
objects, 0 without any. The two answer differently: the first looks below the thresholds of
the recipe, the second at what would be reported. Ignored pixels do not count.

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
        probability: largest foreground probability, None where there are no maps.
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
) -> ImageScore:
    """Return the scores of an image; ``foreground`` is ``(L, H, W)`` quanta."""
    largest = None
    if foreground is not None:
        seen = foreground if ignore is None else foreground[:, ~ignore]
        # A probability rises with its quantum, so the largest quantum is enough.
        quantum = int(seen.max(initial=0))
        largest = float(probability(np.array([quantum], np.uint8))[0])
    return ImageScore(id_, defect, largest, float(predicted.scores.max(initial=0.0)))


@dataclass(frozen=True, slots=True)
class ImageLevel:
    """Images with and without defects, ranked.

    Attributes:
        images: one per image, sorted by id.
        by_probability: ranking of the images with maps.
        by_object: ranking of all of them.
    """

    images: tuple[ImageScore, ...]
    by_probability: Ranking
    by_object: Ranking

    @property
    def defect(self) -> int:
        """Number of images with a defect."""
        return sum(one.defect for one in self.images)

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the header and the rows of a plain table; a ranking of nothing is left out."""
        good = len(self.images) - self.defect
        rankings = {"largest probability": self.by_probability, "best object": self.by_object}
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


def summarise_images(images: Sequence[ImageScore]) -> ImageLevel:
    """Return the ranking of images; their order does not matter."""
    rows = tuple(sorted(images, key=lambda one: one.id))
    mapped = [one for one in rows if one.probability is not None]
    return ImageLevel(
        images=rows,
        by_probability=_ranking([(one.defect, one.probability or 0.0) for one in mapped]),
        by_object=_ranking([(one.defect, one.object_score) for one in rows]),
    )


def _ranking(scored: Sequence[tuple[bool, float]]) -> Ranking:
    good = np.array([score for defect, score in scored if not defect])
    return Ranking.of_scores(good, np.array([score for defect, score in scored if defect]))


def _ranking_json(ranking: Ranking) -> dict[str, Any]:
    return {"auroc": known(ranking.auroc), "average_precision": known(ranking.average_precision)}
