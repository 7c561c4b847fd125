"""From a recipe to a trained model: prepare, fit, measure, save."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from domainseg import __version__
from domainseg.atomic import atomic_text, make_folder, writing_below
from domainseg.errors import InputError, sentence
from domainseg.images.normalise import Range
from domainseg.images.resample import labels_to_source, resample_labels
from domainseg.instances.basins import decode
from domainseg.instances.matching import tally
from domainseg.instances.overlaps import overlap_instances, overlap_maps
from domainseg.models.heads.head import Truth
from domainseg.models.model_file import ModelCard, read_card, save_model
from domainseg.models.network import whole_window_layers
from domainseg.recipe import Recipe, with_overrides
from domainseg.records import Entry, Maps, Sample
from domainseg.segmenter import (
    ModelPlane,
    Segmenter,
    choose_device,
    choose_precision,
    decode_options,
    group_ranges,
    map_maker,
    median_diameter,
    model_plane,
    object_diameter,
    segment,
)
from domainseg.sources import Source, open_source, truth_labels
from domainseg.tiling.forward import Precision, forward_maps
from domainseg.tiling.grid import Lattice
from domainseg.tiling.halo import HaloReading, measure_halos, smallest_halo
from domainseg.train_folder import MODEL, RESOLVED, keep_digest, minutes_before, plan_training
from domainseg.training.augment import Augmentation
from domainseg.training.loop import Batch, Fitting, LoopOptions, Progress, fit
from domainseg.training.patches import Numbers, Patches, PatchOptions
from domainseg.training.prepared import Prepared, find_places, images_sha256, save_planes
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

    def loss(self, scores: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        return self.recipe.head.loss(scores, targets, weight, classes=len(self.source.classes))

    def score(self, network: nn.Module, index: int) -> float:
        """Return AP, mean over IoU .5 to .9, of validation image ``index``."""
        entry = self.source.splits.val[index]
        sample = self.source.load(entry)
        labels, _ = truth_labels(sample)
        made = segment(
            self.segmenter(network),
            sample,
            diameter_px=object_diameter(sample) or self.diameter_px,
            intensity=self.ranges.get(entry.group),
        )
        if len(made.labels) == 1:
            overlaps = overlap_maps(labels, made.labels[0], ignore=sample.ignore)
        else:
            assert sample.truth is not None  # its labels were read above
            overlaps = overlap_instances(sample.truth, made.instances(), ignore=sample.ignore)
        return tally(overlaps).metrics().mean_ap

    def plane(self, entry: Entry, sample: Sample) -> ModelPlane:
        return model_plane(
            self.recipe,
            sample,
            diameter_px=object_diameter(sample) or self.diameter_px,
            intensity=self.ranges.get(entry.group),
        )

    def segmenter(self, network: nn.Module, halo_px: int | None = None) -> Segmenter:
        recipe = self.recipe
        stride = recipe.model.stride
        tiling = recipe.tiling
        if halo_px is None:
            halo_px = 4 * stride if tiling.halo_px == "measured" else tiling.halo_px
        made = map_maker(
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
    ``data.root``, ``train.workers``, ``evaluate`` and ``report`` may differ. Where nothing
    was interrupted yet it begins, where the training had ended it returns its model.

    Raises:
        RecipeError: the recipe cannot be read or its parts do not fit.
        InputError: the data cannot be used, or is not that of the interrupted training.
        OutputError: ``out`` holds a training already, or one of another recipe, or cannot
            be written.
        KeyboardInterrupt: on Ctrl-C; ``out`` can be resumed.
    """
    begun, out = time.monotonic(), Path(out)
    plan = plan_training(Path(recipe), out, overrides=overrides, resume=resume)
    if (out / MODEL).exists():
        card = read_card(out / MODEL)
        return Trained(out / MODEL, dict(card.scores), float(card.training["minutes"]))
    begun -= minutes_before(out) * 60 if resume else 0.0
    source = open_source(plan)
    tell("preparing images", None)
    ranges = group_ranges(plan, source, (*source.splits.train, *source.splits.val))
    images, diameter = prepare(source, plan, out / "prepared", ranges=ranges)
    keep_digest(images_sha256(images), out, resume=resume)
    job = _job(plan, source, out, diameter, ranges)
    if plan.train.max_minutes is not None:
        tell("timing steps", None)
        plan = _planned_steps(job, images, gone_s=time.monotonic() - begun)
        job = replace(job, recipe=plan)
    atomic_text(out / RESOLVED, plan.to_yaml())
    options = _loop_options(job)
    with writing_below(out):
        best = fit(
            Fitting(job.network, job.loss, job.score, options),
            _batches(job, images),
            validation=len(source.splits.val),
            options=options,
            out=out,
            resume=resume,
            tell=lambda progress: tell("fitting", progress),
        )
    tell("measuring the halo", None)
    trained = _finish(job, images, best, begun=begun)
    shutil.rmtree(out / "prepared")
    return trained


def prepare(
    source: Source, recipe: Recipe, folder: Path, *, ranges: Mapping[str, Range]
) -> tuple[tuple[Prepared, ...], float]:
    """Return the training images on the model grid with their targets, and the median diameter.

    The diameter is that of circles of the objects' areas, px of the images, over all
    training objects; where the recipe works at a diameter, an image without objects is
    scaled as if it held such. Files go to ``folder``. ``ranges`` holds the intensity range
    of each group where images are normalised by group.

    Raises:
        InputError: an image cannot be used, or no image has an object.
    """
    entries = source.splits.train
    diameter = median_diameter(source, entries)
    if diameter is None:
        raise InputError(
            sentence(
                recipe.data.root or "data",
                found=f"no object in {len(entries)} training images",
                wanted="objects to learn",
                fix="check the labels and the split",
            )
        )
    make_folder(folder)
    prepared = []
    for number, entry in enumerate(entries):
        sample = source.load(entry)
        plane = model_plane(
            recipe,
            sample,
            diameter_px=object_diameter(sample) or diameter,
            intensity=ranges.get(entry.group),
        )
        path = folder / f"{number:06d}.npy"
        prepared.append(_prepare_one(recipe, sample, plane, path, classes=len(source.classes)))
    return tuple(prepared), diameter


def _prepare_one(
    recipe: Recipe, sample: Sample, plane: ModelPlane, path: Path, *, classes: int
) -> Prepared:
    source_labels, class_of = truth_labels(sample)
    labels = resample_labels(source_labels, plane.grid)
    semantic = None if sample.semantic is None else resample_labels(sample.semantic, plane.grid)
    weight = np.ones(labels.shape, bool)
    if sample.ignore is not None:
        weight = resample_labels(sample.ignore.astype(np.uint8), plane.grid) == 0
    targets = recipe.head.targets(Truth(labels, class_of, semantic), classes=classes)
    image = plane[:, 0 : plane.shape[1], 0 : plane.shape[2]]
    sha256 = save_planes(path, image, targets, weight)
    places = find_places(labels)
    return Prepared(
        path=path,
        channels=image.shape[0],
        shape=(labels.shape[0], labels.shape[1]),
        centres=places.centres,
        classes=class_of[places.labels],
        areas_px=places.areas_px,
        kind=sample.kind,
        sha256=sha256,
    )


def _job(
    plan: Recipe, source: Source, out: Path, diameter: float | None, ranges: Mapping[str, Range]
) -> _Job:
    torch.manual_seed(plan.train.seed)
    network = plan.model.build(plan.data.channel_count, plan.head.outputs(len(source.classes)))
    device = choose_device(plan.train.device)
    precision = choose_precision(plan.train.precision, device)
    network = network.to(memory_format=torch.channels_last)
    return _Job(plan, source, out, network, device, precision, diameter, ranges)


def _batches(job: _Job, images: Sequence[Prepared]) -> DataLoader[Batch]:
    options = job.recipe.train
    patches = Patches(
        images,
        PatchOptions(options.seed, options.patch_px, options.margin, options.object_share),
        Augmentation(job.recipe.augment, crop_px=options.patch_px),
    )
    loader: DataLoader[Any] = DataLoader(
        patches,
        batch_size=options.batch,
        sampler=Numbers(options.steps_per_epoch * options.batch),
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
        job.loss,
        _batches(job, images),
        device=job.device,
        bf16=job.precision == "bf16",
    )
    validation_s = _seconds_per_validation(job)
    steps = steps_within(
        options.max_minutes,
        gone_s=gone_s + time.monotonic() - begun,
        step_s=step_s,
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
    labels, _ = truth_labels(sample)
    plane = job.plane(entry, sample)
    forward_maps(segmenter.make_maps, plane, segmenter.lattice)
    shown = resample_labels(labels, plane.grid)[None] > 0
    flat = np.zeros(shown.shape, np.uint16)
    maps = Maps(np.where(shown, 255, 0).astype(np.uint8), flat, flat.astype(np.uint8))
    decoded = decode(maps, decode_options(job.recipe, job.source.classes))
    tally(overlap_maps(labels, labels_to_source(decoded.labels[0], plane.grid)))


def _finish(job: _Job, images: Sequence[Prepared], checkpoint: Path, *, begun: float) -> Trained:
    """Measure the halo and the scores of the best weights and write the model file."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    weights = {
        key.removeprefix("network."): value
        for key, value in state["state_dict"].items()
        if key.startswith("network.")
    }
    job.network.load_state_dict(weights)
    readings = _halo_readings(job)
    chosen = smallest_halo(readings)
    scores = [job.score(job.network, i) for i in range(len(job.source.splits.val))]
    named = {"val_mean_ap": float(np.mean(scores))} if scores else {}
    minutes = (time.monotonic() - begun) / 60
    card = ModelCard(
        recipe=job.recipe.to_json(),
        classes=job.source.classes,
        channels=_channel_names(job.recipe),
        stride_px=job.recipe.model.stride,
        halo_px=chosen.halo_px,
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
            "steps": int(state["global_step"]),
            "minutes": round(minutes, 1),
            "device": job.device.type,
            "precision": job.precision,
        },
        data={"root": job.recipe.data.root, "loader": job.recipe.data.loader.name},
        scores=named,
        versions={"domainseg": __version__, **{name: version(name) for name in PACKAGES}},
    )
    path = job.out / MODEL
    save_model(path, weights, card)
    return Trained(path, named, minutes)


def _halo_readings(job: _Job) -> tuple[HaloReading, ...]:
    """Return the halo's readings on the largest validation image, training's without one."""
    stride = job.recipe.model.stride
    halos = [stride * factor for factor in (0, 1, 2, 3, 4, 6, 8, 10)]
    plane = job.plane(*_largest(job))
    segmenter = job.segmenter(job.network)
    core = stride * max(1, 256 // stride)
    return measure_halos(
        segmenter.make_maps, plane, core_px=core, halos=halos, reference_px=stride * 14
    )


def _largest(job: _Job) -> tuple[Entry, Sample]:
    splits = job.source.splits
    loaded = ((entry, job.source.load(entry)) for entry in splits.val or splits.train[:32])
    return max(loaded, key=lambda pair: pair[1].image.shape[1] * pair[1].image.shape[2])


def _channel_names(recipe: Recipe) -> tuple[str, ...]:
    channels = recipe.data.channels
    if isinstance(channels, str):
        return ("red", "green", "blue") if channels == "rgb" else ("grey",)
    return channels
