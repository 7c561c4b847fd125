"""COCO files: pixels as pycocotools draws them, and nothing bad that ends an epoch."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Picture
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from domainseg.errors import InputError, MissingInputError, RecipeError
from domainseg.loaders import coco_json, coco_marks
from domainseg.loaders.coco import Coco, CocoImages
from domainseg.loaders.coco_images import last_part
from domainseg.loaders.coco_json import read_lists
from domainseg.loaders.coco_scan import scan
from domainseg.loaders.splits import Split, split
from domainseg.records import HasStuff, Instances, ListsUnlabelled, Sample, TellsSkipped
from domainseg.survey import survey_recipe

# pycocotools decodes with an array that does not know numpy's newest keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "coco-sample"
BOTH = "correct them, or set on_error: skip."
SQUARE = [1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]
"""Pixels of rows 1 and 2, columns 1 to 3."""


def image(number: int, name: str, size: tuple[int, int] = (4, 6)) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": size[0], "width": size[1]}


def mark(number: Any, *, of: Any = 1, kind: Any = 3, outline: Any = None, **more: Any) -> Any:
    outline = [SQUARE] if outline is None else outline
    found = {"id": number, "image_id": of, "category_id": kind, "segmentation": outline}
    return found | more


KINDS = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def write(
    root: Path,
    annotations: Sequence[Any],
    *,
    images: Sequence[Any] | None = None,
    categories: Sequence[Any] = KINDS,
    files: Sequence[str] = ("a.png",),
    size: tuple[int, int] = (4, 6),
    name: str = "annotations.json",
) -> Path:
    """Write a data set of images of grey pixels; return its root."""
    for file in files:
        path = root / "images" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Picture.fromarray(np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)).save(path)
    listed = [image(1, "a.png", size)] if images is None else images
    lists = {"images": listed, "annotations": annotations, "categories": categories}
    (root / name).write_text(json.dumps(lists))
    return root


def opened(root: Path, **options: Any) -> CocoImages:
    return Coco(**options).open(root)


def only(data: CocoImages) -> Sample:
    (entry,) = data.entries()
    return data.load(entry)


def truth(sample: Sample) -> Instances:
    assert sample.truth is not None
    return sample.truth


def whole_masks(instances: Instances) -> list[NDArray[np.bool_]]:
    """Return the pixels of each object, bool ``(H, W)``."""
    masks = []
    for index, ((y0, x0), (y1, x1)) in enumerate(instances.boxes.tolist()):
        mask = np.zeros(instances.shape, bool)
        mask[y0:y1, x0:x1] = instances.mask(index)
        masks.append(mask)
    return masks


def counts_of(mask: NDArray[np.bool_]) -> list[int]:
    """Return the run lengths down the columns, outside first."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel().astype(int)])))
    return [int(n) for n in np.diff(np.concatenate([[0], edges, [mask.size]]))]


def refusal(kind: type[Exception], action: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


ALONG_X = (-17, -16, -2, -0.5, 0, 0.25, 0.5, 1, 2, 5.125, 9, 14, 15, 15.5, 16, 16.5, 20, 32, 33)
ALONG_Y = (-17, -16, -2, -0.5, 0, 0.25, 0.5, 1, 2, 5.125, 9, 10, 11, 11.5, 12, 12.5, 16, 28, 29)
"""Coordinates in, at and beyond the edges of an image of 12 x 16 px."""


class TestPixels:
    def test_a_square_has_its_pixels_class_id_and_box(self, tmp_path: Path) -> None:
        data = opened(write(tmp_path, [mark(12)]))
        sample = only(data)
        found = truth(sample)
        assert data.classes == ("cat", "dog")
        assert (found.ids.tolist(), found.classes.tolist()) == ([12], [0])
        assert found.boxes.tolist() == [[[1, 1], [3, 4]]]
        wanted = np.zeros((4, 6), int)
        wanted[1:3, 1:4] = 12
        assert found.to_label_map().tolist() == wanted.tolist()
        assert sample.image[0].tolist() == np.arange(24).reshape(4, 6).tolist()
        assert (sample.id, sample.group, sample.tags) == ("a", "a", ("cat",))
        assert (sample.crowds, sample.ignore, sample.semantic) == (None, None, None)
        assert data.skipped == ()

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.lists(
                st.tuples(st.sampled_from(ALONG_X), st.sampled_from(ALONG_Y)),
                min_size=3,
                max_size=8,
            ),
            min_size=1,
            max_size=3,
        )
    )
    def test_polygons_are_drawn_as_pycocotools_draws_them(
        self, tmp_path_factory: pytest.TempPathFactory, corners: list[list[tuple[float, float]]]
    ) -> None:
        root = tmp_path_factory.mktemp("polygons")
        outline = [[n for xy in polygon for n in xy] for polygon in corners]
        data = opened(write(root, [mark(1, outline=outline), mark(2)], size=(12, 16)))
        coco = COCO(root / "annotations.json")
        wanted = coco.annToMask(coco.anns[1]).astype(bool)
        found = dict(
            zip(truth(only(data)).ids.tolist(), whole_masks(truth(only(data))), strict=True)
        )
        xy = np.array([one for polygon in corners for one in polygon])
        far = bool((xy < -16).any() or (xy > [16 + 16, 12 + 16]).any())
        if wanted.any() and not far:
            np.testing.assert_array_equal(found[1], wanted)
        # Whatever is skipped has no pixel, or reaches far outside.
        assert (1 in found) == (bool(wanted.any()) and not far)

    @pytest.mark.parametrize("form", ["polygons", "plain", "compressed"])
    def test_the_three_forms_of_an_outline_give_the_same_pixels(
        self, tmp_path: Path, form: str
    ) -> None:
        mask = np.zeros((4, 6), bool)
        mask[1:3, 1:4] = True
        text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        outline = {
            "polygons": [SQUARE],
            "plain": {"size": [4, 6], "counts": counts_of(mask)},
            "compressed": {"size": [4, 6], "counts": text},
        }[form]
        (found,) = whole_masks(truth(only(opened(write(tmp_path, [mark(1, outline=outline)])))))
        assert found.tolist() == mask.tolist()

    def test_several_polygons_are_one_object_and_objects_may_overlap(self, tmp_path: Path) -> None:
        two = [[0, 0, 2, 0, 2, 2, 0, 2], [4, 0, 6, 0, 6, 2, 4, 2]]
        marks = [mark(5, outline=two), mark(4, kind=7), mark(6)]
        found = truth(only(opened(write(tmp_path, marks))))
        assert (found.ids.tolist(), found.classes.tolist()) == ([5, 4, 6], [0, 1, 0])
        one, other, third = whole_masks(found)
        assert one[:2].astype(int).tolist() == [[1, 1, 0, 0, 1, 1]] * 2
        assert (one & other).any()
        assert other.tolist() == third.tolist()

    def test_crowds_are_no_objects_and_are_ignored(self, tmp_path: Path) -> None:
        crowd = np.zeros((4, 6), bool)
        crowd[0] = crowd[3, 5] = True
        runs = {"size": [4, 6], "counts": counts_of(crowd)}
        marks = [mark(1, outline=runs, iscrowd=1, kind=7), mark(2)]
        data = opened(write(tmp_path, marks))
        sample = only(data)
        assert truth(sample).ids.tolist() == [2]
        assert sample.crowds is not None
        assert (sample.crowds.ids.tolist(), sample.crowds.classes.tolist()) == ([1], [1])
        assert whole_masks(sample.crowds)[0].tolist() == crowd.tolist()
        assert sample.ignore is not None
        assert sample.ignore.tolist() == crowd.tolist()
        assert sample.tags == data.entries()[0].tags == ("cat",)

    def test_an_image_without_annotations_is_empty_and_good(self, tmp_path: Path) -> None:
        images = [image(1, "a.png"), image(2, "b.png")]
        data = opened(write(tmp_path, [mark(1)], images=images, files=("a.png", "b.png")))
        assert [(e.id, e.tags) for e in data.entries()] == [("a", ("cat",)), ("b", ("good",))]
        sample = data.load(data.entries()[1])
        assert (len(truth(sample)), truth(sample).shape) == (0, (4, 6))
        assert (sample.tags, sample.ignore) == (("good",), None)

    def test_ids_from_zero_are_raised_by_one(self, tmp_path: Path) -> None:
        data = opened(write(tmp_path, [mark(0), mark(5, of=0)], images=[image(0, "a.png")]))
        assert data.skipped[0].endswith(" (0); wanted the id of one of the images.")
        data = opened(write(tmp_path, [mark(4), mark(0)]))
        assert truth(only(data)).ids.tolist() == [5, 1]

    def test_an_opened_data_set_can_be_sent_to_another_process(self, tmp_path: Path) -> None:
        data = opened(write(tmp_path, [mark(1)]))
        again = pickle.loads(pickle.dumps(data))
        np.testing.assert_array_equal(truth(only(again)).runs, truth(only(data)).runs)


class TestNames:
    @pytest.mark.parametrize(
        ("said", "found"),
        [
            ("in/a.png", "in/a"),
            ("./in/a.png", "in/a"),
            ("in\\a.png", "in/a"),
            ("b.png", "deep/er/b"),
            ("elsewhere/b.png", "deep/er/b"),
            ("http://example.org/x/b.png?size=1", "deep/er/b"),
            ("http://example.org/two%20words.png", "two words"),
            ("/home/me/data/one/c.png", "one/c"),
            ("two/c.png", "two/c"),
        ],
    )
    def test_a_file_is_found_by_its_path_or_its_name(
        self, tmp_path: Path, said: str, found: str
    ) -> None:
        files = ("in/a.png", "deep/er/b.png", "two words.png", "one/c.png", "two/c.png")
        data = opened(write(tmp_path, [mark(1)], images=[image(1, said)], files=files))
        (entry,) = data.entries()
        assert entry.id == found
        assert data.images == {found: tmp_path / "images" / f"{found}.png"}
        assert len(truth(data.load(entry))) == 1

    def test_a_name_that_several_files_have_is_none(self, tmp_path: Path) -> None:
        files, images = ("a.png", "one/c.png", "two/c.png"), [image(1, "a.png"), image(2, "c.png")]
        data = opened(write(tmp_path, [mark(1)], images=images, files=files))
        assert data.skipped == (
            f"{tmp_path}/annotations.json: skipped 1 image whose name several files have (c.png); "
            "wanted names that tell which file, folders included.",
        )

    def test_hidden_files_are_none_and_links_are_followed(self, tmp_path: Path) -> None:
        images = [image(1, "a.png"), image(2, "h.png"), image(3, "b.png")]
        root = write(tmp_path / "r", [mark(1)], images=images, files=("a.png", ".h/h.png"))
        write(tmp_path / "elsewhere", [], files=("b.png",))
        (root / "images/link").symlink_to(tmp_path / "elsewhere/images")
        (root / "images/circle").symlink_to(root / "images")
        data = opened(root)
        assert [entry.id for entry in data.entries()] == ["a", "link/b"]

    def test_the_last_part_of_a_path_or_an_address(self) -> None:
        said = ("a.png", "b/a.png", "C:\\b\\a.png", "https://example.org/b/a.png?x=/y")
        assert {last_part(one) for one in said} == {"a.png"}

    def test_folders_are_columns(self, tmp_path: Path) -> None:
        data = opened(write(tmp_path, [], images=[image(1, "x/a.png")], files=("x/a.png",)))
        assert data.entries()[0].columns == {"folder": "x", "folder_1": "x"}


class TestParts:
    def two(self, root: Path, categories: Sequence[Any] = KINDS) -> Coco:
        write(root, [mark(1)], files=("a.png", "b.png"))
        write(root, [mark(1, kind=7)], images=[image(1, "b.png")], name="v.json", files=())
        if categories is not KINDS:
            write(root, [], images=[image(1, "b.png")], name="v.json", categories=categories)
        return Coco(annotations={"train": "annotations.json", "val": "v.json"})

    def test_a_file_for_each_part_is_a_column_to_split_by(self, tmp_path: Path) -> None:
        data = self.two(tmp_path).open(tmp_path)
        assert [entry.columns for entry in data.entries()] == [{"split": "train"}, {"split": "val"}]
        parts = split(data.entries(), Split(by="column"))
        assert [e.id for e in parts.train] == ["a"]
        assert [e.id for e in parts.val] == ["b"]
        assert [truth(data.load(e)).classes.tolist() for e in data.entries()] == [[0], [1]]

    def test_files_of_other_categories_are_refused(self, tmp_path: Path) -> None:
        loader = self.two(tmp_path, [{"id": 3, "name": "cow"}, {"id": 7, "name": "dog"}])
        assert refusal(InputError, lambda: loader.open(tmp_path)) == (
            f"{tmp_path}/v.json: found other categories than in annotations.json (cat, cow), "
            "wanted the same ids and names in every file; export them together."
        )

    def test_no_file_is_refused(self) -> None:
        assert refusal(RecipeError, lambda: Coco(annotations={})) == (
            "annotations: found no file, wanted a COCO file, or one for each part; name it."
        )

    def test_a_file_without_annotations_serves_to_predict(self, tmp_path: Path) -> None:
        write(tmp_path, [])
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps({"images": [image(1, "a.png")], "categories": KINDS}))
        assert refusal(InputError, lambda: opened(tmp_path)) == (
            f"{path}: found no list of annotations, wanted an object with the lists images, "
            "annotations and categories; name a COCO file in annotations, or set labels_optional "
            "to predict only."
        )
        loader = Coco()
        assert isinstance(loader, ListsUnlabelled)
        data = loader.with_unlabelled().open(tmp_path)
        sample = only(data)
        assert (sample.truth, sample.tags, data.entries()[0].tags) == (None, (), ())
        assert sample.image.shape == (1, 4, 6)

    def test_the_option_for_the_pixel_size_comes_first(self, tmp_path: Path) -> None:
        write(tmp_path, [mark(1)])
        assert only(opened(tmp_path)).spacing_um is None
        assert only(opened(tmp_path, spacing_um=0.5)).spacing_um == (0.5, 0.5)


NAN = float("nan")
BAD = {
    "no image": (
        mark(2, of=9),
        "whose image_id no image has (2)",
        "the id of one of the images",
    ),
    "no category": (
        mark(2, kind=4),
        "whose category_id no category has (2)",
        "the id of one of the categories",
    ),
    "id twice": (mark(1, kind=7), "with an id that stands before (1)", "every id once"),
    "no ids": (
        mark(2, of="1"),
        "without whole numbers as id, image_id and category_id (2)",
        "the three for each",
    ),
    "no segmentation": (
        mark(2, outline=[]),
        "without a segmentation (2)",
        "polygons or run lengths",
    ),
    "null": (
        mark(2) | {"segmentation": None},
        "without a segmentation (2)",
        "polygons or run lengths",
    ),
    "two points": (
        mark(2, outline=[SQUARE, [1, 1, 2, 2]]),
        "with a polygon of fewer than three points or of an odd number of coordinates (2)",
        "x and y of three points or more",
    ),
    "half a point": (
        mark(2, outline=[[*SQUARE, 1]]),
        "with a polygon of fewer than three points or of an odd number of coordinates (2)",
        "x and y of three points or more",
    ),
    "NaN": (
        mark(2, outline=[[NAN, *SQUARE[1:]]]),
        "with coordinates that are no finite numbers (2)",
        "polygons as lists of numbers",
    ),
    "infinity": (
        mark(2, outline=[[float("inf"), *SQUARE[1:]]]),
        "with coordinates that are no finite numbers (2)",
        "polygons as lists of numbers",
    ),
    "text": (
        mark(2, outline=[["1", *SQUARE[1:]]]),
        "with coordinates that are no finite numbers (2)",
        "polygons as lists of numbers",
    ),
    "flat": (
        mark(2, outline=SQUARE),
        "with coordinates that are no finite numbers (2)",
        "polygons as lists of numbers",
    ),
    "pairs": (
        mark(2, outline=[[[1, 1], [2, 1], [2, 2], [1, 2], [1, 1], [1, 1]]]),
        "with coordinates that are no finite numbers (2)",
        "polygons as lists of numbers",
    ),
    "a huge number": (
        mark(2, outline=[[10**400, *SQUARE[1:]]]),
        "with coordinates that are no finite numbers (2)",
        "polygons as lists of numbers",
    ),
    "outside": (
        mark(2, outline=[[6, 0, 9, 0, 9, 3]]),
        "wholly outside the image (2)",
        "outlines inside their image",
    ),
    "far": (
        mark(2, outline=[[1, 1, 1e9, 1, 3, 3]]),
        "reaching farther out of the image than its longer side (2)",
        "outlines inside their image",
    ),
    "box": (
        mark(2, bbox=[1, 1, 0, 2]),
        "whose bbox has no area (2)",
        "a width and a height above 0",
    ),
    "box of NaN": (
        mark(2, bbox=[1, 1, NAN, 2]),
        "whose bbox has no area (2)",
        "a width and a height above 0",
    ),
    "box of three": (
        mark(2, bbox=[1, 1, 2]),
        "whose bbox has no area (2)",
        "a width and a height above 0",
    ),
    "size": (
        mark(2, outline={"size": [6, 4], "counts": [3, 1, 20]}),
        "with run lengths of another size (2)",
        "run lengths of the image's size",
    ),
    "size of one": (
        mark(2, outline={"size": [24], "counts": [3, 1, 20]}),
        "with run lengths that cannot be read (2)",
        "counts that add up to the pixels of the image",
    ),
    "sum": (
        mark(2, outline={"size": [4, 6], "counts": [3, 1]}),
        "with run lengths that cannot be read (2)",
        "counts that add up to the pixels of the image",
    ),
    "negative": (
        mark(2, outline={"size": [4, 6], "counts": [30, -6]}),
        "with run lengths that cannot be read (2)",
        "counts that add up to the pixels of the image",
    ),
    "half counts": (
        mark(2, outline={"size": [4, 6], "counts": [3.5, 20.5]}),
        "with run lengths that cannot be read (2)",
        "counts that add up to the pixels of the image",
    ),
    "no counts": (
        mark(2, outline={"size": [4, 6], "counts": ""}),
        "with run lengths that cannot be read (2)",
        "counts that add up to the pixels of the image",
    ),
    "empty crowd": (
        mark(2, outline={"size": [4, 6], "counts": [24]}, iscrowd=1),
        "without a pixel (2)",
        "regions of at least one pixel",
    ),
    "panoptic": (
        {"image_id": 1, "id": 2, "file_name": "a.png", "segments_info": []},
        "with segments_info, as panoptic files have them (2)",
        "annotations of instances, or panoptic: the folder of the PNGs",
    ),
}
LATER = {
    "a sliver": (
        mark(2, outline=[[1, 1, 1.01, 1, 1.01, 1.01]]),
        "without a pixel (2)",
        "regions of at least one pixel",
    ),
    "garbled": (
        mark(2, outline={"size": [4, 6], "counts": "~"}),
        "with run lengths that cannot be read (2)",
        "counts that add up to the pixels of the image",
    ),
    "another sum": (
        mark(2, outline={"size": [4, 6], "counts": "11"}),
        "with run lengths that cannot be read (2)",
        "counts that add up to the pixels of the image",
    ),
    "no pixel in text": (
        mark(2, outline={"size": [4, 6], "counts": "h0"}),
        "without a pixel (2)",
        "regions of at least one pixel",
    ),
}


class TestBadAnnotations:
    @pytest.mark.parametrize("case", BAD)
    def test_what_is_wrong_is_skipped_and_told_on_opening(self, tmp_path: Path, case: str) -> None:
        bad, found, wanted = BAD[case]
        data = opened(write(tmp_path, [mark(1), bad]))
        path = tmp_path / "annotations.json"
        assert data.skipped == (f"{path}: skipped 1 annotation {found}; wanted {wanted}.",)
        assert truth(only(data)).ids.tolist() == [1]
        assert truth(only(data)).classes.tolist() == [0]
        assert len(data.skipped) == 1

    @pytest.mark.parametrize("case", BAD)
    def test_what_is_wrong_is_refused_on_opening(self, tmp_path: Path, case: str) -> None:
        bad, found, wanted = BAD[case]
        root = write(tmp_path, [mark(1), bad])
        assert refusal(InputError, lambda: opened(root, on_error="refuse")) == (
            f"{root}/annotations.json: found 1 annotation {found}, wanted {wanted}; {BOTH}"
        )

    @pytest.mark.parametrize("case", LATER)
    def test_what_only_pixels_show_is_found_on_loading(self, tmp_path: Path, case: str) -> None:
        bad, found, wanted = LATER[case]
        root = write(tmp_path, [bad, mark(1)])
        data = opened(root)
        assert isinstance(data, TellsSkipped)
        assert not data.skipped
        for _ in range(2):
            assert truth(only(data)).ids.tolist() == [1]
            said = f"{root}/annotations.json: skipped 1 annotation {found}; wanted {wanted}."
            assert list(data.skipped) == [said]
        strict = opened(root, on_error="refuse")
        assert refusal(InputError, lambda: only(strict)) == (
            f"{root}/annotations.json: found 1 annotation {found}, wanted {wanted}; {BOTH}"
        )

    def test_the_first_three_are_named_and_the_others_counted(self, tmp_path: Path) -> None:
        marks = [mark(1), *[mark(n, of=9) for n in (20, 31, 42, 53, 64)], mark(2, kind=1), "x"]
        data = opened(write(tmp_path, marks))
        where = f"{tmp_path}/annotations.json: skipped"
        start = (tmp_path / "annotations.json").read_bytes().index(b'"x"')
        assert set(data.skipped) == {
            f"{where} 5 annotations whose image_id no image has (20, 31, 42 and 2 more); "
            "wanted the id of one of the images.",
            f"{where} 1 annotation whose category_id no category has (2); "
            "wanted the id of one of the categories.",
            f"{where} 1 annotation without whole numbers as id, image_id and category_id "
            f"(at byte {start}); wanted the three for each.",
        }

    def test_a_file_with_nothing_that_can_be_used_is_refused(self, tmp_path: Path) -> None:
        panoptic = {"image_id": 1, "file_name": "a.png", "segments_info": []}
        start = len(json.dumps({"images": [image(1, "a.png")]})) - 1 + len(', "annotations": [')
        root = write(tmp_path, [panoptic])
        assert refusal(InputError, lambda: opened(root)) == (
            f"{root}/annotations.json: found 1 annotation with segments_info, as panoptic files "
            f"have them (at byte {start}), wanted annotations of instances, or panoptic: the "
            "folder of the PNGs; correct them: there is no other."
        )

    def test_corners_that_reach_out_a_little_are_clipped(self, tmp_path: Path) -> None:
        out = [-2, -3, 9, -3, 9, 2, -2, 2]
        (found,) = whole_masks(truth(only(opened(write(tmp_path, [mark(1, outline=[out])])))))
        assert found.astype(int).tolist() == [[1] * 6, [1] * 6, [0] * 6, [0] * 6]

    def test_check_tells_what_is_skipped(self, tmp_path: Path) -> None:
        root = write(tmp_path, [mark(1), LATER["a sliver"][0], mark(3, of=9)], size=(32, 32))
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            f"""\
data:
  loader: {{name: coco}}
  root: {root}
  channels: grey
  split: {{val: 0, test: 0}}
model: {{name: unet, encoder: mobilenetv3_small_050, weights: null, depth: 2,
  decoder_channels: [16, 8]}}
head: {{name: height}}
train: {{max_steps: 1}}
"""
        )
        path = root / "annotations.json"
        found = survey_recipe(recipe)
        assert found.notes[-2:] == (
            f"{path}: skipped 1 annotation whose image_id no image has (3); "
            "wanted the id of one of the images.",
            f"{path}: skipped 1 annotation without a pixel (2); "
            "wanted regions of at least one pixel.",
        )


class TestBadImages:
    @pytest.mark.parametrize(
        ("bad", "found", "wanted"),
        [
            (image(1, "b.png"), "with an id that stands before (1)", "every id once"),
            (
                image(2, "./a.png"),
                "whose file or name is that of one before (./a.png)",
                "every file once",
            ),
            (
                image(2, "a.jpg"),
                "whose file or name is that of one before (a.jpg)",
                "every file once",
            ),
            (
                image(2, "gone.png"),
                "whose file is missing (gone.png)",
                "the files in the folder of the images",
            ),
            *[
                (
                    bad,
                    "without id, file_name, height and width (2)",
                    "whole numbers, at least 1 as height and width, and a name for each",
                )
                for bad in (
                    image(2, "b.png", (0, 6)),
                    image(2, "b.png") | {"height": "4"},
                    image(2, "b.png") | {"height": None},
                    image(2, "b.png") | {"file_name": 5},
                    image(2, "b.png") | {"file_name": ""},
                    image(2, "b.png", (1 << 17, 1 << 17)),
                )
            ],
        ],
    )
    def test_an_image_that_cannot_be_used_is_skipped_or_refused(
        self, tmp_path: Path, bad: Any, found: str, wanted: str
    ) -> None:
        images, files = [image(1, "a.png"), bad], ("a.png", "b.png", "a.jpg")
        root = write(tmp_path, [mark(1), mark(2, of=2)], images=images, files=files)
        data = opened(root)
        path = root / "annotations.json"
        assert f"{path}: skipped 1 image {found}; wanted {wanted}." in data.skipped
        assert [entry.id for entry in data.entries()] == ["a"]
        assert truth(only(data)).ids.tolist() == [1]
        root = write(tmp_path, [mark(1)], images=images, files=files)
        assert refusal(InputError, lambda: opened(root, on_error="refuse")) == (
            f"{path}: found 1 image {found}, wanted {wanted}; {BOTH}"
        )

    def test_an_image_without_an_id_is_told_by_its_place(self, tmp_path: Path) -> None:
        images = [image(1, "a.png"), {"file_name": "b.png"}]
        data = opened(write(tmp_path, [], images=images))
        start = (tmp_path / "annotations.json").read_bytes().index(b'{"file_name": "b.png"}')
        assert f"(at byte {start})" in data.skipped[0]

    def test_an_image_of_another_size_is_ignored_whole(self, tmp_path: Path) -> None:
        root = write(tmp_path, [mark(1)], images=[image(1, "a.png", (6, 4))])
        data = opened(root)
        sample = only(data)
        assert len(truth(sample)) == 0
        assert sample.ignore is not None
        assert sample.ignore.shape == (4, 6)
        assert sample.ignore.all()
        assert sample.tags == ()
        found = "1 image of another size than the annotations say (a.png)"
        wanted = "the images that were annotated"
        path = root / "annotations.json"
        assert data.skipped == (f"{path}: skipped {found}; wanted {wanted}.",)
        strict = opened(root, on_error="refuse")
        assert refusal(InputError, lambda: only(strict)) == (
            f"{path}: found {found}, wanted {wanted}; {BOTH}"
        )

    def test_without_any_image_it_is_refused(self, tmp_path: Path) -> None:
        root = write(tmp_path, [mark(1)])
        (root / "images/a.png").rename(root / "images/b.png")
        assert refusal(MissingInputError, lambda: opened(root)) == (
            f"{root}/images: found none of the 1 images of the annotations, such as a.png, "
            "wanted their files; check images."
        )
        write(tmp_path, [mark(1)], images=[])
        assert refusal(InputError, lambda: opened(root)) == (
            f"{root}/annotations.json: found no image, wanted at least one; "
            "name a COCO file in annotations."
        )
        assert refusal(MissingInputError, lambda: opened(root, images="photos")) == (
            f"{root}/photos: found no such folder, wanted the folder of the images; check the path."
        )


class TestCategories:
    @pytest.mark.parametrize(
        ("bad", "found", "wanted"),
        [
            ({"id": 3, "name": "cow"}, "with an id that stands before (3)", "every id once"),
            ({"id": 9, "name": "cat"}, "with a name that stands before (9)", "every name once"),
            (
                {"id": 9, "name": ""},
                "without a whole number as id and a name (9)",
                "an id and a name for each",
            ),
        ],
    )
    def test_a_category_that_cannot_be_used_is_skipped_or_refused(
        self, tmp_path: Path, bad: Any, found: str, wanted: str
    ) -> None:
        root = write(tmp_path, [mark(1, kind=7), mark(2, kind=9)], categories=[*KINDS, bad])
        data = opened(root)
        assert data.classes == ("cat", "dog")
        assert data.category_ids == (3, 7)
        path = root / "annotations.json"
        assert f"{path}: skipped 1 category {found}; wanted {wanted}." in data.skipped
        assert truth(only(data)).classes.tolist() == [1]
        write(tmp_path, [], categories=[*KINDS, bad])
        assert refusal(InputError, lambda: opened(root, on_error="refuse")) == (
            f"{path}: found 1 category {found}, wanted {wanted}; {BOTH}"
        )

    def test_without_any_category_it_is_refused(self, tmp_path: Path) -> None:
        root = write(tmp_path, [], categories=[])
        assert refusal(InputError, lambda: opened(root)) == (
            f"{root}/annotations.json: found no category, wanted at least one; "
            "name a COCO file in annotations."
        )
        write(tmp_path, [], categories=[{"id": 1}, {"name": "x"}])
        assert refusal(InputError, lambda: opened(root)).endswith(
            "wanted an id and a name for each; correct them: there is no other."
        )


class TestJson:
    def test_a_file_cut_anywhere_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = (write(tmp_path, [mark(1)]) / "annotations.json").read_bytes()
        monkeypatch.setattr(coco_json, "BLOCK_BYTES", 13)
        for size in range(1, len(whole)):
            (tmp_path / "annotations.json").write_bytes(whole[:size])
            assert refusal(InputError, lambda: opened(tmp_path)) == (
                f"{tmp_path}/annotations.json: found JSON that breaks off at its end, byte {size}, "
                "wanted a whole file; copy or download it again."
            ), whole[:size]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            (
                "",
                "an empty file, wanted an object with the lists images, annotations and "
                "categories; name a COCO file in annotations.",
            ),
            (
                "[]",
                "a list, wanted an object with the lists images, annotations and categories; "
                "name a COCO file in annotations.",
            ),
            (
                "{}",
                "no list of images and none of categories and none of annotations, wanted an "
                "object with the lists images, annotations and categories; name a COCO file in "
                "annotations.",
            ),
            (
                '{"images": {}}',
                "images that is no list, wanted an object with the lists images, annotations and "
                "categories; name a COCO file in annotations.",
            ),
            (
                "image,label\nand many more words",
                "no JSON at byte 0: 'i' where '{' belongs, wanted a COCO file; export it again.",
            ),
            (
                '{"images": [{"id": 1,, "file_name": "a.png", "height": 3}]}',
                "no JSON at byte 21: Expecting property name enclosed in double quotes, wanted a "
                "COCO file; export it again.",
            ),
            (
                '{"images": [1, 2,], "and": "so on and on and on"}',
                "no JSON at byte 17: Expecting value, wanted a COCO file; export it again.",
            ),
            (
                '{"images": [1 2], "and": "so on and on and on"}',
                "no JSON at byte 14: '2' where ']' belongs, wanted a COCO file; export it again.",
            ),
            (
                "{} {}",
                "no JSON at byte 3: '{' after its end, wanted a COCO file; export it again.",
            ),
        ],
    )
    def test_what_is_no_coco_file_is_refused(
        self, tmp_path: Path, text: str, sentence: str
    ) -> None:
        write(tmp_path, [])
        path = tmp_path / "annotations.json"
        path.write_text(text)
        assert refusal(InputError, lambda: opened(tmp_path)) == f"{path}: found {sentence}"

    def test_values_that_python_will_not_read_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text('{"images": [' + "[" * 200_000 + "]}")
        assert "no JSON at byte 11: a value that is too long" in refusal(
            InputError, lambda: read_lists(path, {})
        )
        path.write_text('{"images": ' + "1" * 5000 + "}")
        assert "no JSON at byte 11: a value that is too long" in refusal(
            InputError, lambda: read_lists(path, {})
        )
        path.write_bytes(b'{"images": ["\xff"]}')
        assert refusal(InputError, lambda: read_lists(path, {})) == (
            f"{path}: found no JSON at byte 13: bytes that are not UTF-8, wanted a COCO file; "
            "export it again."
        )

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, [])
        assert refusal(MissingInputError, lambda: opened(tmp_path, annotations="b.json")) == (
            f"{tmp_path}/b.json: found no file, wanted a COCO file; check annotations."
        )

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        members=st.dictionaries(
            st.text(max_size=5) | st.just("images"),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=6,
            ),
        ),
        elements=st.lists(st.integers() | st.floats(allow_nan=False) | st.text(), max_size=6),
        ascii_only=st.booleans(),
        indent=st.none() | st.integers(0, 3),
        block=st.integers(1, 40),
    )
    def test_blocks_of_any_size_give_what_json_gives(
        self,
        tmp_path: Path,
        members: dict[str, Any],
        elements: list[Any],
        ascii_only: bool,
        indent: int | None,
        block: int,
    ) -> None:
        path = tmp_path / "a.json"
        text = json.dumps({**members, "images": elements}, ensure_ascii=ascii_only, indent=indent)
        raw = text.encode("utf-8", "surrogatepass")
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return
        path.write_bytes(raw)
        found: list[tuple[Any, Any]] = []

        def take(value: Any, start: int, stop: int) -> None:
            found.append((value, json.loads(raw[start:stop])))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coco_json, "BLOCK_BYTES", block)
            assert read_lists(path, {"images": take, "no": take}) == {"images"}
        assert [value for value, _ in found] == elements
        assert [again for _, again in found] == elements

    def test_names_may_be_in_any_script_and_a_mark_may_begin_the_file(self, tmp_path: Path) -> None:
        root = write(tmp_path, [mark(1)], images=[image(1, "zł ü.png")], files=("zł ü.png",))
        path = root / "annotations.json"
        lists = json.loads(path.read_text())
        lists["categories"][1]["name"] = "猫"
        for ascii_only in (True, False):
            text = json.dumps(lists, ensure_ascii=ascii_only)
            path.write_bytes(b"\xef\xbb\xbf" + text.encode())
            data = opened(root)
            assert [entry.id for entry in data.entries()] == ["zł ü"]
            assert data.classes == ("猫", "dog")
            assert truth(only(data)).ids.tolist() == [1]

    def test_a_file_that_changes_is_noticed(self, tmp_path: Path) -> None:
        data = opened(write(tmp_path, [mark(1)]))
        path = tmp_path / "annotations.json"
        path.write_text(path.read_text() + " ")
        assert refusal(InputError, lambda: only(data)) == (
            f"{path}: found a file that has changed since it was opened, wanted one that stays "
            "as it is; begin again."
        )


NUMBERS = (
    *("0", "-0", "1", "3.5", "12.25", "0.5", "639.99", "-3.125", "123456789012345", "7e2", "1E-1"),
    *("00", "01", "1.", ".5", "-", "1.2.3", "1234567890123456", "0.1234567890123456", "NaN"),
    *("Infinity", "true", "null", '"1"', "[1]", "+1", "0x1", "1_0", "", "1,", "3.00000000000001"),
)
MEMBERS = {
    "id": ("1", "2", "3", "2.0", "-5", "999999999999999", "9999999999999999", '"4"', "null", "1.5"),
    "image_id": ("1", "1", "2", "1.0", "null"),
    "category_id": ("3", "7", "3", "4", "true"),
    "iscrowd": ("0", "1", "2", "true", "null", '"1"', "1.0"),
    "bbox": (
        *("[1, 1, 2, 2]", "[1,1,2.5,0.1]", "[1, 1, 0, 2]", "[1, 1, 2]", "[]", "null", "{}"),
        *("[1, 1, 2, 2, 2]", "[1, 1, NaN, 2]", "[1, 1, 2,]"),
    ),
    "segmentation": (
        "[[1,1,4,1,4,3,1,3]]",
        "[[1.0, 1.0, 4.25, 1.0, 4.5, 3.0], [0,0,2,0,2,2]]",
        "[ [1, 1, 4, 1, 4, 3.5 , 1, 3] ]",
        "[[1, 1, 4, 1]]",
        "[[1, 1, 4, 1, 4]]",
        "[[1, 1, 4, 1, 4, 3, 1]]",
        "[[1, 1, 4, 1, 4, 3], [1, 1]]",
        "[[1, 1, 4, 1, 4, 3],]",
        "[[]]",
        "[]",
        "[1, 1, 4, 1, 4, 3]",
        "[[[1, 1], [4, 1], [4, 3]]]",
        '{"size": [4, 6], "counts": [4, 4, 16]}',
        "null",
        "[[90, 90, 95, 90, 95, 95]]",
        "[[1, 1, 1e9, 1, 4, 3]]",
    ),
    "area": ("3.5", "0", '"x"', "null", "-1e5", '{"a": [1, "}"]}', '"\\u00e9"', '"é"', '"a\\"b"'),
    "i\\u0064": ("5",),
}
"""Members of annotations, as text: such as are usual, and such as are not."""


@st.composite
def annotation_texts(draw: st.DrawFn) -> str:
    """Return an annotation as text, usual in all of its members or all but one."""
    space = st.sampled_from(["", "", " ", "\n\t"])
    names = list(draw(st.permutations([*MEMBERS][:-1])))
    odd = draw(st.sampled_from([*MEMBERS, "absent", "twice", "number", ""]))
    if odd in ("absent", "twice"):
        names = names[1:] if odd == "absent" else [*names, names[0]]
    if odd not in names and odd in MEMBERS:
        names.append(odd)
    members = []
    for name in names:
        value = draw(st.sampled_from(MEMBERS[name])) if name == odd else MEMBERS[name][0]
        if name == "segmentation" and odd == "number":
            value = f"[[0, 1, 2, {draw(st.sampled_from(NUMBERS))}, 3, 4]]"
        members.append(f'{draw(space)}"{name}"{draw(space)}:{draw(space)}{value}{draw(space)}')
    return "{" + ",".join(members) + "}"


def odd_texts() -> Iterator[str]:
    """Yield annotations of which one member is any of its values, or absent, or there twice."""
    usual = {name: values[0] for name, values in [*MEMBERS.items()][:-1]}
    for name, values in MEMBERS.items():
        for value in values:
            yield text_of({**usual, name: value})
            yield text_of(usual)[:-1] + f', "{name}": {value}}}'
        yield text_of({other: value for other, value in usual.items() if other != name})
    for number in NUMBERS:
        yield text_of({**usual, "area": number})
        yield text_of({**usual, "bbox": f"[{number}, 0, 1, {number}]"})
        for place in range(6):
            corners = ["0", "1", "2", "1", "3", "4"]
            corners[place] = number
            yield text_of({**usual, "segmentation": f"[[{', '.join(corners)}]]"})


def text_of(members: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}"


def read_both_ways(root: Path, listed: str, *, block: int, run: int) -> list[str]:
    """Return what is opened, or the error, without the kernel and with it."""
    path = root / "annotations.json"
    lists = {"images": [image(1, "a.png")], "categories": KINDS, "annotations": []}
    path.write_text(json.dumps(lists).replace('"annotations": []', f'"annotations": [{listed}]'))
    found = []
    for small in (1 << 25, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coco_json, "BLOCK_BYTES", block)
            patch.setattr(coco_marks, "SMALL_BYTES", small)
            patch.setattr(coco_marks, "RUN", run)
            try:
                data = opened(root)
            except InputError as error:
                found.append(str(error))
                continue
        marks = data.parts[0].marks
        assert isinstance(marks, coco_marks.Marks)
        parts = (marks.ids, marks.classes, marks.crowds, marks.spans, marks.offsets)
        found.append(repr([marks.lift, *[part.tolist() for part in parts], data.skipped]))
    return found


class TestBytes:
    @settings(
        max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        texts=st.lists(annotation_texts(), max_size=5),
        comma=st.sampled_from([",", ", ", " ,\n", ",,", *20 * [","]]),
        end=st.sampled_from(["", ",", "}", *20 * [""]]),
        block=st.sampled_from([3, 300, 700, 1 << 20]),
        run=st.sampled_from([1, 3, 4096]),
    )
    def test_what_the_kernel_takes_is_what_python_reads(
        self, tmp_path: Path, texts: list[str], comma: str, end: str, block: int, run: int
    ) -> None:
        write(tmp_path, [])
        listed = comma.join([*texts, json.dumps(mark(77))]) + end
        plain, fast = read_both_ways(tmp_path, listed, block=block, run=run)
        assert fast == plain

    def test_the_kernel_leaves_to_python_what_is_not_usual(self, tmp_path: Path) -> None:
        write(tmp_path, [])
        before, after = (json.dumps(mark(number)) for number in (76, 77))
        for odd in odd_texts():
            listed = f"{before}, {odd}, {after}"
            plain, fast = read_both_ways(tmp_path, listed, block=1 << 20, run=9)
            assert fast == plain, odd
        many = ", ".join(json.dumps(mark(number)) for number in range(1, 60))
        plain, fast = read_both_ways(tmp_path, many, block=700, run=2)
        assert fast == plain

    def test_annotations_stay_in_the_order_of_the_file(self, tmp_path: Path) -> None:
        marks = [mark(number, of=1 + number % 2) for number in range(100, 0, -1)]
        images = [image(1, "a.png"), image(2, "b.png")]
        data = opened(write(tmp_path, marks, images=images, files=("a.png", "b.png")))
        ids = [truth(data.load(entry)).ids.tolist() for entry in data.entries()]
        assert ids == [[*range(100, 0, -2)], [*range(99, 0, -2)]]

    def test_the_kernel_takes_the_usual_and_stops_before_anything_else(self) -> None:
        usual = json.dumps(mark(7, bbox=[1, 1, 3.5, 2], iscrowd=1, area=1.5))
        rle = json.dumps(mark(8, outline={"size": [4, 6], "counts": [24]}))
        raw = np.frombuffer(f"{usual}, {usual} ,{rle}, {usual}]".encode(), np.uint8)
        numbers, spans = np.zeros((9, 3), np.int64), np.zeros((9, 2), np.int64)
        crowds, bounds = np.zeros(9, np.uint8), np.zeros((9, 4))
        count, at = scan(raw, 0, numbers, crowds, spans, bounds)
        assert (count, at) == (2, raw.tobytes().index(rle.encode()))
        assert numbers[:2].tolist() == [[7, 1, 3]] * 2
        assert crowds[:2].tolist() == [1, 1]
        assert spans[:2].tolist() == [[0, len(usual)], [len(usual) + 2, len(usual)]]
        assert bounds[:2].tolist() == [[1, 1, 4, 3]] * 2
        # The last has no comma behind it: the end of the list is not the kernel's to judge.
        assert scan(raw, raw.tobytes().rindex(b'{"id"'), numbers, crowds, spans, bounds)[0] == 0

    @settings(max_examples=300, deadline=None)
    @given(st.decimals(-99999, 99999, places=2) | st.decimals(-9, 9, places=11) | st.integers())
    def test_decimals_are_those_of_python(self, number: Any) -> None:
        text = mark(1)
        text["segmentation"] = "HERE"
        digits = str(number) if isinstance(number, int) else f"{number:f}"
        corners = f"[[0, 0, 0, 0, {digits}, 0]]"
        raw = json.dumps(text).replace('"HERE"', corners) + ", "
        bounds = np.zeros((1, 4))
        count, _ = scan(
            np.frombuffer(raw.encode(), np.uint8),
            *(0, np.zeros((1, 3), np.int64), np.zeros(1, np.uint8), np.zeros((1, 2), np.int64)),
            bounds,
        )
        if len(digits.strip("-").replace(".", "")) <= 15:
            assert count == 1
            assert (bounds[0, 0], bounds[0, 2]) == (min(0, float(digits)), max(0, float(digits)))
        else:
            assert count == 0


PLANE = np.array(
    [
        [5, 5, 70000, 70000],
        [5, 9, 9, 70000],
        [0, 9, 300, 300],
    ]
)
THINGS = [
    {"id": 4, "name": "cat", "isthing": 1},
    {"id": 2, "name": "sky", "isthing": 0},
    {"id": 9, "name": "dog", "isthing": 1},
]
SEGMENTS = [
    {"id": 70000, "category_id": 2, "iscrowd": 0},
    {"id": 5, "category_id": 4, "iscrowd": 0},
    {"id": 9, "category_id": 9, "iscrowd": 0},
    {"id": 300, "category_id": 9, "iscrowd": 1},
]


def colours(plane: Any) -> NDArray[np.uint8]:
    parts = [plane % 256, plane // 256 % 256, plane // 65536]
    return np.stack(parts, -1).astype(np.uint8)


def panoptic(
    root: Path, segments: Any = None, *, plane: Any = PLANE, more: Sequence[Any] = ()
) -> Path:
    entry = {
        "image_id": 1,
        "file_name": "a.png",
        "segments_info": SEGMENTS if segments is None else segments,
    }
    write(root, [entry, *more], images=[image(1, "a.jpg", (3, 4))], categories=THINGS, files=())
    for folder in ("images", "segments"):
        (root / folder).mkdir(exist_ok=True)
    Picture.fromarray(np.zeros((3, 4), np.uint8)).save(root / "images/a.jpg")
    Picture.fromarray(colours(plane)).save(root / "segments/a.png")
    return root


class TestPanoptic:
    def test_things_are_objects_stuff_is_a_plane_and_void_is_ignored(self, tmp_path: Path) -> None:
        data = opened(panoptic(tmp_path), panoptic="segments")
        assert isinstance(data, HasStuff)
        assert (data.classes, data.stuff) == (("sky", "cat", "dog"), ("sky",))
        sample = only(data)
        found = truth(sample)
        assert found.to_label_map().tolist() == [[5, 5, 0, 0], [5, 9, 9, 0], [0, 9, 0, 0]]
        assert (found.ids.tolist(), found.classes.tolist()) == ([5, 9], [1, 2])
        assert sample.semantic is not None
        assert sample.semantic.tolist() == [[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
        assert sample.crowds is not None
        assert sample.crowds.to_label_map().tolist() == [[0] * 4, [0] * 4, [0, 0, 300, 300]]
        assert sample.crowds.classes.tolist() == [2]
        assert sample.ignore is not None
        assert sample.ignore.astype(int).tolist() == [[0] * 4, [0] * 4, [1, 0, 1, 1]]
        assert sample.tags == data.entries()[0].tags == ("cat", "dog", "sky")
        assert data.skipped == ()
        assert opened(write(tmp_path / "i", [])).stuff == ()

    @pytest.mark.parametrize(
        ("segments", "found", "wanted", "ignored"),
        [
            (
                [*SEGMENTS[:3], {"id": 300, "category_id": 1}],
                "1 segment whose category_id no category has (300 of a.png)",
                "the id of one of the categories",
                [1, 0, 1, 1],
            ),
            (
                [*SEGMENTS, {"id": 5, "category_id": 9}],
                "1 segment with an id that stands before (5 of a.png)",
                "every id once in an image",
                [1, 0, 1, 1],
            ),
            (
                [*SEGMENTS, {"id": 0, "category_id": 9}],
                "1 segment without whole numbers as id, above 0, and category_id (0 of a.png)",
                "the two for each",
                [1, 0, 1, 1],
            ),
            (
                [*SEGMENTS, {"id": 6, "category_id": 9}],
                "1 segment without a pixel in the PNG (6 of a.png)",
                "segments that can be seen",
                [1, 0, 1, 1],
            ),
            (
                [SEGMENTS[0], SEGMENTS[1], SEGMENTS[3]],
                "1 segment in the PNG and not in segments_info (9 of a.png)",
                "every segment in the list",
                [1, 1, 1, 1],
            ),
        ],
    )
    def test_a_segment_that_cannot_be_used_is_skipped_or_refused(
        self, tmp_path: Path, segments: Any, found: str, wanted: str, ignored: list[int]
    ) -> None:
        root = panoptic(tmp_path, segments)
        data = opened(root, panoptic="segments")
        for _ in range(2):
            sample = only(data)
        assert sample.ignore is not None
        assert sample.ignore.astype(int).tolist()[2] == ignored
        assert 5 in truth(sample).ids
        path = root / "annotations.json"
        assert data.skipped == (f"{path}: skipped {found}; wanted {wanted}.",)
        assert refusal(
            InputError, lambda: only(opened(root, panoptic="segments", on_error="refuse"))
        ) == (f"{path}: found {found}, wanted {wanted}; {BOTH}")

    @pytest.mark.parametrize(
        ("more", "found", "wanted"),
        [
            (
                {"image_id": 1, "file_name": "b.png", "segments_info": []},
                "1 annotation of an image that stands before (1)",
                "one for each image",
            ),
            (
                {"image_id": 2, "file_name": "b.png", "segments_info": []},
                "1 annotation whose image_id no image has (2)",
                "the id of one of the images",
            ),
            (
                mark(3, of=2),
                "1 annotation without image_id, file_name and segments_info (2)",
                "a whole number, a name and a list for each",
            ),
        ],
    )
    def test_a_panoptic_annotation_that_cannot_be_used_is_skipped(
        self, tmp_path: Path, more: Any, found: str, wanted: str
    ) -> None:
        root = panoptic(tmp_path, more=[more])
        data = opened(root, panoptic="segments")
        path = root / "annotations.json"
        assert data.skipped == (f"{path}: skipped {found}; wanted {wanted}.",)
        assert truth(only(data)).ids.tolist() == [5, 9]

    @pytest.mark.parametrize("kind", ["size", "grey", "damaged"])
    def test_a_png_that_cannot_be_used_leaves_the_image_out(
        self, tmp_path: Path, kind: str
    ) -> None:
        root = panoptic(tmp_path)
        path = root / "segments/a.png"
        if kind == "damaged":
            path.write_bytes(path.read_bytes()[:40])
        else:
            wrong = colours(PLANE[:2]) if kind == "size" else PLANE.astype(np.uint8)
            Picture.fromarray(wrong).save(path)
        data = opened(root, panoptic="segments")
        sample = only(data)
        assert len(truth(sample)) == 0
        assert sample.ignore is not None
        assert sample.ignore.all()
        found = (
            "1 image whose PNG of segments has another size (a.png)"
            if kind == "size"
            else "1 image whose PNG of segments is damaged or has not three channels of 8 bits "
            "(a.png)"
        )
        wanted = "the size of the image" if kind == "size" else "ids as R + 256 G + 65536 B"
        where = root / "annotations.json"
        assert data.skipped == (f"{where}: skipped {found}; wanted {wanted}.",)
        assert refusal(
            InputError, lambda: only(opened(root, panoptic="segments", on_error="refuse"))
        ) == (f"{where}: found {found}, wanted {wanted}; {BOTH}")

    def test_a_missing_png_takes_its_image_along(self, tmp_path: Path) -> None:
        root = panoptic(tmp_path)
        (root / "segments/a.png").unlink()
        assert refusal(InputError, lambda: opened(root, panoptic="segments")) == (
            f"{root}/annotations.json: found 1 image whose PNG of segments is missing (a.png), "
            "wanted the files in the folder of panoptic; check panoptic."
        )

    def test_an_image_that_no_annotation_names_is_ignored_whole(self, tmp_path: Path) -> None:
        root = panoptic(tmp_path)
        lists = json.loads((root / "annotations.json").read_text())
        lists["images"].append(image(2, "b.jpg", (3, 4)))
        (root / "annotations.json").write_text(json.dumps(lists))
        Picture.fromarray(np.zeros((3, 4), np.uint8)).save(root / "images/b.jpg")
        data = opened(root, panoptic="segments")
        sample = data.load(data.entries()[1])
        assert sample.ignore is not None
        assert sample.ignore.all()
        assert sample.tags == data.entries()[1].tags == ()


def sample_file(name: str) -> Path:
    path = SAMPLE / "annotations" / name
    if not path.is_file():
        pytest.skip(f"no COCO sample at {path}")
    return path


def test_the_coco_sample_has_the_objects_that_pycocotools_draws() -> None:
    path = sample_file("instances_train2017.json")
    data = Coco(images="train2017", annotations=f"annotations/{path.name}").open(SAMPLE)
    coco = COCO(path)
    numbers = {Path(one["file_name"]).stem: one["id"] for one in coco.imgs.values()}
    assert len(data.entries()) == 100
    drawn = 0
    for entry in data.entries():
        found = truth(data.load(entry))
        listed = coco.imgToAnns[numbers[entry.id]]
        wanted = {one["id"]: coco.annToMask(one) for one in listed if not one["iscrowd"]}
        assert found.ids.tolist() == list(wanted)
        names = [coco.cats[coco.anns[number]["category_id"]]["name"] for number in wanted]
        assert [data.classes[index] for index in found.classes] == names
        for mask, number in zip(whole_masks(found), wanted, strict=True):
            np.testing.assert_array_equal(mask, wanted[number].astype(bool))
        drawn += len(found)
    # The sample's six crowds have run lengths without a pixel.
    assert drawn == 740
    assert len(data.skipped) == 1
    assert "skipped 6 annotations without a pixel" in data.skipped[0]


def test_the_panoptic_sample_has_the_segments_of_its_pngs() -> None:
    path = sample_file("panoptic_train2017.json")
    options = {"images": "train2017", "annotations": f"annotations/{path.name}"}
    data = Coco(**options, panoptic="annotations/panoptic_train2017").open(SAMPLE)  # type: ignore[arg-type]
    lists = json.loads(path.read_text())
    kinds = {one["id"]: one for one in lists["categories"]}
    listed = {Path(one["file_name"]).stem: one["segments_info"] for one in lists["annotations"]}
    assert len(data.classes) == len(kinds)
    assert len(data.stuff) == sum(not one["isthing"] for one in kinds.values())
    crowds = 0
    for entry in data.entries():
        sample = data.load(entry)
        png = np.asarray(Picture.open(path.with_suffix("") / f"{entry.id}.png")).astype(int)
        plane = png @ [1, 256, 65536]
        assert sample.ignore is not None
        assert sample.semantic is not None
        masks = dict(zip(truth(sample).ids.tolist(), whole_masks(truth(sample)), strict=True))
        ignored = plane == 0
        for segment in listed[entry.id]:
            pixels = plane == segment["id"]
            assert pixels.sum() == segment["area"]
            kind = kinds[segment["category_id"]]
            if segment["iscrowd"]:
                crowds += 1
                ignored |= pixels
            elif kind["isthing"]:
                np.testing.assert_array_equal(masks.pop(segment["id"]), pixels)
            else:
                index = data.classes.index(kind["name"])
                assert (sample.semantic[pixels] == index + 1).all()
        assert not masks
        np.testing.assert_array_equal(sample.ignore, ignored)
    assert crowds == path.read_text().count('"iscrowd": 1')
