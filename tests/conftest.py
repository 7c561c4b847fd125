"""Fixtures of several files: a network whose answer is known, and recipes around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture
def recipe_values() -> Callable[..., dict[str, Any]]:
    """Return what makes the values of a tiny recipe; ``section={...}`` changes a section."""

    def make(**sections: Mapping[str, Any]) -> dict[str, Any]:
        values: dict[str, dict[str, Any]] = {
            "data": {
                "loader": {"name": "scenes", "train": 3, "val": 1, "test": 1},
                "split": {"by": "column", "column": "split"},
                "normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0},
            },
            "model": {
                "name": "unet",
                "encoder": "tf_efficientnet_lite0",
                "weights": None,
                "depth": 2,
                "decoder_channels": [8, 8],
            },
            "head": {"name": "height", "smooth_px": 0.0},
            "train": {"max_steps": 8, "patch_px": 64, "precision": "fp32", "device": "cpu"},
            "tiling": {"core_px": 64},
            "instances": {"fill_holes": False},
        }
        for name, changes in sections.items():
            # Another part has other options.
            before = {} if "name" in changes else values.get(name, {})
            values[name] = {**before, **changes}
        return values

    return make


@pytest.fixture
def bright_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe_values: Callable[..., dict[str, Any]]
) -> Callable[..., Path]:
    """Return what writes a model whose logit i is 32 (channel i - 0.5): it finds the bright.

    The architecture of the recipe is replaced for the test; the file is a real one.
    """
    import torch
    from torch import Tensor, nn

    from domainseg.models.model_file import ModelCard, save_model
    from domainseg.models.unet import UNet
    from domainseg.recipe import recipe_from_json

    class Bright(nn.Module):
        def __init__(self, channels: int, outputs: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(32 * torch.eye(outputs, channels))

        def forward(self, image: Tensor) -> Tensor:
            return torch.einsum("oc,bchw->bohw", self.weight, image) - 16

    def build(_self: UNet, channels: int, outputs: int) -> Bright:
        return Bright(channels, outputs)

    monkeypatch.setattr(UNet, "build", build)

    def make(
        *,
        name: str = "bright.safetensors",
        classes: tuple[str, ...] = ("cell",),
        whole_window_layers: tuple[str, ...] = (),
        seen: Mapping[str, Any] | None = None,
        **sections: Mapping[str, Any],
    ) -> Path:
        recipe = recipe_from_json(recipe_values(**sections), where="test")
        network = Bright(recipe.data.channel_count, recipe.head.outputs(len(classes)))
        card = ModelCard(
            recipe=recipe.to_json(),
            classes=classes,
            channels=("red", "green", "blue"),
            stride_px=recipe.model.stride,
            halo_px=0,
            halos=(),
            whole_window_layers=whole_window_layers,
            diameter_px=10.0,
            training={"minutes": 1.5},
            data={},
            scores={"val_mean_ap": 0.5},
            versions={},
            seen=seen or {},
        )
        path = tmp_path / name
        save_model(path, network.state_dict(), card)
        return path

    return make


@pytest.fixture
def discs() -> Callable[..., NDArray[np.int32]]:
    """Return what draws labels ``(H, W)`` of discs ``(y, x, radius)``, numbered in order."""

    def draw(shape: tuple[int, int], *places: tuple[float, float, float]) -> NDArray[np.int32]:
        y, x = np.mgrid[: shape[0], : shape[1]]
        labels = np.zeros(shape, np.int32)
        for number, (cy, cx, radius) in enumerate(places, start=1):
            labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
        return labels

    return draw


@pytest.fixture
def decoded_segments(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of the TIFF segments that are decoded from now on, as they are."""
    from domainseg.images import tiff_pages

    decoded: list[int] = []
    real = vars(tiff_pages)["decoder_of"]

    def counting(*args: Any) -> Any:
        decode = real(*args)

        def call(data: bytes, index: int) -> Any:
            decoded.append(index)
            return decode(data, index)

        return call

    monkeypatch.setattr(tiff_pages, "decoder_of", counting)
    return decoded
