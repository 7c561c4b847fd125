"""Loaders of folders: what they read, and the sentence of everything they refuse."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from domainseg.errors import InputError, MissingInputError, RecipeError
from domainseg.loaders.kaggle_nuclei import KaggleNuclei
from domainseg.loaders.mask_folder import MaskFolder
from domainseg.records import Array, Instances, Sample
from domainseg.shipped import shipped

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)
LABELS = np.array([[0, 0, 7, 7, 0], [3, 0, 7, 7, 0], [3, 3, 0, 0, 0], [0, 0, 0, 0, 3]], np.uint16)


def write(path: Path, array: Array) -> Path:
    """Write an array as its ending says: npy, or what Pillow writes without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Picture.fromarray(array).save(path)
    return path


def pair(root: Path, name: str = "a", labels: Array = LABELS) -> Path:
    write(root / "images" / f"{name}.png", GREY)
    write(root / "labels" / f"{name}.png", labels)
    return root


def only(options: MaskFolder | KaggleNuclei, root: Path) -> Sample:
    opened = options.open(root)
    (entry,) = opened.entries()
    return opened.load(entry)


def truth_of(sample: Sample) -> Instances:
    assert sample.truth is not None
    return sample.truth


def refusal(kind: type[Exception], options: MaskFolder | KaggleNuclei, root: Path) -> str:
    with pytest.raises(kind) as caught:
        only(options, root)
    return str(caught.value)


def test_every_positive_value_of_a_label_image_is_one_object(tmp_path: Path) -> None:
    sample = only(MaskFolder(class_name="cell"), pair(tmp_path))
    np.testing.assert_array_equal(sample.image[:], GREY[None])
    np.testing.assert_array_equal(truth_of(sample).to_label_map(), LABELS)
    assert truth_of(sample).ids.tolist() == [3, 7]
    assert truth_of(sample).classes.tolist() == [0, 0]
    assert (sample.id, sample.group, sample.channels) == ("a", "a", ("grey",))
    assert sample.spacing_um is None
    assert sample.ignore is None
    assert MaskFolder(class_name="cell").open(tmp_path).classes == ("cell",)


def test_a_label_image_without_objects_is_a_sample_with_none(tmp_path: Path) -> None:
    assert len(truth_of(only(MaskFolder(), pair(tmp_path, labels=np.zeros_like(LABELS))))) == 0


def test_a_one_pixel_image_is_read(tmp_path: Path) -> None:
    write(tmp_path / "images/a.png", np.full((1, 1), 9, np.uint8))
    write(tmp_path / "labels/a.png", np.ones((1, 1), np.uint8))
    sample = only(MaskFolder(), tmp_path)
    assert (sample.image[:].tolist(), len(truth_of(sample))) == ([[[9]]], 1)


def test_seventy_thousand_objects_keep_their_numbers(tmp_path: Path) -> None:
    labels = np.arange(1, 70_001, dtype=np.int32).reshape(250, 280)
    write(tmp_path / "images/a.npy", np.zeros((250, 280), np.uint8))
    write(tmp_path / "labels/a.npy", labels)
    assert truth_of(only(MaskFolder(), tmp_path)).ids.tolist() == list(range(1, 70_001))


def test_components_of_a_binary_mask_touch_at_corners(tmp_path: Path) -> None:
    mask = np.array([[255, 0, 0, 0, 9], [0, 255, 0, 0, 9], [0, 0, 0, 0, 0], [255, 0, 0, 0, 0]])
    root = pair(tmp_path, labels=np.where(mask > 0, 255, 0).astype(np.uint8))
    wanted = [[1, 0, 0, 0, 2], [0, 1, 0, 0, 2], [0, 0, 0, 0, 0], [3, 0, 0, 0, 0]]
    found = truth_of(only(MaskFolder(masks="binary"), root)).to_label_map()
    assert found.tolist() == wanted
    pair(root, labels=mask.astype(np.uint8))
    soft = truth_of(only(MaskFolder(masks="binary", threshold=128), root)).to_label_map()
    assert (soft > 0).tolist() == (mask >= 128).tolist()


def test_regions_of_one_value_part_neighbours_and_join_nothing_afar(tmp_path: Path) -> None:
    mask = np.array([[1, 1, 2, 2, 0], [1, 1, 2, 2, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], np.uint8)
    colour = np.stack([mask, np.full_like(mask, 200), mask], -1)
    root = pair(tmp_path, labels=colour)
    sample = only(MaskFolder(masks="regions", label_channel=0), root)
    wanted = [[1, 1, 2, 2, 0], [1, 1, 2, 2, 0], [0, 0, 0, 0, 0], [0, 0, 0, 3, 3]]
    assert truth_of(sample).to_label_map().tolist() == wanted


def test_a_semantic_mask_gives_classes_components_and_unsure_pixels(tmp_path: Path) -> None:
    mask = np.array([[10, 10, 20, 0, 99], [0, 0, 0, 0, 99], [10, 0, 0, 0, 0], [0] * 5], np.uint8)
    options = MaskFolder(masks="semantic", classes={20: "pit", 10: "scratch", 99: "ignore"})
    sample = only(options, pair(tmp_path, labels=mask))
    assert options.open(tmp_path).classes == ("pit", "scratch")
    assert sample.semantic is not None
    assert sample.semantic[:3].tolist() == [[2, 2, 1, 0, 0], [0] * 5, [2, 0, 0, 0, 0]]
    assert sample.ignore is not None
    np.testing.assert_array_equal(sample.ignore, mask == 99)
    truth = truth_of(sample)
    by_class = sorted(zip(truth.classes.tolist(), truth.areas_px().tolist(), strict=True))
    assert by_class == [(0, 1), (1, 1), (1, 2)]


def test_masks_may_stand_beside_their_images_with_a_suffix(tmp_path: Path) -> None:
    write(tmp_path / "plate1/a.png", GREY)
    write(tmp_path / "plate1/a_mask.png", LABELS)
    write(tmp_path / "plate1/a_skip.png", (GREY > 17).astype(np.uint8))
    write(tmp_path / "plate2/a.bmp", GREY)
    write(tmp_path / "plate2/a_mask.npy", LABELS.astype(np.int64))
    options = MaskFolder(
        images=".", labels=".", label_suffix="_mask", ignore=".", ignore_suffix="_skip"
    )
    opened = options.open(tmp_path)
    first, second = opened.entries()
    assert (first.id, second.id) == ("plate1/a", "plate2/a")
    ignore = opened.load(first).ignore
    assert ignore is not None
    np.testing.assert_array_equal(ignore, GREY > 17)
    assert opened.load(second).ignore is None
    np.testing.assert_array_equal(truth_of(opened.load(second)).to_label_map(), LABELS)


def test_a_folder_of_masks_inside_the_image_folder_holds_no_images(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GREY)
    write(tmp_path / "labels/a.png", LABELS)
    write(tmp_path / ".hidden.png", GREY)
    assert [e.id for e in MaskFolder(images=".").open(tmp_path).entries()] == ["a"]


def test_the_columns_of_the_index_reach_the_entries(tmp_path: Path) -> None:
    pair(pair(tmp_path), "b")
    (tmp_path / "index.csv").write_text(
        "image,split,plate,stain\nb.png,val,P2,H&E\na,train,P1,DAPI\n"
    )
    options = MaskFolder(index="index.csv", kind="stain", group="plate", spacing_um=0.5)
    opened = options.open(tmp_path)
    first, second = opened.entries()
    assert (first.id, first.group, first.kind) == ("a", "P1", "DAPI")
    assert second.columns == {"image": "b.png", "split": "val", "plate": "P2", "stain": "H&E"}
    sample = opened.load(second)
    assert (sample.group, sample.kind, sample.spacing_um) == ("P2", "H&E", (0.5, 0.5))


def test_without_labels_an_image_stays_lazy_and_has_no_truth(tmp_path: Path) -> None:
    write(tmp_path / "images/a.png", GREY)
    sample = only(MaskFolder(labels_optional=True), tmp_path)
    assert sample.truth is None
    assert not isinstance(sample.image, np.ndarray)
    np.testing.assert_array_equal(sample.image[:, 1:3, 2:], GREY[None, 1:3, 2:])


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(MissingInputError, MaskFolder(), tmp_path / "no") == (
        f"{tmp_path}/no: found no such folder, wanted the folder of the data; check the path."
    )
    write(tmp_path / "images/a.png", GREY)
    assert refusal(MissingInputError, MaskFolder(), tmp_path) == (
        f"{tmp_path}/labels: found no such folder, wanted the folder of the labels; check the path."
    )


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    message = refusal(MissingInputError, MaskFolder(), tmp_path)
    assert message.startswith(f"{tmp_path}/images: found no image, wanted files named * with .png,")
    assert message.endswith("; check the folder and image_suffix.")


def test_an_image_without_a_label_is_refused(tmp_path: Path) -> None:
    write(pair(tmp_path) / "images/b.png", GREY)
    assert refusal(MissingInputError, MaskFolder(), tmp_path) == (
        f"{tmp_path}/images/b.png: found 1 image without a label: b, wanted a file of the same "
        "name in labels; add the label, remove the image, set good_without_mask if such images "
        "are good, or labels_optional to predict only."
    )


def test_a_label_without_an_image_is_refused(tmp_path: Path) -> None:
    for name in "bcde":
        write(pair(tmp_path) / f"labels/{name}.png", LABELS)
    assert refusal(MissingInputError, MaskFolder(), tmp_path) == (
        f"{tmp_path}/labels/b.png: found 4 labels without an image: b, c, d and 1 more, "
        "wanted an image for every label; add the image or remove the label."
    )


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write(pair(tmp_path) / "images/a.bmp", GREY)
    assert refusal(InputError, MaskFolder(), tmp_path) == (
        f"{tmp_path}/images/a.png: found the same name as a.bmp, wanted one file per name; "
        "rename or remove one."
    )


def test_a_label_of_another_size_is_refused(tmp_path: Path) -> None:
    assert refusal(InputError, MaskFolder(), pair(tmp_path, labels=LABELS[:3])) == (
        f"{tmp_path}/labels/a.png: found 3 x 5 px, wanted 4 x 5 px, the size of its image; "
        "export the two at one size."
    )


def test_a_truncated_image_is_refused_by_name(tmp_path: Path) -> None:
    image = pair(tmp_path) / "images/a.png"
    image.write_bytes(image.read_bytes()[:-20])
    message = refusal(InputError, MaskFolder(), tmp_path)
    assert message.startswith(f"{image}: found a truncated or corrupt PNG file")


def test_real_numbers_are_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "images/a.png", GREY)
    write(tmp_path / "labels/a.npy", LABELS.astype(np.float32))
    message = refusal(InputError, MaskFolder(), tmp_path)
    assert message.startswith(
        f"{tmp_path}/labels/a.npy: found float32 values, which cannot be labels"
    )


def test_a_channel_a_mask_does_not_have_is_refused(tmp_path: Path) -> None:
    assert refusal(InputError, MaskFolder(label_channel=2), pair(tmp_path)) == (
        f"{tmp_path}/labels/a.png: found 1 channel of uint16, wanted integers in channel 2; "
        "correct label_channel."
    )


def test_a_value_outside_the_class_table_is_refused(tmp_path: Path) -> None:
    options = MaskFolder(masks="semantic", classes={3: "pit"})
    assert refusal(InputError, options, pair(tmp_path)) == (
        f"{tmp_path}/labels/a.png: found the value 7, wanted one of 0, 3; "
        "add it to classes or correct the mask."
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "name\na\n",
            ": found columns name, wanted a column 'image'; rename a column or correct the option "
            "that names it.",
        ),
        (
            "image\na\nz.png\n",
            ": found rows of images that do not exist: z, wanted rows of the images there are; "
            "add the images or remove the rows.",
        ),
        (
            "image\n",
            ": found no row for a, wanted one row per image; add the rows or remove the images.",
        ),
        (
            "image\na\na.png\n",
            ":3: found a second row for a, wanted one row per image; remove one of the rows.",
        ),
        (
            "image,plate\na\n",
            ":2: found too few values, wanted 2, as in the header; correct the row.",
        ),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    pair(tmp_path)
    (tmp_path / "index.csv").write_text(text)
    message = refusal(InputError, MaskFolder(index="index.csv"), tmp_path)
    assert message == f"{tmp_path}/index.csv{sentence}"


def test_a_missing_index_is_refused(tmp_path: Path) -> None:
    assert refusal(MissingInputError, MaskFolder(index="index.csv"), pair(tmp_path)) == (
        f"{tmp_path}/index.csv: found no file, wanted the index of the images; check the path."
    )


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        MaskFolder(masks="semantic")
    assert str(caught.value) == (
        "classes: found none with masks: semantic, wanted a table of value to name with masks: "
        "semantic or yolo_seg, and none otherwise; change one of them."
    )
    with pytest.raises(RecipeError) as caught:
        MaskFolder(group="plate")
    assert str(caught.value) == (
        "index: found none, yet a column 'plate' is asked for, wanted the CSV that has it; "
        "name the index."
    )
    with pytest.raises(RecipeError) as caught:
        MaskFolder(images="all", labels="all")
    assert str(caught.value) == (
        "labels: found images and labels both named * in all, wanted names that tell them apart; "
        "set label_suffix, image_endings and label_endings, or another folder."
    )


def nucleus(root: Path, masks: dict[str, Array], name: str = "n1") -> Path:
    write(root / name / "images" / f"{name}.png", np.dstack([GREY, GREY, GREY, GREY]))
    (root / name / "masks").mkdir()
    for key, mask in masks.items():
        write(root / name / "masks" / f"{key}.png", mask)
    return root


LEFT = np.zeros((4, 5), np.uint8)
LEFT[1:3, :3] = 255
RIGHT = np.zeros((4, 5), np.uint8)
RIGHT[2:, 2:] = 255


def test_of_overlapping_masks_the_first_keeps_the_pixel_and_it_is_counted(tmp_path: Path) -> None:
    opened = KaggleNuclei().open(nucleus(tmp_path, {"b": LEFT, "a": RIGHT}))
    (entry,) = opened.entries()
    wanted = [[0, 0, 0, 0, 0], [2, 2, 2, 0, 0], [2, 2, 1, 1, 1], [0, 0, 1, 1, 1]]
    assert truth_of(opened.load(entry)).to_label_map().tolist() == wanted
    assert opened.overlap_px(entry) == 1
    assert opened.load(entry).image.shape == (4, 4, 5)
    assert opened.classes == ("nucleus",)


def test_a_kaggle_image_with_an_empty_folder_of_masks_has_no_object(tmp_path: Path) -> None:
    assert len(truth_of(only(KaggleNuclei(), nucleus(tmp_path, {})))) == 0


def test_a_mask_without_foreground_is_refused(tmp_path: Path) -> None:
    root = nucleus(tmp_path, {"a": np.zeros_like(LEFT)})
    assert refusal(InputError, KaggleNuclei(), root) == (
        f"{root}/n1/masks/a.png: found no foreground pixel, wanted one object above 0; "
        "remove the file."
    )


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    root = nucleus(tmp_path, {"a": LEFT[:2]})
    assert refusal(InputError, KaggleNuclei(), root) == (
        f"{root}/n1/masks/a.png: found 2 x 5 px, wanted 4 x 5 px, the size of its image; "
        "export the two at one size."
    )


def test_a_kaggle_folder_without_masks_is_refused_unless_it_is_to_predict(tmp_path: Path) -> None:
    root = nucleus(tmp_path, {})
    (root / "n1/masks").rmdir()
    assert refusal(MissingInputError, KaggleNuclei(), root) == (
        f"{root}/n1: found an image without a folder of masks, wanted n1/masks, empty where there "
        "is no object; add it, remove the image, or set labels_optional to predict only."
    )
    assert only(KaggleNuclei(labels_optional=True), root).truth is None


def several(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name / f"images/{name}.png", GREY)
        write(root / name / "masks/a.png", LEFT)
    return root


def test_an_index_of_some_images_leaves_out_the_others_and_may_name_one_by_its_beginning(
    tmp_path: Path,
) -> None:
    root = several(tmp_path, "ab12", "ab34", "cd56")
    (root / "parts.csv").write_text("image,kind,split\ncd,stained,val\nab34,bright,train\n")
    loader = KaggleNuclei(index="parts.csv", key="image", kind="kind", index_only=True)
    opened = loader.open(root)
    assert [(entry.id, entry.kind) for entry in opened.entries()] == [
        ("ab34", "bright"),
        ("cd", "stained"),
    ]
    assert [entry.columns["split"] for entry in opened.entries()] == ["train", "val"]
    assert all(len(truth_of(opened.load(entry))) == 1 for entry in opened.entries())


@pytest.mark.parametrize(("short", "count"), [("ab", "2"), ("x", "no"), (" ", "2")])
def test_a_row_that_begins_no_name_or_two_is_refused(
    tmp_path: Path, short: str, count: str
) -> None:
    root = several(tmp_path, "ab12", "ab34")
    (root / "parts.csv").write_text(f"image\nab12\n{short}\n")
    loader = KaggleNuclei(index="parts.csv", key="image", index_only=True)
    assert refusal(InputError, loader, root) == (
        f"{root}/parts.csv:3: found {short.strip()!r}, which begins the names of {count} images, "
        "wanted the name of one image, or how it begins; add the image, or correct the row."
    )


def test_two_rows_of_one_image_are_refused_whatever_they_call_it(tmp_path: Path) -> None:
    root = several(tmp_path, "ab12", "cd34")
    (root / "parts.csv").write_text("image\nab\nab12.png\n")
    loader = KaggleNuclei(index="parts.csv", key="image", index_only=True)
    assert refusal(InputError, loader, root) == (
        f"{root}/parts.csv:3: found a second row for ab12, wanted one row per image; remove one "
        "of the rows."
    )


def test_folders_that_the_index_leaves_out_may_be_anything(tmp_path: Path) -> None:
    root = several(tmp_path, "ab12", "cd34")
    write(root / "cd34/images/other.png", GREY)
    (root / "ef56/images").mkdir(parents=True)
    (root / "parts.csv").write_text("image\nab12.png\n")
    loader = KaggleNuclei(index="parts.csv", key="image", index_only=True)
    assert [entry.id for entry in loader.open(root).entries()] == ["ab12"]


def test_index_only_without_an_index_is_refused() -> None:
    with pytest.raises(RecipeError, match="yet a column 'ImageId' is asked for"):
        KaggleNuclei(index_only=True)


def test_an_index_that_comes_with_domainseg_is_found_by_its_name(tmp_path: Path) -> None:
    with (shipped("datasets") / "dsb2018.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["split"] for row in rows) == {"train": 420, "val": 75, "test": 74}
    root = several(tmp_path, *(row["image"] + "0" * 52 for row in rows[:2]))
    loader = KaggleNuclei(index="dsb2018.csv", key="image", kind="kind", index_only=True)
    assert refusal(InputError, loader, root).startswith(f"{shipped('datasets')}/dsb2018.csv:4")
    (root / "dsb2018.csv").write_text(f"image,kind\n{rows[0]['image']},own\n")
    assert [entry.kind for entry in loader.open(root).entries()] == ["own"]


def test_a_kaggle_folder_without_images_or_with_two_is_refused(tmp_path: Path) -> None:
    assert refusal(MissingInputError, KaggleNuclei(), tmp_path) == (
        f"{tmp_path}: found no image, wanted folders <id>/images/<id>.png with <id>/masks; "
        "check the path or use the loader mask_folder."
    )
    write(nucleus(tmp_path, {}) / "n1/images/other.png", GREY)
    assert refusal(InputError, KaggleNuclei(), tmp_path) == (
        f"{tmp_path}/n1/images: found 2 images, wanted one; leave one image in it."
    )


def test_real_nuclei_are_those_the_index_counts() -> None:
    root = DATA / "nuclei-dsb2018"
    if not root.is_dir():
        pytest.skip("the data of shared/data/nuclei-dsb2018 are not here")
    opened = MaskFolder(index="index.csv", kind="kind").open(root)
    assert len(opened.entries()) == 569
    for entry in opened.entries()[::29]:
        sample = opened.load(entry)
        columns = entry.columns
        assert len(truth_of(sample)) == int(columns["objects"])
        assert sample.image.shape[1:] == (int(columns["height"]), int(columns["width"]))
        assert sample.kind in ("fluorescence", "stained", "brightfield")


def test_both_layouts_of_the_same_real_nuclei_agree() -> None:
    root = DATA / "nuclei-dsb2018-kaggle-layout"
    if not root.is_dir():
        pytest.skip("the data of shared/data/nuclei-dsb2018-kaggle-layout are not here")
    folders, plain = KaggleNuclei().open(root), MaskFolder().open(DATA / "nuclei-dsb2018")
    twins = {entry.id: entry for entry in plain.entries()}
    assert len(folders.entries()) == 9
    for entry in folders.entries():
        apart, merged = folders.load(entry), plain.load(twins[entry.id[:12]])
        assert apart.channels == ("red", "green", "blue", "alpha")
        first, second = truth_of(apart), truth_of(merged)
        assert sorted(map(tuple, first.boxes.reshape(-1, 4).tolist())) == sorted(
            map(tuple, second.boxes.reshape(-1, 4).tolist())
        )
        np.testing.assert_array_equal(first.to_label_map() > 0, second.to_label_map() > 0)
