"""One plane of several: the largest or the mean value of each pixel."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from domainseg.images.select import Projection
from domainseg.records import Array


def projected(blocks: Iterable[Array], projection: Projection | None) -> Array:
    """Return the blocks, of one shape and dtype, as one block of that dtype.

    Means are of float64 sums and rounded for integers. A single block is itself; the blocks
    are taken one after the other, so that memory holds two of them.
    """
    taken = iter(blocks)
    first = next(taken)
    total, count = first, 1
    for block in taken:
        if count == 1:
            total = first.astype(np.float64) if projection == "mean" else first.copy()
        if projection == "mean":
            total += block
        else:
            np.maximum(total, block, out=total)
        count += 1
    if projection == "mean" and count > 1:
        total /= count
        if first.dtype.kind != "f":
            np.rint(total, out=total)
    return total.astype(first.dtype, copy=False)
