"""Made-up wafers that several tests look at."""

from __future__ import annotations

from typing import Any

from domainseg.loaders.wafer_look import WaferLook
from domainseg.loaders.wafer_plane import WaferPlane
from domainseg.loaders.wafers import Wafers
from domainseg.quality.die_grid import DieGrid

INSIDE = (300.3, 12_345.1)
"""Centre of the wafer in px, from a field well inside it at half a micrometre a pixel."""


def field_of(
    look: WaferLook | None = None, *, seed: int = 1, side: int = 256, count: int = 6, **over: Any
) -> WaferPlane:
    return WaferPlane(look or WaferLook(), seed, (side, side), INSIDE, count=count, **over)


def whole_wafer(**over: Any) -> Wafers:
    """Return wafers of 61,200 px across with scratches up to half the wafer long."""
    return Wafers(
        **{
            "view": "wafer",
            "spacing_um": 5.0,
            "particle_um": (20.0, 400.0),
            "scratch_um": (2_000.0, 150_000.0),
            "scratch_width_um": (10.0, 30.0),
            "residue_um": (500.0, 5_000.0),
            "chip_um": (100.0, 2_000.0),
            "good": 0.0,
            **over,
        }
    )


def grid_at(center: tuple[float, float], spacing: float = 0.5, diameter: float = 300.0) -> DieGrid:
    return DieGrid(
        pitch_um=(2000.0, 2400.0),
        center_um=(1200.0, 1000.0),
        wafer_diameter_mm=diameter,
        spacing_um=(spacing, spacing),
        wafer_center_px=center,
    )
