"""Result files written: KLARF 1.1 and 1.2 in statements, 1.8 in records.

Numbers are written with as many digits as give back the same number, and nothing depends on
the time or the machine, so the same record is the same file.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from domainseg.atomic import atomic_path
from domainseg.errors import InputError, sentence
from domainseg.quality import klarf_nested
from domainseg.quality.klarf import (
    AREAS,
    INTEGERS,
    LENGTHS,
    MARKS,
    Image,
    InspectionTest,
    Klarf,
    Version,
    Wafer,
)
from domainseg.quality.klarf_units import MM_NM, UM2_NM2, UM_NM, to_smaller_unit
from domainseg.records import Array

LONGEST = 10_000
"""Characters of a text; what is longer is cut."""
_FIRST = ("InspectionStationID", "SampleType", "DeviceID", "SetupID", "StepID")
RENAMED = {flat: nested for nested, flat in klarf_nested.RENAMED.items()}
"""Statements of 1.2 that 1.8 has another name for."""
_QUOTED_ALWAYS = {
    "LotID",
    "DeviceID",
    "SetupID",
    "StepID",
    "WaferID",
    "InspectionStationID",
    "ResultsID",
    "OrientationInstructions",
    "TiffFileName",
    "WaferStatus",
}


def write_klarf(path: Path, klarf: Klarf, *, version: Version | None = None) -> None:
    """Write a file, whole or not at all; ``version`` in place of the record's own.

    Raises:
        InputError: the record lacks what every file must say.
        OutputError: the file cannot be written.
    """
    text = klarf_text(klarf, version=version)
    with atomic_path(path) as partial:
        partial.write_bytes(text)


def klarf_text(klarf: Klarf, *, version: Version | None = None) -> bytes:
    """Return the bytes of the file."""
    chosen = version or klarf.version
    if klarf.pitch_um is None:
        raise InputError(
            sentence("DiePitch", found="none", wanted="the pitch of the dies", fix="state it")
        )
    return _nested(klarf) if chosen == "1.8" else _flat(klarf, chosen)


def losses(klarf: Klarf, version: Version) -> tuple[str, ...]:
    """Return what a version has no place for, or reading dropped, a phrase each."""
    if version == "1.8":
        return klarf.dropped
    out = [*klarf.dropped]
    out += [f"list {name} of the lot" for name in klarf.tables]
    if klarf.class_codes:
        out.append(f"{len(klarf.class_codes)} class codes")
    for wafer in klarf.wafers:
        out += [f"list {name} of wafer {clean(wafer.name)}" for name in wafer.tables]
        if any(
            len({i.file for i in held}) > 1 or held[0].format
            for held in wafer.images.values()
            if held
        ):
            out.append(f"formats and further files of images of wafer {clean(wafer.name)}")
    return tuple(out)


# Texts and numbers.


def clean(text: str) -> str:
    """Return a text that can stand between quotes: no quote, no control character, not too long.

    A quote becomes an apostrophe, what controls a terminal or ends a line a space.
    """
    out = "".join(" " if ord(c) < 32 or ord(c) == 127 else c for c in text.replace('"', "'"))
    return out[:LONGEST]


def _quoted(text: str) -> str:
    return f'"{clean(text)}"'


def _number(value: float) -> str:
    """Return the shortest text that is read as the same number."""
    value = float(value)
    if not np.isfinite(value):
        return "NA"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _plain(text: str) -> bool:
    """Return whether a text can stand without quotes and is then read as the same."""
    return bool(text) and not any(c.isspace() or c in '";{},' or ord(c) < 32 for c in text)


def _name(text: str) -> str:
    """Return the name of a statement or column, which stands without quotes.

    Raises:
        InputError: it would be read as something else.
    """
    if not _plain(text):
        raise InputError(
            sentence(
                "KLARF",
                found=f"the name {clean(text)[:80]!r}",
                wanted="one word without ; , { } and quotes",
                fix="rename it",
            )
        )
    return text


def _words(name: str, values: Iterable[str]) -> str:
    quoted = name in _QUOTED_ALWAYS
    out = []
    for value in values:
        bare = _plain(value) and (not quoted or value.replace("-", "").replace(":", "").isdigit())
        out.append(value if bare else _quoted(value))
    return " ".join(out)


# Versions 1.1 and 1.2.


def _flat(klarf: Klarf, version: Version) -> bytes:
    out = io.BytesIO()
    lines = [f"FileVersion {version.replace('.', ' ')};"]
    lines += [f"{name} {_words(name, values)};" for name, values in klarf.timestamps.items()]
    others = {"SampleType": ("WAFER",), **klarf.fields}
    front = [name for name in _FIRST[:2] if name in others]
    behind = [name for name in _FIRST[2:] if name in others]
    # Readers want the station, the type of sample and what names lot and device in front.
    lines += [_statement(name, others.pop(name)) for name in front]
    lines.append(f"LotID {_quoted(klarf.lot)};")
    if klarf.diameter_mm is not None:
        lines.append(f"SampleSize 1 {_number(klarf.diameter_mm)};")
    lines += [_statement(name, others.pop(name)) for name in behind]
    lines += _orientation(klarf)
    assert klarf.pitch_um is not None
    lines.append(f"DiePitch {_number(klarf.pitch_um[0])} {_number(klarf.pitch_um[1])};")
    lines += [_statement(name, values) for name, values in others.items()]
    if klarf.classes:
        rows = [f" {number} {_quoted(name)}" for number, name in klarf.classes.items()]
        lines += [f"ClassLookup {len(rows)}", "\n".join(rows) + ";"]
    out.write("\n".join(lines).encode() + b"\n")
    for wafer in klarf.wafers:
        _flat_wafer(wafer, out)
    out.write(b"EndOfFile;\n")
    return out.getvalue()


def _statement(name: str, values: Sequence[str]) -> str:
    name = _name(name)
    return f"{name} {_words(name, values)};" if values else f"{name};"


def _orientation(klarf: Klarf) -> Iterator[str]:
    """Yield the statements of the notch or flat.

    Raises:
        InputError: it stands at an angle that this version has no word for.
    """
    if klarf.mark is not None:
        yield f"SampleOrientationMarkType {_words('', (klarf.mark,))};"
    if klarf.mark_degrees is None:
        return
    names = {degrees: name for name, degrees in MARKS.items()}
    if klarf.mark_degrees not in names:
        raise InputError(
            sentence(
                "OrientationMarkLocation",
                found=f"{klarf.mark_degrees:g} degrees",
                wanted="0, 90, 180 or 270 in this version",
                fix="write version 1.8",
            )
        )
    yield f"OrientationMarkLocation {names[int(klarf.mark_degrees)]};"


def _flat_wafer(wafer: Wafer, out: io.BytesIO) -> None:
    def say(text: str) -> None:
        out.write(text.encode() + b"\n")

    say(f"WaferID {_quoted(wafer.name)};")
    if wafer.slot is not None:
        say(f"Slot {wafer.slot};")
    say(f"DieOrigin {_number(wafer.die_origin_um[0])} {_number(wafer.die_origin_um[1])};")
    if wafer.center_um is not None:
        say(f"SampleCenterLocation {_number(wafer.center_um[0])} {_number(wafer.center_um[1])};")
    for name, values in wafer.fields.items():
        say(_statement(name, values))
    for test in wafer.tests:
        say(f"InspectionTest {test.number};")
        if test.plan is not None:
            say(f"SampleTestPlan {len(test.plan)}")
            say("\n".join(f" {x} {y}" for x, y in test.plan.tolist()) + ";")
        if test.area_um2 is not None:
            say(f"AreaPerTest {_number(test.area_um2)};")
    if wafer.defects.columns:
        _flat_defects(wafer, out)
    if len(wafer.summary):
        summary = wafer.summary.columns
        say(f"SummarySpec {len(summary)} {' '.join(map(_name, summary))} ;")
        say("SummaryList")
        out.write(_rows(wafer.summary.columns) + b";\n")


def _flat_defects(wafer: Wafer, out: io.BytesIO) -> None:
    """Write the lists of defects: a new one wherever the images lie in another file."""
    count = len(wafer.defects)
    columns = dict(wafer.defects.columns)
    if "IMAGECOUNT" not in columns:
        lists = np.full(count, "0", object)
        for row, images in wafer.images.items():
            each = " ".join(f"{i.number} {_words('', (i.kind,))}" for i in images)
            lists[row] = f"{len(images)} {each}"
        columns["IMAGECOUNT"] = np.array([len(wafer.images.get(i, ())) for i in range(count)])
        columns["IMAGELIST"] = lists
    out.write(f"DefectRecordSpec {len(columns)} {' '.join(map(_name, columns))} ;\n".encode())
    if not count:
        out.write(b"DefectList;\n")
    files = _files(wafer.images, count)
    changes = [row for row in range(1, len(files)) if files[row] != files[row - 1]]
    for first, stop in pairwise([0, *changes, count]):
        if first == stop:
            continue
        if files and files[first]:
            out.write(f"TiffFileName {_words('', (files[first],))};\n".encode())
        part = {name: values[first:stop] for name, values in columns.items()}
        out.write(b"DefectList\n" + _rows(part, raw={"IMAGELIST"}) + b";\n")


def _files(images: Mapping[int, Sequence[Image]], count: int) -> list[str]:
    """Return the file of each defect's images; of a defect without any, that of the one before."""
    out, last = [], ""
    if not images:
        return []
    for row in range(count):
        held = images.get(row, ())
        last = held[0].file if held else last
        out.append(last)
    return out


def _rows(
    columns: Mapping[str, Array], *, raw: set[str] | frozenset[str] = frozenset(), end: str = ""
) -> bytes:
    """Return rows of values, a blank before each and between them, ``end`` behind each."""
    frame = {}
    for name, values in columns.items():
        if values.dtype == object:
            made = [str(v) if name in raw else _quoted(str(v)) for v in values]
            frame[name] = pl.Series(made, dtype=pl.String)
        elif values.dtype.kind == "i":
            frame[name] = pl.Series(values)
        else:
            whole = bool((np.abs(values) < 2**53).all() and (values == np.floor(values)).all())
            frame[name] = pl.Series(values.astype(np.int64) if whole else values)
            if not whole:
                frame[name] = frame[name].fill_nan(None)
    text = pl.DataFrame(frame).write_csv(
        include_header=False,
        separator=" ",
        line_terminator=f"{end}\n ",
        quote_style="never",
        null_value="NA",
    )
    return (" " + text).encode().removesuffix(f"{end}\n ".encode())


# Version 1.8.


def _nested(klarf: Klarf) -> bytes:
    out = io.BytesIO()
    writer = _Writer(out)
    with writer.record("FileRecord", "1.8"):
        with writer.record("LotRecord", klarf.lot):
            for wafer in klarf.wafers:
                _nested_wafer(wafer, writer)
            assert klarf.pitch_um is not None
            writer.field("DiePitch", [_number(v) for v in _nm(klarf.pitch_um)])
            if klarf.mark_degrees is not None:
                writer.field("OrientationMarkLocation", [_number(klarf.mark_degrees)])
            if klarf.mark is not None:
                writer.field("SampleOrientationMarkType", [_quoted(klarf.mark)])
            if klarf.diameter_mm is not None:
                size = to_smaller_unit(np.array([klarf.diameter_mm]), MM_NM)[0]
                writer.field("SampleSize", [_number(size), "0"])
            for name, values in klarf.fields.items():
                writer.field(RENAMED.get(name, name), [_value(v) for v in values])
            if "ResultTimestamp" in klarf.timestamps:
                writer.field("ResultTimestamp", map(_quoted, klarf.timestamps["ResultTimestamp"]))
            if klarf.classes:
                writer.table(
                    "ClassLookupList",
                    {
                        "CLASSNUMBER": np.array(list(klarf.classes), np.int64),
                        "CLASSNAME": np.array(list(klarf.classes.values()), object),
                        "CLASSCODE": np.array(
                            [klarf.class_codes.get(n, "") for n in klarf.classes], object
                        ),
                    },
                )
            for name, table in klarf.tables.items():
                writer.table(name, table.columns)
        if "FileTimestamp" in klarf.timestamps:
            writer.field("FileTimestamp", map(_quoted, klarf.timestamps["FileTimestamp"]))
    out.write(b"EndOfFile;\n")
    return out.getvalue()


def _value(text: str) -> str:
    """Return a field's value: a number as it stands, anything else in quotes."""
    try:
        float(text)
    except ValueError:
        return _quoted(text)
    return text if _plain(text) else _quoted(text)


def _nm(values: Sequence[float]) -> list[float]:
    return [float(v) for v in to_smaller_unit(np.array(values), UM_NM)]


def _nested_wafer(wafer: Wafer, writer: _Writer) -> None:
    with writer.record("WaferRecord", wafer.name):
        writer.field("DieOrigin", [_number(v) for v in _nm(wafer.die_origin_um)])
        if wafer.center_um is not None:
            writer.field("SampleCenterLocation", [_number(v) for v in _nm(wafer.center_um)])
        if wafer.slot is not None:
            writer.field("SlotNumber", [str(wafer.slot)])
        for name, values in wafer.fields.items():
            writer.field(name, [_value(v) for v in values])
        if wafer.defects.columns:
            writer.table("DefectList", wafer.defects.columns, images=wafer.images)
        for name, table in wafer.tables.items():
            writer.table(name, table.columns)
        for test in wafer.tests:
            _nested_test(test, writer)
        if len(wafer.summary):
            with writer.record("SummaryRecord", None):
                writer.table("TestSummaryList", wafer.summary.columns)


def _nested_test(test: InspectionTest, writer: _Writer) -> None:
    with writer.record("TestRecord", str(test.number)):
        if test.area_um2 is not None:
            area = to_smaller_unit(np.array([test.area_um2]), UM2_NM2)[0]
            writer.field("AreaPerTest", [_number(area)])
        if test.plan is not None:
            writer.table(
                "SampleTestPlanList", {"XINDEX": test.plan[:, 0], "YINDEX": test.plan[:, 1]}
            )


class _Writer:
    """Writes records, fields and lists with their braces."""

    def __init__(self, out: io.BytesIO) -> None:
        self.out = out
        self.depth = 0

    def say(self, text: str) -> None:
        self.out.write(b"  " * self.depth + text.encode() + b"\n")

    @contextmanager
    def record(self, name: str, label: str | None) -> Iterator[None]:
        self.say(f"Record {name}" + ("" if label is None else f" {_quoted(label)}"))
        with self._braces():
            yield

    @contextmanager
    def _braces(self) -> Iterator[None]:
        self.say("{")
        self.depth += 1
        yield
        self.depth -= 1
        self.say("}")

    def field(self, name: str, values: Iterable[str]) -> None:
        values = list(values)
        self.say(f"Field {_name(name)} {len(values)} {{{', '.join(values)}}}")

    def table(
        self,
        name: str,
        columns: Mapping[str, Array],
        *,
        images: Mapping[int, Sequence[Image]] | None = None,
    ) -> None:
        """Write a list in nanometres; with ``images`` a column of images at its end."""
        count = len(next(iter(columns.values())))
        written, types = {}, []
        for column, values in columns.items():
            written[column], kind = _in_nm(column, values)
            types.append(f"{kind} {_name(column)}")
        if images:
            texts = np.full(count, "N", object)
            for row, held in images.items():
                texts[row] = _image_group(held)
            written["IMAGEINFO"] = texts
            types.append("ImageList IMAGEINFO")
        self.say(f"List {_name(name)}")
        with self._braces():
            self.say(f"Columns {len(types)} {{ {', '.join(types)} }}")
            self.say(f"Data {count}")
            with self._braces():
                if count:
                    self.out.write(_rows(written, raw={"IMAGEINFO"}, end=" ;") + b" ;\n")


def _image_group(images: Sequence[Image]) -> str:
    """Return the images of one defect as a cell."""
    each = [f"{_quoted(i.file)} {_quoted(i.format)} {i.number} {_quoted(i.kind)}" for i in images]
    return f"Images {len(images)} {{ {', '.join(each)} }}"


def _in_nm(name: str, values: Array) -> tuple[Array, str]:
    """Return a column as 1.8 holds it, and its type there."""
    if values.dtype == object:
        return values, "string"
    if name in LENGTHS:
        values = to_smaller_unit(values, UM_NM)
    elif name in AREAS:
        values = to_smaller_unit(values, UM2_NM2)
    fits = values.dtype.kind == "i" or bool(
        (np.abs(values) < 2**31).all() and (values == np.floor(values)).all()
    )
    if fits and (name in INTEGERS or name in LENGTHS):
        return values.astype(np.int64), "int32"
    return values, "float"
