"""One yes-or-no mask per class, learned from masks where they are drawn and from image labels.

Of an image whose label alone is known, every pixel of a class that it lacks is known to be
background, and of a class that it has some pixels are known to be foreground, not which:
multiple-instance learning over the mask (Pathak et al. 2015, Fully convolutional
multi-class multiple instance learning). The mean over the largest scores stands for the
class: the maximum alone teaches one pixel a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from domainseg.models.heads.head import FloatMaps, Truth, dice_loss, layered_maps, weighted_mean


@dataclass(frozen=True, slots=True)
class PatternHead:
    """A sigmoid mask per class; classes overlap, and images may have labels without masks.

    Attributes:
        pool_px: pixels of a class's largest scores whose mean stands for the class in an
            image that has a label only; about the smallest area that is to count as one.
        label_weight: weight of images that have a label only.
        dice_weight: weight of the Dice loss beside the cross-entropy, where masks are drawn.
    """

    name: Literal["pattern"] = "pattern"
    pool_px: int = 16
    label_weight: float = 1.0
    dice_weight: float = 1.0

    family: ClassVar[str] = "maps"

    def __post_init__(self) -> None:
        if self.pool_px < 1:
            raise ValueError(f"pool_px is {self.pool_px}, wanted 1 or more")

    @property
    def overlapping(self) -> bool:
        """Return True: classes may share pixels."""
        return True

    @property
    def learns_labels(self) -> bool:
        """Return True: an image may have a label and no mask."""
        return True

    def outputs(self, classes: int) -> int:
        """Return one map per class."""
        return classes

    def layers(self, classes: int) -> int:
        """Return one layer per class."""
        return classes

    def targets(self, truth: Truth, *, classes: int) -> NDArray[np.float32]:
        """Return one plane per class, 0 or 1, and a last one that is 1 where masks are drawn.

        Where they are not, a class's plane is 1 everywhere when the image has its label.

        Raises:
            ValueError: the truth says neither where each class is nor which there are.
        """
        shape = truth.labels.shape
        if truth.tags is not None:
            planes = np.broadcast_to(truth.tags[:, None, None], (classes, *shape))
            return np.concatenate([planes, np.zeros((1, *shape))]).astype(np.float32)
        if truth.presence is None:
            raise ValueError("a truth without presence and tags has no target")
        return np.concatenate([truth.presence, np.ones((1, *shape))]).astype(np.float32)

    def loss(self, scores: Tensor, targets: Tensor, weight: Tensor, *, classes: int) -> Tensor:
        """Return cross-entropy + Dice of drawn masks, and of the others the labels' loss."""
        present, drawn = targets[:, :classes], targets[:, classes:]
        # Augmentation may have moved an image in its frame: what is outside is 0 in every
        # plane, and has no weight.
        is_drawn = drawn.amax((2, 3), keepdim=True)
        loss = _drawn_loss(scores, present, weight * is_drawn, self.dice_weight)
        labels = present.amax((2, 3)) * (1 - is_drawn[:, :, 0, 0])
        by_label = _label_loss(scores, labels, weight, pool_px=self.pool_px)
        labelled = 1 - is_drawn[:, 0, 0, 0]
        share = labelled.mean()
        mean = (by_label * labelled).sum() / labelled.sum().clamp(min=1.0)
        return (1 - share) * loss + self.label_weight * share * mean

    def maps(self, scores: Tensor, *, classes: int) -> FloatMaps:
        """Return the maps; the height is constant, so objects are connected groups."""
        return layered_maps(scores.float(), classes)


def _drawn_loss(scores: Tensor, present: Tensor, weight: Tensor, dice_weight: float) -> Tensor:
    entropy = F.binary_cross_entropy_with_logits(scores, present, reduction="none")
    dice = dice_loss(scores.sigmoid(), present, weight)
    return weighted_mean(entropy, weight.expand_as(entropy)) + dice_weight * dice


def _label_loss(scores: Tensor, labels: Tensor, weight: Tensor, *, pool_px: int) -> Tensor:
    """Return the loss ``(B,)`` of images with labels ``(B, K)``, 0 or 1, mean over classes.

    A class that is there: cross-entropy of its pooled score. One that is not: cross-entropy
    of its largest scores and of the mean pixel.
    """
    outside = weight == 0
    visible = scores.masked_fill(outside, -torch.inf).flatten(2)
    top = visible.topk(min(pool_px, visible.shape[2]), dim=2).values
    counted = torch.isfinite(top)
    pooled = top.masked_fill(~counted, 0.0).sum(2) / counted.sum(2).clamp(min=1)
    there = F.softplus(-pooled)
    everywhere = (F.softplus(scores) * weight).flatten(2).sum(2) / weight.flatten(2).sum(2).clamp(
        min=1.0
    )
    absent = F.softplus(pooled) + everywhere
    seen = counted.any(2)
    return torch.where(seen, labels * there + (1 - labels) * absent, 0.0).mean(1)
