"""Images and categories of a COCO file, and the files its images name."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.encode import countable
from domainseg.loaders.coco_faults import (
    CATEGORY_FIELDS,
    CATEGORY_TWICE,
    FILE_MISSING,
    FILE_UNCLEAR,
    IMAGE_FIELDS,
    IMAGE_TWICE,
    NAME_TWICE,
    Fault,
    Tally,
)

_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Category:
    """A category of a COCO file.

    Attributes:
        id: in the file.
        name: of the class.
        isthing: whether it is counted in objects; stuff is a region of pixels.
    """

    id: int
    name: str
    isthing: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """The images of a COCO file, in its order.

    Attributes:
        ids: int64 ``(M,)``, unique.
        names: what the file calls each, ``(M,)``.
        sizes: int64 ``(M, 2)``, height and width, px.
    """

    ids: NDArray[np.int64]
    names: Sequence[str]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each image id, int64 ``(N,)``, -1 where no image has it."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        order = np.argsort(self.ids, kind="stable")
        ranked = self.ids[order]
        places = np.minimum(np.searchsorted(ranked, ids), len(ranked) - 1)
        return np.where(ranked[places] == ids, order[places], -1).astype(np.int64)


def whole(value: Any) -> int | None:
    """Return a whole number of JSON, also one written as 5.0, else None."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -_LIMIT < value < _LIMIT else None


def at_byte(start: int) -> str:
    """Return how something without an id is called."""
    return f"at byte {start}"


@dataclass(slots=True)
class ImageRows:
    """Takes the list of images."""

    tally: Tally
    _ids: dict[int, None] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)
    _sizes: array[int] = field(default_factory=lambda: array("q"))

    def take(self, value: Any, start: int, stop: int) -> None:
        """Take an image; one that cannot be used is counted instead."""
        entry = value if isinstance(value, dict) else {}
        number, name = whole(entry.get("id")), entry.get("file_name")
        height, width = whole(entry.get("height")), whole(entry.get("width"))
        if number is None or not (height and width) or min(height, width) < 1:
            self.tally.add(IMAGE_FIELDS, at_byte(start) if number is None else number)
        elif not (isinstance(name, str) and last_part(name)) or not countable((height, width)):
            self.tally.add(IMAGE_FIELDS, number)
        elif number in self._ids:
            self.tally.add(IMAGE_TWICE, number)
        else:
            self._ids[number] = None
            self._names.append(name)
            self._sizes.extend((height, width))

    def images(self) -> Images:
        """Return what was taken."""
        return Images(
            np.fromiter(self._ids, np.int64, len(self._ids)),
            tuple(self._names),
            np.array(self._sizes, np.int64).reshape(-1, 2),
        )


@dataclass(slots=True)
class CategoryRows:
    """Takes the list of categories."""

    tally: Tally
    _taken: dict[int, Category] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def take(self, value: Any, start: int, stop: int) -> None:
        """Take a category; one that cannot be used is counted instead."""
        entry = value if isinstance(value, dict) else {}
        number, name = whole(entry.get("id")), entry.get("name")
        if number is None or not (isinstance(name, str) and name):
            self.tally.add(CATEGORY_FIELDS, at_byte(start) if number is None else number)
        elif number in self._taken:
            self.tally.add(CATEGORY_TWICE, number)
        elif name in self._names:
            self.tally.add(NAME_TWICE, number)
        else:
            self._names.add(name)
            self._taken[number] = Category(number, name, entry.get("isthing", 1) != 0)

    def categories(self) -> tuple[Category, ...]:
        """Return what was taken, in the order of the ids."""
        return tuple(self._taken[number] for number in sorted(self._taken))


def class_indices(categories: Sequence[Category], ids: NDArray[np.int64]) -> NDArray[np.int16]:
    """Return the place of each category id among ``categories``, int16, -1 where none has it.

    ``categories`` are in the order of their ids.
    """
    known = np.array([one.id for one in categories], np.int64)
    if not len(known):
        return np.full(len(ids), -1, np.int16)
    places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[places] == ids, places, -1).astype(np.int16)


class Files:
    """The files below a folder, found by what a COCO file calls them.

    Hidden files and folders are passed over, and those of ``skip``; folders that are links
    are followed.
    """

    def __init__(self, folder: Path, *, skip: Path | None = None) -> None:
        self.folder = folder
        self._paths: set[str] = set()
        self._by_last: dict[str, list[str]] = {}
        entered = {os.path.realpath(skip)} if skip is not None else set()
        for place, folders, files in os.walk(folder, followlinks=True):
            real = os.path.realpath(place)
            # A link may lead back up.
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = os.path.relpath(place, folder).replace(os.sep, "/")
            prefix = "" if below == "." else f"{below}/"
            for name in files:
                if not name.startswith("."):
                    self._paths.add(prefix + name)
                    self._by_last.setdefault(name, []).append(prefix + name)

    def find(self, name: str) -> str | Fault:
        """Return the path below the folder of what a COCO file calls ``name``, or what is wrong.

        That is the path ``name`` itself; else the one file with its last part as name,
        whatever folders or address stand before it; of several the one that also agrees in
        the folders.
        """
        if name in self._paths:
            return name
        path = PurePosixPath(_plain(name)).as_posix()
        if path in self._paths:
            return path
        found = self._by_last.get(last_part(name), [])
        if len(found) > 1:
            found = [one for one in found if path.endswith(f"/{one}") or one.endswith(f"/{path}")]
            return found[0] if len(found) == 1 else FILE_UNCLEAR
        return found[0] if found else FILE_MISSING


def last_part(name: str) -> str:
    r"""Return the name of the file in a path, also one of Windows, or an address.

    >>> last_part("http://images.example.org/train/a%20b.jpg?size=1"), last_part(r"c\d.png")
    ('a b.jpg', 'd.png')
    """
    return _plain(name).rstrip("/").rpartition("/")[2]


def _plain(name: str) -> str:
    if "://" in name:
        return unquote(urlsplit(name).path)
    return name.replace("\\", "/")
