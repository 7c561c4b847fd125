"""The images that rules are tuned on: what the network sees in them, and how calls are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.instances.basins import DecodeOptions
from domainseg.instances.detection import DetectionRule, detect
from domainseg.instances.matching import match
from domainseg.instances.overlaps import overlap_instances
from domainseg.model_plane import group_ranges
from domainseg.quality.tuning import Evidence
from domainseg.recipe import Recipe
from domainseg.records import Instances, Sample
from domainseg.runs import Model
from domainseg.segmenter import Mapped, mapped_by, segmentation_of
from domainseg.sources import Source, annotated, entries_of, labelled

MATCHED = 0.5
"""IoU from which on a predicted object is right, where defects are not what is looked for."""
PX_PER_MPX = 1e6

Tell = Callable[[str, int, int], None]
"""Called with the stage, what is done and how much there is."""


@dataclass(frozen=True, slots=True)
class Case:
    """One validation image: its maps and its truth."""

    id: str
    group: str
    mapped: Mapped
    truth: Instances | None
    labels: NDArray[np.bool_]
    ignore: NDArray[np.bool_] | None
    inspected_px: int
    spacing_um: tuple[float, float] | None


def gather_cases(
    opened: Model, recipe: Recipe, source: Source, part: str, tell: Tell
) -> tuple[Case, ...]:
    """Return the images of a part with their maps, which stay in memory: 4 bytes a pixel."""
    entries = entries_of(source, part)
    ranges = group_ranges(recipe, source, entries)
    cases = []
    for done, entry in enumerate(entries):
        tell("predicting", done, len(entries))
        sample = source.load(entry)
        mapped = mapped_by(opened.segmenter, sample, intensity=ranges.get(entry.group))
        cases.append(_case(sample, mapped, source.classes, by_label=recipe.head.learns_labels))
    tell("predicting", len(entries), len(entries))
    if not any(case.labels.any() for case in cases):
        raise InputError(
            sentence(
                recipe.data.root or "data",
                found=f"no object in the {len(cases)} images of {part}",
                wanted="objects to tune on",
                fix="name another part, or check the labels",
            )
        )
    return tuple(cases)


def _case(sample: Sample, mapped: Mapped, classes: Sequence[str], *, by_label: bool) -> Case:
    tags = labelled(sample, classes) if by_label else None
    truth = None if tags is not None else annotated(sample)
    if truth is not None:
        tags = np.isin(np.arange(len(classes)), truth.classes)
    assert tags is not None
    shape = sample.image.shape[1:]
    hidden = 0 if sample.ignore is None else int(np.count_nonzero(sample.ignore))
    return Case(
        sample.id,
        sample.group,
        mapped,
        truth,
        tags,
        sample.ignore,
        int(np.prod(shape)) - hidden,
        sample.spacing_um,
    )


@dataclass(frozen=True, slots=True)
class Judge:
    """Validation images on which rules are judged."""

    cases: Sequence[Case]
    rule: DetectionRule | None

    def evidence(self, options: DecodeOptions) -> Evidence:
        """Return the truth objects and calls of all images, decoded with these options."""
        parts = [self._judged(case, options) for case in self.cases]
        return Evidence(
            found_from=np.concatenate([found for found, _, _ in parts]),
            call_scores=np.concatenate([scores for _, scores, _ in parts]),
            false=np.concatenate([false for _, _, false in parts]),
            mpx=sum(case.inspected_px for case in self.cases) / PX_PER_MPX,
        )

    def scored(
        self, options: DecodeOptions
    ) -> tuple[tuple[NDArray[np.float64], NDArray[np.bool_]], ...]:
        """Return per image the scores of the objects and whether each is right."""
        parts = (self._judged(case, options) for case in self.cases)
        return tuple((scores, ~false) for _, scores, false in parts)

    def areas_px(self) -> NDArray[np.int64]:
        """Return the areas of all truth objects, px of the model grid."""
        areas = [
            np.rint(case.truth.areas_px() * np.prod(case.mapped.grid.scale_yx)).astype(np.int64)
            for case in self.cases
            if case.truth is not None
        ]
        return np.concatenate(areas)

    def _judged(
        self, case: Case, options: DecodeOptions
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Return the score from which each truth is found, the calls' scores, which are false."""
        assert case.truth is not None
        predicted = segmentation_of(case.mapped, options).instances()
        if self.rule is not None:
            seen = detect(case.id, case.truth, predicted, rule=self.rule, ignore=case.ignore)
            return seen.found_from.astype(float), seen.call_scores.astype(float), seen.false
        overlaps = overlap_instances(case.truth, predicted, ignore=case.ignore, where=case.id)
        matches = match(overlaps, MATCHED)
        rows = np.searchsorted(predicted.ids, overlaps.predicted_ids)
        scores = predicted.scores[rows].astype(float)
        found = np.full(len(overlaps.truth_ids), -np.inf)
        found[matches.pairs[:, 0]] = scores[matches.pairs[:, 1]]
        false = np.zeros(len(scores), bool)
        false[matches.false] = True
        return found, scores, false
