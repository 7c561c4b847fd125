"""How good an image is to look at: sharpness, and pixels at the ends of the range."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from domainseg.records import Plane

BLOCK_PX = 2048
"""Side of what is read at a time."""
NOISE = 20.0
"""Variance of the Laplacian of white noise over the noise's own."""


def check_plane(plane: Plane) -> tuple[float | None, float | None]:
    """Return focus and share of saturated pixels of ``(C, H, W)``, read block by block.

    **Focus** is the standard deviation of the Laplacian (four neighbours, mean of the channels)
    over that of white noise with the image's own standard deviation: 1 for noise alone, nearer
    to 0 the more blurred an image is; None for an image of one grey. It depends on what is
    shown: limits are for images of one kind.

    **Saturated** is a pixel at the least or the greatest value of its integer type in any
    channel; None for floats.
    """
    height, width = plane.shape[1:]
    total = squares = laplace = 0.0
    inner = saturated = 0
    for (y0, y1), (x0, x1) in _blocks(height, width):
        # With one pixel around, of which the Laplacian of the inner ones is made.
        top, left = max(y0 - 1, 0), max(x0 - 1, 0)
        block = np.asarray(plane[:, top : min(y1 + 1, height), left : min(x1 + 1, width)])
        own = block[:, y0 - top : y1 - top, x0 - left : x1 - left]
        if np.issubdtype(block.dtype, np.integer):
            ends = np.iinfo(block.dtype)
            saturated += int(((own == ends.min) | (own == ends.max)).any(0).sum())
        grey = block.mean(0, dtype=np.float64)
        mine = grey[y0 - top : y1 - top, x0 - left : x1 - left]
        total += float(mine.sum())
        squares += float((mine**2).sum())
        inside = _laplacian(grey)
        laplace += float((inside**2).sum())
        inner += inside.size
    pixels = height * width
    variance = squares / pixels - (total / pixels) ** 2
    sharp = None
    if inner and variance > 1e-12 * max(1.0, squares / pixels):
        sharp = float(np.sqrt(laplace / inner / (NOISE * variance)))
    share = saturated / pixels if np.issubdtype(plane.dtype, np.integer) else None
    return sharp, share


def _laplacian(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return four times each inner pixel less its neighbours."""
    if min(grey.shape) < 3:
        return np.zeros((0, 0))
    middle = 4.0 * grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return np.asarray(middle - around)


def _blocks(height: int, width: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for y in range(0, height, BLOCK_PX):
        for x in range(0, width, BLOCK_PX):
            yield (y, min(y + BLOCK_PX, height)), (x, min(x + BLOCK_PX, width))
