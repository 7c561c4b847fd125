"""U-Net: an encoder, and a decoder that concatenates each depth's features on the way up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder, UnetDecoderBlock
from torch import Tensor, nn

from domainseg.models.encoders import feature_widths, input_scaling
from domainseg.models.network import EncoderDecoder, output_convolution
from domainseg.models.self_similarity import check_distances, encoder_beside


def _decoder(encoder_channels: Sequence[int], decoder_channels: Sequence[int]) -> UnetDecoder:
    return UnetDecoder(
        encoder_channels=encoder_channels,
        decoder_channels=decoder_channels,
        n_blocks=len(decoder_channels),
        use_norm="batchnorm",
        add_center_block=False,
        attention_type=None,
    )


class _ImageSkipDecoder(nn.Module):
    """The library's blocks, the last of which sees the image beside what came up to it."""

    def __init__(self, encoder_channels: Sequence[int], decoder_channels: Sequence[int]) -> None:
        super().__init__()
        deepest, *skips = reversed(encoder_channels)
        inputs = (deepest, *decoder_channels[:-1])
        self.blocks = nn.ModuleList(
            UnetDecoderBlock(*widths)
            for widths in zip(inputs, skips, decoder_channels, strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return ``(B, width, H, W)`` at the size of the image, ``features[0]``."""
        deep, *skips = reversed(features)
        for block, skip in zip(self.blocks, skips, strict=True):
            deep = block(deep, *skip.shape[2:], skip_connection=skip)
        return deep


@dataclass(frozen=True, slots=True)
class UNet:
    """U-Net (Ronneberger et al. 2015) with any encoder of segmentation-models-pytorch or timm.

    Attributes:
        encoder: backbone name, as either library spells it.
        weights: ``imagenet`` or None.
        depth: number of times the encoder halves the image; the stride is 2**depth.
        decoder_channels: width of each decoder level, deepest first, ``depth`` numbers.
        image_skip: whether the image itself joins the finest level, as the encoder's features
            join the others; without, that level sees what was halved before, and what is few
            pixels across is lost.
        self_similarity_px: least and greatest distance at which the image is compared with
            itself; what is unlike anything there is shown to the network beside the image
            (`models.self_similarity`), which it takes to find small defects in a pattern.
            None shows the image alone.
    """

    name: Literal["unet"] = "unet"
    encoder: str = "tf_efficientnet_lite0"
    weights: Literal["imagenet"] | None = "imagenet"
    depth: int = 5
    decoder_channels: tuple[int, ...] = (128, 64, 48, 32, 16)
    image_skip: bool = False
    self_similarity_px: tuple[int, int] | None = None

    family: ClassVar[str] = "maps"

    def __post_init__(self) -> None:
        check_distances(self.self_similarity_px)
        if not 1 <= self.depth <= 5:
            raise ValueError(f"depth is {self.depth}, wanted 1 to 5")
        if len(self.decoder_channels) != self.depth:
            raise ValueError(
                f"decoder_channels has {len(self.decoder_channels)} numbers, "
                f"wanted one per level, that is {self.depth}"
            )

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
        decoder = (_ImageSkipDecoder if self.image_skip else _decoder)(
            feature_widths(encoder), self.decoder_channels
        )
        return EncoderDecoder(
            encoder,
            decoder,
            output_convolution(self.decoder_channels[-1], outputs),
            scaling=input_scaling(self.encoder, self.weights, channels),
            beside=beside,
        )
