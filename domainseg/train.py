"""From a recipe to a trained model: prepare, fit, measure, save."""

from __future__ import annotations

import copy
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib.metadata import version
from operator import add
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from domainseg import __version__
from domainseg.about import about_model
from domainseg.allocator import keep_freed_memory
from domainseg.atomic import atomic_text, writing_below
from domainseg.images.channels import DIE_MAP, RGB
from domainseg.images.normalise import Range
from domainseg.images.resample import labels_to_source, resample_labels
from domainseg.instances.basins import decode
from domainseg.instances.matching import Tally, tally
from domainseg.instances.overlaps import overlap_instances, overlap_maps
from domainseg.model_plane import ModelPlane, group_ranges, model_plane
from domainseg.models.heads.detection import DetectionHead
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.models.model_file import ModelCard, save_model
from domainseg.models.network import whole_window_layers
from domainseg.outside import seen_in_training
from domainseg.recipe import Recipe, with_overrides
from domainseg.records import Entry, Maps, Sample
from domainseg.segmenter import (
    Segmenter,
    build_network,
    choose_device,
    choose_precision,
    decode_options,
    open_engine,
    segment,
)
from domainseg.sources import (
    Source,
    annotated,
    labelled,
    open_source,
    skipped_in,
    truth_labels,
    with_stuff,
)
from domainseg.tiling.detecting import detect_windows
from domainseg.tiling.forward import Precision, forward_maps
from domainseg.tiling.grid import Lattice
from domainseg.tiling.halo import (
    HALO_STRIDES,
    MOST_CORES,
    REFERENCE_STRIDES,
    HaloImage,
    HaloReading,
    measure_on_objects,
    object_halo,
    sufficient_halo,
)
from domainseg.train_folder import (
    MODEL,
    RESOLVED,
    ended,
    keep_digest,
    minutes_before,
    plan_training,
    prepare,
)
from domainseg.training.augment import Augmentation
from domainseg.training.loop import LAST, Fitting, LoopOptions, Progress, fit
from domainseg.training.object_patches import ObjectPatches, together
from domainseg.training.objectives import Batch, DetectionObjective, MapObjective, Objective
from domainseg.training.patches import Numbers, Patches, PatchOptions
from domainseg.training.prepared import Prepared, find_places, images_sha256
from domainseg.training.timing import seconds_per_step, steps_within

PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "timm", "lightning", "numpy")
"""Packages whose versions a model records: they decide the bits of its weights."""
Tell = Callable[[str, Progress | None], None]
"""Called with what is being done, and how far the fitting is."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training leaves.

    Attributes:
        model: path of the model file.
        scores: validation scores by name; empty without validation images.
        minutes: wall-clock time, preparation and interrupted runs included.
    """

    model: Path
    scores: dict[str, float]
    minutes: float


@dataclass(frozen=True, slots=True)
class _Job:
    """One training: what is fitted, to what, where."""

    recipe: Recipe
    source: Source
    out: Path
    network: nn.Module
    device: torch.device
    precision: Precision
    diameter_px: float | None
    ranges: Mapping[str, Range]
    about: Mapping[str, Any]

    @property
    def objective(self) -> Objective:
        head, count = self.recipe.head, len(self.source.classes)
        if isinstance(head, DetectionHead):
            return DetectionObjective()

        def loss(scores: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
            return head.loss(scores, targets, weight, classes=count)

        return MapObjective(loss, fade_weights=self.recipe.train.equal_size_px is not None)

    def outcome(self, network: nn.Module, index: int) -> Tally | float:
        """Return the objects of validation image ``index`` that were found, missed and false.

        It is segmented as `predict` would, which knows no truth: at the training's diameter.
        Of an image with a label and no mask it is 1 where the classes found are those of
        the label, else 0.
        """
        entry = self.source.splits.val[index]
        sample = self.source.load(entry)
        made = segment(
            self.segmenter(network),
            sample,
            diameter_px=self.diameter_px,
            intensity=self.ranges.get(entry.group),
        )
        tags = labelled(sample, self.source.classes)
        if tags is not None:
            found = np.unique(made.decoded.classes).tolist()
            return float(found == np.flatnonzero(tags).tolist())
        if self.recipe.head.overlapping:
            truth = annotated(sample)
            overlaps = overlap_instances(truth, made.instances(), ignore=sample.ignore)
        else:
            labels, _ = truth_labels(sample)
            overlaps = overlap_maps(labels, made.labels[0], ignore=sample.ignore)
        return tally(overlaps)

    def score(self, outcomes: Sequence[Tally | float]) -> float:
        """Return AP, mean over IoU .5 to .9; of an image with a label, whether it was right.

        The mean over images; of defects that of all objects together, because an image with
        one defect or none has an AP of 0 or 1, and the mean is of little else.
        """
        tallies = [one for one in outcomes if isinstance(one, Tally)]
        if self.recipe.evaluate.defects and len(tallies) == len(outcomes):
            return reduce(add, tallies).metrics().mean_ap
        return float(
            np.mean([one.metrics().mean_ap if isinstance(one, Tally) else one for one in outcomes])
        )

    def plane(self, entry: Entry, sample: Sample) -> ModelPlane:
        """Return a validation image as the network sees it in `outcome`."""
        return model_plane(
            self.recipe,
            sample,
            diameter_px=self.diameter_px,
            intensity=self.ranges.get(entry.group),
        )

    def segmenter(self, network: nn.Module, halo_px: int | None = None) -> Segmenter:
        recipe = self.recipe
        stride = recipe.model.stride
        tiling = recipe.tiling
        if halo_px is None:
            halo_px = 4 * stride if tiling.halo_px == "measured" else tiling.halo_px
        made = open_engine(
            network, recipe, self.source.classes, device=self.device, precision=self.precision
        )
        lattice = Lattice(tiling.core_px, halo_px, stride, tiling.batch)
        return Segmenter(recipe, self.source.classes, made, lattice, self.diameter_px)


def train(
    recipe: Path | str,
    out: Path | str,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    tell: Tell = lambda _stage, _progress: None,
) -> Trained:
    """Fit the recipe and return the model it wrote to ``out/model.safetensors``.

    ``out`` also receives ``recipe.yaml`` (resolved: minutes turned into steps),
    ``metrics.csv``, TensorBoard logs and checkpoints. With ``resume`` the same call goes on
    with an interrupted training, from the end of its last whole epoch, and ends with the
    weights it would have had: the steps stay those that were planned, and of the recipe only
    ``data.root``, ``train.workers``, ``train.keep``, ``train.file_precision``, ``evaluate``,
    ``report`` and ``about`` may differ. Where nothing was interrupted yet it begins; where the
    training had ended it returns its model, written anew where another of its weights is to be
    kept, or at another precision; what `tune` and `evaluate --keep` had put into it is gone then.

    Raises:
        RecipeError: the recipe cannot be read or its parts do not fit.
        InputError: the data cannot be used, or is not that of the interrupted training.
        OutputError: ``out`` holds a training already, or one of another recipe, or cannot
            be written.
        KeyboardInterrupt: on Ctrl-C; ``out`` can be resumed.
    """
    begun, out = time.monotonic(), Path(out)
    plan = plan_training(Path(recipe), out, overrides=overrides, resume=resume)
    if card := ended(out, plan):
        return Trained(out / MODEL, dict(card.scores), float(card.training["minutes"]))
    begun -= minutes_before(out) * 60 if resume else 0.0
    # Before the work: a data card that there is not is to be named now, not at its end.
    about = about_model(plan.about)
    source = open_source(plan)
    plan = with_stuff(plan, source)
    tell("preparing images", None)
    ranges = group_ranges(plan, source, (*source.splits.train, *source.splits.val))
    images, diameter = prepare(source, plan, out / "prepared", ranges=ranges)
    for said in skipped_in(source):
        tell(said, None)
    keep_digest(images_sha256(images), out, resume=resume)
    job = _job(plan, source, out, diameter, ranges, about)
    if plan.train.max_minutes is not None:
        tell("timing steps", None)
        plan = _planned_steps(job, images, gone_s=time.monotonic() - begun)
        job = replace(job, recipe=plan)
    atomic_text(out / RESOLVED, plan.to_yaml())
    options = _loop_options(job)
    with writing_below(out):
        best = fit(
            Fitting(job.network, job.objective, job, options),
            _batches(job, images),
            validation=len(source.splits.val),
            options=options,
            out=out,
            resume=resume,
            tell=lambda progress: tell("fitting", progress),
        )
    if not _in_one_window(plan) and not isinstance(plan.head, DetectionHead):
        tell("measuring the halo", None)
    trained = _finish(job, images, best, begun=begun)
    shutil.rmtree(out / "prepared")
    return trained


def _job(
    plan: Recipe,
    source: Source,
    out: Path,
    diameter: float | None,
    ranges: Mapping[str, Range],
    about: Mapping[str, Any],
) -> _Job:
    torch.manual_seed(plan.train.seed)
    network = build_network(plan, source.classes)
    device = choose_device(plan.train.device)
    if device.type == "cpu":
        keep_freed_memory()
    precision = choose_precision(plan.train.precision, device)
    network = network.to(memory_format=torch.channels_last)
    return _Job(plan, source, out, network, device, precision, diameter, ranges, about)


def _batches(job: _Job, images: Sequence[Prepared]) -> DataLoader[Batch]:
    options = job.recipe.train
    one_by_one = isinstance(job.recipe.head, DetectionHead)
    draw = PatchOptions(
        options.seed,
        options.patch_px,
        options.margin,
        options.object_share,
        beyond="zero" if one_by_one else "mirror",
    )
    augmentation = Augmentation(job.recipe.augment, crop_px=options.patch_px)
    if one_by_one:
        regions = isinstance(job.recipe.head, PanopticHead)
        patches: Patches = ObjectPatches(images, draw, augmentation, regions=regions)
    else:
        patches = Patches(images, draw, augmentation)
    loader: DataLoader[Any] = DataLoader(
        patches,
        collate_fn=together if one_by_one else None,
        batch_size=options.batch,
        sampler=Numbers(options.steps_per_epoch * options.batch * options.accumulate),
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=job.device.type == "cuda",
    )
    return loader


def _loop_options(job: _Job) -> LoopOptions:
    options = job.recipe.train
    steps = options.max_steps or (options.max_epochs or 0) * options.steps_per_epoch
    return LoopOptions(
        steps=steps,
        steps_per_epoch=options.steps_per_epoch,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_share=options.warmup_share,
        ema_decay=options.ema_decay,
        clip_norm=options.clip_norm,
        patience=options.patience,
        precision=job.precision,
        device=job.device.type,
        seed=options.seed,
        accumulate=options.accumulate,
    )


def _planned_steps(job: _Job, images: Sequence[Prepared], *, gone_s: float) -> Recipe:
    """Return the recipe with ``max_minutes`` turned into ``max_steps`` by timing real steps.

    A copy of the network is timed, so that the training itself starts from untouched weights.
    """
    options = job.recipe.train
    assert options.max_minutes is not None
    begun = time.monotonic()
    step_s = seconds_per_step(
        copy.deepcopy(job.network),
        job.objective,
        _batches(job, images),
        device=job.device,
        bf16=job.precision == "bf16",
        minutes=options.max_minutes,
    )
    validation_s = _seconds_per_validation(job)
    steps = steps_within(
        options.max_minutes,
        gone_s=gone_s + time.monotonic() - begun,
        step_s=step_s * options.accumulate,
        validation_s=validation_s,
        steps_per_epoch=options.steps_per_epoch,
    )
    return with_overrides(job.recipe, [f"train.max_steps={steps}", "train.max_minutes=null"])


def _seconds_per_validation(job: _Job) -> float:
    """Return how long it takes to score the validation images, from up to 8 of them."""
    entries = job.source.splits.val
    timed = min(len(entries), 8)
    segmenter = job.segmenter(copy.deepcopy(job.network))
    for entry in entries[:2]:
        _rehearse(job, segmenter, entry)
    begun = time.monotonic()
    for index in range(timed):
        _rehearse(job, segmenter, entries[index * len(entries) // timed])
    return (time.monotonic() - begun) / max(1, timed) * len(entries)


def _rehearse(job: _Job, segmenter: Segmenter, entry: Entry) -> None:
    """Do what scoring an image takes, but decode the truth: noise would be all objects."""
    sample = job.source.load(entry)
    labels = np.zeros(sample.image.shape[1:], np.int32)
    if labelled(sample, job.source.classes) is None:
        labels, _ = truth_labels(sample, overlapping=job.recipe.head.overlapping)
    plane = job.plane(entry, sample)
    if segmenter.detector is not None:
        for _ in detect_windows(segmenter.detector, plane, segmenter.lattice):
            pass
        return
    forward_maps(segmenter.make_maps, plane, segmenter.lattice)
    shown = np.repeat(
        resample_labels(labels, plane.grid)[None] > 0, segmenter.make_maps.layers, axis=0
    )
    flat = np.zeros(shown.shape, np.uint16)
    maps = Maps(np.where(shown, 255, 0).astype(np.uint8), flat, flat.astype(np.uint8))
    decoded = decode(maps, decode_options(job.recipe, job.source.classes))
    tally(overlap_maps(labels, labels_to_source(decoded.labels[0], plane.grid)))


def _finish(job: _Job, images: Sequence[Prepared], checkpoint: Path, *, begun: float) -> Trained:
    """Measure the halo and the scores of the best weights and write the model file."""
    weights, steps = _kept_weights(checkpoint, job.recipe.train.keep)
    if job.recipe.train.file_precision == "fp16":
        weights = {name: _halved(value) for name, value in weights.items()}
    job.network.load_state_dict(weights)
    halo_px, readings = _measured_halo(job, images)
    outcomes = [job.outcome(job.network, i) for i in range(len(job.source.splits.val))]
    # With image labels the mean is over AP of some images and right labels of the others.
    name = "val_score" if job.recipe.head.learns_labels else "val_mean_ap"
    named = {name: job.score(outcomes)} if outcomes else {}
    minutes = (time.monotonic() - begun) / 60
    card = ModelCard(
        recipe=job.recipe.to_json(),
        classes=job.source.classes,
        channels=_channel_names(job.recipe),
        stride_px=job.recipe.model.stride,
        halo_px=halo_px,
        halos=tuple(
            {"halo_px": r.halo_px, "difference": r.difference, "flipped": r.flipped}
            for r in readings
        ),
        whole_window_layers=whole_window_layers(job.network),
        diameter_px=job.diameter_px,
        training={
            "images": len(images),
            "objects": int(sum(len(p.areas_px) for p in images)),
            "images_sha256": images_sha256(images),
            "steps": steps,
            "minutes": round(minutes, 1),
            "device": job.device.type,
            "precision": job.precision,
        },
        data={"root": job.recipe.data.root, "loader": job.recipe.data.loader.name},
        scores=named,
        about=job.about,
        seen=seen_in_training(images),
        versions={"domainseg": __version__, **{name: version(name) for name in PACKAGES}},
    )
    path = job.out / MODEL
    save_model(path, weights, card)
    return Trained(path, named, minutes)


def _kept_weights(best: Path, keep: Literal["best", "mean"]) -> tuple[dict[str, Tensor], int]:
    """Return the weights that a training ends with, and after how many steps they were there."""
    weights, steps = _weights_in(best)
    last = best.with_name(f"{LAST}.ckpt")
    if keep == "best" or last == best:
        return weights, steps
    others, steps = _weights_in(last)
    # What is counted, as batches of normalisations are, is the last's.
    return {
        name: (weights[name] + other) / 2 if other.is_floating_point() else other
        for name, other in others.items()
    }, steps


def _halved(value: Tensor) -> Tensor:
    """Return a weight at half precision, or as it is: one value a channel, or beyond its range."""
    if not value.is_floating_point() or value.ndim < 2:
        return value
    halved = value.half()
    return halved if bool(halved.isfinite().all()) else value


def _weights_in(checkpoint: Path) -> tuple[dict[str, Tensor], int]:
    """Return the averaged weights in a checkpoint, and its steps."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    weights = {
        key.removeprefix("network."): value
        for key, value in state["state_dict"].items()
        if key.startswith("network.")
    }
    return weights, int(state["global_step"])


def _in_one_window(recipe: Recipe) -> bool:
    """Return whether every image fits one window, where a halo has nothing to do."""
    size = recipe.data.size_px
    return size is not None and size <= recipe.tiling.core_px


def _measured_halo(job: _Job, images: Sequence[Prepared]) -> tuple[int, tuple[HaloReading, ...]]:
    """Return the context that a core needs, px of the model grid, and how it was measured.

    Maps: what the network needs. Objects found one by one: what it takes that the window
    whose core holds the centre of one sees all of it.
    """
    if _in_one_window(job.recipe):
        return 0, ()
    if isinstance(job.recipe.head, DetectionHead):
        sides = np.concatenate([image.sides_px for image in images])
        return object_halo(sides, stride_px=job.recipe.model.stride), ()
    readings = _halo_readings(job)
    return sufficient_halo(readings).halo_px, readings


def _halo_readings(job: _Job) -> tuple[HaloReading, ...]:
    """Return the halo's readings on objects of the images chosen for it."""
    stride = job.recipe.model.stride
    images = []
    for entry in _halo_entries(job):
        sample = job.source.load(entry)
        plane = job.plane(entry, sample)
        centres = np.zeros((0, 2), np.int64)
        if sample.truth is not None:
            centres = find_places(sample.truth, scale_yx=plane.grid.scale_yx).centres
        images.append(HaloImage(plane, centres))
    return measure_on_objects(
        job.segmenter(job.network).make_maps,
        images,
        core_px=stride * max(1, 256 // stride),
        halos=[stride * factor for factor in HALO_STRIDES],
        reference_px=stride * REFERENCE_STRIDES,
    )


def _halo_entries(job: _Job) -> list[Entry]:
    """Return at most `MOST_CORES` validation images, training's without any.

    Images with objects come first; of those the largest of each kind, then the next largest
    of each.
    """
    splits = job.source.splits
    sized = []
    for entry in splits.val or splits.train[:32]:
        sample = job.source.load(entry)
        _, height, width = sample.image.shape
        empty = sample.truth is None or len(sample.truth) == 0
        sized.append((empty, -height * width, entry))
    sized.sort(key=lambda one: one[:2])
    taken: Counter[str | None] = Counter()
    ranked = []
    for empty, area, entry in sized:
        ranked.append((empty, taken[entry.kind], area, entry))
        taken[entry.kind] += 1
    ranked.sort(key=lambda one: one[:3])
    return [entry for *_, entry in ranked[:MOST_CORES]]


def _channel_names(recipe: Recipe) -> tuple[str, ...]:
    channels = recipe.data.channels
    if isinstance(channels, str):
        return {"rgb": RGB, "grey": ("grey",), "die_map": DIE_MAP}[channels]
    return channels
