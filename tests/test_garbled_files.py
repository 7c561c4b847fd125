"""Result files and rules that are garbled in thousands of ways: read, or refused in a sentence."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from domainseg.errors import DomainsegError, RecipeError
from domainseg.quality.klarf_file import read_klarf_text
from domainseg.quality.klarf_write import klarf_text
from domainseg.rules_file import load_rules

KLARF = b"""FileVersion 1 2;
FileTimestamp 03-14-2026 08:00:00;
InspectionStationID "A" "B" "0.1.0";
SampleType WAFER;
ResultTimestamp 03-14-2026 08:30:00;
LotID "LOT001";
SampleSize 1 300;
StepID "STEP01";
SampleOrientationMarkType NOTCH;
OrientationMarkLocation DOWN;
DiePitch 1.0000000000e+004 1.2000000000e+004;
DieOrigin 0.0000000000e+000 0.0000000000e+000;
WaferID "W01";
Slot 1;
SampleCenterLocation 5.0000000000e+003 6.0000000000e+003;
ClassLookup 2
0 "Unclassified"
1 "particle";
InspectionTest 1;
SampleTestPlan 3
0 0
1 0
0 1;
AreaPerTest 3.6000000000e+008;
DefectRecordSpec 12 DEFECTID XREL YREL XINDEX YINDEX XSIZE YSIZE DEFECTAREA DSIZE CLASSNUMBER \
TEST IMAGECOUNT ;
DefectList
1 100.0 200.0 0 0 2.0 3.0 6.0 3.0 1 1 0
2 9000.0 11500.0 1 0 2.0 2.0 4.0 2.0 0 1 0;
SummarySpec 5 TESTNO NDEFECT DEFDENSITY NDIE NDEFDIE ;
SummaryList
1 2 0.5555555556 3 2;
EndOfFile;
"""
RULES = b"""schema: 1
units: um
title: Lot
detection: {conf_min: 0.5, min_size_um: 1.0, repeaters: {tolerance_um: 5}}
classes:
  scratch: {weight: 0.8, measure: length, ref_um: 500, gamma: 0.5, kill_prob: 0.4}
  default: {weight: 0.5, measure: area, ref_um: 50}
zones:
  - {name: pad, file: zones.geojson, frame: die, critical: true, touch: any}
  - {name: elsewhere, factor: 0.6}
grades:
  critical: {severity: 70, weight: 100}
cluster: {eps_um: 200, min_samples: 5}
unit: {fail_if: "critical > 0 or demerits > 100"}
accept:
  - {id: D0, metric: density_killers_per_cm2, max: 0.10, use: ci_upper, confidence: 0.95}
  - {id: yield, metric: die_yield, min: 0.95, use: ci_lower}
require: {min_area_cm2: 1.0, qc: {focus_min: 0.2}}
"""
KLARF_WORDS = (
    *(b";", b'"', b"{", b"}", b",", b"\0", b"\xff", b"1e999", b"-1", b"NA", b"nan", b"99999999"),
    *(b"DefectList", b"SummaryList", b"Record", b"List", b"Field", b"EndOfFile;", b"WaferID"),
    *(b"9" * 400, b"__import__('os')", b"\r\n", b"FileVersion 1 8;", b"2147483648", b"0x10"),
)
RULES_WORDS = (
    *(b":", b"-", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!!python/object:os.system ", b"<<: "),
    *(b"nan", b".inf", b"-1", b"1e999", b"null", b"true", b"0", b"'", b'"', b"\t", b"\0", b"\xff"),
    *(b"\n  ", b"? ", b"| ", b"critical", b"or", b"and not (", b"\xe2\x80\xae", b"default: {}\n"),
)
SECONDS = 10.0
MEMORY_MB = 1000


def garbled(text: bytes, words: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Return the text with one to six cuts, repeats, swaps and strange words in it."""
    made = text
    for _ in range(rng.integers(1, 7)):
        a, b = sorted(rng.integers(0, len(made) + 1, 2).tolist())
        b = min(b, a + int(rng.integers(0, 80)))
        kind = int(rng.integers(0, 5))
        if kind == 0:
            made = made[:a] + made[b:]
        elif kind == 1:
            made = made[:a] + words[int(rng.integers(len(words)))] + made[a:]
        elif kind == 2:
            made = made[:b] + made[a:b] + made[b:]
        elif kind == 3 and a < len(made):
            made = made[:a] + bytes([int(rng.integers(256))]) + made[a + 1 :]
        else:
            lines = made.split(b"\n")
            i, j = rng.integers(0, len(lines), 2)
            lines[i], lines[j] = lines[j], lines[i]
            made = b"\n".join(lines)
    return made


def sources() -> Iterator[bytes]:
    klarf = read_klarf_text(KLARF)
    yield KLARF
    yield klarf_text(klarf, version="1.1")
    yield klarf_text(klarf, version="1.8")


def tried(read: Callable[[bytes], object], texts: Iterator[bytes]) -> tuple[int, int]:
    """Read every text; return how many were read and how many refused in a sentence."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    good = bad = 0
    sentences = []
    for text in texts:
        begun = time.perf_counter()
        try:
            read(text)
            good += 1
        except DomainsegError as error:
            sentences.append(str(error))
            bad += 1
        assert time.perf_counter() - begun < SECONDS, text
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown / 1000 < MEMORY_MB
    assert all("\n" not in one and len(one) < 2000 for one in sentences)
    return good, bad


@pytest.mark.parametrize("count", [600, pytest.param(15_000, marks=pytest.mark.long)])
def test_result_files(count: int) -> None:
    rng = np.random.default_rng(1)
    texts = list(sources())
    good, bad = tried(
        read_klarf_text, (garbled(texts[i % 3], KLARF_WORDS, rng) for i in range(count))
    )
    assert good + bad == count
    assert min(good, bad) > count // 100


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_rules(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    path = tmp_path / "rules.yaml"

    def read(text: bytes) -> object:
        path.write_bytes(text)
        return load_rules(path)

    good, bad = tried(read, (garbled(RULES, RULES_WORDS, rng) for _ in range(count)))
    assert good + bad == count
    assert min(good, bad) > count // 100


def test_rules_that_repeat_themselves_without_end_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    text = RULES + b"\n" + "\n".join(lines).encode() + b"\nclasses: *a11\n"
    path = tmp_path / "rules.yaml"
    begun = time.perf_counter()
    for one in (text, RULES.replace(b"title: Lot", b"title: &t [*t]"), b"&a [*a]"):
        path.write_bytes(one)
        with pytest.raises(RecipeError):
            load_rules(path)
    assert time.perf_counter() - begun < SECONDS
