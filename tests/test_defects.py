"""A run's objects as defects: what is added, and to which rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.defects import add_defects
from domainseg.errors import InputError
from domainseg.models.model_file import read_model, save_model
from domainseg.predict import predict
from domainseg.quality.calibration import Calibration
from domainseg.redecode import decode_run
from domainseg.runs import RunOptions

Draw = Callable[..., NDArray[np.int32]]
Write = Callable[..., Path]
FIXED = {"normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0}}


@pytest.fixture
def image(tmp_path: Path, discs: Draw) -> Path:
    """Return a picture of two discs, of 200 on 10 and of 180 on 30, with pixels of 2 um."""
    labels = discs((80, 120), (30, 30, 9), (50, 90, 10))
    ground = np.where(np.arange(120) < 60, 10, 30)[None].repeat(80, 0)
    values = np.select([labels == 1, labels == 2], [200, 180], ground).astype(np.uint8)
    path = tmp_path / "field.tif"
    tifffile.imwrite(path, values, resolution=(5000, 5000), resolutionunit="CENTIMETER")
    return path


def run_of(model: Path, image: Path, out: Path) -> Path:
    (run,) = predict(model, [image], out)
    return run.folder


def grid_file(path: Path, name: str, *, spacing_um: float = 2.0) -> Path:
    grid: dict[str, Any] = {
        "pitch_um": {"x": 50.0, "y": 100.0},
        "center_um": {"x": 0.0, "y": 0.0},
        "wafer_diameter_mm": 200.0,
        "spacing_um": {"x": spacing_um, "y": 2.0},
        "images": {name: {"wafer_center_px": {"x": 60.0, "y": 40.0}}},
    }
    path.write_text(json.dumps(grid), encoding="utf-8")
    return path


def test_each_object_has_its_contrast_and_the_table_stays(
    bright_model: Write, image: Path, tmp_path: Path
) -> None:
    folder = run_of(bright_model(data=FIXED), image, tmp_path / "out")
    made = add_defects(folder)
    before = pl.read_parquet(folder / "objects.parquet")
    assert made.table.select(before.columns).equals(before)
    name = before.columns[-1].rpartition("_")[2]
    np.testing.assert_allclose(made.table[f"contrast_{name}"].to_numpy(), [190.0, 150.0])
    assert made.table["class_share"].to_list() == [1.0, 1.0]
    assert made.table["second_class"].to_list() == [None, None]
    assert made.table["confidence"].to_list() == [None, None]
    assert pl.read_parquet(folder / "defects.parquet").equals(made.table)
    assert (folder / "defects.csv").is_file()


def test_without_maps_the_votes_are_unknown(
    bright_model: Write, image: Path, tmp_path: Path
) -> None:
    options = RunOptions(drop_maps=True)
    (run,) = predict(bright_model(data=FIXED), [image], tmp_path / "out", options=options)
    assert add_defects(run.folder).table["class_share"].to_list() == [None, None]


def test_a_die_grid_adds_places_with_y_up(bright_model: Write, image: Path, tmp_path: Path) -> None:
    folder = run_of(bright_model(data=FIXED), image, tmp_path / "out")
    made = add_defects(folder, die_grid=grid_file(tmp_path / "die_grid.json", "field"))
    rows = made.table.select(
        "wafer_x_um", "wafer_y_um", "die_x", "die_y", "die_xrel_um", "die_yrel_um"
    ).rows()
    # Centroids (30, 30) and (50, 90): 10 px above and below the centre, 30 left and right.
    np.testing.assert_allclose(rows[0], (-60, 20, -2, 0, 40, 20), atol=1e-9)
    np.testing.assert_allclose(rows[1], (60, -20, 1, -1, 10, 80), atol=1e-9)


def test_scores_of_a_tuned_model_become_confidences(
    bright_model: Write, image: Path, tmp_path: Path
) -> None:
    path = bright_model(data=FIXED)
    card, weights = read_model(path)
    fitted = Calibration("temperature", np.array([2.0]), np.array([-1.0]))
    save_model(path, weights, replace(card, tuned={"calibration": fitted.to_json()}))
    made = add_defects(run_of(path, image, tmp_path / "out"))
    expected = fitted.apply(made.table["score"].to_numpy())
    np.testing.assert_array_equal(made.table["confidence"].to_numpy(), expected)


def test_the_grid_of_another_image_is_refused(
    bright_model: Write, image: Path, tmp_path: Path
) -> None:
    folder = run_of(bright_model(data=FIXED), image, tmp_path / "out")
    path = grid_file(tmp_path / "die_grid.json", "other")
    with pytest.raises(InputError) as caught:
        add_defects(folder, die_grid=path)
    assert str(caught.value) == (
        f"{path}: found the images other, wanted field, the image of the run; give the die "
        "grid of this image."
    )


def test_a_grid_of_another_pixel_size_is_refused(
    bright_model: Write, image: Path, tmp_path: Path
) -> None:
    folder = run_of(bright_model(data=FIXED), image, tmp_path / "out")
    path = grid_file(tmp_path / "die_grid.json", "field", spacing_um=2.5)
    with pytest.raises(InputError) as caught:
        add_defects(folder, die_grid=path)
    assert str(caught.value) == (
        f"{path}: found pixels of 2.5 x 2 um, wanted 2 x 2 um, those of the run; correct "
        "spacing_um."
    )


def test_confidence_is_that_of_the_rules_it_was_fitted_to(
    bright_model: Write, image: Path, tmp_path: Path
) -> None:
    path = bright_model(data=FIXED)
    card, weights = read_model(path)
    fitted = Calibration("temperature", np.array([2.0]), np.array([-1.0]))
    rules = {"threshold": 0.5, "min_area_px": 0}
    tuned = {"calibration": fitted.to_json(), "rules": rules}
    save_model(path, weights, replace(card, tuned=tuned))
    folder = run_of(path, image, tmp_path / "out")
    assert add_defects(folder).table["confidence"].null_count() == 0
    decode_run(folder, ["instances.threshold=0.6"])
    assert add_defects(folder).table["confidence"].null_count() == 2


def test_another_image_is_refused(bright_model: Write, image: Path, tmp_path: Path) -> None:
    folder = run_of(bright_model(data=FIXED), image, tmp_path / "out")
    tifffile.imwrite(image, np.zeros((80, 120), np.uint8))
    with pytest.raises(InputError) as caught:
        add_defects(folder)
    assert str(caught.value) == (
        f"{image}: found another image than the one that was predicted, wanted the same file; "
        "predict it again."
    )


def test_a_run_whose_image_lost_a_tile_has_defects_too(bright_model: Write, tmp_path: Path) -> None:
    pixels = np.full((256, 256), 10, np.uint8)
    pixels[16::32, 16::32] = pixels[17::32, 16::32] = 200
    pixels[59:61, 96] = 200  # its ring reaches into the tile that is lost
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages.first.dataoffsets[5], tif.pages.first.databytecounts[5]
    spoiled = bytearray(path.read_bytes())
    spoiled[offset : offset + count] = bytes(count)
    path.write_bytes(spoiled)
    options = RunOptions(skip_bad_tiles=True)
    (run,) = predict(bright_model(data=FIXED), [path], tmp_path / "out", options=options)
    made = add_defects(run.folder)
    contrast = next(name for name in made.table.columns if name.startswith("contrast_"))
    assert made.table[contrast].drop_nulls().to_list() == [190.0] * 61


def test_defects_of_other_rules_do_not_outlive_them(
    bright_model: Write, image: Path, tmp_path: Path
) -> None:
    folder = run_of(bright_model(data=FIXED), image, tmp_path / "out")
    add_defects(folder)
    decode_run(folder, ["instances.min_area_px=300"])
    assert not list(folder.glob("defects.*"))
    assert add_defects(folder).table.height == 1
