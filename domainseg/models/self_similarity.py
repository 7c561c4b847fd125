"""What an image shows that its surroundings do not: itself less a mean of its like nearby.

A patterned surface repeats itself: lines along themselves, vias from one to the next. What does
not is a defect. So a pixel is compared with those some way to its left and right, above and
below (the cell-to-cell comparison of wafer inspection), each counted by how well the squares
around the two agree (non-local means: Buades, Coll and Morel, CVPR 2005). What remains is noise
wherever the pattern has its like (Davy, Ehret, Morel and Delbracio, ICIP 2018), and a network
finds a spot in noise far sooner than a spot in a pattern that it must learn first.

What runs along a row or a column, such as a scratch beside lines, is like itself there. So three
residues are made: against what lies in all four directions, along the row alone, and along the
column alone; in one of the last two it remains.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.models.encoders import build_encoder_beside
from domainseg.models.residue_kernel import residues_of_rows

RESIDUES = 3
"""Of each channel: against all directions, along rows, along columns."""
CELL = 2
"""Side in px of the cells that squares are compared in; windows are multiples of it."""
REACH = 2
"""Cells that a square reaches beyond its middle one: squares of 5 cells, 10 px."""
TEMPERATURE = 0.1
"""By how much of the best disagreement another may exceed it and still count about 1/e."""
POWER = 8
"""Weights fall as ``(1 - x / POWER) ** POWER``: nearly exp(-x), but without its cost."""
LEAST = 1e-5
"""Added to the best disagreement, mean square of inputs in [0, 1]: a flat image has none."""
FARTHEST = 128
"""Greatest distance, px: time grows with the distances between nearest and farthest."""
BAND_ROWS = 64
"""Rows of cells that a thread of the processor takes at a time."""
STRIP_PX = 1 << 16
"""Pixels that are compared at a time, so that what is summed stays in the cache."""


def check_distances(distances: tuple[int, int] | None) -> None:
    """Raise ValueError where ``self_similarity_px`` of an architecture is none."""
    if distances is not None and not 1 <= distances[0] <= distances[1] <= FARTHEST:
        found = ", ".join(map(str, distances))
        raise ValueError(
            f"self_similarity_px is {found}, wanted two integers from 1 to {FARTHEST}, "
            f"the nearest first"
        )


class SelfSimilarity(nn.Module):
    """Each channel less its like at a distance, three times, over the deviation of training.

    ``nearest`` and ``farthest`` are the least and greatest distance in px, along rows and
    columns: the farthest covers the period of the pattern, the nearest what is compared with
    itself otherwise, the width of the defects.
    """

    def __init__(self, channels: int, *, nearest: int, farthest: int) -> None:
        super().__init__()
        self.nearest = nearest
        self.farthest = farthest
        self.norm = nn.BatchNorm2d(RESIDUES * channels, affine=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the residues ``(B, 3 C, H, W)`` of ``(B, C, H, W)`` in [0, 1], even H and W."""
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            normed: Tensor = self.norm(residues(image.float(), self.nearest, self.farthest))
        return normed


def self_similarity(channels: int, distances: tuple[int, int] | None) -> SelfSimilarity | None:
    """Return the module for images of ``channels``, None where no distances are given."""
    if distances is None:
        return None
    return SelfSimilarity(channels, nearest=distances[0], farthest=distances[1])


class Architecture(Protocol):
    """What an architecture says of its encoder and of what stands beside the image."""

    @property
    def encoder(self) -> str:
        """Name of the backbone."""
        ...

    @property
    def weights(self) -> str | None:
        """``imagenet`` or None."""
        ...

    @property
    def depth(self) -> int:
        """Number of times it halves the image."""
        ...

    @property
    def self_similarity_px(self) -> tuple[int, int] | None:
        """Least and greatest distance, None for the image alone."""
        ...


def encoder_beside(
    architecture: Architecture, channels: int
) -> tuple[nn.Module, SelfSimilarity | None]:
    """Return the encoder for images of ``channels``, and what stands beside them, or None.

    Errors are those of `build_encoder`.
    """
    beside = self_similarity(channels, architecture.self_similarity_px)
    encoder = build_encoder_beside(
        architecture.encoder,
        architecture.weights,
        channels=channels,
        beside=0 if beside is None else RESIDUES * channels,
        depth=architecture.depth,
    )
    return encoder, beside


def residues(image: Tensor, nearest: int, farthest: int) -> Tensor:
    """Return float32 ``(B, 3 C, H, W)``, even H and W: the image less the mean of its like.

    First the channels against all directions, then against what lies along their row, then along
    their column.
    """
    margin = farthest + CELL * REACH
    # Mirrored, as the image is at its border; what is narrower than that ends as it ends.
    mode = "reflect" if min(image.shape[2:]) > margin else "replicate"
    padded = F.pad(image, (margin,) * 4, mode=mode)
    batch, channels, height, width = image.shape
    made = image.new_empty((batch, RESIDUES, channels, height, width))
    if image.device.type == "cpu":
        _on_processor(padded, made, nearest, farthest)
    else:
        for one, out in zip(padded, made, strict=True):
            _in_planes(one, out, nearest, farthest)
    return made.flatten(1, 2)


def _on_processor(padded: Tensor, made: Tensor, nearest: int, farthest: int) -> None:
    """Write the residues of ``padded`` into ``made``, by as many threads as torch has."""
    steps = np.array(
        [
            (sign * far * (axis == 0), sign * far * (axis == 1))
            for axis in (1, 0)
            for far in range(nearest, farthest + 1)
            for sign in (1, -1)
        ]
    )
    shape = (farthest + CELL * REACH, REACH, (2 * REACH + 1) ** 2)
    scale = (LEAST, 1 / (TEMPERATURE * POWER))
    source, target = padded.contiguous().numpy(), made.numpy()
    rows = made.shape[3] // CELL

    def band(task: tuple[int, int]) -> None:
        index, top = task
        bounds = (top, min(top + BAND_ROWS, rows))
        residues_of_rows(source[index], target[index], steps, bounds, shape, scale)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        tasks = itertools.product(range(len(source)), range(0, rows, BAND_ROWS))
        list(pool.map(band, tasks))


def _in_planes(padded: Tensor, out: Tensor, nearest: int, farthest: int) -> None:
    """Write the residues of ``padded`` into ``out``, all distances of a strip at a time."""
    rows, columns = out.shape[2:]
    margin = farthest + CELL * REACH
    high = max(1, STRIP_PX // (columns * CELL)) * CELL
    for top in range(0, rows, high):
        strip = padded[:, top : min(top + high, rows) + 2 * margin]
        for number, axes in enumerate(((2, 1), (2,), (1,))):
            out[number, :, top : top + high] = _strip_residue(strip, nearest, farthest, axes)


def _strip_residue(padded: Tensor, nearest: int, farthest: int, axes: tuple[int, ...]) -> Tensor:
    """Return the residue ``(C, h, w)`` of a strip that has a margin on all sides."""
    edge = CELL * REACH
    cost, like = zip(*_compared(padded, nearest, farthest, axes), strict=True)
    costs = F.avg_pool2d(torch.stack(cost), CELL)
    costs = _boxed(_boxed(costs, 1), 2).div_((2 * REACH + 1) ** 2)
    best = costs.amin(0) + LEAST
    beyond = costs.div_(best).sub_(1.0).div_(TEMPERATURE * POWER)
    weights = beyond.neg_().add_(1.0).clamp_(min=0.0).pow_(POWER)
    weights /= weights.sum(0)
    margin = farthest + edge
    seen = padded[:, margin:-margin, margin:-margin]
    cells = (seen.shape[0], seen.shape[1] // CELL, CELL, seen.shape[2] // CELL, CELL)
    mean = padded.new_zeros(cells)
    for weight, other in zip(weights, like, strict=True):
        inner = other[:, edge:-edge, edge:-edge].unflatten(2, cells[3:])
        mean.addcmul_(inner.unflatten(1, cells[1:3]), weight[:, None, :, None])
    return seen - mean.view(seen.shape)


def _compared(
    padded: Tensor, nearest: int, farthest: int, axes: tuple[int, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the squared difference from what lies at each distance, and that itself.

    ``(h, w)`` and ``(C, h, w)``, of what is ``farthest`` px and more inside; both ways along
    ``axes``.
    """
    for axis in axes:
        across = 3 - axis
        along = padded.narrow(across, farthest, padded.shape[across] - 2 * farthest)
        size = padded.shape[axis] - 2 * farthest
        for far in range(nearest, farthest + 1):
            # Pair i is what lies at start + i and ``far`` on; each pixel is first in one pair
            # and second in another.
            start, count = farthest - far, size + far
            pairs = along.narrow(axis, start, count) - along.narrow(axis, start + far, count)
            squares = pairs.square_().sum(0)
            yield squares.narrow(axis - 1, far, size), along.narrow(axis, farthest + far, size)
            yield squares.narrow(axis - 1, 0, size), along.narrow(axis, start, size)


def _boxed(values: Tensor, axis: int) -> Tensor:
    """Return the sums of ``2 * REACH + 1`` neighbours along an axis."""
    count = values.shape[axis] - 2 * REACH
    total = values.narrow(axis, 0, count).clone()
    for shift in range(1, 2 * REACH + 1):
        total += values.narrow(axis, shift, count)
    return total
