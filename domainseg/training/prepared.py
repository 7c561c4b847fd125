"""Images on the model grid with their targets, prepared once and read by region.

Each image becomes one float16 array on disk, so that patches of images larger than
memory cost what the patch costs, and loader processes share the operating system's cache.
Half precision keeps 11 bits of a normalised intensity, more than an 8-bit camera gave.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.atomic import atomic_path


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image ready to be cut into patches.

    Attributes:
        path: ``.npy`` float16 ``(C + T + 1, H, W)``: channels, target planes, weight.
        channels: C.
        shape: ``(H, W)`` on the model grid.
        centres: int64 ``(N, 2)``, a pixel ``(y, x)`` near the middle of each object.
        classes: int16 ``(N,)``.
        areas_px: int64 ``(N,)``.
        kind: stratum of the image, or None.
    """

    path: Path
    channels: int
    shape: tuple[int, int]
    centres: NDArray[np.int64]
    classes: NDArray[np.int16]
    areas_px: NDArray[np.int64]
    kind: str | None

    def planes(self) -> NDArray[np.float16]:
        """Return the array of the file, mapped into memory, not read."""
        mapped: NDArray[np.float16] = np.load(self.path, mmap_mode="r")
        return mapped


def save_planes(
    path: Path,
    image: NDArray[np.float32],
    targets: NDArray[np.float32],
    weight: NDArray[np.bool_],
) -> None:
    """Write one image's planes; the file appears whole or not at all."""
    planes = np.concatenate([image, targets, weight[None]]).astype(np.float16)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, planes)
