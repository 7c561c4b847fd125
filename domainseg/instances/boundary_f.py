"""How well outlines agree, within a tolerance.

A pixel is on the **boundary** of a mask when it is inside and one of its four neighbours is
not; what lies beyond the image continues its border, and makes no boundary. **Precision** is
the share of predicted boundary pixels with a true one within the tolerance, **recall** the
share of true ones with a predicted one, and **F** = 2 P R / (P + R) (Martin, Fowlkes and
Malik, IEEE TPAMI 26(5), 2004). As in DAVIS (Perazzi et al., CVPR 2016) a pixel may serve
several, where Martin et al. assign them one to one; and the default tolerance is theirs,
.0075 of the image's diagonal, rounded up to whole pixels.

The masks are the unions of the objects of all classes. Boundary pixels that are ignored
count on neither side. Where both sides have none every ratio is 1, where one has none 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]
SHARE_OF_DIAGONAL = 0.0075
"""Default tolerance, as in DAVIS."""


@dataclass(frozen=True, slots=True)
class BoundaryCounts:
    """Boundary pixels of a prediction and of truth, and those of each near the other.

    They add up over images; the ratios of the sum are the pooled ratios.
    """

    predicted: int = 0
    predicted_near: int = 0
    truth: int = 0
    truth_near: int = 0

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(
            self.predicted + other.predicted,
            self.predicted_near + other.predicted_near,
            self.truth + other.truth,
            self.truth_near + other.truth_near,
        )

    @property
    def precision(self) -> float:
        """Share of the predicted boundary near the true one."""
        if not self.predicted:
            return 0.0 if self.truth else 1.0
        return self.predicted_near / self.predicted

    @property
    def recall(self) -> float:
        """Share of the true boundary near the predicted one."""
        if not self.truth:
            return 0.0 if self.predicted else 1.0
        return self.truth_near / self.truth

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True, slots=True)
class Boundary:
    """Boundary scores of many images.

    Attributes:
        tolerance_px: what was asked for, None for SHARE_OF_DIAGONAL of each image.
        images: id and counts of each image, sorted by id.
    """

    tolerance_px: float | None
    images: tuple[tuple[str, BoundaryCounts], ...]

    @property
    def drawn(self) -> list[BoundaryCounts]:
        """Counts of the images where either side has a boundary."""
        return [counts for _, counts in self.images if counts.truth or counts.predicted]

    @property
    def pooled(self) -> BoundaryCounts:
        """The sum over the images."""
        return sum((counts for _, counts in self.images), BoundaryCounts())

    def mean(self, ratio: str) -> float:
        """Return the mean of ``precision``, ``recall`` or ``f`` over `drawn`, NaN without any."""
        values = [float(getattr(counts, ratio)) for counts in self.drawn]
        return math.fsum(values) / len(values) if values else math.nan

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the header and the rows of a plain table."""
        stated = "0.75 % of the diagonal"
        if self.tolerance_px is not None:
            stated = f"{self.tolerance_px:g} px"
        count = len(self.drawn)
        mean = [f"{self.mean(name):.3f}" for name in RATIOS] if count else ["n/a"] * 3
        pooled = [f"{getattr(self.pooled, name):.3f}" for name in RATIOS]
        header = (f"boundary within {stated}", "images", "precision", "recall", "F")
        return header, [("mean", str(count), *mean), ("pooled", str(count), *pooled)]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; what is not known is None."""
        means = {name: self.mean(name) for name in RATIOS}
        return {
            "tolerance_px": self.tolerance_px,
            "share_of_diagonal": SHARE_OF_DIAGONAL if self.tolerance_px is None else None,
            "drawn": len(self.drawn),
            "mean": {name: None if math.isnan(value) else value for name, value in means.items()},
            "pooled": {name: getattr(self.pooled, name) for name in RATIOS},
            "images": [
                {"id": name, **{ratio: getattr(counts, ratio) for ratio in RATIOS}}
                for name, counts in self.images
            ],
        }


RATIOS = ("precision", "recall", "f")


def boundary_counts(
    truth: Mask,
    predicted: Mask,
    *,
    tolerance_px: float | None = None,
    ignore: Mask | None = None,
) -> BoundaryCounts:
    """Return the boundary counts of two masks, bool ``(H, W)``.

    ``tolerance_px`` is the largest distance between centres of pixels, SHARE_OF_DIAGONAL of
    the image when None.
    """
    if tolerance_px is None:
        tolerance_px = math.ceil(SHARE_OF_DIAGONAL * math.hypot(*truth.shape))
    ours, theirs = boundary(predicted), boundary(truth)
    counted = np.ones(truth.shape, bool) if ignore is None else ~ignore
    return BoundaryCounts(
        predicted=int(np.count_nonzero(ours & counted)),
        predicted_near=_near(ours & counted, theirs, tolerance_px),
        truth=int(np.count_nonzero(theirs & counted)),
        truth_near=_near(theirs & counted, ours, tolerance_px),
    )


def boundary(mask: Mask) -> Mask:
    """Return the pixels of a mask, bool ``(H, W)``, one of whose four neighbours is outside."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner


def summarise_boundary(
    images: Sequence[tuple[str, BoundaryCounts]], *, tolerance_px: float | None
) -> Boundary:
    """Return the boundary scores of images, ``(id, counts)`` each; their order is free."""
    return Boundary(tolerance_px, tuple(sorted(images, key=lambda one: one[0])))


def _near(asked: Mask, others: Mask, tolerance_px: float) -> int:
    """Return how many of the pixels ``asked`` have one of ``others`` within the tolerance."""
    if not asked.any() or not others.any():
        return 0
    # Time and memory follow the outlines; a distance transform would follow the image, at
    # some 30 bytes a pixel. The bound is open, so a little is added to it.
    tree = cKDTree(np.argwhere(others))
    distance, _ = tree.query(np.argwhere(asked), distance_upper_bound=tolerance_px + 0.5)
    return int(np.count_nonzero(distance <= tolerance_px))
