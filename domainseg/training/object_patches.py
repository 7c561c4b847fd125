"""Patches for networks that find objects one by one: each with its mask, moved with the image.

An image's target planes hold the numbers of its objects, 0 where there is none; objects that
overlap are in different planes. So augmentation moves masks and image alike, and boxes follow
from the masks as they then are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from torch import Tensor

from domainseg.training.augment import Augmentation
from domainseg.training.patches import Drawn, Patches, PatchOptions
from domainseg.training.prepared import Prepared

LEAST_PX = 4
LEAST_SHARE = 0.1
"""Of an object less is no example: its pixels are ignored."""
UNKNOWN = -1
"""Class of a pixel that teaches no region."""


@dataclass(frozen=True, slots=True)
class PatchTruth:
    """The objects of one patch, N of them.

    Attributes:
        boxes: float32 ``(N, 4)``, ``x0, y0, x1, y1``, half-open, px.
        classes: int64 ``(N,)``, from 0.
        masks: uint8 ``(N, p, p)``, 1 inside.
        ignored: bool ``(p, p)``, where nothing is known.
        regions: int64 ``(p, p)``, class + 1 of pixels of regions, 0 of others, `UNKNOWN` where
            nothing is known; None where regions are not learned.
    """

    boxes: Tensor
    classes: Tensor
    masks: Tensor
    ignored: Tensor
    regions: Tensor | None = None

    def to(self, device: Any) -> PatchTruth:
        """Return them on a device."""
        return PatchTruth(
            self.boxes.to(device),
            self.classes.to(device),
            self.masks.to(device),
            self.ignored.to(device),
            None if self.regions is None else self.regions.to(device),
        )


class ObjectPatches(Patches):
    """Patch number to ``(image (C, p, p), PatchTruth)``.

    With ``regions`` the first target plane of the images holds class + 1 of regions.
    """

    def __init__(
        self,
        images: Sequence[Prepared],
        options: PatchOptions,
        augmentation: Augmentation,
        *,
        regions: bool = False,
    ) -> None:
        super().__init__(images, options, augmentation)
        self.regions = regions

    def __getitem__(self, number: int) -> Any:
        drawn = self.drawn(number)
        return torch.from_numpy(drawn.pixels), truth_of(drawn, regions=self.regions)


def truth_of(drawn: Drawn, *, regions: bool = False) -> PatchTruth:
    """Return the objects of a patch; what is left of too little of one is ignored.

    With ``regions`` the first plane is that of `ObjectPatches`.
    """
    planes, ignored = drawn.others[int(regions) : -1], drawn.others[-1] > 0.5
    drawn_regions = None
    if regions:
        classes = np.where(ignored, UNKNOWN, np.rint(drawn.others[0]))
        drawn_regions = torch.from_numpy(classes.astype(np.int64))
    boxes: list[tuple[int, int, int, int]] = []
    numbers: list[int] = []
    insides: list[tuple[tuple[slice, ...], NDArray[np.bool_]]] = []
    for plane in planes:
        found, ranks = np.unique(plane, return_inverse=True)
        ranks = ranks.reshape(plane.shape) + (0 if found[0] == 0 else 1)
        present = found[found > 0].astype(np.int64)
        for rank, (number, box) in enumerate(
            zip(present.tolist(), find_objects(ranks), strict=True), start=1
        ):
            inside = ranks[box] == rank
            # How large it would be as a whole is known of the image, not of the patch, which
            # may be scaled: so only what the patch cuts can be too little.
            full = int(drawn.image.areas_px[number - 1])
            least = LEAST_SHARE * full if _cut(box, plane.shape) else 0.0
            if np.count_nonzero(inside) < max(min(LEAST_PX, full), least):
                ignored[box] |= inside
                continue
            rows, columns = box
            boxes.append((columns.start, rows.start, columns.stop, rows.stop))
            numbers.append(number)
            insides.append((box, inside))
    of_object = drawn.image.classes[np.array(numbers, np.int64) - 1]
    masks = np.zeros((len(insides), *planes.shape[1:]), np.uint8)
    for mask, (box, inside) in zip(masks, insides, strict=True):
        mask[box] = inside
    return PatchTruth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.from_numpy(of_object.astype(np.int64)),
        torch.from_numpy(masks),
        torch.from_numpy(ignored),
        drawn_regions,
    )


def _cut(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Tell whether a box touches a side of the patch."""
    return any(s.start == 0 or s.stop == n for s, n in zip(box, shape, strict=True))


def together(patches: Sequence[Any]) -> tuple[Tensor, list[PatchTruth]]:
    """Return the batch of some patches: images ``(B, C, p, p)`` and the objects of each."""
    return torch.stack([image for image, _ in patches]), [truth for _, truth in patches]
