"""One class per pixel, or one yes-or-no per class: objects are connected groups of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from domainseg.models.heads.head import FloatMaps, Truth, dice_loss, weighted_mean


@dataclass(frozen=True, slots=True)
class SemanticHead:
    """Softmax over background and classes, or sigmoid per class where classes may overlap.

    Attributes:
        activation: ``softmax`` (classes exclude each other, one layer) or ``sigmoid``
            (each class is a layer of its own, and annotated objects may overlap).
        dice_weight: weight of the Dice loss beside the cross-entropy.
    """

    name: Literal["semantic"] = "semantic"
    activation: Literal["softmax", "sigmoid"] = "softmax"
    dice_weight: float = 1.0

    @property
    def overlapping(self) -> bool:
        """Return whether annotated objects may share pixels: with sigmoid."""
        return self.activation == "sigmoid"

    def outputs(self, classes: int) -> int:
        """Return one map per class, and one for background with softmax."""
        return classes + (self.activation == "softmax")

    def layers(self, classes: int) -> int:
        """Return 1 with softmax, one per class with sigmoid."""
        return 1 if self.activation == "softmax" else classes

    def targets(self, truth: Truth, *, classes: int) -> NDArray[np.float32]:
        """Return one plane, 0 background and class index + 1; with sigmoid one per class, 0 or 1.

        Raises:
            ValueError: with sigmoid, when the truth does not say where each class is.
        """
        if self.overlapping:
            if truth.presence is None:
                raise ValueError("a truth without presence has no target for sigmoid")
            return truth.presence.astype(np.float32)
        if truth.semantic is not None:
            return truth.semantic[None].astype(np.float32)
        plane = np.zeros(truth.labels.shape, np.float32)
        inside = truth.labels > 0
        plane[inside] = truth.classes[truth.labels[inside]] + 1
        return plane[None]

    def loss(self, scores: Tensor, targets: Tensor, weight: Tensor, *, classes: int) -> Tensor:
        """Return cross-entropy + Dice over the classes."""
        if self.overlapping:
            present = targets
            probability = scores.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(scores, present, reduction="none")
        else:
            index = targets[:, 0].long()
            present = F.one_hot(index, classes + 1).movedim(-1, 1)[:, 1:].float()
            probability = scores.softmax(1)[:, 1:]
            entropy = F.cross_entropy(scores, index, reduction="none")[:, None]
        dice = dice_loss(probability, present, weight)
        return weighted_mean(entropy, weight.expand_as(entropy)) + self.dice_weight * dice

    def maps(self, scores: Tensor, *, classes: int) -> FloatMaps:
        """Return the maps; the height is constant, so objects are plain components."""
        scores = scores.float()
        if self.activation == "softmax":
            foreground = torch.logsumexp(scores[:, 1:], 1, keepdim=True) - scores[:, :1]
            kinds = scores[:, 1:].argmax(1, keepdim=True).to(torch.uint8)
        else:
            foreground = scores
            index = torch.arange(classes, dtype=torch.uint8, device=scores.device)
            kinds = index.view(1, -1, 1, 1).expand_as(scores)
        return FloatMaps(foreground, torch.ones_like(foreground), kinds)
