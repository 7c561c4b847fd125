"""A prediction from file to page-ready results, against the network's forward pass alone.

    python benchmarks/end_to_end.py MODEL IMAGES [--side 8192] [--core 2048] [--halo 192]
        [--passes 1]

IMAGES is a folder of pictures the model knows (all of one channel layout); they are laid side
by side, each mirrored at random, into one tiled TIFF of the size asked for. Then, alternating,
each in a process of its own:

- *forward*: the windows that the prediction runs, read and normalised beforehand, through the
  network alone, nothing else running, after two windows to warm up;
- *predict*: `domainseg.predict` of the file into an empty folder: reading, range, windows,
  maps on disk, decode, labels with pyramid, measures, table, GeoJSON, COCO, overlay; after a
  prediction of one corner to load kernels. The first windows take memory anew; with
  ``--passes 2`` the file is predicted twice, and the second, as of every further image of a
  folder, is what counts.

Prints the ratio of the two, the share of pixels that the halo adds, and seconds a stage.
On a GPU the share of the time in which the network ran stands beside it.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from domainseg.images import open_image
from domainseg.images.channels import as_channels
from domainseg.model_plane import model_plane
from domainseg.predict import predict
from domainseg.records import Sample
from domainseg.runs import RunOptions
from domainseg.segmenter import open_segmenter
from domainseg.tiling.forward import stack_windows
from domainseg.tiling.grid import tiles

CORNER = 512
WARM = 2
"""Windows run before the clock starts: the first choose kernels and take memory."""


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        what, *rest = json.loads(sys.argv[2])
        print(json.dumps(MEASURES[what](*rest)))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--core", type=int, default=2048)
    parser.add_argument("--halo", type=int, help="px [what the model was measured to need]")
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/end_to_end"))
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    image = asked.out / f"mosaic-{asked.side}.tif"
    if not image.exists():
        write_mosaic(image, sorted(asked.images.iterdir()), asked.side)
    change = [f"tiling.core_px={asked.core}"]
    if asked.halo is not None:
        change.append(f"tiling.halo_px={asked.halo}")
    forward, whole = [], []
    for _ in range(asked.repeats):
        task = [str(asked.model), str(image), change, asked.device]
        forward.append(child(["forward", *task]))
        whole.append(child(["predict", *task, str(asked.out / "run"), asked.passes]))
    report(asked.out, image, forward, whole)


def write_mosaic(path: Path, files: list[Path], side: int) -> None:
    """Write pictures side by side, mirrored at random, as a tiled RGB TIFF."""
    rng = np.random.default_rng(0)
    out = np.zeros((side, side, 3), np.uint8)
    order = rng.permutation(len(files))
    y = at = 0
    while y < side:
        x, row = 0, side
        while x < side:
            picture = rgb(files[order[at % len(files)]])
            at += 1
            picture = picture[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
            h, w = min(len(picture), side - y), min(picture.shape[1], side - x)
            out[y : y + h, x : x + w] = picture[:h, :w]
            x, row = x + w, min(row, h)
        y += row
    tifffile.imwrite(path, out, tile=(512, 512), compression="zlib", photometric="rgb")


def rgb(path: Path) -> NDArray[np.uint8]:
    with open_image(path) as image:
        view = as_channels(image, image.channels, wanted="rgb", where=path)
        return np.ascontiguousarray(np.moveaxis(view[:, :, :], 0, -1))


def child(task: list[Any]) -> dict[str, float]:
    """Return what a process of its own measures."""
    command = [sys.executable, __file__, "--child", json.dumps(task)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def forward_alone(model: str, path: str, change: list[str], device: str) -> dict[str, float]:
    """Return windows, their pixels, and the seconds of the network alone."""
    segmenter, _ = open_segmenter(Path(model), overrides=change, device=device)
    with open_image(path) as image:
        sample = Sample("mosaic", image, image.channels)
        plane = model_plane(segmenter.recipe, sample, diameter_px=segmenter.diameter_px)
        grid = tiles((plane.shape[1], plane.shape[2]), segmenter.lattice)
        batch = segmenter.lattice.batch
        groups = [grid[i : i + batch] for i in range(0, len(grid), batch)]
        # All are read and in [0, 1] before the clock starts: nothing but the network is timed.
        stacks = [stack_windows(plane, group, segmenter.lattice) for group in groups]
    seconds, windows, pixels = 0.0, 0, 0
    warm = stacks[:WARM]
    for number, stack in enumerate([*warm, *stacks]):
        begun = time.monotonic()
        made = segmenter.make_maps(stack)
        made.foreground.cpu()
        if number >= len(warm):
            seconds += time.monotonic() - begun
            windows += len(stack)
            pixels += stack.shape[0] * stack.shape[2] * stack.shape[3]
    return {"seconds": seconds, "windows": windows, "px": pixels}


def predicted(
    model: str, path: str, change: list[str], device: str, out: str, passes: int
) -> dict[str, float]:
    """Return the timings of the last of some predictions of an image."""
    corner = Path(out).with_name("corner.tif")
    with open_image(path) as image:
        tifffile.imwrite(corner, np.moveaxis(image[:, :CORNER, :CORNER], 0, -1), photometric="rgb")
    options = RunOptions(overrides=tuple(change), device=device, restart=True)
    predict(model, [corner], Path(out).with_name("corner"), options=options)
    seconds = 0.0
    for _ in range(passes):
        shutil.rmtree(out, ignore_errors=True)
        begun = time.monotonic()
        (run,) = predict(model, [path], out, options=options)
        seconds = time.monotonic() - begun
    timings = json.loads((run.folder / "timings.json").read_text())
    return {**timings, "seconds": seconds, "objects": run.count}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "forward": forward_alone,
    "predict": predicted,
}


def report(
    out: Path, image: Path, forward: list[dict[str, float]], whole: list[dict[str, float]]
) -> None:
    side = int(image.stem.rpartition("-")[2])
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(forward, whole, strict=True)]
    median = statistics.median(ratios)
    last = whole[-1]
    print(
        f"machine: {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    )
    print(f"kernels: {torch.backends.cpu.get_cpu_capability()}; CUDA: {torch.cuda.is_available()}")
    print(
        f"image {side} x {side} px, {last['objects']:.0f} objects, {forward[0]['windows']} windows"
    )
    print(f"pixels of windows over pixels of the image: {forward[0]['px'] / side**2:.3f}")
    for a, b, ratio in zip(forward, whole, ratios, strict=True):
        print(f"forward {a['seconds']:.1f} s, predict {b['seconds']:.1f} s, ratio {ratio:.3f}")
    usual = statistics.median(one["seconds"] for one in whole)
    print(f"median ratio {median:.3f}; {side**2 / 1e6 / usual:.2f} Mpx/s end to end")
    print(f"share of the time inside the network: {last['network_s'] / last['seconds']:.2f}")
    stages = {k: v for k, v in last.items() if k.endswith("_s")}
    print("; ".join(f"{name} {value:.1f}" for name, value in stages.items()))
    print(f"peak memory {last['peak_memory_mb']:.0f} MB")
    (out / "figures.json").write_text(json.dumps({"forward": forward, "predict": whole}, indent=2))


if __name__ == "__main__":
    main()
