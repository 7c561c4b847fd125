"""Depthwise convolutions: the detour that trains fast computes what it replaces."""

from __future__ import annotations

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from domainseg.models.depthwise import DepthwiseConv2d, with_fast_depthwise
from domainseg.models.encoders import build_encoder


def made(size: int, stride: int, *, same: bool, bias: bool = False) -> nn.Conv2d:
    torch.manual_seed(size + stride)
    kind, padding = (Conv2dSame, 0) if same else (nn.Conv2d, size // 2)
    return kind(8, 8, size, stride=stride, padding=padding, groups=8, bias=bias)


def through(layer: nn.Module, image: Tensor, *, bf16: bool) -> tuple[Tensor, Tensor]:
    """Return what a layer makes of an image, and the gradient at the image."""
    image = image.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = layer(image)
    out.float().square().sum().backward()
    assert image.grad is not None
    return out, image.grad


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("side", [16, 17])
def test_in_float32_it_is_the_layer_that_it_replaces(
    size: int, stride: int, same: bool, side: int
) -> None:
    layer = made(size, stride, same=same, bias=True)
    image = torch.randn(2, 8, side, side, generator=torch.Generator().manual_seed(0))
    for a, b in zip(
        through(DepthwiseConv2d(layer).train(), image, bf16=False),
        through(layer, image, bf16=False),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("side", [16, 17])
def test_in_bfloat16_it_differs_by_rounding(size: int, stride: int, same: bool, side: int) -> None:
    layer = made(size, stride, same=same, bias=True)
    image = torch.randn(2, 8, side, side, generator=torch.Generator().manual_seed(0))
    fast = DepthwiseConv2d(layer)
    out, gradient = through(fast.train(), image, bf16=True)
    exact, exact_gradient = through(layer, image, bf16=False)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, rtol=0.02, atol=0.03)
    torch.testing.assert_close(gradient, exact_gradient, rtol=0.05, atol=0.2)
    # Outside training nothing takes the detour, and no image is copied to be padded.
    for bf16 in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            torch.testing.assert_close(
                fast.eval()(image), layer.eval()(image), rtol=0, atol=0.01 if bf16 else 1e-6
            )


def test_an_encoder_keeps_its_names_and_weights_and_loses_no_depthwise_layer() -> None:
    encoder = build_encoder("tf_efficientnet_lite0", None, channels=1, depth=4)
    kinds = [m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(kinds) > 5
    assert all(isinstance(module, DepthwiseConv2d) for module in kinds)
    before = encoder.state_dict()
    again = with_fast_depthwise(encoder)
    assert list(again.state_dict()) == list(before)
    assert all(not tensor.is_meta for tensor in again.state_dict().values())


def test_dense_and_grouped_layers_stay() -> None:
    layers = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(1, 1, 3))
    with_fast_depthwise(layers)
    assert not any(isinstance(module, DepthwiseConv2d) for module in layers)
