"""Tissue: what stands out from the glass of a slide, and what is not cut off by mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from domainseg.errors import InputError
from domainseg.images import open_image
from domainseg.images.tissue import MARGIN_CELLS, Tissue, find_tissue, otsu, tissue_cells
from domainseg.records import Array

DATA = Path(__file__).parents[1].parent / "shared" / "data"
GLASS = (242, 241, 240)
PINK = (225, 170, 205)
PALE = (228, 212, 224)
PURPLE = (120, 70, 150)


def slide(
    tmp_path: Path, pixels: NDArray[np.uint8], *, noise: float = 2.0, name: str = "slide.png"
) -> Tissue:
    """Return the tissue of ``(H, W, 3)`` pixels with noise added."""
    rng = np.random.default_rng(0)
    noisy = np.clip(pixels + rng.normal(0, noise, pixels.shape), 0, 255).astype(np.uint8)
    path = tmp_path / name
    PillowImage.fromarray(noisy).save(path)
    with open_image(path) as image:
        return find_tissue(image)


def painted(side: int, colour: tuple[int, int, int] = GLASS) -> NDArray[np.uint8]:
    return np.full((side, side, 3), colour, np.uint8)


@pytest.mark.parametrize("colour", [PINK, PALE, PURPLE])
def test_tissue_is_found_with_its_edge_and_a_margin(
    tmp_path: Path, colour: tuple[int, int, int]
) -> None:
    pixels = painted(640)
    pixels[200:400, 240:500] = colour
    found = slide(tmp_path, pixels)
    assert found.assumed is None
    assert found.downsample == (16.0, 16.0)
    inside = found.inside(((0, 0), (640, 640)))
    assert inside[200:400, 240:500].all()
    margin = 16 * MARGIN_CELLS
    # But for the cells that the edge runs through: those may be mostly glass.
    assert inside[216 - margin : 400, 240].all()
    far = margin + 32
    outside = np.ones(inside.shape, bool)
    outside[200 - far : 400 + far, 240 - far : 500 + far] = False
    assert not inside[outside].any()


def test_pale_tissue_is_not_lost_beside_dark_ink(tmp_path: Path) -> None:
    pixels = painted(640)
    pixels[100:300, 100:300] = PALE
    pixels[400:600, 400:600] = (10, 10, 30)
    inside = slide(tmp_path, pixels).inside(((0, 0), (640, 640)))
    assert inside[100:300, 100:300].all()
    assert not inside[450:600, 100:300].any()


def test_uneven_light_on_glass_is_no_tissue(tmp_path: Path) -> None:
    fall = np.linspace(0, 14, 640)[:, None, None]
    pixels = painted(640) - fall
    pixels[200:400, 240:500] = np.array(PURPLE)
    inside = slide(tmp_path, pixels.astype(np.uint8)).inside(((0, 0), (640, 640)))
    assert inside[200:400, 240:500].all()
    assert not inside[520:].any()


@pytest.mark.parametrize(
    ("colour", "assumed"),
    [
        (GLASS, "no tissue stands out from the glass: the whole image is taken for tissue"),
        (PINK, "no glass is seen: the whole image is taken for tissue"),
        (PURPLE, "no glass is seen: the whole image is taken for tissue"),
    ],
)
def test_noise_parts_neither_a_blank_slide_nor_one_full_of_tissue(
    tmp_path: Path, colour: tuple[int, int, int], assumed: str
) -> None:
    found = slide(tmp_path, painted(480, colour), noise=6)
    assert found.assumed == assumed
    assert found.share == 1.0
    assert found.to_record()["assumed"] == assumed


def test_dust_is_no_tissue_and_a_vessel_is() -> None:
    density = np.full((60, 60), 0.03)
    density[10:40, 10:40] = 0.4
    density[20:24, 20:24] = 0.03
    density[55, 55] = 0.9
    cells, assumed = tissue_cells(density, np.zeros(density.shape))
    assert assumed is None
    expected = np.zeros(density.shape, bool)
    expected[10 - MARGIN_CELLS : 40 + MARGIN_CELLS, 10 - MARGIN_CELLS : 40 + MARGIN_CELLS] = True
    np.testing.assert_array_equal(cells, expected)


def test_a_wide_lumen_and_a_bay_at_the_border_stay_glass() -> None:
    density = np.full((60, 60), 0.4)
    density[:6, 25:35] = 0.03  # fewer cells than a hole, but open to the outside
    density[20:50, 20:50] = 0.03
    cells, _ = tissue_cells(density, np.zeros(density.shape))
    assert not cells[20 + MARGIN_CELLS : 50 - MARGIN_CELLS, 30:40].any()
    assert not cells[0, 25 + MARGIN_CELLS : 35 - MARGIN_CELLS].any()


def test_specks_alone_leave_nothing_out() -> None:
    density = np.full((40, 40), 0.03)
    density[5, 5] = density[20, 30] = 0.9
    cells, assumed = tissue_cells(density, np.zeros(density.shape))
    assert cells.all()
    assert assumed == ("only specks stand out from the glass: the whole image is taken for tissue")


def test_colour_alone_is_tissue() -> None:
    saturation = np.full((40, 40), 0.01)
    saturation[10:20, 10:20] = 0.2
    cells, _ = tissue_cells(np.full((40, 40), 0.05), saturation)
    assert cells[10:20, 10:20].all()
    assert not cells[30:, 30:].any()


def test_a_pixel_takes_the_cell_its_centre_lies_in() -> None:
    cells = np.array([[True, False], [False, True]])
    found = Tissue(cells, (2.5, 3.0), (5, 6))
    rows = found.inside(((0, 0), (5, 6))).astype(int).tolist()
    # The centre of row 2 lies at 2.5, where the second cell begins.
    assert rows == [[1, 1, 1, 0, 0, 0]] * 2 + [[0, 0, 0, 1, 1, 1]] * 3
    np.testing.assert_array_equal(found.inside(((1, 2), (4, 5))), [[1, 0, 0], [0, 1, 1], [0, 1, 1]])


def test_otsu_parts_two_groups_and_not_one() -> None:
    values = np.array([0.1] * 30 + [0.12] * 30 + [0.7] * 20)
    assert 0.12 <= otsu(values) < 0.7
    assert otsu(np.full(5, 0.25)) == 0.25


def refused(tmp_path: Path, pixels: Array, name: str = "a.png") -> tuple[Path, str]:
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        PillowImage.fromarray(pixels).save(path)
    with open_image(path) as image, pytest.raises(InputError) as error:
        find_tissue(image)
    return path, str(error.value)


def test_grey_float_and_dark_images_are_refused(tmp_path: Path) -> None:
    wanted = "wanted a brightfield slide in red, green and blue of 8 or 16 bits to find tissue in"
    grey = np.full((64, 64), 200, np.uint8)
    path, said = refused(tmp_path, grey)
    assert said == f"{path}: found channels grey, {wanted}; set tiling.tissue=false."
    path, said = refused(tmp_path, np.full((3, 64, 64), 0.5, np.float32), "a.npy")
    assert said == f"{path}: found pixels of float32, {wanted}; set tiling.tissue=false."
    dark = np.zeros((64, 64, 3), np.uint8)
    dark[20:30, 20:30] = 200
    path, said = refused(tmp_path, dark)
    assert said == (
        f"{path}: found a dark picture (median density 2.41), wanted a brightfield slide, "
        "bright where nothing is, to find tissue in; set tiling.tissue=false."
    )


def test_a_real_slide_is_parted_from_its_glass() -> None:
    path = DATA / "slides" / "cmu-1-small-region.svs"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    with open_image(path) as image:
        found = find_tissue(image)
        pixels = image.read()
    assert found.assumed is None
    assert 0.2 < found.share < 0.99
    inside = found.inside(((0, 0), image.shape[1:]))
    dark = pixels.max(axis=0) < 160  # nuclei and dense stroma
    assert inside[dark].mean() > 0.999
    assert pixels[:, ~inside].mean() > 225
