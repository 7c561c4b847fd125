"""The network every dense architecture builds: encoder, decoder, one output convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from domainseg.models.encoders import InputScaling

_GLOBAL_POOLING = {"SqueezeExcite", "SEModule", "EffectiveSEModule", "SCSEModule", "Attention2d"}


class EncoderDecoder(nn.Module):
    """Image in [0, 1] to ``outputs`` maps of the same size.

    The input is float ``(B, C, H, W)`` with H and W multiples of ``stride``. With ``beside`` the
    encoder has ``2 * C`` channels: what that module makes of the image stands beside it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        head: nn.Module,
        *,
        scaling: InputScaling,
        beside: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head
        self.beside = beside
        self.register_buffer("mean", torch.tensor(scaling.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(scaling.std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return raw scores, float ``(B, outputs, H, W)``."""
        scaled = (image - self.mean) / self.std
        if self.beside is not None:
            scaled = torch.cat([scaled, self.beside(image)], dim=1)
        features: Sequence[Tensor] = self.encoder(scaled)
        scores: Tensor = self.head(self.decoder(features))
        return scores


def output_convolution(channels: int, outputs: int) -> nn.Conv2d:
    """Return the last 3 x 3 convolution, small weights and zero bias, so training starts calm."""
    convolution = nn.Conv2d(channels, outputs, kernel_size=3, padding=1)
    nn.init.normal_(convolution.weight, std=0.01)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


def whole_window_layers(network: nn.Module) -> tuple[str, ...]:
    """Return names of layers whose output at a pixel depends on the whole window.

    With such a layer the maps change with the tiling beyond any halo: group, instance
    and layer norm over positions, squeeze-and-excitation and other global pooling,
    interpolation with aligned corners.
    """
    names = []
    for name, module in network.named_modules():
        kind = type(module).__name__
        pooled = isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)
        normed = isinstance(module, nn.GroupNorm | nn.InstanceNorm2d)
        aligned = bool(getattr(module, "align_corners", False))
        squeezed = kind in _GLOBAL_POOLING
        if pooled or normed or aligned or squeezed:
            names.append(f"{name} ({kind})")
    return tuple(names)
