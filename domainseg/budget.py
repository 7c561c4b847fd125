"""What a prediction will take: memory, disk and time of a recipe or model on one image."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domainseg.diameter import estimate_diameter
from domainseg.errors import UsageError, sentence
from domainseg.images import Image, open_image
from domainseg.images.appearance import MOST_WINDOWS, WINDOW_PX
from domainseg.images.channels import as_channels
from domainseg.images.windows import spread_windows
from domainseg.model_plane import model_plane, model_shape
from domainseg.models.heads.detection import DetectionHead
from domainseg.models.model_file import ModelCard, read_card
from domainseg.outside import Outside, at_diameter
from domainseg.recipe import Recipe, load_recipe, recipe_from_json, with_overrides
from domainseg.records import Array, Sample
from domainseg.runs import RunOptions, open_model, require_scaled
from domainseg.segmenter import (
    build_network,
    choose_device,
    choose_precision,
    open_engine,
    settle_network,
    within_edges,
)
from domainseg.shipped import shipped_models
from domainseg.sources import open_source
from domainseg.tiling.forward import MapMaker
from domainseg.tiling.grid import Lattice, tiles
from domainseg.tiling.plan import GPU_QUEUES, MB, QUEUES, WorkPlan, plan_work
from domainseg.tiling.probe import Probe, probe_network

ASSUMED_HALO_PX = 192
"""Halo of a network that is not trained yet, so that its own is not measured."""
TIMED = 2
"""Batches that are timed, after one that is not."""
MAP_BYTES = 4
"""On disk, per pixel of the model grid and layer: two uint16 planes."""
CODE_BYTES = 4
"""On disk while objects are decoded, per pixel of the model grid and layer."""
READ_VALUES = 1 << 25
"""Pixels times channels of a file that is read whole; of a larger one, or of more than the windows
hold at a URL, windows are."""
LABEL_BYTES = 4 * 4 / 3
"""On disk, per pixel of the image and layer: int32, and a third more for the pyramid."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a prediction will take of a whole image; with regions it is less.

    Attributes:
        image_px: ``(H, W)`` of the image.
        grid_px: ``(H, W)`` of the model grid.
        windows: windows the network is given.
        window_px: ``(h, w)`` of a window.
        plan: queues, threads and blocks, and the memory that they and the network take.
        network_mb: of that, the process with the network at work; 0 where the system does
            not tell.
        device_mb: memory on a GPU, 0 without one.
        maps_bytes, codes_bytes, labels_bytes: on disk, before compression; codes are there
            while objects are decoded only.
        seconds: in the network alone.
        notes: what was assumed, one sentence each.
        maps: whether the model draws maps; else it finds objects one by one.
    """

    image_px: tuple[int, int]
    grid_px: tuple[int, int]
    windows: int
    window_px: tuple[int, int]
    plan: WorkPlan
    network_mb: float
    device_mb: float
    maps_bytes: int
    codes_bytes: int
    labels_bytes: int
    seconds: float
    notes: tuple[str, ...]
    maps: bool = True

    def table(self) -> tuple[tuple[str, str], tuple[tuple[str, str], ...]]:
        """Return header and rows of what is predicted."""
        plan = self.plan
        per_pixel = self.windows * math.prod(self.window_px) / math.prod(self.grid_px)
        memory = "not known on this system"
        if self.network_mb:
            rest = plan.memory_mb - self.network_mb
            memory = f"{plan.memory_mb:.0f} MB: network {self.network_mb:.0f}, the rest {rest:.0f}"
        rows = [
            ("image", f"{_by(self.image_px)} px, on the model grid {_by(self.grid_px)}"),
            ("windows", f"{self.windows} of {_by(self.window_px)} px, {per_pixel:.2f} x the grid"),
            ("memory", f"{memory}; {'200 bytes' if self.maps else '4 KB'} an object beside"),
            ("spread", f"queue {plan.queue}, {plan.workers} threads, blocks {plan.block_px} px"),
            *self._on_disk(),
            ("table and outlines", "about 2 KB an object on disk"),
            ("time", f"{_duration(self.seconds)} in the network"),
        ]
        if self.device_mb:
            rows.insert(3, ("memory on the GPU", f"{self.device_mb:.0f} MB"))
        return ("what", "predicted"), tuple(rows)

    def _on_disk(self) -> tuple[tuple[str, str], ...]:
        labels = ("labels on disk", f"{_size(self.labels_bytes)} before compression")
        if not self.maps:
            detections = ("detections on disk", "about 1 KB for each that a window shows")
            return detections, (labels[0], f"{labels[1]}, times the objects that overlap")
        return (
            ("maps on disk", f"{_size(self.maps_bytes)} before compression"),
            labels,
            ("scratch on disk", f"{_size(self.codes_bytes)} before compression"),
        )


def predict_budget(
    model_or_recipe: Path | str, image: Path | str, *, options: RunOptions | None = None
) -> Budget:
    """Return what ``predict`` will take on an image, which is looked at as there.

    A large image is looked at in windows that are spread over it. Memory and time are
    measured: a child process builds the network, with random weights, and runs it over one
    batch of windows and ``TIMED`` more.

    Args:
        model_or_recipe: a model file, or a recipe; the data of a recipe is opened for its
            classes, and where its halo is measured in training `ASSUMED_HALO_PX` is taken.
        image: the image.
        options: of the prediction; those that change what it takes count.

    Raises:
        ModelFileError, RecipeError: the model or recipe cannot be used.
        InputError: the image cannot be read, does not fit or has pixels that are no numbers, of a
            large one in the windows.
        UsageError: ``max_memory_mb`` is too little for any plan, one batch of windows is too
            much for the machine, or the diameter is to be measured without a model.
    """
    options = options or RunOptions()
    path = Path(model_or_recipe)
    measured: tuple[str, ...] = ()
    if options.estimate_diameter:
        options, measured = _measured_diameter(path, image, options)
    wanted = _open(path, options)
    recipe = wanted.recipe
    select = recipe.image.select if options.select is None else options.select
    with open_image(image, select=select) as opened:
        grid_px, note = _grid_px(wanted, opened, options)
        looks = _looks(wanted, opened, options)
        image_px = (opened.shape[1], opened.shape[2])
    grid = tiles(grid_px, wanted.lattice)
    batches = -(-len(grid) // wanted.lattice.batch) if len(grid) > 1 else 1
    windows = batches * wanted.lattice.batch if len(grid) > 1 else 1
    probe = _measured(wanted, grid[0].shape, windows // batches, options)
    network_mb = 0.0 if probe.peak_bytes is None else probe.peak_bytes / MB
    if options.max_memory_mb is not None and not network_mb:
        raise UsageError(
            sentence(
                "--max-memory",
                found="a system that does not tell what memory a process takes",
                wanted="Linux or macOS",
                fix="leave it out",
            )
        )
    # Objects found one by one leave no maps, and as many label planes as they overlap.
    dense = not isinstance(recipe.head, DetectionHead)
    layers = (
        1 if isinstance(recipe.head, DetectionHead) else recipe.head.layers(len(wanted.classes))
    )
    return Budget(
        image_px=image_px,
        grid_px=grid_px,
        windows=windows,
        window_px=grid[0].shape,
        plan=plan_work(
            wanted.lattice,
            layers=layers,
            channels=recipe.data.channel_count,
            shape=grid_px,
            max_memory_mb=options.max_memory_mb,
            threads=torch.get_num_threads(),
            network_mb=network_mb,
            queues=GPU_QUEUES if probe.device_bytes else QUEUES,
        ),
        network_mb=network_mb,
        device_mb=probe.device_bytes / MB,
        maps_bytes=dense * MAP_BYTES * layers * math.prod(grid_px),
        codes_bytes=dense * CODE_BYTES * layers * math.prod(grid_px),
        labels_bytes=round(LABEL_BYTES * layers * math.prod(image_px)),
        seconds=probe.window_s * windows,
        notes=(*wanted.notes, *measured, *note, *looks),
        maps=dense,
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A model or recipe as it would be run."""

    recipe: Recipe
    classes: tuple[str, ...]
    lattice: Lattice
    diameter_px: float | None
    notes: tuple[str, ...]
    card: ModelCard | None


def _open(path: Path, options: RunOptions) -> _Wanted:
    notes: tuple[str, ...] = ()
    card = None
    if _is_model(path):
        card = read_card(path)
        recipe = recipe_from_json(card.recipe, where=str(path))
        require_scaled(recipe, card, options)
        recipe = at_diameter(recipe, card, options.diameter_px)
        recipe = with_overrides(recipe, options.overrides) if options.overrides else recipe
        classes, diameter_px, measured = card.classes, card.diameter_px, card.halo_px
    else:
        recipe = load_recipe(path, options.overrides)
        require_scaled(recipe, None, options)
        classes, diameter_px = open_source(recipe).classes, None
        stride = recipe.model.stride
        measured = -(-ASSUMED_HALO_PX // stride) * stride
        if recipe.tiling.halo_px == "measured":
            notes = (f"the halo is measured when a training ends: {measured} px assumed",)
    tiling = recipe.tiling
    halo = measured if tiling.halo_px == "measured" else tiling.halo_px
    lattice = Lattice(tiling.core_px, halo, recipe.model.stride, tiling.batch)
    return _Wanted(recipe, classes, lattice, diameter_px, notes, card)


def _is_model(path: Path) -> bool:
    return path.suffix == ".safetensors" or path.name in shipped_models()


def _measured_diameter(
    path: Path, image: Path | str, options: RunOptions
) -> tuple[RunOptions, tuple[str, ...]]:
    """Return options with the diameter that a model measures on an image, and what to say of it."""
    if not _is_model(path):
        raise UsageError(
            sentence(
                "--diameter-px",
                found="auto with a recipe",
                wanted="a model, which measures it",
                fix="give the diameter as a number, or a model file",
            )
        )
    model = open_model(path, replace(options, max_memory_mb=None))
    segmenter = model.segmenter
    select = segmenter.recipe.image.select if options.select is None else options.select
    with open_image(image, select=select) as opened:
        sample = _sample(opened, options)
        area = within_edges(segmenter.recipe, sample)
        diameter = estimate_diameter(segmenter, model.card, sample, area=area)
    said = (
        "too few objects to measure their diameter at any scale"
        if diameter is None
        else f"object diameter measured: {diameter:.3g} px"
    )
    return replace(options, diameter_px=diameter, estimate_diameter=False), (said,)


def _sample(image: Image, options: RunOptions) -> Sample:
    spacing = image.spacing_um
    if options.spacing_um is not None:
        spacing = (options.spacing_um, options.spacing_um)
    return Sample(str(image.path), image, image.channels, spacing_um=spacing)


def _looks(wanted: _Wanted, image: Image, options: RunOptions) -> tuple[str, ...]:
    """Return what ``predict`` would say of how an image looks.

    Raises:
        InputError: pixels that are no numbers, or no dies where the model works on wafer maps.
    """
    recipe, sample = wanted.recipe, _sample(image, options)
    shown = _shown(image)
    if recipe.data.channels == "die_map":
        # Each read of a wafer map refuses what no die is.
        as_channels(shown, image.channels, wanted="die_map", where=sample.id)[:, :, :]
    if wanted.card is not None:
        area, diameter = within_edges(recipe, sample), _diameter(wanted, options)
        if shown.shape == sample.image.shape:
            ignore = None if area is None else ~area.inside(((0, 0), area.shape))
            sample, of_windows = replace(sample, image=shown, ignore=ignore), None
        else:
            # The range of the windows; a mask of a large image would not fit in memory.
            tiled = replace(sample, image=shown)
            of_windows = model_plane(recipe, tiled, diameter_px=diameter).intensity
        plane = model_plane(recipe, sample, diameter_px=diameter, intensity=of_windows)
        if (unlike := Outside.of(wanted.card, recipe, plane, area).unlike) is not None:
            return (unlike,)
    flat = not np.ptp(shown, axis=(1, 2)).any()
    said = "the image has one value wherever it was looked at; check the file"
    return (said,) if flat else ()


def _shown(image: Image) -> Array:
    """Return the pixels of an image, of a large one those of windows, side by side."""
    most = READ_VALUES if isinstance(image.path, Path) else MOST_WINDOWS * WINDOW_PX**2
    if math.prod(image.shape) <= most:
        return np.asarray(image[:, :, :])
    places = spread_windows(image.shape[1:], most=MOST_WINDOWS, side=WINDOW_PX)
    bands = groupby(places, key=lambda place: place[0].start)
    return np.block(
        [[np.asarray(image[:, rows, columns]) for rows, columns in band] for _, band in bands]
    )


def _grid_px(
    wanted: _Wanted, image: Image, options: RunOptions
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Return ``(H, W)`` of the model grid of an image, and what was assumed for it."""
    diameter = _diameter(wanted, options)
    note: tuple[str, ...] = ()
    if wanted.recipe.data.diameter_px is not None and options.diameter_px is None:
        note = (f"object diameter not given: {diameter:.3g} px assumed",)
    return model_shape(wanted.recipe, _sample(image, options), diameter_px=diameter), note


def _diameter(wanted: _Wanted, options: RunOptions) -> float | None:
    """Return the median diameter of the objects that is given, or assumed where it is needed."""
    return options.diameter_px or wanted.diameter_px or wanted.recipe.data.diameter_px


def _measured(
    wanted: _Wanted, window_px: tuple[int, int], batch: int, options: RunOptions
) -> Probe:
    """Return what a child process, which has nothing else in its memory, measures."""
    job = _Job(
        wanted.recipe.to_json(),
        wanted.classes,
        window_px,
        batch,
        options.device,
        options.precision,
    )
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_probe, job).result()
        except BrokenProcessPool as error:
            raise UsageError(
                sentence(
                    "tiling.core_px",
                    found=f"{batch} windows of {_by(window_px)} px, over which the process ended",
                    wanted="a batch of windows that fits into memory",
                    fix="make it smaller",
                )
            ) from error


@dataclass(frozen=True, slots=True)
class _Job:
    """What the child process is told, in plain values."""

    recipe: dict[str, Any]
    classes: tuple[str, ...]
    window_px: tuple[int, int]
    batch: int
    device: str
    precision: str


def _probe(job: _Job) -> Probe:
    """Build the network of a job and measure it; neither speed nor memory depend on weights."""
    recipe = recipe_from_json(job.recipe, where="recipe")
    channels = recipe.data.channel_count
    bare = recipe.model_copy(update={"model": recipe.model.without_weights()})
    network = settle_network(build_network(bare, job.classes), recipe)
    device = choose_device(job.device)
    engine = open_engine(
        network,
        recipe,
        job.classes,
        device=device,
        precision=choose_precision(job.precision, device),
    )
    if isinstance(engine, MapMaker):
        engine = replace(engine, symmetries=recipe.tiling.symmetries)
    return probe_network(engine, job.window_px, channels=channels, batch=job.batch, timed=TIMED)


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _size(count: float) -> str:
    """Return bytes in the largest unit that leaves a figure of 1 or more."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
