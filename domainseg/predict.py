"""From images to run folders, one an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from domainseg.errors import MissingInputError, UsageError, sentence
from domainseg.images import FORMATS, image_sha256, open_image
from domainseg.images.normalise import Range
from domainseg.instances.export import write_objects
from domainseg.records import Sample
from domainseg.runs import (
    LABELS,
    Model,
    Run,
    RunOptions,
    describe,
    finished,
    open_model,
    run_sample,
)
from domainseg.segmenter import group_range, segment

Tell = Callable[[int, int, str], None]
"""Called with images done, images in all, and the name of the next."""


def predict(
    model: Path | str,
    images: Sequence[Path | str],
    out: Path | str,
    *,
    options: RunOptions | None = None,
    tell: Tell = lambda _done, _total, _name: None,
) -> tuple[Run, ...]:
    """Segment images and return one run per image, written to ``out/<stem>/``.

    ``images`` are files, or folders whose image files are taken. Each run folder holds
    ``labels.tif``, ``labels.ome.zarr``, ``objects.parquet``, ``objects.csv``,
    ``objects.geojson``, ``objects.coco.json``, ``overlay.png``, ``run.json`` and
    ``timings.json``; several images add ``out/objects.parquet`` and ``out/objects.csv``.
    An image whose run is complete and of the same model and settings is not run again.
    For a model that normalises by group, the images of one call are one group.

    Raises:
        InputError: an image cannot be read or does not fit the model.
        UsageError: two images of one stem without ``keep_folders``.
        OutputError: ``out`` holds results of another model, image or setting.
    """
    options = options or RunOptions()
    opened = open_model(Path(model), options)
    named = name_images([Path(p) for p in images], keep_folders=options.keep_folders, out=Path(out))
    select = opened.segmenter.recipe.image.select if options.select is None else options.select
    group = _range_of_all(opened, [path for _, path in named], select)
    call = _Call(opened, options, select, group)
    runs = []
    for done, (name, path) in enumerate(named):
        tell(done, len(named), name)
        runs.append(call.run(name, path, Path(out) / name))
    tell(len(named), len(named), "")
    write_together(runs, Path(out))
    return tuple(runs)


@dataclass(frozen=True, slots=True)
class _Call:
    """What one call does with each of its images."""

    model: Model
    options: RunOptions
    select: Mapping[str, object]
    group: Range | None

    def run(self, name: str, path: Path, folder: Path) -> Run:
        options = self.options
        with open_image(path, select=self.select) as image:
            spacing = image.spacing_um
            if options.spacing_um is not None:
                spacing = (options.spacing_um, options.spacing_um)
            sample = Sample(name, image, image.channels, spacing_um=spacing)
            record = describe(
                self.model,
                sample,
                where=path,
                sha256=image_sha256(path),
                select=self.select,
                diameter_px=options.diameter_px,
                group=self.group,
            )
            if (old := finished(folder, record, restart=options.restart)) is not None:
                return old
            made = segment(
                self.model.segmenter,
                sample,
                diameter_px=options.diameter_px,
                intensity=self.group,
            )
            return run_sample(self.model, sample, made, folder, record)


def _range_of_all(
    model: Model, paths: Sequence[Path], select: Mapping[str, object]
) -> Range | None:
    """Return the one intensity range of the images, None for a model that measures each."""
    data = model.segmenter.recipe.data
    if data.normalise.scope != "group":
        return None

    def load(number: int) -> Sample:
        image = open_image(paths[number], select=select)
        return Sample(str(paths[number]), image, image.channels)

    return group_range(data, load, len(paths))


def name_images(
    paths: Sequence[Path], *, keep_folders: bool, out: Path | None = None
) -> tuple[tuple[str, Path], ...]:
    """Return ``(name, file)`` of every image: the stem, with ``keep_folders`` behind its folders.

    The folders are those below the folder that was given; of a file that was given itself,
    the one that it lies in. Hidden files are left out, and the run folders below ``out``.

    Raises:
        MissingInputError: a path is not there, or a folder holds no image.
        UsageError: two files would share a name.
    """
    named: list[tuple[str, Path]] = []
    for path in paths:
        folder = path if path.is_dir() else path.absolute().parent.parent
        for file in _images_below(path, out) if path.is_dir() else [path]:
            inner = (file if path.is_dir() else file.absolute()).relative_to(folder)
            named.append((inner.with_suffix("").as_posix() if keep_folders else file.stem, file))
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        first, second = [path for name, path in named if name == twice[0]][:2]
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
    """Return the image files at any depth below a folder, sorted."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in FORMATS
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


def _is_result(path: Path, out: Path | None) -> bool:
    """Tell whether an earlier call wrote a file: it lies in a run folder below ``out``."""
    if out is None or not (path.parent / LABELS).is_file():
        return False
    return out.resolve() in path.resolve().parents


def write_together(runs: Sequence[Run], out: Path) -> None:
    """Write the tables of several runs as one, ``out/objects.parquet`` and ``.csv``."""
    if len(runs) > 1:
        table = pl.concat([run.objects for run in runs], how="diagonal")
        write_objects(table, parquet=out / "objects.parquet", csv=out / "objects.csv")
