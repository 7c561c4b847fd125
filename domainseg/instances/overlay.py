"""An image stretched for the eye with the objects' outlines drawn into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from domainseg.errors import InputError, sentence
from domainseg.instances.colours import class_colour, object_colour
from domainseg.instances.kernel import kernel
from domainseg.records import Array, Plane

_BAND_PX = 1 << 24
_LINE_PER_SIDE = 2000
# Two channels: green and magenta, which colour-blind readers tell apart.
_CHANNEL_COLOURS = ((0, 1, 0), (1, 0, 1), (0, 0.6, 1), (1, 0.8, 0), (1, 0.3, 0), (1, 1, 1))


def overlay(
    image: Plane,
    labels: Plane,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    percentiles: tuple[float, float] = (0.5, 99.8),
    classes: Mapping[int, int] | None = None,
    max_side: int = 2048,
    line_px: int | None = None,
) -> NDArray[np.uint8]:
    """Return uint8 ``(h, w, 3)``: the image with a line along each object's inner edge.

    ``image`` is ``(C, H, W)`` and ``labels`` integer ``(H, W)``, both numpy or lazy:
    they are read in bands, so that memory follows the result. Larger images are
    averaged down by a whole factor to at most ``max_side``; a pixel of the result
    is coloured where any pixel under it lies on an edge, so that no object vanishes.

    One channel is grey, three are red, green, blue, other numbers are mixed from
    one colour each. Values from ``low`` to ``high`` (a number, or one per channel)
    become 0 to 255; by default they are the ``percentiles`` of the averaged image,
    of each channel, or of all three together so that colours keep their hue.

    ``classes`` maps a label to its class index: lines then have the class's colour
    (`colours.class_colour`), else each object its own. ``line_px`` is the thickness
    in pixels of the input; by default 1, and 1 more per 2,000 pixels of the result.

    Raises:
        InputError: when the labels have another size than the image.
    """
    shape = (int(image.shape[1]), int(image.shape[2]))
    if tuple(labels.shape) != shape:
        raise InputError(
            sentence(
                "overlay",
                found=f"labels of {' x '.join(str(side) for side in labels.shape)} px",
                wanted=f"the image's {shape[0]} x {shape[1]} px",
                fix="pair each image with its own labels",
            )
        )
    factor = max(1, -(-max(shape) // max_side))
    reach = line_px or 1 + max(shape) // factor // _LINE_PER_SIDE
    small, edges = _shrunk(image, labels, factor, reach)
    pixels = _stretched(small, low, high, percentiles)
    return _painted(pixels, edges, classes)


def _shrunk(
    image: Plane, labels: Plane, factor: int, reach: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the averaged image ``(C, h, w)`` and the label on an edge per pixel ``(h, w)``."""
    channels, height, width = (int(side) for side in image.shape)
    rows, columns = -(-height // factor), -(-width // factor)
    small = np.empty((channels, rows, columns), np.float32)
    edges = np.zeros((rows, columns), np.int64)
    step = max(1, _BAND_PX // max(1, factor * width))
    for row in range(0, rows, step):
        top, bottom = row * factor, min((row + step) * factor, height)
        band = np.asarray(image[:, top:bottom])
        for c in range(channels):
            _average(band[c], factor, small[c, row : row + step])
        above, below = max(top - reach, 0), min(bottom + reach, height)
        window = np.asarray(labels[above:below])
        _find_edges(window, top - above, bottom - above, factor, reach, edges[row : row + step])
    return small, edges


@kernel
def _average(pixels: Any, factor: int, out: Any) -> None:
    """Write the mean of every block of ``factor`` x ``factor`` pixels, cut at the border."""
    height, width = pixels.shape
    for i in range(out.shape[0]):
        y1 = min((i + 1) * factor, height)
        for j in range(out.shape[1]):
            x1 = min((j + 1) * factor, width)
            total = 0.0
            for y in range(i * factor, y1):
                for x in range(j * factor, x1):
                    total += pixels[y, x]
            out[i, j] = total / ((y1 - i * factor) * (x1 - j * factor))


@kernel
def _on_edge(labels: Any, y: int, x: int, reach: int) -> bool:
    """Return whether another label, or the image's border, is ``reach`` steps away or less."""
    height, width = labels.shape
    if y < reach or x < reach or y + reach >= height or x + reach >= width:
        return True
    label = labels[y, x]
    for step in range(1, reach + 1):
        if labels[y - step, x] != label or labels[y + step, x] != label:
            return True
        if labels[y, x - step] != label or labels[y, x + step] != label:
            return True
    return False


@kernel
def _find_edges(labels: Any, top: int, bottom: int, factor: int, reach: int, out: Any) -> None:
    """Write the first label on an edge in every block of the rows from top to bottom."""
    width = labels.shape[1]
    for y in range(top, bottom):
        i = (y - top) // factor
        for x in range(width):
            j = x // factor
            if labels[y, x] > 0 and out[i, j] == 0 and _on_edge(labels, y, x, reach):
                out[i, j] = labels[y, x]


def _stretched(
    small: NDArray[np.float32],
    low: ArrayLike | None,
    high: ArrayLike | None,
    percentiles: tuple[float, float],
) -> NDArray[np.uint8]:
    """Return ``(h, w, 3)`` of an image ``(C, h, w)``."""
    channels = small.shape[0]
    lows, highs = _limits(small, percentiles)
    if low is not None:
        lows = np.broadcast_to(np.asarray(low, np.float64), channels)
    if high is not None:
        highs = np.broadcast_to(np.asarray(high, np.float64), channels)
    scale = np.where(highs > lows, 1 / np.where(highs > lows, highs - lows, 1.0), 0.0)
    pixels = np.empty((*small.shape[1:], 3), np.uint8)
    _mix(small, lows, 255 * scale, _mixing(channels), pixels)
    return pixels


@kernel
def _mix(small: Any, lows: Any, scale: Any, mixing: Any, out: Any) -> None:
    """Write the stretched channels, each in its colour, added up."""
    channels, height, width = small.shape
    for y in range(height):
        for x in range(width):
            red = green = blue = 0.0
            for c in range(channels):
                value = (small[c, y, x] - lows[c]) * scale[c]
                value = min(max(value, 0.0), 255.0)
                red += value * mixing[c, 0]
                green += value * mixing[c, 1]
                blue += value * mixing[c, 2]
            out[y, x, 0] = np.uint8(np.rint(min(red, 255.0)))
            out[y, x, 1] = np.uint8(np.rint(min(green, 255.0)))
            out[y, x, 2] = np.uint8(np.rint(min(blue, 255.0)))


def _limits(
    small: NDArray[np.float32], percentiles: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values shown black and white, ``(C,)`` each."""
    if small.size == 0:
        return np.zeros(len(small)), np.ones(len(small))
    if len(small) == 3:
        low, high = np.percentile(small, percentiles)
        return np.full(3, low), np.full(3, high)
    low, high = np.percentile(small.reshape(len(small), -1), percentiles, axis=1)
    return low, high


def _mixing(channels: int) -> NDArray[np.float64]:
    """Return the red, green and blue of each channel, ``(C, 3)``."""
    if channels == 1:
        return np.ones((1, 3))
    if channels == 3:
        return np.eye(3)
    return np.array([_CHANNEL_COLOURS[c % len(_CHANNEL_COLOURS)] for c in range(channels)], float)


def _painted(pixels: Array, edges: Array, classes: Mapping[int, int] | None) -> NDArray[np.uint8]:
    """Return the pixels with those on an edge in their object's or class's colour."""
    ids, ranks = np.unique(edges[edges > 0], return_inverse=True)
    colours = [
        object_colour(label) if classes is None else class_colour(classes[label])
        for label in ids.tolist()
    ]
    painted = pixels.copy()
    painted[edges > 0] = np.array(colours, np.uint8).reshape(-1, 3)[ranks]
    return painted
