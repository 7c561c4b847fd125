"""How well a model does on data with truth, and label images against label images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.images import Image, write_labels
from domainseg.images.normalise import Range
from domainseg.instances.evaluation import (
    Evaluation,
    LabelPair,
    evaluate_labels,
    evaluate_pairs,
    write_evaluation,
)
from domainseg.instances.export import write_objects
from domainseg.recipe import with_overrides
from domainseg.records import Entry, Sample
from domainseg.runs import (
    TABLE,
    Model,
    RunOptions,
    begin_folder,
    describe,
    finished,
    open_model,
    run_sample,
    sample_sha256,
)
from domainseg.segmenter import Segmentation, group_ranges, object_diameter, segment
from domainseg.sources import Source, open_source, truth_labels

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
    options: RunOptions | None = None,
    tell: Tell = lambda _done, _total, _name: None,
) -> Evaluation:
    """Return the scores of a model on the part of its recipe's data that ``part`` names.

    ``data`` is the folder of the data, that of the recipe by default; ``part`` is train,
    val, test or all, the recipe's ``evaluate.part`` by default. With ``out`` every image
    leaves a run folder there, with ``truth.tif`` and ``evaluation.json`` beside the results,
    so that a report can show where the model is wrong. A model that works at an object
    diameter is told that of the image's annotated objects, or ``options.diameter_px``.

    Raises:
        InputError: the data cannot be used, the part is empty, or the classes that
            ``evaluate.by_class`` compares are not those of the model.
        OutputError: ``out`` holds results of another model or setting.
    """
    options = options or RunOptions()
    opened = open_model(Path(model), options)
    recipe = opened.segmenter.recipe
    if data is not None:
        # Not as an override: a path is no YAML.
        section = recipe.data.model_copy(update={"root": str(data)})
        recipe = recipe.model_copy(update={"data": section})
    if part is not None:
        recipe = with_overrides(recipe, [f"evaluate.part={part}"])
    opened = replace(opened, segmenter=replace(opened.segmenter, recipe=recipe))
    source = open_source(recipe)
    _require_classes(opened, source)
    folder = None if out is None else Path(out)
    entries = _part(source, recipe.evaluate.part)
    ranges = group_ranges(recipe, source, entries)
    scoring = _Scoring(opened, source, folder, options, ranges)
    evaluation = evaluate_pairs(
        scoring.pairs(entries, tell),
        class_names=source.classes if recipe.evaluate.by_class else None,
        rng=np.random.default_rng(recipe.evaluate.seed),
    )
    if folder is not None:
        write_evaluation(evaluation, folder / SCORES)
        tables = [pl.read_parquet(folder / entry.id / TABLE) for entry in entries]
        whole = pl.concat(tables, how="diagonal")
        write_objects(whole, parquet=folder / "objects.parquet", csv=folder / "objects.csv")
    return evaluation


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

    def pairs(self, entries: Sequence[Entry], tell: Tell) -> Iterator[LabelPair]:
        """Yield truth and prediction of each image; with ``out`` leave its run folder too."""
        for done, entry in enumerate(entries):
            tell(done, len(entries), entry.id)
            sample = self.source.load(entry)
            truth, _ = truth_labels(sample)
            made = self.segmented(sample, truth, entry)
            pair = self.pair(sample, truth, made)
            if self.out is not None:
                write_evaluation(evaluate_pairs([pair]), self.out / entry.id / SCORES)
            yield pair
        tell(len(entries), len(entries), "")

    def segmented(self, sample: Sample, truth: NDArray[np.int32], entry: Entry) -> Segmentation:
        """Return what the model sees in a sample; with ``out`` leave a run folder."""
        diameter = self.options.diameter_px or object_diameter(sample)
        group = self.ranges.get(entry.group)
        made = segment(self.model.segmenter, sample, diameter_px=diameter, intensity=group)
        if self.out is None:
            return made
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
        if finished(folder, record, restart=self.options.restart) is None:
            begin_folder(folder)
            write_labels(folder / TRUTH, truth, spacing_um=sample.spacing_um)
            run_sample(self.model, sample, made, folder, record)
        return made

    def pair(self, sample: Sample, truth: NDArray[np.int32], made: Segmentation) -> LabelPair:
        """Return what is compared: label maps, or objects where they have classes or layers."""
        plain = len(made.labels) == 1 and not self.model.segmenter.recipe.evaluate.by_class
        assert sample.truth is not None  # its labels are ``truth``
        return LabelPair(
            sample.id,
            truth if plain else sample.truth,
            made.labels[0] if plain else made.instances(),
            kind=sample.kind,
            ignore=sample.ignore,
        )
