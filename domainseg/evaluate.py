"""How well a model does on data with truth, and label images against label images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from domainseg.errors import InputError, sentence
from domainseg.images import write_labels
from domainseg.instances.evaluation import (
    Evaluation,
    LabelPair,
    evaluate_labels,
    evaluate_pairs,
    write_evaluation,
)
from domainseg.instances.export import write_objects
from domainseg.recipe import with_overrides
from domainseg.records import Entry, Instances
from domainseg.runs import (
    Model,
    RunOptions,
    describe,
    finished,
    open_model,
    run_sample,
    sample_sha256,
)
from domainseg.segmenter import object_diameter, segment
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
    so that a report can show where the model is wrong.

    Raises:
        InputError: the data cannot be used, or the part is empty.
        OutputError: ``out`` holds results of another model or setting.
    """
    options = options or RunOptions()
    opened = open_model(Path(model), options)
    recipe = opened.segmenter.recipe
    if data is not None:
        recipe = with_overrides(recipe, [f"data.root={data}"])
    if part is not None:
        recipe = with_overrides(recipe, [f"evaluate.part={part}"])
    opened = replace(opened, segmenter=replace(opened.segmenter, recipe=recipe))
    source = open_source(recipe)
    folder = None if out is None else Path(out)
    entries = _part(source, recipe.evaluate.part)
    evaluation = evaluate_pairs(
        _pairs(opened, source, entries, folder, options, tell),
        class_names=source.classes if recipe.evaluate.by_class else None,
        rng=np.random.default_rng(recipe.evaluate.seed),
    )
    if folder is not None:
        write_evaluation(evaluation, folder / SCORES)
        tables = [pl.read_parquet(folder / name / "objects.parquet") for name in _names(entries)]
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


def _names(entries: Sequence[Entry]) -> list[str]:
    return [entry.id for entry in entries]


def _pairs(
    model: Model,
    source: Source,
    entries: Sequence[Entry],
    out: Path | None,
    options: RunOptions,
    tell: Tell,
) -> Iterator[LabelPair]:
    """Yield truth and prediction of each image; with ``out`` leave its run folder too."""
    for done, entry in enumerate(entries):
        tell(done, len(entries), entry.id)
        pair = _pair(model, source, entry, out, options)
        if out is not None:
            write_evaluation(evaluate_pairs([pair]), out / entry.id / SCORES)
        yield pair
    tell(len(entries), len(entries), "")


def _pair(
    model: Model, source: Source, entry: Entry, out: Path | None, options: RunOptions
) -> LabelPair:
    sample = source.load(entry)
    truth, classes = truth_labels(sample)
    diameter = object_diameter(sample)
    by_class = model.segmenter.recipe.evaluate.by_class
    made = segment(model.segmenter, sample, diameter_px=diameter)
    if out is not None:
        folder = out / entry.id
        sha256 = sample_sha256(sample)
        record = describe(model, sample, where=entry.id, sha256=sha256, options=options)
        if finished(folder, record, restart=options.restart) is None:
            run_sample(model, sample, made, folder, record)
            write_labels(folder / TRUTH, truth, spacing_um=sample.spacing_um)
    predicted = made.labels.max(0)
    if not by_class:
        return LabelPair(entry.id, truth, predicted, kind=sample.kind, ignore=sample.ignore)
    found = dict(enumerate(made.decoded.classes.tolist(), start=1))
    return LabelPair(
        entry.id,
        Instances.from_label_map(truth, classes=dict(enumerate(classes.tolist()))),
        Instances.from_label_map(predicted, classes=found),
        kind=sample.kind,
        ignore=sample.ignore,
    )
