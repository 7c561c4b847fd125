"""The schema of the object table: every column with its type, unit and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

SCHEMA_VERSION = 2
"""Changes when a column is added, renamed, removed or measured differently."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the object table; ``unit`` is empty where there is none."""

    name: str
    dtype: pl.DataType
    unit: str
    description: str


def _lengths(name: str, description: str) -> tuple[Column, Column]:
    return (
        Column(f"{name}_px", pl.Float64(), "px", description),
        Column(f"{name}_um", pl.Float64(), "µm", f"{description}; null: pixel size unknown"),
    )


OBJECT_COLUMNS: tuple[Column, ...] = (
    Column("image", pl.String(), "", "name of the image"),
    Column("label", pl.Int64(), "", "value of the object in the label map, its id"),
    Column("id", pl.String(), "", "uuid5 of image sha256, layer and label"),
    Column("layer", pl.Int16(), "", "layer of the label map, for patterns that overlap"),
    Column("class", pl.String(), "", "class name"),
    Column("score", pl.Float32(), "", "confidence from 0 to 1"),
    Column("y0_px", pl.Int64(), "px", "box, first row"),
    Column("x0_px", pl.Int64(), "px", "box, first column"),
    Column("y1_px", pl.Int64(), "px", "box, one past the last row"),
    Column("x1_px", pl.Int64(), "px", "box, one past the last column"),
    Column("y_px", pl.Float64(), "px", "centroid; the centre of the first pixel is 0.0"),
    Column("x_px", pl.Float64(), "px", "centroid; the centre of the first pixel is 0.0"),
    Column("y_um", pl.Float64(), "µm", "y_px times the pixel size; null: unknown"),
    Column("x_um", pl.Float64(), "µm", "x_px times the pixel size; null: unknown"),
    Column("area_px", pl.Int64(), "px", "number of pixels"),
    Column("area_um2", pl.Float64(), "µm²", "area; null: pixel size unknown"),
    *_lengths("perimeter", "Crofton perimeter from four directions, holes included"),
    *_lengths("length", "largest caliper (Feret) diameter of the pixels' areas"),
    *_lengths("width", "smallest caliper (Feret) diameter of the pixels' areas"),
    *_lengths(
        "skeleton_length",
        "length of the centre line along the longest path inside the object, from end to end of "
        "its pixels, branches and gaps left out, summed over its parts; null unless at least 3 "
        "times the mean width (in pixels), for circularity in pixels above 0.75 and for areas "
        "above 4194304 px",
    ),
    *_lengths("mean_width", "area over skeleton length; null where that is"),
    *_lengths("axis_major", "long axis of the ellipse of the same second moments"),
    *_lengths("axis_minor", "short axis of the ellipse of the same second moments"),
    Column(
        "orientation_deg",
        pl.Float64(),
        "°",
        "long axis against the x axis, counter-clockwise on the screen, from 0 to below 180; "
        "null: the axes are equal",
    ),
    Column("eccentricity", pl.Float64(), "", "of that ellipse: 0 a circle, 1 a line"),
    Column("solidity", pl.Float64(), "", "area over pixels in the convex hull"),
    Column("circularity", pl.Float64(), "", "4 pi area over perimeter squared, at most 1"),
    *_lengths("eq_diameter", "diameter of the circle of the same area"),
    Column("euler_number", pl.Int64(), "", "8-connected parts less holes"),
    Column("touches_border", pl.Boolean(), "", "has a pixel in the image's outermost rows"),
)
"""The columns every object table has, in order; intensities of the channels follow."""

INTENSITIES = (
    ("mean", "mean of the channel"),
    ("std", "standard deviation of the channel over the object's pixels (divided by N)"),
    ("min", "smallest value of the channel"),
    ("max", "largest value of the channel"),
)
"""Statistics of a channel, with their descriptions."""


def table_columns(channels: Sequence[str] = ()) -> tuple[Column, ...]:
    """Return the columns of a table with these channels' intensities, in order."""
    intensities = (
        Column(f"intensity_{statistic}_{channel}", pl.Float64(), "intensity", description)
        for channel in channels
        for statistic, description in INTENSITIES
    )
    return (*OBJECT_COLUMNS, *intensities)
