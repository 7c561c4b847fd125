"""The folder of a run: its record, what is kept of a run that was interrupted, its lock.

While a run is under way its folder holds ``progress.json``, the record of what was asked
for, and ``maps.zarr``, which fills tile by tile. The same call on the same image goes on
from there. ``run.json`` is written last: where it is, the run is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from domainseg.atomic import atomic_text, make_folder, sweep_partial, writing_below
from domainseg.errors import MissingInputError, OutputError, sentence
from domainseg.images.normalise import Range
from domainseg.run_files import (
    COCO,
    LABEL_STORE,
    LABELS,
    OVERLAY,
    PANOPTIC,
    PANOPTIC_PNGS,
    TABLE,
)

RECORD = "run.json"
PROGRESS = "progress.json"
MAPS = "maps.zarr"
DETECTIONS = "detections"
SEEN = (MAPS, DETECTIONS)
"""What the network saw in an image, of one kind of model or of the other."""
TIMINGS = "timings.json"
FILES = (LABEL_STORE, TABLE, "objects.csv", "objects.geojson", OVERLAY)
"""What every run leaves beside its record."""
FREE = frozenset(
    {
        "image.path",
        "image.seen_as",
        "model.path",
        "model.name",
        "recipe.data.root",
        "recipe.train",
        "recipe.evaluate",
        "recipe.report",
        "recipe.about",
    }
)
"""What a record may say otherwise of the same run: no object depends on it."""
LOCK = ".lock"


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


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder, which is created, while the block runs.

    A process that is killed lets go of it.

    Raises:
        OutputError: another process is at work there, or the folder cannot be created or
            written to.
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK)
    try:
        with writing_below(folder):
            lock.acquire(blocking=False)
    except Timeout as error:
        raise OutputError(
            sentence(
                folder,
                found="another process at work in it",
                wanted="one at a time",
                fix="wait until it has ended, or choose another output folder",
            )
        ) from error
    except NotImplementedError:
        pass  # a file system without locks
    try:
        yield
    finally:
        # Before it is let go of: afterwards the file may be another process's.
        with suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def begin_folder(
    folder: Path, record: Mapping[str, Any], *, restart: bool, keep_maps: bool = False
) -> Range | None:
    """Make a folder ready for a run: keep the maps of the same run, clear those of another.

    ``keep_maps`` keeps them in any case. Returns the image's range where the same run had
    measured it before.

    Raises:
        OutputError: it holds an unfinished run of another model, image or setting, of which a
            tile is done, and ``restart`` is not given; or it cannot be created or changed.
    """
    sweep_partial(folder)
    same = json.loads(json.dumps(record))
    begun = _read_json(folder / PROGRESS)
    if begun is not None and not restart and _has_seen(folder):
        require_same(folder, begun, same, kind="an unfinished run")
    before = _read_json(folder / RECORD) if begun is None else begun
    # What is unfinished and the same goes on, with --restart too.
    other = before is None or difference(before, same, leave_out=FREE) is not None
    if (other or (restart and begun is None)) and not keep_maps:
        drop_seen(folder)
    _sweep_optional(folder)
    known = None if other or restart else _range_of(before)
    keep_progress(folder, record, known)
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
    return known


def _has_seen(folder: Path) -> bool:
    """Tell whether the maps or detections of any tile are there."""
    return any(
        path.is_file() and path.suffix != ".json" and ".partial" not in path.name
        for name in SEEN
        for path in (folder / name).rglob("*")
    )


def drop_seen(folder: Path) -> None:
    """Delete what the network saw: objects cannot be decoded again without it."""
    for name in SEEN:
        shutil.rmtree(folder / name, ignore_errors=True)


def keep_progress(folder: Path, record: Mapping[str, Any], intensity: Range | None) -> None:
    """Write what a run that goes on would need: its record, and the range once it is known."""
    measured = {} if intensity is None else {"intensity": as_json(intensity)}
    _write_json(folder / PROGRESS, {**record, **measured})


def _range_of(record: Mapping[str, Any] | None) -> Range | None:
    """Return the range that a record holds, None where it was not measured yet."""
    values = None if record is None else record.get("intensity")
    if values is None:
        return None
    return Range(*(np.array(values[end], np.float32) for end in ("low", "high")))


def as_json(intensity: Range) -> dict[str, list[float]]:
    """Return a range as plain values, one per channel."""
    return {"low": intensity.low.tolist(), "high": intensity.high.tolist()}


def write_timings(folder: Path, timings: Mapping[str, float | int | None]) -> None:
    """Write seconds and counts, rounded; no comparison of runs looks at them."""
    rounded = {k: None if v is None else round(v, 3) for k, v in sorted(timings.items())}
    _write_json(folder / TIMINGS, rounded)


def _sweep_optional(folder: Path) -> None:
    """Delete results that not every run writes: another's would stand beside this one's."""
    shutil.rmtree(folder / PANOPTIC_PNGS, ignore_errors=True)
    for pattern in (LABELS, "labels-layer*.tif", COCO, PANOPTIC, "defects.*"):
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


def begun_record(folder: Path) -> dict[str, Any]:
    """Return the record of a run that was begun or finished, empty without one."""
    for name in (RECORD, PROGRESS):
        if (record := _read_json(folder / name)) is not None:
            return record
    return {}


def end_folder(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a finished run."""
    _write_json(folder / RECORD, record)
    with suppress(OSError):
        (folder / PROGRESS).unlink(missing_ok=True)


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
