"""Objects painted into planes: their pixels, their union, what lies near them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from domainseg.records import Array, Instances


def pixels_of(instances: Instances) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every pixel of every object, object after object, and the row that owns it.

    Both int64 ``(P,)``; a pixel is its linear index in the plane, and is listed once for
    each object that holds it.
    """
    lengths = instances.runs[:, 2]
    starts = instances.runs[:, 0] * instances.shape[1] + instances.runs[:, 1]
    before = np.cumsum(lengths) - lengths
    pixels = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
    owners = np.repeat(np.arange(len(instances)), np.diff(instances.offsets))
    return pixels, np.repeat(owners, lengths)


def union(instances: Instances, chosen: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Return where any object is, or any of those ``chosen`` (bool ``(N,)``), bool ``(H, W)``."""
    pixels, owners = pixels_of(instances)
    flat = np.zeros(instances.shape[0] * instances.shape[1], bool)
    flat[pixels if chosen is None else pixels[chosen[owners]]] = True
    return flat.reshape(instances.shape)


def disc_maximum(plane: Array, radius_px: float, *, outside: float) -> Array:
    """Return of each pixel the largest value whose centre is within ``radius_px`` of its own.

    ``plane`` is ``(H, W)``, bool or of numbers; beyond it ``outside`` is read. Of a mask
    this is its dilation by a disc. The time is that of ``2 radius + 1`` passes.
    """
    if radius_px < 1 or not plane.size:
        return plane
    height = plane.shape[0]
    values = plane.astype(np.uint8) if plane.dtype == bool else plane
    out = values.copy()
    reach = min(math.floor(radius_px), height - 1)
    for dy in range(reach + 1):
        half = math.floor(math.sqrt(radius_px**2 - dy**2))
        wide = maximum_filter1d(values, 2 * half + 1, axis=1, mode="constant", cval=outside)
        np.maximum(out[dy:], wide[: height - dy], out=out[dy:])
        np.maximum(out[: height - dy], wide[dy:], out=out[: height - dy])
    return out.astype(bool) if plane.dtype == bool else out
