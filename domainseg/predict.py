"""From images to run folders: labels, table, outlines, overlay and a record of how."""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from domainseg import __version__
from domainseg.atomic import atomic_path, atomic_text
from domainseg.errors import InputError, MissingInputError, OutputError, UsageError, sentence
from domainseg.images import image_sha256, open_image, write_labels, write_labels_ome_zarr
from domainseg.images.opening import IMAGE_SUFFIXES
from domainseg.instances.export import write_coco, write_geojson, write_objects
from domainseg.instances.measure import measure
from domainseg.instances.overlay import overlay
from domainseg.models.model_file import ModelCard, model_sha256
from domainseg.records import Sample
from domainseg.segmenter import Segmentation, Segmenter, open_segmenter, segment

RECORD = "run.json"
RECORD_SCHEMA = 1
PACKAGES = ("torch", "numpy", "numba", "scikit-image")

Tell = Callable[[int, int, str], None]
"""Called with images done, images in all, and the name of the next."""


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
class PredictOptions:
    """What a prediction is told beside model and images.

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


def predict(
    model: Path | str,
    images: Sequence[Path | str],
    out: Path | str,
    *,
    options: PredictOptions | None = None,
    tell: Tell = lambda _done, _total, _name: None,
) -> tuple[Run, ...]:
    """Segment images and return one run per image, written to ``out/<stem>/``.

    ``images`` are files, or folders whose image files are taken. Each run folder holds
    ``labels.tif``, ``labels.ome.zarr``, ``objects.parquet``, ``objects.csv``,
    ``objects.geojson``, ``objects.coco.json``, ``overlay.png``, ``run.json`` and
    ``timings.json``; several images add ``out/objects.parquet`` and ``out/objects.csv``.
    An image whose run is complete and of the same model and settings is not run again.

    Raises:
        InputError: an image cannot be read or does not fit the model.
        UsageError: two images of one stem without ``keep_folders``.
        OutputError: ``out`` holds results of another model, image or setting.
    """
    options = options or PredictOptions()
    opened = open_model(Path(model), options)
    named = name_images([Path(p) for p in images], keep_folders=options.keep_folders)
    runs = []
    for done, (name, path) in enumerate(named):
        tell(done, len(named), name)
        runs.append(_predict_one(opened, path, Path(out) / name, options))
    tell(len(named), len(named), "")
    write_together(runs, Path(out))
    return tuple(runs)


def open_model(path: Path, options: PredictOptions) -> Model:
    """Return the model file at ``path`` as ``options`` want it run."""
    segmenter, card = open_segmenter(
        path, overrides=options.overrides, device=options.device, precision=options.precision
    )
    return Model(path, model_sha256(path), segmenter, card)


def name_images(paths: Sequence[Path], *, keep_folders: bool) -> tuple[tuple[str, Path], ...]:
    """Return ``(name, file)`` of every image: stems, or relative paths with ``keep_folders``.

    Raises:
        MissingInputError: a path is not there, or a folder holds no image.
        UsageError: two files would share a name.
    """
    named: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise MissingInputError(
                    sentence(
                        path,
                        found="a folder without images",
                        wanted=f"files ending in {', '.join(IMAGE_SUFFIXES)}",
                        fix="name the folder that holds them",
                    )
                )
            named += [
                (str(p.relative_to(path).with_suffix("")) if keep_folders else p.stem, p)
                for p in found
            ]
        else:
            named.append((path.stem, path))
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        first, second = [path for name, path in named if name == twice[0]][:2]
        raise UsageError(
            sentence(
                second,
                found=f"the stem of {first}",
                wanted="one name per image",
                fix="use --keep-folders, or another output folder",
            )
        )
    return tuple(named)


def _predict_one(model: Model, path: Path, folder: Path, options: PredictOptions) -> Run:
    sha256 = image_sha256(path)
    data = model.segmenter.recipe.data
    select = options.select if options.select is not None else data.select
    with open_image(path, select=select) as image:
        spacing = image.spacing_um
        if options.spacing_um is not None:
            spacing = (options.spacing_um, options.spacing_um)
        sample = Sample(path.stem, image, image.channels, spacing_um=spacing)
        record = describe(model, sample, path=path, sha256=sha256, options=options)
        if (old := _finished(folder, record, restart=options.restart)) is not None:
            return old
        return run_sample(model, sample, folder, record, diameter_px=options.diameter_px)


def run_sample(
    model: Model,
    sample: Sample,
    folder: Path,
    record: Mapping[str, Any],
    *,
    diameter_px: float | None,
) -> Run:
    """Segment one sample and write its run folder; ``run.json`` comes last, and says it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    clock = _Clock()
    made = segment(model.segmenter, sample, diameter_px=diameter_px)
    clock.lap("segment_s")
    table = object_table(model, sample, made, sha256=record["image"]["sha256"])
    clock.lap("measure_s")
    write_results(folder, sample, made, table, model=model)
    clock.lap("write_s")
    _, height, width = sample.image.shape
    inspected = height * width
    if sample.ignore is not None:
        inspected -= int(np.count_nonzero(sample.ignore))
    spacing = sample.spacing_um
    whole = {
        **record,
        "grid": {"scale": list(made.grid.scale)},
        "inspected_px": inspected,
        "inspected_um2": None if spacing is None else inspected * spacing[0] * spacing[1],
        "objects": table.height,
        "objects_per_class": {
            name: int((table["class"] == name).sum()) for name in model.segmenter.classes
        },
        "warnings": list(made.warnings),
    }
    _write_json(folder / "timings.json", clock.laps())
    _write_json(folder / RECORD, whole)
    return Run(folder, sample.id, table, made.warnings)


def object_table(
    model: Model, sample: Sample, made: Segmentation, *, sha256: str
) -> pl.DataFrame:
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
    from PIL import Image

    spacing = sample.spacing_um
    labels = made.labels if len(made.labels) > 1 else made.labels[0]
    write_labels(folder / "labels.tif", labels, spacing_um=spacing)
    write_labels_ome_zarr(folder / "labels.ome.zarr", labels, spacing_um=spacing)
    write_objects(table, folder / "objects.parquet", folder / "objects.csv")
    write_geojson(folder / "objects.geojson", made.labels, table)
    write_coco(folder / "objects.coco.json", made.labels, table, class_names=model.segmenter.classes)
    picture = overlay(sample.image, made.labels.max(0))
    with atomic_path(folder / "overlay.png") as temporary:
        Image.fromarray(picture).save(temporary)


def write_together(runs: Sequence[Run], out: Path) -> None:
    """Write the tables of several runs as one, ``out/objects.parquet`` and ``.csv``."""
    if len(runs) > 1:
        table = pl.concat([run.objects for run in runs], how="diagonal")
        write_objects(table, out / "objects.parquet", out / "objects.csv")


def describe(
    model: Model, sample: Sample, *, path: Path, sha256: str, options: PredictOptions
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
            "path": str(path),
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


def _finished(folder: Path, record: Mapping[str, Any], *, restart: bool) -> Run | None:
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


class _Clock:
    """Seconds between laps, and the peak memory of the process."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self._laps[name] = round(now - self._last, 3)
        self._last = now

    def laps(self) -> dict[str, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {**self._laps, "peak_memory_mb": round(peak, 1)}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    atomic_text(path, json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
