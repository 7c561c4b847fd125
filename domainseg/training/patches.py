"""Patches drawn so that rare kinds, rare classes and small objects are seen.

Patch number n of a run is a function of (seed, n) alone: neither the number of loader
processes nor an interruption changes what the network is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from domainseg.training.augment import Augmentation
from domainseg.training.prepared import Prepared


@dataclass(frozen=True, slots=True)
class PatchOptions:
    """How patches are drawn.

    Attributes:
        seed: of the run.
        patch_px: side of a patch on the model grid.
        margin: side of the cut-out over ``patch_px``; room for rotation and scaling.
        object_share: share of patches drawn around an object, the others anywhere.
        beyond: what lies past the border of an image: ``mirror`` shows the image again, with
            weight 0; ``zero`` is 0 in every plane.
    """

    seed: int
    patch_px: int
    margin: float = 1.4
    object_share: float = 0.7
    beyond: Literal["mirror", "zero"] = "mirror"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A patch as it was drawn and augmented.

    Attributes:
        image: where it comes from.
        pixels: float32 ``(C, p, p)``.
        others: float32 ``(T + 1, p, p)``, the other planes of the image.
    """

    image: Prepared
    pixels: NDArray[np.float32]
    others: NDArray[np.float32]


def image_weights(images: Sequence[Prepared]) -> NDArray[np.float64]:
    """Return the probability of each image ``(N,)``.

    A kind is drawn in proportion to the square root of the number of its images, so that
    rare kinds are seen. Within a kind an image counts by the square root of its area, and
    more the fewer images hold its rarest class.
    """
    held = Counter(c for image in images for c in set(image.classes.tolist()))
    weights = np.array(
        [
            np.sqrt(image.shape[0] * image.shape[1])
            / np.sqrt(min((held[c] for c in set(image.classes.tolist())), default=len(images)))
            for image in images
        ]
    )
    kinds = np.array([str(image.kind) for image in images])
    for kind in np.unique(kinds):
        members = kinds == kind
        weights[members] *= np.sqrt(np.count_nonzero(members)) / weights[members].sum()
    return np.asarray(weights / weights.sum())


def object_weights(image: Prepared) -> NDArray[np.float64]:
    """Return the probability of each object of an image ``(N,)``: small and rare ones more."""
    held = np.bincount(image.classes, minlength=1)
    weights = image.areas_px**-0.25 / np.sqrt(held[image.classes])
    return np.asarray(weights / weights.sum())


class Patches(Dataset[Any]):
    """Patch number to ``(image (C, p, p), targets (T, p, p), weight (1, p, p))``, float32."""

    def __init__(
        self, images: Sequence[Prepared], options: PatchOptions, augmentation: Augmentation
    ) -> None:
        self.images = tuple(images)
        self.options = options
        self.augmentation = augmentation
        self._cumulative = np.cumsum(image_weights(self.images))
        self._objects = tuple(
            np.cumsum(object_weights(image)) if len(image.areas_px) else None
            for image in self.images
        )

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        drawn = self.drawn(number)
        return (
            torch.from_numpy(drawn.pixels),
            torch.from_numpy(drawn.others[:-1]),
            torch.from_numpy(drawn.others[-1:]),
        )

    def drawn(self, number: int) -> Drawn:
        """Return patch ``number`` as arrays."""
        rng = np.random.Generator(np.random.Philox(key=[self.options.seed, number]))
        index = _draw(self._cumulative, rng)
        image = self.images[index]
        corner = self._corner(image, self._objects[index], rng)
        planes = self._cut(image, corner)
        pixels, others = self.augmentation(
            planes[: image.channels], planes[image.channels :], seed=int(rng.integers(2**31))
        )
        return Drawn(image, pixels, others)

    def _corner(
        self, image: Prepared, objects: NDArray[np.float64] | None, rng: np.random.Generator
    ) -> tuple[int, int]:
        """Return the patch's corner: inside the image where the image is large enough."""
        side = self.options.patch_px
        last = [max(0, size - side) for size in image.shape]
        if objects is not None and rng.random() < self.options.object_share:
            centre = image.centres[_draw(objects, rng)]
            wanted = [int(c) - int(rng.integers(side)) for c in centre]
            return min(max(0, wanted[0]), last[0]), min(max(0, wanted[1]), last[1])
        return int(rng.integers(last[0] + 1)), int(rng.integers(last[1] + 1))

    def _cut(self, image: Prepared, corner: tuple[int, int]) -> NDArray[np.float32]:
        """Return the planes around a patch, beyond the border as `PatchOptions.beyond` says."""
        side = self.options.patch_px
        extra = round(side * (self.options.margin - 1) / 2)
        spans = [np.arange(c - extra, c + side + extra) for c in corner]
        inside = [(s >= 0) & (s < size) for s, size in zip(spans, image.shape, strict=True)]
        rows, columns = (_mirror(s, size) for s, size in zip(spans, image.shape, strict=True))
        mapped = image.planes()
        y0, x0 = rows.min(), columns.min()
        block = np.asarray(mapped[:, y0 : rows.max() + 1, x0 : columns.max() + 1], np.float32)
        planes = block[:, rows - y0][:, :, columns - x0]
        seen = inside[0][:, None] & inside[1][None, :]
        if self.options.beyond == "mirror":
            planes[-1] *= seen
        else:
            planes *= seen
        return np.asarray(planes)


class Numbers(Sampler[int]):
    """The patch numbers of one epoch, in order."""

    def __init__(self, per_epoch: int) -> None:
        self.per_epoch = per_epoch
        self.first = 0

    def begin_at(self, first: int) -> None:
        """Choose the number that the next epoch begins with."""
        self.first = first

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.first + self.per_epoch))


def _draw(cumulative: NDArray[np.float64], rng: np.random.Generator) -> int:
    index = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(min(index, len(cumulative) - 1))


def _mirror(positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    if size == 1:
        return np.zeros_like(positions)
    period = 2 * (size - 1)
    folded = positions % period
    return np.asarray(np.minimum(folded, period - folded))
