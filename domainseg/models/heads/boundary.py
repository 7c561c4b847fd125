"""Background, interior, boundary: the interior score is the height that parts objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor

from domainseg.models.heads.head import (
    FloatMaps,
    Truth,
    class_loss,
    class_plane,
    dice_loss,
    smooth,
    weighted_mean,
)


@dataclass(frozen=True, slots=True)
class BoundaryHead:
    """Three-way softmax (Caicedo et al. 2019), and class logits where there are classes.

    Attributes:
        boundary_px: width of the boundary inside each object, in pixels of the model grid.
        boundary_weight: weight of boundary pixels in the cross-entropy.
        smooth_px: Gaussian applied to the interior score before it is quantised.
    """

    name: Literal["boundary"] = "boundary"
    boundary_px: int = 2
    boundary_weight: float = 4.0
    smooth_px: float = 1.0

    family: ClassVar[str] = "maps"

    def __post_init__(self) -> None:
        if not 1 <= self.boundary_px <= 8:
            raise ValueError(f"boundary_px is {self.boundary_px}, wanted 1 to 8")

    @property
    def overlapping(self) -> bool:
        """Return False: a pixel is of one object."""
        return False

    @property
    def learns_labels(self) -> bool:
        """Return False: every training image has its masks."""
        return False

    def outputs(self, classes: int) -> int:
        """Return 3 maps, and one per class where there are several."""
        return 3 + (classes if classes > 1 else 0)

    def layers(self, classes: int) -> int:
        """Return 1: classes share a layer."""
        return 1

    def targets(self, truth: Truth, *, classes: int) -> NDArray[np.float32]:
        """Return 0 background, 1 interior, 2 boundary; with several classes the class plane too."""
        part = (truth.labels > 0).astype(np.float32)
        part[boundary(truth.labels, self.boundary_px)] = 2.0
        planes = [part]
        if classes > 1:
            planes.append(class_plane(truth))
        return np.stack(planes)

    def loss(self, scores: Tensor, targets: Tensor, weight: Tensor, *, classes: int) -> Tensor:
        """Return weighted cross-entropy + Dice of interior and boundary + class cross-entropy."""
        part = targets[:, 0].long()
        entropy = F.cross_entropy(scores[:, :3], part, reduction="none")
        stress = torch.where(part == 2, self.boundary_weight, 1.0) * weight[:, 0]
        loss = weighted_mean(entropy, stress)
        one_hot = F.one_hot(part, 3).movedim(-1, 1)[:, 1:].float()
        loss = loss + dice_loss(scores[:, :3].softmax(1)[:, 1:], one_hot, weight)
        if classes > 1:
            loss = loss + class_loss(scores[:, 3:], targets[:, 1], weight)
        return loss

    def maps(self, scores: Tensor, *, classes: int) -> FloatMaps:
        """Return the maps: foreground is interior or boundary, height the smoothed interior."""
        parts = scores[:, :3].float()
        foreground = torch.logsumexp(parts[:, 1:], 1, keepdim=True) - parts[:, :1]
        height = smooth(parts.softmax(1)[:, 1:2], self.smooth_px)
        if classes > 1:
            kinds = scores[:, 3:].argmax(1, keepdim=True).to(torch.uint8)
        else:
            kinds = torch.zeros_like(height, dtype=torch.uint8)
        return FloatMaps(foreground, height, kinds)


def boundary(labels: NDArray[np.int32], width: int) -> NDArray[np.bool_]:
    """Return object pixels with another label within ``width`` px (square), bool ``(H, W)``.

    The image's border is no boundary.
    """
    size = 2 * width + 1
    mixed = maximum_filter(labels, size, mode="nearest") != minimum_filter(
        labels, size, mode="nearest"
    )
    return np.asarray(mixed & (labels > 0))
