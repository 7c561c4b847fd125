"""From images to run folders, one an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from domainseg.errors import MissingInputError, UsageError, sentence
from domainseg.images import FORMATS, image_sha256, open_image
from domainseg.instances.export import write_objects
from domainseg.records import Sample
from domainseg.runs import Model, Run, RunOptions, describe, finished, open_model, run_sample
from domainseg.segmenter import segment

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

    Raises:
        InputError: an image cannot be read or does not fit the model.
        UsageError: two images of one stem without ``keep_folders``.
        OutputError: ``out`` holds results of another model, image or setting.
    """
    options = options or RunOptions()
    opened = open_model(Path(model), options)
    named = name_images([Path(p) for p in images], keep_folders=options.keep_folders)
    runs = []
    for done, (name, path) in enumerate(named):
        tell(done, len(named), name)
        runs.append(_predict_one(opened, path, Path(out) / name, options))
    tell(len(named), len(named), "")
    write_together(runs, Path(out))
    return tuple(runs)


def name_images(paths: Sequence[Path], *, keep_folders: bool) -> tuple[tuple[str, Path], ...]:
    """Return ``(name, file)`` of every image: stems, or relative paths with ``keep_folders``.

    Raises:
        MissingInputError: a path is not there, or a folder holds no image.
        UsageError: two files would share a name.
    """
    named: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in FORMATS)
            if not found:
                raise MissingInputError(
                    sentence(
                        path,
                        found="a folder without images",
                        wanted=f"files ending in {', '.join(FORMATS)}",
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


def _predict_one(model: Model, path: Path, folder: Path, options: RunOptions) -> Run:
    sha256 = image_sha256(path)
    data = model.segmenter.recipe.data
    select = options.select if options.select is not None else data.select
    with open_image(path, select=select) as image:
        spacing = image.spacing_um
        if options.spacing_um is not None:
            spacing = (options.spacing_um, options.spacing_um)
        sample = Sample(path.stem, image, image.channels, spacing_um=spacing)
        record = describe(model, sample, where=path, sha256=sha256, options=options)
        if (old := finished(folder, record, restart=options.restart)) is not None:
            return old
        made = segment(model.segmenter, sample, diameter_px=options.diameter_px)
        return run_sample(model, sample, made, folder, record)


def write_together(runs: Sequence[Run], out: Path) -> None:
    """Write the tables of several runs as one, ``out/objects.parquet`` and ``.csv``."""
    if len(runs) > 1:
        table = pl.concat([run.objects for run in runs], how="diagonal")
        write_objects(table, parquet=out / "objects.parquet", csv=out / "objects.csv")
