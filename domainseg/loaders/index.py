"""The index of a data set: a CSV with one row per image."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from pathlib import Path

from domainseg.errors import InputError, MissingInputError, RecipeError, sentence
from domainseg.loaders.folder import bare, some
from domainseg.records import Entry


def read_index(
    path: Path, key: str, names: Collection[str], *, required: Collection[str] = ()
) -> dict[str, dict[str, str]]:
    """Return the columns of each image of ``names``, as text.

    ``key`` is the column of the name, with or without an image ending; ``required``
    columns must be there too.

    Raises:
        MissingInputError: when there is no such file.
        InputError: when a column is missing, a row is too long or too short, or the
            rows do not name exactly ``names``, each once.
    """
    rows: dict[str, dict[str, str]] = {}
    for where, row in _rows(path, key, required):
        name = row[key].strip()
        name = name if name in names else bare(name)
        if name in rows:
            raise InputError(
                sentence(
                    where,
                    found=f"a second row for {name}",
                    wanted="one row per image",
                    fix="remove one of the rows",
                )
            )
        rows[name] = row
    _refuse_unpaired(path, set(rows), set(names))
    return rows


def read_names(path: Path, key: str, names: Collection[str]) -> dict[str, str]:
    """Return which of ``names`` each row of an index means: itself, or the one it begins.

    Raises:
        MissingInputError: as `read_index`.
        InputError: as `read_index`, of a file that is damaged; or a row begins no name, or
            several, or one that another row means already.
    """
    meant: dict[str, str] = {}
    for where, row in _rows(path, key, ()):
        given = row[key].strip()
        short = given if given in names else bare(given)
        found = [short] if short in names else [name for name in names if name.startswith(short)]
        if not short or len(found) != 1:
            raise InputError(
                sentence(
                    where,
                    found=f"{short!r}, which begins the names of {len(found) or 'no'} images",
                    wanted="the name of one image, or how it begins",
                    fix="add the image, or correct the row",
                )
            )
        if found[0] in meant.values():
            raise InputError(
                sentence(
                    where,
                    found=f"a second row for {found[0]}",
                    wanted="one row per image",
                    fix="remove one of the rows",
                )
            )
        meant[short] = found[0]
    return meant


def indexed_entries(
    names: Collection[str],
    index: Path | None,
    *,
    key: str,
    kind: str | None,
    group: str | None,
) -> tuple[Entry, ...]:
    """Return an entry per name, sorted, with what the index says of it.

    ``kind`` and ``group`` are columns of the index; without a group column each entry
    is its own group.

    Raises:
        InputError: as `read_index`.
    """
    rows: dict[str, dict[str, str]] = {name: {} for name in names}
    if index is not None:
        required = tuple(column for column in (kind, group) if column)
        rows = read_index(index, key, names, required=required)
    return tuple(
        Entry(
            name,
            group=rows[name][group] if group else name,
            kind=rows[name][kind] if kind else None,
            columns=rows[name],
        )
        for name in sorted(names)
    )


def refuse_columns_without_index(index: str | None, *columns: str | None) -> None:
    """Raise RecipeError when an option names a column and no index is named."""
    asked = [column for column in columns if column]
    if index is None and asked:
        raise RecipeError(
            sentence(
                "index",
                found=f"none, yet a column {asked[0]!r} is asked for",
                wanted="the CSV that has it",
                fix="name the index",
            )
        )


def _rows(path: Path, key: str, required: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row of an index stands, and its columns as text.

    Raises:
        MissingInputError: when there is no such file.
        InputError: when a column is missing, or a row is too long or too short.
    """
    if not path.is_file():
        raise MissingInputError(
            sentence(path, found="no file", wanted="the index of the images", fix="check the path")
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, strict=True)
        columns = tuple(table.fieldnames or ())
        for column in (key, *required):
            if column not in columns:
                raise InputError(
                    sentence(
                        path,
                        found=f"columns {', '.join(columns) or 'none'}",
                        wanted=f"a column {column!r}",
                        fix="rename a column or correct the option that names it",
                    )
                )
        for row in table:
            where = f"{path}:{table.line_num}"
            _refuse_ragged(where, row, columns)
            yield where, row


def _refuse_ragged(where: str, row: dict[str, str], columns: tuple[str, ...]) -> None:
    """Raise InputError of a row that has no value in a column, or one too many."""
    if None in row or None in row.values():
        raise InputError(
            sentence(
                where,
                found="too many values" if None in row else "too few values",
                wanted=f"{len(columns)}, as in the header",
                fix="correct the row",
            )
        )


def _refuse_unpaired(path: Path, rows: set[str], names: set[str]) -> None:
    if unknown := rows - names:
        raise InputError(
            sentence(
                path,
                found=f"rows of images that do not exist: {some(unknown)}",
                wanted="rows of the images there are",
                fix="add the images or remove the rows",
            )
        )
    if absent := names - rows:
        raise InputError(
            sentence(
                path,
                found=f"no row for {some(absent)}",
                wanted="one row per image",
                fix="add the rows or remove the images",
            )
        )
