"""Images on the model grid with their targets, prepared once and read by region.

Each image becomes one float16 array on disk, so that patches of images larger than
memory cost what the patch costs, and loader processes share the operating system's cache.
Half precision keeps 11 bits of a normalised intensity, more than an 8-bit camera gave.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.atomic import atomic_path
from domainseg.records import Instances


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image ready to be cut into patches.

    Attributes:
        path: ``.npy`` ``(C + T + 1, H, W)``: channels, target planes, weight; float16, or
            float32 where a target counts beyond what half precision holds.
        channels: C.
        shape: ``(H, W)`` on the model grid.
        centres: int64 ``(N, 2)``, a pixel ``(y, x)`` near the middle of each object.
        classes: int16 ``(N,)``.
        areas_px: int64 ``(N,)``.
        sides_px: int64 ``(N,)``, the longer side of each object's box.
        kind: stratum of the image, or None.
        sha256: of the planes.
        looks: how the image looks (`images.appearance`), None where that is not asked.
    """

    path: Path
    channels: int
    shape: tuple[int, int]
    centres: NDArray[np.int64]
    classes: NDArray[np.int16]
    areas_px: NDArray[np.int64]
    sides_px: NDArray[np.int64]
    kind: str | None
    sha256: str
    looks: NDArray[np.float64] | None = None

    def planes(self) -> NDArray[np.float16] | NDArray[np.float32]:
        """Return the array of the file, mapped into memory, not read."""
        mapped: NDArray[np.float16] = np.load(self.path, mmap_mode="r")
        return mapped


@dataclass(frozen=True, slots=True)
class Places:
    """Where the objects of an image are on the model grid, one row each, in their order.

    Attributes:
        centres: int64 ``(N, 2)``, the rounded mean pixel ``(y, x)``.
        areas_px: int64 ``(N,)``, at least 1.
        sides_px: int64 ``(N,)``, the longer side of its box, at least 1.
    """

    centres: NDArray[np.int64]
    areas_px: NDArray[np.int64]
    sides_px: NDArray[np.int64]

    @classmethod
    def none(cls) -> Places:
        """Return those of no object."""
        nothing = np.zeros(0, np.int64)
        return cls(np.zeros((0, 2), np.int64), nothing, nothing)


def find_places(truth: Instances, *, scale_yx: tuple[float, float] = (1.0, 1.0)) -> Places:
    """Return the places of objects, which may overlap; ``scale_yx`` is model px per image px."""
    owners = np.repeat(np.arange(len(truth)), np.diff(truth.offsets))
    rows, starts, lengths = truth.runs.T
    areas = np.maximum(truth.areas_px(), 1)
    moments = [lengths * rows, lengths * (starts + (lengths - 1) / 2)]
    means = [np.bincount(owners, weights=m, minlength=len(truth)) / areas for m in moments]
    scale = np.array(scale_yx)
    centres = np.rint((np.stack(means, 1) + 0.5) * scale - 0.5).astype(np.int64)
    scaled = np.rint(areas * scale.prod()).astype(np.int64)
    sides = np.ceil((truth.boxes[:, 1] - truth.boxes[:, 0]) * scale).max(1, initial=1)
    return Places(np.maximum(centres, 0), np.maximum(scaled, 1), sides.astype(np.int64))


def save_planes(
    path: Path,
    image: NDArray[np.float32],
    targets: NDArray[np.float32],
    weight: NDArray[np.bool_] | NDArray[np.float32],
    *,
    whole_numbers: bool = False,
) -> str:
    """Write one image's planes, whole or not at all, and return their SHA-256.

    With ``whole_numbers`` targets are exact up to 2**24, else up to 2**11.
    """
    kind = np.float32 if whole_numbers else np.float16
    planes = np.concatenate([image, targets, weight[None]]).astype(kind)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, planes)
    return hashlib.sha256(repr(planes.shape).encode() + planes.tobytes()).hexdigest()


def images_sha256(images: Iterable[Prepared]) -> str:
    """Return one SHA-256 of all that a training sees, in its order."""
    return hashlib.sha256("".join(image.sha256 for image in images).encode()).hexdigest()
