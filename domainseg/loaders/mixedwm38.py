"""The layout of MixedWM38: wafer maps of 52 x 52 dies, each with any of eight patterns.

``arr_0`` ``(N, 52, 52)`` holds the maps, ``arr_1`` ``(N, 8)`` a 1 for every pattern of a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.loaders.folder import existing_folder
from domainseg.loaders.npz import stored_arrays
from domainseg.loaders.wafer_map import (
    NO_PATTERN,
    PATTERNS,
    Beyond,
    DieMaps,
    LabelledMaps,
    checked,
    entries_of,
    refuse_selection,
    row_id,
)

COLUMNS: tuple[str, ...] = (
    "Center",
    "Donut",
    "Edge-Loc",
    "Edge-Ring",
    "Loc",
    "Near-full",
    "Scratch",
    "Random",
)
"""What the columns of ``arr_1`` stand for; the last two are the other way round than elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedWM38:
    """One file of wafer maps of one size, with several patterns to a map.

    Attributes:
        name: of the layout.
        file: the ``.npz``, relative to the root.
        beyond: what a value above 2 is, which the publisher's file holds some of: refused,
            or counted as a failing die.
    """

    name: Literal["mixedwm38"] = "mixedwm38"
    file: str = "Wafer_Map_Datasets.npz"
    beyond: Beyond = "refuse"

    def open(self, root: Path, *, select: Mapping[str, object] | None = None) -> LabelledMaps:
        """Return the data set, every map in memory: a byte a die.

        Raises:
            MissingInputError: when the folder or the file is missing.
            InputError: when the file is no ``.npz`` of two such arrays, a map holds no die or
                a value that is none, or a label is neither 0 nor 1.
            RecipeError: when ``select`` asks for part of a stack.
        """
        refuse_selection(root, select)
        path = existing_folder(root, "data") / self.file
        arrays = stored_arrays(path, {"arr_0": "iub", "arr_1": "iub"})
        shapes = {name: array.shape for name, array in arrays.items()}
        _refuse_shapes(path, shapes["arr_0"], shapes["arr_1"])
        count, height, width = shapes["arr_0"]
        labels = arrays["arr_1"].read()
        _refuse_labels(path, labels)
        rows = np.arange(count, dtype=np.int64)
        maps = DieMaps(
            values=arrays["arr_0"].read_bytes().reshape(-1),
            offsets=np.arange(count + 1, dtype=np.int64) * (height * width),
            shapes=np.broadcast_to(np.array([height, width], np.int64), (count, 2)),
        )
        maps = checked(path, maps, rows, beyond=self.beyond)
        return LabelledMaps(maps, rows, rows, entries_of(rows, _tags(labels)))


def _tags(labels: NDArray[Any]) -> list[tuple[str, ...]]:
    """Return the patterns of each row of ``arr_1``, in the order of ``PATTERNS``.

    A row without any is a wafer without a pattern. Equal rows share their tuple.
    """
    places = [COLUMNS.index(name) for name in PATTERNS]
    ordered = labels[:, places] > 0
    codes = ordered @ (1 << np.arange(len(PATTERNS)))
    known: dict[int, tuple[str, ...]] = {0: (NO_PATTERN,)}
    for code in np.unique(codes).tolist():
        if code:
            known[code] = tuple(name for i, name in enumerate(PATTERNS) if code >> i & 1)
    return [known[code] for code in codes.tolist()]


def _refuse_shapes(path: Path, maps: tuple[int, ...], labels: tuple[int, ...]) -> None:
    if len(maps) != 3 or labels != (maps[0], len(COLUMNS)) or not maps[0]:
        raise InputError(
            sentence(
                path,
                found=f"arr_0 of {maps} and arr_1 of {labels}",
                wanted=f"(N, H, W) maps and their (N, {len(COLUMNS)}) labels",
                fix="use the publisher's file",
            )
        )


def _refuse_labels(path: Path, labels: NDArray[Any]) -> None:
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            sentence(
                f"{path}:{row_id(row)}",
                found=f"{int(labels[row, column])} for {COLUMNS[column]}",
                wanted="1 where the map has the pattern, else 0",
                fix="correct arr_1",
            )
        )
