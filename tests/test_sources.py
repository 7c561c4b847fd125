"""A recipe's data: classes renamed, merged and dropped, in objects and in planes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from domainseg.errors import InputError, RecipeError
from domainseg.loaders.splits import Splits
from domainseg.recipe import Recipe, recipe_from_json
from domainseg.records import Entry, Instances, Sample
from domainseg.sources import (
    DROPPED,
    ClassMap,
    Source,
    map_classes,
    map_instances,
    map_semantic,
    open_source,
    open_whole,
    presence,
    truth_labels,
)

CLASSES = ("weld", "pore", "crack")
LABELS = np.array(
    [
        [1, 1, 0, 2],
        [1, 0, 0, 2],
        [0, 3, 3, 0],
    ],
    np.uint8,
)


@pytest.fixture
def objects() -> Instances:
    """Return a weld, a pore and a crack, with scores and parents."""
    made = Instances.from_label_map(
        LABELS, classes={1: 0, 2: 1, 3: 2}, scores={1: 0.5, 2: 0.25, 3: 0.75}
    )
    return replace(made, parents=np.array([0, 1, 1], np.int64))


def sample_of(truth: Instances | None) -> Sample:
    image = np.zeros((1, 3, 4), np.uint8)
    return Sample("a", image, ("grey",), truth=truth, group="a")


class TestClassMaps:
    def test_without_a_mapping_every_class_keeps_its_name(self) -> None:
        made = map_classes(CLASSES, None)
        assert made.names == CLASSES
        np.testing.assert_array_equal(made.targets, [0, 1, 2])

    def test_a_class_is_renamed_and_the_others_keep_their_place(self) -> None:
        made = map_classes(CLASSES, {"pore": "hole"})
        assert made.names == ("weld", "hole", "crack")
        np.testing.assert_array_equal(made.targets, [0, 1, 2])

    def test_two_classes_become_one(self) -> None:
        made = map_classes(CLASSES, {"pore": "defect", "crack": "defect"})
        assert made.names == ("weld", "defect")
        np.testing.assert_array_equal(made.targets, [0, 1, 1])

    def test_a_class_joins_one_that_is_there(self) -> None:
        made = map_classes(CLASSES, {"crack": "weld"})
        assert made.names == ("weld", "pore")
        np.testing.assert_array_equal(made.targets, [0, 1, 0])

    def test_a_dropped_class_leaves_no_gap(self) -> None:
        made = map_classes(CLASSES, {"weld": None})
        assert made.names == ("pore", "crack")
        np.testing.assert_array_equal(made.targets, [DROPPED, 0, 1])

    def test_a_name_the_data_has_not_is_refused(self) -> None:
        with pytest.raises(RecipeError) as caught:
            map_classes(CLASSES, {"prore": "hole"})
        assert str(caught.value) == (
            "data.classes: found 'prore', wanted classes of the data (weld, pore, crack); "
            "correct the name."
        )

    def test_dropping_everything_is_refused(self) -> None:
        with pytest.raises(RecipeError) as caught:
            map_classes(CLASSES, dict.fromkeys(CLASSES))
        assert str(caught.value) == (
            "data.classes: found every class dropped, wanted at least one; keep one."
        )


class TestObjects:
    def test_merged_objects_stay_apart(self, objects: Instances) -> None:
        mapping = map_classes(CLASSES, {"pore": "defect", "crack": "defect"})
        made = map_instances(objects, mapping)
        np.testing.assert_array_equal(made.classes, [0, 1, 1])
        np.testing.assert_array_equal(made.to_label_map(), LABELS)

    def test_objects_of_a_dropped_class_are_gone_with_their_pixels(
        self, objects: Instances
    ) -> None:
        made = map_instances(objects, map_classes(CLASSES, {"pore": None}))
        np.testing.assert_array_equal(made.to_label_map(), np.where(LABELS == 2, 0, LABELS))
        np.testing.assert_array_equal(made.ids, [1, 3])
        np.testing.assert_array_equal(made.classes, [0, 1])
        np.testing.assert_array_equal(made.scores, np.array([0.5, 0.75], np.float32))
        np.testing.assert_array_equal(made.boxes, [[[0, 0], [2, 2]], [[2, 1], [3, 3]]])
        np.testing.assert_array_equal(made.areas_px(), [3, 2])

    def test_an_object_whose_parent_is_dropped_has_none(self, objects: Instances) -> None:
        made = map_instances(objects, map_classes(CLASSES, {"weld": None}))
        np.testing.assert_array_equal(made.ids, [2, 3])
        assert made.parents is not None
        np.testing.assert_array_equal(made.parents, [0, 0])

    def test_an_object_whose_parent_stays_keeps_it(self, objects: Instances) -> None:
        made = map_instances(objects, map_classes(CLASSES, {"pore": None}))
        assert made.parents is not None
        np.testing.assert_array_equal(made.parents, [0, 1])

    def test_no_object_at_all_is_mapped_to_none(self) -> None:
        empty = Instances.from_label_map(np.zeros((3, 4), np.uint8))
        made = map_instances(empty, map_classes(CLASSES, {"pore": None}))
        assert len(made) == 0
        assert made.offsets.tolist() == [0]


class TestPlanes:
    plane = np.array([[0, 1, 2, 3]], np.int16)

    def test_classes_are_merged_and_dropped_to_background(self) -> None:
        mapping = map_classes(CLASSES, {"weld": None, "pore": "defect", "crack": "defect"})
        made = map_semantic(self.plane, mapping)
        np.testing.assert_array_equal(made, [[0, 0, 1, 1]])
        assert made.dtype == np.int16

    def test_without_a_mapping_nothing_changes(self) -> None:
        np.testing.assert_array_equal(
            map_semantic(self.plane, map_classes(CLASSES, None)), self.plane
        )


class TestTruth:
    def test_labels_are_numbered_from_one_with_their_classes(self, objects: Instances) -> None:
        kept = map_instances(objects, map_classes(CLASSES, {"weld": None}))
        labels, classes = truth_labels(sample_of(kept))
        np.testing.assert_array_equal(labels, [[0, 0, 0, 1], [0, 0, 0, 1], [0, 2, 2, 0]])
        np.testing.assert_array_equal(classes, [0, 0, 1])
        assert (labels.dtype.name, classes.dtype.name) == ("int32", "int16")

    def test_a_sample_nobody_annotated_is_refused(self) -> None:
        with pytest.raises(InputError) as caught:
            truth_labels(sample_of(None))
        assert str(caught.value) == (
            "a: found no annotation, wanted objects to learn or to score; add it."
        )

    def test_objects_that_overlap_are_refused(self, objects: Instances) -> None:
        runs = objects.runs.copy()
        runs[objects.offsets[1]] = [0, 1, 1]
        with pytest.raises(InputError) as caught:
            truth_labels(sample_of(replace(objects, runs=runs)))
        assert str(caught.value) == (
            "a: found objects that overlap, wanted each pixel in one object; part them, or use "
            "head.name=semantic with head.activation=sigmoid."
        )


class TestOverlap:
    @pytest.fixture
    def crossing(self, objects: Instances) -> Sample:
        """Return the weld, the pore over one of its pixels and one of the crack's, the crack."""
        runs = np.array([[0, 0, 2], [1, 0, 1], [0, 1, 1], [2, 2, 1], [2, 1, 2]], np.int64)
        truth = replace(objects, runs=runs, offsets=np.array([0, 2, 4, 5]))
        return sample_of(truth)

    def test_the_last_of_objects_that_share_a_pixel_shows(self, crossing: Sample) -> None:
        labels, classes = truth_labels(crossing, overlapping=True)
        np.testing.assert_array_equal(labels, [[1, 2, 0, 0], [1, 0, 0, 0], [0, 3, 3, 0]])
        np.testing.assert_array_equal(classes, [0, 0, 1, 2])

    def test_each_class_is_seen_whole(self, crossing: Sample) -> None:
        weld, pore, crack, none = presence(crossing, 4)
        np.testing.assert_array_equal(weld, [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
        np.testing.assert_array_equal(pore, [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]])
        np.testing.assert_array_equal(crack, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]])
        assert not none.any()

    def test_a_class_is_also_where_the_class_plane_says(self, crossing: Sample) -> None:
        plane = np.zeros((3, 4), np.int16)
        plane[0, 3] = 2
        _, pore, _ = presence(replace(crossing, semantic=plane), 3)
        np.testing.assert_array_equal(pore, [[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]])

    def test_without_objects_no_class_is_anywhere(self, objects: Instances) -> None:
        none = map_instances(objects, ClassMap(("a",), np.full(3, DROPPED, np.int16)))
        assert not presence(sample_of(none), 1).any()
        assert not truth_labels(sample_of(none))[0].any()


def write(root: Path, name: str, mask: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    for folder, values in (("images", np.arange(12, dtype=np.uint8).reshape(3, 4)),):
        (root / folder).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(root / folder / f"{name}.tif", values)
    (root / "labels").mkdir(exist_ok=True)
    tifffile.imwrite(root / "labels" / f"{name}.tif", mask)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    mask = np.array([[1, 1, 0, 2], [0, 0, 0, 2], [3, 3, 0, 0]], np.uint8)
    for name in ("p", "q"):
        write(tmp_path, name, mask)
    values = {
        "data": {
            "loader": {
                "name": "mask_folder",
                "masks": "semantic",
                "classes": {1: "weld", 2: "pore", 3: "crack"},
            },
            "root": str(tmp_path),
            "channels": "grey",
            "classes": {"weld": None, "crack": "pore"},
            "split": {"by": "hash", "val": 0, "test": 0},
        },
        "model": {"name": "unet", "weights": None},
        "head": {"name": "semantic"},
        "train": {"max_steps": 1},
    }
    return recipe_from_json(values, where="r")


def test_a_source_maps_objects_and_plane_alike(recipe: Recipe) -> None:
    source = open_source(recipe)
    assert source.classes == ("pore",)
    assert [entry.id for entry in source.splits.train] == ["p", "q"]
    sample = source.load(source.splits.train[0])
    assert sample.truth is not None
    assert sample.semantic is not None
    np.testing.assert_array_equal(sample.semantic, [[0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(sample.truth.to_label_map() > 0, sample.semantic > 0)
    np.testing.assert_array_equal(sample.truth.classes, [0, 0])


def test_a_source_of_made_up_data_needs_no_folder(recipe: Recipe) -> None:
    values = recipe.to_json()
    values["data"] |= {"loader": {"name": "scenes", "train": 1}, "root": None, "classes": None}
    source = open_source(recipe_from_json(values, where="r"))
    assert source.classes == ("cell",)


class TestIgnoredEdges:
    @dataclass(frozen=True)
    class Single:
        """A data set of one image."""

        sample: Sample
        classes: tuple[str, ...] = CLASSES

        def entries(self) -> tuple[Entry, ...]:
            return (Entry("a", "a"),)

        def load(self, entry: Entry) -> Sample:
            assert entry.id == "a"
            return self.sample

    def test_they_join_what_the_data_leaves_out(self, objects: Instances) -> None:
        sample = replace(sample_of(objects), ignore=LABELS == 3)
        source = Source(
            self.Single(sample),
            Splits((), (), ()),
            map_classes(CLASSES, None),
            {"bottom": 1, "left": 2},
        )
        ignore = source.load(Entry("a", "a")).ignore
        assert ignore is not None
        assert ignore.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]

    def test_edges_of_no_width_leave_nothing_out(self, objects: Instances) -> None:
        source = Source(
            self.Single(sample_of(objects)),
            Splits((), (), ()),
            map_classes(CLASSES, None),
            {"top": 0},
        )
        assert source.load(Entry("a", "a")).ignore is None

    def test_a_recipe_says_which(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        (tmp_path / "labels").mkdir()
        tifffile.imwrite(tmp_path / "images/a.tif", np.zeros((3, 4), np.uint8))
        tifffile.imwrite(tmp_path / "labels/a.tif", LABELS)
        loader = {"name": "mask_folder", "masks": "labels", "class_name": "pore"}
        values = {
            "data": {"loader": loader, "root": str(tmp_path)},
            "image": {"ignore_edges_px": {"bottom": 2}},
            "model": {"name": "unet", "weights": None},
            "head": {"name": "semantic"},
            "train": {"max_steps": 1},
        }
        source = open_whole(recipe_from_json(values, where="r"), tmp_path)
        ignore = source.load(source.splits.train[0]).ignore
        assert ignore is not None
        assert ignore.sum() == 8
