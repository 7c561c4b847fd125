"""Tiles: cores partition, windows reflect, and what the tiling can change in the maps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.models.network import whole_window_layers
from domainseg.tiling.forward import MapMaker, forward_maps
from domainseg.tiling.grid import (
    Lattice,
    core_in_window,
    core_shape,
    covers,
    read_window,
    reflected,
    tiles,
)
from domainseg.tiling.halo import HaloReading, measure_halos, sufficient_halo

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))
LATTICES = st.builds(
    lambda stride, core, halo, batch: Lattice(core * stride, halo * stride, stride, batch),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 3),
)


@dataclass(frozen=True)
class Planes:
    foreground: Tensor
    height: Tensor
    classes: Tensor


def as_maps(scores: Tensor) -> Planes:
    """Logit, height and class are channels 0, 1 and 2."""
    return Planes(scores[:, :1], scores[:, 1:2], scores[:, 2:3].to(torch.uint8))


def maker(network: nn.Module) -> MapMaker:
    return MapMaker(network.eval(), as_maps, 1, torch.device("cpu"))


@settings(deadline=None)
@given(SHAPES, LATTICES)
def test_cores_partition_the_image(shape: tuple[int, int], lattice: Lattice) -> None:
    seen = np.zeros(shape, int)
    for tile in tiles(shape, lattice):
        (y0, x0), (y1, x1) = tile.core
        assert 0 <= y0 < y1 <= shape[0]
        assert 0 <= x0 < x1 <= shape[1]
        seen[y0:y1, x0:x1] += 1
    assert (seen == 1).all()


@settings(deadline=None)
@given(SHAPES, LATTICES)
def test_windows_of_one_image_have_one_shape_and_start_at_multiples_of_the_stride(
    shape: tuple[int, int], lattice: Lattice
) -> None:
    grid = tiles(shape, lattice)
    assert len({tile.shape for tile in grid}) == 1
    for tile in grid:
        assert all(n % lattice.stride_px == 0 for n in (*tile.origin, *tile.shape))


@settings(deadline=None)
@given(SHAPES, LATTICES, st.data())
def test_an_offset_moves_the_borders_and_nothing_else(
    shape: tuple[int, int], lattice: Lattice, data: st.DataObject
) -> None:
    steps = st.integers(0, lattice.core_px // lattice.stride_px - 1)
    y, x = (data.draw(steps) * lattice.stride_px for _ in range(2))
    grid = tiles(shape, lattice, offset=(y, x))
    seen = np.zeros(shape, int)
    for tile in grid:
        (y0, x0), (y1, x1) = tile.core
        seen[y0:y1, x0:x1] += 1
        inner = core_in_window(tile)
        assert all(0 <= s.start < s.stop <= n for s, n in zip(inner, tile.shape, strict=True))
        assert all(n % lattice.stride_px == 0 for n in (*tile.origin, *tile.shape))
        if (y, x) != (0, 0):
            assert y0 == 0 or (y0 - y) % lattice.core_px == 0
            assert x0 == 0 or (x0 - x) % lattice.core_px == 0
    assert (seen == 1).all()
    assert len({tile.shape for tile in grid}) == 1


def test_the_first_cores_end_at_the_offset() -> None:
    grid = tiles((20, 9), Lattice(8, 4, 4), offset=(4, 0))
    assert [tile.core for tile in grid] == [
        ((0, 0), (4, 8)),
        ((0, 8), (4, 9)),
        ((4, 0), (12, 8)),
        ((4, 8), (12, 9)),
        ((12, 0), (20, 8)),
        ((12, 8), (20, 9)),
    ]
    assert grid[0].origin == (-8, -4)
    # An image that one core would hold is cut where the offset says so.
    assert [tile.core for tile in tiles((6, 6), Lattice(8, 4, 4), offset=(4, 0))] == [
        ((0, 0), (4, 6)),
        ((4, 0), (6, 6)),
    ]


@pytest.mark.parametrize("offset", [(2, 0), (0, 8), (-4, 0)])
def test_an_offset_off_the_stride_or_beyond_the_core_is_refused(offset: tuple[int, int]) -> None:
    message = (
        rf"offset is \({offset[0]}, {offset[1]}\), wanted multiples of the network's stride 4 "
    )
    with pytest.raises(ValueError, match=message + "below 8"):
        tiles((20, 20), Lattice(8, 4, 4), offset=offset)


def test_an_image_that_fits_in_a_core_is_padded_to_the_stride_only() -> None:
    (tile,) = tiles((30, 17), Lattice(64, 32, 16))
    assert tile.origin == (0, 0)
    assert tile.shape == (32, 32)
    assert tile.core == ((0, 0), (30, 17))
    assert covers(tile, np.zeros((1, 30, 17)))
    assert not covers(tiles((65, 17), Lattice(64, 32, 16))[0], np.zeros((1, 65, 17)))


@pytest.mark.parametrize(
    ("core", "halo", "message"),
    [
        (48, 32, "core_px is 48, wanted a multiple of the network's stride 32"),
        (0, 32, "core_px is 0, wanted a multiple of the network's stride 32"),
        (64, 20, "halo_px is 20, wanted a multiple of the network's stride 32"),
        (64, -32, "halo_px is -32, wanted a multiple of the network's stride 32"),
    ],
)
def test_a_lattice_off_the_stride_is_refused(core: int, halo: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lattice(core, halo, 32)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 25), st.integers(0, 25))
def test_reflection_is_that_of_numpy(size: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(size), (before, after), mode="reflect")
    np.testing.assert_array_equal(reflected(-before, before + size + after, size), expected)


@settings(deadline=None)
@given(SHAPES, LATTICES)
def test_a_window_is_the_padded_image(shape: tuple[int, int], lattice: Lattice) -> None:
    image = np.arange(shape[0] * shape[1]).reshape(1, *shape)
    reach = lattice.halo_px + lattice.core_px
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    for tile in tiles(shape, lattice):
        y, x = (o + reach for o in tile.origin)
        h, w = tile.shape
        np.testing.assert_array_equal(read_window(image, tile), padded[:, y : y + h, x : x + w])


@settings(deadline=None, max_examples=40)
@given(SHAPES, LATTICES)
def test_cut_and_stitch_is_identity(shape: tuple[int, int], lattice: Lattice) -> None:
    pixels = np.arange(shape[0] * shape[1]).reshape(shape)
    image = np.stack([pixels % 255 / 16 - 8, pixels % 1001 / 1000, pixels % 7]).astype(np.float32)
    maps = forward_maps(maker(nn.Identity()), image, lattice)
    np.testing.assert_array_equal(maps.foreground[0], pixels % 255)
    np.testing.assert_array_equal(maps.height[0], np.rint(image[1] * 65535))
    np.testing.assert_array_equal(maps.classes[0], pixels % 7)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(len(image))
        return image


def test_every_batch_has_one_shape_and_a_small_image_is_run_once() -> None:
    network = Counting()
    forward_maps(maker(network), np.zeros((3, 8, 40), np.float32), Lattice(8, 0, 8, batch=3))
    assert network.batches == [3, 3]
    network.batches.clear()
    forward_maps(maker(network), np.zeros((3, 8, 8), np.float32), Lattice(8, 0, 8, batch=3))
    assert network.batches == [1]


def turned(image: NDArray[np.float32], turn: int) -> NDArray[np.float32]:
    """Return one of the 8 symmetries of planes ``(..., h, w)``."""
    mirrored = image[..., ::-1] if turn >= 4 else image
    return np.ascontiguousarray(np.rot90(mirrored, turn, (-2, -1)))


def test_symmetries_see_each_window_in_eight_ways_and_turn_the_scores_back() -> None:
    seen: list[NDArray[np.float32]] = []

    class Watching(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            seen.append(image.numpy().copy())
            return image

    window = np.arange(2 * 3 * 4 * 6, dtype=np.float32).reshape(2, 3, 4, 6)
    before = window.copy()
    eight = replace(maker(Watching()), symmetries=8)
    np.testing.assert_allclose(eight.scores(torch.from_numpy(window)).numpy(), before, rtol=1e-6)
    np.testing.assert_array_equal(window, before)
    assert {image.tobytes() for image in seen} == {
        turned(before, turn).tobytes() for turn in range(8)
    }
    assert len(seen) == 8


def test_where_the_channel_of_support_is_empty_nothing_is_seen() -> None:
    made = replace(maker(nn.Conv2d(2, 1, 1)), support=1)
    windows = np.random.default_rng(0).random((1, 2, 6, 6), np.float32)
    free = replace(made, support=None)(windows).foreground
    kept = made(windows).foreground
    off = torch.from_numpy(windows[:, 1:] < 0.5)
    assert off.any()
    assert torch.equal(kept, torch.where(off, torch.tensor(-8.0), free))


def test_scores_over_symmetries_turn_with_the_image() -> None:
    image = np.random.default_rng(4).random((1, 3, 24, 16), np.float32)
    network = convolutions(3)
    eight, one = replace(maker(network), symmetries=8), maker(network)
    plain = eight.scores(torch.from_numpy(image)).numpy()
    for turn in range(8):
        got = eight.scores(torch.from_numpy(turned(image, turn))).numpy()
        np.testing.assert_allclose(got, turned(plain, turn), atol=1e-5)
    assert np.abs(one.scores(torch.from_numpy(image)).numpy() - plain).max() > 0.01


def test_scores_over_symmetries_are_the_mean_of_single_passes() -> None:
    image = np.random.default_rng(5).random((1, 3, 8, 8), np.float32)
    network = convolutions(2)
    passes = []
    for turn in range(8):
        back = np.rot90(scores(network, turned(image[0], turn)), -turn, (-2, -1))
        passes.append(back[..., ::-1] if turn >= 4 else back)
    made = replace(maker(network), symmetries=8)(image)
    np.testing.assert_allclose(made.foreground[0, 0], np.mean(passes, 0)[0], atol=1e-5)


def convolutions(count: int, *, size: int = 3) -> nn.Module:
    """Return a network whose receptive field reaches ``count * (size // 2)`` px.

    Convolutions do not pad the window with their own zeros but with its mirror, so that an
    untiled pass is the same function of the image.
    """
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(3, 3, size, padding=size // 2, bias=False), nn.Tanh()]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.4)
    return nn.Sequential(*layers)


def scores(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        out: NDArray[np.float32] = network(torch.from_numpy(image[None]))[0].numpy()
    return out


@pytest.mark.parametrize("origin", [(16, 16), (24, 40)])
def test_a_core_is_exact_where_the_halo_holds_the_receptive_field(origin: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random((3, 96, 96), np.float32)
    network = convolutions(4)
    whole = scores(network, image)
    y, x = origin
    for halo, exact in ((4, True), (3, False)):
        part = scores(network, image[:, y - halo : y + 8 + halo, x - halo : x + 8 + halo])
        core = part[:, halo : halo + 8, halo : halo + 8]
        difference = np.abs(core - whole[:, y : y + 8, x : x + 8]).max()
        assert (difference < 1e-5) == exact


def test_tiled_maps_equal_each_other_for_every_core_beyond_the_receptive_field() -> None:
    image = np.random.default_rng(2).random((3, 50, 61), np.float32)
    make = maker(convolutions(4))
    one = forward_maps(make, image, Lattice(16, 4, 4))
    for lattice in (Lattice(8, 4, 4), Lattice(24, 8, 4, batch=2), Lattice(48, 4, 4)):
        other = forward_maps(make, image, lattice)
        # A logit may lie on the edge between two quanta, and sums in another order.
        assert np.abs(one.foreground.astype(int) - other.foreground).max() <= 1
        assert (one.foreground != other.foreground).mean() < 1e-3
    short = forward_maps(make, image, Lattice(8, 0, 4))
    assert (one.foreground != short.foreground).mean() > 0.02


def test_the_measured_halo_is_the_receptive_field() -> None:
    image = np.random.default_rng(3).random((3, 128, 128), np.float32)
    network = convolutions(3, size=5)
    readings = measure_halos(
        maker(nn.Sequential(network, Louder())),
        image,
        core_px=32,
        halos=(0, 2, 4, 6, 8),
        reference_px=24,
    )
    assert [r.halo_px for r in readings] == [0, 2, 4, 6, 8]
    assert all(r.difference > 1e-5 for r in readings[:3])
    assert all(r.difference < 1e-5 and r.flipped == 0 for r in readings[3:])
    assert not readings[0].within


class Louder(nn.Module):
    def forward(self, scores: Tensor) -> Tensor:
        return 8 * scores


def test_the_halo_after_the_first_within_both_tolerances_is_chosen() -> None:
    readings = (
        HaloReading(0, 0.5, 0.0),
        HaloReading(32, 0.01, 0.001),
        HaloReading(64, 0.02, 0.0001),
        HaloReading(96, 0.0, 0.0),
        HaloReading(128, 0.0, 0.0),
    )
    assert sufficient_halo(readings).halo_px == 96
    assert sufficient_halo(readings[:3]).halo_px == 64
    assert sufficient_halo(readings[:2]).halo_px == 32
    assert sufficient_halo(readings[2:]).halo_px == 96


def test_a_halo_that_only_happens_to_agree_is_not_chosen() -> None:
    readings = (
        HaloReading(0, 0.5, 0.0),
        HaloReading(32, 0.01, 0.0),
        HaloReading(64, 0.05, 0.0),
        HaloReading(96, 0.01, 0.0),
        HaloReading(128, 0.0, 0.0),
    )
    assert sufficient_halo(readings).halo_px == 128


def test_the_halo_is_measured_on_a_plane_smaller_than_the_core() -> None:
    image = np.random.default_rng(3).random((3, 9, 5), np.float32)
    (reading,) = measure_halos(maker(nn.Identity()), image, core_px=32, halos=(0,), reference_px=16)
    assert reading == HaloReading(0, 0.0, 0.0)


class SqueezeExcite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


@pytest.mark.parametrize(
    "layer",
    [
        nn.GroupNorm(1, 4),
        nn.InstanceNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool2d(1),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.UpsamplingBilinear2d(scale_factor=2),
        SqueezeExcite(),
    ],
)
def test_a_layer_that_sees_the_whole_window_is_named(layer: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 3), layer)
    assert whole_window_layers(network) == (f"1 ({type(layer).__name__})",)


def test_layers_that_see_a_neighbourhood_are_not_named() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
    )
    assert whole_window_layers(network) == ()


def test_cores_are_as_few_as_allowed_and_of_one_size() -> None:
    assert core_shape((8192, 8192), Lattice(2048, 192, 32)) == (2048, 2048)
    assert core_shape((2967, 2220), Lattice(2048, 192, 32)) == (1504, 1120)
    assert core_shape((1, 5000), Lattice(2048, 192, 32)) == (32, 1696)
    grid = tiles((2967, 2220), Lattice(2048, 192, 32))
    assert len(grid) == 4
    assert {tile.shape for tile in grid} == {(1888, 1504)}


@settings(deadline=None)
@given(SHAPES, LATTICES)
def test_no_core_is_larger_than_allowed(shape: tuple[int, int], lattice: Lattice) -> None:
    sides = core_shape(shape, lattice)
    for side, length in zip(sides, shape, strict=True):
        assert side % lattice.stride_px == 0
        assert side <= lattice.core_px
        assert -(-length // side) == -(-length // lattice.core_px)
