"""One row an image."""

from __future__ import annotations

import polars as pl

from domainseg.quality.statistics import quartiles
from domainseg.report.densities import MM2, MPX, density, inspected_area
from domainseg.report.document import COUNT, MEASURE, RATIO, Column, Section, Table, Value
from domainseg.report.evidence import IMAGE, Evaluation, Evidence
from domainseg.report.sections.wording import wanted


def per_image(evidence: Evidence) -> Section | None:
    """Return counts, densities, sizes and scores of each image; None for a single image.

    A single image's row would repeat the overview.
    """
    if len(evidence.images) == 1:
        return None
    blocks = [_found(evidence)]
    if evidence.evaluation is not None:
        blocks.append(_scores(evidence.evaluation))
    return Section("per-image", "Every image", tuple(blocks))


def _found(evidence: Evidence) -> Table:
    unit = MM2 if evidence.calibrated else MPX
    size = wanted(evidence).diameter
    columns = (
        Column("image", "Image"),
        Column("kind", "Kind"),
        Column("height_px", "Height", COUNT, "px"),
        Column("width_px", "Width", COUNT, "px"),
        Column("objects", "Objects", COUNT),
        Column(f"density_per_{unit.key}", "Density", MEASURE, unit.per),
        Column(f"density_interval_per_{unit.key}", "95 % interval", MEASURE, unit.per),
        Column(f"{size.column}_median", "Median diameter", MEASURE, size.unit),
        Column("warnings", "Warnings", COUNT),
    )
    parts = evidence.objects.partition_by(IMAGE, as_dict=True)
    rows: list[tuple[Value, ...]] = []
    for image in evidence.images:
        part = parts.get((image.name,), evidence.objects.clear())
        found = density(part.height, inspected_area([image], unit))
        middle = quartiles(part.get_column(size.column).cast(pl.Float64).to_numpy())
        _, height, width = image.shape
        rows.append(
            (
                *(image.name, image.kind, height, width, part.height),
                *(found.value, found.interval, middle.median if middle else None),
                len(image.warnings),
            )
        )
    caption = "What was found in every image, in the order of the runs."
    return Table("image-table", caption, columns, tuple(rows))


def _scores(evaluation: Evaluation) -> Table:
    columns = (
        Column("image", "Image"),
        Column("objects", "Objects in truth", COUNT),
        Column("mean_ap", "Mean AP", RATIO),
        Column("f1", "F1", RATIO),
        Column("pq", "PQ", RATIO),
        Column("aji", "AJI", RATIO),
        Column("missed", "Missed", COUNT),
        Column("false", "False", COUNT),
        Column("merged", "Merged", COUNT),
        Column("split", "Split", COUNT),
    )
    rows = tuple(
        (
            *(one.name, one.objects, one.mean_ap, one.f1, one.pq, one.aji),
            *(one.missed, one.false, one.merged, one.split),
        )
        for one in evaluation.images
    )
    caption = "Agreement with the truth in every image where it is known."
    return Table("image-scores", caption, columns, rows)
