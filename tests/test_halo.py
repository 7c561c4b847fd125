"""The halo: measured on several cores, where objects are, and the worst of them counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.tiling.forward import MapMaker
from domainseg.tiling.halo import (
    MOST_CORES,
    HaloImage,
    HaloReading,
    measure_halos,
    measure_on_objects,
    object_cores,
    worst_readings,
)

CORE = 16


@dataclass(frozen=True)
class Planes:
    foreground: Tensor
    height: Tensor
    classes: Tensor


class Reaching(nn.Module):
    """Sees a bright pixel from 8 px away: beyond that every halo gives the same."""

    def forward(self, image: Tensor) -> Tensor:
        return 8 * nn.functional.max_pool2d(image, 17, stride=1, padding=8) - 4


class Counting(Reaching):
    def __init__(self) -> None:
        super().__init__()
        self.windows: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.windows.append(image.shape[-1])
        return super().forward(image)


def maker(network: nn.Module) -> MapMaker:
    def as_maps(scores: Tensor) -> Planes:
        return Planes(scores, scores, scores.to(torch.uint8))

    return MapMaker(network.eval(), as_maps, 1, torch.device("cpu"))


def plane_with(*bright: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.float32]:
    plane = np.zeros((1, *shape), np.float32)
    for y, x in bright:
        plane[0, y, x] = 1
    return plane


def measured(network: nn.Module, *images: HaloImage) -> tuple[HaloReading, ...]:
    return measure_on_objects(
        maker(network), images, core_px=CORE, halos=(0, 4, 8, 12), reference_px=16
    )


def centres(*places: tuple[int, int]) -> NDArray[np.int64]:
    return np.array(places, np.int64).reshape(-1, 2)


def test_the_fullest_cores_of_the_grid_come_first() -> None:
    # Cores of 10 px from row 2 and column 3 on: 2 x 3 of them.
    found = object_cores(
        centres((2, 3), (21, 32), (20, 30), (12, 13), (21, 2), (22, 5)), (24, 36), core_px=10
    )
    # Two lie in the last core, one in the first, one amid the second row, two in none.
    assert found == ((12, 23), (2, 3), (12, 13))


@pytest.mark.parametrize(
    ("shape", "middle"), [((24, 36), (7, 13)), ((10, 10), (0, 0)), ((5, 12), (0, 1))]
)
def test_without_objects_it_is_the_middle(shape: tuple[int, int], middle: tuple[int, int]) -> None:
    assert object_cores(centres(), shape, core_px=10) == (middle,)
    assert object_cores(centres((999, 999)), shape, core_px=10) == (middle,)


def test_an_image_smaller_than_a_core_is_one_core() -> None:
    assert object_cores(centres((0, 0), (4, 8)), (5, 9), core_px=10) == ((0, 0),)


def test_the_worst_reading_of_each_halo_counts() -> None:
    one = (HaloReading(0, 0.5, 0.0), HaloReading(32, 0.01, 0.001))
    two = (HaloReading(0, 0.1, 0.2), HaloReading(32, 0.02, 0.0))
    assert worst_readings([one, two]) == (HaloReading(0, 0.5, 0.2), HaloReading(32, 0.02, 0.001))
    assert worst_readings([one]) == one


def test_a_halo_that_fails_at_one_object_is_not_within() -> None:
    # What is 5 px beside the first core lights up a part of it, and nothing amid the plane.
    plane = plane_with((6, 36), shape=(48, 80))
    here = HaloImage(plane, centres((8, 24)))
    middle = measure_halos(
        maker(Reaching()), plane, core_px=CORE, halos=(0, 4, 8, 12), reference_px=16
    )
    assert [reading.within for reading in middle] == [True] * 4
    assert [reading.within for reading in measured(Reaching(), here)] == [False, False, True, True]
    nothing = HaloImage(np.zeros((1, 48, 80), np.float32), centres())
    assert measured(Reaching(), nothing, here) == measured(Reaching(), here)


def test_cores_are_taken_from_every_image_before_a_second_of_one() -> None:
    network = Counting()
    many = centres(*((y, x) for y in range(0, 160, 8) for x in range(0, 160, 8)))
    marked = plane_with((6, 36), shape=(48, 80))
    images = [HaloImage(np.zeros((1, 160, 160), np.float32), many)]
    images.append(HaloImage(marked, centres((8, 24))))
    readings = measured(network, *images)
    assert not readings[0].within
    # Five windows a core: the reference and four halos.
    assert network.windows == [48, 16, 24, 32, 40] * MOST_CORES


def test_a_core_is_measured_where_it_is_asked_for() -> None:
    plane = plane_with((6, 36), shape=(48, 80))
    found = measure_halos(
        maker(Reaching()), plane, core_px=CORE, halos=(0, 8), reference_px=16, corner=(0, 16)
    )
    assert [reading.within for reading in found] == [False, True]
    assert found[0].difference == pytest.approx(1 / (1 + np.exp(-4)) - 1 / (1 + np.exp(4)))
