"""Score a nuclei model and Otsu + distance transform + watershed on the same test images.

    python benchmarks/nuclei.py MODEL DATA [--json FILE]

Prints one table per method by kind of image, and the paired bootstrap interval of the
difference in mean AP.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from otsu import otsu_watershed

from domainseg.evaluate import evaluate_model
from domainseg.instances.evaluation import (
    Evaluation,
    LabelPair,
    evaluate_pairs,
    mean_ap_difference,
)
from domainseg.models.model_file import read_card
from domainseg.recipe import recipe_from_json, with_overrides
from domainseg.sources import open_source, truth_labels


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
