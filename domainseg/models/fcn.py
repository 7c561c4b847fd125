"""Fully convolutional network: scores of several depths, added on the way up.

Long, Shelhamer, Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation":
a 1 x 1 convolution scores each depth, a transposed convolution that starts as bilinear
interpolation doubles the sum, and the next finer scores are added (FCN-32s, -16s, -8s, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from domainseg.models.encoders import feature_widths, input_scaling
from domainseg.models.network import EncoderDecoder
from domainseg.models.self_similarity import check_distances, encoder_beside


def bilinear_kernel(channels: int, factor: int) -> Tensor:
    """Return weights ``(C, C, 2f, 2f)`` with which a transposed convolution interpolates.

    Constant in, constant out, away from the border.
    """
    size = 2 * factor
    ramp = 1 - (torch.arange(size) - (factor - 0.5)).abs() / factor
    weight = torch.zeros(channels, channels, size, size)
    weight[range(channels), range(channels)] = ramp[:, None] * ramp[None, :]
    return weight


def _upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    layer = nn.ConvTranspose2d(
        channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False
    )
    with torch.no_grad():
        layer.weight.copy_(bilinear_kernel(channels, factor))
    return layer


class ScoreDecoder(nn.Module):
    """Scores per depth, coarsest first, doubled and added down to ``finest``, then to the image."""

    def __init__(self, encoder_channels: Sequence[int], *, outputs: int, finest: int) -> None:
        super().__init__()
        used = list(encoder_channels[finest:])
        self.finest = finest
        self.scores = nn.ModuleList(nn.Conv2d(c, outputs, 1) for c in used)
        # Finer scores start at zero, as in the paper: the coarse net is trained first of all.
        for score in list(self.scores)[:-1]:
            nn.init.zeros_(score.weight)  # type: ignore[arg-type]
        self.doublings = nn.ModuleList(_upsampling(outputs, 2) for _ in used[1:])
        self.last = _upsampling(outputs, 2**finest)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return ``(B, outputs, H, W)`` at the size of the image."""
        scores = [f(x) for f, x in zip(self.scores, features[self.finest :], strict=True)]
        total = scores.pop()
        for double, finer in zip(self.doublings, reversed(scores), strict=True):
            total = double(total) + finer
        result: Tensor = self.last(total)
        return result


@dataclass(frozen=True, slots=True)
class FCN:
    """FCN (Long et al. 2015) on any encoder.

    Attributes:
        encoder: backbone name, as segmentation-models-pytorch or timm spells it.
        weights: ``imagenet`` or None.
        depth: number of times the encoder halves the image; the stride is 2**depth.
        finest: depth of the finest scores; 3 with depth 5 is the paper's FCN-8s.
        self_similarity_px: as of `models.fpn.FPN`.
    """

    name: Literal["fcn"] = "fcn"
    encoder: str = "tf_efficientnet_lite0"
    weights: Literal["imagenet"] | None = "imagenet"
    depth: int = 5
    finest: int = 1
    self_similarity_px: tuple[int, int] | None = None

    family: ClassVar[str] = "maps"

    def __post_init__(self) -> None:
        check_distances(self.self_similarity_px)
        if not 2 <= self.depth <= 5:
            raise ValueError(f"depth is {self.depth}, wanted 2 to 5")
        if not 1 <= self.finest < self.depth:
            raise ValueError(f"finest is {self.finest}, wanted 1 to {self.depth - 1}")

    @property
    def stride(self) -> int:
        """Pixels per cell of the deepest feature map; windows are multiples of it."""
        return int(2**self.depth)

    def without_weights(self) -> Self:
        """Return the same architecture starting from random weights."""
        return replace(self, weights=None)

    def build(self, channels: int, outputs: int) -> EncoderDecoder:
        """Return the network for images of ``channels`` and a head of ``outputs`` maps."""
        encoder, beside = encoder_beside(self, channels)
        decoder = ScoreDecoder(feature_widths(encoder), outputs=outputs, finest=self.finest)
        return EncoderDecoder(
            encoder,
            decoder,
            nn.Identity(),
            scaling=input_scaling(self.encoder, self.weights, channels),
            beside=beside,
        )
