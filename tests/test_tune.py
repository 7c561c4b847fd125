"""Rules chosen on validation data are those that the data asks for, and the model keeps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.errors import InputError, RecipeError, UsageError
from domainseg.models.model_file import read_card
from domainseg.quality.tuning import Aim
from domainseg.recipe import recipe_from_json
from domainseg.runs import RunOptions
from domainseg.tune import _halves, tune

Draw = Callable[..., NDArray[np.int32]]
Write = Callable[..., Path]
HEAD = {"name": "semantic"}
DATA: dict[str, Any] = {
    "loader": {"name": "mask_folder", "index": "index.csv"},
    "split": {"by": "column", "column": "split"},
    "normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0},
}
BRIGHT, FAINT = 150, 135
"""Logits 2.8 and .9 of the bright model: probabilities .94 and .72."""


@pytest.fixture
def data(tmp_path: Path, discs: Draw) -> Path:
    """Return a folder: in each image three bright discs are objects, two faint ones are not."""
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    rows = ["image,split"]
    for number, part in enumerate(("val", "val", "val", "val", "train")):
        labels = discs((60, 80), (15, 15, 9), (40, 60, 10), (15, 60, 8))
        false = discs((60, 80), (40, 15, 8), (40, 36, 6))
        image = np.where(labels > 0, BRIGHT, np.where(false > 0, FAINT, 10)).astype(np.uint8)
        tifffile.imwrite(root / "images" / f"{number}.tif", image)
        tifffile.imwrite(root / "labels" / f"{number}.tif", labels.astype(np.uint16))
        rows.append(f"{number},{part}")
    (root / "index.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def model_on(write: Write, root: Path, **sections: Any) -> Path:
    return write(data={**DATA, "root": str(root)}, **sections)


def test_false_objects_are_dropped_by_what_tells_them_apart(
    bright_model: Write, data: Path
) -> None:
    model = model_on(bright_model, data)
    tuned = tune(model)
    assert (tuned.before.found, tuned.before.false) == (12, 8)
    assert (tuned.after.found, tuned.after.false, tuned.after.f1) == (12, 0, 1.0)
    kept = recipe_from_json(read_card(model).recipe, where="model").instances
    assert kept.threshold == tuned.rules["threshold"]
    assert kept.min_score == tuned.rules["min_score"]
    assert kept.min_area_px == tuned.rules["min_area_px"]
    assert max(float(str(kept.threshold)), float(str(kept.min_score))) > 0.72


def test_the_model_says_how_it_was_tuned_and_tuning_again_changes_nothing(
    bright_model: Write, data: Path
) -> None:
    model = model_on(bright_model, data)
    first = tune(model)
    record = read_card(model).tuned
    assert record["aim"]["name"] == "f1"
    assert (record["part"], record["images"]) == ("val", 4)
    assert record["after"]["f1"] == 1.0
    again = tune(model)
    assert again.rules == first.rules
    assert again.before == again.after == first.after


def test_a_copy_leaves_the_model_as_it_was(bright_model: Write, data: Path, tmp_path: Path) -> None:
    model = model_on(bright_model, data)
    before = model.read_bytes()
    tuned = tune(model, out=tmp_path / "tuned.safetensors")
    assert model.read_bytes() == before
    assert tuned.model == tmp_path / "tuned.safetensors"
    assert read_card(tuned.model).tuned["images"] == 4


def test_what_was_changed_for_the_call_alone_is_not_kept(bright_model: Write, data: Path) -> None:
    model = model_on(bright_model, data)
    tune(model, options=RunOptions(overrides=("evaluate.seed=7", "instances.min_area_px=3")))
    kept = recipe_from_json(read_card(model).recipe, where="model")
    assert kept.evaluate.seed == 0


def test_calibration_is_judged_on_other_groups_than_it_was_fitted_to() -> None:
    groups = [f"tile {n // 6}" for n in range(240)]
    halves = _halves(groups)
    assert sorted(halves.values()) == [False] * 20 + [True] * 20
    # Kinds that take turns would stand in one half each, were groups parted in their order.
    assert len({halves[f"tile {n}"] for n in range(0, 40, 2)}) == 2
    assert _halves(groups[::-1]) == halves


def test_defects_are_judged_by_detection_with_a_budget(bright_model: Write, data: Path) -> None:
    model = model_on(bright_model, data, evaluate={"defects": True})
    generous = tune(model, aim=Aim(name="recall", false_calls_per_mpx=1e6))
    assert (generous.after.recall, generous.kept) == (1.0, True)
    strict = tune(model, aim=Aim(name="recall", false_calls_per_mpx=0.0))
    assert (strict.after.recall, strict.after.false, strict.kept) == (1.0, 0, True)


def test_a_bound_out_of_reach_is_said(bright_model: Write, data: Path) -> None:
    model = model_on(bright_model, data)
    tuned = tune(model, aim=Aim(name="escape", escape_rate=0.01))
    # Twelve objects, none missed: the bound of the rate is still a quarter.
    assert (tuned.after.found, tuned.kept) == (12, False)


def test_scores_are_calibrated_where_right_and_wrong_ones_are_left(
    bright_model: Write, data: Path
) -> None:
    model = model_on(bright_model, data)
    tuned = tune(model, aim=Aim(name="escape", escape_rate=0.5))
    assert tuned.after.false == 0
    assert tuned.calibration is None
    assert read_card(model).tuned["calibration"] is None


def test_what_cannot_be_tuned_on_is_refused(bright_model: Write, data: Path) -> None:
    model = model_on(bright_model, data)
    with pytest.raises(InputError) as caught:
        tune(model, part="test")
    assert str(caught.value) == (
        "data: found no image in test, wanted at least one; name another part."
    )
    with pytest.raises(RecipeError, match=r"evaluate\.part"):
        tune(model, part="vla")
    for path in (data / "labels").iterdir():
        tifffile.imwrite(path, np.zeros((60, 80), np.uint16))
    with pytest.raises(InputError) as caught:
        tune(model)
    assert str(caught.value) == (
        f"{data}: found no object in the 4 images of val, wanted objects to tune on; name "
        "another part, or check the labels."
    )


class TestImageLabels:
    """Wafer maps with labels: "fail" groups of 9 dies are a pattern, of 1 die are none."""

    @pytest.fixture
    def maps(self, tmp_path: Path) -> Path:
        root = tmp_path / "maps"
        root.mkdir()
        dies = np.ones((30, 52, 52), np.uint8)
        labels = np.zeros((30, 8), np.uint8)
        for row, one in enumerate(dies):
            one[:2] = 0
            one[30, 30] = 2
            if row % 2:
                one[10:13, 10:13] = 2
                labels[row, 0] = 1
        np.savez(root / "Wafer_Map_Datasets.npz", arr_0=dies, arr_1=labels)
        return root

    def model(self, write: Write, maps: Path) -> Path:
        from domainseg.loaders.wafer_map import PATTERNS

        data = {
            "loader": {"name": "mixedwm38"},
            "root": str(maps),
            "channels": "die_map",
            "split": {"by": "hash", "val": 0.8, "test": 0.1},
            "normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 1.0},
        }
        return write(classes=PATTERNS, data=data, head={"name": "pattern"})

    def test_smallest_groups_are_learned_for_each_class(
        self, bright_model: Write, maps: Path
    ) -> None:
        model = self.model(bright_model, maps)
        tuned = tune(model)
        # The bright model's second logit is the failing dies: the second class is there always.
        assert tuned.after.f1 >= tuned.before.f1
        assert set(tuned.rules) == {"min_area_px", "min_score"}
        assert set(tuned.rules["min_area_px"]) == set(read_card(model).classes)

    def test_another_aim_is_refused(self, bright_model: Write, maps: Path) -> None:
        with pytest.raises(UsageError) as caught:
            tune(self.model(bright_model, maps), aim=Aim(name="escape", escape_rate=0.1))
        assert str(caught.value) == (
            "tune: found the aim escape for a model that learns image labels, wanted f1; drop "
            "the aim."
        )
