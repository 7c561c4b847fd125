"""A model against truth: scores by hand, run folders to report on, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.errors import InputError, OutputError, RecipeError, UsageError
from domainseg.evaluate import evaluate_model
from domainseg.images import read_labels
from domainseg.inspection import inspect
from domainseg.predict import predict
from domainseg.report.run_folder import image_folders
from domainseg.runs import RunOptions

Draw = Callable[..., NDArray[np.int32]]
Write = Callable[..., Path]
FILES = {"name": "mask_folder", "index": "index.csv", "kind": "kind"}
DATA = {
    "loader": FILES,
    "split": {"by": "column", "column": "split"},
    "normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0},
}


@pytest.fixture
def data(tmp_path: Path, discs: Draw) -> Path:
    """Return a folder: image "a" is found whole, of "b" one disc of two, "c" trains."""
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for name in ("a", "b", "c"):
        labels = discs((60, 80), (20, 20, 9), (40, 60, 10))
        image = np.where(labels > 0, 240, 10).astype(np.uint8)
        if name == "b":
            image[labels == 2] = 10
        tifffile.imwrite(root / "images" / f"{name}.tif", image)
        tifffile.imwrite(root / "labels" / f"{name}.tif", labels.astype(np.uint16))
    (root / "index.csv").write_text(
        "image,split,kind\na,test,easy\nb,test,hard\nc,train,easy\n", encoding="utf-8"
    )
    return root


def model_on(write: Write, root: Path, **sections: Any) -> Path:
    changed = {**DATA, "root": str(root), **sections.pop("data", {})}
    return write(data=changed, **sections)


def test_scores_are_those_of_the_objects(bright_model: Write, data: Path) -> None:
    found = evaluate_model(model_on(bright_model, data))
    assert [row.id for row in found.images] == ["a", "b"]
    assert [row.metrics.mean_ap for row in found.images] == [1.0, 0.5]
    assert found.all.mean.mean_ap == 0.75
    assert [(s.name, s.mean.mean_ap) for s in found.kinds] == [("easy", 1.0), ("hard", 0.5)]
    assert evaluate_model(model_on(bright_model, data), part="train").all.mean.mean_ap == 1.0


def test_data_may_lie_elsewhere_whatever_its_path(bright_model: Write, data: Path) -> None:
    moved = data.with_name("data: [1] #2")
    data.rename(moved)
    found = evaluate_model(model_on(bright_model, data), moved)
    assert found.all.mean.mean_ap == 0.75


def test_all_of_few_images_needs_no_parts(bright_model: Write, data: Path, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (data / folder / "c.tif").unlink()
    by_hash = {"loader": {"name": "mask_folder"}, "split": {"by": "hash"}}
    model = model_on(bright_model, data, data=by_hash)
    found = evaluate_model(model, part="all", out=tmp_path / "out")
    assert [row.id for row in found.images] == ["a", "b"]
    record = json.loads((tmp_path / "out" / "a" / "run.json").read_text())
    assert record["recipe"]["data"]["split"]["val"] == 0.15
    with pytest.raises(InputError, match="split: found 2 images"):
        evaluate_model(model, part="test")


def test_run_folders_are_left_to_report_on(bright_model: Write, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    model = model_on(bright_model, data)
    found = evaluate_model(model, out=out)
    assert image_folders(out) == [out / "a", out / "b"]
    np.testing.assert_array_equal(
        read_labels(out / "b" / "truth.tif"), tifffile.imread(data / "labels" / "b.tif")
    )
    assert pl.read_parquet(out / "objects.parquet")["image"].to_list() == ["a", "a", "b"]
    whole = json.loads((out / "evaluation.json").read_text())
    alone = json.loads((out / "b" / "evaluation.json").read_text())
    assert alone["images"] == [row for row in whole["images"] if row["id"] == "b"]
    record = json.loads((out / "a" / "run.json").read_text())
    assert record["image"]["path"] == "a"
    assert inspect([out], out=out).exists()
    before = (out / "b" / "run.json").stat().st_mtime_ns
    assert evaluate_model(model, out=out).all == found.all
    assert (out / "b" / "run.json").stat().st_mtime_ns == before
    with pytest.raises(OutputError) as caught:
        evaluate_model(model, out=out, options=RunOptions(overrides=("instances.threshold=0.7",)))
    assert str(caught.value).startswith(
        f"{out / 'a'}: found a run with another recipe.instances.threshold, "
    )


def test_truth_that_was_lost_comes_back_with_a_run_that_was_cut(
    bright_model: Write, data: Path, tmp_path: Path
) -> None:
    out, model = tmp_path / "out", model_on(bright_model, data)
    evaluate_model(model, out=out)
    (out / "a" / "truth.tif").unlink()
    (out / "a" / "run.json").unlink()
    evaluate_model(model, out=out)
    assert (out / "a" / "truth.tif").exists()


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"evaluate": {"by_class": True}, "classes": ("object",)},
        {"head": {"name": "semantic", "activation": "sigmoid"}, "classes": ("a", "b")},
    ],
    ids=["maps", "classes", "layers"],
)
def test_a_finished_evaluation_is_scored_again_without_the_network(
    bright_model: Write,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sections: dict[str, Any],
) -> None:
    model, out = model_on(bright_model, data, **sections), tmp_path / "out"
    first = evaluate_model(model, out=out)
    assert evaluate_model(model).to_json() == first.to_json()

    def network(*_: object, **__: object) -> None:
        raise AssertionError

    room = import_module("domainseg.evaluate")
    for name in ("segment", "run_task"):
        monkeypatch.setattr(room, name, network)
    # Labels that were mended since are what is scored, and what the report is shown.
    (out / "a" / "truth.tif").unlink()
    assert evaluate_model(model, out=out).to_json() == first.to_json()
    mended = tifffile.imread(data / "labels" / "b.tif")
    mended[mended == 2] = 0
    tifffile.imwrite(data / "labels" / "b.tif", mended)
    again = evaluate_model(model, out=out)
    assert again.to_json()["images"][0] == first.to_json()["images"][0]
    assert again.images[1].tally.counts[0].missed == 0
    np.testing.assert_array_equal(read_labels(out / "b" / "truth.tif"), mended)


def test_classes_are_scored_within_themselves(bright_model: Write, data: Path) -> None:
    model = model_on(bright_model, data, evaluate={"by_class": True}, classes=("object",))
    (only,) = evaluate_model(model).classes
    assert only.name == "object"
    assert only.tally.counts[0].matched == 3


def test_classes_of_the_data_must_be_those_of_the_model(bright_model: Write, data: Path) -> None:
    model = model_on(bright_model, data, evaluate={"by_class": True}, classes=("cell",))
    with pytest.raises(InputError) as caught:
        evaluate_model(model)
    assert str(caught.value) == (
        f"{data}: found the classes object, wanted those of the model, cell; "
        "rename them with data.classes, or set evaluate.by_class=false."
    )


def test_objects_of_several_layers_are_scored_as_objects(bright_model: Write, data: Path) -> None:
    # The second layer sees the same discs again: half of what is predicted is one too many.
    model = model_on(
        bright_model,
        data,
        head={"name": "semantic", "activation": "sigmoid"},
        classes=("a", "b"),
    )
    counts = evaluate_model(model).images[0].tally.counts[0]
    assert (counts.matched, counts.missed, counts.false) == (2, 0, 2)


def test_groups_are_normalised_together(bright_model: Write, data: Path) -> None:
    dim = tifffile.imread(data / "images" / "a.tif") // 4
    tifffile.imwrite(data / "images" / "a.tif", dim)
    (data / "index.csv").write_text(
        "image,split,kind,plate\na,test,x,1\nb,test,x,1\nc,train,x,2\n", encoding="utf-8"
    )
    percentiles = {"low_percentile": 0.0, "high_percentile": 100.0}
    scores = {}
    for scope in ("image", "group"):
        changed = {
            "loader": {**FILES, "group": "plate"},
            "normalise": {"scope": scope, **percentiles},
        }
        found = evaluate_model(model_on(bright_model, data, data=changed))
        scores[scope] = [row.metrics.mean_ap for row in found.images]
    assert scores == {"image": [1.0, 0.5], "group": [0.0, 0.5]}


def scales_of(out: Path) -> list[Any]:
    """Return scale, diameter that was given and where it came from, of image "a"."""
    record = json.loads((out / "a" / "run.json").read_text())
    image = record["image"]
    return [record["grid"]["scale"][0], image["diameter_px"], image.get("diameter_from")]


def test_images_are_scaled_as_prediction_would_scale_them(
    bright_model: Write, data: Path, tmp_path: Path
) -> None:
    # The training's objects measure 10 px, those of image "a" about 19.
    model = model_on(bright_model, data, data={"diameter_px": 5.0})
    evaluate_model(model, out=tmp_path / "out")
    assert scales_of(tmp_path / "out") == [0.5, None, "training"]
    record = json.loads((tmp_path / "out" / "a" / "run.json").read_text())
    (seen,) = predict(model, [data / "images" / "a.tif"], tmp_path / "predicted")
    assert record["warnings"] == list(seen.warnings)
    assert record["objects"] == seen.objects.height
    evaluate_model(model, out=tmp_path / "given", options=RunOptions(diameter_px=20.0))
    assert scales_of(tmp_path / "given") == [0.25, 20.0, "option"]


def test_the_true_diameter_is_used_where_it_is_asked_for(
    bright_model: Write, data: Path, tmp_path: Path
) -> None:
    model = model_on(bright_model, data, data={"diameter_px": 5.0})
    out = tmp_path / "out"
    evaluate_model(model, out=out, true_diameter=True)
    scale, diameter, source = scales_of(out)
    assert 18 < diameter < 20
    assert scale == pytest.approx(5 / diameter)
    assert source == "truth"
    with pytest.raises(OutputError, match=r"a run with another image\.diameter_px"):
        evaluate_model(model, out=out)
    # Of an image without objects nobody knows it.
    tifffile.imwrite(data / "labels" / "a.tif", np.zeros((60, 80), np.uint16))
    evaluate_model(model, out=tmp_path / "void", true_diameter=True)
    assert scales_of(tmp_path / "void") == [0.5, None, "training"]


def test_a_model_without_a_diameter_has_none_in_its_record(
    bright_model: Write, data: Path, tmp_path: Path
) -> None:
    evaluate_model(model_on(bright_model, data), out=tmp_path / "out")
    assert scales_of(tmp_path / "out") == [1.0, None, None]


def test_a_true_diameter_that_would_do_nothing_is_refused(bright_model: Write, data: Path) -> None:
    with pytest.raises(UsageError) as caught:
        evaluate_model(model_on(bright_model, data), true_diameter=True)
    assert str(caught.value) == (
        "evaluate: found the true diameter, for a model that works at none, wanted "
        "data.diameter_px; drop --true-diameter."
    )
    model = model_on(bright_model, data, data={"diameter_px": 5.0})
    with pytest.raises(UsageError) as caught:
        evaluate_model(model, true_diameter=True, options=RunOptions(diameter_px=20.0))
    assert str(caught.value) == (
        "evaluate: found a diameter of 20 px and the true one, wanted one of them; "
        "drop --true-diameter."
    )


def test_an_empty_part_and_an_unknown_one_are_refused(bright_model: Write, data: Path) -> None:
    model = model_on(bright_model, data)
    with pytest.raises(InputError) as caught:
        evaluate_model(model, part="val")
    assert str(caught.value) == (
        "evaluate: found no image in val, wanted at least one; name another part."
    )
    with pytest.raises(RecipeError) as refused:
        evaluate_model(model, part="validation")
    assert "evaluate.part" in str(refused.value)
