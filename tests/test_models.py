"""Architectures: what they give, what they cannot be, and that they can be tiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from domainseg.models.encoders import feature_widths
from domainseg.models.fcn import FCN, ScoreDecoder, bilinear_kernel
from domainseg.models.fpn import FPN
from domainseg.models.network import whole_window_layers
from domainseg.models.unet import UNet

Model = UNet | FPN | FCN
SMALL: tuple[Model, ...] = (
    UNet(weights=None, depth=3, decoder_channels=(16, 8, 8)),
    UNet(weights=None, depth=3, decoder_channels=(16, 8, 8), image_skip=True),
    FPN(weights=None, depth=3, pyramid_channels=16, decoder_channels=8),
    FPN(weights=None, depth=3, finest=0, pyramid_channels=8, decoder_channels=8, refinements=2),
    FCN(weights=None, depth=3),
    FPN(weights=None, depth=3, pyramid_channels=8, decoder_channels=8, self_similarity_px=(8, 16)),
    FCN(weights=None, depth=3, self_similarity_px=(4, 8)),
)
NAMES = ["unet", "unet-image-skip", "fpn", "fpn-refined", "fcn", "fpn-similar", "fcn-similar"]


@pytest.mark.parametrize("model", SMALL, ids=NAMES)
def test_scores_have_the_size_of_the_image(model: Model) -> None:
    network = model.build(2, 5).eval()
    assert model.stride == 8
    with torch.inference_mode():
        assert network(torch.zeros(2, 2, 16, 24)).shape == (2, 5, 16, 24)


def test_an_image_skip_lets_the_finest_level_see_what_the_encoder_halved_away() -> None:
    torch.manual_seed(0)
    halves = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)  # nothing once halved
    for image_skip in (False, True):
        network = UNet(
            weights=None, depth=3, decoder_channels=(16, 8, 8), image_skip=image_skip
        ).build(1, 1)
        network.eval()
        features = [
            halves[None, None],
            *(
                torch.zeros(1, c, 32 >> k, 32 >> k)
                for k, c in enumerate(feature_widths(network.encoder)[1:], 1)
            ),
        ]
        with torch.inference_mode():
            assert bool(network.decoder(features).std(dim=(2, 3)).max() > 1e-3) == image_skip


@pytest.mark.parametrize("model", SMALL, ids=NAMES)
def test_every_parameter_learns(model: Model) -> None:
    torch.manual_seed(0)
    network = model.build(3, 2)
    # Scores that start at zero pass nothing on in the first step.
    for parameter in network.decoder.parameters():
        nn.init.normal_(parameter, std=0.1)
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("model", SMALL, ids=NAMES)
def test_no_layer_sees_the_whole_window(model: Model) -> None:
    assert whole_window_layers(model.build(3, 2)) == ()


@pytest.mark.parametrize("model", SMALL, ids=NAMES)
def test_a_far_pixel_changes_nothing_here(model: Model) -> None:
    torch.manual_seed(0)
    network = model.build(1, 2).eval()
    image = torch.rand(1, 1, 64, 512)
    other = image.clone()
    other[..., 448:] = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        a, b = network(image), network(other)
    assert torch.equal(a[..., :64], b[..., :64])
    assert not torch.equal(a[..., 448:], b[..., 448:])


@pytest.mark.parametrize("model", SMALL, ids=NAMES)
def test_a_shift_by_the_stride_shifts_the_scores(model: Model) -> None:
    torch.manual_seed(0)
    network = model.build(1, 2).eval()
    image = torch.rand(1, 1, 128, 512)
    with torch.inference_mode():
        whole, part = network(image), network(image[..., 8:])
    torch.testing.assert_close(whole[..., 256:272], part[..., 248:264], rtol=1e-4, atol=1e-5)


def test_an_encoder_with_squeeze_and_excitation_is_named() -> None:
    model = UNet(encoder="mobilenetv3_small_050", weights=None, depth=3, decoder_channels=(8, 8, 8))
    names = whole_window_layers(model.build(3, 2))
    assert names
    assert all("SqueezeExcite" in name for name in names)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNet(depth=6), "depth is 6, wanted 1 to 5"),
        (
            lambda: UNet(depth=4),
            "decoder_channels has 5 numbers, wanted one per level, that is 4",
        ),
        (lambda: FPN(depth=1), "depth is 1, wanted 2 to 5"),
        (lambda: FPN(depth=3, finest=3), "finest is 3, wanted 0 to 2"),
        (lambda: FPN(refinements=-1), "refinements is -1, wanted 0 or more"),
        (
            lambda: FPN(self_similarity_px=(9, 8)),
            "self_similarity_px is 9, 8, wanted two integers from 1 to 128, the nearest first",
        ),
        (lambda: UNet(self_similarity_px=(0, 8)), "self_similarity_px is 0, 8, wanted"),
        (lambda: FCN(self_similarity_px=(8, 129)), "self_similarity_px is 8, 129, wanted"),
        (lambda: FCN(depth=1), "depth is 1, wanted 2 to 5"),
        (lambda: FCN(depth=2, finest=0), "finest is 0, wanted 1 to 1"),
    ],
)
def test_what_cannot_be_built_is_refused(make: Callable[[], Model], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("model", SMALL, ids=NAMES)
def test_a_model_can_start_without_weights(model: Model) -> None:
    assert type(model)(depth=5).without_weights().weights is None


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_bilinear_kernel_keeps_a_constant_and_interpolates_a_ramp(factor: int) -> None:
    layer = nn.ConvTranspose2d(1, 1, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(bilinear_kernel(1, factor))
        constant = layer(torch.ones(1, 1, 6, 6))[0, 0]
        ramp = layer(torch.arange(6.0).expand(1, 1, 6, 6))[0, 0]
    assert constant.shape == (6 * factor, 6 * factor)
    inner = slice(factor, -factor)
    np.testing.assert_allclose(constant[inner, inner], 1.0, rtol=1e-6)
    positions = (np.arange(6 * factor) + 0.5) / factor - 0.5
    np.testing.assert_allclose(ramp[factor, inner], positions[inner], rtol=1e-5)


def test_an_fcn_adds_the_scores_of_its_depths() -> None:
    decoder = ScoreDecoder((1, 1, 1), outputs=1, finest=1)
    for score, value in zip(decoder.scores, (10.0, 1.0), strict=True):
        assert isinstance(score, nn.Conv2d)
        assert score.bias is not None
        nn.init.zeros_(score.weight)
        nn.init.constant_(score.bias, value)
    features = [torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)]
    inner = decoder(features)[0, 0, 4:12, 4:12]
    torch.testing.assert_close(inner, torch.full((8, 8), 11.0))


def test_finer_scores_of_an_fcn_start_at_zero() -> None:
    decoder = ScoreDecoder((3, 4, 5, 6), outputs=2, finest=1)
    weights = [score.weight for score in decoder.scores if isinstance(score, nn.Conv2d)]
    assert [bool(weight.any()) for weight in weights] == [False, False, True]
