"""COCO run-length encodings and annotations: pycocotools is the reference."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from domainseg.errors import InputError
from domainseg.instances import encode
from domainseg.instances.annotations import (
    Annotation,
    annotations_of,
    crowd_mask,
    instances_of,
)
from domainseg.instances.encode import Rle, decode_rle, encode_rle, read_segmentation
from domainseg.records import Instances

Labels = NDArray[np.int32]

laws = settings(max_examples=150, deadline=None, database=None)
maps = arrays(
    np.int32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.sampled_from([0, 2, 5, 6]),
)


def assert_same(one: Instances, other: Instances) -> None:
    for field in fields(Instances):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
        assert getattr(mine, "dtype", None) == getattr(theirs, "dtype", None), field.name


def reference(mask: NDArray[np.bool_]) -> Any:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def decoded(code: Any) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        # pycocotools 2.0.11 hands out an array type that numpy 2 finds outdated.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(coco_mask.decode(code), bool)


@laws
@given(maps)
def test_the_bytes_are_those_of_pycocotools(labels: Labels) -> None:
    instances = Instances.from_label_map(labels)
    for identity, rle in zip(instances.ids, encode_rle(instances), strict=True):
        wanted = reference(labels == identity)
        assert rle.counts == wanted["counts"]
        assert list(rle.shape) == wanted["size"]
        np.testing.assert_array_equal(rle.to_mask(), labels == identity)
        np.testing.assert_array_equal(decoded(rle.to_dict()), labels == identity)
        assert rle.area_px() == (labels == identity).sum()
        assert list(rle.bbox()) == coco_mask.toBbox(wanted).tolist()


@laws
@given(maps, st.integers(1, 30))
def test_encode_and_decode_is_identity(labels: Labels, chunk: int) -> None:
    instances = Instances.from_label_map(labels, classes={2: 1, 6: 3}, scores={5: 0.25, 6: 0.1})
    was = encode._CHUNK_PX
    encode._CHUNK_PX = chunk  # cut between objects at every possible place
    try:
        rles = encode_rle(instances)
        back = decode_rle(
            rles,
            shape=instances.shape,
            ids=instances.ids.tolist(),
            classes=instances.classes.tolist(),
            scores=instances.scores.tolist(),
        )
    finally:
        encode._CHUNK_PX = was
    assert_same(back, instances)
    assert encode_rle(back) == rles


@laws
@given(maps, st.integers(1, 2**40))
def test_annotations_survive_json_and_come_back(labels: Labels, image_id: int) -> None:
    instances = Instances.from_label_map(labels, classes={2: 1, 6: 2}, scores={5: 0.1})
    category_ids = [7, 90, 3]
    made = annotations_of(instances, image_id=image_id, category_ids=category_ids, scored=True)
    text = json.dumps([one.to_dict() for one in made])
    read = [Annotation.from_dict(one, shape=instances.shape) for one in json.loads(text)]
    assert read == made
    assert_same(instances_of(read, shape=labels.shape, category_ids=category_ids), instances)


def test_overlapping_objects_keep_their_pixels() -> None:
    whole, part = np.ones((3, 4), bool), np.zeros((3, 4), bool)
    part[1, 1:3] = True
    rles = [Rle((3, 4), reference(mask)["counts"]) for mask in (whole, part)]
    instances = decode_rle(rles, shape=(3, 4))
    assert instances.runs.tolist() == [[0, 0, 4], [1, 0, 4], [2, 0, 4], [1, 1, 2]]
    assert instances.offsets.tolist() == [0, 3, 4]
    assert instances.boxes.tolist() == [[[0, 0], [3, 4]], [[1, 1], [2, 3]]]
    assert (instances.ids.tolist(), instances.scores.tolist()) == ([1, 2], [1.0, 1.0])
    assert encode_rle(instances) == rles


def test_no_object_gives_no_code_and_back() -> None:
    nothing = Instances.from_label_map(np.zeros((4, 6), np.int32))
    assert encode_rle(nothing) == []
    assert_same(decode_rle([], shape=(4, 6)), nothing)


def test_long_counts_take_several_characters() -> None:
    mask = np.zeros((3000, 2000), bool)
    mask[5:2990, 700] = True
    mask[17, 1900:] = True
    rle = Rle((3000, 2000), reference(mask)["counts"])
    assert_same(decode_rle([rle], shape=(3000, 2000)), Instances.from_label_map(mask.astype(int)))


def test_an_annotation_has_cocos_keys_and_box_order() -> None:
    labels = np.zeros((6, 8), np.int32)
    labels[1:3, 4:8] = 5
    (one,) = annotations_of(
        Instances.from_label_map(labels), image_id=3, category_ids=[11], first_id=100
    )
    assert one.to_dict() == {
        "id": 100,
        "image_id": 3,
        "category_id": 11,
        "segmentation": {"size": [6, 8], "counts": one.segmentation.counts.decode()},
        "area": 8.0,
        "bbox": [4.0, 1.0, 4.0, 2.0],
        "iscrowd": 0,
    }
    assert one.segmentation.counts == reference(labels > 0)["counts"]


def test_polygons_and_both_kinds_of_counts_are_read() -> None:
    square = [[1.0, 0.0, 3.0, 0.0, 3.0, 2.0, 1.0, 2.0]]
    mask = np.zeros((3, 4), bool)
    mask[0:2, 1:3] = True
    for segmentation in (
        square,
        {"size": [3, 4], "counts": [3, 2, 1, 2, 4]},
        {"size": [3, 4], "counts": reference(mask)["counts"]},
        {"size": [3, 4], "counts": reference(mask)["counts"].decode()},
    ):
        rle = read_segmentation(segmentation, shape=(3, 4), where="a")
        np.testing.assert_array_equal(rle.to_mask(), mask)


def test_counts_with_empty_runs_are_read() -> None:
    rle = read_segmentation(
        {"size": [1, 6], "counts": [0, 0, 2, 1, 0, 1, 2]}, shape=(1, 6), where="a"
    )
    instances = decode_rle([rle], shape=(1, 6))
    assert instances.runs.tolist() == [[0, 2, 2]]
    assert (
        encode_rle(instances)[0].counts == reference(np.array([[0, 0, 1, 1, 0, 0]]) > 0)["counts"]
    )


def test_parts_of_one_object_are_united() -> None:
    parts = [[0, 0, 2, 0, 2, 1, 0, 1], [3, 0, 4, 0, 4, 2, 3, 2]]
    rle = read_segmentation(parts, shape=(2, 4), where="a")
    assert rle.to_mask().tolist() == [[True, True, False, True], [False, False, False, True]]


def test_results_without_ids_are_numbered() -> None:
    entry = {
        "image_id": 1,
        "category_id": 4,
        "segmentation": {"size": [1, 3], "counts": [1, 2]},
        "score": 0.5,
    }
    one = Annotation.from_dict(entry, shape=(1, 3))
    assert (one.id, one.area, one.bbox, one.score) == (None, 2.0, (1.0, 0.0, 2.0, 1.0), 0.5)
    assert "id" not in one.to_dict()
    instances = instances_of([one, one], shape=(1, 3), category_ids=[4])
    assert (instances.ids.tolist(), instances.scores.tolist()) == ([1, 2], [0.5, 0.5])


def test_crowds_are_ignored_and_are_no_objects() -> None:
    crowd = Annotation.from_dict(
        {
            "id": 1,
            "image_id": 1,
            "category_id": 4,
            "iscrowd": 1,
            "segmentation": {"size": [1, 4], "counts": [1, 2, 1]},
        },
        shape=(1, 4),
    )
    one = replace(crowd, id=2, iscrowd=False)
    mask = crowd_mask([crowd, one], shape=(1, 4))
    assert mask.tolist() == [[False, True, True, False]]
    assert not crowd_mask([one], shape=(1, 4)).any()
    assert instances_of([crowd, one], shape=(1, 4), category_ids=[4]).ids.tolist() == [2]


# Errors ----------------------------------------------------------------------------------

UNREADABLE = (
    "a: found a segmentation that cannot be read, wanted polygons of three points or more, or "
    "RLE of 3 x 4 px; export the annotations again."
)


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        None,
        [[0, 0, 3, 0]],  # pycocotools would take this for a box
        [[0, 0, 3, 0, 1]],
        {"counts": [12]},
        {"size": [3, 4], "counts": [3, 2]},
        {"size": [3, 4], "counts": [13, -1]},
        {"size": [3, 4], "counts": "03"},
        {"size": [3, 4], "counts": "0324Q"},  # breaks off inside a number
        {"size": [3, 4], "counts": ""},
        {"size": [3, 4], "counts": "\u00e9"},
        {"size": [3, 4], "counts": "oooooooooooooooooo0"},
    ],
)
def test_a_malformed_segmentation_is_refused(segmentation: Any) -> None:
    with pytest.raises(InputError) as caught:
        read_segmentation(segmentation, shape=(3, 4), where="a")
    assert str(caught.value) == UNREADABLE


def test_codes_of_another_size_are_refused() -> None:
    wanted = (
        "found RLE of 3 x 4 px, wanted the image's 4 x 3; "
        "pair the annotations with the image they were made on."
    )
    with pytest.raises(InputError) as caught:
        decode_rle([Rle((3, 4), b"0324")], shape=(4, 3))
    assert str(caught.value) == f"segmentation 0: {wanted}"
    for counts in ("0324", [0, 3, 9]):
        with pytest.raises(InputError) as caught:
            read_segmentation({"size": [3, 4], "counts": counts}, shape=(4, 3), where="a")
        assert str(caught.value) == f"a: {wanted}"


def test_an_object_without_a_pixel_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        decode_rle([Rle((3, 4), b"<")], shape=(3, 4))
    assert str(caught.value) == (
        "segmentation 0: found no pixel, wanted an object of at least one pixel; "
        "leave the object out."
    )


def test_an_image_too_large_for_cocos_counts_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        decode_rle([], shape=(65_536, 65_536))
    assert str(caught.value) == (
        "COCO RLE: found an image of 65536 x 65536 px, wanted fewer than 2**32 px, the most its "
        "counts can hold; export outlines instead."
    )


def test_an_annotation_without_a_key_is_refused() -> None:
    entry: Mapping[str, Any] = {"id": 8, "image_id": 1, "category_id": 4}
    with pytest.raises(InputError) as caught:
        Annotation.from_dict(entry, shape=(1, 1), where="a.json, annotation")
    assert str(caught.value) == (
        "a.json, annotation 8: found no segmentation, wanted image_id, category_id and "
        "segmentation; hand over a COCO file of instances."
    )


def test_a_category_that_is_not_listed_is_refused() -> None:
    made = annotations_of(
        Instances.from_label_map(np.ones((1, 1), int)), image_id=1, category_ids=[5]
    )
    with pytest.raises(InputError) as caught:
        instances_of(made, shape=(1, 1), category_ids=[6, 7])
    assert str(caught.value) == (
        "annotation 1: found category 5, wanted one of 6, 7; "
        "name the category or leave its annotations out."
    )


def test_a_coco_file_comes_back_as_pycocotools_reads_it() -> None:
    folder = Path(__file__).parents[1] / ".." / "shared" / "data" / "coco-sample"
    file = folder / "annotations" / "instances_train2017.json"
    if not file.is_file():
        pytest.skip(f"no COCO sample at {file}")
    content = json.loads(file.read_text())
    sizes = {one["id"]: (one["height"], one["width"]) for one in content["images"]}
    category_ids = sorted(one["id"] for one in content["categories"])
    for entry in content["annotations"][::7]:
        shape = sizes[entry["image_id"]]
        one = replace(Annotation.from_dict(entry, shape=shape), iscrowd=False)
        segmentation = entry["segmentation"]
        parts = coco_mask.frPyObjects(segmentation, *shape)
        wanted = decoded(coco_mask.merge(parts) if isinstance(segmentation, list) else parts)
        instances = instances_of([one], shape=shape, category_ids=category_ids)
        np.testing.assert_array_equal(instances.to_label_map() > 0, wanted)
        assert instances.ids.tolist() == [entry["id"]]
        assert encode_rle(instances) == [one.segmentation]
