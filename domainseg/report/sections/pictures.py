"""Images with the outlines of their objects."""

from __future__ import annotations

from collections.abc import Sequence

from domainseg.report.document import Callout, Gallery, Section
from domainseg.report.evidence import Evidence


def pictures(evidence: Evidence) -> Section:
    """Return the pictures in the order of the images, and which images have none to show."""
    shown = tuple(
        evidence.pictures[image.name]
        for image in evidence.images
        if image.name in evidence.pictures
    )
    total = len(evidence.images)
    if not shown:
        note = Callout("warning", "No picture", ("None of the runs holds an overlay picture.",))
        return Section("images", "Images", (note,))
    gallery = Gallery("outlines", shown, caption=_caption(len(shown), total))
    return Section("images", "Images", (gallery,))


def _caption(shown: int, total: int) -> str:
    if shown == total:
        return "Objects as they were segmented, outlined on the image."
    return (
        f"Objects as they were segmented, outlined on the image; {shown:,} of {total:,} images, "
        "evenly spaced in the order of their names."
    )


def evenly_spaced(names: Sequence[str], limit: int) -> list[str]:
    """Return at most ``limit`` of the names, the first and the last among them."""
    if len(names) <= limit:
        return list(names)
    last = len(names) - 1
    return [names[round(i * last / (limit - 1))] for i in range(limit)]
