"""The verbs of defects on the command line: tune, predict --data, defects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.cli.app import run

Said = pytest.CaptureFixture[str]
Draw = Callable[..., NDArray[np.int32]]
Write = Callable[..., Path]
FIXED = {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0}


@pytest.fixture
def data(tmp_path: Path, discs: Draw) -> Path:
    """Return a folder of images that hold a bright object and a faint thing that is none."""
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        labels = discs((60, 80), (15, 15, 9))
        image = np.where(discs((60, 80), (40, 60, 8)) > 0, 135, 10)
        image = np.where(labels > 0, 150, image).astype(np.uint8)
        tifffile.imwrite(root / "images" / f"{number}.tif", image)
        tifffile.imwrite(root / "labels" / f"{number}.tif", labels.astype(np.uint16))
    rows = "".join(f"{n},{'train' if n == 3 else 'val'}\n" for n in range(4))
    (root / "index.csv").write_text("image,split\n" + rows, encoding="utf-8")
    return root


def model_of(write: Write, root: Path) -> Path:
    return write(
        data={
            "loader": {"name": "mask_folder", "index": "index.csv"},
            "root": str(root),
            "split": {"by": "column", "column": "split"},
            "normalise": FIXED,
        }
    )


def test_tune_says_what_it_chose_and_what_that_finds(
    bright_model: Write, data: Path, capsys: Said
) -> None:
    model = model_of(bright_model, data)
    assert run(["tune", str(model)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("rules"))
    assert lines[at].split()[:4] == ["rules", "recall", "precision", "F1"]
    assert lines[at + 1].split()[:4] == ["before", "1.0000", "0.5000", "0.6667"]
    assert lines[at + 2].split()[:4] == ["after", "1.0000", "1.0000", "1.0000"]
    assert any(line.startswith("instances.threshold=") for line in lines)
    assert lines[-1] == str(model)
    assert "scores not calibrated: too few objects, or all right or all wrong." in said.err


def test_an_aim_that_is_none_is_refused(bright_model: Write, data: Path, capsys: Said) -> None:
    model = model_of(bright_model, data)
    assert run(["tune", str(model), "--aim", "yield"]) == 2
    assert capsys.readouterr().err == (
        "error: tune --aim: found 'yield', wanted one of f1, recall, escape; correct it.\n"
    )
    assert run(["tune", str(model), "--aim", "recall"]) == 2
    assert capsys.readouterr().err == (
        "error: aim: found recall without false_calls_per_mpx, wanted false_calls_per_mpx with "
        "the aim recall, and with no other; give false_calls_per_mpx.\n"
    )


def test_predict_wants_images_or_data(
    bright_model: Write, data: Path, tmp_path: Path, capsys: Said
) -> None:
    model, out = str(model_of(bright_model, data)), str(tmp_path / "out")
    for given, found in (
        ([], "neither images nor --data"),
        ([str(data), "--data", str(data)], "both images and --data"),
    ):
        assert run(["predict", model, *given, "-o", out]) == 2
        assert capsys.readouterr().err == (
            f"error: predict: found {found}, wanted one of them; give images, or --data FOLDER.\n"
        )
    assert run(["predict", model, "--data", str(data), "-o", out]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{out}  4 images, 8 objects"


def test_defects_prints_the_largest_and_names_the_file(
    bright_model: Write, data: Path, tmp_path: Path, capsys: Said
) -> None:
    model, out = str(model_of(bright_model, data)), tmp_path / "out"
    assert run(["predict", model, str(data / "images" / "0.tif"), "-o", str(out)]) == 0
    capsys.readouterr()
    assert run(["defects", str(out / "0")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["label", "class", "class_share"] for line in lines)
    assert lines[-1] == f"{out / '0' / 'defects.parquet'}  2 defects"
    assert "no confidence: the model was not tuned, or its rules were changed since." in lines


def test_defects_takes_a_folder_of_runs(
    bright_model: Write, data: Path, tmp_path: Path, capsys: Said
) -> None:
    model, out = str(model_of(bright_model, data)), tmp_path / "out"
    images = [str(data / "images" / f"{name}.tif") for name in (0, 1)]
    assert run(["predict", model, *images, "-o", str(out)]) == 0
    capsys.readouterr()
    assert run(["defects", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["image", "label"] for line in lines)
    assert [line.partition("  ")[0] for line in lines[-2:]] == [
        str(out / name / "defects.parquet") for name in ("0", "1")
    ]
    assert run(["defects", str(out), "--image", images[0]]) == 2
    assert capsys.readouterr().err == (
        "error: defects --image: found 2 runs, wanted one; name the run of this image alone.\n"
    )
