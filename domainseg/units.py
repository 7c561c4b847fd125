"""Images put together to the units that a table of images says they show."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import polars as pl

from domainseg.errors import InputError, sentence
from domainseg.manifest import ImageOf, image_name
from domainseg.quality.lot import ImageCheck, Lot, Unit

IN_UNIT = ("x_um", "y_um")
"""Columns that mean nothing where a unit has several images, whose places are not known."""


def by_unit(lot: Lot, known: Mapping[str, ImageOf]) -> Lot:
    """Return the lot with its images put together to units, in the order of the table.

    A unit without dies may have several images: areas and defects add up, and the worst of
    their checks is the unit's. An image of the table without a run is one of the unit's that
    could not be read. Units that the table does not name, of result files, stay as they are.

    Raises:
        InputError: a wafer has several images, or rows of a unit contradict each other.
    """
    images = {unit.name: unit for unit in lot.units}
    of_name = {image_name(name): name for name in images}
    if len(of_name) < len(images):
        raise InputError(
            "manifest: found runs of images that differ in folder or ending alone, wanted a "
            "name of its own for each; rename them."
        )
    groups: dict[str, list[ImageOf]] = {}
    for said in known.values():
        groups.setdefault(said.unit, []).append(said)
    units: list[Unit] = []
    named: dict[str, str] = {}
    for name, rows in groups.items():
        mine = [images[of_name[row.image]] for row in rows if row.image in of_name]
        failed = tuple(row.image for row in rows if row.image not in of_name)
        units.append(_together(name, rows, mine, failed))
        named |= {unit.name: name for unit in mine}
    units += [unit for unit in lot.units if unit.name not in named]
    if len({unit.name for unit in units}) < len(units):
        raise InputError("manifest: found a unit with the name of a result file's, wanted another.")
    several = [unit for unit, rows in groups.items() if len(rows) > 1]
    defects = lot.defects.with_columns(pl.col("unit").replace(named))
    alone = ~pl.col("unit").is_in(several)
    defects = defects.with_columns(
        pl.when(alone).then(pl.col(name)).alias(name) for name in IN_UNIT
    )
    order = {unit.name: i for i, unit in enumerate(units)}
    place = pl.col("unit").replace_strict(order, return_dtype=pl.Int64)
    defects = defects.sort(place, maintain_order=True)
    return replace(lot, units=tuple(units), defects=defects)


def _together(
    name: str, rows: Sequence[ImageOf], images: Sequence[Unit], failed: tuple[str, ...]
) -> Unit:
    if len(rows) > 1 and any(unit.dies is not None for unit in images):
        raise InputError(
            sentence(
                f"manifest, line {rows[1].line}",
                found=f"a second image of the wafer {name}",
                wanted="one image of a wafer whose dies are judged",
                fix="give each image a unit of its own, or leave out the die grid",
            )
        )
    lots = {row.lot for row in rows if row.lot}
    if len(lots) > 1:
        raise InputError(
            sentence(
                f"manifest, line {rows[-1].line}",
                found=f"{name} in the lots {', '.join(sorted(lots))}",
                wanted="a unit in one lot",
                fix="correct the lot",
            )
        )
    about = {key: value for row in reversed(rows) for key, value in row.about.items()}
    lot = next(iter(lots), "")
    if len(images) == 1 and len(rows) == 1:
        one = images[0]
        return replace(one, name=name, lot=lot, about={**one.about, **about})
    areas, pixels = [u.area_cm2 for u in images], [u.area_mpx for u in images]
    digests = "\n".join(unit.sha256 for unit in images)
    return Unit(
        name=name,
        lot=lot,
        area_cm2=_sum(areas),
        area_mpx=_sum(pixels),
        check=_worst([u.check for u in images if u.check is not None]),
        failed=failed,
        source=", ".join(unit.source for unit in images),
        sha256=hashlib.sha256(digests.encode()).hexdigest() if images else "",
        about={**(images[0].about if images else {}), **about},
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else math.fsum(v for v in known if v is not None)


def _worst(checks: Sequence[ImageCheck]) -> ImageCheck | None:
    """Return the worst of each check, one that any image lacks not known, and the counts added."""
    if not checks:
        return None

    def of(name: str, choose: object) -> float | None:
        values = [getattr(check, name) for check in checks]
        assert callable(choose)
        return None if None in values else float(choose(values))

    counts = {name: sum(getattr(c, name) for c in checks) for name in ("images", "like", "unlike")}
    return ImageCheck(of("focus", min), of("saturated", max), of("coverage", min), **counts)
