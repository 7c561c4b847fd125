"""Tables of run lengths: pixels down the columns, counted from 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from domainseg.errors import InputError, MissingInputError, RecipeError
from domainseg.loaders.rle_csv import RleCsv, RleImages, decoded

CLASSES = {"1": "pit", "3": "scratch"}
HEAD = "ImageId,ClassId,EncodedPixels\n"


def steel(root: Path, table: str, names: tuple[str, ...] = ("a", "b")) -> Path:
    (root / "train_images").mkdir(parents=True, exist_ok=True)
    for name in names:
        Picture.fromarray(np.zeros((3, 4), np.uint8)).save(root / f"train_images/{name}.png")
    (root / "train.csv").write_text(HEAD + table)
    return root


def opened(root: Path, **options: Any) -> RleImages:
    return RleCsv(classes=CLASSES, good_without_row=True, **options).open(root)


def test_runs_go_down_the_columns_from_one() -> None:
    assert decoded("x", "2 3 12 1", (3, 4)).astype(int).tolist() == [
        [0, 1, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 1],
    ]


def test_decoding_is_the_inverse_of_writing_the_runs() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        mask = rng.random((5, 7)) < 0.4
        mask[0, 0] = True
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
        text = " ".join(f"{a + 1} {b - a}" for a, b in edges.reshape(-1, 2))
        np.testing.assert_array_equal(decoded("x", text, (5, 7)), mask)


def test_components_of_a_row_are_objects_of_its_class(tmp_path: Path) -> None:
    data = opened(steel(tmp_path, "a.png,3,1 1 12 1\na.png,1,2 1\n"))
    assert data.classes == ("pit", "scratch")
    a, b = data.entries()
    assert (a.tags, b.tags) == (("pit", "scratch"), ("good",))
    sample = data.load(a)
    assert sample.truth is not None
    assert sample.truth.to_label_map().tolist() == [[1, 0, 0, 0], [3, 0, 0, 0], [0, 0, 0, 2]]
    assert sample.truth.classes.tolist() == [1, 1, 0]
    assert sample.tags == ("pit", "scratch")
    whole = opened(tmp_path, objects="rows").load(a).truth
    assert whole is not None
    assert (whole.areas_px().tolist(), whole.classes.tolist()) == ([2, 1], [1, 0])


def test_rows_may_overlap_and_empty_rows_are_no_objects(tmp_path: Path) -> None:
    data = opened(steel(tmp_path, "a.png,1,1 3\na.png,3,2 3\nb.png,1,\n"))
    a, b = data.entries()
    truth, good = data.load(a).truth, data.load(b)
    assert truth is not None
    assert truth.areas_px().tolist() == [3, 3]
    assert good.truth is not None
    assert (len(good.truth), good.tags, b.tags) == (0, ("good",), ("good",))


def test_without_a_class_column_there_is_one_class(tmp_path: Path) -> None:
    steel(tmp_path, "a.png,9,1 3\nb.png,9,1 3\n")
    data = RleCsv(class_column=None, class_name="nucleus").open(tmp_path)
    assert data.classes == ("nucleus",)
    assert data.load(data.entries()[0]).tags == ("nucleus",)


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ("1 2 3", "found runs that are no pairs of whole numbers, wanted first pixel and length"),
        ("1 x", "found runs that are no pairs of whole numbers, wanted first pixel and length"),
        (
            "0 2",
            "found runs from pixel 0 to 1, wanted runs of 1 or more within the 12 pixels of 3 x 4",
        ),
        (
            "12 2",
            "found runs from pixel 12 to 13, wanted runs of 1 or more within the 12 pixels of "
            "3 x 4",
        ),
        (
            "4 0",
            "found runs from pixel 4 to 3, wanted runs of 1 or more within the 12 pixels of 3 x 4",
        ),
        ("4 2 5 1", "found runs that overlap or go back, wanted runs in ascending order"),
    ],
)
def test_runs_that_cannot_be_are_refused(tmp_path: Path, runs: str, sentence: str) -> None:
    data = opened(steel(tmp_path, f"b.png,1,1 1\na.png,1,{runs}\n"))
    with pytest.raises(InputError) as caught:
        data.load(data.entries()[0])
    assert str(caught.value) == f"{tmp_path}/train.csv:3: {sentence}; correct the row."


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            "z.png,1,1 1\n",
            ":2: found 'z.png', which is no image in train_images, wanted one of its 2 images; "
            "add the image or remove the row.",
        ),
        (
            "a.png,2,1 1\n",
            ":2: found class 2, wanted one of 1, 3; add it to classes or correct it.",
        ),
        (
            "a.png,1,1 1,5\n",
            ": found no CSV whose rows have as many values as its header, wanted one; export it "
            "again.",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_refused(tmp_path: Path, table: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        opened(steel(tmp_path, table))
    assert str(caught.value) == f"{tmp_path}/train.csv{sentence}"


def test_a_table_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    root = steel(tmp_path, "a.png,1,1 1\n")
    with pytest.raises(MissingInputError) as caught:
        RleCsv(classes=CLASSES).open(root)
    assert str(caught.value) == (
        f"{root}/train.csv: found no row for b, wanted a row for every image; add the rows, or set "
        "good_without_row if such images are good."
    )
    with pytest.raises(InputError) as wrong:
        opened(root, pixels_column="rle")
    assert str(wrong.value) == (
        f"{root}/train.csv: found columns ImageId, ClassId, EncodedPixels, wanted a column 'rle'; "
        "rename a column or correct the option that names it."
    )
    (root / "train.csv").unlink()
    with pytest.raises(MissingInputError) as absent:
        opened(root)
    assert str(absent.value) == (
        f"{root}/train.csv: found no file, wanted the table of runs; check csv."
    )
    for path in (root / "train_images").iterdir():
        path.unlink()
    with pytest.raises(MissingInputError) as empty:
        opened(root)
    assert str(empty.value) == (
        f"{root}/train_images: found no image, wanted the images; check the path."
    )


def test_classes_without_a_column_for_them_are_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        RleCsv()
    assert str(caught.value) == (
        "classes: found none with class_column: ClassId, wanted a table of what the column says "
        "to name, and none without a column; change one of them."
    )
