"""Foreground and normalised distance: objects that touch part along the valleys between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from domainseg.models.heads.head import (
    FloatMaps,
    Truth,
    class_loss,
    class_plane,
    dice_loss,
    normalised_distance,
    smooth,
    weighted_mean,
)


@dataclass(frozen=True, slots=True)
class HeightHead:
    """One foreground logit, one height in [0, 1], and class logits where there are classes.

    Attributes:
        smooth_px: Gaussian applied to the height before it is quantised; it joins the small
            peaks a network draws on one object.
        height_weight: weight of the height's loss beside the foreground's.
    """

    name: Literal["height"] = "height"
    smooth_px: float = 1.0
    height_weight: float = 2.0

    family: ClassVar[str] = "maps"

    def __post_init__(self) -> None:
        if not 0 <= self.smooth_px <= 8:
            raise ValueError(f"smooth_px is {self.smooth_px}, wanted 0 to 8")

    @property
    def overlapping(self) -> bool:
        """Return False: a pixel has one height."""
        return False

    @property
    def learns_labels(self) -> bool:
        """Return False: every training image has its masks."""
        return False

    def outputs(self, classes: int) -> int:
        """Return 2 maps, and one per class where there are several."""
        return 2 + (classes if classes > 1 else 0)

    def layers(self, classes: int) -> int:
        """Return 1: classes share a layer."""
        return 1

    def targets(self, truth: Truth, *, classes: int) -> NDArray[np.float32]:
        """Return foreground, height and, with several classes, the class plane."""
        planes = [(truth.labels > 0).astype(np.float32), normalised_distance(truth.labels)]
        if classes > 1:
            planes.append(class_plane(truth))
        return np.stack(planes)

    def loss(self, scores: Tensor, targets: Tensor, weight: Tensor, *, classes: int) -> Tensor:
        """Return cross-entropy + Dice of the foreground, L1 of the height, class cross-entropy.

        The height counts on objects in full and on background a little, where it is 0.
        """
        foreground, height = targets[:, :1], targets[:, 1:2]
        logit = scores[:, :1]
        entropy = F.binary_cross_entropy_with_logits(logit, foreground, reduction="none")
        loss = weighted_mean(entropy, weight) + dice_loss(logit.sigmoid(), foreground, weight)
        off = (scores[:, 1:2].sigmoid() - height).abs()
        loss = loss + self.height_weight * weighted_mean(off, weight * (foreground + 0.1))
        if classes > 1:
            loss = loss + class_loss(scores[:, 2:], targets[:, 2], weight)
        return loss

    def maps(self, scores: Tensor, *, classes: int) -> FloatMaps:
        """Return the maps, one layer; the height is smoothed in float32."""
        height = smooth(scores[:, 1:2].float().sigmoid(), self.smooth_px)
        if classes > 1:
            kinds = scores[:, 2:].argmax(1, keepdim=True).to(torch.uint8)
        else:
            kinds = torch.zeros_like(height, dtype=torch.uint8)
        return FloatMaps(scores[:, :1].float(), height, kinds)
