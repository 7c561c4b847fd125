"""The layout of WM-811K: wafer maps of many sizes, most of which nobody has labelled.

Two files are understood: the publisher's pickled table ``LSWMD.pkl``, and
``wm811k_subset.npz``, arrays without pickles of some of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, RecipeError, sentence
from domainseg.loaders.folder import existing_folder
from domainseg.loaders.frame_pickle import Column, column, damage_named, read_frame
from domainseg.loaders.npz import StoredArray, narrowed, stored_arrays
from domainseg.loaders.pickled_values import PickledArray
from domainseg.loaders.wafer_map import (
    Beyond,
    DieMaps,
    LabelledMaps,
    checked,
    entries_of,
    label_of,
    refuse_selection,
    refuse_wrong_rows,
    row_id,
)

FILES = ("wm811k_subset.npz", "LSWMD.pkl")
ARRAYS = {
    "maps_flat": "iub",
    "offsets": "iu",
    "shapes": "iu",
    "label": "U",
    "split": "U",
    "index": "iu",
}
"""Arrays of the ``.npz`` and the kinds of their dtypes."""
SPLITS = {"training": "train", "train": "train", "test": "test", "": ""}
"""What the publisher says of a map's split, and what a split by column reads."""
MAX_NESTING = 4
"""Arrays of one array around a label; the publisher's have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WM811K:
    """A table of wafer maps, each with at most one pattern.

    The column ``split`` of an entry is ``train``, ``test``, or empty where the publisher
    says nothing; ``lot`` and ``wafer`` are there where the file has them.

    Attributes:
        name: of the layout.
        file: the ``.npz`` or ``.pkl`` file, relative to the root; None for the one there is.
        unlabelled: keep the maps that nobody has labelled.
        group: what must not straddle a split: the lot where the file names it, or the map.
        beyond: what a value above 2 is: refused, or counted as a failing die.
    """

    name: Literal["wm811k"] = "wm811k"
    file: str | None = None
    unlabelled: bool = False
    group: Literal["lot", "map"] = "lot"
    beyond: Beyond = "refuse"

    def __post_init__(self) -> None:
        if self.file is not None and not self.file.endswith((".npz", ".pkl")):
            raise RecipeError(
                sentence(
                    "file",
                    found=self.file,
                    wanted="an .npz or a .pkl",
                    fix=f"name {FILES[0]} or {FILES[1]}, or leave it out",
                )
            )

    def with_unlabelled(self) -> Self:
        """Return the loader that keeps the maps that nobody has labelled too."""
        return replace(self, unlabelled=True)

    def open(self, root: Path, *, select: Mapping[str, object] | None = None) -> LabelledMaps:
        """Return the data set, every map in memory: a byte a die.

        Raises:
            MissingInputError: when the folder or the file is missing.
            InputError: when the file is not of its layout or names anything that would have
                to be imported, a map holds no die or a value that is none, or a label is
                unknown; the row is named.
            RecipeError: when ``select`` asks for part of a stack.
        """
        refuse_selection(root, select)
        path = self._file(existing_folder(root, "data"))
        table = _of_arrays(path) if path.suffix == ".npz" else _of_frame(path, self.unlabelled)
        refuse_wrong_rows(path, table.rows)
        maps = checked(path, table.maps, table.rows, beyond=self.beyond)
        kept = np.array([bool(label) or self.unlabelled for label in table.labels], bool)
        positions = np.flatnonzero(kept)[np.argsort(table.rows[kept])]
        return LabelledMaps(
            maps, positions, table.rows[positions], table.entries(positions, self.group == "lot")
        )

    def _file(self, root: Path) -> Path:
        """Return the file that is named, or the only one there is."""
        if self.file is not None:
            return root / self.file
        found = [root / name for name in FILES if (root / name).is_file()]
        if not found:
            raise MissingInputError(
                sentence(
                    root,
                    found="no table of wafer maps",
                    wanted=" or ".join(FILES),
                    fix="check the path or name the file",
                )
            )
        if len(found) > 1:
            raise InputError(
                sentence(root, found=" and ".join(FILES), wanted="one of them", fix="name the file")
            )
        return found[0]


@dataclass(frozen=True, slots=True)
class Table:
    """The maps of a file and what it says of each.

    Attributes:
        maps: of every row.
        rows: int64 ``(N,)``, number of each in the publisher's table.
        labels: a pattern, "None", or empty.
        splits: "train", "test", or empty.
        lots: names of the lots; None where the file has none.
        wafers: numbers in the lot, as text; None where the file has none.
    """

    maps: DieMaps
    rows: NDArray[np.int64]
    labels: Sequence[str]
    splits: Sequence[str] | None
    lots: Sequence[str] | None = None
    wafers: Sequence[str] | None = None

    def entries(self, positions: NDArray[np.int64], by_lot: bool) -> Any:
        """Return the entries of the rows at ``positions``, in their order."""
        named = {"split": self.splits, "lot": self.lots, "wafer": self.wafers}
        given = {name: values for name, values in named.items() if values is not None}
        tags = {label: (label,) if label else () for label in set(self.labels)}
        places = positions.tolist()
        return entries_of(
            self.rows[positions],
            [tags[self.labels[place]] for place in places],
            columns=[{name: values[place] for name, values in given.items()} for place in places],
            groups=[self.lots[place] for place in places] if self.lots and by_lot else None,
        )


def _of_arrays(path: Path) -> Table:
    """Return the table of an ``.npz`` file, once its arrays are found to fit."""
    stored = stored_arrays(path, ARRAYS)
    _refuse_lengths(path, stored)
    small = {name: stored[name].read() for name in ARRAYS if name != "maps_flat"}
    rows = small["index"].astype(np.int64)
    maps = DieMaps(
        stored["maps_flat"].read_bytes(),
        small["offsets"].astype(np.int64),
        small["shapes"].astype(np.int64),
    )
    _refuse_offsets(path, maps, rows)
    return Table(
        maps,
        rows,
        _each(small["label"], rows, lambda text, row: label_of(text, f"{path}:{row_id(row)}")),
        _each(small["split"], rows, lambda text, row: _split_of(text, f"{path}:{row_id(row)}")),
    )


def _each(
    words: NDArray[Any], rows: NDArray[np.int64], read: Callable[[str, int], str]
) -> list[str]:
    """Return what ``read`` makes of each word; it is called once per word, with its first row."""
    unique, first, inverse = np.unique(words, return_index=True, return_inverse=True)
    meanings = [
        read(str(word), int(rows[place])) for word, place in zip(unique, first, strict=True)
    ]
    return [meanings[number] for number in inverse.tolist()]


def _split_of(text: str, where: str) -> str:
    word = text.strip().casefold()
    if word not in SPLITS:
        raise InputError(
            sentence(
                where,
                found=f"the split {text.strip()!r}",
                wanted="Training, Test or nothing",
                fix="correct it",
            )
        )
    return SPLITS[word]


def _of_frame(path: Path, unlabelled: bool) -> Table:
    """Return the labelled rows of a pickled frame, or all of them."""
    frame = read_frame(path)
    with damage_named(path):
        return _of_columns(path, frame, unlabelled)


def _of_columns(path: Path, frame: dict[str, Column], unlabelled: bool) -> Table:
    found = column(path, frame, "waferMap")
    words: dict[Any, str] = {}

    def texts(*names: str, read: Callable[[str, str], str]) -> list[str]:
        cells = column(path, frame, *names)
        return [read(_text(cell, words), f"{path}:{row_id(i)}") for i, cell in enumerate(cells)]

    labels = texts("failureType", read=label_of)
    splits = texts("trianTestLabel", "trainTestLabel", read=_split_of)
    rows = np.array([i for i, label in enumerate(labels) if label or unlabelled], np.int64)
    kept = rows.tolist()
    lots = [_plain(frame["lotName"][i]) for i in kept] if "lotName" in frame else None
    wafers = [_plain(frame["waferIndex"][i]) for i in kept] if "waferIndex" in frame else None
    frame.clear()
    maps = _packed(path, found, rows)
    return Table(maps, rows, [labels[i] for i in kept], [splits[i] for i in kept], lots, wafers)


def _text(cell: Any, words: dict[Any, str]) -> str:
    """Return the one text in the arrays around it, empty where they hold none.

    ``words`` remembers what arrays of the same bytes say.
    """
    for _ in range(MAX_NESTING):
        if isinstance(cell, PickledArray):
            if not isinstance(cell.raw, list):
                key = (cell.type.dtype.str, cell.raw)
                if key not in words:
                    words[key] = _only(cell.items())
                return words[key]
            cell = cell.raw
        if not isinstance(cell, list | tuple):
            return _plain(cell)
        cell = cell[0] if len(cell) == 1 else _only(cell)
    raise ValueError


def _only(items: Sequence[Any] | NDArray[Any]) -> str:
    if len(items) > 1:
        raise ValueError
    return _plain(items[0]) if len(items) else ""


def _plain(value: Any) -> str:
    """Return a value as text: a whole number without a fraction, nothing for none."""
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return value
    number = float(value)
    return str(int(number)) if number.is_integer() else str(number)


def _packed(path: Path, cells: Column, rows: NDArray[np.int64]) -> DieMaps:
    """Return the maps of ``rows`` in one array; ``cells`` is emptied meanwhile.

    So that no map is held twice, each is let go once it is copied.
    """
    shapes = np.zeros((len(rows), 2), np.int64)
    for number, row in enumerate(rows.tolist()):
        cell = cells[row]
        two = isinstance(cell, PickledArray) and len(cell.shape) == 2
        if not two or cell.type.dtype.kind not in "iub":
            raise _no_map(path, row, cell)
        shapes[number] = cell.shape
    offsets = np.concatenate([[0], np.cumsum(shapes.prod(1))]).astype(np.int64)
    values = np.empty(int(offsets[-1]), np.uint8)
    for number, row in enumerate(rows.tolist()):
        array = narrowed(cells[row].array())
        cells[row] = None
        values[offsets[number] : offsets[number + 1]] = array.reshape(-1)
    return DieMaps(values, offsets, shapes)


def _no_map(path: Path, row: int, cell: Any) -> InputError:
    found = "no array"
    if isinstance(cell, PickledArray):
        found = f"an array of {cell.type.dtype} of {len(cell.shape)} axes"
    return InputError(
        sentence(
            f"{path}:{row_id(row)}",
            found=found,
            wanted="a map of integers of two axes",
            fix="correct waferMap or remove the row",
        )
    )


def _refuse_lengths(path: Path, stored: Mapping[str, StoredArray]) -> None:
    """Raise InputError unless there are as many of everything as there are labels."""
    count = stored["label"].shape[0] if stored["label"].shape else 0
    wanted = {
        "maps_flat": stored["maps_flat"].shape[:1],
        "offsets": (count + 1,),
        "shapes": (count, 2),
        "label": (count,),
        "split": (count,),
        "index": (count,),
    }
    for name, shape in wanted.items():
        if stored[name].shape != shape:
            raise InputError(
                sentence(
                    f"{path}:{name}",
                    found=f"an array of {stored[name].shape}",
                    wanted=f"{shape or 'one axis'}, for {count} labels",
                    fix="use the publisher's file",
                )
            )


def _refuse_offsets(path: Path, maps: DieMaps, rows: NDArray[np.int64]) -> None:
    """Raise InputError unless the maps fill their array, each as its shape says."""
    sizes = np.diff(maps.offsets)
    # A side beyond the whole array could make the product wrap around to what was wanted.
    absurd = ((maps.shapes < 0) | (maps.shapes > len(maps.values))).any(1)
    if wrong := np.flatnonzero(absurd | (sizes != maps.shapes.prod(1))).tolist():
        height, width = maps.shapes[wrong[0]].tolist()
        raise InputError(
            sentence(
                f"{path}:{row_id(int(rows[wrong[0]]))}",
                found=f"{int(sizes[wrong[0]])} values for a map of {height} x {width}",
                wanted=f"{height * width}, from offsets to offsets",
                fix="correct offsets or shapes",
            )
        )
    first, last = int(maps.offsets[0]), int(maps.offsets[-1])
    if (first, last) != (0, len(maps.values)):
        raise InputError(
            sentence(
                f"{path}:offsets",
                found=f"{first} to {last}",
                wanted=f"0 to {len(maps.values)}, the length of maps_flat",
                fix="correct offsets",
            )
        )
