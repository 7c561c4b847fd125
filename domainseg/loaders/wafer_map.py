"""Wafer maps: one value per die, and the names of the patterns that failing dies form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, RecipeError, sentence
from domainseg.loaders.npz import BEYOND
from domainseg.quality.signature import PATTERNS as PATTERNS
from domainseg.records import Entry, Sample

NO_PATTERN = "None"
"""The label of a wafer on which somebody looked for a pattern and found none."""
NO_DIE, PASS, FAIL = 0, 1, 2
"""Values of a wafer map."""
BLOCK_MAPS = 4096
"""Maps checked at a time."""
MAX_ROWS = 10_000_000
"""Rows that an id of seven digits can number."""

Beyond = Literal["refuse", "fail"]

_SPELLINGS = {name.casefold(): name for name in (*PATTERNS, NO_PATTERN)}


@dataclass(frozen=True, slots=True)
class DieMaps:
    """Wafer maps of many sizes in one array.

    Attributes:
        values: uint8 ``(P,)``, the maps one after another, each row by row.
        offsets: int64 ``(N + 1,)``; map i is ``values[offsets[i]:offsets[i + 1]]``.
        shapes: int64 ``(N, 2)``, ``(H, W)`` of each map.
    """

    values: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    shapes: NDArray[np.int64]

    def map(self, index: int) -> NDArray[np.uint8]:
        """Return map ``index`` as uint8 ``(H, W)``, a view."""
        flat = self.values[self.offsets[index] : self.offsets[index + 1]]
        return flat.reshape(tuple(self.shapes[index]))


@dataclass(frozen=True, slots=True)
class LabelledMaps:
    """A data set of wafer maps, in memory.

    Attributes:
        maps: in the order of the file.
        positions: int64 ``(N,)``, where in ``maps`` each of ``listed`` is.
        rows: int64 ``(N,)``, ascending, the row of the publisher's table of each of ``listed``.
        listed: one entry per map, sorted by id.
    """

    maps: DieMaps
    positions: NDArray[np.int64]
    rows: NDArray[np.int64]
    listed: tuple[Entry, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The patterns."""
        return PATTERNS

    def entries(self) -> tuple[Entry, ...]:
        """Return every map, sorted by id, with its labels."""
        return self.listed

    def load(self, entry: Entry) -> Sample:
        """Return the map as uint8 ``(1, H, W)``: 0 no die, 1 pass, 2 fail.

        Nobody drew the pattern, so there is no truth; ``tags`` says which there are. What
        is no die is in ``ignore``.

        Raises:
            KeyError: when the entry is of another data set.
        """
        row = int(entry.id.removeprefix("row-"))
        place = int(np.searchsorted(self.rows, row))
        if place == len(self.rows) or self.rows[place] != row:
            raise KeyError(entry.id)
        dies = self.maps.map(int(self.positions[place])).copy()
        return Sample(
            id=entry.id,
            image=dies[None],
            channels=("die",),
            ignore=dies == NO_DIE,
            tags=entry.tags,
            group=entry.group,
            kind=entry.kind,
        )


def refuse_selection(root: Path, select: Mapping[str, object] | None) -> None:
    """Raise RecipeError when part of a stack is asked for, which a wafer map is not."""
    if select:
        raise RecipeError(
            sentence(
                "image.select",
                found=f"{dict(select)!r} for wafer maps in {root}",
                wanted="nothing, as a wafer map is not a stack",
                fix="remove it",
            )
        )


def row_id(row: int) -> str:
    """Return the id of a map by its row in the publisher's table."""
    return f"row-{row:07d}"


def label_of(text: str, where: str) -> str:
    """Return a label as it is spelled here, empty for none given; case does not matter.

    Raises:
        InputError: when it is no label of a wafer map.
    """
    word = text.strip()
    if not word:
        return ""
    name = _SPELLINGS.get(word.casefold())
    if name is None:
        raise InputError(
            sentence(
                where,
                found=f"the label {word!r}",
                wanted=f"one of {', '.join((*PATTERNS, NO_PATTERN))}",
                fix="correct it, or leave it empty for a map without a label",
            )
        )
    return name


def checked(
    path: Path, maps: DieMaps, rows: NDArray[np.int64], *, beyond: Beyond = "refuse"
) -> DieMaps:
    """Return maps that hold nothing but 0, 1 and 2, each with a die.

    ``rows`` ``(N,)`` names the maps in errors. With ``beyond="fail"`` a value above 2
    counts as a failing die; the array is then changed in place. ``BEYOND``, which may have
    been negative, is refused all the same.

    Raises:
        InputError: when a map has no die, or holds another value, naming its row.
    """
    for start in range(0, len(rows), BLOCK_MAPS):
        stop = min(start + BLOCK_MAPS, len(rows))
        low, high = maps.offsets[start], maps.offsets[stop]
        block = maps.values[low:high]
        # A sum over nothing is the next map's first value: empty maps come first.
        sizes = np.diff(maps.offsets[start : stop + 1])
        if not sizes.all():
            _refuse_empty(path, maps, rows, start + int(np.argmin(sizes)))
        largest = np.maximum.reduceat(block, maps.offsets[start:stop] - low)
        if not largest.all():
            _refuse_empty(path, maps, rows, start + int(np.argmin(largest)))
        over = largest > (FAIL if beyond == "refuse" else BEYOND - 1)
        if over.any():
            index = int(np.argmax(over))
            _refuse_value(path, int(rows[start + index]), int(largest[index]))
        if beyond == "fail":
            np.minimum(block, FAIL, out=block)
    return maps


def refuse_wrong_rows(path: Path, rows: NDArray[np.int64]) -> None:
    """Raise InputError unless row numbers are unique and an id can be made of each."""
    order = np.sort(rows)
    if len(order) and (order[0] < 0 or order[-1] >= MAX_ROWS):
        bad = int(order[0] if order[0] < 0 else order[-1])
        found, wanted = f"row {bad}", f"rows from 0 to {MAX_ROWS - 1}"
    elif (twice := order[1:][np.diff(order) == 0]).size:
        found, wanted = f"row {int(twice[0])} twice", "every row once"
    else:
        return
    raise InputError(sentence(path, found=found, wanted=wanted, fix="number the maps again"))


def entries_of(
    rows: NDArray[np.int64],
    labels: Sequence[tuple[str, ...]],
    *,
    columns: Sequence[Mapping[str, str]] | None = None,
    groups: Sequence[str] | None = None,
) -> tuple[Entry, ...]:
    """Return an entry per map: ``labels`` are its tags, joined by ``+`` its kind.

    An empty group stands for the map itself.
    """
    found = []
    for number, row in enumerate(rows.tolist()):
        name = row_id(row)
        tags = labels[number]
        found.append(
            Entry(
                name,
                group=(groups[number] if groups else "") or name,
                kind="+".join(tags) or None,
                tags=tags,
                columns=columns[number] if columns else {},
            )
        )
    return tuple(found)


def _refuse_empty(path: Path, maps: DieMaps, rows: NDArray[np.int64], index: int) -> None:
    height, width = maps.shapes[index].tolist()
    raise InputError(
        sentence(
            f"{path}:{row_id(int(rows[index]))}",
            found=f"a map of {height} x {width} without a die",
            wanted="at least one value above 0",
            fix="remove the row",
        )
    )


def _refuse_value(path: Path, row: int, value: int) -> None:
    found, fix = f"the value {value}", "correct the map"
    if value == BEYOND:
        found = f"a value below 0, or {BEYOND} or more"
    else:
        fix += ", or set beyond to fail to count what is above 2 as failing"
    raise InputError(
        sentence(
            f"{path}:{row_id(row)}",
            found=found,
            wanted="0 (no die), 1 (pass) or 2 (fail)",
            fix=fix,
        )
    )
