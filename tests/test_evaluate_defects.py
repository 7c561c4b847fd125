"""Defects, pixels and image labels of a model against truth, by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.cli.app import run
from domainseg.errors import InputError, RecipeError
from domainseg.evaluate import evaluate_model
from domainseg.loaders.splits import Splits
from domainseg.predict_data import predict_data
from domainseg.recipe import load_recipe, with_overrides
from domainseg.recipe_sections import Evaluate
from domainseg.records import Entry, Instances, Sample
from domainseg.report.scores_file import read_evaluation
from domainseg.runs import RunOptions
from domainseg.sources import Source, map_classes

Draw = Callable[..., NDArray[np.int32]]
Write = Callable[..., Path]
DATA = {
    "loader": {"name": "mask_folder", "index": "index.csv"},
    "split": {"by": "column", "column": "split"},
    "normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0},
}
SHAPE = (60, 80)


@pytest.fixture
def data(tmp_path: Path, discs: Draw) -> Path:
    """Return a folder: "a" is found whole, "b" half and with a false call, "c" is good."""
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    both = discs(SHAPE, (20, 20, 9), (40, 60, 10))
    images = {"a": both > 0, "b": (both == 1) | (discs(SHAPE, (8, 70, 3)) > 0), "c": both > 9}
    images["d"] = images["a"]
    for name, bright in images.items():
        image = np.where(bright, 240, 10).astype(np.uint8)
        labels = np.zeros_like(both) if name == "c" else both
        tifffile.imwrite(root / "images" / f"{name}.tif", image)
        tifffile.imwrite(root / "labels" / f"{name}.tif", labels.astype(np.uint16))
    (root / "index.csv").write_text(
        "image,split\na,test\nb,test\nc,test\nd,train\n", encoding="utf-8"
    )
    return root


def model_on(write: Write, root: Path, **asked: Any) -> Path:
    return write(data={**DATA, "root": str(root)}, evaluate={"defects": True, **asked})


def test_defects_are_found_by_hand(bright_model: Write, data: Path, discs: Draw) -> None:
    found = evaluate_model(model_on(bright_model, data))
    assert found.detection is not None
    whole = found.detection.all
    assert (whole.images, whole.truths, whole.found, whole.calls, whole.false) == (3, 4, 3, 4, 1)
    assert whole.false_per_mpx == pytest.approx(1e6 / 14400)
    assert found.detection.classes == ()
    # Nothing tells the false call from the true ones: all have the highest score.
    assert found.detection.response.recall_at(1.0) == 0.0
    assert found.detection.response.recall_at(100.0) == 0.75
    # Both discs are 16 to 32 px across.
    sizes = {one.low_px: (one.truths, one.found) for one in found.detection.sizes if one.truths}
    assert sizes == {16.0: (4, 3)}
    assert found.boundary is not None
    assert [counts.f for _, counts in found.boundary.images][::2] == [1.0, 1.0]
    areas = [int((discs(SHAPE, place) > 0).sum()) for place in ((20, 20, 9), (40, 60, 10))]
    false = int((discs(SHAPE, (8, 70, 3)) > 0).sum())
    assert found.pixels is not None
    hit, missed, good = 2 * areas[0] + areas[1], areas[1], 14400 - 2 * sum(areas)
    assert found.pixels.defect.iou == hit / (hit + missed + false)
    tied = hit * (good - false) + (hit * false + missed * (good - false)) / 2
    assert found.pixels.ranking.auroc == pytest.approx(tied / ((hit + missed) * good), abs=1e-12)
    assert found.image_level is not None
    assert found.image_level.by_probability.auroc == found.image_level.by_object.auroc == 1.0
    assert found.image_labels is None
    # What was there before is as it was.
    assert found.all == evaluate_model(model_on(bright_model, data, defects=False)).all


def test_run_folders_give_the_same_scores_and_what_they_hold_is_scored_again(
    bright_model: Write, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = model_on(bright_model, data, labels=True), tmp_path / "out"
    data_of = RunOptions(overrides=('data.classes={"object": "cell"}',))
    wanted = evaluate_model(model, options=data_of)
    first = evaluate_model(model, out=out, options=data_of)
    assert first.to_json() == wanted.to_json()
    assert json.loads((out / "evaluation.json").read_text()) == first.to_json()

    def network(*_: object, **__: object) -> None:
        raise AssertionError

    room = import_module("domainseg.evaluate")
    for name in ("segment", "run_task"):
        monkeypatch.setattr(room, name, network)
    assert evaluate_model(model, out=out, options=data_of).to_json() == first.to_json()
    # Other questions to the same predictions.
    strict = RunOptions(overrides=(*data_of.overrides, "evaluate.min_cover=1"))
    again = evaluate_model(model, out=out, options=strict)
    assert again.detection is not None
    assert again.detection.rule.min_cover == 1.0


def test_maps_of_another_grid_are_ranked_in_the_pixels_of_the_image(
    bright_model: Write, data: Path, tmp_path: Path
) -> None:
    model = bright_model(
        data={**DATA, "root": str(data), "size_px": 40}, evaluate={"defects": True}
    )
    found, stored = evaluate_model(model), evaluate_model(model, out=tmp_path / "out")
    assert stored.to_json() == found.to_json()
    assert found.pixels is not None
    assert int(found.pixels.ranking.good.sum() + found.pixels.ranking.defect.sum()) == 14400
    assert found.pixels.ranking.auroc > 0.8


def test_runs_without_maps_are_scored_without_rankings(
    bright_model: Write, data: Path, tmp_path: Path
) -> None:
    model = model_on(bright_model, data)
    found = evaluate_model(model, out=tmp_path / "out", options=RunOptions(drop_maps=True))
    assert found.pixels is not None
    assert (found.pixels.images, found.pixels.ranked) == (3, 0)
    content = found.to_json()
    assert content["pixels"]["auroc"] is None
    assert content["pixels"]["iou"]["defect"] > 0.5
    assert content["image_level"]["by_probability"]["auroc"] is None
    assert content["image_level"]["by_object"]["auroc"] == 1.0


def test_what_was_not_asked_for_has_no_key(bright_model: Write, data: Path) -> None:
    plain = evaluate_model(model_on(bright_model, data, defects=False)).to_json()
    assert list(plain) == ["thresholds", "all", "kinds", "classes", "class_mean", "images"]
    asked = evaluate_model(model_on(bright_model, data)).to_json()
    assert list(asked) == [*plain, "detection", "boundary", "pixels", "image_level"]


# Image labels -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Maps:
    """Wafer maps 6 x 6 with labels and no drawn truth, but for one of them."""

    values: dict[str, NDArray[np.uint8]]
    tags: dict[str, tuple[str, ...]]
    drawn: dict[str, Instances]
    classes: tuple[str, ...] = ("wafer", "fails")

    def entries(self) -> Sequence[Entry]:
        return tuple(Entry(name, name, tags=self.tags[name]) for name in sorted(self.values))

    def load(self, entry: Entry) -> Sample:
        return Sample(
            entry.id,
            self.values[entry.id][None],
            ("die",),
            truth=self.drawn.get(entry.id),
            tags=self.tags[entry.id],
        )


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> Maps:
    """Return maps on which the model sees "wafer" where dies are and "fails" where they fail."""
    void = np.zeros((6, 6), np.uint8)
    passing, failing = np.ones_like(void), np.ones_like(void)
    failing[:2] = 2
    made = Maps(
        {"a": failing, "b": failing.T.copy(), "c": void, "d": passing, "e": failing},
        {"a": ("wafer", "fails"), "b": ("wafer",), "c": ("None",), "d": ("fails",), "e": ()},
        {"e": Instances.from_label_map(np.repeat([[1], [0]], 3, 0) * np.ones((1, 6), np.int64))},
    )

    def opened(_recipe: object) -> Source:
        entries = tuple(made.entries())
        return Source(made, Splits((), (), entries), map_classes(made.classes, None))

    monkeypatch.setattr(import_module("domainseg.evaluate"), "open_source", opened)
    return made


def map_model(write: Write, classes: tuple[str, ...] = ("wafer", "fails"), **asked: Any) -> Path:
    fixed = {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 1.0}
    return write(
        data={"channels": "die_map", "normalise": fixed},
        head={"name": "semantic", "activation": "sigmoid"},
        classes=classes,
        evaluate=asked,
    )


def test_images_with_a_label_alone_are_scored_by_it(
    bright_model: Write, maps: Maps, tmp_path: Path
) -> None:
    model = map_model(bright_model)
    found = evaluate_model(model, out=tmp_path / "out")
    # Objects are matched where they are drawn.
    assert [row.id for row in found.images] == ["e"]
    labels = found.image_labels
    assert labels is not None
    assert [one.id for one in labels.images] == ["a", "b", "c", "d"]
    assert [one.predicted.tolist() for one in labels.images] == [
        [True, True],
        [True, True],
        [False, False],
        [True, False],
    ]
    assert labels.exact == 2 / 4
    assert labels.single is None
    # The first layer masks all dies.
    assert labels.failing_shares == [1.0, 1.0]
    assert labels.localised == 0.0
    assert found.detection is None
    assert evaluate_model(model).to_json() == found.to_json()


def test_labels_of_drawn_truth_are_its_classes(bright_model: Write, maps: Maps) -> None:
    labels = evaluate_model(map_model(bright_model, labels=True)).image_labels
    assert labels is not None
    last = labels.images[-1]
    assert (last.id, last.truth.tolist()) == ("e", [True, False])
    # The drawn wafer is half of what is seen of it; what fails was not drawn.
    assert last.mask_ious == (0.5, 0.0)
    assert labels.mask_iou == 0.25


def test_an_image_labelled_good_holds_no_defect_anywhere(bright_model: Write, maps: Maps) -> None:
    found = evaluate_model(map_model(bright_model, defects=True))
    assert found.detection is not None
    assert [one.id for one in found.detection.images] == ["c", "e"]
    assert found.image_level is not None
    assert [one.defect for one in found.image_level.images] == [True, True, False, True, True]
    assert found.image_level.by_object.auroc == 1.0


def test_labels_alone_give_scores_and_a_file_that_reads(
    bright_model: Write, maps: Maps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del maps.values["e"]
    file = tmp_path / "scores.json"
    assert run(["evaluate", str(map_model(bright_model)), "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert "4 images with labels" in said
    assert "AP .5" not in said
    content = json.loads(file.read_text())
    assert content["all"]["images"] == 0
    assert content["all"]["mean"]["mean_ap"] is None
    assert content["image_labels"]["count"] == 4
    assert read_evaluation(file).images == ()


def test_labels_want_the_classes_of_the_model(bright_model: Write, maps: Maps) -> None:
    with pytest.raises(InputError) as caught:
        evaluate_model(map_model(bright_model, classes=("fails", "wafer")))
    assert str(caught.value) == (
        "data: found the classes wafer, fails, wanted those of the model, fails, wafer; "
        "rename them with data.classes."
    )
    with pytest.raises(InputError) as caught:
        evaluate_model(map_model(bright_model, classes=("fails", "wafer"), labels=True))
    assert str(caught.value) == (
        "data: found the classes wafer, fails, wanted those of the model, fails, wafer; "
        "rename them with data.classes, or set evaluate.labels=false."
    )


def test_an_image_without_truth_and_label_is_refused(bright_model: Write, maps: Maps) -> None:
    maps.tags["a"] = ()
    with pytest.raises(InputError) as caught:
        evaluate_model(map_model(bright_model))
    assert str(caught.value) == (
        "a: found no annotation, wanted objects to learn or to score; add it."
    )


# Command line and recipe ------------------------------------------------------------------


def test_tables_are_printed_of_what_was_asked_for(
    bright_model: Write, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(model_on(bright_model, data, defects=False))
    assert run(["evaluate", model]) == 0
    plain = capsys.readouterr().out
    assert "detection" not in plain
    assert run(["evaluate", model, "--set", "evaluate.defects=true"]) == 0
    said = capsys.readouterr().out
    assert plain in said
    for words in (
        "detection",
        "diameter 16 to 32 px",
        "at 10 false calls per Mpx",
        "boundary within 0.75 % of the diagonal",
        "PRO to 0.3",
        "2 with, 1 without, by largest probability",
    ):
        assert words in said


def test_a_data_bar_is_seen_by_no_verb(bright_model: Write, data: Path, tmp_path: Path) -> None:
    image = np.full(SHAPE, 10, np.uint8)
    image[52:] = 240
    tifffile.imwrite(data / "images/c.tif", image)
    asked: dict[str, Any] = {
        "data": {**DATA, "root": str(data)},
        "evaluate": {"defects": True, "image_px": 9},
    }
    unaware = evaluate_model(bright_model(**asked))
    assert unaware.detection is not None
    assert unaware.detection.all.false == 2
    model = bright_model(**asked, image={"ignore_edges_px": {"bottom": 8}})
    found = evaluate_model(model)
    assert found.detection is not None
    assert found.detection.all.false == 1
    assert found.image_level is not None
    assert [one.object_score for one in found.image_level.images][2] == 0.0
    assert found.image_level.by_probability.auroc == found.image_level.by_object.auroc == 1.0
    assert evaluate_model(model, out=tmp_path / "out").to_json() == found.to_json()
    run_ = predict_data(model, data, tmp_path / "tables")
    table = pl.read_csv(run_.folder / "images.csv")
    assert dict(zip(table["image"], table["objects"], strict=True))["c"] == 0


def test_size_bins_must_rise() -> None:
    assert Evaluate(size_bins_px=(1.0, 2.0)).size_bins_px == (1.0, 2.0)
    recipe = load_recipe("scenes-unet")
    with pytest.raises(RecipeError) as caught:
        with_overrides(recipe, ["evaluate.size_bins_px=[4, 4, 8]"])
    assert str(caught.value) == (
        "command line: evaluate: found size_bins_px 4, 4, 8, wanted numbers that rise; sort them."
    )
