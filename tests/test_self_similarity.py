"""The image less its like nearby: patterns vanish, what is in them once stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from domainseg.models import self_similarity as room
from domainseg.models.self_similarity import SelfSimilarity, residues, self_similarity
from domainseg.models.unet import UNet

REACH_PX = 24 + 2 * room.REACH + 4
"""Farther than this from a pixel nothing matters to it."""


def residue(image: Tensor, nearest: int, farthest: int) -> Tensor:
    """Return the residue against all directions."""
    return residues(image, nearest, farthest)[:, : image.shape[1]]


def lines(period: int, *, side: int = 96) -> Tensor:
    """Return lines of half the period, ``(1, 1, side, side)``."""
    wave = ((torch.arange(side) % period) < period // 2).float()
    return (0.3 + 0.4 * wave).expand(side, side)[None, None].clone()


def vias(period: int, *, side: int = 96) -> Tensor:
    wave = ((torch.arange(side) % period) < period // 2).float()
    return (0.3 + 0.4 * wave[:, None] * wave[None])[None, None]


@pytest.mark.parametrize("period", [8, 11, 15, 24])
@pytest.mark.parametrize("pattern", [lines, vias])
def test_a_pattern_vanishes(period: int, pattern: object) -> None:
    assert callable(pattern)
    image = pattern(period)
    for turned in (image, image.mT.contiguous()):
        made = residue(turned, 8, 24).abs()
        # At the border squares reach into the mirrored image, whose phase is another.
        assert made[..., 6:-6, 6:-6].max() < 1e-3
        assert made.mean() < 0.02


@pytest.mark.parametrize("pattern", [lines(10), vias(10), torch.full((1, 1, 96, 96), 0.4)])
def test_a_spot_stays_whatever_lies_around_it(pattern: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 * torch.randn(pattern.shape, generator=generator)
    spot = torch.zeros_like(pattern)
    spot[..., 46:50, 46:50] = 0.06
    made = residue(pattern + noise + spot, 8, 24)
    inside = spot > 0
    assert 0.045 < made[inside].mean() < 0.075
    assert made[~inside].mean().abs() < 0.002
    # A little of it is in the mean as well, because squares that agree are counted most;
    # the middle, where nothing is mirrored.
    assert 0.0175 < made[..., 28:-28, 28:-28][~inside[..., 28:-28, 28:-28]].std() < 0.026


def test_light_that_grows_scales_the_residue_and_light_that_is_added_does_not() -> None:
    image = torch.rand((1, 1, 64, 64), generator=torch.Generator().manual_seed(1))
    made = residue(image, 8, 12)
    torch.testing.assert_close(residue(image + 0.5, 8, 12), made, rtol=0, atol=1e-5)
    torch.testing.assert_close(residue(2 * image, 8, 12), 2 * made, rtol=0, atol=2e-4)


def test_an_image_smaller_than_the_distances_has_a_residue_too() -> None:
    image = torch.rand((1, 1, 8, 40), generator=torch.Generator().manual_seed(7))
    assert residue(image, 8, 24).isfinite().all()
    assert residue(torch.full((1, 1, 2, 2), 0.3), 8, 24).abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(2, 2, 50, 64), (1, 1, 30, 300), (1, 3, 132, 34)])
def test_bands_and_blocks_change_nothing(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    whole = residue(image, 8, 16)
    monkeypatch.setattr(room, "BAND_ROWS", 5)
    assert torch.equal(residue(image, 8, 16), whole)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert torch.equal(residue(image, 8, 16), whole)


@pytest.mark.parametrize("distances", [(8, 24), (1, 1), (5, 40)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_processor_and_whole_planes_make_the_same(
    distances: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = torch.rand((1, channels, 70, 96), generator=torch.Generator().manual_seed(8))
    kernel = residues(image, *distances)
    margin = distances[1] + room.CELL * room.REACH
    mode = "reflect" if margin < 70 else "replicate"
    padded = torch.nn.functional.pad(image, (margin,) * 4, mode=mode)
    for strip in (room.STRIP_PX, 6 * 96):
        monkeypatch.setattr(room, "STRIP_PX", strip)
        planes = image.new_empty((room.RESIDUES, channels, 70, 96))
        room._in_planes(padded[0], planes, *distances)
        torch.testing.assert_close(kernel[0], planes.flatten(0, 1), rtol=0, atol=2e-6)


def test_a_far_pixel_changes_nothing() -> None:
    image = torch.rand((1, 1, 128, 128), generator=torch.Generator().manual_seed(3))
    before = residue(image, 8, 24)
    image[..., 64, 64] += 1.0
    changed = (residue(image, 8, 24) != before).nonzero()[:, 2:] - 64
    assert changed.abs().max() <= REACH_PX
    assert len(changed) > 100


def test_turned_and_mirrored_images_give_the_residue_turned_and_mirrored() -> None:
    image = torch.rand((1, 1, 64, 64), generator=torch.Generator().manual_seed(4))
    made = residue(image, 8, 16)
    for turns in range(4):
        for mirrored in (False, True):

            def moved(x: Tensor, turns: int = turns, mirrored: bool = mirrored) -> Tensor:
                x = torch.rot90(x, turns, (2, 3))
                return (x.flip(3) if mirrored else x).contiguous()

            torch.testing.assert_close(residue(moved(image), 8, 16), moved(made), rtol=0, atol=1e-5)


def test_channels_are_compared_together_and_each_has_its_residue() -> None:
    image = torch.rand((1, 1, 64, 64), generator=torch.Generator().manual_seed(5))
    one = residue(image, 8, 16)
    both = residue(torch.cat([image, image], 1), 8, 16)
    torch.testing.assert_close(both[:, :1], one, rtol=0, atol=2e-4)
    torch.testing.assert_close(both[:, 1:], one, rtol=0, atol=2e-4)
    # A channel without any structure is led by the other.
    striped = torch.cat([lines(10, side=64), 0.1 * lines(10, side=64)], 1)
    assert residue(striped, 8, 24)[:, 1].abs().max() < 1e-3


def test_training_sets_the_scale_and_prediction_keeps_it() -> None:
    generator = torch.Generator().manual_seed(6)
    module = SelfSimilarity(1, nearest=8, farthest=24).train()
    for _ in range(150):
        module(0.5 + 0.02 * torch.randn((2, 1, 64, 64), generator=generator))
    module.eval()
    weak = module(0.5 + 0.02 * torch.randn((1, 1, 64, 64), generator=generator))
    strong = module(0.5 + 0.06 * torch.randn((1, 1, 64, 64), generator=generator))
    assert 0.85 < weak.std() < 1.15
    assert 2.5 < strong.std() < 3.5
    assert not weak.requires_grad


def test_the_network_sees_the_residue_beside_the_image() -> None:
    torch.manual_seed(0)
    model = UNet(
        weights=None, depth=2, decoder_channels=(8, 8), image_skip=True, self_similarity_px=(8, 24)
    )
    network = model.build(1, 1).eval()
    seen: list[Tensor] = []
    network.encoder.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        network(image)
    assert isinstance(network.beside, SelfSimilarity)
    assert seen[0].shape == (1, 4, 64, 64)
    np.testing.assert_array_equal(seen[0][:, 1:], network.beside(image))


def test_no_distances_make_no_module() -> None:
    assert self_similarity(1, None) is None


def test_what_runs_along_lines_stays_in_the_residue_across_them() -> None:
    image = lines(10)
    scratch = torch.zeros_like(image)
    scratch[..., 46:49] = 0.1
    made = residues(image + scratch, 8, 24)
    inside = scratch[0, 0] > 0
    everywhere, along_rows, along_columns = made[0]
    # Lines run along columns: there the scratch is like itself, across them nothing is like it.
    assert everywhere[inside].abs().max() < 0.01
    assert along_columns[inside].abs().max() < 0.01
    assert 0.09 < along_rows[inside].mean() < 0.11
    assert along_rows[~inside].abs().mean() < 0.01
    turned = residues((image + scratch).mT.contiguous(), 8, 24)[0]
    torch.testing.assert_close(turned[2], along_rows.mT.contiguous(), rtol=0, atol=1e-5)
