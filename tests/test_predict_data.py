"""A data set in one folder of tables: wafer maps with their patterns and their failing dies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from domainseg.errors import OutputError, UsageError
from domainseg.loaders.wafer_map import PATTERNS
from domainseg.predict_data import predict_data
from domainseg.runs import RunOptions

Write = Callable[..., Path]
# The bright model's first logit is "is there a die", its second "does it fail".
RING, SPOT = PATTERNS[0], PATTERNS[1]


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Return three maps of 52 x 52: no failing die, one group of 9, two groups of 4."""
    root = tmp_path / "maps"
    root.mkdir()
    dies = np.ones((3, 52, 52), np.uint8)
    dies[:, :2] = 0
    dies[1, 10:13, 10:13] = 2
    dies[2, 20:22, 20:22] = dies[2, 40:42, 8:10] = 2
    np.savez(root / "Wafer_Map_Datasets.npz", arr_0=dies, arr_1=np.zeros((3, 8), np.uint8))
    return root


@pytest.fixture
def model(bright_model: Write) -> Path:
    data = {
        "loader": {"name": "mixedwm38"},
        "channels": "die_map",
        "split": {"by": "hash", "val": 0.0, "test": 0.0},
        "normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 1.0},
    }
    return bright_model(classes=PATTERNS, data=data, head={"name": "pattern"})


def test_each_image_has_a_row_and_each_group_of_dies_one(
    model: Path, maps: Path, tmp_path: Path
) -> None:
    run = predict_data(model, maps, tmp_path / "out")
    assert (run.images, run.objects) == (3, 3 + 1 + 2)
    images = pl.read_csv(run.folder / "images.csv")
    assert images["labels"].to_list() == [RING, f"{RING}+{SPOT}", f"{RING}+{SPOT}"]
    # Of two patterns the one of higher score; of equal scores the larger one.
    assert images["strongest"].to_list() == [RING] * 3
    assert images["dies"].to_list() == [50 * 52] * 3
    assert images["failing_dies"].to_list() == [0, 9, 8]
    assert images["failing_share_in_patterns"].to_list() == [None, 1.0, 1.0]
    assert images[f"score_{PATTERNS[2]}"].to_list() == [0.0] * 3
    objects = pl.read_parquet(run.folder / "objects.parquet")
    spots = objects.filter(pl.col("class") == SPOT)
    assert spots["area_px"].to_list() == [9, 4, 4]
    assert spots["intensity_mean_fail"].to_list() == [1.0] * 3
    assert objects["image"].n_unique() == 3
    assert pl.read_csv(run.folder / "objects.csv").height == objects.height


def test_the_masks_are_in_coco_and_hold_dies_only(model: Path, maps: Path, tmp_path: Path) -> None:
    run = predict_data(model, maps, tmp_path / "out")
    coco = json.loads((run.folder / "objects.coco.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in coco["categories"]] == list(PATTERNS)
    assert len(coco["images"]) == 3
    areas = [one["area"] for one in coco["annotations"]]
    assert sorted(areas) == [4, 4, 9, 2600, 2600, 2600]


def test_new_maps_need_no_split_and_no_label(
    bright_model: Write, maps: Path, tmp_path: Path
) -> None:
    data = {
        "loader": {"name": "mixedwm38"},
        "channels": "die_map",
        "split": {"by": "column", "column": "split"},
        "normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 1.0},
    }
    model = bright_model(classes=PATTERNS, data=data, head={"name": "pattern"})
    assert predict_data(model, maps, tmp_path / "out").images == 3


def test_maps_that_nobody_has_labelled_are_looked_at(bright_model: Write, tmp_path: Path) -> None:
    maps = tmp_path / "lot"
    maps.mkdir()
    dies = np.ones((2, 30, 26), np.uint8)
    dies[1, 10:13, 10:13] = 2
    np.savez(
        maps / "wm811k_subset.npz",
        maps_flat=dies.reshape(-1),
        offsets=np.array([0, 780, 1560]),
        shapes=np.array([[30, 26]] * 2, np.int16),
        label=np.array(["", ""]),
        split=np.array(["", ""]),
        index=np.array([0, 1]),
    )
    data = {
        "loader": {"name": "wm811k"},
        "channels": "die_map",
        "split": {"by": "hash"},
        "normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 1.0},
    }
    model = bright_model(classes=PATTERNS, data=data, head={"name": "pattern"})
    run = predict_data(model, maps, tmp_path / "out")
    assert (run.images, run.objects) == (2, 2 + 1)


def test_options_that_would_do_nothing_are_refused(model: Path, maps: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        predict_data(model, maps, tmp_path / "out", options=RunOptions(max_memory_mb=1000.0))
    assert str(caught.value) == (
        "predict: found --max-memory with --data, wanted options that take effect; drop "
        "--max-memory, or name the images themselves."
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_not_written_over(model: Path, maps: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_data(model, maps, out)
    with pytest.raises(OutputError) as caught:
        predict_data(model, maps, out)
    assert str(caught.value) == (
        f"{out}: found a folder with files in it, wanted a new or empty folder; choose another, "
        "or replace them with --restart."
    )
    assert predict_data(model, maps, out, options=RunOptions(restart=True)).images == 3
