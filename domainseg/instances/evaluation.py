"""Predicted objects against truth over many images: rows, summaries, classes, intervals.

The definitions stand in `domainseg.instances.matching`. Two ways to bring images
together are given side by side because they answer different questions: the
**mean** gives every image the same weight, an image with two objects as much as
one with two thousand; **pooled** adds the counts first and gives every object the
same weight.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.atomic import atomic_text
from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.images import read_labels
from domainseg.instances.label_folders import paired_labels, read_kinds
from domainseg.instances.matching import THRESHOLDS, Metrics, Tally, mean_metrics, tally
from domainseg.instances.overlaps import overlap_classes, overlap_instances, overlap_maps
from domainseg.quality.bootstrap import mean_interval
from domainseg.records import Array, Instances

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class LabelPair:
    """One image to be scored.

    Attributes:
        id: unique among the pairs.
        truth: integer ``(H, W)`` label map, or objects, which may overlap and have classes.
        predicted: likewise, of the same size.
        kind: the stratum results are also reported by, or None.
        ignore: bool ``(H, W)``, True for pixels that are left out, or None.
    """

    id: str
    truth: Array | Instances
    predicted: Array | Instances
    kind: str | None = None
    ignore: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class ImageRow:
    """The scores of one image."""

    id: str
    kind: str | None
    tally: Tally
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Summary:
    """The scores of several images together.

    Attributes:
        name: the kind or class they have in common, or "all".
        images: how many there are; of a class, those where it occurs on either side.
        tally: the sums over the images.
        mean: the mean of each ratio over the images, each of equal weight.
        pooled: the ratios of ``tally``.
        mean_ap_interval: 95 % bootstrap interval of ``mean.mean_ap`` over images;
            NaN where none was asked for or fewer than two images are there.
    """

    name: str
    images: int
    tally: Tally
    mean: Metrics
    pooled: Metrics
    mean_ap_interval: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate_pairs` found.

    Attributes:
        images: one row per image, sorted by id.
        all: every image together.
        kinds: one summary per kind, sorted by name; an image without a kind is in ``all`` only.
        classes: one summary per class that occurs, in the order of the class names,
            objects matched within the class only; empty where no class was named.
        class_mean: mean of the pooled ratios over ``classes``, or None.
    """

    images: tuple[ImageRow, ...]
    all: Summary
    kinds: tuple[Summary, ...] = ()
    classes: tuple[Summary, ...] = ()
    class_mean: Metrics | None = None

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the header and the rows of a plain table: kinds, all, then classes.

        AP and mean AP are means over images; F1 (at IoU .5), PQ, AJI and Dice are pooled.
        """
        summaries = (*self.kinds, self.all, *self.classes)
        return TABLE_HEADER, [_table_row(summary) for summary in summaries]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values in a fixed order of keys; what is not known is None."""
        return {
            "thresholds": list(THRESHOLDS),
            "all": _summary_json(self.all),
            "kinds": {summary.name: _summary_json(summary) for summary in self.kinds},
            "classes": {summary.name: _summary_json(summary) for summary in self.classes},
            "class_mean": None if self.class_mean is None else _metrics_json(self.class_mean),
            "images": [
                {
                    "id": row.id,
                    "kind": row.kind,
                    "counts": _counts_json(row.tally),
                    **_metrics_json(row.metrics),
                }
                for row in self.images
            ],
        }


TABLE_HEADER = (
    "images of",
    "images",
    "objects",
    "AP .5",
    "AP .75",
    "AP .5-.9",
    "F1",
    "PQ",
    "AJI",
    "Dice",
    "missed",
    "false",
    "merged",
    "split",
)


def evaluate_pairs(
    pairs: Iterable[LabelPair],
    *,
    class_names: Sequence[str] | None = None,
    rng: np.random.Generator | None = None,
) -> Evaluation:
    """Return the scores of ``pairs``, which are taken one at a time and not kept.

    With ``class_names`` both sides of every pair must be `Instances`, and objects
    are scored within their class as well. With ``rng`` the summaries carry
    bootstrap intervals.

    Raises:
        InputError: for no pair at all, two of one id, different sizes, what cannot
            be a label map, or a class without a name.
    """
    rows: dict[str, ImageRow] = {}
    by_class: dict[int, list[Tally]] = {}
    for pair in pairs:
        if pair.id in rows:
            raise InputError(
                sentence(
                    pair.id,
                    found="two images of this name",
                    wanted="a name for each",
                    fix="rename one of them",
                )
            )
        one = _tally_of_pair(pair)
        rows[pair.id] = ImageRow(pair.id, pair.kind, one, one.metrics())
        if class_names is not None:
            for index, one in _tallies_by_class(pair, len(class_names)):
                by_class.setdefault(index, []).append(one)
    if not rows:
        raise MissingInputError(
            sentence(
                "evaluation",
                found="no image",
                wanted="at least one",
                fix="check what was selected",
            )
        )
    return _evaluation(
        [rows[name] for name in sorted(rows)],
        {(class_names or ())[index]: by_class[index] for index in sorted(by_class)},
        rng,
    )


def evaluate_labels(
    predicted: Path,
    truth: Path,
    *,
    kinds: Path | None = None,
    stems: Collection[str] | None = None,
    rng: np.random.Generator | None = None,
) -> Evaluation:
    """Return the scores of the label images in ``predicted`` against those in ``truth``.

    Both are folders, paired by file stem, or both are files. ``predicted`` may be a
    run's folder with ``<stem>/labels.tif``. ``kinds`` is a CSV with the columns
    ``image`` and ``kind``; ``stems`` restricts the evaluation to these images.

    Raises:
        MissingInputError: for a missing or empty folder, or an image that only one side has.
        InputError: for different sizes, a file that is no label image, or an
            image that ``kinds`` does not list.
    """
    paths = paired_labels(predicted, truth, stems=stems)
    kind_of: Mapping[str, str] = {} if kinds is None else read_kinds(kinds)
    unlisted = [stem for stem, *_ in paths if kinds is not None and stem not in kind_of]
    if unlisted:
        raise InputError(
            sentence(
                kinds,
                found=f"no kind for {unlisted[0]}",
                wanted="the kind of every image that is scored",
                fix="add its line",
            )
        )
    return evaluate_pairs(
        (_read_pair(stem, ours, theirs, kind=kind_of.get(stem)) for stem, ours, theirs in paths),
        rng=rng,
    )


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write `Evaluation.to_json` to ``path`` as UTF-8, whole or not at all.

    Raises:
        OutputError: when the disk is full, the folder is missing, or writing there
            is not permitted.
    """
    text = json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_text(path, text + "\n")


def mean_ap_difference(
    ours: Evaluation, theirs: Evaluation, rng: np.random.Generator, *, confidence: float = 0.95
) -> tuple[float, Interval]:
    """Return by how much the mean AP of ``ours`` exceeds that of ``theirs``, and its interval.

    The bootstrap is paired: an image is drawn for both at once. NaN ends for fewer
    than two images; see `domainseg.quality.bootstrap`.

    Raises:
        InputError: when the two did not score the same images.
    """
    mine = {row.id: row.metrics.mean_ap for row in ours.images}
    other = {row.id: row.metrics.mean_ap for row in theirs.images}
    if alone := sorted(mine.keys() ^ other.keys()):
        raise InputError(
            sentence(
                "paired comparison",
                found=f"{alone[0]} in one evaluation only",
                wanted="the same images in both",
                fix="score both on the same images",
            )
        )
    differences = np.array([mine[name] - other[name] for name in sorted(mine)])
    return float(differences.mean()), mean_interval(differences, rng, confidence=confidence)


def _read_pair(stem: str, predicted: Path, truth: Path, *, kind: str | None) -> LabelPair:
    ours, theirs = read_labels(predicted), read_labels(truth)
    if ours.shape != theirs.shape:
        raise InputError(
            sentence(
                predicted,
                found=f"{ours.shape[0]} x {ours.shape[1]} px",
                wanted=f"{theirs.shape[0]} x {theirs.shape[1]} px as in {truth}",
                fix="predict on the image that was annotated, without resizing it",
            )
        )
    return LabelPair(stem, theirs, ours, kind)


def _tally_of_pair(pair: LabelPair) -> Tally:
    """Return the sums of one image, its objects matched whatever their class."""
    if isinstance(pair.truth, Instances) and isinstance(pair.predicted, Instances):
        return tally(
            overlap_instances(pair.truth, pair.predicted, ignore=pair.ignore, where=pair.id)
        )
    if isinstance(pair.truth, Instances) or isinstance(pair.predicted, Instances):
        raise _not_instances(pair, "a label map on one side and objects on the other")
    return tally(overlap_maps(pair.truth, pair.predicted, ignore=pair.ignore, where=pair.id))


def _tallies_by_class(pair: LabelPair, class_count: int) -> Iterator[tuple[int, Tally]]:
    """Yield the class index and the sums of each class that occurs in the image."""
    if not isinstance(pair.truth, Instances) or not isinstance(pair.predicted, Instances):
        raise _not_instances(pair, "label maps, which know no classes")
    found = overlap_classes(pair.truth, pair.predicted, ignore=pair.ignore, where=pair.id)
    for index, overlaps in found.items():
        if not 0 <= index < class_count:
            raise InputError(
                sentence(
                    pair.id,
                    found=f"an object of class {index}",
                    wanted=f"classes 0 to {class_count - 1}, one per class name",
                    fix="name every class",
                )
            )
        yield index, tally(overlaps)


def _not_instances(pair: LabelPair, found: str) -> InputError:
    return InputError(
        sentence(
            pair.id,
            found=found,
            wanted="objects on both sides",
            fix="make them with Instances.from_label_map",
        )
    )


def _evaluation(
    rows: Sequence[ImageRow],
    by_class: Mapping[str, Sequence[Tally]],
    rng: np.random.Generator | None,
) -> Evaluation:
    names = sorted({row.kind for row in rows if row.kind is not None})
    classes = tuple(_summary(name, tallies, rng) for name, tallies in by_class.items())
    return Evaluation(
        images=tuple(rows),
        all=_summary("all", [row.tally for row in rows], rng),
        kinds=tuple(
            _summary(name, [row.tally for row in rows if row.kind == name], rng) for name in names
        ),
        classes=classes,
        class_mean=mean_metrics([one.pooled for one in classes]) if classes else None,
    )


def _summary(name: str, tallies: Sequence[Tally], rng: np.random.Generator | None) -> Summary:
    total = sum(tallies, Tally())
    metrics = [one.metrics() for one in tallies]
    interval = (math.nan, math.nan)
    if rng is not None:
        interval = mean_interval(np.array([one.mean_ap for one in metrics]), rng)
    return Summary(
        name=name,
        images=len(tallies),
        tally=total,
        mean=mean_metrics(metrics),
        pooled=total.metrics(),
        mean_ap_interval=interval,
    )


def _table_row(summary: Summary) -> tuple[str, ...]:
    mean, pooled, total = summary.mean, summary.pooled, summary.tally
    at_half, at_three_quarters = (mean.ap[THRESHOLDS.index(t)] for t in (0.5, 0.75))
    means = (at_half, at_three_quarters, mean.mean_ap)
    ratios = (*means, pooled.f1, pooled.pq, pooled.aji, pooled.dice)
    wrong = (total.counts[0].missed, total.counts[0].false, total.merged, total.split)
    return (
        summary.name,
        str(summary.images),
        str(total.truths),
        *(f"{ratio:.3f}" for ratio in ratios),
        *map(str, wrong),
    )


def _summary_json(summary: Summary) -> dict[str, Any]:
    return {
        "images": summary.images,
        "counts": _counts_json(summary.tally),
        "mean": _metrics_json(summary.mean),
        "pooled": _metrics_json(summary.pooled),
        # NaN has no word in JSON.
        "mean_ap_interval": [None if math.isnan(end) else end for end in summary.mean_ap_interval],
    }


def _counts_json(total: Tally) -> dict[str, int]:
    at_half = total.counts[0]
    return {
        "objects": total.truths,
        "predicted": total.predictions,
        "matched": at_half.matched,
        "missed": at_half.missed,
        "false": at_half.false,
        "merged": total.merged,
        "split": total.split,
    }


def _metrics_json(metrics: Metrics) -> dict[str, Any]:
    return {field.name: getattr(metrics, field.name) for field in fields(Metrics)} | {
        "ap": list(metrics.ap)
    }
