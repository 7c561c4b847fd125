"""How well a model does on data with truth, and label images against label images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.diameter import estimate_diameter
from domainseg.errors import InputError, UsageError, sentence
from domainseg.images import Image, write_labels
from domainseg.images.channels import DIE_FAILS
from domainseg.images.label_store import open_label_plane, stored_names
from domainseg.images.normalise import Range
from domainseg.images.resample import Grid, labels_to_source
from domainseg.instances.detection import DetectionRule
from domainseg.instances.evaluation import (
    Evaluation,
    LabelPair,
    evaluate_labels,
    evaluate_pairs,
    write_evaluation,
)
from domainseg.instances.evidence import Evidence, Inspection, Looking
from domainseg.instances.export import join_objects, table_instances
from domainseg.instances.panoptic_quality import Panoptic
from domainseg.model_plane import group_ranges, object_diameter
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.panoptic import read_merged
from domainseg.recipe import Recipe, with_overrides
from domainseg.recipe_sections import Evaluate
from domainseg.records import Array, Entry, Instances, Sample
from domainseg.run_files import LABEL_STORE, TABLE
from domainseg.run_folder import MAPS, Run, finished, read_record
from domainseg.runs import (
    Model,
    RunOptions,
    Task,
    describe,
    model_at,
    open_model,
    run_task,
    sample_sha256,
)
from domainseg.segmenter import segment, within_edges
from domainseg.sources import (
    Source,
    annotated,
    data_at,
    entries_of,
    labelled,
    open_source,
    truth_labels,
)
from domainseg.tiling.store import existing_store

__all__ = ["evaluate_labels", "evaluate_model", "write_evaluation"]

SCORES = "evaluation.json"
TRUTH = "truth.tif"
DIES = ("die",)
"""Channels of a wafer map."""

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

    ``data`` is the folder of the data, that of the recipe by default; ``data.also`` is then
    left out: what is asked for is how well the model does there. ``part`` is train, val,
    test or all, the recipe's ``evaluate.part`` by default. With ``out`` every image
    leaves a run folder there, with ``truth.tif`` and ``evaluation.json`` beside the results,
    so that a report can show where the model is wrong; a run that is there is scored again,
    not run again.

    What ``evaluate.defects``, ``evaluate.labels`` and ``evaluate.coco`` ask for is scored too.
    Of an image with a label and no drawn truth no object is matched: what it shows is scored,
    and with ``evaluate.defects`` one that is labelled with no class has no defect anywhere.

    A model that works at an object diameter is given what `predict` would be given: the
    training's, or ``options.diameter_px``. With ``true_diameter`` each image is scaled by
    its own annotated objects, which no prediction knows; run.json tells which it was.

    Raises:
        InputError: the data cannot be used, the part is empty, an image has neither truth
            nor label, or the classes that ``evaluate.by_class``, ``evaluate.coco`` or labels
            compare are not those of the model.
        OutputError: ``out`` holds results of another model or setting.
        UsageError: ``true_diameter`` with another diameter, or for a model without one.
    """
    options = options or RunOptions()
    opened = model_at(open_model(Path(model), options), options.diameter_px)
    recipe = opened.segmenter.recipe
    if true_diameter:
        _require_diameter(recipe, options)
    if data is not None:
        recipe = data_at(recipe, data)
    if part is not None:
        recipe = with_overrides(recipe, [f"evaluate.part={part}"])
    opened = replace(opened, segmenter=replace(opened.segmenter, recipe=recipe))
    source = open_source(_unsplit(recipe) if recipe.evaluate.part == "all" else recipe)
    _require_classes(opened, source)
    folder = None if out is None else Path(out)
    entries = entries_of(source, recipe.evaluate.part, where="evaluate")
    ranges = group_ranges(recipe, source, entries)
    evidence = Evidence(_looking(recipe.evaluate, opened, source))
    scoring = _Scoring(opened, source, folder, options, ranges, true_diameter, evidence)
    evaluation = evaluate_pairs(
        scoring.pairs(entries, tell),
        class_names=source.classes if recipe.evaluate.by_class else None,
        rng=np.random.default_rng(recipe.evaluate.seed),
        may_be_none=True,
    )
    evaluation = evidence.added_to(evaluation)
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


def _require_classes(model: Model, source: Source) -> None:
    """Raise InputError where classes are compared and those of data and model differ."""
    asked = model.segmenter.recipe.evaluate
    options = {
        "evaluate.by_class": asked.by_class,
        "evaluate.labels": asked.labels,
        "evaluate.coco": asked.coco,
        "evaluate.panoptic": asked.panoptic,
    }
    if on := [name for name, value in options.items() if value]:
        _require_same_classes(model, source, fix=f", or set {on[0]}=false")


def _require_same_classes(model: Model, source: Source, *, fix: str = "") -> None:
    wanted = model.segmenter.classes
    if source.classes != wanted:
        raise InputError(
            sentence(
                model.segmenter.recipe.data.root or "data",
                found=f"the classes {', '.join(source.classes)}",
                wanted=f"those of the model, {', '.join(wanted)}",
                fix=f"rename them with data.classes{fix}",
            )
        )


def _looking(asked: Evaluate, model: Model, source: Source) -> Looking:
    """Return what an evaluation gathers beside matched objects."""
    head = model.segmenter.recipe.head
    return Looking(
        defects=asked.defects,
        coco=asked.coco,
        panoptic=asked.panoptic,
        stuff=head.stuff or () if isinstance(head, PanopticHead) else (),
        rule=DetectionRule(tolerance_px=asked.tolerance_px, min_cover=asked.min_cover),
        boundary_px=asked.boundary_px,
        size_bins_px=(*asked.size_bins_px, math.inf),
        rates=asked.false_calls_per_mpx,
        image_pixels=asked.image_px,
        class_names=source.classes,
        classed=source.classes == model.segmenter.classes,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the model sees in an image: a label map or objects, and what is asked beside."""

    objects: Array | Instances
    foreground: NDArray[np.uint8] | None
    segments: Panoptic | None = None


@dataclass(frozen=True, slots=True)
class _Scoring:
    """A model at work on data with truth."""

    model: Model
    source: Source
    out: Path | None
    options: RunOptions
    ranges: Mapping[str, Range]
    true_diameter: bool
    evidence: Evidence

    def pairs(self, entries: Sequence[Entry], tell: Tell) -> Iterator[LabelPair]:
        """Yield truth and prediction of each image; with ``out`` leave its run folder too.

        What else is scored of an image is gathered on the way.
        """
        for done, entry in enumerate(entries):
            tell(done, len(entries), entry.id)
            sample = self.source.load(entry)
            tagged = labelled(sample, self.source.classes)
            if tagged is not None:
                _require_same_classes(self.model, self.source)
                self.gather(sample, self.seen(sample, entry), tagged)
                continue
            yield self.pair(sample, entry)
        tell(len(entries), len(entries), "")

    def pair(self, sample: Sample, entry: Entry) -> LabelPair:
        """Return truth and prediction of an image with drawn truth."""
        overlapping = self.model.segmenter.recipe.head.overlapping
        truth, _ = truth_labels(sample, overlapping=overlapping)
        seen = self.seen(sample, entry)
        if self.out is not None:
            write_labels(self.out / entry.id / TRUTH, truth, spacing_um=sample.spacing_um)
        self.gather(sample, seen, None)
        pair = LabelPair(
            sample.id,
            truth if self.plain else annotated(sample),
            seen.objects,
            kind=sample.kind,
            ignore=sample.ignore,
        )
        if self.out is not None:
            write_evaluation(evaluate_pairs([pair]), self.out / entry.id / SCORES)
        return pair

    def gather(self, sample: Sample, seen: _Seen, tagged: NDArray[np.bool_] | None) -> None:
        """Gather what else is scored of an image; ``tagged`` where its label is all there is."""
        if not isinstance(seen.objects, Instances):
            return
        truth, labels = sample.truth, tagged
        if truth is not None and self.model.segmenter.recipe.evaluate.labels:
            labels = np.isin(np.arange(len(self.source.classes)), truth.classes)
        if tagged is not None and not tagged.any():
            truth = Instances.from_label_map(np.zeros(sample.image.shape[1:], np.uint8))
        failing = None
        if sample.channels == DIES and labels is not None:
            failing = np.asarray(sample.image[0, :, :]) == DIE_FAILS
        self.evidence.add(
            Inspection(
                id=sample.id,
                predicted=seen.objects,
                truth=truth,
                drawn=sample.truth is not None,
                labels=labels,
                foreground=seen.foreground,
                failing=failing,
                ignore=sample.ignore,
                crowds=sample.crowds,
                semantic=sample.semantic,
                segments=seen.segments,
                spacing_um=sample.spacing_um,
                kind=sample.kind,
            )
        )

    @property
    def plain(self) -> bool:
        """Whether label maps are compared, not objects: no class, no overlap, one layer."""
        recipe = self.model.segmenter.recipe
        asked = recipe.evaluate
        wanted = asked.by_class or asked.defects or asked.labels or asked.coco or asked.panoptic
        if wanted or recipe.head.overlapping:
            return False
        return self.model.segmenter.make_maps.layers == 1

    def seen(self, sample: Sample, entry: Entry) -> _Seen:
        """Return what the model sees in a sample: a label map where `plain`, else objects.

        An image without drawn truth has objects always. With ``out`` all comes from a run
        folder, which is left there or was there already.
        """
        if self.options.estimate_diameter and not self.true_diameter:
            diameter = estimate_diameter(
                self.model.segmenter,
                self.model.card,
                sample,
                intensity=self.ranges.get(entry.group),
                area=within_edges(self.model.segmenter.recipe, sample),
            )
            model = model_at(self.model, diameter)
            return replace(self, model=model).looked_at(sample, entry, diameter, "estimate")
        diameter = object_diameter(sample) if self.true_diameter else self.options.diameter_px
        given = "truth" if self.true_diameter else "option"
        return self.looked_at(sample, entry, diameter, "training" if diameter is None else given)

    def looked_at(
        self, sample: Sample, entry: Entry, diameter: float | None, diameter_from: str
    ) -> _Seen:
        """Return what the model sees at a median diameter of the objects, px, as `seen`."""
        group = self.ranges.get(entry.group)
        plain = self.plain and sample.truth is not None
        if self.out is None:
            made = segment(self.model.segmenter, sample, diameter_px=diameter, intensity=group)
            ranked = self.evidence.looking.defects
            return _Seen(
                made.labels[0] if plain else made.instances(),
                made.foreground if ranked else None,
                made.panoptic,
            )
        folder = self.out / entry.id
        area = within_edges(self.model.segmenter.recipe, sample)
        record = describe(
            self.model,
            sample,
            where=sample.image.path if isinstance(sample.image, Image) else entry.id,
            sha256=sample_sha256(sample),
            select=self.model.segmenter.recipe.image.select,
            diameter_px=diameter,
            group=group,
            area=area,
        )
        if diameter_from == "estimate" or self.model.segmenter.recipe.data.diameter_px is not None:
            record["image"]["diameter_from"] = diameter_from
        run = finished(folder, record, restart=self.options.restart)
        if run is None:
            task = Task(sample, record, diameter_px=diameter, intensity=group, area=area)
            run = run_task(self.model, task, folder, options=self.options)
        return self.stored(run, plain=plain)

    def stored(self, run: Run, *, plain: bool) -> _Seen:
        """Return what a run folder holds, as `seen`."""
        store = run.folder / LABEL_STORE
        planes = [open_label_plane(store, name) for name in stored_names(store)]
        labels = np.stack([np.asarray(plane[:, :]) for plane in planes])
        if plain:
            return _Seen(np.asarray(labels[0]), None)
        classes = self.model.segmenter.classes
        objects = table_instances(labels, table=run.objects, class_names=classes)
        looking = self.evidence.looking
        return _Seen(
            objects,
            _stored_foreground(run.folder, objects.shape) if looking.defects else None,
            read_merged(run.folder) if looking.panoptic else None,
        )


def _stored_foreground(folder: Path, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Return the foreground quanta ``(L, H, W)`` of a run in source pixels, None without maps."""
    if not (folder / MAPS).exists():
        return None
    store = existing_store(folder / MAPS)
    sy, sx = read_record(folder)["grid"]["scale"]
    grid = Grid((sy, sx), store.shape, shape)
    whole = ((0, 0), store.shape)
    layers = [store.window(layer, whole).foreground for layer in range(store.layers)]
    return np.stack([labels_to_source(layer, grid) for layer in layers])
