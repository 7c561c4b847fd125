"""How well a model does on data with truth, and label images against label images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from domainseg.errors import InputError, UsageError, sentence
from domainseg.images import Image, write_labels
from domainseg.images.label_store import open_label_plane
from domainseg.images.normalise import Range
from domainseg.instances.evaluation import (
    Evaluation,
    LabelPair,
    evaluate_labels,
    evaluate_pairs,
    write_evaluation,
)
from domainseg.instances.export import join_objects, table_instances
from domainseg.recipe import Recipe, with_overrides
from domainseg.records import Array, Entry, Instances, Sample
from domainseg.results import LABEL_STORE, TABLE
from domainseg.run_folder import Run, finished
from domainseg.runs import Model, RunOptions, Task, describe, open_model, run_task, sample_sha256
from domainseg.segmenter import group_ranges, object_diameter, segment
from domainseg.sources import Source, annotated, open_source, truth_labels

__all__ = ["evaluate_labels", "evaluate_model", "write_evaluation"]

SCORES = "evaluation.json"
TRUTH = "truth.tif"

Tell = Callable[[int, int, str], None]
"""Called with images done, images in all, and the name of the next."""


def evaluate_model(
    model: Path | str,
    data: Path | str | None = None,
    *,
    out: Path | str | None = None,
    part: str | None = None,
    true_diameter: bool = False,
    options: RunOptions | None = None,
    tell: Tell = lambda _done, _total, _name: None,
) -> Evaluation:
    """Return the scores of a model on the part of its recipe's data that ``part`` names.

    ``data`` is the folder of the data, that of the recipe by default; ``part`` is train,
    val, test or all, the recipe's ``evaluate.part`` by default. With ``out`` every image
    leaves a run folder there, with ``truth.tif`` and ``evaluation.json`` beside the results,
    so that a report can show where the model is wrong; a run that is there is scored again,
    not run again.

    A model that works at an object diameter is given what `predict` would be given: the
    training's, or ``options.diameter_px``. With ``true_diameter`` each image is scaled by
    its own annotated objects, which no prediction knows; run.json tells which it was.

    Raises:
        InputError: the data cannot be used, the part is empty, or the classes that
            ``evaluate.by_class`` compares are not those of the model.
        OutputError: ``out`` holds results of another model or setting.
        UsageError: ``true_diameter`` with another diameter, or for a model without one.
    """
    options = options or RunOptions()
    opened = open_model(Path(model), options)
    recipe = opened.segmenter.recipe
    if true_diameter:
        _require_diameter(recipe, options)
    if data is not None:
        # Not as an override: a path is no YAML.
        section = recipe.data.model_copy(update={"root": str(data)})
        recipe = recipe.model_copy(update={"data": section})
    if part is not None:
        recipe = with_overrides(recipe, [f"evaluate.part={part}"])
    opened = replace(opened, segmenter=replace(opened.segmenter, recipe=recipe))
    source = open_source(_unsplit(recipe) if recipe.evaluate.part == "all" else recipe)
    _require_classes(opened, source)
    folder = None if out is None else Path(out)
    entries = _part(source, recipe.evaluate.part)
    ranges = group_ranges(recipe, source, entries)
    scoring = _Scoring(opened, source, folder, options, ranges, true_diameter)
    evaluation = evaluate_pairs(
        scoring.pairs(entries, tell),
        class_names=source.classes if recipe.evaluate.by_class else None,
        rng=np.random.default_rng(recipe.evaluate.seed),
    )
    if folder is not None:
        write_evaluation(evaluation, folder / SCORES)
        tables = [folder / entry.id / TABLE for entry in entries]
        join_objects(tables, parquet=folder / "objects.parquet", csv=folder / "objects.csv")
    return evaluation


def _require_diameter(recipe: Recipe, options: RunOptions) -> None:
    """Raise UsageError where the true diameter of the objects could not take effect."""
    if options.diameter_px is not None:
        found, wanted = f"a diameter of {options.diameter_px:g} px and the true one", "one of them"
    elif recipe.data.diameter_px is None:
        found, wanted = "the true diameter, for a model that works at none", "data.diameter_px"
    else:
        return
    raise UsageError(sentence("evaluate", found=found, wanted=wanted, fix="drop --true-diameter"))


def _unsplit(recipe: Recipe) -> Recipe:
    """Return the recipe with one part where parts are hashed: however few images, all fit."""
    split = recipe.data.split
    if split.by != "hash":
        return recipe
    whole = recipe.data.model_copy(update={"split": replace(split, val=0.0, test=0.0)})
    return recipe.model_copy(update={"data": whole})


def _part(source: Source, part: str) -> tuple[Entry, ...]:
    splits = source.splits
    chosen = {
        "train": splits.train,
        "val": splits.val,
        "test": splits.test,
        "all": (*splits.train, *splits.val, *splits.test),
    }[part]
    if not chosen:
        raise InputError(
            sentence(
                "evaluate",
                found=f"no image in {part}",
                wanted="at least one",
                fix="name another part",
            )
        )
    return chosen


def _require_classes(model: Model, source: Source) -> None:
    """Raise InputError where classes are compared and those of data and model differ."""
    wanted = model.segmenter.classes
    if model.segmenter.recipe.evaluate.by_class and source.classes != wanted:
        raise InputError(
            sentence(
                model.segmenter.recipe.data.root or "data",
                found=f"the classes {', '.join(source.classes)}",
                wanted=f"those of the model, {', '.join(wanted)}",
                fix="rename them with data.classes, or set evaluate.by_class=false",
            )
        )


@dataclass(frozen=True, slots=True)
class _Scoring:
    """A model at work on data with truth."""

    model: Model
    source: Source
    out: Path | None
    options: RunOptions
    ranges: Mapping[str, Range]
    true_diameter: bool

    def pairs(self, entries: Sequence[Entry], tell: Tell) -> Iterator[LabelPair]:
        """Yield truth and prediction of each image; with ``out`` leave its run folder too."""
        overlapping = self.model.segmenter.recipe.head.overlapping
        for done, entry in enumerate(entries):
            tell(done, len(entries), entry.id)
            sample = self.source.load(entry)
            truth, _ = truth_labels(sample, overlapping=overlapping)
            found = self.predicted(sample, entry)
            if self.out is not None:
                write_labels(self.out / entry.id / TRUTH, truth, spacing_um=sample.spacing_um)
            pair = LabelPair(
                sample.id,
                truth if self.plain else annotated(sample),
                found,
                kind=sample.kind,
                ignore=sample.ignore,
            )
            if self.out is not None:
                write_evaluation(evaluate_pairs([pair]), self.out / entry.id / SCORES)
            yield pair
        tell(len(entries), len(entries), "")

    @property
    def plain(self) -> bool:
        """Whether label maps are compared, not objects: no class, no overlap, one layer."""
        recipe = self.model.segmenter.recipe
        return self.layers == 1 and not (recipe.evaluate.by_class or recipe.head.overlapping)

    @property
    def layers(self) -> int:
        """Number of layers that the model decodes."""
        return self.model.segmenter.make_maps.layers

    def predicted(self, sample: Sample, entry: Entry) -> Array | Instances:
        """Return what the model sees in a sample: a label map where `plain`, else objects.

        With ``out`` it comes from a run folder, which is left there or was there already.
        """
        diameter = object_diameter(sample) if self.true_diameter else self.options.diameter_px
        group = self.ranges.get(entry.group)
        if self.out is None:
            made = segment(self.model.segmenter, sample, diameter_px=diameter, intensity=group)
            return made.labels[0] if self.plain else made.instances()
        folder = self.out / entry.id
        record = describe(
            self.model,
            sample,
            where=sample.image.path if isinstance(sample.image, Image) else entry.id,
            sha256=sample_sha256(sample),
            select=self.model.segmenter.recipe.image.select,
            diameter_px=diameter,
            group=group,
        )
        if self.model.segmenter.recipe.data.diameter_px is not None:
            given = "truth" if self.true_diameter else "option"
            record["image"]["diameter_from"] = "training" if diameter is None else given
        run = finished(folder, record, restart=self.options.restart)
        if run is None:
            task = Task(sample, record, diameter_px=diameter, intensity=group)
            run = run_task(self.model, task, folder, options=self.options)
        return self.stored(run)

    def stored(self, run: Run) -> Array | Instances:
        """Return what a run folder holds, as `predicted`."""
        names = [f"layer{n}" for n in range(self.layers)] if self.layers > 1 else ["objects"]
        planes = [open_label_plane(run.folder / LABEL_STORE, name) for name in names]
        labels = np.stack([np.asarray(plane[:, :]) for plane in planes])
        if self.plain:
            return np.asarray(labels[0])
        return table_instances(labels, table=run.objects, class_names=self.model.segmenter.classes)
