"""A detector on an image of any size: the same objects whatever the tiles, and its memory.

    python benchmarks/detection_tiling.py MODEL OUT [--side 6000] [--cores 512 1024 2048]
    python benchmarks/detection_tiling.py MODEL OUT --side 10000 --density 0.035 --cores 1024

A made-up scene is written and predicted once for each core, each time in a process of its own;
a sampler adds up the resident memory of its tree. Prints a row a core: objects, those across
seams, seconds, peak memory and how much of it is above that of one window alone, which is what
the network takes; against the first core F1 at IoU .9; objects doubled, that is pairs of one
class with an IoU above .5; and F1 at IoU .5 against the scene's own objects.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile

from domainseg.images.label_store import open_label_plane, stored_names
from domainseg.instances.export import table_instances
from domainseg.instances.matching import match
from domainseg.instances.overlaps import overlap_instances
from domainseg.loaders.scene_plane import Look, Scene
from domainseg.loaders.scenes import write_scene
from domainseg.records import Instances
from domainseg.run_files import LABEL_STORE
from domainseg.run_folder import Run, read_record
from domainseg.verify_detection import count_doubled

MB = 1 << 20
PREDICT = """
import sys
from domainseg.predict import predict
from domainseg.runs import RunOptions
predict(sys.argv[1], [sys.argv[2]], sys.argv[3], options=RunOptions(overrides=tuple(sys.argv[4:])))
"""


def peak_of(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and the peak resident memory of its tree, MB."""
    begun = time.monotonic()
    process = subprocess.Popen(command)
    peak = 0
    while process.poll() is None:
        held = 0
        try:
            tree = [psutil.Process(process.pid)]
            tree += tree[0].children(recursive=True)
            for one in tree:
                held += one.memory_info().rss
        except psutil.Error:
            pass
        peak = max(peak, held)
        time.sleep(0.05)
    if process.returncode:
        sys.exit(process.returncode)
    return time.monotonic() - begun, peak / MB


def predicted(model: Path, image: Path, out: Path, changes: list[str]) -> tuple[float, float]:
    """Predict an image in a process of its own; return its seconds and its peak memory, MB."""
    return peak_of([sys.executable, "-c", PREDICT, str(model), str(image), str(out), *changes])


def objects_of(folder: Path) -> Instances:
    """Return the objects of a run."""
    store = folder / LABEL_STORE
    planes = [open_label_plane(store, name) for name in stored_names(store)]
    labels = np.stack([np.asarray(plane[:, :]) for plane in planes])
    classes = tuple(read_record(folder)["model"]["classes"])
    return table_instances(labels, table=Run(folder, "", 0, ()).objects, class_names=classes)


def f1(one: Instances, other: Instances, iou: float) -> float:
    """Return F1 of two sets of objects at an IoU."""
    return match(overlap_instances(one, other), threshold=iou).counts.f1


def main() -> None:
    """Write the scene, predict it with each core, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=6000)
    parser.add_argument("--density", type=float, default=0.45)
    parser.add_argument("--cores", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    scene = Scene(Look(density=options.density), 77, (options.side, options.side), "fluorescence")
    image, labels = options.out / "scene.tif", options.out / "truth.tif"
    write_scene(scene, image=image, labels=labels)
    truth = Instances.from_label_map(tifffile.imread(labels))
    print(f"{options.side} x {options.side} px, {len(truth)} objects, {options.model}")
    print("core  objects  seams  united  seconds  peak MB  above  F1 at .9  doubled  F1 to truth")
    first: Instances | None = None
    for core in options.cores:
        out = options.out / f"core{core}"
        changes = [f"tiling.core_px={core}", *options.set]
        window = options.out / f"window{core}.tif"
        tifffile.imwrite(window, tifffile.imread(image)[:core, :core])
        _, alone = predicted(options.model, window, options.out / f"alone{core}", changes)
        seconds, peak = predicted(options.model, image, out, changes)
        found = objects_of(out / "scene")
        first = found if first is None else first
        told = read_record(out / "scene")
        timings = json.loads((out / "scene" / "timings.json").read_text())
        print(
            f"{core:>4}  {len(found):>7}  {told['seams']['objects']:>5}  "
            f"{told['seams']['united']:>6}  {seconds:>7.0f}  {peak:>7.0f}  {peak - alone:>5.0f}  "
            f"{f1(first, found, 0.9):>8.4f}  {count_doubled(found):>7}  "
            f"{f1(truth, found, 0.5):>8.4f}   network {timings['network_s']:.0f} s",
            flush=True,
        )
        for warning in told["warnings"]:
            print(warning)


if __name__ == "__main__":
    main()
