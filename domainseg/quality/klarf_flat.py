"""Versions 1.1 and 1.2 of KLARF: statements that end with a semicolon, lengths in micrometres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.quality.klarf import (
    INTEGERS,
    MARKS,
    Image,
    InspectionTest,
    Klarf,
    Table,
    Version,
    Wafer,
)
from domainseg.quality.klarf_tokens import END, NUMBER, QUOTED, WORD, Tokens
from domainseg.records import Array

MOST_COLUMNS = 1024
"""Of a list of defects; tools write about 40."""
_LOT_TIMES = ("FileTimestamp", "ResultTimestamp")
_IMAGES, _COUNT = "IMAGELIST", "IMAGECOUNT"


class Statement(NamedTuple):
    """One statement: its name, and the tokens behind it from ``first`` to before ``stop``."""

    name: str
    at: int
    first: int
    stop: int


def read_flat(tokens: Tokens) -> Klarf:
    """Return the file that the tokens are of.

    Raises:
        InputError: a statement is not what its name asks for; the line is named.
    """
    state = _State(tokens)
    ended = False
    for statement in _statements(tokens):
        if ended:
            raise tokens.refuse(
                statement.at,
                found=f"{statement.name} behind EndOfFile",
                wanted="nothing there",
                fix="remove what follows EndOfFile",
            )
        ended = statement.name == "EndOfFile"
        if not ended:
            state.take(statement)
    if not ended:
        raise tokens.refuse(
            len(tokens),
            found="the end of the file",
            wanted="EndOfFile at its end",
            fix="the file may be cut short: fetch it again",
        )
    return state.klarf()


def _statements(tokens: Tokens) -> Iterator[Statement]:
    first = 0
    for end in np.flatnonzero(tokens.kind == END).tolist():
        if end == first:  # a semicolon by itself
            first = end + 1
            continue
        if tokens.kind[first] != WORD:
            raise tokens.refuse(
                first,
                found=f"{tokens.word(first)!r} at the beginning of a statement",
                wanted="its name",
                fix="correct the statement, or the semicolon before it",
            )
        yield Statement(tokens.word(first), first, first + 1, end)
        first = end + 1
    if first < len(tokens):
        raise tokens.refuse(
            first,
            found=f"{tokens.word(first)!r} without a semicolon",
            wanted="one at its end",
            fix="the file may be cut short: fetch it again",
        )


@dataclass
class _WaferState:
    name: str = ""
    slot: int | None = None
    die_origin: tuple[float, float] = (0.0, 0.0)
    center: tuple[float, float] | None = None
    tests: dict[int, InspectionTest] = field(default_factory=dict)
    test: int | None = None
    names: tuple[str, ...] = ()
    blocks: list[dict[str, Array]] = field(default_factory=list)
    images: dict[int, tuple[Image, ...]] = field(default_factory=dict)
    rows: int = 0
    summary_names: tuple[str, ...] = ()
    summaries: list[dict[str, Array]] = field(default_factory=list)
    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)
    begun: bool = False

    def wafer(self) -> Wafer:
        return Wafer(
            self.name,
            self.slot,
            self.die_origin,
            self.center,
            tuple(self.tests.values()),
            Table(_joined(self.blocks, self.names)),
            self.images,
            Table(_joined(self.summaries, self.summary_names)),
            self.fields,
        )


class _State:
    """What was read so far. Statements of the lot stand before the first wafer's."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.version: Version = "1.2"
        self.lot = ""
        self.pitch: tuple[float, float] | None = None
        self.diameter: float | None = None
        self.mark: str | None = None
        self.degrees: float | None = None
        self.classes: dict[int, str] = {}
        self.times: dict[str, tuple[str, ...]] = {}
        self.fields: dict[str, tuple[str, ...]] = {}
        self.wafers: list[_WaferState] = []
        self.now = _WaferState()
        self.picture_file = ""

    def klarf(self) -> Klarf:
        wafers = [*self.wafers, self.now] if self.now.begun or not self.wafers else self.wafers
        return Klarf(
            self.version,
            self.lot,
            self.pitch,
            self.diameter,
            self.mark,
            self.degrees,
            self.classes,
            {},
            tuple(w.wafer() for w in wafers),
            self.times,
            self.fields,
        )

    def take(self, s: Statement) -> None:
        reader = _READERS.get(s.name)
        if reader is not None:
            reader(self, s)
        elif s.name in _LOT_TIMES and not self.wafers:
            self.times[s.name] = self.tokens.words(s.first, s.stop)
        else:
            into = self.now.fields if self.now.begun else self.fields
            into[s.name] = self.tokens.words(s.first, s.stop)

    # Statements in the order of a file.

    def file_version(self, s: Statement) -> None:
        version = ".".join(self.tokens.words(s.first, s.stop))
        if version not in ("1.1", "1.2"):
            raise self.tokens.refuse(
                s.at,
                found=f"FileVersion {version.replace('.', ' ')}",
                wanted="1 1, 1 2, or a file of version 1.8",
                fix="export it as one of these",
            )
        self.version = version  # type: ignore[assignment]

    def lot_id(self, s: Statement) -> None:
        self.lot = self._text(s)

    def wafer_id(self, s: Statement) -> None:
        if self.now.begun:
            self.wafers.append(self.now)
            self.now = _WaferState(
                die_origin=self.now.die_origin, center=self.now.center, names=self.now.names
            )
        self.now.begun = True
        self.now.name = self._text(s)

    def slot(self, s: Statement) -> None:
        self.now.slot = self._integers(s, 1)[0]

    def sample_size(self, s: Statement) -> None:
        self.diameter = self._numbers(s, 2)[1]

    def mark_type(self, s: Statement) -> None:
        self.mark = self._text(s)

    def mark_location(self, s: Statement) -> None:
        text = self._text(s)
        if text.upper() not in MARKS:
            raise self.tokens.refuse(
                s.at,
                found=f"OrientationMarkLocation {text}",
                wanted=", ".join(MARKS),
                fix="correct it",
            )
        self.degrees = float(MARKS[text.upper()])

    def die_pitch(self, s: Statement) -> None:
        x, y = self._numbers(s, 2)
        self.pitch = (x, y)

    def die_origin(self, s: Statement) -> None:
        x, y = self._numbers(s, 2)
        self.now.die_origin = (x, y)

    def center(self, s: Statement) -> None:
        x, y = self._numbers(s, 2)
        self.now.center = (x, y)

    def class_lookup(self, s: Statement) -> None:
        rows = self._counted(s, 2)
        for row in rows.tolist():
            number = self._integer(row)
            self.classes[number] = self.tokens.word(row + 1)

    def inspection_test(self, s: Statement) -> None:
        self.now.test = self._integers(s, 1)[0]
        self.now.tests.setdefault(self.now.test, InspectionTest(self.now.test))

    def _test(self) -> InspectionTest:
        number = 1 if self.now.test is None else self.now.test
        return self.now.tests.get(number, InspectionTest(number))

    def plan(self, s: Statement) -> None:
        rows = self._counted(s, 2)
        plan = np.stack([self._whole(rows), self._whole(rows + 1)], 1)
        test = self._test()
        self.now.tests[test.number] = InspectionTest(test.number, test.area_um2, plan)

    def area(self, s: Statement) -> None:
        (area,) = self._numbers(s, 1)
        test = self._test()
        self.now.tests[test.number] = InspectionTest(test.number, area, test.plan)

    def picture(self, s: Statement) -> None:
        self.picture_file = self._text(s)

    def record_spec(self, s: Statement) -> None:
        names = self._names(s)
        if self.now.blocks and names != self.now.names:
            raise self.tokens.refuse(
                s.at,
                found="another DefectRecordSpec behind defects",
                wanted="one for all defects of a wafer",
                fix="split the file",
            )
        if _IMAGES in names and (names[-1] != _IMAGES or _COUNT not in names):
            raise self.tokens.refuse(
                s.at,
                found=f"{_IMAGES} without {_COUNT} before it, or not last",
                wanted=f"{_COUNT} before and {_IMAGES} last",
                fix="correct the order",
            )
        self.now.names = names

    def defects(self, s: Statement) -> None:
        if s.first == s.stop:
            return
        if not self.now.names:
            raise self.tokens.refuse(
                s.at,
                found="DefectList before DefectRecordSpec",
                wanted="the names of its columns first",
                fix="move it",
            )
        now, plain = self.now, [name for name in self.now.names if name != _IMAGES]
        count_at = plain.index(_COUNT) if _IMAGES in now.names else -1
        starts, style = self._rows(s, len(plain), count_at)
        kept = [*plain]
        if count_at >= 0:
            kept.remove(_COUNT)  # the images themselves say how many they are
            self._pictures(starts, len(plain), count_at, counted=style == _COUNTED)
        columns = {name: starts + plain.index(name) for name in kept}
        now.blocks.append({name: _column(self.tokens, name, at) for name, at in columns.items()})
        now.rows += len(starts)
        now.begun = True

    def _pictures(
        self, starts: NDArray[np.int64], width: int, count_at: int, *, counted: bool
    ) -> None:
        counts = self.tokens.value[starts + count_at]
        for row in np.flatnonzero(counts > 0).tolist():
            first = int(starts[row]) + width + counted
            self.now.images[self.now.rows + row] = tuple(
                Image(self._integer(i), self.tokens.word(i + 1), self.picture_file)
                for i in range(first, first + 2 * int(counts[row]), 2)
            )

    def summary_spec(self, s: Statement) -> None:
        self.now.summary_names = self._names(s)

    def summary(self, s: Statement) -> None:
        names = self.now.summary_names
        if s.first == s.stop:
            return
        if not names or (s.stop - s.first) % len(names):
            raise self.tokens.refuse(
                s.at,
                found=f"{s.stop - s.first} values in SummaryList",
                wanted=f"rows of {len(names)}, as SummarySpec says",
                fix="correct it",
            )
        starts = np.arange(s.first, s.stop, len(names), dtype=np.int64)
        self.now.summaries.append(
            {name: _column(self.tokens, name, starts + i) for i, name in enumerate(names)}
        )

    # Pieces of statements.

    def _rows(self, s: Statement, width: int, count_at: int) -> tuple[NDArray[np.int64], int]:
        styles = (_COUNTED, _PAIRS) if count_at >= 0 else (_PLAIN,)
        wrong = 0
        for style in styles:
            starts = np.empty((s.stop - s.first) // width + 1, np.int64)
            count, bad = _row_starts(
                self.tokens.value, self.tokens.line, s.first, s.stop, width, count_at, style, starts
            )
            if bad < 0:
                return starts[:count], style
            wrong = max(wrong, int(bad))
        line = self.tokens.line[wrong]
        held = int(np.count_nonzero(self.tokens.line[wrong : s.stop] == line))
        raise self.tokens.refuse(
            wrong,
            found=f"a defect of {held} values",
            fix="correct the row",
            wanted=f"{width}, as DefectRecordSpec says"
            + (", and as many images as IMAGECOUNT says" if count_at >= 0 else ""),
        )

    def _names(self, s: Statement) -> tuple[str, ...]:
        count = self._integer(s.first) if s.first < s.stop else 0
        names = self.tokens.words(s.first + 1, s.stop)
        if not 0 < count <= MOST_COLUMNS or len(names) != count or len(set(names)) < count:
            raise self.tokens.refuse(
                s.at,
                found=f"{len(set(names))} names in {s.name} {count}",
                wanted=f"as many different names as it says, at most {MOST_COLUMNS}",
                fix="correct the number or the names",
            )
        return names

    def _counted(self, s: Statement, width: int) -> NDArray[np.int64]:
        """Return the first token of each row of a list that begins with its length."""
        count = self._integer(s.first) if s.first < s.stop else 0
        if s.stop - s.first - 1 != count * width:
            raise self.tokens.refuse(
                s.at,
                found=f"{s.name} {count} with {s.stop - s.first - 1} values",
                wanted=f"{count * width}",
                fix="correct the number or the rows",
            )
        return s.first + 1 + width * np.arange(count, dtype=np.int64)

    def _text(self, s: Statement) -> str:
        return " ".join(self.tokens.words(s.first, s.stop))

    def _numbers(self, s: Statement, count: int) -> list[float]:
        values = self.tokens.value[s.first : s.stop]
        if len(values) != count or not np.isfinite(values).all():
            raise self.tokens.refuse(
                s.at,
                found=f"{s.name} {self._text(s)}",
                wanted="a number" if count == 1 else f"{count} numbers",
                fix="correct it",
            )
        return [float(value) for value in values]

    def _integers(self, s: Statement, count: int) -> list[int]:
        self._numbers(s, count)
        return [self._integer(i) for i in range(s.first, s.stop)]

    def _integer(self, index: int) -> int:
        value = self.tokens.value[index]
        if not abs(value) < 2**53 or value != np.floor(value):
            raise self.tokens.refuse(
                index, found=self.tokens.word(index), wanted="a whole number", fix="correct it"
            )
        return int(value)

    def _whole(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        values = self.tokens.value[at]
        wrong = np.flatnonzero(~(np.abs(values) < 2**53) | (values != np.floor(values)))
        if len(wrong):
            self._integer(int(at[wrong[0]]))
        return values.astype(np.int64)


_READERS: dict[str, Any] = {
    "FileVersion": _State.file_version,
    "LotID": _State.lot_id,
    "WaferID": _State.wafer_id,
    "Slot": _State.slot,
    "SampleSize": _State.sample_size,
    "SampleOrientationMarkType": _State.mark_type,
    "OrientationMarkLocation": _State.mark_location,
    "DiePitch": _State.die_pitch,
    "DieOrigin": _State.die_origin,
    "SampleCenterLocation": _State.center,
    "ClassLookup": _State.class_lookup,
    "InspectionTest": _State.inspection_test,
    "SampleTestPlan": _State.plan,
    "AreaPerTest": _State.area,
    "TiffFileName": _State.picture,
    "DefectRecordSpec": _State.record_spec,
    "DefectList": _State.defects,
    "SummarySpec": _State.summary_spec,
    "SummaryList": _State.summary,
}

_PLAIN, _COUNTED, _PAIRS = 0, 1, 2
"""How images follow a defect: not at all; ``n`` and n pairs; pairs, as many as IMAGECOUNT."""


@kernel
def _row_starts(
    value: Any, line: Any, first: int, stop: int, width: int, count_at: int, style: int, starts: Any
) -> Any:
    """Write the first token of each row; return their number and -1, or where one is wrong.

    A row begins on a line of its own and may go on over the next.
    """
    at, count = first, 0
    while at < stop:
        begin = at
        at += width
        if at > stop:
            return count, begin
        if style > 0:
            images = value[begin + count_at]
            if not (images >= 0.0 and images < 1e6) or images != np.floor(images):
                return count, begin
            if style == 1:
                if at >= stop or value[at] != images:
                    return count, begin
                at += 1
            at += 2 * int(images)
            if at > stop:
                return count, begin
        if at < stop and line[at] == line[at - 1]:
            return count, begin
        starts[count] = begin
        count += 1
    return count, -1


def _column(tokens: Tokens, name: str, at: NDArray[np.int64]) -> Array:
    """Return the values of the tokens at ``at``: text where one is neither number nor ``NA``."""
    for i in at[tokens.kind[at] != NUMBER].tolist():
        if tokens.kind[i] == QUOTED or tokens.word(i) != "NA":
            return np.array([tokens.word(k) for k in at.tolist()], object)
    return _whole_numbers(name, tokens.value[at])


def _whole_numbers(name: str, values: NDArray[np.float64]) -> Array:
    """Return int64 where the column is one of INTEGERS and holds nothing else."""
    if name in INTEGERS and (np.abs(values) < 2**53).all() and (values == np.floor(values)).all():
        return values.astype(np.int64)
    return values


def _joined(blocks: list[dict[str, Array]], names: tuple[str, ...]) -> dict[str, Array]:
    """Return blocks of the same columns as one."""
    kept = [name for name in names if name != _IMAGES]
    if _IMAGES in names:
        kept.remove(_COUNT)
    if not blocks:
        return {name: np.zeros(0, np.int64 if name in INTEGERS else float) for name in kept}
    return {name: np.concatenate([block[name] for block in blocks]) for name in kept}
