"""Predicted and truth label images, paired by file stem before any pixel is read."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable
from pathlib import Path

from domainseg.errors import InputError, MissingInputError, sentence
from domainseg.images.labels import LABEL_ENDINGS, is_label_store

RUN_LABELS = ("labels.tif", "labels.ome.zarr")
"""The label image of one input inside a run's folder, ``<stem>/labels.tif``: the first there."""

# A name such as "plate.1" has no ending, so only known ones are taken off.
_ENDINGS = (*LABEL_ENDINGS, ".jpg", ".jpeg")


def paired_labels(
    predicted: Path, truth: Path, *, stems: Collection[str] | None = None
) -> list[tuple[str, Path, Path]]:
    """Return ``(stem, predicted file, truth file)`` of every image, sorted by stem.

    Both are folders, or both are files, which are paired whatever they are called
    (the stem is then the truth's). A folder holds label images, or one folder per
    image with a ``labels.tif`` or ``labels.ome.zarr`` as a run leaves it; other files are
    passed over. A folder ending in ``.zarr`` is a label image. With ``stems``, only these
    are paired and the others may lack a counterpart.

    Raises:
        MissingInputError: for a path that is not there, a folder without label
            images, or an image that one of the two does not have.
        InputError: for a file beside a folder, or two files for one stem.
    """
    for path in (predicted, truth):
        if not path.exists():
            raise MissingInputError(
                sentence(
                    path,
                    found="nothing",
                    wanted="a label image or a folder of label images",
                    fix="check the path",
                )
            )
    many = [path.is_dir() and not is_label_store(path) for path in (predicted, truth)]
    if many[0] != many[1]:
        found, wanted = ("folder", "file") if many[0] else ("file", "folder")
        raise InputError(
            sentence(
                predicted,
                found=f"a {found}",
                wanted=f"a {wanted}, as {truth} is one",
                fix="name two files or two folders",
            )
        )
    if not many[1]:
        return [(_stem(truth), predicted, truth)]
    ours, theirs = _label_files(predicted), _label_files(truth)
    if stems is None:
        _require_counterparts(theirs, ours, folder=predicted, other=truth)
        _require_counterparts(ours, theirs, folder=truth, other=predicted)
        stems = theirs
    else:
        _require_counterparts(stems, ours, folder=predicted, other="the list of images")
        _require_counterparts(stems, theirs, folder=truth, other="the list of images")
    return [(stem, ours[stem], theirs[stem]) for stem in sorted(stems)]


def read_kinds(path: Path) -> dict[str, str]:
    """Return the kind of each image, by stem, from a CSV with columns ``image`` and ``kind``.

    An image may be named with or without the ending of its file; a line without a
    kind is passed over.

    Raises:
        MissingInputError: when there is no such file.
        InputError: when a column is missing or an image has two kinds.
    """
    if not path.is_file():
        raise MissingInputError(
            sentence(
                path,
                found="no file",
                wanted="a CSV with the columns image and kind",
                fix="check the path",
            )
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        if not {"image", "kind"} <= set(columns):
            raise InputError(
                sentence(
                    path,
                    found="the columns " + (", ".join(columns) or "of an empty file"),
                    wanted="image and kind",
                    fix="name the two columns in the first line",
                )
            )
        return _kinds_of_rows(((row["image"], row["kind"]) for row in reader), path)


def _kinds_of_rows(rows: Iterable[tuple[str | None, str | None]], path: Path) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for image, kind in rows:
        if not image or not kind:
            continue
        stem = Path(image).stem if Path(image).suffix.lower() in _ENDINGS else image
        if kinds.setdefault(stem, kind) != kind:
            raise InputError(
                sentence(
                    path,
                    found=f"{stem} as {kinds[stem]} and as {kind}",
                    wanted="one kind per image",
                    fix="remove one of the two lines",
                )
            )
    return kinds


def _label_files(folder: Path) -> dict[str, Path]:
    """Return the label image of each stem in ``folder``."""
    files: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        if is_label_store(entry):
            stem, file = _stem(entry), entry
        elif entry.is_dir():
            there = [entry / name for name in RUN_LABELS if (entry / name).exists()]
            if not there:
                continue
            stem, file = entry.name, there[0]
        elif entry.suffix.lower() in LABEL_ENDINGS and not entry.name.startswith("."):
            stem, file = entry.stem, entry
        else:
            continue
        if stem in files:
            raise InputError(
                sentence(
                    folder,
                    found=f"{_named(files[stem], folder)} and {_named(file, folder)}",
                    wanted=f"one label image for {stem}",
                    fix="remove one of the two",
                )
            )
        files[stem] = file
    if not files:
        raise MissingInputError(
            sentence(
                folder,
                found="no label image",
                wanted=f"files ending in {', '.join(LABEL_ENDINGS)}, or <image>/{RUN_LABELS[0]}",
                fix="name the folder that holds them",
            )
        )
    return files


def _stem(path: Path) -> str:
    """Return the name without its ending, ``.ome.zarr`` counting as one."""
    return path.name.removesuffix(".zarr").removesuffix(".ome") if path.is_dir() else path.stem


def _named(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _require_counterparts(
    wanted: Iterable[str], found: Collection[str], *, folder: Path, other: object
) -> None:
    """Refuse when ``folder`` lacks a label image that ``other`` speaks of."""
    missing = sorted(set(wanted) - set(found))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingInputError(
            sentence(
                folder,
                found=f"no label image for {missing[0]}{more}",
                wanted=f"one for every image of {other}",
                fix="add what is missing, or score only the images both have",
            )
        )
