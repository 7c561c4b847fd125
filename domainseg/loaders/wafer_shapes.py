"""Defects as shapes, and their pixels in any region: a pixel is inside when its centre is.

Three forms hold every class: a blob with a star-shaped outline, a bar with a waist that
spans a line or the space between two, and a polyline with a width, whose missing
segments are the gaps of a scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ndtr

from domainseg.loaders.scene_cells import kernel, lattice
from domainseg.loaders.wafer_pattern import on_wafer
from domainseg.quality.die_grid import DieGrid
from domainseg.records import Array

ANGLES = 64
"""Samples of an outline."""
BLOB, BAR, POLYLINE = range(3)
"""Forms."""
(
    FORM,
    TOP,
    LEFT,
    BOTTOM,
    RIGHT,
    Y,
    X,
    FIRST,
    LAST,
    HALF_Y,
    HALF_X,
    WAIST,
    DOME,
    GRAIN,
    GRAIN_SEED,
    CHANGE,
    CLIP_TOP,
    CLIP_LEFT,
    CLIP_BOTTOM,
    CLIP_RIGHT,
) = range(20)
"""Columns of ``Shapes.rows``, px where they are lengths; FIRST and LAST are rows of the outlines
or the segments, WAIST the axis (1 y, 2 x) along which a bar is narrower in its middle, DOME how
much a blob fades towards its rim, GRAIN the size of its texture, CHANGE what it adds to the light
before the blur. CLIP is the box that a chip of a die keeps to."""
GRAIN_PX = 7.0
"""Width of the texture inside scratches and residues."""
MEASURED_PX = 256
"""Longest side of a shape whose blur is computed pixel by pixel; larger ones by formula."""


class Shapes(NamedTuple):
    """Defects in the order they are laid down: a later one covers those before.

    Attributes:
        rows: float64 ``(N, 20)``.
        outlines: float64 ``(B, ANGLES + 1)``, radius in px by diamond angle; the last repeats
            the first.
        segments: float64 ``(S, 5)``, ``(y0, x0, y1, x1, half width)`` in px.
    """

    rows: NDArray[np.float64]
    outlines: NDArray[np.float64]
    segments: NDArray[np.float64]


class Shape(NamedTuple):
    """One defect before it has a label.

    Attributes:
        row: float64 ``(20,)``, of ``Shapes.rows``.
        boxes: float64 ``(K, 4)``, ``(y0, x0, y1, x1)`` that together hold it, px.
        outline: of a blob.
        segments: of a polyline.
        length_px: of a polyline's centre line inside the image, gaps included.
        width_px: of a polyline.
    """

    row: NDArray[np.float64]
    boxes: NDArray[np.float64]
    outline: NDArray[np.float64] | None = None
    segments: NDArray[np.float64] | None = None
    length_px: float = np.nan
    width_px: float = np.nan


Box = tuple[float, float, float, float]
_EVERYWHERE: Box = (-np.inf, -np.inf, np.inf, np.inf)


def blob(
    yx: tuple[float, float],
    outline: NDArray[np.float64],
    *,
    dome: float = 0.0,
    grain: float = 0.0,
    grain_seed: int = 0,
    clip: Box = _EVERYWHERE,
) -> Shape:
    """Return a blob about a place, of radii ``outline (ANGLES + 1,)`` px, kept to ``clip``."""
    reach = float(outline.max())
    box = (yx[0] - reach, yx[1] - reach, yx[0] + reach, yx[1] + reach)
    row = _row(BLOB, box, clip)
    row[[Y, X, DOME, GRAIN, GRAIN_SEED]] = *yx, dome, grain, grain_seed
    return Shape(row, row[None, TOP : RIGHT + 1], outline=outline)


def bar(yx: tuple[float, float], half: tuple[float, float], *, waist: int = 0) -> Shape:
    """Return a bar about a place, ``half`` of its height and width to each side, px."""
    box = (yx[0] - half[0], yx[1] - half[1], yx[0] + half[0], yx[1] + half[1])
    row = _row(BAR, box, _EVERYWHERE)
    row[[Y, X, HALF_Y, HALF_X, WAIST]] = *yx, *half, waist
    return Shape(row, row[None, TOP : RIGHT + 1])


def polyline(
    segments: NDArray[np.float64], *, length_px: float, grain: float, grain_seed: int
) -> Shape:
    """Return a scratch of ``segments (S, 5)``; its boxes hold eight segments each."""
    reach = segments[:, 4]
    low = np.minimum(segments[:, :2], segments[:, 2:4]) - reach[:, None]
    high = np.maximum(segments[:, :2], segments[:, 2:4]) + reach[:, None]
    starts = np.arange(0, len(segments), 8)
    boxes = np.concatenate(
        [np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)], axis=1
    )
    row = _row(POLYLINE, (*low.min(0).tolist(), *high.max(0).tolist()), _EVERYWHERE)
    row[[GRAIN, GRAIN_SEED]] = grain, grain_seed
    return Shape(row, boxes, None, segments, length_px, 2 * float(reach[0]))


def _row(form: int, box: Box, clip: Box) -> NDArray[np.float64]:
    row = np.zeros(20)
    row[FORM] = form
    row[TOP : RIGHT + 1] = box
    row[CLIP_TOP : CLIP_RIGHT + 1] = clip
    return row


def gathered(shapes: Sequence[Shape]) -> Shapes:
    """Return the shapes as arrays, in their order."""
    rows = np.array([shape.row for shape in shapes]).reshape(len(shapes), 20)
    outlines, segments = [np.zeros((0, ANGLES + 1))], [np.zeros((0, 5))]
    reached = 0
    for row, shape in zip(rows, shapes, strict=True):
        if shape.outline is not None:
            row[FIRST] = len(outlines) - 1
            outlines.append(shape.outline[None])
        if shape.segments is not None:
            row[[FIRST, LAST]] = reached, reached + len(shape.segments)
            segments.append(shape.segments)
            reached += len(shape.segments)
    return Shapes(rows, np.concatenate(outlines), np.concatenate(segments))


@kernel
def _put(
    i: int, j: int, label: int, row: Any, level: float, frame: Any, labels: Any, change: Any
) -> None:
    """Give pixel ``(i, j)`` of the region to a defect where its clip and the wafer allow it."""
    y0, x0, center_y, center_x, spacing_y, spacing_x, radius = frame
    y, x = i + y0, j + x0
    if not (row[CLIP_TOP] <= y <= row[CLIP_BOTTOM] and row[CLIP_LEFT] <= x <= row[CLIP_RIGHT]):
        return
    if not on_wafer((center_y - y) * spacing_y, (x - center_x) * spacing_x, radius):
        return
    labels[i, j] = label
    if row[GRAIN] > 0.0:
        grain = lattice(np.uint64(np.int64(row[GRAIN_SEED])), y / GRAIN_PX, x / GRAIN_PX)
        level *= 1.0 + row[GRAIN] * (2.0 * grain - 1.0)
    change[i, j] = level


@kernel
def _blob(
    label: int, row: Any, outline: Any, window: Any, frame: Any, labels: Any, change: Any
) -> None:
    """Draw a blob; it fades from its middle so that its mean stays CHANGE."""
    top, bottom, left, right = window
    # Over a star-shaped blob the mean square of the relative radius is one half.
    middle = row[CHANGE] / (1.0 - 0.5 * row[DOME])
    for i in range(top, bottom):
        dy = i + frame[0] - row[Y]
        for j in range(left, right):
            dx = j + frame[1] - row[X]
            around = abs(dx) + abs(dy)
            depth = 0.0
            if around > 0.0:
                # The diamond angle is monotone in the angle and needs no arctangent.
                p = dy / around if dx >= 0.0 else 2.0 - dy / around
                p = (p + 4.0 if p < 0.0 else p) * (ANGLES / 4.0)
                a = min(int(p), ANGLES - 1)
                radius = outline[a] + (outline[a + 1] - outline[a]) * (p - a)
                depth = (dy * dy + dx * dx) / (radius * radius)
            if depth <= 1.0:
                level = middle * (1.0 - row[DOME] * depth)
                _put(i, j, label, row, level, frame, labels, change)


@kernel
def _bar(label: int, row: Any, window: Any, frame: Any, labels: Any, change: Any) -> None:
    """Draw a bar: a box, or with a waist a neck that is broader where it meets its ends."""
    top, bottom, left, right = window
    for i in range(top, bottom):
        v = abs(i + frame[0] - row[Y]) / row[HALF_Y]
        for j in range(left, right):
            u = abs(j + frame[1] - row[X]) / row[HALF_X]
            if row[WAIST] == 1.0:
                inside = u <= 1.0 and v <= 0.65 + 0.35 * u * u
            elif row[WAIST] == 2.0:
                inside = v <= 1.0 and u <= 0.65 + 0.35 * v * v
            else:
                inside = v <= 1.0 and u <= 1.0
            if inside:
                _put(i, j, label, row, row[CHANGE], frame, labels, change)


@kernel
def _polyline(label: int, row: Any, segments: Any, frame: Any, labels: Any, change: Any) -> None:
    """Draw the segments of a scratch, each with round ends."""
    height, width = labels.shape
    for s in range(int(row[FIRST]), int(row[LAST])):
        ay, ax, by, bx, half = segments[s]
        ay, ax, by, bx = ay - frame[0], ax - frame[1], by - frame[0], bx - frame[1]
        top = max(int(np.ceil(min(ay, by) - half)), 0)
        bottom = min(int(np.floor(max(ay, by) + half)) + 1, height)
        left = max(int(np.ceil(min(ax, bx) - half)), 0)
        right = min(int(np.floor(max(ax, bx) + half)) + 1, width)
        if top >= bottom or left >= right:
            continue
        # From the ends in the whole image, so that a region far off rounds alike.
        ay, ax, by, bx, half = segments[s]
        dy, dx = by - ay, bx - ax
        square = dy * dy + dx * dx
        for i in range(top, bottom):
            y = i + frame[0] - ay
            for j in range(left, right):
                x = j + frame[1] - ax
                t = min(max((y * dy + x * dx) / square, 0.0), 1.0) if square > 0.0 else 0.0
                away_y, away_x = y - t * dy, x - t * dx
                if away_y * away_y + away_x * away_x <= half * half:
                    _put(i, j, label, row, row[CHANGE], frame, labels, change)


@kernel
def _draw(shapes: Any, first: int, last: int, frame: Any, labels: Any, change: Any) -> None:
    """Lay the shapes ``[first, last)`` over a region; shape n has label n + 1."""
    rows, outlines, segments = shapes
    height, width = labels.shape
    for n in range(first, last):
        row = rows[n]
        top = max(int(np.floor(row[TOP] - frame[0])), 0)
        bottom = min(int(np.ceil(row[BOTTOM] - frame[0])) + 1, height)
        left = max(int(np.floor(row[LEFT] - frame[1])), 0)
        right = min(int(np.ceil(row[RIGHT] - frame[1])) + 1, width)
        if top >= bottom or left >= right:
            continue
        window = (top, bottom, left, right)
        if row[FORM] == BLOB:
            _blob(n + 1, row, outlines[int(row[FIRST])], window, frame, labels, change)
        elif row[FORM] == BAR:
            _bar(n + 1, row, window, frame, labels, change)
        else:
            _polyline(n + 1, row, segments, frame, labels, change)


def draw(
    shapes: Shapes,
    region: tuple[int, int, int, int],
    *,
    grid: DieGrid,
    only: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return labels and change of light of ``region = (y0, y1, x0, x1)``, ``(h, w)`` each.

    Label n + 1 is that of row n, 0 that of no defect. The region may lie outside the image.
    With ``only``, the other rows are left out.
    """
    y0, y1, x0, x1 = region
    labels = np.zeros((y1 - y0, x1 - x0), np.int32)
    change = np.zeros(labels.shape, np.float32)
    frame = (y0, x0, *grid.wafer_center_px, *grid.spacing_um, 500.0 * grid.wafer_diameter_mm)
    first, last = (0, len(shapes.rows)) if only is None else (only, only + 1)
    _draw(tuple(shapes), first, last, frame, labels, change)
    return labels, change


def blurred(plane: NDArray[np.float32], sigma: float, margin: int) -> NDArray[np.float32]:
    """Return a plane after a Gaussian of ``margin`` px to each side.

    The outermost ``margin`` pixels are wrong, having seen the end of the array.
    """
    out: Array = plane
    for axis in (0, 1) if margin else ():
        out = ndimage.gaussian_filter1d(out, sigma, axis=axis, radius=margin, mode="nearest")
    return np.asarray(out)


def blur_margin(sigma: float) -> int:
    """Return how far the blur reaches, px."""
    return int(np.ceil(3 * sigma))


def kept_by_blur(shapes: Shapes, number: int, *, grid: DieGrid, sigma: float) -> float:
    """Return the share of a shape's mean change that the blur leaves inside the shape.

    Computed from its pixels up to `MEASURED_PX`; beyond, from the straight edge's law: a
    Gaussian takes ``sigma / sqrt(2 pi)`` per unit length of an edge, and of a strip of
    width w what the integral of the normal distribution says.
    """
    row = shapes.rows[number]
    if sigma == 0:
        return 1.0
    if max(row[BOTTOM] - row[TOP], row[RIGHT] - row[LEFT]) > MEASURED_PX:
        if row[FORM] == POLYLINE:
            a = 2 * shapes.segments[int(row[FIRST]), 4] / sigma
            bell = (1 - np.exp(-0.5 * a * a)) / np.sqrt(2 * np.pi)
            return float(2 * ndtr(a) - 1 - 2 * bell / a)
        radius = shapes.outlines[int(row[FIRST])].mean()
        rim = (1 - row[DOME]) / (1 - 0.5 * row[DOME])
        return float(1 - 2 * rim * sigma / np.sqrt(2 * np.pi) / radius)
    margin = blur_margin(sigma)
    region = (
        int(row[TOP]) - margin - 1,
        int(row[BOTTOM]) + margin + 2,
        int(row[LEFT]) - margin - 1,
        int(row[RIGHT]) + margin + 2,
    )
    labels, change = draw(shapes, region, grid=grid, only=number)
    inside = labels > 0
    if not inside.any():
        return 1.0
    return float(blurred(change, sigma, margin)[inside].mean() / row[CHANGE])
