"""The numbers a reader came for: how many objects, on how much area, how sure."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from domainseg.quality.statistics import dispersion, quartiles
from domainseg.report.densities import MM2, MPX, AreaUnit, density, inspected_area
from domainseg.report.document import (
    COUNT,
    MEASURE,
    RATIO,
    Block,
    Callout,
    Column,
    KeyNumber,
    KeyNumbers,
    Paragraph,
    Section,
    Table,
)
from domainseg.report.evidence import CLASS, IMAGE, Evidence
from domainseg.report.numbers import written
from domainseg.report.sections.wording import counted, listed, selected, wanted, warned

_DISPERSED = 0.01
"""Chance below which counts are said to differ more than independent objects would."""


def overview(evidence: Evidence) -> Section:
    """Return counts and densities of all images together and of each class, and all warnings."""
    unit = MM2 if evidence.calibrated else MPX
    blocks: list[Block] = [_key_numbers(evidence, unit), *_limits(evidence, unit)]
    if len(evidence.classes) > 1:
        blocks.append(_by_class(evidence, unit))
    return Section("overview", "Overview", tuple(blocks))


def _key_numbers(evidence: Evidence, unit: AreaUnit) -> KeyNumbers:
    area = inspected_area(evidence.images, unit)
    found = density(evidence.objects.height, area)
    size = wanted(evidence).diameter
    median = quartiles(evidence.objects.get_column(size.column).cast(pl.Float64).to_numpy())
    numbers = [
        KeyNumber("objects", "Objects", evidence.objects.height, COUNT, note=_pictures(evidence)),
        KeyNumber(
            f"density_per_{unit.key}", "Density", found.value, MEASURE, unit.per, found.interval
        ),
        KeyNumber(f"inspected_{unit.key}", "Inspected area", area, MEASURE, unit.name),
        KeyNumber(
            f"{size.column}_median",
            "Median diameter",
            median.median if median else None,
            MEASURE,
            size.unit,
            note=f"middle half {written(median.q1, MEASURE)} to {written(median.q3, MEASURE)}"
            if median
            else "",
        ),
    ]
    if evidence.evaluation is not None:
        whole = evidence.evaluation.summaries[0]
        images = f"mean of {counted(whole.images, 'image')} with known truth"
        numbers += [
            KeyNumber(
                "mean_ap", "Mean AP", whole.mean_ap, RATIO, "", whole.mean_ap_interval, images
            ),
            KeyNumber("f1", "F1 at IoU 0.5", whole.f1, RATIO, note="all objects pooled"),
        ]
    return KeyNumbers("totals", tuple(numbers))


def _pictures(evidence: Evidence) -> str:
    return f"in {counted(len(evidence.images), 'image')}"


def _limits(evidence: Evidence, unit: AreaUnit) -> Iterable[Block]:
    """Yield what limits the numbers above, most important first."""
    if not evidence.objects.height:
        yield Callout(
            "note",
            "No object was found",
            (
                "That is a result: the density is 0 and its interval says how large it may "
                "still be on the area that was inspected.",
            ),
        )
    if unit is MPX:
        yield Callout("warning", "Not in micrometres", (_uncalibrated(evidence),))
    if lines := tuple(_warnings(evidence)):
        yield Callout("warning", "Warnings of the runs", lines)
    if lines := tuple(_assumed(evidence)):
        yield Callout("note", "How the images were read", lines)
    if (spread := _spread(evidence, unit)) is not None:
        yield spread


def _uncalibrated(evidence: Evidence) -> str:
    unknown = [image.name for image in evidence.images if image.inspected_um2 is None]
    return (
        f"The pixel size of {listed(unknown, len(evidence.images), 'image')} is not known, so "
        "sizes are given in pixels and densities per megapixel (Mpx, a million pixels)."
    )


def _warnings(evidence: Evidence) -> Iterable[str]:
    """Yield each distinct warning once, with the images it was given for."""
    said = ((image.name, warning) for image in evidence.images for warning in image.warnings)
    return warned(said, len(evidence.images))


def _assumed(evidence: Evidence) -> Iterable[str]:
    """Yield what was taken for granted of images, with those that it holds for."""
    owners: dict[str, list[str]] = {}
    for image in evidence.images:
        said = [] if image.seen_as is None else [f"The model was shown {image.seen_as}"]
        if image.select:
            said.append(f"The file was read with --select {selected(image.select)}")
        if not image.compared:
            said.append(
                "Whether images look like those of the training is not known: the model's file "
                "does not say how those looked"
            )
        for one in said:
            owners.setdefault(one, []).append(image.name)
    for one, names in owners.items():
        yield f"{one} ({listed(names, len(evidence.images), 'image')})."


def _spread(evidence: Evidence, unit: AreaUnit) -> Paragraph | None:
    """Return how counts differ between images, against what the interval supposes."""
    inspected = [image for image in evidence.images if image.inspected_px > 0]
    per_image = dict(evidence.objects.group_by(IMAGE).len().iter_rows())
    counts = [int(per_image.get(image.name, 0)) for image in inspected]
    found = dispersion(counts, [inspected_area([image], unit) for image in inspected])
    if found is None:
        return None
    index = written(found.index, MEASURE)
    if found.p_value >= _DISPERSED:
        return Paragraph(
            f"Counts vary between images as independent objects would (index of dispersion "
            f"{index}, where 1 is expected)."
        )
    return Paragraph(
        f"Counts vary between images far more than independent objects would (index of "
        f"dispersion {index}, where 1 is expected). The interval of the density holds for "
        "these images; for images not inspected it is too narrow."
    )


def _by_class(evidence: Evidence, unit: AreaUnit) -> Table:
    area = inspected_area(evidence.images, unit)
    total = evidence.objects.height
    counts = dict(evidence.objects.group_by(CLASS).len().iter_rows())
    rows = []
    for name in evidence.classes:
        count = int(counts.get(name, 0))
        found = density(count, area)
        share = 100 * count / total if total else None
        rows.append((name, count, share, found.value, found.interval))
    return Table(
        "classes",
        "Objects of each class in all images.",
        (
            Column("class", "Class"),
            Column("objects", "Objects", COUNT),
            Column("share_percent", "Share", MEASURE, "%"),
            Column(f"density_per_{unit.key}", "Density", MEASURE, unit.per),
            Column(f"density_interval_per_{unit.key}", "95 % interval", MEASURE, unit.per),
        ),
        tuple(rows),
    )
