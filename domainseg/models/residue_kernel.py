"""The comparison of an image with itself on the processor: all distances while it is cached.

What `self_similarity.residue` does with whole planes, one for each distance and direction, is
done here for a few rows of cells at a time, so that what is compared never leaves the cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel

ROWS, COLUMNS = 8, 128
"""Cells of a block: what is kept of its costs is a few hundred kilobytes."""


@kernel
def _compared(
    padded: NDArray[np.float32],
    top: int,
    left: int,
    step: tuple[int, int],
    square: NDArray[np.float32],
) -> None:
    """Write the squared difference of each cell from what lies a ``step`` away.

    ``top`` and ``left`` are the pixel in ``padded`` where the cells begin.
    """
    channels = padded.shape[0]
    wide = 2 * square.shape[1]
    for row in range(square.shape[0]):
        line = np.zeros(wide, np.float32)
        for channel in range(channels):
            for half in range(2):
                y = top + 2 * row + half
                here = padded[channel, y, left : left + wide]
                there = padded[channel, y + step[0], left + step[1] : left + step[1] + wide]
                for x in range(wide):
                    difference = here[x] - there[x]
                    line[x] += difference * difference
        for cell in range(square.shape[1]):
            square[row, cell] = line[2 * cell] + line[2 * cell + 1]


@kernel
def _boxed(
    square: NDArray[np.float32], down: NDArray[np.float32], cost: NDArray[np.float32]
) -> None:
    """Write the sum around each cell of ``square``, which is larger by what squares reach."""
    rows, columns = cost.shape
    reach = square.shape[1] - columns
    for row in range(rows):
        for cell in range(square.shape[1]):
            down[cell] = square[row, cell]
        for other in range(1, reach + 1):
            for cell in range(square.shape[1]):
                down[cell] += square[row + other, cell]
        for cell in range(columns):
            cost[row, cell] = down[cell]
        for other in range(1, reach + 1):
            for cell in range(columns):
                cost[row, cell] += down[cell + other]


@kernel
def _weigh(costs: NDArray[np.float32], least: np.float32, slope: np.float32) -> None:
    """Turn costs into weights whose sum is 1, in place: see `self_similarity.weights_of`."""
    _, rows, columns = costs.shape
    one, zero = np.float32(1), np.float32(0)
    for row in range(rows):
        best = costs[0, row].copy()
        for step in range(1, costs.shape[0]):
            for cell in range(columns):
                best[cell] = min(best[cell], costs[step, row, cell])
        total = np.zeros(columns, np.float32)
        for cell in range(columns):
            best[cell] = one / (best[cell] + least)
        for step in range(costs.shape[0]):
            for cell in range(columns):
                weight = one - (costs[step, row, cell] * best[cell] - one) * slope
                weight = max(weight, zero)
                weight *= weight
                weight *= weight
                weight *= weight
                costs[step, row, cell] = weight
                total[cell] += weight
        for step in range(costs.shape[0]):
            for cell in range(columns):
                costs[step, row, cell] /= total[cell]


@kernel
def _take(
    padded: NDArray[np.float32],
    top: int,
    left: int,
    steps: NDArray[np.int64],
    weights: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write the pixels of a block less the weighed mean of those at each step."""
    channels, _, wide = out.shape
    twice = np.empty(wide, np.float32)
    for row in range(weights.shape[1]):
        for channel in range(channels):
            for half in range(2):
                y = top + 2 * row + half
                for x in range(wide):
                    out[channel, 2 * row + half, x] = padded[channel, y, left + x]
        for step in range(steps.shape[0]):
            dy, dx = steps[step]
            for cell in range(weights.shape[2]):
                twice[2 * cell] = weights[step, row, cell]
                twice[2 * cell + 1] = weights[step, row, cell]
            for channel in range(channels):
                for half in range(2):
                    y = top + 2 * row + half + dy
                    there = padded[channel, y, left + dx : left + dx + wide]
                    line = out[channel, 2 * row + half]
                    for x in range(wide):
                        line[x] -= twice[x] * there[x]


@kernel
def residues_of_rows(
    padded: NDArray[np.float32],
    out: NDArray[np.float32],
    steps: NDArray[np.int64],
    rows: tuple[int, int],
    shape: tuple[int, int, int],
    scale: tuple[float, float],
) -> None:
    """Write the residues of some rows of cells of ``padded`` into ``out``.

    Parameters:
        padded: float32 ``(C, H + 2 margin, W + 2 margin)``.
        out: float32 ``(3, C, H, W)``, even H and W, written where ``rows`` says: against what
            lies at all steps, at the first half of them, at the other half.
        steps: int64 ``(2 N, 2)``, rows and columns to go to what is compared.
        rows: first row of cells and the one behind the last.
        shape: margin in px, cells that a square reaches, cells of a square.
        scale: what is added to the best cost, and how fast the weights fall with the cost.
    """
    margin, reach, cells = shape
    around = 2 * reach
    least = np.float32(scale[0] * 4 * cells)
    slope = np.float32(scale[1])
    across = out.shape[3] // 2
    half = steps.shape[0] // 2
    for top in range(rows[0], rows[1], ROWS):
        high = min(ROWS, rows[1] - top)
        for left in range(0, across, COLUMNS):
            wide = min(COLUMNS, across - left)
            square = np.empty((high + around, wide + around), np.float32)
            down = np.empty(wide + around, np.float32)
            costs = np.empty((steps.shape[0], high, wide), np.float32)
            y, x = margin + 2 * top, margin + 2 * left
            for step in range(steps.shape[0]):
                away = (steps[step, 0], steps[step, 1])
                _compared(padded, y - 2 * reach, x - 2 * reach, away, square)
                _boxed(square, down, costs[step])
            made = out[:, :, 2 * top : 2 * (top + high), 2 * left : 2 * (left + wide)]
            for part in range(2):
                chosen = slice(part * half, (part + 1) * half)
                weights = costs[chosen].copy()
                _weigh(weights, least, slope)
                _take(padded, y, x, steps[chosen], weights, made[1 + part])
            _weigh(costs, least, slope)
            _take(padded, y, x, steps, costs, made[0])
