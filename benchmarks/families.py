"""Models of every family on the same test images, in one table.

    python benchmarks/families.py DATA MODEL...

Each model is scored on the part ``test`` of its own recipe's data, at DATA: AP in the sense of the
Data Science Bowl, TP / (TP + FP + FN), the mean over images; F1 at IoU .5, PQ and AJI pooled; and
COCO's AP of masks without its cap of 100 objects. Seconds are of the whole evaluation, reading
and scoring included, per Mpx of the images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from domainseg.evaluate import evaluate_model
from domainseg.models.model_file import read_card
from domainseg.recipe import recipe_from_json, with_overrides
from domainseg.runs import RunOptions
from domainseg.sources import open_source

HEADER = (
    "model",
    "encoder",
    "steps",
    "minutes",
    "AP .5",
    "AP .75",
    "AP .5-.9",
    "F1",
    "PQ",
    "AJI",
    "COCO AP",
    "COCO AP .5",
    "s/Mpx",
)


def row_of(model: Path, data: Path) -> tuple[str, ...]:
    """Return the figures of one model."""
    card = read_card(model)
    recipe = with_overrides(recipe_from_json(card.recipe, where=str(model)), [f"data.root={data}"])
    source = open_source(recipe)
    sizes = [source.load(entry).image.shape for entry in source.splits.test]
    mpx = sum(int(shape[1]) * int(shape[2]) for shape in sizes) / 1e6
    # What COCO scores are all calls; what AP of the Data Science Bowl scores are those shown.
    options = RunOptions(overrides=("evaluate.coco=true",))
    begun = time.monotonic()
    found = evaluate_model(model, data, part="test", options=options)
    seconds = time.monotonic() - begun
    mean, pooled = found.all.mean, found.all.pooled
    assert found.coco is not None
    coco = found.coco.mask.uncapped
    return (
        recipe.model.name,
        recipe.model.encoder,
        str(card.training["steps"]),
        str(card.training["minutes"]),
        *(f"{value:.3f}" for value in (mean.ap[0], mean.ap[5], mean.mean_ap)),
        *(f"{value:.3f}" for value in (pooled.f1, pooled.pq, pooled.aji)),
        *(f"{value:.3f}" for value in (coco.ap, coco.ap50)),
        f"{seconds / mpx:.2f}",
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    options = parser.parse_args()
    print("| " + " | ".join(HEADER) + " |")
    print("|" + "---|" * len(HEADER))
    for model in options.models:
        print("| " + " | ".join(row_of(model, options.data)) + " |", flush=True)


if __name__ == "__main__":
    main()
