"""How good the images were that the verdict rests on."""

from __future__ import annotations

from domainseg.quality.assess import Assessment
from domainseg.quality.lot import ImageCheck
from domainseg.report.document import COUNT, MEASURE, Column, Section, Table

_FOCUS = (
    "Focus is the deviation of the Laplacian over that of white noise of the same deviation: it "
    "compares images of one kind, and is no absolute measure. Saturated are pixels at an end of "
    "their type's range. Alike are images that look like those their model was trained on, with "
    "objects of their sizes where sizes are judged, and unlike those that do not; of others it is "
    "not known."
)


def images(made: Assessment) -> Section | None:
    """Return how good the image of each unit is; None where there are no images."""
    seen = [unit for unit in made.lot.units if unit.check is not None or unit.failed]
    if not seen:
        return None
    columns = (
        Column("unit", "Unit"),
        Column("inspected_mpx", "Inspected", MEASURE, "Mpx"),
        Column("coverage_percent", "Coverage", MEASURE, "%"),
        Column("focus", "Focus", MEASURE),
        Column("saturated_percent", "Saturated", MEASURE, "%"),
        Column("images", "Images", COUNT),
        Column("like", "Alike", COUNT),
        Column("unlike", "Unlike", COUNT),
        Column("failed", "Not read", COUNT),
    )
    rows = tuple(
        (
            unit.name,
            unit.area_mpx,
            _percent(check.coverage),
            check.focus,
            _percent(check.saturated),
            check.images,
            check.like,
            check.unlike,
            len(unit.failed),
        )
        for unit in seen
        for check in (unit.check or ImageCheck(coverage=None),)
    )
    table = Table("images", f"Images behind the verdict. {_FOCUS}", columns, rows)
    return Section("image-quality", "Image quality", (table,))


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
