"""``data.channels`` takes what the model wants from an image, by region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from domainseg.errors import InputError
from domainseg.images.channels import as_channels, seen_as

RNG = np.random.default_rng(2)
PLANES = RNG.integers(0, 256, (4, 6, 8)).astype(np.uint8)
NAMES = ("red", "green", "blue", "alpha")


def test_grey_is_repeated_for_rgb() -> None:
    view = as_channels(PLANES[:1], ["DAPI"], wanted="rgb", where="a.tif")
    assert (view.shape, view.channels) == ((3, 6, 8), ("red", "green", "blue"))
    np.testing.assert_array_equal(view[:, 1:4, 2:], PLANES[[0, 0, 0], 1:4, 2:])


def test_alpha_is_left_out() -> None:
    np.testing.assert_array_equal(
        as_channels(PLANES, NAMES, wanted="rgb", where="a.png")[...], PLANES[:3]
    )
    grey = as_channels(PLANES[:2], ("grey", "alpha"), wanted="grey", where="a.png")
    np.testing.assert_array_equal(grey[0, 2], PLANES[0, 2])


def test_colours_are_found_by_name() -> None:
    view = as_channels(PLANES[:3], ("blue", "red", "green"), wanted="rgb", where="a.tif")
    np.testing.assert_array_equal(view[1:, 2:3], PLANES[[2, 0], 2:3])


def test_three_unnamed_channels_count_as_rgb() -> None:
    view = as_channels(PLANES[:3], ("c0", "c1", "c2"), wanted="rgb", where="a.npy")
    np.testing.assert_array_equal(view[...], PLANES[:3])


def test_grey_of_colours_is_their_luminance_rounded() -> None:
    view = as_channels(PLANES, NAMES, wanted="grey", where="a.png")
    red, green, blue = PLANES[:3].astype(float)
    expected = np.rint(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    assert view.dtype == view[...].dtype == np.uint8
    np.testing.assert_array_equal(view[0, 1:5, 3:], expected[1:5, 3:])


def test_equal_colours_have_that_luminance() -> None:
    white = np.full((3, 2, 2), 255, np.uint8)
    assert (as_channels(white, NAMES[:3], wanted="grey", where="a")[...] == 255).all()
    light = np.full((3, 2, 2), 0.25, np.float32)
    np.testing.assert_allclose(as_channels(light, NAMES[:3], wanted="grey", where="a")[...], 0.25)


def test_named_channels_come_in_the_order_asked() -> None:
    view = as_channels(PLANES[:2], ("DAPI", "GFP"), wanted=["GFP", "DAPI"], where="a.tif")
    assert view.channels == ("GFP", "DAPI")
    np.testing.assert_array_equal(view[:, 3:], PLANES[[1, 0], 3:])


def test_regions_of_a_view_follow_numpy() -> None:
    view = as_channels(PLANES, NAMES, wanted="rgb", where="a.png")
    for key in (np.s_[0], np.s_[1:1], np.s_[..., 3], np.s_[-1, 2:4, -2:]):
        np.testing.assert_array_equal(view[key], PLANES[:3][key])
    np.testing.assert_array_equal(np.asarray(view), PLANES[:3])


@pytest.mark.parametrize(
    ("found", "wanted", "named", "choice"),
    [
        (("DAPI", "GFP"), "rgb", "rgb", "0"),
        (("DAPI", "GFP", "RFP"), "rgb", "rgb", "0"),
        (("DAPI", "GFP"), "grey", "grey", "0"),
        (("DAPI", "GFP"), "die_map", "die_map", "0"),
        (("DAPI", "GFP"), ["DAPI"], "[DAPI]", "DAPI"),
        (("DAPI", "GFP", "RFP"), ["RFP", "DAPI"], "[RFP, DAPI]", "RFP, DAPI"),
        (("DAPI",), ["DAPI", "GFP"], "[DAPI, GFP]", None),
        (("DAPI",), ["dapi"], "[dapi]", None),
    ],
)
def test_other_channels_are_refused_with_those_to_choose(
    found: Sequence[str], wanted: str | list[str], named: str, choice: str | None
) -> None:
    with pytest.raises(InputError) as caught:
        as_channels(PLANES[: len(found)], found, wanted=wanted, where="a.tif")
    entry = "0" if choice == "0" else f"[{choice}]"
    give = (
        ""
        if choice is None
        else (
            f"give --select channel={choice.replace(', ', ',')}, or image.select: "
            f"{{channel: {entry}}} in the recipe, or "
        )
    )
    assert str(caught.value) == (
        f"a.tif: found channels {', '.join(found)}, wanted data.channels {named}; "
        f"{give}change data.channels."
    )


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        (("red", "green", "blue"), "rgb", None),
        (("red", "green", "blue", "alpha"), "rgb", "alpha left out"),
        (("DAPI",), "rgb", "DAPI as each of red, green, blue"),
        (("grey", "alpha"), "rgb", "grey as each of red, green, blue, alpha left out"),
        (("c0", "c1", "c2"), "rgb", "c0, c1, c2 as red, green, blue"),
        (("DAPI",), "grey", None),
        (("red", "green", "blue"), "grey", "the luminance of red, green, blue"),
        (("b", "a"), ("a", "b"), None),
        (("grey",), "die_map", None),
        (("grey", "alpha"), "die_map", "alpha left out"),
    ],
)
def test_what_is_assumed_of_channels_is_said(
    found: tuple[str, ...], wanted: str | tuple[str, ...], said: str | None
) -> None:
    as_channels(np.zeros((len(found), 2, 2), np.uint8), found, wanted=wanted, where="x")
    assert seen_as(found, wanted) == said
