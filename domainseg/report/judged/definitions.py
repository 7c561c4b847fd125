"""How the numbers come about: formulas, units, rules and sources."""

from __future__ import annotations

from pydantic import BaseModel

from domainseg.quality.assess import Assessment
from domainseg.report.document import (
    Block,
    Column,
    Fact,
    Facts,
    Formula,
    Formulas,
    Paragraph,
    Section,
    Table,
)
from domainseg.report.visible import shortened

_FORMULAS = (
    Formula(
        "Severity",
        "100 · clip(class · zone · size · contrast, 0, 1)",
        "Weight of the class, factor of the zone, and for size and contrast "
        "clip((x / reference)^gamma, 0, 1). A factor without a reference or a measurement is 1. "
        "A proposal of this software, not of a standard.",
    ),
    Formula(
        "Density",
        "D = N / A",
        "Defects that count over the inspected area; exact interval by chi-squared: "
        "χ²(a/2; 2N) / 2A to χ²(1 - a/2; 2N + 2) / 2A, a = 1 - confidence (Garwood 1936). Of "
        "killers: each defect "
        "weighed by its chance to kill, interval of Fay and Feuer (1997).",
    ),
    Formula("Yield", "p = passed / inspected", "Interval of Wilson (1927)."),
    Formula(
        "Kill probability of a die",
        "1 - Π (1 - k)",
        "Over its defects that count, taken as independent.",
    ),
    Formula(
        "Dispersion",
        "(n - 1) s² / m ~ χ²(n - 1)",
        "Fisher's index of dispersion of the counts per die.",
    ),
)
_SOURCES = 20
"""Units whose source is written out."""
FOOTNOTE = (
    "Areas and sizes of an imported result file are what its tool wrote: some give the area of "
    "the bounding box."
)


def definitions(made: Assessment, rules_sha256: str = "") -> Section:
    """Return formulas, the rules in force, and where the data comes from."""
    blocks: list[Block] = [
        Formulas("formulas", _FORMULAS),
        _classes(made),
        _grades(made, rules_sha256),
    ]
    if made.zones:
        blocks.append(_zones(made))
    if any(unit.area_mpx is None for unit in made.lot.units):
        blocks.append(Paragraph(FOOTNOTE))
    blocks += [_source(made, i) for i in range(min(len(made.lot.units), _SOURCES))]
    if len(made.lot.units) > _SOURCES:
        more = len(made.lot.units) - _SOURCES
        blocks.append(Paragraph(f"{more:,} more sources are in units.csv, with their SHA-256."))
    return Section("method", "Method", tuple(blocks))


def _classes(made: Assessment) -> Table:
    columns = (
        Column("class", "Class"),
        Column("weight", "Weight"),
        Column("measure", "Size"),
        Column("reference", "Reference"),
        Column("gamma", "Power"),
        Column("kill_prob", "Kill probability"),
    )
    rows = []
    for name, rule in made.rules.classes.items():
        reference = made.rules.reference(rule)
        sized = None if reference is None else f"{reference:g} {made.rules.units}"
        rows.append((name, rule.weight, rule.measure, sized, rule.gamma, rule.kill_prob))
    return Table("class-rules", "Rules of the classes.", columns, tuple(rows))


def _zones(made: Assessment) -> Table:
    columns = (
        Column("zone", "Zone"),
        Column("frame", "Frame"),
        Column("factor", "Factor"),
        Column("critical", "Critical"),
        Column("ignore", "Ignored"),
        Column("touch", "A defect lies in it by"),
        Column("file", "File"),
        Column("sha256", "SHA-256"),
    )
    rows = tuple(
        (z.name, z.frame, z.factor, z.critical, z.ignore, z.touch, z.file or "", area.sha256)
        for area in made.zones
        for z in (area.zone,)
    )
    return Table("zones", "Zones, of which the first that a defect lies in holds.", columns, rows)


def _grades(made: Assessment, rules_sha256: str) -> Facts:
    rules = made.rules
    items = [
        Fact(name, name.capitalize(), f"severity from {g.severity:g}, {g.weight:g} demerits")
        for name in ("critical", "major", "minor")
        for g in (rules.grades.of(name),)
    ]
    items += [
        Fact("fail_if", "A die or unit fails if", rules.unit.fail_if, literal=True),
        Fact("conf_min", "Least confidence", rules.detection.conf_min),
        Fact("min_size", "Least diameter", f"{rules.min_size:g} {rules.units}"),
        Fact("edge_exclusion_um", "Edge exclusion", f"{rules.detection.edge_exclusion_um:g} µm"),
        Fact("contrast", "Contrast", _settings(rules.contrast)),
        Fact("cluster", "Clusters", _settings(rules.cluster)),
        Fact("repeaters", "Repeaters", _settings(rules.detection.repeaters)),
        Fact("require", "Wanted for a verdict", _settings(rules.require)),
    ]
    if rules_sha256:
        items.append(Fact("rules_sha256", "SHA-256 of the rules file", rules_sha256, literal=True))
    return Facts("grade-rules", "Grades and units", tuple(items))


def _settings(section: BaseModel | None) -> str:
    """Return the settings of a part of the rules as one line."""
    if section is None:
        return "none"
    values = section.model_dump(exclude_none=True)
    flat = {
        key if prefix is None else f"{prefix}.{key}": value
        for prefix, part in ((None, values), *((k, v) for k, v in values.items()))
        if isinstance(part, dict)
        for key, value in part.items()
        if not isinstance(value, dict)
    }
    return ", ".join(f"{key} {value}" for key, value in flat.items())


def _source(made: Assessment, number: int) -> Facts:
    unit = made.lot.units[number]
    items = [Fact("source", "Source", unit.source), Fact("sha256", "SHA-256", unit.sha256, True)]
    items += [Fact(key, key.capitalize(), value) for key, value in unit.about.items()]
    return Facts(f"unit-{number}", shortened(unit.name, 60), tuple(items), folded=True)
