"""Evaluation of label images: aggregation, files, and every refusal."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.errors import InputError, MissingInputError, OutputError
from domainseg.images.label_store import Look, label_store
from domainseg.instances.evaluation import (
    Evaluation,
    LabelPair,
    evaluate_labels,
    evaluate_pairs,
    mean_ap_difference,
    write_evaluation,
)
from domainseg.instances.matching import Metrics
from domainseg.quality.bootstrap import mean_interval
from domainseg.records import Instances

Labels = NDArray[np.int32]


def labels(*rows: str) -> Labels:
    """Return a label map drawn with digits, ``.`` for background."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.int32)


PERFECT = LabelPair("b", labels("11.2"), labels("33.4"), kind="stained")
HALF = LabelPair("a", labels("11.22.33"), labels("44....5."), kind="fluorescence")
WRONG = LabelPair("c", labels("1..."), labels("...1"), kind="stained")


def scored() -> Evaluation:
    return evaluate_pairs([PERFECT, HALF, WRONG], rng=np.random.default_rng(0))


def test_the_mean_weighs_images_and_the_pool_weighs_objects() -> None:
    found = scored()
    # HALF matches 1 at IoU 1 and 3 at exactly .5, and misses 2.
    assert [row.metrics.ap[0] for row in found.images] == [2 / 3, 1.0, 0.0]
    assert found.all.mean.ap[0] == pytest.approx((2 / 3 + 1.0 + 0.0) / 3, abs=1e-12)
    assert found.all.pooled.ap[0] == 4 / (4 + 2 + 1)
    assert found.all.mean.ap[1] == pytest.approx((1 / 4 + 1.0 + 0.0) / 3, abs=1e-12)
    assert found.all.mean.mean_ap == pytest.approx(np.mean(found.all.mean.ap), abs=1e-12)
    assert found.all.pooled.f1 == 8 / (8 + 3)
    # PQ takes more than .5: 3 of HALF is missed and 5 false.
    assert found.all.pooled.pq == pytest.approx(3 / (3 + (3 + 2) / 2), abs=1e-12)
    assert found.all.pooled.aji == 6 / (6 + 2 + 1 + 2)
    assert found.all.pooled.dice == 2 * 6 / (10 + 7)
    assert (found.all.images, found.all.tally.truths) == (3, 6)


def test_rows_are_sorted_and_kinds_are_summed_apart() -> None:
    found = scored()
    assert [row.id for row in found.images] == ["a", "b", "c"]
    assert [(kind.name, kind.images) for kind in found.kinds] == [
        ("fluorescence", 1),
        ("stained", 2),
    ]
    assert found.kinds[1].mean.ap[0] == 0.5
    assert found.kinds[1].pooled.ap[0] == 2 / 4
    assert found.kinds[0].pooled == found.images[0].metrics
    parts = found.kinds[0].tally + found.kinds[1].tally
    assert parts == found.all.tally


def test_the_order_of_the_pairs_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    pairs = [
        LabelPair(str(k), rng.integers(0, 5, (6, 7)), rng.integers(0, 5, (6, 7))) for k in range(9)
    ]
    assert json.dumps(evaluate_pairs(pairs).to_json()) == json.dumps(
        evaluate_pairs(pairs[::-1]).to_json()
    )


def test_an_image_without_a_kind_is_in_all_only() -> None:
    found = evaluate_pairs([PERFECT, replace(HALF, kind=None)])
    assert [kind.name for kind in found.kinds] == ["stained"]
    assert found.all.images == 2


def test_ignored_pixels_are_left_out_of_an_image() -> None:
    (row,) = evaluate_pairs([replace(HALF, ignore=labels("...111.1") > 0)]).images
    assert row.metrics.mean_ap == 1.0
    assert row.tally.truths == 2


def test_pairs_are_taken_one_at_a_time() -> None:
    taken: list[str] = []

    def lazily() -> Iterator[LabelPair]:
        yield PERFECT
        taken.append("b")
        yield replace(HALF, id="b")
        taken.append("never")

    with pytest.raises(InputError, match="two images of this name"):
        evaluate_pairs(lazily())
    assert taken == ["b"]


def test_overlapping_objects_are_scored() -> None:
    one = Instances.from_label_map(labels("111."))
    twice = replace(
        one,
        ids=np.array([1, 2]),
        boxes=np.concatenate([one.boxes, one.boxes]),
        runs=np.concatenate([one.runs, one.runs]),
        offsets=np.array([0, 1, 2]),
        classes=np.zeros(2, np.int16),
        scores=np.ones(2, np.float32),
    )
    (row,) = evaluate_pairs([LabelPair("a", one, twice)]).images
    assert row.metrics.ap[-1] == 0.5
    assert row.metrics.dice == 1.0


def classed(drawing: str, classes: dict[int, int]) -> Instances:
    return Instances.from_label_map(labels(drawing), classes=classes)


def test_classes_are_scored_within_themselves_and_averaged() -> None:
    pairs = [
        LabelPair("a", classed("11.22", {1: 0, 2: 2}), classed("11.22", {1: 0, 2: 0})),
        LabelPair("b", classed("11...", {1: 2}), classed("11...", {1: 2})),
    ]
    found = evaluate_pairs(pairs, class_names=("cell", "debris", "nucleus"))
    assert [(one.name, one.images) for one in found.classes] == [("cell", 1), ("nucleus", 2)]
    assert [one.pooled.ap[0] for one in found.classes] == [1 / 2, 1 / 2]
    assert [one.pooled.f1 for one in found.classes] == [2 / 3, 2 / 3]
    assert found.class_mean is not None
    assert found.class_mean.f1 == 2 / 3
    # Whatever its class, every object was found.
    assert found.all.pooled.mean_ap == 1.0
    assert evaluate_pairs(pairs).classes == ()


# Table, JSON, intervals ------------------------------------------------------------------


def test_the_table_lists_kinds_then_all() -> None:
    header, rows = scored().table()
    assert header[:6] == ("images of", "images", "objects", "AP .5", "AP .75", "AP .5-.9")
    assert [row[0] for row in rows] == ["fluorescence", "stained", "all"]
    assert rows[2] == (
        *("all", "3", "6"),
        *("0.556", "0.417", "0.432"),
        *("0.727", "0.545", "0.545", "0.706"),
        *("2", "1", "0", "0"),
    )
    assert {len(row) for row in rows} == {len(header)}


def test_json_has_plain_values_in_a_fixed_order() -> None:
    content = evaluate_pairs([PERFECT, HALF]).to_json()
    again = json.loads(json.dumps(content, allow_nan=False))
    assert again == content
    assert list(content) == ["thresholds", "all", "kinds", "classes", "class_mean", "images"]
    assert list(content["all"]) == ["images", "counts", "mean", "pooled", "mean_ap_interval"]
    assert content["all"]["mean_ap_interval"] == [None, None]
    assert content["class_mean"] is None
    assert content["all"]["counts"] == {
        "objects": 5,
        "predicted": 4,
        "matched": 4,
        "missed": 1,
        "false": 0,
        "merged": 0,
        "split": 0,
    }
    assert content["images"][1]["id"] == "b"
    assert content["images"][1]["ap"] == [1.0] * 9
    assert content["thresholds"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]


def test_the_written_file_is_the_json(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    write_evaluation(scored(), file)
    assert json.loads(file.read_text(encoding="utf-8")) == scored().to_json()
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(OutputError, match="found no folder to write into, wanted a file"):
        write_evaluation(scored(), tmp_path / "missing" / "evaluation.json")


def test_the_interval_of_a_constant_is_a_point_and_of_one_image_unknown() -> None:
    rng = np.random.default_rng(1)
    assert mean_interval(np.full(7, 0.25), rng) == (0.25, 0.25)
    assert all(math.isnan(end) for end in mean_interval(np.array([0.5]), rng))
    assert all(math.isnan(end) for end in evaluate_pairs([HALF], rng=rng).all.mean_ap_interval)


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(0.6, 0.2, 400)
    low, high = mean_interval(values, rng)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    narrow = mean_interval(values, rng, confidence=0.5)
    assert low < narrow[0] < values.mean() < narrow[1] < high


def shifted(evaluation: Evaluation, change: float) -> Evaluation:
    """Return the evaluation with every image's mean AP changed by the same."""

    def moved(metrics: Metrics) -> Metrics:
        return replace(metrics, mean_ap=metrics.mean_ap + change)

    rows = tuple(replace(row, metrics=moved(row.metrics)) for row in evaluation.images)
    return replace(evaluation, images=rows)


def test_a_paired_difference_is_sharp_however_the_images_vary() -> None:
    found = scored()
    difference, (low, high) = mean_ap_difference(
        shifted(found, 0.125), found, np.random.default_rng(3)
    )
    assert (difference, low, high) == pytest.approx((0.125, 0.125, 0.125), abs=1e-12)
    # The images themselves are far apart.
    assert found.all.mean_ap_interval[1] - found.all.mean_ap_interval[0] > 0.5


def test_a_paired_difference_wants_the_same_images() -> None:
    with pytest.raises(InputError) as caught:
        mean_ap_difference(scored(), evaluate_pairs([HALF, PERFECT]), np.random.default_rng(0))
    assert str(caught.value) == (
        "paired comparison: found c in one evaluation only, wanted the same images in both; "
        "score both on the same images."
    )


# Files -----------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return a folder of predictions and one of truth: three images, three layouts."""
    predicted, truth = tmp_path / "predicted", tmp_path / "truth"
    (predicted / "b").mkdir(parents=True)
    truth.mkdir()
    for pair in (PERFECT, HALF, WRONG):
        tifffile.imwrite(truth / f"{pair.id}.tif", np.asarray(pair.truth).astype(np.uint16))
    tifffile.imwrite(
        predicted / "b" / "labels.tif", np.asarray(PERFECT.predicted).astype(np.uint16)
    )
    np.save(predicted / "a.npy", np.asarray(HALF.predicted))
    tifffile.imwrite(predicted / "c.tiff", np.asarray(WRONG.predicted).astype(np.uint8))
    (predicted / "objects.csv").write_text("image,area_px\n")
    (predicted / "c").mkdir()
    return predicted, truth


def kinds_file(folder: Path, text: str) -> Path:
    file = folder / "kinds.csv"
    file.write_text(text)
    return file


def test_folders_are_paired_by_stem_whatever_their_layout(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    kinds = kinds_file(
        truth.parent, "image,split,kind\na.jpg,,fluorescence\nb,,stained\nc,,stained\n"
    )
    found = evaluate_labels(predicted, truth, kinds=kinds)
    wanted = evaluate_pairs([PERFECT, HALF, WRONG])
    assert found.to_json() == wanted.to_json()
    assert [row.kind for row in evaluate_labels(predicted, truth).images] == [None] * 3


def test_two_files_are_paired_whatever_their_names(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    found = evaluate_labels(predicted / "b" / "labels.tif", truth / "b.tif")
    assert [row.id for row in found.images] == ["b"]
    assert found.all.mean.mean_ap == 1.0


def test_labels_in_ome_zarr_are_scored_alone_and_inside_a_run(
    folders: tuple[Path, Path],
) -> None:
    predicted, truth = folders
    wanted = evaluate_labels(predicted, truth).to_json()
    labels = np.asarray(PERFECT.predicted).astype(np.uint16)
    (predicted / "b" / "labels.tif").unlink()
    store = predicted / "b" / "labels.ome.zarr"
    with label_store(store, shape=labels.shape, largest=int(labels.max()), look=Look()) as made:
        made.write(((0, 0), labels.shape), [labels])
    assert evaluate_labels(predicted, truth).to_json() == wanted
    found = evaluate_labels(store, truth / "b.tif")
    assert [row.id for row in found.images] == ["b"]
    assert found.all.mean.mean_ap == 1.0
    shutil.rmtree(store / "labels")
    with pytest.raises(InputError) as caught:
        evaluate_labels(store, truth / "b.tif")
    assert str(caught.value) == (
        f"{store}: found no label image that can be read, wanted labels/objects, as predict "
        "writes it; predict the image again, or export the labels as TIFF."
    )


def test_stems_restrict_what_is_scored(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    (predicted / "a.npy").unlink()
    found = evaluate_labels(predicted, truth, stems=["c", "b"])
    assert [row.id for row in found.images] == ["b", "c"]
    with pytest.raises(MissingInputError) as caught:
        evaluate_labels(predicted, truth, stems=["a", "b"])
    assert str(caught.value) == (
        f"{predicted}: found no label image for a, wanted one for every image of the list of "
        "images; add what is missing, or score only the images both have."
    )


def test_a_missing_path_is_refused(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    for one, other in ((predicted / "x", truth), (predicted, predicted / "x")):
        with pytest.raises(MissingInputError) as caught:
            evaluate_labels(one, other)
        assert str(caught.value) == (
            f"{predicted / 'x'}: found nothing, wanted a label image or a folder of label images; "
            "check the path."
        )


def test_an_empty_folder_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "photo.jpg").write_bytes(b"")
    with pytest.raises(MissingInputError) as caught:
        evaluate_labels(empty, folders[1])
    assert str(caught.value) == (
        f"{empty}: found no label image, wanted files ending in .png, .bmp, .tif, .tiff, .btf, "
        ".tf8, .npy, or <image>/labels.tif; name the folder that holds them."
    )


def test_a_file_beside_a_folder_is_refused(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    with pytest.raises(InputError) as caught:
        evaluate_labels(predicted, truth / "a.tif")
    assert str(caught.value) == (
        f"{predicted}: found a folder, wanted a file, as {truth / 'a.tif'} is one; "
        "name two files or two folders."
    )
    with pytest.raises(InputError, match="found a file, wanted a folder, as"):
        evaluate_labels(predicted / "c.tiff", truth)


def test_truth_without_prediction_is_refused(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    (predicted / "a.npy").unlink()
    (predicted / "c.tiff").unlink()
    with pytest.raises(MissingInputError) as caught:
        evaluate_labels(predicted, truth)
    assert str(caught.value) == (
        f"{predicted}: found no label image for a and 1 more, wanted one for every image of "
        f"{truth}; add what is missing, or score only the images both have."
    )


def test_prediction_without_truth_is_refused(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    (truth / "c.tif").unlink()
    with pytest.raises(MissingInputError) as caught:
        evaluate_labels(predicted, truth)
    assert str(caught.value) == (
        f"{truth}: found no label image for c, wanted one for every image of {predicted}; "
        "add what is missing, or score only the images both have."
    )


def test_two_label_images_of_one_stem_are_refused(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    np.save(predicted / "b.npy", np.asarray(PERFECT.predicted))
    with pytest.raises(InputError) as caught:
        evaluate_labels(predicted, truth)
    assert str(caught.value) == (
        f"{predicted}: found b/labels.tif and b.npy, wanted one label image for b; "
        "remove one of the two."
    )


def test_another_size_is_refused(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    np.save(predicted / "a.npy", np.zeros((2, 8), np.int32))
    with pytest.raises(InputError) as caught:
        evaluate_labels(predicted, truth)
    assert str(caught.value) == (
        f"{predicted / 'a.npy'}: found 2 x 8 px, wanted 1 x 8 px as in {truth / 'a.tif'}; "
        "predict on the image that was annotated, without resizing it."
    )


def test_a_dtype_that_cannot_be_a_label_is_refused(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    np.save(predicted / "a.npy", np.zeros((1, 8), np.float32))
    with pytest.raises(InputError, match=r"a\.npy: found float32 values, which cannot be labels"):
        evaluate_labels(predicted, truth)


def test_a_kinds_file_that_does_not_fit_is_refused(folders: tuple[Path, Path]) -> None:
    predicted, truth = folders
    refusals = {
        "name,kind\na,x\n": (
            "found the columns name, kind, wanted image and kind; "
            "name the two columns in the first line."
        ),
        "": (
            "found the columns of an empty file, wanted image and kind; "
            "name the two columns in the first line."
        ),
        "image,kind\na,x\nc,\n": (
            "found no kind for b, wanted the kind of every image that is scored; add its line."
        ),
        "image,kind\na,x\nb,x\na.png,y\n": (
            "found a as x and as y, wanted one kind per image; remove one of the two lines."
        ),
    }
    for text, refusal in refusals.items():
        file = kinds_file(truth.parent, text)
        with pytest.raises(InputError) as caught:
            evaluate_labels(predicted, truth, kinds=file)
        assert str(caught.value) == f"{file}: {refusal}"
    with pytest.raises(MissingInputError) as missing:
        evaluate_labels(predicted, truth, kinds=truth / "kinds.csv")
    assert str(missing.value) == (
        f"{truth / 'kinds.csv'}: found no file, wanted a CSV with the columns image and kind; "
        "check the path."
    )


# Pairs that cannot be scored --------------------------------------------------------------


def test_no_image_is_refused() -> None:
    with pytest.raises(MissingInputError) as caught:
        evaluate_pairs([])
    assert str(caught.value) == (
        "evaluation: found no image, wanted at least one; check what was selected."
    )


def test_two_images_of_one_name_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        evaluate_pairs([HALF, HALF])
    assert str(caught.value) == (
        "a: found two images of this name, wanted a name for each; rename one of them."
    )


def test_a_pair_of_different_sizes_is_named() -> None:
    with pytest.raises(InputError, match=r"^b: found a prediction of shape \(1, 8\), wanted"):
        evaluate_pairs([replace(PERFECT, predicted=HALF.predicted)])


def test_a_label_map_against_objects_is_refused() -> None:
    one = Instances.from_label_map(labels("11.2"))
    with pytest.raises(InputError) as caught:
        evaluate_pairs([replace(PERFECT, truth=one)])
    assert str(caught.value) == (
        "b: found a label map on one side and objects on the other, wanted objects on both sides; "
        "make them with Instances.from_label_map."
    )
    with pytest.raises(InputError) as caught:
        evaluate_pairs([PERFECT], class_names=("cell",))
    assert str(caught.value) == (
        "b: found label maps, which know no classes, wanted objects on both sides; "
        "make them with Instances.from_label_map."
    )


def test_a_class_without_a_name_is_refused() -> None:
    one = classed("11.22", {1: 0, 2: 2})
    with pytest.raises(InputError) as caught:
        evaluate_pairs([LabelPair("a", one, one)], class_names=("cell", "debris"))
    assert str(caught.value) == (
        "a: found an object of class 2, wanted classes 0 to 1, one per class name; "
        "name every class."
    )


# Real label images -----------------------------------------------------------------------


def test_real_truth_against_itself_is_perfect() -> None:
    folder = Path(__file__).parents[1] / ".." / "shared" / "data" / "nuclei-dsb2018"
    if not folder.is_dir():
        pytest.skip(f"no nuclei at {folder}")
    with (folder / "index.csv").open() as file:
        stems = [row["image"] for row in csv.DictReader(file) if row["split"] == "test"][:12]
    found = evaluate_labels(
        folder / "labels", folder / "labels", kinds=folder / "index.csv", stems=stems
    )
    assert found.all.mean.mean_ap == 1.0
    assert found.all.pooled.aji == 1.0
    assert found.all.tally.merged == found.all.tally.split == 0
    assert sum(kind.images for kind in found.kinds) == 12
