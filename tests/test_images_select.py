"""``image.select`` takes one plane of a stack, lazily, or says what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from domainseg.errors import InputError
from domainseg.images import open_image

STACK = np.random.default_rng(5).integers(0, 60000, (2, 3, 2, 20, 30)).astype(np.uint16)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "stack.ome.tif"
    metadata = {"axes": "TZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    options: dict[str, Any] = {"compression": "zlib", "tile": (16, 16)}
    tifffile.imwrite(path, STACK, photometric="minisblack", metadata=metadata, **options)
    return path


def _refusal(path: Path, select: dict[str, object]) -> str:
    with pytest.raises(InputError) as caught:
        open_image(path, select=select)
    return str(caught.value).replace(str(path), path.name)


def test_an_index_takes_that_plane(stack: Path) -> None:
    image = open_image(stack, select={"t": 1, "z": 2})
    np.testing.assert_array_equal(image[:, 3:9, 14:20], STACK[1, 2, :, 3:9, 14:20])


def test_max_is_the_largest_of_the_planes_in_every_region(stack: Path) -> None:
    image = open_image(stack, select={"t": 0, "z": "max", "channel": ["GFP"]})
    np.testing.assert_array_equal(image[0, 3:19, 14:], STACK[0, :, 1].max(0)[3:19, 14:])


def test_mean_is_rounded_to_the_dtype(stack: Path) -> None:
    image = open_image(stack, select={"t": 0, "z": "mean"})
    expected = np.rint(STACK[0].mean(0)).astype(np.uint16)
    np.testing.assert_array_equal(image.read(), expected)


def test_max_over_two_axes_is_over_all_their_planes(stack: Path) -> None:
    image = open_image(stack, select={"t": "max", "z": "max"})
    np.testing.assert_array_equal(image.read(), STACK.max((0, 1)))


def test_pages_can_be_taken_as_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0, :, 0], photometric="minisblack", metadata=None)
    image = open_image(tmp_path / "a.tif", select={"page": "channel", "channel": [2, 0]})
    assert image.channels == ("c2", "c0")
    np.testing.assert_array_equal(image.read(), STACK[0, [2, 0], 0])


def test_one_image_of_several_is_taken_by_index_or_name(tmp_path: Path) -> None:
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(STACK[0, 0, 0], metadata={"Name": "first"})
        writer.write(STACK[0, 0, 1, :9], metadata={"Name": "second", "PhysicalSizeX": 2.0,
                                                  "PhysicalSizeY": 3.0})  # fmt: skip
    np.testing.assert_array_equal(open_image(path, select={"series": 0})[0], STACK[0, 0, 0])
    second = open_image(path, select={"series": "second"})
    assert second.spacing_um == (3.0, 2.0)
    np.testing.assert_array_equal(second[0], STACK[0, 0, 1, :9])
    assert _refusal(path, {}) == (
        "two.ome.tif: found 2 images in one file (first, second), wanted one; "
        "give --select series=0, or image.select: {series: 0} in the recipe (an index or a name)."
    )


def test_an_ambiguous_stack_lists_its_axes_and_what_to_write(stack: Path) -> None:
    assert _refusal(stack, {}) == (
        "stack.ome.tif: found a stack with axes t=2, z=3, channel=2 (DAPI, GFP), wanted one "
        "plane; give --select t=0 --select z=max, or image.select: {t: 0, z: max} in the recipe "
        "(an index, max or mean for each)."
    )
    assert _refusal(stack, {"t": 0}) == (
        "stack.ome.tif: found a stack with axes t=2, z=3, channel=2 (DAPI, GFP), wanted one "
        "plane; give --select z=max, or image.select: {z: max} in the recipe "
        "(an index, max or mean for each)."
    )


def test_pages_of_unknown_meaning_are_an_axis(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0, :, 0], photometric="minisblack", metadata=None)
    assert _refusal(path, {}) == (
        "a.tif: found a stack with axes page=3, wanted one plane; give --select page=0, or "
        "image.select: {page: 0} in the recipe (an index, max or mean for each, or channel to "
        "take the pages as channels)."
    )


def test_an_axis_that_is_not_there_is_refused_with_those_that_are(stack: Path) -> None:
    assert _refusal(stack, {"focus": 1}) == (
        "stack.ome.tif: found no axis 'focus' that image.select asks for, wanted one of channel, "
        "series, t, z (the image has t=2, z=3, channel=2 (DAPI, GFP)); correct "
        "--select, or image.select in the recipe."
    )


@pytest.mark.parametrize("value", [3, -1, "min", True, 1.0, None])
def test_a_plane_that_is_not_there_is_refused(stack: Path, value: object) -> None:
    assert _refusal(stack, {"t": 0, "z": value}) == (
        f"stack.ome.tif: found image.select.z: {value}, wanted an index from 0 to 2, max or mean; "
        "correct --select, or image.select in the recipe."
    )


@pytest.mark.parametrize("value", ["DAPY", 2])
def test_a_channel_that_is_not_there_is_refused(stack: Path, value: object) -> None:
    assert _refusal(stack, {"t": 0, "z": 0, "channel": value}) == (
        f"stack.ome.tif: found image.select.channel: {value}, wanted an index from 0 to 1, "
        "or one of DAPI, GFP; correct --select, or image.select in the recipe."
    )


def test_a_channel_taken_twice_is_refused(stack: Path) -> None:
    assert _refusal(stack, {"t": 0, "z": 0, "channel": ["DAPI", 0]}) == (
        "stack.ome.tif: found image.select.channel ['DAPI', 0], wanted at least one channel, "
        "each once; choose from DAPI, GFP."
    )


def test_mixed_projections_are_refused(stack: Path) -> None:
    assert _refusal(stack, {"t": "mean", "z": "max"}) == (
        "stack.ome.tif: found both max and mean in image.select, wanted one kind of projection; "
        "use the same for every axis, or an index."
    )
