"""From a recipe to a trained model: prepare, fit, measure, save."""

from __future__ import annotations

import copy
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from domainseg import __version__
from domainseg.atomic import atomic_text
from domainseg.errors import InputError, OutputError, sentence
from domainseg.images.resample import resample_labels
from domainseg.instances.matching import tally
from domainseg.instances.overlaps import overlap_maps
from domainseg.models.heads.head import Truth
from domainseg.models.model_file import ModelCard, save_model
from domainseg.models.network import whole_window_layers
from domainseg.recipe import Recipe, load_recipe, with_overrides
from domainseg.records import Entry, Sample
from domainseg.segmenter import (
    Segmenter,
    choose_device,
    choose_precision,
    map_maker,
    model_plane,
    object_diameter,
    segment,
)
from domainseg.sources import Source, open_source, truth_labels
from domainseg.tiling.forward import Precision
from domainseg.tiling.grid import Lattice
from domainseg.tiling.halo import HaloReading, measure_halos, smallest_halo
from domainseg.training.augment import Augmentation
from domainseg.training.loop import Batch, Fitting, LoopOptions, Progress, fit
from domainseg.training.patches import Numbers, Patches, PatchOptions
from domainseg.training.prepared import Prepared, save_planes

PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "timm", "lightning", "numpy")
"""Packages whose versions a model records: they decide the bits of its weights."""
TIMED_STEPS = 12
SPARE = 0.97
"""Share of the minutes that is planned for; the rest is for what the timing did not see."""

Tell = Callable[[str, Progress | None], None]
"""Called with what is being done, and how far the fitting is."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training leaves.

    Attributes:
        model: path of the model file.
        scores: validation scores by name; empty without validation images.
        minutes: wall-clock time, preparation included.
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

    def loss(self, scores: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        return self.recipe.head.loss(scores, targets, weight, classes=len(self.source.classes))

    def score(self, network: nn.Module, index: int) -> float:
        """Return AP, mean over IoU .5 to .9, of validation image ``index``."""
        sample = self.source.load(self.source.splits.val[index])
        labels, _ = truth_labels(sample)
        made = segment(self.segmenter(network), sample, diameter_px=object_diameter(sample))
        found = tally(overlap_maps(labels, made.labels[0], ignore=sample.ignore))
        return found.metrics().mean_ap

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
    ``metrics.csv``, TensorBoard logs and checkpoints. With ``resume`` an interrupted
    training goes on from its last checkpoint and ends with the weights it would have had.

    Raises:
        RecipeError: the recipe cannot be read or its parts do not fit.
        InputError: the data cannot be used.
        OutputError: ``out`` holds a training already, or cannot be written.
    """
    begun, out = time.monotonic(), Path(out)
    plan = _plan(Path(recipe), out, overrides=overrides, resume=resume)
    source = open_source(plan)
    tell("preparing images", None)
    images, diameter = prepare(source, plan, out / "prepared")
    job = _job(plan, source, out, diameter)
    if plan.train.max_minutes is not None:
        tell("timing steps", None)
        plan = _planned_steps(job, images, gone_s=time.monotonic() - begun)
        job = replace(job, recipe=plan)
    atomic_text(out / "recipe.yaml", plan.to_yaml())
    options = _loop_options(job)
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
    shutil.copyfile(out / "logs" / "metrics.csv", out / "metrics.csv")
    shutil.rmtree(out / "prepared")
    return trained


def prepare(
    source: Source, recipe: Recipe, folder: Path
) -> tuple[tuple[Prepared, ...], float | None]:
    """Return the training images on the model grid with their targets, and the median diameter.

    The diameter is that of objects of equal area, px of the model grid, over all training
    objects; None without objects. Files go to ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prepared = []
    for number, entry in enumerate(source.splits.train):
        prepared.append(_prepare_one(source, recipe, entry, folder / f"{number:06d}.npy"))
    areas = np.concatenate([p.areas_px for p in prepared])
    if not len(areas):
        raise InputError(
            sentence(
                recipe.data.root or "data",
                found=f"no object in {len(prepared)} training images",
                wanted="objects to learn",
                fix="check the labels and the split",
            )
        )
    return tuple(prepared), float(np.sqrt(4 / np.pi * np.median(areas)))


def _prepare_one(source: Source, recipe: Recipe, entry: Entry, path: Path) -> Prepared:
    sample = source.load(entry)
    plane = model_plane(recipe, sample, diameter_px=object_diameter(sample))
    source_labels, classes = truth_labels(sample)
    labels = resample_labels(source_labels, plane.grid)
    semantic = None if sample.semantic is None else resample_labels(sample.semantic, plane.grid)
    weight = np.ones(labels.shape, bool)
    if sample.ignore is not None:
        weight = resample_labels(sample.ignore.astype(np.uint8), plane.grid) == 0
    targets = recipe.head.targets(Truth(labels, classes, semantic), classes=len(source.classes))
    image = plane[:, 0 : plane.shape[1], 0 : plane.shape[2]]
    save_planes(path, image, targets, weight)
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=1))
    present = present[present > 0]
    areas = np.bincount(labels.ravel())[present]
    return Prepared(
        path=path,
        channels=image.shape[0],
        shape=(labels.shape[0], labels.shape[1]),
        centres=_centres(labels, present),
        classes=classes[present],
        areas_px=areas.astype(np.int64),
        kind=sample.kind,
    )


def _centres(labels: np.ndarray[Any, Any], present: np.ndarray[Any, Any]) -> Any:
    """Return the rounded mean pixel of each label, int64 ``(N, 2)``."""
    flat = labels.ravel()
    count = np.bincount(flat)[present]
    rows, columns = np.divmod(np.arange(flat.size), labels.shape[1])
    y = np.bincount(flat, weights=rows)[present] / count
    x = np.bincount(flat, weights=columns)[present] / count
    return np.rint(np.stack([y, x], 1)).astype(np.int64).reshape(-1, 2)


def _plan(recipe: Path, out: Path, *, overrides: Sequence[str], resume: bool) -> Recipe:
    """Return the recipe to run: the one given, or with ``resume`` the resolved one of before."""
    resolved = out / "recipe.yaml"
    if resume and resolved.is_file():
        if overrides:
            raise OutputError(
                sentence(
                    out,
                    found=f"overrides ({' '.join(overrides)}) with --resume",
                    wanted="the recipe the training began with",
                    fix="drop them, or train into another folder",
                )
            )
        return load_recipe(resolved)
    if (out / "model.safetensors").exists() or (out / "checkpoints").exists():
        raise OutputError(
            sentence(
                out,
                found="a training",
                wanted="a new folder",
                fix="go on with --resume, or choose another folder",
            )
        )
    plan = load_recipe(recipe, overrides)
    out.mkdir(parents=True, exist_ok=True)
    return plan


def _job(plan: Recipe, source: Source, out: Path, diameter: float | None) -> _Job:
    torch.manual_seed(plan.train.seed)
    network = plan.model.build(plan.data.channel_count, plan.head.outputs(len(source.classes)))
    device = choose_device(plan.train.device)
    precision = choose_precision(plan.train.precision, device)
    network = network.to(memory_format=torch.channels_last)
    return _Job(plan, source, out, network, device, precision, diameter)


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
    step_s = _seconds_per_step(replace(job, network=copy.deepcopy(job.network)), images)
    validation_s = _seconds_per_validation(job)
    gone_s += time.monotonic() - begun
    left_s = max(0.0, options.max_minutes * 60 * SPARE - gone_s)
    per_step = step_s + validation_s / options.steps_per_epoch
    steps = max(1, int(left_s / per_step))
    return with_overrides(job.recipe, [f"train.max_steps={steps}", "train.max_minutes=null"])


def _seconds_per_step(job: _Job, images: Sequence[Prepared]) -> float:
    network = job.network.to(job.device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0)
    times = []
    begun = time.monotonic()
    for image, targets, weight in islice(_batches(job, images), TIMED_STEPS):
        with torch.autocast(job.device.type, torch.bfloat16, enabled=job.precision == "bf16"):
            scores = network(image.to(job.device, memory_format=torch.channels_last))
        loss = job.loss(scores.float(), targets.to(job.device), weight.to(job.device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        float(loss.detach())  # waits for the device
        times.append(time.monotonic() - begun)
        begun = time.monotonic()
    # The first steps start workers and compile kernels; later ones are what the run will see.
    return statistics.fmean(times[len(times) // 2 :])


def _seconds_per_validation(job: _Job) -> float:
    network = copy.deepcopy(job.network)
    count = len(job.source.splits.val)
    timed = min(count, 8)
    for index in range(min(count, 2)):
        job.score(network, index)
    begun = time.monotonic()
    for index in range(timed):
        job.score(network, index * count // timed)
    return (time.monotonic() - begun) / max(1, timed) * count


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
            "steps": int(state["global_step"]),
            "minutes": round(minutes, 1),
            "device": job.device.type,
            "precision": job.precision,
        },
        data={"root": job.recipe.data.root, "loader": job.recipe.data.loader.name},
        scores=named,
        versions={"domainseg": __version__, **{name: version(name) for name in PACKAGES}},
    )
    path = job.out / "model.safetensors"
    save_model(path, weights, card)
    return Trained(path, named, minutes)


def _halo_readings(job: _Job) -> tuple[HaloReading, ...]:
    """Return the halo's readings on the largest validation image, training's without one."""
    stride = job.recipe.model.stride
    halos = [stride * factor for factor in (0, 1, 2, 3, 4, 6, 8, 10)]
    sample = _largest(job)
    plane = model_plane(job.recipe, sample, diameter_px=object_diameter(sample))
    segmenter = job.segmenter(job.network)
    core = stride * max(1, 256 // stride)
    return measure_halos(
        segmenter.make_maps, plane, core_px=core, halos=halos, reference_px=stride * 14
    )


def _largest(job: _Job) -> Sample:
    splits = job.source.splits
    samples = (job.source.load(entry) for entry in splits.val or splits.train[:32])
    return max(samples, key=lambda s: s.image.shape[1] * s.image.shape[2])


def _channel_names(recipe: Recipe) -> tuple[str, ...]:
    channels = recipe.data.channels
    if isinstance(channels, str):
        return ("red", "green", "blue") if channels == "rgb" else ("grey",)
    return channels
