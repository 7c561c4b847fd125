"""Whether a lot and the rules it is to be judged by go together; each misfit has its sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import shapely

from domainseg.errors import InputError, sentence
from domainseg.quality.lot import Lot, Unit
from domainseg.quality.rules import Rules
from domainseg.quality.zones import Area

SIZES = (
    *("area_um2", "feret_um", "length_um", "width_um", "eq_diameter_um", "area_px"),
    *("box_width_um", "box_height_um"),
)
_SLACK = 0.01
"""Share of a die's side by which a zone may reach beyond it: outlines are drawn by hand."""


def checked(lot: Lot, rules: Rules, zones: Sequence[Area]) -> Lot:
    """Return the lot; sizes that cannot be are not known then, and it warns of them.

    Raises:
        InputError: two defects of a unit have one name, the rules say nothing of a class, or a
            zone lies where its frame has nothing.
    """
    _require_names(lot)
    _require_classes(lot, rules)
    _require_units(lot, rules)
    for area in zones:
        _require_frame(area, lot.units)
    return _with_sizes(lot)


def _require_names(lot: Lot) -> None:
    counts = lot.defects.group_by("unit").agg(pl.len(), pl.col("id").n_unique().alias("own"))
    if (counts["len"] > counts["own"]).any():
        repeated = lot.defects.filter(pl.struct("unit", "id").is_duplicated())
        row = repeated.row(0, named=True)
        raise InputError(
            sentence(
                row["unit"],
                found=f"{len(repeated):,} defects that share their number with another, such as "
                f"{row['id'][:80]}",
                wanted="a number of its own for each",
                fix="number them again, or report the inspections apart",
            )
        )


def _require_classes(lot: Lot, rules: Rules) -> None:
    for name in lot.defects["class"].fill_null("unclassified").unique().sort():
        if rules.of_class(name) is None:
            raise InputError(
                sentence(
                    f"class {name[:80]}",
                    found="no rule for it, and no default",
                    wanted=f"one of {', '.join(rules.classes)}",
                    fix="add it to classes, or a default",
                )
            )

    named = {*lot.classes, *lot.defects["class"].unique(), *rules.classes}
    for rule in rules.accept:
        if rule.class_name is not None and rule.class_name not in named:
            known = ", ".join(sorted(str(name)[:40] for name in named)[:10])
            raise InputError(
                sentence(
                    f"rule {rule.id[:80]}",
                    found=f"the class {rule.class_name[:80]}, which neither rules nor data have",
                    wanted=f"one of {known}",
                    fix="correct its class",
                )
            )


def _require_units(lot: Lot, rules: Rules) -> None:
    """Raise InputError where sizes are asked for in a unit that the images do not have."""
    for unit in lot.units:
        if unit.area_mpx is None:  # no image: the sizes are those of a result file
            continue
        if rules.units == "um" and unit.area_cm2 is None:
            raise InputError(
                sentence(
                    unit.name,
                    found="no pixel size",
                    wanted="one, as the rules are in um",
                    fix="predict with --spacing-um, name it in a manifest, or write rules in px",
                )
            )
        if rules.units == "px" and unit.area_cm2 is not None:
            raise InputError(
                sentence(
                    unit.name,
                    found="a pixel size, and rules in px",
                    wanted="rules in um where sizes are known",
                    fix="write units: um",
                )
            )


def _require_frame(area: Area, units: Sequence[Unit]) -> None:
    """Raise InputError where a zone of dies reaches out of them, or one of units lies off them."""
    if area.shape is None:
        return
    wafers = [unit for unit in units if unit.dies is not None]
    low_x, low_y, high_x, high_y = (float(v) for v in shapely.bounds(area.shape))
    held = f"polygons from {low_x:g}, {low_y:g} to {high_x:g}, {high_y:g}"
    if area.zone.frame == "die":
        for unit in wafers:
            assert unit.dies is not None
            pitch = np.array(unit.dies.pitch_um)
            slack = _SLACK * pitch
            if (np.array([low_x, low_y]) < -slack).any() or (
                np.array([high_x, high_y]) > pitch + slack
            ).any():
                wanted = f"places in a die of {pitch[0]:g} x {pitch[1]:g} um"
                raise _misplaced(area, held, wanted, unit)
    if area.zone.frame == "unit":
        for unit in wafers:
            if unit.diameter_mm is None:
                continue
            disc = shapely.Point(0, 0).buffer(500.0 * unit.diameter_mm)
            if not shapely.intersects(area.shape, disc):
                wanted = f"places within {500 * unit.diameter_mm:g} um of the wafer's centre"
                raise _misplaced(area, held, wanted, unit)
    if area.zone.frame == "image" and (high_x < 0 or high_y < 0):
        raise _misplaced(area, held, "pixels, y down from the image's first row", None)


def _misplaced(area: Area, held: str, wanted: str, unit: Unit | None) -> InputError:
    return InputError(
        sentence(
            f"zone {area.zone.name} in {area.zone.file}",
            found=held,
            wanted=wanted + ("" if unit is None else f" ({unit.name[:80]})"),
            fix="correct its frame, die, unit or image, or the polygons",
        )
    )


def _with_sizes(lot: Lot) -> Lot:
    negative = lot.defects.select(pl.any_horizontal(pl.col(SIZES) < 0).fill_null(False).sum())
    count = int(negative.item())
    if not count:
        return lot
    defects = lot.defects.with_columns(
        pl.when(pl.col(name) >= 0).then(pl.col(name)).alias(name) for name in SIZES
    )
    has = "defect has a size" if count == 1 else "defects have sizes"
    warning = f"{count:,} {has} below 0, which cannot be: taken as not known"
    return replace(lot, defects=defects, warnings=(*lot.warnings, warning))
