"""One row an image."""

from __future__ import annotations

import polars as pl

from domainseg.quality.statistics import quartiles
from domainseg.report.densities import MM2, MPX, density, inspected_area
from domainseg.report.document import COUNT, MEASURE, RATIO, Column, Section, Table, Value
from domainseg.report.evidence import IMAGE, Evidence
from domainseg.report.sections.wording import wanted


def per_image(evidence: Evidence) -> Section | None:
    """Return counts, densities, sizes and scores of each image; None for a single image.

    A single image's row would repeat the overview.
    """
    if len(evidence.images) == 1:
        return None
    kinds = any(image.kind for image in evidence.images)
    columns = (*_columns(evidence, kinds=kinds), *_score_columns(evidence))
    rows = _rows(evidence, kinds=kinds)
    table = Table("image-table", "Every image, in the order of the runs.", columns, rows)
    return Section("per-image", "Every image", (table,))


def _columns(evidence: Evidence, *, kinds: bool) -> tuple[Column, ...]:
    unit = MM2 if evidence.calibrated else MPX
    size = wanted(evidence).diameter
    return (
        Column("image", "Image"),
        *((Column("kind", "Kind"),) if kinds else ()),
        Column("height_px", "Height", COUNT, "px"),
        Column("width_px", "Width", COUNT, "px"),
        Column("objects", "Objects", COUNT),
        Column(f"density_per_{unit.key}", "Density", MEASURE, unit.per),
        Column(f"density_interval_per_{unit.key}", "95 % interval", MEASURE, unit.per),
        Column(f"{size.column}_median", "Median diameter", MEASURE, size.unit),
    )


def _score_columns(evidence: Evidence) -> tuple[Column, ...]:
    if evidence.evaluation is None:
        return ()
    return (
        Column("mean_ap", "Mean AP", RATIO),
        Column("f1", "F1", RATIO),
        Column("missed", "Missed", COUNT),
        Column("false", "False", COUNT),
        Column("merged", "Merged", COUNT),
        Column("split", "Split", COUNT),
    )


def _rows(evidence: Evidence, *, kinds: bool) -> tuple[tuple[Value, ...], ...]:
    unit = MM2 if evidence.calibrated else MPX
    column = wanted(evidence).diameter.column
    parts = evidence.objects.partition_by(IMAGE, as_dict=True)
    scores = {one.name: one for one in evidence.evaluation.images} if evidence.evaluation else {}
    rows: list[tuple[Value, ...]] = []
    for image in evidence.images:
        part = parts.get((image.name,))
        count = part.height if part is not None else 0
        found = density(count, inspected_area([image], unit))
        size = quartiles(part.get_column(column).cast(pl.Float64).to_numpy()) if count else None
        row: list[Value] = [image.name]
        row += [image.kind or ""] if kinds else []
        row += [image.shape[1], image.shape[2], count, found.value, found.interval]
        row.append(size.median if size else None)
        if evidence.evaluation is not None:
            one = scores.get(image.name)
            row += (
                [one.mean_ap, one.f1, one.missed, one.false, one.merged, one.split]
                if one
                else [None] * 6
            )
        rows.append(tuple(row))
    return tuple(rows)
