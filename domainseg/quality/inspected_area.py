"""How much of a unit was inspected, less what the edge exclusion and ignored zones leave out.

Areas are counted on places: so many along each side of every die, or of the one image that a unit
is. What an inspection itself did not look at, it has left out of its area before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.quality.lot import Dies, Unit
from domainseg.quality.rules import Rules
from domainseg.quality.zones import Area, Boxes

PER_DIE, PER_IMAGE = 16, 512
"""Places along each side of a die, and of an image."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def less_left_out(unit: Unit, rules: Rules, zones: Sequence[Area]) -> Unit:
    """Return the unit with the area that neither the edge nor a zone leaves out.

    Raises:
        InputError: how much a zone leaves out cannot be known.
    """
    ignored = [area for area in zones if area.zone.ignore]
    if unit.dies is None:
        share = _share_of_image(unit, zones) if ignored else 1.0
    elif len(unit.dies) and (ignored or (rules.detection.edge_exclusion_um and unit.diameter_mm)):
        share = float(places_of_dies(unit, unit.dies, rules, zones, per_die=PER_DIE)[1].mean())
    else:
        share = 1.0
    if share == 1.0:
        return unit
    return replace(
        unit,
        area_cm2=None if unit.area_cm2 is None else unit.area_cm2 * share,
        area_mpx=None if unit.area_mpx is None else unit.area_mpx * share,
    )


def places_of_dies(
    unit: Unit, dies: Dies, rules: Rules, zones: Sequence[Area], *, per_die: int
) -> tuple[Floats, Mask]:
    """Return places ``(N, 2)`` of the dies in the unit's frame, and which were inspected.

    ``per_die`` places along each side of a die.

    Raises:
        InputError: an ignored zone is given in pixels.
    """
    corner, pitch = dies.lower_left_um(), np.array(dies.pitch_um)
    cell = _grid(per_die) * pitch
    at = (corner[:, None] + cell).reshape(-1, 2)
    kept = np.ones(len(at), bool)
    exclusion = rules.detection.edge_exclusion_um
    if exclusion and unit.diameter_mm:
        kept &= np.hypot(*at.T) <= 500.0 * unit.diameter_mm - exclusion
    decided = np.zeros(len(at), bool)
    for area in zones:
        if area.zone.frame == "image" and area.shape is not None:
            if area.zone.ignore:
                raise _not_known(unit, area, "micrometres of a die or the wafer")
            continue
        if area.shape is None:
            break
        if area.zone.frame == "die":
            held = np.tile(area.holds(_points(cell)), len(corner))
        else:
            held = area.holds(_points(at))
        if area.zone.ignore:
            kept &= ~(held & ~decided)
        decided |= held
    return at, kept


def _share_of_image(unit: Unit, zones: Sequence[Area]) -> float:
    """Return the share of the one image of a unit that no zone leaves out."""
    grid = _grid(PER_IMAGE)
    kept, decided = np.ones(len(grid), bool), np.zeros(len(grid), bool)
    for area in zones:
        if area.shape is None:
            break
        if area.zone.frame == "die":
            continue  # no defect lies in one either
        extent = unit.extent_px if area.zone.frame == "image" else unit.extent_um
        if extent is None:
            if area.zone.ignore:
                raise _not_known(unit, area, "one image for the unit, of a known pixel size")
            continue
        held = area.holds(_points(grid * np.array(extent)))
        if area.zone.ignore:
            kept &= ~(held & ~decided)
        decided |= held
    return float(kept.mean())


def _grid(count: int) -> Floats:
    """Return the middles of ``count`` x ``count`` cells of a square of side 1, ``(N, 2)``."""
    steps = (np.arange(count) + 0.5) / count
    return np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)


def _points(at: Floats) -> Boxes:
    nothing = np.zeros(len(at))
    return Boxes(at[:, 0], at[:, 1], nothing, nothing)


def _not_known(unit: Unit, area: Area, wanted: str) -> InputError:
    return InputError(
        sentence(
            f"zone {area.zone.name}",
            found=f"an ignored zone in {area.zone.frame} frame, whose share of {unit.name[:80]} "
            "cannot be known",
            wanted=wanted,
            fix="give the zone in another frame",
        )
    )
