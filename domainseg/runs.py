"""Run folders: labels, table, outlines, overlay of one image, and a record of how they came."""

from __future__ import annotations

import hashlib
import json
import resource
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image as PillowImage

from domainseg import __version__
from domainseg.atomic import atomic_path, atomic_text
from domainseg.errors import OutputError, sentence
from domainseg.images import Image, image_sha256, write_labels
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
        select: how stacks are read, instead of the recipe's ``data.select``.
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
    """Write the run folder of a segmented sample; ``run.json`` comes last, and says it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    table = object_table(model, sample, made, sha256=record["image"]["sha256"])
    measured = time.monotonic()
    write_results(folder, sample, made, table, model=model)
    timings = {
        "segment_s": made.seconds,
        "measure_s": measured - begun,
        "write_s": time.monotonic() - measured,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    _write_json(folder / "timings.json", {k: round(v, 3) for k, v in timings.items()})
    _write_json(folder / RECORD, {**record, **_found(model, sample, made, table)})
    return Run(folder, sample.id, table, made.warnings)


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
        present = np.unique(labels)
        rows = present[present > 0] - 1
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
    labels = made.labels if len(made.labels) > 1 else made.labels[0]
    write_labels(folder / "labels.tif", labels, spacing_um=spacing)
    write_labels_ome_zarr(folder / "labels.ome.zarr", labels, spacing_um=spacing)
    write_objects(table, parquet=folder / "objects.parquet", csv=folder / "objects.csv")
    names = model.segmenter.classes
    instances = table_instances(made.labels, table=table, class_names=names)
    write_geojson(folder / "objects.geojson", instances, table=table, class_names=names)
    write_coco(folder / "objects.coco.json", [(sample.id, instances)], class_names=names)
    picture = overlay(sample.image, made.labels.max(0))
    with atomic_path(folder / "overlay.png") as temporary:
        PillowImage.fromarray(picture).save(temporary)


def sample_sha256(sample: Sample) -> str:
    """Return the SHA-256 of the sample's file, or of its pixels where they have no file."""
    if isinstance(sample.image, Image):
        return image_sha256(sample.image.path)
    pixels = np.ascontiguousarray(sample.image[:, :, :])
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def describe(
    model: Model, sample: Sample, *, where: object, sha256: str, options: RunOptions
) -> dict[str, Any]:
    """Return what a run's record says before anything ran: image, model, recipe, lattice."""
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
            "diameter_px": options.diameter_px,
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


def finished(folder: Path, record: Mapping[str, Any], *, restart: bool) -> Run | None:
    """Return the run in ``folder`` when it is complete and the same, None when there is none.

    Raises:
        OutputError: it is of another model, image or setting, and ``restart`` is not given.
    """
    path = folder / RECORD
    if restart or not path.is_file():
        return None
    old = json.loads(path.read_text(encoding="utf-8"))
    same = json.loads(json.dumps(record))
    if changed := _difference(old, same):
        raise OutputError(
            sentence(
                folder,
                found=f"a run with another {changed}",
                wanted="the same model, image and settings",
                fix="choose another output folder, or replace it with --restart",
            )
        )
    table = pl.read_parquet(folder / "objects.parquet")
    return Run(folder, old["image"]["name"], table, tuple(old["warnings"]), repeated=True)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str | None:
    """Return the dotted name of the first value of ``new`` that ``old`` has otherwise."""
    for key, value in new.items():
        name = f"{prefix}{key}"
        if name in ("image.path", "model.path", "model.name"):
            continue
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            if inner := _difference(old[key], value, f"{name}."):
                return inner
        elif old.get(key) != value:
            return name
    return None


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    atomic_text(path, json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
