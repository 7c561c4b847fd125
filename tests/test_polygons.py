"""Polygons of YOLO and LabelMe files: filled by their pixels' centres, refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from domainseg.errors import InputError, MissingInputError
from domainseg.loaders.mask_folder import MaskFolder
from domainseg.loaders.masks import Annotation, runs_of_window, stacked
from domainseg.loaders.polygons import Shape, drawn, read_labelme, read_yolo
from domainseg.records import Sample

SHAPE = (4, 6)
CLASSES = {0: "pit", 1: "scratch"}
LABELS = {"pit": "pit", "Scr": "scratch", "blur": "ignore", "text": "background"}


def yolo(path: Path, text: str) -> Annotation:
    (path / "a.txt").write_text(text)
    return read_yolo(path / "a.txt", CLASSES, shape=SHAPE)


def outline(label: str = "pit", points: Any = None, kind: str = "polygon", **more: Any) -> Any:
    if points is None:
        points = [[0, 0], [2, 0], [2, 2]]
    return {"label": label, "points": points, "shape_type": kind, **more}


def labelme(path: Path, *shapes: Any, **more: Any) -> Annotation:
    values = {"shapes": list(shapes), "imageHeight": 4, "imageWidth": 6} | more
    (path / "a.json").write_text(json.dumps(values))
    return read_labelme(path / "a.json", LABELS, shape=SHAPE)


def refused(action: Any) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


def planes(marks: Annotation) -> list[list[str]]:
    """Return each object's pixels as rows of # and dots."""
    found = []
    for index in range(len(marks.truth)):
        plane = np.full(marks.truth.shape, ".")
        (y0, x0), (y1, x1) = marks.truth.boxes[index]
        plane[y0:y1, x0:x1] = np.where(marks.truth.mask(index), "#", ".")
        found.append(["".join(row) for row in plane])
    return found


class TestFilling:
    def test_a_pixel_belongs_to_a_polygon_when_its_centre_is_inside(self, tmp_path: Path) -> None:
        marks = labelme(tmp_path, outline(points=[[0.4, 0.4], [4.6, 0.4], [0.4, 3.6]]))
        assert planes(marks) == [["####..", "###...", "##....", "#....."]]

    def test_the_centre_and_not_the_corner_decides(self, tmp_path: Path) -> None:
        square = [[1.6, 1.4], [3.6, 1.4], [3.6, 2.4], [1.6, 2.4]]
        assert planes(labelme(tmp_path, outline(points=square))) == [
            ["......", "..##..", "......", "......"]
        ]

    def test_polygons_with_a_common_edge_share_no_pixel_and_leave_none_out(self) -> None:
        left = Shape("l", "pit", np.array([[0, 0], [2.5, 0], [2.5, 4], [0, 4.0]]))
        right = Shape("r", "pit", np.array([[2.5, 0], [6, 0], [6, 4], [2.5, 4.0]]))
        marks = drawn([left, right], ("pit",), shape=SHAPE)
        assert planes(marks) == [["##...."] * 4, ["..####"] * 4]

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(st.floats(-1, 7, width=32), st.floats(-1, 5, width=32)),
            min_size=3,
            max_size=7,
        )
    )
    def test_filling_is_the_even_odd_rule_at_every_centre(
        self, corners: list[tuple[float, float]]
    ) -> None:
        points = np.array(corners, np.float64)
        wanted = np.zeros(SHAPE, bool)
        for y, x in np.ndindex(SHAPE):
            crossed = 0
            for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0), strict=True):
                if ay > by:  # the upper end first, as the sum is not the same the other way
                    (ax, ay), (bx, by) = (bx, by), (ax, ay)
                if ay <= y + 0.5 < by:
                    crossed += ax + (y + 0.5 - ay) * (bx - ax) / (by - ay) <= x + 0.5
            wanted[y, x] = crossed % 2
        if not wanted.any():
            assert "around no pixel's centre" in refused(
                lambda: drawn([Shape("p", "pit", points)], ("pit",), shape=SHAPE)
            )
            return
        marks = drawn([Shape("p", "pit", points)], ("pit",), shape=SHAPE)
        assert planes(marks) == [["".join(row) for row in np.where(wanted, "#", ".")]]

    def test_objects_may_overlap_and_keep_all_their_pixels(self, tmp_path: Path) -> None:
        box = outline(points=[[0, 0], [4, 2]], kind="rectangle")
        other = outline("Scr", points=[[2, 1], [6, 4]], kind="rectangle")
        marks = labelme(tmp_path, box, other)
        assert planes(marks) == [
            ["####..", "####..", "......", "......"],
            ["......", "..####", "..####", "..####"],
        ]
        assert marks.truth.ids.tolist() == [1, 2]
        assert marks.truth.classes.tolist() == [0, 1]
        assert marks.truth.boxes.tolist() == [[[0, 0], [2, 4]], [[1, 2], [4, 6]]]

    def test_corners_up_to_a_pixel_outside_are_clipped(self, tmp_path: Path) -> None:
        marks = labelme(tmp_path, outline(points=[[-1, -0.5], [7, 4.9]], kind="rectangle"))
        assert planes(marks) == [["######"] * 4]

    def test_objects_of_runs_are_those_of_a_label_map(self) -> None:
        plane = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 1]], bool)
        made = stacked([runs_of_window(plane, (1, 2))], [3], shape=(5, 8))
        whole = np.zeros((5, 8), np.int32)
        whole[1:4, 2:6] = plane
        np.testing.assert_array_equal(made.to_label_map(), whole)
        assert (made.boxes.tolist(), made.classes.tolist()) == ([[[1, 2], [4, 6]]], [3])


class TestYolo:
    def test_a_row_is_an_object_in_shares_of_width_and_height(self, tmp_path: Path) -> None:
        marks = yolo(tmp_path, "1 0 0 0.5 0 0.5 0.5 0 0.5\n\n0 0.5 0.5 1 0.5 1 1 0.5 1\n")
        assert planes(marks) == [
            ["###...", "###...", "......", "......"],
            ["......", "......", "...###", "...###"],
        ]
        assert marks.truth.classes.tolist() == [1, 0]
        assert marks.tags(("pit", "scratch")) == ("pit", "scratch")

    def test_an_empty_file_is_a_good_image(self, tmp_path: Path) -> None:
        marks = yolo(tmp_path, "\n")
        assert (len(marks.truth), marks.tags(("pit",))) == (0, ("good",))

    @pytest.mark.parametrize(
        ("row", "sentence"),
        [
            (
                "0 0.5 0.5 0.2 0.2",
                "found 4 numbers after the class, which are a box, wanted a polygon of 3 points "
                "or more; export segmentation, or draw outlines.",
            ),
            (
                "0 0.5 0.5",
                "found 2 numbers after the class, wanted x and y of 3 points or more; draw or "
                "export it again.",
            ),
            (
                "0 0 0 1 0 1 1 0",
                "found 7 numbers after the class, wanted x and y of 3 points or more; draw or "
                "export it again.",
            ),
            (
                "2 0 0 1 0 1 1",
                "found class 2, wanted one of 0, 1; add it to classes or correct it.",
            ),
            (
                "pit 0 0 1 0 1 1",
                "found 'pit' in place of the class, wanted a whole number; export it again.",
            ),
            (
                "0 0 0 1 0 1 nan",
                "found a coordinate that is no finite number, wanted numbers; draw or export it "
                "again.",
            ),
            (
                "0 0 0 1 0 1 x",
                "found a coordinate that is no finite number, wanted numbers; draw or export it "
                "again.",
            ),
            (
                "0 0 0 1.2 0 1 1",
                "found x from 0 to 7.2 and y from 0 to 4 px, wanted a shape inside the image of "
                "6 x 4 px; correct it, or check that it belongs to this image.",
            ),
            (
                "0 5 5 6 5 6 6",
                "found x from 30 to 36 and y from 20 to 24 px, wanted a shape inside the image of "
                "6 x 4 px; correct it, or check that it belongs to this image.",
            ),
            (
                "0 0 0 0.01 0 0.01 0.01",
                "found a shape around no pixel's centre, wanted one pixel or more; remove it or "
                "draw it larger.",
            ),
        ],
    )
    def test_a_row_that_is_no_polygon_is_refused(
        self, tmp_path: Path, row: str, sentence: str
    ) -> None:
        text = f"0 0 0 1 0 1 1\n{row}\n"
        assert refused(lambda: yolo(tmp_path, text)) == f"{tmp_path}/a.txt:2: {sentence}"

    def test_a_file_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
        assert refused(lambda: read_yolo(tmp_path / "a.txt", CLASSES, shape=SHAPE)) == (
            f"{tmp_path}/a.txt: found a file that is no text, wanted rows of class x1 y1 x2 y2 x3 "
            "y3 ...; export it again."
        )


class TestLabelme:
    def test_a_circle_holds_the_centres_within_its_radius(self, tmp_path: Path) -> None:
        marks = labelme(tmp_path, outline(points=[[3, 2], [4.6, 2]], kind="circle"))
        assert planes(marks) == [["..##..", ".####.", ".####.", "..##.."]]

    def test_shapes_of_one_group_are_one_object(self, tmp_path: Path) -> None:
        parts = [
            outline("Scr", points=points, kind="rectangle", group_id=7)
            for points in ([[0, 0], [2, 2]], [[1, 1], [3, 3]], [[5, 0], [6, 1]])
        ]
        alone = outline("Scr", points=[[0, 3], [1, 4]], kind="rectangle", group_id=None)
        marks = labelme(tmp_path, parts[0], alone, *parts[1:])
        assert planes(marks) == [
            ["##...#", "###...", ".##...", "......"],
            ["......", "......", "......", "#....."],
        ]
        assert marks.truth.areas_px().tolist() == [8, 1]

    def test_what_is_to_be_ignored_or_background_is_no_object(self, tmp_path: Path) -> None:
        blur = outline("blur", points=[[4, 0], [6, 2]], kind="rectangle")
        marks = labelme(tmp_path, blur, outline("text"))
        assert len(marks.truth) == 0
        assert marks.unsure is not None
        assert marks.unsure.astype(int).tolist() == [[0, 0, 0, 0, 1, 1]] * 2 + [[0] * 6] * 2

    def test_no_shapes_are_a_good_image(self, tmp_path: Path) -> None:
        marks = labelme(tmp_path)
        assert (marks.tags(("pit",)), marks.unsure) == (("good",), None)

    @pytest.mark.parametrize(
        ("shape", "sentence"),
        [
            (
                outline(kind="linestrip"),
                "found the shape type linestrip, wanted polygon, rectangle, circle; outline the "
                "object or remove it.",
            ),
            (
                outline("dent"),
                "found the label 'dent', wanted one of pit, Scr, blur, text; add it to "
                "label_names or correct it.",
            ),
            (
                outline(points=[[0, 0], [1, 1]]),
                "found a polygon of 2 points, wanted 3 or more; draw or export it again.",
            ),
            (
                outline(points=[[0, 0]], kind="rectangle"),
                "found a rectangle of 1 point, wanted 2 opposite corners or 4; draw or export it "
                "again.",
            ),
            (
                outline(points=[[0, 0], [1, 1], [2, 2]], kind="circle"),
                "found a circle of 3 points, wanted the centre and a point on it; draw or export "
                "it again.",
            ),
            (
                outline(points=[[0, 0], [1, float("nan")], [2, 2]]),
                "found a coordinate that is no finite number, wanted numbers; draw or export it "
                "again.",
            ),
            (
                outline(points=[[0, 0], [1], [2, 2]]),
                "found a coordinate that is no finite number, wanted numbers; draw or export it "
                "again.",
            ),
            (
                outline(points=[[3, 2], [6.5, 2]], kind="circle"),
                "found x from -0.5 to 6.5 and y from -1.5 to 5.5 px, wanted a shape inside the "
                "image of 6 x 4 px; correct it, or check that it belongs to this image.",
            ),
            (
                outline("Scr", group_id=1),
                "found scratch in group 1, which began as pit, wanted one class in a group; "
                "correct the label or the group_id.",
            ),
        ],
    )
    def test_a_shape_that_cannot_be_an_object_is_refused(
        self, tmp_path: Path, shape: Any, sentence: str
    ) -> None:
        first = outline(group_id=1)
        message = refused(lambda: labelme(tmp_path, first, shape))
        assert message == f"{tmp_path}/a.json: shape 2: {sentence}"

    def test_an_image_of_another_size_is_refused(self, tmp_path: Path) -> None:
        assert refused(lambda: labelme(tmp_path, imageWidth=8)) == (
            f"{tmp_path}/a.json: found imageHeight 4 and imageWidth 8, wanted 4 and 6, the size "
            "of its image; annotate the image as it is."
        )

    def test_what_is_no_json_of_labelme_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text('{"shapes": [\n}')
        assert refused(lambda: read_labelme(path, LABELS, shape=SHAPE)) == (
            f"{path}: found text that is not JSON (line 2), wanted JSON as LabelMe writes it; "
            "export it again."
        )
        for text in ("[]", '{"shapes": 3}', "{}"):
            path.write_text(text)
            assert refused(lambda: read_labelme(path, LABELS, shape=SHAPE)) == (
                f"{path}: found JSON without a list of shapes, wanted JSON as LabelMe writes it; "
                "export it again."
            )


def sample_of(options: MaskFolder, root: Path, name: str) -> Sample:
    opened = options.open(root)
    return opened.load(next(entry for entry in opened.entries() if entry.id == name))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.zeros(SHAPE, np.uint8)).save(path)


def test_a_folder_of_yolo_files_is_a_data_set(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"images/train/{name}.png")
    labels = tmp_path / "labels/train"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text("1 0 0 0.5 0 0.5 0.5 0 0.5\n")
    (labels / "b.txt").write_text("")
    (tmp_path / "labels/classes.txt").write_text("pit\nscratch\n")
    options = MaskFolder(masks="yolo_seg", classes=CLASSES)
    assert options.open(tmp_path).classes == ("pit", "scratch")
    assert sample_of(options, tmp_path, "train/a").tags == ("scratch",)
    assert sample_of(options, tmp_path, "train/b").tags == ("good",)
    (labels / "b.txt").unlink()
    with pytest.raises(MissingInputError, match="found 1 image without a label: train/b"):
        options.open(tmp_path)


def test_labelme_files_may_stand_beside_their_images(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    labelme(tmp_path, outline("Scr"), outline("blur", points=[[4, 0], [6, 2]], kind="rectangle"))
    options = MaskFolder(images=".", labels=".", masks="labelme", label_names=LABELS)
    sample = sample_of(options, tmp_path, "a")
    assert options.open(tmp_path).classes == ("pit", "scratch")
    assert sample.tags == ("scratch",)
    assert sample.ignore is not None
    assert int(sample.ignore.sum()) == 4
