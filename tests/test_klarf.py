"""KLARF files: read, written, carried from one version to another, refused."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainseg.cli.app import run
from domainseg.errors import DomainsegError, InputError, OutputError
from domainseg.quality.klarf import Image, InspectionTest, Klarf, Table, Wafer
from domainseg.quality.klarf_file import read_klarf, read_klarf_text, stacked
from domainseg.quality.klarf_tokens import NUMBER, WORD, tokens_of
from domainseg.quality.klarf_write import klarf_text, losses, write_klarf

Said = pytest.CaptureFixture[str]

MINIMAL = """FileVersion 1 2;
FileTimestamp 03-14-2026 08:00:00;
InspectionStationID "DOMAINSEG" "domainseg" "0.1.0";
SampleType WAFER;
ResultTimestamp 03-14-2026 08:30:00;
LotID "LOT001";
SampleSize 1 300;
DeviceID "DEV01";
SetupID "RECIPE01" 03-14-2026 08:00:00;
StepID "STEP01";
SampleOrientationMarkType NOTCH;
OrientationMarkLocation DOWN;
DiePitch 1.0000000000e+004 1.2000000000e+004;
DieOrigin 0.0000000000e+000 0.0000000000e+000;
WaferID "W01";
Slot 1;
SampleCenterLocation 5.0000000000e+003 6.0000000000e+003;
ClassLookup 3
 0 "Unclassified"
 1 "Particle"
 2 "Scratch";
InspectionTest 1;
SampleTestPlan 4
 0 0
 1 0
 0 1
 -1 0;
AreaPerTest 4.8000000000e+008;
DefectRecordSpec 17 @COLUMNS ;
DefectList
 1 1250.000 2000.500 0 0 4.000 3.000 9.500 5.000 1 1 0 0 0 0 0 0
 2 9000.000 11500.000 -1 0 250.000 12.000 1800.000 250.288 2 1 1 0 0 0 0 0
 3 9100.000 11510.000 -1 0 2.000 2.000 3.000 2.828 1 1 1 0 0 0 2 2 4 0
 5 1;
SummarySpec 5 TESTNO NDEFECT DEFDENSITY NDIE NDEFDIE ;
SummaryList
 1 3 6.2500000000e-001 4 2;
EndOfFile;
""".replace(
    "@COLUMNS",
    "DEFECTID XREL YREL XINDEX YINDEX XSIZE YSIZE DEFECTAREA DSIZE "
    "CLASSNUMBER TEST CLUSTERNUMBER ROUGHBINNUMBER FINEBINNUMBER REVIEWSAMPLE IMAGECOUNT IMAGELIST",
)


def same(a: Any, b: Any, *, but: tuple[str, ...] = ("version",)) -> None:
    """Assert that two records hold the same values."""
    if isinstance(a, np.ndarray):
        assert a.dtype.kind == b.dtype.kind
        np.testing.assert_array_equal(a, b)
    elif is_dataclass(a):
        assert type(a) is type(b)
        for one in fields(a):
            if one.name not in but:
                same(getattr(a, one.name), getattr(b, one.name))
    elif isinstance(a, dict):
        assert set(a) == set(b)
        for key, value in a.items():
            same(value, b[key])
    elif isinstance(a, tuple) and any(map(is_dataclass, a)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b


def test_a_file_of_statements_by_hand() -> None:
    klarf = read_klarf_text(MINIMAL.encode())
    assert (klarf.version, klarf.lot, klarf.diameter_mm) == ("1.2", "LOT001", 300.0)
    assert (klarf.pitch_um, klarf.mark, klarf.mark_degrees) == ((10000.0, 12000.0), "NOTCH", 0.0)
    assert klarf.classes == {0: "Unclassified", 1: "Particle", 2: "Scratch"}
    assert klarf.fields["InspectionStationID"] == ("DOMAINSEG", "domainseg", "0.1.0")
    assert klarf.timestamps["FileTimestamp"] == ("03-14-2026", "08:00:00")
    (wafer,) = klarf.wafers
    assert (wafer.name, wafer.slot, wafer.center_um) == ("W01", 1, (5000.0, 6000.0))
    (test,) = wafer.tests
    assert (test.number, test.area_um2) == (1, 4.8e8)
    assert test.plan is not None
    assert test.plan.tolist() == [[0, 0], [1, 0], [0, 1], [-1, 0]]
    defects = wafer.defects.columns
    assert defects["XREL"].tolist() == [1250.0, 9000.0, 9100.0]
    assert defects["XINDEX"].tolist() == [0, -1, -1]
    assert defects["XINDEX"].dtype == np.int64
    assert "IMAGELIST" not in defects
    assert wafer.images == {2: (Image(4, "0"), Image(5, "1"))}
    assert wafer.summary.columns["DEFDENSITY"].tolist() == [0.625]


@pytest.mark.parametrize("between", ["1.2", "1.8"])
def test_a_file_goes_to_another_version_and_back(between: Any) -> None:
    klarf = read_klarf_text(MINIMAL.encode())
    there = read_klarf_text(klarf_text(klarf, version=between))
    assert there.version == between
    same(read_klarf_text(klarf_text(there, version="1.2")), klarf)


def test_lengths_are_nanometres_in_1_8() -> None:
    text = klarf_text(read_klarf_text(MINIMAL.encode()), version="1.8").decode()
    assert "Field DiePitch 2 {10000000, 12000000}" in text
    assert "Field AreaPerTest 1 {480000000000000}" in text
    assert "Field SampleSize 2 {300000000, 0}" in text
    assert 'Field RecipeID 3 {"RECIPE01", "03-14-2026", "08:00:00"}' in text
    assert " 1 1250000 2000500 0 0 4000 3000 9500000 5000 1 1 0 0 0 0 N ;" in text


TEXT = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters='"'), max_size=12
)
LENGTH = st.integers(-(10**14), 10**14).flatmap(
    lambda whole: st.sampled_from([1.0, 10.0, 1e3, 1e6, 1e9]).map(lambda by: whole / by)
)


@st.composite
def files(draw: st.DrawFn) -> Klarf:
    count = draw(st.integers(0, 6))

    def rows(of: st.SearchStrategy[Any]) -> np.ndarray:
        return np.array(draw(st.lists(of, min_size=count, max_size=count)))

    defects = {
        "DEFECTID": np.arange(count),
        "XREL": rows(LENGTH).astype(float),
        "DEFECTAREA": rows(LENGTH).astype(float),
        "SEVERITY": rows(LENGTH).astype(float),
        "CLASSNUMBER": rows(st.integers(-5, 300)).astype(np.int64),
    }
    pictures = st.tuples(
        st.builds(Image, st.integers(0, 99), st.sampled_from(["0", "1"]), st.just("a.tif"))
    )
    images = {i: draw(pictures) for i in range(count) if draw(st.booleans())}
    wafer = Wafer(
        draw(TEXT),
        draw(st.integers(0, 99)),
        (draw(LENGTH), 0.0),
        (draw(LENGTH), draw(LENGTH)),
        (InspectionTest(1, draw(LENGTH), np.array([[0, 0], [3, -7]])),),
        Table(defects),
        images,
    )
    return Klarf(
        "1.2",
        draw(TEXT),
        (draw(LENGTH), draw(LENGTH)),
        draw(LENGTH),
        "FLAT",
        90.0,
        draw(st.dictionaries(st.integers(-9, 999), TEXT, max_size=4)),
        {},
        (wafer,),
        fields={"SampleType": ("WAFER",), "Odd": (draw(TEXT), "1e5")},
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files(), st.sampled_from(["1.2", "1.8"]))
def test_what_is_written_is_read_as_the_same(klarf: Klarf, version: Any) -> None:
    text = klarf_text(klarf, version=version)
    again = read_klarf_text(text)
    same(again, klarf)
    assert klarf_text(again, version=version) == text


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("EndOfFile;\n", "", "x.001:37: found the end of the file, wanted EndOfFile at its end;"),
        ("EndOfFile;\n", "EndOfFile", "x.001:38: found 'EndOfFile' without a semicolon"),
        ("9000.000 11500.000", "9000.000", "x.001:32: found a defect of"),
        ("ClassLookup 3", "ClassLookup 4", "x.001:18: found ClassLookup 4 with 6 values, wanted 8"),
        ("DefectRecordSpec 17", "DefectRecordSpec 16", "x.001:29: found 17 names"),
        ("DOWN", "SIDEWAYS", "x.001:12: found OrientationMarkLocation SIDEWAYS, wanted DOWN"),
        ('"LOT001"', '"LOT001', "x.001:6: found a quote that is not closed"),
        ("FileVersion 1 2", "FileVersion 1 7", "x.001:1: found FileVersion 1 7, wanted 1 1, 1 2"),
        ("DiePitch 1.0000000000e+004", "DiePitch ten", "x.001:13: found DiePitch ten"),
        ("Slot 1", "Slot 1.5", "x.001:16: found 1.5, wanted a whole number"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(before: str, after: str, message: str) -> None:
    assert before in MINIMAL
    with pytest.raises(InputError, match="wanted") as error:
        read_klarf_text(MINIMAL.replace(before, after).encode(), Path("x.001"))
    assert str(error.value).startswith(message)


def test_classes_of_1_8_need_numbers_that_differ() -> None:
    klarf = read_klarf_text(MINIMAL.encode())
    text = klarf_text(klarf, version="1.8").decode()
    message = "class numbers that are not whole or not different"
    for before, after in (("int32 CLASSNUMBER, s", "int32 NUMBER, s"), (' 1 "Part', ' 0 "Part')):
        assert before in text
        with pytest.raises(InputError, match=message):
            read_klarf_text(text.replace(before, after).encode())
    empty = (
        text[: text.index("List ClassLookupList")]
        + """List ClassLookupList
        { Columns 2 { string CLASSNUMBER, string CLASSNAME } Data 0 { } } } } EndOfFile;"""
    )
    assert read_klarf_text(empty.encode()).classes == {}


WORDS = [
    b";",
    b"{",
    b"}",
    b",",
    b'"',
    b"NA",
    b"-1",
    b"1e999",
    b"9" * 30,
    b"\0",
    b"\xff",
    b"Data 5 {",
]


@settings(max_examples=400, deadline=None)
@given(
    st.booleans(),
    st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 60), st.sampled_from([*WORDS, b""])),
        max_size=6,
    ),
)
def test_a_garbled_file_is_read_or_refused(
    nested: bool, cuts: list[tuple[int, int, bytes]]
) -> None:
    klarf = read_klarf_text(MINIMAL.encode())
    text = bytearray(klarf_text(klarf, version="1.8" if nested else "1.2"))
    for place, length, word in cuts:
        text[place % (len(text) + 1) : place % (len(text) + 1) + length] = word
    # What is refused is refused in a sentence; anything else that is raised fails the test.
    with suppress(DomainsegError):
        read_klarf_text(bytes(text))


HOSTILE = [
    "<script>alert(1)</script>",
    "a'b",
    "x" * 20_000,
    "\u202eabc",
    "NUL\0byte",
    "a;b{c}",
    "  ",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("version", ["1.2", "1.8"])
def test_a_hostile_text_stays_one_text(text: str, version: Any) -> None:
    klarf = read_klarf_text(MINIMAL.replace("LOT001", "LOT").encode())
    wafer = Wafer(text)
    made = Klarf(
        "1.2", 'q"' + text, (1.0, 1.0), classes={1: text}, wafers=(wafer,), fields=klarf.fields
    )
    again = read_klarf_text(klarf_text(made, version=version))
    wanted = text.replace("\0", " ")[:10_000]
    assert again.wafers[0].name == wanted
    assert again.classes == {1: wanted}
    assert again.lot == f"q'{text}".replace("\0", " ")[:10_000]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    klarf = read_klarf_text(MINIMAL.encode())
    write_klarf(tmp_path / "a.001", klarf)
    same(read_klarf(tmp_path / "a.001"), klarf)
    with pytest.raises(InputError, match="DiePitch"):
        write_klarf(tmp_path / "b.001", Klarf("1.2"))
    assert not (tmp_path / "b.001").exists()


def test_a_number_is_the_float_that_python_reads() -> None:
    rng = np.random.default_rng(3)
    texts = ["0", "-0", "+1", "1.", ".5", "5e-324", "1e400", "9007199254740993", "0.1e-5", "1E22"]
    texts += ["123456789012345678901234567890", "0.000000000000000000000000000001234", "1e23"]
    for _ in range(3000):
        digits = "".join(map(str, rng.integers(0, 10, rng.integers(1, 22))))
        point = int(rng.integers(0, len(digits) + 1))
        power = f"e{rng.integers(-40, 40)}" if rng.random() < 0.5 else ""
        texts.append(f"{digits[:point]}.{digits[point:]}{power}")
    text = np.frombuffer(" ".join(texts).encode(), np.uint8)
    tokens = tokens_of(Path("x"), text, nested=False)
    assert (tokens.kind == NUMBER).all()
    np.testing.assert_array_equal(tokens.value, [float(one) for one in texts])


@pytest.mark.parametrize(
    "text", ["1-2", "--1", ".", "+", "e5", "1e", "1e+", "1.2.3", "0x1", "nan", "1_0"]
)
def test_what_is_no_decimal_number_is_a_word(text: str) -> None:
    tokens = tokens_of(Path("x"), np.frombuffer(text.encode(), np.uint8), nested=False)
    assert tokens.kind.tolist() == [WORD]
    assert tokens.words(0, 1) == (text,)


def test_images_may_follow_as_pairs_without_their_number() -> None:
    pairs = MINIMAL
    for row in ("1 1 0 0 0 0 0 0", "2 1 1 0 0 0 0 0"):
        pairs = pairs.replace(f"{row}\n", f"{row[:-2]}\n")
    pairs = pairs.replace("0 2 2 4 0", "0 2 4 0")
    assert len(MINIMAL) - len(pairs) == 6
    same(read_klarf_text(pairs.encode()), read_klarf_text(MINIMAL.encode()))


@pytest.mark.parametrize("version", ["1.2", "1.8"])
@pytest.mark.parametrize("name", ["A B", "A;", "{", "", 'A"'])
def test_a_name_that_would_be_read_otherwise_is_refused(name: str, version: Any) -> None:
    klarf = read_klarf_text(MINIMAL.encode())
    column = Wafer("W", defects=Table({name: np.zeros(1)}))
    for odd in (replace(klarf, fields={name: ("x",)}), replace(klarf, wafers=(column,))):
        with pytest.raises(InputError, match="wanted one word without"):
            klarf_text(odd, version=version)


def test_an_angle_between_needs_1_8() -> None:
    klarf = replace(read_klarf_text(MINIMAL.encode()), mark_degrees=45.0)
    with pytest.raises(InputError, match=r"found 45 degrees, wanted 0, 90, 180 or 270"):
        klarf_text(klarf)
    assert read_klarf_text(klarf_text(klarf, version="1.8")).mark_degrees == 45


def test_wafers_of_several_files_are_stacked() -> None:
    first = read_klarf_text(MINIMAL.encode())
    second = read_klarf_text(
        MINIMAL.replace("W01", "W02").replace('2 "Scratch"', '7 "Pit"').encode()
    )
    made = stacked([("a", first), ("b", second)])
    assert [wafer.name for wafer in made.wafers] == ["W01", "W02"]
    assert made.classes == {0: "Unclassified", 1: "Particle", 2: "Scratch", 7: "Pit"}
    for version in ("1.2", "1.8"):
        same(read_klarf_text(klarf_text(made, version=version)), made)
    for misfit, message in (
        (first, "b: found wafer 'W01', wanted one that a lacks"),
        (replace(second, lot="X"), "b: found lot X, wanted LOT001, as in a"),
        (replace(second, classes={1: "Dust"}), "b: found class 1 'Dust', wanted 'Particle'"),
    ):
        with pytest.raises(InputError, match="leave the file out") as error:
            stacked([("a", first), ("b", misfit)])
        assert str(error.value).startswith(message)


SAMPLES = sorted((Path(__file__).parents[2] / "shared" / "data" / "klarf").glob("*"))


@pytest.mark.parametrize("path", SAMPLES, ids=[path.name for path in SAMPLES])
@pytest.mark.parametrize("version", ["1.2", "1.8"])
def test_files_of_tools_keep_their_values(path: Path, version: Any) -> None:
    klarf = read_klarf(path)
    again = read_klarf_text(klarf_text(klarf, version=version))
    if not losses(klarf, version):
        same(again, klarf)
    for a, b in zip(klarf.wafers, again.wafers, strict=True):
        same(a.defects, b.defects)
        same(a.tests, b.tests)


def test_show_prints_density_with_its_interval(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "a.001").write_text(MINIMAL, encoding="utf-8")
    assert run(["klarf", "show", str(tmp_path / "a.001")]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("W01"))
    # 3 in 4.8 cm2; chi-squared: 1.2373 / 9.6 and 17.5345 / 9.6.
    assert row.split() == ["W01", "1", "3", "2", "4", "4.8", "0.625", "0.1289", "to", "1.827"]
    assert "Scratch" in said


def test_convert_and_merge_write_new_files_only(tmp_path: Path, capsys: Said) -> None:
    for name in ("W01", "W02"):
        (tmp_path / name).write_text(MINIMAL.replace("W01", name), encoding="utf-8")
    first, second, out = (str(tmp_path / name) for name in ("W01", "W02", "out"))
    assert run(["klarf", "merge", first, second, "-o", out, "--to", "1.8"]) == 0
    assert len(read_klarf(tmp_path / "out").wafers) == 2
    assert run(["klarf", "convert", out, first, "--to", "1.2"]) == OutputError.exit_code
    assert "found a file, wanted a new one" in capsys.readouterr().err
    assert run(["klarf", "convert", out, out + "2", "--to", "1.3"]) == 2
    assert run(["klarf", "convert", out, out + "2", "--to", "1.1"]) == 0
    assert read_klarf(tmp_path / "out2").version == "1.1"
    assert run(["klarf", "show", str(tmp_path / "none")]) == 3


def test_what_reading_drops_is_named() -> None:
    klarf = read_klarf_text(MINIMAL.encode())
    text = klarf_text(klarf, version="1.8")
    assert losses(read_klarf_text(text), "1.8") == ()
    strange = text.replace(
        b"Record TestRecord", b'Record ToolRecord "x" { Field A 1 {"b"} }\nRecord TestRecord', 1
    ).replace(b"Field AreaPerTest", b"Field Recipe 1 {7}\nField AreaPerTest", 1)
    assert strange.count(b"ToolRecord") == strange.count(b"Recipe 1") == 1
    for version in ("1.2", "1.8"):
        assert losses(read_klarf_text(strange), version) == (
            "ToolRecord of WaferRecord",
            "Recipe of TestRecord",
        )
