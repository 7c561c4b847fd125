"""Run folders: labels, table, outlines, overlay of one image, and a record of how they came.

Where a head decodes several layers, whose objects may overlap, ``labels.tif`` and
``labels.ome.zarr`` show the highest label of each pixel, and ``labels-layer0.tif``,
``labels-layer1.tif``, ... every layer in full, numbered as in the column ``layer``.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image as PillowImage

from domainseg import __version__
from domainseg.atomic import atomic_path, atomic_text, make_folder
from domainseg.errors import OutputError, sentence
from domainseg.images import Image, image_sha256, write_labels
from domainseg.images.normalise import Range
from domainseg.images.ome_zarr import write_labels_ome_zarr
from domainseg.instances.export import (
    table_instances,
    write_coco,
    write_geojson,
    write_objects,
)
from domainseg.instances.measure import measure
from domainseg.instances.overlay import overlay
from domainseg.models.model_file import ModelCard, model_sha256
from domainseg.records import Sample
from domainseg.segmenter import Segmentation, Segmenter, open_segmenter

RECORD = "run.json"
RECORD_SCHEMA = 1
TABLE = "objects.parquet"
LABELS = "labels.tif"
FILES = (
    LABELS,
    "labels.ome.zarr",
    TABLE,
    "objects.csv",
    "objects.geojson",
    "objects.coco.json",
    "overlay.png",
)
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
    """A model file opened for prediction."""

    path: Path
    sha256: str
    segmenter: Segmenter
    card: ModelCard


@dataclass(frozen=True, slots=True)
class Run:
    """One image's folder of results.

    Attributes:
        folder: where they are.
        image: name of the image.
        objects: the object table.
        warnings: what was assumed, one sentence each.
        repeated: the results were there already, of the same model, image and settings.
    """

    folder: Path
    image: str
    objects: pl.DataFrame
    warnings: tuple[str, ...]
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is told beside model and images.

    Attributes:
        overrides: ``key=value`` changes of the model's recipe.
        select: how stacks are read, instead of the recipe's ``image.select``.
        spacing_um: pixel size of every image, instead of what the files say.
        diameter_px: median object diameter in the images, for models that work at one.
        keep_folders: name results by the path below the folder given, not by stem alone.
        restart: replace results of another model, image or setting.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``fp32`` or ``bf16``.
    """

    overrides: tuple[str, ...] = ()
    select: Mapping[str, object] | None = None
    spacing_um: float | None = None
    diameter_px: float | None = None
    keep_folders: bool = False
    restart: bool = False
    device: str = "auto"
    precision: str = "auto"


def open_model(path: Path, options: RunOptions) -> Model:
    """Return the model file at ``path`` as ``options`` want it run."""
    segmenter, card = open_segmenter(
        path, overrides=options.overrides, device=options.device, precision=options.precision
    )
    return Model(path, model_sha256(path), segmenter, card)


def run_sample(
    model: Model,
    sample: Sample,
    made: Segmentation,
    folder: Path,
    record: Mapping[str, Any],
) -> Run:
    """Write the run folder of a segmented sample; ``run.json`` comes last, and says it is whole.

    Raises:
        OutputError: the folder or a file cannot be written; then there is no ``run.json``.
    """
    begin_folder(folder)
    begun = time.monotonic()
    table = object_table(model, sample, made, sha256=record["image"]["sha256"])
    measured = time.monotonic()
    write_results(folder, sample, made, table, model=model)
    timings = {
        "segment_s": made.seconds,
        "measure_s": measured - begun,
        "write_s": time.monotonic() - measured,
        "peak_memory_mb": _peak_memory_mb(),
    }
    _write_json(folder / "timings.json", {k: v and round(v, 3) for k, v in timings.items()})
    _write_json(folder / RECORD, {**record, **_found(model, sample, made, table)})
    return Run(folder, sample.id, table, made.warnings)


def begin_folder(folder: Path) -> None:
    """Create a run folder, or take the record out of it: what follows is not whole yet.

    Raises:
        OutputError: it cannot be created or changed.
    """
    make_folder(folder)
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


def _peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process, None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes there, KiB elsewhere


def _found(model: Model, sample: Sample, made: Segmentation, table: pl.DataFrame) -> dict[str, Any]:
    """Return what a record says of the results."""
    _, height, width = sample.image.shape
    inspected = height * width
    if sample.ignore is not None:
        inspected -= int(np.count_nonzero(sample.ignore))
    spacing = sample.spacing_um
    counts = Counter(table["class"].to_list())
    return {
        "grid": {"scale": list(made.grid.scale_yx)},
        "intensity": as_json(made.intensity),
        "inspected_px": inspected,
        "inspected_um2": None if spacing is None else inspected * spacing[0] * spacing[1],
        "objects": table.height,
        "objects_per_class": {name: counts[name] for name in model.segmenter.classes},
        "warnings": list(made.warnings),
    }


def object_table(model: Model, sample: Sample, made: Segmentation, *, sha256: str) -> pl.DataFrame:
    """Return the object table of all layers, in the image's own pixels."""
    decoded = made.decoded
    frames = []
    for layer, labels in enumerate(made.labels):
        # An object of the model grid can vanish between the pixels of a coarser image.
        seen = np.zeros(len(decoded.classes) + 1, bool)
        seen[labels] = True
        rows = np.flatnonzero(seen[1:])
        frames.append(
            measure(
                labels,
                classes=decoded.classes[rows],
                scores=decoded.scores[rows],
                class_names=model.segmenter.classes,
                image=sample.image,
                channels=sample.channels,
                spacing_um=sample.spacing_um,
                image_id=sample.id,
                image_sha256=sha256,
                layer=layer,
            )
        )
    return pl.concat(frames)


def write_results(
    folder: Path, sample: Sample, made: Segmentation, table: pl.DataFrame, *, model: Model
) -> None:
    """Write labels, table, outlines and overlay into a run folder."""
    spacing = sample.spacing_um
    flat = made.labels[0] if len(made.labels) == 1 else made.labels.max(0)
    write_labels(folder / LABELS, flat, spacing_um=spacing)
    write_labels_ome_zarr(folder / "labels.ome.zarr", flat, spacing_um=spacing)
    if len(made.labels) > 1:
        for layer, labels in enumerate(made.labels):
            write_labels(folder / f"labels-layer{layer}.tif", labels, spacing_um=spacing)
    write_objects(table, parquet=folder / TABLE, csv=folder / "objects.csv")
    names = model.segmenter.classes
    instances = table_instances(made.labels, table=table, class_names=names)
    write_geojson(folder / "objects.geojson", instances, table=table, class_names=names)
    write_coco(folder / "objects.coco.json", [(sample.id, instances)], class_names=names)
    picture = overlay(sample.image, flat)
    with atomic_path(folder / "overlay.png") as temporary:
        PillowImage.fromarray(picture).save(temporary)


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
) -> dict[str, Any]:
    """Return what a run's record says before anything ran: image, model, recipe, lattice.

    ``select`` is how a stack was read, ``diameter_px`` the objects' diameter that was given,
    ``group`` the intensity range of the image's group where it is not the image's own.
    """
    segmenter, card = model.segmenter, model.card
    lattice, made = segmenter.lattice, segmenter.make_maps
    recipe = segmenter.recipe
    return {
        "schema": RECORD_SCHEMA,
        "domainseg": __version__,
        "image": {
            "name": sample.id,
            "path": str(where),
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
    if restart or (old := _whole_record(folder)) is None:
        return None
    same = json.loads(json.dumps(record))
    if changed := difference(old, same, leave_out=FREE):
        raise OutputError(
            sentence(
                folder,
                found=f"a run with another {changed}",
                wanted="the same model, image and settings",
                fix="choose another output folder, or replace it with --restart",
            )
        )
    try:
        table = pl.read_parquet(folder / TABLE)
    except (pl.exceptions.PolarsError, OSError):
        return None
    if table.height != old.get("objects"):
        return None
    return Run(folder, old["image"]["name"], table, tuple(old["warnings"]), repeated=True)


def _whole_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a run all of whose files are there, None of any other."""
    try:
        old = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(old, dict) and all((folder / name).exists() for name in FILES)
    return old if whole else None


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
