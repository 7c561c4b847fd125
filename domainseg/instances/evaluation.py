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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.atomic import atomic_text
from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.images import read_labels
from domainseg.instances.label_folders import paired_labels, read_kinds
from domainseg.instances.matching import Tally, mean_metrics, tally
from domainseg.instances.overlaps import overlap_classes, overlap_instances, overlap_maps
from domainseg.instances.scores import Evaluation, ImageRow, Interval, Summary, nothing
from domainseg.quality.bootstrap import mean_interval
from domainseg.records import Array, Instances

__all__ = [
    "Evaluation",
    "ImageRow",
    "LabelPair",
    "Summary",
    "evaluate_labels",
    "evaluate_pairs",
    "mean_ap_difference",
    "write_evaluation",
]


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


def evaluate_pairs(
    pairs: Iterable[LabelPair],
    *,
    class_names: Sequence[str] | None = None,
    rng: np.random.Generator | None = None,
    may_be_none: bool = False,
) -> Evaluation:
    """Return the scores of ``pairs``, which are taken one at a time and not kept.

    With ``class_names`` both sides of every pair must be `Instances`, and objects
    are scored within their class as well. With ``rng`` the summaries carry
    bootstrap intervals. ``may_be_none`` is for what has other scores as well: of no pair
    the ratios are then NaN.

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
    if not rows and not may_be_none:
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
    if not tallies:
        return nothing(name)
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
