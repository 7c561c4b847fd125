"""What a recipe for COCO can learn: a few images by heart, scored on themselves.

    python benchmarks/coco_overfit.py COCO OUT [--panoptic] [--images 8] [--steps 300]

COCO is a folder with the sample's layout: annotations/instances_train2017.json,
annotations/panoptic_train2017.json with its PNGs, and train2017/. Of it the first images with two
objects or more are taken. It is no measure of how good a model is on others: it shows that
targets, losses, decoding and scores fit together, at every size of object that there is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from domainseg.evaluate import evaluate_model
from domainseg.runs import RunOptions
from domainseg.train import train

IMAGES = "train2017"


def chosen(told: dict[str, Any], objects: dict[int, int], count: int) -> list[dict[str, Any]]:
    """Return the first images, by id, that have two objects or more."""
    found = [image for image in told["images"] if objects.get(image["id"], 0) >= 2]
    return sorted(found, key=lambda image: int(image["id"]))[:count]


def cut(root: Path, out: Path, count: int, *, panoptic: bool) -> None:
    """Write the first images and their annotations into ``out``."""
    name = "panoptic_train2017" if panoptic else "instances_train2017"
    told = json.loads((root / "annotations" / f"{name}.json").read_text())
    objects: dict[int, int] = {}
    things = {one["id"] for one in told["categories"] if one.get("isthing", 1)}
    for one in told["annotations"]:
        listed = one["segments_info"] if panoptic else [one]
        held = sum(s["category_id"] in things and not s.get("iscrowd") for s in listed)
        objects[one["image_id"]] = objects.get(one["image_id"], 0) + held
    images = chosen(told, objects, count)
    kept = {image["id"] for image in images}
    told["images"] = images
    told["annotations"] = [one for one in told["annotations"] if one["image_id"] in kept]
    shutil.rmtree(out, ignore_errors=True)
    (out / "images").mkdir(parents=True)
    (out / "annotations.json").write_text(json.dumps(told))
    for image in images:
        shutil.copy(root / IMAGES / image["file_name"], out / "images")
    if panoptic:
        (out / "pngs").mkdir()
        for one in told["annotations"]:
            shutil.copy(root / "annotations" / name / one["file_name"], out / "pngs")


def main() -> None:
    """Cut the data, train on it, and print what the model makes of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("coco", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--panoptic", action="store_true")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    begun = time.monotonic()
    data = options.out / "data"
    cut(options.coco, data, options.images, panoptic=options.panoptic)
    loader = "{name: coco, images: images, annotations: annotations.json%s}"
    overrides = [
        "data.loader=" + loader % (", panoptic: pngs" if options.panoptic else ""),
        f"data.root={data}",
        "data.split={by: hash, val: 0, test: 0}",
        "augment=[]",
        "train.accumulate=1",
        "train.max_epochs=null",
        f"train.max_steps={options.steps}",
        "train.steps_per_epoch=50",
        "train.learning_rate=0.001",
        "train.ema_decay=0.98",
        "evaluate.part=train",
    ]
    recipe = "coco-panoptic" if options.panoptic else "coco-maskrcnn"
    told = [0.0]

    def tell(stage: str, progress: Any) -> None:
        if progress is None or time.monotonic() - told[0] > 30:
            told[0] = time.monotonic()
            at = "" if progress is None else f" {progress.step} of {progress.steps}"
            print(f"{stage}{at}", flush=True)

    trained = train(recipe, options.out / "model", overrides=overrides, tell=tell)
    asked = [["instances.min_score=0.05", "evaluate.coco=true", "evaluate.panoptic=false"]]
    if options.panoptic:
        asked.append(["instances.min_score=0.5", "evaluate.panoptic=true", "evaluate.coco=false"])
    for changes in asked:
        scores = RunOptions(overrides=tuple(changes))
        for header, rows in evaluate_model(trained.model, options=scores).tables():
            print(*header, sep="\t")
            for row in rows[:4]:
                print(*row, sep="\t", flush=True)
    print(f"{(time.monotonic() - begun) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
