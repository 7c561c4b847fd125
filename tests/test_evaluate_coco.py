"""COCO's numbers of a model on data: gathered image by image, printed, and in the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.cli.app import run
from domainseg.errors import InputError
from domainseg.evaluate import evaluate_model
from domainseg.instances.evidence import Evidence, Inspection, Looking
from domainseg.instances.scores import Evaluation, nothing
from domainseg.loaders.splits import Splits
from domainseg.records import Entry, Instances, Sample
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
        labels = np.zeros_like(both) if name == "c" else both
        image = np.where(bright, 240, 10).astype(np.uint8)
        tifffile.imwrite(root / "images" / f"{name}.tif", image)
        tifffile.imwrite(root / "labels" / f"{name}.tif", labels.astype(np.uint16))
    (root / "index.csv").write_text(
        "image,split\na,test\nb,test\nc,test\nd,train\n", encoding="utf-8"
    )
    return root


def model_on(write: Write, root: Path, *, classes: tuple[str, ...] = ("object",)) -> Path:
    asked: dict[str, Any] = {"data": {**DATA, "root": str(root)}, "evaluate": {"coco": True}}
    return write(**asked, classes=classes)


def test_a_dense_model_has_coco_numbers_by_hand(bright_model: Write, data: Path) -> None:
    found = evaluate_model(model_on(bright_model, data)).coco
    assert found is not None
    assert (found.images, found.truths, found.calls, found.beyond) == (3, 4, 4, 0)
    # All scores are equal, so calls come in the order of images and labels: two of "a" that
    # hit, then of "b" the false one, which lies above the one that hits. Precision is 1 at the
    # 51 recalls up to .5 and 3/4 at the 25 up to .75.
    for pair in (found.mask, found.box):
        assert pair.capped.ap == pytest.approx((51 + 25 * 0.75) / 101, abs=1e-12)
        assert (pair.capped.ar, pair.capped.ar_1) == (0.75, 0.25)
        assert pair.uncapped.ap == pair.capped.ap
    assert [one.name for one in found.classes] == ["object"]


def test_run_folders_give_the_same_numbers_and_the_file_holds_them(
    bright_model: Write, data: Path, tmp_path: Path
) -> None:
    model, out = model_on(bright_model, data), tmp_path / "out"
    wanted = evaluate_model(model).to_json()
    assert evaluate_model(model, out=out).to_json() == wanted
    assert evaluate_model(model, out=out).to_json() == wanted
    content = json.loads((out / "evaluation.json").read_text())
    assert content["coco"] == wanted["coco"]
    assert content["coco"]["mask"]["capped"]["ar"] == 0.75
    assert content["coco"]["mask"]["capped"]["ap_large"] is None
    # Objects are matched as before.
    assert content["all"]["counts"]["matched"] == 3


def test_the_table_is_printed_where_it_is_asked_for(
    bright_model: Write, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(model_on(bright_model, data))
    assert run(["evaluate", model]) == 0
    said = capsys.readouterr().out
    for words in ("COCO, 4 objects", "masks", "boxes of masks", "AR large", "0.691", "n/a"):
        assert words in said
    assert run(["evaluate", model, "--set", "evaluate.coco=false"]) == 0
    assert "COCO" not in capsys.readouterr().out


def test_classes_must_be_those_of_the_model(bright_model: Write, data: Path) -> None:
    with pytest.raises(InputError) as caught:
        evaluate_model(model_on(bright_model, data, classes=("cell",)))
    assert str(caught.value) == (
        f"{data}: found the classes object, wanted those of the model, cell; "
        "rename them with data.classes, or set evaluate.coco=false."
    )


@dataclass(frozen=True)
class Crowded:
    """One image: two bright discs, of which one is an object and one lies in a crowd."""

    labels: NDArray[np.int32]
    classes: tuple[str, ...] = ("object",)

    def entries(self) -> Sequence[Entry]:
        return (Entry("a", "a"),)

    def load(self, entry: Entry) -> Sample:
        bright = np.where(self.labels > 0, 240, 10).astype(np.uint8)
        crowd = Instances.from_label_map((self.labels == 1).astype(np.uint8))
        return Sample(
            "a",
            np.stack([bright] * 3),
            ("red", "green", "blue"),
            truth=Instances.from_label_map((self.labels == 2).astype(np.uint8)),
            ignore=self.labels == 1,
            crowds=crowd,
        )


def test_crowds_of_the_data_reach_the_evaluation(
    bright_model: Write, data: Path, discs: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The disc in the crowd comes first: were it false, AP would be a half.
    made = Crowded(discs(SHAPE, (20, 20, 9), (40, 60, 10)))

    def opened(_recipe: object) -> Source:
        entries = tuple(made.entries())
        return Source(made, Splits((), (), entries), map_classes(made.classes, None))

    monkeypatch.setattr(import_module("domainseg.evaluate"), "open_source", opened)
    found = evaluate_model(model_on(bright_model, data)).coco
    assert found is not None
    assert (found.truths, found.crowds, found.calls) == (1, 1, 2)
    assert found.mask.capped.ap == found.box.capped.ap == 1.0


def gathered(*images: Inspection, coco: bool = True) -> Evaluation:
    evidence = Evidence(Looking(coco=coco, class_names=("object",)))
    for image in images:
        evidence.add(image)
    return evidence.added_to(Evaluation((), nothing("all")))


def test_crowds_of_an_image_are_no_false_objects(discs: Draw) -> None:
    truth = Instances.from_label_map(discs(SHAPE, (20, 20, 9)))
    crowds = Instances.from_label_map(discs(SHAPE, (40, 60, 15)))
    found = Instances.from_label_map(
        discs(SHAPE, (40, 60, 5), (20, 20, 9)), scores={1: 0.9, 2: 0.5}
    )
    ignore = discs(SHAPE, (40, 60, 15)) > 0
    with_crowds = gathered(Inspection(id="a", predicted=found, truth=truth, crowds=crowds))
    assert with_crowds.coco is not None
    assert (with_crowds.coco.crowds, with_crowds.coco.mask.capped.ap) == (1, 1.0)
    without = gathered(Inspection(id="a", predicted=found, truth=truth))
    assert without.coco is not None
    assert without.coco.mask.capped.ap == pytest.approx(0.5, abs=1e-12)
    ignored = gathered(Inspection(id="a", predicted=found, truth=truth, ignore=ignore))
    assert ignored.coco is not None
    assert (ignored.coco.calls, ignored.coco.mask.capped.ap) == (1, 1.0)


def test_images_without_known_truth_are_left_out(discs: Draw) -> None:
    one = Instances.from_label_map(discs(SHAPE, (20, 20, 9)))
    assert gathered(Inspection(id="a", predicted=one, labels=np.array([True]))).coco is None
    assert gathered(Inspection(id="a", predicted=one, truth=one), coco=False).coco is None
    known = Inspection(id="b", predicted=one, truth=one)
    found = gathered(Inspection(id="a", predicted=one, labels=np.array([True])), known).coco
    assert found is not None
    assert (found.images, found.mask.capped.ap) == (1, 1.0)
