"""What a head promises, and the pieces that several heads share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects
from torch import Tensor

Array = NDArray[Any]
IGNORED = 255.0
"""Value of a class plane where the pixel's class takes no part in the loss."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Annotation of one plane on the model grid.

    Attributes:
        labels: int ``(H, W)``, 0 background; where objects overlap, one of them.
        classes: int16 ``(max label + 1,)``; class index of each label (entry 0 unused).
        semantic: int ``(H, W)`` class plane with 0 background, or None.
        presence: bool ``(K, H, W)``, where each class is, of objects that may overlap; None
            where the head is not `Head.overlapping`.
        tags: bool ``(K,)``, the classes an image is labelled with of which no mask is drawn;
            None where masks are drawn.
    """

    labels: Array
    classes: Array
    semantic: Array | None = None
    presence: NDArray[np.bool_] | None = None
    tags: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class FloatMaps:
    """What a head predicts, before quantisation.

    Attributes:
        foreground: float32 ``(B, L, H, W)``, logit.
        height: float32 ``(B, L, H, W)`` in [0, 1].
        classes: uint8 ``(B, L, H, W)``.
    """

    foreground: Tensor
    height: Tensor
    classes: Tensor


class Head(Protocol):
    """Targets, loss and map encoding of one way to see objects."""

    @property
    def name(self) -> str:
        """The name recipes use."""
        ...

    @property
    def overlapping(self) -> bool:
        """Whether annotated objects may share pixels; then `Truth.presence` must be given."""
        ...

    @property
    def learns_labels(self) -> bool:
        """Whether an image may have a label and no mask; `Truth.tags` then stands for it."""
        ...

    def outputs(self, classes: int) -> int:
        """Return the number of maps the network must give."""
        ...

    def layers(self, classes: int) -> int:
        """Return the number of layers that are decoded apart."""
        ...

    def targets(self, truth: Truth, *, classes: int) -> NDArray[np.float32]:
        """Return target planes ``(T, H, W)`` of a whole image, float32."""
        ...

    def loss(self, scores: Tensor, targets: Tensor, weight: Tensor, *, classes: int) -> Tensor:
        """Return the scalar loss; ``weight (B, 1, H, W)`` is 0 where a pixel is ignored."""
        ...

    def maps(self, scores: Tensor, *, classes: int) -> FloatMaps:
        """Return the maps of ``scores (B, outputs, H, W)``."""
        ...


def normalised_distance(labels: Array) -> NDArray[np.float32]:
    """Return the distance to the object's edge over the object's largest, float32 ``(H, W)``.

    The distance is that of pixel centres to the nearest pixel of another label, so it is 1
    at the deepest pixel of every object and 0 outside. The image's border is no edge: an
    object the image cuts keeps the distances to the edges that are seen.
    """
    out = np.zeros(labels.shape, np.float32)
    for label, box in enumerate(find_objects(labels), start=1):
        if box is None:
            continue
        grown = tuple(
            slice(max(0, s.start - 1), min(n, s.stop + 1))
            for s, n in zip(box, labels.shape, strict=True)
        )
        inside = labels[grown] == label
        if inside.all():
            out[grown] = 1.0  # no edge is seen at all: the object fills the image
            continue
        distance = distance_transform_edt(inside)
        out[grown][inside] = (distance / distance.max())[inside]
    return out


def class_plane(truth: Truth) -> NDArray[np.float32]:
    """Return the class index of object pixels, ``IGNORED`` on background, float32 ``(H, W)``."""
    plane = np.full(truth.labels.shape, IGNORED, np.float32)
    inside = truth.labels > 0
    plane[inside] = truth.classes[truth.labels[inside]]
    return plane


def smooth(planes: Tensor, sigma: float) -> Tensor:
    """Return float planes ``(B, L, H, W)`` after a Gaussian of ``sigma`` px, cut at 4 sigma."""
    if sigma == 0:
        return planes
    reach = max(1, round(4 * sigma))
    offsets = torch.arange(-reach, reach + 1, device=planes.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    batch, layers, height, width = planes.shape
    flat = planes.float().reshape(batch * layers, 1, height, width)
    padded = F.pad(flat, (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(across, kernel.view(1, 1, -1, 1)).reshape(planes.shape)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of ``values`` under ``weight`` of the same shape; 0 when nothing weighs."""
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def dice_loss(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return 1 - Dice of ``(B, L, H, W)`` planes, over the batch, masked, mean over planes.

    Dice of MONAI's ``DiceLoss(batch=True)``; the mask multiplies both arguments, as in its
    ``MaskedDiceLoss``.
    """
    from monai.losses.dice import DiceLoss

    loss = DiceLoss(batch=True, smooth_nr=1.0, smooth_dr=1.0)
    result: Tensor = loss(probability * weight, target * weight)
    return result


def tversky_loss(probability: Tensor, target: Tensor, weight: Tensor, *, beta: float) -> Tensor:
    """Return 1 - Tversky index of ``(B, L, H, W)`` planes, over the batch, masked, mean.

    MONAI's ``TverskyLoss(batch=True)``; ``beta`` weighs missed pixels and 1 - ``beta`` false
    ones, so that 0.5 is `dice_loss`.
    """
    if beta == 0.5:
        return dice_loss(probability, target, weight)
    from monai.losses.tversky import TverskyLoss

    # Half of what Dice smooths by, as its sums are twice those of Tversky.
    loss = TverskyLoss(batch=True, alpha=1 - beta, beta=beta, smooth_nr=0.5, smooth_dr=0.5)
    result: Tensor = loss(probability * weight, target * weight)
    return result


def hard_pixels(entropy: Tensor, background: Tensor, weight: Tensor, *, share: float) -> Tensor:
    """Return 1 where a pixel counts, 0 elsewhere, ``(B, 1, H, W)``.

    Every pixel counts that is no background; of the background that has weight the
    ``share`` with the largest loss (hard-negative mining over the batch, as in Shrivastava
    et al. 2016, of pixels instead of regions).
    """
    worst = entropy.detach().amax(1, keepdim=True).masked_fill(~background | (weight == 0), -1.0)
    candidates = worst[worst >= 0]
    keep = max(1, round(share * candidates.numel()))
    if candidates.numel() <= keep:
        return torch.ones_like(weight)
    bound = candidates.kthvalue(candidates.numel() - keep + 1).values
    return (~background | (worst >= bound)).to(weight.dtype)


def class_loss(scores: Tensor, plane: Tensor, weight: Tensor) -> Tensor:
    """Return cross-entropy of ``scores (B, K, H, W)`` where ``plane (B, H, W)`` names a class.

    ``weight (B, 1, H, W)`` is 0 where a pixel is ignored, whatever its class.
    """
    named = plane != IGNORED
    target = torch.where(named, plane, torch.zeros_like(plane)).long()
    entropy = F.cross_entropy(scores, target, reduction="none")
    return weighted_mean(entropy, named * weight[:, 0])


def layered_maps(scores: Tensor, classes: int) -> FloatMaps:
    """Return the maps of one logit per class ``(B, classes, H, W)``: a layer each, flat."""
    index = torch.arange(classes, dtype=torch.uint8, device=scores.device)
    kinds = index.view(1, -1, 1, 1).expand_as(scores)
    return FloatMaps(scores, torch.ones_like(scores), kinds)
