"""Version 1.8 of KLARF: records within records, lengths in nanometres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.quality.klarf import (
    AREAS,
    INTEGERS,
    LENGTHS,
    Image,
    InspectionTest,
    Klarf,
    Table,
    Wafer,
)
from domainseg.quality.klarf_tokens import CLOSE, COMMA, END, NUMBER, OPEN, QUOTED, WORD, Tokens
from domainseg.quality.klarf_units import MM_NM, UM2_NM2, UM_NM, to_larger_unit
from domainseg.records import Array

DEEPEST = 32
"""Records within records; files have four."""
_PICTURES = "ImageList"
RENAMED = {"RecipeID": "SetupID"}
"""Fields that 1.2 has another name for."""


class Cells(NamedTuple):
    """A list of a file: names and types of its columns, and the first token of every cell."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    at: NDArray[np.int64]


@dataclass
class Record:
    """One record: label, fields, lists, and the records inside."""

    name: str
    label: str
    at: int
    fields: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lists: dict[str, Cells] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)


def read_nested(tokens: Tokens) -> Klarf:
    """Return the file that the tokens are of.

    Raises:
        InputError: the file is not built as it should be; the line is named.
    """
    return _Meaning(tokens, _Parser(tokens).file()).klarf()


class _Parser:
    """Builds the tree of records, by position; it looks at no value but counts and braces."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.at = 0
        self.closing = np.full(len(tokens), -1, np.int64)
        _match_braces(tokens.kind, self.closing, np.empty(len(tokens), np.int64))

    def file(self) -> Record:
        self._word("Record")
        root = self._record(0)
        if self.at < len(self.tokens):
            self._word("EndOfFile")
            self._sign(END)
        else:
            raise self._wanted("EndOfFile")
        if self.at < len(self.tokens):
            raise self._wanted("nothing behind EndOfFile")
        return root

    def _record(self, depth: int) -> Record:
        at = self.at
        if depth > DEEPEST:
            raise self._wanted(f"at most {DEEPEST} records within each other")
        record = Record(self._text(), "" if self._is(OPEN) else self._text(), at)
        self._sign(OPEN)
        while not self._is(CLOSE):
            what = self._text()
            if what == "Record":
                record.records.append(self._record(depth + 1))
            elif what == "Field":
                name = self._text()
                record.fields[name] = self._field()
            elif what == "List":
                name = self._text()
                record.lists[name] = self._list()
            else:
                self.at -= 1
                raise self._wanted("Record, Field, List or }")
        self._sign(CLOSE)
        return record

    def _field(self) -> tuple[int, ...]:
        count = self._count()
        self._sign(OPEN)
        values: list[int] = []
        while not self._is(CLOSE):
            if values:
                self._sign(COMMA)
            values.append(self.at)
            self._text()
        self._sign(CLOSE)
        if len(values) != count:
            self.at -= 1
            raise self._wanted(f"{count} values, as the field says")
        return tuple(values)

    def _list(self) -> Cells:
        self._sign(OPEN)
        self._word("Columns")
        count = self._count()
        self._sign(OPEN)
        names: list[str] = []
        types: list[str] = []
        while not self._is(CLOSE):
            if names:
                self._sign(COMMA)
            types.append(self._text())
            names.append(self._text())
        self._sign(CLOSE)
        if len(names) != count or len(set(names)) < count or not names:
            self.at -= 1
            raise self._wanted(f"{count} columns of different names")
        self._word("Data")
        rows = self._count()
        at = self._cells(rows, len(names))
        self._sign(CLOSE)
        return Cells(tuple(names), tuple(types), at)

    def _cells(self, rows: int, width: int) -> NDArray[np.int64]:
        """Return the first token of each cell ``(rows, width)``; one may be a group of images."""
        if not self._is(OPEN):
            raise self._wanted("{")
        close = int(self.closing[self.at])
        if close < 0:
            raise self._wanted("a } that closes this {")
        first = self.at + 1
        at = np.empty((min(rows, close - first), width), np.int64)
        wrong, reason = (
            _cell_starts(self.tokens.kind, self.closing, first, close, at)
            if rows <= close - first
            else (close, 1)
        )
        if wrong >= 0:
            self.at = int(wrong)
            raise self._wanted(
                f"{rows} rows, as Data says"
                if reason == 1
                else f"a row of {width} values and a semicolon"
            )
        self.at = close + 1
        return at

    def _count(self) -> int:
        value = self.tokens.value[self.at] if self.at < len(self.tokens) else np.nan
        if not 0 <= value < 1e9 or value != np.floor(value):
            raise self._wanted("a number of values")
        self.at += 1
        return int(value)

    def _text(self) -> str:
        if self.at >= len(self.tokens) or self.tokens.kind[self.at] > QUOTED:
            raise self._wanted("a name or a value")
        self.at += 1
        return self.tokens.word(self.at - 1)

    def _word(self, wanted: str) -> None:
        if self.at >= len(self.tokens) or self.tokens.word(self.at) != wanted:
            raise self._wanted(wanted)
        self.at += 1

    def _is(self, kind: int) -> bool:
        if self.at >= len(self.tokens):
            raise self._wanted("}")
        return bool(self.tokens.kind[self.at] == kind)

    def _sign(self, kind: int) -> None:
        if self.at >= len(self.tokens) or self.tokens.kind[self.at] != kind:
            raise self._wanted({END: "a semicolon", OPEN: "{", CLOSE: "}", COMMA: ","}[kind])
        self.at += 1

    def _wanted(self, wanted: str) -> Exception:
        ended = self.at >= len(self.tokens)
        return self.tokens.refuse(
            self.at,
            found="the end of the file" if ended else repr(self.tokens.word(self.at)[:80]),
            wanted=wanted,
            fix="the file may be cut short: fetch it again" if ended else "correct the line",
        )


@kernel
def _match_braces(kind: Any, closing: Any, stack: Any) -> None:
    """Write the place of the closing brace of every opening one."""
    depth = 0
    for at in range(len(kind)):
        if kind[at] == OPEN:
            stack[depth] = at
            depth += 1
        elif kind[at] == CLOSE and depth > 0:
            depth -= 1
            closing[stack[depth]] = at


@kernel
def _cell_starts(kind: Any, closing: Any, first: int, close: int, at: Any) -> Any:
    """Write the first token of each cell; return -1, or where what is wrong (1 rows, 2 a row)."""
    rows, width = at.shape
    now = first
    for row in range(rows):
        for column in range(width):
            if now >= close or kind[now] > QUOTED:
                return now, 2 if now < close else 1
            at[row, column] = now
            # ``Images 3 { ... }``: a word, a number and a group.
            if now + 2 < close and kind[now] == WORD and kind[now + 2] == OPEN:
                now = closing[now + 2]
            now += 1
        if now >= close or kind[now] != END:
            return now, 2
        now += 1
    if now != close:
        return now, 1
    return -1, 0


_LOT_FIELDS = {
    "DiePitch",
    "OrientationMarkLocation",
    "SampleOrientationMarkType",
    "SampleSize",
    "ResultTimestamp",
}
_WAFER_FIELDS = {"DieOrigin", "SampleCenterLocation", "SlotNumber"}


_KNOWN = {
    "FileRecord": ("LotRecord",),
    "LotRecord": ("WaferRecord",),
    "WaferRecord": ("TestRecord", "SummaryRecord"),
}
"""Records that are read, by the record that they stand in."""
_PARTS = {
    "TestRecord": {"AreaPerTest", "SampleTestPlanList"},
    "SummaryRecord": {"TestSummaryList"},
}
"""Fields and lists that are read of records of which not all are kept."""


def _dropped(record: Record, where: str) -> Iterator[str]:
    """Yield what a record holds that `Klarf` has no place for, a phrase each."""
    for inner in record.records:
        if inner.name in _KNOWN.get(record.name, ()):
            yield from _dropped(inner, inner.name)
        else:
            yield f"{inner.name} of {where}"
    kept = _PARTS.get(record.name)
    if kept is not None:
        for name in (*record.fields, *record.lists):
            if name not in kept:
                yield f"{name} of {where}"
    if record.name == "FileRecord":
        for name in record.lists:
            yield f"list {name} of {where}"


class _Meaning:
    """Reads what the tree says."""

    def __init__(self, tokens: Tokens, root: Record) -> None:
        self.tokens = tokens
        self.root = root

    def klarf(self) -> Klarf:
        root = self.root
        if (root.name, root.label) != ("FileRecord", "1.8"):
            raise self.tokens.refuse(
                root.at,
                found=f"Record {root.name} {root.label!r}",
                wanted='Record FileRecord "1.8"',
                fix="export version 1.8, 1.2 or 1.1",
            )
        lots = [record for record in root.records if record.name == "LotRecord"]
        if len(lots) != 1:
            raise self.tokens.refuse(
                root.at, found=f"{len(lots)} lots", wanted="one LotRecord", fix="split the file"
            )
        (lot,) = lots
        classes = self._table(lot.lists.get("ClassLookupList"))
        numbers = self._class_numbers(classes, lot)
        names = classes.columns.get("CLASSNAME", [str(n) for n in numbers])
        codes = classes.columns.get("CLASSCODE", ())
        times = {
            name: self._texts(values)
            for record in (root, lot)
            for name, values in record.fields.items()
            if name in ("FileTimestamp", "ResultTimestamp")
        }
        size = self._scaled(lot, "SampleSize", MM_NM)
        mark = lot.fields.get("SampleOrientationMarkType")
        degrees = self._scaled(lot, "OrientationMarkLocation", 0)
        return Klarf(
            "1.8",
            lot.label,
            self._pair(lot, "DiePitch"),
            size[0] if size else None,
            self.tokens.word(mark[0]) if mark else None,
            degrees[0] if degrees else None,
            {number: str(name) for number, name in zip(numbers, names, strict=True)},
            {n: str(code) for n, code in zip(numbers, codes, strict=False) if str(code)},
            tuple(self._wafer(record) for record in lot.records if record.name == "WaferRecord"),
            times,
            self._others(lot, _LOT_FIELDS) | self._others(root, {"FileTimestamp"}),
            self._tables(lot, {"ClassLookupList"}),
            tuple(dict.fromkeys(_dropped(root, "file"))),
        )

    def _class_numbers(self, classes: Table, lot: Record) -> list[int]:
        if not len(classes):
            return []
        numbers = classes.columns.get("CLASSNUMBER", np.zeros(len(classes)))
        if numbers.dtype != np.int64 or len(set(numbers.tolist())) < len(numbers):
            raise self.tokens.refuse(
                int(lot.lists["ClassLookupList"].at.flat[0]),
                found="class numbers that are not whole or not different",
                wanted="one number for each class",
                fix="correct ClassLookupList",
            )
        return [int(number) for number in numbers]

    def _wafer(self, record: Record) -> Wafer:
        tests, summary = [], Table()
        for inner in record.records:
            if inner.name == "TestRecord":
                tests.append(self._one_test(inner))
            elif inner.name == "SummaryRecord":
                summary = self._table(inner.lists.get("TestSummaryList"))
        slot = self._scaled(record, "SlotNumber", 0)
        cells = record.lists.get("DefectList")
        defects, images = self._defects(cells)
        origin = self._pair(record, "DieOrigin")
        return Wafer(
            record.label,
            int(slot[0]) if slot else None,
            origin or (0.0, 0.0),
            self._pair(record, "SampleCenterLocation"),
            tuple(tests),
            defects,
            images,
            summary,
            self._others(record, _WAFER_FIELDS),
            self._tables(record, {"DefectList"}),
        )

    def _one_test(self, record: Record) -> InspectionTest:
        if not record.label.lstrip("-").isdigit():
            raise self.tokens.refuse(
                record.at,
                found=f"TestRecord {record.label!r}",
                wanted="the number of the test",
                fix="correct it",
            )
        area = self._scaled(record, "AreaPerTest", UM2_NM2)
        plan = None
        if "SampleTestPlanList" in record.lists:
            table = self._table(record.lists["SampleTestPlanList"])
            columns = [table.columns.get(name) for name in ("XINDEX", "YINDEX")]
            if any(c is None or c.dtype != np.int64 for c in columns):
                raise self.tokens.refuse(
                    record.at,
                    found="a SampleTestPlanList without whole XINDEX and YINDEX",
                    wanted="both for each die",
                    fix="correct it",
                )
            plan = np.stack([c for c in columns if c is not None], 1)
        return InspectionTest(int(record.label), area[0] if area else None, plan)

    def _defects(self, cells: Cells | None) -> tuple[Table, dict[int, tuple[Image, ...]]]:
        if cells is None:
            return Table(), {}
        images = {}
        plain = []
        for place, kind in enumerate(cells.types):
            if kind != _PICTURES:
                plain.append(place)
                continue
            for row, at in enumerate(cells.at[:, place].tolist()):
                if self.tokens.word(at) == "Images":
                    images[row] = self._pictures(at)
        kept = Cells(
            tuple(cells.names[i] for i in plain),
            tuple(cells.types[i] for i in plain),
            cells.at[:, plain],
        )
        return self._table(kept), images

    def _pictures(self, at: int) -> tuple[Image, ...]:
        """Return the images of ``Images n { "path" "JPG" 1 "Patch", ... }``."""
        count, now = self.tokens.value[at + 1], at + 3
        found: list[Image] = []
        while self.tokens.kind[now] != CLOSE:
            first = now
            while self.tokens.kind[now] not in (COMMA, CLOSE):
                now += 1
            row, number = self.tokens.words(first, now), self.tokens.value[min(first + 2, now)]
            if len(row) != 4 or not abs(number) < 2**31:
                break
            found.append(Image(int(number), row[3], row[0], row[1]))
            now += self.tokens.kind[now] == COMMA
        if len(found) != count or self.tokens.kind[now] != CLOSE:
            raise self.tokens.refuse(
                now,
                found=f"Images {self.tokens.word(at + 1)} with {len(found)} whole ones",
                wanted="path, format, number and type of each, commas between",
                fix="correct the row",
            )
        return tuple(found)

    def _table(self, cells: Cells | None) -> Table:
        if cells is None:
            return Table()
        columns: dict[str, Array] = {}
        for place, (name, kind) in enumerate(zip(cells.names, cells.types, strict=True)):
            columns[name] = self._column(name, kind, cells.at[:, place])
        return Table(columns)

    def _column(self, name: str, kind: str, at: NDArray[np.int64]) -> Array:
        values = self.tokens.value[at]
        words = np.flatnonzero(self.tokens.kind[at] != NUMBER)
        missing = all(
            self.tokens.kind[at[i]] != QUOTED and self.tokens.word(int(at[i])) == "NA"
            for i in words.tolist()
        )
        if kind == "string" or not missing:
            return np.array([self.tokens.word(i) for i in at.tolist()], object)
        whole = (np.abs(values) < 2**53).all() and (values == np.floor(values)).all()
        if name in INTEGERS and whole:
            return values.astype(np.int64)
        if name in LENGTHS:
            return to_larger_unit(values, UM_NM)
        if name in AREAS:
            return to_larger_unit(values, UM2_NM2)
        return values

    def _tables(self, record: Record, known: set[str]) -> dict[str, Table]:
        return {n: self._table(cells) for n, cells in record.lists.items() if n not in known}

    def _others(self, record: Record, known: set[str]) -> dict[str, tuple[str, ...]]:
        return {
            RENAMED.get(name, name): self._texts(at)
            for name, at in record.fields.items()
            if name not in known
        }

    def _texts(self, at: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self.tokens.word(i) for i in at)

    def _scaled(self, record: Record, name: str, power: int) -> list[float] | None:
        """Return the numbers of a field in a unit 10**power larger; None without the field."""
        at = record.fields.get(name)
        if not at:
            return None
        values = self.tokens.value[list(at)]
        if not np.isfinite(values).all():
            raise self.tokens.refuse(
                at[0],
                found=f"{name} {' '.join(self._texts(at))}",
                wanted="numbers",
                fix="correct it",
            )
        return [float(v) for v in to_larger_unit(values, power)]

    def _pair(self, record: Record, name: str) -> tuple[float, float] | None:
        values = self._scaled(record, name, UM_NM)
        if values is None:
            return None
        if len(values) != 2:
            raise self.tokens.refuse(
                record.fields[name][0],
                found=f"{name} of {len(values)} numbers",
                wanted="x and y",
                fix="correct it",
            )
        return values[0], values[1]
