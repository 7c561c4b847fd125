"""Tiles with a halo against overlapping windows blended by a Gaussian, on one large image.

    python benchmarks/tiling.py MODEL [IMAGE] [--side 8192] [--core 2048] [--repeats 3]

Without IMAGE the image is a made-up scene; an IMAGE is mirrored until it is ``--side`` px
wide and high (``--side 0`` takes it as it is). Both ways run the same network in the same
precision from the same file on disk to quantised maps:

- ours: what `predict` does, into its map store on disk: windows of core + 2 halos, read and
  written beside the network, each pixel taken from the one core it lies in;
- MONAI's ``SlidingWindowInferer`` with ``mode="gaussian"`` and batches of 1, on the whole
  normalised image, its scores turned into maps at the end.

Every run is a process of its own, in turns, after one window to warm up. The least time of
the repeats counts; peak memory is the resident memory of the process tree, sampled every
20 ms, the largest of the repeats. *Network alone* repeats one window in memory as often as
there are windows. The difference from the untiled pass (one window with a mirrored halo)
is measured once on the middle of the image, a multiple of the stride wide and high; a rim
of the widest halo is left out, where the mirrored border of the one and the zeros of the
other would be compared.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile
import torch
from monai.data.utils import dense_patch_slices
from monai.inferers.inferer import SlidingWindowInferer
from numpy.typing import NDArray

from domainseg.images import open_image
from domainseg.loaders.scenes import Scenes
from domainseg.model_plane import ModelPlane, model_plane
from domainseg.records import Array, Maps, Plane, Sample, quantise_height, quantise_logit
from domainseg.segmenter import Segmenter, open_segmenter
from domainseg.tiling.forward import MapMaker, MapTensors
from domainseg.tiling.grid import Lattice, core_shape, tiles
from domainseg.tiling.sensitivity import Setting, run_setting, untiled_maps
from domainseg.tiling.store import open_store
from domainseg.tiling.stream import stream_maps
from domainseg.verify_tiling import middle

SAMPLE_S = 0.02
ALONE = 3
"""Windows that the network alone is timed on."""


@dataclass(frozen=True)
class Variant:
    """One row: tiles of a core and a halo, or windows with an overlap."""

    window: int
    halo: int = 0
    overlap: float | None = None

    @property
    def name(self) -> str:
        """What the table calls it."""
        if self.overlap is None:
            return f"tiles, core {self.window - 2 * self.halo}, halo {self.halo}"
        return f"MONAI, window {self.window}, overlap {self.overlap:g}"


@dataclass(frozen=True)
class Run:
    """What one process measured; ``share`` is pixels of windows over those of the image."""

    seconds: float
    windows: int
    share: float
    alone_s: float
    peak_mb: float


def draw(side: int, seed: int) -> Array:
    """Return a made-up scene ``(C, side, side)``."""
    scenes = Scenes(train=0, val=0, test=1, height=side, width=side, seed=seed)
    scene = scenes.scene(scenes.open(Path()).entries()[0])
    return np.concatenate([scene[:, y : y + 512] for y in range(0, side, 512)], axis=1)


def mirrored(image: Array, side: int) -> Array:
    """Return ``(C, side, side)``: the image, mirrored on and on where it ends."""
    if side == 0:
        return image
    places = []
    for length in image.shape[1:]:
        at = np.arange(side) % (2 * length)
        places.append(np.minimum(at, 2 * length - 1 - at))
    return np.asarray(image[:, places[0]][:, :, places[1]])


def write_image(path: Path, pixels: Array) -> None:
    """Write ``(C, H, W)`` as a tiled TIFF without compression, so that reading is no part."""
    colour = len(pixels) == 3
    tifffile.imwrite(
        path,
        np.moveaxis(pixels, 0, -1) if colour else pixels[0],
        tile=(512, 512),
        photometric="rgb" if colour else "minisblack",
        metadata=None,
        bigtiff=True,
    )


def opened(model: Path, image: Path, precision: str) -> tuple[Segmenter, ModelPlane]:
    segmenter, _ = open_segmenter(model, precision=precision)
    source = open_image(image)
    sample = Sample(image.stem, source, source.channels, spacing_um=source.spacing_um)
    return segmenter, model_plane(segmenter.recipe, sample, diameter_px=segmenter.diameter_px)


def lattice_of(segmenter: Segmenter, variant: Variant) -> Lattice:
    core = variant.window - 2 * variant.halo
    return Lattice(core, variant.halo, segmenter.lattice.stride_px)


def blend(make_maps: MapMaker, image: NDArray[np.float32], variant: Variant) -> MapTensors:
    """Return the maps of a whole image by MONAI's overlap blending."""
    infer = SlidingWindowInferer(
        (variant.window, variant.window),
        1,
        variant.overlap or 0.0,
        mode="gaussian",
        sw_device=make_maps.device,
        device="cpu",
    )
    with torch.inference_mode():
        scores: Any = infer(torch.from_numpy(image[None]), make_maps.scores)
        return make_maps.encode(scores)


def quantised(made: MapTensors) -> Maps:
    planes = (made.foreground, made.height, made.classes)
    logit, height, classes = (plane[0].numpy() for plane in planes)
    return Maps(quantise_logit(logit), quantise_height(height), classes)


def windows_of(shape: tuple[int, int], lattice: Lattice, variant: Variant) -> list[Any]:
    """Return one item for each window the network is given for an image ``(H, W)``."""
    if variant.overlap is None:
        return list(tiles(shape, lattice))
    side = variant.window
    step = int(side * (1 - variant.overlap))
    return dense_patch_slices([max(n, side) for n in shape], [side] * 2, [step] * 2)


def work(model: Path, image: Path, variant: Variant, precision: str) -> dict[str, float]:
    """Run one variant in this process and return its times."""
    segmenter, plane = opened(model, image, precision)
    make_maps, lattice = segmenter.make_maps, lattice_of(segmenter, variant)
    shape = (plane.shape[1], plane.shape[2])
    windows = windows_of(shape, lattice, variant)
    size = (variant.window,) * 2 if variant.overlap else tiles(shape, lattice)[0].shape
    window = np.random.default_rng(0).random((1, plane.shape[0], *size), np.float32)
    make_maps(window)
    begun = time.perf_counter()
    if variant.overlap is None:
        with tempfile.TemporaryDirectory() as folder:
            core = core_shape(shape, lattice)
            store = open_store(Path(folder) / "maps.zarr", layers=1, shape=shape, core=core)
            stream_maps(make_maps, plane, store, lattice)
            seconds = time.perf_counter() - begun
    else:
        quantised(blend(make_maps, plane[:, :, :], variant))
        seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(ALONE):
        make_maps(window).foreground.cpu()
    alone = (time.perf_counter() - begun) / ALONE * len(windows)
    share = len(windows) * size[0] * size[1] / (shape[0] * shape[1])
    return {"seconds": seconds, "windows": len(windows), "share": share, "alone_s": alone}


def child(model: Path, image: Path, variant: Variant, precision: str) -> Run:
    """Run one variant in a process of its own, its memory watched."""
    task = json.dumps([str(model), str(image), asdict(variant), precision])
    command = [sys.executable, __file__, "--child", task]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = [0]
        over = threading.Event()
        watcher = threading.Thread(target=watch, args=(process.pid, peak, over))
        watcher.start()
        said, _ = process.communicate()
        over.set()
        watcher.join()
    if process.returncode:
        sys.exit(f"{variant.name}: the process ended with code {process.returncode}")
    times = json.loads(said.splitlines()[-1])
    return Run(**times, peak_mb=peak[0] / 1e6)


def watch(pid: int, peak: list[int], over: threading.Event) -> None:
    """Keep the largest resident memory of a process and its children in ``peak[0]``."""
    while not over.wait(SAMPLE_S):
        try:
            root = psutil.Process(pid)
            family = [root, *root.children(recursive=True)]
            peak[0] = max(peak[0], sum(p.memory_info().rss for p in family))
        except psutil.NoSuchProcess:
            continue


def differences(
    segmenter: Segmenter, plane: Plane, variants: list[Variant], mpx: float
) -> dict[Variant, tuple[float, float]]:
    """Return largest difference of probability and flipped share of each variant."""
    (y0, x0), (y1, x1) = middle((plane.shape[1], plane.shape[2]), mpx)
    # MONAI's last window ends where the image does: off the stride it would see other features.
    stride = segmenter.lattice.stride_px
    y1, x1 = y1 - (y1 - y0) % stride, x1 - (x1 - x0) % stride
    image = np.ascontiguousarray(plane[:, y0:y1, x0:x1])
    rim = max(max(v.halo for v in variants), segmenter.lattice.halo_px)
    widest = Lattice(segmenter.lattice.core_px, rim, stride)
    inner = (slice(None), slice(rim, -rim or None), slice(rim, -rim or None))
    make_maps = segmenter.make_maps
    wanted = torch.from_numpy(untiled_maps(make_maps, image, widest)[0][inner]).sigmoid()
    found = {}
    for variant in variants:
        if variant.overlap is None:
            setting = Setting("tiles", lattice_of(segmenter, variant))
            logit = torch.from_numpy(run_setting(make_maps, image, setting)[0])
        else:
            logit = blend(make_maps, image, variant).foreground[0]
        got = logit[inner].sigmoid()
        flipped = ((got >= 0.5) != (wanted >= 0.5)).float().mean()
        found[variant] = (float((got - wanted).abs().max()), float(flipped))
    return found


def machine() -> str:
    """Return date, processor, instructions that bf16 runs on, cores and versions."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    model = next((x.split(": ")[1] for x in text.splitlines() if "model name" in x), "processor ?")
    known = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    flags = " ".join(name for name in known if f" {name} " in text.replace("\n", " \n"))
    today = dt.datetime.now(tz=dt.UTC).date()
    return (
        f"{today}, {model}, {flags or 'no flags known'}, {os.cpu_count()} cores, "
        f"{platform.system()}, torch {torch.__version__}"
    )


def show(
    variants: list[Variant],
    runs: dict[Variant, list[Run]],
    changed: dict[Variant, tuple[float, float]],
    mpx: float,
) -> None:
    best = {v: min(run.seconds for run in runs[v]) for v in variants}
    print(
        "| variant | windows | window px / image px | s | Mpx/s | over network alone | "
        "peak MB | largest difference | flipped |"
    )
    print("|" + "---|" * 9)
    for v in variants:
        first = min(runs[v], key=lambda run: run.seconds)
        cells = (
            v.name,
            str(first.windows),
            f"{first.share:.2f}",
            f"{best[v]:.2f}",
            f"{mpx / best[v]:.2f}",
            f"{best[v] / first.alone_s:.2f}",
            f"{max(run.peak_mb for run in runs[v]):.0f}",
            f"{changed[v][0]:.4f}",
            f"{changed[v][1]:.1e}",
        )
        print("| " + " | ".join(cells) + " |")
    print()
    ours = [v for v in variants if v.overlap is None]
    for v in variants:
        if v.overlap is None:
            continue
        no_further = [
            o for o in ours if all(a <= b for a, b in zip(changed[o], changed[v], strict=True))
        ]
        if not no_further:
            print(f"{v.name}: none of ours is as near to the untiled pass")
            continue
        o = min(no_further, key=lambda other: best[other])
        print(f"{v.name}: {best[v] / best[o]:.2f} times as long as {o.name}, which is no further")


def compare(asked: argparse.Namespace, folder: Path) -> None:
    if asked.image is None:
        pixels = draw(asked.side, asked.seed)
    else:
        with open_image(asked.image) as source:
            pixels = mirrored(source.read(), asked.side)
    image = folder / "image.tif"
    write_image(image, pixels)
    mpx = pixels.shape[1] * pixels.shape[2] / 1e6
    del pixels
    segmenter, plane = opened(asked.model, image, asked.precision)
    halos = asked.halos or [0, 64, 128, segmenter.lattice.halo_px]
    ours = [Variant(asked.core + 2 * halo, halo) for halo in sorted(set(halos))]
    sizes = asked.windows or [512, ours[-1].window]
    theirs = [Variant(size, overlap=overlap) for size in sizes for overlap in (0.25, 0.5)]
    variants = ours + theirs
    print(f"{machine()}\n{mpx:.1f} Mpx, {segmenter.make_maps.precision}, {asked.model}\n")
    changed = differences(segmenter, plane, variants, asked.untiled_mpx)
    precision = segmenter.make_maps.precision
    del segmenter, plane
    runs: dict[Variant, list[Run]] = {v: [] for v in variants}
    for _ in range(asked.repeats):
        for v in variants:
            runs[v].append(child(asked.model, image, v, precision))
    show(variants, runs, changed, mpx)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        model, image, variant, precision = json.loads(sys.argv[2])
        print(json.dumps(work(Path(model), Path(image), Variant(**variant), precision)))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("--side", type=int, default=8192, help="px; 0 = as it is")
    parser.add_argument("--core", type=int, default=2048)
    parser.add_argument("--halos", type=int, nargs="+", help="px [0 64 128 and the model's]")
    parser.add_argument("--windows", type=int, nargs="+", help="MONAI's, px [512 and ours]")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--untiled-mpx", type=float, default=9.0)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.image is None and asked.side == 0:
        parser.error("--side 0 takes an image as it is; give IMAGE")
    with tempfile.TemporaryDirectory() as folder:
        compare(asked, Path(folder))


if __name__ == "__main__":
    main()
