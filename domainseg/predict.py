"""From images to run folders, one an image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray

from domainseg.diameter import estimate_diameter
from domainseg.errors import InputError, MissingInputError, UsageError, sentence
from domainseg.images import (
    FORMATS,
    Image,
    find_damaged,
    image_sha256,
    is_ome_zarr,
    open_image,
)
from domainseg.images.damage_log import PixelBox
from domainseg.images.files import Location, location_of
from domainseg.images.normalise import Range
from domainseg.images.regions import Inspected, Regions, edge_boxes, read_regions
from domainseg.images.tissue import find_tissue
from domainseg.instances.export import join_coco, join_objects
from domainseg.model_plane import group_range, levels_read
from domainseg.records import Sample
from domainseg.run_files import COCO, TABLE
from domainseg.run_folder import PROGRESS, RECORD, Run, begun_record, finished, read_record
from domainseg.runs import (
    Model,
    RunOptions,
    Task,
    describe,
    model_at,
    open_model,
    run_task,
)
from domainseg.seen import Tell as TellStage

Tell = Callable[[int, int, str], None]
"""Called with images done, images in all, and the name of the next."""


class PartlyFailedError(InputError):
    """Some images of a call could not be run; the others were.

    Attributes:
        failures: name and error of each.
        runs: of the others.
    """

    def __init__(
        self,
        message: str,
        failures: tuple[tuple[str, InputError], ...],
        runs: tuple[Run, ...] = (),
    ) -> None:
        super().__init__(message)
        self.failures = failures
        self.runs = runs

    def sentences(self) -> tuple[str, ...]:
        """Return why each image could not be run; each names its image, once."""
        return tuple(
            str(error) if _is_named(str(error), name) else f"{name}: {error}"
            for name, error in self.failures
        )


def _is_named(said: str, name: str) -> bool:
    """Tell whether a sentence begins with an image's name, or with the place of its file."""
    where = said.partition(": found ")[0]
    return where == name or PurePath(where).stem == PurePosixPath(name).name


def predict(
    model: Path | str,
    images: Sequence[Path | str],
    out: Path | str,
    *,
    options: RunOptions | None = None,
    tell: Tell = lambda _done, _total, _name: None,
    tell_stage: TellStage = lambda _stage, _done, _total: None,
) -> tuple[Run, ...]:
    """Segment images of any size and return one run per image, written to ``out/<stem>/``.

    ``images`` are files, URLs of OME-Zarr, or folders whose image files are taken. Each run
    folder holds ``labels.ome.zarr``, ``labels.tif`` (images up to 64 Mpx),
    ``objects.parquet``, ``objects.csv``, ``objects.geojson``, ``objects.coco.json``,
    ``overlay.png``, ``maps.zarr``, ``run.json`` and ``timings.json``; several images add
    ``out/objects.parquet`` and ``out/objects.csv``. An image whose run is complete and of the
    same model and settings is not run again, one that was interrupted goes on.
    For a model that normalises by group, the images of one call are one group.

    Raises:
        InputError: the one image cannot be read or does not fit the model.
        PartlyFailedError: some of several cannot; the others were run.
        UsageError: two images of one stem without ``keep_folders``.
        OutputError: ``out`` holds results of another model, image or setting.
    """
    options = options or RunOptions()
    opened = open_model(Path(model), options)
    named = name_images(images, keep_folders=options.keep_folders, out=Path(out))
    select = opened.segmenter.recipe.image.select if options.select is None else options.select
    places = [place for _, place in named]
    group = _range_of_all(opened, places, select, skip_damaged=options.skip_bad_tiles)
    regions = None if options.roi is None else read_regions(options.roi)
    call = _Call(opened, options, select, group, regions, tell_stage)
    runs: list[Run] = []
    failures: list[tuple[str, InputError]] = []
    for done, (name, path) in enumerate(named):
        tell(done, len(named), name)
        try:
            runs.append(call.run(name, path, Path(out) / name))
        except InputError as error:
            if len(named) == 1:
                raise
            failures.append((name, error))
    tell(len(named), len(named), "")
    write_together(runs, Path(out))
    if failures:
        raise _partly(failures, runs, Path(out))
    return tuple(runs)


def _partly(
    failures: Sequence[tuple[str, InputError]], runs: Sequence[Run], out: Path
) -> PartlyFailedError:
    count = len(failures) + len(runs)
    names = ", ".join(name for name, _ in failures[:3]) + (", ..." if len(failures) > 3 else "")
    message = sentence(
        out,
        found=f"{len(failures)} of {count} images that could not be run ({names})",
        wanted="images that can be read and fit the model",
        fix="mend or leave them out and repeat the command: what is done stays",
    )
    return PartlyFailedError(message, tuple(failures), tuple(runs))


@dataclass(frozen=True, slots=True)
class _Call:
    """What one call does with each of its images."""

    model: Model
    options: RunOptions
    select: Mapping[str, object]
    group: Range | None
    regions: Regions | None
    tell: TellStage

    def run(self, name: str, path: Location, folder: Path) -> Run:
        options = self.options
        with open_image(path, select=self.select, skip_damaged=options.skip_bad_tiles) as image:
            spacing = image.spacing_um
            if options.spacing_um is not None:
                spacing = (options.spacing_um, options.spacing_um)
            sample = Sample(name, image, image.channels, spacing_um=spacing)
            sha256 = image_sha256(path)
            area = self.area(sample, image)
            call = self.at_diameter(sample, area, sha256, folder)
            return call.opened(sample, image, area, path, sha256, folder)

    def at_diameter(
        self, sample: Sample, area: Inspected | None, sha256: str, folder: Path
    ) -> _Call:
        """Return the call with the model at the diameter of the image's objects.

        A run that was begun knows it already.
        """
        options, model = self.options, self.model
        diameter = options.diameter_px
        if options.estimate_diameter:
            known = begun_record(folder)
            asked = describe(
                model,
                sample,
                where=sample.id,
                sha256=sha256,
                select=self.select,
                diameter_px=None,
                group=self.group,
                area=area,
            )
            same = _measured_with(known) == _measured_with(asked)
            if same and "diameter_from" in known.get("image", {}):
                diameter = known["image"]["diameter_px"]
            else:
                self.tell("measuring the diameter", 0, 1)
                diameter = estimate_diameter(
                    model.segmenter, model.card, sample, intensity=self.group, area=area
                )
        options = replace(options, diameter_px=diameter)
        return replace(self, model=model_at(model, diameter), options=options)

    def opened(
        self,
        sample: Sample,
        image: Image,
        area: Inspected | None,
        path: Location,
        sha256: str,
        folder: Path,
    ) -> Run:
        """Return the run of an image that is open."""
        options = self.options
        area = self.undamaged(sample, image, area)
        if area is not None and (unseen := (*area.damaged, *area.left_out)):
            lost = _Lost(unseen, area.shape)
            # Read like an array, by rows: the image need not fit in memory.
            sample = replace(sample, ignore=cast("NDArray[np.bool_]", lost))
        record = describe(
            self.model,
            sample,
            where=path,
            sha256=sha256,
            select=self.select,
            diameter_px=options.diameter_px,
            group=self.group,
            area=area,
        )
        if options.estimate_diameter:
            record["image"]["diameter_from"] = "estimate"
        if (old := finished(folder, record, restart=options.restart)) is not None:
            return old
        task = Task(
            sample, record, diameter_px=options.diameter_px, intensity=self.group, area=area
        )
        return run_task(self.model, task, folder, options=options, tell=self.tell)

    def area(self, sample: Sample, image: Image) -> Inspected | None:
        """Return what of an image is to be inspected, None for all of it."""
        recipe = self.model.segmenter.recipe
        shape = (image.shape[1], image.shape[2])
        edges = recipe.image.ignore_edges_px
        area = Inspected(
            shape,
            regions=self.regions,
            tissue=find_tissue(image) if recipe.tiling.tissue else None,
            left_out=edge_boxes(shape, edges, where=sample.id),
        )
        return None if area.is_everything else area

    def undamaged(self, sample: Sample, image: Image, area: Inspected | None) -> Inspected | None:
        """Return an area without what of the image cannot be read, None for all of it."""
        if not self.options.skip_bad_tiles:
            return area
        segmenter, diameter = self.model.segmenter, self.options.diameter_px
        diameter = segmenter.diameter_px if diameter is None else diameter
        levels = levels_read(segmenter.recipe, sample, diameter_px=diameter)
        damaged = find_damaged(image, levels=levels, threads=torch.get_num_threads())
        everything = Inspected((image.shape[1], image.shape[2]))
        area = replace(area or everything, damaged=damaged)
        return None if area.is_everything else area


def _measured_with(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that the diameter of an image's objects depends on, of a run's record."""
    image, recipe = record.get("image", {}), record.get("recipe", {})
    made: dict[str, Any] = json.loads(
        json.dumps(
            {
                "model": record.get("model", {}).get("sha256"),
                "image": [image.get(key) for key in ("sha256", "select", "group_intensity")],
                "limits": _limits(record.get("area")),
                "precision": record.get("lattice", {}).get("precision"),
                "recipe": {**recipe, "data": {**recipe.get("data", {}), "diameter_px": None}},
            }
        )
    )
    return made


def _limits(area: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what limits the area of a record, damaged tiles aside, where anything does."""
    limits = {} if area is None else {key: area[key] for key in area if key != "damaged"}
    return limits if any(limits.values()) else {}


@dataclass(frozen=True, slots=True)
class _Lost:
    """Where an image could not be read or shows something else, sliced by rows like a mask."""

    boxes: tuple[PixelBox, ...]
    shape: tuple[int, int]

    def __getitem__(self, rows: slice) -> NDArray[np.bool_]:
        top, bottom, _ = rows.indices(self.shape[0])
        mask = np.zeros((bottom - top, self.shape[1]), bool)
        for (y0, x0), (y1, x1) in self.boxes:
            mask[max(y0 - top, 0) : max(y1 - top, 0), x0:x1] = True
        return mask


def _range_of_all(
    model: Model,
    paths: Sequence[Location],
    select: Mapping[str, object],
    *,
    skip_damaged: bool,
) -> Range | None:
    """Return the one intensity range of the images, None for a model that measures each."""
    data = model.segmenter.recipe.data
    if data.normalise.scope != "group":
        return None

    def load(number: int) -> Sample:
        image = open_image(paths[number], select=select, skip_damaged=skip_damaged)
        return Sample(str(paths[number]), image, image.channels)

    return group_range(data, load, len(paths))


def name_images(
    images: Sequence[Path | str], *, keep_folders: bool, out: Path | None = None
) -> tuple[tuple[str, Location], ...]:
    """Return ``(name, place)`` of every image: the stem, with ``keep_folders`` behind its folders.

    The folders are those below the folder that was given; of a file that was given itself,
    the one that it lies in. A folder whose name ends in ``.zarr`` is an image, as is a URL.
    Hidden files are left out, and the run folders below ``out``.

    Raises:
        MissingInputError: a path is not there, or a folder holds no image.
        UsageError: two images would share a name.
    """
    named: list[tuple[str, Location]] = []
    for image in images:
        path = location_of(image)
        if isinstance(path, str):
            named.append((PurePosixPath(urlsplit(path).path).stem, path))
            continue
        many = path.is_dir() and not is_ome_zarr(path)
        folder = path if many else path.absolute().parent.parent
        for file in _images_below(path, out) if many else [path]:
            inner = (file if many else file.absolute()).relative_to(folder)
            named.append((inner.with_suffix("").as_posix() if keep_folders else file.stem, file))
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        first, second = [place for name, place in named if name == twice[0]][:2]
        raise UsageError(
            sentence(
                second,
                found=f"the {'name' if keep_folders else 'stem'} of {first}",
                wanted="one name per image",
                fix=f"use {'' if keep_folders else '--keep-folders, or '}another output folder",
            )
        )
    return tuple(named)


def _images_below(folder: Path, out: Path | None) -> list[Path]:
    """Return the images at any depth below a folder, sorted."""
    found = [
        path
        for path in sorted(_walk(folder))
        if (path.is_dir() or path.suffix.lower() in FORMATS)
        and not path.name.startswith(".")
        and not _is_result(path, out)
    ]
    if not found:
        raise MissingInputError(
            sentence(
                folder,
                found="a folder without images",
                wanted=f"files ending in {', '.join(FORMATS)}",
                fix="name the folder that holds them",
            )
        )
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """Yield what lies below a folder; a zarr is one thing, however many files it has."""
    for path in folder.iterdir():
        if path.is_dir() and not is_ome_zarr(path):
            yield from _walk(path)
        else:
            yield path


def _is_result(path: Path, out: Path | None) -> bool:
    """Tell whether an earlier call wrote a file: it lies in a run folder below ``out``."""
    if out is None or not any((path.parent / name).is_file() for name in (RECORD, PROGRESS)):
        return False
    return out.resolve() in path.resolve().parents


def write_together(runs: Sequence[Run], out: Path) -> None:
    """Write what several runs found as one: ``objects.parquet``, ``.csv`` and ``.coco.json``.

    The COCO file is left out where an image is too large for it.
    """
    if len(runs) > 1:
        tables = [run.folder / TABLE for run in runs]
        join_objects(tables, parquet=out / "objects.parquet", csv=out / "objects.csv")
        files = [run.folder / COCO for run in runs]
        records = [read_record(run.folder) for run in runs]
        if all(file.is_file() for file in files):
            # As images are told apart: by their folders where these were kept.
            names = [
                str(PurePosixPath(run.image).parent / PurePosixPath(record["image"]["path"]).name)
                for run, record in zip(runs, records, strict=True)
            ]
            join_coco(
                list(zip(names, files, strict=True)),
                out / COCO,
                class_names=records[0]["model"]["classes"],
            )
        else:
            (out / COCO).unlink(missing_ok=True)
