"""The picture with outlines: where lines lie, in which colour, how values are stretched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from domainseg.errors import InputError
from domainseg.instances.colours import CLASS_COLOURS, class_colour, object_colour
from domainseg.instances.overlay import overlay

NUCLEI = Path(__file__).parents[1] / ".." / "shared" / "data" / "nuclei-dsb2018"


def drawn(picture: Any) -> Any:
    """Return where the picture is not grey."""
    return (picture != picture[..., :1]).any(-1)


def test_lines_lie_on_the_inner_edge_of_each_object() -> None:
    labels = np.zeros((7, 7), np.int32)
    labels[1:6, 1:6] = 3
    picture = overlay(np.zeros((1, 7, 7), np.uint8), labels)
    ring = labels > 0
    ring[2:5, 2:5] = False
    assert (drawn(picture) == ring).all()
    assert picture[1, 1].tolist() == list(object_colour(3))


def test_touching_objects_have_lines_of_two_colours_between_them() -> None:
    labels = np.repeat([[5] * 4 + [6] * 4], 8, axis=0).astype(np.int32)
    picture = overlay(np.zeros((1, 8, 8), np.uint8), labels)
    assert picture[4, 3].tolist() == list(object_colour(5))
    assert picture[4, 4].tolist() == list(object_colour(6))
    assert not drawn(picture)[3:5, 1:3].any()


def test_classes_give_their_colour() -> None:
    labels = np.array([[10, 0, 20]], np.int32)
    picture = overlay(np.zeros((1, 1, 3), np.uint8), labels, classes={10: 1, 20: 0})
    assert picture[0].tolist() == [list(class_colour(1)), [0, 0, 0], list(class_colour(0))]


def test_an_object_at_the_border_of_the_image_has_a_line_there() -> None:
    picture = overlay(np.zeros((1, 9, 9), np.uint8), np.ones((9, 9), np.int32))
    assert np.count_nonzero(drawn(picture)) == 81 - 49


def test_a_pixel_over_two_objects_shows_the_one_with_the_higher_number() -> None:
    labels = np.array([[0, 8], [3, 3]], np.int32)
    picture = overlay(np.zeros((1, 2, 2), np.uint8), labels, max_side=1)
    assert picture[0, 0].tolist() == list(object_colour(8))


@pytest.mark.parametrize("side", [1, 3, 8])
def test_no_object_vanishes_from_a_smaller_picture(side: int) -> None:
    labels = np.zeros((400, 300), np.int32)
    for number, corner in enumerate(range(20, 280, 40), 1):
        labels[corner : corner + side, corner : corner + side] = number
    picture = overlay(np.zeros((1, 400, 300), np.uint16), labels, max_side=50)
    assert picture.shape == (50, 38, 3)  # 400 / 8, 300 / 8
    colours = {tuple(c) for c in picture.reshape(-1, 3).tolist()} - {(0, 0, 0)}
    assert colours == {object_colour(number) for number in range(1, 8)}


def test_a_smaller_picture_is_the_mean_of_blocks() -> None:
    image = np.arange(6 * 5, dtype=np.uint16).reshape(1, 6, 5)
    picture = overlay(image, np.zeros((6, 5), np.int32), max_side=3, low=0, high=255)
    expected = [[image[0, y : y + 2, x : x + 2].mean() for x in (0, 2, 4)] for y in (0, 2, 4)]
    assert picture[..., 0].tolist() == np.rint(expected).astype(int).tolist()


@pytest.mark.parametrize("side", [4, 8, 12])
def test_blocks_give_the_picture_of_the_whole(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 5, (9, 8)), np.ones((5, 5))).astype(np.int32)
    image = rng.integers(0, 255, (3, *labels.shape)).astype(np.uint8)
    for max_side in (13, 30, 50):
        whole = overlay(image, labels, max_side=max_side)
        with monkeypatch.context() as smaller:
            smaller.setattr("domainseg.instances.overlay._BLOCK_PX", side)
            assert (overlay(image, labels, max_side=max_side) == whole).all()


def test_edges_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (30, 40)).astype(np.int32)
    padded = np.pad(labels, 1, constant_values=-1)
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    edge = np.any([labels != other for other in around], axis=0)
    cells = np.where(edge, labels, 0).reshape(15, 2, 20, 2).max((1, 3))
    picture = overlay(np.zeros((1, 30, 40), np.uint8), labels, max_side=20)
    colours = np.array([(0, 0, 0), object_colour(1), object_colour(2)])
    assert (picture == colours[cells]).all()


def test_values_from_low_to_high_become_0_to_255() -> None:
    image = np.array([[[0, 100, 150, 200, 400]]], np.uint16)
    picture = overlay(image, np.zeros((1, 5), np.int32), low=100, high=200)
    assert picture[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_colour_images_keep_their_hue() -> None:
    image = np.zeros((3, 10, 10), np.uint8)
    image[0], image[1, :, :5] = 200, 100
    picture = overlay(image, np.zeros((10, 10), np.int32), percentiles=(0, 100))
    assert picture[0, 0].tolist() == [255, 128, 0]


def test_two_channels_are_green_and_magenta() -> None:
    image = np.array([[[0, 1, 0]], [[0, 0, 1]]], np.float32)
    picture = overlay(image, np.zeros((1, 3), np.int32), low=(0, 0), high=(1, 1))
    assert picture[0].tolist() == [[0, 0, 0], [0, 255, 0], [255, 0, 255]]


@pytest.mark.parametrize("shape", [(1, 0, 0), (1, 1, 1), (3, 1, 5), (5, 4, 4)])
def test_small_empty_and_constant_images_are_drawn(shape: tuple[int, int, int]) -> None:
    picture = overlay(np.full(shape, 7, np.uint8), np.zeros(shape[1:], np.int32))
    assert picture.shape == (*shape[1:], 3)
    assert picture.dtype == np.uint8


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        overlay(np.zeros((1, 4, 5)), np.zeros((5, 4), np.int32))
    assert str(caught.value) == (
        "overlay: found labels of 5 x 4 px, wanted the image's 4 x 5 px; "
        "pair each image with its own labels."
    )


def test_class_colours_are_distinct_and_bright() -> None:
    colours = [class_colour(index) for index in range(20)]
    assert len(set(colours)) == 20
    assert colours[: len(CLASS_COLOURS)] == list(CLASS_COLOURS)
    assert all(max(colour) >= 190 for colour in colours)


def test_neighbouring_numbers_have_colours_far_apart() -> None:
    colours = np.array([object_colour(label) for label in range(1, 2000)], float)
    assert np.linalg.norm(np.diff(colours, axis=0), axis=1).min() > 100


def test_a_real_image_shows_the_edges_of_its_nuclei_and_keeps_the_rest() -> None:
    if not NUCLEI.is_dir():
        pytest.skip("the nuclei images are not beside this checkout")
    labels = np.asarray(Image.open(NUCLEI / "labels" / "00071198d059.png")).astype(np.int32)
    image = np.asarray(Image.open(NUCLEI / "images" / "00071198d059.png").convert("L"))[None]
    picture = overlay(image, labels)
    padded = np.pad(labels, 1)
    inner = labels > 0
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inner &= padded[dy : dy + labels.shape[0], dx : dx + labels.shape[1]] == labels
    assert (drawn(picture) == ((labels > 0) & ~inner)).mean() > 0.999
    values = picture[..., 0][~drawn(picture)]
    assert values.min() == 0
    assert values.max() == 255
