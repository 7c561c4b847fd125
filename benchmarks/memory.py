"""Peak memory of a prediction over the area of the image, and where its time goes.

    python benchmarks/memory.py [--sides 4096 12000 40000] [--net] [--out runs/memory]

Made-up maps stand in for the network: each window's answer is drawn from global coordinates
(nuclei on a jittered lattice, and one scratch that crosses the whole image), so that a scene
of any size costs next to nothing to predict and everything behind the network is real: reading
a tiled image, the map store, the decode, measures, outlines, tables, pyramid. The image is a
sparse BigTIFF of the same size. A sampler adds up the resident memory of the process tree.
With ``--net`` the nuclei are holes in one object that fills the image: the largest and most
ragged that there can be.

Prints a row a size: area, objects, peak memory, what is allowed, seconds a stage.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numba
import numpy as np
import psutil
import tifffile
from numpy.typing import NDArray

PITCH = 32
"""Pixels between nuclei: 950 a Mpx."""
SPARSE_PITCH = 400
"""The same where few objects are wanted: 6 a Mpx."""
CONSTANT_MB = 2000
"""What a prediction may take beside the network, whatever the image; 0.05 MB a Mpx and 200 bytes
an object come on top."""


@numba.njit(cache=True, nogil=True)
def draw(
    y0: int, x0: int, height: int, width: int, size: int, pitch: int, net: bool
) -> NDArray[np.float32]:
    """Return ``(2, h, w)``: signed distance to the nearest nucleus or the scratch, and height."""
    out = np.empty((2, height, width), np.float32)
    for y in range(height):
        for x in range(width):
            gy, gx = y0 + y, x0 + x
            cell_y, cell_x = gy // pitch, gx // pitch
            best = -10.0
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    cy, cx = cell_y + dy, cell_x + dx
                    key = (cy * 73856093) ^ (cx * 19349663)
                    jy, jx = (key >> 3) % 7 - 3, (key >> 7) % 7 - 3
                    radius = 9.0 + (key >> 11) % 4
                    fy = gy - (cy * pitch + pitch // 2 + jy)
                    fx = gx - (cx * pitch + pitch // 2 + jx)
                    best = max(best, radius - np.sqrt(float(fy * fy + fx * fx)))
            # A scratch from the upper left to the lower right, bent so that no tile is spared.
            if net:
                best = -best
            along = gy - size * (gx / size + 0.08 * np.sin(gx / size * 9.0))
            best = max(best, 3.0 - abs(along) * 0.6)
            out[0, y, x] = min(max(best, -1.0), 1.0) * 8.0
            out[1, y, x] = min(max(best / 12.0, 0.0), 1.0)
    return out


def run_one(side: int, pitch: int, net: bool, folder: Path) -> None:
    """Predict a made-up scene in this process and leave ``figures.json``."""
    import torch

    from domainseg.images import open_image
    from domainseg.images.resample import Grid
    from domainseg.instances.basins import DecodeOptions
    from domainseg.records import Maps, Sample, quantise_height, quantise_logit
    from domainseg.results import write_results
    from domainseg.tiling.decoding import BlockWork, decoding
    from domainseg.tiling.grid import Lattice, core_shape, read_window, tiles
    from domainseg.tiling.store import open_store

    torch.set_num_threads(2)
    image_path = folder / "image.tif"
    sparse_image(image_path, side)
    lattice = Lattice(2048, 192, 32, 1)
    stages: dict[str, float] = {}
    with open_image(image_path) as image:
        begun = time.monotonic()
        core = core_shape((side, side), lattice)
        store = open_store(folder / "maps.zarr", layers=1, shape=(side, side), core=core)
        for tile in tiles((side, side), lattice):
            read_window(image, tile)
            (y0, x0), (y1, x1) = tile.core
            drawn = draw(y0, x0, y1 - y0, x1 - x0, side, pitch, net)[:, None]
            zeros = np.zeros(drawn[0].shape, np.uint8)
            store.write(tile, Maps(quantise_logit(drawn[0]), quantise_height(drawn[1]), zeros))
        stages["maps"] = time.monotonic() - begun
        sample = Sample("scene", image, image.channels, spacing_um=(0.5, 0.5))
        size = (side, side)
        found = write_results(
            folder,
            sample,
            decoding(
                store,
                DecodeOptions(prominence=0.1, min_area_px=10, fill_holes=True),
                grid=Grid((1.0, 1.0), size, size),
                scratch=folder / "scratch",
                work=BlockWork(2048, 2),
            ),
            class_names=("nucleus",),
            sha256="0" * 64,
            work=BlockWork(2048, 2),
        )
    figures = {"objects": found.objects, **stages, **found.seconds}
    (folder / "figures.json").write_text(json.dumps(figures))


def sparse_image(path: Path, side: int) -> None:
    """Write a tiled BigTIFF, grey uint8, whose tiles repeat one pattern."""
    tile = np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8)
    count = (-(-side // 512)) ** 2
    tifffile.imwrite(
        path,
        data=(tile for _ in range(count)),
        shape=(side, side),
        dtype=np.uint8,
        tile=(512, 512),
        compression="zlib",
        bigtiff=True,
    )


def watched(command: list[str]) -> tuple[float, float]:
    """Return the peak resident memory of a command's process tree in MB, and its seconds."""
    begun = time.monotonic()
    child = subprocess.Popen(command)
    peak = 0.0
    process = psutil.Process(child.pid)
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.05):
            total = 0
            for one in (process, *process.children(recursive=True)):
                try:
                    total += one.memory_info().rss
                except psutil.Error:
                    continue
            peak = max(peak, total / 1e6)

    sampler = threading.Thread(target=sample)
    sampler.start()
    code = child.wait()
    done.set()
    sampler.join()
    if code:
        sys.exit(code)
    return peak, time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 12000, 40000])
    parser.add_argument("--out", type=Path, default=Path("runs/memory"))
    parser.add_argument("--pitch", type=int, nargs="+", default=[SPARSE_PITCH, PITCH])
    parser.add_argument("--net", action="store_true", help="one object with holes")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        run_one(asked.one, asked.pitch[0], asked.net, asked.out)
        return
    print("| pitch px | Mpx | objects | peak MB | allowed MB | stages, s |")
    print("|---|---|---|---|---|---|")
    for pitch in asked.pitch:
        for side in asked.sides:
            folder = asked.out / f"{side}-{pitch}"
            folder.mkdir(parents=True, exist_ok=True)
            one = ["--one", str(side), "--pitch", str(pitch), "--out", str(folder)]
            one += ["--net"] if asked.net else []
            peak, _ = watched([sys.executable, __file__, *one])
            figures = json.loads((folder / "figures.json").read_text())
            objects = figures.pop("objects")
            area = side * side / 1e6
            few = objects <= 10 * area
            allowed = CONSTANT_MB + 0.05 * area + (0.0 if few else 200e-6 * objects)
            spent = ", ".join(f"{name} {value:.0f}" for name, value in figures.items())
            print(
                f"| {pitch} | {area:.0f} | {objects} | {peak:.0f} | {allowed:.0f} | {spent} |",
                flush=True,
            )
            (folder / "image.tif").unlink()


if __name__ == "__main__":
    main()
