"""The report of a lot that was judged, section by section."""

from __future__ import annotations

from domainseg.quality.assess import Assessment
from domainseg.report.document import Document, Picture, Section
from domainseg.report.judged.cells import cells
from domainseg.report.judged.definitions import definitions
from domainseg.report.judged.images import images
from domainseg.report.judged.places import maps
from domainseg.report.judged.ranking import pareto, severity
from domainseg.report.judged.sizes import sizes
from domainseg.report.judged.spatial import spatial
from domainseg.report.judged.verdict import verdict
from domainseg.report.judged.yields import yields
from domainseg.report.sections.wording import counted


def judged_document(
    made: Assessment,
    *,
    title: str,
    generator: str,
    footer: str,
    pictures: tuple[Picture, ...] = (),
    units: tuple[Picture, ...] = (),
    rules_sha256: str = "",
) -> Document:
    """Return the report; sections without anything to say are left out.

    ``pictures`` are of the worst defects, the worst first, ``units`` of what is no wafer;
    ``rules_sha256`` is of the rules file.
    """
    sections: tuple[Section | None, ...] = (
        verdict(made),
        maps(made, units),
        pareto(made),
        sizes(made),
        severity(made, pictures),
        spatial(made),
        yields(made),
        cells(made),
        images(made),
        definitions(made, rules_sha256),
    )
    return Document(
        title=title,
        subtitle=(
            f"{counted(len(made.defects), 'defect')} on {counted(len(made.lot.units), 'unit')}, "
            f"judged by {counted(len(made.results), 'rule')}"
        ),
        sections=tuple(section for section in sections if section is not None),
        generator=generator,
        footer=footer,
        eyebrow="Quality report",
    )
