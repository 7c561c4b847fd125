"""Feature pyramid network for dense prediction, with a decoder that can be tiled.

The semantic branch of Kirillov et al. 2019 (Panoptic Feature Pyramid Networks,
section 4.1), with BatchNorm in the place of GroupNorm and bilinear upsampling without
aligned corners: both replaced layers see the whole window, so that the prediction at a
pixel would depend on the tile that it lies in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.models.encoders import feature_widths, input_scaling
from domainseg.models.network import EncoderDecoder, output_convolution
from domainseg.models.self_similarity import check_distances, encoder_beside


def _twice(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)


def _convolution(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


class PyramidLevel(nn.Module):
    """One pyramid level brought up to the finest: convolutions, each followed by a doubling."""

    def __init__(self, pyramid: int, width: int, *, doublings: int) -> None:
        super().__init__()
        self.doublings = doublings
        count = max(1, doublings)
        self.convolutions = nn.ModuleList(
            _convolution(pyramid if i == 0 else width, width) for i in range(count)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(B, width, h, w)`` at the resolution of the finest level."""
        for convolution in self.convolutions:
            features = convolution(features)
            if self.doublings:
                features = _twice(features)
        return features


class PyramidDecoder(nn.Module):
    """Top-down pyramid over the encoder's strides ``finest`` and coarser, summed at ``finest``."""

    def __init__(
        self,
        encoder_channels: Sequence[int],
        *,
        pyramid: int,
        width: int,
        finest: int,
        refinements: int,
    ) -> None:
        super().__init__()
        used = list(encoder_channels[finest:])
        self.finest = finest
        self.lateral = nn.ModuleList(nn.Conv2d(c, pyramid, 1) for c in used)
        self.levels = nn.ModuleList(
            PyramidLevel(pyramid, width, doublings=i) for i in range(len(used))
        )
        self.refinements = nn.Sequential(*(_convolution(width, width) for _ in range(refinements)))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return ``(B, width, H, W)`` at the size of the image, ``features[0]``'s."""
        laterals = [f(x) for f, x in zip(self.lateral, features[self.finest :], strict=True)]
        pyramid = [laterals[-1]]
        for finer in reversed(laterals[:-1]):
            pyramid.insert(0, finer + _twice(pyramid[0]))
        merged = sum(level(p) for level, p in zip(self.levels, pyramid, strict=True))
        merged = self.refinements(merged)
        for _ in range(self.finest):
            merged = _twice(merged)
        assert isinstance(merged, Tensor)
        return merged


@dataclass(frozen=True, slots=True)
class FPN:
    """FPN (Lin et al. 2017) with the semantic branch of Kirillov et al. 2019.

    Attributes:
        encoder: backbone name, as segmentation-models-pytorch or timm spells it.
        weights: ``imagenet`` or None.
        depth: number of times the encoder halves the image; the stride is 2**depth.
        finest: depth of the finest level of the pyramid: 1 = half the image's resolution,
            0 = the image's own pixels join the pyramid.
        pyramid_channels: width of the top-down path.
        decoder_channels: width of the semantic branch.
        refinements: 3 x 3 convolutions after the levels are summed, at the finest: what is
            a pixel wide among noise takes more than the one that the finest level has.
        self_similarity_px: least and greatest distance at which the image is compared with
            itself; what is unlike anything there is shown to the network beside the image
            (`models.self_similarity`), which it takes to find small defects in a pattern.
            None shows the image alone.
    """

    name: Literal["fpn"] = "fpn"
    encoder: str = "tf_efficientnet_lite0"
    weights: Literal["imagenet"] | None = "imagenet"
    depth: int = 5
    finest: int = 1
    pyramid_channels: int = 96
    decoder_channels: int = 48
    refinements: int = 0
    self_similarity_px: tuple[int, int] | None = None

    family: ClassVar[str] = "maps"

    def __post_init__(self) -> None:
        check_distances(self.self_similarity_px)
        if not 2 <= self.depth <= 5:
            raise ValueError(f"depth is {self.depth}, wanted 2 to 5")
        if not 0 <= self.finest < self.depth:
            raise ValueError(f"finest is {self.finest}, wanted 0 to {self.depth - 1}")
        if self.refinements < 0:
            raise ValueError(f"refinements is {self.refinements}, wanted 0 or more")

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
        decoder = PyramidDecoder(
            feature_widths(encoder),
            pyramid=self.pyramid_channels,
            width=self.decoder_channels,
            finest=self.finest,
            refinements=self.refinements,
        )
        return EncoderDecoder(
            encoder,
            decoder,
            output_convolution(self.decoder_channels, outputs),
            scaling=input_scaling(self.encoder, self.weights, channels),
            beside=beside,
        )
