"""Objects again, from the maps of a run, with other rules and without the network."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domainseg.atomic import PARTIAL
from domainseg.errors import InputError, UsageError, sentence
from domainseg.images import image_sha256, open_image
from domainseg.outside import RECORD_KEY, Found, judged_again, said_of
from domainseg.recipe import Recipe, recipe_from_json, with_overrides
from domainseg.records import Sample
from domainseg.run_files import TABLE
from domainseg.run_folder import (
    PROGRESS,
    RECORD,
    Run,
    alone_in,
    begin_folder,
    end_folder,
    read_record,
    require_same,
    write_timings,
)
from domainseg.seen import Making, Tell, seen_by
from domainseg.tiling.decoding import BlockWork

MOST_WORKERS = 4
"""Threads that decode: each takes some 250 MB."""
CHANGEABLE = ("instances", "report", "evaluate")
"""Sections of a recipe that no map depends on."""


def decode_run(
    run: Path | str,
    changes: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    image: Path | str | None = None,
    tell: Tell = lambda _stage, _done, _total: None,
) -> Run:
    """Decode the maps of a run with ``instances.KEY=VALUE`` changes; return the new run.

    The results take the place of those in ``run``, or go into the folder ``out``, where the
    maps are linked or copied. The image is read again for the intensities of its objects:
    where it was when it was predicted, or at ``image``, to which it was moved.

    Raises:
        MissingInputError: ``run`` is no finished run, or its image is gone.
        InputError: its maps were dropped or are damaged, or the image has changed.
        UsageError: a change needs the network.
        RecipeError: a change does not fit.
        OutputError: a file cannot be written, or another process is at work in the folder.
    """
    begun = time.monotonic()
    folder = Path(run)
    old = read_record(folder)
    recipe = _changed(recipe_from_json(old["recipe"], where=str(folder / RECORD)), changes)
    seen = seen_by(recipe)
    seen.require_whole(folder)
    record = {**old, "recipe": recipe.to_json()}
    target = folder if out is None or _same_folder(folder, Path(out)) else Path(out)
    described = old["image"]
    classes = tuple(old["model"]["classes"])
    spacing = described["spacing_um"]
    place = described["path"] if image is None else image
    with open_image(
        place,
        select=described["select"],
        skip_damaged=bool((old["area"] or {}).get("damaged")),
    ) as opened:
        _require_unchanged(place, described["sha256"])
        if target != folder:
            _require_free(target, record)
        with alone_in(target):
            begin_folder(target, record, restart=True, keep_maps=True)
            if target != folder:
                _link(folder / seen.name, target / seen.name)
            sample = Sample(
                described["name"],
                opened,
                opened.channels,
                spacing_um=None if spacing is None else (spacing[0], spacing[1]),
            )
            sy, sx = old["grid"]["scale"]
            work = BlockWork(workers=min(_cores(), MOST_WORKERS))
            made = seen.make(
                target,
                Making(sample, described["sha256"], recipe, classes, (sy, sx), work),
                tell,
            )
            found = made.found
            write_timings(target, {**found.seconds, "total_s": time.monotonic() - begun})
            record["objects"], record["links"] = found.objects, found.links
            record["objects_per_class"] = {name: found.per_class.get(name, 0) for name in classes}
            record |= made.record
            if (told := old.get(RECORD_KEY)) is not None:
                record[RECORD_KEY] = judged_again(told, Found.in_table(target / TABLE), (sy, sx))
                others = [one for one in old["warnings"] if one not in said_of(told)]
                record["warnings"] = [*others, *said_of(record[RECORD_KEY])]
            end_folder(target, record)
    return Run(target, described["name"], found.objects, tuple(record["warnings"]))


def _changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """Return the recipe with changes that no map depends on."""
    for change in changes:
        if change.partition(".")[0] not in CHANGEABLE:
            raise UsageError(
                sentence(
                    "decode",
                    found=f"'{change}'",
                    wanted=f"a change of {', '.join(CHANGEABLE)}",
                    fix="predict the image again with --set",
                )
            )
    return with_overrides(recipe, list(changes)) if changes else recipe


def _require_unchanged(path: Path | str, sha256: str) -> None:
    if image_sha256(path) != sha256:
        raise InputError(
            sentence(
                path,
                found="another image than the one that was predicted",
                wanted="the same file",
                fix="predict it again",
            )
        )


def _require_free(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise OutputError when a folder holds a run of another image or model."""
    for name in (RECORD, PROGRESS):
        if (folder / name).is_file():
            old = read_record(folder)
            names = ("image", "model")
            require_same(
                folder,
                {key: old[key] for key in names},
                {key: record[key] for key in names},
                kind="a run",
            )


def _same_folder(one: Path, two: Path) -> bool:
    return two.exists() and one.samefile(two)


def _link(source: Path, target: Path) -> None:
    """Give a folder of files a second name, as links where the file system has them."""
    partial = target.with_name(f"{PARTIAL}{target.name}")
    for folder in (partial, target):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        shutil.copytree(source, partial, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
    partial.replace(target)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
