"""What the page says of warnings, and of how images were read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.cli.app import run as command
from domainseg.report.sections.wording import warned

Draw = Callable[..., NDArray[np.int32]]
Write = Callable[..., Path]
FIXED = {"normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0}}
FAR = [
    (name, f"the objects are {size} px across; scale the image")
    for name, size in (("a", 3.5), ("b", 4), ("c", 1_000))
]


def test_warnings_that_differ_in_numbers_are_one_line() -> None:
    lines = list(warned([*FAR, ("b", "no pixel size")], 5))
    assert lines == [
        "the objects are 3.5 px across; scale the image (3 images: a, b, c; the numbers are "
        "those of a)",
        "no pixel size (1 image: b)",
    ]


def test_the_same_warning_of_all_images_says_so() -> None:
    assert list(warned([("a", "no size"), ("b", "no size")], 2)) == ["no size (all 2 images)"]
    assert list(warned([("a", "no size")], 1)) == ["no size (the image)"]
    assert list(warned([], 3)) == []


def test_other_words_are_other_warnings() -> None:
    lines = list(warned([("a", "brighter 1"), ("b", "darker 1"), ("c", "brighter 2")], 3))
    assert [line.split()[0] for line in lines] == ["brighter", "darker"]


@pytest.fixture
def runs(tmp_path: Path, bright_model: Write, discs: Draw) -> Path:
    """Return runs of three images whose objects are of another size than the training's."""
    images = []
    for name, radius in (("a", 9.0), ("b", 10.0), ("c", 5.0)):
        places = [(30 + 40 * y, 30 + 40 * x, radius) for y in range(3) for x in range(3)]
        pixels = np.where(discs((140, 140), *places) > 0, 200, 30).astype(np.uint8)
        stack = np.stack([np.zeros_like(pixels), pixels])
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, stack, metadata={"axes": "CYX"})
        images.append(str(path))
    model = bright_model(seen={"diameters_px": [8.0, 9.0, 10.0, 11.0, 12.0]}, data=FIXED)
    out = tmp_path / "out"
    assert command(["predict", str(model), *images, "-o", str(out), "--select", "channel=1"]) == 0
    return out


def blocks(folder: Path) -> dict[str, Any]:
    """Return the blocks of a report that have a title, by it."""
    content = json.loads((folder / "report.json").read_text())
    return {
        block["title"]: block
        for section in content["sections"]
        for block in section["blocks"]
        if block.get("title")
    }


def test_the_page_says_once_what_several_images_share(runs: Path) -> None:
    assert command(["report", str(runs), "-o", str(runs)]) == 0
    (line,) = blocks(runs)["Warnings of the runs"]["lines"]
    assert "px across in the median" in line
    assert line.endswith("(2 images: a, b; the numbers are those of a)")


def test_the_page_says_what_of_the_file_was_read(runs: Path) -> None:
    assert command(["report", str(runs), "-o", str(runs)]) == 0
    lines = blocks(runs)["How the images were read"]["lines"]
    assert "The file was read with --select channel=1 (all 3 images)." in lines
    assert any(line.startswith("The model was shown") for line in lines)
    assert any("look like those of the training is not known" in line for line in lines)


def test_a_verdict_names_the_images_that_were_warned_of(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = tmp_path / "manifest.csv"
    rows = [f"{name},{name},0.5,0.5" for name in "abc"]
    header = "image,unit_id,pixel_size_um_y,pixel_size_um_x"
    sizes.write_text("\n".join([header, *rows]))
    judged = ["--rules", "cells", "--manifest", str(sizes), "-o", str(tmp_path / "judged")]
    assert command(["report", str(runs), *judged]) == 0
    said = capsys.readouterr()
    assert "(2 images: a, b; the numbers are those of a)" in said.err + said.out
