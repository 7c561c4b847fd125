"""Weights that let a small object count as much as a large one, and fade away.

The loss of a pixel knows nothing of objects: a residue of ten thousand pixels outweighs
hundreds of particles, and a short training never comes to see them. Weighing each object by
the inverse of its size (Shirokikh et al. 2020, Universal Loss Reweighting to Balance Lesion
Size Inequality in 3D Medical Image Segmentation) shows them from the first step. It also
moves outlines, as pixels inside weigh otherwise than those outside; so the weights of large
objects fade to 1, and the last steps see them as the plain loss does, whose probabilities are
unbiased. Those of small ones fade to their square root: a spot of a few pixels has an outline
that noise decides anyway, and is to be found first of all. Where outlines matter a ring of
background around each object weighs as the object does: then neither side is favoured.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

LEAST, MOST = 0.2, 8.0
"""Bounds of a pixel's weight at the start."""
PLAIN_SHARE = 0.1
"""Share of the steps, the last, whose weights no longer change."""
SMALL_POWER = 0.5
"""Power of the weights of small objects then; that of large ones is 0."""


def size_weights(
    labels: NDArray[np.int32], *, size_px: float, ring_px: float = 0.0
) -> NDArray[np.float32]:
    """Return the weight of each pixel at the start, float32 ``(H, W)``: 1 on background.

    A pixel of an object weighs the area of a disc of diameter ``size_px`` over the object's
    own, within `LEAST` and `MOST`. Background within ``ring_px`` of an object weighs what the
    nearest one does. ``labels`` are integers from 0, 0 is background.
    """
    areas = np.bincount(labels.ravel())
    weights = np.clip(np.pi / 4 * size_px**2 / np.maximum(areas, 1), LEAST, MOST)
    weights[0] = 1.0
    if ring_px > 0 and labels.any():
        away, nearest = distance_transform_edt(labels == 0, return_indices=True)
        labels = np.where(away <= ring_px, labels[tuple(nearest)], 0)
    return weights.astype(np.float32)[labels]


def faded(weight: Tensor, done: float) -> Tensor:
    """Return the weights when the share ``done`` of the steps is done; 0 stays 0.

    Weights are raised to a power that falls evenly: of those below 1 to 0, where `PLAIN_SHARE`
    is left, of those above 1 to `SMALL_POWER`.
    """
    power = max(0.0, 1.0 - done / (1.0 - PLAIN_SHARE))
    heavy = SMALL_POWER + (1.0 - SMALL_POWER) * power
    powers = torch.where(weight < 1, power, heavy)
    return torch.where(weight > 0, weight.clamp(min=1e-6).pow(powers), weight)
