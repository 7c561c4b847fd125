"""Time of COCO's numbers, and how many times as long pycocotools takes, in one run.

``python benchmarks/coco_eval.py`` scores 2,025 predicted discs against 2,025 true ones in one
image, with COCO's cap of 100 and without a cap, and 500 made-up images of 80 classes with 7
objects and 60 predictions each; masks, then boxes. Ours is the time from `Instances` to the
numbers, encoding included, and always gives both, with and without the cap, of all classes and
of each; theirs is that from annotations that are encoded already. Without a cap pycocotools
takes minutes on the dense image: ``--uncapped`` asks for it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from domainseg.instances.coco_ap import CocoPair, summarise_coco
from domainseg.instances.coco_curves import Kind, class_curves
from domainseg.instances.coco_image import CocoImage, CocoObjects, coco_image
from domainseg.records import Instances

Labels = NDArray[np.int32]
Pair = tuple[Instances, Instances]
KINDS: tuple[Kind, ...] = ("mask", "box")


def discs(side: int, *, pitch: int, rng: np.random.Generator) -> Labels:
    """Return ``side * side`` discs on a grid, each moved and sized at random, touching."""
    edge = side * pitch
    y, x = np.mgrid[:edge, :edge]
    row, column = y // pitch, x // pitch
    middle = rng.uniform(0.4, 0.6, (2, side, side)) * pitch
    radius = rng.uniform(0.3, 0.55, (side, side)) * pitch
    away = (y % pitch - middle[0][row, column]) ** 2 + (x % pitch - middle[1][row, column]) ** 2
    inside = away < radius[row, column] ** 2
    return np.where(inside, row * side + column + 1, 0).astype(np.int32)


def scored(labels: Labels, rng: np.random.Generator) -> Instances:
    """Return the objects with random scores."""
    found = Instances.from_label_map(labels)
    return replace(found, scores=rng.random(len(found)).astype(np.float32))


def dense(rng: np.random.Generator) -> list[Pair]:
    truth = discs(45, pitch=24, rng=rng)
    predicted = np.roll(discs(45, pitch=24, rng=rng), (1, 3), (0, 1))
    return [(Instances.from_label_map(truth), scored(predicted, rng))]


def like_coco(rng: np.random.Generator, *, images: int) -> list[Pair]:
    """Return images of 480 x 640 px with rectangles of 80 classes, most of them false."""
    return [
        (rectangles(7, rng, seed=number), rectangles(60, rng, seed=number))
        for number in range(images)
    ]


def rectangles(count: int, rng: np.random.Generator, *, seed: int) -> Instances:
    """Return objects that may overlap; the first seven are near those of every other call."""
    shared = np.random.default_rng(seed)
    parts = []
    for row in range(count):
        source = shared if row < 7 else rng
        y, x = source.integers(0, (400, 540))
        height, width = source.integers(8, 160, 2)
        y, x = np.maximum(np.array([y, x]) + rng.integers(-4, 5, 2), 0)
        plane = np.zeros((480, 640), np.uint8)
        plane[y : y + height, x : x + width] = 1
        one = Instances.from_label_map(plane)
        classes = np.array([source.integers(80)], np.int16)
        parts.append(replace(one, classes=classes, ids=np.array([row + 1])))
    joined = Instances.joined(parts)
    return replace(joined, scores=rng.random(count).astype(np.float32))


def gathered(pairs: Sequence[Pair]) -> list[CocoImage]:
    return [coco_image(f"{row:06d}", *pair) for row, pair in enumerate(pairs)]


def rows(images: Sequence[CocoImage], kind: Kind, *, truth: bool) -> list[dict[str, Any]]:
    """Return one side of the images as pycocotools reads it."""
    made: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        side: CocoObjects = image.truth if truth else image.predicted
        for row in range(len(side)):
            bbox = side.boxes_xywh[row].tolist()
            area = int(side.areas_px[row]) if truth or kind == "mask" else bbox[2] * bbox[3]
            made.append(
                {
                    "id": len(made) + 1,
                    "image_id": number,
                    "category_id": int(side.classes[row]) + 1,
                    "iscrowd": 0,
                    "area": area,
                    "bbox": bbox,
                    "score": float(side.scores[row]),
                    "segmentation": {"size": list(image.shape), "counts": side.counts[row]},
                }
            )
    return made


def theirs(images: Sequence[CocoImage], kind: Kind, cap: int) -> tuple[float, list[float]]:
    """Return the seconds of pycocotools, and AP, AP .5, AP .75, AR at the cap."""
    sides = []
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        for truth in (True, False):
            side = COCO()
            side.dataset = {
                "images": [
                    {"id": number, "height": image.shape[0], "width": image.shape[1]}
                    for number, image in enumerate(images, start=1)
                ],
                "annotations": rows(images, kind, truth=truth),
                "categories": [{"id": index + 1} for index in range(80)],
            }
            side.createIndex()
            sides.append(side)
        start = time.perf_counter()
        evaluation = COCOeval(*sides, iouType="segm" if kind == "mask" else "bbox")
        evaluation.params.maxDets = [1, 10, cap]
        evaluation.evaluate()
        evaluation.accumulate()
        seconds = time.perf_counter() - start
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    slices = (precision[..., 0, 2], precision[0, ..., 0, 2], precision[5, ..., 0, 2])
    return seconds, [float(one[one > -1].mean()) for one in (*slices, recall[..., 0, 2])]


def ours(pair: CocoPair, *, capped: bool) -> list[float]:
    one = pair.capped if capped else pair.uncapped
    return [one.ap, one.ap50, one.ap75, one.ar]


def by_class(images: Sequence[CocoImage]) -> dict[int, list[CocoImage]]:
    there: dict[int, list[CocoImage]] = {}
    for one in images:
        for index in np.union1d(one.truth.classes, one.predicted.classes).tolist():
            there.setdefault(index, []).append(one)
    return there


def compare(name: str, pairs: Sequence[Pair], caps: Sequence[int]) -> None:
    start = time.perf_counter()
    images = gathered(pairs)
    encoding = time.perf_counter() - start
    start = time.perf_counter()
    found = summarise_coco(images, class_names=[str(index) for index in range(80)])
    scoring = time.perf_counter() - start
    print(
        f"{name}: {found.calls} predictions, {found.truths} objects, {found.images} images\n"
        f"  ours, masks and boxes, with and without a cap: {encoding:.3f} s to gather, "
        f"{scoring:.3f} s to score"
    )
    for kind in KINDS:
        for cap in caps:
            capped = cap == 100
            start = time.perf_counter()
            for index, holding in by_class(images).items():
                class_curves(holding, index, kind=kind, capped=capped)
            mine = time.perf_counter() - start
            seconds, wanted = theirs(images, kind, cap)
            pair = found.mask if kind == "mask" else found.box
            far = np.abs(np.array(ours(pair, capped=capped)) - wanted).max()
            print(
                f"  {kind}, at most {cap}: ours {mine:.3f} s, pycocotools {seconds:.3f} s, "
                f"{seconds / mine:.1f} times as long; largest difference {far:.1e}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uncapped", action="store_true", help="pycocotools without a cap too")
    asked = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, numpy {np.__version__}")
    rng = np.random.default_rng(0)
    # Compiles what is compiled on first use.
    summarise_coco(gathered(like_coco(rng, images=2)), class_names=[str(i) for i in range(80)])
    compare("dense", dense(rng), (100, 100_000) if asked.uncapped else (100,))
    compare("like COCO", like_coco(rng, images=500), (100,))


if __name__ == "__main__":
    main()
