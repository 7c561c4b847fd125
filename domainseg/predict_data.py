"""Many small images of one data set, read by the recipe's loader: one table for all of them.

Wafer maps come by the ten thousand in one file; a folder each would be no help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from domainseg.atomic import atomic_path, make_folder
from domainseg.diameter import compared
from domainseg.errors import OutputError, UsageError, sentence
from domainseg.images.channels import DIE_FAILS, DIE_MAP, as_channels
from domainseg.images.normalise import Range
from domainseg.instances.export import write_coco
from domainseg.instances.image_labels import NONE, strongest_class
from domainseg.instances.measure import measure
from domainseg.instances.planes import union
from domainseg.model_plane import group_ranges, model_plane
from domainseg.outside import RECORD_KEY, Found, said_of
from domainseg.records import Entry, Instances, Sample
from domainseg.runs import Model, RunOptions, model_at, open_model
from domainseg.segmenter import segment, within_edges
from domainseg.sources import Source, open_whole

OBJECTS = "objects.parquet"
IMAGES = "images.csv"
COCO = "objects.coco.json"

Tell = Callable[[int, int, str], None]
"""Called with images done, images in all, and the name of the next."""


@dataclass(frozen=True, slots=True)
class DataRun:
    """What a run over a data set left.

    Attributes:
        folder: holds ``images.csv``, ``objects.parquet``, ``objects.csv``, ``objects.coco.json``.
        images: number of images.
        objects: number of objects.
    """

    folder: Path
    images: int
    objects: int


@dataclass(slots=True)
class _Found:
    """Rows of the two tables, image after image."""

    tables: list[pl.DataFrame] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)


def predict_data(
    model: Path | str,
    data: Path | str,
    out: Path | str,
    *,
    options: RunOptions | None = None,
    tell: Tell = lambda _done, _total, _name: None,
) -> DataRun:
    """Find the objects in every image of a data set and write them to one folder.

    ``data`` is the folder that the recipe's loader opens; all its images are taken, whatever
    the recipe's split. ``images.csv`` has a row an image: the classes found, joined by ``+``,
    or ``None``, the one of the object of highest score, the highest score of each class, and
    of a wafer map its dies, those that fail, and the share of these that lies in a pattern.
    ``objects.parquet`` is the table of `measure`; of a wafer map ``intensity_mean_fail`` is the
    share of an object's dies that fail.
    Each image is held whole, one at a time, and the table in memory.

    Raises:
        InputError: the data cannot be used, or there is no image.
        OutputError: ``out`` holds files already, or cannot be written.
        UsageError: an option was given that would do nothing here.
    """
    folder = Path(out)
    options = options or RunOptions()
    _refuse_idle(options)
    if folder.exists() and any(folder.iterdir()) and not options.restart:
        raise OutputError(
            sentence(
                folder,
                found="a folder with files in it",
                wanted="a new or empty folder",
                fix="choose another, or replace them with --restart",
            )
        )
    opened = model_at(open_model(Path(model), options), options.diameter_px)
    recipe = opened.segmenter.recipe
    source = open_whole(recipe, Path(data))
    entries = source.splits.train
    make_folder(folder)
    found = _Found()
    made = _objects(opened, source, entries, found, options, tell)
    write_coco(folder / COCO, made, class_names=opened.segmenter.classes)
    objects = pl.concat(found.tables) if found.tables else pl.DataFrame()
    with atomic_path(folder / OBJECTS) as partial:
        objects.write_parquet(partial)
    # Every row is looked at for the types: the share is unknown where no die fails.
    images = pl.DataFrame(found.images, infer_schema_length=None)
    for name, table in (("objects.csv", objects), (IMAGES, images)):
        with atomic_path(folder / name) as partial:
            table.write_csv(partial)
    return DataRun(folder, len(entries), objects.height)


def _refuse_idle(options: RunOptions) -> None:
    """Raise UsageError for options of large images, which these are not."""
    given = {
        "--select": options.select is not None,
        "--roi": options.roi is not None,
        "--skip-bad-tiles": options.skip_bad_tiles,
        "--max-memory": options.max_memory_mb is not None,
        "--drop-maps": options.drop_maps,
        "--keep-folders": options.keep_folders,
        "--diameter-px auto": options.estimate_diameter,
    }
    for name, is_given in given.items():
        if is_given:
            raise UsageError(
                sentence(
                    "predict",
                    found=f"{name} with --data",
                    wanted="options that take effect",
                    fix=f"drop {name}, or name the images themselves",
                )
            )


def _objects(
    model: Model,
    source: Source,
    entries: tuple[Entry, ...],
    found: _Found,
    options: RunOptions,
    tell: Tell,
) -> Iterator[tuple[str, Instances]]:
    """Yield the objects of each image; its rows go to ``found`` on the way."""
    ranges = group_ranges(model.segmenter.recipe, source, entries)
    for done, entry in enumerate(entries):
        tell(done, len(entries), entry.id)
        sample = source.load(entry)
        if options.spacing_um is not None:
            sample = replace(sample, spacing_um=(options.spacing_um, options.spacing_um))
        objects = segment(
            model.segmenter,
            sample,
            diameter_px=options.diameter_px,
            intensity=ranges.get(entry.group),
        ).instances()
        found.tables.append(_measured(model, sample, objects))
        row = _row(model.segmenter.classes, sample, objects)
        if model.card.seen and model.segmenter.recipe.data.channels != "die_map":
            group = ranges.get(entry.group)
            row["unlike_training"] = _unlike(model, sample, objects, options, group)
        found.images.append(row)
        yield sample.id, objects
    tell(len(entries), len(entries), "")


def _unlike(
    model: Model, sample: Sample, objects: Instances, options: RunOptions, group: Range | None
) -> str | None:
    """Return what is said of an image or of objects unlike those of the training, else None."""
    recipe = model.segmenter.recipe
    diameter = options.diameter_px or model.segmenter.diameter_px
    plane = model_plane(recipe, sample, diameter_px=diameter, intensity=group)
    found = Found.of(np.sqrt(4 / np.pi * objects.areas_px()), objects.scores)
    record, _ = compared(
        model.segmenter,
        model.card,
        sample,
        plane,
        found,
        area=within_edges(recipe, sample),
        probe=options.diameter_px is None,
        fix="segment the image by itself with --diameter-px auto",
    )
    return "; ".join(said_of(record[RECORD_KEY])) or None


def _measured(model: Model, sample: Sample, objects: Instances) -> pl.DataFrame:
    channels = model.segmenter.recipe.data.channels
    view = as_channels(sample.image, sample.channels, wanted=channels, where=sample.id)
    names = DIE_MAP if channels == "die_map" else sample.channels
    return measure(
        objects,
        class_names=model.segmenter.classes,
        image=view if channels == "die_map" else sample.image,
        channels=names,
        spacing_um=sample.spacing_um,
        image_id=sample.id,
    )


def _row(classes: tuple[str, ...], sample: Sample, objects: Instances) -> dict[str, Any]:
    """Return the row of an image."""
    best = np.zeros(len(classes))
    np.maximum.at(best, objects.classes, objects.scores)
    present = [name for index, name in enumerate(classes) if (objects.classes == index).any()]
    row: dict[str, Any] = {
        "image": sample.id,
        "labels": "+".join(present) or NONE,
        "strongest": (*classes, NONE)[strongest_class(objects, len(classes))],
        "objects": len(objects),
        **{f"score_{name}": float(score) for name, score in zip(classes, best, strict=True)},
    }
    if sample.channels == ("die",):
        dies = np.asarray(sample.image[0])
        fails, inside = dies == DIE_FAILS, union(objects)
        row |= {
            "dies": int((dies > 0).sum()),
            "failing_dies": int(fails.sum()),
            "failing_share_in_patterns": float(inside[fails].mean()) if fails.any() else None,
        }
    return row
