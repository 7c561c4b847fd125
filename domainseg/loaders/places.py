"""What the path of an image says of it: its folders, its class, its group."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

from domainseg.errors import InputError, MissingInputError, RecipeError, sentence
from domainseg.loaders.masks import GOOD


def folder_columns(name: str) -> dict[str, str]:
    """Return the folders of an id as columns: ``folder`` whole, ``folder_1`` and on each.

    >>> folder_columns("bottle/test/000")
    {'folder': 'bottle/test', 'folder_1': 'bottle', 'folder_2': 'test'}
    """
    *folders, _ = name.split("/")
    each = {f"folder_{number}": part for number, part in enumerate(folders, 1)}
    return {"folder": "/".join(folders), **each} if folders else {}


def is_folder_column(name: str | None) -> bool:
    """Tell whether a column is one of `folder_columns`."""
    return name is not None and re.fullmatch(r"folder(_[1-9][0-9]*)?", name) is not None


def folder_value(name: str, column: str) -> str:
    """Return what a folder column says of an id.

    Raises:
        InputError: when the id has not that many folders.
    """
    columns = folder_columns(name)
    if column not in columns:
        raise InputError(
            sentence(
                name,
                found=f"columns {', '.join(columns) or 'none'}",
                wanted=f"a column {column!r}",
                fix="put the image in a folder or correct the option that names the column",
            )
        )
    return columns[column]


def class_folder(name: str, folders: Collection[str]) -> str:
    """Return the one folder of an id that is listed.

    Raises:
        InputError: when none is, or several are.
    """
    found = [part for part in name.split("/")[:-1] if part in folders]
    if len(found) != 1:
        raise InputError(
            sentence(
                name,
                found=f"the class folders {', '.join(found)}" if found else "no class folder",
                wanted=f"one of {', '.join(folders)} in its path",
                fix="add the folder to class_folders, with null for good images, "
                "or leave the image out",
            )
        )
    return found[0]


def owners(folders: Mapping[str, str | None]) -> dict[str, str]:
    """Return the class folders that hold defects, without those of good images."""
    return {folder: name for folder, name in folders.items() if name is not None and name != GOOD}


def left_out(names: Collection[str], patterns: Collection[str]) -> frozenset[str]:
    """Return the ids that match a pattern of ``*``, ``?`` and ``[...]``.

    Raises:
        MissingInputError: when a pattern matches none.
    """
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if fnmatchcase(name, pattern)}
        if not matching:
            raise MissingInputError(
                sentence(
                    "leave_out",
                    found=f"no image {pattern!r}",
                    wanted="the ids of images, as paths below their folder without ending",
                    fix="correct or remove it",
                )
            )
        found |= matching
    return frozenset(found)


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern that has a group.

    Raises:
        RecipeError: when it is no regular expression, or has no group.
    """
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise _no_pattern(pattern, f"{error}") from error
    if not found.groups:
        raise _no_pattern(pattern, "no group")
    return found


def _no_pattern(pattern: str, problem: str) -> RecipeError:
    return RecipeError(
        sentence(
            "group_pattern",
            found=f"{pattern!r}: {problem}",
            wanted="a regular expression with a group in parentheses",
            fix="correct it",
        )
    )


def groups_of(names: Collection[str], pattern: str, gap: int | None) -> dict[str, str]:
    """Return the group of each id: the pattern's first group, searched in the id.

    With a ``gap`` it is a number, and ids whose numbers follow each other by at most the
    gap are one group, which is called by its smallest number.

    Raises:
        InputError: when an id does not match, or with a gap has no number there.
    """
    searched = compiled(pattern)
    said: dict[str, str] = {}
    for name in names:
        match = searched.search(name)
        if match is None or match[1] is None:
            raise InputError(
                sentence(
                    name,
                    found="no match",
                    wanted=f"the pattern {pattern!r}",
                    fix="correct group_pattern or leave the image out",
                )
            )
        said[name] = match[1]
    return said if gap is None else _chained(said, gap)


def _chained(said: Mapping[str, str], gap: int) -> dict[str, str]:
    """Return groups of numbers of which each follows one before it by at most ``gap``."""
    numbers: dict[str, int] = {}
    for name, text in said.items():
        if not re.fullmatch(r"[0-9]+", text):
            raise InputError(
                sentence(
                    name,
                    found=f"{text!r}",
                    wanted="a number, because group_gap is set",
                    fix="correct group_pattern or remove group_gap",
                )
            )
        numbers[name] = int(text)
    groups: dict[str, str] = {}
    first = last = None
    for number, name in sorted((number, name) for name, number in numbers.items()):
        if last is None or number - last > gap:
            first = number
        last = number
        groups[name] = str(first)
    return groups
