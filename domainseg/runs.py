"""One image through a model: from pixels to a run folder, and the record of how it came."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domainseg import __version__
from domainseg.diameter import compared
from domainseg.errors import UsageError, sentence
from domainseg.images import Image, image_sha256
from domainseg.images.channels import seen_as
from domainseg.images.normalise import Range
from domainseg.images.regions import Inspected
from domainseg.model_plane import model_plane, model_shape
from domainseg.models.model_file import ModelCard, find_model, model_sha256
from domainseg.outside import Found, at_diameter, scales_images
from domainseg.recipe import Recipe
from domainseg.records import Sample
from domainseg.run_files import TABLE
from domainseg.run_folder import (
    Run,
    alone_in,
    as_json,
    begin_folder,
    drop_seen,
    end_folder,
    keep_progress,
    write_timings,
)
from domainseg.seen import Looking, Making, Tell, seen_by
from domainseg.segmenter import (
    Segmenter,
    diameter_assumed,
    open_segmenter,
    tiling_shows,
)
from domainseg.tiling.forward import MapMaker
from domainseg.tiling.grid import tiles
from domainseg.tiling.plan import MB
from domainseg.tiling.probe import peak_resident_bytes, probe_network

RECORD_SCHEMA = 1
PACKAGES = ("torch", "numpy", "numba", "scikit-image")
"""Packages whose versions a record names."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model file opened for prediction.

    Attributes:
        path: the file.
        sha256: of the file.
        segmenter: the network and what it takes to run it.
        card: what the file says of itself.
        network_mb: peak memory of the process with the network at work, before any image was
            read; 0 where memory is not bounded.
    """

    path: Path
    sha256: str
    segmenter: Segmenter
    card: ModelCard
    network_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is told beside model and images.

    Attributes:
        overrides: ``key=value`` changes of the model's recipe.
        select: how stacks are read, instead of the recipe's ``image.select``.
        spacing_um: pixel size of every image, instead of what the files say.
        diameter_px: median object diameter in the images: for models that work at one, and for
            those that know which diameters they were trained on; beyond these the image is
            scaled.
        estimate_diameter: measure it on each image (`diameter.estimate_diameter`).
        roi: GeoJSON of the regions to look at, in pixels of the full resolution.
        skip_bad_tiles: go on where tiles of an image file are damaged; they count as not
            inspected.
        max_memory_mb: what the process may use, None for no bound.
        drop_maps: delete the maps in the end; objects cannot be decoded again without.
        keep_folders: name results by the path below the folder given, not by stem alone.
        restart: replace results of another model, image or setting.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``fp32`` or ``bf16``.
    """

    overrides: tuple[str, ...] = ()
    select: Mapping[str, object] | None = None
    spacing_um: float | None = None
    diameter_px: float | None = None
    estimate_diameter: bool = False
    roi: Path | None = None
    skip_bad_tiles: bool = False
    max_memory_mb: float | None = None
    drop_maps: bool = False
    keep_folders: bool = False
    restart: bool = False
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        lengths = {
            "--spacing-um": self.spacing_um,
            "--diameter-px": self.diameter_px,
            "--max-memory": self.max_memory_mb,
        }
        for name, value in lengths.items():
            if value is not None and not 0 < value < math.inf:
                raise UsageError(
                    sentence(name, found=f"{value:g}", wanted="a number above 0", fix="correct it")
                )


def open_model(path: Path, options: RunOptions) -> Model:
    """Return the model file at ``path``, or that ships by that name, as ``options`` want it run."""
    path = find_model(path)
    segmenter, card = open_segmenter(
        path, overrides=options.overrides, device=options.device, precision=options.precision
    )
    require_scaled(segmenter.recipe, card, options)
    network_mb = 0.0 if options.max_memory_mb is None else _network_mb(segmenter)
    return Model(path, model_sha256(path), segmenter, card, network_mb)


def require_scaled(recipe: Recipe, card: ModelCard | None, options: RunOptions) -> None:
    """Raise UsageError where a diameter is given to a model that works at none."""
    wanted = options.diameter_px is not None or options.estimate_diameter
    able = recipe.data.diameter_px is not None
    if wanted and not able and (card is None or not scales_images(recipe, card)):
        said = "an estimate" if options.diameter_px is None else f"{options.diameter_px:g} px"
        raise UsageError(
            sentence(
                "--diameter-px",
                found=f"{said}, for a model that works at no diameter",
                wanted="an option that takes effect",
                fix="drop it, or train with data.diameter_px",
            )
        )


def model_at(model: Model, diameter_px: float | None) -> Model:
    """Return the model for an image whose objects have this median diameter (`at_diameter`)."""
    recipe = at_diameter(model.segmenter.recipe, model.card, diameter_px)
    return replace(model, segmenter=replace(model.segmenter, recipe=recipe))


def _network_mb(segmenter: Segmenter) -> float:
    """Return the peak memory of this process with the network at work on one batch, MB."""
    lattice = segmenter.lattice
    side = lattice.core_px + 2 * lattice.halo_px
    probe = probe_network(
        segmenter.engine,
        (side, side),
        channels=segmenter.recipe.data.channel_count,
        batch=lattice.batch,
    )
    return (probe.peak_bytes or 0) / MB


@dataclass(frozen=True, slots=True)
class Task:
    """One image to be run, as its record describes it.

    Attributes:
        sample: the image.
        record: from `describe`.
        diameter_px: median object diameter, for models that work at one.
        intensity: range of the image's group, None for the image's own.
        area: what of the image is inspected, None for all of it.
    """

    sample: Sample
    record: Mapping[str, Any]
    diameter_px: float | None = None
    intensity: Range | None = None
    area: Inspected | None = None


def run_task(
    model: Model,
    task: Task,
    folder: Path,
    *,
    options: RunOptions = RunOptions(),
    tell: Tell = lambda _stage, _done, _total: None,
) -> Run:
    """Segment an image into a run folder, going on from what is there of the same run.

    Raises:
        InputError: the image does not fit the recipe or cannot be read.
        OutputError: the folder holds a run of another model, image or setting, another
            process is at work in it, or a file cannot be written; then there is no
            ``run.json``.
    """
    _require_fit(model, task)
    with alone_in(folder):
        return _run(model, task, folder, options, tell)


def _require_fit(model: Model, task: Task) -> None:
    """Raise InputError, before a folder is begun, unless an image fits the recipe."""
    diameter = model.segmenter.diameter_px if task.diameter_px is None else task.diameter_px
    model_shape(model.segmenter.recipe, task.sample, diameter_px=diameter)


def _run(model: Model, task: Task, folder: Path, options: RunOptions, tell: Tell) -> Run:
    begun = time.monotonic()
    known = begin_folder(folder, task.record, restart=options.restart)
    sample, segmenter = task.sample, model.segmenter
    tell("measuring the range", 0, 1)
    plane = model_plane(
        segmenter.recipe,
        sample,
        diameter_px=segmenter.diameter_px if task.diameter_px is None else task.diameter_px,
        intensity=known if task.intensity is None else task.intensity,
        threads=torch.get_num_threads(),
    )
    keep_progress(folder, task.record, plane.intensity)
    tell("measuring the range", 1, 1)
    ranged = time.monotonic()
    looking = Looking(segmenter, task.area, options.max_memory_mb, model.network_mb)
    seen = seen_by(segmenter.recipe)
    spent, work = seen.look(folder, looking, plane, tell)
    making = Making(
        sample,
        task.record["image"]["sha256"],
        segmenter.recipe,
        segmenter.classes,
        plane.grid.scale_yx,
        work,
    )
    made = seen.make(folder, making, tell)
    found = made.found
    ended = time.monotonic()
    training, unlike = compared(
        segmenter,
        model.card,
        sample,
        plane,
        Found.in_table(folder / TABLE),
        area=task.area,
        # What was given or measured already is not measured again.
        probe=task.diameter_px is None and "diameter_from" not in task.record["image"],
    )
    timings: dict[str, float | int | None] = {
        "range_s": ranged - begun,
        "tiles_s": spent.seconds,
        "network_s": spent.network_s,
        **found.seconds,
        "training_s": time.monotonic() - ended,
        "total_s": time.monotonic() - begun,
        "windows": spent.windows,
        "tiles_blank": spent.skipped,
        "tiles_from_before": spent.kept,
        "peak_memory_mb": None if (peak := peak_resident_bytes()) is None else peak / MB,
    }
    write_timings(folder, timings)
    assumed = _assumed(model, task, plane.grid.model_shape)
    warnings = (*assumed, *found.warnings, *made.warnings, *unlike)
    end_folder(
        folder,
        {
            **task.record,
            **_extent(sample, task.area),
            "grid": {"scale": list(plane.grid.scale_yx)},
            "intensity": as_json(plane.intensity),
            "objects": found.objects,
            "links": found.links,
            **training,
            **made.record,
            "objects_per_class": {n: found.per_class.get(n, 0) for n in segmenter.classes},
            "warnings": list(warnings),
        },
    )
    if options.drop_maps:
        drop_seen(folder)
    return Run(folder, sample.id, found.objects, warnings)


def _assumed(model: Model, task: Task, shape: tuple[int, int]) -> tuple[str, ...]:
    """Return what a run assumes, one sentence each."""
    segmenter, warnings = model.segmenter, []
    warnings.extend(_scale_assumed(model, task))
    if (blind := segmenter.whole_window_layers) and len(tiles(shape, segmenter.lattice)) > 1:
        warnings.append(tiling_shows(blind))
    measured, halo = model.card.halo_px, segmenter.lattice.halo_px
    cuts = segmenter.detector is not None and len(tiles(shape, segmenter.lattice)) > 1
    if cuts and halo < measured:
        warnings.append(
            f"objects at the borders of tiles may be cut: the halo is {halo} px, and those of "
            f"the training need {measured} px"
        )
    area = task.area
    if area is not None and area.tissue is not None and area.tissue.assumed is not None:
        warnings.append(area.tissue.assumed)
    if area is not None and area.damaged:
        count = len(area.damaged)
        warnings.append(f"{count} damaged tiles of the image file were not inspected")
    return tuple(warnings)


def _scale_assumed(model: Model, task: Task) -> list[str]:
    """Return what is assumed of the size of objects."""
    on_grid, given = model.segmenter.recipe.data.diameter_px, task.diameter_px
    estimated = task.record["image"].get("diameter_from") == "estimate"
    if estimated and given is None:
        return ["too few objects to measure their diameter at any scale: the image is not scaled"]
    if on_grid is not None and given is None:
        return [diameter_assumed(model.segmenter)]
    if on_grid is None or given is None or not estimated:
        return []
    scaled = "not scaled" if on_grid == given else f"scaled by {on_grid / given:.3g}"
    return [f"object diameter measured: {given:.3g} px; the image is {scaled}"]


def _extent(sample: Sample, area: Inspected | None) -> dict[str, Any]:
    """Return what of an image was inspected, in pixels and um2."""
    _, height, width = sample.image.shape
    if area is not None:
        inspected = area.count_px()
    elif sample.ignore is not None:
        inspected = height * width - int(np.count_nonzero(sample.ignore))
    else:
        inspected = height * width
    spacing = sample.spacing_um
    return {
        "inspected_px": inspected,
        "inspected_um2": None if spacing is None else inspected * spacing[0] * spacing[1],
    }


def sample_sha256(sample: Sample) -> str:
    """Return the SHA-256 of the sample's file, or of its pixels where they have no file."""
    if isinstance(sample.image, Image):
        return image_sha256(sample.image.path)
    pixels = np.ascontiguousarray(sample.image[:, :, :])
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def describe(
    model: Model,
    sample: Sample,
    *,
    where: object,
    sha256: str,
    select: Mapping[str, object],
    diameter_px: float | None,
    group: Range | None,
    area: Inspected | None = None,
) -> dict[str, Any]:
    """Return what a run's record says before anything ran: image, model, recipe, lattice.

    ``select`` is how a stack was read, ``diameter_px`` the objects' diameter that was given,
    ``group`` the intensity range of the image's group where it is not the image's own,
    ``area`` what of the image is inspected where that is not all.
    """
    segmenter, card = model.segmenter, model.card
    lattice, made = segmenter.lattice, segmenter.engine
    recipe = segmenter.recipe
    return {
        "schema": RECORD_SCHEMA,
        "domainseg": __version__,
        "image": {
            "name": sample.id,
            "path": str(where.absolute() if isinstance(where, Path) else where),
            "sha256": sha256,
            "shape": [int(n) for n in sample.image.shape],
            "dtype": str(sample.image.dtype),
            "channels": list(sample.channels),
            "seen_as": seen_as(sample.channels, recipe.data.channels),
            "spacing_um": None if sample.spacing_um is None else list(sample.spacing_um),
            "select": dict(select),
            "diameter_px": diameter_px,
            "group_intensity": None if group is None else as_json(group),
            "kind": sample.kind,
        },
        "model": {
            "name": model.path.stem,
            "path": str(model.path),
            "sha256": model.sha256,
            "architecture": recipe.model.name,
            "encoder": recipe.model.encoder,
            "head": recipe.head.name,
            "classes": list(card.classes),
            "scores": dict(card.scores),
            "training": dict(card.training),
            "calibration": card.tuned.get("calibration"),
            "calibrated_rules": card.tuned.get("rules"),
        },
        "area": None if area is None else area.to_record(),
        "recipe": recipe.to_json(),
        "lattice": {
            **lattice.to_json(),
            "threads": torch.get_num_threads(),
            "precision": made.precision,
            "folded": isinstance(made, MapMaker) and made.folded,
            "device": made.device.type,
            "whole_window_layers": list(card.whole_window_layers),
        },
        "versions": {name: version(name) for name in PACKAGES},
    }
