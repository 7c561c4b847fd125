"""Time and split quality of the exact decoder against scipy and scikit-image.

    python benchmarks/decode.py [--seed 0] [--side 4096] [--repeats 5]

One made-up image of touching ellipses (about 35 % foreground) is decoded from
maps in memory to a label map and a table of label, area, box, centroid and mean
foreground probability. The reference makes the same table from the same
foreground: `distance_transform_edt`, `peak_local_max`, `watershed`,
`regionprops_table`. Both are warmed up; the least of the repeats counts, the
reference runs once. Ratios are of one run on one machine.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.measure import regionprops_table
from skimage.segmentation import watershed

from domainseg.instances.basins import DecodeOptions, decode
from domainseg.records import Maps, probability, quantise_height, quantise_logit

Labels = NDArray[np.int32]
MIN_DISTANCE_PX = 5
COLUMNS = ("label", "area", "bbox", "centroid", "intensity_mean")


@dataclass(frozen=True)
class Scene:
    """Exact objects and the maps a good head would predict of them."""

    truth: Labels
    maps: Maps


def draw_ellipses(rng: np.random.Generator, side: int) -> Labels:
    """Return a label map of ellipses of 7 to 14 px radius, many of them touching."""
    labels = np.zeros((side, side), np.int32)
    count = side * side // 450
    clumps = rng.uniform(0, side, (max(count // 5, 1), 2))
    centres = clumps[rng.integers(len(clumps), size=count)] + rng.normal(0, 22, (count, 2))
    for number, (cy, cx) in enumerate(centres, 1):
        a, b, turn = *rng.uniform(7, 14, 2), rng.uniform(0, np.pi)
        y0, x0 = max(int(cy) - 15, 0), max(int(cx) - 15, 0)
        box = labels[y0 : int(cy) + 16, x0 : int(cx) + 16]
        if box.size == 0 or cy < 0 or cx < 0:
            continue
        y, x = np.ogrid[y0 : y0 + box.shape[0], x0 : x0 + box.shape[1]]
        along = (y - cy) * np.sin(turn) + (x - cx) * np.cos(turn)
        across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        inside = (along / a) ** 2 + (across / b) ** 2 <= 1
        # An ellipse that would lose much of itself to one already there is left out.
        if np.count_nonzero(box[inside]) <= 0.15 * np.count_nonzero(inside):
            box[inside & (box == 0)] = number
    return labels


def draw_scene(seed: int, side: int) -> Scene:
    """Return ellipses with smoothed distances to their own edges, 0.05 of error added."""
    rng = np.random.default_rng(seed)
    truth = draw_ellipses(rng, side)
    inner = truth > 0
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        inner &= np.roll(truth, step, axis) == truth
    distance = ndimage.distance_transform_edt(inner)
    distance = distance.astype(np.float32) + (truth > 0)
    largest = np.ones(truth.max() + 1, np.float32)
    np.maximum.at(largest, truth.ravel(), distance.ravel())
    error = ndimage.gaussian_filter(rng.standard_normal(truth.shape, np.float32), 2.0)
    height = ndimage.gaussian_filter(distance / largest[truth], 1.0) + 0.05 / error.std() * error
    logit = np.where(truth > 0, 4 * height + 0.5, -6)
    maps = Maps(
        quantise_logit(logit)[None],
        quantise_height(height)[None],
        np.zeros((1, side, side), np.uint8),
    )
    return Scene(truth, maps)


def seconds(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the least time of the repeats, and what the last one returned."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


def split_by_watershed(height: NDArray[Any], mask: NDArray[np.bool_]) -> tuple[Labels, float]:
    """Return watershed basins of the local peaks of ``height``, and the watershed's own seconds."""
    peaks = peak_local_max(  # type: ignore[no-untyped-call]
        height, min_distance=MIN_DISTANCE_PX, labels=mask.astype(np.int32), exclude_border=False
    )
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    start = time.perf_counter()
    labels = watershed(-height, markers, mask=mask)  # type: ignore[no-untyped-call]
    return labels, time.perf_counter() - start


def reference(maps: Maps) -> tuple[Labels, float]:
    """Return the reference's labels, and the seconds of its watershed; its table is dropped."""
    mask = maps.foreground[0] >= 128
    labels, alone = split_by_watershed(ndimage.distance_transform_edt(mask), mask)
    chance = probability(maps.foreground[0])
    regionprops_table(labels, chance, properties=COLUMNS)  # type: ignore[no-untyped-call]
    return labels, alone


def f1(labels: Labels, truth: Labels, iou: float) -> float:
    """Return 2 TP / (objects + true objects) of pairs that overlap by more than ``iou`` >= 0.5."""
    pairs, shared = np.unique(
        labels.astype(np.int64) << 32 | truth.astype(np.int64), return_counts=True
    )
    one, two = pairs >> 32, pairs & 0xFFFFFFFF
    areas, true_areas = np.bincount(labels.ravel()), np.bincount(truth.ravel())
    real = (one > 0) & (two > 0)
    union = areas[one] + true_areas[two] - shared
    matched = np.count_nonzero((shared > iou * union) & real)
    return 2 * matched / (np.count_nonzero(areas[1:]) + np.count_nonzero(true_areas[1:]))


def machine() -> str:
    """Return the processor, its widest vector instructions, and the cores in use."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    model = next((line.split(": ")[1] for line in text.splitlines() if "model name" in line), "?")
    vectors = [name for name in ("avx512f", "avx2", "asimd") if name in text]
    return f"{model}, {vectors[0] if vectors else 'vectors unknown'}, {os.cpu_count()} cores"


def compare(scene: Scene, repeats: int) -> None:
    options = DecodeOptions()
    ours, found = seconds(lambda: decode(scene.maps, options), repeats)
    theirs, (labels, alone) = seconds(lambda: reference(scene.maps), 1)
    mask = scene.maps.foreground[0] >= 128
    same_heights, _ = split_by_watershed(scene.maps.height[0].astype(np.float32), mask)
    print(f"decode, labels and table    {ours:8.3f} s")
    print(f"reference, same columns     {theirs:8.3f} s   {theirs / ours:6.1f} times ours")
    print(f"its watershed alone         {alone:8.3f} s   {alone / ours:6.1f} times ours")
    print("\nF1 against the truth                      IoU .5   IoU .8   objects")
    for name, split in (
        ("decode", found.labels[0]),
        ("watershed on the distance of the mask", labels),
        ("watershed on the decoder's heights", same_heights),
    ):
        scores = (f1(split, scene.truth, iou) for iou in (0.5, 0.8))
        count = len(np.unique(split)) - 1
        print(f"  {name:38s}" + "".join(f"{s:8.3f} " for s in scores) + f"{count:9d}")


def scale(side: int, seed: int, repeats: int) -> None:
    """Print the time per Mpx of one scene repeated 1, 4 and 16 times."""
    maps = draw_scene(seed, side).maps
    print("\nMpx      s     ms/Mpx   objects")
    for times in (1, 2, 4):
        larger = Maps(
            np.tile(maps.foreground, (1, times, times)),
            np.tile(maps.height, (1, times, times)),
            np.tile(maps.classes, (1, times, times)),
        )
        spent, found = seconds(partial(decode, larger, DecodeOptions()), repeats)
        size = larger.height.size / 2**20
        print(f"{size:4.0f} {spent:8.3f} {1000 * spent / size:8.2f} {len(found.areas_px):9d}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=4096, help="pixels in a row of the image")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    decode(draw_scene(asked.seed, 64).maps, DecodeOptions())
    scene = draw_scene(asked.seed, asked.side)
    share = np.mean(scene.maps.foreground >= 128)
    print(
        f"{machine()}\n{asked.side} x {asked.side} px, {share:.1%} foreground, seed {asked.seed}\n"
    )
    compare(scene, asked.repeats)
    scale(asked.side // 2, asked.seed, asked.repeats)


if __name__ == "__main__":
    main()
