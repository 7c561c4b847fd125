"""Tile sensitivity: what is compared, what is counted, and what fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor, nn

from domainseg.cli.app import run
from domainseg.errors import InputError, UsageError
from domainseg.instances.basins import DecodeOptions
from domainseg.tiling.forward import MapMaker
from domainseg.tiling.grid import Lattice
from domainseg.tiling.sensitivity import (
    Reading,
    Sensitivity,
    Setting,
    default_settings,
    measure_sensitivity,
    run_setting,
    threads,
    untiled_maps,
)
from domainseg.verify_maps import MapsCompared
from domainseg.verify_tiling import Verification, VerifyOptions, middle, verify_tiling

Image = NDArray[np.float32]
LATTICE = Lattice(32, 8, 4)
OPTIONS = DecodeOptions(split=False)


@dataclass(frozen=True)
class Planes:
    foreground: Tensor
    height: Tensor
    classes: Tensor


def as_maps(scores: Tensor) -> Planes:
    return Planes(scores[:, :1], scores[:, :1].sigmoid(), torch.zeros_like(scores[:, :1]).byte())


def maker(network: nn.Module) -> MapMaker:
    return MapMaker(network.eval(), as_maps, 1, torch.device("cpu"))


class Mean(nn.Module):
    """The mean of a square around each pixel, as a logit; zeros stand outside the window."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, image: Tensor) -> Tensor:
        side = 2 * self.reach + 1
        mean = nn.functional.avg_pool2d(image[:, :1], side, stride=1, padding=self.reach)
        return 40 * (mean - 0.5)


def blobs(shape: tuple[int, int] = (90, 70)) -> Image:
    """Return soft bumps; parted, as those of height 0.5 would touch."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = 0.45 + 0.5 * np.sin(y / 5) * np.sin(x / 7)
    return np.asarray(waves[None], np.float32)


def measured(network: nn.Module, *settings: Setting, image: Image | None = None) -> Sensitivity:
    return measure_sensitivity(
        maker(network),
        blobs() if image is None else image,
        settings,
        lattice=LATTICE,
        options=OPTIONS,
    )


def test_a_network_of_single_pixels_is_sensitive_to_nothing() -> None:
    settings = default_settings(LATTICE, (90, 70))
    found = measured(Mean(0), *settings)
    assert [reading.setting for reading in found.readings] == list(settings)
    for reading in found.readings:
        # Blending divides by weights that it has multiplied with.
        assert reading.difference <= (0.0 if reading.setting.method != "blend" else 1e-5)
        if reading.setting.method != "blend":
            assert (reading.flipped, reading.changed, reading.changed_much) == (0.0, 0, 0)
        assert reading.objects == found.objects > 5
    assert found.beyond == ()
    assert found.shape == (90, 70)
    assert found.foreground == pytest.approx((blobs() >= 0.5).mean(), abs=0.01)


def test_a_halo_that_holds_the_receptive_field_is_exact_and_a_shorter_one_is_not() -> None:
    wide, narrow = Setting("tiles", LATTICE), Setting("tiles", replace(LATTICE, halo_px=4))
    naive = Setting("naive", replace(LATTICE, halo_px=0))
    found = measured(Mean(6), wide, narrow, naive)
    exact, short, none = found.readings
    assert exact.difference < 1e-4
    assert exact.within
    assert 0.02 < short.difference < none.difference
    assert 0 < short.flipped < none.flipped
    assert not short.within
    assert found.beyond == (short,)  # naive tiles are there to compare


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_offsets_batches_and_threads_are_run_as_asked() -> None:
    sizes: list[tuple[int, ...]] = []
    counts: list[int] = []

    class Watching(Mean):
        def forward(self, image: Tensor) -> Tensor:
            sizes.append(tuple(image.shape))
            counts.append(torch.get_num_threads())
            return super().forward(image)

    setting = Setting("tiles", replace(LATTICE, batch=2), offset=(4, 8), threads=1)
    measured(Watching(0), setting)
    # Rows begin at 0, 4, 36, 68 and columns at 0, 8, 40: 12 tiles, in pairs.
    assert sizes == [(1, 1, 92 + 16, 72 + 16), *[(2, 1, 48, 48)] * 6]
    assert counts == [2] + [1] * 6
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_threads_are_restored_when_the_block_fails() -> None:
    def fail() -> None:
        with threads(1):
            assert torch.get_num_threads() == 1
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.get_num_threads() == 2


def test_untiled_is_one_window_in_a_mirrored_halo() -> None:
    image = blobs((9, 13))
    logit, maps = untiled_maps(maker(Mean(2)), image, LATTICE)
    padded = np.pad(image[0], 8, mode="reflect")
    side = range(5)
    mean = sum(padded[6 + i : 15 + i, 6 + j : 19 + j] for i in side for j in side) / 25
    np.testing.assert_allclose(logit[0], 40 * (mean - 0.5), atol=1e-4)
    assert maps.foreground.shape == (1, 9, 13)


def test_blending_is_near_the_untiled_pass_and_not_equal_to_it() -> None:
    image = blobs((120, 120))
    wanted, _ = untiled_maps(maker(Mean(6)), image, LATTICE)
    logit, maps = run_setting(maker(Mean(6)), image, Setting("blend", LATTICE, overlap=0.5))
    assert logit.shape == wanted.shape
    difference = np.abs(logit - wanted)
    assert 1e-3 < difference.max() < 20
    assert np.median(difference) < 0.2
    np.testing.assert_array_equal(maps.foreground >= 128, np.rint(logit * 16) >= 0)


def test_objects_that_change_are_counted_on_both_sides() -> None:
    class Loses(Mean):
        """Lose what lies in the corner of a tile, but not in the untiled pass."""

        def forward(self, image: Tensor) -> Tensor:
            logit = super().forward(image).clone()
            if image.shape[-1] == 48:
                logit[:, :, 8:20, 8:20] = -8
            return logit

    image = np.zeros((1, 64, 64), np.float32)
    image[0, 4:16, 4:16] = 1  # loses 64 of 144 pixels in its tile
    image[0, 40:50, 22:27] = 1  # lies beyond
    image[0, 31, 31] = 1  # in the opposite corner of the first tile
    (reading,) = measured(Loses(0), Setting("tiles", LATTICE), image=image).readings
    # The first object shrinks to an L: one missed, one new.
    assert reading.objects == 3
    assert (reading.changed, reading.changed_much) == (2, 2)
    assert reading.flipped == 64 / 4096
    assert reading.difference == pytest.approx(1, abs=1e-3)


def test_settings_try_cores_offsets_batches_and_threads() -> None:
    lattice = Lattice(1024, 192, 32)
    found = default_settings(lattice, (2000, 3000))
    ours = [s for s in found if s.judged]
    assert [s.lattice.core_px for s in ours[:3]] == [1024, 512, 256]
    offsets = [s.offset for s in ours if s.offset != (0, 0)]
    assert offsets == [(384, 640), (896, 128)]
    assert {s.lattice.batch for s in ours} == {1, 2, 4}
    assert {s.lattice.halo_px for s in ours} == {192}
    others = [(s.method, s.lattice.halo_px, s.overlap) for s in found if not s.judged]
    assert others == [("naive", 0, None), ("blend", 192, 0.25), ("blend", 192, 0.5)]


def test_cores_that_hold_the_image_are_left_out() -> None:
    lattice = Lattice(1024, 192, 32)
    assert {s.lattice.core_px for s in default_settings(lattice, (700, 400))} == {512, 256}
    assert default_settings(lattice, (256, 200)) == ()
    assert {s.lattice.core_px for s in default_settings(lattice, (99, 99), cores=(64,))} == {64}


def test_threads_fewer_than_there_are_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    found = default_settings(Lattice(64, 0, 32), (99, 99))
    assert [s.threads for s in found if s.threads is not None] == [1, 2]


def test_the_middle_keeps_proportions() -> None:
    assert middle((2000, 1000), 24) == ((0, 0), (2000, 1000))
    assert middle((20_000, 10_000), 2) == ((9000, 4500), (11_000, 5500))


Make = Callable[..., Path]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = (255 * blobs((150, 130))[0]).astype(np.uint8)
    path = tmp_path / "scene.png"
    PillowImage.fromarray(np.stack([pixels] * 3, -1)).save(path)
    return path


CPU = VerifyOptions(device="cpu", precision="fp32")


def test_a_model_is_verified_on_an_image(bright_model: Make, scene: Path) -> None:
    steps: list[tuple[int, int]] = []
    model = bright_model()
    found = verify_tiling(model, scene, options=CPU, tell=lambda *at: steps.append(at))
    compared = found.compared
    assert isinstance(compared, MapsCompared)
    assert found.passed
    assert found.region == ((0, 0), (150, 130))
    count = len(compared.sensitivity.readings)
    assert steps == [(done, count + 1) for done in range(count + 2)]
    assert found.warnings == (
        "the tolerances are defined on images of 4 Mpx and more, this one has 0.019",
    )
    header, rows = compared.table()
    assert rows[0][:6] == ("tiles", "64", "0", "0 0", "1", "all")
    assert rows[0][-1] == "yes"
    assert {len(row) for row in rows} == {len(header)}
    values = json.loads(json.dumps(found.to_json()))
    assert values["passed"] is True
    assert values["readings"][0]["core_px"] == 64
    assert values["readings"][-1]["within"] is None


def test_what_limits_the_verdict_is_said(bright_model: Make, tmp_path: Path) -> None:
    path = tmp_path / "dark.png"
    PillowImage.fromarray(np.zeros((200, 100, 3), np.uint8)).save(path)
    model = bright_model(whole_window_layers=("encoder.1 (GroupNorm)",))
    found = verify_tiling(model, path, options=replace(CPU, untiled_mpx=0.01))
    assert found.region == ((29, 15), (170, 85))
    assert found.warnings == (
        "of 200 x 100 px the middle is compared, y 29 to 170 and x 15 to 85, because "
        "the untiled pass takes memory for every pixel",
        "the tolerances are defined on images of 4 Mpx and more, this one has 0.0099",
        "the tolerances are defined on 10 to 60 % foreground, here it is 0 %",
        "1 layers of the network see whole windows, encoder.1 (GroupNorm) the first",
    )


@pytest.mark.parametrize("core", [0, 30, 150])
def test_a_core_that_cannot_be_is_refused(bright_model: Make, scene: Path, core: int) -> None:
    with pytest.raises(UsageError) as refused:
        verify_tiling(bright_model(), scene, options=replace(CPU, cores=(core,)))
    assert str(refused.value) == (
        f"--core: found {core}, wanted a multiple of the network's stride 4 below the image's "
        "150 px; change it."
    )


def test_an_image_that_cannot_be_cut_is_refused(bright_model: Make, tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    PillowImage.fromarray(np.zeros((4, 3, 3), np.uint8)).save(path)
    with pytest.raises(InputError) as refused:
        verify_tiling(bright_model(), path, options=CPU)
    assert str(refused.value) == (
        f"{path}: found 4 x 3 px on the model grid, which one core holds, wanted more than 4 px, "
        "to be cut; take a larger image."
    )


Said = pytest.CaptureFixture[str]


def test_the_verb_prints_a_table_and_writes_json(
    bright_model: Make, scene: Path, tmp_path: Path, capsys: Said
) -> None:
    out = tmp_path / "found.json"
    arguments = ["verify-tiling", str(bright_model()), str(scene), "--core", "32"]
    fixed = ["--device", "cpu", "--precision", "fp32", "--json", str(out)]
    assert run([*arguments, *fixed]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    table = [line for line in lines if line.startswith(("tiles", "naive", "blend"))]
    assert len(table) == len(json.loads(out.read_text())["readings"])
    assert lines[-1] == str(out)
    assert lines[-2].startswith("against one piece of 150 x 130 px with ")
    assert said.err.startswith("warning: the tolerances are defined on images of 4 Mpx")


def verification(*readings: Reading) -> Verification:
    return Verification(
        model=Path("m.safetensors"),
        model_sha256="",
        image="a.tif",
        image_sha256="",
        lattice=Lattice(1024, 64, 32),
        region=((0, 0), (9, 9)),
        compared=MapsCompared(Sensitivity((9, 9), 0.5, 3, readings), "fp32"),
        warnings=(),
    )


def test_the_verb_fails_by_name_beyond_the_tolerances(
    bright_model: Make, scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    lattice = Lattice(512, 64, 32)
    found = verification(
        Reading(Setting("tiles", lattice), 0.01, 5e-4, 3, 1, 0),
        Reading(Setting("tiles", lattice, offset=(192, 320)), 0.0345, 1e-5, 3, 1, 0),
        Reading(Setting("naive", replace(lattice, halo_px=0)), 0.9, 0.1, 3, 1, 0),
    )
    monkeypatch.setattr("domainseg.verify_tiling.verify_tiling", lambda *_a, **_k: found)
    assert run(["verify-tiling", str(bright_model()), str(scene)]) == 1
    assert capsys.readouterr().err == (
        "error: a.tif: found 2 settings that show, worst core 512 at offset 192 320: 0.0345 of "
        "probability, 1.0e-05 of pixels flipped, wanted at most 0.02 and 1e-04; set "
        "tiling.halo_px above 64.\n"
    )


@pytest.mark.parametrize(
    ("changes", "within"),
    [
        ({}, True),
        ({"difference": 0.0201}, False),
        ({"flipped": 1.01e-4}, False),
        ({"difference": float("nan")}, False),
    ],
)
def test_both_figures_must_be_within(changes: Mapping[str, Any], within: bool) -> None:
    reading = Reading(Setting("tiles", LATTICE), 0.02, 1e-4, 3, 0, 0)
    changed = replace(reading, **changes)
    assert changed.within == within
    assert verification(changed).passed == within
