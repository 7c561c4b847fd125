"""How long opening 100,000 wafer maps takes, and how much memory: both layouts of WM-811K.

    python benchmarks/wafer_maps.py [--maps 100000]

Makes up maps of the sizes WM-811K has (18 to 60 dies a side, one in 500 about 200; half of
them labelled in ``LSWMD.pkl``) and writes them as ``wm811k_subset.npz`` and as a pickle of
Python 2. Then opens each file and loads every map in a process of its own, with and without
the unlabelled maps. Prints a row for each: maps, bytes of their dies, seconds to open and to
load all, and the peak of resident memory (Linux) with what the imports took of it. The
seconds are those of the processor, in one thread, so that whatever else runs does not count,
nor does waiting for the disk. Allowed are 10 s and 1,000 MB for 100,000 maps. The flags of
the processor stand below.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECONDS, MEGABYTES = 10, 1000
"""What 100,000 maps may take."""
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def made_up_maps(count: int) -> list[NDArray[np.uint8]]:
    """Return ``count`` round wafers of uint8 ``(H, W)`` with one die in ten failing."""
    rng = np.random.default_rng(0)
    sides = rng.integers(18, 61, (count, 2))
    sides[::500] = rng.integers(180, 213, (len(sides[::500]), 2))
    noise = rng.random((512, 512)) < 0.1
    maps = []
    for height, width in sides.tolist():
        y = np.linspace(-1, 1, height)[:, None] ** 2
        x = np.linspace(-1, 1, width) ** 2
        at = rng.integers(0, 300, 2)
        fails = noise[at[0] : at[0] + height, at[1] : at[1] + width]
        maps.append(np.where(y + x <= 1, 1 + fails, 0).astype(np.uint8))
    return maps


def write_arrays(path: Path, maps: list[NDArray[np.uint8]], labels: list[str]) -> None:
    sizes = [one.size for one in maps]
    np.savez_compressed(
        path,
        maps_flat=np.concatenate([one.reshape(-1) for one in maps]),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        shapes=np.array([one.shape for one in maps], np.int16),
        label=np.array(labels),
        split=np.array(["train", "test"])[np.arange(len(maps)) % 2],
        index=np.arange(len(maps), dtype=np.int32),
    )


def write_frame(path: Path, maps: list[NDArray[np.uint8]], labels: list[str]) -> None:
    count = len(maps)
    splits = ["Training" if i % 2 == 0 else "Test" for i in range(count)]
    columns = {
        "waferMap": maps,
        "dieSize": [float(one.size) for one in maps],
        "lotName": [f"lot{i // 25 + 1}" for i in range(count)],
        "waferIndex": [float(i % 25 + 1) for i in range(count)],
        "trianTestLabel": [nested(s if w else "") for s, w in zip(splits, labels, strict=True)],
        "failureType": [nested(word) for word in labels],
    }
    path.write_bytes(python2_pickle().legacy_frame(columns, "0.18"))


def nested(word: str) -> NDArray[Any]:
    return np.array([[word]]) if word else np.empty((0, 0))


def python2_pickle() -> ModuleType:
    """Return the writer of old pickles, which the tests use too."""
    path = Path(__file__).parents[1] / "tests" / "python2_pickle.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def peak_mb() -> float:
    """Return the most memory this program was resident with; a parent's does not count."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def run_one(root: Path, file: str, unlabelled: bool) -> None:
    """Open a file, load every map, and print the figures as JSON."""
    from domainseg.loaders.wm811k import WM811K

    before = peak_mb()
    begun = time.process_time()
    opened = WM811K(file=file, unlabelled=unlabelled).open(root)
    listed = time.process_time()
    dies = fails = 0
    for entry in opened.entries():
        sample = opened.load(entry)
        dies += sample.image.shape[1] * sample.image.shape[2]
        fails += int(np.count_nonzero(sample.image[0] == 2))
    loaded = time.process_time()
    figures: dict[str, Any] = {
        "maps": len(opened.entries()),
        "dies": dies,
        "fails": fails,
        "open": listed - begun,
        "load": loaded - listed,
        "peak": peak_mb(),
        "imports": before,
    }
    print(json.dumps(figures))


def cpu() -> str:
    """Return the processor and which of the flags that matter it has."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    pairs = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
    lines = {key.strip(): value.strip() for key, value in pairs}
    held = set(lines.get("flags", "").split())
    return f"{lines.get('model name', platform.machine())}: {', '.join(held & set(FLAGS))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--maps", type=int, default=100_000)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--unlabelled", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        run_one(asked.root, asked.one, asked.unlabelled)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        maps = made_up_maps(asked.maps)
        words = ["Center", "none", "Edge-Ring", "Scratch"]
        labels = [words[i // 2 % 4] if i % 4 < 2 else "" for i in range(asked.maps)]
        write_arrays(root / "wm811k_subset.npz", maps, [label or "Loc" for label in labels])
        write_frame(root / "LSWMD.pkl", maps, labels)
        del maps
        print("| file | MB | maps | MB of dies | open s | load all s | peak MB | imports MB |")
        print("|---|---|---|---|---|---|---|---|")
        for file, flags in (
            ("wm811k_subset.npz", []),
            ("LSWMD.pkl", []),
            ("LSWMD.pkl", ["--unlabelled"]),
        ):
            command = [sys.executable, __file__, "--root", folder, "--one", file, *flags]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            one = json.loads(done.stdout)
            size = (root / file).stat().st_size / 1e6
            print(
                f"| {' '.join([file, *flags])} | {size:.0f} | {one['maps']} "
                f"| {one['dies'] / 1e6:.0f} | {one['open']:.1f} | {one['load']:.1f} "
                f"| {one['peak']:.0f} | {one['imports']:.0f} |"
            )
            share = asked.maps / 100_000
            if one["open"] + one["load"] > SECONDS * share or one["peak"] > MEGABYTES:
                print(f"above {SECONDS} s per 100,000 maps, or above {MEGABYTES} MB")
    print(cpu())


if __name__ == "__main__":
    main()
