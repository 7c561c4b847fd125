"""Where objects lie on a wafer: columns that a KLARF or a wafer map is made of."""

from __future__ import annotations

import polars as pl

from domainseg.quality.die_grid import DieGrid


def position_columns(table: pl.DataFrame, grid: DieGrid) -> pl.DataFrame:
    """Return the places of the objects of a table of `measure` in the wafer's and die's frames.

    Columns, one row an object: ``wafer_x_um``, ``wafer_y_um`` (centroid from the wafer's
    centre, y up), ``radius_um``, ``die_x``, ``die_y`` (index of the die, KLARF's XINDEX and
    YINDEX) and ``die_xrel_um``, ``die_yrel_um`` (from the die's lower left corner, y up, KLARF's
    XREL and YREL).
    """
    at = grid.positions(table["y_px"].to_numpy(), table["x_px"].to_numpy())
    return pl.DataFrame(
        {
            "wafer_x_um": at.x_um,
            "wafer_y_um": at.y_um,
            "radius_um": (at.x_um**2 + at.y_um**2) ** 0.5,
            "die_x": at.xi,
            "die_y": at.yi,
            "die_xrel_um": at.xrel,
            "die_yrel_um": at.yrel,
        }
    )
