"""Run folders: labels, table, outlines, overlay of one image, and a record of how they came.

While a run is under way its folder holds ``progress.json``, the record of what was asked
for, and ``maps.zarr``, which fills tile by tile. The same call on the same image goes on
from there. ``run.json`` is written last: where it is, the run is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from domainseg import __version__
from domainseg.atomic import atomic_text, make_folder, sweep_partial
from domainseg.errors import MissingInputError, OutputError, UsageError, sentence
from domainseg.images import Image, image_sha256
from domainseg.images.normalise import Range
from domainseg.images.regions import Inspected
from domainseg.models.model_file import ModelCard, model_sha256
from domainseg.records import Sample
from domainseg.results import (
    COCO,
    LABEL_STORE,
    LABELS,
    OVERLAY,
    TABLE,
    write_results,
)
from domainseg.segmenter import (
    Segmenter,
    decode_options,
    diameter_assumed,
    model_plane,
    open_segmenter,
    tiling_shows,
)
from domainseg.tiling.decoding import BlockWork
from domainseg.tiling.grid import core_shape, tiles
from domainseg.tiling.plan import MB, plan_work
from domainseg.tiling.probe import peak_resident_bytes, probe_network
from domainseg.tiling.store import open_store
from domainseg.tiling.stream import stream_maps

RECORD = "run.json"
PROGRESS = "progress.json"
MAPS = "maps.zarr"
RECORD_SCHEMA = 1
FILES = (LABEL_STORE, TABLE, "objects.csv", "objects.geojson", OVERLAY)
"""What every run leaves beside its record."""
FREE = frozenset(
    {
        "image.path",
        "model.path",
        "model.name",
        "recipe.data.root",
        "recipe.train",
        "recipe.evaluate",
        "recipe.report",
    }
)
"""What a record may say otherwise of the same run: no object depends on it."""
PACKAGES = ("torch", "numpy", "numba", "scikit-image")


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
class Run:
    """One image's folder of results.

    Attributes:
        folder: where they are.
        image: name of the image.
        count: number of objects.
        warnings: what was assumed, one sentence each.
        repeated: the results were there already, of the same model, image and settings.
    """

    folder: Path
    image: str
    count: int
    warnings: tuple[str, ...]
    repeated: bool = False

    @property
    def objects(self) -> pl.DataFrame:
        """The object table, read from the folder."""
        return pl.read_parquet(self.folder / TABLE)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is told beside model and images.

    Attributes:
        overrides: ``key=value`` changes of the model's recipe.
        select: how stacks are read, instead of the recipe's ``image.select``.
        spacing_um: pixel size of every image, instead of what the files say.
        diameter_px: median object diameter in the images, for models that work at one.
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


Tell = Callable[[str, int, int], None]
"""Called with the stage of a run, parts done and parts in all."""


def open_model(path: Path, options: RunOptions) -> Model:
    """Return the model file at ``path`` as ``options`` want it run."""
    segmenter, card = open_segmenter(
        path, overrides=options.overrides, device=options.device, precision=options.precision
    )
    if options.diameter_px is not None and segmenter.recipe.data.diameter_px is None:
        raise UsageError(
            sentence(
                "--diameter-px",
                found=f"{options.diameter_px:g} px, for a model that works at no diameter",
                wanted="an option that takes effect",
                fix="drop it, or train with data.diameter_px",
            )
        )
    network_mb = 0.0 if options.max_memory_mb is None else _network_mb(segmenter)
    return Model(path, model_sha256(path), segmenter, card, network_mb)


def _network_mb(segmenter: Segmenter) -> float:
    """Return the peak memory of this process with the network at work on one batch, MB."""
    lattice = segmenter.lattice
    side = lattice.core_px + 2 * lattice.halo_px
    probe = probe_network(
        segmenter.make_maps,
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
        OutputError: the folder holds a run of another model, image or setting, or a file
            cannot be written; then there is no ``run.json``.
    """
    begin_folder(folder, task.record, restart=options.restart)
    begun = time.monotonic()
    sample, segmenter = task.sample, model.segmenter
    tell("measuring the range", 0, 1)
    plane = model_plane(
        segmenter.recipe,
        sample,
        diameter_px=segmenter.diameter_px if task.diameter_px is None else task.diameter_px,
        intensity=task.intensity,
    )
    tell("measuring the range", 1, 1)
    ranged = time.monotonic()
    made, lattice = segmenter.make_maps, segmenter.lattice
    plan = plan_work(
        lattice,
        layers=made.layers,
        channels=plane.shape[0],
        width_px=plane.shape[2],
        max_memory_mb=options.max_memory_mb,
        threads=torch.get_num_threads(),
        network_mb=model.network_mb,
    )
    shape = plane.grid.model_shape
    core = core_shape(shape, lattice)
    store = open_store(folder / MAPS, layers=made.layers, shape=shape, core=core)
    mask = None if task.area is None else partial(task.area.on_grid, plane.grid)
    spent = stream_maps(
        made, plane, store, lattice, mask=mask, queue=plan.queue, tell=partial(tell, "tiles")
    )
    found = write_results(
        folder,
        sample,
        store,
        grid=plane.grid,
        options=decode_options(segmenter.recipe, segmenter.classes),
        class_names=segmenter.classes,
        sha256=task.record["image"]["sha256"],
        work=BlockWork(plan.block_px, plan.workers),
        tell=tell,
    )
    timings = {
        "range_s": ranged - begun,
        "tiles_s": spent.seconds,
        "network_s": spent.network_s,
        **found.seconds,
        "total_s": time.monotonic() - begun,
        "windows": spent.windows,
        "tiles_blank": spent.skipped,
        "tiles_from_before": spent.kept,
        "peak_memory_mb": None if (peak := peak_resident_bytes()) is None else peak / MB,
    }
    _write_json(folder / "timings.json", {k: v and round(v, 3) for k, v in sorted(timings.items())})
    warnings = (*_assumed(model, task, plane.grid.model_shape), *found.warnings)
    extent = _extent(sample, task.area)
    end_folder(
        folder,
        {
            **task.record,
            **extent,
            "grid": {"scale": list(plane.grid.scale_yx)},
            "intensity": as_json(plane.intensity),
            "objects": found.objects,
            "objects_per_class": {n: found.per_class.get(n, 0) for n in segmenter.classes},
            "warnings": list(warnings),
        },
    )
    if options.drop_maps:
        shutil.rmtree(folder / MAPS, ignore_errors=True)
    return Run(folder, sample.id, found.objects, warnings)


def _assumed(model: Model, task: Task, shape: tuple[int, int]) -> tuple[str, ...]:
    """Return what a run assumes, one sentence each."""
    segmenter, warnings = model.segmenter, []
    if segmenter.recipe.data.diameter_px is not None and task.diameter_px is None:
        warnings.append(diameter_assumed(segmenter))
    if (blind := segmenter.whole_window_layers) and len(tiles(shape, segmenter.lattice)) > 1:
        warnings.append(tiling_shows(blind))
    area = task.area
    if area is not None and area.tissue is not None and area.tissue.assumed is not None:
        warnings.append(area.tissue.assumed)
    if area is not None and area.damaged:
        count = len(area.damaged)
        warnings.append(f"{count} damaged tiles of the image file were not inspected")
    return tuple(warnings)


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


def begin_folder(
    folder: Path, record: Mapping[str, Any], *, restart: bool, keep_maps: bool = False
) -> None:
    """Make a folder ready for a run: keep the maps of the same run, clear those of another.

    ``keep_maps`` keeps them in any case.

    Raises:
        OutputError: it holds an unfinished run of another model, image or setting, and
            ``restart`` is not given; or it cannot be created or changed.
    """
    make_folder(folder)
    sweep_partial(folder)
    same = json.loads(json.dumps(record))
    if (begun := _read_json(folder / PROGRESS)) is not None and not restart:
        require_same(folder, begun, same, kind="an unfinished run")
    before = _read_json(folder / RECORD) if begun is None else begun
    # What is unfinished and the same goes on, with --restart too.
    other = before is None or difference(before, same, leave_out=FREE) is not None
    if (other or (restart and begun is None)) and not keep_maps:
        shutil.rmtree(folder / MAPS, ignore_errors=True)
    _sweep_optional(folder)
    _write_json(folder / PROGRESS, record)
    try:
        (folder / RECORD).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            sentence(
                folder / RECORD,
                found=error.strerror or "a file that stays",
                wanted="permission to replace it",
                fix="change the permission or choose another output folder",
            )
        ) from error


def _sweep_optional(folder: Path) -> None:
    """Delete results that not every run writes: another's would stand beside this one's."""
    for pattern in (LABELS, "labels-layer*.tif", COCO):
        for path in folder.glob(pattern):
            with suppress(OSError):
                path.unlink()


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a finished run, or of one whose decoding again was interrupted.

    Raises:
        MissingInputError: there is none.
    """
    for name in (RECORD, PROGRESS):
        record = _read_json(folder / name)
        if record is not None and "grid" in record:
            return record
    raise MissingInputError(
        sentence(
            folder,
            found=f"no {RECORD}",
            wanted="the record that predict writes last",
            fix="name the folder of a finished run, or repeat the prediction to finish it",
        )
    )


def end_folder(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a finished run."""
    _write_json(folder / RECORD, record)
    with suppress(OSError):
        (folder / PROGRESS).unlink(missing_ok=True)


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
    lattice, made = segmenter.lattice, segmenter.make_maps
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
        },
        "area": None if area is None else area.to_record(),
        "recipe": recipe.to_json(),
        "lattice": {
            "core_px": lattice.core_px,
            "halo_px": lattice.halo_px,
            "stride_px": lattice.stride_px,
            "batch": lattice.batch,
            "threads": torch.get_num_threads(),
            "precision": made.precision,
            "device": made.device.type,
            "whole_window_layers": list(card.whole_window_layers),
        },
        "versions": {name: version(name) for name in PACKAGES},
    }


def as_json(intensity: Range) -> dict[str, list[float]]:
    """Return a range as plain values, one per channel."""
    return {"low": intensity.low.tolist(), "high": intensity.high.tolist()}


def finished(folder: Path, record: Mapping[str, Any], *, restart: bool) -> Run | None:
    """Return the run in ``folder`` when it is complete and the same.

    None when there is none, or when it is interrupted or damaged, so that it must run again.

    Raises:
        OutputError: it is of another model, image or setting, and ``restart`` is not given.
    """
    old = _read_json(folder / RECORD)
    if restart or old is None or not all((folder / name).exists() for name in FILES):
        return None
    require_same(folder, old, json.loads(json.dumps(record)), kind="a run")
    try:
        count = pq.read_metadata(folder / TABLE).num_rows
    except (pa.ArrowException, OSError):
        return None
    if count != old.get("objects"):
        return None
    with suppress(OSError):
        (folder / PROGRESS).unlink(missing_ok=True)
    return Run(folder, old["image"]["name"], count, tuple(old["warnings"]), repeated=True)


def require_same(
    folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], *, kind: str
) -> None:
    """Raise OutputError, naming the difference, unless two records are of the same run."""
    if changed := difference(old, new, leave_out=FREE):
        raise OutputError(
            sentence(
                folder,
                found=f"{kind} with another {changed}",
                wanted="the same model, image and settings",
                fix="choose another output folder, or replace it with --restart",
            )
        )


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return what a record holds, None where there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def difference(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    leave_out: Set[str] = frozenset(),
    prefix: str = "",
) -> str | None:
    """Return the dotted name of the first value of ``new`` that ``old`` has otherwise, or None.

    Names in ``leave_out`` may differ, and all below them.
    """
    for key, value in new.items():
        name = f"{prefix}{key}"
        if name in leave_out:
            continue
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            if inner := difference(old[key], value, leave_out=leave_out, prefix=f"{name}."):
                return inner
        elif key not in old or old[key] != value:
            return name
    return None


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    atomic_text(path, json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
