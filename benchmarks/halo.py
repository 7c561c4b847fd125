"""How far each halo is from the widest, on objects of the validation images of a model's data.

    python benchmarks/halo.py MODEL DATA

The same measurement as at the end of a training, for a model file that is there: cores of 256 px
amid the largest validation image of each kind and then the next largest, where objects are;
the worst of them for each halo. Prints a table, and the halo that is chosen by it.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from domainseg.model_plane import model_plane
from domainseg.segmenter import open_segmenter
from domainseg.sources import annotated, open_source
from domainseg.tiling.halo import (
    HALO_STRIDES,
    MOST_CORES,
    REFERENCE_STRIDES,
    HaloImage,
    measure_on_objects,
    sufficient_halo,
)
from domainseg.training.prepared import find_places


def main(model: Path, data: str) -> None:
    segmenter, card = open_segmenter(model)
    section = segmenter.recipe.data.model_copy(update={"root": data})
    source = open_source(segmenter.recipe.model_copy(update={"data": section}))
    samples = [source.load(entry) for entry in source.splits.val]
    samples.sort(key=lambda sample: -sample.image.shape[1] * sample.image.shape[2])
    taken: Counter[str | None] = Counter()
    ranked = []
    for place, sample in enumerate(samples):
        ranked.append((taken[sample.kind], place, sample))
        taken[sample.kind] += 1
    chosen = [sample for *_, sample in sorted(ranked, key=lambda one: one[:2])[:MOST_CORES]]
    images = []
    for sample in chosen:
        plane = model_plane(segmenter.recipe, sample, diameter_px=segmenter.diameter_px)
        places = find_places(annotated(sample), scale_yx=plane.grid.scale_yx)
        images.append(HaloImage(plane, places.centres))
        print(f"{sample.id} ({sample.kind}), {plane.shape[1]} x {plane.shape[2]} px")
    stride = card.stride_px
    readings = measure_on_objects(
        segmenter.make_maps,
        images,
        core_px=stride * max(1, 256 // stride),
        halos=[stride * factor for factor in HALO_STRIDES],
        reference_px=stride * REFERENCE_STRIDES,
    )
    print("| halo, px | " + " | ".join(str(r.halo_px) for r in readings) + " |")
    print("|---" * (len(readings) + 1) + "|")
    print("| difference | " + " | ".join(f"{r.difference:.3f}" for r in readings) + " |")
    print(
        "| flipped, of 65,536 | " + " | ".join(f"{65536 * r.flipped:.0f}" for r in readings) + " |"
    )
    print(f"chosen: {sufficient_halo(readings).halo_px} px; recorded: {card.halo_px} px")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
