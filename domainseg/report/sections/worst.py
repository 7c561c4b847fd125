"""The images with the lowest agreement and the objects that caused it."""

from __future__ import annotations

from collections.abc import Iterator

from domainseg.report.document import RATIO, Block, Gallery, Paragraph, Section, Subheading
from domainseg.report.evidence import Evidence, WorstCase
from domainseg.report.numbers import written
from domainseg.report.sections.wording import counted
from domainseg.report.visible import shortened


def worst_cases(evidence: Evidence, *, legend: tuple[tuple[str, str], ...]) -> Section | None:
    """Return crops of truth against prediction; None where nothing is known to be wrong."""
    if not evidence.worst:
        return None
    blocks: list[Block] = [
        Paragraph(
            f"The {counted(len(evidence.worst), 'image')} with the lowest mean AP among those "
            "with a mistake, and in each the largest mistakes of every sort. Where the two "
            "lines lie on each other, prediction and truth agree."
        )
    ]
    for number, case in enumerate(evidence.worst, 1):
        blocks += _case(case, number, legend if number == 1 else ())
    return Section("worst", "Worst cases", tuple(blocks))


def _case(case: WorstCase, number: int, legend: tuple[tuple[str, str], ...]) -> Iterator[Block]:
    scores = case.scores
    yield Subheading(scores.name)
    kind = f" ({shortened(scores.kind, 40)})" if scores.kind else ""
    yield Paragraph(
        f"Mean AP {written(scores.mean_ap, RATIO)}, F1 {written(scores.f1, RATIO)}{kind}. "
        f"{counted(scores.objects, 'object').capitalize()} in the truth: {scores.missed:,} missed, "
        f"{scores.false:,} false, {scores.merged:,} merged, {scores.split:,} split."
    )
    yield Gallery(f"worst-{number}", case.crops, size="small", legend=legend)
