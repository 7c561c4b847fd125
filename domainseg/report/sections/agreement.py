"""How well prediction and truth agree, where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator

from domainseg.quality.statistics import wilson_interval
from domainseg.report import plots
from domainseg.report.document import (
    COUNT,
    RATIO,
    Block,
    Column,
    Figure,
    Paragraph,
    Section,
    Table,
    Value,
)
from domainseg.report.evidence import Evaluation, Evidence, Scores
from domainseg.report.numbers import written
from domainseg.report.sections.wording import counted
from domainseg.report.visible import shortened


def agreement(evidence: Evidence) -> Section | None:
    """Return the scores of all images and of each kind; None where no truth is known."""
    if evidence.evaluation is None:
        return None
    evaluation = evidence.evaluation
    known, total = len(evaluation.images), len(evidence.images)
    blocks: list[Block] = []
    if known < total:
        blocks.append(Paragraph(f"The truth is known for {known:,} of {counted(total, 'image')}."))
    blocks += [_table(evaluation), _figure(evaluation), _mistakes(evaluation)]
    return Section("agreement", "Agreement with the truth", tuple(blocks))


def _table(evaluation: Evaluation) -> Table:
    at = [i for i, t in enumerate(evaluation.thresholds) if t in (0.5, 0.75)]
    shown = [evaluation.thresholds[i] for i in at]
    interval = any(one.mean_ap_interval for one in evaluation.summaries)
    columns = (
        Column("images_of", "Images of"),
        Column("images", "Images", COUNT),
        *(Column(f"ap_{round(100 * t)}", f"AP at {t:g}", RATIO) for t in shown),
        Column("mean_ap", "Mean AP", RATIO),
        *((Column("mean_ap_interval", "95 % interval", RATIO),) if interval else ()),
        Column("f1", "F1", RATIO),
        Column("pq", "PQ", RATIO),
        Column("aji", "AJI", RATIO),
        Column("dice", "Dice", RATIO),
    )
    rows: list[tuple[Value, ...]] = [
        (
            name,
            one.images,
            *(one.ap[i] for i in at),
            one.mean_ap,
            *((one.mean_ap_interval,) if interval else ()),
            *(one.f1, one.pq, one.aji, one.dice),
        )
        for name, one in _named(evaluation)
    ]
    low, high = evaluation.thresholds[0], evaluation.thresholds[-1]
    caption = (
        f"AP is the mean over images, each of equal weight; mean AP is over IoU {low:g} to "
        f"{high:g}. F1, PQ, AJI and Dice are pooled, each object or pixel of equal weight."
    )
    return Table("scores", caption, columns, tuple(rows))


def _mistakes(evaluation: Evaluation) -> Table:
    columns = (
        Column("images_of", "Images of"),
        Column("objects", "Objects", COUNT),
        Column("matched", "Found", COUNT),
        Column("recall", "Share found", RATIO),
        Column("recall_interval", "95 % interval", RATIO),
        Column("missed", "Missed", COUNT),
        Column("false", "False", COUNT),
        Column("merged", "Merged", COUNT),
        Column("split", "Split", COUNT),
    )
    rows: list[tuple[Value, ...]] = []
    for name, one in _named(evaluation):
        known = one.matched + one.missed
        recall = one.matched / known if known else None
        interval = wilson_interval(one.matched, known) if known else None
        mistakes = (one.missed, one.false, one.merged, one.split)
        rows.append((name, one.objects, one.matched, recall, interval, *mistakes))
    caption = "Objects of the truth that were found at IoU 0.5, and the mistakes of every sort."
    return Table("mistakes", caption, columns, tuple(rows))


def _named(evaluation: Evaluation) -> Iterator[tuple[str, Scores]]:
    for one in evaluation.summaries:
        yield one.name, one
    for one in evaluation.classes:
        yield f"class {one.name}", one


def _figure(evaluation: Evaluation) -> Figure:
    columns = (
        Column("iou", "IoU at least", RATIO),
        *(
            Column(f"ap_{i}", shortened(one.name, 40), RATIO)
            for i, one in enumerate(evaluation.summaries)
        ),
    )
    rows = [
        (threshold, *(one.ap[i] for one in evaluation.summaries))
        for i, threshold in enumerate(evaluation.thresholds)
    ]
    series = [plots.Line(one.name, one.ap) for one in evaluation.summaries]
    svg = plots.lines(evaluation.thresholds, series, x_title="IoU counted as a match", y_title="AP")
    data = Table("ap-by-iou", "AP by the IoU from which a pair counts.", columns, tuple(rows))
    caption = (
        "Average precision by how exactly an object must be outlined to count. A curve that "
        "falls late means exact outlines; a low start means objects missed, invented or joined."
    )
    return Figure("ap-curve", svg, _alt(evaluation), caption, data)


def _alt(evaluation: Evaluation) -> str:
    def ends(one: Scores) -> str:
        first, last = written(one.ap[0], RATIO), written(one.ap[-1], RATIO)
        return f"{shortened(one.name, 40)} from {first} to {last}"

    low, high = evaluation.thresholds[0], evaluation.thresholds[-1]
    return (
        f"AP over IoU {low:g} to {high:g}: {'; '.join(ends(one) for one in evaluation.summaries)}."
    )
