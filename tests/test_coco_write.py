"""Data sets written as COCO: what is written is read back, and pycocotools reads it too."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Picture
from pycocotools.coco import COCO

from domainseg.cli.app import run
from domainseg.errors import InputError, OutputError
from domainseg.loaders.coco import Coco, CocoImages
from domainseg.loaders.coco_images import Category
from domainseg.loaders.coco_panoptic import ids_of
from domainseg.loaders.coco_write import (
    PanopticImage,
    Segment,
    file_names,
    write_instances,
    write_panoptic,
)
from domainseg.loaders.mask_folder import MaskFolder
from domainseg.loaders.scenes import Scenes
from domainseg.records import Entry, Instances, Sample

# pycocotools decodes with an array that does not know numpy's newest keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "coco-sample"


@dataclass(frozen=True)
class Held:
    """Samples in memory, by id."""

    samples: dict[str, Sample]
    classes: tuple[str, ...] = ("cat", "dog", "cow")

    def load(self, entry: Entry) -> Sample:
        return self.samples[entry.id]

    def entries(self) -> tuple[Entry, ...]:
        return tuple(Entry(name, group=name) for name in self.samples)


def objects(masks: Sequence[NDArray[np.bool_]], ids: Sequence[int]) -> Instances:
    """Return objects of these pixels, which may overlap; their classes go round."""
    empty = Instances.from_label_map(np.zeros(masks[0].shape if masks else (3, 5), np.uint8))
    parts = [
        Instances.from_label_map(np.where(mask, number, 0), classes={number: index % 3})
        for index, (mask, number) in enumerate(zip(masks, ids, strict=True))
    ]
    return Instances.joined([empty, *parts])


def sample(name: str, truth: Instances | None, crowds: Instances | None = None) -> Sample:
    shape = (3, 5) if truth is None else truth.shape
    image = np.zeros((1, *shape), np.uint8)
    return Sample(id=name, image=image, channels=("grey",), truth=truth, crowds=crowds)


def with_pictures(root: Path, held: Held) -> dict[str, str]:
    """Write the images of samples as files; return their names."""
    (root / "images").mkdir()
    for name, one in held.samples.items():
        Picture.fromarray(np.asarray(one.image[0])).save(root / "images" / f"{name}.png")
    return {name: f"{name}.png" for name in held.samples}


def same(found: Instances | None, wanted: Instances | None) -> None:
    assert (found is None) == (wanted is None)
    if found is None or wanted is None:
        return
    assert found.shape == wanted.shape
    for name in ("ids", "boxes", "runs", "offsets", "classes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def refusal(kind: type[Exception], action: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


masks = st.lists(
    st.lists(st.booleans(), min_size=15, max_size=15)
    .filter(any)
    .map(lambda bits: np.array(bits).reshape(3, 5)),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(truths=st.lists(st.tuples(masks, masks), min_size=1, max_size=3), keep_ids=st.booleans())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    truths: list[tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]]]],
    keep_ids: bool,
) -> None:
    root = tmp_path_factory.mktemp("written")
    step = 7 if keep_ids else 1
    taken, samples = 0, {}
    for number, (own, crowd) in enumerate(truths):
        ids = [step * (taken + n + 1) for n in range(len(own) + len(crowd))]
        taken += len(ids)
        crowds = objects(crowd, ids[len(own) :]) if crowd else None
        samples[f"i{number}"] = sample(f"i{number}", objects(own, ids[: len(own)]), crowds)
    held = Held(samples)
    names = with_pictures(root, held)
    path = root / "annotations.json"
    count = write_instances(path, held, held.entries(), file_names=names, keep_ids=keep_ids)
    assert count == taken
    data = Coco(on_error="refuse").open(root)
    assert data.classes == held.classes
    assert [entry.id for entry in data.entries()] == list(samples)
    for entry in data.entries():
        found = data.load(entry)
        same(found.truth, samples[entry.id].truth)
        same(found.crowds, samples[entry.id].crowds)
    assert len(COCO(path).anns) == taken


def test_the_file_holds_what_coco_says(tmp_path: Path) -> None:
    mask = np.zeros((3, 5), bool)
    mask[0, 2], mask[1, 1:4] = True, True
    held = Held({"a": sample("a", objects([mask], [40]), objects([~mask], [41]))})
    path = tmp_path / "a.json"
    told: list[tuple[int, int, str]] = []
    write_instances(path, held, held.entries(), tell=lambda *step: told.append(step))
    lists = json.loads(path.read_text())
    assert lists["images"] == [{"id": 1, "file_name": "a", "height": 3, "width": 5}]
    assert [(one["id"], one["name"]) for one in lists["categories"]] == [
        (1, "cat"),
        (2, "dog"),
        (3, "cow"),
    ]
    thing, crowd = lists["annotations"]
    assert thing == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "segmentation": {"size": [3, 5], "counts": thing["segmentation"]["counts"]},
        "area": 4.0,
        "bbox": [1.0, 0.0, 3.0, 2.0],
        "iscrowd": 0,
    }
    assert (crowd["id"], crowd["iscrowd"], crowd["area"]) == (2, 1, 11.0)
    coco = COCO(path)
    np.testing.assert_array_equal(coco.annToMask(coco.anns[1]), mask)
    np.testing.assert_array_equal(coco.annToMask(coco.anns[2]), ~mask)
    assert told == [(0, 1, "a"), (1, 1, "")]


def test_own_ids_that_two_objects_have_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    full = np.ones((3, 5), bool)
    held = Held({"a": sample("a", objects([full], [5])), "b": sample("b", objects([full], [5]))})
    path = tmp_path / "a.json"
    assert refusal(
        InputError, lambda: write_instances(path, held, held.entries(), keep_ids=True)
    ) == (
        f"{path}: found 1 ids of several objects, 5 the first, wanted ids that no two objects of "
        "the data set share; write it without keep_ids."
    )
    assert list(tmp_path.iterdir()) == []
    assert write_instances(path, held, held.entries()) == 2


def test_an_image_that_nobody_annotated_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    held = Held({"a": sample("a", objects([np.ones((3, 5), bool)], [1])), "b": sample("b", None)})
    path = tmp_path / "a.json"
    path.write_text("old")
    assert refusal(InputError, lambda: write_instances(path, held, held.entries())) == (
        "b: found no annotation, wanted objects to write; leave the image out."
    )
    assert path.read_text() == "old"
    assert refusal(
        OutputError, lambda: write_instances(tmp_path / "no/a.json", held, held.entries()[:1])
    ) == (
        f"{tmp_path}/no/a.json: found no folder to write into, wanted a file in an existing "
        "folder; create the folder or choose another output path."
    )


def mask_folder(root: Path) -> Path:
    """Write two images with labels from 1 in each; return the root."""
    for folder in ("images/x", "labels/x"):
        (root / folder).mkdir(parents=True)
    labels = np.zeros((8, 8), np.uint8)
    labels[1:4, 1:4], labels[5:7, 2:7] = 1, 2
    for name in ("x/a", "x/b"):
        Picture.fromarray(np.full((8, 8), 9, np.uint8)).save(root / f"images/{name}.png")
        Picture.fromarray(labels).save(root / f"labels/{name}.png")
    return root


def test_images_are_called_by_their_files(tmp_path: Path) -> None:
    data = MaskFolder().open(mask_folder(tmp_path))
    assert file_names(data, tmp_path) == {"x/a": "images/x/a.png", "x/b": "images/x/b.png"}
    assert file_names(Scenes(train=1, val=0, test=0).open(tmp_path), tmp_path) == {}


def test_export_writes_a_recipe_s_data_that_the_loader_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = mask_folder(tmp_path / "data")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""\
data:
  loader: {{name: mask_folder, class_name: cell}}
  root: {root}
  channels: grey
  split: {{val: 0.5, test: 0}}
model: {{name: unet, encoder: mobilenetv3_small_050, weights: null, depth: 2,
  decoder_channels: [16, 8]}}
head: {{name: height}}
train: {{max_steps: 1}}
"""
    )
    out = root / "all.json"
    assert run(["data", "export", str(recipe), str(out)]) == 0
    assert f"{out}  2 images, 4 objects" in capsys.readouterr().out
    data = Coco(images=".", annotations="all.json", on_error="refuse").open(root)
    wanted = MaskFolder().open(root)
    assert data.classes == ("cell",)
    assert [entry.id for entry in data.entries()] == ["images/x/a", "images/x/b"]
    first = 0
    for entry, other in zip(data.entries(), wanted.entries(), strict=True):
        truth = wanted.load(other).truth
        assert truth is not None
        same(data.load(entry).truth, replace(truth, ids=truth.ids + first))
        first += len(truth)
    assert run(["data", "export", str(recipe), str(root / "val.json"), "--part", "val"]) == 0
    assert "val.json  1 images, 2 objects" in capsys.readouterr().out
    assert run(["data", "export", str(recipe), str(out), "--keep-ids"]) == 3
    assert "found 2 ids of several objects, 1 the first" in capsys.readouterr().err
    assert run(["data", "export", str(recipe), str(out), "--part", "some"]) == 2
    assert capsys.readouterr().err == (
        "error: --part: found 'some', wanted train, val, test or all; correct the name.\n"
    )


def test_export_tells_what_the_data_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = Held({"a": sample("a", objects([np.ones((3, 5), bool)], [1]))}, classes=("cat",))
    for root in (tmp_path / "one", tmp_path / "two"):
        root.mkdir()
        names = with_pictures(root, held)
        path = root / "annotations.json"
        write_instances(path, held, held.entries(), file_names=names)
        path.write_text(path.read_text().replace('"image_id": 1', '"image_id": 2'))
        lists = json.loads(path.read_text())
        lists["annotations"].append({**lists["annotations"][0], "image_id": 1, "id": 2})
        path.write_text(json.dumps(lists))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""\
data:
  loader: {{name: coco}}
  root: {tmp_path}/one
  also: [{{name: more, loader: {{name: coco}}, root: {tmp_path}/two, split: {{val: 0, test: 0}}}}]
  channels: grey
  split: {{val: 0, test: 0}}
model: {{name: unet, encoder: mobilenetv3_small_050, weights: null, depth: 2,
  decoder_channels: [16, 8]}}
head: {{name: height}}
train: {{max_steps: 1}}
"""
    )
    assert run(["data", "export", str(recipe), str(tmp_path / "all.json")]) == 0
    seen = capsys.readouterr()
    assert "all.json  2 images, 2 objects" in seen.out
    for name in ("one", "two"):
        assert (
            f"warning: {tmp_path}/{name}/annotations.json: skipped 1 annotation whose image_id no "
            "image has (1); wanted the id of one of the images.\n"
        ) in seen.err


def opened_sample(**options: Any) -> CocoImages:
    if not SAMPLE.is_dir():
        pytest.skip(f"no COCO sample at {SAMPLE}")
    return Coco(images="train2017", **options).open(SAMPLE)


def test_the_coco_sample_goes_round(tmp_path: Path) -> None:
    data = opened_sample(annotations="annotations/instances_train2017.json")
    path = tmp_path / "again.json"
    names = file_names(data, SAMPLE / "train2017")
    count = write_instances(path, data, data.entries(), file_names=names, keep_ids=True)
    # 746 annotations, of which six are crowds whose run lengths have no pixel.
    assert count == 740
    (tmp_path / "images").symlink_to(SAMPLE / "train2017")
    again = Coco(annotations=path.name, on_error="refuse").open(tmp_path)
    assert again.classes == data.classes
    assert again.entries() == data.entries()
    for entry in data.entries():
        one, other = data.load(entry), again.load(entry)
        same(other.truth, one.truth)
        assert one.crowds is None
        assert other.crowds is None


def test_crowds_of_the_panoptic_sample_go_round(tmp_path: Path) -> None:
    data = opened_sample(
        annotations="annotations/panoptic_train2017.json",
        panoptic="annotations/panoptic_train2017",
    )
    path = tmp_path / "again.json"
    names = file_names(data, SAMPLE / "train2017")
    write_instances(path, data, data.entries(), file_names=names)
    (tmp_path / "images").symlink_to(SAMPLE / "train2017")
    again = Coco(annotations=path.name, on_error="refuse").open(tmp_path)
    crowds = 0
    for entry in data.entries():
        one, other = data.load(entry), again.load(entry)
        for found, wanted in ((other.truth, one.truth), (other.crowds, one.crowds)):
            assert (found is None) == (wanted is None)
            if found is not None and wanted is not None:
                np.testing.assert_array_equal(found.runs, wanted.runs)
                np.testing.assert_array_equal(found.classes, wanted.classes)
        crowds += 0 if other.crowds is None else len(other.crowds)
    assert crowds == 6


KINDS = (Category(1, "sky", isthing=False), Category(4, "cat"), Category(9, "dog"))
PLANE = np.array([[5, 5, 70000, 70000], [5, 9, 9, 70000], [0, 9, 300, 300]])
SEGMENTS = (
    Segment(70000, 1),
    Segment(5, 4),
    Segment(9, 9),
    Segment(300, 9, iscrowd=True),
)


class TestPanoptic:
    def test_boxes_and_areas_are_those_of_the_pixels(self, tmp_path: Path) -> None:
        path = tmp_path / "p.json"
        images = iter([PanopticImage(3, "in/a.jpg", PLANE, SEGMENTS)])
        write_panoptic(path, tmp_path / "pngs", images, categories=KINDS)
        lists = json.loads(path.read_text())
        assert lists["images"] == [{"id": 3, "file_name": "in/a.jpg", "height": 3, "width": 4}]
        (entry,) = lists["annotations"]
        assert (entry["image_id"], entry["file_name"]) == (3, "a.png")
        assert [(s["id"], s["category_id"], s["iscrowd"]) for s in entry["segments_info"]] == [
            (70000, 1, 0),
            (5, 4, 0),
            (9, 9, 0),
            (300, 9, 1),
        ]
        assert [(s["bbox"], s["area"]) for s in entry["segments_info"]] == [
            ([2, 0, 2, 2], 3),
            ([0, 0, 2, 2], 3),
            ([1, 1, 2, 2], 3),
            ([2, 2, 2, 1], 2),
        ]
        assert [(one["id"], one["isthing"]) for one in lists["categories"]] == [
            (1, 0),
            (4, 1),
            (9, 1),
        ]
        png = np.asarray(Picture.open(tmp_path / "pngs/a.png"))
        assert ids_of(np.moveaxis(png, -1, 0)).tolist() == PLANE.tolist()

    @settings(max_examples=40, deadline=None)
    @given(
        planes=st.lists(
            st.lists(st.sampled_from([0, 1, 255, 256, 65536, (1 << 24) - 1]), min_size=12).map(
                lambda n: np.array(n[:12]).reshape(3, 4)
            ),
            min_size=1,
            max_size=3,
        ),
        kinds=st.randoms(use_true_random=False),
    )
    def test_what_is_written_is_read_back(
        self, tmp_path_factory: pytest.TempPathFactory, planes: list[NDArray[np.int64]], kinds: Any
    ) -> None:
        root = tmp_path_factory.mktemp("panoptic")
        (root / "images").mkdir()
        images = []
        for number, plane in enumerate(planes):
            Picture.fromarray(np.zeros((3, 4), np.uint8)).save(root / f"images/i{number}.png")
            segments = [
                Segment(one, kinds.choice(KINDS).id, iscrowd=kinds.random() < 0.3)
                for one in np.unique(plane).tolist()
                if one
            ]
            images.append(PanopticImage(number, f"i{number}.png", plane, segments))
        path = root / "annotations.json"
        write_panoptic(path, root / "pngs", images, categories=KINDS)
        data = Coco(panoptic="pngs", on_error="refuse").open(root)
        assert (data.classes, data.stuff) == (("sky", "cat", "dog"), ("sky",))
        for image, entry in zip(images, data.entries(), strict=True):
            found = data.load(entry)
            assert found.truth is not None
            assert found.semantic is not None
            assert found.ignore is not None
            again = np.zeros((3, 4), np.int64)
            again += found.truth.to_label_map()
            if found.crowds is not None:
                again += found.crowds.to_label_map()
            for one in image.segments:
                index = [kind.id for kind in KINDS].index(one.category_id)
                pixels = image.ids == one.id
                assert (found.ignore[pixels] == one.iscrowd).all()
                stuff = not KINDS[index].isthing and not one.iscrowd
                assert (found.semantic[pixels] == (index + 1 if stuff else 0)).all()
                assert (again[pixels] == (0 if stuff else one.id)).all()
            assert found.ignore[image.ids == 0].all()

    @pytest.mark.parametrize(
        ("image", "said"),
        [
            (
                PanopticImage(1, "a.jpg", PLANE, SEGMENTS[:3]),
                "a.jpg: segments [70000, 5, 9] are not those of its id map",
            ),
            (
                PanopticImage(1, "a.jpg", PLANE, (*SEGMENTS, Segment(9, 4))),
                "a.jpg: segments [70000, 5, 9, 300, 9] are not those of its id map",
            ),
            (
                PanopticImage(1, "a.jpg", np.full((2, 2), 1 << 24), (Segment(1 << 24, 4),)),
                "a.jpg: id 16777216 is not from 1 to 16777215",
            ),
            (
                PanopticImage(1, "a.jpg", np.full((2, 2), 1), (Segment(1, 5),)),
                "a.jpg: category 5 is none of the file's",
            ),
        ],
    )
    def test_segments_that_do_not_fit_are_refused(
        self, tmp_path: Path, image: PanopticImage, said: str
    ) -> None:
        path = tmp_path / "p.json"
        assert said == refusal(
            ValueError, lambda: write_panoptic(path, tmp_path, [image], categories=KINDS)
        )
        assert not path.exists()

    def test_two_images_with_one_png_are_refused(self, tmp_path: Path) -> None:
        images = [PanopticImage(n, f"{n}/a.jpg", PLANE, SEGMENTS) for n in (1, 2)]
        path = tmp_path / "p.json"
        assert refusal(
            ValueError, lambda: write_panoptic(path, tmp_path, images, categories=KINDS)
        ) == ("2/a.jpg: a.png was written for another image")
