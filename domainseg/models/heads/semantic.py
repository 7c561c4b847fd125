"""One class per pixel, or one yes-or-no per class: objects are connected groups of pixels."""

from __future__ import annotations

import math
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
    hard_pixels,
    layered_maps,
    tversky_loss,
    weighted_mean,
)


@dataclass(frozen=True, slots=True)
class SemanticHead:
    """Softmax over background and classes, or sigmoid per class where classes may overlap.

    Attributes:
        activation: ``softmax`` (classes exclude each other, one layer) or ``sigmoid``
            (each class is a layer of its own, and annotated objects may overlap).
        dice_weight: weight of the overlap loss (Dice, or Tversky) beside the cross-entropy, 0
            = none; with softmax and several classes their union counts as one class more.
        tversky_beta: weight of missed pixels in the overlap loss, that of false ones is
            1 less it (Salehi et al. 2017); 0.5 is Dice, more finds more of small objects.
        focal_gamma: the cross-entropy of a pixel is weighed by (1 - p) to this power
            (Lin et al. 2017, Focal loss), 0 = not at all.
        hard_share: share of the background pixels of a batch that count, those with the
            largest loss; below 1, an image full of easy background does not drown the rest.
        prior: probability of foreground (with sigmoid of each class) that scores of 0 stand
            for, such as those of an untrained network (Lin et al. 2017): where nearly all is
            background, the first steps need not learn that. None takes equal scores as they
            are.
    """

    name: Literal["semantic"] = "semantic"
    activation: Literal["softmax", "sigmoid"] = "softmax"
    dice_weight: float = 1.0
    tversky_beta: float = 0.5
    focal_gamma: float = 0.0
    hard_share: float = 1.0
    prior: float | None = None

    family: ClassVar[str] = "maps"

    def __post_init__(self) -> None:
        limits = {"tversky_beta": (0, 1), "focal_gamma": (0, 8), "hard_share": (0, 1)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted {low} to {high}")
        if self.prior is not None and not 0 < self.prior < 1:
            raise ValueError(f"prior is {self.prior}, wanted a number between 0 and 1")

    @property
    def overlapping(self) -> bool:
        """Return whether annotated objects may share pixels: with sigmoid."""
        return self.activation == "sigmoid"

    @property
    def learns_labels(self) -> bool:
        """Return False: every training image has its masks."""
        return False

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
            plane = truth.semantic.astype(np.float32)
        else:
            plane = np.zeros(truth.labels.shape, np.float32)
        # Where objects and regions are both drawn, the object is what is seen.
        inside = truth.labels > 0
        plane[inside] = truth.classes[truth.labels[inside]] + 1
        return plane[None]

    def loss(self, scores: Tensor, targets: Tensor, weight: Tensor, *, classes: int) -> Tensor:
        """Return focal cross-entropy + Tversky (plain: cross-entropy + Dice) over the classes."""
        scores = self._from_prior(scores, classes)
        if self.overlapping:
            present, probability = targets, scores.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(scores, present, reduction="none")
        else:
            index = targets[:, 0].long()
            present = F.one_hot(index, classes + 1).movedim(-1, 1)[:, 1:].float()
            probability = scores.softmax(1)[:, 1:]
            entropy = F.cross_entropy(scores, index, reduction="none")[:, None]
        if self.focal_gamma:
            entropy = (1 - torch.exp(-entropy)).pow(self.focal_gamma) * entropy
        counted = weight.expand_as(entropy)
        if self.hard_share < 1:
            background = present.amax(1, keepdim=True) == 0
            counted = counted * hard_pixels(entropy, background, weight, share=self.hard_share)
        if not self.overlapping and classes > 1:
            probability, present = _with_union(probability), _with_union(present)
        if self.dice_weight == 0:
            return weighted_mean(entropy, counted)
        overlap = tversky_loss(probability, present, weight, beta=self.tversky_beta)
        return weighted_mean(entropy, counted) + self.dice_weight * overlap

    def maps(self, scores: Tensor, *, classes: int) -> FloatMaps:
        """Return the maps; the height is constant, so objects are plain components."""
        scores = self._from_prior(scores.float(), classes)
        if self.overlapping:
            return layered_maps(scores, classes)
        foreground = torch.logsumexp(scores[:, 1:], 1, keepdim=True) - scores[:, :1]
        kinds = scores[:, 1:].argmax(1, keepdim=True).to(torch.uint8)
        return FloatMaps(foreground, torch.ones_like(foreground), kinds)

    def _from_prior(self, scores: Tensor, classes: int) -> Tensor:
        """Return scores that say ``prior`` where the network's own are all 0."""
        if self.prior is None:
            return scores
        odds = (1 - self.prior) / self.prior
        if self.overlapping:
            return scores - math.log(odds)
        # Foreground is the sum of the classes: each of them takes its share of it.
        return torch.cat([scores[:, :1] + math.log(odds * classes), scores[:, 1:]], 1)


def _with_union(planes: Tensor) -> Tensor:
    """Return planes of classes that exclude each other with their sum as one plane more."""
    return torch.cat([planes, planes.sum(1, keepdim=True)], 1)
