"""Rules of decoding chosen on validation data for a stated aim, and kept in the model file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, UsageError, sentence
from domainseg.instances.basins import DecodeOptions
from domainseg.instances.detection import DetectionRule
from domainseg.models.model_file import read_model, save_model
from domainseg.quality.calibration import (
    Calibration,
    CalibrationMethod,
    calibration_error,
    fit_calibration,
)
from domainseg.quality.tuning import (
    Aim,
    Outcome,
    area_candidates,
    best_score,
    class_limits,
    keeps,
    preference,
)
from domainseg.recipe import Recipe, recipe_from_json, with_overrides
from domainseg.runs import Model, RunOptions, open_model
from domainseg.segmenter import decode_options, segmentation_of
from domainseg.sources import data_at, open_source
from domainseg.tune_images import PX_PER_MPX, Case, Judge, Tell, gather_cases

THRESHOLDS = (0.15, 0.25, 0.35, 0.45, 0.5, 0.55, 0.65, 0.75, 0.85)
"""Foreground probabilities that are tried."""
PROMINENCES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Rises of a peak that are tried, where touching objects are split."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning chose.

    Attributes:
        model: the file that holds it now.
        aim: what it was chosen for.
        rules: options of ``instances`` that were chosen, by name.
        before: what the rules so far find.
        after: what the chosen ones find.
        kept: whether the bound that the aim states is kept on these images.
        calibration: of the scores of the chosen rules; None with too few objects.
        errors: expected calibration error before and after, the latter measured on images
            that the calibration was not fitted to; None without one.
    """

    model: Path
    aim: Aim
    rules: dict[str, Any]
    before: Outcome
    after: Outcome
    kept: bool
    calibration: Calibration | None
    errors: tuple[float, float] | None


def tune(
    model: Path | str,
    data: Path | str | None = None,
    *,
    aim: Aim | None = None,
    out: Path | str | None = None,
    part: str = "val",
    calibration: CalibrationMethod = "temperature",
    options: RunOptions | None = None,
    tell: Tell = lambda _stage, _done, _total: None,
) -> Tuned:
    """Choose the rules of a model that serve ``aim`` best on ``part`` of its data; keep them.

    Tried are thresholds, prominences where objects are split, smallest areas and smallest
    scores; of a model that learns from image labels, smallest areas and scores of each
    class, for the best F1 of its image labels. The network runs once. ``data`` is the folder
    of the data, that of the recipe by default; ``data.also`` is then left out. The model
    file, or a copy at ``out``, then holds the rules, what they reach, and the calibration of
    its scores; of ``options.overrides`` it keeps nothing.

    Every setting is judged by all that follows the network, as `evaluate` would judge it,
    except that scores are chosen among those of objects that were linked; what they reach is
    judged again. The rules so far stay where nothing that was tried serves the aim better.

    Raises:
        InputError: the data cannot be used, or has no truth object in this part.
        UsageError: the aim is another than ``f1`` for a model of image labels.
        ModelFileError: the file is no model.
    """
    aim = aim or Aim()
    path = Path(model)
    opened = open_model(path, options or RunOptions())
    recipe = opened.segmenter.recipe
    if data is not None:
        recipe = data_at(recipe, data)
    part = with_overrides(recipe, [f"evaluate.part={part}"]).evaluate.part
    source = open_source(recipe)
    cases = gather_cases(opened, recipe, source, part, tell)
    if recipe.head.learns_labels:
        chosen = _tuned_labels(opened, cases, aim, tell)
    else:
        chosen = _tuned_objects(opened, cases, aim, tell)
    card, weights = read_model(path)
    # The recipe of the file, without what was changed for this call.
    kept_recipe = _with_rules(recipe_from_json(card.recipe, where=str(path)), chosen.rules)
    fitted, errors = _calibrated(chosen.scored, [case.group for case in cases], calibration)
    record = {
        "aim": {
            "name": aim.name,
            "false_calls_per_mpx": aim.false_calls_per_mpx,
            "escape_rate": aim.escape_rate,
        },
        "part": part,
        "images": len(cases),
        "rules": chosen.rules,
        "before": _figures(chosen.before),
        "after": _figures(chosen.after),
        "calibration": None if fitted is None else fitted.to_json(),
        "calibration_error": None if errors is None else list(errors),
    }
    target = path if out is None else Path(out)
    save_model(
        target, weights, replace(card, tested={}, recipe=kept_recipe.to_json(), tuned=record)
    )
    kept = recipe.head.learns_labels or keeps(chosen.after, aim)
    return Tuned(target, aim, chosen.rules, chosen.before, chosen.after, kept, fitted, errors)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Rules with what they find; ``scored`` holds per image the objects' scores and rightness."""

    rules: dict[str, Any]
    before: Outcome
    after: Outcome
    scored: tuple[tuple[NDArray[np.float64], NDArray[np.bool_]], ...]


def _with_rules(recipe: Recipe, rules: dict[str, Any]) -> Recipe:
    return with_overrides(recipe, [f"instances.{name}={value}" for name, value in rules.items()])


def _figures(outcome: Outcome) -> dict[str, float | int]:
    return {
        "truths": outcome.truths,
        "found": outcome.found,
        "calls": outcome.calls,
        "false": outcome.false,
        "mpx": outcome.mpx,
        "f1": outcome.f1,
        "recall": outcome.recall,
        "precision": outcome.precision,
        "escape_bound": outcome.escape_bound,
    }


# Objects ---------------------------------------------------------------------------------


def _tuned_objects(opened: Model, cases: Sequence[Case], aim: Aim, tell: Tell) -> _Chosen:
    """Return the best threshold, then prominence, then smallest area; each with its best score.

    One after the other, as they hardly depend on each other: all at once would be hundreds
    of decodings.
    """
    recipe, classes = opened.segmenter.recipe, opened.segmenter.classes
    judge = Judge(cases, _rule(recipe))
    options = decode_options(recipe, classes)
    before = judge.evidence(options).at(0.0)
    held = preference(before, aim)
    bare = replace(options, min_score=0.0)
    tries: list[tuple[str, tuple[Any, ...]]] = []
    if not isinstance(options.threshold, tuple):
        tries.append(("threshold", THRESHOLDS))
    if options.split is not False and np.any(options.split):
        tries.append(("prominence", PROMINENCES))
    tries.append(("min_area_px", tuple(area_candidates(judge.areas_px()))))
    best, score = bare, 0.0
    reached = preference(judge.evidence(best).at(score), aim)
    done, total = 0, sum(len(values) for _, values in tries)
    for name, values in tries:
        for value in values:
            tell("trying rules", done, total)
            done += 1
            tried = _set(best, name, value)
            if tried is None:
                continue
            found = judge.evidence(tried)
            least = best_score(found, aim, floor=_least(tried.threshold))
            gained = preference(found.at(least), aim)
            if gained > reached:
                best, score, reached = tried, least, gained
    tell("trying rules", total, total)
    final = replace(best, min_score=score)
    after = judge.evidence(final).at(0.0)
    if preference(after, aim) <= held:
        final, after = options, before
    names = [*(name for name, _ in tries), "min_score"]
    rules = {name: getattr(final, name) for name in names}
    # One limit for each class is no value of these options, and was not tried.
    rules = {name: value for name, value in rules.items() if not isinstance(value, tuple)}
    return _Chosen(rules, before, after, judge.scored(final))


def _least(threshold: float | tuple[float, ...]) -> float:
    return min(threshold) if isinstance(threshold, tuple) else threshold


def _set(options: DecodeOptions, name: str, value: Any) -> DecodeOptions | None:
    """Return the options with one changed, None where a limit leaves nothing between."""
    largest = options.max_area_px
    if name == "min_area_px" and largest is not None and value > largest:
        return None
    return replace(options, **{name: value})


def _rule(recipe: Recipe) -> DetectionRule | None:
    """Return when a defect is found, None where objects are matched by IoU."""
    asked = recipe.evaluate
    if not asked.defects:
        return None
    return DetectionRule(tolerance_px=asked.tolerance_px, min_cover=asked.min_cover)


# Image labels ----------------------------------------------------------------------------


def _tuned_labels(opened: Model, cases: Sequence[Case], aim: Aim, tell: Tell) -> _Chosen:
    """Return smallest areas and scores of each class that give image labels the best F1."""
    if aim.name != "f1":
        raise UsageError(
            sentence(
                "tune",
                found=f"the aim {aim.name} for a model that learns image labels",
                wanted="f1",
                fix="drop the aim",
            )
        )
    recipe, classes = opened.segmenter.recipe, opened.segmenter.classes
    options = decode_options(recipe, classes)
    present = np.stack([case.labels for case in cases])
    found = [_objects(case, replace(options, min_area_px=0, min_score=0.0)) for case in cases]
    areas: dict[str, int] = {}
    scores: dict[str, float] = {}
    for index, name in enumerate(classes):
        tell("trying rules", index, len(classes))
        mine = [(a[k == index], s[k == index]) for k, a, s in found]
        now = (_of_class(options.min_area_px, index), _of_class(options.min_score, index))
        areas[name], scores[name], _ = class_limits(present[:, index], mine, now=now)
    tell("trying rules", len(classes), len(classes))
    final = replace(options, min_area_px=tuple(areas.values()), min_score=tuple(scores.values()))
    after = [_objects(case, final) for case in cases]
    scored = tuple((one[2], case.labels[one[0]]) for one, case in zip(after, cases, strict=True))
    before = _label_outcome(present, [_objects(case, options)[0] for case in cases], cases)
    reached = _label_outcome(present, [kinds for kinds, _, _ in after], cases)
    return _Chosen({"min_area_px": areas, "min_score": scores}, before, reached, scored)


def _of_class(limits: Any, index: int) -> Any:
    """Return the limit of a class, of one for all of them or one for each."""
    return limits[index] if isinstance(limits, tuple) else limits


def _objects(
    case: Case, options: DecodeOptions
) -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.float64]]:
    """Return class, area on the model grid and score of each object of an image."""
    decoded = segmentation_of(case.mapped, options).decoded
    return decoded.classes, decoded.areas_px, decoded.scores.astype(float)


def _label_outcome(
    present: NDArray[np.bool_], kinds: Sequence[NDArray[np.int16]], cases: Sequence[Case]
) -> Outcome:
    """Return labels as truth objects and predicted labels as calls."""
    called = np.zeros_like(present)
    for row, found in enumerate(kinds):
        called[row, found] = True
    return Outcome(
        truths=int(present.sum()),
        found=int((present & called).sum()),
        calls=int(called.sum()),
        false=int((called & ~present).sum()),
        mpx=sum(case.inspected_px for case in cases) / PX_PER_MPX,
    )


# Calibration -----------------------------------------------------------------------------


def _calibrated(
    scored: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]],
    groups: Sequence[str],
    method: CalibrationMethod,
) -> tuple[Calibration | None, tuple[float, float] | None]:
    """Return the calibration of all scores, and its error before and after.

    The error after is that of scores calibrated by the other half of the groups: images of
    one part, or one wafer, are alike.
    """
    scores = np.concatenate([s for s, _ in scored])
    right = np.concatenate([r for _, r in scored])
    sides = _halves(groups)
    half = np.repeat([sides[group] for group in groups], [len(s) for s, _ in scored])
    try:
        fitted = fit_calibration(scores, right, method=method)
        crossed = scores.copy()
        for side in (False, True):
            other = fit_calibration(scores[half != side], right[half != side], method=method)
            crossed[half == side] = other.apply(scores[half == side])
    except InputError:
        return None, None
    return fitted, (calibration_error(scores, right), calibration_error(crossed, right))


def _halves(groups: Sequence[str]) -> dict[str, bool]:
    """Return in which half of the groups each is; the halves have no order in common."""
    mixed = sorted(set(groups), key=lambda group: hashlib.sha256(group.encode()).digest())
    return {group: place % 2 == 1 for place, group in enumerate(mixed)}
