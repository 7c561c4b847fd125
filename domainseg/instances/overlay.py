"""An image stretched for the eye with the objects' outlines drawn into it."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from domainseg.errors import InputError, sentence
from domainseg.instances.colours import class_colour, object_colour
from domainseg.instances.kernel import kernel
from domainseg.instances.tile_graph import Box
from domainseg.records import Array, Plane

MAX_SIDE = 2048
"""Longest side of a picture, px, unless another is asked for."""
_BLOCK_PX = 2048
_SAMPLED_PX = 1 << 20
"""Pixels of a picture, evenly spaced, that its percentiles are taken of, or a few more."""
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
    max_side: int = MAX_SIDE,
) -> NDArray[np.uint8]:
    """Return uint8 ``(h, w, 3)``: the image with a line along each object's inner edge.

    ``image`` is ``(C, H, W)`` and ``labels`` integer ``(H, W)``, both numpy or lazy:
    they are read in blocks, so that memory follows the result (`Canvas`).

    Raises:
        InputError: when the labels have another size than the image.
    """
    height, width = shape = (int(image.shape[1]), int(image.shape[2]))
    if tuple(labels.shape) != shape:
        raise InputError(
            sentence(
                "overlay",
                found=f"labels of {' x '.join(str(side) for side in labels.shape)} px",
                wanted=f"the image's {shape[0]} x {shape[1]} px",
                fix="pair each image with its own labels",
            )
        )
    canvas = Canvas((int(image.shape[0]), *shape), max_side=max_side)
    step = max(_BLOCK_PX, canvas.factor)
    for y, x in product(range(0, height, step), range(0, width, step)):
        box = ((y, x), (min(y + step, height), min(x + step, width)))
        (_, _), (y1, x1) = box
        canvas.average(np.asarray(image[:, y:y1, x:x1]), box)
        canvas.outline(np.asarray(labels[y : y1 + 1, x : x1 + 1]), box)
    return canvas.picture(low=low, high=high, percentiles=percentiles, classes=classes)


class Canvas:
    """A picture of an image of any size with outlines, put together from blocks of it.

    A pixel of the picture is the mean of ``factor x factor`` pixels, ``factor`` being the
    least power of two with which no side is longer than ``max_side``. It is coloured where
    any pixel under it lies on an edge of an object, so that no object vanishes; of several
    objects the one with the highest number. A pixel lies on an edge when one of its four
    neighbours has another label, or when it is at the image's border.

    Blocks begin at multiples of ``factor``; they may come in any order, from any thread.

    Args:
        shape: ``(C, H, W)`` of the image.
        max_side: longest side of the picture, px.
        pixels: the averaged image ``(C, h, w)``, where it is known already.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, max_side: int = MAX_SIDE, pixels: Array | None = None
    ) -> None:
        self.shape = shape
        self.factor = 1
        while max(shape[1:]) > max_side * self.factor:
            self.factor *= 2
        height, width = self.size
        self.averaged = pixels is not None
        self._small = (
            np.zeros((shape[0], height, width), np.float32)
            if pixels is None
            else np.asarray(pixels, np.float32)
        )
        self._edges = np.zeros((height, width), np.int64)
        self._lock = threading.Lock()

    @property
    def size(self) -> tuple[int, int]:
        """``(h, w)`` of the picture."""
        _, height, width = self.shape
        return -(-height // self.factor), -(-width // self.factor)

    def average(self, pixels: Array, box: Box, *, first: int = 0) -> None:
        """Take the pixels ``(c, h, w)`` of a block, of the channels from ``first`` on."""
        rows, columns = self._cells(box)
        for channel, plane in enumerate(pixels, start=first):
            _average(plane, self.factor, self._small[channel, rows, columns])

    def outline(self, window: Array, box: Box) -> None:
        """Take the labels of a block, and one row below and one column to its right.

        The row and the column are missing where the image ends.
        """
        (y0, x0), (y1, x1) = box
        rows, columns = self._cells(((y0, x0), (y0 + window.shape[0], x0 + window.shape[1])))
        found = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.int64)
        _, height, width = self.shape
        ends = np.array([y0 == 0, y1 == height, x0 == 0, x1 == width])
        _find_edges(window, y1 - y0, x1 - x0, ends, self.factor, found)
        with self._lock:
            np.maximum(self._edges[rows, columns], found, out=self._edges[rows, columns])

    def picture(
        self,
        *,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
        percentiles: tuple[float, float] = (0.5, 99.8),
        classes: Mapping[int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Return uint8 ``(h, w, 3)``.

        One channel is grey, three are red, green, blue, other numbers are mixed from
        one colour each. Values from ``low`` to ``high`` (a number, or one per channel)
        become 0 to 255; by default they are the ``percentiles`` of the averaged image,
        of each channel, or of all three together so that colours keep their hue.

        ``classes`` maps a label to its class index: lines then have the class's colour
        (`colours.class_colour`), else each object its own.
        """
        return _painted(_stretched(self._small, low, high, percentiles), self._edges, classes)

    def _cells(self, box: Box) -> tuple[slice, slice]:
        """Return rows and columns of the picture under a box."""
        (y0, x0), (y1, x1) = box
        f = self.factor
        return slice(y0 // f, -(-y1 // f)), slice(x0 // f, -(-x1 // f))


@kernel
def _average(pixels: Any, factor: int, out: Any) -> None:
    """Write the mean of every block of ``factor`` x ``factor`` pixels, cut at the border."""
    height, width = pixels.shape
    sums = np.zeros(out.shape[1])
    for i in range(out.shape[0]):
        y0, y1 = i * factor, min((i + 1) * factor, height)
        sums[:] = 0.0
        for y in range(y0, y1):
            for j in range(out.shape[1]):
                total = 0.0
                for x in range(j * factor, min((j + 1) * factor, width)):
                    total += pixels[y, x]
                sums[j] += total
        for j in range(out.shape[1]):
            out[i, j] = sums[j] / ((y1 - y0) * (min((j + 1) * factor, width) - j * factor))


@kernel
def _find_edges(window: Any, height: int, width: int, ends: Any, factor: int, out: Any) -> None:
    """Write the highest label on an edge under every cell.

    ``ends`` tells whether the first row, last row, first and last column are the image's. A
    contact belongs to the block of its upper or left pixel; both of its pixels are marked.
    """
    down, across = window.shape
    for y in range(height):
        i = y // factor
        border = (y == 0 and ends[0]) or (y == height - 1 and ends[1])
        for x in range(width):
            label = window[y, x]
            edge = border or (x == 0 and ends[2]) or (x == width - 1 and ends[3])
            if x + 1 < across and window[y, x + 1] != label:
                edge = True
                j = (x + 1) // factor
                out[i, j] = max(out[i, j], window[y, x + 1])
            if y + 1 < down and window[y + 1, x] != label:
                edge = True
                below = (y + 1) // factor
                out[below, x // factor] = max(out[below, x // factor], window[y + 1, x])
            if edge:
                out[i, x // factor] = max(out[i, x // factor], label)


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
    step = max(1, math.isqrt(small[0].size // _SAMPLED_PX))
    small = small[:, ::step, ::step]
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
    shown = np.zeros(int(edges.max(initial=0)) + 1, np.bool_)
    shown[edges] = True
    shown[0] = False
    ids = np.flatnonzero(shown)
    table = np.zeros((len(shown), 3), np.uint8)
    if len(ids):
        table[ids] = [
            object_colour(label) if classes is None else class_colour(classes[label])
            for label in ids.tolist()
        ]
    return np.where(edges[..., None] > 0, table[edges], pixels)
