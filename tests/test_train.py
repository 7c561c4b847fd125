"""Training: the same weights however it is run, cut and resumed; the folder it leaves."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from domainseg.errors import InputError, OutputError, RecipeError
from domainseg.evaluate import evaluate_model
from domainseg.instances.overlaps import overlap_maps
from domainseg.loaders.mask_folder import Folder
from domainseg.models.model_file import ModelCard, read_card, read_model
from domainseg.predict import predict
from domainseg.recipe import load_recipe, recipe_from_json
from domainseg.records import Entry, Instances, Sample
from domainseg.segmenter import open_segmenter
from domainseg.sources import open_source
from domainseg.train import Trained, train
from domainseg.train_folder import keep_digest, minutes_before, prepare
from domainseg.training.loop import Progress

Values = Callable[..., dict[str, Any]]
Recipe = Callable[..., Path]


class KilledError(Exception):
    pass


@pytest.fixture
def recipe(tmp_path: Path, recipe_values: Values) -> Recipe:
    """Return what writes a recipe that trains in a second: three small scenes, 4 steps."""

    def write(**sections: Any) -> Path:
        scenes = {"name": "scenes", "train": 3, "val": 1, "test": 1, "height": 96, "width": 96}
        small = {
            "steps_per_epoch": 2,
            "max_steps": 4,
            "batch": 2,
            "patch_px": 32,
            "margin": 1.0,
            "workers": 0,
            **sections.pop("train", {}),
        }
        data = {"loader": scenes, "normalise": {"per": "image"}, **sections.pop("data", {})}
        values = recipe_values(data=data, train=small, **sections)
        values["train"] = {
            key: value for key, value in values["train"].items() if value is not None
        }
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write


def killed_at(step: int, error: type[BaseException] = KilledError) -> Callable[..., None]:
    def tell(_stage: str, progress: Progress | None) -> None:
        if progress is not None and progress.step == step:
            raise error

    return tell


def weights_of(trained: Trained) -> dict[str, torch.Tensor]:
    return read_model(trained.model)[1]


def assert_same(a: Trained, b: Trained) -> None:
    mine, theirs = weights_of(a), weights_of(b)
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert torch.equal(value, theirs[key]), key


def test_a_killed_training_resumes_to_the_same_weights(recipe: Recipe, tmp_path: Path) -> None:
    steps = (
        {"D4": {"p": 1.0}},
        {"RandomBrightnessContrast": {"p": 0.5}},
    )
    plan = recipe()
    values = yaml.safe_load(plan.read_text())
    plan.write_text(yaml.safe_dump({**values, "augment": list(steps)}))
    whole = train(plan, tmp_path / "whole")
    out = tmp_path / "cut"
    with pytest.raises(KilledError):
        train(plan, out, tell=killed_at(3))
    assert not (out / "model.safetensors").exists()
    assert (out / "prepared").exists()
    resumed = train(plan, out, resume=True)
    assert_same(resumed, whole)
    assert resumed.scores == whole.scores
    # A third run finds the model and does nothing.
    again = train(plan, out, resume=True, tell=killed_at(0))
    assert again.model == resumed.model
    assert again.scores == resumed.scores
    # And loader processes change nothing.
    assert_same(train(plan, tmp_path / "worker", overrides=["train.workers=1"]), whole)


def test_a_training_leaves_its_folder_whole(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stages: list[str] = []
    trained = train(recipe(), out, tell=lambda stage, now: None if now else stages.append(stage))
    assert stages == ["preparing images", "measuring the halo"]
    assert {p.name for p in out.iterdir()} == {
        "model.safetensors",
        "recipe.yaml",
        "metrics.csv",
        "images.sha256",
        "checkpoints",
        "tensorboard",
    }
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    card = read_card(trained.model)
    assert card.classes == ("cell",)
    assert card.training["steps"] in (2, 4)
    assert card.training["images"] == 3
    assert card.training["images_sha256"] == (out / "images.sha256").read_text().strip()
    assert card.scores == trained.scores
    assert card.scores["val_mean_ap"] == pytest.approx(
        max(float(row["score"]) for row in rows), abs=1e-5
    )
    assert card.halo_px in [reading["halo_px"] for reading in card.halos]
    assert load_recipe(out / "recipe.yaml").to_json() == card.recipe
    image = np.zeros((40, 40), np.uint8)
    from PIL import Image

    Image.fromarray(image).save(tmp_path / "a.png")
    assert predict(trained.model, [tmp_path / "a.png"], tmp_path / "runs")[0].folder.exists()


def test_a_folder_with_a_training_is_not_trained_over(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = recipe()
    with pytest.raises(KilledError):
        train(plan, out, tell=killed_at(3))
    with pytest.raises(OutputError) as caught:
        train(plan, out)
    assert str(caught.value) == (
        f"{out}: found a training, wanted a new folder; go on with --resume, or choose another."
    )
    with pytest.raises(OutputError) as caught:
        train(plan, out, overrides=["train.seed=5"], resume=True)
    assert str(caught.value) == (
        f"{out}: found a training with another train.seed, wanted the recipe that it began with; "
        "resume with that recipe, or choose another folder."
    )
    (out / "images.sha256").write_text("another\n")
    with pytest.raises(InputError) as changed:
        train(plan, out, resume=True)
    assert str(changed.value) == (
        f"{out}: found a training on other images or labels, wanted those that it began with, "
        "prepared by the same version; restore them, or choose another folder."
    )
    (out / "recipe.yaml").unlink()
    with pytest.raises(OutputError) as caught:
        train(plan, out, resume=True)
    assert str(caught.value) == (
        f"{out}: found a training without its recipe.yaml, wanted both, or neither to begin "
        "with; choose another folder."
    )


def test_control_c_ends_with_130_and_resumes(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from domainseg.cli import app

    room = import_module("domainseg.train")
    real = room.fit

    def interrupted(*args: Any, **options: Any) -> Any:
        def tell(progress: Progress) -> None:
            if progress.step == 3:
                raise KeyboardInterrupt

        return real(*args, **{**options, "tell": tell})

    monkeypatch.setattr(room, "fit", interrupted)
    plan, out = recipe(), tmp_path / "out"
    assert app.run(["train", str(plan), "-o", str(out)]) == 130
    assert not (out / "model.safetensors").exists()
    assert (out / "checkpoints" / "last.ckpt").exists()
    monkeypatch.undo()
    assert app.run(["train", str(plan), "-o", str(out), "--resume"]) == 0
    assert (out / "model.safetensors").exists()


def test_minutes_are_turned_into_steps_and_stay_what_they_were_planned_to_be(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = import_module("domainseg.train")
    asked: list[dict[str, float]] = []

    def planned(minutes: float, **times: float) -> int:
        asked.append({"minutes": minutes, **times})
        return 3

    monkeypatch.setattr(room, "steps_within", planned)
    plan, out = recipe(train={"max_steps": None, "max_minutes": 2.0}), tmp_path / "out"
    with pytest.raises(KilledError):
        train(plan, out, tell=killed_at(3))
    (times,) = asked
    assert times["minutes"] == 2.0
    assert times["steps_per_epoch"] == 2
    assert min(times["gone_s"], times["step_s"], times["validation_s"]) > 0
    resolved = load_recipe(out / "recipe.yaml").train
    assert (resolved.max_steps, resolved.max_minutes) == (3, None)
    resumed = train(plan, out, resume=True)
    assert len(asked) == 1
    assert read_card(resumed.model).recipe["train"]["max_steps"] == 3
    # That recipe alone gives the same weights, without timing anything.
    assert_same(train(out / "recipe.yaml", tmp_path / "again"), resumed)
    assert len(asked) == 1


def test_a_training_without_validation_keeps_the_last_weights(
    recipe: Recipe, tmp_path: Path
) -> None:
    scenes = {"name": "scenes", "train": 2, "val": 0, "test": 0, "height": 64, "width": 64}
    trained = train(recipe(data={"loader": scenes}), tmp_path / "out")
    assert trained.scores == {}
    assert read_card(trained.model).training["steps"] == 4


def test_the_mean_of_the_best_and_the_last_weights_may_be_kept(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = import_module("domainseg.train")
    # The first validation is the best.
    scores = iter([0.9, 0.1, 0.5])
    monkeypatch.setattr(room._Job, "score", lambda *_: next(scores))
    trained = train(recipe(train={"keep": "mean"}), tmp_path / "out")
    found = {}
    for name in ("best", "last"):
        path = tmp_path / "out" / "checkpoints" / f"{name}.ckpt"
        state = torch.load(path, map_location="cpu", weights_only=False)
        found[name] = {
            key.removeprefix("network."): value
            for key, value in state["state_dict"].items()
            if key.startswith("network.")
        }
        assert state["global_step"] == {"best": 2, "last": 4}[name]
    assert read_card(trained.model).training["steps"] == 4
    differ = 0
    for key, value in weights_of(trained).items():
        best, last = found["best"][key], found["last"][key]
        assert torch.equal(value, (best + last) / 2 if value.is_floating_point() else last)
        differ += not torch.equal(best, last)
    assert differ > 10


def test_a_training_that_has_ended_may_be_kept_otherwise(recipe: Recipe, tmp_path: Path) -> None:
    plan, out = recipe(), tmp_path / "out"
    whole = weights_of(train(plan, out))
    size = (out / "model.safetensors").stat().st_size
    metrics = (out / "metrics.csv").read_text()
    halves = train(plan, out, overrides=["train.file_precision=fp16"], resume=True)
    assert halves.model.stat().st_size < 0.7 * size
    for key, value in weights_of(halves).items():
        convolution = value.is_floating_point() and value.ndim > 1
        assert value.dtype == (torch.float16 if convolution else whole[key].dtype)
        assert torch.equal(value, whole[key].to(value.dtype))
    # It opens, and nothing was trained again.
    segmenter, card = open_segmenter(halves.model)
    assert {one.dtype for one in segmenter.make_maps.network.parameters()} == {torch.float32}
    assert card.recipe["train"]["file_precision"] == "fp16"
    assert (out / "metrics.csv").read_text() == metrics
    again = train(plan, out, overrides=["train.keep=mean"], resume=True)
    shutil.copytree(out, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints"))
    kept = (tmp_path / "bare" / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match="found a model without its checkpoints"):
        train(plan, tmp_path / "bare", resume=True)
    assert (tmp_path / "bare" / "model.safetensors").read_bytes() == kept
    assert_same(again, train(recipe(train={"keep": "mean"}), tmp_path / "mean"))


@pytest.mark.parametrize(
    ("head", "model"),
    [
        (
            {"name": "boundary"},
            {
                "name": "fpn",
                "weights": None,
                "depth": 2,
                "pyramid_channels": 8,
                "decoder_channels": 8,
            },
        ),
        (
            {"name": "semantic", "activation": "sigmoid"},
            {"name": "fcn", "weights": None, "depth": 2},
        ),
    ],
    ids=["boundary-fpn", "semantic-fcn"],
)
def test_every_head_and_architecture_trains(
    recipe: Recipe, tmp_path: Path, head: dict[str, Any], model: dict[str, Any]
) -> None:
    trained = train(recipe(head=head, model=model, train={"max_steps": 2}), tmp_path / "out")
    assert 0 <= trained.scores["val_mean_ap"] <= 1


def test_images_without_objects_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name in ("a", "b"):
            np.save(tmp_path / "data" / folder / f"{name}.npy", np.zeros((40, 40), np.uint8))
    data = {
        "loader": {"name": "mask_folder"},
        "root": str(tmp_path / "data"),
        "split": {"by": "hash", "val": 0.0, "test": 0.0},
    }
    with pytest.raises(InputError) as caught:
        train(recipe(data=data), tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'data'}: found no object in 2 training images, wanted objects to learn; "
        "check the labels and the split."
    )


def test_an_output_that_is_a_file_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError) as caught:
        train(recipe(), tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: found File exists, wanted a folder to write into; "
        "choose another output folder."
    )


def test_a_disk_without_room_for_a_checkpoint_is_one_sentence(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning as L

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(L.Trainer, "save_checkpoint", full)
    with pytest.raises(OutputError) as caught:
        train(recipe(), tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: found no room left on the disk, wanted room for the whole file; "
        "free some space or choose another output folder."
    )


def test_the_digest_is_compared_only_where_a_training_was_interrupted(tmp_path: Path) -> None:
    keep_digest("one", tmp_path, resume=False)
    keep_digest("two", tmp_path, resume=True)
    assert (tmp_path / "images.sha256").read_text() == "two\n"
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError):
        keep_digest("one", tmp_path, resume=True)


def test_minutes_of_interrupted_runs_are_remembered(tmp_path: Path) -> None:
    assert minutes_before(tmp_path) == 0
    (tmp_path / "metrics.csv").write_text("epoch,minutes\n1,2.5\n2,4.0\n", encoding="utf-8")
    assert minutes_before(tmp_path) == 4


def test_validation_is_scored_as_prediction_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    room = import_module("domainseg.train")
    seen: list[object] = []

    def comparing(kind: str) -> Callable[..., None]:
        def compare(*_: object, **__: object) -> None:
            seen.append(kind)

        return compare

    def segmented(*_: object, diameter_px: float, **__: object) -> SimpleNamespace:
        seen.append(diameter_px)
        return SimpleNamespace(labels=np.zeros((1, 4, 4), np.int32), instances=lambda: None)

    monkeypatch.setattr(room, "overlap_instances", comparing("objects"))
    monkeypatch.setattr(room, "overlap_maps", comparing("maps"))
    monkeypatch.setattr(room, "tally", lambda _overlaps: "tallied")
    monkeypatch.setattr(room, "segment", segmented)
    truth = Instances.from_label_map(np.ones((4, 4), np.int32))
    sample = Sample("a", np.zeros((1, 4, 4), np.uint8), ("grey",), truth=truth)
    for overlapping, kind in ((False, "maps"), (True, "objects")):
        job = SimpleNamespace(
            source=SimpleNamespace(
                splits=SimpleNamespace(val=[Entry("a", "a")]),
                load=lambda _entry: sample,
                classes=("x",),
            ),
            recipe=SimpleNamespace(head=SimpleNamespace(overlapping=overlapping)),
            segmenter=lambda _network: None,
            ranges={},
            diameter_px=7.0,
        )
        assert room._Job.outcome(job, None, 0) == "tallied"
        # Not the diameter of the truth, which is 4.5 px.
        assert seen == [7.0, kind]
        seen.clear()


def test_an_image_with_a_label_scores_whether_its_classes_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = import_module("domainseg.train")
    sample = Sample("a", np.zeros((1, 4, 4), np.uint8), ("die",), tags=("ring", "spot"))
    job = SimpleNamespace(
        source=SimpleNamespace(
            splits=SimpleNamespace(val=[Entry("a", "a")]),
            load=lambda _entry: sample,
            classes=("line", "ring", "spot"),
        ),
        segmenter=lambda _network: None,
        ranges={},
        diameter_px=None,
    )
    for found, score in (([2, 1, 1], 1.0), ([1], 0.0), ([0, 1, 2], 0.0), ([], 0.0)):
        made = SimpleNamespace(decoded=SimpleNamespace(classes=np.array(found, np.int16)))
        monkeypatch.setattr(room, "segment", lambda *_, made=made, **__: made)
        assert room._Job.outcome(job, None, 0) == score


def test_defects_of_all_images_are_counted_together_and_other_objects_image_by_image() -> None:
    room = import_module("domainseg.train")
    right = np.zeros((8, 24), np.int32)
    right[2:6, 2:6], right[2:6, 10:14], right[2:6, 18:22] = 1, 2, 3
    wrong = np.zeros_like(right)
    wrong[:2, :2] = 1
    nothing = np.zeros_like(right)
    outcomes = [
        room.tally(overlap_maps(truth, found))
        for truth, found in ((right, right), (nothing, wrong), (nothing, nothing))
    ]

    def score(defects: bool, outcomes: Sequence[object]) -> float:
        job = SimpleNamespace(recipe=SimpleNamespace(evaluate=SimpleNamespace(defects=defects)))
        result: float = room._Job.score(job, outcomes)
        return result

    assert score(True, outcomes) == pytest.approx(3 / 4)
    assert score(False, outcomes) == pytest.approx(2 / 3)
    # An image with a label has no objects to count.
    assert score(True, [*outcomes, 0.0]) == pytest.approx(2 / 4)


@pytest.fixture
def crossing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return the data of a recipe in which a square of each of two classes overlap by half."""
    labels = np.zeros((40, 40), np.uint8)
    labels[10:20, 8:20], labels[10:20, 20:32] = 1, 2
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            Image.fromarray(labels * 100).save(tmp_path / folder / f"{name}.png")
    load = Folder.load

    def crossed(folder: Folder, entry: Entry) -> Sample:
        sample = load(folder, entry)
        assert sample.truth is not None
        runs = sample.truth.runs - [[0, 6, 0]] * np.repeat([[0], [1]], 10, axis=0)
        classes = np.array([0, 1], np.int16)
        return replace(sample, truth=replace(sample.truth, runs=runs, classes=classes))

    monkeypatch.setattr(Folder, "load", crossed)
    monkeypatch.setattr(Folder, "classes", ("a", "b"))

    def data(**changes: Any) -> dict[str, Any]:
        split = {"by": "hash", "val": 0.5, "test": 0}
        loader = {"name": "mask_folder"}
        return {"loader": loader, "root": str(tmp_path), "split": split, **changes}

    return data


SIGMOID = {"name": "semantic", "activation": "sigmoid"}


def test_overlapping_truth_is_prepared_whole_for_a_sigmoid_head(
    crossing: Callable[..., dict[str, Any]], recipe: Recipe, tmp_path: Path
) -> None:
    data = crossing(split={"by": "hash", "val": 0, "test": 0}, diameter_px=20, channels="grey")
    plan = load_recipe(recipe(data=data, head=SIGMOID))
    (first, _), diameter = prepare(open_source(plan), plan, tmp_path / "made", ranges={})
    # 120 px each; the model grid is wider by 20 over the diameter of that circle.
    assert diameter is not None
    assert diameter == pytest.approx((4 / np.pi * 120) ** 0.5)
    scale = 20 / diameter
    planes = np.asarray(first.planes())
    assert planes.shape == (1 + 2 + 1, *first.shape)
    for plane, left, right in ((planes[1], 8, 20), (planes[2], 14, 26)):
        rows, columns = np.nonzero(plane == 1)
        assert [rows.min(), rows.max() + 1] == pytest.approx([10 * scale, 20 * scale], abs=0.6)
        assert [columns.min(), columns.max() + 1] == pytest.approx(
            [left * scale, right * scale], abs=0.6
        )
    assert first.classes.tolist() == [0, 1]
    assert first.centres[:, 1].tolist() == [round(14 * scale - 0.5), round(20 * scale - 0.5)]
    other = load_recipe(recipe(data=data))
    with pytest.raises(InputError, match="a: found objects that overlap"):
        prepare(open_source(other), other, tmp_path / "other", ranges={})


def test_images_are_prepared_with_the_weights_of_their_objects(
    recipe: Recipe, tmp_path: Path
) -> None:
    semantic = {"name": "semantic"}
    plain = load_recipe(recipe(head=semantic))
    (before, *_), _ = prepare(open_source(plain), plain, tmp_path / "a", ranges={})
    weighed = load_recipe(recipe(head=semantic, train={"equal_size_px": 6}))
    (after, *_), _ = prepare(open_source(weighed), weighed, tmp_path / "b", ranges={})
    a, b = np.asarray(before.planes(), float), np.asarray(after.planes(), float)
    np.testing.assert_array_equal(a[:-1], b[:-1])
    background = b[-2] == 0
    assert (b[-1][background] == a[-1][background]).all()
    for area, (y, x) in zip(after.areas_px, after.centres, strict=True):
        wanted = np.clip(np.pi / 4 * 36 / area, 0.2, 8)
        assert b[-1, y, x] == pytest.approx(wanted, rel=1e-3)
    assert before.sha256 != after.sha256


def test_a_sigmoid_head_trains_and_is_scored_on_overlapping_truth(
    crossing: Callable[..., dict[str, Any]], recipe: Recipe, tmp_path: Path
) -> None:
    trained = train(recipe(data=crossing(), head=SIGMOID, train={"max_steps": 2}), tmp_path / "out")
    assert 0 <= trained.scores["val_mean_ap"] <= 1
    assert read_card(trained.model).training["objects"] == 2
    found = evaluate_model(trained.model, part="val", out=tmp_path / "scored")
    assert found.all.tally.counts[0].matched + found.all.tally.counts[0].missed == 2
    assert found.all.mean.mean_ap == pytest.approx(trained.scores["val_mean_ap"])


def test_minutes_that_preparing_uses_up_are_refused_and_more_may_be_given(
    recipe: Recipe, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    minutes = {"max_steps": None, "max_minutes": 1e-4}
    with pytest.raises(RecipeError) as caught:
        train(recipe(train=minutes), out)
    assert str(caught.value).startswith("train.max_minutes: found 0.0001, wanted more than the 0.")
    assert str(caught.value).endswith(" minutes that preparing takes; raise it.")
    assert train(recipe(train={"max_steps": 2}), out).model.exists()


def test_halos_are_measured_on_images_with_objects_of_every_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = import_module("domainseg.train")
    monkeypatch.setattr(room, "MOST_CORES", 4)
    sides = {"a": 10, "b": 9, "c": 8, "d": 5, "e": 99}
    kinds = {"a": "x", "b": "x", "c": "x", "d": "y", "e": "y"}

    def load(entry: Entry) -> Sample:
        side = sides[entry.id]
        labels = np.full((side, side), entry.id != "e", np.int32)
        truth = Instances.from_label_map(labels)
        return Sample(entry.id, labels[None], ("grey",), truth=truth)

    def chosen(names: str, *, val: bool = True) -> str:
        entries = [Entry(name, group=name, kind=kinds[name]) for name in names]
        splits = SimpleNamespace(val=entries if val else [], train=entries)
        job = SimpleNamespace(source=SimpleNamespace(splits=splits, load=load))
        return "".join(entry.id for entry in room._halo_entries(job))

    assert chosen("abcde") == chosen("edcba") == chosen("abcde", val=False) == "adbc"
    assert chosen("abe") == "abe"
    assert chosen("e") == "e"


def test_an_image_without_objects_is_scaled_like_the_others(tmp_path: Path) -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 1
    for name, plane in (("full", labels), ("void", np.zeros_like(labels))):
        for folder, pixels in (("images", plane * 200), ("labels", plane)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    plan = recipe_from_json(
        {
            "data": {
                "loader": {"name": "mask_folder"},
                "root": str(tmp_path),
                "channels": "grey",
                "diameter_px": 10,
                "split": {"by": "hash", "val": 0, "test": 0},
            },
            "model": {"name": "unet", "weights": None, "depth": 1, "decoder_channels": [8]},
            "head": {"name": "height"},
            "train": {"max_steps": 1, "patch_px": 16},
        },
        where="test",
    )
    full, void = (made := prepare(open_source(plan), plan, tmp_path / "made", ranges={}))[0]
    # The square of 20 x 20 px has the area of a circle of 22.57 px across.
    assert made[1] == pytest.approx(20 * (4 / np.pi) ** 0.5)
    assert full.shape == void.shape == (18, 18)
    assert len(void.areas_px) == 0


def test_the_card_says_what_the_network_was_fed(recipe: Recipe, tmp_path: Path) -> None:
    trained = train(recipe(data={"channels": "grey"}, train={"max_steps": 2}), tmp_path / "out")
    card: ModelCard = read_card(trained.model)
    assert card.channels == ("grey",)
    assert card.stride_px == 4
    assert card.whole_window_layers == ()
    assert card.training["precision"] == "fp32"
    assert card.training["device"] == "cpu"
