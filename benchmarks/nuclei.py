"""Score a nuclei model and Otsu + distance transform + watershed on the same test images.

    python benchmarks/nuclei.py MODEL DATA [--json FILE]

Prints one table per method by kind of image, and the paired bootstrap interval of the
difference in mean AP.

The constants of the classical method are the best found on all validation images of
BBBC038, by mean AP .5-.9 to three digits and then by AP .5: .691 and .519 there. Tried were
smoothing before the threshold by 0, .5, 1 and 2 px (1 px: .678 and .493), holes filled and
left, objects of up to 0, 10, 20 and 40 px removed, the distance smoothed by 0 to 3 px, and
as markers its h-maxima with h of .25 to 1 or its peaks at least 3 to 12 px apart (best at
7 px, with those at the image's border: .684 and .510). The side of the threshold with fewer
pixels and the side that the image's border is not on are the same side in all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter
from skimage.color import rgb2gray
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.morphology import h_maxima, remove_small_objects
from skimage.segmentation import watershed

from domainseg.evaluate import evaluate_model
from domainseg.instances.evaluation import (
    Evaluation,
    LabelPair,
    evaluate_pairs,
    mean_ap_difference,
)
from domainseg.models.model_file import read_card
from domainseg.recipe import recipe_from_json, with_overrides
from domainseg.records import Array
from domainseg.sources import open_source, truth_labels

SMALLEST_PX = 20
DISTANCE_SMOOTH_PX = 2.0
MARKER_HEIGHT_PX = 0.5


def otsu_watershed(image: Array) -> NDArray[np.int32]:
    """Return labels ``(H, W)`` of ``image (C, H, W)``: threshold, distance, markers, flood.

    Objects are the side of Otsu's threshold with fewer pixels, so that dark nuclei on a
    bright ground are found as bright ones on a dark ground are.
    """
    grey = rgb2gray(image[:3].transpose(1, 2, 0)) if len(image) >= 3 else image[0].astype(float)
    if grey.min() == grey.max():
        return np.zeros(grey.shape, np.int32)
    bright = grey > threshold_otsu(grey)  # type: ignore[no-untyped-call]
    foreground = binary_fill_holes(bright if bright.mean() <= 0.5 else ~bright)
    foreground = remove_small_objects(foreground, max_size=SMALLEST_PX)
    distance = gaussian_filter(distance_transform_edt(foreground), DISTANCE_SMOOTH_PX)
    peaks = h_maxima(distance, MARKER_HEIGHT_PX)  # type: ignore[no-untyped-call]
    markers = label(peaks.astype(bool) & foreground)  # type: ignore[no-untyped-call]
    flooded = watershed(-distance, markers, mask=foreground)  # type: ignore[no-untyped-call]
    return np.asarray(flooded, np.int32)


def evaluate_classical(model: Path, data: Path) -> Evaluation:
    """Return the scores of the classical method on the test part of the model's recipe."""
    recipe = recipe_from_json(read_card(model).recipe, where=str(model))
    source = open_source(with_overrides(recipe, [f"data.root={data}"]))

    def pairs() -> Iterator[LabelPair]:
        for entry in source.splits.test:
            sample = source.load(entry)
            found = otsu_watershed(np.asarray(sample.image[:, :, :]))
            yield LabelPair(entry.id, truth_labels(sample)[0], found, kind=sample.kind)

    return evaluate_pairs(pairs(), rng=np.random.default_rng(0))


def show(name: str, found: Evaluation, seconds: float) -> None:
    header, rows = found.table()
    print(f"\n{name}  ({seconds:.1f} s)\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    ours = evaluate_model(arguments.model, arguments.data)
    middle = time.perf_counter()
    classical = evaluate_classical(arguments.model, arguments.data)
    show("domainseg", ours, middle - begun)
    show("Otsu + distance transform + watershed", classical, time.perf_counter() - middle)
    gain, interval = mean_ap_difference(ours, classical, np.random.default_rng(0))
    print(
        f"\nmean AP .5-.9, ours minus classical: {gain:.3f} ({interval[0]:.3f} to "
        f"{interval[1]:.3f}, paired bootstrap over images)"
    )
    if arguments.json:
        both = {"domainseg": ours.to_json(), "classical": classical.to_json()}
        arguments.json.write_text(json.dumps(both, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
