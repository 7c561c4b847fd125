"""How deep a ring of failing dies may be for a model of wafer maps to name it and to mark it.

    python benchmarks/ring_depth.py MODEL

The maps are drawn here and not by the loader that the models learn from: a round wafer of SIDES
dies across on which each die within a depth of the rim fails with one probability, and each other
die with another. For each depth, in dies or in parts of the radius, the table says of how many of
the maps, and of how many with each share of failing dies, the object of highest score is an
Edge-Ring, what the others were called, and the mean IoU of the ring's mask with the dies within the
depth.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.images.channels import DIE_FAILS
from domainseg.instances.image_labels import NONE, strongest_class
from domainseg.instances.planes import union
from domainseg.records import Sample
from domainseg.segmenter import open_segmenter, segment

RING = "Edge-Ring"
SIDES = (26, 34, 42, 52)
DENSE, SPARSE = (0.5, 0.75, 0.95), (0.02, 0.08)
"""Share of the dies that fail inside and outside of the ring."""
DEPTHS: tuple[tuple[str, float, float], ...] = (
    ("1 die", 1.0, 0.0),
    ("2 dies", 2.0, 0.0),
    (".10 of the radius", 0.0, 0.10),
    (".17", 0.0, 0.17),
    (".25", 0.0, 0.25),
    (".33", 0.0, 0.33),
    (".40", 0.0, 0.40),
)
"""What a depth is called, and how many dies and parts of the radius it is."""
SEEDS = 5


def maps(dies: float, part: float) -> Iterator[tuple[float, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yield the share that fails, maps, 0 off the wafer, 1 good, 2 failing, and the ring."""
    for side, dense, sparse, seed in itertools.product(SIDES, DENSE, SPARSE, range(SEEDS)):
        rng = np.random.default_rng([seed, side])
        radius = side / 2
        y, x = np.mgrid[:side, :side] + 0.5 - radius
        away = np.hypot(y, x)
        inside = away < radius
        ring = inside & (away > radius - dies - part * radius)
        fails = inside & (rng.random((side, side)) < np.where(ring, dense, sparse))
        yield dense, np.where(fails, DIE_FAILS, inside).astype(np.uint8), ring


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    segmenter, card = open_segmenter(parser.parse_args().model)
    names = (*card.classes, NONE)
    shares = " | ".join(f"{share:g} fail" for share in DENSE)
    print(f"| depth | maps | called Edge-Ring | {shares} | IoU | others |")
    print("|---" * (5 + len(DENSE)) + "|")
    for name, dies, part in DEPTHS:
        called: Counter[str] = Counter()
        right: Counter[float] = Counter()
        ious = []
        for dense, map_, ring in maps(dies, part):
            sample = Sample("map", map_[None], ("die",))
            found = segment(segmenter, sample).instances()
            label = names[strongest_class(found, len(card.classes))]
            called[label] += 1
            right[dense] += label == RING
            marked = union(found, found.classes == card.classes.index(RING))
            ious.append((marked & ring).sum() / (marked | ring).sum())
        called.pop(RING, None)
        others = ", ".join(f"{one} {count}" for one, count in called.most_common())
        by_share = " | ".join(str(right[share]) for share in DENSE)
        figures = f"{len(ious)} | {right.total()} | {by_share} | {np.mean(ious):.2f}"
        print(f"| {name} | {figures} | {others} |", flush=True)


if __name__ == "__main__":
    main()
