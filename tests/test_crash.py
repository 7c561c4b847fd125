"""A run that is killed at any instant goes on and leaves the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage

Values = Callable[..., dict[str, Any]]

CHILD = """
import sys
import torch
from domainseg.predict import predict
from domainseg.runs import RunOptions

torch.set_num_threads(1)
model, image, out = sys.argv[1:]
print("ready", flush=True)
predict(model, [image], out, options=RunOptions(precision="fp32"))
"""
UNTIMED = {"timings.json"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crash")


def make_model(path: Path, values: dict[str, Any]) -> Path:
    """Write a small network with random weights: its maps are blobs that touch each other."""
    import torch

    from domainseg.models.model_file import ModelCard, save_model
    from domainseg.recipe import recipe_from_json

    recipe = recipe_from_json(values, where="test")
    torch.manual_seed(3)
    network = recipe.model.build(3, recipe.head.outputs(1))
    card = ModelCard(
        recipe=recipe.to_json(),
        classes=("cell",),
        channels=("red", "green", "blue"),
        stride_px=recipe.model.stride,
        halo_px=32,
        halos=(),
        whole_window_layers=(),
        diameter_px=10.0,
        training={},
        data={},
        scores={},
        versions={},
    )
    save_model(path, network.state_dict(), card)
    return path


def make_image(path: Path) -> Path:
    noise = np.random.default_rng(0).normal(size=(520, 460, 3))
    smooth = ndimage.gaussian_filter(noise, (4, 4, 0))
    tifffile.imwrite(path, np.clip(128 + 900 * smooth, 0, 255).astype(np.uint8), tile=(128, 128))
    return path


def start(model: Path, image: Path, out: Path) -> subprocess.Popen[str]:
    """Start a prediction in a process group of its own and wait until it begins."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(model), str(image), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    with child.stdout as said:
        assert said.readline() == "ready\n"
    return child


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in UNTIMED
    }


def check_kills(work: Path, values: dict[str, Any], *, kills: int, seed: int) -> None:
    model = make_model(work / "model.safetensors", values)
    image = make_image(work / "image.tif")
    # The first run may compile kernels; the second tells how long one takes.
    for name in ("first", "whole"):
        child = start(model, image, work / name)
        begun = time.monotonic()
        assert child.wait() == 0
        whole_s = time.monotonic() - begun
    wanted = bytes_below(work / "whole")
    assert any(name.endswith("objects.parquet") for name in wanted)
    rng = np.random.default_rng(seed)
    out, killed = work / f"killed{seed}", 0
    while killed < kills:
        child = start(model, image, out)
        try:
            child.wait(float(rng.uniform(0, whole_s)))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            killed += 1
            continue
        assert child.returncode == 0
        assert bytes_below(out) == wanted
        out = work / f"killed{seed}-{killed}"
    assert start(model, image, out).wait() == 0
    assert bytes_below(out) == wanted


@pytest.fixture
def blobs(recipe_values: Values) -> dict[str, Any]:
    return recipe_values(
        tiling={"core_px": 64, "halo_px": 32},
        instances={"prominence": 0.02, "fill_holes": True, "threshold": 0.5},
    )


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups here")
def test_a_run_killed_three_times_leaves_the_same_bytes(work: Path, blobs: dict[str, Any]) -> None:
    check_kills(work, blobs, kills=3, seed=1)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups here")
def test_a_run_killed_at_thirty_instants_leaves_the_same_bytes(
    work: Path, blobs: dict[str, Any]
) -> None:
    check_kills(work, blobs, kills=30, seed=2)
