"""Images at other scales than those of a training: measured diameters, and what they are good for.

    python benchmarks/diameter.py MODEL DATA [--factors 0.25 0.5 1 2 4]

The test images of DATA, each resampled by every factor (of what is enlarged the middle, so that it
stays as large as it was), are segmented as they are, with ``--diameter-px auto``, and with the true
median diameter. Prints for each factor how far the measured diameter is from the true one, and AP
at IoU .5 and in the mean of the three.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from skimage.transform import resize

from domainseg.diameter import estimate_diameter
from domainseg.instances.evaluation import LabelPair, evaluate_pairs
from domainseg.model_plane import object_diameter
from domainseg.recipe import with_overrides
from domainseg.records import Instances, Sample
from domainseg.runs import Model, RunOptions, model_at, open_model
from domainseg.segmenter import segment
from domainseg.sources import open_source, truth_labels

LEAST_PX = 48
"""Shorter side of an image that is still used."""
FEWEST = 5
"""Objects in an image that is used."""


@dataclass(frozen=True)
class Rescaled:
    """An image at another scale, its labels, and the median diameter of its objects."""

    sample: Sample
    labels: np.ndarray[tuple[int, int], np.dtype[np.int32]]
    diameter_px: float


def rescaled(sample: Sample, factor: float) -> Rescaled | None:
    """Return an image resampled by a factor, None where too little of it is left."""
    pixels, labels = np.asarray(sample.image[:, :, :]), truth_labels(sample)[0]
    height, width = labels.shape
    if factor > 1:
        h, w = round(height / factor), round(width / factor)
        y, x = (height - h) // 2, (width - w) // 2
        pixels, labels = pixels[:, y : y + h, x : x + w], labels[y : y + h, x : x + w]
    size = tuple(round(side * factor) for side in labels.shape)
    if min(size) < LEAST_PX:
        return None
    smooth = [
        resize(one, size, order=1, preserve_range=True, anti_aliasing=True)  # type: ignore[no-untyped-call]
        for one in pixels
    ]
    nearest = resize(labels, size, order=0, preserve_range=True, anti_aliasing=False)  # type: ignore[no-untyped-call]
    made = np.asarray(nearest, np.int32)
    truth = Instances.from_label_map(made)
    if len(truth) < FEWEST:
        return None
    image = np.rint(np.stack(smooth)).astype(np.uint8)
    changed = replace(sample, image=image, truth=truth)
    return Rescaled(changed, made, object_diameter(changed) or 0.0)


def scored(model: Model, images: list[Rescaled], diameters: list[float | None]) -> tuple[str, str]:
    """Return AP at .5 and in the mean with a diameter given for each image."""

    def pairs() -> Iterator[LabelPair]:
        for number, (one, diameter) in enumerate(zip(images, diameters, strict=True)):
            segmenter = model_at(model, diameter).segmenter
            found = segment(segmenter, one.sample, diameter_px=diameter).labels[0]
            yield LabelPair(str(number), one.labels, found)

    mean = evaluate_pairs(pairs()).all.mean
    return f"{mean.ap[0]:.3f}", f"{mean.mean_ap:.3f}"


def main() -> None:
    """Print a row for each factor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--factors", type=float, nargs="+", default=[0.25, 0.5, 1, 2, 4])
    options = parser.parse_args()
    model = open_model(options.model, RunOptions())
    recipe = with_overrides(model.segmenter.recipe, [f"data.root={options.data}"])
    source = open_source(recipe)
    print("factor  images  median px  error, median  within 1.5  as it is      auto          true")
    for factor in options.factors:
        found = [rescaled(source.load(entry), factor) for entry in source.splits.test]
        images = [one for one in found if one is not None]
        measured = [estimate_diameter(model.segmenter, model.card, one.sample) for one in images]
        true = [one.diameter_px for one in images]
        off = [
            np.inf if one is None else abs(np.log(one / wanted))
            for one, wanted in zip(measured, true, strict=True)
        ]
        print(
            f"{factor:>6g}  {len(images):>6}  {np.median(true):>9.1f}  "
            f"{100 * (np.exp(np.median(off)) - 1):>11.0f} %  "
            f"{np.mean(np.array(off) < np.log(1.5)):>10.2f}  "
            f"{' '.join(scored(model, images, [None] * len(images))):>12}  "
            f"{' '.join(scored(model, images, measured)):>12}  "
            f"{' '.join(scored(model, images, list(true))):>12}",
            flush=True,
        )


if __name__ == "__main__":
    main()
