"""Mask folders of defects: class folders, good images, soft edges, groups, data bars."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from domainseg.errors import DomainsegError, InputError, MissingInputError, RecipeError
from domainseg.loaders.mask_folder import Folder, MaskFolder
from domainseg.loaders.splits import Split, split
from domainseg.records import Array, Sample

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)
TWO = np.array([[255, 0, 0, 0, 0], [0, 255, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 255, 255]])
BLACK = np.zeros((4, 5), np.uint8)
TILES: dict[str, str | None] = {"MT_Crack": "crack", "MT_Blow": "blowhole", "MT_Free": None}


def write(path: Path, array: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(array.astype(np.uint8)).save(path, quality=95)
    return path


def tile(root: Path, name: str, mask: Array | None) -> Path:
    write(root / f"{name}.jpg", GREY)
    if mask is not None:
        write(root / f"{name}.png", mask)
    return root


def tiles(**options: Any) -> MaskFolder:
    chosen: dict[str, Any] = {
        "images": ".",
        "labels": ".",
        "image_endings": (".jpg",),
        "label_endings": (".png",),
        "masks": "binary",
        "class_folders": TILES,
    }
    return MaskFolder(**(chosen | options))


def pair(root: Path, mask: Array, name: str = "a") -> Path:
    write(root / "images" / f"{name}.png", GREY)
    write(root / "labels" / f"{name}.png", mask)
    return root


def load(opened: Folder, name: str) -> Sample:
    return opened.load(next(entry for entry in opened.entries() if entry.id == name))


def refusal(kind: type[DomainsegError], action: Any) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


def first(options: MaskFolder, root: Path) -> Sample:
    opened = options.open(root)
    return opened.load(opened.entries()[0])


def found_map(sample: Sample) -> list[list[int]]:
    assert sample.truth is not None
    rows: list[list[int]] = sample.truth.to_label_map().tolist()
    return rows


class TestClassFolders:
    def test_every_component_is_an_object_of_its_folders_class(self, tmp_path: Path) -> None:
        tile(tile(tmp_path, "MT_Crack/Imgs/x", TWO), "MT_Blow/Imgs/y", TWO > 0)
        opened = tiles().open(tmp_path)
        assert opened.classes == ("crack", "blowhole")
        assert [e.id for e in opened.entries()] == ["MT_Blow/Imgs/y", "MT_Crack/Imgs/x"]
        crack, blow = load(opened, "MT_Crack/Imgs/x"), load(opened, "MT_Blow/Imgs/y")
        wanted = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0] * 5, [0, 0, 0, 2, 2]]
        assert found_map(crack) == found_map(blow) == wanted
        assert crack.truth is not None
        assert blow.truth is not None
        assert (crack.truth.classes.tolist(), blow.truth.classes.tolist()) == ([0, 0], [1, 1])

    def test_entries_know_class_and_kind_before_a_pixel_is_read(self, tmp_path: Path) -> None:
        tile(tile(tmp_path, "MT_Crack/Imgs/x", TWO), "MT_Free/Imgs/z", None)
        crack, free = tiles().open(tmp_path).entries()
        assert (crack.kind, crack.tags) == ("MT_Crack", ("crack",))
        assert (free.kind, free.tags) == ("MT_Free", ("good",))
        assert crack.columns == {
            "folder": "MT_Crack/Imgs",
            "folder_1": "MT_Crack",
            "folder_2": "Imgs",
        }
        (named, _) = tiles(kind="folder_2").open(tmp_path).entries()
        assert named.kind == "Imgs"

    @pytest.mark.parametrize("mask", [None, BLACK])
    def test_a_good_image_has_no_objects_with_or_without_a_mask(
        self, tmp_path: Path, mask: Array | None
    ) -> None:
        sample = first(tiles(), tile(tmp_path, "MT_Free/Imgs/z", mask))
        assert sample.truth is not None
        assert (len(sample.truth), sample.tags, sample.kind) == (0, ("good",), "MT_Free")
        assert isinstance(sample.image, np.ndarray)

    def test_good_is_another_word_for_null(self, tmp_path: Path) -> None:
        tile(tile(tmp_path, "a/x", TWO), "b/y", None)
        opened = tiles(class_folders={"a": "pit", "b": "good"}).open(tmp_path)
        assert opened.classes == ("pit",)
        assert load(opened, "b/y").tags == ("good",)

    def test_a_data_set_of_good_images_only_has_its_classes(self, tmp_path: Path) -> None:
        opened = tiles().open(tile(tmp_path, "MT_Free/Imgs/z", None))
        assert opened.classes == ("crack", "blowhole")
        assert load(opened, "MT_Free/Imgs/z").tags == ("good",)

    def test_folders_of_one_class_share_it(self, tmp_path: Path) -> None:
        tile(tile(tmp_path, "a/x", TWO), "b/y", TWO)
        opened = tiles(class_folders={"a": "pit", "b": "pit"}).open(tmp_path)
        assert opened.classes == ("pit",)
        assert load(opened, "b/y").tags == ("pit",)

    def test_a_folder_of_defects_without_masks_is_refused(self, tmp_path: Path) -> None:
        tile(tile(tmp_path, "MT_Crack/x", None), "MT_Blow/y", TWO)
        for options in (tiles(), tiles(good_without_mask=True)):
            assert refusal(MissingInputError, lambda o=options: o.open(tmp_path)) == (
                "class_folders: MT_Crack: found 1 image and no mask, wanted masks of its defects; "
                "add them, correct label_suffix or label_endings, or set the folder to null if "
                "its images are good."
            )

    def test_an_image_of_defects_without_a_mask_is_refused(self, tmp_path: Path) -> None:
        tile(tile(tmp_path, "MT_Crack/x", None), "MT_Crack/y", TWO)
        assert refusal(MissingInputError, lambda: tiles().open(tmp_path)) == (
            f"{tmp_path}/MT_Crack/x.jpg: found 1 image without a label: MT_Crack/x, wanted a file "
            "of the same name in .; add the label, remove the image, set good_without_mask if "
            "such images are good, or labels_optional to predict only."
        )
        good = load(tiles(good_without_mask=True).open(tmp_path), "MT_Crack/x")
        assert good.tags == ("good",)

    def test_a_mask_that_contradicts_its_folder_is_refused(self, tmp_path: Path) -> None:
        tile(tile(tmp_path, "MT_Crack/x", BLACK), "MT_Free/y", TWO)
        opened = tiles().open(tmp_path)
        assert refusal(InputError, lambda: load(opened, "MT_Crack/x")) == (
            f"{tmp_path}/MT_Crack/x.png: found nothing marked in MT_Crack, a folder of crack, "
            "wanted an object or more; correct the mask, move the image, or name it in leave_out."
        )
        assert refusal(InputError, lambda: load(opened, "MT_Free/y")) == (
            f"{tmp_path}/MT_Free/y.png: found 2 objects in MT_Free, a folder of good images, "
            "wanted an empty mask or none; correct the mask, move the image, or name it in "
            "leave_out."
        )

    def test_an_image_in_no_class_folder_or_in_two_is_refused(self, tmp_path: Path) -> None:
        tile(tmp_path, "MT_New/x", TWO)
        assert refusal(InputError, lambda: tiles().open(tmp_path)) == (
            "MT_New/x: found no class folder, wanted one of MT_Crack, MT_Blow, MT_Free in its "
            "path; add the folder to class_folders, with null for good images, or leave the "
            "image out."
        )
        tile(tmp_path / "other", "MT_Crack/MT_Blow/x", TWO)
        assert refusal(InputError, lambda: tiles().open(tmp_path / "other")) == (
            "MT_Crack/MT_Blow/x: found the class folders MT_Crack, MT_Blow, wanted one of "
            "MT_Crack, MT_Blow, MT_Free in its path; add the folder to class_folders, with null "
            "for good images, or leave the image out."
        )

    def test_to_predict_only_no_folder_needs_masks(self, tmp_path: Path) -> None:
        sample = first(tiles(labels_optional=True), tile(tmp_path, "MT_Crack/x", None))
        assert (sample.truth, sample.tags) == (None, ())


class TestNames:
    def test_endings_are_told_in_any_case(self, tmp_path: Path) -> None:
        write(tmp_path / "a.JPG", GREY)
        write(tmp_path / "a.png", TWO)
        options = MaskFolder(
            images=".",
            labels=".",
            image_endings=(".jpg",),
            label_endings=(".PNG",),
            masks="binary",
        )
        assert len(found_map(first(options, tmp_path))) == 4

    def test_two_images_of_one_name_are_refused(self, tmp_path: Path) -> None:
        write(pair(tmp_path, TWO) / "images/a.jpg", GREY)
        options = MaskFolder(masks="binary")
        assert refusal(InputError, lambda: options.open(tmp_path)) == (
            f"{tmp_path}/images/a.png: found the same name as a.jpg, wanted one file per name; "
            "rename or remove one."
        )
        opened = MaskFolder(masks="binary", image_endings=(".png",)).open(tmp_path)
        assert opened.images["a"].name == "a.png"

    def test_masks_in_a_folder_of_another_name_find_their_images(self, tmp_path: Path) -> None:
        write(tmp_path / "bottle/test/cut/000.png", GREY)
        write(tmp_path / "bottle/test/good/000.png", GREY)
        write(tmp_path / "bottle/ground_truth/cut/000_mask.png", TWO)
        options = MaskFolder(
            images=".",
            labels=".",
            label_suffix="_mask",
            label_renames={"/ground_truth/": "/test/"},
            masks="binary",
            good_without_mask=True,
        )
        opened = options.open(tmp_path)
        assert [(e.id, e.tags) for e in opened.entries()] == [
            ("bottle/test/cut/000", ()),
            ("bottle/test/good/000", ("good",)),
        ]
        assert load(opened, "bottle/test/cut/000").tags == ("object",)

    def test_images_left_out_need_no_mask_and_their_masks_no_image(self, tmp_path: Path) -> None:
        for name in ("a", "b1", "b2"):
            pair(tmp_path, TWO, name)
        (tmp_path / "labels/b1.png").unlink()
        opened = MaskFolder(masks="binary", leave_out=("b?",)).open(tmp_path)
        assert [entry.id for entry in opened.entries()] == ["a"]
        options = MaskFolder(masks="binary", leave_out=("b1", "c*"))
        assert refusal(MissingInputError, lambda: options.open(tmp_path)) == (
            "leave_out: found no image 'c*', wanted the ids of images, as paths below their "
            "folder without ending; correct or remove it."
        )


class TestGoodImages:
    def test_an_image_without_a_mask_is_good_when_the_recipe_says_so(self, tmp_path: Path) -> None:
        write(pair(tmp_path, TWO) / "images/b.png", GREY)
        opened = MaskFolder(masks="binary", good_without_mask=True).open(tmp_path)
        assert [entry.tags for entry in opened.entries()] == [(), ("good",)]
        marked, good = (opened.load(entry) for entry in opened.entries())
        assert (marked.tags, good.tags) == (("object",), ("good",))
        assert good.truth is not None
        assert good.truth.shape == (4, 5)

    def test_an_empty_mask_is_a_good_image_and_no_mask_is_no_annotation(
        self, tmp_path: Path
    ) -> None:
        write(pair(tmp_path, BLACK) / "images/b.png", GREY)
        opened = MaskFolder(labels_optional=True).open(tmp_path)
        assert [opened.load(entry).tags for entry in opened.entries()] == [("good",), ()]

    def test_tags_are_the_sorted_classes_that_are_present(self, tmp_path: Path) -> None:
        mask = np.array([[3, 0, 1, 0, 9], [0] * 5, [3, 0, 0, 0, 0], [0] * 5])
        table = {1: "scratch", 2: "pit", 3: "dent", 9: "ignore"}
        options = MaskFolder(masks="semantic", classes=table)
        assert first(options, pair(tmp_path, mask)).tags == ("dent", "scratch")
        assert first(options, pair(tmp_path, np.where(mask == 9, 9, 0))).tags == ("good",)

    def test_good_and_to_predict_at_once_is_refused(self) -> None:
        options = {"good_without_mask": True, "labels_optional": True}
        assert refusal(RecipeError, lambda: MaskFolder(**options)) == (  # type: ignore[arg-type]
            "good_without_mask: found labels_optional too, wanted images without a mask to be "
            "good, or to predict only; remove one of the two."
        )


class TestSoftEdges:
    SOFT = np.where(TWO > 0, TWO, 0) + np.array(
        [[0, 40, 0, 0, 0]] + [[0] * 5] * 2 + [[0, 0, 99, 0, 0]]
    )

    def test_a_mask_of_more_than_two_levels_needs_a_threshold(self, tmp_path: Path) -> None:
        root = pair(tmp_path, self.SOFT)
        assert refusal(InputError, lambda: first(MaskFolder(masks="binary"), root)) == (
            f"{root}/labels/a.png: found 4 grey levels from 0 to 255, wanted two, 0 and one "
            "other; if its edges are soft set threshold: 128, if its values are classes set "
            "masks: semantic."
        )
        hard = first(MaskFolder(masks="binary", threshold=128), root)
        assert (np.array(found_map(hard)) > 0).tolist() == (TWO > 0).tolist()
        low = first(MaskFolder(masks="binary", threshold=40), root)
        assert (np.array(found_map(low)) > 0).tolist() == (self.SOFT > 0).tolist()

    @pytest.mark.parametrize("level", [1, 128, 255])
    def test_a_mask_of_two_levels_needs_none(self, tmp_path: Path, level: int) -> None:
        sample = first(MaskFolder(masks="binary"), pair(tmp_path, (TWO > 0) * level))
        assert (np.array(found_map(sample)) > 0).tolist() == (TWO > 0).tolist()

    def test_a_mask_that_is_all_foreground_is_one_object(self, tmp_path: Path) -> None:
        sample = first(MaskFolder(masks="binary"), pair(tmp_path, BLACK + 255))
        assert found_map(sample) == [[1] * 5] * 4

    def test_a_threshold_that_nothing_reaches_is_refused(self, tmp_path: Path) -> None:
        root = pair(tmp_path, TWO > 0)
        assert refusal(
            InputError, lambda: first(MaskFolder(masks="binary", threshold=128), root)
        ) == (
            f"{root}/labels/a.png: found values up to 1, none of which reaches threshold 128, "
            "wanted foreground where the mask is not 0; lower threshold or correct the mask."
        )

    def test_soft_edges_of_classes_are_refused_with_their_count(self, tmp_path: Path) -> None:
        root = pair(tmp_path, self.SOFT)
        options = MaskFolder(masks="semantic", classes={255: "pit"})
        assert refusal(InputError, lambda: first(options, root)) == (
            f"{root}/labels/a.png: found 4 grey levels, 2 of them of no class (40 is the first), "
            "wanted one of 0, 255; add them to classes; if the edges of one class are soft set "
            "masks: binary and threshold: 128."
        )

    def test_a_threshold_that_nothing_uses_is_refused(self) -> None:
        assert refusal(RecipeError, lambda: MaskFolder(threshold=128)) == (
            "threshold: found 128 with masks: labels, wanted 1 or more with masks: binary, and "
            "none otherwise; change one of them."
        )
        assert refusal(RecipeError, lambda: MaskFolder(masks="binary", threshold=0)).startswith(
            "threshold: found 0 with masks: binary,"
        )


class TestGroups:
    def frames(self, root: Path) -> Path:
        for name in ("e1_n95", "e2_n110", "e3_n130", "e1_n151", "e1_n7"):
            pair(root, TWO, name)
        return root

    def test_the_pattern_finds_the_group(self, tmp_path: Path) -> None:
        options = MaskFolder(masks="binary", group_pattern=r"^(e\d)_")
        entries = options.open(self.frames(tmp_path)).entries()
        assert [entry.group for entry in entries] == ["e1", "e1", "e1", "e2", "e3"]
        assert first(options, tmp_path).group == "e1"

    def test_numbers_that_follow_each_other_closely_are_one_group(self, tmp_path: Path) -> None:
        options = MaskFolder(masks="binary", group_pattern=r"_n(\d+)$", group_gap=20)
        entries = options.open(self.frames(tmp_path)).entries()
        assert {e.id: e.group for e in entries} == {
            "e1_n7": "7",
            "e1_n95": "95",
            "e2_n110": "95",
            "e3_n130": "95",
            "e1_n151": "151",
        }

    def test_a_folder_can_be_the_group(self, tmp_path: Path) -> None:
        pair(tmp_path, TWO, "lot7/a")
        (entry,) = MaskFolder(masks="binary", group="folder").open(tmp_path).entries()
        assert entry.group == "lot7"

    def test_a_folder_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        options = MaskFolder(masks="binary", kind="folder_2")
        assert refusal(InputError, lambda: options.open(pair(tmp_path, TWO, "lot7/a"))) == (
            "lot7/a: found columns folder, folder_1, wanted a column 'folder_2'; put the image in "
            "a folder or correct the option that names the column."
        )

    @pytest.mark.parametrize(
        ("pattern", "gap", "sentence"),
        [
            (
                r"x(\d)",
                None,
                "found no match, wanted the pattern 'x(\\\\d)'; correct group_pattern or leave "
                "the image out.",
            ),
            (
                r"(e\d)",
                5,
                "found 'e1', wanted a number, because group_gap is set; correct group_pattern or "
                "remove group_gap.",
            ),
        ],
    )
    def test_an_id_without_a_group_is_refused(
        self, tmp_path: Path, pattern: str, gap: int | None, sentence: str
    ) -> None:
        options = MaskFolder(masks="binary", group_pattern=pattern, group_gap=gap)
        assert refusal(InputError, lambda: options.open(self.frames(tmp_path))) == (
            f"e1_n151: {sentence}"
        )

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (
                {"group_pattern": "n"},
                "group_pattern: found 'n': no group, wanted a regular expression with a group in "
                "parentheses; correct it.",
            ),
            (
                {"group_pattern": "(n"},
                "group_pattern: found '(n': missing ), unterminated subpattern at position 0, "
                "wanted a regular expression with a group in parentheses; correct it.",
            ),
            (
                {"group_pattern": "(n)", "group": "folder"},
                "group_pattern: found group: folder too, wanted groups from one of the two; "
                "remove one.",
            ),
            (
                {"group_gap": 3},
                "group_gap: found no group_pattern, wanted 0 or more, and a group_pattern that "
                "finds a number; change it.",
            ),
            (
                {"group_gap": -3, "group_pattern": "(n)"},
                "group_gap: found -3, wanted 0 or more, and a group_pattern that finds a number; "
                "change it.",
            ),
        ],
    )
    def test_options_that_find_no_group_are_refused(
        self, options: dict[str, Any], sentence: str
    ) -> None:
        assert refusal(RecipeError, lambda: MaskFolder(**options)) == sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"class_folders": {"a": "pit"}, "masks": "semantic", "classes": {1: "x"}},
            "class_folders: found masks: semantic, which name the classes themselves, wanted "
            "masks: labels, binary or regions; change one of them.",
        ),
        (
            {"class_folders": {"a": None}},
            "class_folders: found no class, wanted one folder of defects or more; add it.",
        ),
        (
            {"class_folders": {"a": "pit", "b": "ignore"}},
            "class_folders: found the class 'ignore', wanted names of classes, and null or good "
            "for good images; write another name.",
        ),
        (
            {"masks": "labelme"},
            "label_names: found none with masks: labelme, wanted a table of label to name with "
            "masks: labelme, and none otherwise; change one of them.",
        ),
        (
            {"masks": "semantic", "classes": {3: "ignore"}},
            "classes: found no name but background and ignore, wanted a class; name one.",
        ),
        (
            {"masks": "yolo_seg", "classes": {0: "a"}, "label_endings": (".png",)},
            "label_endings: found .png with masks: yolo_seg, wanted none, as these files have one "
            "ending; remove it.",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], sentence: str
) -> None:
    assert refusal(RecipeError, lambda: MaskFolder(**options)) == sentence


def test_an_ending_nobody_can_read_is_refused() -> None:
    assert refusal(RecipeError, lambda: MaskFolder(image_endings=("jpg",))).startswith(
        "image_endings: found 'jpg', wanted some of .ome.tif, .ome.tiff, .png, .jpg,"
    )


def test_folders_can_split_a_data_set(tmp_path: Path) -> None:
    for name in ("Class1/Train/1", "Class1/Test/1", "Class2/Train/1"):
        pair(tmp_path, TWO, name)
    entries = MaskFolder(masks="binary").open(tmp_path).entries()
    rule = Split(by="column", column="folder_2", values={"train": "Train", "test": "Test"})
    parts = split(entries, rule)
    assert [e.id for e in parts.train] == ["Class1/Train/1", "Class2/Train/1"]
    assert [e.id for e in parts.test] == ["Class1/Test/1"]


REAL = DATA / "surface-magnetic-tile"
NAMES: dict[str, str | None] = {
    f"MT_{name}": name for name in ("Blowhole", "Break", "Crack", "Fray", "Uneven")
} | {"MT_Free": None}
UNMARKED = ("MT_Uneven/Imgs/exp4_num_124690", "MT_Uneven/Imgs/exp4_num_45057")


@pytest.fixture(scope="module")
def real() -> Folder:
    if not REAL.is_dir():
        pytest.skip("the data of shared/data/surface-magnetic-tile are not here")
    return tiles(class_folders=NAMES, threshold=128).open(REAL)


def test_real_tiles_are_as_many_as_their_folders_hold(real: Folder) -> None:
    assert real.classes == ("Blowhole", "Break", "Crack", "Fray", "Uneven")
    assert Counter(entry.tags for entry in real.entries()) == {
        ("Blowhole",): 89,
        ("Break",): 62,
        ("Crack",): 40,
        ("Fray",): 22,
        ("Uneven",): 77,
        ("good",): 307,
    }


def test_every_real_defect_is_an_object_but_for_two_empty_masks(real: Folder) -> None:
    objects: Counter[str] = Counter()
    for entry in real.entries():
        if entry.id in UNMARKED:
            assert refusal(InputError, lambda e=entry: real.load(e)).startswith(
                f"{REAL}/{entry.id}.png: found nothing marked in MT_Uneven, a folder of Uneven,"
            )
            continue
        if entry.tags == ("good",) and not entry.id.endswith("1"):
            continue
        sample = real.load(entry)
        assert sample.tags == entry.tags
        assert sample.truth is not None
        assert (len(sample.truth) > 0) == (entry.tags != ("good",))
        objects[entry.tags[0]] += len(sample.truth)
    assert objects == {
        "Blowhole": 92,
        "Break": 97,
        "Crack": 49,
        "Fray": 28,
        "Uneven": 77,
        "good": 0,
    }


def test_real_tiles_seen_in_several_lights_stay_together() -> None:
    if not REAL.is_dir():
        pytest.skip("the data of shared/data/surface-magnetic-tile are not here")
    options = tiles(
        class_folders=NAMES,
        threshold=128,
        leave_out=UNMARKED,
        group_pattern=r"_num_(\d+)$",
        group_gap=300,
    )
    entries = options.open(REAL).entries()
    assert (len(entries), len({entry.group for entry in entries})) == (595, 180)
    group = {entry.id: entry.group for entry in entries}
    same_tile = ("exp1_num_33365", "exp2_num_33380", "exp4_num_33407", "exp6_num_33541")
    assert len({group[f"MT_Uneven/Imgs/{name}"] for name in same_tile}) == 1
