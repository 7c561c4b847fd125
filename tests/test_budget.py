"""Budgets: what a run takes, planned within a limit and predicted before it begins."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage
from torch import Tensor, nn

from domainseg import budget as budget_module
from domainseg.budget import predict_budget
from domainseg.cli.app import run
from domainseg.errors import InputError, UsageError
from domainseg.images import open_image
from domainseg.images.appearance import Looks, appearance
from domainseg.predict import predict
from domainseg.runs import RunOptions
from domainseg.tiling.forward import MapMaker, MapTensors
from domainseg.tiling.grid import Lattice
from domainseg.tiling.plan import WorkPlan, plan_work
from domainseg.tiling.probe import Probe, peak_resident_bytes, probe_network

LATTICE = Lattice(1024, 192, 32)
SIDE = 1024 + 2 * 192


def plan(
    limit_mb: float | None,
    *,
    network_mb: float = 500.0,
    threads: int = 4,
    shape: tuple[int, int] = (100_000, 100_000),
) -> WorkPlan:
    return plan_work(
        LATTICE,
        layers=1,
        channels=3,
        shape=shape,
        max_memory_mb=limit_mb,
        threads=threads,
        network_mb=network_mb,
    )


def test_every_byte_of_a_plan_is_counted() -> None:
    found = plan(None, threads=1)
    assert (found.queue, found.workers, found.block_px) == (2, 1, 2048)
    windows = 3 * 8 * 3 * SIDE**2
    cores = 3 * 13 * SIDE**2 + 16 * 1024**2
    blocks = 60 * 2048**2
    strips = 64 * 100_000
    assert found.memory_mb == pytest.approx(500 + (windows + cores + blocks + strips) / 1e6)


def test_a_plan_gives_up_blocks_then_threads_then_what_is_read_ahead() -> None:
    plans = []
    limit = plan(None).memory_mb
    while True:
        try:
            found = plan(limit)
        except UsageError:
            break
        plans.append((found.queue, found.workers, found.block_px))
        assert found.memory_mb <= limit
        limit = found.memory_mb - 1
    assert plans[0] == (2, 4, 2048)
    assert plans[1] == (2, 4, 1024)
    assert plans[-1] == (1, 1, 512)
    assert plans.index((2, 1, 512)) < plans.index((1, 1, 512))


@pytest.mark.parametrize(
    ("shape", "threads", "block_px"),
    [
        ((2048, 2048), 1, 2048),
        ((2048, 2048), 2, 1024),
        ((1500, 1500), 4, 1024),
        ((1500, 1500), 5, 512),
        ((2049, 100), 2, 2048),
        ((300, 300), 2, 512),
    ],
)
def test_of_a_small_image_every_thread_gets_a_block(
    shape: tuple[int, int], threads: int, block_px: int
) -> None:
    assert plan(None, threads=threads, shape=shape).block_px == block_px


@settings(deadline=None)
@given(st.floats(1, 6000), st.integers(1, 64))
def test_a_plan_keeps_its_limit_or_names_one_that_works(limit_mb: float, threads: int) -> None:
    try:
        found = plan(limit_mb, threads=threads)
    except UsageError as refused:
        least_gb = float(str(refused).split("at least ")[1].split(" GB")[0])
        assert least_gb * 1000 > limit_mb
        assert plan(1000 * least_gb, threads=threads).block_px == 512
    else:
        assert found.memory_mb <= limit_mb
        assert 1 <= found.workers <= threads


def test_too_little_memory_is_refused_with_what_works() -> None:
    with pytest.raises(UsageError) as refused:
        plan(300)
    assert str(refused.value) == (
        "--max-memory: found 0.30 GB, wanted at least 0.69 GB, of which the network needs "
        "0.50 GB for 1 x 1408 x 1408 px; raise it, or set a smaller tiling.core_px."
    )


def test_a_limit_without_the_networks_need_is_no_plan() -> None:
    with pytest.raises(ValueError, match="a limit of memory needs network_mb"):
        plan(300, network_mb=0)


class Still(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape))
        return image


def test_a_probe_runs_one_batch_unseen_and_times_the_rest() -> None:
    class Maps:
        def __init__(self, scores: Tensor) -> None:
            self.foreground = self.height = scores[:, :1]
            self.classes = self.foreground.byte()

    def encode(scores: Tensor) -> MapTensors:
        return Maps(scores)

    network = Still()
    made = MapMaker(network, encode, 1, torch.device("cpu"))
    found = probe_network(made, (32, 64), channels=3, batch=2, timed=3)
    assert network.shapes == [(2, 3, 32, 64)] * 4
    assert 0 < found.window_s < 1
    assert found.device_bytes == 0
    assert found.peak_bytes is None or found.peak_bytes > 50e6
    assert probe_network(made, (32, 64), channels=3).window_s == 0


def test_the_peak_is_no_less_than_what_is_held_and_never_falls() -> None:
    status = Path("/proc/self/statm")
    before = peak_resident_bytes()
    if before is None or not status.is_file():
        pytest.skip("the system does not tell")
    block = np.ones(50_000_000, np.uint8)
    held = int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert block[-1] == 1
    del block
    after = peak_resident_bytes()
    assert after is not None
    # The system counts what is held in steps of its own, and so a little late.
    assert after >= max(before, 0.99 * held, 50_000_000)


Values = Callable[..., dict[str, Any]]


@pytest.fixture
def recipe(tmp_path: Path, recipe_values: Values) -> Callable[..., Path]:
    """Return what writes a recipe with cores of 64 px."""

    def write(**sections: Mapping[str, Any]) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe_values(**sections)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    pixels = np.zeros((150, 200, 3), np.uint8)
    pixels[40:60, 50:90] = 200
    PillowImage.fromarray(pixels).save(path)
    return path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand in for the child process; return what it was told."""
    told: list[Any] = []

    def stand_in(wanted: Any, window_px: Any, batch: int, options: Any) -> Probe:
        told.append((window_px, batch))
        return Probe(peak_bytes=400_000_000, device_bytes=0, window_s=0.5)

    monkeypatch.setattr(budget_module, "_measured", stand_in)
    return told


def test_windows_bytes_and_seconds_follow_the_lattice(
    recipe: Callable[..., Path], image: Path, measured: list[Any]
) -> None:
    path = recipe(tiling={"core_px": 64, "halo_px": 32, "batch": 5})
    found = predict_budget(path, image)
    # 3 x 4 cores of 52 px, in batches of 5 of which the last is filled up.
    assert found.windows == 15
    assert found.window_px == (116, 116)
    assert measured == [((116, 116), 5)]
    assert found.seconds == 7.5
    assert found.maps_bytes == found.codes_bytes == 4 * 150 * 200
    assert found.labels_bytes == round(150 * 200 * 4 * 4 / 3)
    assert found.network_mb == 400
    assert found.plan.memory_mb > 400
    assert found.notes == ()
    rows = dict(found.table()[1])
    assert rows["image"] == "150 x 200 px, on the model grid 150 x 200"
    assert rows["windows"] == "15 of 116 x 116 px, 6.73 x the grid"
    assert rows["maps on disk"] == "120 KB before compression"
    assert rows["time"] == "7.5 s in the network"


def test_a_small_image_is_one_window_of_its_own_size(
    recipe: Callable[..., Path], image: Path, measured: list[Any]
) -> None:
    found = predict_budget(recipe(tiling={"core_px": 256, "batch": 4}), image)
    assert (found.windows, found.window_px) == (1, (152, 200))
    assert measured == [((152, 200), 1)]
    assert found.notes == ("the halo is measured when a training ends: 192 px assumed",)


def test_the_model_grid_is_what_is_counted(
    recipe: Callable[..., Path], image: Path, measured: list[Any]
) -> None:
    path = recipe(data={"diameter_px": 10.0}, tiling={"core_px": 64, "halo_px": 0})
    half = predict_budget(path, image, options=RunOptions(diameter_px=20.0))
    assert half.grid_px == (75, 100)
    assert half.maps_bytes == 4 * 75 * 100
    assert half.labels_bytes == round(150 * 200 * 16 / 3)
    assert half.notes == ()
    same = predict_budget(path, image)
    assert same.grid_px == (150, 200)
    assert same.notes == ("object diameter not given: 10 px assumed",)


def test_a_limit_is_planned_for_and_refused(
    recipe: Callable[..., Path], image: Path, measured: list[Any]
) -> None:
    path = recipe(tiling={"core_px": 64, "halo_px": 32})
    found = predict_budget(path, image, options=RunOptions(max_memory_mb=430))
    assert found.plan.memory_mb <= 430
    with pytest.raises(UsageError, match=r"found 0\.30 GB, wanted at least 0\.42 GB"):
        predict_budget(path, image, options=RunOptions(max_memory_mb=300))


def test_a_batch_that_kills_its_process_is_a_sentence(
    recipe: Callable[..., Path], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> Dying:
            return self

        def __exit__(self, *_: object) -> None: ...

        def submit(self, *_: Any) -> Any:
            raise BrokenProcessPool("killed")

    monkeypatch.setattr(budget_module, "ProcessPoolExecutor", Dying)
    with pytest.raises(UsageError) as refused:
        predict_budget(recipe(tiling={"core_px": 64, "halo_px": 32}), image)
    assert str(refused.value) == (
        "tiling.core_px: found 1 windows of 116 x 116 px, over which the process ended, wanted "
        "a batch of windows that fits into memory; make it smaller."
    )


def test_an_image_of_one_value_is_told(
    recipe: Callable[..., Path], tmp_path: Path, measured: list[Any]
) -> None:
    path = tmp_path / "flat.tif"
    tifffile.imwrite(path, np.full((150, 200), 7, np.uint16))
    found = predict_budget(recipe(tiling={"core_px": 64, "halo_px": 32}), path)
    assert found.notes == ("the image has one value wherever it was looked at; check the file",)


def test_a_model_says_of_an_image_what_a_prediction_says(
    bright_model: Callable[..., Path], image: Path, tmp_path: Path, measured: list[Any]
) -> None:
    rng = np.random.default_rng(0)
    looks = Looks.of([appearance(rng.random((3, 64, 64), np.float32)) for _ in range(30)])
    assert looks is not None
    model = bright_model(seen={"looks": looks.to_json()})
    found = predict_budget(model, image)
    (run,) = predict(model, [image], tmp_path / "out")
    assert found.notes == run.warnings
    assert found.notes[0].startswith("the image looks unlike those that the model was trained on")


@pytest.mark.parametrize("most", [budget_module.READ_VALUES, 100])
def test_pixels_that_are_no_numbers_are_refused(
    recipe: Callable[..., Path],
    tmp_path: Path,
    measured: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    monkeypatch.setattr(budget_module, "READ_VALUES", most)
    pixels = np.random.default_rng(0).random((900, 1300)).astype(np.float32)
    pixels[450, 487] = np.nan
    path = tmp_path / "nan.tif"
    tifffile.imwrite(path, pixels)
    with pytest.raises(InputError, match="found 1 NaN or infinite"):
        predict_budget(recipe(tiling={"core_px": 64, "halo_px": 32}), path)
    assert measured == []


def test_a_wafer_map_whose_values_are_no_dies_is_refused(
    tmp_path: Path, measured: list[Any]
) -> None:
    path = tmp_path / "map.png"
    map_ = np.ones((30, 26), np.uint8)
    PillowImage.fromarray(map_).save(path)
    assert predict_budget(Path("wafermap"), path).image_px == (30, 26)
    map_[29, 25] = 30
    PillowImage.fromarray(map_).save(path)
    with pytest.raises(InputError, match="found the value 30 in a wafer map"):
        predict_budget(Path("wafermap"), path)


def test_of_a_large_image_windows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (2000, 600), np.uint8)
    tifffile.imwrite(path, pixels)
    with open_image(path) as opened:
        whole = vars(budget_module)["_shown"](opened)
        monkeypatch.setattr(budget_module, "READ_VALUES", 100)
        parts = vars(budget_module)["_shown"](opened)
    np.testing.assert_array_equal(whole[0], pixels)
    # Four rows of three windows, each amid its share.
    assert parts.shape == (1, 1024, 768)
    np.testing.assert_array_equal(parts[0, :256, 256:512], pixels[122:378, 172:428])


def test_edges_that_are_left_out_are_those_of_the_image_and_not_of_its_windows(
    bright_model: Callable[..., Path],
    tmp_path: Path,
    measured: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The band below is wider than four windows, and unlike the training.
    monkeypatch.setattr(budget_module, "READ_VALUES", 100)
    rng = np.random.default_rng(0)
    noise = [np.repeat(rng.random((1, 256, 256), np.float32), 3, axis=0) for _ in range(30)]
    looks = Looks.of([appearance(one) for one in noise])
    assert looks is not None
    path = tmp_path / "a.tif"
    pixels = rng.integers(0, 255, (3000, 700), np.uint8)
    pixels[1500:] = 7
    tifffile.imwrite(path, pixels)
    fixed = {"normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0}}
    said = []
    for edges in ({}, {"bottom": 1500}):
        model = bright_model(
            seen={"looks": looks.to_json()}, data=fixed, image={"ignore_edges_px": edges}
        )
        said.append(predict_budget(model, path).notes)
    assert len(said[0]) == 1
    assert said[1] == ()


def test_the_diameter_is_measured_by_a_model_and_by_no_recipe(
    recipe: Callable[..., Path],
    bright_model: Callable[..., Path],
    image: Path,
    measured: list[Any],
) -> None:
    fixed = {"normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0}}
    model = bright_model(seen={"diameters_px": [10.0, 12.0, 20.0, 36.0, 40.0]}, data=fixed)
    options = RunOptions(estimate_diameter=True)
    pixels = np.zeros((300, 400), np.uint8)
    y, x = np.mgrid[:300, :400]
    for cy, cx in ((70, 70), (70, 200), (220, 70), (220, 200), (220, 330)):
        pixels[(y - cy) ** 2 + (x - cx) ** 2 <= 40**2] = 255
    PillowImage.fromarray(pixels).save(image)
    found = predict_budget(model, image, options=options)
    (said,) = found.notes
    diameter = float(said.removeprefix("object diameter measured: ").removesuffix(" px"))
    assert diameter == pytest.approx(80, rel=0.1)
    assert found.grid_px[0] == pytest.approx(300 * 36 / diameter, abs=1)
    PillowImage.fromarray(np.zeros((90, 90), np.uint8)).save(image)
    assert predict_budget(model, image, options=options).notes == (
        "too few objects to measure their diameter at any scale",
        "the image has one value wherever it was looked at; check the file",
    )
    with pytest.raises(UsageError) as refused:
        predict_budget(recipe(), image, options=options)
    assert str(refused.value) == (
        "--diameter-px: found auto with a recipe, wanted a model, which measures it; give the "
        "diameter as a number, or a model file."
    )


Said = pytest.CaptureFixture[str]


def test_check_predicts_what_an_image_takes(
    recipe: Callable[..., Path], image: Path, capsys: Said
) -> None:
    """The one test with a child process that builds a network."""
    assert run(["check", str(recipe()), "--image", str(image), "--max-memory", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines[1:-1])
    assert rows["image"] == "150 x 200 px, on the model grid 150 x 200"
    assert rows["windows"] == "12 of 436 x 436 px, 76.04 x the grid"
    assert rows["spread"].startswith("queue 2, ")
    assert " s in the network" in rows["time"]
    assert lines[-1] == "the halo is measured when a training ends: 192 px assumed"


def test_options_of_an_image_without_one_are_refused(
    recipe: Callable[..., Path], capsys: Said
) -> None:
    assert run(["check", str(recipe()), "--max-memory", "8"]) == 2
    assert capsys.readouterr().err == (
        "error: check: found --max-memory without --image, wanted options that take effect; "
        "drop --max-memory or give --image.\n"
    )
