"""Crops of an image with the outlines of truth and prediction drawn on them.

The picture is grey, so that nothing but the outlines has a colour, and it is
enlarged before they are drawn, so that a line is thin beside a small object.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from domainseg.records import Array
from domainseg.report.mistakes import Mistake

TRUTH = "#46b4ff"
PREDICTION = "#ff9a3c"
LEGEND = (("Truth", TRUTH), ("Prediction", PREDICTION))

_SIDE = 320
_MARGIN = 1.7
_SMALLEST = 40
# The truth is drawn first and wider: where both agree, both remain visible.
_TRUTH_WIDTH, _PREDICTION_WIDTH = 4, 2
_ASIDE = 0.45
Window = tuple[tuple[int, int], tuple[int, int]]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Comparison:
    """An image as brightness with its truth and predicted label maps ``(H, W)``.

    ``grey`` is uint8 ``(h, w)``, each pixel standing for ``factor`` x ``factor`` of the image.
    """

    grey: Pixels
    truth: Array
    predicted: Array
    factor: int = 1


def without_outlines(picture: Pixels, labels: Array, *, factor: int = 1) -> Pixels:
    """Return the brightness of an overlay, uint8 ``(h, w)``, the outlines of ``labels`` removed.

    Where an outline was drawn, along the inner edge of an object and along the
    border of the image, the nearest pixel without one takes its place.
    """
    grey = _luminance(picture)
    inner = np.zeros(labels.shape, bool)
    inner[1:-1, 1:-1] = True
    edges = outline(labels, thickness=1) | (~inner & (labels != 0))
    spare = [(0, -side % factor) for side in edges.shape]
    blocks = np.pad(edges, spare).reshape(grey.shape[0], factor, grey.shape[1], factor)
    drawn = blocks.any(axis=(1, 3))
    if drawn.all():
        return grey
    rows, columns = distance_transform_edt(drawn, return_distances=False, return_indices=True)
    return np.asarray(grey[rows, columns], np.uint8)


def draw_mistake(compared: Comparison, mistake: Mistake) -> Pixels:
    """Return the mistake in its surroundings, RGB uint8; other objects' outlines are fainter."""
    shape = compared.truth.shape
    window = window_around(mistake.box, shape=(shape[0], shape[1]))
    return _draw(compared, window, truth=mistake.truth, predicted=mistake.predicted)


def draw_whole(compared: Comparison) -> Pixels:
    """Return the whole image with all outlines, RGB uint8, its longer side near 320 px."""
    height, width = compared.truth.shape
    return _draw(compared, ((0, 0), (height, width)), truth=None, predicted=None)


def draw_object(grey: Pixels, labels: Array, label: int) -> Pixels:
    """Return a part of an image with the outlines in it, RGB uint8, one drawn full.

    ``grey`` is uint8 ``(H, W)``, ``labels`` are integers of the same shape.
    """
    compared = Comparison(grey, np.zeros_like(labels), labels)
    return _draw(compared, ((0, 0), (grey.shape[0], grey.shape[1])), truth=(), predicted=(label,))


def window_around(box: Window, *, shape: tuple[int, int]) -> Window:
    """Return the square around ``box`` with a margin, moved and cut to lie in the image."""
    (y0, x0), (y1, x1) = box
    side = max(_SMALLEST, round(max(y1 - y0, x1 - x0) * _MARGIN))
    starts, ends = [], []
    for low, high, size in ((y0, y1, shape[0]), (x0, x1, shape[1])):
        length = min(side, size)
        start = min(max(0, (low + high - length) // 2), size - length)
        starts.append(start)
        ends.append(start + length)
    return (starts[0], starts[1]), (ends[0], ends[1])


def _draw(
    compared: Comparison,
    window: Window,
    *,
    truth: Collection[int] | None,
    predicted: Collection[int] | None,
) -> Pixels:
    """Return the window with outlines; the labels named are drawn full, None means all."""
    (y0, x0), (y1, x1) = window
    longer = max(y1 - y0, x1 - x0)
    shape = tuple(max(1, round(n * _SIDE / longer)) for n in (y1 - y0, x1 - x0))
    height, width = compared.grey.shape
    # The last row and column of a smaller picture may stand for pixels outside the image.
    box = (x0 / compared.factor, y0 / compared.factor, x1 / compared.factor, y1 / compared.factor)
    box = (box[0], box[1], min(box[2], width), min(box[3], height))
    large = Image.fromarray(compared.grey).resize(
        (shape[1], shape[0]), Image.Resampling.BICUBIC, box=box
    )
    canvas = np.repeat(np.asarray(large, np.float32)[:, :, None], 3, axis=2)
    rows = (np.arange(shape[0]) * 2 + 1) * (y1 - y0) // (2 * shape[0])
    columns = (np.arange(shape[1]) * 2 + 1) * (x1 - x0) // (2 * shape[1])
    for labels, focus, colour, thickness in (
        (compared.truth, truth, TRUTH, _TRUTH_WIDTH),
        (compared.predicted, predicted, PREDICTION, _PREDICTION_WIDTH),
    ):
        enlarged = labels[y0:y1, x0:x1][np.ix_(rows, columns)]
        line = outline(enlarged, thickness=thickness)
        strong = line if focus is None else line & np.isin(enlarged, list(focus))
        _paint(canvas, line & ~strong, colour, opacity=_ASIDE)
        _paint(canvas, strong, colour, opacity=1.0)
    return np.rint(canvas).astype(np.uint8)


def outline(labels: Array, *, thickness: int) -> NDArray[np.bool_]:
    """Return the pixels of objects within ``thickness`` px of another label, bool ``(H, W)``.

    Distance is counted in 4-connected steps; the border of the array is no edge.
    """
    near = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        widths = np.eye(2, dtype=int)[axis]
        near |= np.pad(differs, np.stack([widths, 0 * widths], 1))
        near |= np.pad(differs, np.stack([0 * widths, widths], 1))
    for _ in range(thickness - 1):
        grown = near.copy()
        grown[1:] |= near[:-1]
        grown[:-1] |= near[1:]
        grown[:, 1:] |= near[:, :-1]
        grown[:, :-1] |= near[:, 1:]
        near = grown
    return np.asarray(near & (labels != 0), np.bool_)


def _luminance(rgb: Pixels) -> Pixels:
    """Return the brightness, uint8 ``(h, w)``, with the weights of ITU-R BT.601."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.asarray(np.rint(rgb.astype(np.float32) @ weights), np.uint8)


def _paint(
    canvas: NDArray[np.float32], where: NDArray[np.bool_], colour: str, *, opacity: float
) -> None:
    """Lay a colour over the canvas, in place."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
    canvas[where] += opacity * (rgb - canvas[where])
