"""Lengths, areas and form factors of objects from their exact integer sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.hulls import (
    DIAMOND,
    SQUARE,
    caliper_diameters,
    grow_hulls,
    lattice_counts,
)
from domainseg.instances.pieces import (
    AREA,
    CLIQUES,
    PAIRS_DIAGONAL,
    PAIRS_X,
    PAIRS_Y,
    Pieces,
    exact,
)
from domainseg.records import Array

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Forms of N objects, float64 ``(N,)`` unless said; lengths in the unit of the scale.

    Attributes:
        centroids: ``(N, 2)``, ``(y, x)``; the centre of the first pixel is 0.
        area: number of pixels times the pixel's area.
        perimeter: `crofton_perimeter`.
        length: largest caliper diameter of the pixels' areas: a row of n pixels
            of size 1 has ``sqrt(n * n + 1)``, as its outline's corners do. It
            differs by less than one pixel from scikit-image's
            ``feret_diameter_max``, which goes between middles of edges.
        width: smallest caliper diameter of the pixels' areas: that row has 1.
        axis_major, axis_minor: axes of the ellipse with the second moments of the
            pixel centres; 0 across a row one pixel thick.
        orientation_deg: from the x axis to the long axis, counter-clockwise on the
            screen, in [0, 180); NaN where the axes are equal.
        eccentricity: of that ellipse, in [0, 1].
        solidity: area over the pixels whose centre lies in the convex hull of the
            middles of the pixels' edges: scikit-image's, equal to it in every bit.
        circularity: ``4 pi area / perimeter ** 2``, at most 1: the perimeter of small
            round objects comes out a little short.
        eq_diameter: of the circle of the same area.
        euler_number: int64, 8-connected parts less holes.
    """

    centroids: Floats
    area: Floats
    perimeter: Floats
    length: Floats
    width: Floats
    axis_major: Floats
    axis_minor: Floats
    orientation_deg: Floats
    eccentricity: Floats
    solidity: Floats
    circularity: Floats
    eq_diameter: Floats
    euler_number: NDArray[np.int64]


def find_shapes(pieces: Pieces, *, scale: tuple[float, float]) -> Shapes:
    """Return the shapes of whole objects; ``scale`` is the pixel size ``(y, x)``."""
    counts = pieces.counts
    area = counts[:, AREA].astype(np.float64) * (scale[0] * scale[1])
    perimeter = crofton_perimeter(counts, scale=scale)
    length, width = caliper_diameters(grow_hulls(pieces.hulls, SQUARE), scale=scale)
    major, minor, angle = ellipse_axes(pieces, scale=scale)
    convex = lattice_counts(grow_hulls(pieces.hulls, DIAMOND))
    with np.errstate(invalid="ignore"):
        ratio = np.where(major > 0, minor / major, 1.0)
    return Shapes(
        centroids=_centroids(pieces) * scale,
        area=area,
        perimeter=perimeter,
        length=length,
        width=width,
        axis_major=major,
        axis_minor=minor,
        orientation_deg=angle,
        eccentricity=np.sqrt(1 - ratio * ratio),
        solidity=counts[:, AREA] / convex,
        circularity=np.minimum(4 * np.pi * area / perimeter**2, 1.0),
        eq_diameter=np.sqrt(4 * area / np.pi),
        euler_number=euler_numbers(counts),
    )


def crofton_perimeter(counts: NDArray[np.int64], *, scale: tuple[float, float]) -> Floats:
    """Return the perimeters, float64 ``(N,)``, from ``Pieces.counts``; holes count too.

    Cauchy-Crofton with four directions: lines along the rows, the columns and the
    two diagonals of a pixel; each direction is weighted by the distance of its
    lines and the angle up to the bisectors with its neighbours (Legland, Kieu and
    Devaux 2007). With square pixels it is scikit-image's ``perimeter_crofton``.
    """
    sy, sx = scale
    area, along_x, along_y, diagonal = (
        counts[:, i] for i in (AREA, PAIRS_X, PAIRS_Y, PAIRS_DIAGONAL)
    )
    # A line enters and leaves the object once for every pixel without a successor.
    steepness = np.arctan2(sy, sx)
    rows = steepness * sy * (area - along_x)
    columns = (np.pi / 2 - steepness) * sx * (area - along_y)
    diagonals = np.pi / 4 * (sy * sx / np.hypot(sy, sx)) * (2 * area - diagonal)
    return np.asarray(rows + columns + diagonals, np.float64)


def euler_numbers(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 8-connected parts less holes, int64 ``(N,)``, from ``Pieces.counts``.

    The Euler number of the complex of all sets of mutual 8-neighbours: pixels less
    pairs plus triples less quadruples.
    """
    pairs = counts[:, PAIRS_X] + counts[:, PAIRS_Y] + counts[:, PAIRS_DIAGONAL]
    return np.asarray(counts[:, AREA] - pairs + counts[:, CLIQUES], np.int64)


def ellipse_axes(pieces: Pieces, *, scale: tuple[float, float]) -> tuple[Floats, Floats, Floats]:
    """Return long axis, short axis and orientation in degrees of each object's ellipse.

    The ellipse has the variances of the pixel centres, which are differences of
    products of whole numbers and are formed as such: nothing cancels. The axes
    are four standard deviations long. The orientation is NaN for equal axes.
    """
    yy, xx, xy = _variances(pieces, scale)
    mean = (yy + xx) / 2
    spread = np.hypot((yy - xx) / 2, xy)
    angle = np.degrees(0.5 * np.arctan2(-2 * xy, xx - yy)) % 180.0
    angle[angle >= 180.0] = 0.0
    angle[spread == 0] = np.nan
    return 4 * np.sqrt(mean + spread), 4 * np.sqrt(np.maximum(mean - spread, 0)), angle


def _variances(pieces: Pieces, scale: tuple[float, float]) -> tuple[Floats, Floats, Floats]:
    """Return the variances along y and x and the covariance of the pixel centres."""
    n, y, x, yy, xx, xy = _exact_columns(pieces)
    square = (n * n).astype(np.float64)
    return (
        (n * yy - y * y).astype(np.float64) / square * (scale[0] * scale[0]),
        (n * xx - x * x).astype(np.float64) / square * (scale[1] * scale[1]),
        (n * xy - y * x).astype(np.float64) / square * (scale[0] * scale[1]),
    )


def _centroids(pieces: Pieces) -> Floats:
    """Return the centroids ``(N, 2)`` in px: the exact quotient, rounded once."""
    n, y, x, *_ = _exact_columns(pieces)
    corner = pieces.boxes[:, 0]
    sums = np.stack([y + n * corner[:, 0], x + n * corner[:, 1]], 1)
    return np.asarray(sums.astype(np.float64) / n.astype(np.float64)[:, None], np.float64)


def _exact_columns(pieces: Pieces) -> tuple[Array, ...]:
    """Return area and moments fit for products of two of them."""
    area = pieces.counts[:, AREA]
    reach = float(pieces.boxes.max(initial=1))
    largest = float(area.max(initial=0))
    # A moment is at most the area times two coordinates; a numerator, once more the area.
    extent = float((pieces.boxes[:, 1] - pieces.boxes[:, 0]).max(initial=1))
    bound = max(largest * largest * extent * extent, largest * reach)
    columns = (area, *pieces.moments.T)
    return tuple(exact(column, bound=bound) for column in columns)
