"""Evaluations read from JSON, and several of them brought together.

The layout is what `evaluate` writes: ``thresholds``, ``all``, ``kinds``,
``classes`` and ``images``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from domainseg.errors import InputError, sentence
from domainseg.instances.matching import Counts
from domainseg.quality.statistics import Interval
from domainseg.report.evidence import Evaluation, Scores
from domainseg.report.json_record import JsonRecord, read_json

_AGAIN = "evaluate the run again"


def read_evaluation(path: Path) -> Evaluation:
    """Return the evaluation in a file; the names of its images are their ids.

    Raises:
        InputError: when it is damaged, lacks something, or has no threshold.
    """
    record = read_json(path, fix=_AGAIN)
    thresholds = record.numbers("thresholds")
    if not thresholds:
        raise InputError(
            sentence(path, found="no IoU threshold", wanted="at least one", fix=_AGAIN)
        )
    size = len(thresholds)
    kinds, classes = record.record("kinds"), record.record("classes")
    return Evaluation(
        thresholds=thresholds,
        images=tuple(_image(row, size) for row in record.records("images")),
        summaries=(
            _summary(record.record("all"), "all", size),
            *(_summary(kinds.record(name), name, size) for name in kinds.values),
        ),
        classes=tuple(_summary(classes.record(name), name, size) for name in classes.values),
    )


def _image(row: JsonRecord, thresholds: int) -> Scores:
    return _scores(
        row,
        mean=row,
        pooled=row,
        name=row.text("id"),
        kind=row.text_or_none("kind"),
        images=1,
        interval=None,
        thresholds=thresholds,
    )


def _summary(row: JsonRecord, name: str, thresholds: int) -> Scores:
    low, high = row.numbers_or_none("mean_ap_interval", length=2)
    return _scores(
        row,
        mean=row.record("mean"),
        pooled=row.record("pooled"),
        name=name,
        kind=None,
        images=row.count("images"),
        interval=None if low is None or high is None else Interval(low, high),
        thresholds=thresholds,
    )


def _scores(
    row: JsonRecord,
    *,
    mean: JsonRecord,
    pooled: JsonRecord,
    name: str,
    kind: str | None,
    images: int,
    interval: Interval | None,
    thresholds: int,
) -> Scores:
    counts = row.record("counts")
    return Scores(
        name=name,
        kind=kind,
        images=images,
        objects=counts.count("objects"),
        ap=mean.numbers_or_none("ap", length=thresholds),
        mean_ap=mean.number_or_none("mean_ap"),
        mean_ap_interval=interval,
        f1=pooled.number_or_none("f1"),
        pq=pooled.number_or_none("pq"),
        aji=pooled.number_or_none("aji"),
        dice=pooled.number_or_none("dice"),
        matched=counts.count("matched"),
        missed=counts.count("missed"),
        false=counts.count("false"),
        merged=counts.count("merged"),
        split=counts.count("split"),
    )


def together(images: Sequence[Scores], evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """Return the evaluation of ``images``, rows of ``evaluations``; None when there are none.

    One evaluation of just these images brings its summaries along. Otherwise they
    are computed here as far as rows allow: means of AP, counts, and the F1 of the
    counts. PQ, AJI and Dice need sums of pixels, and stay unknown.

    Raises:
        InputError: when evaluations have different thresholds.
    """
    if not images:
        return None
    thresholds = evaluations[0].thresholds
    for other in evaluations[1:]:
        if other.thresholds != thresholds:
            raise InputError(
                sentence(
                    "evaluations",
                    found=f"the IoU thresholds {_listed(other.thresholds)}",
                    wanted=f"{_listed(thresholds)} as in the first",
                    fix="evaluate all runs with one version of domainseg",
                )
            )
    if len(evaluations) == 1 and len(evaluations[0].images) == len(images):
        return replace(evaluations[0], images=tuple(images))
    kinds = sorted({one.kind for one in images if one.kind is not None})
    groups = [("all", list(images))]
    groups += [(kind, [one for one in images if one.kind == kind]) for kind in kinds]
    summaries = tuple(_together(name, rows) for name, rows in groups)
    return Evaluation(thresholds, tuple(images), summaries)


def _listed(thresholds: Sequence[float]) -> str:
    return ", ".join(f"{threshold:g}" for threshold in thresholds)


def _together(name: str, rows: Sequence[Scores]) -> Scores:
    matched, missed, false = (
        sum(getattr(one, field) for one in rows) for field in ("matched", "missed", "false")
    )
    return Scores(
        name=name,
        kind=None,
        images=len(rows),
        objects=sum(one.objects for one in rows),
        ap=tuple(_mean(column) for column in zip(*(one.ap for one in rows), strict=True)),
        mean_ap=_mean(one.mean_ap for one in rows),
        mean_ap_interval=None,
        f1=Counts(matched, missed, false).f1,
        pq=None,
        aji=None,
        dice=None,
        matched=matched,
        missed=missed,
        false=false,
        merged=sum(one.merged for one in rows),
        split=sum(one.split for one in rows),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean, None when a value is not known: a mean of the rest would flatter."""
    found = list(values)
    known = [value for value in found if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(found) else None
