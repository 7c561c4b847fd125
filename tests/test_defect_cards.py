"""Cards of defect data sets: a tiny data set in the publisher's layout opens by its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from PIL import Image as Picture
from pydantic import BaseModel, Field

from domainseg import catalog
from domainseg.loaders.cards import find_card
from domainseg.loaders.mask_folder import MaskFolder
from domainseg.loaders.splits import Splits, split
from domainseg.records import Array, Dataset, Sample

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
BLACK = np.zeros((6, 8), np.uint8)
SPOT = BLACK.copy()
SPOT[1:3, 2:5] = 255
SPOT[5, 7] = 255
SOFT = SPOT.copy()
SOFT[3, 2:5] = 100


class Loading(BaseModel):
    """How a recipe reads the name and options of a loader."""

    loader: Annotated[catalog.Loader, Field(discriminator="name")]


def write(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(array.astype(np.uint8)).save(path)


def opened(card: str, root: Path) -> Dataset:
    values: dict[str, Any] = find_card(card).loader
    dataset: Dataset = Loading.model_validate({"loader": values}).loader.open(root)
    assert dataset.classes == find_card(card).classes
    return dataset


def samples(dataset: Dataset) -> dict[str, Sample]:
    return {entry.id: dataset.load(entry) for entry in dataset.entries()}


def tags(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {name: sample.tags for name, sample in samples(dataset).items()}


def areas(sample: Sample) -> list[int]:
    assert sample.truth is not None
    found: list[int] = sample.truth.areas_px().tolist()
    return found


def parts(card: str, dataset: Dataset) -> Splits:
    return split(dataset.entries(), find_card(card).split)


def ids(entries: Any) -> list[str]:
    return [entry.id for entry in entries]


def test_magnetic_tiles_have_the_class_of_their_folder_and_soft_masks(tmp_path: Path) -> None:
    names = {"Blowhole": 10, "Break": 2000, "Crack": 4000, "Fray": 6000, "Uneven": 8000}
    for name, number in names.items():
        for light in (1, 2):
            place = tmp_path / f"MT_{name}/Imgs/exp{light}_num_{number + 20 * light}"
            write(place.with_suffix(".jpg"), GREY)
            write(place.with_suffix(".png"), SOFT)
    for name in ("exp4_num_124690", "exp4_num_45057"):
        write(tmp_path / f"MT_Uneven/Imgs/{name}.jpg", GREY)
        write(tmp_path / f"MT_Uneven/Imgs/{name}.png", BLACK)
    write(tmp_path / "MT_Free/Imgs/exp3_num_20000.jpg", GREY)
    write(tmp_path / "MT_Free/Imgs/exp3_num_20000.png", BLACK)
    dataset = opened("magnetic_tile", tmp_path)
    assert len(dataset.entries()) == 11
    assert len({entry.group for entry in dataset.entries()}) == 6
    assert tags(dataset)["MT_Break/Imgs/exp1_num_2020"] == ("break",)
    assert tags(dataset)["MT_Free/Imgs/exp3_num_20000"] == ("good",)
    assert areas(samples(dataset)["MT_Fray/Imgs/exp2_num_6040"]) == [6, 1]
    assert parts("magnetic_tile", dataset).train


def test_neu_seg_has_a_class_per_pixel_and_a_folder_per_part(tmp_path: Path) -> None:
    mask = BLACK.copy()
    mask[0, 0], mask[2, 2:4], mask[4, 5:8] = 1, 2, 3
    for number in range(1, 12):
        write(tmp_path / f"images/training/{number:06}.jpg", GREY)
        write(tmp_path / f"annotations/training/{number:06}.png", mask)
    write(tmp_path / "images/test/000001.jpg", GREY)
    write(tmp_path / "annotations/test/000001.png", BLACK)
    dataset = opened("neu_seg", tmp_path)
    found = samples(dataset)
    assert found["training/000001"].tags == ("inclusion", "patches", "scratches")
    assert found["test/000001"].tags == ("good",)
    truth = found["training/000001"].truth
    assert truth is not None
    assert (truth.classes.tolist(), truth.areas_px().tolist()) == ([0, 1, 2], [1, 2, 3])
    chosen = parts("neu_seg", dataset)
    assert ids(chosen.test) == ["test/000001"]
    assert len(chosen.train) + len(chosen.val) == 11
    assert chosen.val


def test_kolektor_masks_stand_beside_their_images(tmp_path: Path) -> None:
    colour = np.dstack([GREY] * 3)
    for number, mask in ((10000, BLACK), (10003, SPOT), (10301, BLACK)):
        write(tmp_path / f"train/{number}.png", colour)
        write(tmp_path / f"train/{number}_GT.png", mask)
    write(tmp_path / "test/20000.png", colour)
    write(tmp_path / "test/20000_GT.png", SPOT)
    dataset = opened("kolektorsdd2", tmp_path)
    assert tags(dataset) == {
        "test/20000": ("defect",),
        "train/10000": ("good",),
        "train/10003": ("defect",),
        "train/10301": ("good",),
    }
    assert areas(samples(dataset)["test/20000"]) == [6, 1]
    assert ids(parts("kolektorsdd2", dataset).test) == ["test/20000"]


def test_dagm_images_without_a_label_are_good(tmp_path: Path) -> None:
    for texture in (1, 10):
        for part, number in (("Train", 576), ("Train", 577), ("Test", 1), ("Test", 2)):
            folder = tmp_path / f"Class{texture}/{part}"
            write(folder / f"{number:04}.PNG", GREY)
            (folder / "Label").mkdir(exist_ok=True)
            (folder / "Label/Labels.txt").write_text("1\n")
            if number % 2:
                write(folder / f"Label/{number:04}_label.PNG", SPOT)
    dataset = opened("dagm2007", tmp_path)
    assert tags(dataset)["Class10/Train/0577"] == ("defect",)
    assert tags(dataset)["Class1/Test/0002"] == ("good",)
    assert {entry.kind for entry in dataset.entries()} == {"Class1", "Class10"}
    assert ids(parts("dagm2007", dataset).test) == [
        "Class1/Test/0001",
        "Class1/Test/0002",
        "Class10/Test/0001",
        "Class10/Test/0002",
    ]


def test_severstal_rows_are_runs_down_the_columns(tmp_path: Path) -> None:
    for name in ("0002cc93b", "0007a71bf", "00031f466"):
        write(tmp_path / f"train_images/{name}.jpg", GREY)
    (tmp_path / "train.csv").write_text(
        "ImageId,ClassId,EncodedPixels\n0002cc93b.jpg,1,1 2 7 2 48 1\n0007a71bf.jpg,3,5 2\n"
    )
    dataset = opened("severstal", tmp_path)
    assert tags(dataset) == {
        "0002cc93b": ("class 1",),
        "00031f466": ("good",),
        "0007a71bf": ("class 3",),
    }
    truth = samples(dataset)["0002cc93b"].truth
    assert truth is not None
    labels = truth.to_label_map()
    assert np.argwhere(labels == 1).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert np.argwhere(labels == 2).tolist() == [[5, 7]]


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    for place in ("bottle/train/good/000", "bottle/test/good/000", "bottle/test/broken_large/000"):
        write(tmp_path / f"{place}.png", GREY)
    write(tmp_path / "bottle/ground_truth/broken_large/000_mask.png", SPOT)
    write(tmp_path / "screw/train/good/000.png", GREY)
    write(tmp_path / "screw/test/scratch_head/000.png", GREY)
    write(tmp_path / "screw/ground_truth/scratch_head/000_mask.png", SPOT)
    (tmp_path / "bottle/readme.txt").write_text("x")
    return tmp_path


def test_mvtec_masks_stand_in_a_tree_of_their_own(mvtec: Path) -> None:
    dataset = opened("mvtec_ad", mvtec)
    assert tags(dataset) == {
        "bottle/test/broken_large/000": ("defect",),
        "bottle/test/good/000": ("good",),
        "bottle/train/good/000": ("good",),
        "screw/test/scratch_head/000": ("defect",),
        "screw/train/good/000": ("good",),
    }
    assert [entry.kind for entry in dataset.entries()] == ["bottle"] * 3 + ["screw"] * 2
    assert parts("mvtec_ad", dataset).train


def test_one_category_of_mvtec_has_its_kinds_of_defects_as_classes(mvtec: Path) -> None:
    options = {**find_card("mvtec_ad").loader, "label_renames": {"ground_truth/": "test/"}}
    kinds = {"class_folders": {"broken_large": "broken_large", "good": "good"}, "kind": None}
    loader = Loading.model_validate({"loader": options | kinds}).loader
    assert isinstance(loader, MaskFolder)
    assert tags(loader.open(mvtec / "bottle")) == {
        "test/broken_large/000": ("broken_large",),
        "test/good/000": ("good",),
        "train/good/000": ("good",),
    }


def test_the_tested_boards_of_deeppcb_open_without_truth(tmp_path: Path) -> None:
    folder = tmp_path / "PCBData/group00041"
    write(folder / "00041/00041000_test.jpg", GREY)
    write(folder / "00041/00041000_temp.jpg", GREY)
    (folder / "00041_not").mkdir()
    (folder / "00041_not/00041000.txt").write_text("466 441 493 470 3\n")
    dataset = opened("deeppcb", tmp_path)
    ((name, sample),) = samples(dataset).items()
    assert (name, sample.truth, sample.tags) == ("group00041/00041/00041000", None, ())
    card = find_card("deeppcb")
    assert "boxes" in card.contents
    assert "Boxes are no pixels" in card.preparation
