"""Defects of made-up wafers found by a model, at three contrasts to noise.

    python benchmarks/wafer_defects.py MODEL [--fields 160] [--seed 4001]
        [--set tiling.symmetries=8]

On fields that no training saw, each contrast by itself: recall of all defects and of particles
of 4 px and more at one false call per 10 Mpx, read off the free-response curve; and of the
defects 20 px across and more that were found, predicted area over true area, each matched with
the one object it overlaps most: the median error, and the bias, the mean of the ratios less 1. The
last column is the bias of those that an object matches at an IoU of .5 or more: a call that took in
two defects that touch is an error of its own, and a few of them are most of the mean.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.detection import DetectionRule, ImageDetection, detect
from domainseg.instances.free_response import free_response
from domainseg.loaders.wafers import Wafers
from domainseg.records import Instances
from domainseg.segmenter import Segmenter, open_segmenter, segment
from domainseg.sources import annotated

LEVELS = (3.0, 2.0, 1.5)
FALSE_PER_MPX = 0.1
SMALL_PX, LARGE_PX = 4.0, 20.0
MATCHED = 0.5
HEADER = (
    "contrast  fields  Mpx  defects  found  particles  found  large  median |error|  bias  "
    "matched  bias"
)


def main() -> None:
    """Print one row per contrast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--fields", type=int, default=160)
    parser.add_argument("--seed", type=int, default=4001, help="another than any recipe's")
    parser.add_argument("--set", action="append", default=[], help="key=value of the recipe")
    given = parser.parse_args()
    segmenter, _ = open_segmenter(given.model, overrides=given.set)
    print(HEADER)
    for level in LEVELS:
        print(Row.of(segmenter, level, given.fields, given.seed).text(), flush=True)


@dataclass(frozen=True)
class Row:
    """What is found at one contrast to noise."""

    level: float
    detections: tuple[ImageDetection, ...]
    particle: int
    ratios: NDArray[np.float64]
    matched: NDArray[np.bool_]

    @classmethod
    def of(cls, segmenter: Segmenter, level: float, fields: int, seed: int) -> Row:
        """Return the row of fields in which every defect has this contrast."""
        data = Wafers(train=0, val=0, test=fields, levels=(level,), seed=seed).open(Path())
        detections = []
        large: list[tuple[float, float]] = []
        for entry in data.entries():
            sample = data.load(entry)
            truth = annotated(sample)
            found = segment(segmenter, sample).instances()
            detections.append(detect(sample.id, truth, found, rule=DetectionRule()))
            large += _area_ratios(truth, found)
        particle = data.classes.index("particle")
        ratios, ious = np.array(large).reshape(-1, 2).T
        return cls(level, tuple(detections), particle, ratios, ious >= MATCHED)

    def text(self) -> str:
        """Return the row, columns as the header."""
        score = free_response(self.detections).at(FALSE_PER_MPX)[1]
        least = np.inf if score is None else score
        found = np.concatenate([one.found_from for one in self.detections]) >= least
        classes = np.concatenate([one.truth_classes for one in self.detections])
        across = np.sqrt(np.concatenate([one.truth_px for one in self.detections]) * 4 / np.pi)
        particles = (classes == self.particle) & (across >= SMALL_PX)
        mpx = sum(one.inspected_px for one in self.detections) / 1e6
        error = np.median(np.abs(self.ratios - 1)) if len(self.ratios) else np.nan
        alone = self.ratios[self.matched]
        bias, own = (one.mean() - 1 if len(one) else np.nan for one in (self.ratios, alone))
        return (
            f"{self.level:8g} {len(self.detections):7d} {mpx:4.0f} {len(found):8d} "
            f"{found.mean():6.3f} {particles.sum():10d} {found[particles].mean():6.3f} "
            f"{len(self.ratios):6d} {error:15.4f} {bias:+6.4f} {len(alone):8d} {own:+6.4f}"
        )


def _area_ratios(truth: Instances, found: Instances) -> list[tuple[float, float]]:
    """Return predicted over true area, and IoU, of large defects that do not touch the border."""
    labels = found.to_label_map()
    areas = dict(zip(found.ids.tolist(), found.areas_px().tolist(), strict=True))
    height, width = truth.shape
    ratios = []
    for index, area in enumerate(truth.areas_px().tolist()):
        (y0, x0), (y1, x1) = truth.boxes[index]
        if np.sqrt(4 / np.pi * area) < LARGE_PX or min(y0, x0, height - y1, width - x1) <= 0:
            continue
        inside = labels[y0:y1, x0:x1][truth.mask(index)]
        ids, shared = np.unique(inside[inside > 0], return_counts=True)
        if len(ids) and shared.max() > area / 2:
            predicted, both = areas[int(ids[shared.argmax()])], int(shared.max())
            ratios.append((predicted / area, both / (area + predicted - both)))
    return ratios


if __name__ == "__main__":
    main()
